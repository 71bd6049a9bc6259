"""Kind of every dense voxel by the voxel network, and parts of what is dense, each of one kind.

Patches cover all dense voxels, each of which is answered once. A patch shows the CT in its windows and one of metal,
what is dense, the territories and the scan's noise, and answers for the dense voxels in its core, so that lesions of
any size and any number of specks take as many patches as they fill space. A part is voxels that hang together and that
the network names alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree

from ..anatomy.territories import Territories
from ..core.ct import AIR_HU, CTScan
from ..core.labels import ARTERIES
from ..models.cards import LoadedModel
from ..models.inference import predict
from ..networks.configs import LESION_KINDS, LESION_PATCH
from .lesion_network import (
    BATCH_SIZE,
    CORONARY_KINDS,
    MAX_HELD,
    PATCH_STEP_MM,
    LesionPatch,
    PatchSampler,
    network_input,
    territories_around,
)
from .lesions import connected_voxels
from .sites import without_slivers

CORE = (10, 28, 28)
"""Size of the part of a patch that it answers for, in its voxels along k, j, i."""

METAL_HU = (1500.0, 3000.0)
"""Window of a channel that tells metal from the densest plaque; `lesion_network.WINDOWS_HU` end where it begins."""

NOISE_SCALE_HU, UNKNOWN_NOISE_HU = 50.0, 15.0
"""SD of noise that the network sees as 1, and SD that stands for one that could not be measured."""

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


@dataclass(frozen=True)
class Covering:
    """Patches that cover voxels.

    Attributes:
        centres: Central voxel of each patch, int [patches, 3], along k, j, i.
        patch: Patch that answers for each voxel, the one in which it lies most centrally, int [n].
    """

    centres: np.ndarray
    patch: np.ndarray


def covering(places: np.ndarray, spacing_mm: np.ndarray) -> Covering:
    """Cover voxels by the cores of patches, each centred on one of them.

    Args:
        places: The voxels, int [n, 3], along k, j, i.
        spacing_mm: Of the scan, along k, j, i.
    """
    half = np.array(CORE) / 2 * np.array(PATCH_STEP_MM) / spacing_mm
    places_in_cores = places / half
    uncovered = np.arange(len(places))
    centres: list[np.ndarray] = []
    patch, nearest = np.zeros(len(places), int), np.full(len(places), np.inf)
    while len(uncovered):
        around = uncovered[np.abs(places_in_cores[uncovered] - places_in_cores[uncovered[0]]).max(axis=1) <= 1]
        offsets = places_in_cores[around] - places_in_cores[around].mean(axis=0)
        centre = around[int((offsets**2).sum(axis=1).argmin())]
        distance = np.abs(places_in_cores - places_in_cores[centre]).max(axis=1)
        is_nearer = distance < nearest
        nearest[is_nearer], patch[is_nearer] = distance[is_nearer], len(centres)
        centres.append(places[centre])
        uncovered = uncovered[distance[uncovered] > 1]
    return Covering(np.array(centres, int).reshape(-1, 3), patch)


def voxel_kinds(
    flat: np.ndarray, scan: CTScan, territories: Territories, noise_hu: float | None, model: LoadedModel
) -> np.ndarray:
    """Ask the voxel network what each dense voxel is.

    Args:
        flat: Indices of the dense voxels, rising.
        scan: The scan as scored.
        territories: Territories of the scan.
        noise_hu: SD of the scan's noise; None if it could not be measured.
        model: Voxel network.

    Returns:
        Probability of each of LESION_KINDS, float32 [n, kinds].

    Raises:
        CTError: The device has too little memory.
    """
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    places = np.stack(np.unravel_index(flat, scan.hu.shape), axis=1)
    cover = covering(places, spacing_mm)
    dense = np.zeros(scan.hu.shape, bool)
    dense.reshape(-1)[flat] = True
    kinds = np.zeros((len(flat), len(LESION_KINDS)), np.float32)
    inputs = (voxel_input(patch, noise_hu) for patch in _patches(cover.centres, dense, scan, territories))
    first = 0
    while held := list(islice(inputs, MAX_HELD)):
        for number, answer in enumerate(predict(model.network, np.stack(held), BATCH_SIZE)[0], first):
            of_patch = cover.patch == number
            kinds[of_patch] = _at_voxels(answer, places[of_patch], cover.centres[number], spacing_mm)
        first += len(held)
    return kinds


def _patches(centres: np.ndarray, dense: np.ndarray, scan: CTScan, territories: Territories) -> Iterator[LesionPatch]:
    """Iterate over patches around voxels, with what is dense as their mask. dense: bool [k, j, i]."""
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    for centre in centres:
        sampler = PatchSampler.around(centre, scan.hu.shape, spacing_mm)
        hu, mask = sampler.sample(scan.hu[sampler.boxes], AIR_HU), sampler.sample(dense[sampler.boxes])
        yield LesionPatch(hu, mask, territories_around(territories, centre, spacing_mm, LESION_PATCH))


def voxel_input(patch: LesionPatch, noise_hu: float | None) -> np.ndarray:
    """Return a patch as the voxel network sees it, float32 [16, k, j, i]: metal, `network_input` and the noise."""
    low, high = METAL_HU
    metal = np.clip((patch.hu - low) / (high - low), 0, 1)[None]
    noise = np.full((1, *patch.hu.shape), noise_value(noise_hu), np.float32)
    return np.concatenate([metal, network_input(patch), noise])


def noise_value(noise_hu: float | None) -> float:
    """Return a noise SD as the network sees it."""
    return min((UNKNOWN_NOISE_HU if noise_hu is None else noise_hu) / NOISE_SCALE_HU, 1.5)


def _at_voxels(answer: np.ndarray, places: np.ndarray, centre: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Interpolate a patch's probabilities [kinds, k, j, i] at voxels [n, 3] of the scan; rows add up to 1."""
    from scipy import ndimage

    middle = (np.array(answer.shape[1:]) - 1) / 2
    at = ((places - centre) * spacing_mm / np.array(PATCH_STEP_MM) + middle).T
    values = np.stack([ndimage.map_coordinates(kind, at, order=1, mode="nearest") for kind in answer], axis=1)
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6)


