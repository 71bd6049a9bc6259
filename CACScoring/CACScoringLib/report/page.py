"""The report for people: one HTML page that needs no other file."""

from __future__ import annotations

from dataclasses import asdict

from ..core.files import REVIEW_PORT
from ..core.labels import MAIN_ARTERIES, Artery, NonCoronary
from ..results import AGATSTON_TITLES, CLINICAL_TITLES, METHOD_TITLES, MethodResult, ScoreResult
from ..scoring import risk
from ..scoring.comparison import Comparison
from ..scoring.mass import CalciumMass, MassCalibration
from ..scoring.scores import Score, component_agatston
from ..whole_scan.estimates import TITLES, agreements, prediction_of
from . import comparison_page, figures
from .figures import PROBABLY, at_most_99_percent, lesion_name, listed_lesions, place_of
from .interval_page import interval_bar, interval_note, interval_sentence, interval_text
from .pictures import TERRITORY_SITES, WINDOW_HU
from .template import rendered

SOURCES = {
    "insert": "a calibration insert in the scan",
    "given": "the calibration that was given",
    "dicom-patient": "the scanner's factor for this scan (DICOM 0018,9351)",
    "dicom-device": "the scanner's factors by patient size (DICOM 0018,9352)",
    "table": "the table of calibrations that was given",
    "published": "published measurements of such scanners; it is no calibration of this one",
}
"""What a mass calibration comes from."""

SEVERE_STENOSIS_LIMITS = {"F": (800, 1200, 1600), "M": (1600, 2000, 3000)}
"""By sex, Agatston scores of the aortic valve: severe aortic stenosis is unlikely below the first, likely from the
second, and very likely from the third (Vahanian, Eur Heart J 2022;43:561, after Clavel, J Am Coll Cardiol
2013;62:2329)."""

_FUNCTIONS = (
    *(interval_bar, interval_note, interval_sentence, interval_text, agreements, prediction_of, listed_lesions),
    *(figures.method_pictures, figures.site_pictures, figures.saliency_picture),
)


def result_as_html(result: ScoreResult, identify: bool = False, comparison: Comparison | None = None) -> str:
    """One page that needs no other file: severe warnings, summary, arteries, calcium elsewhere, other warnings,
    pictures, arithmetic, rules, acquisition.

    comparison: with an earlier result of the patient; a section of its own.
    """
    calibration = result.mass_calibration
    measured = {key: method for key, method in result.methods.items() if method.masses is not None}
    return rendered(
        "score.html",
        f"Coronary calcium: {result.scan.source.name if result.scan.source else 'CT'}",
        result=result,
        severe_warnings=[warning for warning in result.warnings if warning.severe],
        other_warnings=[warning for warning in result.warnings if not warning.severe],
        facts=_facts(result, identify),
        masses={} if calibration is None else measured,
        calibration="" if calibration is None else calibration_text(calibration),
        method_titles=METHOD_TITLES,
        clinical_titles=CLINICAL_TITLES,
        agatston_titles=AGATSTON_TITLES,
        estimate_titles=TITLES,
        score_titles=["Volume mm³", "Mass mg", "Pseudo-mass HU·mm³", "Peak HU"],
        main_arteries=MAIN_ARTERIES,
        territory_sites=dict.fromkeys(TERRITORY_SITES.values()),
        unassigned_label=int(Artery.UNASSIGNED),
        rounding=risk.ROUNDING,
        window_hu=WINDOW_HU,
        review_port=REVIEW_PORT,
        **{function.__name__: function for function in _FUNCTIONS},
        mass_text=_mass_text,
        arteries_with_lesions=_arteries_with_lesions,
        artery_scores=_artery_scores,
        probably_elsewhere=_probably_elsewhere,
        left_out=_left_out,
        components=_components,
        rules=lambda method: asdict(method.rules),
        stenosis=_stenosis,
        **comparison_page.content(comparison),
    )


def calibration_text(calibration: MassCalibration) -> str:
    """Where a calibration comes from, its value, and what it is worth."""
    percent, width = calibration.uncertainty_percent, calibration.lateral_width_cm
    worth = "of unknown uncertainty" if percent is None else f"± {percent:.0f} %"
    body = "" if width is None else f" The body is {width:.0f} cm wide."
    return (
        f"Calibrated by {SOURCES[calibration.source]}: {calibration.mg_per_cm3_per_hu:.3f} mg/cm³ per HU, {worth}, "
        f"which holds for all masses alike.{body}"
    )


