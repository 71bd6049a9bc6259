"""Results for programs: JSON, CSV, images; and a few lines for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..calcium_map.decomposition import healthy_image, on_scan_slices
from ..core.decoding import content_of
from ..core.grid import Grid
from ..core.labels import TERRITORIES, Artery
from ..core.tables import table_text
from ..io.image_files import write_image
from ..models.cards import calibration_entry
from ..record.features import PATIENT_FEATURES, ArteryFeatures, LesionFeatures
from ..record.findings import CalibratedOn
from ..record.score_record import (
    ArteryLesionRecord,
    ComponentRecord,
    HeartRecord,
    InputRecord,
    IntervalEntry,
    LesionRecord,
    MethodRecord,
    ModelRecord,
    NonCoronaryRecord,
    ScoreEntry,
    ScoreRecord,
    SiteLesionRecord,
    TruthRecord,
    severe_first,
)
from ..results import CLINICAL_TITLES, METHOD_TITLES, ScoreResult
from ..scoring.arteries import ArterySuggestion
from ..scoring.lesions import Lesion
from ..scoring.mass import CalciumMass
from ..scoring.methods import STATUSES, MethodResult, NonCoronaryResult, Spacing, mass_of
from ..scoring.reader_labels import with_status
from ..scoring.rules import ScoringRules
from ..scoring.scores import Score, component_agatston, score_lesions
from ..scoring.uncertainty import TOTAL
from ..whole_scan.estimates import SALIENCY_FILE, estimate_record, estimates_as_text
from .headline import category_text, features_sentence, interval_text, mass_text
from .listing import doubtful_text

_MASS_COLUMNS = tuple(field.name for field in fields(CalciumMass))
_CSV_COLUMNS = (
    *("method", "lesion", "artery", "first_slice", "last_slice", "voxels", "volume_mm3", "peak_hu", "mean_hu"),
    *("agatston", "adjusted_agatston", "mass_mg", "pseudo_mass_hu_mm3", "r_mm", "a_mm", "s_mm"),
    *("suggested_artery", "confidence", "not_coronary_probability", *_MASS_COLUMNS),
)

Cell = str | int | float | None

_FIELDS = tuple(field.name for kind in (LesionFeatures, ArteryFeatures) for field in fields(kind))
_FEATURE_COLUMNS = (
    *("method", "artery", "lesion", "lesions", "agatston", "adjusted_agatston", "volume_mm3", "mass_mg"),
    *("pseudo_mass_hu_mm3", *_MASS_COLUMNS, "peak_hu", "mean_hu"),
    *(name for name in dict.fromkeys((*_FIELDS, *PATIENT_FEATURES)) if name != "id"),
)

_STEP_KEYS = {"whole-scan estimates": "second opinions"}
"""Keys of cac-score/1 that are older than the step's name."""


def write_json(
    path: Path,
    result: ScoreResult,
    seconds: dict[str, float],
    identify: bool = False,
    comparison: dict[str, Any] | None = None,
) -> None:
    """Write `scores.json`; see `result_as_json`.

    comparison: with an earlier result, as `comparison_as_json` gives it.
    """
    content = result_as_json(result, seconds, identify)
    if comparison is not None:
        content["comparison"] = comparison
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(folder: Path, result: ScoreResult, identify: bool = False) -> None:
    """Write `lesions.csv` and `features.csv`. identify: As in `result_as_json`."""
    record = record_of(result, identify)
    (folder / "lesions.csv").write_text(lesions_as_csv(record), encoding="utf-8")
    (folder / "features.csv").write_text(features_as_csv(record), encoding="utf-8")


