"""Each plaque of a digital patient as a scan shows it, worked out anew from the scan's truth.

A cohort's files hold all calcium of a scan in one image. A patient follows from its number, so each plaque can be
imaged again alone, at the same place and motion: what a method finds of it, and how fast it moved, is then known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..phantom.anatomy.body import Body
from ..phantom.anatomy.heart import posed_frame
from ..phantom.anatomy.patient import Patient, patient_heart, stream
from ..phantom.anatomy.plaque import Plaque, draw_plaques
from ..phantom.anatomy.points import POINT_STEP_MM, PointCloud
from ..phantom.scanner.motion import ScanPose, draw_heart_beat
from ..phantom.scanner.response import Stamp, image_of_points, slice_times_s
from ..phantom.scanner.scanner import Grid, Kernel, Scanner
from ..phantom.scanner.simulation import displacement

LEAST_HU, LEAST_SHARE = 10.0, 0.1
"""A plaque shows in voxels to which it adds this much, or, when it is fainter, this proportion of its highest value."""
NEAR_VOXELS = 2
"""Calcium that a method finds this close in the slice is the plaque's."""

_TIMES = 33


@dataclass(frozen=True)
class SeenPlaque:
    """A plaque in one scan.

    first: indices k, j, i of its box's first voxel; clipped to the scan. hu: float32, what it adds there, negative
    lobes too. near: bool, where its calcium is looked for. speed_mm_s: mean speed while its slices were scanned, each
    slice counting as much as it shows of the plaque.
    """

    plaque: Plaque
    first: tuple[int, int, int]
    hu: np.ndarray
    near: np.ndarray
    speed_mm_s: float

    @property
    def proportion(self) -> np.ndarray:
        """Its weight where several plaques are near; 0 where it is not."""
        return np.where(self.near, np.maximum(self.hu, np.float32(1e-3)), np.float32(0))

    @property
    def box(self) -> tuple[slice, slice, slice]:
        return tuple(slice(a, a + n) for a, n in zip(self.first, self.hu.shape, strict=True))


def seen_plaques(truth: dict, grid: Grid) -> list[SeenPlaque] | None:
    """Every plaque that lies in the scan at least in part; None when the patient drawn now is not the one of the truth.

    truth: content of `truth.json`. grid: of the scan. Raises KeyError, TypeError for a truth that lacks something.
    """
    number, known = truth["patient"], truth["lesions"]
    if not known:
        return []
    body = _made(Body, truth["body"])
    heart, tree = patient_heart(number, body)
    plaques = draw_plaques(tree, body.sex, stream(number, 3), 1.0)
    if len(plaques) != len(known):
        return None
    for plaque, wanted in zip(plaques, known, strict=True):
        same = plaque.vessel == wanted["vessel"] and math.isclose(plaque.mass_mg, wanted["mass_mg"], rel_tol=1e-3)
        if not same or not math.isclose(plaque.middle_mm, wanted["middle_mm"], rel_tol=1e-3, abs_tol=0.01):
            return None
    scanner = _made(Scanner, {**truth["scanner"], "kernel": Kernel(**truth["scanner"]["kernel"])})
    pose = _made(ScanPose, truth["pose"])
    patient = Patient(number, body, tree, plaques, (), draw_heart_beat(stream(number, 5)), *_nothing(), heart)
    shift = np.asarray(pose.table_shift_mm)
    own = Grid(grid.shape, grid.spacing_mm, tuple(np.asarray(grid.origin_mm) - shift))
    frame = posed_frame(body, pose)
    vessels = {vessel.name: vessel for vessel in tree.vessels}
    seen = []
    for plaque in plaques:
        cloud = plaque.cloud(vessels[plaque.vessel], POINT_STEP_MM)
        placed = PointCloud(frame.to_lps(cloud.positions_mm), cloud.weights)
        moved = displacement(patient, pose, plaque.artery, with_heart=True)
        stamps = image_of_points(placed, own, scanner, moved)
        speed = _speed_mm_s(stamps, moved, slice_times_s(own, scanner), scanner)
        found = _boxed(stamps, grid.shape, 1000.0 * scanner.calcium_hu_per_mg_cm3)
        if found is not None:
            first, hu = found
            seen.append(SeenPlaque(plaque, first, hu, _near(hu), speed))
    return seen


