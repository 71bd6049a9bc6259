"""What a scene shows of a result: plain images and rows, from a result or from the folder it was written to."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..calcium_map.decomposition import healthy_image
from ..core.ct import CTError, UnreadableError
from ..core.grid import bounding_box
from ..core.labels import NonCoronary
from ..core.output import LAST_FILE, SCHEMA
from ..io.image_files import read_image
from ..report.files import site_labels
from ..scoring.scores import Score, score_lesions
from ..whole_scan.estimates import SALIENCY_FILE

if TYPE_CHECKING:
    from ..anatomy.arteries import ArterySuggestion
    from ..results import MethodResult, NonCoronaryResult, ScoreResult
    from ..scoring.lesions import Lesion, ScoringRules

NON_CORONARY = "non_coronary"
"""Method, in rows, of calcium outside the coronary arteries."""

LEFT_OUT = "_left_out"

TOTAL = "total"
"""Name of the row that holds all arteries together."""


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one artery, or of all ("total"), by one method; or of a site outside them, whose method is
    NON_CORONARY."""

    method: str
    artery: str
    score: Score


@dataclass(frozen=True)
class LesionRow:
    """One lesion. slices: its slice indices, counted from the feet. weighted_area_mm2: Σ area × weight. method: of a
    candidate that an automatic score leaves out with LEFT_OUT at its end; reason: why it is left out.

    suggested: the artery that its place suggests, with confidence and not_coronary_probability (see
    `arteries.ArterySuggestion`); None for lesions that a reader has reviewed.
    """

    method: str
    id: int
    artery: str
    slices: tuple[int, ...]
    weighted_area_mm2: float
    score: Score
    suggested: str | None = None
    confidence: float | None = None
    not_coronary_probability: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SliceRow:
    """One slice of the scan in a calcium map.

    k: counted from the feet. position_ras: its centre, mm, Slicer's RAS axes. probability: that it shows calcium, None
    where there is no heart. used: whether its part of the map counts. decomposed: whether it was decomposed, so that
    there is a map.
    """

    k: int
    position_ras: tuple[float, float, float]
    probability: float | None
    used: bool
    decomposed: bool


@dataclass(frozen=True)
class SceneContent:
    """What a scene shows of a result.

    name: of the scan, as it may be shown. ct: HU. heart: mask. lesions: `Site` labels. record: the text of
    `scores.json`. calcium_map, healthy (HU), map_lesions (`Artery` labels) and slices: of a decomposition; else None
    and (). saliency: of a whole-scan estimate, None without one. territories: labels of `TERRITORIES`, None where they
    are unknown. All images are on one grid, but calcium_map and healthy only on its part around the heart.
    """

    name: str
    ct: sitk.Image
    heart: sitk.Image
    lesions: sitk.Image
    scores: tuple[ScoreRow, ...]
    lesion_rows: tuple[LesionRow, ...]
    record: str
    calcium_map: sitk.Image | None = None
    healthy: sitk.Image | None = None
    map_lesions: sitk.Image | None = None
    slices: tuple[SliceRow, ...] = ()
    saliency: sitk.Image | None = None
    territories: sitk.Image | None = None


def content_of_result(result: ScoreResult, record: dict, identify: bool = False) -> SceneContent:
    """The content of a result just computed.

    record: its `report.files.result_as_json`. identify: put the patient's name into the scene.
    """
    scan = result.scan
    name = scan.source.name if scan.source is not None else "CT"
    if identify and scan.acquisition.patient_name:
        name = f"{scan.acquisition.patient_name} – {name}"
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    content = _content(name, scan.image, result.heart.mask, site_labels(result), record, text)
    saliency = next((o.saliency for o in result.estimates if o.saliency is not None), None)
    content = replace(content, saliency=saliency, territories=result.territories)
    parts = result.decomposition
    if parts is None:
        return content
    labels = result.methods["decomposition"].lesions.label_image(scan.image)
    part = _around_heart(result.heart.mask, parts.calcium_map)
    calcium = parts.calcium_map[part]
    return _with_map(content, calcium, healthy_image(result.scored_scan.image[part], calcium), labels, record)


