"""Studies of vessel regression and of radiomics: split, statistics, table, and unusable scans."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_experiments import EXPERIMENTS, RecordingTrainer, Warned, make_quick, table_of
from whole_scan_studies import fake_training, without_scans, write_table

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACTrainingLib.data.scan_table import TESTED, TOTAL, held_out, read_cts
from CACTrainingLib.evaluation.experiment import predicted_rows
from CACTrainingLib.evaluation.measures import ExperimentComparison
from CACTrainingLib.evaluation.study import PREDICTIONS
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudy, with_calls
from CACTrainingLib.whole_scan.vessels.study import VesselStudy

PATIENTS = 48


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, 200)
        yield


@pytest.fixture(params=["vessels", "radiomics"])
def study(request):
    return EXPERIMENTS[request.param]


@pytest.fixture
def settings(study, tmp_path):
    return study.settings(write_table(tmp_path / "own" / "table.csv", PATIENTS), tmp_path / "out")


@pytest.fixture(scope="module")
def vessel_settings(quick, tmp_path_factory):
    """Settings of a study of vessel regression that has its page."""
    folder = tmp_path_factory.mktemp("vessels")
    settings = EXPERIMENTS["vessels"].settings(write_table(folder / "table.csv", PATIENTS), folder / "out")
    EXPERIMENTS["vessels"].page(settings)
    return settings


@pytest.mark.parametrize(("study", "has_test"), [("vessels", False), ("radiomics", True)], indirect=["study"])
def test_nobody_is_both_learned_from_and_predicted(study, settings, has_test, tmp_path):
    expected = set(held_out(read_cts(settings.data)))
    if has_test:
        settings = replace(settings, test=write_table(tmp_path / "other" / "table.csv", 8, PATIENTS))
        expected = {f"{TESTED}p{n}" for n in range(PATIENTS, PATIENTS + 8)}
    trainer = RecordingTrainer(fake_training)
    study.page(replace(settings, budget=replace(settings.budget, seed=5)), trainer)
    cohort = trainer.study.cohort
    assert set(cohort.names(cohort.held_out)) == expected, "whatever the seed"
    validated = []
    for fold in range(2):
        training, validation = set(cohort.training(fold)), set(cohort.validation(fold))
        assert not (training & validation) | (training | validation) & set(cohort.held_out)
        validated += validation
    assert sorted([*validated, *cohort.held_out]) == list(range(len(cohort.scans)))


def test_models_are_compared_with_age_sex_and_heart_size(vessel_settings):
    """One network predicts the truth with little noise, the other with much."""
    columns, *lines = table_of(vessel_settings, "test")
    rows = {line[0]: line for line in lines}
    good, bad = rows["Voxel sum, logarithm"], rows["CNN, logarithm"]
    rank, difference = columns.index("Rank correlation"), columns.index("Difference")
    assert float(good[rank]) > 0.9 > float(bad[rank])
    assert int(float(good[rank + 3])) == len(held_out(read_cts(vessel_settings.data)))
    factors = float(rows["Age, sex, heart size, logarithm"][rank])
    assert float(good[difference]) == pytest.approx(float(good[rank]) - factors)
    assert rows["Always the mean"][rank] in ("", "nan")
    assert rows["Published: Kecoglu, CNN"][columns.index("Squared error, ‰")] == "8.4"


def test_the_first_table_has_the_errors_of_the_models_of_the_folds(vessel_settings):
    table = pd.read_csv(vessel_settings.output / PREDICTIONS)
    scores = {part: table[[f"{part}_{artery}" for artery in ARTERIES]].to_numpy() for part in ("true", "predicted")}
    largest = table.loc[table.use != "test", [f"true_{artery}" for artery in ARTERIES]].to_numpy().max()
    table["error"] = (((scores["predicted"] - scores["true"]) / largest) ** 2).mean(1)
    columns, *rows = table_of(vessel_settings, "table_1")
    assert columns == ["Model", "Training", "Validation", "Test"]
    cells = {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
    for model in ("CNN, logarithm", "Voxel sum, logarithm"):
        for use in columns[1:]:
            part = table[(table.model == model) & (table.use == use.lower())]
            folds = [part[part.fold == fold].error.mean() for fold in (1, 2)]
            mean, spread = map(float, cells[model][use].split(" ± "))
            assert [mean, spread] == pytest.approx([np.mean(folds), abs(folds[0] - folds[1]) / 2], abs=2e-4)
    assert cells["Published: SE-CNN, Kecoglu 2025"]["Training"] == "0.0068 ± 0.0038"
    assert not any("training" in row for row in table_of(vessel_settings, "validation"))


def test_a_grid_trains_each_network_with_all_settings(vessel_settings):
    settings = replace(vessel_settings, grid=True, names=("cnn-linear", "vit-linear"))
    study = VesselStudy.read(settings, Progress())
    assert len(study.configurations) == 2 * 12 == len({configuration.title for configuration in study.configurations})
    trainings = [c.fit_settings(settings.budget).training for c in study.configurations if c.kind == "vit"]
    tuned = {(t.batch_size, t.learning_rate, t.weight_decay) for t in trainings}
    assert tuned == set(itertools.product((8, 32), (1e-4, 3e-4, 1e-3), (1e-4, 1e-2)))


def test_scans_that_cannot_be_used(study, settings, monkeypatch):
    write_table(settings.data, PATIENTS, contrast=4)
    without_scans(monkeypatch, ("p6",))
    progress = Warned()
    assert "its heart was not found" in study.page(settings, progress=progress)
    assert [warning.message for warning in progress.warnings] == [
        f"4 scans of {settings.data} are left out: they are contrast-enhanced."
    ]
    names = (settings.output / PREDICTIONS).read_text(encoding="utf-8")
    assert not any(f",p{n}," in names for n in (0, 1, 2, 3, 6))


def test_a_test_of_enhanced_scans_alone_is_refused(settings, tmp_path):
    enhanced = write_table(tmp_path / "enhanced" / "table.csv", 8, PATIENTS, contrast=8)
    with pytest.raises(CTError, match="holds no scan without contrast agent"):
        replace(settings, test=enhanced).read(TOTAL, Progress())


SCANS = [SimpleNamespace(patient=f"p{n}", name=f"s{n}") for n in range(12)]


def values(kind, truth, predicted, **of_study):
    study = SimpleNamespace(truth=truth, **of_study)
    columns = kind.outcomes(study, np.arange(len(truth)), predicted)[""]
    measures = kind.measures(study, predicted_rows(SCANS[: len(truth)], columns))
    comparison = ExperimentComparison([scan.patient for scan in SCANS], {}, np.random.default_rng(0))
    return {measure.title: comparison.averaged(measure, "model").values[0] for measure in measures}


def test_calcium_or_none():
    truth = np.array([True, True, True, False, False] * 2)
    predicted = with_calls(np.array([0.9, 0.8, 0.3, 0.4, 0.1] * 2), 0.35)
    results = values(RadiomicsStudy, truth, predicted)
    expected = {"AUC": 5 / 6, "Sensitivity": 2 / 3, "Specificity": 1 / 2, "Accuracy": 3 / 5}
    assert results == pytest.approx(expected)


def test_scores():
    truth = np.zeros((12, 4))
    truth[:, 1] = [0, 0, 0, 50, 50, 50, 150, 150, 150, 500, 500, 500]
    predicted = truth + np.array([0, 10, 0, 0])
    # A quarter, without calcium, is predicted one category too high; chance is the mean distance of categories drawn
    # from equal quarters and from (0, 1/2, 1/4, 1/4).
    first, second, distance = (
        np.full(4, 0.25),
        np.array([0, 0.5, 0.25, 0.25]),
        np.abs(np.subtract.outer(range(4), range(4))),
    )
    results = values(VesselStudy, truth, predicted, scale=500)
    assert results == pytest.approx(
        {
            "Rank correlation": 1,
            "Mean absolute error": 10,
            "Squared error, ‰": 1000 * (10 / 500) ** 2 / 4,
            "κ of categories": 1 - 0.25 / (first @ distance @ second),
        }
    )
