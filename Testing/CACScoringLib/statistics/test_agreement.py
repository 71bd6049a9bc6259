"""Agreement and correlation of pairs against published examples, and against libraries on resamples drawn by hand."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.metrics import cohen_kappa_score

from CACScoringLib.statistics import agreement

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Six targets by four judges, Shrout and Fleiss 1979, table 2."""
ANXIETY = np.array(
    [list(rater) for rater in ("33345523522615221243", "36462424332333221334", "21443216111233113322")], float
).T
"""Twenty subjects by three raters: the example of R's irr::icc, whose manual prints the ICC(A,1) with its interval."""
MAMMOGRAMS = np.array([[21, 12, 0, 0], [4, 17, 1, 0], [3, 9, 15, 2], [0, 0, 0, 1]])
"""85 xeromammograms by two radiologists, four classes: Boyd 1982, in Altman 1991 and the manual of Stata's `kap`."""


def unit_weights(n):
    return np.ones((1, n))


class TestPublishedExamples:
    def test_icc(self):
        assert agreement.icc_of_pairs(unit_weights(6), SHROUT_FLEISS) == pytest.approx(0.29, abs=0.005)
        assert agreement.icc_of_pairs(unit_weights(20), ANXIETY) == pytest.approx(0.198, abs=5e-4)

    def test_interval_of_icc_for_absolute_agreement(self):
        assert agreement.agreement_interval(SHROUT_FLEISS) == pytest.approx((0.019, 0.761), abs=5e-4)
        assert agreement.agreement_interval(ANXIETY) == pytest.approx((-0.039, 0.494), abs=5e-4)

    def test_weighted_kappa_of_mammograms(self):
        first, second = np.repeat(np.indices((4, 4)).reshape(2, -1), MAMMOGRAMS.ravel(), axis=1)
        assert agreement.kappa(unit_weights(85), first, second, 4) == pytest.approx(0.5684, abs=5e-5)


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_agreement(self, resamples, sample):
        icc = agreement.icc_of_pairs(resamples[0], sample)
        assert icc == pytest.approx(
            [agreement.icc_of_pairs(unit_weights(40), sample[drawn])[0] for drawn in resamples[1]]
        )

    @pytest.mark.parametrize(("power", "name"), [(1, "linear"), (2, "quadratic")])
    def test_kappa(self, resamples, sample, power, name):
        classes = np.digitize(sample, (1, 4, 10))
        kappa = agreement.kappa(resamples[0], *classes.T, 4, power)
        expected = [cohen_kappa_score(*classes[drawn].T, weights=name) for drawn in resamples[1]]
        assert kappa == pytest.approx(expected)

    def test_rank_correlation(self, resamples, sample):
        correlation = agreement.rank_correlation(resamples[0], *sample.T)
        assert correlation == pytest.approx([stats.spearmanr(*sample[drawn].T)[0] for drawn in resamples[1]])

    def test_correlation_and_linear_fit(self, resamples, sample):
        expected = [stats.linregress(*sample[drawn].T) for drawn in resamples[1]]
        assert agreement.correlation(resamples[0], *sample.T) == pytest.approx([w.rvalue for w in expected])
        slope, intercept = agreement.linear_fit(resamples[0], *sample.T)
        assert slope == pytest.approx([w.slope for w in expected])
        assert intercept == pytest.approx([w.intercept for w in expected])


class TestBlandAltman:
    def test_limits_hold_95_percent_of_normal_differences(self):
        g = np.random.default_rng(8)
        level = g.lognormal(3, 1, 4000)
        change = g.normal(0, 1 + 0.2 * level)
        pair = level - change / 2, level + change / 2
        intercept, slope = agreement.absolute_difference_fit(unit_weights(4000), *pair)
        within = np.abs(change) <= agreement.LIMIT_FACTOR * (intercept + slope * level)
        assert within.mean() == pytest.approx(0.95, abs=0.01)

    @pytest.mark.parametrize(("level", "size"), [((1, 2, 3, 9), (0, 1, 3, 9)), ((1, 2, 3, 4), (4, 3, 3, 1))])
    def test_limits_are_never_below_zero(self, level, size):
        """The fit equals SciPy's non-negative least squares."""
        level, size = np.array(level, float), np.array(size, float)
        pair = level - size / 2, level + size / 2
        expected = optimize.nnls(np.stack([np.ones(4), level], axis=1), size)[0]
        fit = np.array(agreement.absolute_difference_fit(unit_weights(4), *pair))[:, 0]
        assert 0 in fit
        assert fit == pytest.approx(expected)

    def test_a_factor_of_the_pairs_own_holds_95_percent_unlike_the_normal_factor(self):
        g = np.random.default_rng(9)
        change = g.standard_t(2, 400)
        pair = 50 - change / 2, 50 + change / 2
        normal, widened = (agreement.limits_of_agreement(*pair, empirical) for empirical in (False, True))
        assert normal.factor == agreement.LIMIT_FACTOR
        assert widened.factor > normal.factor
        assert (widened.pairs, widened.highest) == (400, pytest.approx(50))
        coverage = [np.mean(np.abs(change) <= limits.at(np.mean(pair, 0))) for limits in (normal, widened)]
        assert coverage[0] < 0.95 <= coverage[1] < 0.955


def test_relative_differences():
    pair = np.array([10.0, 0, 0, 4]), np.array([30.0, 5, 0, 4])
    assert agreement.relative_differences(*pair) == pytest.approx([1, 2, np.nan, 0], nan_ok=True)


def test_equal_scores_have_no_agreement_by_chance():
    equal, zero = np.repeat(np.arange(6.0)[:, None], 2, axis=1), np.zeros(5, int)
    assert agreement.icc_of_pairs(unit_weights(6), equal) == pytest.approx(1)
    undefined = [
        agreement.icc_of_pairs(unit_weights(6), np.zeros((6, 2))),
        agreement.agreement_interval(equal),
        agreement.rank_correlation(np.ones((1, 5)), zero, np.arange(5.0)),
        agreement.kappa(unit_weights(5), zero, zero, 4),
    ]
    assert all(np.isnan(values).all() for values in undefined)


def test_agreement_of_a_resample_without_any_score():
    pairs = np.array([[0.1, 0.1]] * 3 + [[70.3, 61.7]])
    icc = agreement.icc_of_pairs(np.array([[1.0, 1, 1, 1], [2, 1, 1, 0]]), pairs)
    assert icc[0] > 0.9
    assert math.isnan(icc[1])
