"""One fold: train, stop where the validation is best, calibrate, and predict the test patients."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import read_network
from CACScoringLib.networks.radiograph import RadiographNet, RadiographNetConfig
from CACScoringLib.networks.radiograph_fusion import probabilities

from ..data.datasets import DataError
from ..statistics.patient_folds import category_of, parts_by_patient
from ..statistics.roc import above, area, area_name
from ..training.loop import Outcome, train
from ..training.run_folder import CHECKPOINT, TrainingError, training_lock
from .dataset import RadiographSet, check_label
from .finder import finder_error_mm, train_finder
from .fusion_fit import fitted_calibration
from .pretrained import load_pretrained
from .task import RadiographTask, RadiographTraining, predicted

TRUTH = "agatston"
"""Label that test patients are evaluated by, wherever all have it."""

RESULT = "fold.json"

VALIDATION_PARTS = 5
"""One of so many parts of the patients that are not tested validates."""


@dataclass(frozen=True)
class FitSettings:
    """pretrained: file of weights to begin the backbones with. start: card of a radiograph model to begin as."""

    config: RadiographNetConfig
    training: RadiographTraining
    device: str = "auto"
    pretrained: Path | None = None
    start: Path | None = None


@dataclass(frozen=True)
class Fold:
    """Numbers of cases: to learn from, to stop and calibrate by, to test on. No patient is in two of them."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class FoldResult:
    """test: numbers of cases. logits, image, fused: [n, thresholds] of them; image and fused are probabilities, the
    second with age, sex and BMI, NaN where these are not known. metrics: areas under the ROC curve of the test cases
    against the truth, and of the validation. epochs: how often a training patient was seen, on average.
    """

    test: np.ndarray
    logits: np.ndarray
    image: np.ndarray
    fused: np.ndarray
    calibration: dict[str, dict[str, float] | None]
    metrics: dict[str, float | None]
    seconds: float
    steps: int
    best_step: int
    epochs: float


def folds(data: RadiographSet, count: int, seed: int, label: str = TRUTH) -> list[Fold]:
    """Cross-validation: each patient is tested once. Stratified by category of the score, split by patient.

    The patients that validate are about a fifth of those not tested. Raises DataError when there are too few patients.
    """
    everything = np.arange(len(data))
    category = category_of(check_label(data, label))
    result = []
    for number, (rest, test) in enumerate(_splits(everything, category, data.patients, count, seed)):
        parts = min(VALIDATION_PARTS, max(2, int(np.bincount(category[rest]).max())))
        training, validation = next(iter(_splits(rest, category, data.patients, parts, seed + 1 + number)))
        result.append(Fold(training, validation, test))
    return result


def validation_split(data: RadiographSet, proportion: float, seed: int, label: str = TRUTH) -> Fold:
    """Patients to learn from and about this proportion of them to validate on; none to test. Raises DataError."""
    category = category_of(check_label(data, label))
    if not 0 < proportion <= 0.5:
        raise DataError(
            f"The proportion of patients for validation is {proportion:g}; it has to be above 0 and at most 0.5."
        )
    parts = min(round(1 / proportion), max(2, int(np.bincount(category).max())))
    training, validation = next(iter(_splits(np.arange(len(data)), category, data.patients, parts, seed)))
    return Fold(training, validation, np.empty(0, int))


