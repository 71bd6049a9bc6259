"""Scoring within a study: one scan in several configurations, and simulated scans in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.between_lungs import landmarks
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import Calibration, LoadedModel, StoredModel
from CACScoringLib.models.choice import ModelChoice, Networks, chosen_models, load_networks
from CACScoringLib.models.inference import Runner, predict, use_threads

from ..evaluation.jobs import Prepared

if TYPE_CHECKING:
    import torch


def scoring_models(choice: ModelChoice) -> dict[str, StoredModel]:
    """Return the models that score scans, by network. Raises ModelError, and CTError if they are not installed."""
    models = chosen_models(choice).networks
    if not models:
        raise CTError("The study needs the networks that score scans, which are not installed (cac models list).")
    return models


def with_networks(do_job: Callable[..., dict[str, Any]], models: Mapping[str, StoredModel], device: str) -> Prepared:
    """Bind networks to a worker's function for jobs, on one core."""
    use_threads(1)
    networks = load_networks(dict(models), device)
    assert networks is not None
    return partial(do_job, networks)


def models_key(models: Mapping[str, StoredModel]) -> list[tuple[str, str, Calibration]]:
    """Identity of models, given by network, for the key of a job."""
    return [(network, model.card.sha256, model.card.calibration) for network, model in sorted(models.items())]


def remembering(networks: Networks) -> Networks:
    """Return networks that cache their outputs for one scan, whose configurations share most inputs."""
    values = {field.name: getattr(networks, field.name) for field in fields(networks)}
    models = {name: value for name, value in values.items() if isinstance(value, LoadedModel)}
    return replace(networks, **{name: replace(m, network=Memory(m.network)) for name, m in models.items()})


class Memory:
    """A network that caches its outputs by digest of each input."""

    def __init__(self, network: Runner | torch.nn.Module) -> None:
        self.network = network
        self.answers: dict[bytes, np.ndarray] = {}

    def run(self, inputs: np.ndarray) -> np.ndarray:
        keys = [hashlib.blake2b(item.tobytes(), digest_size=16).digest() for item in inputs]
        missing = [n for n, key in enumerate(keys) if key not in self.answers]
        if missing:
            answers, _ = predict(self.network, inputs[missing], len(missing))
            self.answers |= {keys[n]: answer for n, answer in zip(missing, answers, strict=True)}
        return np.stack([self.answers[key] for key in keys])


def chest_room(scan: CTScan) -> sitk.Image:
    """Mask of the space inside the chest wall on the scan's grid, in place of a heart mask.

    Raises NoHeartError if the scan shows no lungs.
    """
    coarse = scan.coarse
    space = sitk.GetImageFromArray(landmarks(sitk.GetArrayFromImage(coarse)).space.astype(np.uint8))
    space.CopyInformation(coarse)
    return sitk.Resample(space, scan.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
