"""Training of one radiograph network: initial weights, fit with early stopping, calibration, and predictions.

Pretrained weights of published networks come from a user's file; nothing is downloaded. Names are torchvision's, as in
ImageNet weights and many networks for chest radiographs.

The calibration fits three logistic models for each threshold: of the factors alone, on the training patients; of the
image's logit, on the validation patients, which the network has not seen (Platt 1999); and of both together, on these
too. Gaussian priors pull the first model's coefficients to 0, and the others' to 1, which is the sum of logit and
factors. The stored model is their composition, see `CACScoringLib.radiograph.score`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from CACScoringLib.core.categories import category_numbers
from CACScoringLib.core.errors import CTError, DataError, ModelError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import read_network
from CACScoringLib.networks.configs import STANDARD_MM, RadiographNetConfig
from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet
from CACScoringLib.radiograph.score import FACTORS, factors_key, image_key, probabilities
from CACScoringLib.statistics.bootstrap import patient_estimate
from CACScoringLib.statistics.patient_folds import parts_by_patient
from CACScoringLib.statistics.roc import above, area_name, area_under_curve

from ..data.scan_table import TableScan
from ..training.fits import penalised_logistic
from ..training.loop import Outcome, train
from .dataset import RadiographSet, check_label, load_radiographs
from .task import RadiographTask, RadiographTraining, locate_hearts, predict_logits

MIN_PATIENTS = 20
"""Least number of training, and of validation, patients with all factors for a model with factors."""

_MIDDLE, _STEP = np.array([60.0, 0.5, 27.0]), np.array([10.0, 0.5, 5.0])
"""Approximate mean and standard deviation of FACTORS, which standardise them for the priors."""

_PRECISION_FACTORS, _PRECISION_IMAGE, _PRECISION_BOTH, _PRECISION_OFFSET = 1.0, 1.0, 4.0, 0.01


def fit_calibration(
    thresholds: Sequence[float],
    training_scores: np.ndarray,
    training_factors: np.ndarray,
    logits: np.ndarray,
    scores: np.ndarray,
    factors: np.ndarray,
) -> dict[str, dict[str, float] | None]:
    """Fit the card's `calibration`. logits [n, thresholds], scores [n], factors [n, 3]: of the validation patients."""
    calibration: dict[str, dict[str, float] | None] = {}
    complete, complete_train = ~np.isnan(factors).any(1), ~np.isnan(training_factors).any(1)
    enough = min(complete.sum(), complete_train.sum()) >= MIN_PATIENTS
    truth, training_truth = above(scores, thresholds), above(training_scores[complete_train], thresholds)
    standard, training_standard = _standard(factors), _standard(training_factors[complete_train])
    for number, threshold in enumerate(thresholds):
        logit, positive = logits[:, number], truth[:, number]
        offset, slope = fit_logistic(logit[:, None], positive, [1.0], _PRECISION_IMAGE)
        calibration[image_key(threshold)] = {"offset": offset, "logit": slope}
        if not enough:
            calibration[factors_key(threshold)] = None
            continue
        # Without the offset: the image's offset already holds the prevalence.
        weights = fit_logistic(training_standard, training_truth[:, number], [0] * 3, _PRECISION_FACTORS)[1:]
        design = np.stack([offset + slope * logit, standard @ weights], 1)
        base, image_part, factors_part = fit_logistic(design[complete], positive[complete], [1.0, 1.0], _PRECISION_BOTH)
        per_unit = factors_part * weights / _STEP
        calibration[factors_key(threshold)] = {
            "offset": float(base + image_part * offset - per_unit @ _MIDDLE),
            "logit": float(image_part * slope),
            **dict(zip(FACTORS, map(float, per_unit), strict=True)),
        }
    return calibration


