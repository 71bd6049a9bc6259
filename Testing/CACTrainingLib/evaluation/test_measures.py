"""Measures of long tables, whose figures are known by hand."""

import re
from functools import partial

import numpy as np
import pytest
from made_experiments import EXPERIMENTS
from matplotlib.figure import Figure as Drawing

from CACScoringLib.quality.calibration import Limits
from CACScoringLib.statistics.bootstrap import BootstrapResult, exact_proportion
from CACTrainingLib.evaluation.experiment import USES
from CACTrainingLib.evaluation.figures import against_truth, bland_altman, panels_of_values, rendered
from CACTrainingLib.evaluation.measures import ExperimentComparison, Measure, count_table, long_table, mean_value, rates
from CACTrainingLib.evaluation.papers import MARGIN, Finding, PartText, Quantity, StudyTexts, texts_of
from CACTrainingLib.evaluation.parts import Figure

PATIENTS = [f"p{n}" for n in range(12)]


def rows(method, truth, value, item=0):
    return [
        {"patient": f"p{n}", "scan": f"s{n}", "method": method, "item": item, "truth": t, "value": v}
        for n, (t, v) in enumerate(zip(truth, value, strict=True))
    ]


@pytest.fixture
def comparison():
    return ExperimentComparison(PATIENTS, {"a": "A", "b": "B"}, np.random.default_rng(0), "a")


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
    texts = StudyTexts("Study", parts={"counts": PartText("Counts of {what}")})
    classes = ("low", "high"), scores, lambda x: np.digitize(x, [10])
    table = count_table(texts, "counts", ("First", "Second"), *classes, what="scores")
    assert table.title == "Counts of scores"
    assert table.columns == ("First", "Second low", "Second high")
    assert table.rows == (("A", "", ""), ("  low", 1, 1), ("  high", 0, 1))


MODEL, SECOND = Quantity("model", "AUC"), Quantity("other", "AUC")


def result(value, spread=0.01):
    values = value + spread * np.random.default_rng(0).standard_normal(201)
    return BootstrapResult(np.array([value, *values[1:]]), 50, 50)


@pytest.mark.parametrize(
    ("finding", "results", "verdict"),
    [
        (Finding("", MODEL, published=0.75), {MODEL: result(0.76)}, "holds"),
        (Finding("", MODEL, published=0.75), {MODEL: result(0.75 - MARGIN)}, "cannot be decided with n = 50"),
        (Finding("", MODEL, published=0.75), {MODEL: result(0.6)}, "does not hold"),
        (
            Finding("", MODEL, published=0.75),
            {MODEL: BootstrapResult(np.full(201, np.nan), 3, 3)},
            "cannot be decided with n = 3",
        ),
        (Finding("", MODEL, SECOND, least=0), {MODEL: result(0.76), SECOND: result(0.7, 0.02)}, "holds"),
        (Finding("", MODEL, SECOND, least=0), {MODEL: result(0.7), SECOND: result(0.76, 0.02)}, "does not hold"),
        (Finding("", MODEL, SECOND, least=0), {MODEL: result(0.7)}, "not tested"),
        (Finding("", MODEL, least=0.5), {}, "not tested"),
    ],
)
def test_verdicts(finding, results, verdict):
    assert finding.verdict(finding.estimate(results.get)) == verdict


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_papers_name_models_and_rows_of_the_study(name):
    """A wrong name would read as a model that was not trained."""
    kind = EXPERIMENTS[name].kind
    titles = {title for c in kind.CONFIGURATIONS.values() for title in (c.title, f"{c.title} with age, sex, BMI")}
    for paper in texts_of(name).papers:
        tested = [q for finding in paper.findings for q in (finding.quantity, finding.minus) if q is not None]
        assert {quantity.model for quantity in tested} <= titles
        for quantity in [*tested, *(figure for figure, _ in paper.figures)]:
            assert quantity.row in kind.ROWS
            assert quantity.use in USES


LIMITS = Limits(intercept=2.0, slope=0.5, factor=2.0, pairs=30, highest=100.0)


def test_dots_and_limits_of_bland_and_altman():
    drawing = Drawing(figsize=(7, 4), layout="constrained")
    bland_altman(drawing, long_table(rows("map", [10, 0], [20, 0])), ["map"], lambda *_: LIMITS, "mg", 1.0)
    axis = drawing.axes[0]
    assert np.concatenate([dots.get_offsets() for dots in axis.collections]).tolist() == [[15, 10], [0, 0]]
    dashed = [line.get_data() for line in axis.lines if line.get_linestyle() == "--"]
    for sign, (x, y) in zip((-1, 1), dashed, strict=True):
        np.testing.assert_allclose(y, sign * 2 * (2 + 0.5 * np.asarray(x, float)))
    assert "n = 2" in axis.get_title(loc="left") + axis.get_title()


def test_scans_with_severe_warnings_are_ringed():
    table = long_table(rows("map", [10, 0], [20, 0]))
    titles = {"unit": "", "linear_to": 1.0, "titles": ("x", "y")}
    for severe, marked in (((), []), (table.scan[:1].tolist(), [[10, 20]])):
        drawing = Drawing(figsize=(4, 4), layout="constrained")
        against_truth(drawing, table, ["map"], **titles, severe=severe)
        assert drawing.axes[0].collections[1].get_offsets().tolist() == marked


def test_names_with_dollars_are_no_formulas():
    draw = partial(panels_of_values, groups=["$x$"], panels={"a$b$c": {"map": [1.0]}}, y_title="$")
    files = rendered(Figure("drawn", "t", draw, size_inches=(3, 2)))
    assert set(files) == {"png", "svg"}
    assert b"<script" not in files["svg"]
    assert not re.search(rb'href="http', files["svg"])