def _splits(
    cases: np.ndarray, category: np.ndarray, patients: np.ndarray, count: int, seed: int
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    most = int(np.bincount(category[cases]).max())
    if count < 2 or min(most, len(np.unique(patients[cases]))) < count:
        raise DataError(f"{len(np.unique(patients[cases]))} patients cannot be split into {count} parts. Give more.")
    part = parts_by_patient(patients[cases], category[cases], count, seed)
    for number in range(count):
        yield cases[part != number], cases[part == number]


def fit_fold(
    data: RadiographSet,
    training: np.ndarray,
    validation: np.ndarray,
    test: np.ndarray,
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
) -> FoldResult:
    """Train, calibrate and predict; see `fit`. Test patients are evaluated by the truth, whatever was learned from."""
    network, calibration, outcome, metrics = fit(data, training, validation, settings, folder, progress)
    result = predictions_of(network, data, test, calibration, finds(settings))
    if TRUTH in data.scores:
        metrics |= evaluated(data.scores[TRUTH][test], result, settings.config)
    seen = outcome.steps * settings.training.batch_size
    return FoldResult(
        np.asarray(test),
        *result,
        calibration,
        metrics,
        outcome.seconds,
        outcome.steps,
        outcome.best_step,
        seen / max(1, len(training)),
    )


def fit(
    data: RadiographSet,
    training: np.ndarray,
    validation: np.ndarray,
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
) -> tuple[RadiographNet, dict[str, dict[str, float] | None], Outcome, dict[str, float | None]]:
    """A trained network, its calibration, how its training went, and the validation's metrics.

    folder: takes checkpoint and curves; a training that was ended there goes on. Raises TrainingError, DataError when
    a patient is on both sides, CTError.
    """
    _check_apart(data, training, validation)
    config, chosen = settings.config, settings.training
    if config.enhancement != data.enhancement:
        raise DataError(f"The views are enhanced by {data.enhancement!r}; the network asks for {config.enhancement!r}.")
    network, chosen = _begun(settings)
    task = RadiographTask(config, chosen, data, training, validation, network)
    outcome = train(task, chosen.loop, folder, progress or Progress(), settings.device, resume=True)
    network = RadiographNet(config)
    network.load_state_dict(outcome.weights)
    network.eval()
    metrics: dict[str, float | None] = {f"validation_{name}": value for name, value in outcome.metrics.items()}
    train_finder(network, data, training, chosen.finder_steps, chosen.loop.seed)
    metrics["heart_error_mm"] = finder_error_mm(network, data, validation) if chosen.finder_steps else None
    label = check_label(data, chosen.label)
    logits = predicted(network, data, validation, found=finds(settings))
    calibration = fitted_calibration(
        config.thresholds, label[training], data.factors[training], logits, label[validation], data.factors[validation]
    )
    return network, calibration, outcome, metrics


def predictions_of(
    network: RadiographNet, data: RadiographSet, cases: np.ndarray, calibration: dict, found: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, probabilities from the image, and with clinical factors, each [n, thresholds].

    found: about the heart as the network finds it, as scoring does.
    """
    if not len(cases):
        return (np.empty((0, len(network.config.thresholds))),) * 3
    logits = predicted(network, data, cases, found)
    return (
        logits,
        probabilities(logits, None, calibration),
        probabilities(logits, data.factors[cases], calibration),
    )


def evaluated(
    scores: np.ndarray, result: tuple[np.ndarray, np.ndarray, np.ndarray], config: RadiographNetConfig
) -> dict[str, float | None]:
    """Areas under the ROC curve by `statistics.roc.area_name`, from the image (image_…) and with factors (fused_…)."""
    truth = above(scores, config.thresholds)
    metrics: dict[str, float | None] = {}
    for name, values in zip(("image", "fused"), result[1:], strict=True):
        for number, threshold in enumerate(config.thresholds):
            known = ~np.isnan(values[:, number])
            value = area(values[known, number], truth[known, number]) if known.any() else np.nan
            metrics[f"{name}_{area_name(threshold)}"] = None if np.isnan(value) else value
    return metrics


def cross_validate(
    data: RadiographSet,
    parts: list[Fold],
    settings: FitSettings,
    folder: Path,
    progress: Progress | None = None,
    only: Iterable[int] | None = None,
) -> list[FoldResult]:
    """Fit every fold whose result is not in the folder yet, and return the results of all, or of those asked for.

    Each fold has a folder of its own, `fold-N`; another process may fit another one meanwhile (only). Raises
    TrainingError where another process fits a fold that is asked for, and when the folder's results are of other data
    or settings.
    """
    results = []
    for number in range(len(parts)) if only is None else only:
        place, part = folder / f"fold-{number}", parts[number]
        facts = _facts(data, part, settings)
        if not (place / RESULT).exists():
            with training_lock(place):
                if not (place / RESULT).exists():  # another process may have ended it meanwhile
                    one = fit_fold(data, part.training, part.validation, part.test, settings, place, progress)
                    write_text_atomically(place / RESULT, as_text(one, facts))
                    (place / CHECKPOINT).unlink(missing_ok=True)
        results.append(read_result(place / RESULT, facts))
    return results


def as_text(result: FoldResult, facts: dict[str, object]) -> str:
    """A result as JSON. facts: of what it was made, compared when it is read."""
    content = {
        name: np.where(np.isnan(value), None, value).tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(result).items()
    }
    return json.dumps({"schema": "cac-radiograph-fold/1", "facts": facts, **content}) + "\n"


def read_result(path: Path, facts: dict[str, object] | None = None) -> FoldResult:
    """A result read back. Raises TrainingError when it is none, or was not made of these."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made = content.pop("facts")
        content.pop("schema")
        arrays = {name: np.array(content[name], float) for name in ("logits", "image", "fused")}
        result = FoldResult(**{**content, **arrays, "test": np.array(content["test"], int)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"The result {path} cannot be read ({error}). Remove it, and run again.") from error
    if facts is not None and made != json.loads(json.dumps(facts)):
        raise TrainingError(f"{path} was made of other data or settings. Choose another folder.")
    return result


def _facts(data: RadiographSet, part: Fold, settings: FitSettings) -> dict[str, object]:
    return {
        "data": data.sha256,
        "enhancement": data.enhancement,
        "sharpening": data.super_resolution,
        "patients": [sorted(data.names[n] for n in cases) for cases in (part.training, part.validation, part.test)],
        "config": asdict(settings.config),
        "training": asdict(settings.training),
    }


def _begun(settings: FitSettings) -> tuple[RadiographNet, RadiographTraining]:
    """The network before its first step, and the settings that say what it began with."""
    training = settings.training
    torch.manual_seed(training.loop.seed)
    network = RadiographNet(settings.config)
    if settings.start is not None:
        card, begun = read_network(settings.start)
        if card.network != "radiograph" or begun.config != settings.config:
            raise CTError(
                f"{card.name} is not a radiograph model of the same backbone, views and size; --start needs one."
            )
        network.load_state_dict(begun.state_dict())
        training = replace(training, start=card.sha256)
    if settings.pretrained is not None:
        training = replace(training, pretrained=load_pretrained(network, settings.pretrained))
    return network, training


def finds(settings: FitSettings) -> bool:
    """Whether the network knows where hearts are, so that pictures are judged as scoring does."""
    return settings.training.finder_steps > 0 or settings.start is not None


def _check_apart(data: RadiographSet, training: np.ndarray, validation: np.ndarray) -> None:
    both = np.intersect1d(data.patients[training], data.patients[validation])
    if len(both):
        raise DataError(f"Patient {both[0]} is in training and in validation. Split by patient.")
