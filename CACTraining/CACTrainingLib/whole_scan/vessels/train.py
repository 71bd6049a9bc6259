"""Training of a network that tells the arteries' scores from a CT at once, a whole-scan estimate beside the scores.

Learned from is a table of CTs with a score for each artery (`whole_scan.scan_table`). Without a table to test on, a
fifth of the patients is kept apart, whatever the seed; a fifth of those learned from validates. The finished model, as
scoring will load it, is evaluated once on those it is tested on, and the outcome is written on its card.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.options import add_options, settings_from
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import ModelCard, Training, describe, load_model, save_model
from CACScoringLib.networks.vessels import OUTPUTS, PRESETS, VesselNet
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import SCALE

from ...data.scan_table import TableScan, table_hash
from ...training.run_folder import has_checkpoint, record_training, training_lock
from ...training.runs import LICENCE, commit
from ...training.settings import LoopSettings, RunOptions, options_from
from ..scan_table import check_noncoronary_controls, kind_of_data, read_scan_table
from ..split import folds, learned_and_tested
from .configurations import SUPERVISED
from .fitting import (
    TRAINABLE,
    FitSettings,
    VesselFit,
    as_facts,
    fit_settings,
    fit_vessels,
    heart_ml,
    predictions_of,
    prepare_vessels,
    targets_of,
)
from .results import PER_MILLE, TOTAL, Predicted, Scans, Statistic, Study, category_agreement, factors_alone, rank
from .task import VesselTraining

INTENDED_USE = (
    "Estimates the Agatston scores of the coronary arteries directly from a non-contrast chest CT, as a "
    "whole-scan estimate beside a score of lesions. For research; not a medical device."
)

VALIDATION_PARTS = 5

PREPARED = "scans"
"""Folder beside the model."""


@dataclass(frozen=True)
class Sources:
    """data: table to learn from. test: to test on; None: a fifth of data. noncoronary_controls: of patients whose
    calcium lies elsewhere. cache: folder.
    """

    data: Path
    cache: Path
    test: Path | None = None
    noncoronary_controls: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac train vessels`."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="TABLE", help="CSV of CTs with scores, or a cohort's folder")
    preset = {"choices": PRESETS, "help": "size of the input; paper needs a GPU"}
    add_options(parser, RunOptions, "output", "preset", preset=preset)
    add(
        "--kind",
        choices=TRAINABLE,
        default="voxel-sum",
        help=f"the network (default: voxel-sum, not one of the paper's; {SUPERVISED}: trained on the location of the "
        "calcium of digital patients as well)",
    )
    add("--scale", choices=OUTPUTS, help="how scores are normalised (default: the preset's)")
    add("--test", type=Path, metavar="TABLE", help="other patients to test on (default: a fifth of --data)")
    add(
        "--noncoronary-controls",
        type=Path,
        metavar="TABLE",
        help="patients with calcium outside the coronaries only, to test on",
    )
    add_options(parser, RunOptions, "resume", "overwrite")
    seed = {"help": "random seed of the weights, the batches and the validation patients"}
    add_options(parser, LoopSettings, "seed", "steps", "minutes", seed=seed)
    add_options(parser, VesselTraining, "batch_size", "learning_rate", "weight_decay")
    epochs = {"metavar": "EPOCHS", "help": "passes through all scans between validations"}
    add_options(parser, LoopSettings, "validate_every", "patience", validate_every=epochs)
    add("--no-augmentation", action="store_true", help="train without augmentation by shifts, blur and noise")
    cache = {"help": "where prepared scans are kept (default: beside the model)"}
    add_options(parser, RunOptions, "device", "workers", "cache", cache=cache)


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Train as the command line asks; returns the model card's path. Raises CTError, OutputError."""
    options = options_from(arguments)
    settings = fit_settings(options.preset, arguments.kind, arguments.scale, options.device)
    training = settings_from(arguments, settings.training)
    if arguments.no_augmentation:
        training = replace(training, augmentation=None)
    sources = Sources(
        arguments.data, arguments.cache or options.folder / PREPARED, arguments.test, arguments.noncoronary_controls
    )
    return train_vessels(options, sources, replace(settings, training=training), progress)


