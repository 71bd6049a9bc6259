"""Training of a network that predicts the arteries' scores from a CT, a whole-scan estimate beside the scores.

Training data are a table of CTs with a score for each artery (`whole_scan.scan_table`). Without a test table, a fifth
of the patients, the same for every seed, is held out; a fifth of the others validates. The finished model, as scoring
loads it, is evaluated once on the test patients, and the results are written on its card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import ModelCard, Training, describe
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.vessels import VesselNet, VesselNetConfig
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import SCALE

from ...data.scan_table import TableScan, table_hash
from ...evaluation.measures import Comparison
from ...statistics.bootstrap import BootstrapResult
from ...training.run_folder import has_checkpoint, record_training, training_lock
from ...training.runs import LICENCE, as_scoring_loads, commit
from ...training.settings import RunOptions, facts_of
from ..scan_table import SourceSettings, folds, kind_of_data, warn_of_failures
from ..study import HELD_OUT, ScanCohort, predicted_rows
from . import fitting
from .study import PER_MILLE, columns_of, factors_alone, measures_of
from .task import VesselTraining

INTENDED_USE = (
    "Estimates the Agatston scores of the coronary arteries directly from a non-contrast chest CT, as a "
    "whole-scan estimate beside a score of lesions. For research; not a medical device."
)

VALIDATION_PARTS = 5


@dataclass(frozen=True)
class VesselSettings:
    """Settings of a model. config: network; its `output` is the scale of scores, "linear" or "log"."""

    config: VesselNetConfig
    training: VesselTraining
    sources: SourceSettings = field(default_factory=SourceSettings)


def _settings(size: str, kind: str) -> VesselSettings:
    settings = fitting.fit_settings(size, kind)
    return VesselSettings(settings.config, settings.training)


KINDS = ("voxel-sum", *(kind for kind in fitting.TRAINABLE if kind != "voxel-sum"))
PRESETS = {
    **{kind: _settings("compact", kind) for kind in KINDS},
    **{f"paper-{kind}": _settings("paper", kind) for kind in KINDS},
}
"""Presets by network, with an input of the paper's size (for a GPU) or a smaller one. voxel-sum is not from the paper;
with -supervised it is trained on the location of digital patients' calcium too."""


def train(options: RunOptions, settings: VesselSettings, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    fit_settings = fitting.FitSettings(settings.config, settings.training, options.device)
    cache = settings.sources.cache or options.folder / "scans"
    options.check()
    scans, training_names, test_names, controls = settings.sources.read(options.only_table())
    progress.begin(["scans", "training", "model"])
    with training_lock(options.folder):
        has_checkpoint(options.folder, options.resume)
        loop = fit_settings.training.loop
        record_training(options.folder, options.command, network="vessels", steps=loop.steps, minutes=loop.minutes)
        with progress.step("scans"):
            files, control_files = (
                _prepare(part, cache, fit_settings, options.workers, progress) for part in (scans, controls)
            )
        scans = tuple(scan for scan in scans if scan.name in files)
        learned = [scan for scan in scans if scan.name in set(training_names)]
        training, validation = folds(learned, VALIDATION_PARTS, loop.seed)[0]
        with progress.step("training"):
            fit = fitting.fit_vessels(
                files, fitting.targets_of(scans), training, validation, fit_settings, options.folder, progress
            )
        with progress.step("model"):
            fold_of = dict.fromkeys(validation, 0) | dict.fromkeys(test_names, HELD_OUT)
            numbers = np.array([fold_of.get(scan.name, 1) for scan in scans])
            factors = np.array([(*scan.factors[:2], fitting.heart_ml(files[scan.name])) for scan in scans])
            cohort = ScanCohort(scans, numbers, factors, {})
            card = _card(options, cohort, fit_settings, fit)
            scorer = cast(VesselNet, as_scoring_loads(fit.network, card).network)
            test = _evaluate(scorer, cohort, files, control_files)
            card = replace(card, validation={**card.validation, "test": test})
            path = save_model(fit.network, card, options.output.parent, options.overwrite)
        progress.done(path)
        return path


def _prepare(
    scans: Sequence[TableScan], cache: Path, settings: fitting.FitSettings, workers: int, progress: Progress
) -> dict[str, Path]:
    if not scans:
        return {}
    prepared = fitting.prepare_vessels(scans, cache, settings.config, workers, progress)
    warn_of_failures(prepared.failed, progress)
    return dict(prepared.files)


def _card(options: RunOptions, cohort: ScanCohort, settings: fitting.FitSettings, fit: fitting.VesselFit) -> ModelCard:
    parts = {"training": cohort.training(0), "validation": cohort.validation(0), "test": cohort.held_out}
    uses = ", ".join(f"{use} {len(rows)}" for use, rows in parts.items())
    data = f"{kind_of_data(cohort.scans)}; {uses} scans; table SHA-256 {table_hash(cohort.scans)}"
    values = {
        **facts_of(settings.training),
        "steps_done": fit.steps,
        "best_step": fit.best_step,
        "seconds": fit.seconds,
    }
    trained = Training(data, settings.training.loop.seed, values, commit())
    errors = dict[str, object](
        training_mse_normalised=round(fit.training, 6), validation_mse_normalised=round(fit.validation, 6)
    )
    calibration = {SCALE: fit.largest}
    size = "paper" if options.preset.startswith("paper") else "compact"
    return describe(options.name, settings.config, size, trained, errors, calibration, LICENCE, INTENDED_USE)


def _evaluate(
    network: VesselNet, cohort: ScanCohort, files: Mapping[str, Path], controls: Mapping[str, Path]
) -> dict[str, object]:
    """Test the model on held-out patients, in the format of `CACScoringLib.whole_scan.trust`."""
    rows, truth = cohort.held_out, np.stack(list(fitting.targets_of(cohort.scans).values()))
    scale = float(np.delete(truth, rows, 0).max())
    comparison = Comparison(cohort.patients, {}, np.random.default_rng(0))

    def results(predicted: np.ndarray) -> list[BootstrapResult]:
        table = predicted_rows([cohort.scans[row] for row in rows], columns_of(truth[rows], predicted))
        return [comparison.result(measure, "model") for measure in measures_of(table, scale)]

    rank, _, squared_error, kappa = results(fitting.predictions_of(network, files, cohort.names(rows)))
    test: dict[str, object] = {
        "patients": len({cohort.patients[row] for row in rows}),
        "data": kind_of_data(cohort.scans),
        "rank_correlation": rank.estimate.as_json(),
        "rank_correlation_age_and_heart_size": None,
        "mse_normalised": round(float(squared_error.values[0]) / PER_MILLE, 6),
        "kappa_categories": kappa.estimate.as_json(),
    }
    if (simple := factors_alone(cohort, truth, logarithm=True)) is not None:
        rank_of_factors = results(simple[1](cohort.training(0))(rows))[0]
        test["rank_correlation_age_and_heart_size"] = rank_of_factors.estimate.as_json()
    if controls:
        totals = fitting.predictions_of(network, controls, list(controls)).sum(1)
        test["non_coronary_only"] = {"patients": len(totals), "called_coronary": int((totals >= NONE_BELOW).sum())}
    return test
