"""Vessel regression: the study of networks and scales of scores, and the training of a model.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth of the
patients, the same for every seed, is held out; a fifth of the others validates. The finished model, as scoring loads
it, is evaluated once on the test patients, and the results are written on its card.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.networks.configs import VESSEL_OUTPUTS
from CACScoringLib.networks.vessels import PRESETS as SIZES
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.statistics.agreement import icc, kappa, rank_correlation
from CACScoringLib.statistics.bootstrap import BootstrapResult
from CACScoringLib.statistics.patient_folds import CATEGORY_TITLES, category_of
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import CERTAINTY, SCALE

from ...evaluation.experiment import Cohort, ExperimentRun, Fit, Predict, TrainingBudget, predicted_rows, values_in
from ...evaluation.measures import ExperimentComparison, Measure, mean_absolute_difference, mean_value, of_classes
from ...evaluation.parts import Section
from ...training.runs import training_run
from ...training.settings import RunOptions, facts_of
from ..sources import (
    WholeScanStudy,
    WholeScanStudySettings,
    are_digital,
    cohort_of,
    describe_data,
    factors_title,
    kind_of_data,
    on_controls,
    warn_of_failures,
)
from . import fitting
from .task import VesselTask

PER_MILLE = 1000.0
"""Factor of mean squared errors, which are shown in thousandths."""


def columns_of(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `predicted_rows`: true and predicted total, and squared error in thousandths. Scores are [n, 4]."""
    error = PER_MILLE * ((predicted - truth) ** 2).mean(1)
    return {"truth": truth.sum(1), "value": predicted.sum(1), "squared_error": error}


def measures_of(table: pd.DataFrame, scale: float) -> list[Measure]:
    """Measures of totals, and the squared error of arteries.

    - Rank correlation: Spearman's, of the total.
    - Mean absolute error: of the total in Agatston units.
    - Squared error: mean over patients and arteries of scores divided by `scale`, in thousandths.
    - κ: linearly weighted, of the categories 0, 1–99, 100–399 and from 400 of the rounded total.
    """
    return [
        Measure("Rank correlation", rank_correlation, table),
        Measure("Mean absolute error", mean_absolute_difference, table),
        Measure("Squared error, ‰", mean_value, table.assign(value=table.squared_error / scale**2)),
        Measure(
            "κ of categories",
            of_classes(partial(kappa, classes=len(CATEGORY_TITLES)), category_of),
            table.assign(value=table.value.round()),
        ),
    ]


def errors_by_fold(table: pd.DataFrame) -> dict[str, str]:
    """Return the mean and standard deviation over folds of the mean error, by use, as text."""
    folds = table.groupby(["use", "fold"]).error.mean().groupby("use")
    return {str(use): f"{part.mean():.4f} ± {part.std(ddof=0):.4f}" for use, part in folds}


