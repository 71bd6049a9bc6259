"""Evaluate a slice classifier on slices as in scoring."""

from __future__ import annotations

import numpy as np
from torch import nn

from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.networks.configs import SliceClassifierConfig

from ..data.datasets import SliceDataset
from ..project.training_scan import KINDS
from ..statistics.roc import area, threshold_at


def sample_slices(data: SliceDataset, max_count: int, seed: int) -> np.ndarray:
    """Draw a fixed sample of at most `max_count` slices with, and as many without visible calcium."""
    generator = np.random.default_rng([seed, 7])
    groups = np.nonzero(data.visible)[0], np.nonzero(~data.visible)[0]
    samples = (generator.choice(group, min(max_count, len(group)), replace=False) for group in groups)
    return np.concatenate([np.sort(sample) for sample in samples])


def calcium_probabilities(
    network: Runner | nn.Module,
    config: SliceClassifierConfig,
    data: SliceDataset,
    slices: np.ndarray,
) -> np.ndarray:
    """Predict the probability of visible calcium, float32 [len(slices)], from slices exactly as in scoring."""
    results = []
    for start in range(0, len(slices), 128):
        x = data.network_input(slices[start : start + 128], config.neighbours, config.position, config.size)
        results.append(predict(network, x, 16)[0][:, 1])
    return np.concatenate(results)


def slice_metrics(
    probabilities: np.ndarray, data: SliceDataset, slices: np.ndarray, max_false_positive_rate: float
) -> dict[str, float]:
    """Return the area under the ROC curve, the threshold, and accuracy, sensitivity and false-positive rates at it.

    The threshold is the lowest that keeps to `max_false_positive_rate`. Accuracy holds for the proportion of positives
    among all slices of the data, not among the evaluated ones.
    """
    visible = data.visible[slices]
    positive, negative = probabilities[visible], probabilities[~visible]
    threshold = threshold_at(negative, max_false_positive_rate)
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
        kind_negatives = probabilities[~visible & (data.kind[slices] == number)]
        if len(kind_negatives):
            metrics[f"false_positive_rate_{kind}_scans"] = float((kind_negatives >= threshold).mean())
    return metrics
