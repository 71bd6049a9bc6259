"""Distribution of a true score, given the lesions that may belong to it.

Each lesion belongs to the score with its own probability, independently of the others; their sum has the distribution
of a Poisson binomial with amounts. What remains uncertain of a sum, such as lesions that are no candidates and the
outline of those that are, is a lognormal factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

CELL = 0.01
"""Width in ln(1 + sum) within which sums of lesions are taken together."""

CERTAIN = 1e-3
"""Probability below which a lesion is taken as absent, and above 1 minus which as present."""

_POINTS = 1000
"""Points of ln(1 + score) at which the distribution is evaluated."""


@dataclass(frozen=True)
class ScoreDistribution:
    """Distribution of a true score.

    Attributes:
        sums: Possible sums of the lesions, rising [n].
        weights: Probability of each sum [n].
        spread: SD of ln(1 + true score) around ln(1 + sum).
    """

    sums: np.ndarray
    weights: np.ndarray
    spread: float

    @classmethod
    def of(cls, amounts: Sequence[float], probabilities: Sequence[float], spread: float) -> ScoreDistribution:
        """Return the distribution of the sum of lesions.

        Args:
            amounts: Score of each lesion, not below 0.
            probabilities: Probability that each belongs to the score.
            spread: As the attribute.
        """
        amount, p = np.asarray(amounts, float), np.asarray(probabilities, float)
        certain = float(amount[p >= 1 - CERTAIN].sum())
        is_open = (p > CERTAIN) & (p < 1 - CERTAIN) & (amount > 0)
        sums: np.ndarray = np.array([certain])
        weights: np.ndarray = np.ones(1)
        for size, chance in zip(amount[is_open], p[is_open], strict=True):
            sums = np.concatenate([sums, sums + size])
            weights = np.concatenate([(1 - chance) * weights, chance * weights])
            # Sums taken together keep their mean, and small lesions stay beside large ones.
            cells: np.ndarray = np.rint(np.log1p(sums) / CELL).astype(int)
            totals, moments = np.bincount(cells, weights), np.bincount(cells, weights * sums)
            is_possible = totals > 0
            sums, weights = moments[is_possible] / totals[is_possible], totals[is_possible]
        return cls(sums, weights / weights.sum(), spread)

    def below(self, scores: np.ndarray | float) -> np.ndarray:
        """Return the probability that the true score is at most each score, [n]."""
        distance = np.log1p(np.atleast_1d(scores))[:, None] - np.log1p(self.sums)
        return ndtr(distance / max(self.spread, 1e-6)) @ self.weights

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval between the quantiles (1 − level) / 2 and (1 + level) / 2, no lower than 0."""
        highest = math.log1p(float(self.sums[-1])) + 5 * self.spread + 1e-3
        points = np.linspace(0.0, highest, _POINTS)
        chances = self.below(np.expm1(points))
        low, high = np.interp(((1 - level) / 2, (1 + level) / 2), chances, points)
        return math.expm1(low), math.expm1(high)

    def chances(self, limits: Sequence[float]) -> tuple[float, ...]:
        """Return the probability of each class between limits, which rise; they add up to 1."""
        below = [0.0, *self.below(np.array(limits)).tolist(), 1.0]
        return tuple(max(high - low, 0.0) for low, high in pairwise(below))
