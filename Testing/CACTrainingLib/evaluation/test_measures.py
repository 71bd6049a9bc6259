"""Measures of long tables, whose figures are known by hand."""

import numpy as np
import pytest

from CACTrainingLib.evaluation.measures import Comparison, Measure, count_table, long_table, mean_value, rates
from CACTrainingLib.statistics.bootstrap import exact_proportion

PATIENTS = [f"p{n}" for n in range(12)]


def rows(method, truth, value, item=0):
    return [
        {"patient": f"p{n}", "scan": f"s{n}", "method": method, "item": item, "truth": t, "value": v}
        for n, (t, v) in enumerate(zip(truth, value, strict=True))
    ]


@pytest.fixture
def comparison():
    return Comparison(PATIENTS, {"a": "A", "b": "B"}, np.random.default_rng(0), "a")


def test_a_proportion_is_of_its_own_scans_with_an_exact_interval_where_all_are_hits(comparison):
    truth = [1] * 8 + [0] * 4
    (sensitivity,) = rates(["Sensitivity"], long_table(rows("a", truth, truth)))
    assert comparison.estimate(sensitivity, "a") == exact_proportion(True, 8, 8)
    (sensitivity,) = rates(["Sensitivity"], long_table(rows("a", truth, [0, 0, *truth[2:]])))
    estimate = comparison.estimate(sensitivity, "a")
    assert (estimate.value, estimate.n) == (0.75, 8)
    assert estimate.low < 0.75 < estimate.high


def test_methods_are_compared_on_items_that_both_have(comparison):
    table = long_table([*rows("a", [0] * 12, range(12)), *rows("b", [0] * 6, range(1, 7))])
    first, second, difference = comparison.difference(Measure("Mean", mean_value, table), "b")
    assert (first.n, second.n, difference.estimate.value) == (6, 6, pytest.approx(-1))
    assert difference.p < 0.01


def test_several_models_of_a_method_are_averaged_and_their_scans_counted_once(comparison):
    table = long_table([*rows("a", [0] * 12, [1] * 12, item=0), *rows("a", [0] * 4, [3] * 4, item=1)])
    result = comparison.averaged(Measure("Mean", mean_value, table), "a")
    assert (result.values[0], result.n, result.patients) == (2, 12, 12)


def test_a_table_without_rows_has_no_value(comparison):
    estimate = comparison.estimate(Measure("Mean", mean_value, long_table([])), "a")
    assert np.isnan(estimate.value)
    assert estimate.n == 0


def test_counts_of_two_classifications():
    scores = {"A": long_table(rows("a", [1, 2, 30], [3, 20, 10]))}
    table = count_table(
        "counts", "Counts", ("First", "Second"), ("low", "high"), scores, lambda x: np.digitize(x, [10])
    )
    assert table.columns == ("First", "Second low", "Second high")
    assert table.rows == (("A", "", ""), ("  low", 1, 1), ("  high", 0, 1))
