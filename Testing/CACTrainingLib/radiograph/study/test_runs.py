"""Training of the study: its split into training, validation and test, and its settings."""

from dataclasses import replace

import numpy as np
import pytest

from CACTrainingLib.evaluation.experiment import ExperimentRun, TrainingBudget
from CACTrainingLib.radiograph import fitting
from CACTrainingLib.radiograph.study.runs import BASE, CONFIGURATIONS, RadiographData, fit_settings, trainer
from CACTrainingLib.radiograph.train import PRESETS

BUDGET = TrainingBudget(folds=3, steps=30)


@pytest.fixture
def data(drawn_folder, write_cases, tmp_path):
    """24 radiographs in three folds, and eight of another cohort."""
    write_cases(tmp_path / "other", 8, ("PA",), first=100)
    folds = tuple(number // 4 % 3 for number in range(24))
    return RadiographData(drawn_folder, folds, tmp_path / "other", tmp_path, "cpu")


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


def test_no_patient_is_on_two_sides_and_each_is_tested_once(data, splits):
    train, tested = trainer(data, BUDGET), []
    for fold in range(3):
        names = train(ExperimentRun(BASE, fold))["names"]
        training, validation = splits[-1]
        cases = [int(name.removeprefix("case_")) for name in names]
        assert sorted([*training, *validation, *cases]) == list(range(24))
        tested += cases
    assert sorted(tested) == list(range(24))


def test_settings_follow_the_configuration():
    base = fit_settings(BASE, BUDGET, "cpu")
    assert base.training.loop.steps == 30
    assert min(base.training.scaled_share, base.training.locate_weight) > 0
    weak = next(
        configuration for configuration in CONFIGURATIONS if configuration.name == "automatic-labels-curriculum"
    )
    training = fit_settings(weak, BUDGET, "cpu").training
    assert training.label == "agatston_automatic"
    assert training.scaled_share == training.locate_weight == 0
    assert training.curriculum
    proportion = PRESETS["resnet18"].training.loop.steps / PRESETS["light"].training.loop.steps
    published = fit_settings(replace(BASE, backbone="resnet18"), BUDGET, "cpu")
    assert published.training.loop.steps == round(30 * proportion)
