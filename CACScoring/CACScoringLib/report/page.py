"""The report for people: one HTML page that needs no other file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from ..core.labels import Artery
from ..core.output import REVIEW_PORT
from ..quality.calibration_range import Familiarity
from ..results import AGATSTON_TITLES, CLINICAL_TITLES, METHOD_TITLES, Categories, MethodResult, ScoreResult
from ..scoring import risk
from ..scoring.comparison import Comparison
from ..scoring.lesions import Lesion
from ..scoring.scores import component_agatston
from ..scoring.uncertainty import TOTAL
from . import pictures
from .comparison_page import comparison_as_html
from .interval_page import interval_as_html, interval_text
from .markup import (
    RESEARCH_ONLY,
    Markup,
    facts_table,
    figure,
    fragment,
    head,
    in_words,
    page,
    row,
    small,
    table,
    tag,
    warning_list,
)
from .mass_page import masses_as_html
from .non_coronary_page import SCORE_TITLES, non_coronary_as_html, place_of, score_cells, site_name
from .whole_scan_page import estimates_as_html

MOST_TOLD = 50
"""Of more candidates that nobody has reviewed, only so many are told one by one: those that are largest and most
probably coronary. A patient has some dozen; more are noise, and the report would be of many megabytes."""

MOST_DRAWN = 10
"""Of their slices, so many are drawn, those with most of them: a picture of a noisy slice takes 0.1 MB."""

PROBABLY = 0.5
"""Probability of not being coronary above which a report says so instead of naming an artery."""


def result_as_html(result: ScoreResult, identify: bool = False, comparison: Comparison | None = None) -> str:
    """One page that needs no other file: severe warnings, summary, arteries, calcium elsewhere, other warnings,
    pictures, arithmetic, rules, acquisition.

    comparison: with an earlier result of the patient; a section of its own.
    """
    name = result.scan.source.name if result.scan.source else "CT"
    parts = [tag.h1(f"Coronary calcium: {name}"), RESEARCH_ONLY, _severe_warnings(result)]
    for key, method in result.methods.items():
        parts += [
            tag.h2(METHOD_TITLES[key]),
            _summary(result, method),
            _arteries_table(method, CLINICAL_TITLES[key], result.true_mass_mg),
            _left_out(result, method),
        ]
    parts += [masses_as_html(result), non_coronary_as_html(result)]
    if comparison is not None:
        parts.append(comparison_as_html(comparison))
    if result.estimates:
        parts.append(estimates_as_html(result))
    parts.append(_warnings(result))
    for key, method in result.methods.items():
        parts += _method_pictures(result, method, METHOD_TITLES[key])
        parts += _arithmetic(result, method, AGATSTON_TITLES[key])
        parts.append(_rules(method))
    parts += [_facts(result, identify), _review_link()]
    return page(f"Coronary calcium: {name}", *parts)


def _summary(result: ScoreResult, method: MethodResult) -> Markup:
    total = method.total
    clinical = method is result.methods["threshold"]
    if clinical and method.status == "automatic":
        return _automatic(result, method)
    if not method.reviewed and clinical and not total.lesions:
        where = "heart region" if result.territories is None else "territories of the coronary arteries"
        return tag.p(
            tag.b("No candidates."),
            f" Nothing in the {where} reaches {method.rules.threshold_hu:g} HU. Nobody has reviewed this.",
            class_="unreviewed",
        )
    if not method.reviewed and clinical:
        return tag.p(
            tag.b(f"{total.lesions} unreviewed candidate{'' if total.lesions == 1 else 's'}"),
            f", together {total.agatston:.1f} Agatston units; {_lie(result, method)} This is not a calcium score: "
            "which candidates are coronary has not been reviewed. Correct their labels in ",
            tag.code("lesions.nii.gz"),
            " and score again with ",
            tag.code("--lesions"),
            ".",
            class_="unreviewed",
        )
    if not method.reviewed and not total.lesions:
        return tag.p(
            tag.b("The calcium map is empty."),
            " This does not exclude calcium: small and faint lesions are missed (the models' cards state how many).",
            class_="unreviewed",
        )
    score = tag.b(f"{total.clinical_agatston:.1f}")
    if not method.reviewed:
        told = f" of the calcium map, without a threshold an adjusted Agatston score of {total.agatston:.1f}"
        return fragment(
            tag.p("Agatston equivalent ", score, " automatic", class_="score"),
            interval_as_html(method),
            tag.p(
                tag.b(f"{total.lesions} unreviewed lesion{'' if total.lesions == 1 else 's'}"),
                f"{told}. The arteries are suggested from each lesion's location and have not been reviewed.",
                class_="unreviewed",
            ),
        )
    parts = [tag.p("Agatston score " if clinical else "Agatston equivalent ", score, class_="score")]
    if method.no_calcium:
        parts.append(tag.p(tag.b("Reviewed: no coronary calcium.")))
    if clinical and result.categories is not None:
        parts.append(_classes(result.categories))
    return fragment(parts, interval_as_html(method))


def _automatic(result: ScoreResult, method: MethodResult) -> Markup:
    """The automatic clinical score, and what it leaves out."""
    count, others = method.total.lesions, len(method.left_out.lesions.lesions)
    text = (
        f" By the networks' evidence {count} of {count + others} candidates count as coronary calcium. Nobody has "
        "reviewed them. The others are listed under “Left out” and in "
    )
    parts = [
        tag.p("Agatston score ", tag.b(f"{method.total.agatston:.1f}"), " automatic", class_="score"),
        None if result.categories is None else _classes(result.categories),
        interval_as_html(method),
        tag.p("Categories and interval are withheld; see the warning at the top.") if method.withheld else None,
        tag.p(
            tag.b("Automatic, not reviewed."),
            text,
            tag.code("lesions.nii.gz"),
            f" as label {int(Artery.UNASSIGNED)}. Correct the labels there, and score again with ",
            tag.code("--lesions"),
            ".",
            class_="unreviewed",
        ),
    ]
    return fragment(parts)


def _classes(c: Categories) -> Markup:
    told = ["Risk class ", tag.b(c.risk_class), " · CAC-DRS ", tag.b(c.cac_drs)]
    told += [" · arterial age ", tag.b(f"{c.arterial_age_years:.0f} years")]
    if c.percentile is not None:
        told.append(f" · {c.percentile} of {c.percentile.table}")
    return fragment(tag.p(told), small(risk.ROUNDING))


def _left_out(result: ScoreResult, method: MethodResult) -> Markup | None:
    """The candidates that an automatic score leaves out, the likeliest first."""
    own = method.left_out
    if own is None or not own.lesions.lesions:
        return None
    spacing = result.scan.slice_spacing_mm
    every = sorted(
        zip(own.lesions.lesions, own.suggestions, own.reasons, strict=True),
        key=lambda one: one[1].not_coronary_probability,
    )
    rows = []
    for lesion, suggested, reason in every[:MOST_TOLD]:
        points = sum(component_agatston(c, spacing, method.rules) for c in lesion.components)
        place = place_of(result, max(lesion.components, key=lambda c: c.area_mm2).slice_index)
        probability = _percent(1 - suggested.not_coronary_probability)
        rows.append(row(str(lesion.id), suggested.artery.key, place, f"{points:.1f}", probability, reason))
    first = head("Candidate", "Nearest artery", "Slice", "Agatston", "Probability", "Reason")
    more = len(every) - len(rows)
    note = small(f"{more} less probable ones are in lesions.csv.") if more else None
    return tag.details(tag.summary(f"Left out: {len(every)}"), table([first, *rows]), note)


def _arteries_table(method: MethodResult, agatston: str, true_mass_mg: dict[Artery, float] | None) -> Markup:
    """agatston: what to call the method's Agatston score."""
    assigned = any(lesion.artery != Artery.UNASSIGNED for lesion in method.lesions.lesions)
    by_artery = method.reviewed or assigned or bool(method.intervals)
    known = true_mass_mg is not None
    rows = []
    for artery, score in method.arteries.items():
        # An artery that nobody has looked at must not read as free of calcium.
        if (artery == Artery.UNASSIGNED) == by_artery:
            continue
        truth = [f"{true_mass_mg.get(artery, 0):.2f}"] if known else []
        rows.append(row(site_name(artery), *score_cells(score), *_interval_cell(method, artery.key), *truth))
    truth = [f"{sum(true_mass_mg.values()):.2f}"] if known else []
    rows.append(row(tag.b("Total"), *score_cells(method.total), *_interval_cell(method, TOTAL), *truth))
    titles = ["Artery", "Lesions", agatston, *SCORE_TITLES, *(["90 % interval"] if method.intervals else [])]
    first = head(*titles, *(["True mass mg"] if known else []))
    note = None if method.total.mass_mg is not None else small("Mass in mg needs a calibration.")
    return fragment(table([first, *rows]), note)


