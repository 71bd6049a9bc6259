"""Digital patients for the territory network: painted without noise on its voxels, with their territories.

A patient takes seconds: anatomy is painted at half the network's voxel and averaged; vessels and calcium are points
distributed to voxels. `territory_patches` adds effects of the scanner (noise, kernel, slices, field of view).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.grid import Grid, triple
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.preprocessing import TERRITORY_SPACING_MM
from CACScoringLib.quality.mass_calibration import HU_PER_MG_CM3_AT_120_KVP

from ..anatomy import tissues
from ..anatomy.canvas import Canvas, coverage
from ..anatomy.coronaries import ARTERY_SHARE, draw_plaques
from ..anatomy.heart import Heart, HeartFrame, reference_frame
from ..anatomy.hearts.territories import territories
from ..anatomy.hearts.valves import deposits
from ..anatomy.patient import Patient, add_contrast, draw_patient, stream
from ..anatomy.points import PointCloud, join_clouds
from ..anatomy.thorax import Thorax, apply_breath
from ..scanner.motion import ScanPose
from ..scanner.simulation import HIGHEST_HU, LOWEST_HU

VERSION = 9
"""Version in the files' names, raised with every change of the patients."""
STEP_MM = TERRITORY_SPACING_MM[0]
SHAPE = (120, 134, 160)
FIRST_MM = (-238.5, -178.5, -168.5)
"""Centre of the first voxel in LPS; the grid holds the chest, and most of the arms and the couch."""

PREVALENCE = 0.8
"""Prevalence of coronary calcium; higher than clinical, because the network learns locations."""
POSSIBLE = {
    **{artery: (artery, share) for artery, share in ARTERY_SHARE.items()},
    "aortic root": ("aortic valve and root", 0.3),
    "aortic valve": ("aortic valve and root", 0.05),
    "mitral annulus": ("mitral annulus", 0.15),
    "papillary muscle": ("other", 0.05),
    "pericardium": ("other", 0.05),
}
"""Territory of each kind of calcium, and its weight relative to all coronary calcium."""
POSSIBLE_EACH = 40
"""Plaques or deposits drawn of each kind for the distribution, besides the patient's."""
SHARES = {
    "contrast": 0.2, "arms": 0.3, "effusion": 0.15, "consolidation": 0.15, "shifted": 0.15, "flat": 0.4,
    "surroundings": 0.5,
}  # fmt: skip
"""Share of patients with enhanced blood, arms beside the trunk, fluid in the pleura, dense lung, a displaced heart, a
chest so flat that the heart touches its front wall and the spine, and with what real chests have around the heart:
without it, the network takes all fat up to the lung for the pericardium's."""
FLATTENED = (0.76, 0.95)
_GRAIN_HU = 900.0
_SPARSE = ("plaques", "deposits", "possible")
_PER_MG = 1000.0 / STEP_MM**3
"""mg/cm³ in a voxel that holds 1 mg."""


@dataclass(frozen=True)
class TerritoryVolume:
    """Digital patient on 3 mm voxels, [k, j, i] = SHAPE.

    Dense objects are sparse voxels: flat indices int32 [n], values float32 [n] and labels uint8 [n].

    Attributes:
        hu: Scan without noise and calcium, int16.
        labels: Labels of TERRITORIES, uint8.
        heart: Mask of the pericardium's inside, bool.
        plaques: Coronary calcium: voxels, HU added, and artery.
        deposits: Other dense objects: voxels, HU added, and 0.
        possible: Distribution of calcium of POSSIBLE kinds: voxels, share of all, and territory.
    """

    hu: np.ndarray
    labels: np.ndarray
    heart: np.ndarray
    plaques: tuple[np.ndarray, np.ndarray, np.ndarray]
    deposits: tuple[np.ndarray, np.ndarray, np.ndarray]
    possible: tuple[np.ndarray, np.ndarray, np.ndarray]


def territory_volume(number: int, folder: Path) -> TerritoryVolume:
    """Load a patient from the folder; make and write it if missing."""
    path = folder / f"territories-v{VERSION}-{number}.npz"
    if not path.exists():
        volume = make_volume(number)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                hu=volume.hu,
                labels=volume.labels + np.uint8(16) * volume.heart,
                **{f"{name}{n}": part for name in _SPARSE for n, part in enumerate(getattr(volume, name))},
            )
        return volume
    with np.load(path) as stored:
        labels = stored["labels"]
        sparse = {name: tuple(stored[f"{name}{n}"] for n in range(3)) for name in _SPARSE}
        return TerritoryVolume(stored["hu"], labels & 15, labels >= 16, **sparse)


