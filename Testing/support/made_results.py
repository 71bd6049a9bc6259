"""A scored scan of one lesion, as a reader or nobody reviewed it."""

import numpy as np
from noisy_hearts import noisy_heart

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.scoring.lesions import ScoringRules


def make_result(reviewed=True, no_calcium=False, **facts):
    """A 250 HU lesion of 16 mm² in two slices of the LAD. no_calcium: whether a reader says that it is none."""
    scan, heart = noisy_heart((10, 50, 50), [(np.s_[5:7, 20:24, 20:24], 250)], **facts)
    labels = np.zeros(scan.hu.shape, np.uint8)
    labels[4:8, 18:26, 18:26] = 0 if no_calcium else Artery.LAD
    settings = ScoreSettings(ScoringRules(calibration_mg_per_mm3_hu=0.001))
    return score_scan(scan, settings, heart, Grid.of(heart).image(labels) if reviewed else None)