def _interval_cell(method: MethodResult, part: str) -> list[str]:
    if not method.intervals:
        return []
    own = method.intervals.get(part)
    return ["" if own is None else interval_text(*own.agatston)]


def _severe_warnings(result: ScoreResult) -> Markup | None:
    severe = [warning for warning in result.warnings if warning.severe]
    if not severe:
        return None
    return tag.div(tag.b("Important warnings"), warning_list(severe), class_="severe")


def _warnings(result: ScoreResult) -> Markup:
    others = [warning for warning in result.warnings if not warning.severe]
    none = "There are no warnings other than those at the top." if result.warnings else "None."
    return fragment(tag.h2("Warnings"), warning_list(others) if others else tag.p(none))


def _method_pictures(result: ScoreResult, method: MethodResult, title: str) -> list[Markup]:
    scan, heart, lesions = result.scan, result.heart.mask, method.lesions
    box = pictures.box_around(heart, scan, lesions)
    figures = [
        figure(
            pictures.overview_picture(scan, heart, lesions, 1, box),
            "Maximum intensity projection of the heart region, seen from the front",
        ),
        figure(
            pictures.overview_picture(scan, heart, lesions, 0, box),
            "Maximum intensity projection of the heart region, seen from the feet",
        ),
    ]
    parts = [tag.h2(f"Pictures: {title}"), tag.div(figures, class_="pictures")]
    told = told_lesions(method, scan.slice_spacing_mm)
    ids, folded = {lesion.id for lesion in told}, len(lesions.lesions) - len(told)
    if folded:
        largest = Counter(max(x.components, key=lambda c: c.area_mm2 * c.weight).slice_index for x in told)
        slices = {k for k, _ in largest.most_common(MOST_DRAWN)}
    else:
        slices = {k for lesion in told for k in lesion.slice_indices}
    if not slices:
        return [*parts, tag.p("No slice contains a candidate.")]
    figures = []
    for k in sorted(slices, reverse=True):
        count = sum(c.slice_index == k for lesion in lesions.lesions for c in lesion.components)
        first = [(x, c) for x in told for c in x.components if c.slice_index == k][:6]
        named = ", ".join(f"{x.id} {_named(method, x)} {c.peak_hu:.0f} HU" for x, c in first)
        more = f" and {count - len(first)} more" if count > len(first) else ""
        picture = pictures.slice_picture(scan, heart, lesions, k, ids, result.territories, box)
        figures.append(figure(picture, f"{place_of(result, k)}: {named}{more}"))
    low, high = pictures.WINDOW_HU
    parts.append(small(f"Window {low:g} to {high:g} HU; the patient's left is on the right."))
    if result.territories is not None:
        sites = dict.fromkeys(pictures.TERRITORY_SITES.values())
        named = (fragment(site_name(site), " ") for site in sites)
        parts.append(small("Faint outlines are territories, as a model found them: ", named))
    if folded:
        text = (
            f"Of {len(lesions.lesions)} candidates, the {len(told)} that are largest and most probably coronary are "
            f"numbered. Drawn {'is the slice' if len(slices) == 1 else f'are the {len(slices)} slices'} in which most "
            "of these are largest, with the outlines of all candidates there. All are listed in "
        )
        parts.append(tag.p(text, tag.code("lesions.csv"), "."))
    parts.append(tag.div(figures, class_="pictures"))
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


