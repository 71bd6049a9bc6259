"""Connected voxels, and the parts into which the lesion network's answers divide all that is dense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..core.grid import Grid
from ..core.labels import ARTERIES
from ..networks.configs import KIND_ROWS, LESION_KINDS
from ..record.rules import ScoringRules
from .uncertainty import LEAST_BY_PLACE

SLIVER_MM3 = 6.0
"""A smaller piece of a lesion is not split off it: territories are no more exact than some mm."""

IN_SLICE = ((0, 1),)
IN_SPACE = (*IN_SLICE, (1, -1), (1, 0), (1, 1))
"""Offsets along k, j of the rows that voxels may connect to, after their own: within a slice, and in space."""

STENT_HU = 300.0
"""Peak from which what hangs together may be a stent. What is fainter is no evidence of calcium because it looks like
one: motion rims of 200 HU do."""

CORONARY_KINDS = [LESION_KINDS.index(kind) for kind in ("LM", "LAD", "LCX", "RCA", "stent")]
"""Indices of kinds that lie in a coronary artery. On slices of 3 mm a stent and a calcified artery look alike, so a
lesion that may be a stent counts, with a warning."""

_ANSWER_NAMES = dict.fromkeys(row["answer"] for row in KIND_ROWS if row["answer"])

ANSWERS = {name: tuple(row["kind"] for row in KIND_ROWS if row["answer"] == name) for name in _ANSWER_NAMES}
"""Answers about a part, and the kinds of each; a stent is of its artery."""

IN_ARTERY = len(ARTERIES)
"""Number of the first answer that is no artery."""

CERTAIN_NOISE = 0.8
"""Probability from which noise that touches something else stays noise; else it is that one's blurred edge."""

NETWORK_WEIGHT = 0.25
"""Weight of the lesion network's log-probability of an artery beside that of the territories. Chosen on people with
calcium; the network learned a longer left main than people have."""

LEAST_BY_NETWORK = 0.01
"""Least probability of an artery by the lesion network."""

MIN_BRANCH_MM = 5.0
"""Least length of an artery's part of a connected plaque beyond its other arteries; a shorter part is not split off."""

GAP_MM = 5.0
"""Largest gap in a slice, along each of its axes, between pieces of one plaque: motion and noise cut plaques. From 3 to
8 mm the scores of people are the same."""

_KIND_IN_ANSWER = np.array([[kind in kinds for kinds in ANSWERS.values()] for kind in LESION_KINDS], np.float32)

EDGE_HU = 100.0
"""Voxels count by their excess over this in means of a lesion, because the network is unsure of its blurred edge."""

_STENT, _NOISE = (LESION_KINDS.index(kind) for kind in ("stent", "noise"))

_DEVICES = [LESION_KINDS.index(kind) for kind in ANSWERS["device"]]


def connected_voxels(
    flat: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, ...],
    rows: Sequence[tuple[int, int]] = IN_SPACE,
    reach: int = 1,
) -> np.ndarray:
    """Number voxels by connected part (26 neighbours), from 0; voxels of different labels never connect.

    Args:
        flat: Indices into an array [k, j, i], rising.
        labels: Of each.
        shape: Of the array.
        rows: Offsets along k, j of the rows that voxels may connect to, after their own.
        reach: 1 if voxels of these rows connect by edges or corners too, 0 if only side by side.

    Returns:
        The number of each voxel's part, intp [n].
    """
    if not len(flat):
        return np.zeros(0, np.intp)
    # Rows and slices are padded by one, so that the last voxel of a row is no neighbour of the next row's first.
    k, j, i = np.unravel_index(flat, shape)
    row = shape[2] + 1
    plane = row * (shape[1] + 1)
    place = k * plane + j * row + i
    # Runs of neighbours along a row are connected, rather than voxels, which are several times as many.
    starts = np.flatnonzero((np.diff(place, prepend=-2) != 1) | (np.diff(labels, prepend=labels[0]) != 0))
    lengths = np.diff(starts, append=len(place))
    first, last, label = place[starts], place[starts + lengths - 1], labels[starts]
    pairs = []
    for dk, dj in rows:
        offset = dk * plane + dj * row
        nearest = np.searchsorted(last, first + offset - reach)
        counts = np.searchsorted(first, last + offset + reach, "right") - nearest
        sources = np.repeat(np.arange(len(starts)), counts)
        neighbours = np.arange(len(sources)) + np.repeat(nearest - np.cumsum(counts) + counts, counts)
        is_alike = label[sources] == label[neighbours]
        pairs.append((sources[is_alike], neighbours[is_alike]))
    sources, neighbours = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(sources), bool), (sources, neighbours)), shape=(len(starts),) * 2)
    return np.repeat(connected_components(graph, directed=False)[1], lengths).astype(np.intp)


