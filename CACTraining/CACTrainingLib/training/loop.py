"""Train any network: steps, validation, checkpoints, curves, early stopping, and the best weights.

Devices, mixed precision and several GPUs come from Lightning Fabric. Every random choice is a function of the seed and
the step, so that a run that was killed and resumed gives the same result as one without interruption (on the same
machine with the same number of threads, and without a limit of minutes).
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import RESUME
from CACScoringLib.core.version import processor_name
from CACScoringLib.models.inference import is_out_of_memory

from .checkpoint import CheckpointedTraining
from .curves import Curves
from .distributed import from_first, in_turn, make_fabric
from .run_folder import has_checkpoint
from .settings import LoopSettings
from .task import Network, Task

PREFETCHED_BATCHES = 3
LOG_EVERY_STEPS = 20


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

    def mixed_with(self, weights: Mapping[str, torch.Tensor], share: float) -> Outcome:
        """Return the outcome with the means of its weights and others. share: Share of the others, from 0 to 1."""
        mixed = {
            name: torch.lerp(trained, weights[name].to(trained), share) if trained.is_floating_point() else trained
            for name, trained in self.weights.items()
        }
        return replace(self, weights=mixed)

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
        CTError: The loss is not a number, the device's memory is full, the checkpoint belongs to another training, or
            the task has an obstacle.
        OutputError: There is a checkpoint and `resume` is False, or the disk is full.
    """
    fabric = fabric or make_fabric(settings.half_precision, device)
    if network is not None:
        torch.manual_seed(settings.seed)
        task.replace_network(network())
    run = CheckpointedTraining(task, settings, folder, fabric)
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
        run = CheckpointedTraining(task, settings, Path(folder), fabric)
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


def _loop(
    run: CheckpointedTraining, curves: Curves | None, batches: Iterator[dict[str, torch.Tensor]], progress: Progress
) -> None:
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
            if obstacle := task.obstacle(state.step, is_last_step):
                raise obstacle
    if not state.best_metrics and (obstacle := task.obstacle(state.step, is_over=True)):
        raise obstacle


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


def _validate(run: CheckpointedTraining, curves: Curves | None, progress: Progress) -> None:
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