def window_of(plaques: Sequence[SeenPlaque]) -> tuple[slice, slice, slice]:
    """The part of the scan that holds the boxes of all plaques."""
    boxes = list(zip(*(plaque.box for plaque in plaques), strict=True))
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in boxes)


def shared_masses(
    plaques: Sequence[SeenPlaque], window: tuple[slice, slice, slice], counted: np.ndarray
) -> list[float]:
    """Of an image the sum near each plaque. Where several are near, each takes its share of what they truly add.

    counted: what a method counts in each voxel of `window_of` the plaques, 0 elsewhere.
    """
    boxes = []
    total = np.zeros(counted.shape, np.float32)
    for plaque in plaques:
        box = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(plaque.box, window, strict=True))
        total[box] += plaque.proportion
        boxes.append(box)
    masses = []
    for plaque, box in zip(plaques, boxes, strict=True):
        near = plaque.near
        masses.append(float((counted[box][near] * plaque.proportion[near] / total[box][near]).sum(dtype=np.float64)))
    return masses


def _boxed(
    stamps: Sequence[Stamp], shape: tuple[int, int, int], factor: float
) -> tuple[tuple[int, int, int], np.ndarray] | None:
    """The stamps' first voxel and image, clipped to a volume and to what is not negligible; None when nothing is."""
    parts = []
    for stamp in stamps:
        j, i = max(0, stamp.j), max(0, stamp.i)
        values = stamp.values[j - stamp.j : shape[1] - stamp.j, i - stamp.i : shape[2] - stamp.i] * factor
        if values.size and np.abs(values).max() > 0:
            parts.append((stamp.k, j, i, values))
    if not parts:
        return None
    low = [min(part[axis] for part in parts) for axis in range(3)]
    high = [max(part[0] for part in parts) + 1]
    high += [max(part[1 + n] + part[3].shape[n] for part in parts) for n in range(2)]
    volume = np.zeros([h - a for h, a in zip(high, low, strict=True)], np.float32)
    for k, j, i, values in parts:
        j, i = j - low[1], i - low[2]
        volume[k - low[0], j : j + values.shape[0], i : i + values.shape[1]] += values
    return tuple(low), volume


def _near(hu: np.ndarray) -> np.ndarray:
    least = min(LEAST_HU, LEAST_SHARE * float(hu.max()))
    return ndimage.binary_dilation(hu >= max(least, 1e-3), np.ones((1, 3, 3), bool), NEAR_VOXELS)


def _speed_mm_s(stamps: Sequence[Stamp], moved, times_s: np.ndarray, scanner: Scanner) -> float:
    if moved is None or not stamps:
        return 0.0
    # A half scan sees little more than half a rotation.
    window = scanner.rotation_s * (0.5 if scanner.half_scan else 1.0)
    speeds, weights = [], []
    for stamp in stamps:
        path = moved(times_s[stamp.k] + np.linspace(-0.5, 0.5, _TIMES) * window)
        speeds.append(np.linalg.norm(np.diff(path, axis=0), axis=1).sum() / window)
        weights.append(np.maximum(stamp.values, 0).sum())
    return float(np.average(speeds, weights=weights)) if sum(weights) > 0 else 0.0


def _nothing() -> tuple[PointCloud, PointCloud]:
    """Lung vessels and grain of a patient whose lungs are not imaged."""
    empty = PointCloud(np.zeros((0, 3)), np.zeros(0))
    return empty, empty


def _made(kind: type, values: dict) -> Any:
    """A dataclass from JSON, whose lists are tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
