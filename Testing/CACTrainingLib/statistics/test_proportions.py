"""Proportions compared, against SciPy and the formulas on paper."""

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from CACTrainingLib.statistics.bootstrap import paired_difference
from CACTrainingLib.statistics.proportions import difference_of_proportions, mcnemar_p
from CACTrainingLib.statistics.resamples import Resamples


def test_proportions_of_two_groups_that_say_the_same_still_have_an_interval():
    resamples = [
        Resamples([f"{group}{n}" for n in range(size)], np.random.default_rng(0))
        for group, size in (("a", 10), ("b", 20))
    ]

    def proportion(which, hits):
        size = (10, 20)[which]
        return resamples[which].proportion(np.arange(size), np.arange(size) < hits, np.ones(size, bool))

    none = difference_of_proportions(proportion(0, 0), proportion(1, 0))
    assert (none.estimate.value, none.p) == (0, 1)
    # Newcombe: from 0 less Wilson's upper end of 0 in 20 to Wilson's upper end of 0 in 10.
    wilson = [1.96**2 / (n + 1.96**2) for n in (20, 10)]
    assert (none.estimate.low, none.estimate.high) == pytest.approx((-wilson[0], wilson[1]), abs=1e-3)
    some = difference_of_proportions(proportion(0, 5), proportion(1, 0))
    assert some.estimate.value == pytest.approx(0.5)
    assert some.p == pytest.approx(fisher_exact([[5, 5], [0, 20]]).pvalue)
    both = difference_of_proportions(proportion(0, 5), proportion(1, 5))
    assert both == paired_difference(proportion(0, 5), proportion(1, 5))


def test_mcnemar_is_the_binomial_test_of_those_who_differ():
    first = np.array([True] * 9 + [False] * 2 + [True] * 20 + [False] * 5)
    second = np.array([False] * 9 + [True] * 2 + [True] * 20 + [False] * 5)
    assert mcnemar_p(first, second) == pytest.approx(binomtest(2, 11).pvalue)
    assert mcnemar_p(first, first) == 1.0
    assert mcnemar_p(second, first) == pytest.approx(mcnemar_p(first, second))
