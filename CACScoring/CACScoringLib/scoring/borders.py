"""Calcium at the border of an artery's territory.

Territories are exact to some millimetres, so calcium of the root or the mitral annulus may lie in the territory of an
artery, and be one lesion with the artery's. What is dense there is therefore divided into parts, each with a peak of
its own. The lesion network is shown each part and each whole lesion; a part in an artery's territory goes to the valve
or aorta that it or its whole lesion looks like, whichever is clearer. None goes to an artery, as the wall of the root
beside an ostium looks like the ostium's calcium.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..anatomy.territories import Territories
from ..core.ct import CTScan
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery, NonCoronary
from ..core.voxels import voxels_of
from ..models.cards import LoadedModel
from ..networks.configs import LESION_KINDS
from .lesion_network import lesion_kinds
from .lesions import connected_voxels
from .sites import SLIVER_MM3

REACHED = 0.01
"""Least probability, anywhere in a lesion, by which a territory may reach it."""

PEAK_RISE_HU = 50.0
"""Rise above the saddle to a higher peak by which a peak makes a part of its own; above the noise of most scans."""

CLEAR = 0.7
"""Probability by its looks from which a part or lesion is calcium of a valve or the aorta."""

MAX_PARTS = 100
"""Most parts shown to the network, the largest of a scan: two real scans have 12 and 22, a very noisy one 3318."""

ARTERY_KINDS = [LESION_KINDS.index(artery.key) for artery in MAIN_ARTERIES]
"""Indices of kinds that are calcium of an artery."""

SITE_OF_KIND = {
    "aortic valve and root": NonCoronary.AORTIC_VALVE,
    "mitral annulus": NonCoronary.MITRAL_ANNULUS,
    "aorta": NonCoronary.THORACIC_AORTA,
}
"""Site of calcium of each kind that is easily taken for calcium of an artery."""

SITE_KINDS = [LESION_KINDS.index(kind) for kind in SITE_OF_KIND]
"""Indices of these kinds."""

BORDERING = [TERRITORIES.index(name) for name in ("aortic valve and root", "mitral annulus", "ascending aorta")]
"""Territories of these sites that border on arteries."""


@dataclass(frozen=True)
class BorderParts:
    """Parts of lesions that both an artery and another site may reach.

    Attributes:
        id_map: Part's number from 1 at its voxels, else 0, uint16 [k, j, i].
        lesion_map: Lesion's number from 1 at the voxels of its parts, else 0, uint16 [k, j, i].
        lesions: Lesion of each part, int [n].
    """

    id_map: np.ndarray
    lesion_map: np.ndarray
    lesions: np.ndarray

    @property
    def ids(self) -> list[int]:
        """Numbers of the parts."""
        return list(range(1, len(self.lesions) + 1))


def sites_by_looks(sites: np.ndarray, scan: CTScan, territories: Territories, network: LoadedModel) -> np.ndarray:
    """Take from the arteries the parts of lesions that look like calcium of a valve or the aorta.

    Args:
        sites: `Site` of dense voxels, else 0, uint8 [k, j, i] (`sites.candidate_sites`).
        scan: The scan as scored.
        territories: Territories of the scan.
        network: Lesion network.

    Returns:
        The sites, uint8 [k, j, i].

    Raises:
        CTError: The device has too little memory.
    """
    parts = border_parts(sites, scan, territories)
    lesion_ids = list(range(1, max(parts.lesions, default=0) + 1))
    kinds = lesion_kinds(parts.id_map, parts.ids, scan, territories, network)
    kinds_of_lesions = lesion_kinds(parts.lesion_map, lesion_ids, scan, territories, network)
    kinds_of_wholes = kinds_of_lesions[parts.lesions - 1]
    kinds = np.where((_clarity(kinds) >= _clarity(kinds_of_wholes))[:, None], kinds, kinds_of_wholes)
    is_elsewhere = kinds[:, SITE_KINDS].sum(axis=1) >= CLEAR
    site_of_part = np.array(list(SITE_OF_KIND.values()), np.uint8)[kinds[:, SITE_KINDS].argmax(axis=1)]
    flat = np.flatnonzero(parts.id_map)
    part = parts.id_map.reshape(-1)[flat] - 1
    changes = is_elsewhere[part] & (sites.reshape(-1)[flat] <= max(Artery))
    result = sites.copy()
    result.reshape(-1)[flat[changes]] = site_of_part[part[changes]]
    return result


def _clarity(kinds: np.ndarray) -> np.ndarray:
    """Return the probability of being calcium of an artery, or else of a valve or the aorta, the larger one [n]."""
    return np.maximum(kinds[:, ARTERY_KINDS].sum(axis=1), kinds[:, SITE_KINDS].sum(axis=1))


def border_parts(sites: np.ndarray, scan: CTScan, territories: Territories) -> BorderParts:
    """Divide the lesions that both an artery and another site may reach; only the largest parts are kept (MAX_PARTS).

    Args:
        sites: `Site` of dense voxels, else 0, uint8 [k, j, i].
        scan: The scan as scored.
        territories: Territories of the scan.
    """
    flat = np.flatnonzero(sites)
    id_map, lesion_map = np.zeros((2, *sites.shape), np.uint16)
    if not len(flat):
        return BorderParts(id_map, lesion_map, np.zeros(0, int))
    lesion = connected_voxels(flat, np.zeros(len(flat), np.uint8), sites.shape)
    probability = territories.at(flat, sites.shape)
    coronary = probability[:, 1 : 1 + len(MAIN_ARTERIES)].sum(axis=1)
    elsewhere = np.where(sites.reshape(-1)[flat] <= max(Artery), probability[:, BORDERING].sum(axis=1), 1.0)
    reach = np.zeros((2, lesion.max() + 1))
    for highest, of_voxels in zip(reach, (coronary, elsewhere), strict=True):
        np.maximum.at(highest, lesion, of_voxels)
    is_border = np.all(reach >= REACHED, axis=0)[lesion]
    flat, lesion = flat[is_border], lesion[is_border]
    part = _parts(flat, lesion, scan)
    sizes = np.bincount(part)
    numbers = np.flatnonzero(sizes * math.prod(scan.image.GetSpacing()) >= SLIVER_MM3)
    numbers = np.sort(numbers[np.argsort(-sizes[numbers], kind="stable")[:MAX_PARTS]])
    number_of_part = np.zeros(len(sizes), np.uint16)
    number_of_part[numbers] = np.arange(1, len(numbers) + 1)
    id_map.reshape(-1)[flat] = number_of_part[part]
    lesion_of_part = np.zeros(len(sizes), int)
    lesion_of_part[part] = lesion
    lesions = np.unique(lesion_of_part[numbers], return_inverse=True)[1] + 1
    lesion_map.reshape(-1)[flat] = np.concatenate([[0], lesions])[number_of_part[part]]
    return BorderParts(id_map, lesion_map, lesions)


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