def slice_components(
    flat: np.ndarray, sites: np.ndarray, shape: tuple[int, ...], spacing_mm: tuple[float, ...], rules: ScoringRules
) -> tuple[np.ndarray, np.ndarray]:
    """Number voxels by slice component, from 0, and find those of components that are large enough to count.

    Args:
        flat: Indices of the voxels, rising.
        sites: `Site` of each.
        shape: Of the scan, [k, j, i].
        spacing_mm: Of the scan, along i, j, k.
        rules: Scoring rules.

    Returns:
        The number of each voxel's component, intp [n], and True where it counts, bool [n].
    """
    component = connected_voxels(flat, sites, shape, IN_SLICE, int(rules.connectivity == 8))
    count = np.bincount(component)
    # Spacings come from files in single precision: an area meant to be 1 mm² may read 0.9999999.
    least_mm2 = rules.minimum_area_mm2 * (1 - 1e-6)
    is_large = (count * (spacing_mm[0] * spacing_mm[1]) >= least_mm2) & (count >= rules.minimum_pixels)
    return component, is_large[component]


def hanging_together(flat: np.ndarray, is_marked: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return True for voxels that hang together with a marked one, bool [n]; arguments as of `connected_voxels`."""
    piece = connected_voxels(flat, np.zeros(len(flat), np.uint8), shape)
    return np.isin(piece, piece[is_marked])


def touching(flat: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return True for labelled voxels of pieces of one label that touch a mask, bool [k, j, i] (26 neighbours)."""
    if not len(flat):
        return np.zeros(0, bool)
    place = np.stack(np.unravel_index(flat, mask.shape))
    last = np.array(mask.shape)[:, None] - 1
    touches = np.zeros(len(flat), bool)
    for offset in np.ndindex(3, 3, 3):
        touches |= mask[tuple(np.clip(place + np.array(offset)[:, None] - 1, 0, last))]
    piece = connected_voxels(flat, values, mask.shape)
    return np.bincount(piece, touches)[piece] > 0


def without_slivers(flat: np.ndarray, values: np.ndarray, grid: Grid) -> np.ndarray:
    """Replace the labels of pieces below SLIVER_MM3 by the label that touches them.

    Args:
        flat: Indices of the voxels, rising.
        values: Label of each.
        grid: Grid of the scan.
    """
    if not len(flat):
        return values
    piece = connected_voxels(flat, values, grid.shape)
    small = (np.bincount(piece) * math.prod(grid.spacing_mm) < SLIVER_MM3)[piece]
    if not small.any() or small.all():
        return values
    places = np.stack(np.unravel_index(flat, grid.shape), axis=1).astype(float)
    # The farthest of the 26 neighbours is √3 voxels away.
    distance, nearest = cKDTree(places[~small]).query(places[small], distance_upper_bound=1.8)
    touched = np.isfinite(distance)
    result = values.copy()
    result[np.flatnonzero(small)[touched]] = values[~small][nearest[touched]]
    return result


@dataclass(frozen=True)
class VoxelParts:
    """Parts of all that is dense.

    Attributes:
        part: Number of each voxel's part, int [n].
        answers: Index in ANSWERS of each part, uint8 [parts].
        plaque: Number of the plaque of each part (`plaques_of`), int [parts].
        means: Means of each plaque's voxels (`dense_means`), float [plaques, columns].
    """

    part: np.ndarray
    answers: np.ndarray
    plaque: np.ndarray
    means: np.ndarray


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


def without_devices_in_plaque(kinds: np.ndarray, flat: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Move the probability of devices to the arteries in connected pieces that are likelier plaque than anything else.

    Compact plaques of 700 to 900 HU look like clips in part, but a piece is one thing. Stents, which lie in arteries,
    are neither.

    Args:
        kinds: Probability of each of LESION_KINDS at each voxel, [n, kinds].
        flat: Indices of the voxels, rising.
        hu: The scan, [k, j, i].
    """
    piece = connected_voxels(flat, np.zeros(len(flat), np.uint8), hu.shape)
    means = dense_means(piece, kinds, hu.reshape(-1)[flat])
    answers = means @ _KIND_IN_ANSWER
    arteries = answers[:, :IN_ARTERY].sum(axis=1)
    is_plaque = (arteries > answers[:, IN_ARTERY:].max(axis=1, initial=0))[piece]
    result = kinds.copy()
    devices = kinds[is_plaque][:, _DEVICES].sum(axis=1, keepdims=True)
    result[np.ix_(is_plaque, _DEVICES)] = 0
    # A voxel without an artery of its own takes those of its piece.
    shares = kinds[is_plaque, :IN_ARTERY] + LEAST_BY_NETWORK * means[piece[is_plaque], :IN_ARTERY]
    result[is_plaque, :IN_ARTERY] += devices * shares / shares.sum(axis=1, keepdims=True)
    return result


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


def voxel_parts(flat: np.ndarray, territories: np.ndarray, kinds: np.ndarray, hu: np.ndarray, grid: Grid) -> VoxelParts:
    """Divide dense voxels into parts.

    A voxel is of an artery where the arteries and stents hold half of its probability, and of the likeliest by network
    and territories (`artery_chances`); slivers, blurred edges and short branches follow what they touch.

    Args:
        flat: Indices of the dense voxels, rising.
        territories: Probability of the territory of each of MAIN_ARTERIES at each, [n, 4].
        kinds: Probability of each of LESION_KINDS at each (`lesion_network.voxel_kinds`).
        hu: HU of each, [n].
        grid: Grid of the scan.
    """
    chances = kinds @ _KIND_IN_ANSWER
    arteries = artery_chances(kinds, territories)
    is_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= 0.5
    likeliest = (arteries.argmax(axis=1), IN_ARTERY + chances[:, IN_ARTERY:].argmax(axis=1))
    answers = without_slivers(flat, np.where(is_coronary, *likeliest).astype(np.uint8), grid)
    answers = _without_blurred_edges(flat, answers, kinds[:, LESION_KINDS.index("noise")] < CERTAIN_NOISE, grid)
    answers = _without_short_branches(flat, answers, np.log(arteries), grid)
    part = connected_voxels(flat, answers, grid.shape)
    count = int(part.max(initial=-1)) + 1
    answer_of_part = np.zeros(count, np.uint8)
    answer_of_part[part] = answers
    plaque = plaques_of(part, answer_of_part, flat, grid)
    means = dense_means(plaque[part], np.concatenate([kinds, territories], axis=1), hu)
    return VoxelParts(part, answer_of_part, plaque, means)


def plaques_of(part: np.ndarray, answers: np.ndarray, flat: np.ndarray, grid: Grid) -> np.ndarray:
    """Number the plaques that parts belong to, from 0, intp [parts].

    Parts of one artery are one plaque if they lie in the same or in neighbouring slices and no more than GAP_MM apart
    in them; all other parts are alone. Motion and noise cut a plaque into pieces, which are judged together.

    Args:
        part: Number of each voxel's part, int [n].
        answers: Index in ANSWERS of each part, [parts].
        flat: Indices of the voxels, rising [n].
        grid: Grid of the scan.
    """
    count, reach = len(answers), 1 + 1e-6
    # In these units, neighbouring slices and GAP_MM are one apart.
    units = np.array([1.0, *(GAP_MM / np.array(grid.spacing_mm[1::-1]))])
    places = np.stack(np.unravel_index(flat, grid.shape), axis=1) / units
    order = np.argsort(part, kind="stable")
    groups = np.split(places[order], np.cumsum(np.bincount(part, minlength=count))[:-1])
    edges: list[tuple[int, int]] = []
    for artery in range(IN_ARTERY):
        numbers = np.flatnonzero(answers == artery)
        if len(numbers) < 2:
            continue
        low, high = (np.array([function(groups[n], axis=0) for n in numbers]) for function in (np.min, np.max))
        boxes_meet = (low[:, None] <= high + reach).all(axis=-1)
        for first, second in numbers[np.argwhere(np.triu(boxes_meet & boxes_meet.T, 1))].tolist():
            if cKDTree(groups[first]).query(groups[second], p=np.inf)[0].min() <= reach:
                edges.append((first, second))
    sources, targets = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges), bool), (sources, targets)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.intp)


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
