"""Content of a result's scene: plain images and rows, from a result or from the folder it was written to."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..core.ct import CTError, UnreadableError, oriented
from ..core.files import LAST_FILE, SCHEMA
from ..core.grid import bounding_box
from ..io.image_files import read_image
from ..whole_scan.estimates import SALIENCY_FILE

if TYPE_CHECKING:
    from ..results import ScoreResult


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
    """Content of a result's scene.

    name: of the scan, as it may be shown. ct: HU. heart: mask. lesions: `Site` labels. record: the text of
    `scores.json`. calcium_map, healthy (HU), map_lesions (`Artery` labels) and slices: of a decomposition; else None
    and (). saliency: of a whole-scan estimate, None without one. territories: labels of `TERRITORIES`, None where they
    are unknown. All images are on one grid, but calcium_map and healthy only on its part around the heart; whole_map is
    the calcium map on all of it.
    """

    name: str
    ct: sitk.Image
    heart: sitk.Image
    lesions: sitk.Image
    record: str
    calcium_map: sitk.Image | None = None
    healthy: sitk.Image | None = None
    map_lesions: sitk.Image | None = None
    slices: tuple[SliceRow, ...] = ()
    saliency: sitk.Image | None = None
    territories: sitk.Image | None = None
    whole_map: sitk.Image | None = None


def content_of_result(result: ScoreResult, record: dict, identify: bool = False) -> SceneContent:
    """The content of a result just computed.

    record: its `report.files.result_as_json`. identify: put the patient's name into the scene.
    """
    from ..report.files import site_labels  # for scans just scored

    scan = result.scan
    name = scan.name or "CT"
    if identify and scan.acquisition.patient_name:
        name = f"{scan.acquisition.patient_name} – {name}"
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    saliency = next((o.saliency for o in result.estimates if o.saliency is not None), None)
    others = {"saliency": saliency, "territories": result.territories}
    content = SceneContent(name, scan.image, result.heart.mask, site_labels(result), text, **others)
    parts = result.decomposition
    if parts is None:
        return content
    labels = result.methods["decomposition"].lesions.label_image(scan.image)
    return _with_map(content, parts.calcium_map, result.scored_scan.image, labels, record)


def content_of_folder(folder: Path, ct: sitk.Image, name: str) -> SceneContent:
    """The content of a folder that `cac score` has written.

    ct: the scan that was scored.
    Raises UnreadableError when a file is missing, damaged or none of ours.
    """
    try:
        text = (folder / LAST_FILE).read_text(encoding="utf-8")
        record = json.loads(text)
        heart, lesions = (read_image(folder / f"{image}.nii.gz") for image in ("heart", "lesions"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"its schema is {record['schema']}, not {SCHEMA}")
        files = {"saliency": folder / SALIENCY_FILE, "territories": folder / "territories.nii.gz"}
        others = {name: read_image(file) for name, file in files.items() if file.exists()}
        content = SceneContent(name, ct, heart, lesions, text, **others)
        if "decomposition" not in record["methods"]:
            return content
        calcium, labels = (read_image(folder / f"{image}.nii.gz") for image in ("calcium_map", "map_lesions"))
        return _with_map(content, calcium, oriented(ct), labels, record)
    except (OSError, CTError, RuntimeError, ValueError, KeyError, TypeError) as error:
        message = f"The results in {folder} cannot be read ({error}). Score the scan again."
        raise UnreadableError(message) from error


def _around_heart(heart: sitk.Image, calcium_map: sitk.Image) -> tuple[slice, ...]:
    """The part of the scan's grid, i j k, that holds the heart and all of the map."""
    held = [array for array in map(sitk.GetArrayViewFromImage, (heart, calcium_map)) if array.any()]
    boxes = zip(*map(bounding_box, held), strict=True)
    box = tuple(slice(min(s.start for s in own), max(s.stop for s in own)) for own in boxes)
    return box[::-1] or (slice(0, 1),) * 3


def _with_map(
    content: SceneContent, whole_map: sitk.Image, scored: sitk.Image, map_lesions: sitk.Image, record: dict
) -> SceneContent:
    """scored: the CT that the map was made of, with axes as in `CTScan`."""
    from ..calcium_map.decomposition import healthy_image

    part = _around_heart(content.heart, whole_map)
    calcium_map = whole_map[part]
    labelled = sitk.GetArrayViewFromImage(map_lesions).any((1, 2)).tolist()
    probabilities, decomposed = record["slice_probabilities"], record["slices_decomposed"]
    rows = []
    for k, (probability, taken, labels) in enumerate(zip(probabilities, decomposed, labelled, strict=True)):
        # The map is resampled to the scan, so that a neighbour's calcium may reach into a slice.
        taken = taken or labels
        rows.append(SliceRow(k, slice_position_ras(map_lesions, k), probability, taken, taken))
    images = {"calcium_map": calcium_map, "healthy": healthy_image(scored[part], calcium_map), "whole_map": whole_map}
    return replace(content, **images, map_lesions=map_lesions, slices=tuple(rows))


def slice_position_ras(image: sitk.Image, k: int) -> tuple[float, float, float]:
    """The centre of a slice, mm, Slicer's RAS axes. image: with axes as in `CTScan`."""
    i, j, _ = image.GetSize()
    x, y, z = image.TransformContinuousIndexToPhysicalPoint(((i - 1) / 2, (j - 1) / 2, k))
    return -x, -y, z
