"""Evaluate a territory network on unaugmented patches of digital patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.utils import do_metric_reduction
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import nn

from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.inference import Runner, predict

from ..data.territory_patches import UNKNOWN, Patch, plain_patch
from ..phantom import TerritoryVolume
from ..statistics.masks import dice


@dataclass(frozen=True)
class TerritoryAgreement:
    """Agreement with one patient's truth.

    Attributes:
        dice: Dice of each territory, NaN if the patient lacks it, and of the heart.
        mass: Possible calcium of each artery (as distributed over patients) by predicted territory, [4, 11].
    """

    dice: tuple[float, ...]
    mass: np.ndarray


def agreement(network: Runner | nn.Module, volume: TerritoryVolume) -> TerritoryAgreement:
    """Compare a network with the truth, on the unaugmented patch around a patient's heart."""
    patch, low = plain_patch(volume)
    output = predict(network, patch.x[None].numpy(), 1)[0][0]
    return TerritoryAgreement(_dice(output, patch), calcium_by_territory(output[1:], low, volume))


def heart_agreement(network: Runner | nn.Module, volume: TerritoryVolume) -> float:
    """Return the Dice of the heart in a scan with an outlined heart, on the patch around it."""
    patch, _ = plain_patch(volume)
    return _heart_dice(predict(network, patch.x[None].numpy(), 1)[0][0], patch)


def calcium_by_territory(probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume) -> np.ndarray:
    """Sum the possible calcium of each artery by the most probable territory except "outside", [4, 11].

    probability: Territory probabilities [11, k, j, i] in a box of the volume. low: First voxel of the box; calcium
    outside the box does not count.
    """
    probabilities, value, artery = _at_calcium(probability, low, volume)
    mass = np.zeros((4, len(TERRITORIES)))
    np.add.at(mass, (artery - 1, 1 + probabilities[:, 1:].argmax(1)), value)
    return mass


def temperature(network: Runner | nn.Module, volumes: list[TerritoryVolume]) -> float:
    """Fit the temperature that calibrates a network's probabilities of the artery of calcium.

    Guo 2017, On Calibration of Modern Neural Networks, applied to the arteries' probabilities alone.
    """
    logarithms, arteries, weights = [], [], []
    for volume in volumes:
        patch, low = plain_patch(volume)
        probabilities, value, artery = _at_calcium(predict(network, patch.x[None].numpy(), 1)[0][0][1:], low, volume)
        logarithms.append(np.log(np.maximum(probabilities[:, 1:5], 1e-6)))
        arteries.append(artery - 1)
        weights.append(value)
    logits, label, weight = map(np.concatenate, (logarithms, arteries, weights))
    if not len(label):
        return 1.0

    def surprise(divisor: float) -> float:
        surprises = logsumexp(logits / divisor, axis=1) - logits[np.arange(len(label)), label] / divisor
        return float(np.average(surprises, weights=weight))

    return round(float(minimize_scalar(surprise, bounds=(0.5, 5.0), method="bounded").x), 2)


def _at_calcium(
    probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities [n, 11], amount [n] and artery [n] of the possible coronary calcium within a box."""
    index, value, artery = (part[volume.possible[2] <= 4] for part in volume.possible)
    place = np.stack(np.unravel_index(index, volume.hu.shape)) - np.array(low)[:, None]
    inside = ((place >= 0) & (place < np.array(probability.shape[1:])[:, None])).all(0)
    return probability[(slice(None), *place[:, inside])].T, value[inside], artery[inside].astype(int)


def summary(agreements: list[TerritoryAgreement]) -> dict[str, float]:
    """Return means over patients, and the share of coronary calcium that is assigned to its artery."""
    values = torch.tensor([agreement.dice for agreement in agreements], dtype=torch.float64)
    means = do_metric_reduction(values, "mean_batch")[0].tolist()
    mass = np.sum([agreement.mass for agreement in agreements], axis=0)
    right = [float(mass[n, n + 1]) for n in range(4)]
    total = float(mass.sum())
    metrics = {f"mass_{TERRITORIES[n + 1]}": right[n] / float(mass[n].sum()) for n in range(4) if mass[n].any()}
    metrics["mass"] = sum(right) / total if total else 0.0
    metrics |= {f"dice_{name}": mean for name, mean in zip(TERRITORIES[1:], means[:-1], strict=True)}
    metrics["dice"], metrics["heart"] = float(np.mean(means[:-1])), means[-1]
    return {"score": (metrics["mass"] + metrics["dice"] + metrics["heart"]) / 3, **metrics}


def _dice(output: np.ndarray, patch: Patch) -> tuple[float, ...]:
    territories = compute_dice(
        torch.from_numpy(output[1:].argmax(0))[None, None],
        patch.labels[None, None],
        include_background=False,
        num_classes=len(TERRITORIES),
        ignore_index=UNKNOWN,
    )
    return (*territories[0].tolist(), _heart_dice(output, patch))


def _heart_dice(output: np.ndarray, patch: Patch) -> float:
    inside = (output[0] >= 0.5) & (patch.labels.numpy() != UNKNOWN)
    return dice(inside, patch.heart.numpy() > 0) or 0.0
