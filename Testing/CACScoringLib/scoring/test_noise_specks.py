"""Noise makes as many specks in the arteries as far from them."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from known_territories import territories_of

from CACScoringLib.core.labels import TERRITORIES, Artery, NonCoronary
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.noise_specks import MIN_EXPECTED, NoiseSpecks

SHAPE, ARTERY_COLUMNS = (6, 40, 40), 8
MUSCLE, ANNULUS = TERRITORIES.index("other"), TERRITORIES.index("mitral annulus")


def specks_of(*boxes):
    """Find specks and candidates of (row, column, width, HU) in an artery, muscle and, last, an annulus."""
    hu = np.zeros(SHAPE, np.float32)
    for row, column, width, value in boxes:
        hu[2, row, column : column + width] = value
    names = np.full(SHAPE, MUSCLE, np.uint8)
    names[:, :, :ARTERY_COLUMNS] = Artery.LAD
    names[:, :, -4:] = ANNULUS
    image = sitk.GetImageFromArray(hu)
    sites = np.where(names == Artery.LAD, np.uint8(Artery.LAD), np.uint8(NonCoronary.OTHER))
    lesions = find_lesions(image, np.where(hu > 0, sites, 0), ScoringRules(minimum_area_mm2=0))
    return NoiseSpecks.of(lesions, territories_of(image, names)), lesions.coronary


def test_specks_far_from_arteries_are_expected_in_proportion_to_the_volume():
    """Muscle has 28 columns and 7 specks, so two are expected in the 8 columns of the artery."""
    specks, candidates = specks_of((0, 2, 2, 200), *((4 + 4 * n, 20, 2, 200) for n in range(7)))
    assert specks.rarity(candidates) == pytest.approx([-math.log(7 * 8 / 28)])


@pytest.mark.parametrize(
    "speck", [(4, 20, 1, 200), (4, 20, 2, 180), (4, 37, 2, 200)], ids=["smaller", "fainter", "near a valve"]
)
def test_other_specks_explain_no_candidate(speck):
    specks, candidates = specks_of((0, 2, 2, 200), speck)
    assert specks.rarity(candidates) == pytest.approx([-math.log(MIN_EXPECTED)])


def test_a_scan_without_specks_or_candidates_has_no_rarities():
    specks, candidates = specks_of((4, 20, 2, 200))
    assert len(specks.rarity(candidates)) == 0
    assert len(specks_of()[0].voxels) == 0