def write_images(folder: Path, result: ScoreResult, healthy: bool = False) -> None:
    """Write the images of a result on the scan's grid, axes as in `CTScan`.

    `heart.nii.gz` (0, 1), `lesions.nii.gz` (`Site` labels, by the threshold); where they are known
    `pericardium.nii.gz` (0, 1) and `territories.nii.gz` (`TERRITORIES`); of a decomposition also `calcium_map.nii.gz`
    (HU above healthy tissue), `healthy.nii.gz` (HU; only where healthy is True) and `map_lesions.nii.gz` (`Artery`
    labels of the map's lesions); of a whole-scan estimate SALIENCY_FILE.
    """
    for name, image in {"heart": result.heart.mask, **label_images(result)}.items():
        write_image(image, folder / f"{name}.nii.gz")
    for estimate in result.estimates:
        if estimate.saliency is not None:
            write_image(estimate.saliency, folder / SALIENCY_FILE)
    if result.decomposition is not None:
        calcium_map = result.decomposition.image()
        write_image(calcium_map, folder / "calcium_map.nii.gz")
        if healthy:
            write_image(healthy_image(result.scored_scan.image, calcium_map), folder / "healthy.nii.gz")


def label_images(result: ScoreResult) -> dict[str, sitk.Image]:
    """Return the label maps of a result but the heart's, by the stem of their file."""
    labels = with_status(site_labels(result), result.methods["threshold"].status)
    images = {"lesions": labels, "pericardium": result.heart.pericardium, "territories": result.territories}
    if (in_map := result.methods.get("decomposition")) is not None:
        images["map_lesions"] = in_map.lesions.label_image(result.scan.image)
    return {name: image for name, image in images.items() if image is not None}


def site_labels(result: ScoreResult, only_counted: bool = False) -> sitk.Image:
    """Return the clinical rule's lesions on the scan's grid as uint8 `Site` labels.

    Candidates that an automatic score leaves out are UNASSIGNED, or 0 with `only_counted`.
    """
    method, elsewhere = result.methods["threshold"], result.non_coronary
    labels = method.lesions.artery_map()
    if elsewhere is not None:
        labels += elsewhere.lesions.artery_map()
    if method.left_out is not None and not only_counted:
        labels.reshape(-1)[method.left_out.lesions.flat] = Artery.UNASSIGNED
    return Grid.of(result.scan.image).image(labels)


def result_as_text(result: ScoreResult) -> str:
    """Return a summary for a terminal; `Progress.warning` prints the warnings."""
    lines = []
    if result.normalisation is not None and result.normalisation.changes:
        lines.append(f"Scan normalised: {result.normalisation.in_words}")
    for key, method in result.methods.items():
        lines += _method_lines(key, method)
    elsewhere = result.non_coronary
    if elsewhere is not None and elsewhere.lesions.lesions:
        lines.append(f"Outside the coronary arteries: {'reviewed' if elsewhere.reviewed else 'unreviewed'}")
        scores = elsewhere.scores.items()
        lines += [_line(site.full_name, score, "Agatston") for site, score in scores if score.lesions]
    if result.epicardial_fat is not None:
        lines.append(result.epicardial_fat.in_words)
    if result.true_mass_mg is not None:
        true = sum(result.true_mass_mg.values())
        lines.append(f"True mass {true:.1f} mg, measured {mass_text(result.methods['threshold'], None)} mg")
    if result.categories is not None:
        c = result.categories
        state = "" if c.status == "reviewed" else f" ({STATUSES[c.status]})"
        lines.append(f"Risk class {c.risk_class}, CAC-DRS {c.cac_drs}{state}")
    lines += estimates_as_text(result.estimates, result.methods)
    return "\n".join(lines)


def _method_lines(key: str, method: MethodResult) -> list[str]:
    lines = [f"{METHOD_TITLES[key]}: {_state(method)}"]
    agatston = CLINICAL_TITLES[key]
    rows = [(artery.key, score, artery) for artery, score in method.arteries.items() if score.lesions]
    for name, score, artery in [*rows, ("total", method.total, None)]:
        doubt = doubtful_text(method, artery)
        lines.append(_line(name, score, agatston) + (f"  {doubt}" if doubt else ""))
    if sentence := "; ".join(filter(None, (interval_text(method), category_text(method)))):
        lines.append(f"  {sentence}")
    if where := features_sentence(method):
        lines.append(f"  {where}")
    if method.left_out is not None:
        count = len(method.left_out.lesions.lesions)
        lines.append(f"  {count} candidate{'' if count == 1 else 's'} left out as probably not coronary calcium")
    return lines


