"""Training of a model that tells any coronary calcium from none by radiomic features, a whole-scan estimate beside a
score.

Learned from is a table of CTs with a score for each artery (`whole_scan.scan_table`). Without a table to test on, a
fifth of the patients is kept apart, whatever the seed; on those learned from a logistic regression is tuned by
cross-validation, which also chooses the limit from which a probability is called calcium. The finished model, as
scoring will load it, is evaluated once on those it is tested on, and the outcome is written on its card.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.options import add_options
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import TableError
from CACScoringLib.models.cards import LoadedModel, ModelCard, Training, describe, load_model, save_model
from CACScoringLib.networks.radiomics import RadiomicsConfig, RadiomicsNet
from CACScoringLib.whole_scan.radiomics import PSEUDO_AGATSTON, SOLID_MM3

from ...data.scan_table import TableScan, table_hash
from ...statistics.bootstrap import Bootstrap, estimate
from ...statistics.roc import area_under_curve
from ...training.run_folder import record_training, training_lock
from ...training.runs import LICENCE, commit
from ...training.settings import RunOptions, options_from
from ..encoders import FeatureTable, features_of
from ..scan_table import check_noncoronary_controls, kind_of_data, read_scan_table
from ..split import learned_and_tested
from .fitting import SENSITIVITY, FittedClassifier, as_network, fit_classifier, pseudo_labels

INTENDED_USE = (
    "Estimates whether a non-contrast chest CT shows any coronary calcium, by radiomic features of the "
    "heart and of dense candidates in it, as a whole-scan estimate beside a score of lesions. For research; not a "
    "medical device."
)

LABELS = ("truth", "pseudo")
SETS = {"both": ("heart_", "candidate_"), "heart": ("heart_",), "candidates": ("candidate_",)}
"""Beginnings of the features' names."""
LIMIT = "probability_limit"
"""In a card's calibration."""

PREPARED = "scans"
"""Folder beside the model."""

INTERRUPTED = "Interrupted. Run it again: features that are finished are kept."


