"""One training: begin, stop where the validation is best, calibrate, and predict other patients.

For the calibration three logistic models are fitted of each threshold: of the factors alone, on the
training patients; of the image's logit, on the validation patients, whom the network has not learned from (Platt 1999);
and of both together, on these too. The first model's coefficients are held near 0, the other two's near 1, where both
simply add; how strongly, is as if so many patients had said so. What is stored is the sum,
`CACScoringLib.networks.radiograph_fusion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import optimize
from torch.nn import functional

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import read_network
from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet, RadiographNetConfig
from CACScoringLib.networks.radiograph_fusion import FACTORS, factors_key, image_key, probabilities

from ..data.datasets import DataError
from ..statistics.patient_folds import category_of, parts_by_patient
from ..statistics.roc import above
from ..training.loop import Outcome, train
from .dataset import RadiographSet, check_label
from .pretrained import load_pretrained
from .task import RadiographTask, RadiographTraining, locate_hearts, predict_logits

LEAST_PATIENTS = 20
"""With all factors known, on either side, for these to be used."""

_MIDDLE, _STEP = np.array([60.0, 0.5, 27.0]), np.array([10.0, 0.5, 5.0])
"""About the mean and standard deviation of FACTORS, so that all coefficients are held alike."""

_HOLD_FACTORS, _HOLD_IMAGE, _HOLD_BOTH, _HOLD_OFFSET = 1.0, 1.0, 4.0, 0.01


def fitted_calibration(
    thresholds: Sequence[float],
    training_scores: np.ndarray,
    training_factors: np.ndarray,
    logits: np.ndarray,
    scores: np.ndarray,
    factors: np.ndarray,
) -> dict[str, dict[str, float] | None]:
    """The card's `calibration`. logits: [n, thresholds], scores: [n] and factors: [n, 3] of the validation patients."""
    calibration: dict[str, dict[str, float] | None] = {}
    truth, training_truth = above(scores, thresholds), above(training_scores, thresholds)
    complete, learned = ~np.isnan(factors).any(1), ~np.isnan(training_factors).any(1)
    enough = min(complete.sum(), learned.sum()) >= LEAST_PATIENTS
    for number, threshold in enumerate(thresholds):
        logit, positive = logits[:, number], truth[:, number]
        offset, slope = held_logistic(logit[:, None], positive, [1.0], _HOLD_IMAGE)
        calibration[image_key(threshold)] = {"offset": offset, "logit": slope}
        if not enough:
            calibration[factors_key(threshold)] = None
            continue
        alone = held_logistic(
            _standard(training_factors[learned]), training_truth[learned, number], [0] * 3, _HOLD_FACTORS
        )
        # Of the factors, what they tell beyond how common the score is; that is in the image's offset already.
        from_factors = _standard(factors) @ alone[1:]
        design = np.stack([offset + slope * logit, from_factors], 1)
        base, image_part, factors_part = held_logistic(design[complete], positive[complete], [1.0, 1.0], _HOLD_BOTH)
        per_unit = factors_part * alone[1:] / _STEP
        calibration[factors_key(threshold)] = {
            "offset": float(base + image_part * offset - per_unit @ _MIDDLE),
            "logit": float(image_part * slope),
            **dict(zip(FACTORS, map(float, per_unit), strict=True)),
        }
    return calibration


def held_logistic(x: np.ndarray, y: np.ndarray, near: Sequence[float], hold: float) -> np.ndarray:
    """Offset and coefficients of the logistic model of y [n] by x [n, k], held near given ones by a Gaussian prior.

    hold: the prior's precision. The offset is hardly held; enough to be finite where all y are the same.
    """
    design = np.column_stack([np.ones(len(x)), x]).astype(float)
    middle = np.array([0.0, *near])
    precision = np.array([_HOLD_OFFSET, *[hold] * len(near)])

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ b
        value = np.logaddexp(0, z).sum() - y @ z + 0.5 * precision @ (b - middle) ** 2
        return value, design.T @ (1 / (1 + np.exp(-np.clip(z, -50, 50))) - y) + precision * (b - middle)

    minimum = optimize.minimize(loss, middle, jac=True, method="BFGS")
    return np.array([float(b) if math.isfinite(b) else 0.0 for b in minimum.x])


def _standard(factors: np.ndarray) -> np.ndarray:
    return (factors - _MIDDLE) / _STEP


FINDER_BATCH = 16
_MOVED = 8
"""Reduced pixels by which views are moved at most, so that it is the heart that is learned and not the picture's
middle."""


@dataclass(frozen=True)
class FitSettings:
    """pretrained: file of weights to begin the backbones with. start: card of a radiograph model to begin as."""

    config: RadiographNetConfig
    training: RadiographTraining
    device: str = "auto"
    pretrained: Path | None = None
    start: Path | None = None


