"""Lesions of the clinical rule that complete the map, and the evidence of the map's lesions where nothing is dense."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from map_lesions import found_in, two_lesions

from CACScoringLib.calcium_map.decomposition import Decomposition, DecompositionSettings
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.record.scores import Verdict
from CACScoringLib.scoring.sites import (
    INTERCEPT,
    MAP_FEATURES,
    MAX_LOG_EXCESS,
    complete_map,
    coronary_probabilities,
    map_features,
)


def by_place(*not_coronary):
    return [Verdict(artery=Artery.LAD, confidence=0.9, not_coronary_probability=p) for p in not_coronary]


@pytest.mark.parametrize(
    ("map_hu", "by_reader", "added", "missed"),
    [
        (0, {}, [0, 1, 2], 2),  # one lesion in both slices, another in slice 1
        (0, {0: False, 1: True}, [1, 2], 2),
        (140, {}, [0, 1, 2], 2),
        (200, {}, [0, 1, 2], 0),  # more than half of each
        (400, {}, [], 0),
    ],
)
def test_the_map_shows_all_that_counts_by_the_clinical_rule(map_hu, by_reader, added, missed):
    hu = np.full((2, 8, 12), 40.0, np.float32)
    pieces = [(0, slice(2, 5), slice(1, 4)), (1, slice(2, 5), slice(1, 4)), (1, slice(2, 4), slice(6, 9))]
    for piece in pieces:
        hu[piece] = 345.0
    lesions = found_in(np.where(hu >= 130, hu, 0), hu)
    in_map = np.where(hu >= 130, np.float32(map_hu), 0)
    image = sitk.GetImageFromArray(hu)
    parts = Decomposition(in_map, Grid.of(image), np.ones(2, bool), DecompositionSettings())
    completed, count = complete_map(parts, CTScan(image, Acquisition(file_format="NIfTI")), lesions, by_reader)
    expected = in_map.copy()
    for n in added:
        expected[pieces[n]] = 300.0
    np.testing.assert_array_equal(completed.hu, expected)
    assert count == missed


def test_features_of_the_map_by_hand():
    _, lesions = two_lesions()
    verdicts = by_place(0.2, 0.5)
    probabilities = np.array([np.nan, 0.1, 0.8, 0.5], np.float32)
    # blood and noise reach 105 HU
    by_name = map_features(lesions, verdicts, probabilities, 20.0)
    assert tuple(by_name) == MAP_FEATURES
    large = int(np.argmax([lesion.voxels for lesion in lesions.lesions]))
    assert by_name["log_ct_excess"][large] == pytest.approx(math.log1p(135 - 105))
    assert by_name["slice_logit"][large] == pytest.approx(math.log(0.8 / 0.2), rel=1e-4)  # the likeliest of two slices
    assert by_name["place_logit"] == pytest.approx([math.log(0.8 / 0.2), 0], abs=1e-9)
    assert by_name["slice_logit"][1 - large] == pytest.approx(0, abs=1e-6)


def test_a_high_peak_is_no_more_evidence_than_the_bound():
    calcium, _ = two_lesions()
    metal = found_in(calcium, 40 * calcium)
    features = map_features(metal, by_place(*[0.2] * len(metal.lesions)), np.full(4, np.nan), 20.0)
    assert features["log_ct_excess"] == pytest.approx(MAX_LOG_EXCESS)


def test_certain_and_unknown_values_stay_finite():
    calcium, lesions = two_lesions()
    certain = by_place(0.0, 1.0)
    features = map_features(lesions, certain, np.full(4, np.nan), None)
    assert features["place_logit"] == pytest.approx(math.log(999) * np.array([1, -1]))
    assert features["slice_logit"] == pytest.approx(math.log(999) * np.array([-1, -1]))
    usual = map_features(lesions, certain, np.full(4, np.nan), 15.0)
    np.testing.assert_equal(features, usual)
    nothing = found_in(0 * calcium, calcium)
    assert all(len(x) == 0 for x in map_features(nothing, [], np.ones(4), 9.0).values())


def test_a_feature_without_a_weight_has_no_say():
    features = {name: np.array([0.0, 2.0]) for name in MAP_FEATURES}
    probabilities = coronary_probabilities(features, {"place_logit": 1.0, INTERCEPT: -1.0})
    assert probabilities == pytest.approx(1 / (1 + np.exp([1.0, -1.0])))


def test_weights_of_other_features_are_refused():
    features = dict.fromkeys(MAP_FEATURES, np.zeros(1))
    with pytest.raises(CTError, match=r"evidence weights .*colour.* Calibrate"):
        coronary_probabilities(features, {"colour": 1.0, INTERCEPT: 0.0})


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ((0, 0, 0), 0.2),
        ((0, 2, 0), 0.8),
        ((1, 1, -1), 0.5),
    ],
)
def test_probabilities_by_hand(features, expected):
    """Odds of one to four, and four times as much for each unit of a feature."""
    weights = {**dict.fromkeys(MAP_FEATURES, math.log(4)), INTERCEPT: -math.log(4)}
    columns = {name: np.array([value], float) for name, value in zip(MAP_FEATURES, features, strict=True)}
    assert coronary_probabilities(columns, weights) == pytest.approx([expected])
