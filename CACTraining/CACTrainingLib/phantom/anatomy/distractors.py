"""Everything that fools a calcium scorer: calcium outside the coronary arteries, and metal.

How often each occurs is stated in PREVALENCE; sizes are shape. Metal is imaged as very dense points whose views
disagree (`view_gain`), which gives streaks; beam hardening is not modelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .body import Body
from .coronaries import CoronaryTree
from .devices import DEVICES
from .heart import HeartFrame, aorta_paths
from .hearts.deposits import DEPOSITS, deposits
from .hearts.shape import HeartShape
from .points import PointCloud, frames_along

PREVALENCE = {
    "aortic wall": 0.45,
    "aortic root": 0.15,
    "aortic valve": 0.14,
    "mitral annulus": 0.12,
    "hilar node": 0.12,
    "pericardium": 0.03,
    "stent": 0.04,
    "pacemaker lead": 0.03,
    "sternal wires": 0.04,
    "papillary muscle": 0.03,
    "venous catheter": 0.03,
    "bypass clips": 0.02,
    "prosthetic valve": 0.01,
}
"""Share of patients who have each."""

AGEING = ("aortic wall", "aortic root", "aortic valve", "mitral annulus")
WITH_PLAQUE, WITHOUT_PLAQUE = 1.5, 0.7
"""So many times as often patients with and without coronary calcium have those of AGEING."""

ADDED = ("venous catheter", "bypass clips", "prosthetic valve")
"""Drawn apart from the other kinds, so that these stay as they were before there were such devices."""

MOVES_WITH = {"aortic root": "LM", "pericardium": "LCX"}
"""A key of `motion.EXCURSION_MM` for what does not move with the valves."""

STREAK_SPREAD = 0.35
"""Standard deviation between view directions of the gain on metal."""


@dataclass(frozen=True)
class Distractor:
    """Something dense that is no coronary calcium.

    anchor: "heart" (cloud in heart coordinates), "body" (LPS in quiet breathing), "arch" or "descending" (positions
    are: share of the way along that part of the aorta, mm beyond its wall, angle in radians). group: what it moves
    with, a key of `motion.EXCURSION_MM`, or None. cloud: weights in mg of calcium, or mm³ of metal when `metal`.
    """

    kind: str
    anchor: str
    group: str | None
    cloud: PointCloud
    metal: bool = False
    view_gain: np.ndarray | None = None

    @property
    def mass_mg(self) -> float:
        return 0.0 if self.metal else self.cloud.total

    def placed(self, body: Body, frame: HeartFrame, heart: HeartShape) -> PointCloud:
        """The cloud in LPS for a heart in this pose."""
        if self.anchor == "heart":
            return PointCloud(frame.to_lps(self.cloud.positions_mm), self.cloud.weights)
        if self.anchor == "body":
            return self.cloud
        path, radii = aorta_paths(body, frame, heart)[0 if self.anchor == "arch" else 1]
        share, beyond, angle = self.cloud.positions_mm.T
        at = share * (len(path) - 1)
        index = np.arange(len(path))
        centre = np.stack([np.interp(at, index, path[:, n]) for n in range(3)], axis=1)
        tangent = np.stack([np.interp(at, index, np.gradient(path[:, n])) for n in range(3)], axis=1)
        u, v = frames_along(tangent)
        out = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
        radius = np.interp(at, index, radii) + beyond
        return PointCloud(centre + radius[:, None] * out, self.cloud.weights)


def draw_distractors(
    body: Body,
    tree: CoronaryTree,
    calcified: bool,
    generator: np.random.Generator,
    heart: HeartShape,
) -> tuple[Distractor, ...]:
    """A patient's distractors. calcified: whether the coronaries hold calcium."""
    found: list[Distractor] = []
    (apart,) = generator.spawn(1)
    for kind, share in PREVALENCE.items():
        share *= (WITH_PLAQUE if calcified else WITHOUT_PLAQUE) if kind in AGEING else 1.0
        if kind in ("stent", "bypass clips") and not calcified:
            share = 0.0
        # One draw per kind whatever the outcome, so that one kind's settings leave the others alone.
        own = np.random.default_rng((apart if kind in ADDED else generator).integers(2**63))
        if own.random() >= share:
            continue
        if kind in DEPOSITS:
            group = MOVES_WITH.get(kind, "valve")
            found.append(Distractor(kind, "heart", group, deposits(kind, heart, tree, own)))
        elif kind in DEVICES:
            found.extend(device(kind, body, tree, own, heart))
        else:
            found.extend(_aortic_wall(own) if kind == "aortic wall" else _hilar_nodes(own))
    # Whose heart was operated on has a sternum that was closed with wires.
    kinds = {one.kind for one in found}
    if "bypass clips" in kinds and "sternal wires" not in kinds:
        found.extend(device("sternal wires", body, tree, apart, heart))
    return tuple(found)


def device(
    kind: str, body: Body, tree: CoronaryTree, generator: np.random.Generator, heart: HeartShape
) -> list[Distractor]:
    """A device of one of `devices.DEVICES`, piece by piece."""
    parts = DEVICES[kind](body, tree, heart, generator)
    gain = _gain(generator, max(part.streaks for part in parts))
    return [Distractor(kind, part.anchor, part.group, part.cloud, metal=True, view_gain=gain) for part in parts]


def _mass(g: np.random.Generator, median_mg: float, spread: float) -> float:
    return float(median_mg * math.exp(g.normal(0, spread)))


def _blob(g: np.random.Generator, centre: np.ndarray, spread_mm: np.ndarray | float, mass_mg: float) -> PointCloud:
    count = int(np.clip(mass_mg * 12, 40, 900))
    weights = g.lognormal(0, 0.5, count)
    return PointCloud(centre + g.normal(0, 1, (count, 3)) * spread_mm, weights / weights.sum() * mass_mg)


def _aortic_wall(g: np.random.Generator) -> list[Distractor]:
    found = []
    for _ in range(1 + g.poisson(2.5)):
        arch = g.random() < 0.55
        at = g.uniform(0.25, 1.0) if arch else g.uniform(0.0, 0.75)
        mass = _mass(g, 9, 0.9)
        centre, spread = np.array([at, 0.3, g.uniform(0, 2 * math.pi)]), np.array([0.015, 0.35, 0.09]) * mass**0.25
        found.append(Distractor("aortic wall", "arch" if arch else "descending", None, _blob(g, centre, spread, mass)))
    return found


def _hilar_nodes(g: np.random.Generator) -> list[Distractor]:
    found = []
    for _ in range(1 + g.poisson(1.0)):
        place = ((-48, 6, 32), (50, 14, 28), (-18, 2, 66), (4, 14, 60), (18, -4, 74))[g.integers(5)]
        centre = np.array(place, float) + g.normal(0, 4, 3)
        found.append(
            Distractor("hilar node", "body", None, _blob(g, centre, g.uniform(1.0, 2.6, 3), _mass(g, 18, 0.9)))
        )
    return found


def _gain(g: np.random.Generator, strength: float) -> np.ndarray:
    gain = g.normal(0, STREAK_SPREAD * strength, 40)
    return 1 + gain - gain.mean()
