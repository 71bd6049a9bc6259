"""Generators of the calcium map as a training begins with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from CACScoringLib.networks.configs import GeneratorConfig
from CACScoringLib.networks.van_velzen import Generator


class LeakySigmoid(torch.autograd.Function):
    """Sigmoid whose slope in the backward pass is at least `least`; below FLOOR nothing pushes it further down."""

    FLOOR = 3e-4

    @staticmethod
    def forward(context: Any, z: torch.Tensor, least: float) -> torch.Tensor:
        p = torch.sigmoid(z)
        context.save_for_backward(p)
        context.least = least
        return p

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        (p,) = context.saved_tensors
        slope = (p * (1 - p)).clamp(min=context.least)
        down = (p < LeakySigmoid.FLOOR) & (gradient > 0)
        return gradient * torch.where(down, torch.zeros_like(slope), slope), None


def new_generator(config: GeneratorConfig, first_bias: float) -> nn.Module:
    """Build an untrained generator whose map begins near sigmoid(first_bias); 0 keeps PyTorch's initialisation."""
    network = Generator(config)
    if first_bias:
        nn.init.constant_(network.last.get_parameter("bias"), first_bias)
        nn.init.normal_(network.last.weight, 0, 0.01)
    return network
