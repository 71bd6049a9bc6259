"""The report for people: one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape

from ..core.ct import ScanWarning
from ..core.labels import Artery
from ..results import AGATSTON_TITLES, METHOD_TITLES, MethodResult, ScoreResult
from ..scoring import risk
from ..scoring.comparison import Comparison
from ..scoring.lesions import Lesion
from ..scoring.scores import Score, component_agatston
from . import pictures
from .comparison_page import comparison_as_html
from .markup import RESEARCH_ONLY, figure, head, page, row
from .second_opinion_page import opinions_as_html

MOST_TOLD = 50
"""Of more candidates that nobody has reviewed, only so many are drawn and told one by one: those that are largest and
most probably coronary. A patient has some dozen; more are noise, and the report would be of many megabytes."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so instead of naming an artery."""


def result_as_html(result: ScoreResult, identify: bool = False, comparison: Comparison | None = None) -> str:
    """One page that needs no other file: severe warnings, summary, arteries, other warnings, pictures, arithmetic,
    rules, acquisition.

    comparison: with an earlier result of the patient; a section of its own.
    """
    name = result.scan.source.name if result.scan.source else "CT"
    parts = [f"<h1>Coronary calcium: {escape(name)}</h1>", RESEARCH_ONLY, _severe_warnings(result)]
    for key, method in result.methods.items():
        parts += [
            f"<h2>{METHOD_TITLES[key]}</h2>",
            _summary(result, method),
            _arteries_table(method, AGATSTON_TITLES[key], result.true_mass_mg),
        ]
    if comparison is not None:
        parts.append(comparison_as_html(comparison))
    if result.opinions:
        parts.append(opinions_as_html(result))
    parts.append(_warnings(result))
    for key, method in result.methods.items():
        parts += _method_pictures(result, method, METHOD_TITLES[key])
        parts += _arithmetic(result, method, AGATSTON_TITLES[key])
        parts.append(_rules(method))
    parts.append(_facts(result, identify))
    return page(f"Coronary calcium: {name}", "\n".join(parts))


def _summary(result: ScoreResult, method: MethodResult) -> str:
    total = method.total
    clinical = method is result.methods["threshold"]
    if not method.reviewed and clinical:
        return (
            f'<p class="unreviewed"><b>{total.lesions} unreviewed candidates</b>, together {total.agatston:.1f} '
            f"Agatston units; {_elsewhere(method)} of them lie where digital patients rarely have "
            "coronary calcium. This is not a calcium score: nobody has checked which of them are coronary. "
            "Assign them in <code>lesions.nii.gz</code> and score again with <code>--lesions</code>.</p>"
        )
    if not method.reviewed and not total.lesions:
        return (
            '<p class="unreviewed"><b>The calcium map is empty.</b> That does not mean that there is no calcium: small '
            "and faint lesions are missed (the models' cards say how many).</p>"
        )
    if not method.reviewed:
        return (
            f'<p class="unreviewed"><b>{total.lesions} unreviewed lesions</b> of the calcium map, {_scaled(method)}. '
            "The arteries are suggested by each lesion's place; nobody has checked them.</p>"
        )
    title = "Agatston score" if clinical else "Adjusted Agatston score"
    lines = [f'<p class="score">{title} <b>{total.agatston:.1f}</b></p>']
    if method.no_calcium:
        lines.append("<p><b>Reviewed: no coronary calcium.</b></p>")
    if clinical and result.categories is not None:
        c = result.categories
        items = [
            f"Risk class <b>{c.risk_class}</b>",
            f"CAC-DRS <b>{c.cac_drs}</b>",
            f"arterial age <b>{c.arterial_age_years:.0f} years</b>",
        ]
        if c.percentile is not None:
            items.append(f"{escape(str(c.percentile))} of {escape(c.percentile.table)}")
        lines.append(f"<p>{' · '.join(items)}</p><p class='small'>{risk.ROUNDING}</p>")
    return "\n".join(lines)


def _scaled(method: MethodResult) -> str:
    scaled, adjusted = method.scaled_agatston, f"adjusted Agatston {method.total.agatston:.1f}"
    return adjusted if scaled is None else f"on the scale of clinical scores about <b>{scaled:.0f}</b> ({adjusted})"


