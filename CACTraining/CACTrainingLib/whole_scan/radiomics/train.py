"""Training of a model that separates any coronary calcium from none by radiomic features, a whole-scan estimate.

It learns from a table of CTs with a score for each artery (`whole_scan.scan_table`). Without a table to test on, a
fifth of the patients is kept apart, whatever the seed; on those learned from a logistic regression is tuned by
cross-validation, which also chooses the limit from which a probability is called calcium. The finished model, as
scoring will load it, is evaluated once on those it is tested on, and the outcome is written on its card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError
from CACScoringLib.models.cards import LoadedModel, ModelCard, Training, describe
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.radiomics import RadiomicsConfig

from ...data.scan_table import TableScan, table_hash
from ...training.run_folder import record_training, training_lock
from ...training.runs import LICENCE, as_scoring_loads, commit
from ...training.settings import RunOptions
from ..evaluation import ACCURACY, AUC, SENSITIVITY, SPECIFICITY, Evaluation, Prediction, with_calls
from ..scan_table import (
    SourceSettings,
    check_noncoronary_controls,
    kind_of_data,
    read_scan_table,
    warn_of_failures,
)
from .fitting import FEATURE_SETS, FeatureTable, FittedClassifier, as_network, features_of, fit_classifier
from .fitting import SENSITIVITY as WANTED_SENSITIVITY

INTENDED_USE = (
    "Estimates whether a non-contrast chest CT shows any coronary calcium, by radiomic features of the "
    "heart and of dense candidates in it, as a whole-scan estimate beside a score of lesions. For research; not a "
    "medical device."
)

LABELS = ("truth", "pseudo")
LIMIT = "probability_limit"
"""In a card's calibration."""


@dataclass(frozen=True)
class RadiomicsTraining:
    """contrast_data: table of contrast-enhanced scans to train on as well. labels: the true scores, or pseudo-labels at
    130 HU alone. features: of the whole heart, of dense candidates in it, or both."""

    sources: SourceSettings = field(default_factory=SourceSettings)
    contrast_data: Path | None = None
    labels: str = option("truth", choices=LABELS)
    features: str = option("both", choices=FEATURE_SETS)
    seed: int = option(0)


PRESETS = {"default": RadiomicsTraining()}


def train(options: RunOptions, settings: RadiomicsTraining, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    cache = settings.sources.cache or options.folder / "scans"
    options.check()
    scans, _, tested, controls = settings.sources.read(options.only_table())
    contrast = read_scan_table(settings.contrast_data) if settings.contrast_data else ()
    check_noncoronary_controls(contrast, controls)
    if enhanced := [scan.name for scan in scans if scan.contrast]:
        raise TableError(f"{enhanced[0]} is contrast-enhanced. Give such scans as contrast_data in --settings.")
    progress.begin(["scans", "training", "model"])
    with training_lock(options.folder):
        record_training(options.folder, options.command, network="radiomics")
        with progress.step("scans"):
            features, contrast_features, control_features = (
                _features(part, cache, options.workers, progress) for part in (scans, contrast, controls)
            )
        is_tested = np.isin([scan.name for scan in features.scans], tested)
        test_table, unenhanced = features.rows(np.flatnonzero(is_tested)), features.rows(np.flatnonzero(~is_tested))
        if not test_table.scans:
            raise TableError("None of the scans kept apart for the test could be read. Look at the warnings.")
        with progress.step("training"):
            learned = unenhanced
            if contrast_features is not None:
                learned = unenhanced.joined(contrast_features.without(test_table.patients))
            labels = learned.truth if settings.labels == "truth" else learned.pseudo_labels
            names = learned.of_set(settings.features)
            fitted = fit_classifier("logistic", learned.columns(names), labels, learned.patients, settings.seed)
            network, config = as_network(fitted, names, RadiomicsConfig())
        with progress.step("model"):
            kind = kind_of_data(scans)
            data = (
                f"{kind}; training {len(unenhanced.scans)}, contrast-enhanced training "
                f"{len(learned.scans) - len(unenhanced.scans)}, test {len(test_table.scans)} scans; "
                f"table SHA-256 {table_hash(scans)}"
            )
            card = _card(options, settings, data, fitted, config)
            test = _evaluated(as_scoring_loads(network, card), test_table, control_features, settings.seed)
            validation = {"test": {**test, "data": kind}}
            path = save_model(network, replace(card, validation=validation), options.output.parent, options.overwrite)
        progress.done(path)
        return path


def _features(scans: Sequence[TableScan], cache: Path, workers: int, progress: Progress) -> FeatureTable | None:
    if not scans:
        return None
    table, failed = features_of(scans, cache, workers, progress)
    warn_of_failures(failed, progress)
    return table


def _card(
    options: RunOptions, settings: RadiomicsTraining, data: str, fitted: FittedClassifier, config: RadiomicsConfig
) -> ModelCard:
    facts = {"labels": settings.labels, "features": settings.features, **fitted.settings}
    facts |= {"features_tried": fitted.inputs, "features_kept": len(config.features)}
    facts |= {"sensitivity_wanted": WANTED_SENSITIVITY}
    trained = Training(data, settings.seed, facts, commit())
    return describe(options.name, config, "custom", trained, {}, {LIMIT: fitted.limit}, LICENCE, INTENDED_USE)


def _evaluated(model: LoadedModel, tested: FeatureTable, controls: FeatureTable | None, seed: int) -> dict[str, object]:
    """The test on the patients kept apart, as `CACScoringLib.whole_scan.trust` reads it."""
    predicted = Prediction(np.arange(len(tested.scans)), _predicted(model, tested))
    evaluation = Evaluation(tested.patients, tested.truth, seed)
    test: dict[str, object] = {
        "patients": len(set(tested.patients)),
        "with_calcium": int(tested.truth.sum()),
        **{
            measure.title.lower(): evaluation.of([predicted], measure).estimate.as_json()
            for measure in (ACCURACY, SENSITIVITY, SPECIFICITY, AUC)
        },
    }
    if controls is not None:
        called = _predicted(model, controls)[:, 1]
        test["non_coronary_only"] = {"patients": len(called), "called_coronary": int(called.sum())}
    return test


def _predicted(model: LoadedModel, table: FeatureTable) -> np.ndarray:
    import torch

    values = torch.tensor(table.columns(model.card.config["features"]), dtype=torch.float32)
    with torch.inference_mode():
        probabilities = torch.sigmoid(model.network(values))[:, 0].double().numpy()
    return with_calls(probabilities, model.card.calibration[LIMIT])
