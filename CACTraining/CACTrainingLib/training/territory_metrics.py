"""Metrics of a territory network on digital patients' plain patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import nn

from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.inference import predict

from ..data.territory_patches import UNKNOWN, Patch, plain_patch
from ..data.territory_volumes import TerritoryVolume


@dataclass(frozen=True)
class Agreement:
    """Agreement with one patient's truth.

    dice: by territory, None where it has none, and the heart's last. mass: share of the calcium of each artery, as it
    is distributed over patients, that the network gives to each territory [4, 11].
    """

    dice: tuple[float | None, ...]
    mass: np.ndarray


def agreement(network: nn.Module, volume: TerritoryVolume) -> Agreement:
    """Agreement of a network with the truth, on the plain patch around a patient's heart."""
    patch, low = plain_patch(volume)
    output = predict(network, patch.x[None].numpy(), 1)[0][0]
    return Agreement(_dice(output, patch), calcium_given(output[1:], low, volume))


def calcium_given(probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume) -> np.ndarray:
    """Possible calcium of each artery by the territory with the highest probability there: [4, 11].

    probability: [11, k, j, i] of a box of the volume; low: its first voxel. What lies outside the box is left out;
    calcium is given to the best of the territories, "outside" left aside.
    """
    found, value, artery = _at_calcium(probability, low, volume)
    mass = np.zeros((4, len(TERRITORIES)))
    np.add.at(mass, (artery - 1, 1 + found[:, 1:].argmax(1)), value)
    return mass


def temperature(network: nn.Module, volumes: list[TerritoryVolume]) -> float:
    """Temperature by which a network is as often right about the artery of calcium as it is sure of it.

    Guo 2017, On Calibration of Modern Neural Networks, with the arteries' probabilities alone.
    """
    logarithms, arteries, weights = [], [], []
    for volume in volumes:
        patch, low = plain_patch(volume)
        found, value, artery = _at_calcium(predict(network, patch.x[None].numpy(), 1)[0][0][1:], low, volume)
        logarithms.append(np.log(np.maximum(found[:, 1:5], 1e-6)))
        arteries.append(artery - 1)
        weights.append(value)
    logits, own, weight = map(np.concatenate, (logarithms, arteries, weights))

    def surprise(by: float) -> float:
        surprises = logsumexp(logits / by, axis=1) - logits[np.arange(len(own)), own] / by
        return float(np.average(surprises, weights=weight))

    return round(float(minimize_scalar(surprise, bounds=(0.5, 5.0), method="bounded").x), 2) if len(own) else 1.0


def _at_calcium(
    probability: np.ndarray, low: tuple[int, int, int], volume: TerritoryVolume
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [n, 11], amount [n] and artery [n] of the coronary calcium within a box."""
    index, value, artery = (part[volume.possible[2] <= 4] for part in volume.possible)
    place = np.stack(np.unravel_index(index, volume.hu.shape)) - np.array(low)[:, None]
    inside = ((place >= 0) & (place < np.array(probability.shape[1:])[:, None])).all(0)
    return probability[(slice(None), *place[:, inside])].T, value[inside], artery[inside].astype(int)


def summary(agreements: list[Agreement]) -> dict[str, float]:
    """Means over patients, and the share of coronary calcium that is given to its artery."""
    columns = list(zip(*(each.dice for each in agreements), strict=True))
    means = [float(np.mean([v for v in column if v is not None] or [0.0])) for column in columns]
    mass = np.sum([each.mass for each in agreements], axis=0)
    right = [float(mass[n, n + 1]) for n in range(4)]
    total = float(mass.sum())
    metrics = {f"mass_{TERRITORIES[n + 1]}": right[n] / float(mass[n].sum()) for n in range(4) if mass[n].any()}
    metrics["mass"] = sum(right) / total if total else 0.0
    metrics |= {f"dice_{name}": mean for name, mean in zip(TERRITORIES[1:], means[:-1], strict=True)}
    metrics["dice"], metrics["heart"] = float(np.mean(means[:-1])), means[-1]
    return {"score": (metrics["mass"] + metrics["dice"] + metrics["heart"]) / 3, **metrics}


def _dice(output: np.ndarray, patch: Patch) -> tuple[float | None, ...]:
    labels, heart = patch.labels.numpy(), patch.heart.numpy() > 0
    known = labels != UNKNOWN
    found = output[1:].argmax(0)
    values = []
    for label in range(1, len(TERRITORIES)):
        true = labels == label
        here = (found == label) & known
        values.append(2 * float((here & true).sum()) / float(here.sum() + true.sum()) if true.any() else None)
    inside = (output[0] >= 0.5) & known
    return (*values, 2 * float((inside & heart).sum()) / max(1, float(inside.sum() + heart.sum())))
