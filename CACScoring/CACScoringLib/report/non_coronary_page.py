"""Calcium outside the coronary arteries in the report: valves, aorta and other sites, beside published limits."""

from __future__ import annotations

from ..core.labels import NonCoronary, Site
from ..results import NonCoronaryResult, ScoreResult
from ..scoring.lesions import Lesion
from ..scoring.scores import Score
from . import pictures
from .markup import Markup, figure, fragment, head, row, small, table, tag

SCORE_TITLES = ("Volume mm³", "Mass mg", "Pseudo-mass HU·mm³", "Peak HU")

SEVERE_STENOSIS_LIMITS = {"F": (800, 1200, 1600), "M": (1600, 2000, 3000)}
"""By sex, Agatston scores of the aortic valve: severe aortic stenosis is unlikely below the first, likely from the
second, and very likely from the third (Vahanian, Eur Heart J 2022;43:561, after Clavel, J Am Coll Cardiol
2013;62:2329)."""

_SEXES = {"F": "women", "M": "men"}


def non_coronary_as_html(result: ScoreResult) -> Markup | None:
    """A section of the report, with a heading; None where such calcium is unknown."""
    found = result.non_coronary
    if found is None:
        return None
    title = tag.h2("Calcium outside the coronary arteries")
    state = _state(result, found)
    if not found.lesions.lesions:
        return fragment(title, state, tag.p("None was labelled." if found.reviewed else "None was found."))
    rows = [row(site_name(site), *score_cells(score)) for site, score in found.scores.items()]
    return fragment(
        title,
        state,
        table([head("Site", "Lesions", "Agatston", *SCORE_TITLES), *rows]),
        small(
            "By the clinical rule, in the same units as the coronary score, of which it is no part. The thoracic aorta "
            "counts as far as the scan shows it."
        ),
        _stenosis(result, found),
        small(
            "For each site the slice with most of its calcium. ",
            None if result.territories is None else "Faint outlines are the territories, in the colours of the tables.",
        ),
        tag.div(_figures(result, found), class_="pictures"),
    )


def site_name(site: Site) -> Markup:
    """A site with the colour that it has in pictures."""
    dot = tag.span(class_="dot", style=f"background:rgb{pictures.SITE_COLOURS[site]}")
    if isinstance(site, NonCoronary):
        return fragment(dot, f" {site.full_name}")
    return fragment(dot, f" {site.key} ", tag.span(site.full_name, class_="small"))


def score_cells(score: Score) -> list[str]:
    """Lesions, Agatston on the clinical scale, and the columns of SCORE_TITLES."""
    mass = "–" if score.mass_mg is None else f"{score.mass_mg:.2f}"
    peak = "–" if score.peak_hu is None else f"{score.peak_hu:.0f}"
    return [
        str(score.lesions),
        f"{score.clinical_agatston:.1f}",
        f"{score.volume_mm3:.1f}",
        mass,
        f"{score.pseudo_mass_hu_mm3:.0f}",
        peak,
    ]


def place_of(result: ScoreResult, slice_index: int) -> str:
    """Name a slice as Slicer shows it: its index from the feet, and its position on the S axis."""
    size = result.scan.image.GetSize()
    z = result.scan.image.TransformContinuousIndexToPhysicalPoint((size[0] / 2, size[1] / 2, slice_index))[2]
    return f"slice {slice_index} (S {z:.1f} mm)"


def _state(result: ScoreResult, found: NonCoronaryResult) -> Markup:
    if found.reviewed:
        return tag.p("The sites have been reviewed.")
    territories = result.heart.territories
    model = "" if territories is None else f" of the model {territories.source}"
    return tag.p(
        tag.b("Not reviewed."),
        f" The sites follow from the territories{model}: everything dense there counts, noise, stents and prostheses "
        "included. Correct the labels 8 to 11 in ",
        tag.code("lesions.nii.gz"),
        " and score again with ",
        tag.code("--lesions"),
        ".",
        class_="unreviewed",
    )


def _stenosis(result: ScoreResult, found: NonCoronaryResult) -> Markup | None:
    """The aortic valve's score beside the published limits, of the patient's sex where it is known."""
    valve = found.scores[NonCoronary.AORTIC_VALVE]
    if not valve.lesions:
        return None
    sex = result.scan.acquisition.patient_sex
    rows = []
    for of, limits in SEVERE_STENOSIS_LIMITS.items():
        if sex not in SEVERE_STENOSIS_LIMITS or sex == of:
            below, likely, very_likely = limits
            cells = (f"below {below}", f"{likely} and more", f"{very_likely} and more")
            shown = tag.b(f"{valve.agatston:.0f}: {severe_stenosis(valve.agatston, of)}")
            rows.append(row(_SEXES[of], *cells, shown if found.reviewed else fragment(shown, " (not reviewed)")))
    return fragment(
        tag.h3("Aortic valve and severe aortic stenosis"),
        table([head("Published limits", "Unlikely", "Likely", "Very likely", "This scan"), *rows]),
        small(
            "Agatston scores of the ESC/EACTS guidelines of 2021 (Vahanian, Eur Heart J 2022;43:561), after Clavel, "
            "J Am Coll Cardiol 2013;62:2329. They were made on dedicated ECG-gated scans of patients whose "
            "echocardiography was inconclusive, and for the valve alone. Here the root is included, so the score may "
            "be too high, and without gating motion changes it. They are no diagnosis, and do not replace "
            "echocardiography."
        ),
    )


def severe_stenosis(agatston: float, sex: str) -> str:
    """How likely severe aortic stenosis is by the published limits. sex: "F" or "M"."""
    below, likely, very_likely = SEVERE_STENOSIS_LIMITS[sex]
    if agatston < below:
        return "unlikely"
    if agatston < likely:
        return "undetermined"
    return "likely" if agatston < very_likely else "very likely"


def _figures(result: ScoreResult, found: NonCoronaryResult) -> list[Markup]:
    """For each site the slice where it has most calcium, with all that lies in it."""
    slices = {_densest_slice([x for x in found.lesions.lesions if x.artery == s]) for s in found.scores} - {None}
    figures = []
    for k in sorted(slices, reverse=True):
        peaks: dict[Site, float] = {}
        for site, c in ((x.artery, c) for x in found.lesions.lesions for c in x.components if c.slice_index == k):
            peaks[site] = max(c.peak_hu, peaks.get(site, c.peak_hu))
        named = ", ".join(f"{site.full_name} {peak:.0f} HU" for site, peak in peaks.items())
        lesions, heart = found.lesions, result.heart.mask
        picture = pictures.slice_picture(result.scan, heart, lesions, k, (), result.territories)
        figures.append(figure(picture, f"{place_of(result, k)}: {named}"))
    return figures


def _densest_slice(lesions: list[Lesion]) -> int | None:
    weights: dict[int, float] = {}
    for component in (c for lesion in lesions for c in lesion.components):
        weights[component.slice_index] = weights.get(component.slice_index, 0) + component.area_mm2 * component.weight
    return max(weights, key=weights.__getitem__, default=None)
