"""Train one network with several processes, each on its own device.

Processes are started by `torchrun` (on one or several machines), or by Lightning Fabric's launcher (`--devices`). The
first process writes files, and decides when to stop: a decision of their own would leave processes waiting for each
other for ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.inference import choose_device

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""Longest wait for a process that prepares scans, validates, or evaluates the finished model."""


def make_fabric(half_precision: bool, device: str = "auto", devices: int = 1) -> Fabric:
    """Make the Fabric of the processes that torchrun has started; without torchrun, of `devices` on this machine.

    half_precision: True for bfloat16 on devices that compute in it natively (see `choose_precision`). Raises CTError.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device(device)
    processes, machines = _processes(devices)
    if device == "cuda" and processes > torch.cuda.device_count():
        message = f"{processes} processes want a GPU each; this machine has {torch.cuda.device_count()}. Start fewer."
        raise CTError(message)
    is_distributed = processes * machines > 1
    return Fabric(
        accelerator=device,
        # Buffers are not synchronised: a network that runs twice in a step must not change in between.
        strategy=DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False) if is_distributed else "auto",
        devices=processes,
        num_nodes=machines,
        precision="bf16-mixed" if half_precision and _has_bfloat16(device) else "32-true",
    )


def _has_bfloat16(device: str) -> bool:
    """True if a device computes in bfloat16 natively; emulation is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def choose_precision(fabric: Fabric, networks: Iterable[nn.Module]) -> None:
    """Compute in float32 from here on if 3-D networks learn on a processor.

    In bfloat16, PyTorch 2.13 overruns memory there: gradients of convolutions over few slices are partly uninitialised,
    and processors with AMX end in a segmentation fault. 2-D networks, and GPUs, are not affected.

    Args:
        fabric: Fabric of the training, whose networks are not set up yet.
        networks: All that learn.
    """
    if fabric.device.type == "cpu" and any(map(is_volumetric, networks)):
        fabric.strategy.precision = Precision()


def is_volumetric(network: nn.Module) -> bool:
    """Return True for a network with 3-D convolutions."""
    return any(parameter.ndim == 5 for parameter in network.parameters())


def from_first(fabric: Fabric, job: Callable[[], T]) -> T:
    """Run a job in the first process, and return its result to all. Its error is raised there; the others exit."""
    if fabric.world_size == 1:
        return job()
    if not fabric.is_global_zero:
        results: tuple[T, ...] = fabric.broadcast(())
        if not results:
            raise SystemExit(0)  # the first process reports the error and its exit code
        return results[0]
    try:
        result = job()
    except Exception:
        fabric.broadcast(())
        raise
    fabric.broadcast((result,))
    return result


def in_turn(fabric: Fabric, job: Callable[[], T]) -> T:
    """Run a job in every process: in the first, then in one of every other machine, then in the remaining ones.

    Files that are written once, such as prepared scans, are thus written by one process of those that share a disk.
    """
    results: list[T] = []
    from_first(fabric, lambda: results.append(job()))
    own_turn = 0 if fabric.is_global_zero else 1 if fabric.local_rank == 0 else 2
    for turn in (1, 2):
        if turn == own_turn:
            results.append(job())
        fabric.barrier()
    return results[0]


def _processes(devices: int) -> tuple[int, int]:
    """Return the number of processes on this machine, and of machines."""
    if not TorchElasticEnvironment.detect():
        return devices, 1
    processes, total = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if total % processes:
        raise CTError(f"torchrun started {processes} processes here and {total} in all. Start as many everywhere.")
    return processes, total // processes
