"""Distribution of a true score against hand-made cases and a simulation."""

import math

import numpy as np
import pytest

from CACScoringLib.core.categories import LIMITS
from CACScoringLib.scoring.uncertainty import CELL, ScoreDistribution

EXACT = 1e-9
"""Spread that leaves the sums of lesions as they are."""


@pytest.mark.parametrize(
    ("amounts", "probabilities", "expected"),
    [
        ([], [], {0: 1.0}),
        ([40, 0], [1.0, 0.5], {40: 1.0}),
        ([40, 40], [0.5, 0.5], {0: 0.25, 40: 0.5, 80: 0.25}),
        ([30, 100], [0.9, 0.2], {0: 0.08, 30: 0.72, 100: 0.02, 130: 0.18}),
        ([10, 30, 100], [1.0, 0.9, 0.0], {10: 0.1, 40: 0.9}),
        ([2, 5000], [0.9, 0.01], {0: 0.099, 2: 0.891, 5000: 0.001, 5002: 0.009}),
    ],
)
def test_sums_by_hand(amounts, probabilities, expected):
    distribution = ScoreDistribution.of(amounts, probabilities, EXACT)
    middles = np.array(sorted({score * 1.01 + 0.5 for score in expected}))
    cumulated = [sum(p for score, p in expected.items() if score <= middle) for middle in middles]
    assert distribution.below(middles) == pytest.approx(cumulated)
    mean = sum(score * p for score, p in expected.items())
    assert distribution.sums @ distribution.weights == pytest.approx(mean)
    assert (np.diff(distribution.sums) > 0).all()


@pytest.mark.parametrize(("count", "spread"), [(1, 1.0), (3, EXACT), (20, 0.2), (200, EXACT), (200, 1.0)])
def test_a_simulation_has_the_same_quantiles_and_classes(count, spread):
    random = np.random.default_rng(count)
    amounts, probabilities = random.lognormal(2, 1.5, count), random.beta(0.5, 0.5, count)
    distribution = ScoreDistribution.of(amounts, probabilities, spread)
    assert distribution.sums @ distribution.weights == pytest.approx(amounts @ probabilities, rel=2e-3)
    sums = (random.random((20_000, count)) < probabilities) @ amounts
    truths = np.expm1(np.log1p(sums) + spread * random.normal(size=len(sums)))
    shares = [(truths < limit).mean() for limit in (0.5, *LIMITS, 2000)]
    assert distribution.below(np.array([0.5, *LIMITS, 2000])) == pytest.approx(shares, abs=0.015)
    low, high = distribution.interval(0.8)
    is_inside = (truths >= low * (1 - CELL / 2) - 0.02) & (truths <= high * (1 + CELL / 2) + 0.02)
    assert is_inside.mean() >= 0.78
    if spread > EXACT and count > 1:
        assert ((truths >= low) & (truths <= high)).mean() == pytest.approx(0.8, abs=0.02 if low else 0.1)
    chances = distribution.chances(LIMITS)
    assert sum(chances) == pytest.approx(1)
    assert chances == pytest.approx(np.diff([0.0, *shares[1:4], 1.0]), abs=0.02)


@pytest.mark.parametrize(
    ("score", "spread", "level", "expected"),
    [
        (99.0, 0.5, 0.5, (100 * math.exp(-0.5 * 0.6745) - 1, 100 * math.exp(0.5 * 0.6745) - 1)),
        (0.0, 0.5, 0.9, (0.0, math.exp(0.5 * 1.6449) - 1)),
        (99.0, 0.0, 0.9, (99.0, 99.0)),
    ],
)
def test_intervals_of_a_certain_lesion_by_hand(score, spread, level, expected):
    interval = ScoreDistribution.of([score], [1.0], spread).interval(level)
    assert interval == pytest.approx(expected, rel=0.01, abs=0.02)


@pytest.mark.parametrize(("score", "growth"), [(99.0, math.sqrt(2)), (299.0, math.sqrt(4 / 3)), (0.0, 1.0)])
def test_the_variance_of_small_scores_is_larger(score, growth):
    """Twice at 1 + score = 100; nothing is doubtful of a score without lesions but what is no candidate."""
    interval = ScoreDistribution.of([score] if score else [], [1.0] if score else [], 0.2, small=100.0).interval(0.9)
    factor = math.exp(0.2 * growth * 1.6449)
    assert interval == pytest.approx((max((1 + score) / factor - 1, 0.0), (1 + score) * factor - 1), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.99, (400, 400)), (0.9, (0, 400)), (0.1, (0, 400)), (0.01, (0, 0))],
)
def test_intervals_hold_both_scores_of_a_doubtful_lesion(probability, expected):
    interval = ScoreDistribution.of([400.0], [probability], EXACT).interval(0.9)
    assert interval == pytest.approx(expected, rel=0.02, abs=0.02)
