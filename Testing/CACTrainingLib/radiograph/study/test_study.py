"""Study of radiographs with fake trainings: tables and predictions."""

from dataclasses import replace

import numpy as np
import pytest
from made_experiments import EXPERIMENTS, index_of, make_quick, sections_of, table_of
from radiograph_study import write_table
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from CACTrainingLib.evaluation.experiment import TrainingBudget
from CACTrainingLib.radiograph.study import study
from CACTrainingLib.radiograph.study.runs import CONFIGURATIONS
from CACTrainingLib.radiograph.study.study import RadiographStudySettings
from CACTrainingLib.statistics.roc import area_within

PATIENTS = 64

page_of = EXPERIMENTS["radiograph"].page


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 60)


@pytest.fixture
def settings(tmp_path):
    table = write_table(tmp_path / "own" / "radiographs.csv", PATIENTS)
    return RadiographStudySettings(table, tmp_path / "out", budget=TrainingBudget(3), names=("lateral",))


def rows_of(settings, name="configurations"):
    """Return the cells of the table by predictor and threshold."""
    columns, *lines = table_of(settings, name)
    cells, title = {}, ""
    for line in lines:
        title = title if line[0].strip() in ("> 0", "≥ 100", "≥ 400", "Mean") else line[0]
        cells[title, line[0].strip()] = dict(zip(columns, line, strict=True))
    return cells


def test_all_configurations_are_compared_with_the_base(settings, tmp_path):
    external = write_table(tmp_path / "other" / "radiographs.csv", 40, first=1000, seed=1)
    page = page_of(replace(settings, external=external, names=()))
    assert index_of(settings)["digital"]
    assert sections_of(settings) == ["data", "results"]
    assert "there is no memory for it" in page  # a training that fails stops no other
    rows = rows_of(settings)
    assert {title for title, _ in rows} > {configuration.name for configuration in CONFIGURATIONS}
    assert rows["densenet121", "densenet121"]["AUC"] == "0 of 3 folds"
    assert float(rows["base", "Mean"]["AUC minus base"]) == 0
    assert float(rows["lateral", "Mean"]["AUC minus base high"]) < 0
    assert float(rows["base with age, sex, BMI", "> 0"]["AUC"]) > 0.5
    assert float(rows["age, sex, BMI", "> 0"]["AUC"]) > 0.55  # age was drawn higher where there is calcium
    assert int(rows_of(settings, "external")["base", "> 0"]["AUC n"]) == 40


def test_measures_of_one_fold_are_those_of_scikit_learn(settings):
    cohort = study.read_cohort(settings.data, 1, 0)
    values = np.clip(cohort.score[:, None] / 1000 + np.random.default_rng(0).normal(0.4, 0.2, (PATIENTS, 3)), 0, 1)
    lines, _ = study.predictor_lines(cohort, {"any": values}, 0)
    truth = cohort.score >= 100
    assert lines[2][1].value == pytest.approx(roc_auc_score(truth, values[:, 1]))
    is_positive = values[:, 1] >= truth.mean()
    assert lines[2][4].value == pytest.approx(is_positive[truth].mean())
    assert lines[2][5].value == pytest.approx(1 - is_positive[~truth].mean())
    category = [sum(s >= t for t in (1, 100, 400)) for s in cohort.score]
    agreement = cohen_kappa_score(category, study.likely_category(values), weights="linear")
    assert lines[4][6].value == pytest.approx(agreement)


def test_areas_count_pairs_of_a_fold_only():
    generator = np.random.default_rng(5)
    truth, folds = generator.random(60) < 0.4, generator.integers(0, 3, 60)
    scores = np.round(truth + generator.normal(0, 1, 60), 1)  # with ties
    pairs = [(i, j) for i in np.flatnonzero(truth) for j in np.flatnonzero(~truth) if folds[i] == folds[j]]
    won = sum((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for i, j in pairs)
    area = area_within(np.ones((1, 60)), folds, truth, scores + 10 * folds)
    assert area[0] == pytest.approx(won / len(pairs), abs=1e-12)