def mean_of(scores: np.ndarray) -> Fit:
    """Return the predictor of the training scans' mean scores. scores: [n, 4] of all scans."""

    def fit(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        middle = scores[rows].mean(0)
        return lambda held_out: np.tile(middle, (len(held_out), 1))

    return fit


def factors_alone(cohort: Cohort, scores: np.ndarray) -> Fit:
    """Return the linear regression of the scores' logarithms on the known of age, sex and heart size.

    scores: [n, 4] of all scans.
    """
    from sklearn.linear_model import LinearRegression

    factors = cohort.factors[:, cohort.known_factors]

    def fit(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        model = LinearRegression().fit(factors[rows], np.log1p(scores[rows]))
        return lambda held_out: np.maximum(0, np.expm1(model.predict(factors[held_out])))

    return fit


KINDS = {
    "cnn": "CNN",
    "se-cnn": "SE-CNN",
    "vit": "ViT",
    "voxel-sum": "Voxel sum",
    fitting.SUPERVISED: "Voxel sum, supervised",
}


GRID = {"batch_size": (8, 32), "learning_rate": (1e-4, 3e-4, 1e-3), "weight_decay": (1e-4, 1e-2)}
"""Settings of a training that Kecoglu chose by a grid search; the values are not published."""

_TUNINGS = tuple(tuple(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values()))


@dataclass(frozen=True)
class VesselConfiguration:
    """Configuration of a network.

    Attributes:
        kind: Kind of KINDS.
        output: Scale of scores in training, of VESSEL_OUTPUTS.
        preset: Size of the input, of SIZES.
        tuning: Settings of the training by name in place of the preset's, of GRID.
    """

    kind: str
    output: str
    preset: str = "compact"
    tuning: tuple[tuple[str, float], ...] = ()

    @property
    def title(self) -> str:
        values = "".join(f", {name.replace('_', ' ')} {value:g}" for name, value in self.tuning)
        return KINDS[self.kind] + (", logarithm" if self.output == "log" else "") + values

    def fit_settings(self, budget: TrainingBudget) -> fitting.VesselSettings:
        """Return the settings of a training."""
        fit = fitting.vessel_settings(self.preset, self.kind, self.output)
        loop = replace(fit.training.loop, seed=budget.seed, steps=budget.steps or fit.training.loop.steps)
        return replace(fit, training=replace(fit.training, loop=loop, **dict(cast(Any, self.tuning))))


@dataclass(frozen=True)
class VesselStudySettings(WholeScanStudySettings):
    """Settings of the study. Raises CTError.

    Attributes:
        preset: Preset of SIZES.
        grid: True to train each configuration with all settings of GRID.
    """

    preset: str = "compact"
    grid: bool = False

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise CTError(f"There is no preset {self.preset!r}; choose one of {', '.join(SIZES)}.")


@dataclass(frozen=True)
class VesselStudy(WholeScanStudy):
    """Task of networks and scales of scores. inputs: prepared scans by `input_key` and name."""

    inputs: Mapping[str, Mapping[str, Path]]

    NAME: ClassVar[str] = "vessels"
    SETTINGS: ClassVar = VesselStudySettings
    CONFIGURATIONS: ClassVar = {
        f"{kind}-{output}": VesselConfiguration(kind, output) for kind in KINDS for output in VESSEL_OUTPUTS
    }
    COLUMNS: ClassVar = tuple(f"{part}_{artery}" for part in ("true", "predicted") for artery in ARTERIES)

    @classmethod
    def read(cls, settings: VesselStudySettings, progress: Progress) -> VesselStudy:
        scans, test_names = settings.read(ARTERIES, progress)
        # Supervision needs digital patients, whose calcium is known by location.
        default = [n for n, c in cls.CONFIGURATIONS.items() if c.kind != fitting.SUPERVISED or are_digital(scans)]
        configurations = [
            replace(cls.CONFIGURATIONS[name], preset=settings.preset, tuning=tuning)
            for name in settings.names or default
            for tuning in (_TUNINGS if settings.grid else ((),))
        ]
        inputs: dict[str, dict[str, Path]] = {}
        failed: dict[str, str] = {}
        for config in (configuration.fit_settings(settings.budget).config for configuration in configurations):
            if (key := fitting.input_key(config)) not in inputs:
                options = (config, settings.workers, progress)
                inputs[key], reasons = fitting.prepare_vessels(scans, settings.prepared, *options)
                failed |= reasons
        files = next(iter(inputs.values()))
        volumes = {name: fitting.heart_ml(file) for name, file in files.items() if name not in failed}
        cohort = cohort_of(scans, test_names, volumes, failed, settings.budget)
        return cls(settings, cohort, tuple(configurations), inputs)

    def fit(self, run: ExperimentRun, folder: Path) -> tuple[Predict, float]:
        settings, data = self._fit_arguments(run)
        fit = fitting.fit_vessels(*data, settings, folder, self.settings.device)

        def predict(rows: np.ndarray) -> np.ndarray:
            return np.round(fitting.predictions_of(fit.network, data[0], self.cohort.names(rows)), 3)

        return predict, fit.seconds

    def alike(self, configuration: VesselConfiguration) -> Hashable:
        return configuration.kind, configuration.tuning[:1]

    def task(self, run: ExperimentRun) -> VesselTask:
        settings, data = self._fit_arguments(run)
        return fitting.training_task(*data, settings)

    def _fit_arguments(self, run: ExperimentRun) -> tuple[fitting.VesselSettings, fitting.FitData]:
        """Return the settings of a run, and its scans."""
        import torch

        torch.set_num_threads(1)
        cohort, settings = self.cohort, run.configuration.fit_settings(self.settings.budget)
        files = self.inputs[fitting.input_key(settings.config)]
        training, validation = (cohort.names(rows) for rows in (cohort.training(run.fold), cohort.validation(run.fold)))
        return settings, (files, fitting.targets_of(cohort.scans), training, validation)

    @property
    def truth(self) -> np.ndarray:
        return np.stack(list(fitting.targets_of(self.cohort.scans).values()))

    @property
    def reference(self) -> str:
        return f"{factors_title(self.cohort.known_factors)}, logarithm"

    columns_of = staticmethod(columns_of)

    @property
    def _scale(self) -> float:
        """Largest score of one artery among the patients that are not held out."""
        return float(np.delete(self.truth, self.cohort.held_out, 0).max()) or 1.0

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        return measures_of(table, self._scale)

    def predicted_by(self, fold: int) -> list[tuple[str, np.ndarray]]:
        return [("training", self.cohort.training(fold)), *super().predicted_by(fold)]

    def more_sections(self, predicted: pd.DataFrame) -> Sequence[Section]:
        """Return Kecoglu's table 1: mean squared errors of the models of the folds, with their standard deviation."""
        uses = {"training": "Training", "validation": "Validation", "test": "Test"}
        truth, rows = self.truth, []
        for model, part in predicted.groupby("model", sort=False):
            errors = ((values_in(part) - truth[part.row]) / self._scale) ** 2
            folds = errors_by_fold(part.assign(error=errors.mean(1)))
            rows.append((model, *map(folds.get, uses)))
        rows += [(name, *map(cells.get, uses)) for name, cells in self.texts.parts["table_1"].published.items()]
        table = self.texts.table("table_1", ("Model", *uses.values()), rows)
        title, text = self.texts.texts("errors")
        return (Section("table_1", title, (text,), (table,)),) if len(predicted) else ()

    def comparators(self) -> Mapping[str, Fit]:
        return {self.reference: factors_alone(self.cohort, self.truth), "Always the mean": mean_of(self.truth)}


INTENDED_USE = (
    "Estimates the Agatston scores of the coronary arteries directly from a non-contrast chest CT, as a "
    "whole-scan estimate beside a score of lesions. For research; not a medical device."
)

VALIDATION_PARTS = 5


PRESETS = {
    f"{prefix}{kind}": fitting.vessel_settings(size, kind)
    for prefix, size in (("", "compact"), ("paper-", "paper"))
    for kind in sorted(fitting.TRAINABLE, key=lambda kind: kind != "voxel-sum")
}
"""Presets by network, with an input of the paper's size (for a GPU) or a smaller one. voxel-sum is not from the paper;
with -supervised it is trained on the location of digital patients' calcium too."""


def train(options: RunOptions, settings: fitting.VesselSettings, progress: Progress) -> Path:
    """Train a model, evaluate it and write it; returns its card's path. Raises CTError, OutputError."""
    scans, test_names, controls = settings.sources.read(options.only_table(), ARTERIES, progress)
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
            size = "paper" if options.preset.startswith("paper") else "compact"
            facts = {**facts_of(training), **fit.outcome.facts()}

            def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
                network = cast(VesselNet, model.network)
                errors = {"training": round(fit.training, 6), "validation": round(fit.validation, 6)}
                test = _evaluate(network, fit.least_certainty, cohort, files, control_files)
                metrics = {f"{use}_mse_normalised": error for use, error in errors.items()}
                return {**metrics, "test": test}, {SCALE: fit.largest, CERTAINTY: fit.least_certainty}

            about = (config, size, data, training.loop.seed, facts, INTENDED_USE)
            return run.write_network(fit.network, *about, evaluate)


def _evaluate(
    network: VesselNet, least_certainty: float, cohort: Cohort, files: Mapping[str, Path], controls: Mapping[str, Path]
) -> dict[str, object]:
    """Test the model on held-out patients, in the format of `CACScoringLib.whole_scan.trust`.

    Measures are of the scans whose score is stated.
    """
    truth = np.stack(list(fitting.targets_of(cohort.scans).values()))
    scale = float(np.delete(truth, cohort.held_out, 0).max())
    comparison = ExperimentComparison(cohort.patients, {}, np.random.default_rng(0))

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
