"""Radiographs of digital patients as if their CTs had had thinner slices about the heart.

Projecting is linear: to the radiograph of the whole CT is added what the box about the heart has more in thin slices
than in its own. Towards the box's borders the difference is faded to nothing, so that no edge shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from CACScoringLib.drr.geometry import Geometry
from CACScoringLib.drr.projection import water_equivalent_mm

from ..phantom.scanner.simulation import DigitalScan
from .cases import BOX_MARGIN_MM
from .super_resolution import interpolated, learned, super_resolution_model
from .thin_slices import FACTOR

FADE_MM = 9.0
"""Within this of the box's border its difference fades; `cases.BOX_MARGIN_MM` leaves more about the heart."""

_AIR_HU = -1000.0


@dataclass(frozen=True)
class HeartBox:
    """The CT about the heart.

    hu: int16 [k, j, i]. spacing_mm, origin_mm: of its axes, which run along x, y, z (LPS), and of its first voxel.
    geometries: of each view, by name.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    geometries: dict[str, Geometry]


def thin_slice_views(
    bodies: dict[str, np.ndarray], scan: DigitalScan, stands: dict[str, Geometry], model: str
) -> dict[tuple[str, str], np.ndarray]:
    """Radiographs with thin slices about the heart, mm of water, by view and way: interpolated, and by a network.

    bodies: radiographs of the scan as it is, by view. model: name of the network. Raises ModelError.
    """
    torch.set_num_threads(1)  # all cores are at work on other patients
    box = heart_box(scan, stands)
    network = super_resolution_model(FACTOR, model)
    thin = {"interpolated": interpolated(box.hu, FACTOR), "learned": learned(box.hu, network)}
    return thin_slice_bodies(bodies, box, thin)


def heart_box(scan: DigitalScan, stands: dict[str, Geometry]) -> HeartBox:
    """The part of a scan about the heart. stands: how the patient stands in each view."""
    places = np.nonzero(scan.heart)
    margin = [round(BOX_MARGIN_MM / s) for s in scan.grid.spacing_mm[::-1]]
    low = [max(0, int(p.min()) - m) for p, m in zip(places, margin, strict=True)]
    high = [int(p.max()) + m + 1 for p, m in zip(places, margin, strict=True)]
    box = scan.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    origin = tuple(o + s * n for o, s, n in zip(scan.grid.origin_mm, scan.grid.spacing_mm, low[::-1], strict=True))
    return HeartBox(np.ascontiguousarray(box), scan.grid.spacing_mm, origin, stands)


def thin_slice_bodies(
    bodies: dict[str, np.ndarray], box: HeartBox, thin: dict[str, np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    """Radiographs of the CT with thin slices in the box, mm of water, by view and way.

    bodies: of the CT as it is, by view; between its slices the projector is linear. thin: HU [FACTOR k, j, i] by way.
    """
    found = {}
    for view, body in bodies.items():
        before = water_equivalent_mm(_faded(interpolated(box.hu, FACTOR, order=1), box), box.geometries[view])
        for method, hu in thin.items():
            found[view, method] = body + water_equivalent_mm(_faded(hu, box), box.geometries[view]) - before
    return found


def fade(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Weights from 0 at the border of a volume [k, j, i] to 1 from FADE_MM on, float32. spacing_mm: x, y, z."""
    ramps = []
    for n, spacing in zip(shape, spacing_mm[::-1], strict=True):
        from_border = (np.minimum(np.arange(n), np.arange(n)[::-1])) * spacing
        ramps.append(np.clip(from_border / FADE_MM, 0, 1).astype(np.float32))
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


def _faded(thin: np.ndarray, box: HeartBox) -> sitk.Image:
    """Thin slices in place of a box, faded to air towards its borders."""
    factor = len(thin) // len(box.hu)
    step = box.spacing_mm[2] / factor
    spacing = (*box.spacing_mm[:2], step)
    dense = np.maximum(thin, np.float32(_AIR_HU)) - np.float32(_AIR_HU)
    image = sitk.GetImageFromArray(dense * fade(thin.shape, spacing) + np.float32(_AIR_HU))
    image.SetSpacing(spacing)
    image.SetOrigin((*box.origin_mm[:2], box.origin_mm[2] - step * (factor - 1) / 2))
    return image
