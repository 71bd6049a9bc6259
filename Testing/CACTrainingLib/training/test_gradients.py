"""Gradients that are wrong, by a processor's half precision or by divergence, never teach a network."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from CACScoringLib.core.processes import processor_name
from CACScoringLib.core.progress import Progress
from CACTrainingLib.training import distributed, loop
from CACTrainingLib.training.distributed import make_fabric
from CACTrainingLib.training.gradients import (
    MAX_DIFFERENCE,
    MAX_GROWTH,
    MIN_HISTORY,
    GradientHistory,
    gradient_differences,
)
from CACTrainingLib.training.loop import LOG_EVERY_STEPS, Task, TrainingError, train
from CACTrainingLib.training.run_folder import CHECKPOINT
from CACTrainingLib.training.settings import LoopSettings


class WrongInHalfPrecision(nn.Linear):
    """Layer whose weights' gradient in bfloat16 holds what memory held before."""

    def forward(self, x):
        weight = self.weight * 1
        if torch.is_autocast_enabled(x.device.type):
            weight.register_hook(lambda gradient: gradient + 3e11)
        return nn.functional.linear(x, weight, self.bias)


class LayersTask(Task):
    """Training of a small network with dropout and batch normalisation to double numbers.

    wrong_at: Step whose gradient is multiplied by `factor`.
    """

    exported = "net"
    better = "closeness"

    def __init__(self, loop, *layers, wrong_at=None, factor=math.nan):
        torch.manual_seed(0)
        self.settings = loop
        self.modules = {"net": nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), *layers)}
        self.optimizers = {"net": torch.optim.SGD(self.modules["net"].parameters(), 0.01)}
        self.wrong_at, self.factor = wrong_at, factor

    def batch(self, generator):
        return {"x": torch.from_numpy(generator.normal(0, 1, (16, 2)).astype(np.float32))}

    def step(self, batch, fabric, number):
        loss = ((self.modules["net"](batch["x"]).float() - 2 * batch["x"]) ** 2).mean()
        factor = self.factor if number == self.wrong_at else 1.0
        self.descend("net", loss * factor, fabric)
        return {"loss": loss.detach()}

    def validate(self, network):
        return {"closeness": 0.0}


LOOP = LoopSettings(2 * LOG_EVERY_STEPS, validate_every=LOG_EVERY_STEPS)


@pytest.fixture
def any_processor(monkeypatch):
    """Let every processor train in bfloat16, emulated where it lacks it."""
    monkeypatch.setattr(distributed, "_bfloat16_is_fast", lambda *_: True)


def test_rounding_is_no_difference_and_leaves_no_trace():
    task = LayersTask(LOOP, nn.Linear(8, 2))
    weights = {name: value.clone() for name, value in task.modules["net"].state_dict().items()}
    random = torch.get_rng_state()
    differences = gradient_differences(task, task.batch(np.random.default_rng(0)), make_fabric(False, "cpu"))
    assert set(differences) == {f"net.{n}.{kind}" for n in (0, 1, 3) for kind in ("weight", "bias")}
    assert 0 < max(differences.values()) < MAX_DIFFERENCE
    assert all(torch.equal(value, weights[name]) for name, value in task.modules["net"].state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in task.modules["net"].parameters())


def test_a_convolution_two_voxels_deep_is_checked():
    """It is wrong on processors with AVX-512 and PyTorch 2.13 or 2.14, and sound elsewhere: never in between."""
    task = LayersTask(LOOP)
    convolution = nn.Conv3d(24, 24, 3, padding=1, bias=False)
    task.modules = {"net": nn.Sequential(convolution, nn.Flatten(), nn.Linear(24 * 2 * 6 * 6, 2))}
    task.step = lambda batch, fabric, _: task.descend("net", task.modules["net"](batch["x"]).square().sum(), fabric)
    batch = {"x": torch.randn(8, 24, 2, 6, 6, generator=torch.Generator().manual_seed(0))}
    difference = gradient_differences(task, batch, make_fabric(False, "cpu"))["net.0.weight"]
    assert difference < MAX_DIFFERENCE / 5 or not difference <= MAX_DIFFERENCE


