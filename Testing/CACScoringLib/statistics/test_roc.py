"""Areas under the ROC curve against a published worked example and scikit-learn."""

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from CACScoringLib.statistics import roc

CT_NORMAL, CT_ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
"""Ratings 1 to 5 of 109 CTs, Hanley and McNeil 1982, table I."""


class TestPublishedExamples:
    def test_area_under_the_curve_of_hanley_and_mcneil(self):
        ratings = np.repeat(np.tile(np.arange(1, 6), 2), CT_NORMAL + CT_ABNORMAL)
        abnormal = np.repeat([False, True], [58, 51])
        assert roc.area_under_curve(np.ones((1, 109)), abnormal, ratings) == pytest.approx(0.893, abs=5e-4)

    @pytest.mark.parametrize(("patients", "difference"), [(182, 0.10), (667, 0.052), (10_230, 0.013)])
    def test_least_difference_of_the_papers_patients(self, patients, difference):
        """Half of them have calcium."""
        assert float(f"{roc.least_difference(patients // 2, patients - patients // 2):.2g}") == difference
        assert np.isnan(roc.least_difference(patients, 0))

    def test_least_difference_is_that_of_simulated_patients(self):
        """Two models share half of their noise; four in five studies of this difference reach 5 %."""
        generator, n = np.random.default_rng(0), 150
        truth = np.arange(2 * n) >= n
        difference = roc.least_difference(n, n)
        distances = [np.sqrt(2) * special.ndtri(roc.AREA + part * difference) for part in (0.5, -0.5)]
        noise = generator.normal(size=(3, 1000, 2 * n))
        models = [np.sqrt(0.5) * (noise[0] + noise[1 + m]) + distance * truth for m, distance in enumerate(distances)]
        first, second = (np.array([roc.area(row, truth) for row in model]) for model in models)
        is_significant = (first - second) / (first - second).std() > 1.96
        assert is_significant.mean() == pytest.approx(0.8, abs=0.05)


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_area_under_curve(self, resamples, sample):
        truth = sample[:, 0] > 3
        expected = [roc_auc_score(truth[drawn], sample[drawn, 1]) for drawn in resamples[1]]
        assert roc.area_under_curve(resamples[0], truth, sample[:, 1]) == pytest.approx(expected)
