"""What a batch for vessel scores holds, and how volumes are varied."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from CACScoringLib.networks.vessels import VesselNet, VesselNetConfig
from CACTrainingLib.data.datasets import DataError
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.whole_scan.vessels import task as vessel_task
from CACTrainingLib.whole_scan.vessels.task import (
    VesselTask,
    VesselTraining,
    VolumeAugmentation,
    Volumes,
    drawn_shift,
    mean_squared,
    outputs,
    varied,
)

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
STILL = VolumeAugmentation(0, 0, 0.0, 0.0)


@pytest.fixture
def files(tmp_path):
    """Seven scans; of scan n all is (n + 1) / 8."""
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
        seen = Counter()
        for size in (3, 3, 2):  # the last is filled up: one alone has no spread
            batch = task.batch(generator)
            assert batch["x"].shape == (size, 2, 16, 16)
            for x, y in zip(batch["x"], batch["y"], strict=True):
                n = round(float(x.max()) * 8) - 1
                wanted = 0.1 * n if output == "linear" else np.log1p(10 * n) / np.log1p(100)
                np.testing.assert_allclose(y, wanted, rtol=1e-5)
                seen[n] += 1
        epochs.append(list(seen))
        assert set(seen) == set(range(7))
        assert sum(seen.values()) == 8
    assert epochs[0] != epochs[1], "in another order"
    assert task.loop.validate_every == 6, "two epochs"


def test_goes_on_where_it_stopped(files):
    task, other = task_of(files), task_of(files)
    batches = [task.batch(np.random.default_rng(n)) for n in range(5)]
    other.restore({"done": 4})
    assert torch.equal(other.batch(np.random.default_rng(4))["y"], batches[4]["y"])


def test_validation_is_on_both_scales(files):
    task = task_of(files, "log")
    network = task.modules["vessels"].eval()
    found = task.validate(network)
    predicted = outputs(network, task.validation, task.validation.names)
    wanted = np.log1p([[0.0] * 4, [10.0] * 4]) / np.log1p(100)
    assert found["loss"] == -found["minus_loss"] == pytest.approx(np.mean((predicted - wanted) ** 2))
    linear = np.minimum(np.expm1(predicted * np.log1p(100)), 1000) - [[0.0] * 4, [10.0] * 4]
    assert found["mse"] == pytest.approx(np.mean((linear / 100) ** 2), rel=1e-4)
    assert mean_squared([[1, 2]], [[3, 2]], 10) == pytest.approx(0.02)


def test_shifted_by_whole_voxels():
    volume = np.zeros((8, 16, 16), np.float32)
    volume[4, 8, 8], volume[4, 8, 9] = 1, 2  # left and right differ
    places = set()
    for seed in range(40):
        how, generator = VolumeAugmentation(3, 1, 0.0, 0.0), np.random.default_rng(seed)
        found = varied(volume, how, drawn_shift(how, generator), generator)
        (k,), (j,), (i,) = np.nonzero(found == 1)
        assert found[k, j, i + 1] == 2
        assert np.count_nonzero(found) == 2
        places.add((k - 4, j - 8, i - 8))
    assert {p[0] for p in places} == {-1, 0, 1}
    assert {p[2] for p in places} == set(range(-3, 4))


def test_what_moves_in_is_the_lowest():
    volume = np.full((2, 8, 8), 0.5, np.float32)
    volume[0, 0, 0] = -2
    found = varied(volume, VolumeAugmentation(2, 1, 0.0, 0.0), (1, -2, 0), np.random.default_rng(3))
    assert set(np.unique(found)) <= {np.float32(-2), np.float32(0.5)}
    assert (found == -2).sum() > 1


def test_noise_and_blur_only_where_there_is_something():
    volume = np.zeros((4, 32, 32), np.float32)
    volume[:, 8:24, 8:24] = 0.3
    volume[2, 16, 16] = 0.9
    noisy = varied(volume, VolumeAugmentation(0, 0, 0.1, 0.0), (0, 0, 0), np.random.default_rng(0))
    assert not noisy[volume == 0].any()
    assert 0.001 < (noisy - volume)[volume > 0].std() < 0.1
    blur = VolumeAugmentation(0, 0, 0.0, 1.0)
    blurred = [varied(volume, blur, (0, 0, 0), np.random.default_rng(n))[2, 16, 16] for n in range(30)]
    assert min(blurred) < 0.8
    assert max(blurred) == np.float32(0.9), "not every one"


@pytest.fixture
def shown(tmp_path):
    """Six scans in which calcium of one artery lies, at one place each."""
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


def test_calcium_is_shown_where_it_was_moved_to(shown):
    files, _ = shown
    names = list(files)
    network = VesselNet(CONFIG)
    network.set_largest(100)
    how = VesselTraining(LoopSettings(10), 6, augmentation=VolumeAugmentation(3, 1, 0.0, 0.0), supervised=True)
    scores = dict.fromkeys(names, np.full(4, 10.0))
    task = VesselTask(how, network, Volumes(files, names, CONFIG), Volumes(files, names, CONFIG), scores)
    generator = np.random.default_rng(0)
    gone = 0
    for _ in range(5):
        batch = task.batch(generator)
        assert batch["amount"].dtype == torch.float32
        torch.testing.assert_close(batch["amount"] > 0.5, batch["x"] > 0.5)
        held = batch["amount"] > 0
        gone += 6 - int(held.sum())
        assert set(batch["artery"][held].tolist()) <= set(range(4))
    assert 0 < gone < 20, "some move out, with their calcium"
    step = task.step(batch, type("Alone", (), {"backward": lambda _, loss: loss.backward()})(), 0)
    assert torch.isfinite(step["loss"])


def test_what_cannot_be_shown(files):
    with pytest.raises(DataError, match="Where the calcium of scan 0 lies is not known"):
        Volumes(files, list(files), CONFIG).calcium("scan 0", (0, 0, 0))


def test_many_volumes_are_read_when_wanted(files, monkeypatch):
    monkeypatch.setattr(vessel_task, "IN_MEMORY_BYTES", 2100)
    volumes = Volumes(files, list(files), CONFIG)
    assert list(volumes._kept) == ["scan 0", "scan 1"]
    np.testing.assert_array_equal(volumes["scan 3"], np.full((2, 16, 16), 0.5))


def test_volumes_that_do_not_fit(files):
    with pytest.raises(DataError, match="not prepared, among them lost"):
        Volumes(files, ["scan 1", "lost"], CONFIG)
    other = replace(CONFIG, slices=3)
    with pytest.raises(DataError, match=r"the network needs \(3, 16, 16\)"):
        Volumes(files, ["scan 1"], other)
