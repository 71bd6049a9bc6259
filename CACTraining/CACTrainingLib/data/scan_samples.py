"""Preparation of scans for the cache: arrays exactly as the networks see them, and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.ct import AIR_HU, CTScan, mask_on_scan_grid, same_grid
from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.files import atomic_folder
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models import preprocessing
from CACScoringLib.models.preprocessing import MAP_HU, MAX_NEIGHBOURS, TERRITORY_SPACING_MM, HeartSlices
from CACScoringLib.record.score_record import read_result
from CACScoringLib.scoring.sites import BLOOD_HU

from ..project.training_scan import TrainingScan, read_truth

BRIGHT_HU, BRIGHT_PIXELS, BRIGHT_SIGMA_PIXELS, BRIGHT_MARGIN_PIXELS = 90.0, 3, 1.0, 4
"""Limits of a slice that resembles one with calcium: HU after smoothing, number of such pixels, sigma of the smoothing,
margin around the heart. Blood and muscle are below 60 HU; valve calcium, blurred by motion, is often below 130 HU."""

MAP_FLOOR_HU = 1.0

CONFIDENT_ERROR = 0.1
"""Largest probability of being no coronary calcium of a confident lesion."""


def image_beside(ct: CTScan, file: Path) -> sitk.Image:
    """Read an image on the grid of the CT beside it, axes as in `CTScan.image`. Raises DataError."""
    try:
        image = sitk.DICOMOrient(read_mask(file), "LPS")
    except (CTError, RuntimeError) as error:
        raise DataError(f"{file} cannot be read. Write the scan's truth again. ({error})") from error
    if not same_grid(image, ct.image):
        raise DataError(f"{file} is not on the grid of the CT beside it. Write the scan's truth again.")
    return image


def write_slices(scan: TrainingScan, folder: Path) -> None:
    """Write a scan for the slice networks into a new folder. Raises CTError for a scan that cannot be used."""
    if scan.truth is None:
        raise DataError(f"{scan.ct} has no truth.json. Make the scan again.")
    truth = read_truth(scan.truth)
    ct = read_ct(scan.ct, scan.series)
    heart, _ = mask_on_scan_grid(read_mask(scan.heart), ct, "heart mask")
    slices = preprocessing.heart_slices(ct, heart > 0)
    true_map: np.ndarray = np.zeros(slices.heart.shape, np.float32)
    if scan.calcium_map is not None:
        calcium = image_beside(ct, scan.calcium_map)
        true_map = slices.grid.resample(voxels_of(calcium), 0.0) * float(truth["calcium_hu_per_mg_cm3"])
    if scan.automatic is not None:
        visible = _labels_on_slices(truth["slices"], slices.grid)
        shows_calcium = np.array([label is True for label in visible])
        true_map = automatic_map(scan.automatic, ct, slices) * shows_calcium[:, None, None]
    has_map = scan.calcium_map is not None
    write_prepared(folder, slices, true_map, truth["slices"], scan.patient, scan.kind, has_map)


def write_prepared(
    folder: Path,
    slices: HeartSlices,
    true_map: np.ndarray,
    labels: list[dict[str, Any]],
    patient: str,
    kind: str,
    has_map: bool,
) -> None:
    """Write prepared slices into a new folder.

    Args:
        true_map: HU of coronary calcium, float32 as `slices.heart`.
        labels: Labels of the scan's slices, as in `truth.json`.
        has_map: True if the true map is known.
    """
    visible = _labels_on_slices(labels, slices.grid)
    rows = np.full(len(slices), -1)
    filled = (np.abs(true_map) > MAP_FLOOR_HU).any((1, 2))
    rows[filled] = np.arange(filled.sum())
    record = {
        "patient": patient,
        "kind": kind,
        "has_map": has_map,
        "grid": {name: getattr(slices.grid, name) for name in ("first", "step", "size")},
        "centre": slices.centre,
        "radii": slices.radii,
        "map_row": rows.tolist(),
        "visible": [label is True for label in visible],
        "labelled": [label is not None for label in visible],
        "contrast": _contrasts_on_slices(labels, slices.grid),
        "bright": _bright(slices, true_map).tolist(),
    }
    maps = (true_map[filled] / MAP_HU).astype(np.float16)
    hu = np.clip(slices.hu, -1024, 3071).astype(np.float16)
    _write_folder(folder, record, {"hu": hu, "heart": slices.heart, "maps": maps})


def automatic_map(folder: Path, ct: CTScan, slices: HeartSlices) -> np.ndarray:
    """Return the HU above blood in confident lesions of an automatic clinical score, float32 as `slices.heart`.

    Slices that hold a doubtful lesion are left empty. Raises CTError if the result cannot be read.
    """
    record = read_result(folder)
    method = record.methods["threshold"]
    counted = method.counted_labels(sitk.GetArrayFromImage(image_beside(ct, folder / "lesions.nii.gz"))) > 0
    doubtful = [
        part.slice
        for lesion in method.lesions
        if lesion.verdict is not None and lesion.verdict.not_coronary_probability > CONFIDENT_ERROR
        for part in lesion.components
    ]
    counted[doubtful] = False
    blood_hu = BLOOD_HU if record.measured is None else record.measured.median_hu
    hu = slices.hu[MAX_NEIGHBOURS : MAX_NEIGHBOURS + len(slices)] - blood_hu
    return np.where(slices.grid.resample(counted, 0.0) >= 0.5, np.maximum(hu, 0), 0).astype(np.float32)


def write_volume(scan: TrainingScan, folder: Path) -> None:
    """Write a scan and its outlined heart for the territory network into a new folder.

    Raises CTError for a scan that cannot be used.
    """
    ct = read_ct(scan.ct, scan.series)
    heart, _ = mask_on_scan_grid(read_mask(scan.heart), ct, "heart mask")
    grid = ScanGrid.over(ct.image, TERRITORY_SPACING_MM)
    inside = grid.resample(heart != 0, 0.0) >= 0.5
    if not inside.any():
        raise DataError(f"The heart in {scan.heart} is smaller than a voxel of the territory network.")
    hu = np.rint(grid.resample(ct.hu, AIR_HU)).astype(np.int16)
    _write_folder(folder, {"patient": scan.patient}, {"hu": hu, "heart": inside})


def _labels_on_slices(labels: list[dict[str, Any]], grid: ScanGrid) -> list[bool | None]:
    """Return the visibility of calcium in each slice of the grid: True in any of its scan slices; None if unknown.

    Slices that the truth does not list show none.
    """
    visible = {int(s["k"]): s["visible"] for s in labels}
    groups = [[visible.get(k, False) for k in scan_slices] for scan_slices in _scan_slices(grid)]
    return [True if any(group) else None if None in group else False for group in groups]


def _contrasts_on_slices(labels: list[dict[str, Any]], grid: ScanGrid) -> list[float]:
    """Return the highest contrast of the scan slices of each slice of the grid; NaN for labels without it, 0 without
    label."""
    contrasts = {int(s["k"]): float(s.get("contrast_to_noise", np.nan)) for s in labels}
    return [float(np.max([contrasts.get(k, 0.0) for k in scan_slices])) for scan_slices in _scan_slices(grid)]


def _scan_slices(grid: ScanGrid) -> list[list[int]]:
    """Return each grid slice's scan slices: those centred in it, else the one that contains its centre."""
    centres = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    half = grid.step[2] / 2
    inside = [range(int(np.ceil(centre - half)), int(np.floor(centre + half)) + 1) for centre in centres]
    return [list(ks) or [round(centre)] for ks, centre in zip(inside, centres, strict=True)]


def _bright(slices: HeartSlices, map_hu: np.ndarray) -> np.ndarray:
    hu = slices.hu[MAX_NEIGHBOURS : MAX_NEIGHBOURS + len(slices)]
    smooth = ndimage.gaussian_filter(hu - map_hu, (0, BRIGHT_SIGMA_PIXELS, BRIGHT_SIGMA_PIXELS))
    side = 2 * BRIGHT_MARGIN_PIXELS + 1
    near_heart = ndimage.maximum_filter(slices.heart.view(np.uint8), (1, side, side)) > 0
    return ((smooth >= BRIGHT_HU) & near_heart).sum((1, 2)) >= BRIGHT_PIXELS


def _write_folder(folder: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    try:
        with atomic_folder(folder) as unfinished:
            for name, array in arrays.items():
                np.save(unfinished / f"{name}.npy", array)
            (unfinished / "scan.json").write_text(json.dumps(record), encoding="utf-8")
    except OSError:
        if not folder.is_dir():  # another run may have written it
            raise