@dataclass(frozen=True)
class Settings:
    """data: table to learn from. test: to test on; None: a fifth of data. contrast: of contrast-enhanced scans to
    train on as well. noncoronary_controls: of patients whose calcium lies elsewhere, to test on. labels: of LABELS.
    features: of SETS. cache: folder.
    """

    data: Path
    cache: Path
    test: Path | None = None
    contrast: Path | None = None
    noncoronary_controls: Path | None = None
    labels: str = "truth"
    features: str = "both"
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """Scans of a table that could be prepared, and all their radiomic features in the same order."""

    scans: tuple[TableScan, ...]
    table: FeatureTable

    @property
    def patients(self) -> list[str]:
        return [scan.patient for scan in self.scans]

    @property
    def truth(self) -> np.ndarray:
        """Whether there is any coronary calcium: bool [n]."""
        return np.array([scan.total > 0 for scan in self.scans], bool)

    def rows(self, keep: Sequence[int]) -> Data:
        """Only some of them."""
        keep = list(keep)
        names, features = self.table.scans, self.table.features
        table = FeatureTable(tuple(names[n] for n in keep), features, self.table.values[keep])
        return Data(tuple(self.scans[n] for n in keep), table)

    def columns(self, features: Sequence[str]) -> np.ndarray:
        """Values of these features, [n, f]."""
        return self.table.values[:, [self.table.features.index(name) for name in features]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac train radiomics`."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="TABLE", help="CSV of CTs with scores, or a cohort's folder")
    add_options(parser, RunOptions, "output")
    add("--test", type=Path, metavar="TABLE", help="other patients to test on (default: a fifth of --data)")
    add("--contrast-data", type=Path, metavar="TABLE", help="contrast-enhanced scans to train on as well")
    add(
        "--noncoronary-controls",
        type=Path,
        metavar="TABLE",
        help="patients with calcium outside the coronaries only, to test on",
    )
    add(
        "--labels",
        choices=LABELS,
        default="truth",
        help="train on the true scores, or on pseudo-labels at 130 HU alone",
    )
    add(
        "--features",
        choices=SETS,
        default="both",
        help="features of the whole heart, of dense candidates in it, or both",
    )
    add_options(parser, RunOptions, "overwrite")
    add("--seed", type=int, default=0, help="random seed of the cross-validation that chooses settings and threshold")
    cache = {"help": "where prepared scans are kept (default: beside the model)"}
    add_options(parser, RunOptions, "workers", "cache", cache=cache)


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Train as the command line asks; returns the model card's path. Raises CTError, OutputError."""
    options = replace(options_from(arguments), preset="custom", device="cpu")
    settings = Settings(
        data=arguments.data,
        cache=arguments.cache or options.folder / PREPARED,
        test=arguments.test,
        contrast=arguments.contrast_data,
        noncoronary_controls=arguments.noncoronary_controls,
        labels=arguments.labels,
        features=arguments.features,
        seed=arguments.seed,
    )
    return train_radiomics(options, settings, progress)


def train_radiomics(options: RunOptions, settings: Settings, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    options.check()
    paths = (settings.data, settings.test, settings.contrast, settings.noncoronary_controls)
    data, test, *more = (read_scan_table(path) if path else () for path in paths)
    scans, _, tested = learned_and_tested(data, test)
    tables = [scans, *more]
    _check(*tables)
    progress.begin(["scans", "training", "model"])
    with training_lock(options.folder):
        record_training(options.folder, options.command, network="radiomics")
        with progress.step("scans"):
            data, contrast, noncoronary_controls = (
                _prepared(scans, settings, options.workers, progress) for scans in tables
            )
        learned, tested = _split(tested, data)
        with progress.step("training"):
            count = len(learned.scans)
            learned = _joined(learned, _without(contrast, tested))
            labels = learned.truth if settings.labels == "truth" else pseudo_labels(learned.table)
            names = [name for name in learned.table.features if name.startswith(SETS[settings.features])]
            fitted = fit_classifier("logistic", learned.columns(names), labels, learned.patients, settings.seed)
            network, config = as_network(fitted, names, RadiomicsConfig())
        with progress.step("model"):
            uses = (
                f"training {count}, contrast-enhanced training {len(learned.scans) - count}, test {len(tested.scans)}"
            )
            kind = kind_of_data(tables[0])
            card = _card(options, settings, f"{kind}; {uses} scans; {_hashes(tables)}", fitted, config)
            card = replace(card, validation=_crossed(fitted, labels, learned.truth))
            test = _evaluated(_as_loaded(network, card), card, tested, noncoronary_controls, settings.seed)
            card = replace(card, validation={**card.validation, "test": {**test, "data": kind}})
            path = save_model(network, card, options.output.parent, options.overwrite)
        progress.done(path)
        return path


def _check(
    scans: Sequence[TableScan], contrast: Sequence[TableScan], noncoronary_controls: Sequence[TableScan]
) -> None:
    check_noncoronary_controls((*scans, *contrast), noncoronary_controls)
    if enhanced := [scan.name for scan in scans if scan.contrast]:
        raise TableError(
            f"{enhanced[0]} of --data or --test is contrast-enhanced. Give scans to learn from with --contrast-data, "
            "and test on others."
        )


def _prepared(scans: Sequence[TableScan], settings: Settings, workers: int, progress: Progress) -> Data | None:
    """None where there are no scans; of those that failed, it is told why."""
    if not scans:
        return None
    tables, failed = features_of(scans, settings.cache, ["both"], workers=workers, progress=progress)
    for name, reason in failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))
    known = {scan.name: scan for scan in scans}
    return Data(tuple(known[name] for name in tables["both"].scans), tables["both"])


def _split(tested: Sequence[str], data: Data) -> tuple[Data, Data]:
    """To learn from, and to test on. tested: names."""
    apart = set(tested)
    rows = [[n for n, scan in enumerate(data.scans) if (scan.name in apart) == wanted] for wanted in (False, True)]
    if not rows[1]:
        raise TableError("None of the scans kept apart for the test could be read. Look at the warnings.")
    return data.rows(rows[0]), data.rows(rows[1])


def _without(contrast: Data | None, tested: Data) -> Data | None:
    """Those of patients on whom the model is not tested."""
    if contrast is None:
        return None
    hidden = set(tested.patients)
    return contrast.rows([n for n, patient in enumerate(contrast.patients) if patient not in hidden])


def _joined(first: Data, second: Data | None) -> Data:
    if second is None:
        return first
    tables = first.table, second.table
    values = np.concatenate([table.values for table in tables])
    names = tuple(name for table in tables for name in table.scans)
    return Data(first.scans + second.scans, FeatureTable(names, first.table.features, values))


def _card(
    options: RunOptions, settings: Settings, data: str, fitted: FittedClassifier, config: RadiomicsConfig
) -> ModelCard:
    told = {
        **{"labels": settings.labels, "features": settings.features, **fitted.settings},
        **{"features_tried": fitted.inputs, "features_kept": len(config.features), "sensitivity_wanted": SENSITIVITY},
    }
    if settings.labels == "pseudo":
        told |= {"pseudo_label_above_agatston": PSEUDO_AGATSTON, "pseudo_label_from_mm3": SOLID_MM3}
    trained = Training(data, settings.seed, told, commit())
    calibration = {LIMIT: fitted.limit}
    return describe(options.name, config, options.preset, trained, {}, calibration, LICENCE, INTENDED_USE)


def _hashes(tables: Sequence[Sequence[TableScan]]) -> str:
    return ", ".join(f"table SHA-256 {table_hash(tuple(scans))}" for scans in tables[:2] if scans)


def _crossed(fitted: FittedClassifier, labels: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """Of the training scans, by inner folds' models that had not seen them; they also chose settings and limit."""
    area = area_under_curve(np.ones((1, len(truth))), truth, fitted.out_of_fold)[0]
    return {
        "training_scans": len(truth),
        "training_auc_by_truth": None if np.isnan(area) else round(float(area), 4),
        "training_accuracy_by_labels": round(float(((fitted.out_of_fold >= fitted.limit) == labels).mean()), 4),
        "labels_like_truth": round(float((labels == truth).mean()), 4),
    }


def _as_loaded(network: RadiomicsNet, card: ModelCard) -> LoadedModel:
    """As scoring will load it."""
    with tempfile.TemporaryDirectory() as temporary:
        return load_model(save_model(network, card, Path(temporary)), "cpu")


def _evaluated(
    model: LoadedModel, card: ModelCard, tested: Data, noncoronary_controls: Data | None, seed: int
) -> dict[str, object]:
    """The test on the patients kept apart, as `whole_scan.trust` reads it; intervals by a bootstrap of patients."""
    limit, names = card.calibration[LIMIT], card.config["features"]
    probabilities, truth = _probabilities(model, tested.columns(names)), tested.truth
    called = probabilities >= limit
    resamples = Bootstrap(tested.patients, np.random.default_rng([seed, 9]))
    areas = area_under_curve(resamples.weights(tested.patients), truth, probabilities)
    test: dict[str, object] = {
        "patients": len(set(tested.patients)),
        "with_calcium": int(truth.sum()),
        "accuracy": resamples.proportion(tested.patients, called == truth).as_json(),
        "sensitivity": resamples.proportion(tested.patients, called, truth).as_json(),
        "specificity": resamples.proportion(tested.patients, ~called, ~truth).as_json(),
        "auc": estimate(areas, len(truth), len(set(tested.patients))).as_json(),
    }
    if noncoronary_controls is not None:
        wrong = _probabilities(model, noncoronary_controls.columns(names)) >= limit
        test["non_coronary_only"] = {"patients": len(wrong), "called_coronary": int(wrong.sum())}
    return test


def _probabilities(model: LoadedModel, values: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return torch.sigmoid(model.network(torch.tensor(values, dtype=torch.float32)))[:, 0].double().numpy()