def _arteries_table(method: MethodResult, agatston: str, true_mass_mg: dict[Artery, float] | None) -> str:
    """agatston: what to call the method's Agatston score."""
    assigned = any(lesion.artery != Artery.UNASSIGNED for lesion in method.lesions.lesions)
    known = true_mass_mg is not None
    rows = []
    for artery, score in method.arteries.items():
        # An artery that nobody has looked at must not read as free of calcium.
        if (artery == Artery.UNASSIGNED) == (method.reviewed or assigned):
            continue
        dot = f'<span class="dot" style="background:rgb{pictures.ARTERY_COLOURS[artery]}"></span>'
        name = f'{dot} {artery.key} <span class="small">{artery.full_name}</span>'
        truth = [f"{true_mass_mg.get(artery, 0):.2f}"] if known else []
        rows.append(row(name, *_score_cells(score), *truth))
    truth = [f"{sum(true_mass_mg.values()):.2f}"] if known else []
    rows.append(row("<b>Total</b>", *_score_cells(method.total), *truth))
    titles = ["Artery", "Lesions", agatston, "Volume mm³", "Mass mg", "Pseudo-mass HU·mm³", "Peak HU"]
    first = head(*titles, *(["True mass mg"] if known else []))
    note = "" if method.total.mass_mg is not None else '<p class="small">Mass in mg needs a calibration.</p>'
    return f"<table>{first}{''.join(rows)}</table>{note}"


def _score_cells(score: Score) -> list[str]:
    mass = "–" if score.mass_mg is None else f"{score.mass_mg:.2f}"
    peak = "–" if score.peak_hu is None else f"{score.peak_hu:.0f}"
    return [
        str(score.lesions),
        f"{score.agatston:.1f}",
        f"{score.volume_mm3:.1f}",
        mass,
        f"{score.pseudo_mass_hu_mm3:.0f}",
        peak,
    ]


def _severe_warnings(result: ScoreResult) -> str:
    severe = [warning for warning in result.warnings if warning.severe]
    if not severe:
        return ""
    return f'<div class="severe"><b>Before you read the numbers</b>{_listed(severe)}</div>'


def _warnings(result: ScoreResult) -> str:
    others = [warning for warning in result.warnings if not warning.severe]
    none = "None but those at the top." if result.warnings else "None."
    return f"<h2>Warnings</h2>{_listed(others) if others else f'<p>{none}</p>'}"


def _listed(warnings: Iterable[ScanWarning]) -> str:
    items = "".join(f"<li>{escape(w.message)} <code>{escape(w.code)}</code></li>" for w in warnings)
    return f'<ul class="warnings">{items}</ul>'


def _method_pictures(result: ScoreResult, method: MethodResult, title: str) -> list[str]:
    scan, heart, lesions = result.scan, result.heart.mask, method.lesions
    figures = [
        figure(pictures.overview_picture(scan, heart, lesions, 1), "Highest HU in the heart region, from the front"),
        figure(pictures.overview_picture(scan, heart, lesions, 0), "Highest HU in the heart region, from the feet"),
    ]
    parts = [f"<h2>Pictures: {title}</h2>", f'<div class="pictures">{"".join(figures)}</div>']
    told = told_lesions(method, scan.slice_spacing_mm)
    ids, folded = {lesion.id for lesion in told}, len(lesions.lesions) - len(told)
    if folded:
        slices = {max(lesion.components, key=lambda c: c.area_mm2 * c.weight).slice_index for lesion in told}
    else:
        slices = {k for lesion in told for k in lesion.slice_indices}
    if not slices:
        return [*parts, "<p>No slice holds a candidate.</p>"]
    figures = []
    for k in sorted(slices, reverse=True):
        count = sum(c.slice_index == k for lesion in lesions.lesions for c in lesion.components)
        first = [(x, c) for x in told for c in x.components if c.slice_index == k][:6]
        named = ", ".join(f"{x.id} {_named(method, x)} {c.peak_hu:.0f} HU" for x, c in first)
        more = f" and {count - len(first)} more" if count > len(first) else ""
        picture = pictures.slice_picture(scan, heart, lesions, k, ids)
        figures.append(figure(picture, f"{_place(result, k)}: {named}{more}"))
    low, high = pictures.WINDOW_HU
    parts.append(f'<p class="small">Window {low:g} to {high:g} HU; patient left is at the right.</p>')
    if folded:
        parts.append(
            f"<p>Of {len(lesions.lesions)} candidates the {len(told)} are drawn and numbered that are largest and most "
            f"probably coronary, each in the slice where it is largest. Of {folded} others only those in these slices "
            "are outlined. <code>lesions.csv</code> lists all.</p>"
        )
    parts.append(f'<div class="pictures">{"".join(figures)}</div>')
    return parts


