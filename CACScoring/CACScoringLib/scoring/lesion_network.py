"""Kind of every dense voxel by the lesion network, and the parts into which its answers divide lesions.

Patches cover all dense voxels, each of which is answered once. A patch has voxels of PATCH_STEP_MM, whatever those of
the scan are. It shows the CT in windows, what is dense, the territories and the scan's noise; not the calcium map,
whose silence would prove nothing. It answers for the dense voxels in its core, so that lesions of any size and any
number of specks take as many patches as they fill space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..anatomy.territories import Territories
from ..core.ct import AIR_HU, CTScan
from ..core.grid import Grid, bounding_box, interval_means, linear_area, slab_area
from ..core.labels import ARTERIES
from ..models.cards import LoadedModel
from ..models.inference import predict
from ..networks.configs import (
    KIND_ROWS,
    LESION_IMAGES,
    LESION_KINDS,
    LESION_PATCH,
    LESION_TERRITORIES,
    TERRITORY_STRIDE,
)
from .lesion_calibration import LEAST_BY_PLACE
from .lesions import connected_voxels, hanging_together, without_slivers
from .sites import UNKNOWN_NOISE_HU, DenseVoxels

PATCH_STEP_MM = (2.0, 0.75, 0.75)
"""Spacing of a patch's voxels along k, j, i."""

CORE = (10, 28, 28)
"""Size of the part of a patch that it answers for, in its voxels along k, j, i."""

WINDOWS_HU = ((1500.0, 3000.0), (-150.0, 350.0), (-150.0, 1500.0))
"""Windows of the CT's channels, each scaled to 0 to 1; the first tells metal from the densest plaque."""

NOISE_SCALE_HU = 50.0
"""SD of noise that the network sees as 1."""

BATCH_SIZE = 16
"""Patches judged at once, 2 MB each."""

STENT_HU = 300.0
"""Peak from which what hangs together may be a stent. What is fainter is no evidence of calcium because it looks like
one: motion rims of 200 HU do."""

CORONARY_KINDS = [LESION_KINDS.index(kind) for kind in ("LM", "LAD", "LCX", "RCA", "stent")]
"""Indices of kinds that lie in a coronary artery. On slices of 3 mm a stent and a calcified artery look alike, so a
lesion that may be a stent counts, with a warning."""


_STENT, _NOISE = (LESION_KINDS.index(kind) for kind in ("stent", "noise"))


