"""Statistics against published worked examples, and against the libraries on resamples drawn by hand."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from CACTrainingLib.statistics import measures
from CACTrainingLib.statistics.measures import Bootstrap, Estimate, estimate

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Six targets by four judges, Shrout and Fleiss 1979, table 2."""
MAMMOGRAMS = np.array([[21, 12, 0, 0], [4, 17, 1, 0], [3, 9, 15, 2], [0, 0, 0, 1]])
"""85 xeromammograms by two radiologists, four classes: Boyd 1982, in Altman 1991 and the manual of Stata's `kap`."""
CT_NORMAL, CT_ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
"""Ratings 1 to 5 of 109 CTs, Hanley and McNeil 1982, table I."""


def ones(n):
    return np.ones((1, n))


@pytest.fixture
def resamples():
    """Weights of 40 patients, and the same draws as lists of patients."""
    weights = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    return weights, [np.repeat(np.arange(40), row.astype(int)) for row in weights]


@pytest.fixture
def sample():
    """Two columns of skewed scores with ties and zeros, 40 patients."""
    g = np.random.default_rng(2)
    first = np.round(g.lognormal(1, 1.2, 40)) * (g.random(40) < 0.7)
    return np.stack([first, np.round(first * g.lognormal(0, 0.4, 40) + (g.random(40) < 0.2))], axis=1)


class TestPublishedExamples:
    def test_icc_of_shrout_and_fleiss(self):
        assert measures.agreement(ones(6), SHROUT_FLEISS) == pytest.approx(0.29, abs=0.005)
        found = measures.agreement_estimate(SHROUT_FLEISS)
        assert (found.value, found.low, found.high) == pytest.approx((0.2898, 0.02, 0.76), abs=0.005)
        assert found.n == 6

    def test_weighted_kappa_of_mammograms(self):
        first, second = np.repeat(np.indices((4, 4)).reshape(2, -1), MAMMOGRAMS.ravel(), axis=1)
        assert measures.kappa(ones(85), first, second, 4) == pytest.approx(0.5684, abs=5e-5)
        found = measures.kappa_estimate(first, second, 4)
        assert found.value == pytest.approx(0.5684, abs=5e-5)
        assert 0.40 < found.low < found.value < found.high < 0.73
        assert found.n == 85

    def test_area_under_the_curve_of_hanley_and_mcneil(self):
        ratings = np.repeat(np.tile(np.arange(1, 6), 2), CT_NORMAL + CT_ABNORMAL)
        abnormal = np.repeat([False, True], [58, 51])
        assert measures.area_under_curve(ones(109), abnormal, ratings) == pytest.approx(0.893, abs=5e-4)

    def test_rule_of_three(self):
        """None of ten: the exact upper limit is 1 − 0.025^(1/10)."""
        found = Bootstrap(range(10), np.random.default_rng(0)).share(range(10), np.zeros(10, bool))
        assert (found.value, found.low) == (0, 0)
        assert found.high == pytest.approx(1 - 0.025**0.1)


class TestWeightsAreRepeats:
    """Every statistic of weights equals the library's on the patients repeated as often."""

    def test_rank_correlation(self, resamples, sample):
        found = measures.rank_correlation(resamples[0], *sample.T)
        assert found == pytest.approx([stats.spearmanr(*sample[drawn].T)[0] for drawn in resamples[1]])

    def test_correlation_and_line(self, resamples, sample):
        wanted = [stats.linregress(*sample[drawn].T) for drawn in resamples[1]]
        assert measures.correlation(resamples[0], *sample.T) == pytest.approx([w.rvalue for w in wanted])
        slope, intercept = measures.line(resamples[0], *sample.T)
        assert slope == pytest.approx([w.slope for w in wanted])
        assert intercept == pytest.approx([w.intercept for w in wanted])

    def test_agreement(self, resamples, sample):
        found = measures.agreement(resamples[0], sample)
        assert found == pytest.approx([measures.agreement_estimate(sample[drawn]).value for drawn in resamples[1]])

    def test_kappa(self, resamples, sample):
        classes = np.digitize(sample, (1, 4, 10))
        found = measures.kappa(resamples[0], *classes.T, 4)
        wanted = [cohen_kappa_score(*classes[drawn].T, weights="linear") for drawn in resamples[1]]
        assert found == pytest.approx(wanted)
        assert found == pytest.approx([measures.kappa_estimate(*classes[drawn].T, 4).value for drawn in resamples[1]])

    def test_area_under_curve(self, resamples, sample, monkeypatch):
        truth = sample[:, 0] > 3
        wanted = [roc_auc_score(truth[drawn], sample[drawn, 1]) for drawn in resamples[1]]
        assert measures.area_under_curve(resamples[0], truth, sample[:, 1]) == pytest.approx(wanted)
        monkeypatch.setattr(measures, "_CHUNK", 50)  # one resample at a time
        assert measures.area_under_curve(resamples[0], truth, sample[:, 1]) == pytest.approx(wanted)

    def test_ratio_as_f1(self, resamples, sample):
        truth, found = (sample > 2).T
        wanted = [f1_score(truth[drawn], found[drawn]) for drawn in resamples[1]]
        assert measures.ratio(resamples[0], 2 * (truth & found), 1 * truth + found) == pytest.approx(wanted)

    @pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.9, 1])
    def test_quantile(self, resamples, sample, share):
        wanted = [np.quantile(sample[drawn, 0], share) for drawn in resamples[1]]
        assert measures.quantile(resamples[0], sample[:, 0], share) == pytest.approx(wanted)

    def test_half_found(self, resamples):
        g = np.random.default_rng(3)
        sizes = g.lognormal(1, 1, 40)
        found = g.random(40) < 1 / (1 + np.exp(-2 * (np.log(sizes) - 1)))
        wanted = []
        for drawn in resamples[1]:
            model = LogisticRegression(C=1e6).fit(np.log(sizes[drawn, None]), found[drawn])
            wanted.append(math.exp(-model.intercept_[0] / model.coef_[0, 0]))
        assert measures.half_found(resamples[0], sizes, found) == pytest.approx(wanted, rel=0.01)

    def test_patients_with_two_scans_are_drawn_whole(self):
        bootstrap = Bootstrap(["a", "a", "b"], np.random.default_rng(0), resamples=200)
        weights = bootstrap.weights(["b", "a", "a"])
        assert (weights[0] == 1).all()
        assert (weights[:, 1] == weights[:, 2]).all()
        assert (weights[:, :2].sum(1) == 2).all()
        assert set(weights[1:, 0]) == {0, 1, 2}


