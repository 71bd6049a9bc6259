"""The loop that trains every network: steps, validation, checkpoints, curves, early stopping, and the finished model.

Devices, mixed precision and several GPUs come from Lightning Fabric. Every random choice is a function of the seed and
the number of the step, so that a run that was killed and goes on from its checkpoint ends as if nothing had happened
(on the same machine with the same number of threads, and with no limit of minutes).
"""

from __future__ import annotations

import copy
import math
import pickle
import queue
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.files import whole
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress

from .curves import Curves
from .distributed import from_first, in_turn, make_fabric
from .run_folder import CHECKPOINT, TrainingError, has_checkpoint
from .settings import LoopSettings, facts_of

PREFETCHED_BATCHES = 3
LOG_EVERY_STEPS = 20
COLLAPSED_VALIDATIONS = 2
"""So many in succession make a collapse; one may be a passing doubt."""


class Task:
    """What is trained: networks, their batches, one step, and how good they are. One subclass per network.

    settings: a frozen dataclass with all options of the training; a checkpoint belongs to it. modules, optimizers:
    by name; `exported` names the module that becomes the model. better: the validation metric that is maximised.
    """

    settings: object
    exported: str
    better: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        """One batch, made in a thread of its own."""
        raise NotImplementedError

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        """One step of all optimizers; returns what to plot, detached."""
        raise NotImplementedError

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Metrics of a network during training, on a fixed part of the validation data."""
        raise NotImplementedError

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        """What is wrong with the training, judged by the last of so many validations."""
        return []

    def collapsed(self, metrics: dict[str, float]) -> bool:
        """Whether a validation shows that the networks no longer do anything useful."""
        return False

    def picture(self, network: nn.Module) -> np.ndarray | None:
        """A sample of what a network does, made after each validation: uint8 [row, column, 3], or none."""
        return None

    def state(self) -> dict[str, object]:
        """What else a checkpoint needs."""
        return {}

    def restore(self, state: dict[str, object]) -> None:
        """Take back what `state` gave."""


@dataclass(frozen=True)
class Outcome:
    """weights: the best validation's, on the first process. metrics: of that validation, after best_step steps.

    steps, seconds: of the whole training. processes: that trained together, each with a batch of its own a step.
    """

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    steps: int
    seconds: float
    best_step: int = 0
    processes: int = 1


def train(
    task: Task,
    settings: LoopSettings,
    folder: Path,
    progress: Progress,
    device: str = "auto",
    resume: bool = False,
    fabric: Fabric | None = None,
) -> Outcome:
    """Train and return the best weights.

    folder: takes `checkpoint.pt` and the course of the training (`training.curves`); with several processes, all must
    see it. fabric: of processes that were launched; without, this one trains alone, on `device`.
    Raises TrainingError when the loss is no number, or a checkpoint is of another training; OutputError when
    there is a checkpoint and resume is False, or the disk is full.
    """
    fabric = fabric or make_fabric(settings.half_precision, device)
    run = _Run(task, settings, folder, fabric)
    if from_first(fabric, lambda: has_checkpoint(folder, resume)):
        in_turn(fabric, run.load)
    writer = Curves(folder, run.step) if fabric.is_global_zero else nullcontext()
    with writer as curves, _prefetched(task, settings, run.step, fabric.global_rank) as batches:
        _loop(run, curves, batches, progress)
    return Outcome(run.best_weights, run.best_metrics, run.step, run.seconds, run.best_step, fabric.world_size)


class _Run:
    """The state of a training, and its checkpoint."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path, fabric: Fabric) -> None:
        self.task, self.settings, self.fabric = task, settings, fabric
        self.checkpoint = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        self.averaged = copy.deepcopy(task.modules[task.exported]).to(fabric.device)
        for name, module in task.modules.items():
            task.modules[name] = fabric.setup_module(module)
        for name, optimizer in task.optimizers.items():
            task.optimizers[name] = fabric.setup_optimizers(optimizer)
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
        self.step, self.seconds, self.waited, self.validations = 0, 0.0, 0, 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_metrics: dict[str, float] = {}
        self.best_step = 0
        self.healthy: dict[str, object] | None = None
        self.restarts, self.ill = 0, 0
        self.warnings: dict[str, bool] = {}  # by code, in the order they came up: whether they hold
        self._last = time.monotonic()

    def tick(self) -> None:
        """Count the time since the last tick. All processes go by the clock of the first where time ends the run."""
        now = time.monotonic()
        self.seconds, self._last = self.seconds + now - self._last, now
        if self.settings.minutes is not None and self.fabric.world_size > 1:
            self.seconds = self.fabric.broadcast(self.seconds)

    def average(self) -> None:
        """Move the averaged weights towards the present ones."""
        present = self.task.modules[self.task.exported].state_dict()
        decay = min(self.settings.average, (self.step + 1) / (self.step + 10)) if self.settings.average else 0.0
        with torch.no_grad():
            for name, tensor in self.averaged.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(present[name], 1 - decay)
                else:
                    tensor.copy_(present[name])

    def set_rate(self) -> None:
        part = self.part_done()
        start = self.settings.decay_from
        factor = 1.0 if part <= start else 1 - 0.95 * min(1.0, (part - start) / (1 - start))
        for name, optimizer in self.task.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor

    def part_done(self) -> float:
        minutes = self.settings.minutes
        return max(self.step / self.settings.steps, 0.0 if minutes is None else self.seconds / 60 / minutes)

    def out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def validate(self) -> tuple[dict[str, float], bool]:
        """Metrics, and whether they are the best so far: judged by the first process, known to all."""
        self.averaged.eval()
        metrics = from_first(self.fabric, self._metrics)
        better = self.task.better
        best = not self.best_metrics or bool(metrics[better] > self.best_metrics[better])
        if best:
            self.best_metrics, self.best_step = metrics, self.step
            if self.fabric.is_global_zero:
                self.best_weights = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}
        self.waited = 0 if best else self.waited + 1
        self.validations += 1
        self.ill = self.ill + 1 if self.task.collapsed(metrics) else 0
        if self.settings.restarts and not self.ill:
            self.healthy = copy.deepcopy(self._networks())
        return metrics, best

    def restart(self) -> ScanWarning | None:
        """Go back to the last healthy networks when they have collapsed; returns the warning that says so.

        Steps are counted on, so that other batches and other noise come than those that led to the collapse.
        """
        if self.healthy is None or self.ill < COLLAPSED_VALIDATIONS or self.restarts >= self.settings.restarts:
            return None
        self._take(self.healthy)
        self.restarts, self.ill = self.restarts + 1, 0
        message = (
            f"The training had collapsed at step {self.step} and goes on from the last healthy networks with other "
            f"batches (restart {self.restarts} of {self.settings.restarts})."
        )
        return ScanWarning("training-restarted", message)

    def _networks(self) -> dict[str, object]:
        """All that learns, by name."""
        return {
            "modules": {name: m.state_dict() for name, m in self.task.modules.items()},
            "optimizers": {name: o.state_dict() for name, o in self.task.optimizers.items()},
            "averaged": self.averaged.state_dict(),
            "task": self.task.state(),
        }

    def _take(self, networks: dict[str, object]) -> None:
        for name, module in self.task.modules.items():
            module.load_state_dict(networks["modules"][name])
        for name, optimizer in self.task.optimizers.items():
            # An optimizer goes on writing into the state it is given.
            optimizer.load_state_dict(copy.deepcopy(networks["optimizers"][name]))
        self.averaged.load_state_dict(networks["averaged"])
        self.task.restore(copy.deepcopy(networks["task"]))

    def _metrics(self) -> dict[str, float]:
        # Plain numbers, because nothing else is read back from a checkpoint.
        metrics = {name: float(value) for name, value in self.task.validate(self.averaged).items()}
        if not math.isfinite(metrics[self.task.better]):
            message = (
                f"The output of the network is not a number at step {self.step} ({self.task.better} of the validation: "
                f"{metrics[self.task.better]}). Start anew with a lower learning_rate."
            )
            raise TrainingError(message)
        return metrics

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename it. Raises OutputError when that fails."""
        if self.fabric.is_global_zero:
            state = {
                "settings": facts_of(self.task.settings),
                "step": self.step,
                "seconds": self.seconds,
                "waited": self.waited,
                "validations": self.validations,
                "random": torch.get_rng_state(),
                **self._networks(),
                "healthy": self.healthy,
                "restarts": self.restarts,
                "ill": self.ill,
                "best_weights": self.best_weights,
                "best_metrics": self.best_metrics,
                "best_step": self.best_step,
                "doubts": self.warnings,
            }
            try:
                with whole(self.checkpoint) as half:
                    torch.save(state, half)
            except (OSError, RuntimeError) as error:  # PyTorch's writer raises either
                message = (
                    f"The checkpoint {self.checkpoint} could not be written ({error}). The one before is whole: make "
                    "room on the disk, then go on with --resume."
                )
                raise OutputError(message) from error
        self.fabric.barrier()

    def load(self) -> None:
        try:
            if not zipfile.is_zipfile(self.checkpoint):  # torch.load takes other files for pickles of old
                raise ValueError("not as PyTorch writes it")
            state = torch.load(self.checkpoint, map_location=self.fabric.device, weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            message = (
                f"The checkpoint {self.checkpoint} is damaged and cannot be read. Start anew; where several machines "
                "train, --output must lie on a disk that all of them see."
            )
            raise TrainingError(message) from error
        if state["settings"] != facts_of(self.task.settings):
            message = (
                f"{self.checkpoint} belongs to a training with other settings ({state['settings']}), not "
                f"{facts_of(self.task.settings)}. Give the same settings, or another --output."
            )
            raise TrainingError(message)
        self._take(state)
        torch.set_rng_state(state["random"].cpu())
        self.step, self.seconds, self.waited = state["step"], state["seconds"], state["waited"]
        self.best_weights, self.best_metrics = state["best_weights"], state["best_metrics"]
        # Checkpoints of earlier versions lack these.
        self.best_step, self.validations = state.get("best_step", 0), state.get("validations", 0)
        self.warnings = state.get("doubts", {})
        self.healthy, self.restarts, self.ill = state.get("healthy"), state.get("restarts", 0), state.get("ill", 0)
        self._last = time.monotonic()


def _loop(run: _Run, curves: Curves | None, batches: Iterator[dict[str, torch.Tensor]], progress: Progress) -> None:
    """curves: of the first process; the others write nothing."""
    task, settings = run.task, run.settings
    shown = -math.inf
    sums: dict[str, float] = {}
    summed = 0
    while run.part_done() < 1 and not run.out_of_patience():
        run.set_rate()
        batch = {name: tensor.to(run.fabric.device) for name, tensor in next(batches).items()}
        for module in task.modules.values():
            module.train()
        values = {name: float(value) for name, value in task.step(batch, run.fabric, run.step).items()}
        if not all(map(math.isfinite, values.values())):
            message = (
                f"The loss is no longer a number at step {run.step} ({values}). Go on from the last checkpoint with "
                "--resume, or start anew with a lower learning_rate."
            )
            raise TrainingError(message)
        run.average()
        run.step += 1
        sums, summed = {name: sums.get(name, 0.0) + value for name, value in values.items()}, summed + 1
        run.tick()
        now = time.monotonic()
        if now - shown > 1:
            progress.counted(round(1000 * min(1.0, run.part_done())), 1000)
            shown = now
        ended = run.part_done() >= 1
        if curves and (run.step % LOG_EVERY_STEPS == 0 or ended):
            curves.write("training", run.step, run.seconds, {name: value / summed for name, value in sums.items()})
            sums, summed = {}, 0
        if run.step % settings.validate_every == 0 or ended:
            metrics, best = run.validate()
            if curves:
                _record(run, metrics, best, curves, progress)
            restarted = run.restart()
            if curves and restarted:
                curves.warning(run.step, run.seconds, restarted)
                progress.warning(restarted)
            run.tick()
            run.save()


def _record(run: _Run, metrics: dict[str, float], best: bool, curves: Curves, progress: Progress) -> None:
    """Write down a validation. A warning is shown once; that it ended, or came up again, is only written down."""
    step, seconds = run.step, run.seconds
    curves.write("validation", step, seconds, metrics, best=best)
    warnings = {warning.code: warning for warning in run.task.warnings(metrics, run.validations)}
    for code, warning in warnings.items():
        if code not in run.warnings:
            progress.warning(warning)
        if not run.warnings.get(code):
            curves.warning(step, seconds, warning)
        run.warnings[code] = True
    for code in run.warnings.keys() - warnings.keys():
        if run.warnings[code]:
            curves.resolved(step, seconds, code)
        run.warnings[code] = False
    picture = run.task.picture(run.averaged)
    if picture is not None:
        curves.picture(step, picture)
    if run.out_of_patience():
        message = f"Stopped early: {run.waited} validations were not better than that of step {run.best_step}."
        curves.early_stop(step, seconds, message)


class _prefetched:  # noqa: N801 - used like a function
    """Batches from a step on, made ahead in a thread; the thread ends with the `with`."""

    def __init__(self, task: Task, settings: LoopSettings, first: int, rank: int) -> None:
        self._ready: queue.Queue = queue.Queue(PREFETCHED_BATCHES)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._make, args=(task, settings, first, rank), daemon=True)

    def __enter__(self) -> _prefetched:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def __iter__(self) -> _prefetched:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _make(self, task: Task, settings: LoopSettings, first: int, rank: int) -> None:
        try:
            for number in range(first, settings.steps):
                self._put(task.batch(np.random.default_rng([settings.seed, rank, number])))
                if self._ended.is_set():
                    return
        except Exception as error:  # raised again where the batch is wanted
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._ended.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
