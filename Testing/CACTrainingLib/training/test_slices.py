"""Test the slice classifier's training: learning, threshold, metrics, and the card."""

import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from CACScoringLib.core.errors import DataError, OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models import cards as models
from CACScoringLib.models.operating_points import OPERATING_POINTS, PUBLISHED, SCORING, operating_point
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig, build
from CACScoringLib.statistics.roc import threshold_at
from CACTrainingLib.data.augmentation import SliceAugmentation
from CACTrainingLib.data.datasets import find_scans
from CACTrainingLib.training import slices as train_slices
from CACTrainingLib.training.curves import Curves
from CACTrainingLib.training.run_folder import is_locked
from CACTrainingLib.training.runs import TrainingData
from CACTrainingLib.training.settings import LoopSettings, RunOptions
from CACTrainingLib.training.slices import SliceTask, SliceTraining, as_classifier, slice_metrics

CONFIG = SliceClassifierConfig(width=4, residual_blocks=1, pooling="average+max", size=96)
SETTINGS = SliceTraining(
    LoopSettings(steps=120, validate_every=60, average=0.8, half_precision=False, validation_share=0.5, seed=1),
    CONFIG,
    batch_size=6,
    learning_rate=5e-3,
    augmentation=SliceAugmentation(shift_pixels=4),
    validation_slices=12,
)