class TestIntervals:
    def test_of_a_mean_are_scipys(self):
        values = np.random.default_rng(4).lognormal(0, 1, 60)
        drawn = measures.mean(Bootstrap(range(60), np.random.default_rng(0), 20000).weights(range(60)), values)
        found = estimate(drawn, 60, 60)
        wanted = stats.bootstrap(
            (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=0.02)

    def test_are_wider_where_scans_of_a_patient_say_the_same(self):
        g = np.random.default_rng(5)
        values = g.normal(size=40)
        alone, twice = (
            estimate(measures.mean(Bootstrap(p, np.random.default_rng(0)).weights(p), np.tile(values, 2)), 80, n)
            for p, n in ((list(range(80)), 80), (list(range(40)) * 2, 40))
        )
        assert (twice.high - twice.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(2), rel=0.1)

    def test_same_seed_same_interval(self):
        first, second = (Bootstrap(range(9), np.random.default_rng(7)).weights(range(9)) for _ in range(2))
        assert (first == second).all()

    def test_none_from_few_patients(self):
        found = estimate(np.arange(100.0), 8, measures.LEAST_PATIENTS - 1)
        assert (found.value, found.n) == (0, 8)
        assert math.isnan(found.low)
        assert math.isnan(found.high)

    def test_none_where_most_resamples_say_nothing(self):
        values = np.array([1.0, *[np.nan] * 60, *[1.0] * 40])
        assert math.isnan(estimate(values, 50, 50).low)

    def test_share_among_some(self):
        patients = [0, 0, 1, 2, 3, 4, 5, 6]
        of = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
        hits = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
        found = Bootstrap(patients, np.random.default_rng(0)).share(patients, hits, of)
        assert found.value == pytest.approx(4 / 7)
        assert found.n == 7
        assert 0 <= found.low < found.value < found.high <= 1

    def test_share_of_nothing(self):
        found = Bootstrap([0], np.random.default_rng(0)).share([], np.zeros(0, bool))
        assert math.isnan(found.value)
        assert found.n == 0

    def test_text_names_n(self):
        assert str(Estimate(0.5, 0.25, 0.75, 12)) == "0.5 [0.25, 0.75] (n = 12)"
        assert str(Estimate(0.5, math.nan, math.nan, 3)) == "0.5 (n = 3)"


class TestDifferences:
    def test_p_agrees_with_the_interval(self):
        """p falls below 0.05 where the interval leaves zero, on whichever side."""
        drawn = np.random.default_rng(0).normal(size=2000)
        for shift in np.linspace(-3, 3, 61):
            values = np.array([shift, *(drawn + shift)])
            found = estimate(values, 50, 50)
            outside = found.low > 0 or found.high < 0
            if min(abs(found.low), abs(found.high)) > 0.01:
                assert (measures.p_value(values) < 0.05) == outside

    def test_p_of_a_normal_shift(self):
        drawn = np.random.default_rng(0).normal(1.96, 1, size=20000)
        assert measures.p_value(np.array([1.96, *drawn])) == pytest.approx(0.05, abs=0.005)

    def test_p_of_no_difference_is_one(self):
        assert measures.p_value(np.zeros(2001)) == 1

    def test_p_is_never_zero(self):
        assert measures.p_value(np.ones(2001)) == pytest.approx(2 / 2001)

    def test_pairing_takes_away_what_both_share(self):
        g = np.random.default_rng(6)
        shared = g.normal(size=100)
        weights = Bootstrap(range(100), g).weights(range(100))
        own, other = (measures.mean(weights, shared + g.normal(shift, 0.1, 100)) for shift in (0, 0.1))
        found = measures.difference(own, other, 100, 100)
        assert found.estimate.high < 0
        assert found.p < 0.01
        alone = estimate(own, 100, 100)
        assert found.estimate.high - found.estimate.low < 0.3 * (alone.high - alone.low)


class TestBlandAltman:
    def test_differences_that_grow_on_a_line(self):
        level = np.linspace(1, 100, 50)
        size = 2 + 0.1 * level
        signs = np.where(np.arange(50) % 2, 1, -1)
        pairs = np.stack([level - signs * size / 2, level + signs * size / 2], axis=1)
        intercept, slope = measures.absolute_difference_line(ones(50), pairs)
        assert (intercept[0], slope[0]) == pytest.approx((2, 0.1))

    def test_limits_hold_95_percent_of_normal_differences(self):
        g = np.random.default_rng(8)
        level = g.lognormal(3, 1, 4000)
        change = g.normal(0, 1 + 0.2 * level)
        pairs = np.stack([level - change / 2, level + change / 2], axis=1)
        intercept, slope = measures.absolute_difference_line(ones(4000), pairs)
        within = np.abs(change) <= measures.LIMIT_FACTOR * (intercept + slope * level)
        assert within.mean() == pytest.approx(0.95, abs=0.01)

    @pytest.mark.parametrize(("level", "size"), [((1, 2, 3, 9), (0, 1, 3, 9)), ((1, 2, 3, 4), (4, 3, 3, 1))])
    def test_limits_are_never_below_zero(self, level, size):
        """The best line without a negative intercept or slope, as by SciPy's non-negative least squares."""
        level, size = np.array(level, float), np.array(size, float)
        pairs = np.stack([level - size / 2, level + size / 2], axis=1)
        wanted = optimize.nnls(np.stack([np.ones(4), level], axis=1), size)[0]
        found = np.array(measures.absolute_difference_line(ones(4), pairs))[:, 0]
        assert 0 in found
        assert found == pytest.approx(wanted)

    def test_factor(self):
        assert pytest.approx(2.4565, abs=1e-4) == measures.LIMIT_FACTOR


class TestDegenerate:
    def test_relative_differences(self):
        pairs = np.array([[10, 30], [0, 5], [0, 0], [4, 4]], float)
        assert measures.relative_differences(pairs) == pytest.approx([1, 2, np.nan, 0], nan_ok=True)

    def test_agreement_of_equal_scans(self):
        pairs = np.repeat(np.arange(6.0)[:, None], 2, axis=1)
        assert measures.agreement(ones(6), pairs) == pytest.approx(1)
        assert measures.agreement_estimate(pairs).value == 1
        assert math.isnan(measures.agreement_estimate(np.zeros((6, 2))).value)
        assert np.isnan(measures.agreement(ones(6), np.zeros((6, 2)))).all()

    def test_agreement_of_a_resample_without_any_score(self):
        pairs = np.array([[0.1, 0.1]] * 3 + [[70.3, 61.7]])
        weights = np.array([[1.0, 1, 1, 1], [2, 1, 1, 0]])
        found = measures.agreement(weights, pairs)
        assert found[0] > 0.9
        assert math.isnan(found[1])

    def test_agreement_of_few_patients_has_no_interval(self):
        found = measures.agreement_estimate(SHROUT_FLEISS[:4, :2])
        assert 0 < found.value < 1
        assert math.isnan(found.low)

    def test_a_shift_between_scans_lowers_absolute_agreement(self):
        pairs = np.stack([np.arange(10.0), np.arange(10.0) + 5], axis=1)
        assert measures.agreement(ones(10), pairs)[0] < 0.5

    def test_kappa_of_one_class(self):
        one = np.zeros(5, int)
        assert np.isnan(measures.kappa(ones(5), one, one, 4)).all()
        assert math.isnan(measures.kappa_estimate(one, one, 4).value)

    def test_constant_scores_have_no_rank_correlation(self):
        assert np.isnan(measures.rank_correlation(ones(5), np.zeros(5), np.arange(5.0))).all()

    @pytest.mark.parametrize("found", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    def test_no_size_at_which_half_are_found(self, found):
        sizes = np.array([1.0, 2.0, 4.0, 8.0])
        assert np.isnan(measures.half_found(ones(4), sizes, np.array(found, bool))).all()

    def test_size_that_tells_all_apart(self):
        found = measures.half_found(ones(4), np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 0, 1, 1], bool))
        assert found == pytest.approx(math.sqrt(8), rel=1e-3)

    def test_nothing_at_all(self):
        nothing = np.ones((1, 0))
        empty = np.zeros(0)
        for values in (
            measures.mean(nothing, empty),
            measures.quantile(nothing, empty, 0.5),
            measures.rank_correlation(nothing, empty, empty),
            measures.area_under_curve(nothing, empty, empty),
            measures.half_found(nothing, empty, empty),
            measures.agreement(nothing, np.zeros((0, 2))),
        ):
            assert np.isnan(values).all()
