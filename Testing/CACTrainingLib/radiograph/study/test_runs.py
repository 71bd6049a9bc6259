"""Training of the study: its split into training, validation and test, and its settings."""

from dataclasses import replace

import numpy as np
import pytest

from CACScoringLib.core.progress import Progress
from CACTrainingLib.evaluation.experiment import HELD_OUT, ExperimentRun, TrainingBudget
from CACTrainingLib.radiograph import fitting
from CACTrainingLib.radiograph.study.runs import BASE, CONFIGURATIONS, fit_settings
from CACTrainingLib.radiograph.study.study import RadiographStudy, RadiographStudySettings
from CACTrainingLib.radiograph.train import PRESETS

BUDGET = TrainingBudget(folds=3, steps=30)


@pytest.fixture
def study(drawn_folder, write_cases, tmp_path):
    """24 radiographs in three folds, and eight of another cohort."""
    write_cases(tmp_path / "other", 8, ("PA",), first=100)
    settings = RadiographStudySettings(drawn_folder, tmp_path, BUDGET, external=tmp_path / "other")
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
        names = study.train(ExperimentRun(BASE, fold), tmp_path)["names"]
        training, validation = splits[-1]
        cases = [int(name.removeprefix("case_")) for name in names]
        assert sorted([*training, *validation, *cases]) == list(range(24))
        tested += cases
    assert sorted(tested) == list(range(24))
    external = study.train(ExperimentRun(BASE, HELD_OUT), tmp_path)["names"]
    assert external == [f"case_{number}" for number in range(100, 108)]
    assert sorted(case for part in splits[-1] for case in part) == list(range(24))


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
