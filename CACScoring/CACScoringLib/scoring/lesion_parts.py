"""Parts of what is dense, each of one kind by the lesion network's answers about its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..core.grid import Grid
from ..core.labels import ARTERIES
from ..networks.configs import LESION_KINDS
from .connection import connected_voxels, hanging_together, without_slivers
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

_KIND_IN_ANSWER = np.array([[kind in kinds for kinds in ANSWERS.values()] for kind in LESION_KINDS], np.float32)


@dataclass(frozen=True)
class VoxelParts:
    """Parts of all that is dense.

    Attributes:
        part: Number of each voxel's part, int [n].
        answers: Index in ANSWERS of each part, uint8 [parts].
        kinds: Probability of each of LESION_KINDS in each part, the mean of its voxels, float [parts, kinds].
    """

    part: np.ndarray
    answers: np.ndarray
    kinds: np.ndarray


def voxel_parts(voxels: DenseVoxels, kinds: np.ndarray, grid: Grid) -> VoxelParts:
    """Divide dense voxels into parts.

    A voxel is of an artery where the arteries and stents hold half of its probability, and of the likeliest; slivers
    and blurred edges follow what they touch.

    Args:
        voxels: The dense voxels, whose places tell the artery of a stent.
        kinds: Probability of each of LESION_KINDS at each (`voxel_kinds`).
        grid: Grid of the scan.
    """
    flat = voxels.flat
    chances = kinds @ _KIND_IN_ANSWER
    chances[:, :IN_ARTERY] += 1e-3 * voxels.arteries
    is_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= 0.5
    likeliest = (chances[:, :IN_ARTERY].argmax(axis=1), IN_ARTERY + chances[:, IN_ARTERY:].argmax(axis=1))
    answers = without_slivers(flat, np.where(is_coronary, *likeliest).astype(np.uint8), grid)
    answers = _without_blurred_edges(flat, answers, kinds[:, LESION_KINDS.index("noise")] < CERTAIN_NOISE, grid)
    part = connected_voxels(flat, answers, grid.shape)
    count = int(part.max(initial=-1)) + 1
    answer_of_part = np.zeros(count, np.uint8)
    answer_of_part[part] = answers
    sums = np.stack([np.bincount(part, weights=kind, minlength=count) for kind in kinds.T], axis=1)
    return VoxelParts(part, answer_of_part, sums / np.bincount(part, minlength=count)[:, None])


def _without_blurred_edges(flat: np.ndarray, answers: np.ndarray, may_be_edge: np.ndarray, grid: Grid) -> np.ndarray:
    """Give noise that hangs together with something else, where it may be its edge, the nearest other answer."""
    is_noise = answers == len(ANSWERS) - 1
    is_edge = is_noise & may_be_edge & hanging_together(flat, ~is_noise, grid.shape)
    places_mm = np.stack(np.unravel_index(flat, grid.shape), axis=1) * grid.spacing_mm[::-1]
    result = answers.copy()
    if is_edge.any():
        result[is_edge] = answers[~is_noise][cKDTree(places_mm[~is_noise]).query(places_mm[is_edge])[1]]
    return result
