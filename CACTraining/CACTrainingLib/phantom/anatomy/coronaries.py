"""Coronary arteries as centre lines and calibres; `hearts.tree` draws them on a heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .points import PointCloud, joined, tube

ARTERIES = ("LM", "LAD", "LCX", "RCA")
LABELS = {"LM": 1, "LAD": 2, "LCX": 3, "RCA": 4}
"""Labels of the maps, as in `CACScoringLib.core.labels.Artery`."""
LUMEN_STEP_MM = 0.7
WALL_MM = 0.5
"""Unenhanced, wall and plaque matrix look like blood, so they are imaged as one with it."""
_SPACING_MM = 0.5


@dataclass(frozen=True)
class Vessel:
    """One vessel. artery: which of ARTERIES it counts to. path_mm: [n, 3] in heart coordinates, every 0.5 mm.
    radius_mm: [n] of the lumen."""

    name: str
    artery: str
    path_mm: np.ndarray
    radius_mm: np.ndarray

    @property
    def length_mm(self) -> float:
        return _SPACING_MM * (len(self.path_mm) - 1)


@dataclass(frozen=True)
class CoronaryTree:
    """All vessels of a heart. dominance: "right", "left" or "co"."""

    vessels: tuple[Vessel, ...]
    dominance: str

    def lumen(self, artery: str) -> PointCloud:
        """The artery's blood and wall, branches too, as points that weigh mm³, in heart coordinates."""
        parts = [tube(v.path_mm, v.radius_mm + WALL_MM, 1.0, LUMEN_STEP_MM) for v in self.of(artery)]
        return joined(parts)

    def of(self, artery: str) -> list[Vessel]:
        return [vessel for vessel in self.vessels if vessel.artery == artery]


def vessel_along_path(name: str, artery: str, path_mm: np.ndarray, first_mm: float, last_mm: float) -> Vessel:
    """A vessel along a polyline [n, 3] that tapers from one radius to another."""
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))]
    s = np.arange(0, arc[-1], _SPACING_MM)
    even = np.stack([np.interp(s, arc, path_mm[:, n]) for n in range(3)], axis=1)
    return Vessel(name, artery, even, first_mm + (last_mm - first_mm) * np.linspace(0, 1, len(s)) ** 0.8)