def test_half_precision_that_is_wrong_is_not_used(tmp_path, any_processor):
    notes = []
    progress = Progress()
    progress.note = notes.append
    outcome = train(LayersTask(LOOP, WrongInHalfPrecision(8, 2)), LOOP, tmp_path, progress, "cpu")
    assert outcome.facts()["precision"] == "float32"
    assert any("net.3.weight" in note and "float32" in note for note in notes)
    assert outcome.facts()["largest_gradient_norm"] < 1e3


def test_the_card_names_processor_and_precision(tmp_path, any_processor):
    facts = train(LayersTask(LOOP, nn.Linear(8, 2)), LOOP, tmp_path, Progress(), "cpu").facts()
    assert facts["precision"] == "bfloat16"
    assert facts["processor"] == processor_name()
    assert facts["accelerator"] is None
    assert facts["pytorch"] == torch.__version__
    assert facts["largest_gradient_norm"] > 0


def test_a_run_resumed_on_another_machine_names_both(tmp_path, monkeypatch):
    def go_on(processor, is_fast, wrong_at=None):
        monkeypatch.setattr(distributed, "_bfloat16_is_fast", lambda *_: is_fast)
        monkeypatch.setattr(loop, "processor_name", lambda: processor)
        task = LayersTask(LOOP, nn.Linear(8, 2), wrong_at=wrong_at)
        return train(task, LOOP, tmp_path, Progress(), "cpu", (tmp_path / CHECKPOINT).exists()).facts()

    with pytest.raises(TrainingError):
        go_on("first", is_fast=True, wrong_at=LOG_EVERY_STEPS + 3)
    resumed = go_on("second", is_fast=False)
    assert resumed["precision"] == "bfloat16, then float32"
    assert resumed["processor"] == "first, then second"
    assert go_on("third", is_fast=True) == resumed, "nothing was left to train"


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e6])
def test_a_wrong_gradient_stops_the_training_and_is_in_no_checkpoint(tmp_path, factor):
    wrong_at = LOG_EVERY_STEPS + 3
    with pytest.raises(TrainingError, match=rf"step {wrong_at}, most of all that of net\.\d\.(weight|bias)"):
        train(LayersTask(LOOP, nn.Linear(8, 2), wrong_at=wrong_at, factor=factor), LOOP, tmp_path, Progress(), "cpu")
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == LOG_EVERY_STEPS


def test_the_error_of_a_full_device_has_a_remedy(tmp_path):
    task = LayersTask(LOOP, nn.Linear(8, 2))

    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    task.step = step
    with pytest.raises(TrainingError, match=r"full at step 0.*batch_size"):
        train(task, LoopSettings(4, half_precision=False), tmp_path, Progress(), "cpu")


def gradients_of(*norms):
    parameters = {f"p{n}": nn.Parameter(torch.zeros(1)) for n in range(len(norms))}
    for parameter, norm in zip(parameters.values(), norms, strict=True):
        parameter.grad = torch.tensor([norm])
    return parameters


def test_the_bound_is_set_by_the_history():
    history = GradientHistory()
    assert float(history.add("net", gradients_of(3.0, 4.0))) == 5
    history.add("net", gradients_of(0.0, 4999.0))  # too early to judge
    history.check()
    assert history.largest == 4999
    for _ in range(MIN_HISTORY):
        history.add("net", gradients_of(1.0, 1.0))
    history.step = 77
    history.add("net", gradients_of(0.0, 0.99 * MAX_GROWTH * 4999))
    history.check()
    history.add("other", gradients_of(1e30))  # another optimizer has no history yet
    history.check()
    history.add("net", gradients_of(2 * MAX_GROWTH**2 * 4999, 1.0))
    with pytest.raises(TrainingError, match="step 77, most of all that of p0"):
        history.check()