def fit_logistic(x: np.ndarray, y: np.ndarray, prior_means: Sequence[float], precision: float) -> np.ndarray:
    """Fit the offset and coefficients of a logistic model of y [n] by x [n, k] with Gaussian priors.

    prior_means, precision: of the coefficients. The offset's weak prior keeps it finite if all y are the same.
    """
    columns = np.column_stack([np.ones(len(x)), x])
    penalty = np.array([_PRECISION_OFFSET, *[precision] * len(prior_means)])
    weights = penalised_logistic(columns, y, penalty, np.array([0.0, *prior_means]))
    return np.where(np.isfinite(weights), weights, 0.0)


def _standard(factors: np.ndarray) -> np.ndarray:
    return (factors - _MIDDLE) / _STEP


FINDER_BATCH = 16
_SHIFT = 8
"""Largest shift of views in reduced pixels, so that the finder learns the heart and not the picture's middle."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit.

    Attributes:
        config: Configuration of the network.
        training: Settings of the training.
        device: Device of PyTorch.
        pretrained: File of initial weights of the backbones.
        start: Card of an initial radiograph model.
        super_resolution: Way of `cases.SUPER_RESOLUTIONS` for the radiographs.
        one_exposure: True to expose each radiograph once; see `dataset.load_radiographs`.
    """

    config: RadiographNetConfig
    training: RadiographTraining
    device: str = "auto"
    pretrained: Path | None = None
    start: Path | None = None
    super_resolution: str = "none"
    one_exposure: bool = False

    def radiographs(
        self, rows: Sequence[TableScan], finder: RadiographNet | None = None, progress: Progress | None = None
    ) -> RadiographSet:
        """Load radiographs as the network needs them. Arguments and errors are those of `load_radiographs`."""
        pictures = (self.config.views, self.config.enhancement, self.super_resolution)
        return load_radiographs(rows, *pictures, finder, progress, self.one_exposure)


@dataclass(frozen=True)
class RadiographFit:
    """Trained network.

    Attributes:
        network: Network of the best validation.
        calibration: The card's calibration.
        outcome: Outcome of the training.
        metrics: Validation metrics.
    """

    network: RadiographNet
    calibration: dict[str, dict[str, float] | None]
    outcome: Outcome
    metrics: dict[str, float | None]