def _lie(result: ScoreResult, method: MethodResult) -> str:
    """Where candidates lie."""
    if result.territories is not None:
        return "each stands in the artery in whose territory it lies."
    elsewhere = sum(suggested.not_coronary_probability > PROBABLY for suggested in method.suggestions)
    return f"{elsewhere} of them lie where digital patients rarely have coronary calcium."


def _arithmetic(result: ScoreResult, method: MethodResult, agatston: str) -> list[Markup]:
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
                    place_of(result, c.slice_index),
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
        tag.h2("Arithmetic"),
        tag.p(
            f"{agatston} = area × weight × {spacing:.3g} mm slice spacing / {reference:g} mm, summed over {components} "
            "slice components = ",
            tag.b(f"{method.total.agatston:.2f}"),
            ".",
        ),
        tag.details(tag.summary("All components"), table([first, *rows])),
    ]


def _rules(method: MethodResult) -> Markup:
    return fragment(tag.h2("Rules"), facts_table(asdict(method.rules), missing="none"))


def _review_link() -> Markup:
    return tag.p(
        "To correct the lesions in the browser, start cac review with this folder and the CT, and open ",
        tag.a("its page", href=f"http://127.0.0.1:{REVIEW_PORT}/"),
        " on the same computer.",
    )


def _facts(result: ScoreResult, identify: bool) -> Markup:
    image = result.scan.image
    facts = {
        "voxels": " × ".join(map(str, image.GetSize())),
        "spacing_mm": " × ".join(f"{s:.3f}" for s in image.GetSpacing()),
        **result.scan.acquisition.facts(identify),
        "heart_region": result.heart.source,
    }
    if result.blood is not None:
        facts |= {f"blood_{key}": f"{value:.3g}" for key, value in asdict(result.blood).items()}
    if result.normalisation is not None:
        facts["normalisation"] = result.normalisation.in_words
    if result.familiarity is not None:
        facts["unlike_the_calibration_scans"] = _unlike(result.familiarity)
    return fragment(tag.h2("Scan"), facts_table(in_words(facts)))


def _unlike(familiarity: Familiarity) -> str:
    if not familiarity.distance:
        return "no"
    return f"{'; '.join(familiarity.causes)} (distance {familiarity.distance:.2g}, limit {familiarity.limit:g})"
