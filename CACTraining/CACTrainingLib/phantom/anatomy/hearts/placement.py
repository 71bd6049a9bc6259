"""Placement of a heart in a scan: a similarity with a scale for each axis of the common frame, and a low-order bend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..heart import upright_axes
from .shape import HIGH_MM, LOW_MM

USUAL_AXIS = (0.63, -0.53, -0.57)
"""Usual direction from base to apex in LPS."""


@dataclass(frozen=True)
class Placement:
    """Map from the scan's LPS to the common frame: turn, scale, then a bend by cosine waves over a box.

    Attributes:
        axes: Columns u, v, w in LPS.
        centre_mm: Origin of the common frame in LPS.
        scale: Scale along u, v and w.
        index: Wave numbers [n, 3].
        waves_mm: Amplitudes [n, 3].
    """

    axes: np.ndarray
    centre_mm: np.ndarray
    scale: np.ndarray
    index: np.ndarray
    waves_mm: np.ndarray

    def to_common(self, lps_mm: np.ndarray) -> np.ndarray:
        """Map points [n, 3] of the scan to the common frame."""
        straight = (lps_mm - self.centre_mm) @ self.axes / self.scale
        return straight + waves(straight, self.index) @ self.waves_mm

    def to_lps(self, common_mm: np.ndarray) -> np.ndarray:
        """Map points [n, 3] of the common frame to the scan."""
        straight = np.array(common_mm, float)
        for _ in range(12):
            straight = common_mm - waves(straight, self.index) @ self.waves_mm
        return (straight * self.scale) @ self.axes.T + self.centre_mm

    @property
    def size(self) -> float:
        """Mean length in the scan in mm of 1 mm of the common frame."""
        return float(np.prod(self.scale) ** (1 / 3))


def waves(common_mm: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return cosine waves [n, waves] at points [n, 3]."""
    inside = np.clip((common_mm - LOW_MM) / (HIGH_MM - LOW_MM), 0, 1).astype(np.float32)
    counts = index.max(axis=0) + 1
    u, v, w = (np.cos(np.pi * inside[:, [a]] * np.arange(counts[a], dtype=np.float32)) for a in range(3))
    return u[:, index[:, 0]] * v[:, index[:, 1]] * w[:, index[:, 2]]


def usual_axes() -> np.ndarray:
    """Return columns u, v, w in LPS of a heart in its usual position."""
    return upright_axes(np.array(USUAL_AXIS) / np.linalg.norm(USUAL_AXIS))