def content_of_folder(folder: Path, ct: sitk.Image, name: str, healthy: bool = True) -> SceneContent:
    """The content of a folder that `cac score` has written.

    ct: the scan that was scored. healthy: with the healthy image, which is only looked at.
    Raises UnreadableError when a file is missing, damaged or none of ours.
    """
    try:
        text = (folder / LAST_FILE).read_text(encoding="utf-8")
        record = json.loads(text)
        heart, lesions = (read_image(folder / f"{image}.nii.gz") for image in ("heart", "lesions"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"its schema is {record['schema']}, not {SCHEMA}")
        content = _content(name, ct, heart, lesions, record, text)
        if (folder / SALIENCY_FILE).exists():
            content = replace(content, saliency=read_image(folder / SALIENCY_FILE))
        if (folder / "territories.nii.gz").exists():
            content = replace(content, territories=read_image(folder / "territories.nii.gz"))
        if "decomposition" not in record["methods"]:
            return content
        calcium, labels = (read_image(folder / f"{image}.nii.gz") for image in ("calcium_map", "map_lesions"))
        part = _around_heart(heart, calcium)
        shown = read_image(folder / "healthy.nii.gz")[part] if healthy else None
        return _with_map(content, calcium[part], shown, labels, record)
    except (OSError, CTError, RuntimeError, ValueError, KeyError, TypeError) as error:
        message = f"The results in {folder} cannot be read ({error}). Score the scan again."
        raise UnreadableError(message) from error


def _content(
    name: str, ct: sitk.Image, heart: sitk.Image, lesions: sitk.Image, record: dict, text: str
) -> SceneContent:
    scores, rows = [], []
    for method, found in record["methods"].items():
        scores += [ScoreRow(method, key, _score(values)) for key, values in found["arteries"].items()]
        scores.append(ScoreRow(method, TOTAL, _score(found["total"])))
        rows += [_lesion_row(method, lesion, lesion["artery"]) for lesion in found["lesions"]]
        rows += [_lesion_row(method + LEFT_OUT, lesion, lesion["artery"]) for lesion in found.get("left_out", ())]
    if elsewhere := record.get("non_coronary"):
        scores += [ScoreRow(NON_CORONARY, site.key, _score(elsewhere[site.key])) for site in NonCoronary]
        rows += [_lesion_row(NON_CORONARY, lesion, lesion["site"]) for lesion in elsewhere["lesion_list"]]
    return SceneContent(name, ct, heart, lesions, tuple(scores), tuple(rows), text)


def _lesion_row(method: str, lesion: dict, site: str) -> LesionRow:
    parts = lesion["components"]
    slices = tuple(sorted({part["slice"] for part in parts}))
    area = sum(part["area_mm2"] * part["weight"] for part in parts)
    suggestion = [lesion.get(k) for k in ("suggested_artery", "confidence", "not_coronary_probability")]
    return LesionRow(method, lesion["id"], site, slices, area, _score(lesion), *suggestion, lesion.get("reason", ""))


def _around_heart(heart: sitk.Image, calcium_map: sitk.Image) -> tuple[slice, ...]:
    """The part of the scan's grid, i j k, that holds the heart and all of the map."""
    held = (sitk.GetArrayViewFromImage(heart) != 0) | (sitk.GetArrayViewFromImage(calcium_map) != 0)
    return bounding_box(held)[::-1] if held.any() else (slice(0, 1),) * 3


def _with_map(
    content: SceneContent,
    calcium_map: sitk.Image,
    healthy: sitk.Image | None,
    map_lesions: sitk.Image,
    record: dict,
) -> SceneContent:
    labelled = sitk.GetArrayViewFromImage(map_lesions).any((1, 2)).tolist()
    probabilities, decomposed = record["slice_probabilities"], record["slices_decomposed"]
    rows = []
    for k, (probability, taken, labels) in enumerate(zip(probabilities, decomposed, labelled, strict=True)):
        # The map is resampled to the scan, so that a neighbour's calcium may reach into a slice.
        taken = taken or labels
        rows.append(SliceRow(k, slice_position_ras(map_lesions, k), probability, taken, taken))
    return replace(content, calcium_map=calcium_map, healthy=healthy, map_lesions=map_lesions, slices=tuple(rows))


def slice_position_ras(image: sitk.Image, k: int) -> tuple[float, float, float]:
    """The centre of a slice, mm, Slicer's RAS axes. image: with axes as in `CTScan`."""
    i, j, _ = image.GetSize()
    x, y, z = image.TransformContinuousIndexToPhysicalPoint(((i - 1) / 2, (j - 1) / 2, k))
    return -x, -y, z


def rows_of_methods(
    methods: dict[str, MethodResult], spacing_mm: tuple[float, float, float], elsewhere: NonCoronaryResult | None = None
) -> tuple[tuple[ScoreRow, ...], tuple[LesionRow, ...]]:
    """The rows of the tables, of results just computed. spacing_mm: of the scan, i j k."""
    scores, rows = [], []
    for method, found in methods.items():
        scores += [ScoreRow(method, artery.key, score) for artery, score in found.arteries.items()]
        scores.append(ScoreRow(method, TOTAL, found.total))
        for lesion in found.lesions.lesions:
            row = _row_of(method, lesion, found.rules, spacing_mm)
            rows.append(_with_suggestion(row, found.suggestion_of(lesion)))
        if (own := found.left_out) is not None:
            for lesion, suggestion, reason in zip(own.lesions.lesions, own.suggestions, own.reasons, strict=True):
                row = _row_of(method + LEFT_OUT, lesion, found.rules, spacing_mm)
                rows.append(_with_suggestion(replace(row, reason=reason), suggestion))
    if elsewhere is not None:
        scores += [ScoreRow(NON_CORONARY, site.key, score) for site, score in elsewhere.scores.items()]
        rows += [_row_of(NON_CORONARY, lesion, elsewhere.rules, spacing_mm) for lesion in elsewhere.lesions.lesions]
    return tuple(scores), tuple(rows)


def _with_suggestion(row: LesionRow, suggestion: ArterySuggestion | None) -> LesionRow:
    if suggestion is None:
        return row
    confidence, elsewhere = round(suggestion.confidence, 3), round(suggestion.not_coronary_probability, 3)
    return replace(row, suggested=suggestion.artery.key, confidence=confidence, not_coronary_probability=elsewhere)


def _row_of(method: str, lesion: Lesion, rules: ScoringRules, spacing_mm: tuple[float, float, float]) -> LesionRow:
    area = sum(c.area_mm2 * c.weight for c in lesion.components)
    score = score_lesions([lesion], spacing_mm, rules)
    return LesionRow(method, lesion.id, lesion.artery.key, lesion.slice_indices, area, score)


def _score(values: dict) -> Score:
    names = ("agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "lesions", "peak_hu")
    return Score(**{name: values[name] for name in names})
