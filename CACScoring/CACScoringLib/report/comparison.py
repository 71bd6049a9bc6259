"""Pages and texts of the comparison of two scans."""

from __future__ import annotations

from ..core.text import signed
from ..quality.calibration import Repeatability
from ..record.scores import STATUSES
from ..results import CLINICAL_TITLES, METHOD_TITLES
from ..scoring.comparison import BY_INTERVALS, DAYS_OF_YEAR, TOTAL, Change, Comparison, MethodComparison
from .headline import range_text

NOT_IN_PATIENTS = "The limits come from digital patients and are not established in patients."


def time_between(comparison: Comparison) -> str:
    """Return the time between the scans in words."""
    days = comparison.days
    if days is None:
        return "unknown"
    words = f"{abs(days):,} days ({abs(days) / DAYS_OF_YEAR:.1f} years)"
    return f"{words}, in exchanged order" if days < 0 else words


def comparison_as_text(comparison: Comparison) -> str:
    """Totals by method and their verdicts, and what the limits come from."""
    lines = [f"Time between the scans: {time_between(comparison)}"]
    for method in comparison.methods:
        lines.append(f"{method_heading(method)}:")
        lines += [f"  {change_sentence(method, change)}" for change in method.changes if change.part == TOTAL]
        if not method.changes:
            lines.append(f"  cannot be determined: {method.bars[0]}")
    source = comparison.repeatability
    if source is not None:
        lines.append(f"Limits: {source.data} ({source.date}).")
        lines += [NOT_IN_PATIENTS] if source.digital else []
    return "\n".join(lines)


def method_heading(method: MethodComparison) -> str:
    """Return the title of a method's comparison, with the status of its scores."""
    title = METHOD_TITLES[method.method]
    return title if method.status is None else f"{title}, {STATUSES[method.status]}"


def rests_on_intervals(comparison: Comparison) -> bool:
    """True if a change follows from intervals, because no limits hold."""
    return any(change.based_on == BY_INTERVALS for method in comparison.methods for change in method.changes)


def most_pairs(source: Repeatability) -> int:
    """Return the largest number of pairs that limits of totals rest on."""
    totals = [parts[TOTAL] for quantities in source.limits.values() for parts in quantities.values() if TOTAL in parts]
    return max((limits.pairs for limits in totals), default=0)


def change_sentence(method: MethodComparison, change: Change) -> str:
    """Return both values of a quantity, their difference, its limit and the verdict."""
    repeats = "" if change.limit is None else f", repeatability limit ±{quantity_text(change.quantity, change.limit)}"
    if change.intervals is not None:
        repeats += f", 90 % intervals {intervals_text(change)}"
    changes = ((change.per_cent, " %"), (change.per_year, " a year"))
    rates = "".join(f"{rate_text(rate, unit)}, " for rate, unit in changes if rate)
    return (
        f"{quantity_title(method, change.quantity)} {quantity_text(change.quantity, change.earlier)} → "
        f"{quantity_text(change.quantity, change.later)} ({difference_text(change)}, {rates}square root "
        f"{signed(change.difference_of_roots, 2)}{repeats}): {change.text}"
    )


def rate_text(rate: tuple[float, ...], unit: str = "") -> str:
    """Return a change per cent or per year with its interval; "–" if unknown."""
    texts = [signed(value, 0 if abs(value) >= 10 else 1) for value in rate]
    interval = f" [{texts[1]} to {texts[2]}]" if texts[1:] else ""
    return f"{texts[0]}{unit}{interval}" if texts else "–"


def intervals_text(change: Change) -> str:
    """Return both 90 % intervals."""
    if change.intervals is None:
        return "–"
    earlier, later = (range_text(*interval) for interval in change.intervals)
    return f"{earlier} → {later}"


def quantity_title(method: MethodComparison, quantity: str) -> str:
    """Return the title of a compared quantity."""
    titles = {"volume_mm3": "Volume, mm³", "pseudo_mass_hu_mm3": "Pseudo-mass, HU·mm³"}
    return titles.get(quantity, CLINICAL_TITLES[method.method])


def quantity_text(quantity: str, value: float) -> str:
    """Return a value with the decimals of its quantity."""
    return f"{value:,.0f}" if quantity == "pseudo_mass_hu_mm3" else f"{value:,.1f}"


def difference_text(change: Change) -> str:
    """Return the difference with its sign."""
    sign = "−" if change.difference < 0 else "+" if change.difference > 0 else ""
    return sign + quantity_text(change.quantity, abs(change.difference))
