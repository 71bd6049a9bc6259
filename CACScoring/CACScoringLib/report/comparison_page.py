"""A comparison for people: a section of the report, a page of its own, and a few lines for a terminal."""

from __future__ import annotations

from ..results import METHOD_TITLES, STATUSES
from ..scoring.comparison import BY_INTERVALS, QUANTITIES, TOTAL, Change, Comparison, MethodComparison
from ..scoring.uncertainty import Repeatability
from .interval_page import interval_text
from .markup import (
    RESEARCH_ONLY,
    Markup,
    fragment,
    group,
    head,
    items,
    lines,
    page,
    row,
    small,
    table,
    tag,
    warning_list,
)

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
    links = [tag.a(name, href=href) for name, href in (reports or {}).items()]
    title = "Serial comparison of coronary calcium"
    end = [tag.h2("Reports of the scans"), items(links)] if links else None
    return page(title, tag.h1(title), RESEARCH_ONLY, comparison_as_html(comparison), end)


def comparison_as_html(comparison: Comparison) -> Markup:
    """The section: where the limits come from, per method what changed, doubts, and what was compared."""
    return fragment(
        tag.h2("Comparison with an earlier scan"),
        _provenance(comparison),
        ((tag.h3(_heading(m)), _summary(m), _table(m)) for m in comparison.methods),
        warning_list(comparison.warnings) if comparison.warnings else None,
        _facts(comparison),
    )


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


def _provenance(comparison: Comparison) -> Markup:
    source = comparison.repeatability
    if source is None:
        by_intervals = any(change.based_on == BY_INTERVALS for m in comparison.methods for change in m.changes)
        other = "the intervals of the scores" if by_intervals else "nothing"
        return tag.p(
            tag.b("No repeatability limits are stored"),
            f" with the model of the calcium map, so {other} can tell a change from scan-rescan variability. "
            "A scan-rescan study stores the limits (",
            tag.code("cac evaluate reproducibility --store-limits"),
            ").",
            class_="unreviewed",
        )
    text = (
        "95\xa0% of the differences between two scans of unchanged patients lie within the limits; of twenty "
        f"unchanged numbers, one lies outside by chance. Limits: {source.data}, {source.date}, {_pairs(source)} "
        "pairs with calcium."
    )
    return tag.p(tag.b(NOT_IN_PATIENTS), " ", text, class_="unreviewed") if source.digital else tag.p(text)


def _pairs(source: Repeatability) -> int:
    """Most pairs that any of the totals' limits rest on."""
    totals = [parts[TOTAL] for by in source.limits.values() for parts in by.values() if TOTAL in parts]
    return max((limits.pairs for limits in totals), default=0)


def _summary(method: MethodComparison) -> Markup:
    if method.bars:
        bars = (f"{bar[0].upper()}{bar[1:]}." for bar in method.bars)
        return fragment(tag.p(tag.b("Whether the calcium has changed cannot be determined:")), items(bars))
    told = tag.p(_sentence(method, next(change for change in method.changes if change.part == TOTAL)))
    if not method.no_limits:
        return told
    found_on = "digital patients" if method.calibrated_on is None else method.calibrated_on
    note = f"The intervals, found on {found_on}, are compared because no limits hold: "
    return fragment(told, small(note, "; ".join(method.no_limits), "."))


def _sentence(method: MethodComparison, change: Change) -> str:
    repeats = "" if change.limit is None else f", repeatability limit ±{_number(change.quantity, change.limit)}"
    if change.intervals is not None:
        repeats += f", 90 % intervals {_intervals(change)}"
    return (
        f"{_title(method, change.quantity)} {_number(change.quantity, change.earlier)} → "
        f"{_number(change.quantity, change.later)} ({_signed(change)}{repeats}): {change.text}"
    )


def _table(method: MethodComparison) -> Markup | None:
    if not method.changes:
        return None
    intervals = any(change.intervals is not None for change in method.changes)
    titles = ("", "Earlier", "Later", "Difference", *(("90 % intervals",) if intervals else ()), "Repeatability limit")
    rows = [head(*titles, "Result")]
    for quantity in QUANTITIES:
        rows.append(group(_title(method, quantity), len(titles) + 1))
        for change in (change for change in method.changes if change.quantity == quantity):
            limit = "–" if change.limit is None else f"±{_number(quantity, change.limit)}"
            # What holds for the whole method is said once, above the table.
            told = change.reason in (*method.bars, *method.no_limits)
            text = "cannot be determined" if told else change.text
            rows.append(
                row(
                    tag.b("Total") if change.part == TOTAL else change.part,
                    _number(quantity, change.earlier),
                    _number(quantity, change.later),
                    _signed(change),
                    *([_intervals(change)] if intervals else []),
                    limit,
                    tag.span(text, class_=change.verdict),
                )
            )
    return table(rows, "compared", scroll=True)


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
    return "Adjusted Agatston score, on the scale of clinical scores" if method.scaled else "Adjusted Agatston score"


def _number(quantity: str, value: float) -> str:
    return f"{value:,.1f}" if quantity == "agatston" else f"{value:,.0f}"


def _signed(change: Change) -> str:
    sign = "−" if change.difference < 0 else "+" if change.difference > 0 else ""
    return sign + _number(change.quantity, abs(change.difference))


def _facts(comparison: Comparison) -> Markup:
    rows = [head("", "Earlier", "Later")]
    for name, title in _FACTS.items():
        values = [_fact(facts[name]) for facts in (comparison.earlier, comparison.later)]
        rows.append(row(title, *values))
    models = [
        lines(f"{model['name']} {model['sha256'][:12]}" for model in facts["models"]) or "none"
        for facts in (comparison.earlier, comparison.later)
    ]
    rows.append(row("models", *models))
    return tag.details(tag.summary("Scans compared"), table(rows, "facts"))


def _fact(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