def validation_split(
    data: RadiographSet, proportion: float, seed: int, label: str, cases: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of cases to learn from, and to stop and calibrate by; no patient is in both.

    proportion: of the patients to validate on. label: score whose categories are in both in like proportions. cases:
    those to split; None for all. Raises DataError when there are too few patients.
    """
    cases = np.arange(len(data)) if cases is None else cases
    if not 0 < proportion <= 0.5:
        raise DataError(f"The proportion for validation is {proportion:g}; give one above 0, 0.5 at most.")
    category, patients = category_of(check_label(data, label))[cases], data.patients[cases]
    most = int(np.bincount(category).max())
    parts = min(round(1 / proportion), max(2, most))
    if min(most, len(np.unique(patients))) < parts:
        raise DataError(f"{len(np.unique(patients))} patients cannot be split into {parts} parts. Give more.")
    part = parts_by_patient(patients, category, parts, seed)
    return cases[part != 0], cases[part == 0]


def fit(
    data: RadiographSet,
    training: np.ndarray,
    validation: np.ndarray,
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
) -> tuple[RadiographNet, dict[str, dict[str, float] | None], Outcome, dict[str, float | None]]:
    """A trained network, its calibration, how its training went, and the validation's metrics.

    folder: takes checkpoint and curves; a training that was ended there continues. Raises
    TrainingError, DataError, CTError.
    """
    config, training_settings = settings.config, settings.training
    if config.enhancement != data.enhancement:
        raise DataError(f"The views are enhanced by {data.enhancement!r}; the network asks for {config.enhancement!r}.")
    network, training_settings = _begun(settings)
    task = RadiographTask(config, training_settings, data, training, validation, network)
    outcome = train(task, training_settings.loop, folder, progress or Progress(), settings.device, resume=True)
    network = RadiographNet(config)
    network.load_state_dict(outcome.weights)
    network.eval()
    metrics: dict[str, float | None] = {f"validation_{name}": value for name, value in outcome.metrics.items()}
    train_finder(network, data, training, training_settings.finder_steps, training_settings.loop.seed)
    metrics["heart_error_mm"] = finder_error_mm(network, data, validation) if training_settings.finder_steps else None
    label = check_label(data, training_settings.label)
    logits = predict_logits(network, data, validation, locate=knows_hearts(settings))
    calibration = fitted_calibration(
        config.thresholds, label[training], data.factors[training], logits, label[validation], data.factors[validation]
    )
    return network, calibration, outcome, metrics


def predictions_of(
    network: RadiographNet, data: RadiographSet, cases: np.ndarray, calibration: dict, locate: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities from the image, and with clinical factors (NaN where these are not known), each [n, thresholds].

    locate: about the heart as the network finds it, as scoring does.
    """
    logits = predict_logits(network, data, cases, locate)
    return probabilities(logits, None, calibration), probabilities(logits, data.factors[cases], calibration)


def _begun(settings: FitSettings) -> tuple[RadiographNet, RadiographTraining]:
    """The network before its first step, and the settings that say what it began with."""
    training = settings.training
    torch.manual_seed(training.loop.seed)
    network = RadiographNet(settings.config)
    if settings.start is not None:
        card, begun = read_network(settings.start)
        if card.network != "radiograph" or begun.config != settings.config:
            raise CTError(f"{card.name} (--start) is no radiograph model of the same backbone, views and size.")
        network.load_state_dict(begun.state_dict())
        training = replace(training, start=card.sha256)
    if settings.pretrained is not None:
        training = replace(training, pretrained=load_pretrained(network, settings.pretrained))
    return network, training


def knows_hearts(settings: FitSettings) -> bool:
    """True if the network knows where hearts are, so that pictures are judged as scoring does."""
    return settings.training.finder_steps > 0 or settings.start is not None


def train_finder(network: RadiographNet, data: RadiographSet, cases: np.ndarray, steps: int, seed: int) -> int:
    """Train a network's finder in place on those of the cases whose heart is known; returns how many they are.

    Without any, or without steps, the finder stays as it is. What is lost is the distance in each direction, smoothed.
    """
    cases = cases[data.known[cases]]
    if not len(cases) or not steps:
        return len(cases)
    generator = np.random.default_rng([seed, 9])
    channels = data.channels(network.config.views)
    device = next(network.parameters()).device
    finder = network.finder.train()
    optimizer = torch.optim.AdamW(finder.parameters(), 3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - 0.95 * step / steps)
        sample = generator.choice(cases, FINDER_BATCH)
        views = data.reduced[sample][:, channels].reshape(-1, *data.reduced.shape[2:]).astype(np.float32) / 65535
        centres = data.centres[sample][:, channels].reshape(-1, 2).copy()
        moved = generator.integers(-_MOVED, _MOVED + 1, 2)
        views = np.clip(views, 0, 1) ** np.float32(np.exp(generator.normal(0, 0.2)))
        views = _shifted(views, moved)
        places = finder(torch.from_numpy(views[:, None]).to(device))
        loss = functional.smooth_l1_loss(places, torch.from_numpy(centres + REDUCTION * moved).float().to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    finder.eval()
    return len(cases)


def finder_error_mm(network: RadiographNet, data: RadiographSet, cases: np.ndarray) -> float | None:
    """Median distance of the centres found from those known; None where none is known."""
    cases = cases[data.known[cases]]
    if not len(cases):
        return None
    network.eval()
    true = data.centres[cases][:, data.channels(network.config.views)]
    return float(np.median(np.linalg.norm(locate_hearts(network, data, cases).numpy() - true, axis=2)))


def _shifted(views: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Views moved by whole pixels (rows, columns); their border continues."""
    padded = np.pad(views, ((0, 0), (_MOVED, _MOVED), (_MOVED, _MOVED)), "edge")
    row, column = _MOVED - moved
    return np.ascontiguousarray(padded[:, row : row + views.shape[1], column : column + views.shape[2]])