@pytest.fixture(scope="module")
def trained(cohort, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("model") / "tiny"
    options = RunOptions((cohort,), output, device="cpu")
    return train_slices.train(options, SETTINGS, Progress())


def test_slices_are_learned_and_described_on_the_card(trained, cohort):
    lines = (trained.parent / "tiny.training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in lines]
    losses = [line["loss"] for line in lines if line["event"] == "training"]
    assert losses[-1] < 0.4 * losses[0]
    assert lines[-1]["auc"] > 0.95
    card = models.verify_model(trained)
    assert (card.network, card.preset, card.training.seed, card.config["width"]) == ("slices", "custom", 1, 4)
    assert card.training.settings["loop"]["steps"] == card.training.settings["steps_done"] == 120
    assert card.training.settings["augmentation"]["crop"] == 96
    assert "training: 5 scans of 4 patients" in card.training.data
    assert {"auc", "slices", "data"} <= card.validation.keys()
    assert str(cohort) not in trained.read_text(encoding="utf-8")


def test_the_card_states_two_operating_points(trained):
    card = models.read_card(trained)
    published, scoring = (operating_point(card, name) for name in (PUBLISHED, SCORING))
    assert published.false_positive_rate <= SETTINGS.false_positive_rate
    assert 0 < card.calibration["slice_threshold"] == scoring.threshold <= published.threshold <= 1
    assert scoring.sensitivity >= published.sensitivity
    assert scoring.false_positive_rate >= published.false_positive_rate
    assert "scans_called_positive_clean" in card.validation[OPERATING_POINTS][SCORING]


def test_scoring_decomposes_no_fewer_slices_than_the_published_method(parts, monkeypatch):
    """A classifier whose negatives all lie below the limit of scoring has one limit."""
    data = parts[0]
    probabilities = np.where(data.visible, 0.9, 0.01).astype(np.float32)
    monkeypatch.setattr(train_slices, "calcium_probabilities", lambda *_: probabilities)
    card = models.describe("c", CONFIG, "custom", models.Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests.")
    metrics, calibration = train_slices.evaluate(models.LoadedModel(card, None), SETTINGS, data)
    points = metrics[OPERATING_POINTS]
    assert 0.01 < calibration["slice_threshold"] < 0.05
    assert points[SCORING] == points[PUBLISHED]
    assert (points[SCORING]["sensitivity"], points[SCORING]["false_positive_rate"]) == (1, 0)


def test_card_changes_with_the_data(cohort, cache, tmp_path):
    def table(folder):
        scans = tuple(find_scans([folder]))
        return TrainingData(scans[:3], scans[3:], (), ()).describe()

    changed = shutil.copytree(cohort, tmp_path / "copy")
    assert table(cohort) == table(changed)
    truth = changed / "patient_1" / "scan_1" / "truth.json"
    truth.write_text(truth.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert table(cohort) != table(changed)


@pytest.mark.long
def test_a_full_disk_is_reported(cohort, cache, tmp_path, monkeypatch):
    """The previous checkpoint stays and can be resumed."""
    original = Curves.write

    def full(curves, event, step, *arguments, **keywords):
        if step == 6:
            raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
        original(curves, event, step, *arguments, **keywords)

    monkeypatch.setattr(Curves, "write", full)
    settings = replace(SETTINGS, loop=replace(SETTINGS.loop, steps=6, validate_every=3))
    options = RunOptions((cohort,), tmp_path / "m", device="cpu")
    with pytest.raises(OutputError, match=r"disk is full \(metrics.jsonl\).*--resume"):
        train_slices.train(options, settings, Progress())
    assert torch.load(tmp_path / "m.training" / "checkpoint.pt")["step"] == 3
    assert not is_locked(tmp_path / "m.training")
    monkeypatch.undo()
    assert train_slices.train(replace(options, resume=True), settings, Progress()).exists()


def test_the_features_learn_the_place_of_calcium(parts):
    """The location loss falls, ignores slices without a true map, and adds nothing to the exported network."""
    settings = replace(SETTINGS, locate_weight=3.0, loop=replace(SETTINGS.loop, steps=40))
    task = SliceTask(settings, *parts)
    batch = task.augment(task.batch(np.random.default_rng(0)))
    assert (batch["where"].shape, batch["where"][:3].amax((1, 2, 3)).tolist()) == ((6, 1, 24, 24), [1, 1, 1])
    assert not batch["where"][3:].any()
    fabric = Fabric(accelerator="cpu", precision="32-true")
    before = None
    for number in range(30):
        values = task.step(batch, fabric, number)
        before = before or float(values["located"])
    assert float(values["located"]) < 0.8 * before
    batch["has_map"] = torch.zeros(6, dtype=torch.bool)
    assert float(task.step(batch, fabric, 30)["located"]) == 0
    assert task.modules["classifier"].state_dict().keys() == build(CONFIG).state_dict().keys()


def test_classifier_starts_from_a_generators_encoder():
    """Features equal the generator's, channel by channel; its neighbouring slices are taken over."""
    generator = GeneratorConfig(width=4, residual_blocks=2, skips=True, neighbours=1)
    network = build(generator).eval()
    card = models.describe("g", generator, "custom", models.Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests.")
    config, classifier = as_classifier(card, network, SliceClassifierConfig(width=9, pooling="average+max", size=64))
    assert config == SliceClassifierConfig(4, 2, "average+max", neighbours=1, size=64)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        _, features = classifier.eval()(x, features=True)
        assert torch.equal(features, network.third(network.second(network.first(x))))


def test_metrics_by_hand(parts):
    data = parts[0]
    positive, negative = np.nonzero(data.visible)[0][:4], np.nonzero(~data.visible)[0][:10]
    slices = np.concatenate([positive, negative])
    negatives = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.7]
    probabilities = np.array([0.9, 0.8, 0.6, 0.5, *negatives], np.float32)
    metrics = slice_metrics(probabilities, data, slices, 0.1)
    assert metrics["auc"] == pytest.approx((10 + 10 + 9 + 9) / 40)
    assert (metrics["false_positive_rate"], metrics["sensitivity"]) == (pytest.approx(0.1), 1.0)
    assert 0.45 < metrics["threshold"] <= 0.5
    share = data.visible.mean()
    assert metrics["accuracy"] == pytest.approx(share + (1 - share) * 0.9)


def test_a_network_that_learns_nothing_is_reported(parts):
    task = SliceTask(SETTINGS, *parts)
    metrics = {"auc": 0.52}
    assert task.warnings(metrics, 4) == []
    (warning,) = task.warnings(metrics, 5)
    assert warning.code == "slices-not-separated"
    assert "0.52" in warning.message
    assert task.warnings({"auc": 0.7}, 5) == []


@pytest.mark.parametrize("most", [0.0, 0.1, 1.0])
def test_threshold_keeps_to_the_rate(most):
    negative = np.random.default_rng(0).random(200).astype(np.float32)
    threshold = threshold_at(negative, most)
    assert (negative >= threshold).mean() <= most
    assert most == 0 or (negative >= threshold).mean() >= most - 1e-9


@pytest.mark.long
def test_resuming_with_other_data_is_refused(cohort, cache, tmp_path):
    changed = shutil.copytree(cohort, tmp_path / "copy")
    loop = replace(SETTINGS.loop, steps=1, validate_every=1)
    options, settings = RunOptions((changed,), tmp_path / "m", device="cpu"), replace(SETTINGS, loop=loop)
    train_slices.train(options, settings, Progress())
    shutil.rmtree(changed / "patient_7")
    with pytest.raises(DataError, match="not those"):
        train_slices.train(replace(options, resume=True, overwrite=True), settings, Progress())
