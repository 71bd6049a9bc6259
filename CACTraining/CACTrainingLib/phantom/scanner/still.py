"""A digital patient at rest without a scanner, as a radiograph sees it within milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from CACScoringLib.core.grid import Grid
from CACScoringLib.quality.mass_calibration import calcium_hu_per_mg_cm3

from ..anatomy import tissues
from ..anatomy.canvas import Canvas
from ..anatomy.coronaries import Plaque
from ..anatomy.heart import Heart, HeartFrame, posed_frame
from ..anatomy.patient import Patient
from ..anatomy.points import PointCloud, join_clouds
from ..anatomy.thorax import Thorax, apply_breath, body_box
from .motion import ScanPose
from .simulation import CHEST_MM, GRAIN_HU, moving_objects

PIXEL_MM, SLICE_MM, SIDE_MM = 1.25, 1.5, 432.0
"""Pixels and distance of the painted slices, and the side of the square in which they lie."""
_SLICES_PER_TRUNK = 2


@dataclass(frozen=True)
class StillPatient:
    """Patient in a pose.

    Attributes:
        grid: Grid of the arrays, in the patient's frame.
        hu: Tissue, float32 [k, j, i].
        heart: The pericardium's inside, bool [k, j, i].
        fine: All that is finer than the grid but coronary calcium; weights in HU · mm³.
        frame: The heart's frame.
    """

    grid: Grid
    hu: np.ndarray
    heart: np.ndarray
    fine: PointCloud
    frame: HeartFrame


def still_patient(patient: Patient, pose: ScanPose) -> StillPatient:
    """Paint a patient in a pose, in mid-diastole."""
    body, count = patient.body, round(SIDE_MM / PIXEL_MM)
    x = (np.arange(count) - (count - 1) / 2) * PIXEL_MM
    z = np.arange(CHEST_MM[0] + SLICE_MM / 2, CHEST_MM[1], SLICE_MM)
    rows, columns = body_box(body, Canvas(x, x + 6, 0.0, tissues.GAS_HU), (z[0] - 8, z[-1] + 8))
    x, y = x[columns], (x + 6)[rows]
    thorax, heart = Thorax(body, pose, x, y, patient.number, couch=False), Heart(body, pose, patient.heart)
    grid = Grid((len(x), len(y), len(z)), (PIXEL_MM, PIXEL_MM, SLICE_MM), (float(x[0]), float(y[0]), float(z[0])))
    hu, lungs, inside = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32), np.empty(grid.shape, bool)
    for first in range(0, len(z), _SLICES_PER_TRUNK):
        part = slice(first, first + _SLICES_PER_TRUNK)
        base = Canvas(x, y, float(z[part].mean()), tissues.GAS_HU)
        trunk = thorax.trunk(base)
        for k in range(*part.indices(len(z))):
            canvas = base.copy(float(z[k]))
            lung = thorax.paint(canvas, trunk, 0.0)
            heart.paint_mediastinum(canvas, lung, trunk.grain)
            inside[k] = heart.paint(canvas, lung, trunk.grain, 0.0) > 0.5
            thorax.skeleton.paint_spine(canvas, lung, trunk.grain)
            hu[k], lungs[k] = canvas.hu, lung
    return StillPatient(grid, hu, inside, _fine(patient, pose, grid, hu, lungs), heart.frame)


def plaque_points(patient: Patient, plaques: tuple[Plaque, ...], frame: HeartFrame) -> PointCloud:
    """Return plaques on a patient's arteries as points in LPS; weights in HU · mm³."""
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    cloud = join_clouds([plaque.cloud(vessels[plaque.vessel], 0.35) for plaque in plaques])
    return PointCloud(frame.to_lps(cloud.positions_mm), 1000 * calcium_hu_per_mg_cm3(120.0) * cloud.weights)


def _fine(patient: Patient, pose: ScanPose, grid: Grid, hu: np.ndarray, lungs: np.ndarray) -> PointCloud:
    """Return vessels and texture of the lungs, coronary vessels in fat, cusps, and calcium and metal elsewhere."""
    body, frame = patient.body, posed_frame(patient.body, pose)
    in_breath = partial(apply_breath, body=body, pose=pose)
    clouds = []
    for cloud, value in ((patient.vessels, body.blood_hu - body.lung_hu), (patient.grain, GRAIN_HU)):
        places = in_breath(cloud.positions_mm)
        clouds.append(PointCloud(places, cloud.weights * value * _at(lungs, grid, places, 0.0)))
    per_mg = 1000 * calcium_hu_per_mg_cm3(120.0)
    factors = {"deposit": per_mg, "cusps": body.myocardium_hu - body.blood_hu, "metal": tissues.METAL_HU}
    for moving in moving_objects(patient, frame):
        cloud = moving.cloud
        if moving.kind == "lumen":
            fat = (body.blood_hu - _at(hu, grid, cloud.positions_mm, body.blood_hu)) / (body.blood_hu - body.fat_hu)
            clouds.append(
                PointCloud(cloud.positions_mm, cloud.weights * np.clip(fat, 0, 1) * (body.blood_hu - body.fat_hu))
            )
        elif moving.kind in factors:
            clouds.append(PointCloud(cloud.positions_mm, cloud.weights * factors[moving.kind]))
    return join_clouds(clouds)


def _at(values: np.ndarray, grid: Grid, places_mm: np.ndarray, outside: float) -> np.ndarray:
    index = ((places_mm - np.asarray(grid.origin_mm)) / np.asarray(grid.spacing_mm))[:, ::-1].T
    return ndimage.map_coordinates(values, index, order=1, cval=outside)
