"""Digital hearts scanned twice in the same pose: in the slices a cardiac CT has, and in thin ones without noise.

From such pairs a network learns what thin slices would show. The thin scan has no noise of its own: a network that is
trained by least squares gives the mean of all thin scans that fit what it sees, with and without, only sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import whole

from ..phantom.anatomy.heart import posed_frame
from ..phantom.anatomy.patient import draw_patient, stream
from ..phantom.cohort.cohort import in_processes, patient_folder
from ..phantom.scanner.motion import PROTOCOLS, draw_pair
from ..phantom.scanner.scanner import Grid
from ..phantom.scanner.simulation import scan_grid, scan_patient
from .cases import BOX_MARGIN_MM, FIELD_OF_VIEW_MM, MATRIX

FACTOR = 3
PROTOCOL = "cardiac"

_RIM = 12
"""Pixels about the box that the blur of what lies beyond does not reach."""


@dataclass(frozen=True)
class SlicePair:
    """The box about a patient's heart in both scans, HU, int16.

    thick: [k, j, i]. thin: [FACTOR k, j, i], slices of 1/FACTOR of the thickness, without noise. calcium: coronary
    calcium in the thin slices. heart: bool, of the thick slices. spacing_mm: of the thick slices, x, y, z.
    """

    thick: np.ndarray
    thin: np.ndarray
    calcium: np.ndarray
    heart: np.ndarray
    spacing_mm: tuple[float, float, float]


def make_pair(number: int) -> SlicePair:
    """Scan a digital patient's heart; always the same for the same number."""
    patient = draw_patient(number)
    scanner, pose = draw_pair(PROTOCOLS[PROTOCOL], stream(number, 20))[0]
    scanner = replace(scanner, matrix=MATRIX, field_of_view_mm=FIELD_OF_VIEW_MM)
    frame = posed_frame(patient.body, pose)
    reach = np.sqrt(np.square(frame.axes * frame.semi_axes_mm).sum(1))[2] + BOX_MARGIN_MM
    middle = frame.centre_mm[2] + pose.table_shift_mm[2]
    grid = scan_grid(scanner, (middle - reach, middle + reach))
    thick = scan_patient(patient, scanner, pose, 1, grid, 1)
    _, rows, columns = box_about(thick.heart, grid.spacing_mm)
    box = slice(None), rows, columns
    fine = _thin_grid(grid, rows, columns)
    step = fine.spacing_mm[2]
    thickness = scanner.slice_thickness_mm / FACTOR
    scanner = replace(scanner, slice_thickness_mm=thickness, slice_spacing_mm=step, noise_hu=0.0)
    thin = scan_patient(patient, scanner, pose, 1, fine, 1)
    inner = slice(None), slice(_RIM, -_RIM), slice(_RIM, -_RIM)
    calcium = np.rint(thin.calcium_mg_cm3[inner] * np.float32(scanner.calcium_hu_per_mg_cm3)).astype(np.int16)
    return SlicePair(thick.hu[box], thin.hu[inner], calcium, thick.heart[box], grid.spacing_mm)


def box_about(heart: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """The box [k, j, i] about a heart, bool, with BOX_MARGIN_MM. spacing_mm: x, y, z."""
    margins = [round(BOX_MARGIN_MM / spacing) for spacing in spacing_mm[::-1]]
    (box,) = ndimage.find_objects(heart.astype(np.uint8))
    return tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))


def _thin_grid(grid: Grid, rows: slice, columns: slice) -> Grid:
    """Of the thin slices, with a rim about rows and columns: without noise, the rest of the body need not be drawn."""
    step = grid.spacing_mm[2] / FACTOR
    shape = FACTOR * grid.shape[0], rows.stop - rows.start + 2 * _RIM, columns.stop - columns.start + 2 * _RIM
    x, y, z = grid.origin_mm
    dx, dy, _ = grid.spacing_mm
    origin = x + dx * (columns.start - _RIM), y + dy * (rows.start - _RIM), z - step * (FACTOR - 1) / 2
    return Grid(shape, (dx, dy, step), origin)


def write_pair(number: int, folder: Path) -> Path:
    """Write a patient's pair, unless it is there; returns its file."""
    path = _file(number, folder)
    if path.exists():
        return path
    pair = make_pair(number)
    folder.mkdir(parents=True, exist_ok=True)
    with whole(path) as half:
        np.savez_compressed(half, **vars(pair))
    return path


def write_pairs(
    numbers: Sequence[int], folder: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write the pairs of patients that are not there yet; returns all files in the patients' order."""
    if not all(_file(number, folder).exists() for number in numbers):
        in_processes(partial(write_pair, folder=folder), numbers, workers, progress)
    return [_file(number, folder) for number in numbers]


def _file(number: int, folder: Path) -> Path:
    return folder / f"{patient_folder(number)}.npz"


def read_pair(path: Path) -> SlicePair:
    """Raises CTError when it is no such file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            spacing = tuple(map(float, file["spacing_mm"]))
            return SlicePair(file["thick"], file["thin"], file["calcium"], file["heart"], spacing)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CTError(f"The slices in {path} cannot be read ({error}). Remove the file, and start again.") from error
