"""Test the training loop: learning, exact resume after a kill, early stopping, restarts."""

import json
import math
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.version import processor_name
from CACTrainingLib.training.loop import train
from CACTrainingLib.training.settings import LoopSettings
from CACTrainingLib.training.task import Task


@dataclass(frozen=True)
class LineSettings:
    loop: LoopSettings
    rate: float = 0.05


def run(task, folder, progress=None, resume=False):
    return train(task, task.settings.loop, folder, progress or Progress(), "cpu", resume=resume)


def killed(task, folder, resume=False):
    with pytest.raises(KeyboardInterrupt):
        run(task, folder, resume=resume)


class Line(Task):
    """Training of y = 3x, with batch normalisation as in real networks."""

    exported = "line"
    better = "closeness"

    def __init__(self, loop, kill_at=None, closeness=None, spoil_at=None):
        torch.manual_seed(loop.seed)
        self.settings = LineSettings(loop)
        network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
        self.modules = {"line": network}
        self.optimizers = {"line": torch.optim.Adam(network.parameters(), 0.05)}
        self.kill_at, self.closeness, self.spoil_at = kill_at, closeness, spoil_at
        self.seen = []
        self.validations = 0

    def batch(self, generator):
        x = torch.from_numpy(generator.normal(0, 1, (16, 1)).astype(np.float32))
        return {"x": x, "y": 3 * x}

    def step(self, batch, fabric, number):
        if number == self.kill_at:
            raise KeyboardInterrupt
        loss = ((self.modules["line"](batch["x"]) - batch["y"]) ** 2).mean()
        optimizer = self.optimizers["line"]
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        self.seen.append(number)
        return {"loss": loss.detach() * (math.nan if number == self.spoil_at else 1)}

    def validate(self, network):
        self.validations += 1
        x = torch.linspace(-1, 1, 9)[:, None]
        with torch.no_grad():
            error = float(((network(x) - 3 * x) ** 2).mean())
        return {"closeness": -error if self.closeness is None else self.closeness.pop(0)}

    def warnings(self, metrics, validations):
        return [ScanWarning("map-empty", "It is far off.")] if metrics["closeness"] < -0.5 else []

    def state(self):
        return {"seen": list(self.seen)}

    def restore(self, state):
        self.seen = state["seen"]


LOOP = LoopSettings(steps=60, validate_every=10, half_precision=False, average=0.5, seed=4)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_average_leaves_out_weights_from_before_the_network_learned(tmp_path):
    """Else the map of a generator that waited is for long one of random weights."""
    closeness = []
    for began in (0, 58):
        task = Line(replace(LOOP, average=0.99))
        task.began = began
        closeness.append(run(task, tmp_path / str(began)).metrics["closeness"])
    assert closeness[1] > closeness[0]


def test_a_line_is_learned_and_the_course_written(tmp_path):
    messages = []
    progress = Progress()
    progress.warning = messages.append
    progress.counted = lambda done, count: messages.append((done, count))
    outcome = run(Line(LOOP), tmp_path, progress)
    losses = [line["loss"] for line in lines(tmp_path) if line["event"] == "training"]
    assert losses[-1] < 0.3 * losses[0]
    validations = [line for line in lines(tmp_path) if line["event"] == "validation"]
    assert [line["step"] for line in validations] == [10, 20, 30, 40, 50, 60]
    assert (outcome.metrics["closeness"], outcome.steps) == (max(line["closeness"] for line in validations), 60)
    assert any(isinstance(t, ScanWarning) and t.code == "map-empty" for t in messages)
    assert any("map-empty" in line["warnings"] for line in validations)
    assert any(isinstance(t, tuple) and t[1] == 1000 for t in messages)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    facts = outcome.facts()
    assert (facts["processor"], facts["accelerator"], facts["precision"]) == (processor_name(), None, "float32")


def test_another_network_is_trained_in_place_of_the_tasks(tmp_path):
    outcome = train(Line(LOOP), LOOP, tmp_path, Progress(), "cpu", network=lambda: nn.Linear(1, 1, bias=False))
    assert outcome.weights.keys() == {"weight"}
    assert len({line["closeness"] for line in lines(tmp_path) if line["event"] == "validation"}) == 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder and outcome of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(Line(LOOP), folder)


@pytest.mark.parametrize("kill_at", [10, 17])
def test_killed_and_resumed_is_the_same(whole, tmp_path, kill_at):
    """Killed right after a checkpoint, and later."""
    folder, uninterrupted = whole
    task = Line(LOOP)
    killed(Line(LOOP, kill_at), tmp_path)
    resumed = run(task, tmp_path, resume=True)
    assert (resumed.metrics, resumed.steps) == (uninterrupted.metrics, uninterrupted.steps)
    assert task.seen == list(range(60))
    last = [torch.load(place / "checkpoint.pt") for place in (folder, tmp_path)]
    for name, tensor in last[0]["modules"]["line"].items():
        assert torch.equal(tensor, last[1]["modules"]["line"][name]), name
    timeless = [[{**line, "seconds": 0} for line in lines(place)] for place in (folder, tmp_path)]
    first, second = ([line for line in part if line["event"] != "training"] for part in timeless)
    assert first == second


