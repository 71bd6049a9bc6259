"""Scans of the patients that teach the lesion network, difficult as these are (`lesion_patients.Difficulty`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..anatomy.patient import stream
from ..scanner.motion import PROTOCOLS, ScanPose, draw_pair
from ..scanner.scanner import KERNELS, Scanner
from .lesion_patients import Difficulty

GATED, UNGATED = "cardiac-varied", "chest-varied"
"""Protocols of their scans."""

GATED_SHARE = 0.4
"""Share of gated scans."""

NEVER_GATED = ("motion", "doubled", "gas")
"""Difficulties that a gated scan would remove."""

MOVING_SCALE, MOVING_RATE_BPM, MOVING_ROTATION_S = (1.0, 1.6), (70.0, 110.0), (0.33, 0.75)
"""Ranges of the motion's factor, heart rate and rotation time where motion is the difficulty."""

NOISY_MM, NOISY_HU = (1.0, 1.5), (40.0, 90.0)
"""Ranges of slice thickness and noise where noise is the difficulty."""

THICK_MM, THICK_OVERLAP = (5.0, 8.0), (0.6, 1.0)
"""Ranges of slice thickness, and of the spacing's share of it, where thickness is the difficulty."""

SMALL_FIELD_MM = (140.0, 200.0)
"""Range of the width of a small field."""

DOUBLED_SCALE, DOUBLED_RATE_BPM, DOUBLED_ROTATION_S, DOUBLED_HALF_SHARE = (1.0, 1.8), (60.0, 110.0), (0.33, 0.8), 0.4
"""Ranges of the motion's factor, heart rate and rotation time of scans that double plaques, and share of slices from
half a rotation, which draw arcs; a full rotation is two halves, each of which shows the plaque elsewhere."""

LARGE_FIELD_MM, OFF_CENTRE_MM = (120.0, 200.0), 25.0
"""Range of the width of the fields that cut large hearts, and SD of their shift from the usual."""

INSPIRATION_SD = 0.08
"""SD of the breath where a deep one would draw the heart away from chest wall and stomach."""

GAS_KERNELS = ("medium", "sharp")
"""Kernels that brighten tissue beside gas."""


def draw_lesion_scan(number: int, difficulty: Difficulty | None = None) -> tuple[Scanner, ScanPose]:
    """Draw scanner and pose of the scan of a patient of `draw_lesion_patient`."""
    g = stream(number, 71)
    gated = g.random() < GATED_SHARE and difficulty not in NEVER_GATED
    scanner, pose = draw_pair(PROTOCOLS[GATED if gated else UNGATED], stream(number, 72))[int(g.integers(2))]
    return make_difficult(scanner, pose, number, difficulty)


def make_difficult(
    scanner: Scanner, pose: ScanPose, number: int, difficulty: Difficulty | None
) -> tuple[Scanner, ScanPose]:
    """Return scanner and pose with the scan's part of a difficulty; ungated if gating would remove it.

    number: Number of the patient.
    """
    if difficulty in NEVER_GATED:
        scanner = replace(scanner, gate_phase=None)
    g = stream(number, 82)
    if difficulty == "motion":
        g = stream(number, 78)
        scanner = replace(scanner, half_scan=True, rotation_s=float(g.uniform(*MOVING_ROTATION_S)))
        rate, scale = float(g.uniform(*MOVING_RATE_BPM)), float(g.uniform(*MOVING_SCALE))
        return scanner, replace(pose, heart_rate_bpm=rate, motion_scale=scale)
    if difficulty == "doubled":
        return _doubling(scanner, pose, g)
    if difficulty == "noise":
        thickness, noise = float(g.uniform(*NOISY_MM)), float(g.uniform(*NOISY_HU))
        return replace(scanner, slice_thickness_mm=thickness, slice_spacing_mm=thickness, noise_hu=noise), pose
    if difficulty == "thick":
        thickness = float(g.uniform(*THICK_MM))
        spacing = thickness * float(g.uniform(*THICK_OVERLAP))
        return replace(scanner, slice_thickness_mm=thickness, slice_spacing_mm=spacing), pose
    if difficulty == "field":
        return _small_field(scanner, SMALL_FIELD_MM, g), pose
    if difficulty == "large":
        return _off_centre(scanner, pose, g)
    if difficulty == "cartilage":
        return scanner, replace(pose, inspiration=float(g.normal(0, INSPIRATION_SD)))
    if difficulty == "gas":
        scanner = replace(scanner, kernel=KERNELS[g.choice(GAS_KERNELS)])
        breath, scale = float(g.normal(0, INSPIRATION_SD)), float(g.uniform(*MOVING_SCALE))
        return scanner, replace(pose, inspiration=breath, motion_scale=scale)
    return scanner, pose


def _doubling(scanner: Scanner, pose: ScanPose, g: np.random.Generator) -> tuple[Scanner, ScanPose]:
    """Let slow slices and fast hearts double plaques or draw them as arcs."""
    rotation = float(g.uniform(*DOUBLED_ROTATION_S))
    scanner = replace(scanner, half_scan=bool(g.random() < DOUBLED_HALF_SHARE), rotation_s=rotation)
    rate, scale = float(g.uniform(*DOUBLED_RATE_BPM)), float(g.uniform(*DOUBLED_SCALE))
    return scanner, replace(
        pose, heart_rate_bpm=rate, motion_scale=scale, start_phase=pose.start_phase + float(g.random())
    )


def _off_centre(scanner: Scanner, pose: ScanPose, g: np.random.Generator) -> tuple[Scanner, ScanPose]:
    """Cut a large heart by a field that is small or lies aside."""
    x, y, z = pose.table_shift_mm
    aside, back = g.normal(0, OFF_CENTRE_MM, 2).tolist()
    return _small_field(scanner, LARGE_FIELD_MM, g), replace(pose, table_shift_mm=(x + aside, y + back, z))


def _small_field(scanner: Scanner, width_mm: tuple[float, float], g: np.random.Generator) -> Scanner:
    """Draw a field of fewer pixels of the same size."""
    matrix = 4 * round(float(g.uniform(*width_mm)) / scanner.pixel_mm / 4)
    return replace(scanner, field_of_view_mm=matrix * scanner.pixel_mm, matrix=matrix)
