"""Tables of the study of radiomics, against counting by hand."""

import numpy as np
import pytest
from made_radiomics import made_scans
from scipy.stats import binomtest

from CACTrainingLib.experiments.configuration import ExperimentRun
from CACTrainingLib.statistics.bootstrap import Bootstrap
from CACTrainingLib.whole_scan.radiomics.checks import controls_section, found_section, importance_section
from CACTrainingLib.whole_scan.radiomics.configurations import HELD_OUT, Configuration
from CACTrainingLib.whole_scan.radiomics.goals import goals_section
from CACTrainingLib.whole_scan.radiomics.results import CROSSED, HELD, Study
from CACTrainingLib.whole_scan.radiomics.tables import RULE, title_of, versus

N = 90
FOLDS = np.arange(N) // 6 % 3 - 1


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(Bootstrap.__init__, "__defaults__", (100,))


@pytest.fixture
def study():
    """The models' probabilities are the first feature of the heart, and those of the networks."""
    scans, noncoronary_controls = made_scans(N), made_scans(20, 500, seed=7, score=0.0)
    kept = {}
    for one, values in ((Configuration(), scans.features["both"]), (Configuration("own"), scans.features["own"])):
        for fold in (HELD_OUT, 0, 1):
            rows = np.flatnonzero(fold == FOLDS)[::-1]  # in another order than the table's
            kept[ExperimentRun(one, fold)] = {
                "rows": rows.tolist(),
                "fold": fold,
                "probabilities": (1 / (1 + np.exp(-values[rows, 0]))).tolist(),
                "limit": 0.5,
                "others": (0.2 + 0.4 * (np.arange(20) < 5)).tolist() if fold == HELD_OUT else None,
                "weights": [0.0, 1.0, -2.0, 0.5, 0.0, 0.1] if fold == HELD_OUT else [0.0, 1.0, 2.0, 0.5, 0.0, 0.1],
                "importance": None,
            }
    return Study(scans, FOLDS, kept, noncoronary_controls=noncoronary_controls)


def rows_of(table):
    return {str(row[0]).strip(): row[1:] for row in table.rows}


def test_who_is_called_by_category(study):
    table = next(table for table in found_section(study).tables if table.name == "called_by_category")
    shown = [row for row in table.rows if str(row[0]).strip() == title_of(Configuration())]
    for row, part in zip(shown, (HELD, CROSSED), strict=True):
        own = np.flatnonzero((FOLDS == HELD_OUT) == (part == HELD))
        called, score = study.scans.features["both"][own, 0] >= 0, study.scans.agatston[own]
        for cell, (low, high) in zip(row[1:], ((0, 0), (0.1, 99), (100, 399), (400, 9999)), strict=True):
            wanted = (score >= low) & (score <= high)
            assert cell.value == pytest.approx(called[wanted].mean())
            assert cell.n == wanted.sum()


def test_hidden_calcium_is_counted_apart(study):
    table = next(table for table in found_section(study).tables if table.name == "visible")
    row = next(row for row in table.rows if str(row[0]).strip() == RULE)
    own = np.flatnonzero(FOLDS == HELD_OUT)
    visible, pseudo = study.scans.visible[own] == 1, study.scans.pseudo[own]
    hidden = study.scans.truth[own] & ~visible
    assert row[1].value == pytest.approx((pseudo == visible).mean())
    assert row[5].value == pytest.approx(pseudo[hidden].mean())
    assert row[5].n == hidden.sum() > 0


def test_other_calcium_against_none(study):
    tables = {table.name: rows_of(table) for table in controls_section(study).tables}
    held = np.flatnonzero(FOLDS == HELD_OUT)
    called = study.scans.features["both"][held, 0] >= 0
    none = ~study.scans.truth[held] & (study.scans.other[held] == 0)
    first, second, change, _ = tables["others"][title_of(Configuration())]
    assert (first.value, second.value) == (pytest.approx(called[none].mean()), pytest.approx(0.25))
    assert change.value == pytest.approx(second.value - first.value)
    assert tables["others"][RULE][1].value == pytest.approx(study.noncoronary_controls.pseudo.mean())
    crossed = (FOLDS != HELD_OUT) & ~study.scans.truth
    for cell, kind in zip(tables["others_within"][RULE], (0, 1), strict=False):
        wanted = crossed & (study.scans.other == kind)
        assert cell.value == pytest.approx(study.scans.pseudo[wanted].mean())
        assert cell.n == wanted.sum() > 0


def test_two_ways_are_compared_scan_by_scan(study):
    own, rule = study.parts[HELD][Configuration()], study.rule(HELD)
    rows = np.sort(own.rows)
    truth = study.scans.truth[rows]
    first = (study.scans.features["both"][rows, 0] >= 0) == truth
    second = study.scans.pseudo[rows] == truth
    found = versus(study, own, rule)
    assert found[:2] == [pytest.approx(first.mean()), pytest.approx(second.mean())]
    differ = int((first != second).sum())
    p = binomtest(int((first & ~second).sum()), differ).pvalue
    assert found[2] == ("< 0.001" if p < 0.001 else pytest.approx(p, abs=1e-4))
    assert found[3] == ("yes" if p < 0.05 else "no")


def test_weights_are_the_greatest_with_how_often_their_sign_is_the_same(study):
    table = next(table for table in importance_section(study).tables if table.name == "weights")
    titles = study.scans.titles["both"]
    assert [row[0] for row in table.rows] == [titles[n] for n in (2, 1, 3, 5)]
    assert table.rows[0][1:] == (-2.0, 2.0, 0.0, 0.0)
    assert table.rows[1][4] == 1.0


def test_goals_are_met_or_missed_by_the_held_out(study):
    rows = goals_section(study).tables[0].rows
    accuracy = study.measures(study.parts[HELD][Configuration()])["Accuracy"].estimate.value
    assert rows[0][-1] == ("yes" if accuracy >= 0.84 else "no")
    other = next(row for row in rows if "aorta or valves" in row[0])
    assert other[-1] == ("yes" if other[1].value <= 0.10 else "no")
    networks = next(row for row in rows if "As in the paper" in row[0])
    assert title_of(Configuration("own")) in networks[0]


def test_titles_tell_ways_apart():
    ways = [
        Configuration(),
        Configuration(contrast=True),
        Configuration(pseudo=True),
        Configuration("own"),
        Configuration(classifier="svm"),
        Configuration("age-sex"),
    ]
    assert len({title_of(cell) for cell in ways}) == len(ways)
