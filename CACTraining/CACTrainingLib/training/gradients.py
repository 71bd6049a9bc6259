"""Check that a training's gradients are right.

PyTorch 2.13 and 2.14 compute in bfloat16 part of the gradient of a 3 × 3 × 3 convolution on features two voxels deep
from uninitialised memory, on processors with AVX-512. So a training on a processor compares its first gradients in
bfloat16 with those in float32, and every training stops at a gradient that its own history makes incredible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from CACScoringLib.core.remedies import RESUME

from .run_folder import TrainingError

MAX_DIFFERENCE = 0.1
"""Largest difference of a parameter's gradient in bfloat16 from that in float32, relative to the norm of its layer's;
rounding causes up to 0.01."""

MAX_GROWTH, MIN_HISTORY = 100.0, 20
"""Largest norm of a gradient, as a multiple of the largest one of at least so many steps before."""

UNLIKELY_VALUE = 1e30
"""Value left in freed memory, so that a gradient that is read from it differs for certain."""


class Layers:
    """Layers with parameters of networks, and what each met in a step: its input and the gradient of its output.

    Args:
        networks: Networks by name.
    """

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        self.layers = {
            f"{name}.{path}".rstrip("."): layer
            for name, network in networks.items()
            for path, layer in network.named_modules()
            if next(layer.parameters(recurse=False), None) is not None
        }
        self.calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record each layer's first call in which it learns."""
        handles = []
        for name, layer in self.layers.items():

            def after(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, name: str = name) -> None:
                if name in self.calls or not output.requires_grad:
                    return
                x = inputs[0].detach()
                output.register_hook(lambda gradient: self.calls.setdefault(name, (x, gradient.detach())) and None)

            handles.append(layer.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def differences(self) -> dict[str, float]:
        """Compare the gradients of recorded layers; see `gradient_differences`."""
        values = {}
        for name, (x, output_gradient) in self.calls.items():
            layer = self.layers[name]
            parameters = dict(layer.named_parameters(recurse=False))
            exact, half = (
                _gradients(layer, list(parameters.values()), x, output_gradient, is_half) for is_half in (False, True)
            )
            # The layer's norm, because a bias before a normalisation has no gradient but rounding.
            norm = torch.stack([gradient.norm() for gradient in exact]).norm().clamp(min=1e-12)
            for parameter, a, b in zip(parameters, exact, half, strict=True):
                values[f"{name}.{parameter}"] = float((b - a).norm() / norm)
        return values


def _gradients(
    layer: nn.Module, parameters: list[nn.Parameter], x: torch.Tensor, output_gradient: torch.Tensor, is_half: bool
) -> tuple[torch.Tensor, ...]:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=is_half):
        y = layer(x)
    freed = [torch.full((parameter.numel() * copies,), UNLIKELY_VALUE) for parameter in parameters for copies in (1, 2)]
    del freed
    return torch.autograd.grad(y, parameters, output_gradient.to(y.dtype))


class _Still:
    """Optimizer that changes nothing."""

    param_groups: tuple[dict[str, Any], ...] = ()

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def step(self) -> None:
        pass


def gradient_differences(task: Any, batch: dict[str, torch.Tensor], fabric: Any) -> dict[str, float]:
    """Compare gradients of a training's first step in bfloat16 with those in float32, layer by layer.

    The networks, and all random numbers after it, are as if there had been no comparison.

    Args:
        task: Training (`loop.Task`) whose networks Fabric has not set up yet.
        batch: First batch.
        fabric: Fabric of the step.

    Returns:
        Norm of the difference relative to that of the layer's gradient in float32, by the parameter's name.
    """
    modules, optimizers, random = task.modules, task.optimizers, torch.get_rng_state()
    states = {name: {key: v.clone() for key, v in module.state_dict().items()} for name, module in modules.items()}
    state = task.state()
    layers = Layers(modules)
    task.optimizers = dict.fromkeys(optimizers, _Still())
    try:
        for module in modules.values():
            module.train()
        with layers.recorded():
            task.step(batch, fabric, 0)
        return layers.differences()
    finally:
        task.optimizers = optimizers
        task.restore(state)
        for name, module in modules.items():
            module.load_state_dict(states[name])
            module.zero_grad(set_to_none=True)
        torch.set_rng_state(random)


class GradientHistory:
    """Norms of the gradients of a training, by optimizer.

    Attributes:
        step: Number of the present step; set by the loop.
        largest: Largest norm of all parameters of an optimizer together; 0 before the first check.
    """

    def __init__(self) -> None:
        self.step, self.largest = 0, 0.0
        self._largest_by_optimizer: dict[str, tuple[int, float]] = {}
        self._unchecked: list[tuple[int, str, list[str], torch.Tensor]] = []

    def add(self, optimizer: str, parameters: dict[str, nn.Parameter]) -> torch.Tensor:
        """Add the gradients of an optimizer's step; return their norm. They stay on their device until `check`.

        parameters: Parameters with gradients by name.
        """
        gradients = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        self._unchecked.append((self.step, optimizer, list(parameters), norms))
        return torch.linalg.vector_norm(norms)

    def check(self) -> None:
        """Check the gradients added since the last check.

        Raises:
            TrainingError: A norm is not finite, or more than MAX_GROWTH times as large as ever before.
        """
        unchecked, self._unchecked = self._unchecked, []
        for step, optimizer, names, norms in unchecked:
            count, largest = self._largest_by_optimizer.get(optimizer, (0, 0.0))
            norm = float(torch.linalg.vector_norm(norms.double()))
            if not norm <= (MAX_GROWTH * largest if count >= MIN_HISTORY else torch.finfo(torch.float32).max):
                worst = names[int(norms.nan_to_num(torch.inf).argmax())]
                raise TrainingError(
                    f"The gradient is wrong at step {step}, most of all that of {worst}: its norm is {norm:.3g}, the "
                    f"largest before {largest:.3g}. Go on from the last checkpoint with {RESUME}; if it happens again, "
                    "start anew with a lower learning_rate, or in float32 (half_precision false)."
                )
            self._largest_by_optimizer[optimizer] = count + 1, max(largest, norm)
            self.largest = max(self.largest, norm)
