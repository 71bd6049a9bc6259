"""Content of a result's scene as plain images and rows, from a result or from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..core.ct import oriented
from ..core.errors import CTError, UnreadableError
from ..core.files import LAST_FILE, read_file
from ..core.grid import bounding_box
from ..core.voxels import voxels_of
from ..io.image_files import read_image
from ..record.score_record import ScoreRecord, record_from_text

if TYPE_CHECKING:
    from ..results import ScoreResult


@dataclass(frozen=True)
class SliceRow:
    """One slice of the scan in a calcium map.

    Attributes:
        k: Slice index, counted from 0 at the feet.
        position_ras: Centre in mm, RAS.
        probability: Probability that the slice shows calcium; None outside the heart.
        used: True if the slice's part of the map counts.
        decomposed: True if the slice was decomposed.
    """

    k: int
    position_ras: tuple[float, float, float]
    probability: float | None
    used: bool
    decomposed: bool


@dataclass(frozen=True)
class SceneContent:
    """Content of a result's scene.

    All images are on the scan's grid, but calcium_map and healthy are cropped to the heart.

    Attributes:
        name: Name of the scan.
        ct: CT in HU.
        heart: Heart mask.
        lesions: Lesions of the clinical rule as `Site` labels.
        record: Text of `scores.json`.
        calcium_map: Calcium map in HU around the heart; None without a decomposition, like healthy and map_lesions.
        healthy: Healthy image in HU around the heart.
        map_lesions: Lesions of the calcium map as `Artery` labels.
        slices: Slices of the scan; empty without a decomposition.
        saliency: Saliency of a whole-scan estimate, or None.
        territories: Labels of `TERRITORIES`, or None if unknown.
        pericardium: Mask of all within the pericardium, or None if unknown.
        whole_map: Calcium map on the scan's grid; None without a decomposition.
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
    pericardium: sitk.Image | None = None
    whole_map: sitk.Image | None = None


def content_of_result(result: ScoreResult, identify: bool = False) -> SceneContent:
    """Return the content of a computed result. identify: include the patient's identity."""
    from ..report.files import site_labels  # needed only for a computed result

    scan, heart = result.scan, result.region
    name = scan.name or "CT"
    if identify and scan.acquisition.patient_name:
        name = f"{scan.acquisition.patient_name} – {name}"
    text = json.dumps(result.record.as_json(identify), ensure_ascii=False, allow_nan=False)
    saliency = next((o.saliency for o in result.estimates if o.saliency is not None), None)
    territories, pericardium = (
        None if labels is None else scan.grid.image(labels) for labels in (result.territory_labels, heart.pericardium)
    )
    content = SceneContent(
        name, scan.image, scan.grid.image(heart.mask), site_labels(result), text, territories=territories
    )
    content = replace(content, saliency=saliency, pericardium=pericardium)
    parts = result.decomposition
    if parts is None:
        return content
    labels = result.methods["decomposition"].lesion_set.label_image(scan.image)
    return _with_map(content, parts.image(), result.scored_scan.image, labels, result.record)


def content_of_folder(folder: Path, ct: sitk.Image, name: str) -> SceneContent:
    """Return the content of a result folder of `cac score`.

    ct: the scan that was scored. Raises UnreadableError if a file is missing, damaged or foreign.
    """
    from ..whole_scan.estimates import SALIENCY_FILE

    try:
        text = read_file(folder / LAST_FILE).decode()
        record = record_from_text(text, LAST_FILE)
        heart, lesions = (read_image(folder / f"{image}.nii.gz") for image in ("heart", "lesions"))
        files = {name: folder / f"{name}.nii.gz" for name in ("territories", "pericardium")}
        files["saliency"] = folder / SALIENCY_FILE
        optional: dict[str, Any] = {name: read_image(file) for name, file in files.items() if file.exists()}
        content = SceneContent(name, ct, heart, lesions, text, **optional)
        if "decomposition" not in record.methods:
            return content
        calcium, labels = (read_image(folder / f"{image}.nii.gz") for image in ("calcium_map", "map_lesions"))
        return _with_map(content, calcium, oriented(ct), labels, record)
    except FileNotFoundError as error:
        lack = f"has no {Path(error.filename).name}" if folder.is_dir() else "does not exist"
        raise UnreadableError(f"{folder} {lack}. Score the scan again.") from error
    except (OSError, CTError, RuntimeError, ValueError, KeyError, TypeError) as error:
        message = f"The results in {folder} cannot be read ({error}). Score the scan again."
        raise UnreadableError(message) from error


def _around_heart(heart: sitk.Image, calcium_map: sitk.Image) -> tuple[slice, ...]:
    """Return the part of the scan's grid, i j k, that contains the heart and the calcium map."""
    arrays = [array for array in map(voxels_of, (heart, calcium_map)) if array.any()]
    boxes = zip(*map(bounding_box, arrays), strict=True)
    box = tuple(slice(min(s.start for s in slices), max(s.stop for s in slices)) for slices in boxes)
    return box[::-1] or (slice(0, 1),) * 3


def _with_map(
    content: SceneContent, whole_map: sitk.Image, scored: sitk.Image, map_lesions: sitk.Image, record: ScoreRecord
) -> SceneContent:
    """Return the content with a decomposition. scored: CT that was decomposed, with axes as in `CTScan`."""
    from ..calcium_map.decomposition import healthy_image

    part = _around_heart(content.heart, whole_map)
    calcium_map = whole_map[part]
    labelled = np.any(voxels_of(map_lesions), (1, 2)).tolist()
    probabilities, decomposed = record.slice_probabilities or (), record.slices_decomposed or ()
    rows = []
    for k, (probability, is_used, labels) in enumerate(zip(probabilities, decomposed, labelled, strict=True)):
        # The map is resampled to the scan, so calcium of a neighbouring slice may reach into this one.
        is_used = is_used or labels
        rows.append(SliceRow(k, slice_position_ras(map_lesions, k), probability, is_used, is_used))
    images = {"calcium_map": calcium_map, "healthy": healthy_image(scored[part], calcium_map), "whole_map": whole_map}
    return replace(content, **images, map_lesions=map_lesions, slices=tuple(rows))


def slice_position_ras(image: sitk.Image, k: int) -> tuple[float, float, float]:
    """Return the centre of a slice in mm, RAS. image: image with axes as in `CTScan`."""
    i, j, _ = image.GetSize()
    x, y, z = image.TransformContinuousIndexToPhysicalPoint(((i - 1) / 2, (j - 1) / 2, k))
    return -x, -y, z
