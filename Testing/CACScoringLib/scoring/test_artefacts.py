"""Warnings of candidates that noise explains, and of lesions as dense as metal."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from noisy_hearts import noisy_heart

from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.findings import BloodPool
from CACScoringLib.scoring.doubt import METAL_HU, NOISE_CANDIDATES, POSSIBLE_METAL_HU, dense_warning, noise_warnings
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import method_score, non_coronary_score

BLOOD = BloodPool(median_hu=40.0, bright_hu=45.0, noise_hu=30.0, windows=50)
"""Blood whose noise reaches 190 HU."""


def lesions_of(*groups):
    """Return lesions of one voxel each. groups: (count, HU)."""
    peaks = [hu for count, hu in groups for _ in range(count)]
    values = np.full((1, 2, 2 * len(peaks)), 40, np.int16)
    values[0, 0, ::2] = peaks
    return find_lesions(
        sitk.GetImageFromArray(values), np.full(values.shape, Artery.UNASSIGNED, np.uint8), ScoringRules()
    )


def noise(blood, *groups, site=Artery.UNASSIGNED):
    """Return the warnings of candidates, or of lesions elsewhere. groups: As of `lesions_of`."""
    lesions = lesions_of(*groups)
    lesions = lesions.with_columns(site=[site] * len(lesions.ids))
    method = method_score("candidates", ScoringRules(), lesions, non_coronary=non_coronary_score(False, lesions))
    return list(noise_warnings(method, blood))


def test_no_noise_warning_without_a_measure():
    assert noise(BLOOD, (50, 150))
    for blood in (None, replace(BLOOD, bright_hu=300.0)):
        assert not noise(blood, (50, 150))


def test_lesions_denser_than_calcium_are_doubted():
    assert dense_warning(lesions_of((1, 500), (1, POSSIBLE_METAL_HU)).lesions) == []
    [warning] = dense_warning(lesions_of((1, 500), (1, POSSIBLE_METAL_HU + 1), (1, 1592)).lesions)
    assert (warning.code, warning.severe) == ("possible-metal", False)
    [warning] = dense_warning(lesions_of((1, 500), (1, POSSIBLE_METAL_HU + 1), (1, METAL_HU + 1)).lesions)
    assert warning.severe
    assert warning.message.startswith("2 of 3 counted lesions")


def test_noise_causes_a_warning_and_leaves_the_scores():
    scan, heart = noisy_heart((20, 80, 80), noise_hu=45)
    result = score_scan(scan, heart=heart)
    assert "noise-candidates" in [w.code for w in result.warnings if w.severe]
    total = result.methods["threshold"].total
    assert min(total.lesions, total.agatston) > 500
    assert total.mass_mg is None
    quiet, quiet_heart = noisy_heart((20, 80, 80), noise_hu=20)
    labels = sitk.Cast(heart, sitk.sitkUInt8) * int(Artery.LAD) * (scan.image >= 130)
    for unwarned in (score_scan(scan, heart=heart, lesions=labels), score_scan(quiet, heart=quiet_heart)):
        assert "noise-candidates" not in [w.code for w in unwarned.warnings]


def test_noise_outside_the_arteries_has_another_code():
    (warning,) = noise(BLOOD, (25, 170), site=NonCoronary.OTHER)
    assert (warning.code, warning.severe) == ("noise-elsewhere", False)
    assert not noise(BLOOD, (25, 170), (30, 400), site=NonCoronary.OTHER)


@pytest.mark.parametrize(
    ("groups", "warned"),
    [
        ([(NOISE_CANDIDATES + 1, 190)], True),  # five standard deviations above blood
        ([(NOISE_CANDIDATES + 1, 191)], False),
        ([(NOISE_CANDIDATES, 190)], False),
        ([(21, 150), (21, 400)], False),  # half
        ([(22, 150), (21, 400)], True),
    ],
)
def test_limits_of_noise_candidates(groups, warned):
    assert bool(noise(BLOOD, *groups)) == warned
