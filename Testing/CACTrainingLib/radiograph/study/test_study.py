"""The study of radiographs as a whole, with trainings that are made up: what is kept, shown, and gone on with."""

import json
from dataclasses import replace

import pytest
from made_experiments import EXPERIMENTS, Counting, Warned, make_quick
from radiograph_study import fake_trainer, write_table

from CACTrainingLib.experiments.engine import PREDICTIONS, Experiment
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.radiograph.events import PROBABILITIES
from CACTrainingLib.radiograph.study import calibration as study_calibration
from CACTrainingLib.radiograph.study.configurations import RadiographBudget
from CACTrainingLib.radiograph.study.study import RadiographStudySettings

PATIENTS = 64


page_of = EXPERIMENTS["radiograph"].page


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 60)


@pytest.fixture
def settings(tmp_path):
    table = write_table(tmp_path / "own" / "radiographs.csv", PATIENTS)
    return RadiographStudySettings(table, tmp_path / "out", budget=RadiographBudget(3))


def test_the_whole_page(settings, tmp_path):
    other = write_table(tmp_path / "other" / "radiographs.csv", 40, first=1000, seed=1)
    progress = Warned()
    page = page_of(replace(settings, external=other), progress=progress)
    for title in (
        "Thresholds",
        "Against the calcium",
        "Calibration",
        "Fusion",
        "Capacity",
        "Counterfactual pairs",
        "Curriculum",
    ):
        assert title in page
    assert "Super-resolution × contrast" in page
    assert "judged once by 40 patients" in page
    assert "No real radiograph whose calcium is known was available." in page
    assert "Digital patients: no figure here says how the method does in patients." in page
    # One backbone does not fit into memory: it is said, and stops nothing else.
    assert "there is no memory for it" in page
    assert any("there is no memory for it" in warning.message for warning in progress.warnings)
    assert "not run" in page
    index = json.loads((settings.output / "study.json").read_text(encoding="utf-8"))
    assert {section["name"] for section in index["sections"]} >= {
        "thresholds",
        "strata",
        "external",
        "super_resolution",
    }
    for published in ("0.74", "0.75", "0.79", "0.77", "0.82", "0.754", "0.78", "0.81"):
        assert f">{published}</span>" in page
    matrix = (settings.output / "tables" / "sharpening_matrix.csv").read_text(encoding="utf-8").splitlines()
    assert len(matrix) == 4
    assert matrix[1].count(",") == 16  # four ways, each with its interval and n


def test_what_is_kept_is_not_trained_again(settings):
    first, again = Counting(fake_trainer), Counting(fake_trainer)
    page_of(replace(settings, tables=("fusion",)), first)
    assert len(first.done) == 9
    page_of(replace(settings, tables=("fusion", "capacity")), again)
    assert {run.configuration.backbone for run in again.done} == {"light", "resnet18", "densenet121"}
    assert not set(again.done) & set(first.done)


def test_without_time_there_is_a_page_of_what_is_there(settings):
    page_of(replace(settings, tables=("thresholds",)))
    counting = Counting(fake_trainer)
    page = page_of(replace(settings, tables=("thresholds", "fusion"), minutes=0), counting)
    assert not counting.done
    assert "not run" in page
    assert "Trainings that failed" not in page
    empty = page_of(replace(settings, output=settings.output / "new", minutes=0), counting)
    assert "Nothing of this was trained yet." in empty
    assert not counting.done


def test_a_training_half_done_is_not_compared(settings):
    page_of(replace(settings, tables=("fusion",)))
    kept = settings.output / Experiment.KEPT
    lines = kept.read_text(encoding="utf-8").splitlines()
    lateral = [line for line in lines if '\\"views\\": [\\"lateral\\"]' in line]
    kept.write_text("\n".join(line for line in lines if line not in lateral[1:]) + "\n{torn", encoding="utf-8")
    page = page_of(replace(settings, tables=("fusion",), minutes=0))
    assert "1 of 3 folds" in page
    assert "1 of 3 ways to train were not run, or not to the end." in page


def test_fewer_folds_are_said(settings):
    page = page_of(replace(settings, tables=("fusion",), budget=RadiographBudget(4, {"fusion": 2})))
    assert "2 of 4 folds were trained of each." in page
    assert "4 folds; of these trained: fusion 2" in page


def test_predictions_of_every_patient(settings):
    page_of(replace(settings, tables=("thresholds",)))
    lines = (settings.output / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    assert len(lines) == PATIENTS + 1
    columns = lines[0].split(",")
    assert set(PROBABILITIES) <= set(columns)
    assert {line.split(",")[columns.index("sex")] for line in lines[1:]} == {"F", "M"}


def test_own_radiographs_have_no_counterfactual_pairs_and_no_truth(tmp_path):
    table = write_table(tmp_path / "own" / "table.csv", PATIENTS, factors=False, digital=False)
    page = page_of(
        RadiographStudySettings(
            table, tmp_path / "out", tables=("fusion", "counterfactual_pairs"), budget=RadiographBudget(3)
        )
    )
    assert "Digital patients" not in page
    assert "Counterfactual pairs" not in page
    assert "truly there" not in page
    assert "natural mix" not in page.lower()
    assert "Clinical factors alone" not in page


def test_probabilities_of_the_natural_mix_sum_to_one():
    assert sum(study_calibration.NATURAL_MIX) == pytest.approx(1)


def test_an_external_cohort_of_the_same_patients_is_refused(settings, tmp_path):
    same = write_table(tmp_path / "same" / "radiographs.csv", 10, first=5)
    with pytest.raises(StudyError, match="Patient 10 is in the external cohort too"):
        page_of(replace(settings, external=same))
    with pytest.raises(StudyError, match="--external"):
        page_of(replace(settings, tables=("external",)))