def _state(method: MethodResult) -> str:
    return STATUSES[method.status] + (", no coronary calcium" if method.no_calcium else "")


def _line(name: str, score: Score, agatston: str) -> str:
    plural = " " if score.lesions == 1 else "s"
    return f"  {name:<22}{score.lesions:>4} lesion{plural}  {agatston} {score.clinical_agatston:9.1f}"


def result_as_copied_text(methods: Mapping[str, MethodResult], elsewhere: NonCoronaryResult | None = None) -> str:
    """Return totals per method and artery as tab-separated lines for a spreadsheet.

    elsewhere: Calcium outside the coronary arteries, listed last.
    """
    columns = (
        *("Method", "Artery", "Lesions", "Agatston", "Volume mm³", "Mass mg"),
        *("Pseudo-mass HU·mm³", "Peak HU", "State"),
    )
    lines: list[tuple[object, ...]] = []

    def add(title: str, name: str, score: Score, state: str) -> None:
        numbers = (score.clinical_agatston, score.volume_mm3, score.mass_mg, score.pseudo_mass_hu_mm3, score.peak_hu)
        cells = ["" if number is None else f"{number:.3f}" for number in numbers]
        lines.append((title, name, score.lesions, *cells, state))

    for name, method in methods.items():
        state = _state(method)
        for artery, score in method.arteries.items():
            add(METHOD_TITLES[name], artery.key, score, state)
        add(METHOD_TITLES[name], "total", method.total, state)
    if elsewhere is not None:
        state = "reviewed" if elsewhere.reviewed else "not reviewed"
        for site, score in elsewhere.scores.items():
            add("Outside the coronary arteries", site.full_name, score, state)
    return table_text(columns, lines, delimiter="\t")


def result_as_json(result: ScoreResult, seconds: dict[str, float], identify: bool = False) -> dict[str, Any]:
    """The content of `scores.json`. Within one schema keys may be added, but none removed or changed.

    seconds: by step. identify: include the patient's name and id, study date and UIDs, left out otherwise.
    """
    return record_of(result, identify, seconds).as_json(identify)


def record_of(result: ScoreResult, identify: bool = True, seconds: Mapping[str, float] = {}) -> ScoreRecord:
    """Return the record of a result. Arguments as of `result_as_json`; scans are compared by the patient's identity."""
    scan, networks, truth, territories = result.scan, result.networks, result.true_mass_mg, result.heart.territories
    spacing_mm = scan.image.GetSpacing()
    calibration = networks.decomposition.card.calibration if networks else {}
    # Only an automatic clinical score evaluates candidates (`scoring.evidence`).
    is_automatic = networks is not None and result.methods["threshold"].status == "automatic"
    return ScoreRecord(
        input=InputRecord(
            scan.name, scan.image.GetSize(), spacing_mm, scan.voxels_sha256, scan.acquisition.series_sha256
        ),
        acquisition=scan.acquisition,
        measured=result.blood,
        normalisation=result.normalisation,
        familiarity=result.familiarity,
        mass_calibration=result.mass_calibration,
        heart=HeartRecord(result.heart.source),
        epicardial_fat=result.epicardial_fat,
        warnings=tuple(severe_first(result.warnings)),
        rules={name: content_of(method.rules) for name, method in result.methods.items()},
        models=models_of(result),
        methods={name: _method(method, spacing_mm) for name, method in result.methods.items()},
        non_coronary=None if result.non_coronary is None else _non_coronary(result.non_coronary, spacing_mm),
        territories=None
        if territories is None
        else {"labels": {str(n): name for n, name in enumerate(TERRITORIES) if n}, "model": territories.source},
        slice_probabilities=None
        if result.slices is None
        else tuple(None if math.isnan(p) else round(float(p), 6) for p in result.slices.on_scan),
        # As its training chose it for the classifier alone; the method may decompose more slices.
        slices_positive_from=None if networks is None else networks.slices.card.validation.get("threshold"),
        slices_by_reader={str(k): "on" if on else "off" for k, on in sorted(result.slices_by_reader.items())},
        slices_decomposed=_decomposed(result),
        decomposition_settings=None if result.decomposition is None else content_of(result.decomposition.settings),
        candidate_evidence=calibration.get("candidates") if is_automatic else None,
        calibrated_on=calibration_entry(calibration, "calibrated_on", CalibratedOn),
        categories=result.categories,
        truth=None
        if truth is None
        else TruthRecord({"total": sum(truth.values()), **{a.key: mass for a, mass in truth.items()}}),
        second_opinions={o.network: estimate_record(o, result.methods) for o in result.estimates},
        seconds={_STEP_KEYS.get(step, step): round(took, 3) for step, took in seconds.items()},
        provenance=result.provenance and result.provenance.stated(identify),
        review=result.review,
    )


