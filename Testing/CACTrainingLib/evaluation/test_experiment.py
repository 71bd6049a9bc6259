"""Studies of trainings: refused settings; stored results are not trained again, and failed runs stop nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_experiments import EXPERIMENTS, RecordingTrainer, Warned, make_quick
from study_tables import csv_rows

from CACScoringLib.core.errors import CTError, OutputError
from CACTrainingLib.evaluation.experiment import Experiment, TrainingBudget
from CACTrainingLib.evaluation.study import PREDICTIONS, carry_out, running_folder

PATIENTS = 64


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 20)


@pytest.fixture
def experiment(request):
    return EXPERIMENTS[getattr(request, "param", "vessels")]


@pytest.fixture
def settings(experiment, tmp_path):
    return experiment.settings(experiment.write_table(tmp_path / "own" / "table.csv", PATIENTS), tmp_path / "out")


def tables(settings):
    return {file.name: file.read_bytes() for file in (settings.output / "tables").iterdir()}


def test_what_is_kept_is_not_trained_again_and_another_table_is(experiment, settings, tmp_path):
    first, again, repeated, reseeded, other = (RecordingTrainer(experiment.training) for _ in range(5))
    experiment.page(settings, first)
    assert len(first.done) == len(set(first.done)) > 2
    written = tables(settings)
    experiment.page(settings, again)
    assert not again.done
    assert tables(settings) == written
    experiment.page(replace(settings, budget=replace(settings.budget, repeats=2)), repeated)
    assert len(repeated.done) == len(first.done)
    assert not set(repeated.done) & set(first.done), "further repeats train no model again"
    experiment.page(replace(settings, budget=replace(settings.budget, seed=1)), reseeded)
    assert set(reseeded.done) == set(first.done)
    experiment.page(replace(settings, data=experiment.write_table(tmp_path / "two" / "table.csv", PATIENTS, 8)), other)
    assert set(other.done) == set(first.done)


def test_without_time_there_is_a_page_of_what_is_there(experiment, settings):
    experiment.page(settings)
    written, recorder, progress = tables(settings), RecordingTrainer(experiment.training), Warned()
    experiment.page(replace(settings, minutes=0), recorder)
    assert tables(settings) == written
    experiment.page(replace(settings, output=settings.output / "new", minutes=0), recorder, progress)
    assert not recorder.done
    assert not progress.warnings
    assert not (settings.output / "new" / "tables" / "failed.csv").exists()


def test_a_run_that_fails_stops_no_other_and_is_tried_again(experiment, settings):
    first, again = (
        RecordingTrainer(experiment.training, lambda run: run.fold == 1),
        RecordingTrainer(experiment.training),
    )
    progress = Warned()
    with pytest.raises(CTError, match=r"Not every training of .* ended: there is no memory for it"):
        experiment.page(settings, first, progress)
    assert "there is no memory for it" in (settings.output / "study.html").read_text(encoding="utf-8")
    assert [warning.code for warning in progress.warnings] == ["training-failed"]
    failed = csv_rows(settings.output / "tables" / "failed.csv")
    assert {row["Why"] for row in failed} == {"there is no memory for it"}
    experiment.page(settings, again)
    assert set(again.done) == {run for run in first.done if run.fold == 1}
    assert not (settings.output / "tables" / "failed.csv").exists()


def test_a_configuration_that_cannot_be_trained_ends_with_an_error_and_a_page(experiment, settings):
    trainer = RecordingTrainer(experiment.training, lambda run: run.configuration == trainer.study.configurations[0])
    with pytest.raises(CTError, match=r"No training of .* ended: there is no memory for it"):
        experiment.page(settings, trainer)
    assert (settings.output / "study.html").is_file()
    models = {row["model"] for row in csv_rows(settings.output / PREDICTIONS)}
    titles = [configuration.title for configuration in trainer.study.configurations]
    assert [title in models for title in titles] == [False, True]


@pytest.mark.parametrize("experiment", EXPERIMENTS, indirect=True)
def test_predictions_of_every_patient(experiment, settings):
    experiment.page(settings)
    predicted = csv_rows(settings.output / PREDICTIONS)
    assert {row["scan"] for row in predicted} == {f"p{n}" for n in range(PATIENTS)}


def test_an_output_that_is_a_file_is_refused(experiment, settings):
    settings.output.write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="--output"):
        experiment.page(settings)


def test_a_training_that_was_ended_finds_its_folder_again(tmp_path):
    def end():
        with running_folder(tmp_path, "key") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        end()
    with running_folder(tmp_path, "key") as again:
        assert (again / "half").exists()
    assert not again.exists()


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        ("radiomics", {"budget": TrainingBudget(folds=1)}, "2 folds or more"),
        ("vessels", {"budget": TrainingBudget(repeats=0)}, "one cross-validation or more"),
        ("radiograph", {"names": ("odd",)}, "no configuration 'odd'"),
        ("radiograph", {"pretrained": {"light": Path()}}, "no pretrained weights for 'light'"),
        ("radiograph", {"pretrained": {"resnet18": Path("nowhere.pth")}}, "nowhere.pth do not exist"),
        ("vessels", {"preset": "huge"}, "no preset 'huge'"),
    ],
)
def test_settings_that_cannot_be(experiment, changes, message, tmp_path):
    kind = EXPERIMENTS[experiment].kind
    with pytest.raises(CTError, match=message):
        carry_out(kind, kind.SETTINGS(tmp_path, tmp_path, **changes))


def test_the_cost_is_that_of_missing_trainings_and_a_long_study_asks(experiment, settings, monkeypatch):
    questions, trainer, notes = [], RecordingTrainer(experiment.training), []
    progress = Warned()
    monkeypatch.setattr(progress, "note", notes.append)
    with pytest.raises(OutputError, match="was not begun"):
        experiment.page(settings, trainer, progress, lambda question: questions.append(question), 1800.0)
    assert not trainer.done
    assert questions == ["These trainings take 2 h 0 min."]
    assert "4 trainings, estimated time 2 h 0 min. " in notes[0], "two configurations in two folds"
    experiment.page(settings, trainer, progress, lambda question: True, 1800.0)
    assert len(trainer.done) == 4
    experiment.page(settings, trainer, progress, lambda question: pytest.fail("nothing is left to train"), 1800.0)
    experiment.page(replace(settings, output=settings.output / "new"), trainer, progress, pytest.fail, 30.0)
    assert "4 trainings, estimated time 2 min" in notes[-1]


def test_the_power_of_a_study_is_of_its_patients(experiment, settings):
    page = experiment.page(settings)
    n_tested = len({row["patient"] for row in csv_rows(settings.output / PREDICTIONS) if row["use"] == "test"})
    assert f"{PATIENTS - n_tested} patients, " in page
    assert "with a power of 80 %" in page


def test_patients_of_one_class_have_no_power():
    cohort = SimpleNamespace(folds=np.zeros((4, 1), int), score=np.full(4, 9.0), patients=list("abcd"))
    sentence = Experiment.power(SimpleNamespace(cohort=cohort))
    assert sentence.startswith("4 patients with calcium and 0 without")
