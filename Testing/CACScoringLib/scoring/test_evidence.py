"""What is known of a lesion of the calcium map, and how it is weighed."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.anatomy.arteries import ArterySuggestion
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.evidence import FEATURES, INTERCEPT, coronary_probabilities, lesion_features
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions


def found_in(calcium, ct):
    images = [sitk.GetImageFromArray(np.asarray(values, np.float32)) for values in (calcium, ct)]
    arteries = np.full(calcium.shape, int(Artery.LAD), np.uint8)
    return find_lesions(images[0], arteries, ScoringRules(threshold_hu=10.0), peaks=images[1])


@pytest.fixture
def two_lesions():
    calcium = np.zeros((4, 12, 12), np.float32)
    calcium[1:3, 2:4, 2:4] = 50
    calcium[2, 2, 2] = 90
    calcium[3, 9, 8:10] = 20
    return calcium, found_in(calcium, calcium + 45)


def test_features_are_what_they_say(two_lesions):
    calcium, found = two_lesions
    suggestions = [ArterySuggestion(x.id, Artery.LAD, 0.9, p) for x, p in zip(found.lesions, (0.2, 0.5), strict=True)]
    probabilities = np.array([np.nan, 0.1, 0.8, 0.5], np.float32)
    features = lesion_features(found, calcium, 2.0, probabilities, suggestions, 20.0)  # blood and noise reach 105 HU
    by_name = dict(zip(FEATURES, features.T, strict=True))
    large = int(np.argmax(by_name["log_mass"]))
    assert found.lesions[large].voxels == 8
    assert by_name["log_mass"][large] == pytest.approx(math.log1p((7 * 50 + 90) * 2))
    assert by_name["log_map_excess"][large] == pytest.approx(math.log1p(90 - 1.5 * 20))
    assert by_name["log_ct_excess"][large] == pytest.approx(math.log1p(135 - 105))
    assert by_name["slice_logit"][large] == pytest.approx(math.log(0.8 / 0.2), rel=1e-4)  # the likeliest of two slices
    assert by_name["place_logit"][large] == pytest.approx(math.log(0.8 / 0.2) if large == 0 else 0, abs=1e-9)
    assert by_name["slice_logit"][1 - large] == pytest.approx(0, abs=1e-6)


def test_what_noise_alone_reaches_is_no_excess(two_lesions):
    calcium, found = two_lesions
    suggestions = [ArterySuggestion(x.id, Artery.LAD, 0.9, 0.2) for x in found.lesions]
    features = lesion_features(found, calcium, 2.0, np.ones(4), suggestions, 40.0)
    assert not features[:, FEATURES.index("log_ct_excess")].any()


def test_certain_and_unknown_values_stay_finite(two_lesions):
    calcium, found = two_lesions
    certain = [ArterySuggestion(x.id, Artery.LAD, 1.0, p) for x, p in zip(found.lesions, (0.0, 1.0), strict=True)]
    features = lesion_features(found, calcium, 1.0, np.full(4, np.nan), certain, None)
    assert np.isfinite(features).all()
    nothing = found_in(0 * calcium, calcium)
    assert lesion_features(nothing, calcium, 1.0, np.ones(4), [], 9.0).shape == (0, len(FEATURES))


def test_probabilities_follow_the_weights():
    features = np.zeros((2, len(FEATURES)))
    features[1, FEATURES.index("log_mass")] = 3
    weights = {**dict.fromkeys(FEATURES, 0.0), "log_mass": 2.0, INTERCEPT: -1.0}
    np.testing.assert_allclose(coronary_probabilities(features, weights), 1 / (1 + np.exp([1.0, -5.0])))


def test_weights_of_other_features_are_refused():
    with pytest.raises(CTError, match=r"evidence weights .*colour.* Calibrate"):
        coronary_probabilities(np.zeros((1, len(FEATURES))), {"colour": 1.0, INTERCEPT: 0.0})