def validation_split(
    data: RadiographSet, proportion: float, seed: int, label: str, cases: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split cases by patient into training and validation (for stopping and calibration).

    Args:
        proportion: Proportion of patients for validation.
        label: Score whose categories have equal proportions in both parts.
        cases: Cases to split; None for all.

    Raises:
        DataError: There are too few patients.
    """
    cases = np.arange(len(data)) if cases is None else cases
    if not 0 < proportion <= 0.5:
        raise DataError(f"The proportion for validation is {proportion:g}; give one above 0, 0.5 at most.")
    category, patients = category_numbers(check_label(data, label))[cases], data.patients[cases]
    most = int(np.bincount(category).max())
    parts = min(round(1 / proportion), max(2, most))
    if min(most, len(np.unique(patients))) < parts:
        raise DataError(f"{len(np.unique(patients))} patients cannot be split into {parts} parts. Give more.")
    is_validation = parts_by_patient(patients, category, parts, seed) == 0
    return cases[~is_validation], cases[is_validation]


def fit(
    data: RadiographSet,
    training: np.ndarray,
    validation: np.ndarray,
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
) -> RadiographFit:
    """Train a network. folder: for checkpoint and curves; an interrupted training there resumes. Raises CTError."""
    config, training_settings = settings.config, settings.training
    task = training_task(data, training, validation, settings)
    outcome = train(task, training_settings.loop, folder, progress or Progress(), settings.device, resume=True)
    network = outcome.load_into(RadiographNet(config))
    metrics: dict[str, float | None] = {f"validation_{name}": value for name, value in outcome.metrics.items()}
    train_finder(network, data, training, training_settings.finder_steps, training_settings.loop.seed)
    metrics["heart_error_mm"] = finder_error_mm(network, data, validation) if training_settings.finder_steps else None
    label = check_label(data, training_settings.label)
    logits = predict_logits(network, data, validation, locate=knows_hearts(settings))
    calibration = fit_calibration(
        config.thresholds, label[training], data.factors[training], logits, label[validation], data.factors[validation]
    )
    return RadiographFit(network, calibration, outcome, metrics)


def training_task(
    data: RadiographSet, training: np.ndarray, validation: np.ndarray, settings: FitSettings
) -> RadiographTask:
    """Return the training of an initial network on cases. Raises CTError, DataError."""
    if settings.config.enhancement != data.enhancement:
        names = f"{data.enhancement!r}; the network asks for {settings.config.enhancement!r}"
        raise DataError(f"The views are enhanced by {names}.")
    network, training_settings = _initial_network(settings)
    return RadiographTask(settings.config, training_settings, data, training, validation, network)


def predictions_of(
    network: RadiographNet, data: RadiographSet, cases: np.ndarray, calibration: dict[str, Any], locate: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Predict probabilities from the image, and with clinical factors (NaN if unknown), each [n, thresholds].

    locate: True to use the network's heart, as scoring does.
    """
    logits = predict_logits(network, data, cases, locate)
    return probabilities(logits, None, calibration), probabilities(logits, data.factors[cases], calibration)


def card_metrics(
    network: RadiographNet,
    calibration: dict[str, dict[str, float] | None],
    settings: FitSettings,
    data: RadiographSet,
    cases: np.ndarray,
    label: str,
) -> dict[str, object]:
    """Measure a model for its card.

    Returns:
        Areas under the ROC curve by `roc.area_name`, of the image and (with_factors_…) with factors, with 95 %
        intervals over resamples of the patients; None without one of the classes.
    """
    thresholds = settings.config.thresholds
    truth = above(check_label(data, label)[cases], thresholds)
    image, fused = predictions_of(network, data, cases, calibration, knows_hearts(settings))
    metrics: dict[str, object] = {"n": len(cases), "label": label}
    for prefix, chances in (("", image), ("with_factors_", fused)):
        for threshold, predicted, positive in zip(thresholds, chances.T, truth.T, strict=True):
            name, finite = f"{prefix}{area_name(threshold)}", ~np.isnan(predicted)
            predicted, positive = predicted[finite], positive[finite]
            if positive.all() or not positive.any():
                metrics[name] = None
                continue
            statistic = partial(area_under_curve, truth=positive, scores=predicted)
            estimate = patient_estimate(statistic, data.patients[cases][finite], settings.training.loop.seed)
            interval = (estimate.low, estimate.high)
            metrics[name] = round(estimate.value, 4)
            metrics[f"{name}_95"] = [None if np.isnan(limit) else round(limit, 4) for limit in interval]
            metrics[f"n_{name}"] = [int(positive.sum()), int(len(positive) - positive.sum())]
    return metrics


def _initial_network(settings: FitSettings) -> tuple[RadiographNet, RadiographTraining]:
    """Return the initial network, and the settings with hashes of its initial weights."""
    training = settings.training
    torch.manual_seed(training.loop.seed)
    network = RadiographNet(settings.config)
    if settings.start is not None:
        card, start = read_network(settings.start)
        config = cast(RadiographNet, start).config
        if card.network != "radiograph" or replace(config, views=settings.config.views) != settings.config:
            raise CTError(f"{card.name} (--start) is no radiograph model of the same backbone and size.")
        weights = start.state_dict()
        if config != settings.config:  # other views: what they share
            weights = {name: value for name, value in weights.items() if not name.startswith("dense.")}
        network.load_state_dict(weights, strict=config == settings.config)
        training = replace(training, start=card.sha256)
    if settings.pretrained is not None:
        training = replace(training, pretrained=load_pretrained(network, settings.pretrained))
    return network, training


def knows_hearts(settings: FitSettings) -> bool:
    """Return True if the network locates hearts, so that evaluation can do so as scoring does."""
    return settings.training.finder_steps > 0 or settings.start is not None


def train_finder(network: RadiographNet, data: RadiographSet, cases: np.ndarray, steps: int, seed: int) -> None:
    """Train a network's finder in place on the cases with a known heart.

    The finder stays unchanged without such cases or without steps. The loss is smooth L1 in each direction.
    """
    cases = cases[data.has_heart[cases]]
    if not len(cases) or not steps:
        return
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
        shift = generator.integers(-_SHIFT, _SHIFT + 1, 2)
        views = np.clip(views, 0, 1) ** np.float32(np.exp(generator.normal(0, 0.2)))
        views = ndimage.shift(views, (0, *shift), order=0, mode="nearest")
        places = finder(torch.from_numpy(views[:, None]).to(device))
        loss = functional.smooth_l1_loss(places, torch.from_numpy(centres + REDUCTION * shift).float().to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    finder.eval()


def finder_error_mm(network: RadiographNet, data: RadiographSet, cases: np.ndarray) -> float | None:
    """Return the median distance of predicted from known centres in mm; None without known ones."""
    cases = cases[data.has_heart[cases]]
    if not len(cases):
        return None
    network.eval()
    true = data.centres[cases][:, data.channels(network.config.views)]
    return float(np.median(np.linalg.norm(locate_hearts(network, data, cases).numpy() - true, axis=2))) * STANDARD_MM


_RESNET = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"""Indices of torchvision's parts in `networks.radiograph.Published`."""

_LAST = ("fc.", "classifier.")
"""Layers for other tasks' classes, which are not loaded."""


def load_pretrained(network: RadiographNet, file: Path) -> str:
    """Load a file's weights into the backbones of all views in place; returns the file's SHA-256.

    The first convolution's colours are summed, and divided among this network's inputs.

    Args:
        file: State dict with torchvision's names for ResNet18 or DenseNet121, as safetensors or PyTorch's .pth, from
            which only tensors are read.

    Raises:
        ModelError: The file is unreadable, or for another network.
    """
    backbone = network.config.backbone
    if backbone == "light":
        raise ModelError("A light network has no pretrained weights. Choose --preset resnet18 or densenet121.")
    try:
        sha256 = file_sha256(file)
    except OSError as error:
        raise ModelError(f"The weights {file} cannot be read: {error.strerror}.") from error
    tensors = {_monai_name(name, backbone): tensor for name, tensor in read_tensors(file).items() if not _is_last(name)}
    first = "layers.0.weight" if backbone == "resnet18" else "layers.0.conv0.weight"
    expected = network.backbones[0].state_dict()
    if first in tensors and tensors[first].ndim == 4:
        tensors[first] = tensors[first].sum(1, keepdim=True).repeat(1, network.inputs, 1, 1) / network.inputs
    missing = sorted(
        name
        for name, tensor in expected.items()
        if not name.endswith("num_batches_tracked") and getattr(tensors.get(name), "shape", None) != tensor.shape
    )
    if missing:
        raise ModelError(
            f"{file} is no torchvision state dict of {backbone}: {len(missing)} tensors are missing, as {missing[0]}."
        )
    for part in network.backbones:
        part.load_state_dict({name: tensors.get(name, tensor) for name, tensor in expected.items()})
    return sha256


def _is_last(name: str) -> bool:
    return name.removeprefix("module.").startswith(_LAST)


def _monai_name(name: str, backbone: str) -> str:
    """Translate a torchvision name to `networks.radiograph.Published`, whose parts are MONAI's."""
    name = name.removeprefix("module.")
    if backbone == "resnet18":
        part, _, suffix = name.partition(".")
        return f"layers.{_RESNET[part]}.{suffix}" if part in _RESNET else name
    # Before torchvision 0.3 names had numbers: norm.1 for norm1.
    name = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)\.", r"\1.\2\3.", name)
    name = re.sub(r"(denselayer\d+)\.(?!layers\.)", r"\1.layers.", name)
    return re.sub(r"^features\.", "layers.0.", name)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, tensors only. Raises ModelError if it has none."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(file.read_bytes())
        except SafetensorError as error:
            raise ModelError(f"{file} is not a safetensors file ({error}).") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{file} holds more than tensors, or is not a PyTorch file ({first}). Save its state dict alone."
        raise ModelError(message) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{file} holds no state dict. Save the network's state_dict() alone.")
    return content
