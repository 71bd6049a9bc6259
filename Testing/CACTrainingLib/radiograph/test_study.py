"""Study of radiographs: its split, its settings, and its tables and predictions with fake trainings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_experiments import EXPERIMENTS, index_of, make_quick, sections_of, table_of
from radiograph_study import write_table
from sklearn.metrics import brier_score_loss, cohen_kappa_score, roc_auc_score
from study_tables import csv_rows

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.data.scan_table import TESTED
from CACTrainingLib.evaluation.experiment import ExperimentRun, TrainingBudget, predicted_rows
from CACTrainingLib.evaluation.measures import ExperimentComparison
from CACTrainingLib.evaluation.papers import MARGIN
from CACTrainingLib.evaluation.study import PREDICTIONS, carry_out
from CACTrainingLib.radiograph import fitting
from CACTrainingLib.radiograph.fitting import RadiographFit
from CACTrainingLib.radiograph.prognosis import likely_category
from CACTrainingLib.radiograph.settings import BASE, PRESETS
from CACTrainingLib.radiograph.study import RadiographStudy, RadiographStudySettings

PATIENTS = 64

page_of = EXPERIMENTS["radiograph"].page


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 60)


@pytest.fixture
def settings(tmp_path):
    table = write_table(tmp_path / "own" / "radiographs.csv", PATIENTS)
    return RadiographStudySettings(table, tmp_path / "out", budget=TrainingBudget(3), names=("lateral",))


def rows_of(settings, name="validation"):
    """Return the cells of the table by predictor and threshold."""
    columns, *lines = table_of(settings, name)
    cells, title = {}, ""
    for line in lines:
        title = title if line[0].strip() in RadiographStudy.ROWS else line[0]
        cells[title, line[0].strip()] = dict(zip(columns, line, strict=True))
    return cells


@pytest.mark.long
def test_all_configurations_are_compared_with_the_base(settings, tmp_path):
    external = write_table(tmp_path / "other" / "radiographs.csv", 40, first=1000, seed=1)
    with pytest.raises(CTError, match="No training of densenet121 ended"):
        page_of(replace(settings, test=external, names=()))
    page = (settings.output / "study.html").read_text(encoding="utf-8")
    assert index_of(settings)["digital"]
    assert sections_of(settings) == ["results", "findings", "categories", "concordance", "data"]
    assert "there is no memory for it" in page  # a training that fails stops no other
    assert "for want of super-resolution: interpolated-none" in page
    rows = rows_of(settings)
    trained = {n for n, c in RadiographStudy.CONFIGURATIONS.items() if c.super_resolution == "none"}
    trained -= {"resnet18-pretrained", "densenet121-pretrained", "automatic-labels", "automatic-labels-curriculum"}
    assert {title for title, _ in rows} > trained
    assert not {title for title, _ in rows} & (set(RadiographStudy.CONFIGURATIONS) - trained)
    assert rows["densenet121", "densenet121"]["AUC"] == "0 of 3 folds"
    assert float(rows["lateral", "Mean"]["Difference"]) < 0
    assert float(rows["base with age, sex, BMI", "> 0"]["AUC"]) > 0.5
    assert float(rows["age, sex, BMI", "> 0"]["AUC"]) > 0.55  # age was drawn higher where there is calcium
    assert int(rows_of(settings, "test")["base", "> 0"]["AUC n"]) == 40
    published = "Published: Hong et al. 2025, image, ≥ 400"
    assert rows[published, published]["AUC"] == "0.79"
    findings = {row["Finding"]: row for row in csv_rows(settings.output / "tables" / "findings.csv")}
    area, added = findings["Area from the image, above 0"], findings["Age, sex and BMI add to the image, above 0"]
    assert (area["Here"], area["To exceed"]) == (rows["base", "> 0"]["AUC"], str(0.74 - MARGIN))
    assert added["Here"] == rows["base with age, sex, BMI", "> 0"]["Difference"]
    external = findings["The external patients confirm the area, above 0"]
    areas = [float(part["base with age, sex, BMI", "> 0"]["AUC"]) for part in (rows_of(settings, "test"), rows)]
    assert float(external["Here"]) == pytest.approx(areas[0] - areas[1])
    untested = findings["A light network trained from scratch surpasses a pretrained ResNet18"]
    assert untested["Verdict"] == "not tested"


def test_repeats_divide_the_patients_anew(settings):
    cohort = RadiographStudy.read(replace(settings, budget=TrainingBudget(3, repeats=2)), None).cohort
    for folds in (range(3), range(3, 6)):
        assert sorted(np.concatenate([cohort.validation(fold) for fold in folds])) == list(range(PATIENTS))
        for fold in folds:
            assert sorted([*cohort.validation(fold), *cohort.training(fold)]) == list(range(PATIENTS))
    assert set(cohort.validation(0)) != set(cohort.validation(3))


def test_without_trainings_and_factors_there_is_a_page(settings):
    write_table(settings.data, PATIENTS, factors=False)
    assert "No configuration was trained" in page_of(replace(settings, minutes=0))


def test_measures_of_one_fold_are_those_of_scikit_learn(settings):
    study = RadiographStudy.read(settings, None)
    cohort = study.cohort
    values = np.clip(cohort.score[:, None] / 1000 + np.random.default_rng(0).normal(0.4, 0.2, (PATIENTS, 3)), 0, 1)
    outcomes = study.outcomes(np.arange(PATIENTS), values)
    parts = [predicted_rows(cohort.scans, columns).assign(outcome=outcome) for outcome, columns in outcomes.items()]
    comparison = ExperimentComparison(cohort.patients, {}, np.random.default_rng(0))
    measured = {}
    for measure in study.measures(pd.concat(parts)):
        for outcome, rows in measure.rows.groupby("outcome"):
            measured[measure.title, outcome] = comparison.estimate(replace(measure, rows=rows), "model").value
    truth, probabilities = cohort.score >= 100, values[:, 1]
    is_positive = probabilities >= truth.mean()
    assert measured["AUC", "≥ 100"] == pytest.approx(roc_auc_score(truth, probabilities))
    assert measured["Sensitivity", "≥ 100"] == pytest.approx(is_positive[truth].mean())
    assert measured["Specificity", "≥ 100"] == pytest.approx(1 - is_positive[~truth].mean())
    assert measured["Brier score", "≥ 100"] == pytest.approx(brier_score_loss(truth, probabilities))
    category = [sum(s >= t for t in (1, 100, 400)) for s in cohort.score]
    agreement = cohen_kappa_score(category, likely_category(values), weights="linear")
    assert measured["κ", "Category"] == pytest.approx(agreement)
    (years, event), risk = study.events, values.sum(1)
    later = [(n, m) for n in np.flatnonzero(event) for m in range(PATIENTS) if years[m] > years[n]]
    assert measured["C", "Simulated events"] == pytest.approx(
        np.mean([np.heaviside(risk[n] - risk[m], 0.5) for n, m in later])
    )


@pytest.mark.parametrize("steps", [None, 90])
def test_all_configurations_learn_from_as_many_pictures_and_validations(steps):
    counts = set()
    for configuration in RadiographStudy.CONFIGURATIONS.values():
        training = configuration.fit_settings(TrainingBudget(steps=steps), "cpu").training
        validations = training.loop.steps // training.loop.validate_every
        counts.add((training.loop.steps * training.batch_size, validations, training.loop.patience))
    assert counts == {(44_000, 11, None) if steps is None else (360, 11, None)}


BUDGET = TrainingBudget(folds=3, steps=30)


@pytest.fixture
def study(drawn_folder, other_folder, tmp_path):
    """24 radiographs in three folds, and eight of another cohort."""
    settings = RadiographStudySettings(drawn_folder, tmp_path, other_folder, budget=BUDGET)
    return RadiographStudy.read(settings, Progress())


@pytest.fixture
def splits(monkeypatch):
    """Training and validation cases of networks, from trainings that end at once."""
    splits = []

    def fit(data, training, validation, settings, folder, progress):
        splits.append((training, validation))
        return RadiographFit(None, {}, SimpleNamespace(seconds=2.0), {})

    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(fitting, "predictions_of", lambda _, data, cases, *__: (np.full((len(cases), 3), 0.5),) * 2)
    return splits


def test_no_patient_is_on_two_sides_and_each_is_tested_once(study, splits, tmp_path):
    tested = []
    for fold in range(3):
        values = study.validate(ExperimentRun(BASE, fold), tmp_path)
        training, validation = splits[-1]
        rows = study.cohort.validation(fold).tolist()
        assert sorted([*training, *validation, *rows]) == list(range(24))
        assert [len(values[use]) for use in ("validation", "test")] == [len(rows), 8]
        tested += rows
    assert sorted(tested) == list(range(24))
    assert study.cohort.names(study.cohort.held_out) == [f"{TESTED}case_{number}" for number in range(100, 108)]


def test_a_study_runs_to_its_page(drawn_folder, other_folder, tmp_path, monkeypatch):
    """Real trainings of two steps."""
    preset = PRESETS["light"]
    short = replace(preset, training=replace(preset.training, finder_steps=2))
    monkeypatch.setitem(PRESETS, "light", short)
    budget = TrainingBudget(folds=2, steps=2)
    settings = RadiographStudySettings(drawn_folder, tmp_path / "out", other_folder)
    carry_out(RadiographStudy, replace(settings, names=("base",), budget=budget))
    tables = {file.stem for file in (settings.output / "tables").glob("*.csv")}
    assert {"validation", "test", "findings"} <= tables
    assert {row["model"] for row in csv_rows(settings.output / PREDICTIONS)} > {"base"}
