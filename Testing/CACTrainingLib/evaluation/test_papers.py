"""Findings of papers: verdicts of intervals, and the files of published figures."""

import numpy as np
import pytest
from made_experiments import EXPERIMENTS

from CACTrainingLib.evaluation.experiment import USES
from CACTrainingLib.evaluation.papers import MARGIN, Finding, Quantity, papers_of
from CACTrainingLib.statistics.bootstrap import BootstrapResult

MODEL, SECOND = Quantity("model", "AUC"), Quantity("other", "AUC")


def result(value, spread=0.01):
    values = value + spread * np.random.default_rng(0).standard_normal(201)
    return BootstrapResult(np.array([value, *values[1:]]), 50, 50)


@pytest.mark.parametrize(
    ("finding", "results", "verdict"),
    [
        (Finding("", MODEL, published=0.75), {MODEL: result(0.76)}, "holds"),
        (Finding("", MODEL, published=0.75), {MODEL: result(0.75 - MARGIN)}, "undecided"),
        (Finding("", MODEL, published=0.75), {MODEL: result(0.6)}, "does not hold"),
        (Finding("", MODEL, published=0.75), {MODEL: BootstrapResult(np.full(201, np.nan), 3, 3)}, "undecided"),
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
    for paper in papers_of(name):
        tested = [q for finding in paper.findings for q in (finding.quantity, finding.minus) if q is not None]
        assert {quantity.model for quantity in tested} <= titles
        for quantity in [*tested, *(figure for figure, _ in paper.figures)]:
            assert quantity.row in kind.ROWS
            assert quantity.use in USES
