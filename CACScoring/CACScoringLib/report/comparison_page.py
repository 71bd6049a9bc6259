"""A comparison for people: a section of the report, a page of its own, and a few lines for a terminal."""

from __future__ import annotations

from ..results import METHOD_TITLES, STATUSES
from ..scoring.comparison import BY_INTERVALS, TOTAL, Change, Comparison, MethodComparison
from ..scoring.uncertainty import Repeatability
from .interval_page import interval_text
from .template import rendered

NOT_IN_PATIENTS = "The limits come from digital patients and are not established in patients."

_FACTS = {
    "name": "scan",
    "kvp": "kVp",
    "kernel": "kernel",
    "slice_thickness_mm": "slice thickness, mm",
    "slice_spacing_mm": "slice spacing, mm",
    "exposure_mas": "exposure, mAs",
    "noise_hu": "noise, HU",
    "gating": "gating",
    "scanner_model": "scanner",
}


def comparison_as_page(comparison: Comparison, reports: dict[str, str] | None = None) -> str:
    """`comparison.html`. reports: relative addresses of the scans' own reports, by what to call them."""
    title = "Serial comparison of coronary calcium"
    return rendered("comparison.html", title, reports=reports, **content(comparison))


def content(comparison: Comparison | None) -> dict[str, object]:
    """What the template of the section shows; nothing without a comparison."""
    return {
        "comparison": comparison,
        "not_in_patients": NOT_IN_PATIENTS,
        "fact_titles": _FACTS,
        "rests_on_intervals": _rests_on_intervals,
        "pairs": _pairs,
        "heading": _heading,
        "total_change": _total_change,
        "change_sentence": _sentence,
        "quantity_title": _title,
        "quantity_text": _number,
        "signed": _signed,
        "intervals_text": _intervals,
        "fact": _fact,
    }


def comparison_as_text(comparison: Comparison) -> str:
    """Totals by method and their verdicts, and what the limits come from."""
    lines = []
    for method in comparison.methods:
        lines.append(f"{_heading(method)}:")
        lines += [f"  {_sentence(method, change)}" for change in method.changes if change.part == TOTAL]
        if not method.changes:
            lines.append(f"  cannot be determined: {method.bars[0]}")
    source = comparison.repeatability
    if source is not None:
        lines.append(f"Limits: {source.data} ({source.date}).")
        lines += [NOT_IN_PATIENTS] if source.digital else []
    return "\n".join(lines)


def _heading(method: MethodComparison) -> str:
    title = METHOD_TITLES[method.method]
    return title if method.status is None else f"{title}, {STATUSES[method.status]}"


def _rests_on_intervals(comparison: Comparison) -> bool:
    return any(change.based_on == BY_INTERVALS for method in comparison.methods for change in method.changes)


def _pairs(source: Repeatability) -> int:
    """Most pairs that any of the totals' limits rest on."""
    totals = [parts[TOTAL] for by in source.limits.values() for parts in by.values() if TOTAL in parts]
    return max((limits.pairs for limits in totals), default=0)


def _total_change(method: MethodComparison) -> Change:
    return next(change for change in method.changes if change.part == TOTAL)


def _sentence(method: MethodComparison, change: Change) -> str:
    repeats = "" if change.limit is None else f", repeatability limit ±{_number(change.quantity, change.limit)}"
    if change.intervals is not None:
        repeats += f", 90 % intervals {_intervals(change)}"
    return (
        f"{_title(method, change.quantity)} {_number(change.quantity, change.earlier)} → "
        f"{_number(change.quantity, change.later)} ({_signed(change)}{repeats}): {change.text}"
    )


def _intervals(change: Change) -> str:
    if change.intervals is None:
        return "–"
    earlier, later = (interval_text(*interval) for interval in change.intervals)
    return f"{earlier} → {later}"


def _title(method: MethodComparison, quantity: str) -> str:
    if quantity == "pseudo_mass_hu_mm3":
        return "Pseudo-mass, HU·mm³"
    if method.method == "threshold":
        return "Agatston score"
    return "Adjusted Agatston score, on the scale of clinical scores"


def _number(quantity: str, value: float) -> str:
    return f"{value:,.1f}" if quantity == "agatston" else f"{value:,.0f}"


def _signed(change: Change) -> str:
    sign = "−" if change.difference < 0 else "+" if change.difference > 0 else ""
    return sign + _number(change.quantity, abs(change.difference))


def _fact(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
