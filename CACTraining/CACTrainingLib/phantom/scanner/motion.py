"""How heart and breath move during a scan, and where the patient lies in it.

Shape: the trajectory is two smooth humps per beat, contraction near 35 % and atrial kick near 90 % of the cycle, along
fixed directions. Excursions follow from published mean speeds, 69 mm/s for the right coronary artery, 48 for the
circumflex, 22 for the descending (Achenbach 2000, electron beam CT; (2nd)): a beat of 0.85 s covers 2.8 excursions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EXCURSION_MM = {"LM": (5.0, 1.2), "LAD": (7.0, 2.0), "LCX": (14.0, 3.5), "RCA": (20.0, 5.0), "valve": (10.0, 2.0)}
"""Mean and standard deviation between patients of the contraction's excursion, by what moves."""


@dataclass(frozen=True)
class HeartBeat:
    """One patient's cardiac motion. directions: unit vectors [2, 3] per group: contraction and atrial kick."""

    excursion_mm: dict[str, float]
    directions: dict[str, np.ndarray]

    def displacement_mm(self, group: str, phase: np.ndarray) -> np.ndarray:
        """Displacement [..., 3] at phases of the cardiac cycle (whole numbers are R peaks), 0 in mid-diastole."""
        phase = np.mod(phase, 1.0)
        contraction = _hump(phase, 0.35, 0.13)
        kick = _hump(phase, 0.93, 0.06)
        along = self.directions[group]
        return self.excursion_mm[group] * (contraction[..., None] * along[0] + 0.4 * kick[..., None] * along[1])


def draw_heart_beat(generator: np.random.Generator) -> HeartBeat:
    """A patient's motion: excursions from EXCURSION_MM, directions mostly downwards, inwards and forwards."""
    excursion, directions = {}, {}
    for group, (mean, spread) in EXCURSION_MM.items():
        excursion[group] = float(np.clip(generator.normal(mean, spread), 0.4 * mean, 1.8 * mean))
        axes = np.array([[0.5, -0.5, -0.7], [-0.4, 0.3, 0.6]]) + generator.normal(0, 0.45, (2, 3))
        directions[group] = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return HeartBeat(excursion, directions)


@dataclass(frozen=True)
class ScanPose:
    """Position, breath and rhythm during one scan.

    table_shift_mm: where the patient lies (x, y, z). inspiration: 0 at the middle of quiet breathing, 1 at a deep
    breath-hold. breathing_mm and breathing_s: amplitude at the diaphragm and period of free breathing; amplitude 0
    when the breath is held. tilt_degrees: rotation of the heart about x, y and z against the patient's reference.
    heart_rate_bpm, start_phase: cardiac cycle when the first slice is scanned. motion_scale: stroke of this scan.
    """

    table_shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inspiration: float = 0.0
    breathing_mm: float = 0.0
    breathing_s: float = 4.0
    breathing_phase: float = 0.0
    tilt_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heart_rate_bpm: float = 65.0
    start_phase: float = 0.0
    motion_scale: float = 1.0

    @property
    def diaphragm_drop_mm(self) -> float:
        return 32.0 * self.inspiration

    @property
    def heart_drop_mm(self) -> float:
        return 9.0 * self.inspiration

    def breath_mm(self, time_s: np.ndarray | float) -> np.ndarray:
        """Height of the diaphragm above its middle at a time; the heart follows with half of it."""
        turn = np.asarray(time_s) / self.breathing_s + self.breathing_phase
        return self.breathing_mm * np.cos(2 * math.pi * turn)

    def cardiac_phase(self, time_s: np.ndarray) -> np.ndarray:
        return self.start_phase + np.asarray(time_s) * self.heart_rate_bpm / 60.0


HEART_SHARE_OF_BREATH = 0.5


def rotation_xyz(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix Rz·Ry·Rx from angles about the axes."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _hump(phase: np.ndarray, centre: float, width: float) -> np.ndarray:
    distance = np.mod(phase - centre + 0.5, 1.0) - 0.5
    return np.exp(-0.5 * (distance / width) ** 2)
