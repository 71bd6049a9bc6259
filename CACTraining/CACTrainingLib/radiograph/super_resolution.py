"""Super-resolution of slices before a CT is projected: by interpolation or a network.

The baseline is a cubic B-spline along the table. The network (`van_velzen.SliceSuperResolution`) adds a residual that
it learned from digital hearts scanned twice in the same pose: in slices of cardiac CT, and in thin ones without noise.
Least squares yields the mean of all thin scans that fit the thick one; noise-free targets only speed this up.

Projection is linear: the difference of thin and thick slices in the heart's box is added to the CT's radiograph. It
fades towards the box's borders, so that no edge shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from CACScoringLib.core.errors import CTError, ModelError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.grid import Grid, triple
from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.drr.projection import water_equivalent_mm
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import RESIDUAL_HU, interpolated_slices, thick_slice_input
from CACScoringLib.networks.configs import SliceSuperResolutionConfig

from .. import phantom
from .cases import BOX_MARGIN_MM, FIELD_OF_VIEW_MM, MATRIX

FACTOR = 3
PROTOCOL = "cardiac"

_RIM = 12
"""Margin in pixels around the box against blur of the missing surroundings."""


@dataclass(frozen=True)
class SlicePair:
    """Box around a patient's heart in thick and thin slices, HU, int16.

    Attributes:
        thick: Thick slices [k, j, i].
        thin: Slices of 1/FACTOR of the thickness, without noise [FACTOR k, j, i].
        calcium: Coronary calcium in the thin slices.
        heart: Mask in the thick slices, bool.
        spacing_mm: Spacing x, y, z of the thick slices.
    """

    thick: np.ndarray
    thin: np.ndarray
    calcium: np.ndarray
    heart: np.ndarray
    spacing_mm: tuple[float, float, float]


def make_pair(number: int) -> SlicePair:
    """Scan a digital patient's heart in thick and thin slices, always the same for the same number."""
    patient = phantom.draw_patient(number)
    scanner, pose = phantom.draw_pair(phantom.PROTOCOLS[PROTOCOL], phantom.stream(number, 20))[0]
    scanner = replace(scanner, matrix=MATRIX, field_of_view_mm=FIELD_OF_VIEW_MM)
    frame = phantom.posed_frame(patient.body, pose)
    reach = np.sqrt(np.square(frame.axes * frame.semi_axes_mm).sum(1))[2] + BOX_MARGIN_MM
    middle = frame.centre_mm[2] + pose.table_shift_mm[2]
    grid = phantom.scan_grid(scanner, (middle - reach, middle + reach))
    thick = phantom.scan_patient(patient, scanner, pose, 1, grid)
    _, rows, columns = box_about(thick.heart, grid.spacing_mm)
    box = slice(None), rows, columns
    # The thin slices have a rim around these rows and columns only, since they have no noise.
    x, y, z = grid.origin_mm
    dx, dy, _ = grid.spacing_mm
    size = columns.stop - columns.start + 2 * _RIM, rows.stop - rows.start + 2 * _RIM, grid.size[2]
    origin = x + dx * (columns.start - _RIM), y + dy * (rows.start - _RIM), z
    fine = thin_grid(Grid(size, grid.spacing_mm, origin))
    step = fine.spacing_mm[2]
    thickness = scanner.slice_thickness_mm / FACTOR
    scanner = replace(scanner, slice_thickness_mm=thickness, slice_spacing_mm=step, noise_hu=0.0)
    thin = phantom.scan_patient(patient, scanner, pose, 1, fine)
    inner = slice(None), slice(_RIM, -_RIM), slice(_RIM, -_RIM)
    calcium = np.rint(thin.calcium_mg_cm3[inner] * np.float32(scanner.calcium_hu_per_mg_cm3)).astype(np.int16)
    return SlicePair(thick.hu[box], thin.hu[inner], calcium, thick.heart[box], triple(grid.spacing_mm))


def box_about(heart: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[slice, ...]:
    """Return the box [k, j, i] around a heart mask, with BOX_MARGIN_MM. spacing_mm: x, y, z."""
    margins = [round(BOX_MARGIN_MM / spacing) for spacing in spacing_mm[::-1]]
    (box,) = ndimage.find_objects(heart.astype(np.uint8))
    return tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))


def thin_grid(grid: Grid) -> Grid:
    """Return the grid of thin slices, FACTOR in place of each slice of a grid."""
    columns, rows, slices = grid.size
    dx, dy, dz = grid.spacing_mm
    step = dz / FACTOR
    origin = np.array(grid.origin_mm) - step * (FACTOR - 1) / 2 * np.array(grid.direction[2::3])
    return Grid((columns, rows, FACTOR * slices), (dx, dy, step), triple(map(float, origin)), grid.direction)


def write_pair(number: int, folder: Path) -> None:
    """Write a patient's pair if missing."""
    path = _file(number, folder)
    if not path.exists():
        pair = make_pair(number)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            np.savez_compressed(unfinished, **vars(pair))


