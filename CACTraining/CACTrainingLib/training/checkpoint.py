"""State of a running training: its networks, rates and best weights, kept in a checkpoint and restored from it."""

from __future__ import annotations

import copy
import math
import pickle
import time
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import atomic_write
from CACScoringLib.core.text import OUTPUT, RESUME

from .distributed import choose_precision, from_first
from .run_folder import CHECKPOINT
from .settings import LoopSettings, settings_as_json
from .task import Task

COLLAPSED_VALIDATIONS = 2
"""Consecutive failed validations that count as a collapse; a single one may be transient."""


@dataclass
class State:
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


class CheckpointedTraining:
    """Running training and its checkpoint."""

    def __init__(self, task: Task[object], settings: LoopSettings, folder: Path, fabric: Fabric) -> None:
        self.task, self.settings, self.fabric = task, settings, fabric
        self.checkpoint = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        self.averaged = copy.deepcopy(task.modules[task.exported]).to(fabric.device)
        choose_precision(fabric, task.modules.values())
        for name, module in task.modules.items():
            task.modules[name] = fabric.setup_module(module)
        for name, optimizer in task.optimizers.items():
            task.optimizers[name] = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer))  # a proxy
        self.rates = {name: [g["lr"] for g in o.param_groups] for name, o in task.optimizers.items()}
        self.state = State()
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
        step = max(0, self.state.step - self.task.began)
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
        best = better in metrics and (not state.best_metrics or metrics[better] > state.best_metrics[better])
        if best:
            state.best_metrics, state.best_step = metrics, state.step
            if self.fabric.is_global_zero:
                self.best_weights = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}
        self.task.validated(metrics)
        state.waited = 0 if best or better not in metrics else state.waited + 1
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
        better = metrics.get(self.task.better, 0.0)
        if not math.isfinite(better):
            message = (
                f"The output of the network is not a number at step {self.state.step} ({self.task.better} of the "
                f"validation: {better}). Start anew with a lower learning_rate."
            )
            raise CTError(message)
        return metrics

    def save(self) -> None:
        """Write the checkpoint atomically. Raises OutputError if that fails."""
        if self.fabric.is_global_zero:
            content = {
                "settings": settings_as_json(self.task.settings),
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
        if content["settings"] != settings_as_json(self.task.settings):
            message = (
                f"{self.checkpoint} belongs to a training with other settings ({content['settings']}), not "
                f"{settings_as_json(self.task.settings)}. Give the same settings, or {OUTPUT}."
            )
            raise CTError(message)
        self._restore_networks(content)
        torch.set_rng_state(content["random"].cpu())
        self.state = State(**{entry.name: content[entry.name] for entry in fields(State)})
        self.best_weights, self.healthy = content["best_weights"], content["healthy"]
        self._last = time.monotonic()
