"""The coronary tree in the epicardial fat: courses in the heart frame, calibres, dominance.

Calibres: Dodge 1992 (10.1161/01.CIR.86.1.232, normal hearts; (2nd)): left main 4.5 mm, descending 3.7 to 1.9 mm,
circumflex 3.4 mm (4.2 when it is dominant), right 3.9 mm (2.8 when it is not). Courses are shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .body import Body
from .heart import ANTERIOR_GROOVE_DEGREES, POSTERIOR_GROOVE_DEGREES, HeartFrame, fat_thickness_mm, reference_frame
from .points import PointCloud, joined, tube

ARTERIES = ("LM", "LAD", "LCX", "RCA")
LABELS = {"LM": 1, "LAD": 2, "LCX": 3, "RCA": 4}
"""Labels of the maps, as in `CACScoringLib.core.labels.Artery`."""
RIGHT_DOMINANT_SHARE = 0.85
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


def draw_coronaries(body: Body, generator: np.random.Generator) -> CoronaryTree:
    """The coronary tree of a body."""
    return _Builder(body, reference_frame(body), generator).build()


class _Builder:
    def __init__(self, body: Body, frame: HeartFrame, generator: np.random.Generator) -> None:
        self.body, self.frame, self.g = body, frame, generator
        self.vessels: list[Vessel] = []
        self.size = 0.94 if body.sex == "F" else 1.03

    def build(self) -> CoronaryTree:
        g, frame = self.g, self.frame
        right = g.random() < RIGHT_DOMINANT_SHARE
        a = float(frame.semi_axes_mm[0])
        av = frame.av_plane_mm
        groove = math.radians(ANTERIOR_GROOVE_DEGREES + g.normal(0, 3))
        lad = self._on_surface(
            np.linspace(av + 5, a * g.uniform(0.80, 0.95), 80), groove + self._wave(80, 0.05), waviness=0.7
        )
        ring = np.linspace(0, 1, 80)
        reach = math.radians(g.uniform(80, 120) if right else g.uniform(165, 182))
        lcx = self._on_surface(av + 4 - 4 * np.sqrt(ring) + self._wave(80, 1.0), groove + ring * reach, waviness=0.7)
        lcx = self._joined_start(lcx, lad[0])
        ostium = self._ostium(lad[0])
        self._add("LM", "LM", self._arc(ostium, lad[0], 1.5), 2.25, 2.2)
        self._add("LAD", "LAD", lad, 1.85, 0.95)
        self._add("LCX", "LCX", lcx, 1.7 if right else 2.1, 0.9)
        start = math.radians(g.normal(42, 6))
        end = math.radians(POSTERIOR_GROOVE_DEGREES + 4 if right else g.uniform(-40, -10))
        angle = np.linspace(start, end, 90)
        rca = self._on_surface(av + 1 + self._wave(90, 1.5), angle + self._wave(90, 0.02), waviness=0.7)
        stem = self._arc(self._ostium(rca[0]), rca[0], 1.5)
        self._add("RCA", "RCA", np.concatenate([stem, rca[1:]]), 1.95 if right else 1.4, 1.3 if right else 0.8)
        self._branches(lad, lcx, rca, right)
        return CoronaryTree(tuple(self.vessels), "right" if right else "left")

    def _branches(self, lad: np.ndarray, lcx: np.ndarray, rca: np.ndarray, right: bool) -> None:
        g, a = self.g, float(self.frame.semi_axes_mm[0])
        for n in range(int(g.integers(1, 4))):
            at = lad[min(len(lad) - 10, int((0.14 + 0.16 * n + g.uniform(-0.04, 0.04)) * len(lad)))]
            self._branch(f"D{n + 1}", "LAD", at, math.radians(g.uniform(25, 50)), g.uniform(25, 45), 1.05)
        for n in range(int(g.integers(1, 4))):
            at = lcx[min(len(lcx) - 5, int((0.3 + 0.25 * n + g.uniform(-0.06, 0.06)) * len(lcx)))]
            self._branch(f"OM{n + 1}", "LCX", at, math.radians(g.uniform(-5, 20)), g.uniform(30, 55), 1.05)
        at = rca[int(g.uniform(0.4, 0.55) * len(rca))]
        self._branch("RV", "RCA", at, math.radians(g.uniform(-15, 5)), g.uniform(30, 50), 0.85)
        owner, source = ("RCA", rca) if right else ("LCX", lcx)
        self._branch("PDA", owner, source[-1], math.radians(g.normal(0, 3)), 0.62 * a, 1.1)

    def _branch(self, name: str, artery: str, start: np.ndarray, turn: float, length: float, radius: float) -> None:
        a, b, c = self.frame.semi_axes_mm
        angle = math.atan2(start[2] / c, start[1] / b)
        t = np.linspace(0, 1, 40)
        u = np.minimum(start[0] + t * length, 0.93 * a)
        path = self._on_surface(u, angle + turn * t + self._wave(40, 0.03), waviness=0.4)
        self._add(name, artery, self._joined_start(path, start), radius, 0.55)

    def _on_surface(self, u_mm: np.ndarray, angle: np.ndarray, waviness: float) -> np.ndarray:
        """A course in the middle of the epicardial fat."""
        u, angle = np.broadcast_arrays(np.asarray(u_mm, float), np.asarray(angle, float))
        fat = fat_thickness_mm(self.body, u, angle, self.frame)
        depth = np.maximum(0.5 * fat, np.minimum(fat - 1.2, 2.2)) + self._wave(len(u), waviness)
        return self.frame.surface_mm(u, angle, np.maximum(depth, 1.0))

    def _wave(self, count: int, amplitude: float) -> np.ndarray:
        t = np.linspace(0, 1, count)
        parts = [
            self.g.normal(0, amplitude / (n + 1)) * np.sin(math.pi * (n + 1) * t + self.g.uniform(0, 6.28))
            for n in range(5)
        ]
        return sum(parts)

    def _ostium(self, towards: np.ndarray) -> np.ndarray:
        root = self.frame.root_mm
        direction = (towards - root) / np.linalg.norm(towards - root)
        return root + direction * min(self.body.aorta_radius_mm, 0.8 * float(np.linalg.norm(towards - root)))

    def _arc(self, start: np.ndarray, end: np.ndarray, bulge: float) -> np.ndarray:
        t = np.linspace(0, 1, 20)[:, None]
        return (1 - t) * start + t * end + np.sin(math.pi * t) * self.g.normal(0, bulge, 3)

    @staticmethod
    def _joined_start(path: np.ndarray, start: np.ndarray) -> np.ndarray:
        fade = np.exp(-np.arange(len(path)) / 8.0)[:, None]
        return path + fade * (start - path[0])

    def _add(self, name: str, artery: str, path: np.ndarray, first_mm: float, last_mm: float) -> None:
        spread = self.size * float(np.clip(self.g.normal(1, 0.09), 0.75, 1.3))
        self.vessels.append(vessel_along_path(name, artery, path, spread * first_mm, spread * last_mm))


def vessel_along_path(name: str, artery: str, path_mm: np.ndarray, first_mm: float, last_mm: float) -> Vessel:
    """A vessel along a polyline [n, 3] that tapers from one radius to another."""
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))]
    s = np.arange(0, arc[-1], _SPACING_MM)
    even = np.stack([np.interp(s, arc, path_mm[:, n]) for n in range(3)], axis=1)
    return Vessel(name, artery, even, first_mm + (last_mm - first_mm) * np.linspace(0, 1, len(s)) ** 0.8)
