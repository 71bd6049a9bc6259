"""Correlation and regression against the libraries on resamples drawn by hand."""

import numpy as np
import pytest
from scipy import stats

from CACTrainingLib.statistics import regression


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_rank_correlation(self, resamples, sample):
        correlation = regression.rank_correlation(resamples[0], *sample.T)
        assert correlation == pytest.approx([stats.spearmanr(*sample[drawn].T)[0] for drawn in resamples[1]])

    def test_correlation_and_linear_fit(self, resamples, sample):
        expected = [stats.linregress(*sample[drawn].T) for drawn in resamples[1]]
        assert regression.correlation(resamples[0], *sample.T) == pytest.approx([w.rvalue for w in expected])
        slope, intercept = regression.linear_fit(resamples[0], *sample.T)
        assert slope == pytest.approx([w.slope for w in expected])
        assert intercept == pytest.approx([w.intercept for w in expected])


class TestDegenerate:
    def test_constant_scores_have_no_rank_correlation(self):
        assert np.isnan(regression.rank_correlation(np.ones((1, 5)), np.zeros(5), np.arange(5.0))).all()
