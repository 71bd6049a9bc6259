"""Motion of heart and breath during a scan, the patient's position, and the protocols of cohorts.

The trajectory is illustrative: two smooth humps per beat, contraction near 35 % and atrial kick near 90 % of the cycle,
along fixed directions. Excursions follow from published mean speeds, 69 mm/s for the right coronary artery, 48 for the
circumflex, 22 for the descending (Achenbach 2000, electron beam CT; (2nd)): a beat of 0.85 s covers 2.8 excursions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from CACScoringLib.core.grid import triple

from ..shapes import read_shapes
from .scanner import KERNELS, Scanner

T = TypeVar("T")

EXCURSION_MM = {"LM": (5.0, 1.2), "LAD": (7.0, 2.0), "LCX": (14.0, 3.5), "RCA": (20.0, 5.0), "valve": (10.0, 2.0)}
"""Mean and standard deviation between patients of the contraction's excursion in mm, by group."""


@dataclass(frozen=True)
class HeartBeat:
    """Cardiac motion of a patient. directions: unit vectors [2, 3] per group, for contraction and atrial kick."""

    excursion_mm: dict[str, float]
    directions: dict[str, np.ndarray]

    def contraction(self, phase: np.ndarray) -> np.ndarray:
        """Return the ventricles' contraction at phases of the cardiac cycle, 0 in mid-diastole, 1 in systole."""
        phase = np.mod(phase, 1.0)
        return _hump(phase, 0.35, 0.13) + 0.25 * _hump(phase, 0.93, 0.06)

    def displacement_mm(self, group: str, phase: np.ndarray) -> np.ndarray:
        """Return displacement [..., 3] at phases of the cardiac cycle (integers are R peaks), 0 in mid-diastole."""
        phase = np.mod(phase, 1.0)
        contraction = _hump(phase, 0.35, 0.13)
        kick = _hump(phase, 0.93, 0.06)
        along = self.directions[group]
        return self.excursion_mm[group] * (contraction[..., None] * along[0] + 0.4 * kick[..., None] * along[1])

    def with_blend(self, name: str, shares: dict[str, float]) -> HeartBeat:
        """Return the beat with a further group, which moves as the weighted mean of others does."""
        axes = sum(share * self.excursion_mm[group] * self.directions[group] for group, share in shares.items())
        return HeartBeat({**self.excursion_mm, name: 1.0}, {**self.directions, name: np.asarray(axes)})


def draw_heart_beat(generator: np.random.Generator) -> HeartBeat:
    """Draw a patient's motion: excursions from EXCURSION_MM, directions mostly downwards, inwards and forwards."""
    excursion, directions = {}, {}
    for group, (mean, spread) in EXCURSION_MM.items():
        excursion[group] = float(np.clip(generator.normal(mean, spread), 0.4 * mean, 1.8 * mean))
        axes = np.array([[0.5, -0.5, -0.7], [-0.4, 0.3, 0.6]]) + generator.normal(0, 0.45, (2, 3))
        directions[group] = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return HeartBeat(excursion, directions)


@dataclass(frozen=True)
class ScanPose:
    """Position, breath and rhythm during one scan.

    Attributes:
        table_shift_mm: Patient's position x, y, z on the table.
        inspiration: 0 in the middle of quiet breathing, 1 in a deep breath-hold.
        breathing_mm: Amplitude of free breathing at the diaphragm, 0 in a breath-hold.
        breathing_s: Period of free breathing.
        breathing_phase: Phase of breathing at the first slice, in turns.
        tilt_degrees: Rotation of the heart about x, y and z from the patient's reference.
        heart_rate_bpm: Heart rate.
        start_phase: Phase of the cardiac cycle at the first slice.
        motion_scale: Factor on the patient's excursions in this scan.
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
        """Return the diaphragm's height above its middle at a time; the heart follows by half of it."""
        turn = np.asarray(time_s) / self.breathing_s + self.breathing_phase
        return self.breathing_mm * np.cos(2 * math.pi * turn)

    def cardiac_phase(self, time_s: np.ndarray) -> np.ndarray:
        return self.start_phase + np.asarray(time_s) * self.heart_rate_bpm / 60.0


HEART_SHARE_OF_BREATH = 0.5


def _hump(phase: np.ndarray, centre: float, width: float) -> np.ndarray:
    distance = np.mod(phase - centre + 0.5, 1.0) - 0.5
    return np.exp(-0.5 * (distance / width) ** 2)


