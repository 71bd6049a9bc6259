"""Training of a network that predicts the arteries' scores from a CT, a whole-scan estimate beside the scores.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth
of the patients, the same for every seed, is held out; a fifth of the others validates. The finished model, as scoring
loads it, is evaluated once on the test patients, and the results are written on its card.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.version import commit
from CACScoringLib.models.cards import Training
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import CERTAINTY, SCALE

from ...evaluation.experiment import Cohort, TrainingBudget, predicted_rows
from ...evaluation.measures import Comparison, Measure
from ...statistics.agreement import icc
from ...statistics.bootstrap import BootstrapResult
from ...training.runs import training_run
from ...training.settings import RunOptions, facts_of
from ..sources import cohort_of, describe_data, kind_of_data, on_controls, warn_of_failures
from . import fitting
from .study import PER_MILLE, columns_of, factors_alone, measures_of

INTENDED_USE = (
    "Estimates the Agatston scores of the coronary arteries directly from a non-contrast chest CT, as a "
    "whole-scan estimate beside a score of lesions. For research; not a medical device."
)

VALIDATION_PARTS = 5


KINDS = ("voxel-sum", *(kind for kind in fitting.TRAINABLE if kind != "voxel-sum"))
PRESETS = {
    f"{prefix}{kind}": fitting.vessel_settings(size, kind)
    for prefix, size in (("", "compact"), ("paper-", "paper"))
    for kind in KINDS
}
"""Presets by network, with an input of the paper's size (for a GPU) or a smaller one. voxel-sum is not from the paper;
with -supervised it is trained on the location of digital patients' calcium too."""


def train(options: RunOptions, settings: fitting.VesselSettings, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    scans, test_names, controls = settings.sources.read(options.only_table())
    config, training = settings.config, settings.training
    with training_run(options, "vessels", training, {}, progress) as run:
        with progress.step("scans"):
            cache = settings.sources.cache or options.folder / "scans"
            (files, failed), (control_files, failed_controls) = (
                fitting.prepare_vessels(part, cache, config, options.workers, progress) for part in (scans, controls)
            )
            for reasons in (failed, failed_controls):
                warn_of_failures(reasons, progress)
            heart_ml = {name: fitting.heart_ml(file) for name, file in files.items()}
            budget = TrainingBudget(VALIDATION_PARTS, seed=training.loop.seed)
            cohort = cohort_of(scans, test_names, heart_ml, failed, budget)
            uses = {"training": cohort.training(0), "validation": cohort.validation(0), "test": cohort.held_out}
        with progress.step("training"):
            learned, validation = (cohort.names(uses[use]) for use in ("training", "validation"))
            scans_of_fit = (files, fitting.targets_of(cohort.scans), learned, validation)
            fit = fitting.fit_vessels(*scans_of_fit, settings, options.folder, options.device, progress)
        with progress.step("model"):
            data = describe_data(cohort.scans, {use: len(rows) for use, rows in uses.items()})
            trained = Training(data, training.loop.seed, {**facts_of(training), **fit.outcome.facts()}, commit())
            size = "paper" if options.preset.startswith("paper") else "compact"
            model = run.loaded_model(fit.network, config, size, trained, INTENDED_USE)
            metrics = {
                "training_mse_normalised": round(fit.training, 6),
                "validation_mse_normalised": round(fit.validation, 6),
                "test": _evaluate(cast(VesselNet, model.network), fit.least_certainty, cohort, files, control_files),
            }
            calibration = {SCALE: fit.largest, CERTAINTY: fit.least_certainty}
            return run.write_network(fit.network, model.card, metrics, calibration)


def _evaluate(
    network: VesselNet, least_certainty: float, cohort: Cohort, files: Mapping[str, Path], controls: Mapping[str, Path]
) -> dict[str, object]:
    """Test the model on held-out patients, in the format of `CACScoringLib.whole_scan.trust`.

    Measures are of the scans whose score is stated.
    """
    truth = np.stack(list(fitting.targets_of(cohort.scans).values()))
    scale = float(np.delete(truth, cohort.held_out, 0).max())
    comparison = Comparison(cohort.patients, {}, np.random.default_rng(0))

    def predict(scans: Mapping[str, Path], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores, and where they are undetermined."""
        scores = fitting.predictions_of(network, scans, names)
        uncertain = fitting.certainties_of(network, scans, names) < least_certainty
        return scores, uncertain & (scores.sum(1) >= NONE_BELOW)

    def results(rows: np.ndarray, predicted: np.ndarray) -> list[BootstrapResult]:
        scans = [cohort.scans[row] for row in rows]
        table = predicted_rows(scans, columns_of(truth[rows], predicted))
        arteries = (
            predicted_rows(scans, {"truth": truth[rows, n], "value": predicted[:, n]}) for n in range(len(ARTERIES))
        )
        measures = [*measures_of(table, scale), *(Measure("ICC", icc, rows_of_artery) for rows_of_artery in arteries)]
        return [comparison.result(measure, "model") for measure in measures]

    predicted, undetermined = predict(files, cohort.names(cohort.held_out))
    rows = cohort.held_out[~undetermined]
    rank, _, squared_error, kappa, *by_artery = results(rows, predicted[~undetermined])
    by_factors = factors_alone(cohort, truth)(cohort.training(0))
    free = ~truth[cohort.held_out].any(1)
    called = (predicted.sum(1) >= 1) & ~undetermined
    test: dict[str, object] = {
        "patients": len({cohort.patients[row] for row in cohort.held_out}),
        "scans": len(cohort.held_out),
        "undetermined": int(undetermined.sum()),
        "without_calcium": {
            "scans": int(free.sum()),
            "called_coronary": int(called[free].sum()),
            "undetermined": int(undetermined[free].sum()),
        },
        "data": kind_of_data([cohort.scans[row] for row in cohort.held_out]),
        "rank_correlation": rank.estimate.as_json(),
        "rank_correlation_age_and_heart_size": results(rows, by_factors(rows))[0].estimate.as_json(),
        "mse_normalised": round(float(squared_error.values[0]) / PER_MILLE, 6),
        "kappa_categories": kappa.estimate.as_json(),
        "icc": {artery: r.estimate.as_json() for artery, r in zip(ARTERIES, by_artery, strict=True)},
    }
    totals, uncertain = predict(controls, list(controls))
    return {**test, **on_controls((totals.sum(1) >= NONE_BELOW) & ~uncertain)}
