"""The study of radiomics as a whole, with scans and models that are made up."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from made_experiments import index_of, make_quick, sections_of, table_of
from made_radiomics import Fitting, reader, write_table

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.experiments.configuration import TrainingBudget
from CACTrainingLib.experiments.engine import PREDICTIONS
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.whole_scan.radiomics.configurations import CLASSIFIERS, HELD_OUT
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudySettings, evaluate_radiomics
from CACTrainingLib.whole_scan.scan_table import read_scan_table
from CACTrainingLib.whole_scan.split import held_out

N = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 40)


def page_of(settings, train=None, **made):
    page = evaluate_radiomics(settings, Progress(), reader(**made), train or Fitting())
    return page.read_text(encoding="utf-8")


@pytest.fixture
def settings(tmp_path):
    return RadiomicsStudySettings(
        write_table(tmp_path / "own" / "t.csv", N), tmp_path / "out", budget=TrainingBudget(folds=2)
    )


def test_the_whole_page(settings, tmp_path):
    whole = replace(
        settings,
        contrast=write_table(tmp_path / "c" / "t.csv", 16, 1000, contrast=True),
        noncoronary_controls=write_table(tmp_path / "o" / "t.csv", 12, 2000, score=0.0),
    )
    page_of(whole)
    names = sections_of(settings)
    assert names[0] == "goals"
    assert set(names) == {
        "goals",
        "data",
        "models",
        "significance",
        "contrast",
        "labels",
        "found",
        "importance",
        "others",
    }
    assert index_of(settings)["digital"]
    rows = [row[0].strip() for row in table_of(settings, "models_held")]
    assert rows.count("Random forest") == 4
    assert "Age and sex alone" in rows
    assert "130 HU in the heart (the pseudo-label)" in rows
    published = table_of(settings, "models_held")[-1]
    assert published[0].startswith("Published")
    assert (published[1], published[5]) == ("0.84", "0.95")
    goals = {row[0]: row[-1] for row in table_of(settings, "goals")[1:]}
    assert any("accuracy at least 0.84" in goal for goal in goals)
    assert any("sensitivity at least 0.95" in goal for goal in goals)
    assert any("aorta or valves only" in goal for goal in goals)
    assert set(goals.values()) <= {"yes", "no"}
    assert len(table_of(settings, "others")) == 4  # the head, two models and the rule
    assert len(table_of(settings, "contrast_models")) == 1 + 2 * (1 + len(CLASSIFIERS))
    weights = table_of(settings, "weights")
    assert len(weights) > 3
    assert [abs(float(row[1])) for row in weights[1:]] == sorted(
        (abs(float(row[1])) for row in weights[1:]), reverse=True
    )


def test_a_new_control_leaves_cross_validated_models_as_they_are(settings, tmp_path):
    page_of(settings)
    fit = Fitting()
    page_of(replace(settings, noncoronary_controls=write_table(tmp_path / "o" / "t.csv", 12, 2000, score=0.0)), fit)
    assert {run.fold for run in fit.done} == {HELD_OUT}


def test_without_time_there_is_a_page_of_what_is_there(settings):
    fit = Fitting()
    page_of(settings, fit)
    again = Fitting()
    page_of(replace(settings, budget=TrainingBudget(folds=3), minutes=0), again)
    assert not again.done
    # All that are kept are of other folds.
    assert not (settings.output / "tables" / "models_crossed.csv").exists()
    assert not (settings.output / "tables" / "failed.csv").exists()


def test_when_no_model_is_made_the_page_says_so(settings):
    class Nothing(Fitting):
        def __call__(self, data, budget):
            def do(run):
                raise CTError("no")

            return do

    page_of(settings, Nothing())
    assert len(table_of(settings, "failed")) > 1
    assert not (settings.output / "tables" / "models_held.csv").exists()


def test_probabilities_of_every_scan(settings):
    page_of(settings)
    with (settings.output / PREDICTIONS).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == N
    assert {row["fold"] for row in rows} == {"held out", "0", "1"}
    assert all(0 <= float(row["chance_chosen"]) <= 1 for row in rows)


def test_ones_own_scans_have_no_truth_but_their_scores(settings):
    page_of(settings, digital=False, factors=False, networks=False)
    assert not index_of(settings)["digital"]
    assert {"others"}.isdisjoint(sections_of(settings))
    assert not (settings.output / "tables" / "visible.csv").exists()
    rows = [row[0].strip() for row in table_of(settings, "models_held")]
    assert "Age and sex alone" not in rows


def test_a_control_holds_nobody_who_was_learned_from(settings, tmp_path):
    table = write_table(tmp_path / "o" / "t.csv", 12, N - 6, score=0.0)
    training, _ = held_out(read_scan_table(settings.data))
    known = sum(f"p{n}" in training for n in range(N - 6, N))
    assert known > 0
    page = page_of(replace(settings, noncoronary_controls=table))
    assert f"{known} scans with other calcium were left out" in page
    with pytest.raises(StudyError, match="Give others"):
        page_of(replace(settings, noncoronary_controls=write_table(tmp_path / "bad" / "t.csv", 3, 2000, score=50.0)))


def test_enhanced_scans_belong_in_a_table_of_their_own(settings, tmp_path):
    enhanced = write_table(tmp_path / "c" / "t.csv", 8, contrast=True)
    with pytest.raises(StudyError, match="--contrast-data"):
        page_of(replace(settings, data=enhanced))


def test_held_out_scans_are_those_that_training_leaves_out_whatever_the_seed(settings):
    table = read_scan_table(settings.data)
    _, tested = held_out(table)
    folds = []
    for seed in (0, 5):
        fit = Fitting()
        page_of(replace(settings, budget=replace(settings.budget, seed=seed)), fit)
        data = fit.data
        assert {data.own.names[n] for n in np.flatnonzero(data.folds == HELD_OUT)} == set(tested)
        folds.append(data.folds.tolist())
    assert folds[0] != folds[1]
    assert set(folds[0]) == {HELD_OUT, 0, 1}


def test_a_model_that_fails_stops_no_other(settings):
    page = page_of(settings, Fitting(fails="svm"))
    assert "it did not converge" in page
    assert "Support vector machine" not in [row[0].strip() for row in table_of(settings, "models_held")]
    assert len(table_of(settings, "failed")) > 1
