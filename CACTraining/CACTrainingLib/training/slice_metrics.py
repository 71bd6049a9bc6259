"""Metrics of a slice classifier, on slices as scoring sees them."""

from __future__ import annotations

import numpy as np
from torch import nn

from CACScoringLib.models.inference import predict
from CACScoringLib.networks.van_velzen import SliceClassifierConfig

from ..data.datasets import KINDS, SliceDataset
from ..statistics.roc import area, threshold_at


def sample_slices(data: SliceDataset, most: int, seed: int) -> np.ndarray:
    """A fixed sample of at most this many slices with, and as many without visible calcium."""
    generator = np.random.default_rng([seed, 7])
    parts = []
    for part in (np.nonzero(data.visible)[0], np.nonzero(~data.visible)[0]):
        parts.append(np.sort(generator.choice(part, min(most, len(part)), replace=False)))
    return np.concatenate(parts)


def calcium_probabilities(
    network: nn.Module, config: SliceClassifierConfig, data: SliceDataset, chosen: np.ndarray, batch_size: int = 16
) -> np.ndarray:
    """Probability of visible calcium, float32 [len(chosen)], from slices exactly as scoring sees them."""
    results = []
    for start in range(0, len(chosen), 8 * batch_size):
        x = data.network_input(chosen[start : start + 8 * batch_size], config.neighbours, config.position, config.size)
        results.append(predict(network, x, batch_size)[0][:, 1])
    return np.concatenate(results)


def slice_metrics(
    probabilities: np.ndarray, data: SliceDataset, chosen: np.ndarray, most_false: float
) -> dict[str, float]:
    """Area under the ROC curve, and accuracy, sensitivity and false-positive rate at the chosen threshold.

    The threshold is the lowest that calls at most this proportion of the negatives positive. Accuracy is for the
    proportion of positives among all of the data's slices, not among the chosen. False-positive rates are
    also given by kind of scan.
    """
    visible = data.visible[chosen]
    positive, negative = probabilities[visible], probabilities[~visible]
    threshold = threshold_at(negative, most_false)
    sensitivity, false = float((positive >= threshold).mean()), float((negative >= threshold).mean())
    share = float(data.visible.mean())
    metrics = {
        "auc": area(probabilities, visible),
        "threshold": threshold,
        "sensitivity": sensitivity,
        "false_positive_rate": false,
        "accuracy": share * sensitivity + (1 - share) * (1 - false),
    }
    for number, kind in enumerate(KINDS):
        own = probabilities[~visible & (data.kind[chosen] == number)]
        if len(own):
            metrics[f"false_positive_rate_{kind}_scans"] = float((own >= threshold).mean())
    return metrics
