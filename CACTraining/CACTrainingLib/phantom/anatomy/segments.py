"""Coronary segments numbered by the American Heart Association, and plaque spread evenly along each of them.

Numbers and borders: Austen 1975 (10.1161/01.CIR.51.4.5), extended by SCCT (Leipsic 2014, 10.1016/j.jcct.2014.07.003).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..shapes import read_shapes
from .coronaries import CoronaryTree, Plaque, Vessel, draw_plaque

SEGMENTS = {int(number): name for number, name in read_shapes("segments")["segments"].items()}
"""Segments by number, artery by artery."""

_DRAWS = 200
"""Plaques drawn for one of a given mass; the nearest in mass is taken, so that its shape and density are common."""
_PROXIMAL_SHARE = 0.3
"""Share of the LAD or LCX that counts as proximal where no branch ends it."""


@dataclass(frozen=True)
class Stretch:
    """Part of a vessel that belongs to a segment. start_mm, end_mm: distances from the vessel's start."""

    segment: int
    vessel: Vessel
    start_mm: float
    end_mm: float


def stretches_of(tree: CoronaryTree) -> list[Stretch]:
    """Return the stretches of all segments of a tree. The branch to the right ventricle belongs to none."""
    vessels = {vessel.name: vessel for vessel in tree.vessels}
    stretches = [
        *_divided(vessels["RCA"], _right_borders(vessels)),
        *_divided(vessels["LM"], {5: vessels["LM"].length_mm}),
        *_divided(vessels["LAD"], _left_borders(vessels)),
        *_divided(vessels["LCX"], _circumflex_borders(vessels)),
    ]
    for branches, first, others in (("D", 9, 10), ("OM", 12, 14)):
        names = [name for name in vessels if name.startswith(branches) and name[len(branches) :].isdigit()]
        numbers = [first] + [others] * len(names)
        stretches += [Stretch(n, vessels[v], 0.0, vessels[v].length_mm) for n, v in zip(numbers, names, strict=False)]
    for name, right, left in (("PDA", 4, 15), ("PL", 16, 18)):
        if name in vessels:
            branch = vessels[name]
            stretches.append(Stretch(right if branch.artery == "RCA" else left, branch, 0.0, branch.length_mm))
    return stretches


def draw_plaque_by_segment(
    tree: CoronaryTree, generator: np.random.Generator, mass_mg: tuple[float, float], share: float = 1.0
) -> dict[int, tuple[int, Plaque]]:
    """Draw a plaque at an even place of each segment, its mass log-uniform in a range.

    mass_mg: Least and most mass; what no plaque has is not reached. share: probability that a segment gets a plaque.

    Returns:
        Segment and plaque by the plaque's number, from 1.
    """
    plaques: dict[int, tuple[int, Plaque]] = {}
    stretches = stretches_of(tree)
    for segment in SEGMENTS:
        parts = [stretch for stretch in stretches if stretch.segment == segment]
        if not parts or generator.random() >= share:
            continue
        lengths = np.array([part.end_mm - part.start_mm for part in parts])
        part = parts[generator.choice(len(parts), p=lengths / lengths.sum())]
        place = float(generator.uniform(part.start_mm, part.end_mm))
        mass = math.exp(generator.uniform(*np.log(mass_mg)))
        drawn = [draw_plaque(len(plaques) + 1, part.vessel, place, 0.0, generator) for _ in range(_DRAWS)]
        nearest = min(drawn, key=lambda plaque: abs(math.log(plaque.mass_mg / mass)))
        plaques[nearest.id] = segment, nearest
    return plaques


def _divided(vessel: Vessel, ends_mm: dict[int, float]) -> Iterator[Stretch]:
    """Stretches of a vessel. ends_mm: by segment, in their order along the vessel."""
    start = 0.0
    for segment, end in ends_mm.items():
        end = min(end, vessel.length_mm)
        if end > start:
            yield Stretch(segment, vessel, start, end)
            start = end


def _right_borders(vessels: dict[str, Vessel]) -> dict[int, float]:
    right, posterior = vessels["RCA"], vessels["PDA"]
    crux = _origin_mm(posterior, right) if posterior.artery == "RCA" else right.length_mm
    margin = min(_origin_mm(vessels["RV"], right), crux) if "RV" in vessels else crux / 2
    return {1: margin / 2, 2: margin, 3: crux, 16: right.length_mm}


def _left_borders(vessels: dict[str, Vessel]) -> dict[int, float]:
    artery = vessels["LAD"]
    proximal = _first_origin_mm(vessels, "D", artery)
    return {6: proximal, 7: (proximal + artery.length_mm) / 2, 8: artery.length_mm}


def _circumflex_borders(vessels: dict[str, Vessel]) -> dict[int, float]:
    artery = vessels["LCX"]
    return {11: _first_origin_mm(vessels, "OM", artery), 13: artery.length_mm}


def _first_origin_mm(vessels: dict[str, Vessel], branches: str, parent: Vessel) -> float:
    names = [name for name in vessels if name.startswith(branches) and name[len(branches) :].isdigit()]
    return _origin_mm(vessels[names[0]], parent) if names else _PROXIMAL_SHARE * parent.length_mm


def _origin_mm(branch: Vessel, parent: Vessel) -> float:
    """Distance along a vessel of the place where a branch leaves it."""
    nearest = np.argmin(np.linalg.norm(parent.path_mm - branch.path_mm[0], axis=1))
    return float(nearest) * parent.length_mm / (len(parent.path_mm) - 1)
