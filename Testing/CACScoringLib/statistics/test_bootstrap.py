"""The bootstrap over patients: intervals, p, and paired differences, against SciPy and by their meaning."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from CACScoringLib.statistics import bootstrap
from CACScoringLib.statistics.bootstrap import Bootstrap, estimate
from CACScoringLib.statistics.patient_folds import parts_by_patient


class TestPublishedExamples:
    def test_rule_of_three(self):
        """None of ten: the exact upper limit is 1 − 0.025^(1/10)."""
        proportion = Bootstrap(range(10), np.random.default_rng(0)).proportion(range(10), np.zeros(10, bool)).estimate
        assert (proportion.value, proportion.low) == (0, 0)
        assert proportion.high == pytest.approx(1 - 0.025**0.1)


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_ratio_as_f1(self, resamples, sample):
        truth, predicted = (sample > 2).T
        expected = [f1_score(truth[drawn], predicted[drawn]) for drawn in resamples[1]]
        assert bootstrap.ratio(resamples[0], 2 * (truth & predicted), 1 * truth + predicted) == pytest.approx(expected)

    def test_patients_with_two_scans_are_drawn_whole(self):
        weights = Bootstrap(["a", "a", "b"], np.random.default_rng(0)).result(np.array, ["b", "a", "a"]).values
        assert (weights[0] == 1).all()
        assert (weights[:, 1] == weights[:, 2]).all()
        assert (weights[:, :2].sum(1) == 2).all()
        assert set(weights[1:, 0]) == {0, 1, 2}


class TestIntervals:
    def test_of_a_mean_are_scipys(self, monkeypatch):
        monkeypatch.setattr(bootstrap, "RESAMPLES", 20000)
        values = np.random.default_rng(4).lognormal(0, 1, 60)
        mean = bootstrap.patient_mean(list(enumerate(values)))
        expected = stats.bootstrap(
            (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert mean.value == pytest.approx(values.mean())
        assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high), rel=0.02)

    def test_none_from_few_patients(self):
        result = estimate(np.arange(100.0), 8, bootstrap.MIN_PATIENTS - 1)
        assert (result.value, result.n) == (0, 8)
        assert math.isnan(result.low)
        assert math.isnan(result.high)


class TestDifferences:
    def test_p_agrees_with_the_interval(self):
        """p falls below 0.05 where the interval leaves zero, on whichever side."""
        drawn = np.random.default_rng(0).normal(size=2000)
        outcomes = []
        for shift in np.linspace(-3, 3, 61):
            values = np.array([shift, *(drawn + shift)])
            difference = estimate(values, 50, 50)
            excludes_zero = difference.low > 0 or difference.high < 0
            below = np.mean(values[1:] <= 0)
            assert bootstrap.p_value(values) == pytest.approx(min(1, 2 * min(below, 1 - below)), abs=0.002)
            if min(abs(difference.low), abs(difference.high)) > 0.01:
                assert (bootstrap.p_value(values) < 0.05) == excludes_zero
                outcomes.append(excludes_zero)
        assert len(outcomes) >= 60, "all but those at a limit"
        assert min(outcomes.count(True), outcomes.count(False)) > 10


PATIENTS = np.repeat(np.arange(30), 2)
CATEGORY = np.repeat(np.arange(30) % 3, 2)


def test_nobody_is_in_two_parts_and_each_has_its_share_of_every_category():
    part = parts_by_patient(PATIENTS, CATEGORY, 5, seed=1)
    assert (part[::2] == part[1::2]).all()
    counts = [np.bincount(CATEGORY[part == number], minlength=3).tolist() for number in range(5)]
    assert counts == [[4, 4, 4]] * 5
