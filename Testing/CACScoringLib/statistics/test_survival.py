"""Statistics of events over time, against published worked examples and slow counting."""

import math

import numpy as np
import pytest
from scipy import stats

from CACScoringLib.statistics import survival

PLACEBO = (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)
TREATED = (6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35)
"""Weeks of remission in acute leukaemia with and without 6-mercaptopurine (Freireich 1963, Blood 21:699, as in Cox
1972); negative: still in remission."""


@pytest.fixture
def leukaemia():
    weeks = np.array(PLACEBO + TREATED, float)
    return np.abs(weeks), weeks > 0, np.repeat([1, 0], 21)


def test_log_rank_of_leukaemia(leukaemia):
    # Kleinbaum and Klein, Survival Analysis, chapter 2: 16.793, one degree of freedom.
    assert survival.log_rank(*leukaemia) == pytest.approx(stats.chi2.sf(16.793, 1), rel=1e-3)


def test_hazard_ratio_of_leukaemia(leukaemia):
    time, event, placebo = leukaemia
    ratio = survival.hazard_ratios(time, event, {"placebo": placebo})["placebo"]
    # R, survival::coxph with Efron's ties: coefficient 1.5721, standard error 0.4124.
    assert math.log(ratio.value) == pytest.approx(1.5721, abs=1e-3)
    assert (math.log(ratio.high / ratio.low), ratio.n) == (pytest.approx(2 * 1.96 * 0.4124, abs=2e-3), 42)


def test_kaplan_meier_of_leukaemia(leukaemia):
    time, event, _ = leukaemia
    curve = survival.kaplan_meier(time[21:], event[21:])
    # Kleinbaum and Klein, table of the treated group; intervals as R's with conf.type "log-log".
    for week, proportion in ((6, 0.8571), (10, 0.7529), (16, 0.6275), (23, 0.4482)):
        assert curve.at(week).value == pytest.approx(proportion, abs=5e-5)
    assert (curve.at(6).low, curve.at(6).high) == pytest.approx((0.620, 0.952), abs=5e-4)
    assert curve.at(22.9).value == curve.at(22).value
    assert curve.at(0).value == curve.at(5.9).value == 1.0
    assert curve.at(35).value == curve.at(23).value
    assert math.isnan(curve.at(35.1).value)


def test_concordance_against_counting_pairs():
    generator = np.random.default_rng(2)
    n = 40
    time = generator.integers(1, 15, n).astype(float)  # with ties of all kinds
    event, risk = generator.random(n) < 0.6, generator.integers(0, 4, n)
    weights = generator.integers(0, 3, (3, n)).astype(float)
    indices = survival.concordance(weights, time, event, risk)
    for r in range(3):
        won = pairs = 0.0
        for i in range(n):
            for j in range(n):
                if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                    weight = weights[r, i] * weights[r, j]
                    pairs += weight
                    won += weight * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
        assert indices[r] == pytest.approx(won / pairs, abs=1e-12)


def test_an_impossible_fit_has_no_ratio(leukaemia):
    time, event, placebo = leukaemia
    assert math.isnan(survival.hazard_ratios(time, np.zeros(42, bool), {"placebo": placebo})["placebo"].value)
    assert math.isnan(survival.hazard_ratios(time, event, {"same": np.ones(42)})["same"].value)
    never = np.zeros(42)
    never[~event] = 1.0  # none of them had an event
    assert math.isnan(survival.hazard_ratios(time, event, {"never": never})["never"].value)
    assert survival.log_rank(time, event, np.zeros(42)) is None
    assert survival.log_rank(time, np.zeros(42, bool), placebo) is None