def severe_stenosis(agatston: float, sex: str) -> str:
    """How likely severe aortic stenosis is by the published limits. sex: "F" or "M"."""
    below, likely, very_likely = SEVERE_STENOSIS_LIMITS[sex]
    if agatston < below:
        return "unlikely"
    if agatston < likely:
        return "undetermined"
    return "likely" if agatston < very_likely else "very likely"


def _stenosis(result: ScoreResult) -> list[tuple]:
    """The aortic valve's score beside the published limits, of the patient's sex where it is known."""
    valve, sex = result.non_coronary.scores[NonCoronary.AORTIC_VALVE], result.scan.acquisition.patient_sex
    return [
        ({"F": "women", "M": "men"}[of], *limits, f"{valve.agatston:.0f}: {severe_stenosis(valve.agatston, of)}")
        for of, limits in SEVERE_STENOSIS_LIMITS.items()
        if valve.lesions and (sex not in SEVERE_STENOSIS_LIMITS or sex == of)
    ]


def _mass_text(mass: CalciumMass) -> str:
    value, error = mass.integrated_mass_mg, mass.mass_standard_error_mg
    # The error is 0 where there is no lesion, which tells nothing of what was missed.
    return "–" if value is None else f"{value:.2f}" + (f" ± {error:.2f}" if error else "")


def _arteries_with_lesions(method: MethodResult) -> list[Artery]:
    return [artery for artery in Artery if any(lesion.artery == artery for lesion in method.lesions.lesions)]


def _artery_scores(method: MethodResult) -> list[tuple[Artery, Score]]:
    """Those that are shown: an artery that nobody has looked at must not read as free of calcium."""
    assigned = any(lesion.artery != Artery.UNASSIGNED for lesion in method.lesions.lesions)
    by_artery = method.reviewed or assigned or bool(method.intervals)
    return [(a, score) for a, score in method.arteries.items() if (a == Artery.UNASSIGNED) != by_artery]


def _probably_elsewhere(method: MethodResult) -> int:
    return sum(suggestion.not_coronary_probability > PROBABLY for suggestion in method.suggestions)


def _left_out(result: ScoreResult, method: MethodResult) -> list[tuple]:
    """The candidates that an automatic score leaves out, the likeliest first."""
    own = method.left_out
    if own is None:
        return []
    candidates = sorted(
        zip(own.lesions.lesions, own.suggestions, own.reasons, strict=True),
        key=lambda candidate: candidate[1].not_coronary_probability,
    )
    rows = []
    for lesion, suggestion, reason in candidates[: figures.MOST_LISTED]:
        points = sum(component_agatston(c, result.scan.slice_spacing_mm, method.rules) for c in lesion.components)
        place = place_of(result, max(lesion.components, key=lambda c: c.area_mm2).slice_index)
        probability = at_most_99_percent(1 - suggestion.not_coronary_probability)
        rows.append((lesion.id, suggestion.artery.key, place, f"{points:.1f}", probability, reason))
    return rows


def _components(result: ScoreResult, method: MethodResult) -> list[tuple]:
    """Each listed lesion's part of the Agatston score in each slice, and the others together."""
    spacing = result.scan.slice_spacing_mm
    listed = listed_lesions(method, spacing)
    rows: list[tuple] = []
    for lesion in listed:
        for c in lesion.components:
            name, place = lesion_name(method, lesion), place_of(result, c.slice_index)
            area, peak = f"{c.area_mm2:.2f}", f"{c.peak_hu:g}"
            points = f"{component_agatston(c, spacing, method.rules):.2f}"
            rows.append((lesion.id, name, place, c.voxels, area, peak, c.weight, points))
    ids = {lesion.id for lesion in listed}
    others = [lesion for lesion in method.lesions.lesions if lesion.id not in ids]
    if others:
        parts = [c for lesion in others for c in lesion.components]
        points = sum(component_agatston(c, spacing, method.rules) for c in parts)
        voxels, area = sum(c.voxels for c in parts), sum(c.area_mm2 for c in parts)
        rows.append((f"{len(others)} others", "", "", voxels, f"{area:.2f}", "", "", f"{points:.2f}"))
    return rows


def _facts(result: ScoreResult, identify: bool) -> dict[str, object]:
    image, familiarity = result.scan.image, result.familiarity
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
    if familiarity is not None:
        far = f" (distance {familiarity.distance:.2g}, limit {familiarity.limit:g})"
        facts["unlike_the_calibration_scans"] = "; ".join(familiarity.causes) + far if familiarity.distance else "no"
    return facts