@dataclass(frozen=True)
class PatchSampler:
    """Samples patches around a voxel.

    Attributes:
        boxes: Part of the scan that the patch needs along k, j, i.
        weights: Weights [size, needed] along each axis that give the patch's voxels; 0 beyond the scan.
    """

    boxes: tuple[slice, ...]
    weights: tuple[np.ndarray, ...]

    @classmethod
    def around(
        cls, centre: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray, size: tuple[int, ...] = LESION_PATCH
    ) -> PatchSampler:
        """Make the sampler of a patch centred on a voxel (k, j, i) of a scan. spacing_mm: along k, j, i."""
        boxes, weights = [], []
        for axis, (count, voxel, voxels, width) in enumerate(
            zip(shape, centre.tolist(), size, (np.array(PATCH_STEP_MM) / spacing_mm).tolist(), strict=True)
        ):
            places = voxel + width * (np.arange(voxels) - (voxels - 1) / 2)
            axis_weights = interval_means(slab_area if axis == 0 else linear_area, count, places, width)
            (box,) = bounding_box(axis_weights.sum(axis=0))
            boxes.append(box)
            weights.append(axis_weights[:, box])
        return cls(tuple(boxes), tuple(weights))

    def sample(self, part: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """Sample the part of a volume [k, j, i] in `boxes`: float32 [size]. outside: Value beyond the scan."""
        planes, rows, columns = self.weights
        excess = part.astype(np.float32) - np.float32(outside)
        return np.matmul(np.matmul(rows, np.tensordot(planes, excess, 1)), columns.T) + np.float32(outside)


@dataclass(frozen=True)
class LesionPatch:
    """Patch of a scan.

    Attributes:
        hu: CT in HU, float32 [k, j, i].
        dense: Share of each voxel that is dense, float32 [k, j, i].
        territories: Probability of each of TERRITORIES, float32 [11, k', j', i'], one for TERRITORY_STRIDE voxels.
    """

    hu: np.ndarray
    dense: np.ndarray
    territories: np.ndarray


def territories_around(
    territories: Territories, centre: np.ndarray, spacing_mm: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:
    """Return the territories' probabilities around a voxel (k, j, i), float32 [11, *size / TERRITORY_STRIDE]."""
    from scipy import ndimage

    grid = territories.grid
    axes = []
    for axis, (voxels, stride, step_mm) in enumerate(zip(size, TERRITORY_STRIDE, PATCH_STEP_MM, strict=True)):
        offsets_mm = step_mm * ((np.arange(voxels // stride) + 0.5) * stride - voxels / 2)
        axes.append((centre[axis] + offsets_mm / spacing_mm[axis] - grid.first[2 - axis]) / grid.step[2 - axis])
    box = []
    for places, count in zip(axes, territories.heart.shape, strict=True):
        first = min(max(int(np.floor(places.min())) - 1, 0), count - 1)
        box.append(slice(first, max(min(int(np.ceil(places.max())) + 2, count), first + 1)))
    places = np.stack(np.meshgrid(*(p - part.start for p, part in zip(axes, box, strict=True)), indexing="ij"))
    nearby = territories.probability[(slice(None), *box)]
    return np.stack([ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in nearby])


def network_input(patch: LesionPatch, noise_hu: float | None) -> np.ndarray:
    """Return a patch as the network sees it, float32 [16, k, j, i].

    noise_hu: SD of the scan's noise; None if it could not be measured.
    """
    inputs = np.empty((LESION_IMAGES + LESION_TERRITORIES + 1, *patch.hu.shape), np.float32)
    for channel, (low, high) in enumerate(WINDOWS_HU):
        np.clip((patch.hu - low) / (high - low), 0, 1, out=inputs[channel])
    inputs[LESION_IMAGES - 1] = patch.dense
    values = patch.territories
    for axis, stride in enumerate(TERRITORY_STRIDE, 1):
        values = values.repeat(stride, axis)
    inputs[LESION_IMAGES:-1] = values
    inputs[-1] = min((UNKNOWN_NOISE_HU if noise_hu is None else noise_hu) / NOISE_SCALE_HU, 1.5)
    return inputs


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
    flat: np.ndarray,
    scan: CTScan,
    territories: Territories,
    noise_hu: float | None,
    model: LoadedModel,
    is_asked: np.ndarray | bool = True,
) -> np.ndarray:
    """Ask the lesion network what each dense voxel is.

    Args:
        flat: Indices of the dense voxels, rising.
        scan: The scan as scored.
        territories: Territories of the scan.
        noise_hu: SD of the scan's noise; None if it could not be measured.
        model: Lesion network.
        is_asked: False for voxels whose answer is not needed, bool [n], as of specks that cannot be lesions: a noisy
            scan has hundreds.

    Returns:
        Probability of each of LESION_KINDS, float32 [n, kinds]; 0 in patches without a voxel that is asked about.

    Raises:
        CTError: The device has too little memory.
    """
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    places = np.stack(np.unravel_index(flat, scan.hu.shape), axis=1)
    cover = covering(places, spacing_mm)
    dense = np.zeros(scan.hu.shape, bool)
    dense.reshape(-1)[flat] = True
    kinds = np.zeros((len(flat), len(LESION_KINDS)), np.float32)
    needed = np.unique(cover.patch[np.broadcast_to(is_asked, len(flat))])
    for first in range(0, len(needed), BATCH_SIZE):
        numbers = needed[first : first + BATCH_SIZE]
        patches = [_patch(cover.centres[number], dense, scan, territories) for number in numbers]
        answers, _ = predict(model.network, np.stack([network_input(patch, noise_hu) for patch in patches]), BATCH_SIZE)
        for number, answer in zip(numbers, answers, strict=True):
            of_patch = cover.patch == number
            kinds[of_patch] = _at_voxels(answer, places[of_patch], cover.centres[number], spacing_mm)
    return kinds


def without_faint_stents(kinds: np.ndarray, flat: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Move the probability of a stent to noise where what hangs together stays below STENT_HU.

    Args:
        kinds: Probability of each of LESION_KINDS at each voxel, [n, kinds].
        flat: Indices of the voxels, rising.
        hu: The scan, [k, j, i].
    """
    piece = connected_voxels(flat, np.zeros(len(flat), np.uint8), hu.shape)
    peaks = np.zeros(piece.max(initial=-1) + 1)
    np.maximum.at(peaks, piece, hu.reshape(-1)[flat])
    moved = np.where(peaks[piece] < STENT_HU, kinds[:, _STENT], 0)
    result = kinds.copy()
    result[:, _STENT] -= moved
    result[:, _NOISE] += moved
    return result


def _patch(centre: np.ndarray, dense: np.ndarray, scan: CTScan, territories: Territories) -> LesionPatch:
    """Return the patch around a voxel. dense: bool [k, j, i]."""
    spacing_mm = np.array(scan.image.GetSpacing()[::-1])
    sampler = PatchSampler.around(centre, scan.hu.shape, spacing_mm)
    hu, share = sampler.sample(scan.hu[sampler.boxes], AIR_HU), sampler.sample(dense[sampler.boxes])
    return LesionPatch(hu, share, territories_around(territories, centre, spacing_mm, LESION_PATCH))


def _at_voxels(answer: np.ndarray, places: np.ndarray, centre: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Interpolate a patch's probabilities [kinds, k, j, i] at voxels [n, 3] of the scan; rows add up to 1."""
    from scipy import ndimage

    middle = (np.array(answer.shape[1:]) - 1) / 2
    at = ((places - centre) * spacing_mm / np.array(PATCH_STEP_MM) + middle).T
    values = np.stack([ndimage.map_coordinates(kind, at, order=1, mode="nearest") for kind in answer], axis=1)
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6)


_ANSWER_NAMES = dict.fromkeys(row["answer"] for row in KIND_ROWS if row["answer"])
ANSWERS = {name: tuple(row["kind"] for row in KIND_ROWS if row["answer"] == name) for name in _ANSWER_NAMES}
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
