"""Test the heart network's training: loss, patches, tables of real scans, and the card."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_scans import write_cohort, write_scan

from CACScoringLib.core.progress import Progress
from CACScoringLib.models import cards as models
from CACScoringLib.models.preprocessing import HEART_PATCH
from CACScoringLib.networks.van_velzen import HeartNetConfig
from CACTrainingLib.data.augmentation import UNCHANGED
from CACTrainingLib.data.datasets import HeartVolume, find_scans, load_volume, prepare
from CACTrainingLib.training import heart as train_heart
from CACTrainingLib.training.heart import HeartTask, HeartTraining, dice_loss, patch_centre
from CACTrainingLib.training.settings import LoopSettings, RunOptions

CONFIG = HeartNetConfig(width=2, residual_blocks=1)
SETTINGS = HeartTraining(
    LoopSettings(steps=6, validate_every=6, average=0.5, half_precision=False, validation_share=0.3, seed=3),
    CONFIG,
    batch_size=2,
    learning_rate=1e-2,
    validation_patches=2,
    evaluated_scans=1,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), 4)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for name in "ab":
        write_scan(folder / name, name, False, False)
    rows = [f"{n},{n}/ct.nii.gz,{n}/heart.nii.gz,1,{use}" for n, use in (("a", "training"), ("b", "validation"))]
    path = folder / "pairs.csv"
    path.write_text("\n".join(["patient,ct,heart,label,use", *rows]))
    return path


@pytest.mark.long
def test_the_heart_is_learned_and_described_on_the_card(cohort, cache, table, tmp_path, monkeypatch):
    options = RunOptions((cohort,), tmp_path / "tiny", device="cpu")
    monkeypatch.setattr("CACTrainingLib.training.loop.LOG_EVERY_STEPS", 2)
    path = train_heart.train(options, replace(SETTINGS, pairs=table), Progress())
    lines = (tmp_path / "tiny.training" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [x["loss"] for x in map(json.loads, lines) if x["event"] == "training"]
    assert losses[-1] < losses[0]
    card = models.verify_model(path)
    assert (card.network, card.preset, card.training.seed) == ("heart", "custom", 3)
    assert card.validation["scans"] == 1
    assert 0 <= card.validation["dice_lowest"] <= card.validation["dice_median"] <= 1
    assert card.training.settings["listed_share"] == 0.5
    assert "table SHA-256" in card.training.data

    # A training can start from it; with a learning rate near 0, its weights stay.
    still = replace(SETTINGS, learning_rate=1e-12, loop=replace(SETTINGS.loop, steps=1, validate_every=1, average=0.0))
    next_options = replace(options, output=tmp_path / "next", start=path)
    following = train_heart.train(next_options, replace(still, pairs=table, network=HeartNetConfig()), Progress())
    assert models.read_card(following).config == card.config
    assert models.read_card(following).training.settings["start"] == card.sha256
    weights = [dict(models.read_network(p)[1].named_parameters()) for p in (path, following)]
    assert all(torch.allclose(tensor, weights[1][name], atol=1e-3) for name, tensor in weights[0].items())


def test_dice_loss_by_hand():
    heart = torch.zeros(1, 1, 4, 4, 4)
    heart[..., :2] = 1
    sure = torch.where(heart > 0, 20.0, -20.0)
    assert dice_loss(torch.cat([-sure, sure], 1), heart) == pytest.approx(0, abs=1e-4)
    assert dice_loss(torch.cat([sure, -sure], 1), heart) == pytest.approx(1, abs=0.02)
    undecided = torch.zeros(1, 2, 4, 4, 4)  # each: (2·16 + 1) / (32 + 32 + 1)
    assert dice_loss(undecided, heart) == pytest.approx(1 - 33 / 65)
    # A patch without heart adds to the batch's Dice instead of spoiling it.
    empty = torch.cat([heart, torch.zeros_like(heart)])
    logits = torch.where(empty > 0, 20.0, -20.0)
    assert dice_loss(torch.cat([-logits, logits], 1), empty) == pytest.approx(0, abs=1e-4)


def test_batches_are_balanced_for_the_heart(cohort, cache):
    volumes = [load_volume(f) for f in prepare(find_scans([cohort])[:2], "heart", cache)]
    task = HeartTask(replace(SETTINGS, batch_size=4), volumes, volumes)
    batch = task.augment(task.batch(np.random.default_rng(0)))
    assert batch["x"].shape == batch["heart"].shape == (4, 1, HEART_PATCH, HEART_PATCH, HEART_PATCH)
    assert batch["heart"][:2].flatten(1).any(1).all()
    assert batch["x"].min() >= 0
    assert batch["x"].max() <= 1


def test_patches_without_heart_if_there_is_room():
    volume = np.zeros((100, 260, 260), np.float16)
    heart = np.zeros(volume.shape, np.uint8)
    heart[30:60, 100:150, 100:150] = 1
    scan = HeartVolume("a", volume, heart, ((30, 60), (100, 150), (100, 150)))
    generator = np.random.default_rng(0)
    for present in (True, False):
        for _ in range(20):
            centre = patch_centre(scan, present, generator)
            box = tuple(slice(max(0, round(c) - 31), round(c) + 31) for c in centre)
            assert heart[box].any() == present


def test_listed_scans_get_their_share(monkeypatch):
    monkeypatch.setattr(train_heart, "HEART_PATCH", 24)

    def volume(value):
        hu, heart = np.full((70, 70, 70), value, np.float16), np.ones((70, 70, 70), np.uint8)
        return HeartVolume(str(value), hu, heart, ((20, 50),) * 3)

    settings = replace(SETTINGS, listed_share=0.5, batch_size=8)
    scans = [volume(0.25) for _ in range(9)] + [volume(0.75)]
    task = HeartTask(replace(settings, augmentation=UNCHANGED), scans, scans, [False] * 9 + [True])
    highest = [x.max() > 0.5 for seed in range(8) for x in task.augment(task.batch(np.random.default_rng(seed)))["x"]]
    assert 0.35 < np.mean(highest) < 0.65


def test_a_network_that_learns_nothing_is_reported(cohort, cache):
    volumes = [load_volume(f) for f in prepare(find_scans([cohort])[:1], "heart", cache)]
    task = HeartTask(SETTINGS, volumes, volumes)
    assert task.warnings({"dice": 0.01}, 2) == []
    assert [d.code for d in task.warnings({"dice": 0.01, "found_where_none": 0.9}, 3)] == ["heart-not-found"]
    assert [d.code for d in task.warnings({"dice": 0.4, "found_where_none": 0.9}, 3)] == ["heart-everywhere"]
    assert task.warnings({"dice": 0.4}, 3) == task.warnings({"dice": 0.4, "found_where_none": 0.1}, 3) == []
