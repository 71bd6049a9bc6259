"""Fit of one fold on synthetic radiographs, splits, and calibration and fusion of known coefficients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from interruption import interrupted_at

from CACScoringLib.networks.configs import RadiographNetConfig
from CACTrainingLib.radiograph.dataset import NONE, PATIENTS
from CACTrainingLib.radiograph.fitting import FitSettings, fit, fit_calibration, validation_split
from CACTrainingLib.radiograph.task import (
    SEVERE_FIRST,
    Pictures,
    RadiographTask,
    RadiographTraining,
    ViewAugmentation,
    augment,
)
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.training.run_folder import CHECKPOINT

TRAINING = RadiographTraining(
    LoopSettings(60, validate_every=20, average=0.9, half_precision=False),
    batch_size=8,
    learning_rate=5e-3,
    finder_steps=5,
)
SETTINGS = FitSettings(RadiographNetConfig(size=32, width=6), TRAINING, "cpu")
SHORT = replace(SETTINGS, training=replace(TRAINING, loop=replace(TRAINING.loop, steps=8, validate_every=4)))


@pytest.fixture(scope="module")
def split(drawn):
    return validation_split(drawn, 0.5, 0, "agatston")


def test_no_patient_is_on_both_sides(drawn):
    shared = replace(drawn, patients=np.arange(24) // 2)  # two radiographs of each patient
    cases = np.arange(4, 24)
    training, validation = validation_split(shared, 0.25, 0, "agatston", cases)
    assert sorted([*training, *validation]) == cases.tolist()
    assert not set(shared.patients[training]) & set(shared.patients[validation])


@pytest.mark.long
def test_an_ended_training_goes_on_as_if_nothing_had_happened(drawn, split, tmp_path):
    complete, *_ = fit(drawn, *split, SHORT, tmp_path / "complete")
    with interrupted_at(RadiographTask, "step", 7), pytest.raises(KeyboardInterrupt):
        fit(drawn, *split, SHORT, tmp_path / "ended")
    assert (tmp_path / "ended" / CHECKPOINT).exists()
    again, *_ = fit(drawn, *split, SHORT, tmp_path / "ended")
    for name, weights in complete.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weights, rtol=0, atol=0)


def test_a_curriculum_begins_with_severe_calcium(drawn):
    settings = replace(TRAINING, curriculum=SEVERE_FIRST, drawn_share=0.0)
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), settings)
    generator = np.random.default_rng(0)
    least = [{s for s in pictures.draw(generator, 300, part)[1] if s > 0} for part in (0.0, 0.2, 0.5)]
    assert min(least[0]) >= 400
    assert 100 <= min(least[1]) < 400
    assert 0 < min(least[2]) < 100


def test_pictures_are_drawn_with_other_calcium_and_less_as_training_goes_on(drawn):
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), replace(TRAINING, scale_spread=0.0))
    cases, scores = pictures.draw(np.random.default_rng(0), 200, 1.0)
    numbers = [number for _, calcium in cases for number in calcium]
    assert len(numbers) == 200
    assert {PATIENTS, NONE, 0} == set(numbers)
    scored = drawn.scores["agatston"]
    expected = [
        {PATIENTS: scored[case], NONE: 0.0, 0: 200.0}[number] for (case, _), number in zip(cases, numbers, strict=True)
    ]
    np.testing.assert_allclose(scores, expected)
    squares, maps = augment(drawn, cases[:6], [0], RadiographNetConfig(size=320), ViewAugmentation(), PICTURES)
    assert squares.shape == (6, 1, 320, 320)
    assert [bool(m.max() > 1) for m in maps] == [score > 0 for score in scores[:6]]


PICTURES = np.random.default_rng(3)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def patients(count, seed):
    """Simulate factors, a logit and a score with log odds 0.8 logit + 0.08 (age - 60) + 0.6 (male) - 0.3."""
    generator = np.random.default_rng(seed)
    factors = np.column_stack(
        [generator.normal(60, 10, count), generator.integers(0, 2, count), generator.normal(27, 5, count)]
    )
    logit = generator.normal(0, 1.5, count)
    odds = 0.8 * logit + 0.08 * (factors[:, 0] - 60) + 0.6 * factors[:, 1] - 0.3
    return factors, logit, (generator.random(count) < sigmoid(odds)) * 50.0


def test_known_coefficients_are_recovered():
    train_factors, _, train_scores = patients(20000, 0)
    factors, logit, scores = patients(20000, 1)
    calibration = fit_calibration((0,), train_scores, train_factors, logit[:, None], scores, factors)["factors_0"]
    np.testing.assert_allclose(
        [calibration[name] for name in ("logit", "age_years", "male", "bmi_kg_m2")], [0.8, 0.08, 0.6, 0], atol=0.06
    )
    assert abs(calibration["offset"] - (-0.3 - 0.08 * 60)) < 0.4
