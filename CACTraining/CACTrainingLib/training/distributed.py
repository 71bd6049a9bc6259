"""One training by several processes, a device each: how they are started, and how they agree.

They come from `torchrun` (on one machine or several), or from Lightning Fabric's own launcher (`--devices`). Whatever
decides how long they go on is decided by the first process and sent to the others, or they would wait for each other
for ever. What only one may do, such as writing files, the first one does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from CACScoringLib.models.inference import choose_device

from .run_folder import TrainingError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for one that prepares scans, validates, or evaluates the finished model."""


def make_fabric(half_precision: bool, device: str = "auto", devices: int = 1) -> Fabric:
    """Fabric for one process, or for as many as torchrun has started; else for so many devices of this machine.

    half_precision: bfloat16 where the device computes in it. Raises DeviceError, TrainingError.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device(device)
    here, machines = _processes(devices)
    if device == "cuda" and here > torch.cuda.device_count():
        message = f"{here} processes want a GPU each; this machine has {torch.cuda.device_count()}. Start fewer."
        raise TrainingError(message)
    several = here * machines > 1
    return Fabric(
        accelerator=device,
        # Buffers stay each process's own: a network that is run twice a step must not change in between.
        strategy=DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False) if several else "auto",
        devices=here,
        num_nodes=machines,
        precision="bf16-mixed" if half_precision and _bfloat16_is_fast(device) else "32-true",
    )


def _bfloat16_is_fast(device: str) -> bool:
    """Whether the device computes in bfloat16 itself; elsewhere it is emulated, slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def from_first(fabric: Fabric, job: Callable[[], T]) -> T:
    """Result of a job that the first process alone does. Its error is raised there; the others end without a word."""
    if fabric.world_size == 1:
        return job()
    if not fabric.is_global_zero:
        well, result = fabric.broadcast(None)
        if not well:
            raise SystemExit(0)  # the first process says why, and its exit code counts
        return result
    try:
        result = job()
    except Exception:
        fabric.broadcast((False, None))
        raise
    fabric.broadcast((True, result))
    return result


def in_turn(fabric: Fabric, job: Callable[[], T]) -> T:
    """A job for every process: first of all the first one, then one of every other machine, then the rest.

    So what is written once, as prepared scans are, is written by one process wherever a disk is shared.
    """
    results: list[T] = []
    from_first(fabric, lambda: results.append(job()))
    own = 0 if fabric.is_global_zero else 1 if fabric.local_rank == 0 else 2
    for turn in (1, 2):
        if turn == own:
            results.append(job())
        fabric.barrier()
    return results[0]


def _processes(devices: int) -> tuple[int, int]:
    """Processes on this machine, and machines."""
    if not TorchElasticEnvironment.detect():
        return devices, 1
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if everywhere % here:
        raise TrainingError(
            f"torchrun started {here} processes here and {everywhere} in all. Start as many everywhere."
        )
    return here, everywhere // here
