"""Surroundings of the heart as in real chests.

A pericardium of varied thickness with recesses, fat outside it, walls that move while a slice is scanned, calcified rib
cartilage, pleural plaques, and metal below the diaphragm.

All measures and shares are illustrative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .body import Body
from .distractors import Distractor, view_gain
from .hearts.shape import HeartShape
from .points import PointCloud, frame_along, join_clouds, sunflower, tube

WAVES = 6
"""Waves of each irregular thickness."""
PLAQUE_SHARE, CLIP_SHARE = 0.12, 0.05
"""Share of patients with calcified pleural plaques beside the heart, and with metal below the diaphragm."""


@dataclass(frozen=True)
class Surroundings:
    """Surroundings of one patient's heart.

    Attributes:
        pericardium_mm: Usual thickness of the pericardium.
        paracardial_fat_mm: Usual thickness of the fat outside it.
        wall_mm: Inward movement of the ventricles' walls in systole.
        ring_mm: Movement of the valves' plane towards the apex in systole.
        cartilage: Calcification of the rib cartilage, 0 (none) to 1.
        waves_per_mm: Wave vectors [2 · WAVES, 3] in radians per mm of the two irregular thicknesses.
        phases: Their phases [2 · WAVES].
        most_lumen: Largest density of a vessel relative to blood; above 1 where motion gives it bright rims.
    """

    pericardium_mm: float
    paracardial_fat_mm: float
    wall_mm: float
    ring_mm: float
    cartilage: float
    waves_per_mm: tuple[tuple[float, ...], ...]
    phases: tuple[float, ...]
    most_lumen: float = 1.0

    def relief(self, heart_mm: np.ndarray, number: int) -> np.ndarray:
        """Return an irregular surface's height at points [n, 3] of the heart's frame: mean 0, SD 1. number: 0 or 1."""
        part = slice(number * WAVES, (number + 1) * WAVES)
        waves = np.asarray(heart_mm, np.float32) @ np.array(self.waves_per_mm[part], np.float32).T
        return np.sin(waves + np.array(self.phases[part], np.float32)).sum(axis=1) * np.float32(math.sqrt(2 / WAVES))


def draw_surroundings(body: Body, generator: np.random.Generator) -> Surroundings:
    """Draw the surroundings of a body's heart: more fat in a body with more."""
    g = generator
    directions = g.normal(size=(2 * WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = g.uniform(22, 60, (2 * WAVES, 1))
    return Surroundings(
        pericardium_mm=float(np.clip(g.normal(1.1, 0.3), 0.6, 2.0)),
        paracardial_fat_mm=float(np.clip(g.normal(0.9 * body.mediastinal_fat_mm, 2.5), 0.5, 14)),
        wall_mm=float(np.clip(g.normal(3.5, 1.2), 1, 7)),
        ring_mm=float(np.clip(g.normal(8.0, 2.5), 3, 14)),
        cartilage=float(g.beta(0.7, 1.3)),
        waves_per_mm=tuple(map(tuple, (2 * math.pi * directions / lengths).tolist())),
        phases=tuple(g.uniform(0, 2 * math.pi, 2 * WAVES).tolist()),
    )


def surrounding_distractors(body: Body, heart: HeartShape, generator: np.random.Generator) -> tuple[Distractor, ...]:
    """Draw pleural plaques beside the heart and metal below the diaphragm."""
    g, drawn = generator, []
    if g.random() < PLAQUE_SHARE:
        plaques = [_pleural_plaque(heart, g) for _ in range(1 + int(g.integers(3)))]
        drawn.append(Distractor("pleural plaque", "heart", None, join_clouds(plaques)))
    if g.random() < CLIP_SHARE:
        turn = np.linspace(0, g.uniform(0.6, 2) * math.pi, 40)
        u, v, _ = frame_along(g.normal(size=3))
        loop = g.uniform(3, 16) * (np.cos(turn)[:, None] * u + np.sin(turn)[:, None] * v)
        place = np.array([g.uniform(-60, 60), g.uniform(-60, 20), body.left_dome_mm - g.uniform(15, 45)])
        metal = tube(place + loop, g.uniform(0.3, 0.8), g.uniform(0.1, 0.8), 0.4)
        drawn.append(Distractor("abdominal clip", "body", None, metal, True, view_gain(g, 0.6)))
    return tuple(drawn)


def _pleural_plaque(heart: HeartShape, g: np.random.Generator) -> PointCloud:
    """Draw a flat patch of calcium on the pleura beside the pericardium; weights in mg, heart's frame."""
    distance = heart.pericardium
    places = heart.places_mm[(distance > 1.5) & (distance < 6.0)]
    middle = places[g.integers(len(places))].astype(float)
    steps = middle + np.concatenate([np.eye(3), -np.eye(3)])
    distances = heart.sample(steps)[:, 0]
    u, v, w = frame_along(distances[:3] - distances[3:] + 1e-6)
    long, wide = g.uniform(3, 14), g.uniform(2, 7)
    disc = sunflower(max(30, int(4 * long * wide)))
    thickness = g.uniform(0.8, 2.5)
    bulge = thickness * (g.uniform(-0.5, 0.5, len(disc)) + 0.15 * g.normal(size=len(disc)))
    positions = middle + long * disc[:, :1] * u + wide * disc[:, 1:] * v + bulge[:, None] * w
    weights = g.lognormal(0, 0.5, len(disc))
    mass = math.pi * long * wide * thickness * g.uniform(150, 500) / 1000
    return PointCloud(positions, weights / weights.sum() * mass)