def test_a_warning_is_reported_once_and_recorded_while_present(tmp_path):
    messages = []
    progress = Progress()
    progress.warning = messages.append
    run(Line(replace(LOOP, steps=50), closeness=[-1, -1, 0, -1, 0]), tmp_path, progress)
    assert [warning.code for warning in messages] == ["map-empty"]
    warning_steps = [x["step"] for x in lines(tmp_path) if x["event"] == "validation" and "map-empty" in x["warnings"]]
    assert warning_steps == [10, 20, 40]


def test_curves_damaged_by_a_crash_do_not_prevent_resume(tmp_path):
    killed(Line(LOOP, 35), tmp_path)
    path = tmp_path / "metrics.jsonl"
    earlier_lines = [line for line in lines(tmp_path) if line["step"] <= 30]
    path.write_text("\0\0\0\n" + path.read_text(encoding="utf-8") + '{"event": "train', encoding="utf-8")
    run(Line(LOOP), tmp_path, resume=True)
    assert lines(tmp_path)[: len(earlier_lines)] == earlier_lines
    assert lines(tmp_path)[-1]["step"] == 60


def test_checkpoint_of_other_settings_is_refused(whole):
    with pytest.raises(CTError, match="other settings"):
        run(Line(replace(LOOP, steps=61)), whole[0], resume=True)


class Harm:
    """Object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_runs_nothing(tmp_path):
    torch.save({"settings": Harm(tmp_path / "harm")}, tmp_path / "checkpoint.pt")
    with pytest.raises(CTError, match="damaged"):
        run(Line(LOOP), tmp_path, resume=True)
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_is_complete_or_the_earlier(tmp_path, monkeypatch):
    killed(Line(LOOP, 15), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def dies(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("CACTrainingLib.training.loop.torch.save", dies)
    with pytest.raises(OutputError, match="disk full"):
        run(Line(LOOP), tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_loop_stops_early_and_keeps_the_best(tmp_path):
    loop = LoopSettings(steps=1000, validate_every=5, patience=3, half_precision=False)
    task = Line(loop, closeness=[0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    outcome = run(task, tmp_path)
    assert task.validations == 5
    assert outcome.metrics == {"closeness": 0.5}
    assert (outcome.steps, outcome.best_step) == (25, 10)
    last = lines(tmp_path)[-1]
    assert (last["event"], last["step"]) == ("validation", 25)
    assert "that of step 10" in last["ended"]


def test_the_loop_ends_in_time(tmp_path):
    loop = LoopSettings(steps=10**9, minutes=0.005, validate_every=10**6, half_precision=False)
    outcome = run(Line(loop), tmp_path)
    assert 0.3 <= outcome.seconds < 3
    assert outcome.metrics  # validated at the end


@pytest.mark.parametrize(
    ("fault", "message"), [({"spoil_at": 12}, "step 12"), ({"closeness": [0.1, math.nan]}, "at step 20")]
)
def test_nan_ends_the_training(tmp_path, fault, message):
    """NaN as a loss, and as a metric of a validation."""
    with pytest.raises(CTError, match=message):
        run(Line(LOOP, **fault), tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 10


def test_rate_falls_after_half(tmp_path):
    rates = []

    class Watched(Line):
        def step(self, batch, fabric, number):
            rates.append(self.optimizers["line"].param_groups[0]["lr"])
            return super().step(batch, fabric, number)

    run(Watched(LOOP), tmp_path)
    assert (rates[:31], rates[-1]) == ([0.05] * 31, pytest.approx(0.05 * (1 - 0.95 * 29 / 30)))


class Collapsing(Line):
    """Training whose network collapses for good at one step, optionally killed at another."""

    def __init__(self, loop, lost_at, kill_at=None):
        super().__init__(loop, kill_at)
        self.lost_at = lost_at

    def step(self, batch, fabric, number):
        values = super().step(batch, fabric, number)
        if number == self.lost_at:
            with torch.no_grad():
                for parameter in self.modules["line"].parameters():
                    parameter.zero_()
            self.optimizers["line"].param_groups[0]["lr"] = 0.0
        return values

    def has_collapsed(self, metrics):
        return metrics["closeness"] < -1.0


@pytest.mark.parametrize("kill_at", [None, 75])
def test_collapse_restores_the_last_healthy_networks(tmp_path, kill_at):
    """Also if the training is killed after the collapse and resumed."""
    loop = replace(LOOP, steps=120, average=0.0, restarts=1, decay_from=1.0)
    if kill_at:
        killed(Collapsing(loop, 64, kill_at), tmp_path)
    run(Collapsing(loop, 64), tmp_path, resume=bool(kill_at))
    validations = [line for line in lines(tmp_path) if line["event"] == "validation"]
    restarts = [line["step"] for line in validations if "training-restarted" in line["warnings"]]
    assert restarts == [80]  # the second validation in succession that shows it
    assert validations[-1]["closeness"] > -0.1
