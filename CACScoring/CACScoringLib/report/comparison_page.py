"""A comparison for people: a section of the report, a page of its own, and a few lines for a terminal."""

from __future__ import annotations

from html import escape

from ..results import METHOD_TITLES
from ..scoring.comparison import QUANTITIES, TOTAL, UNKNOWN, Change, Comparison, MethodComparison
from ..scoring.repeatability import Repeatability
from .markup import RESEARCH_ONLY, head, page, row

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
    links = "".join(f'<li><a href="{escape(href)}">{escape(name)}</a></li>' for name, href in (reports or {}).items())
    parts = [
        "<h1>Has the coronary calcium changed?</h1>",
        RESEARCH_ONLY,
        comparison_as_html(comparison),
        f"<h2>The scans' own reports</h2><ul>{links}</ul>" if links else "",
    ]
    return page("Has the coronary calcium changed?", "\n".join(parts))


def comparison_as_html(comparison: Comparison) -> str:
    """The section: where the limits come from, per method what changed, doubts, and what was compared."""
    parts = ["<h2>Compared with an earlier scan</h2>", _provenance(comparison)]
    for method in comparison.methods:
        parts += [f"<h3>{METHOD_TITLES[method.method]}</h3>", _summary(method), _table(method)]
    if comparison.warnings:
        items = (f"<li>{escape(w.message)} <code>{escape(w.code)}</code></li>" for w in comparison.warnings)
        parts.append(f'<ul class="warnings">{"".join(items)}</ul>')
    parts.append(_facts(comparison))
    return "\n".join(part for part in parts if part)


def comparison_as_text(comparison: Comparison) -> str:
    """Totals by method and their verdicts, and what the limits come from."""
    lines = []
    for method in comparison.methods:
        lines.append(f"{METHOD_TITLES[method.method]}:")
        lines += [f"  {_sentence(method, change)}" for change in method.changes if change.part == TOTAL]
        if not method.changes:
            lines.append(f"  cannot be said: {method.bars[0]}")
    source = comparison.repeatability
    if source is not None:
        lines.append(f"Limits: {source.data} ({source.date}).")
        lines += [NOT_IN_PATIENTS] if source.digital else []
    return "\n".join(lines)


def _provenance(comparison: Comparison) -> str:
    source = comparison.repeatability
    if source is None:
        return (
            '<p class="unreviewed"><b>No limits of repeatability are stored</b> with the model of the calcium map, so '
            "nothing tells a change from what two scans of the same day differ by. A scan-rescan study stores them "
            "(<code>cac evaluate reproducibility --store-limits</code>).</p>"
        )
    text = (
        f"95&nbsp;% of differences between two scans of unchanged patients stay within the limits; of twenty numbers "
        f"that have not changed, one lies outside by chance. Limits: {escape(source.data)}, {escape(source.date)}, "
        f"{_pairs(source)} pairs with calcium."
    )
    if source.digital:
        return f'<p class="unreviewed"><b>{NOT_IN_PATIENTS}</b> {text}</p>'
    return f"<p>{text}</p>"


def _pairs(source: Repeatability) -> int:
    """Most pairs that any of the totals' limits rest on."""
    totals = [parts[TOTAL] for by in source.limits.values() for parts in by.values() if TOTAL in parts]
    return max((limits.pairs for limits in totals), default=0)


def _summary(method: MethodComparison) -> str:
    bars = "".join(f"<li>{escape(bar[0].upper() + bar[1:])}.</li>" for bar in method.bars)
    if bars:
        return f"<p><b>Whether it has changed cannot be said:</b></p><ul>{bars}</ul>"
    total = next(change for change in method.changes if change.part == TOTAL)
    return f"<p>{escape(_sentence(method, total))}</p>"


def _sentence(method: MethodComparison, change: Change) -> str:
    repeats = "" if change.limit is None else f", repeats within ±{_number(change.quantity, change.limit)}"
    return (
        f"{_title(method, change.quantity)} {_number(change.quantity, change.earlier)} → "
        f"{_number(change.quantity, change.later)} ({_signed(change)}{repeats}): {change.text}"
    )


def _table(method: MethodComparison) -> str:
    if not method.changes:
        return ""
    rows = [head("", "Earlier", "Later", "Difference", "Repeats within", "Verdict")]
    for quantity in QUANTITIES:
        rows.append(f'<tr><th class="group" colspan="6">{escape(_title(method, quantity))}</th></tr>')
        for change in (change for change in method.changes if change.quantity == quantity):
            limit = "–" if change.limit is None else f"±{_number(quantity, change.limit)}"
            # What bars the whole method is said once, above the table.
            text = "cannot be said" if method.bars and change.verdict == UNKNOWN else change.text
            rows.append(
                row(
                    "<b>Total</b>" if change.part == TOTAL else change.part,
                    _number(quantity, change.earlier),
                    _number(quantity, change.later),
                    _signed(change),
                    limit,
                    f'<span class="{change.verdict}">{escape(text)}</span>',
                )
            )
    return f'<div class="scroll"><table class="compared">{"".join(rows)}</table></div>'


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


def _facts(comparison: Comparison) -> str:
    rows = [head("", "Earlier", "Later")]
    for name, title in _FACTS.items():
        values = [_fact(facts[name]) for facts in (comparison.earlier, comparison.later)]
        rows.append(row(title, *values))
    models = [
        "<br>".join(escape(f"{model['name']} {model['sha256'][:12]}") for model in facts["models"]) or "none"
        for facts in (comparison.earlier, comparison.later)
    ]
    rows.append(row("models", *models))
    return f"<details><summary>What was compared</summary><table class='facts'>{''.join(rows)}</table></details>"


def _fact(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))