SHORT_SPIRAL_SHARE = 0.6
"""Share of ungated spiral scans with slices from little more than half a rotation (pitch near 1); the others use a
full rotation."""


@dataclass(frozen=True)
class Protocol:
    """Distributions of a scanning protocol.

    Attributes:
        kernels: Kernels with their shares.
        kvps: Tube voltages with their shares.
        slices: Indices in THICKNESS_SPACING_MM with their shares.
        pixel_mm: Range of the pixel size.
        noise_hu: Range of the noise in an average body.
        rotation_s: Rotation times, equally likely.
        gated: True to scan in mid-diastole from half a rotation, as cardiac CT does.
        breath_hold: For each of the two scans, True in a breath-hold.
    """

    kernels: tuple[tuple[str, float], ...]
    kvps: tuple[tuple[float, float], ...]
    slices: tuple[tuple[int, float], ...]
    pixel_mm: tuple[float, float]
    noise_hu: tuple[float, float]
    rotation_s: tuple[float, ...]
    gated: bool
    breath_hold: tuple[bool, bool]


_DATA = read_shapes("protocols")
THICKNESS_SPACING_MM = _DATA["thickness_spacing_mm"]
PROTOCOLS = {name: Protocol(**protocol) for name, protocol in _DATA["protocols"].items()}
"""Protocols: "radiotherapy" follows the paper's planning pairs (3 mm, 120 kVp, one in breath-hold), "varied" is for
training; "cardiac-varied" is gated CT of many makes, "chest-varied" chest, screening and PET CT. "noisy" has
chest CT of 1 and 1.5 mm with 36 to 97 HU of noise, and "thick" chest CT of 5 and 8 mm."""


def draw_pair(protocol: Protocol, generator: np.random.Generator) -> tuple[tuple[Scanner, ScanPose], ...]:
    """Draw scanner and pose of a patient's two scans: the same settings, another position, breath and phase."""
    g = generator
    kernel = KERNELS[_pick(g, protocol.kernels)]
    thickness, spacing = THICKNESS_SPACING_MM[_pick(g, protocol.slices)]
    pixel = float(g.uniform(*protocol.pixel_mm))
    # Thin slices and sharp kernels are noisier, which scanner settings partly compensate.
    noise = float(np.exp(g.uniform(*np.log(protocol.noise_hu)))) * (3.0 / thickness) ** 0.35
    noise *= {"soft": 1.0, "medium": 1.15, "sharp": 1.9}[kernel.name]
    rate = float(g.uniform(52, 95))
    base = Scanner(
        kvp=_pick(g, protocol.kvps),
        kernel=kernel,
        slice_thickness_mm=thickness,
        slice_spacing_mm=spacing,
        field_of_view_mm=512 * pixel,
        noise_hu=noise,
        rotation_s=float(g.choice(protocol.rotation_s)),
        table_speed_mm_s=float(g.uniform(18, 45)),
        half_scan=protocol.gated or bool(g.random() < SHORT_SPIRAL_SHARE),
    )
    scans = []
    for hold in protocol.breath_hold:
        pose = ScanPose(
            table_shift_mm=triple(float(s) for s in g.normal(0, [5.0, 4.0, 4.0])),
            inspiration=float(g.uniform(0.5, 1.1)) if hold else float(g.normal(0, 0.08)),
            breathing_mm=0.0 if hold else float(g.uniform(1.5, 9.0)),
            breathing_s=float(g.uniform(3.0, 5.0)),
            breathing_phase=float(g.random()),
            tilt_degrees=triple(float(t) for t in g.normal(0, 2.0, 3)),
            heart_rate_bpm=rate * float(g.uniform(0.93, 1.07)),
            start_phase=float(g.random()),
            motion_scale=float(g.uniform(0.85, 1.1)),
        )
        scanner = replace(base, noise_hu=base.noise_hu * float(g.uniform(0.85, 1.18)), start_phase=float(g.random()))
        if protocol.gated:
            scanner = replace(scanner, gate_phase=0.75, beat_s=60.0 / pose.heart_rate_bpm)
            pose = replace(pose, start_phase=float(g.normal(0, 0.03)))
        scans.append((scanner, pose))
    return tuple(scans)


def _pick(g: np.random.Generator, choices: Sequence[tuple[T, float]]) -> T:
    values, shares = zip(*choices, strict=True)
    return values[g.choice(len(values), p=np.asarray(shares) / sum(shares))]
