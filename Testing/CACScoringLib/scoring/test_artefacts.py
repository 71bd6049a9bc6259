"""Warnings of candidates that noise explains, and of lesions as dense as metal."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import score_scan
from CACScoringLib.quality.acquisition import BloodPool
from CACScoringLib.scoring.artefacts import NOISE_CANDIDATES, POSSIBLE_METAL_HU, dense_warning, noise_warnings
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

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


@pytest.mark.parametrize(
    "groups",
    [
        [(NOISE_CANDIDATES, 150)],  # few
        [(30, 150), (30, 400)],  # not most
        [(60, 191)],  # denser than noise
    ],
)
def test_what_noise_does_not_explain(groups):
    assert not list(noise_warnings(lesions_of(*groups), lesions_of(), BLOOD))


def test_nothing_is_said_without_a_measure():
    lesions = lesions_of((50, 150))
    assert list(noise_warnings(lesions, lesions_of(), BLOOD))
    assert not list(noise_warnings(lesions, lesions_of(), None))
    assert not list(noise_warnings(lesions, lesions_of(), replace(BLOOD, bright_hu=300.0)))


def test_lesions_denser_than_calcium_are_doubted():
    assert dense_warning(lesions_of((1, 500), (1, POSSIBLE_METAL_HU))) == []
    [warning] = dense_warning(lesions_of((1, 500), (1, POSSIBLE_METAL_HU + 1), (1, 1746)))
    assert (warning.code, warning.severe) == ("possible-metal", True)
    assert warning.message.startswith("2 of 3 counted lesions")


def noisy(sd):
    """A scan of blood with noise, and its heart."""
    hu = np.random.default_rng(0).normal(40, sd, (20, 80, 80)).round()
    hu[:, 0], hu[0, 0, 0] = -1000, 1400
    image = image_of(hu.astype(np.int16))
    heart = np.zeros(hu.shape, np.uint8)
    heart[1:19, 8:72, 8:72] = 1
    mask = Grid.of(image).image(heart)
    return scan_from_image(image, Acquisition("NIfTI", kvp=120.0)), mask


def test_a_noisy_scan_is_told_and_its_scores_stay():
    scan, heart = noisy(45)
    result = score_scan(scan, heart=heart)
    assert "noise-candidates" in [w.code for w in result.warnings if w.severe]
    assert result.methods["threshold"].total.lesions > 500
    assert result.methods["threshold"].total.agatston > 500
    labels = sitk.Cast(heart, sitk.sitkUInt8) * int(Artery.LAD)
    assert "noise-candidates" not in [w.code for w in score_scan(scan, heart=heart, lesions=labels).warnings]
    quiet, heart = noisy(20)
    assert "noise-candidates" not in [w.code for w in score_scan(quiet, heart=heart).warnings]


def test_noise_outside_the_arteries_is_told_apart_from_that_of_candidates():
    none, noise = lesions_of(), lesions_of((25, 170))
    (warning,) = noise_warnings(none, noise, BLOOD)
    assert (warning.code, warning.severe) == ("noise-elsewhere", False)
    assert not list(noise_warnings(none, lesions_of((25, 170), (30, 400)), BLOOD))


@pytest.mark.parametrize(
    ("groups", "warned"),
    [
        ([(21, 190)], True),  # five standard deviations above blood
        ([(21, 191)], False),
        ([(20, 190)], False),
        ([(21, 150), (21, 400)], False),  # half
        ([(22, 150), (21, 400)], True),
    ],
)
def test_limits_of_what_noise_explains(groups, warned):
    assert bool(list(noise_warnings(lesions_of(*groups), lesions_of(), BLOOD))) == warned
