"""What a scene shows of a result: plain images and rows, from a result or from the folder it was written to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .ct import UnreadableError
from .scores import Score, score_lesions

if TYPE_CHECKING:
    from .pipeline import ScoreResult

TOTAL = "total"
"""Name of the row that holds all arteries together."""


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one artery, or of all ("total"), by one method."""

    method: str
    artery: str
    score: Score


@dataclass(frozen=True)
class LesionRow:
    """One lesion. slices: its slice indices, counted from the feet. weighted_area_mm2: Σ area × weight."""

    method: str
    id: int
    artery: str
    slices: tuple[int, ...]
    weighted_area_mm2: float
    score: Score


@dataclass(frozen=True)
class SceneContent:
    """What a scene shows of a result.

    name: of the scan, as it may be shown. ct: HU. heart: mask. lesions: `Artery` labels. calcium_map, healthy: HU, of a
    decomposition; else None. All on one grid.
    """

    name: str
    ct: sitk.Image
    heart: sitk.Image
    lesions: sitk.Image
    scores: tuple[ScoreRow, ...]
    lesion_rows: tuple[LesionRow, ...]
    calcium_map: sitk.Image | None = None
    healthy: sitk.Image | None = None


def content_of_result(result: ScoreResult, identify: bool = False) -> SceneContent:
    """The content of a result just computed. identify: put the patient's name into the scene."""
    scan = result.scan
    name = scan.source.name if scan.source is not None else "CT"
    if identify and scan.acquisition.patient_name:
        name = f"{scan.acquisition.patient_name} – {name}"
    spacing = scan.image.GetSpacing()
    scores, rows = [], []
    for method, found in result.methods.items():
        scores += [ScoreRow(method, artery.key, score) for artery, score in found.arteries.items()]
        scores.append(ScoreRow(method, TOTAL, found.total))
        for lesion in found.lesions.lesions:
            area = sum(c.area_mm2 * c.weight for c in lesion.components)
            score = score_lesions([lesion], spacing, found.rules)
            rows.append(LesionRow(method, lesion.id, lesion.artery.key, lesion.slice_indices, area, score))
    lesions = result.methods["threshold"].lesions.label_image(scan.image)
    parts = result.decomposition
    images = (parts.calcium_map, parts.healthy) if parts else (None, None)
    return SceneContent(name, scan.image, result.heart.mask, lesions, tuple(scores), tuple(rows), *images)


def content_of_folder(folder: Path, ct: sitk.Image, name: str) -> SceneContent:
    """The content of a folder that `cac score` has written.

    ct: the scan that was scored. Raises UnreadableError when a file is missing or is none of ours.
    """
    try:
        document = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        heart, lesions = (sitk.ReadImage(str(folder / f"{image}.nii.gz")) for image in ("heart", "lesions"))
        if document["schema"] != "cac-score/1":
            raise ValueError(f"its schema is {document['schema']}, not cac-score/1")
        names = ("calcium_map", "healthy") if "decomposition" in document["methods"] else ()
        images = [sitk.ReadImage(str(folder / f"{image}.nii.gz")) for image in names]
        scores, rows = [], []
        for method, found in document["methods"].items():
            scores += [ScoreRow(method, key, _score(values)) for key, values in found["arteries"].items()]
            scores.append(ScoreRow(method, TOTAL, _score(found["total"])))
            for lesion in found["lesions"]:
                parts = lesion["components"]
                slices = tuple(sorted({part["slice"] for part in parts}))
                area = sum(part["area_mm2"] * part["weight"] for part in parts)
                rows.append(LesionRow(method, lesion["id"], lesion["artery"], slices, area, _score(lesion)))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        message = f"The results in {folder} cannot be read ({error}). Score the scan again."
        raise UnreadableError(message) from error
    return SceneContent(name, ct, heart, lesions, tuple(scores), tuple(rows), *images)


def _score(values: dict) -> Score:
    names = ("agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "lesions", "peak_hu")
    return Score(**{name: values[name] for name in names})