def draw_positioned(number: int) -> tuple[Patient, ScanPose, dict[str, bool], np.random.Generator]:
    """Draw a patient positioned in the scanner, its traits of SHARES, and the generator for their appearance."""
    g = stream(number, 60)
    traits = {name: bool(g.random() < share) for name, share in SHARES.items()}
    patient = draw_patient(number, None, PREVALENCE, diverse=True, surroundings=traits["surroundings"])
    if traits["contrast"]:
        patient = add_contrast(patient)
    shift = g.normal(0, (6.0, 3.0, 6.0))
    shift[0] += traits["shifted"] * g.uniform(-32, 32)
    # Not towards the sternum, which the heart already touches.
    shift[1] = abs(shift[1])
    body = patient.body
    if traits["flat"]:
        front = float(reference_frame(body).to_lps(patient.heart.places_mm[patient.heart.pericardium < 0])[:, 1].min())
        body = replace(body, cavity_half_depth_mm=body.cavity_half_depth_mm * g.uniform(*FLATTENED))
        shift[1] = -body.cavity_half_depth_mm - front + g.uniform(0, 3)
    centre = triple(float(a + b) for a, b in zip(body.heart_centre_mm, shift, strict=True))
    patient = replace(patient, body=replace(body, heart_centre_mm=centre))
    pose = ScanPose(
        table_shift_mm=triple(float(s) for s in g.normal(0, (8.0, 5.0, 5.0))),
        inspiration=float(g.uniform(-0.15, 1.1)),
        tilt_degrees=triple(float(t) for t in g.normal(0, 4.0, 3)),
        motion_scale=float(g.uniform(0.0, 1.5)),
    )
    return patient, pose, traits, g


def make_volume(number: int) -> TerritoryVolume:
    """Paint a patient. The same number gives the same volume."""
    patient, pose, traits, g = draw_positioned(number)
    grid = Grid(SHAPE[::-1], TERRITORY_SPACING_MM, FIRST_MM)
    patient_grid = replace(grid, origin_mm=tuple(np.asarray(FIRST_MM) - pose.table_shift_mm))
    hu, lung, heart, frame = _paint(patient, pose, patient_grid, traits, g)
    body = patient.body
    for cloud, value in ((patient.vessels, body.blood_hu - body.lung_hu), (patient.grain, _GRAIN_HU)):
        share = _rasterize(cloud.map(partial(apply_breath, body=body, pose=pose)), patient_grid) / STEP_MM**3
        hu += lung * (np.clip(share, 0, 1) if cloud is patient.vessels else share) * np.float32(value)
    lumen = (
        sum(_rasterize(patient.tree.lumen(a).map(frame.to_lps), patient_grid) for a in TERRITORIES[1:5]) / STEP_MM**3
    )
    fat_share = np.clip((body.blood_hu - hu) / (body.blood_hu - body.fat_hu), 0, 1)
    hu += np.minimum(lumen, 1) * fat_share * np.float32(body.blood_hu - body.fat_hu)
    plaques = [(patient.calcium(artery).map(frame.to_lps), label) for label, artery in enumerate(TERRITORIES[1:5], 1)]
    dense = [(d.place(body, frame, patient.heart), d.metal) for d in patient.distractors]
    return TerritoryVolume(
        np.rint(np.clip(hu, LOWEST_HU, HIGHEST_HU)).astype(np.int16),
        territories(patient, pose, grid),
        heart > 0.5,
        _voxels([(c, HU_PER_MG_CM3_AT_120_KVP * _PER_MG, label) for c, label in plaques], patient_grid),
        _voxels(
            [(c, tissues.METAL_HU / STEP_MM**3 if m else HU_PER_MG_CM3_AT_120_KVP * _PER_MG, 0) for c, m in dense],
            patient_grid,
        ),
        _voxels(_possible(patient, frame), patient_grid),
    )


def _possible(patient: Patient, frame: HeartFrame) -> list[tuple[PointCloud, float, int]]:
    """Draw clouds of `TerritoryVolume.possible`, each with its factor and territory."""
    g = stream(patient.number, 61)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    clouds = []
    for kind, (territory, share) in POSSIBLE.items():
        if kind not in ARTERY_SHARE:
            parts = [deposits(kind, patient.heart, patient.tree, g) for _ in range(POSSIBLE_EACH)]
        elif patient.tree.of(kind):
            drawn = draw_plaques(patient.tree, patient.body.sex, g, 1.0, kind, POSSIBLE_EACH)
            parts = [plaque.cloud(vessels[plaque.vessel], STEP_MM / 3) for plaque in drawn]
        else:
            continue
        cloud = join_clouds([PointCloud(part.positions_mm, part.weights / part.total) for part in parts])
        clouds.append((cloud.map(frame.to_lps), share / len(parts), TERRITORIES.index(territory)))
    return clouds


def add_dense(volume: TerritoryVolume) -> np.ndarray:
    """Return HU float32 [k, j, i] with calcium and metal."""
    hu = volume.hu.astype(np.float32).ravel()
    np.add.at(hu, *dense_voxels(volume))
    return np.minimum(hu, HIGHEST_HU, out=hu).reshape(volume.hu.shape)


