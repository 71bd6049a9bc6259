"""Correlation and regression against the libraries on resamples drawn by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from CACTrainingLib.statistics import regression


def ones(n):
    return np.ones((1, n))


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_rank_correlation(self, resamples, sample):
        found = regression.rank_correlation(resamples[0], *sample.T)
        assert found == pytest.approx([stats.spearmanr(*sample[drawn].T)[0] for drawn in resamples[1]])

    def test_correlation_and_linear_fit(self, resamples, sample):
        wanted = [stats.linregress(*sample[drawn].T) for drawn in resamples[1]]
        assert regression.correlation(resamples[0], *sample.T) == pytest.approx([w.rvalue for w in wanted])
        slope, intercept = regression.linear_fit(resamples[0], *sample.T)
        assert slope == pytest.approx([w.slope for w in wanted])
        assert intercept == pytest.approx([w.intercept for w in wanted])

    def test_half_found(self, resamples):
        g = np.random.default_rng(3)
        sizes = g.lognormal(1, 1, 40)
        found = g.random(40) < 1 / (1 + np.exp(-2 * (np.log(sizes) - 1)))
        wanted = []
        for drawn in resamples[1]:
            model = LogisticRegression(C=1e6).fit(np.log(sizes[drawn, None]), found[drawn])
            wanted.append(math.exp(-model.intercept_[0] / model.coef_[0, 0]))
        assert regression.half_found(resamples[0], sizes, found) == pytest.approx(wanted, rel=0.01)


class TestDegenerate:
    def test_constant_scores_have_no_rank_correlation(self):
        assert np.isnan(regression.rank_correlation(ones(5), np.zeros(5), np.arange(5.0))).all()

    @pytest.mark.parametrize("found", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    def test_no_size_at_which_half_are_found(self, found):
        sizes = np.array([1.0, 2.0, 4.0, 8.0])
        assert np.isnan(regression.half_found(ones(4), sizes, np.array(found, bool))).all()

    def test_size_that_tells_all_apart(self):
        found = regression.half_found(ones(4), np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 0, 1, 1], bool))
        assert found == pytest.approx(math.sqrt(8), rel=1e-3)

    def test_nothing_at_all(self):
        nothing, empty = np.ones((1, 0)), np.zeros(0)
        for statistic in (regression.rank_correlation, regression.half_found):
            assert np.isnan(statistic(nothing, empty, empty)).all()


def test_calibration_of_probabilities_that_are_true_and_of_some_too_extreme():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 1.5, 4000)
    truth = generator.random(4000) < 1 / (1 + np.exp(-logits))
    slope, intercept = regression.calibration_fit(truth, 1 / (1 + np.exp(-logits)))
    assert slope.low < 1 < slope.high
    assert intercept.value == pytest.approx(0, abs=0.15)
    assert intercept.high - intercept.low < 0.2
    extreme, _ = regression.calibration_fit(truth, 1 / (1 + np.exp(-3 * logits)))
    assert extreme.value == pytest.approx(slope.value / 3, rel=1e-3)
    assert regression.calibration_fit(np.zeros(4, bool), np.full(4, 0.1)) is None
