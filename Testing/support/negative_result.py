"""An automatic score of 0 that leaves out three candidates."""

from dataclasses import replace

import numpy as np
from made_results import make_result

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.record.scores import Verdict
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import method_score

HU = {(4, 12, 12): 210, (5, 20, 30): 450, (6, 30, 20): 310}
"""Candidates of 4 mm² in one slice, by their first voxel: 8, 16 and 12 Agatston units."""


def make_negative(probabilities):
    """An automatic score of 0 that leaves out the candidates of HU, each with a probability of being calcium."""
    result = make_result(reviewed=False)
    values = result.scan.hu.copy()
    values[5:7, 20:24, 20:24] = 40
    for (k, j, i), hu in HU.items():
        values[k, j : j + 2, i : i + 2] = hu
    image = Grid.of(result.scan.image).image(values.astype(np.int16))
    scan, rules, sites = replace(result.scan, image=image), result.methods["threshold"].rules, np.zeros(values.shape)
    sites[4:7, 10:35, 10:35] = Artery.LAD
    lesions = find_lesions(image, sites.astype(np.uint8), rules).coronary
    chances = dict(zip(sorted(HU.values()), probabilities, strict=True))

    def verdict(peak_hu):
        about = {"artery": Artery.LAD, "confidence": 0.9, "not_coronary_probability": 1 - chances[peak_hu]}
        return Verdict(**about, counts=False, reason=f"because of {peak_hu:.0f} HU")

    left_out = lesions.with_columns(verdict=list(map(verdict, lesions.columns["peak_hu"])))
    method = method_score("automatic", rules, left_out)
    return replace(result.stating(methods={"threshold": method}, categories=None), scan=scan)
