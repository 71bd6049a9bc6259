"""To which artery, valve or vessel calcium belongs, by the territories of the scan.

What calcium at a place belongs to follows by Bayes' rule: an artery's territory is far likelier to hold calcium than as
much muscle. A lesion that spans arteries, or an artery and the aortic annulus, is split between them voxel by voxel.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from scipy.spatial import cKDTree

from ..anatomy.arteries import ArterySuggestion
from ..anatomy.territories import Territories
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery, NonCoronary, Site
from .lesions import LesionSet, connected_voxels

SITE_OF: dict[str, Site] = {
    **{artery.key: artery for artery in MAIN_ARTERIES},
    "aortic valve and root": NonCoronary.AORTIC_VALVE,
    "mitral annulus": NonCoronary.MITRAL_ANNULUS,
    "ascending aorta": NonCoronary.THORACIC_AORTA,
    "descending aorta": NonCoronary.THORACIC_AORTA,
    "pulmonary artery": NonCoronary.OTHER,
    "other": NonCoronary.OTHER,
    "outside": NonCoronary.OTHER,
}
"""Where calcium lies by the territory it lies in."""

CALCIUM_RATES = {"pulmonary artery": 0.1, "other": 0.1, "outside": 0.1}
"""How likely calcium is at a place of a territory, against a place of an artery, a valve or the aorta."""

SLIVER_MM3 = 6.0
"""A smaller piece of a lesion is not split off it: territories are no more exact than some mm."""

_LEAST_PROBABILITY = 1e-3
_RATES = np.array([CALCIUM_RATES.get(name, 1.0) for name in TERRITORIES], np.float32)


def sites_at(territories: Territories, inside: np.ndarray, image: sitk.Image) -> np.ndarray:
    """The site that calcium would belong to, uint8 [k, j, i] (`Site`), where a mask is true and a territory or heart
    was found; 0 elsewhere.

    inside: bool [k, j, i], on the image's grid: where calcium is looked for. Touching voxels of one site that fill
    less than SLIVER_MM3 go to the site that touches them.
    """
    flat = np.flatnonzero(inside)
    probability = territories.at(flat, inside.shape)
    near = probability[:, 0] < 0.5
    flat, probability = flat[near], probability[near]
    values = np.array([SITE_OF[name] for name in TERRITORIES], np.uint8)[(probability * _RATES).argmax(1)]
    sites = np.zeros(inside.shape, np.uint8)
    sites.reshape(-1)[flat] = _without_slivers(flat, values, image)
    return sites


def suggestions_by_territory(found: LesionSet, territories: Territories) -> list[ArterySuggestion]:
    """A suggestion for each lesion, in the lesions' order, from the territories of all its voxels.

    A lesion's site, where it is an artery, is that artery: it was found there.
    """
    flat = np.flatnonzero(found.id_map)
    ids = found.id_map.reshape(-1)[flat]
    weighted = territories.at(flat, found.id_map.shape) * _RATES
    weighted /= weighted.sum(1, keepdims=True)
    sizes = np.maximum(np.bincount(ids), 1)
    means = np.stack([np.bincount(ids, weights=column) for column in weighted.T], axis=1) / sizes[:, None]
    result = []
    for lesion in found.lesions:
        own = means[lesion.id]
        coronary = own[1:5]
        best = lesion.artery if lesion.artery in MAIN_ARTERIES else MAIN_ARTERIES[int(coronary.argmax())]
        total = float(coronary.sum())
        confidence = float(coronary[best - Artery.LM]) / max(total, _LEAST_PROBABILITY)
        result.append(ArterySuggestion(lesion.id, Artery(best), confidence, 1 - total))
    return result


def _without_slivers(flat: np.ndarray, values: np.ndarray, image: sitk.Image) -> np.ndarray:
    """Labels of voxels with those of small pieces replaced by what touches them."""
    if not len(flat):
        return values
    shape = image.GetSize()[::-1]
    piece = connected_voxels(flat, values, shape)
    small = (np.bincount(piece) * math.prod(image.GetSpacing()) < SLIVER_MM3)[piece]
    if not small.any() or small.all():
        return values
    places = np.stack(np.unravel_index(flat, shape), axis=1).astype(float)
    # Of the 26 neighbours the farthest is √3 away, in voxels.
    distance, nearest = cKDTree(places[~small]).query(places[small], distance_upper_bound=1.8)
    touched = np.isfinite(distance)
    result = values.copy()
    result[np.flatnonzero(small)[touched]] = values[~small][nearest[touched]]
    return result
