"""Coronary arteries as centre lines and calibres, and the calcified plaque along their walls.

`hearts.tree` draws arteries on a heart. A plaque is a crescent on the wall: it follows the vessel over a length, spans
an arc and tapers to its ends. Its mass is that shape's closed integral, which its points share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from CACScoringLib.core.labels import MAIN_ARTERIES

from .points import PointCloud, along, arc_mm, frames_along, join_clouds, tube

LABELS = {artery.key: int(artery) for artery in MAIN_ARTERIES}
"""Labels of the maps by artery."""
LUMEN_STEP_MM = 0.7
WALL_MM = 0.5
"""Vessel wall in mm, imaged with the lumen: without contrast, wall and plaque matrix look like blood."""
_SPACING_MM = 0.5


@dataclass(frozen=True)
class Vessel:
    """Vessel of a coronary tree.

    Attributes:
        name: Name of the vessel, e.g. "D1".
        artery: Artery of ARTERIES to which its calcium is assigned.
        path_mm: Centre line [n, 3] in heart coordinates, every 0.5 mm.
        radius_mm: Lumen's radius [n].
    """

    name: str
    artery: str
    path_mm: np.ndarray
    radius_mm: np.ndarray

    @property
    def length_mm(self) -> float:
        return _SPACING_MM * (len(self.path_mm) - 1)

    def lumen(self) -> PointCloud:
        """Return blood and wall as points, weights in mm³."""
        return tube(self.path_mm, self.radius_mm + WALL_MM, 1.0, LUMEN_STEP_MM)


@dataclass(frozen=True)
class CoronaryTree:
    """Coronary vessels of a heart. dominance: "right", "left" or "co"."""

    vessels: tuple[Vessel, ...]
    dominance: str

    def lumen(self, artery: str) -> PointCloud:
        """Return blood and wall of an artery and its branches as points in heart coordinates, weights in mm³."""
        return join_clouds([vessel.lumen() for vessel in self.of(artery)])

    def vessel(self, name: str) -> Vessel:
        """Return the vessel of a name. Raises StopIteration if the tree has none."""
        return next(vessel for vessel in self.vessels if vessel.name == name)

    def of(self, artery: str) -> list[Vessel]:
        return [vessel for vessel in self.vessels if vessel.artery == artery]


def vessel_along_path(name: str, artery: str, path_mm: np.ndarray, first_mm: float, last_mm: float) -> Vessel:
    """Return a vessel along a polyline [n, 3] that tapers from one radius to another."""
    s = np.arange(0, arc_mm(path_mm)[-1], _SPACING_MM)
    return Vessel(name, artery, along(path_mm, s), first_mm + (last_mm - first_mm) * np.linspace(0, 1, len(s)) ** 0.8)


PREVALENCE = {"F": 0.42, "M": 0.62}
"""Share of patients with any calcium. In the paper's test set, mostly women, about a third of the pairs have some."""
ARTERY_SHARE = {"LM": 0.08, "LAD": 0.53, "LCX": 0.12, "RCA": 0.27}
"""Share of plaques by artery, after table 3 of van Velzen, which counts the left main to the descending artery."""
BURDEN = ((0.50, 0.4), (0.10, 4.0), (0.15, 16.0), (0.10, 40.0), (0.15, 7.0))
"""Share of patients with calcium and their mean number of plaques beyond the first (Poisson). With
`patient.AGATSTON_PER_MG`, 22 % reach an Agatston score of 400 and 8 % one of 1000; the laws fitted to MESA
(`patient.Demographics`) give 23 and 10 %."""
DENSITY_MG_CM3 = (480.0, 0.5, 110.0, 1100.0)
"""Median, logarithmic spread, minimum and maximum hydroxyapatite density of a plaque: from faint to nearly bone."""
LENGTH_MM = (3.2, 0.65, 0.8, 24.0)
"""Median, logarithmic spread, minimum and maximum length."""
THICKNESS_MM = (0.85, 0.4, 0.35, 2.2)
"""Median, logarithmic spread, minimum and maximum thickness in the middle."""
ARC_DEGREES = (50.0, 200.0)
PROXIMAL_SHARE = 0.30
"""Mean distance of plaques from the ostium as a share of the vessel's length (exponential law)."""


