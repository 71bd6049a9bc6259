"""One fold on radiographs drawn by hand, and the splits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from CACScoringLib.networks.radiograph import RadiographNet, RadiographNetConfig
from CACTrainingLib.data.datasets import DataError
from CACTrainingLib.radiograph.fitting import FitSettings, fit, predictions_of, validation_split
from CACTrainingLib.radiograph.task import SEVERE_FIRST, Pictures, RadiographTask, RadiographTraining
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.training.run_folder import CHECKPOINT

TRAINING = RadiographTraining(
    LoopSettings(60, validate_every=20, average=0.9, half_precision=False),
    batch_size=8,
    learning_rate=5e-3,
    finder_steps=5,
)
SETTINGS = FitSettings(RadiographNetConfig(size=32, width=6, dropout=0.0), TRAINING, "cpu")
SHORT = replace(SETTINGS, training=replace(TRAINING, loop=replace(TRAINING.loop, steps=8, validate_every=4)))


@pytest.fixture(scope="module")
def split(drawn):
    return validation_split(drawn, 0.5, 0, "agatston")


def test_it_learns_what_is_there(drawn, split, tmp_path):
    settings = replace(SETTINGS, training=replace(TRAINING, finder_steps=0))
    network, calibration, outcome, metrics = fit(drawn, *split, settings, tmp_path)
    image, fused = predictions_of(network, drawn, split[1], calibration, found=False)
    assert metrics["validation_auc_from_400"] > 0.8
    assert image.shape == (len(split[1]), 3)
    assert np.isnan(fused).all()  # too few patients to know what factors do
    assert outcome.steps == 60


def test_no_patient_is_on_both_sides(drawn):
    shared = replace(drawn, patients=np.arange(24) // 2)  # two radiographs of each patient
    cases = np.arange(4, 24)
    training, validation = validation_split(shared, 0.25, 0, "agatston", cases)
    assert sorted([*training, *validation]) == cases.tolist()
    assert not set(shared.patients[training]) & set(shared.patients[validation])


def test_too_few_patients(drawn):
    with pytest.raises(DataError, match="1 patients cannot be split into 2 parts"):
        validation_split(drawn, 0.25, 0, "agatston", np.arange(1))


def test_an_ended_training_goes_on_as_if_nothing_had_happened(drawn, split, tmp_path, monkeypatch):
    complete, *_ = fit(drawn, *split, SHORT, tmp_path / "complete")
    step = RadiographTask.step

    def ended(self, batch, fabric, number):
        if number == 6:
            raise KeyboardInterrupt
        return step(self, batch, fabric, number)

    with monkeypatch.context() as patch:
        patch.setattr(RadiographTask, "step", ended)
        with pytest.raises(KeyboardInterrupt):
            fit(drawn, *split, SHORT, tmp_path / "ended")
    assert (tmp_path / "ended" / CHECKPOINT).exists()
    again, *_ = fit(drawn, *split, SHORT, tmp_path / "ended")
    for name, weights in complete.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weights, rtol=0, atol=0)


def test_a_curriculum_goes_on_where_it_was(drawn, split):
    torch.manual_seed(0)
    task = RadiographTask(SETTINGS.config, TRAINING, drawn, *split, RadiographNet(SETTINGS.config))
    task.restore({"done": 17})
    task.batch(np.random.default_rng(0))
    assert task.drawn == 18
    assert task.state() == {"done": 17}  # batches are made ahead, steps are not


def test_calcium_that_is_scaled_does_not_scale_what_a_threshold_finds(drawn):
    weak = replace(TRAINING, label="agatston_automatic")
    assert Pictures(drawn, drawn.scores["agatston"], np.arange(24), weak).own.all()


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
