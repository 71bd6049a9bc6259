"""Training of a model that separates any coronary calcium from none by radiomic features, a whole-scan estimate.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth
of the patients, the same for every seed, is held out. Cross-validation on the others tunes a logistic regression and
the limit from which a probability counts as calcium. The finished model, as scoring loads it, is evaluated once on the
test patients, and the results are written on its card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.version import commit
from CACScoringLib.models.cards import LoadedModel, Training
from CACScoringLib.networks.configs import RadiomicsConfig

from ...data.scan_table import TableScan, read_cts
from ...evaluation.experiment import predicted_rows
from ...evaluation.measures import Comparison
from ...training.runs import training_run
from ...training.settings import RunOptions
from ..sources import (
    SourceSettings,
    check_noncoronary_controls,
    describe_data,
    kind_of_data,
    on_controls,
    warn_of_failures,
)
from .fitting import FeatureTable, as_network, features_of, fit_classifier
from .study import columns_of, measures_of, with_calls

INTENDED_USE = (
    "Estimates whether a non-contrast chest CT shows any coronary calcium, by radiomic features of the "
    "heart and of dense candidates in it, as a whole-scan estimate beside a score of lesions. For research; not a "
    "medical device."
)

LABELS = ("truth", "pseudo")
LIMIT = "probability_limit"
"""Key of the limit in a card's calibration."""


@dataclass(frozen=True)
class RadiomicsTraining:
    """Settings of a radiomics model.

    Attributes:
        sources: Tables for the test, and cache.
        contrast_data: Table of contrast-enhanced scans to train on as well.
        labels: True scores, or pseudo-labels from 130 HU alone.
        features: Features of the heart, of dense candidates in it, or both.
        seed: Seed of the inner folds and the classifier.
    """

    sources: SourceSettings = field(default_factory=SourceSettings)
    contrast_data: Path | None = None
    labels: str = option("truth", choices=LABELS)
    features: str = option("both", choices=("both", "heart", "candidates"))
    seed: int = option(0)


PRESETS = {"default": RadiomicsTraining()}


def train(options: RunOptions, settings: RadiomicsTraining, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    scans, test_names, controls = settings.sources.read(options.only_table())
    contrast = read_cts(settings.contrast_data) if settings.contrast_data else ()
    check_noncoronary_controls(contrast, controls)
    if enhanced := [scan.name for scan in scans if scan.contrast]:
        raise TableError(f"{enhanced[0]} is contrast-enhanced. Give such scans as contrast_data in --settings.")
    with training_run(options, "radiomics", settings, {}, progress) as run:
        with progress.step("scans"):
            cache = settings.sources.cache or options.folder / "scans"

            def compute(part: tuple[TableScan, ...]) -> FeatureTable:
                table, failed = features_of(part, cache, options.workers, progress)
                warn_of_failures(failed, progress)
                return table

            features = compute(scans)
            contrast_features, control_features = (compute(part) if part else None for part in (contrast, controls))
        is_tested = np.isin([scan.name for scan in features.scans], test_names)
        test_table, unenhanced = features.rows(np.flatnonzero(is_tested)), features.rows(np.flatnonzero(~is_tested))
        if not test_table.scans:
            raise TableError("None of the scans kept apart for the test could be read. Look at the warnings.")
        with progress.step("training"):
            training = unenhanced.joined(contrast_features, test_table.patients)
            labels = training.truth if settings.labels == "truth" else training.pseudo_labels
            names = training.of_set(settings.features)
            fitted = fit_classifier("logistic", training.columns(names), labels, training.patients, settings.seed)
            network, config = as_network(fitted, names, RadiomicsConfig())
        with progress.step("model"):
            sizes = [len(table.scans) for table in (unenhanced, training, test_table)]
            counts = {"training": sizes[0], "contrast-enhanced training": sizes[1] - sizes[0], "test": sizes[2]}
            facts = {
                **{"labels": settings.labels, "features": settings.features, **fitted.settings},
                **{"features_tried": fitted.inputs, "features_kept": len(config.features)},
            }
            trained = Training(describe_data(scans, counts), settings.seed, facts, commit())
            model = run.loaded_model(network, config, "custom", trained, INTENDED_USE)
            test = _evaluate(model, test_table, control_features, fitted.limit, settings.seed)
            test["data"] = kind_of_data(scans)
            return run.write_network(network, model.card, {"test": test}, {LIMIT: fitted.limit})


def _evaluate(
    model: LoadedModel, table: FeatureTable, controls: FeatureTable | None, limit: float, seed: int
) -> dict[str, object]:
    """Test the model on held-out patients, in the format of `CACScoringLib.whole_scan.trust`."""
    rows = predicted_rows(table.scans, columns_of(table.truth, _predict(model, table, limit)))
    comparison = Comparison(table.patients, {}, np.random.default_rng(seed))
    test: dict[str, object] = {
        "patients": len(set(table.patients)),
        "with_calcium": int(table.truth.sum()),
        **{m.title.lower(): comparison.result(m, "model").estimate.as_json() for m in measures_of(rows)},
    }
    return test if controls is None else {**test, **on_controls(_predict(model, controls, limit)[:, 1])}


def _predict(model: LoadedModel, table: FeatureTable, limit: float) -> np.ndarray:
    import torch

    values = torch.tensor(table.columns(model.card.config["features"]), dtype=torch.float32)
    with torch.inference_mode():
        probabilities = torch.sigmoid(cast("torch.nn.Module", model.network)(values))[:, 0].double().numpy()
    return with_calls(probabilities, limit)
