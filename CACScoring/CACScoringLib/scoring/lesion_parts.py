"""Parts of what is dense, each of one kind by the lesion network's answers about its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..core.grid import Grid
from ..core.labels import ARTERIES
from ..networks.configs import LESION_KINDS
from .connection import connected_voxels, hanging_together, without_slivers
from .lesion_calibration import LEAST_BY_PLACE
from .lesion_network import CORONARY_KINDS
from .sites import DenseVoxels

ANSWERS = {
    **{artery: (artery,) for artery in ARTERIES},
    "aortic valve and root": ("aortic valve and root",),
    "mitral annulus": ("mitral annulus",),
    "aorta": ("aorta",),
    "other": ("pericardium", "other calcium"),
    "device": ("lead", "wire", "clip", "catheter", "prosthetic valve"),
    "noise": ("noise",),
}
"""Answers about a part, and the kinds of each; a stent is of its artery."""

IN_ARTERY = len(ARTERIES)
"""Number of the first answer that is no artery."""

CERTAIN_NOISE = 0.8
"""Probability from which noise that touches something else stays noise; else it is that one's blurred edge."""

NETWORK_WEIGHT = 0.5
"""Weight of the lesion network's log-probability of an artery beside that of the territories. Chosen on seven people
with calcium, one left out at a time; the network learned a longer left main than people have."""

LEAST_BY_NETWORK = 0.01
"""Least probability of an artery by the lesion network."""

MIN_BRANCH_MM = 5.0
"""Least length of an artery's part of a connected plaque beyond its other arteries; a shorter part is not split off."""

_KIND_IN_ANSWER = np.array([[kind in kinds for kinds in ANSWERS.values()] for kind in LESION_KINDS], np.float32)


@dataclass(frozen=True)
class VoxelParts:
    """Parts of all that is dense.

    Attributes:
        part: Number of each voxel's part, int [n].
        answers: Index in ANSWERS of each part, uint8 [parts].
        means: Means of each part's voxels (`dense_means`), float [parts, columns].
    """

    part: np.ndarray
    answers: np.ndarray
    means: np.ndarray


EDGE_HU = 100.0
"""Voxels count by their excess over this in means of a lesion, because the network is unsure of its blurred edge."""


def dense_means(groups: np.ndarray, columns: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Return the means of columns [n, columns] over groups of dense voxels, weighted by their excess over EDGE_HU.

    Args:
        groups: Number of each voxel's group, int [n].
        columns: Values of each voxel, [n, columns].
        hu: HU of each voxel, [n].

    Returns:
        Means [groups, columns]; 0 of groups without voxels.
    """
    weights = np.maximum(hu - EDGE_HU, 1.0)
    sums = np.stack([np.bincount(groups, weights * column) for column in columns.T], axis=1)
    return sums / np.maximum(np.bincount(groups, weights), 1e-9)[:, None]


def voxel_parts(voxels: DenseVoxels, kinds: np.ndarray, hu: np.ndarray, grid: Grid) -> VoxelParts:
    """Divide dense voxels into parts.

    A voxel is of an artery where the arteries and stents hold half of its probability, and of the likeliest by network
    and territories (`artery_chances`); slivers, blurred edges and short branches follow what they touch.

    Args:
        voxels: The dense voxels.
        kinds: Probability of each of LESION_KINDS at each (`voxel_kinds`).
        hu: HU of each, [n].
        grid: Grid of the scan.
    """
    flat = voxels.flat
    chances = kinds @ _KIND_IN_ANSWER
    arteries = artery_chances(kinds, voxels.arteries)
    is_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= 0.5
    likeliest = (arteries.argmax(axis=1), IN_ARTERY + chances[:, IN_ARTERY:].argmax(axis=1))
    answers = without_slivers(flat, np.where(is_coronary, *likeliest).astype(np.uint8), grid)
    answers = _without_blurred_edges(flat, answers, kinds[:, LESION_KINDS.index("noise")] < CERTAIN_NOISE, grid)
    answers = _without_short_branches(flat, answers, np.log(arteries), grid)
    part = connected_voxels(flat, answers, grid.shape)
    count = int(part.max(initial=-1)) + 1
    answer_of_part = np.zeros(count, np.uint8)
    answer_of_part[part] = answers
    return VoxelParts(part, answer_of_part, dense_means(part, np.concatenate([kinds, voxels.arteries], axis=1), hu))


def artery_chances(kinds: np.ndarray, territories: np.ndarray) -> np.ndarray:
    """Return the probability of each of MAIN_ARTERIES if calcium is coronary, [n, 4]; rows add up to 1.

    Args:
        kinds: Probability of each of LESION_KINDS, of which the first are the arteries, [n, kinds].
        territories: Probability of the territory of each of MAIN_ARTERIES, [n, 4].
    """
    by_network = np.maximum(kinds[:, :IN_ARTERY], LEAST_BY_NETWORK)
    chances = by_network**NETWORK_WEIGHT * np.maximum(territories, LEAST_BY_PLACE)
    return chances / chances.sum(axis=1, keepdims=True)


def _without_short_branches(flat: np.ndarray, answers: np.ndarray, log_chances: np.ndarray, grid: Grid) -> np.ndarray:
    """Give parts of a connected plaque shorter than MIN_BRANCH_MM to the likeliest of its other arteries."""
    result = answers.copy()
    places_mm = np.stack(np.unravel_index(flat, grid.shape), axis=1) * grid.spacing_mm[::-1]
    coronary = np.flatnonzero(answers < IN_ARTERY)
    piece = connected_voxels(flat[coronary], np.zeros(len(coronary), np.uint8), grid.shape)
    for plaque in np.split(coronary[np.argsort(piece, kind="stable")], np.cumsum(np.bincount(piece))[:-1]):
        while len(arteries := np.unique(result[plaque])) > 1:
            parts = {artery: plaque[result[plaque] == artery] for artery in arteries}
            lengths = {
                artery: cKDTree(places_mm[np.setdiff1d(plaque, part)]).query(places_mm[part])[0].max()
                for artery, part in parts.items()
            }
            shortest = min(arteries, key=lambda artery: lengths[artery])
            if lengths[shortest] >= MIN_BRANCH_MM:
                break
            remaining = arteries[arteries != shortest]
            result[parts[shortest]] = remaining[log_chances[np.ix_(parts[shortest], remaining)].sum(axis=0).argmax()]
    return result


def _without_blurred_edges(flat: np.ndarray, answers: np.ndarray, may_be_edge: np.ndarray, grid: Grid) -> np.ndarray:
    """Give noise that hangs together with something else, where it may be its edge, the nearest other answer."""
    is_noise = answers == len(ANSWERS) - 1
    is_edge = is_noise & may_be_edge & hanging_together(flat, ~is_noise, grid.shape)
    places_mm = np.stack(np.unravel_index(flat, grid.shape), axis=1) * grid.spacing_mm[::-1]
    result = answers.copy()
    if is_edge.any():
        result[is_edge] = answers[~is_noise][cKDTree(places_mm[~is_noise]).query(places_mm[is_edge])[1]]
    return result
