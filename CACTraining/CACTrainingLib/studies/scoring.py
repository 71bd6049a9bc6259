"""Scoring within a study: one scan in several ways, and scans that were only just computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.chest import landmarks, on_working_grid
from CACScoringLib.core.ct import CTScan
from CACScoringLib.models.cards import LoadedModel, StoredModel
from CACScoringLib.results import MethodResult, Networks
from CACScoringLib.run import load_networks

from .records import ARTERIES, Value

if TYPE_CHECKING:
    import torch


def ready_networks(models: Mapping[str, StoredModel], device: str) -> Networks:
    """Networks for a worker: on one core, and remembering what they answered (`remembering`)."""
    import torch

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    return remembering(load_networks(dict(models), device))


def remembering(networks: Networks) -> Networks:
    """The same networks, which answer what they were asked before from memory, until `forget`.

    Ways to score a scan differ in what is asked, and in what is made of the answers; most questions are the same.
    """
    changed = {}
    for part in fields(networks):
        model = getattr(networks, part.name)
        if isinstance(model, LoadedModel):
            changed[part.name] = replace(model, network=_with_memory(model.network))
    return replace(networks, **changed)


def forget(networks: Networks) -> None:
    """Free the memory of `remembering` networks: another scan asks anew."""
    for part in fields(networks):
        model = getattr(networks, part.name)
        if isinstance(model, LoadedModel):
            model.network.known.clear()


def _with_memory(network: torch.nn.Module) -> torch.nn.Module:
    import torch

    class Remembering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.known: dict[bytes, torch.Tensor] = {}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            keys = [_digest(item) for item in x]
            new = [n for n, key in enumerate(keys) if key not in self.known]
            if new:
                asked = x if len(new) == len(x) else x[new].contiguous(memory_format=_order_of(x))
                answers = self.network(asked)
                self.known |= {keys[n]: answer for n, answer in zip(new, answers, strict=True)}
            return torch.stack([self.known[key] for key in keys])

    return Remembering()


def _digest(item: torch.Tensor) -> bytes:
    import torch

    values = item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def _order_of(x: torch.Tensor) -> torch.memory_format:
    import torch

    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim, torch.contiguous_format)


def chest_room(scan: CTScan) -> sitk.Image:
    """Everything inside the chest wall, as a mask on the scan's grid: a "heart" that restricts nothing.

    Raises NoHeartError where the scan shows no lungs.
    """
    coarse = on_working_grid(scan.image)
    space = sitk.GetImageFromArray(landmarks(sitk.GetArrayFromImage(coarse)).space.astype(np.uint8))
    space.CopyInformation(coarse)
    return sitk.Resample(space, scan.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def value_of(method: MethodResult, hu_mm3_per_mass: float) -> Value:
    """A method's result as a study's value. hu_mm3_per_mass: HU·mm³ for one unit of mass."""
    arteries = {
        artery.key: (score.pseudo_mass_hu_mm3 / hu_mm3_per_mass, score.clinical_agatston)
        for artery, score in method.arteries.items()
        if artery.key in ARTERIES
    }
    total = method.total
    return Value(total.pseudo_mass_hu_mm3 / hu_mm3_per_mass, total.clinical_agatston, arteries)
