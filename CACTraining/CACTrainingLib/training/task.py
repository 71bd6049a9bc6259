"""A network's training as the loop sees it: batches, a step, validation."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError

from .distributed import is_volumetric
from .settings import LoopSettings

Settings = TypeVar("Settings", covariant=True)
Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Store a network's kernels in the order in which convolutions are fastest; return the network."""
    memory_format = torch.channels_last_3d if is_volumetric(network) else torch.channels_last
    return network.to(memory_format=memory_format)  # type: ignore[call-overload]  # the stub lacks it


class Task(Generic[Settings]):
    """Training of one network: its batches, steps and validation. One subclass per network.

    Attributes:
        settings: Frozen dataclass with all options of the training; a checkpoint belongs to its settings.
        exported: Name of the module that becomes the model.
        better: Name of the validation metric to maximise.
        modules: Networks by name.
        optimizers: Optimizers by name.
        began: Steps done before the exported network began to learn.
        batch_number: Number of the batch to make, counted from 0; set by the loop.
    """

    settings: Settings
    exported: str
    better: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    began = 0
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
        """Return a network's metrics on a fixed part of the validation data.

        Without `better`, the network has not begun to learn, and its weights are not the best so far.
        """
        raise NotImplementedError

    def validated(self, metrics: dict[str, float]) -> None:
        """Go on by the metrics of a validation; called in every process, before the checkpoint is written."""

    def obstacle(self, step: int, is_over: bool) -> CTError | None:
        """Return the error that ends the training, raised after its checkpoint is written.

        step: Steps done. is_over: True at the end of the steps or minutes.
        """
        return None

    @property
    def loop(self) -> LoopSettings:
        """Settings of the loop."""
        return cast(Any, self.settings).loop

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
