"""Batches for vessel scores, and augmentation of volumes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.whole_scan.vessels.task import (
    VesselTask,
    VesselTraining,
    VolumeAugmentation,
    Volumes,
)

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
STILL = VolumeAugmentation(0, 0, 0.0, 0.0)


@pytest.fixture
def files(tmp_path):
    """Seven scans; scan n is (n + 1) / 8 everywhere."""
    for n in range(7):
        np.savez(tmp_path / f"{n}.npz", input=np.full((2, 16, 16), (n + 1) / 8, np.float16))
    return {f"scan {n}": tmp_path / f"{n}.npz" for n in range(7)}


def task_of(files, output="linear") -> VesselTask:
    network = VesselNet(replace(CONFIG, output=output))
    network.set_largest(100)
    settings = VesselTraining(LoopSettings(10, validate_every=2), batch_size=3, augmentation=STILL)
    names = list(files)
    scores = {name: np.full(4, 10.0 * n) for n, name in enumerate(names)}
    return VesselTask(settings, network, Volumes(files, names, CONFIG), Volumes(files, names[:2], CONFIG), scores)


@pytest.mark.parametrize("output", ["linear", "log"])
def test_each_scan_once_an_epoch_with_its_scores(files, output):
    task = task_of(files, output)
    generator = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        counts = Counter()
        for size in (3, 3, 2):  # the last is filled up: a single scan has no variance
            batch = task.batch(generator)
            task.batch_number += 1
            assert batch["x"].shape == (size, 2, 16, 16)
            for x, y in zip(batch["x"], batch["y"], strict=True):
                n = round(float(x.max()) * 8) - 1
                expected = 0.1 * n if output == "linear" else np.log1p(10 * n) / np.log1p(100)
                np.testing.assert_allclose(y, expected, rtol=1e-5)
                counts[n] += 1
        epochs.append(list(counts))
        assert set(counts) == set(range(7))
        assert sum(counts.values()) == 8
    assert epochs[0] != epochs[1], "in another order"
    assert task.loop.validate_every == 6, "two epochs"


@pytest.fixture
def calcified(tmp_path):
    """Six scans with calcium of one artery at one place each."""
    places = {}
    for n in range(6):
        x = np.full((2, 16, 16), 0.14, np.float32)
        place = n % 2, 5 + n, 8
        x[place] = 0.9
        at = np.ravel_multi_index(place, x.shape)
        calcium = {"calcium": np.array([0.7], np.float16), "calcium_artery": np.array([n % 4], np.uint8)}
        np.savez(tmp_path / f"{n}.npz", input=x.astype(np.float16), calcium_at=np.array([at], np.int32), **calcium)
        places[f"scan {n}"] = place
    return {f"scan {n}": tmp_path / f"{n}.npz" for n in range(6)}, places


def test_calcium_is_shown_where_it_was_moved_to(calcified):
    files, _ = calcified
    names = list(files)
    assert not Volumes(files, names, CONFIG).calcium("unknown", (0, 0, 0), exists=False)[0].any()
    network = VesselNet(CONFIG)
    network.set_largest(100)
    settings = VesselTraining(LoopSettings(10), 6, augmentation=VolumeAugmentation(3, 1, 0.0, 0.0), supervised=True)
    scores = dict.fromkeys(names, np.full(4, 10.0))
    task = VesselTask(settings, network, Volumes(files, names, CONFIG), Volumes(files, names, CONFIG), scores)
    generator = np.random.default_rng(0)
    n_lost = 0
    for _ in range(5):
        batch = task.batch(generator)
        assert batch["amount"].dtype == torch.float32
        torch.testing.assert_close(batch["amount"] > 0.5, batch["x"] > 0.5)
        is_calcified = batch["amount"] > 0
        n_lost += 6 - int(is_calcified.sum())
        assert set(batch["artery"][is_calcified].tolist()) <= set(range(4))
    assert 0 < n_lost < 20, "some move out, with their calcium"
    step = task.step(batch, type("Alone", (), {"backward": lambda _, loss: loss.backward()})(), 0)
    assert torch.isfinite(step["loss"])
