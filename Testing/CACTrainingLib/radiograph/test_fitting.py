"""One fold on radiographs drawn by hand, and the splits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from CACScoringLib.networks.radiograph import RadiographNetConfig
from CACTrainingLib.data.datasets import DataError
from CACTrainingLib.radiograph.fitting import FitSettings, cross_validate, fit_fold, folds, validation_split
from CACTrainingLib.radiograph.task import SEVERE_FIRST, Pictures, RadiographTask, RadiographTraining
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.training.run_folder import CHECKPOINT, TrainingError

TRAINING = RadiographTraining(
    LoopSettings(60, validate_every=20, average=0.9, half_precision=False),
    batch_size=8,
    learning_rate=5e-3,
    finder_steps=5,
)
SETTINGS = FitSettings(RadiographNetConfig(size=32, width=6, dropout=0.0), TRAINING, "cpu")
SHORT = replace(SETTINGS, training=replace(TRAINING, loop=replace(TRAINING.loop, steps=8, validate_every=4)))


@pytest.fixture(scope="module")
def parts(drawn):
    return folds(drawn, 2, 0)


def test_it_learns_what_is_there(drawn, parts, tmp_path):
    settings = replace(SETTINGS, training=replace(TRAINING, finder_steps=0))
    one = fit_fold(drawn, parts[0].training, parts[0].validation, parts[0].test, settings, tmp_path)
    assert one.metrics["image_auc_from_400"] > 0.8
    assert one.image.shape == one.logits.shape == (len(parts[0].test), 3)
    assert np.isnan(one.fused).all()  # too few patients to tell what factors do
    assert one.steps == 60


def test_each_patient_is_tested_once_and_never_split(drawn):
    shared = replace(drawn, patients=np.arange(24) // 2)  # two radiographs of each patient
    parts = folds(shared, 3, 0)
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(24))
    for part in parts:
        uses = [set(shared.patients[cases]) for cases in (part.training, part.validation, part.test)]
        assert all(uses)
        assert len(set.union(*uses)) == sum(map(len, uses))
    split = validation_split(shared, 0.25, 0)
    assert not set(shared.patients[split.training]) & set(shared.patients[split.validation])


def test_too_few_patients(drawn):
    with pytest.raises(DataError, match="cannot be split into 25 parts"):
        folds(drawn, 25, 0)


def test_a_patient_on_both_sides_is_told(drawn, tmp_path):
    with pytest.raises(DataError, match="Patient 3 is in training and in validation"):
        fit_fold(drawn, np.arange(8), np.array([3, 9]), np.array([12]), SHORT, tmp_path)


def test_an_ended_training_goes_on_as_if_nothing_had_happened(drawn, parts, tmp_path, monkeypatch):
    part = parts[0]
    whole = fit_fold(drawn, part.training, part.validation, part.test, SHORT, tmp_path / "whole")
    step = RadiographTask.step

    def ended(self, batch, fabric, number):
        if number == 6:
            raise KeyboardInterrupt
        return step(self, batch, fabric, number)

    with monkeypatch.context() as patch:
        patch.setattr(RadiographTask, "step", ended)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(drawn, part.training, part.validation, part.test, SHORT, tmp_path / "ended")
    assert (tmp_path / "ended" / CHECKPOINT).exists()
    again = fit_fold(drawn, part.training, part.validation, part.test, SHORT, tmp_path / "ended")
    np.testing.assert_array_equal(again.logits, whole.logits)


def test_a_curriculum_goes_on_where_it_was(drawn, parts):
    torch.manual_seed(0)
    task = RadiographTask(
        SETTINGS.config, TRAINING, drawn, parts[0].training, parts[0].validation, _network(SETTINGS.config)
    )
    task.restore({"done": 17})
    task.batch(np.random.default_rng(0))
    assert task.drawn == 18
    assert task.state() == {"done": 17}  # batches are made ahead, steps are not


def _network(config):
    from CACScoringLib.networks.radiograph import RadiographNet

    return RadiographNet(config)


def test_finished_folds_are_not_fitted_again(drawn, parts, tmp_path, monkeypatch):
    first = cross_validate(drawn, parts, SHORT, tmp_path, only=[1])
    monkeypatch.setattr("CACTrainingLib.radiograph.fitting.train", None)
    (again,) = cross_validate(drawn, parts, SHORT, tmp_path, only=[1])
    np.testing.assert_array_equal(again.logits, first[0].logits)
    np.testing.assert_array_equal(again.fused, first[0].fused)
    assert again.metrics == first[0].metrics
    other = replace(SHORT, training=replace(SHORT.training, learning_rate=1e-3))
    with pytest.raises(TrainingError, match="other data or settings"):
        cross_validate(drawn, parts, other, tmp_path, only=[1])


def test_weak_labels_are_learned_from_and_the_truth_evaluators(drawn, parts, tmp_path):
    weak = drawn.scores["agatston"][np.arange(24)[::-1]]
    data = replace(drawn, scores={**drawn.scores, "agatston_automatic": weak})
    settings = replace(SHORT, training=replace(SHORT.training, label="agatston_automatic"))
    part = parts[0]
    one = fit_fold(data, part.training, part.validation, part.test, settings, tmp_path)
    truth = data.scores["agatston"][part.test] > 0
    pairs = [(p > q) + 0.5 * (p == q) for p in one.image[truth, 0] for q in one.image[~truth, 0]]
    assert one.metrics["image_auc_above_0"] == pytest.approx(np.mean(pairs))
    pictures = Pictures(data, weak, part.training, settings.training)
    assert pictures.own.all()  # calcium that is scaled does not scale what a threshold finds


def test_scaled_pictures_have_scaled_scores(drawn):
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(8), TRAINING)
    assert set(pictures.scores[drawn.sample[pictures.numbers] == 2]) == {0.0, 100.0, 200.0, 400.0, 800.0}
    assert not set(drawn.sample[pictures.numbers]) - set(range(8))


def test_a_batch_holds_its_shares(drawn):
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), TRAINING)
    _, scores = pictures.draw(np.random.default_rng(0), 4000, 1.0)
    shares = [(scores == 0).mean(), ((scores > 0) & (scores < 100)).mean(), (scores >= 400).mean()]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.2], atol=0.03)


def test_a_curriculum_begins_with_severe_calcium(drawn):
    settings = replace(TRAINING, curriculum=SEVERE_FIRST)
    pictures = Pictures(drawn, drawn.scores["agatston"], np.arange(24), settings)
    generator = np.random.default_rng(0)
    least = [{s for s in pictures.draw(generator, 300, part)[1] if s > 0} for part in (0.0, 0.2, 0.5)]
    assert min(least[0]) >= 400
    assert 100 <= min(least[1]) < 400
    assert 0 < min(least[2]) < 100


def test_nothing_to_tell_apart(drawn):
    healthy = np.nonzero(drawn.scores["agatston"] == 0)[0]
    with pytest.raises(DataError, match="one category"):
        Pictures(drawn, drawn.scores["agatston"], healthy, TRAINING)