@dataclass(frozen=True)
class Plaque:
    """Plaque on the vessel of a name. middle_mm: distance of its middle from the vessel's start."""

    id: int
    artery: str
    vessel: str
    middle_mm: float
    length_mm: float
    arc_degrees: float
    towards_degrees: float
    thickness_mm: float
    density_mg_cm3: float
    radius_mm: float

    @property
    def volume_mm3(self) -> float:
        """Exact volume for a thickness T·√(1 - (2s/L)²) along the length, on a wall of radius r over an arc a."""
        arc = math.radians(self.arc_degrees)
        along, squared = math.pi / 4, 2.0 / 3.0
        t, length = self.thickness_mm, self.length_mm
        return arc * length * (self.radius_mm * t * along + 0.5 * t**2 * squared)

    @property
    def mass_mg(self) -> float:
        return self.density_mg_cm3 / 1000.0 * self.volume_mm3

    def cloud(self, vessel: Vessel, step_mm: float) -> PointCloud:
        """Return points in heart coordinates, weights in mg. vessel: the plaque's vessel."""
        sections = max(4, math.ceil(self.length_mm / step_mm))
        s = ((np.arange(sections) + 0.5) / sections - 0.5) * self.length_mm
        arc_length = 0.5 * np.arange(len(vessel.path_mm))
        at = np.clip(self.middle_mm + s, 0, arc_length[-1])
        centre = along(vessel.path_mm, at, arc_length)
        u, v = frames_along(np.gradient(centre, axis=0) + 1e-6)
        shape = np.sqrt(np.maximum(1 - (2 * s / self.length_mm) ** 2, 0.0))
        thickness = self.thickness_mm * shape
        arc = math.radians(self.arc_degrees)
        across = max(3, math.ceil(arc * (self.radius_mm + self.thickness_mm / 2) / step_mm))
        angle = math.radians(self.towards_degrees) + ((np.arange(across) + 0.5) / across - 0.5) * arc
        layers = max(2, math.ceil(self.thickness_mm / step_mm))
        depth = (np.arange(layers) + 0.5) / layers
        r = self.radius_mm + depth[None, :] * thickness[:, None]
        ring = np.cos(angle)[:, None] * u[:, None] + np.sin(angle)[:, None] * v[:, None]
        places = centre[:, None, None] + r[:, None, :, None] * ring[:, :, None]
        weight = np.broadcast_to((r * thickness[:, None])[:, None, :], places.shape[:3]).ravel()
        return PointCloud(places.reshape(-1, 3), weight * (self.mass_mg / weight.sum()))


def draw_plaques(
    tree: CoronaryTree,
    sex: str,
    generator: np.random.Generator,
    prevalence: float | None = None,
    artery: str | None = None,
    count: int | None = None,
) -> tuple[Plaque, ...]:
    """Draw a patient's plaques, often none, in the arteries that the tree has.

    Args:
        prevalence: Share of patients with calcium; None for PREVALENCE.
        artery: Artery of all plaques; None draws it by ARTERY_SHARE.
        count: Number of plaques; None draws it by BURDEN.
    """
    g = generator
    if g.random() >= (PREVALENCE[sex] if prevalence is None else prevalence):
        return ()
    burden_shares, means = zip(*BURDEN, strict=True)
    drawn = 1 + int(g.poisson(means[g.choice(len(means), p=burden_shares)]))
    present = {name: share for name, share in ARTERY_SHARE.items() if tree.of(name)}
    names, shares = list(present), np.array(list(present.values())) / sum(present.values())
    plaques = []
    # A patient tends to dense or to faint plaque.
    tendency = g.normal(0, 0.25)
    for number in range(1, (drawn if count is None else count) + 1):
        name = artery if artery in present else names[g.choice(len(names), p=shares)]
        vessels = tree.of(name)
        lengths = np.array([v.length_mm * (1.0 if v.name == name else 0.25) for v in vessels])
        vessel = vessels[g.choice(len(vessels), p=lengths / lengths.sum())]
        place = vessel.length_mm * min(0.95, g.exponential(PROXIMAL_SHARE))
        plaques.append(draw_plaque(number, vessel, place, tendency, g))
    return tuple(plaques)


def plaques_everywhere(tree: CoronaryTree, count: int, generator: np.random.Generator) -> tuple[Plaque, ...]:
    """Draw plaques with equal probability per millimetre of all vessels and branches.

    The left main counts threefold, because it is short.
    """
    g = generator
    lengths = np.array([vessel.length_mm * (3.0 if vessel.artery == "LM" else 1.0) for vessel in tree.vessels])
    tendency = g.normal(0, 0.25)
    plaques = []
    for number in range(1, count + 1):
        vessel = tree.vessels[g.choice(len(lengths), p=lengths / lengths.sum())]
        plaques.append(draw_plaque(number, vessel, float(g.uniform(0, vessel.length_mm)), tendency, g))
    return tuple(plaques)


def draw_plaque(
    number: int, vessel: Vessel, place_mm: float, tendency: float, generator: np.random.Generator
) -> Plaque:
    """Draw a plaque on a vessel near a distance from its start. tendency: shift of the density's logarithm."""
    g = generator
    density = _lognormal(g, DENSITY_MG_CM3, tendency)
    radius = float(np.interp(place_mm, 0.5 * np.arange(len(vessel.radius_mm)), vessel.radius_mm))
    length = min(_lognormal(g, LENGTH_MM), max(1.0, vessel.length_mm * 0.8))
    middle = float(np.clip(place_mm, length / 2, max(length / 2, vessel.length_mm - length / 2)))
    return Plaque(
        number,
        vessel.artery,
        vessel.name,
        middle,
        length,
        float(g.uniform(*ARC_DEGREES)),
        float(g.uniform(0, 360)),
        _lognormal(g, THICKNESS_MM),
        density,
        radius,
    )


def _lognormal(g: np.random.Generator, law: tuple[float, float, float, float], shift: float = 0.0) -> float:
    median, spread, low, high = law
    return float(np.clip(median * math.exp(g.normal(shift, spread)), low, high))