def counted_rows(method: MethodRecord) -> list[dict[str, Cell]]:
    """One row per lesion that counts; positions in mm, Slicer's RAS axes."""
    is_map = method.scaled_agatston is not None
    return [_row(lesion, lesion.artery, is_map) for lesion in method.lesions]


def lesions_as_csv(record: ScoreRecord) -> str:
    """Return a table of all lesions as CSV, numbers with three decimals, positions in mm, RAS.

    One row per lesion and method, left-out candidates included, then non-coronary lesions.
    """
    rows: list[dict[str, Cell]] = []
    for name, method in record.methods.items():
        rows += [{"method": name, **row} for row in counted_rows(method)]
        rows += [{"method": f"{name}_left_out", **_row(lesion, lesion.artery)} for lesion in method.left_out]
    if (elsewhere := record.non_coronary) is not None:
        rows += [{"method": "non_coronary", **_row(lesion, lesion.site)} for lesion in elsewhere.lesion_list]
    return _csv(_CSV_COLUMNS, rows, record)


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Cell]], record: ScoreRecord) -> str:
    """Return a table whose rows end with the result's provenance, if known."""
    cells = record.provenance_cells
    return table_text(
        (*columns, *cells), [{name: _cell(value) for name, value in (row | cells).items()} for row in rows]
    )


def features_as_csv(record: ScoreRecord) -> str:
    """Return the features as CSV: one row per lesion, then per artery, then of the patient (artery "total")."""
    rows: list[dict[str, Cell]] = []
    for name, method in record.methods.items():
        if (features := method.features) is not None:
            is_map = method.scaled_agatston is not None
            counted = zip(counted_rows(method), features.lesions, strict=True)
            rows += [{"method": name, **row, **asdict(lesion)} for row, lesion in counted]
            parts = {key: (method.arteries[key], asdict(part)) for key, part in features.arteries.items()}
            for key, (score, values) in {**parts, TOTAL: (method.total, features.patient)}.items():
                rows.append({"method": name, "artery": key, **score.cells(is_map), **values})
    return _csv(_FEATURE_COLUMNS, rows, record)


def _cell(value: Cell) -> str | int:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else value


def _row(lesion: LesionRecord, place: str, is_map: bool = False) -> dict[str, Cell]:
    slices = [component.slice for component in lesion.components]
    values = lesion.cells(is_map)
    values |= {"lesion": lesion.id, "artery": place, "first_slice": slices[0], "last_slice": slices[-1]}
    values |= dict(zip(("r_mm", "a_mm", "s_mm"), lesion.centroid_ras_mm, strict=True))
    return {name: values[name] for name in _CSV_COLUMNS[1:]}


def _method(method: MethodResult, spacing_mm: Spacing) -> MethodRecord:
    def lesion(lesion: Lesion, suggestion: ArterySuggestion | None, **more: Any) -> ArteryLesionRecord:
        content = _lesion(lesion, method.rules, spacing_mm) | _suggestion(suggestion) | more
        return ArteryLesionRecord(artery=lesion.artery.key, **content)

    counted = ((lesion, method.suggestion_of(lesion)) for lesion in method.lesions.lesions)
    left_out = () if method.left_out is None else method.left_out.candidates()
    return MethodRecord(
        status=method.status,
        reviewed=method.reviewed,
        scaled_agatston=method.scaled_agatston,
        no_calcium=method.no_calcium,
        total=_entry(method, method.total),
        arteries={artery.key: _entry(method, score, artery) for artery, score in method.arteries.items()},
        lesions=tuple(lesion(x, suggestion, **_mass(method, x)) for x, suggestion in counted),
        left_out=tuple(
            lesion(x, suggestion, probability=round(1 - suggestion.not_coronary_probability, 3), reason=reason)
            for x, suggestion, reason in left_out
        ),
        features=method.features,
    )


