"""Studies of vessel regression and of radiomics: split, table, and unusable scans."""

from dataclasses import replace

import pytest
from made_experiments import EXPERIMENTS, RecordingTrainer, make_quick, table_of
from whole_scan_studies import fake_training, without_scans, write_table

from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.evaluation.experiment import PREDICTIONS

PATIENTS = 48


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch, 200)


@pytest.fixture(params=["vessels", "radiomics"])
def study(request):
    return EXPERIMENTS[request.param]


@pytest.fixture
def settings(study, tmp_path):
    return study.settings(write_table(tmp_path / "own" / "table.csv", PATIENTS), tmp_path / "out")


@pytest.fixture
def vessel_settings(tmp_path):
    return EXPERIMENTS["vessels"].settings(write_table(tmp_path / "own" / "table.csv", PATIENTS), tmp_path / "out")


def rows_of(settings):
    return {row[0]: row for row in table_of(settings, "test")}


def test_nobody_is_both_learned_from_and_predicted(study, settings):
    trainer = RecordingTrainer(fake_training)
    study.page(replace(settings, budget=replace(settings.budget, seed=5)), trainer)
    cohort = trainer.study.cohort
    assert set(cohort.names(cohort.held_out)) == set(held_out(read_cts(settings.data))), "whatever the seed"
    validated = []
    for fold in range(2):
        training, validation = set(cohort.training(fold)), set(cohort.validation(fold))
        assert not (training & validation) | (training | validation) & set(cohort.held_out)
        validated += validation
    assert sorted([*validated, *cohort.held_out]) == list(range(PATIENTS))


def test_models_are_compared_with_age_sex_and_heart_size(vessel_settings):
    """One network predicts the truth with little noise, the other with much."""
    settings = vessel_settings
    EXPERIMENTS["vessels"].page(settings)
    rows = rows_of(settings)
    columns = table_of(settings, "test")[0]
    good, bad = rows["Voxel sum, logarithm"], rows["CNN, logarithm"]
    rank, difference = columns.index("Rank correlation"), columns.index("Difference")
    assert float(good[rank]) > 0.9 > float(bad[rank])
    assert int(float(good[rank + 3])) == len(held_out(read_cts(settings.data)))
    factors = float(rows["Age, sex, heart size, logarithm"][rank])
    assert float(good[difference]) == pytest.approx(float(good[rank]) - factors)
    assert rows["Always the mean"][rank] in ("", "nan")
    assert rows["Published: Kecoglu, best of CNN, SE-CNN and ViT"][columns.index("Squared error, ‰")] == "8.4"


def test_scans_that_cannot_be_used(study, settings, monkeypatch):
    write_table(settings.data, PATIENTS, contrast=4)
    without_scans(monkeypatch, ("p6",))
    assert "its heart was not found" in study.page(settings)
    names = (settings.output / PREDICTIONS).read_text(encoding="utf-8")
    assert not any(f",p{n}," in names for n in (0, 1, 2, 3, 6))
