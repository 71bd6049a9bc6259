"""Automatic scores: which candidates they count, and what their warnings state."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.candidates import find_dense_lesions
from CACScoringLib.scoring.rules import ScoringRules

RULES = ScoringRules()


@pytest.mark.parametrize(("peak_hu", "has_metal"), [(600.0, False), (3000.0, True)])
def test_metal_among_the_arteries_is_excluded(peak_hu, has_metal):
    hu = np.full((6, 40, 40), 40.0, np.float32)
    hu[2:4, 10:13, 10:13] = 600.0
    hu[2:4, 25:28, 25:28] = peak_hu
    image = sitk.GetImageFromArray(hu)
    heart = HeartRegion(image > 0, None, "given")
    dense = find_dense_lesions(image, image, heart, RULES)
    assert dense.has_coronary_metal == has_metal
    assert [len(part.lesions) for part in (dense.lesions, dense.candidates)] == [2, 2 - has_metal]
    assert [warning.code for warning in dense.warnings] == ["metal"] * has_metal


def test_non_coronary_lesions_are_found_beside_those_of_a_reader():
    """Without territories all candidates are unassigned, so none lies outside the arteries."""
    image = sitk.GetImageFromArray(np.full((4, 20, 20), 300.0, np.float32))
    heart = HeartRegion(image > 0, None, "given")
    reader_sites = np.zeros((4, 20, 20), np.uint8)
    reader_sites[:2] = Artery.LAD
    assert not find_dense_lesions(image, image, heart, RULES, reader_sites).lesions.lesions
    assert len(find_dense_lesions(image, image, heart, RULES).lesions.lesions) == 1