def voxel_parts(flat: np.ndarray, kinds: np.ndarray, territories: Territories, grid: sitk.Image) -> VoxelParts:
    """Divide dense voxels into parts.

    A voxel is of an artery where the arteries and stents hold half of its probability, and of the likeliest; slivers
    and blurred edges follow what they touch.

    Args:
        flat: Indices of the dense voxels, rising.
        kinds: Probability of each of LESION_KINDS at each (`voxel_kinds`).
        territories: Territories of the scan, which tell the artery of a stent.
        grid: An image on the scan's grid.
    """
    shape = grid.GetSize()[::-1]
    chances = kinds @ _KIND_IN_ANSWER
    chances[:, :IN_ARTERY] += 1e-3 * territories.at(flat, shape)[:, 1 : 1 + IN_ARTERY]
    is_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= 0.5
    likeliest = (chances[:, :IN_ARTERY].argmax(axis=1), IN_ARTERY + chances[:, IN_ARTERY:].argmax(axis=1))
    answers = without_slivers(flat, np.where(is_coronary, *likeliest).astype(np.uint8), grid)
    answers = _without_blurred_edges(flat, answers, kinds[:, LESION_KINDS.index("noise")] < CERTAIN_NOISE, grid)
    part = connected_voxels(flat, answers, shape)
    count = int(part.max(initial=-1)) + 1
    answer_of_part = np.zeros(count, np.uint8)
    answer_of_part[part] = answers
    sums = np.stack([np.bincount(part, weights=kind, minlength=count) for kind in kinds.T], axis=1)
    return VoxelParts(part, answer_of_part, sums / np.bincount(part, minlength=count)[:, None])


def _without_blurred_edges(
    flat: np.ndarray, answers: np.ndarray, may_be_edge: np.ndarray, grid: sitk.Image
) -> np.ndarray:
    """Give noise that hangs together with something else, where it may be its edge, the nearest other answer."""
    is_noise = answers == len(ANSWERS) - 1
    shape, spacing_mm = grid.GetSize()[::-1], grid.GetSpacing()[::-1]
    whole = connected_voxels(flat, np.zeros(len(flat), np.uint8), shape)
    is_edge = is_noise & may_be_edge & np.isin(whole, whole[~is_noise])
    places_mm = np.stack(np.unravel_index(flat, shape), axis=1) * spacing_mm
    result = answers.copy()
    if is_edge.any():
        result[is_edge] = answers[~is_noise][cKDTree(places_mm[~is_noise]).query(places_mm[is_edge])[1]]
    return result