def slice_pairs(
    numbers: Sequence[int], folder: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[SlicePair]:
    """Read the pairs of patients from a folder, where missing ones are written first. Raises CTError."""
    files = [_file(number, folder) for number in numbers]
    if not all(file.exists() for file in files):
        phantom.in_processes(partial(write_pair, folder=folder), numbers, workers, progress)
    return [read_pair(file) for file in files]


def _file(number: int, folder: Path) -> Path:
    return folder / f"{phantom.patient_folder(number)}.npz"


def read_pair(path: Path) -> SlicePair:
    """Read a pair. Raises CTError for another file."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            spacing = triple(map(float, file["spacing_mm"]))
            return SlicePair(file["thick"], file["thin"], file["calcium"], file["heart"], spacing)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CTError(f"The slices in {path} cannot be read ({error}). Remove the file, and start again.") from error


NETWORK = "super_resolution"
CALCIUM_HU = 50.0
"""Least HU of calcium in a calcified voxel when slices are compared."""

VISIBLE_HU = 130.0


def sharpen(hu: np.ndarray, model: LoadedModel) -> np.ndarray:
    """Compute thin slices by a network, float32 [factor k, j, i]. hu: [k, j, i], at least two slices."""
    config = SliceSuperResolutionConfig(**model.card.config)
    thin = predict(model.network, thick_slice_input(hu, config.neighbours), 8)[0]
    thin = RESIDUAL_HU * thin.reshape(-1, *hu.shape[1:])
    thin += interpolated_slices(hu, config.factor)
    return thin


@lru_cache(maxsize=1)
def super_resolution_model(name: str) -> LoadedModel:
    """Load the model of a name. Raises ModelError for a model of another factor."""
    model = find_model(NETWORK, name)
    if (factor := model.card.config["factor"]) != FACTOR:
        raise ModelError(f"The model {model.card.name} makes {factor} slices of one; {FACTOR} are needed.")
    return load_model(model.path, "cpu")


def quality(thin: np.ndarray, pair: SlicePair) -> dict[str, float]:
    """Compare thin slices with the noise-free thin scan, in HU.

    Returns:
        rms_heart: Root mean square difference in the heart.
        rms_calcium, bias_calcium: The same and the mean difference in voxels with CALCIUM_HU, if any.
        peaks: Mean ratio of a plaque's highest value to that in the thin scan, over plaques of VISIBLE_HU, if any.
    """
    factor = len(pair.thin) // len(pair.thick)
    difference = thin - pair.thin
    heart = np.repeat(pair.heart, factor, axis=0)
    errors = {"rms_heart": _rms(difference[heart])}
    plaques, count = ndimage.label(pair.calcium >= CALCIUM_HU)
    if count:
        calcified = difference[plaques > 0]
        errors |= {"rms_calcium": _rms(calcified), "bias_calcium": calcified.mean()}
        numbers = np.arange(1, count + 1)
        true = ndimage.maximum(pair.thin, plaques, numbers)
        visible = true >= VISIBLE_HU
        if visible.any():
            errors["peaks"] = (ndimage.maximum(thin, plaques, numbers)[visible] / true[visible]).mean()
    return {name: float(value) for name, value in errors.items()}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


FADE_MM = 9.0
"""Width in mm of the fade at the box's border, less than `cases.BOX_MARGIN_MM`."""

_NO_DENSITY_HU = -1000.0


def thin_slice_views(
    bodies: dict[str, np.ndarray], ct: sitk.Image, heart: np.ndarray, stands: dict[str, Geometry], model: str
) -> dict[tuple[str, str], np.ndarray]:
    """Project a CT with thin slices around the heart, in mm of water, by view and way (interpolated, network).

    Args:
        bodies: Radiographs of the unchanged CT by view.
        ct: The CT in LPS order, HU.
        heart: Mask on its grid [k, j, i].
        stands: Geometry of each view.
        model: Name of the network.

    Raises:
        ModelError: There is no such network.
    """
    torch.set_num_threads(1)  # other processes use the other cores
    part = ct[box_about(heart, ct.GetSpacing())[::-1]]
    hu = sitk.GetArrayFromImage(part)
    network = super_resolution_model(model)
    thin = {"interpolated": interpolated_slices(hu, FACTOR), "learned": sharpen(hu, network)}
    return thin_slice_bodies(bodies, stands, hu, thin_grid(Grid.of(part)), thin)


def thin_slice_bodies(
    bodies: dict[str, np.ndarray],
    stands: dict[str, Geometry],
    hu: np.ndarray,
    grid: Grid,
    thin: dict[str, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """Project a CT with thin slices around the heart, in mm of water, by view and way.

    Args:
        bodies: Radiographs of the unchanged CT by view, between whose slices the projector interpolates linearly.
        stands: Geometry of each view.
        hu: Slices of the CT around the heart, int16 [k, j, i].
        grid: Grid of the thin slices.
        thin: HU of the thin slices [FACTOR k, j, i] by way.
    """
    plain = _faded_image(interpolated_slices(hu, FACTOR, order=1), grid)
    images = {method: _faded_image(thin_hu, grid) for method, thin_hu in thin.items()}
    thin_bodies = {}
    for view, body in bodies.items():
        before = water_equivalent_mm(plain, stands[view])
        for method, image in images.items():
            thin_bodies[view, method] = body + water_equivalent_mm(image, stands[view]) - before
    return thin_bodies


def fade(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return weights from 0 at the border of a volume [k, j, i] to 1 at FADE_MM, float32. spacing_mm: x, y, z."""
    ramps = []
    for n, spacing in zip(shape, spacing_mm[::-1], strict=True):
        from_border = (np.minimum(np.arange(n), np.arange(n)[::-1])) * spacing
        ramps.append(np.clip(from_border / FADE_MM, 0, 1).astype(np.float32))
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


def _faded_image(thin: np.ndarray, grid: Grid) -> sitk.Image:
    """Return thin slices on their grid as an image, faded to air towards its borders."""
    dense = np.maximum(thin, np.float32(_NO_DENSITY_HU)) - np.float32(_NO_DENSITY_HU)
    return grid.image(dense * fade(thin.shape, triple(grid.spacing_mm)) + np.float32(_NO_DENSITY_HU))