def told_lesions(method: MethodResult, slice_spacing_mm: float) -> tuple[Lesion, ...]:
    """The lesions that a report tells one by one, in their order: all that were reviewed, else at most MOST_TOLD, those
    with the highest Agatston score times the probability that they are coronary."""
    lesions = method.lesions.lesions
    if method.reviewed or len(lesions) <= MOST_TOLD:
        return lesions

    def weight(lesion: Lesion) -> float:
        suggested = method.suggestion_of(lesion)
        agatston = sum(component_agatston(c, slice_spacing_mm, method.rules) for c in lesion.components)
        return agatston * (1 if suggested is None else 1 - suggested.not_coronary_probability)

    chosen = {lesion.id for lesion in sorted(lesions, key=weight, reverse=True)[:MOST_TOLD]}
    return tuple(lesion for lesion in lesions if lesion.id in chosen)


def _named(method: MethodResult, lesion: Lesion) -> str:
    """The lesion's artery; for one that nobody has reviewed, the one its place suggests, with a question mark."""
    suggested = method.suggestion_of(lesion)
    if suggested is None:
        return lesion.artery.key
    if suggested.not_coronary_probability > PROBABLY:
        return f"not coronary? {_percent(suggested.not_coronary_probability)}"
    return f"{suggested.artery.key}? {_percent(suggested.confidence)}"


def _percent(probability: float) -> str:
    return f"{min(probability, 0.99):.0%}"  # an atlas is never certain


def _elsewhere(method: MethodResult) -> int:
    """How many lesions lie where digital patients have other calcium rather than coronary."""
    return sum(suggested.not_coronary_probability > PROBABLY for suggested in method.suggestions)


def _arithmetic(result: ScoreResult, method: MethodResult, agatston: str) -> list[str]:
    spacing = result.scan.slice_spacing_mm
    reference = method.rules.reference_spacing_mm
    told = told_lesions(method, spacing)
    ids = {lesion.id for lesion in told}
    rows = []
    for lesion in told:
        for c in lesion.components:
            points = component_agatston(c, spacing, method.rules)
            rows.append(
                row(
                    str(lesion.id),
                    _named(method, lesion),
                    _place(result, c.slice_index),
                    str(c.voxels),
                    f"{c.area_mm2:.2f}",
                    f"{c.peak_hu:g}",
                    str(c.weight),
                    f"{points:.2f}",
                )
            )
    if not rows:
        return []
    others = [c for lesion in method.lesions.lesions if lesion.id not in ids for c in lesion.components]
    if others:
        points = sum(component_agatston(c, spacing, method.rules) for c in others)
        sums = (str(sum(c.voxels for c in others)), f"{sum(c.area_mm2 for c in others):.2f}")
        count = len(method.lesions.lesions) - len(told)
        rows.append(row(f"{count} others", "", "", *sums, "", "", f"{points:.2f}"))
    components = sum(len(lesion.components) for lesion in method.lesions.lesions)
    first = head("Lesion", "Artery", "Slice", "Voxels", "Area mm²", "Peak HU", "Weight", agatston)
    return [
        "<h2>Arithmetic</h2>",
        f"<p>{agatston} = area × weight × {spacing:.3g} mm slice spacing / {reference:g} mm, "
        f"summed over {components} slice components = <b>{method.total.agatston:.2f}</b>.</p>",
        f"<details><summary>Every component</summary><table>{first}{''.join(rows)}</table></details>",
    ]


def _rules(method: MethodResult) -> str:
    rows = [row(escape(key), escape("none" if v is None else str(v))) for key, v in asdict(method.rules).items()]
    return f"<h2>Rules</h2><table class='facts'>{''.join(rows)}</table>"


def _facts(result: ScoreResult, identify: bool) -> str:
    image = result.scan.image
    facts = {
        "voxels": " × ".join(map(str, image.GetSize())),
        "spacing_mm": " × ".join(f"{s:.3f}" for s in image.GetSpacing()),
        **result.scan.acquisition.facts(identify),
        "heart_region": result.heart.source,
    }
    if result.blood is not None:
        facts |= {f"blood_{key}": f"{value:.3g}" for key, value in asdict(result.blood).items()}
    rows = [row(escape(key.replace("_", " ")), escape("unknown" if v is None else str(v))) for key, v in facts.items()]
    return f"<h2>Scan</h2><table class='facts'>{''.join(rows)}</table>"


def _place(result: ScoreResult, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = result.scan.image.GetSize()
    z = result.scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"
