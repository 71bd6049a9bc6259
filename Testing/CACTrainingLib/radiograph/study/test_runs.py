"""Training of the study: its split into training, validation and test, and its settings."""

import numpy as np
import pytest

from CACScoringLib.core.progress import Progress
from CACTrainingLib.data.scan_table import TESTED
from CACTrainingLib.evaluation.experiment import ExperimentRun, ExperimentSettings, TrainingBudget
from CACTrainingLib.radiograph import (
    fitting,
    train,  # noqa: F401 - else first imported while `fit` is replaced, which it would keep
)
from CACTrainingLib.radiograph.study.study import BASE, RadiographStudy

BUDGET = TrainingBudget(folds=3, steps=30)


@pytest.fixture
def study(drawn_folder, write_cases, tmp_path):
    """24 radiographs in three folds, and eight of another cohort."""
    write_cases(tmp_path / "other", 8, ("PA",), first=100)
    settings = ExperimentSettings(drawn_folder, tmp_path, tmp_path / "other", budget=BUDGET)
    return RadiographStudy.read(settings, Progress())


@pytest.fixture
def splits(monkeypatch):
    """Training and validation cases of networks, from trainings that end at once."""
    splits = []

    def fit(data, training, validation, settings, folder):
        splits.append((training, validation))
        return None, {}, type("Outcome", (), {"seconds": 2.0}), {}

    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(fitting, "predictions_of", lambda _, data, cases, *__: (np.full((len(cases), 3), 0.5),) * 2)
    return splits


def test_no_patient_is_on_two_sides_and_each_is_tested_once(study, splits, tmp_path):
    tested = []
    for fold in range(3):
        values = study.train(ExperimentRun(BASE, fold), tmp_path)
        training, validation = splits[-1]
        rows = study.cohort.validation(fold).tolist()
        assert sorted([*training, *validation, *rows]) == list(range(24))
        assert [len(values[use]) for use in ("validation", "test")] == [len(rows), 8]
        tested += rows
    assert sorted(tested) == list(range(24))
    assert study.cohort.names(study.cohort.held_out) == [f"{TESTED}case_{number}" for number in range(100, 108)]
