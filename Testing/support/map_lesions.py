"""Lesions of small calcium maps whose answer is known."""

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions


def found_in(calcium, ct):
    """Find the lesions of the LAD in a map, with peaks of a CT, arrays [k, j, i]."""
    image = sitk.GetImageFromArray(np.asarray(ct, np.float32))
    arteries = np.full(calcium.shape, int(Artery.LAD), np.uint8)
    return find_lesions(image, arteries, ScoringRules(threshold_hu=10.0), np.asarray(calcium, np.float32))


def two_lesions():
    """Return a map with a large and a small lesion, float32 [k, j, i], and its lesions."""
    calcium = np.zeros((4, 12, 12), np.float32)
    calcium[1:3, 2:4, 2:4] = 50
    calcium[2, 2, 2] = 90
    calcium[3, 9, 8:10] = 20
    return calcium, found_in(calcium, calcium + 45)