def train_vessels(options: RunOptions, sources: Sources, settings: FitSettings, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    options.check()
    data, test, noncoronary_controls = (
        read_scan_table(path) if path else () for path in (sources.data, sources.test, sources.noncoronary_controls)
    )
    scans, learned, tested = learned_and_tested(data, test)
    check_noncoronary_controls(scans, noncoronary_controls)
    progress.begin(["scans", "training", "model"])
    with training_lock(options.folder):
        has_checkpoint(options.folder, options.resume)
        loop = settings.training.loop
        record_training(options.folder, options.command, network="vessels", steps=loop.steps, minutes=loop.minutes)
        with progress.step("scans"):
            files, other_files = (
                _prepared(part, sources.cache, settings, options.workers, progress)
                for part in (scans, noncoronary_controls)
            )
        rest = [scan for scan in scans if scan.name in set(learned) and scan.name in files]
        parts = (*folds(rest, VALIDATION_PARTS, loop.seed)[0], [name for name in tested if name in files])
        with progress.step("training"):
            fit = fit_vessels(files, targets_of(scans), *parts[:2], settings, options.folder, progress)
        with progress.step("model"):
            card = _card(options, scans, parts, settings, fit)
            test = _evaluated(_as_loaded(fit.network, card), scans, files, parts, other_files)
            card = replace(card, validation={**card.validation, "test": test})
            path = save_model(fit.network, card, options.output.parent, options.overwrite)
        progress.done(path)
        return path


Parts = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Names to learn from, to validate and to test on."""


def _prepared(
    scans: Sequence[TableScan], cache: Path, settings: FitSettings, workers: int, progress: Progress
) -> dict[str, Path]:
    """Files by name; for those that failed, a warning gives the reason."""
    if not scans:
        return {}
    found = prepare_vessels(scans, cache, settings.config, workers, progress)
    for name, reason in found.failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{name} was left out: {reason}"))
    return dict(found.files)


def _card(
    options: RunOptions, scans: Sequence[TableScan], parts: Parts, settings: FitSettings, fit: VesselFit
) -> ModelCard:
    uses = ", ".join(
        f"{use} {len(names)}" for use, names in zip(("training", "validation", "test"), parts, strict=True)
    )
    data = f"{kind_of_data(scans)}; {uses} scans; table SHA-256 {table_hash(tuple(scans))}"
    facts = as_facts(settings)["training"]
    values = {**facts, "steps_done": fit.steps, "best_step": fit.best_step, "seconds": fit.seconds}
    trained = Training(data, settings.training.loop.seed, values, commit())
    errors = {"training_mse_normalised": round(fit.training, 6), "validation_mse_normalised": round(fit.validation, 6)}
    calibration = {SCALE: fit.largest}
    return describe(options.name, settings.config, options.preset, trained, errors, calibration, LICENCE, INTENDED_USE)


def _as_loaded(network: VesselNet, card: ModelCard) -> VesselNet:
    """As scoring will load it: weights of half precision, layers put together."""
    with tempfile.TemporaryDirectory() as temporary:
        return load_model(save_model(network, card, Path(temporary)), "cpu").network


def _evaluated(
    network: VesselNet,
    scans: Sequence[TableScan],
    files: Mapping[str, Path],
    parts: Parts,
    noncoronary_controls: Mapping[str, Path],
) -> dict[str, object]:
    """The test on the patients kept apart, as `whole_scan.trust` reads it; intervals by a bootstrap of patients."""
    names = [name for part in parts for name in part]
    known = {scan.name: scan for scan in scans}
    chosen, targets = [known[name] for name in names], targets_of(scans)
    table = Scans(
        tuple(names),
        tuple(scan.patient for scan in chosen),
        np.stack([targets[name] for name in names]),
        np.array([(*scan.factors[:2], heart_ml(files[scan.name])) for scan in chosen]),
        (None,) * len(chosen),
    )
    study = Study(table, None, [parts[:2]], table.rows(parts[2]))
    found = Predicted(study.held_out, predictions_of(network, files, parts[2]))
    simple = factors_alone(study, 1, logarithm=True)

    def measure(statistic: Statistic, of: Predicted = found) -> dict[str, float | None]:
        return study.of([of], statistic).estimate.as_json()

    test: dict[str, object] = {
        "patients": len({known[name].patient for name in parts[2]}),
        "data": kind_of_data(scans),
        "rank_correlation": measure(rank(TOTAL)),
        "rank_correlation_age_and_heart_size": measure(rank(TOTAL), simple.test[0]) if simple else None,
        "mse_normalised": round(study.error_of(found) / PER_MILLE, 6),
        "kappa_categories": measure(category_agreement),
    }
    if noncoronary_controls:
        totals = predictions_of(network, noncoronary_controls, list(noncoronary_controls)).sum(1)
        test["non_coronary_only"] = {"patients": len(totals), "called_coronary": int((totals >= NONE_BELOW).sum())}
    return test