def _entry(method: MethodResult, score: Score, *artery: Artery) -> IntervalEntry:
    """Return the scores of an artery, or of all lesions."""
    intervals = method.intervals.get(artery[0].key if artery else TOTAL)
    return IntervalEntry(
        **asdict(score),
        **asdict(mass_of(method, *artery)),
        interval_90=None if intervals is None else intervals.agatston,
        mass_interval_90=None if intervals is None else intervals.mass_mg,
    )


def _mass(method: MethodResult, lesion: Lesion) -> dict[str, float | None]:
    mass = CalciumMass() if method.masses is None else method.masses[lesion.id]
    return {"mass_mg": mass.integrated_mass_mg, **asdict(mass)}


def _non_coronary(elsewhere: NonCoronaryResult, spacing_mm: Spacing) -> NonCoronaryRecord:
    """Return calcium outside the coronary arteries by the clinical rule."""
    lesions = (
        SiteLesionRecord(site=lesion.artery.key, **_lesion(lesion, elsewhere.rules, spacing_mm))
        for lesion in elsewhere.lesions.lesions
    )
    sites = {site.key: ScoreEntry(**asdict(score)) for site, score in elsewhere.scores.items()}
    return NonCoronaryRecord(reviewed=elsewhere.reviewed, lesion_list=tuple(lesions), **sites)


def _lesion(lesion: Lesion, rules: ScoringRules, spacing_mm: Spacing) -> dict[str, Any]:
    """Return the fields of a LesionRecord, without masses."""
    components = tuple(
        ComponentRecord(
            slice=c.slice_index,
            voxels=c.voxels,
            area_mm2=c.area_mm2,
            peak_hu=c.peak_hu,
            weight=c.weight,
            agatston=component_agatston(c, spacing_mm[2], rules),
        )
        for c in lesion.components
    )
    place = {"voxels": lesion.voxels, "mean_hu": lesion.mean_hu, "centroid_ras_mm": lesion.centroid_ras_mm}
    scores = asdict(score_lesions([lesion], spacing_mm, rules)) | {"mass_mg": None}
    return {"id": lesion.id, **scores, **place, "components": components}


def _suggestion(suggestion: ArterySuggestion | None) -> dict[str, Any]:
    """Return the artery that a lesion's location suggests, and the evidence by which it was judged, if any."""
    if suggestion is None:
        return {}
    return {
        "suggested_artery": suggestion.artery.key,
        "confidence": round(suggestion.confidence, 3),
        "not_coronary_probability": round(suggestion.not_coronary_probability, 3),
        "evidence": {name: round(value, 4) for name, value in suggestion.evidence.items()},
    }


def models_of(result: ScoreResult) -> tuple[ModelRecord, ...]:
    """Return the models of a result."""
    if result.networks is None:
        return result.recorded_models
    networks = result.networks
    loaded = (networks.territories, networks.slices, networks.decomposition, networks.lesions)
    return tuple(ModelRecord(m.card.name, m.card.network, m.card.sha256) for m in loaded if m)


def _decomposed(result: ScoreResult) -> tuple[bool, ...] | None:
    """Return True for each slice that was decomposed and that no reader switched off."""
    if result.slices is None or result.decomposition is None:
        return None
    is_decomposed = result.decomposition.decomposed.astype(np.float32)
    on_scan = on_scan_slices(is_decomposed, result.slices.slices, result.scan.image)
    return tuple(bool(value > 0) and result.slices_by_reader.get(k, True) for k, value in enumerate(on_scan))
