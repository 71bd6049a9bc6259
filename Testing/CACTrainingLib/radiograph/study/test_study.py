"""The study of radiographs as a whole, with trainings that are made up: what is kept, shown, and gone on with."""

from dataclasses import replace

import pytest
from made_experiments import EXPERIMENTS, Counting, Warned, index_of, make_quick, sections_of, table_of
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
    assert "40 patients" in page
    assert index_of(settings)["digital"]
    # One backbone does not fit into memory: it is said, and stops nothing else.
    assert "there is no memory for it" in page
    assert {warning.code for warning in progress.warnings} == {"training-failed"}
    assert "not run" in page
    assert sections_of(settings) == [
        "data",
        "thresholds",
        "strata",
        "calibration",
        "fusion",
        "capacity",
        "counterfactual_pairs",
        "curriculum",
        "super_resolution",
        "external",
    ]
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
    assert not any("tables/failed.csv" in section["tables"] for section in index_of(settings)["sections"])
    new = replace(settings, output=settings.output / "new", minutes=0)
    page_of(new, counting)
    assert not (new.output / "tables" / "thresholds_auc.csv").exists()
    assert not counting.done


def test_a_training_half_done_is_not_compared(settings):
    page_of(replace(settings, tables=("fusion",)))
    kept = settings.output / Experiment.KEPT
    lines = kept.read_text(encoding="utf-8").splitlines()
    lateral = [line for line in lines if '\\"views\\": [\\"lateral\\"]' in line]
    kept.write_text("\n".join(line for line in lines if line not in lateral[1:]) + "\n{torn", encoding="utf-8")
    page = page_of(replace(settings, tables=("fusion",), minutes=0))
    assert "1 of 3 folds" in page
    assert page.count("1 of 3 ") == 2  # a fold of three, and a configuration of three


def test_fewer_folds_are_said(settings):
    page = page_of(replace(settings, tables=("fusion",), budget=RadiographBudget(4, {"fusion": 2})))
    assert "2 of 4 folds" in page
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
    settings = RadiographStudySettings(
        table, tmp_path / "out", tables=("fusion", "counterfactual_pairs"), budget=RadiographBudget(3)
    )
    page_of(settings)
    assert not index_of(settings)["digital"]
    assert {"counterfactual_pairs", "strata"}.isdisjoint(sections_of(settings))
    assert not any("natural mix" in column for column in table_of(settings, "predictive")[0])
    assert "Clinical factors alone" not in {row[0].strip() for row in table_of(settings, "thresholds_auc")}


def test_probabilities_of_the_natural_mix_sum_to_one():
    assert sum(study_calibration.NATURAL_MIX) == pytest.approx(1)


def test_an_external_cohort_of_the_same_patients_is_refused(settings, tmp_path):
    same = write_table(tmp_path / "same" / "radiographs.csv", 10, first=5)
    with pytest.raises(StudyError, match="Patient 10 is in the external cohort too"):
        page_of(replace(settings, external=same))
    with pytest.raises(StudyError, match="--external"):
        page_of(replace(settings, tables=("external",)))
