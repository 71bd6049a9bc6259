"""How patients are scanned in a cohort: scanners and poses drawn per patient, alike or different within a pair."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .motion import ScanPose
from .scanner import KERNELS, Scanner

SHORT_SPIRAL_SHARE = 0.6
"""Share of ungated spiral scans fast enough that a slice is made from little more than half a rotation (pitch near 1);
the others see it for a whole one."""

THICKNESS_SPACING_MM = ((3.0, 3.0), (2.0, 2.0), (5.0, 5.0), (1.0, 1.0), (3.0, 1.5), (5.0, 2.5), (1.5, 1.0))


@dataclass(frozen=True)
class Protocol:
    """Distributions of one kind of scanning.

    name: as the command line calls it. kernels, kvps, slices: choices with their shares (slices index
    THICKNESS_SPACING_MM). pixel_mm: range. noise_hu: range of the noise in an average body. rotation_s: choices,
    equally likely. gated: scans in mid-diastole from half a rotation, as cardiac CT. breath_hold: whether each of the
    two scans holds the breath.
    """

    kernels: tuple[tuple[str, float], ...]
    kvps: tuple[tuple[float, float], ...]
    slices: tuple[tuple[int, float], ...]
    pixel_mm: tuple[float, float]
    noise_hu: tuple[float, float]
    rotation_s: tuple[float, ...]
    gated: bool
    breath_hold: tuple[bool, bool]


PROTOCOLS = {
    "radiotherapy": Protocol(
        kernels=(("soft", 0.6), ("medium", 0.4)),
        kvps=((120.0, 1.0),),
        slices=((0, 0.85), (1, 0.15)),
        pixel_mm=(0.84, 1.0),
        noise_hu=(11.0, 27.0),
        rotation_s=(0.44, 0.5, 0.75),
        gated=False,
        breath_hold=(True, False),
    ),
    "varied": Protocol(
        kernels=(("soft", 0.45), ("medium", 0.35), ("sharp", 0.2)),
        kvps=((120.0, 0.75), (100.0, 0.12), (80.0, 0.05), (135.0, 0.08)),
        slices=((0, 0.3), (1, 0.15), (2, 0.15), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        pixel_mm=(0.6, 1.0),
        noise_hu=(8.0, 38.0),
        rotation_s=(0.35, 0.42, 0.5, 0.75, 1.0),
        gated=False,
        breath_hold=(True, False),
    ),
    "cardiac": Protocol(
        kernels=(("soft", 1.0),),
        kvps=((120.0, 1.0),),
        slices=((0, 1.0),),
        pixel_mm=(0.4, 0.6),
        noise_hu=(14.0, 23.0),
        rotation_s=(0.28, 0.35),
        gated=True,
        breath_hold=(True, True),
    ),
}
"""radiotherapy: after the paper's planning pairs (3 mm, 120 kVp, one scan in breath-hold); varied: for training."""


def draw_pair(protocol: Protocol, generator: np.random.Generator) -> tuple[tuple[Scanner, ScanPose], ...]:
    """Scanner and pose of a patient's two scans: the same machine and settings, another position, breath and phase."""
    g = generator
    kernel = KERNELS[_pick(g, protocol.kernels)]
    thickness, spacing = THICKNESS_SPACING_MM[_pick(g, protocol.slices)]
    pixel = float(g.uniform(*protocol.pixel_mm))
    # Thin slices and sharp kernels are noisier; scanners are set up to make up for a good part of it.
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
            table_shift_mm=tuple(float(s) for s in g.normal(0, [5.0, 4.0, 4.0])),
            inspiration=float(g.uniform(0.5, 1.1)) if hold else float(g.normal(0, 0.08)),
            breathing_mm=0.0 if hold else float(g.uniform(1.5, 9.0)),
            breathing_s=float(g.uniform(3.0, 5.0)),
            breathing_phase=float(g.random()),
            tilt_degrees=tuple(float(t) for t in g.normal(0, 2.0, 3)),
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


def _pick(g: np.random.Generator, choices: tuple) -> object:
    values, shares = zip(*choices, strict=True)
    return values[g.choice(len(values), p=np.asarray(shares) / sum(shares))]
