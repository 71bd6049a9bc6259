"""A scored scan of one lesion, as a reader or nobody reviewed it."""

import numpy as np
from images import image_of

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.scoring.lesions import ScoringRules


def make_result(reviewed=True, no_calcium=False, **facts):
    """A 250 HU lesion of 16 mm² in two slices of the LAD. no_calcium: whether a reader says that it is none."""
    hu = np.random.default_rng(0).normal(40, 8, (10, 50, 50)).round()
    hu[:, 0], hu[0, 0, 0] = -1000, 1400
    hu[5:7, 20:24, 20:24] = 250
    image = image_of(hu.astype(np.int16), (1.0, 1.0, 3.0), (0.0, 0.0, -500.0))
    heart, labels = np.zeros((2, *hu.shape), np.uint8)
    heart[1:9, 8:42, 8:42] = 1
    labels[4:8, 18:26, 18:26] = 0 if no_calcium else Artery.LAD
    masks = [Grid.of(image).image(mask) for mask in (heart, labels)]
    scan = scan_from_image(image, Acquisition("NIfTI", kvp=120.0, **facts))
    settings = ScoreSettings(ScoringRules(calibration_mg_per_mm3_hu=0.001))
    return score_scan(scan, settings, masks[0], masks[1] if reviewed else None)
