"""Train any network: steps, validation, checkpoints, curves, early stopping, and the best weights.

Devices, mixed precision and several GPUs come from Lightning Fabric. Every random choice is a function of the seed and
the step, so that a run that was killed and resumed gives the same result as one without interruption (on the same
machine with the same number of threads, and without a limit of minutes).
"""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import time
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import OUTPUT, RESUME
from CACScoringLib.core.version import processor_name
from CACScoringLib.models.inference import is_out_of_memory

from .curves import Curves
from .distributed import from_first, in_turn, make_fabric
from .run_folder import CHECKPOINT, has_checkpoint
from .settings import LoopSettings, facts_of

PREFETCHED_BATCHES = 3
LOG_EVERY_STEPS = 20
COLLAPSED_VALIDATIONS = 2
"""Consecutive failed validations that count as a collapse; a single one may be transient."""


Settings = TypeVar("Settings", covariant=True)
Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Store a network's kernels in the order in which convolutions are fastest; return the network."""
    is_volumetric = any(parameter.ndim == 5 for parameter in network.parameters())
    memory_format = torch.channels_last_3d if is_volumetric else torch.channels_last
    return network.to(memory_format=memory_format)  # type: ignore[call-overload]  # the stub lacks it


class Task(Generic[Settings]):
    """Training of one network: its batches, steps and validation. One subclass per network.

    Attributes:
        settings: Frozen dataclass with all options of the training; a checkpoint belongs to its settings.
        exported: Name of the module that becomes the model.
        better: Name of the validation metric to maximise.
        modules: Networks by name.
        optimizers: Optimizers by name.
        batch_number: Number of the batch to make, counted from 0; set by the loop.
    """

    settings: Settings
    exported: str
    better: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    batch_number = 0

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        """Read one batch and draw its random changes; called in a separate thread."""
        raise NotImplementedError

    def augment(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Apply the changes to a batch on the training's device, where its tensors of one or more axes lie."""
        return batch

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        """Take one step with all optimizers; return the values to plot, detached."""
        raise NotImplementedError

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return a network's metrics on a fixed part of the validation data."""
        raise NotImplementedError

    def warnings(self, metrics: dict[str, float], validations: int) -> list[ScanWarning]:
        """Return warnings about the training. metrics: From the last validation. validations: Their number."""
        return []

    def has_collapsed(self, metrics: dict[str, float]) -> bool:
        """True if a validation shows that the networks have become useless."""
        return False

    def picture(self, network: nn.Module) -> np.ndarray | None:
        """Return a sample of a network's output after a validation, uint8 [row, column, 3], or None."""
        return None

    def replace_network(self, network: nn.Module) -> None:
        """Learn, from the start, with another network in place of the exported one."""
        replaced, new = set(self.modules[self.exported].parameters()), list(network.parameters())
        self.modules[self.exported] = network
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                remaining = [parameter for parameter in group["params"] if parameter not in replaced]
                if len(remaining) < len(group["params"]):
                    group["params"], new = [*new, *remaining], []

    def descend(self, name: str, loss: torch.Tensor, fabric: Fabric, max_norm: float | None = None) -> None:
        """Take one step with an optimizer down the gradient of a loss.

        max_norm: Norm to which a larger gradient is scaled; None leaves it as it is.
        """
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if max_norm is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return further content for the checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the content that `state` returned."""


@dataclass(frozen=True)
class Outcome:
    """Result of a training.

    Attributes:
        weights: Weights of the best validation; empty except in the first process.
        metrics: Metrics of the best validation.
        steps: Number of steps done.
        seconds: Time spent training.
        best_step: Steps done at the best validation.
        processes: Number of processes, each of which takes its own batch in every step.
        arithmetic: Machine and precision of the last run (`_arithmetic`).
    """

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    steps: int
    seconds: float
    best_step: int = 0
    processes: int = 1
    arithmetic: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return the facts for a model card."""
        counts = {"steps_done": self.steps, "best_step": self.best_step, "seconds": round(self.seconds, 1)}
        return {**counts, **self.arithmetic}

    def load_into(self, network: Network) -> Network:
        """Load the best weights into a network of the same configuration; return it in eval mode."""
        network.load_state_dict(self.weights)
        return network.eval()


def train(
    task: Task[object],
    settings: LoopSettings,
    folder: Path,
    progress: Progress,
    device: str = "auto",
    resume: bool = False,
    fabric: Fabric | None = None,
    network: Callable[[], nn.Module] | None = None,
) -> Outcome:
    """Train and return the best weights.

    Args:
        task: Training of the network.
        settings: Settings of the loop.
        folder: Folder for `checkpoint.pt` and the curves (`training.curves`), seen by all processes.
        progress: Progress of the training.
        device: Device of a training with one process.
        resume: True to continue from the checkpoint in the folder.
        fabric: Fabric of the launched processes; None trains in this process alone, on `device`.
        network: Class of a network, or function that makes it, in place of the task's; its `forward` takes and returns
            the same. A training is resumed with the same one.

    Raises:
        CTError: The loss is not a number, the device's memory is full, or the checkpoint belongs to another
            training.
        OutputError: There is a checkpoint and `resume` is False, or the disk is full.
    """
    fabric = fabric or make_fabric(settings.half_precision, device)
    if network is not None:
        torch.manual_seed(settings.seed)
        task.replace_network(network())
    run = _Run(task, settings, folder, fabric)
    if from_first(fabric, lambda: has_checkpoint(folder, resume)):
        in_turn(fabric, run.load)
    state = run.state
    writer = closing(Curves(folder, state.step)) if fabric.is_global_zero else nullcontext()
    with writer as curves, closing(_prefetched(task, settings, state.step, fabric)) as batches:
        if curves:
            progress.note(f"Curves, also while it runs: tensorboard --logdir {folder} (pip install tensorboard)")
        try:
            _loop(run, curves, batches, progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise CTError(
                f"The memory of the device ({fabric.device}) is full at step {state.step}. Close other programs and go "
                f"on with {RESUME}, or start anew with a smaller batch_size."
            ) from error
    return Outcome(
        run.best_weights,
        state.best_metrics,
        state.step,
        state.seconds,
        state.best_step,
        fabric.world_size,
        _arithmetic(fabric),
    )


def step_seconds(task: Task[object], settings: LoopSettings, device: str) -> float:
    """Return the seconds of a training's second step with its batch; the first one allocates memory."""
    fabric = make_fabric(settings.half_precision, device)
    with TemporaryDirectory() as folder:
        run = _Run(task, settings, Path(folder), fabric)
    began = 0.0
    for number in range(2):
        began = time.monotonic()
        batch = _numbered_batch(task, settings.seed, fabric, number)
        values = task.step(batch, fabric, number)
        run.average()
        _fetch([values], number)  # waits for a card
    return time.monotonic() - began


def _arithmetic(fabric: Fabric) -> dict[str, Any]:
    """Return for a model card what a training was computed by."""
    device = fabric.device
    return {
        "processor": processor_name(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "precision": "bfloat16" if fabric.strategy.precision.precision == "bf16-mixed" else "float32",
        "pytorch": torch.__version__,
    }


@dataclass
class _State:
    """State of a training, stored in its checkpoint under these names.

    Attributes:
        waited: Validations since the best one.
        ill: Consecutive validations that showed a collapse.
        warned: Codes of reported warnings.
    """

    step: int = 0
    seconds: float = 0.0
    waited: int = 0
    validations: int = 0
    restarts: int = 0
    ill: int = 0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)


class _Run:
    """Running training and its checkpoint."""

    def __init__(self, task: Task[object], settings: LoopSettings, folder: Path, fabric: Fabric) -> None:
        self.task, self.settings, self.fabric = task, settings, fabric
        self.checkpoint = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        self.averaged = copy.deepcopy(task.modules[task.exported]).to(fabric.device)
        for name, module in task.modules.items():
            task.modules[name] = fabric.setup_module(module)
        for name, optimizer in task.optimizers.items():
            task.optimizers[name] = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer))  # a proxy
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
        self.state = _State()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.healthy: dict[str, Any] | None = None
        self._last = time.monotonic()

    def tick(self) -> None:
        """Add the time since the last tick. With a limit of minutes, all processes use the clock of the first."""
        now = time.monotonic()
        self.state.seconds, self._last = self.state.seconds + now - self._last, now
        if self.settings.minutes is not None and self.fabric.world_size > 1:
            self.state.seconds = self.fabric.broadcast(self.state.seconds)

    def average(self) -> None:
        """Move the averaged weights towards the present ones."""
        present = self.task.modules[self.task.exported].state_dict()
        step = self.state.step
        decay = min(self.settings.average, (step + 1) / (step + 10)) if self.settings.average else 0.0
        with torch.no_grad():
            for name, tensor in self.averaged.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(present[name], 1 - decay)
                else:
                    tensor.copy_(present[name])

    def set_rate(self) -> None:
        fraction, start = self.fraction_done(), self.settings.decay_from
        factor = 1.0 if fraction <= start else 1 - 0.95 * min(1.0, (fraction - start) / (1 - start))
        for name, optimizer in self.task.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor

    def fraction_done(self) -> float:
        minutes = self.settings.minutes
        return max(self.state.step / self.settings.steps, self.state.seconds / 60 / minutes if minutes else 0.0)

    def out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.waited >= self.settings.patience

    def validate(self) -> tuple[dict[str, float], bool]:
        """Return the metrics, measured by the first process, and True if they are the best so far."""
        self.averaged.eval()
        metrics, state, better = from_first(self.fabric, self._metrics), self.state, self.task.better
        best = not state.best_metrics or metrics[better] > state.best_metrics[better]
        if best:
            state.best_metrics, state.best_step = metrics, state.step
            if self.fabric.is_global_zero:
                self.best_weights = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}
        state.waited = 0 if best else state.waited + 1
        state.validations += 1
        state.ill = state.ill + 1 if self.task.has_collapsed(metrics) else 0
        if self.settings.restarts and not state.ill:
            self.healthy = copy.deepcopy(self._networks())
        return metrics, best

    def restart(self) -> ScanWarning | None:
        """Restore the last healthy networks after a collapse; return the warning that reports it.

        The step number stays, so that batches and noise differ from those that led to the collapse.
        """
        state = self.state
        if self.healthy is None or state.ill < COLLAPSED_VALIDATIONS or state.restarts >= self.settings.restarts:
            return None
        self._restore_networks(self.healthy)
        state.restarts, state.ill = state.restarts + 1, 0
        message = (
            f"The training had collapsed at step {state.step} and continues from the last healthy networks with other "
            f"batches (restart {state.restarts} of {self.settings.restarts})."
        )
        return ScanWarning("training-restarted", message)

    def _networks(self) -> dict[str, Any]:
        """Return the state of everything that learns, by name."""
        return {
            "modules": {name: m.state_dict() for name, m in self.task.modules.items()},
            "optimizers": {name: o.state_dict() for name, o in self.task.optimizers.items()},
            "averaged": self.averaged.state_dict(),
            "task": self.task.state(),
        }

    def _restore_networks(self, networks: dict[str, Any]) -> None:
        for name, module in self.task.modules.items():
            module.load_state_dict(networks["modules"][name])
        for name, optimizer in self.task.optimizers.items():
            # An optimizer keeps writing into the state that it has loaded.
            optimizer.load_state_dict(copy.deepcopy(networks["optimizers"][name]))
        self.averaged.load_state_dict(networks["averaged"])
        self.task.restore(copy.deepcopy(networks["task"]))

    def _metrics(self) -> dict[str, float]:
        # Plain numbers, because a checkpoint is read with tensors and plain values alone.
        metrics = {name: float(value) for name, value in self.task.validate(self.averaged).items()}
        if not math.isfinite(metrics[self.task.better]):
            message = (
                f"The output of the network is not a number at step {self.state.step} ({self.task.better} of the "
                f"validation: {metrics[self.task.better]}). Start anew with a lower learning_rate."
            )
            raise CTError(message)
        return metrics

    def save(self) -> None:
        """Write the checkpoint atomically. Raises OutputError if that fails."""
        if self.fabric.is_global_zero:
            content = {
                "settings": facts_of(self.task.settings),
                **vars(self.state),
                **self._networks(),
                "random": torch.get_rng_state(),
                "healthy": self.healthy,
                "best_weights": self.best_weights,
            }
            try:
                with atomic_write(self.checkpoint) as half:
                    torch.save(content, half)
            except (OSError, RuntimeError) as error:  # PyTorch's writer raises either
                message = (
                    f"The checkpoint {self.checkpoint} could not be written ({error}). The one before is whole: make "
                    f"room on the disk, then go on with {RESUME}."
                )
                raise OutputError(message) from error
        self.fabric.barrier()

    def load(self) -> None:
        """Restore the checkpoint, from which only tensors and plain values are read."""
        try:
            if not zipfile.is_zipfile(self.checkpoint):  # torch.load reads other files as legacy pickles
                raise ValueError("not as PyTorch writes it")
            content = torch.load(self.checkpoint, map_location=self.fabric.device, weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            message = (
                f"The checkpoint {self.checkpoint} is damaged and cannot be read. Start anew; where several machines "
                "train, the output must lie on a disk that all of them see."
            )
            raise CTError(message) from error
        if content["settings"] != facts_of(self.task.settings):
            message = (
                f"{self.checkpoint} belongs to a training with other settings ({content['settings']}), not "
                f"{facts_of(self.task.settings)}. Give the same settings, or {OUTPUT}."
            )
            raise CTError(message)
        self._restore_networks(content)
        torch.set_rng_state(content["random"].cpu())
        self.state = _State(**{entry.name: content[entry.name] for entry in fields(_State)})
        self.best_weights, self.healthy = content["best_weights"], content["healthy"]
        self._last = time.monotonic()


def _loop(run: _Run, curves: Curves | None, batches: Iterator[dict[str, torch.Tensor]], progress: Progress) -> None:
    """Train until the end, validating on the way. curves: None except in the first process."""
    task, settings, state = run.task, run.settings, run.state
    last_report = -math.inf
    unlogged: list[dict[str, torch.Tensor]] = []
    while run.fraction_done() < 1 and not run.out_of_patience():
        run.set_rate()
        batch = next(batches)
        for module in task.modules.values():
            module.train()
        unlogged.append(task.step(batch, run.fabric, state.step))
        run.average()
        state.step += 1
        run.tick()
        if time.monotonic() - last_report > 1:
            progress.counted(round(1000 * min(1.0, run.fraction_done())), 1000)
            last_report = time.monotonic()
        is_last_step = run.fraction_done() >= 1
        is_logged = state.step % LOG_EVERY_STEPS == 0 or is_last_step
        is_validated = state.step % settings.validate_every == 0 or is_last_step
        if is_logged or is_validated:
            fetched = _fetch(unlogged, state.step)
            if curves and is_logged:
                names = dict.fromkeys(name for losses in fetched for name in losses)
                means = {name: sum(losses.get(name, 0.0) for losses in fetched) / len(fetched) for name in names}
                curves.write("training", state.step, state.seconds, means)
            unlogged = [] if is_logged else unlogged
        if is_validated:
            _validate(run, curves, progress)
            run.tick()
            run.save()


def _fetch(losses: list[dict[str, torch.Tensor]], step: int) -> list[dict[str, float]]:
    """Return the losses of the last steps as numbers. Raises CTError if one is not finite.

    A card is asked for them together, because each time it has to finish its work first. step: Steps done.
    """
    fetched = [{name: float(value) for name, value in values.items()} for values in losses]
    for number, values in enumerate(fetched, step - len(fetched)):
        if not all(map(math.isfinite, values.values())):
            message = (
                f"The loss is no longer a number at step {number} ({values}). Go on from the last checkpoint with "
                f"{RESUME}, or start anew with a lower learning_rate."
            )
            raise CTError(message)
    return fetched


def _validate(run: _Run, curves: Curves | None, progress: Progress) -> None:
    """Validate, restart collapsed networks, and report both."""
    state = run.state
    metrics, best = run.validate()
    picture = run.task.picture(run.averaged) if curves else None
    restart_warning = run.restart()
    if curves is None:
        return
    warnings = {warning.code: warning for warning in run.task.warnings(metrics, state.validations)}
    warnings |= {restart_warning.code: restart_warning} if restart_warning else {}
    for code in warnings.keys() - set(state.warned):
        progress.warning(warnings[code])
    state.warned = sorted({*state.warned, *warnings} - {"training-restarted"})
    messages = {code: warning.message for code, warning in warnings.items()}
    reason = f"Stopped early: {state.waited} validations were not better than that of step {state.best_step}."
    early_stop = reason if run.out_of_patience() else ""
    curves.write("validation", state.step, state.seconds, metrics, best=best, warnings=messages, ended=early_stop)
    values = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
    progress.note(f"Step {state.step}: {values}{' (best so far)' if best else ''}")
    if early_stop:
        progress.note(early_stop)
    if picture is not None:
        curves.picture(state.step, picture)


def _prefetched(
    task: Task[object], settings: LoopSettings, first: int, fabric: Fabric
) -> Generator[dict[str, torch.Tensor], None, None]:
    """Yield the batches from a step on, made in advance in a thread that ends when the generator is closed."""
    numbers = iter(range(first, settings.steps))
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[dict[str, torch.Tensor]]] = deque()
        try:
            while True:
                for number in itertools.islice(numbers, PREFETCHED_BATCHES - len(waiting)):
                    waiting.append(thread.submit(_numbered_batch, task, settings.seed, fabric, number))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)


def _numbered_batch(task: Task[object], seed: int, fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
    task.batch_number = number
    batch = task.batch(np.random.default_rng([seed, fabric.global_rank, number]))
    with torch.no_grad():
        # Seeds stay on the processor: reading one from a card would wait for all its work.
        return task.augment(
            {name: tensor.to(fabric.device) if tensor.ndim else tensor for name, tensor in batch.items()}
        )
