"""Coronary calcium beyond the border of an artery's territory.

Territories are exact to some millimetres, so calcium at an ostium, or beside the mitral annulus, may lie in the
territory of the valve, and be one with the valve's own. What is dense outside the arteries is therefore divided into
parts, each with a peak of its own, and parts that an artery may reach are shown to the lesion network. Those that look
coronary become candidates of the likeliest artery.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..anatomy.territories import Territories
from ..core.ct import CTScan
from ..core.labels import MAIN_ARTERIES, NonCoronary
from ..core.voxels import voxels_of
from ..models.cards import LoadedModel
from ..networks.configs import LESION_KINDS
from .lesion_network import lesion_kinds
from .lesions import connected_voxels
from .sites import SLIVER_MM3

REACHED = 0.01
"""Least coronary probability, anywhere in a lesion, by which an artery may reach it."""

PEAK_RISE_HU = 50.0
"""Rise above the saddle to a higher peak by which a peak makes a part of its own; above the noise of most scans."""

ARTERY_PROBABILITY = 0.7
"""Probability by its looks from which a part becomes a candidate of an artery. Chosen on 138 scans of digital patients,
where 9 lesions outside the arteries above it were coronary and 3 were not."""

MAX_PARTS = 100
"""Most parts shown to the network, the largest of a scan: two real scans have 12 and 22, a very noisy one 3318."""

ARTERY_KINDS = [LESION_KINDS.index(artery.key) for artery in MAIN_ARTERIES]
"""Indices of kinds that are calcium of an artery."""


@dataclass(frozen=True)
class BorderParts:
    """Parts of lesions outside the arteries that an artery may reach.

    Attributes:
        id_map: Part's number from 1 at its voxels, else 0, uint16 [k, j, i].
        arteries: Likeliest artery of each part by its place, uint8 [n].
    """

    id_map: np.ndarray
    arteries: np.ndarray

    @property
    def ids(self) -> list[int]:
        """Numbers of the parts."""
        return list(range(1, len(self.arteries) + 1))


def sites_by_looks(sites: np.ndarray, scan: CTScan, territories: Territories, network: LoadedModel) -> np.ndarray:
    """Give parts outside the arteries that look coronary to the likeliest artery.

    Args:
        sites: `Site` of dense voxels, else 0, uint8 [k, j, i] (`sites.candidate_sites`).
        scan: The scan as scored.
        territories: Territories of the scan.
        network: Lesion network.

    Returns:
        The sites, uint8 [k, j, i].

    Raises:
        DeviceError: The device has too little memory.
    """
    parts = border_parts(sites, scan, territories)
    kinds = lesion_kinds(parts.id_map, parts.ids, scan, territories, network)
    looks_coronary = kinds[:, ARTERY_KINDS].sum(axis=1) >= ARTERY_PROBABILITY
    if not looks_coronary.any():
        return sites
    artery_of_part = np.concatenate([[np.uint8(0)], np.where(looks_coronary, parts.arteries, np.uint8(0))])
    artery = artery_of_part[parts.id_map]
    return np.where(artery > 0, artery, sites)


def border_parts(sites: np.ndarray, scan: CTScan, territories: Territories) -> BorderParts:
    """Divide the lesions outside the arteries that an artery may reach; only the largest parts are kept (MAX_PARTS).

    Args:
        sites: `Site` of dense voxels, else 0, uint8 [k, j, i].
        scan: The scan as scored.
        territories: Territories of the scan.
    """
    flat = np.flatnonzero(sites >= min(NonCoronary))
    id_map = np.zeros(sites.shape, np.uint16)
    if not len(flat):
        return BorderParts(id_map, np.zeros(0, np.uint8))
    lesion = connected_voxels(flat, sites.reshape(-1)[flat], sites.shape)
    coronary = territories.at(flat, sites.shape)[:, 1 : 1 + len(MAIN_ARTERIES)]
    reach = np.zeros(lesion.max() + 1)
    np.maximum.at(reach, lesion, coronary.sum(axis=1))
    is_reached = reach[lesion] >= REACHED
    flat, lesion, coronary = flat[is_reached], lesion[is_reached], coronary[is_reached]
    part = _parts(flat, lesion, scan)
    sizes = np.bincount(part)
    numbers = np.flatnonzero(sizes * math.prod(scan.image.GetSpacing()) >= SLIVER_MM3)
    numbers = np.sort(numbers[np.argsort(-sizes[numbers], kind="stable")[:MAX_PARTS]])
    number_of_part = np.zeros(len(sizes), np.uint16)
    number_of_part[numbers] = np.arange(1, len(numbers) + 1)
    id_map.reshape(-1)[flat] = number_of_part[part]
    place = np.stack([np.bincount(part, weights=column) for column in coronary.T], axis=1)[numbers]
    arteries = np.array(MAIN_ARTERIES, np.uint8)[place.argmax(axis=1)]
    return BorderParts(id_map, arteries)


def _parts(flat: np.ndarray, lesion: np.ndarray, scan: CTScan) -> np.ndarray:
    """Number the parts of lesions that have a peak of their own, intp [n]; small lesions are not divided.

    Args:
        flat: Indices of the lesions' voxels, rising.
        lesion: Number of each voxel's lesion.
        scan: The scan.
    """
    basins = np.zeros(len(flat), np.int64)
    places = np.stack(np.unravel_index(flat, scan.hu.shape))
    voxel_mm3 = math.prod(scan.image.GetSpacing())
    for number in np.flatnonzero(np.bincount(lesion) * voxel_mm3 >= 2 * SLIVER_MM3).tolist():
        of_lesion = lesion == number
        voxels = places[:, of_lesion]
        first = voxels.min(axis=1) - 1
        local = tuple(voxels - first[:, None])
        hu = scan.hu.reshape(-1)[flat[of_lesion]].astype(np.float32)
        depth = np.full(voxels.max(axis=1) - first + 2, -hu.min(), np.float32)
        depth[local] = -hu
        watersheds = sitk.MorphologicalWatershed(sitk.GetImageFromArray(depth), PEAK_RISE_HU, False, True)
        basins[of_lesion] = voxels_of(watersheds)[local]
    return np.unique(np.stack([lesion, basins]), axis=1, return_inverse=True)[1].reshape(-1)
