"""Course of each coronary artery from its ostium, approximated from the vessel territories.

Without contrast no centre line is visible. A territory surrounds its artery, so the course is taken as the path along
the middle of the territory: from the ostium, which is where the territory of the left main or of the right artery is
nearest to the aortic root, by steps of about 3 mm that cost more near the territory's border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from ..core.grid import bounding_box
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery

STEP_MM = 3.0
"""Distance of neighbouring points of a course; the territories were segmented on such voxels."""
OSTIUM_GAP_MM = 10.0
"""Distance between artery and aortic root above which the ostium is unknown."""
REACH_MM = 8.0
"""Distance from its territory above which a place does not lie along the artery."""
END_PERCENT = 85.0
"""Percentile of the distances in a territory that is taken as the artery's end, as branches reach further; chosen on 18
scans of digital patients by the thirds of their centre lines."""

_ROOT = TERRITORIES.index("aortic valve and root")
_NEAREST = 4
_NEIGHBOURS = tuple(offset for n, offset in enumerate(np.ndindex(3, 3, 3)) if n > 13)
"""Half of the 26 neighbours, as offsets from the first corner."""


@dataclass(frozen=True)
class Course:
    """Course of an artery.

    Attributes:
        places_mm: Points in its territory, and for a left artery in that of the left main, float [n, 3] (k, j, i).
        distances_mm: Distance of each point from the ostium, float [n].
        first_mm: Distance from the ostium at which the artery begins.
        last_mm: Distance from the ostium at which it ends, END_PERCENT.
    """

    places_mm: np.ndarray
    distances_mm: np.ndarray
    first_mm: float
    last_mm: float

    def at(self, places_mm: np.ndarray) -> np.ndarray:
        """Return the distance from the ostium of places [n, 3] (k, j, i), mm; NaN off the artery (REACH_MM)."""
        gaps, nearest = cKDTree(self.places_mm).query(places_mm, k=min(_NEAREST, len(self.places_mm)))
        gaps, nearest = gaps.reshape(len(places_mm), -1), nearest.reshape(len(places_mm), -1)
        weights = 1 / (gaps + 0.1 * STEP_MM) ** 2
        distances = (weights * self.distances_mm[nearest]).sum(1) / weights.sum(1)
        return np.where(gaps[:, 0] <= REACH_MM, distances, np.nan)


def artery_courses(territories: np.ndarray | None, spacing: tuple[float, ...]) -> dict[Artery, Course]:
    """Return the courses of the arteries whose ostium is known.

    Args:
        territories: Labels of TERRITORIES, uint8 [k, j, i]; None if unknown.
        spacing: Distances of voxels along i, j, k, mm.
    """
    if territories is None:
        return {}
    spacing_mm = np.array(spacing[::-1])
    strides = np.maximum(1, np.rint(STEP_MM / spacing_mm)).astype(int)
    labels = territories[tuple(slice(None, None, s) for s in strides)]
    is_needed = np.isin(labels, [_ROOT, *(TERRITORIES.index(artery.key) for artery in MAIN_ARTERIES)])
    if not (labels == _ROOT).any():
        return {}
    box, step_mm = bounding_box(is_needed), spacing_mm * strides
    first_mm, labels = np.array([part.start for part in box]) * step_mm, labels[box]
    to_root_mm = ndimage.distance_transform_edt(labels != _ROOT, step_mm)
    courses = {artery: _course(labels, artery, to_root_mm, first_mm, step_mm) for artery in MAIN_ARTERIES}
    return {artery: course for artery, course in courses.items() if course is not None}


def _course(
    labels: np.ndarray, artery: Artery, to_root_mm: np.ndarray, first_mm: np.ndarray, step_mm: np.ndarray
) -> Course | None:
    territory, trunk = TERRITORIES.index(artery.key), TERRITORIES.index(Artery.LM.key)
    if artery == Artery.RCA or not (labels == trunk).any():
        trunk = territory
    inside = np.pad(np.isin(labels, (territory, trunk)), 1)  # so that no neighbour lies outside the array
    nodes = np.argwhere(inside)
    if not (labels == territory).any():
        return None
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(len(nodes))
    depth_mm = ndimage.distance_transform_edt(inside, step_mm)[inside]
    sources, targets, costs = [], [], []
    for offset in np.array(_NEIGHBOURS) - 1:
        neighbour = number[tuple((nodes + offset).T)]
        source = np.flatnonzero(neighbour >= 0)
        target = neighbour[source]
        sources.append(source)
        targets.append(target)
        costs.append(np.linalg.norm(offset * step_mm) / ((depth_mm[source] + depth_mm[target]) / 2) ** 2)
    edges = np.concatenate(sources), np.concatenate(targets)
    graph = coo_array((np.concatenate(costs), edges), shape=(len(nodes),) * 2).tocsr()
    places_mm = first_mm + (nodes - 1) * step_mm
    label, gap_mm = labels[inside[1:-1, 1:-1, 1:-1]], to_root_mm[inside[1:-1, 1:-1, 1:-1]]
    in_trunk = np.flatnonzero(label == trunk)
    closest_mm = gap_mm[in_trunk].min()
    if closest_mm > OSTIUM_GAP_MM:
        return None
    facing = in_trunk[gap_mm[in_trunk] <= closest_mm + STEP_MM / 2]
    middle_mm = places_mm[facing].mean(axis=0)
    ostium = facing[np.linalg.norm(places_mm[facing] - middle_mm, axis=1).argmin()]
    cost, previous = dijkstra(graph, directed=False, indices=ostium, return_predecessors=True)
    reached = np.isfinite(cost)
    lengths_mm = np.linalg.norm(places_mm - places_mm[np.maximum(previous, 0)], axis=1)
    distances_mm = np.zeros(len(nodes))
    for node in np.argsort(cost)[1 : reached.sum()].tolist():  # after the ostium, each behind its previous one
        distances_mm[node] = distances_mm[previous[node]] + lengths_mm[node]
    along_mm = distances_mm[reached & (label == territory)]
    if not along_mm.size:
        return None
    last_mm = float(np.percentile(along_mm, END_PERCENT))
    return Course(places_mm[reached], distances_mm[reached], float(along_mm.min()), last_mm)