def dense_voxels(
    volume: TerritoryVolume, plaque_gain: float = 1.0, deposit_gain: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat voxels with calcium and metal, and the HU that they add, scaled by gains."""
    parts = ((volume.plaques, plaque_gain), (volume.deposits, deposit_gain))
    return np.concatenate([part[0] for part, _ in parts]), np.concatenate([gain * part[1] for part, gain in parts])


def _paint(
    patient: Patient, pose: ScanPose, grid: Grid, traits: dict[str, bool], g: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, HeartFrame]:
    """Paint a patient; return HU, share of lung and of heart [k, j, i], and the heart's frame."""
    x, y, z = (
        f + STEP_MM * (np.arange(2 * n) - 0.5) / 2 for f, n in zip(grid.origin_mm, grid.shape[::-1], strict=True)
    )
    thorax, heart = Thorax(patient.body, pose, x, y, patient.number), Heart(patient.body, pose, patient.heart)
    arms = _arms(g) if traits["arms"] else []
    fluid = g.uniform(-10, 50), float(g.uniform(0, 25)), g.choice([-1, 0, 1])
    dense = g.uniform(-500, 40), g.uniform(0, 2 * np.pi, 6)
    density, lung_share, heart_share = (np.zeros(grid.shape, np.float32) for _ in range(3))
    for k in range(grid.shape[0]):
        base = Canvas(x, y, float(z[2 * k : 2 * k + 2].mean()), tissues.GAS_HU)
        for path, radius, hu in arms:
            box, distance = base.tube_distance(path, np.full(len(path), radius))
            base.blend(box, coverage(distance), hu)
        trunk = thorax.trunk(base)
        for height in z[2 * k : 2 * k + 2]:
            canvas = base.copy(float(height))
            air = thorax.paint(canvas, trunk, 0.0)
            heart.paint_mediastinum(canvas, air, trunk.grain)
            inside = heart.paint(canvas, air, trunk.grain, 0.0)
            thorax.skeleton.paint_spine(canvas, air, trunk.grain)
            if traits["effusion"]:
                level, value, side = fluid
                depth = (y[:, None] - level) / 8 + np.float32(0.05) * height
                wet = air * np.clip(depth, 0, 1) * ((np.sign(x) == side) | (side == 0))
                canvas.hu += wet * (np.float32(value) - canvas.hu)
                air *= 1 - np.clip(wet, 0, 1)
            if traits["consolidation"]:
                value, phase = dense
                waves = (
                    np.sin(x / 31 + phase[0])[None]
                    + np.sin(y / 27 + phase[1])[:, None]
                    + np.sin(height / 35 + phase[2])
                )
                solid = air * np.clip(2 * waves - 2.4, 0, 1).astype(np.float32)
                canvas.hu += solid * (np.float32(value) - canvas.hu)
            for total, part in ((density, canvas.hu), (lung_share, air), (heart_share, inside)):
                total[k] += part.reshape(grid.shape[1], 2, grid.shape[2], 2).mean((1, 3)) / 2
    return density, lung_share, heart_share, heart.frame


def _arms(g: np.random.Generator) -> list[tuple[np.ndarray, float, float]]:
    """Draw arms beside the trunk as tubes of fat, muscle and bone: path, radius in mm, HU."""
    arms = []
    for side in (-1, 1):
        top, low = g.uniform(165, 215), g.uniform(190, 250)
        forward = g.uniform(-30, 60, 2)
        path = np.array([[side * top, forward[0], 220.0], [side * low, forward[1], -200.0]])
        radius = g.uniform(34, 52)
        arms += [(path, radius, -100.0), (path, 0.8 * radius, 55.0), (path, 11.0, 700.0)]
    return arms


def _corners(cloud: PointCloud, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Distribute points linearly to voxels; return flat indices and weights."""
    place = (cloud.positions_mm - grid.origin_mm) / grid.spacing_mm
    inside = ((place >= 0) & (place < np.array(grid.shape[::-1]) - 1)).all(1)
    place, weights = place[inside], cloud.weights[inside]
    base = np.floor(place).astype(np.int64)
    t = place - base
    index, value = [], []
    for corner in np.ndindex(2, 2, 2):
        i, j, k = (base + corner).T
        index.append((k * grid.shape[1] + j) * grid.shape[2] + i)
        value.append(weights * np.prod(np.where(corner, t, 1 - t), axis=1))
    return np.concatenate(index), np.concatenate(value)


def _rasterize(cloud: PointCloud, grid: Grid) -> np.ndarray:
    index, value = _corners(cloud, grid)
    return np.bincount(index, value, minlength=int(np.prod(grid.shape))).reshape(grid.shape).astype(np.float32)


def _voxels(clouds: list[tuple[PointCloud, float, int]], grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return voxels of clouds times factors: flat index, value and label; a voxel may occur several times."""
    parts = [(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.uint8))]
    for cloud, factor, label in clouds:
        if not len(cloud.weights):
            continue
        index, value = _corners(cloud, grid)
        voxels, voxel_of = np.unique(index, return_inverse=True)
        total = factor * np.bincount(voxel_of, value)
        parts.append((voxels.astype(np.int32), total.astype(np.float32), np.full(len(voxels), label, np.uint8)))
    indices, values, labels = zip(*parts, strict=True)
    return np.concatenate(indices), np.concatenate(values), np.concatenate(labels)
