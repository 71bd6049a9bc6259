"""Vessel regression: networks and scales of scores, and the training of a model.

Training data are a table of CTs with a score for each artery (`data.scan_table`). Without a test table, a fifth of the
patients, the same for every seed, is held out; a fifth of the others validates. The finished model, as scoring loads
it, is evaluated once on the test patients, and the results are written on its card.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.networks.configs import VESSEL_OUTPUTS
from CACScoringLib.networks.vessels import PRESETS as SIZES
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.statistics.agreement import icc, kappa, rank_correlation
from CACScoringLib.statistics.bootstrap import BootstrapResult
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import CERTAINTY, SCALE

from ...data.scan_table import TableScan
from ...evaluation.experiment import HELD_OUT, Fit, FittedModel, Predict, TrainingBudget, predicted_rows, values_in
from ...evaluation.measures import ExperimentComparison, Measure, mean_absolute_difference, mean_value, of_classes
from ...evaluation.papers import texts_of
from ...evaluation.parts import Section
from ...training.runs import TrainedModel, check_start_share
from ...training.settings import RunOptions, settings_as_json
from ..sources import ScanList, WholeScanStudy, WholeScanStudySettings, are_digital
from . import fitting
from .task import VesselTask

PER_MILLE = 1000.0
"""Factor of mean squared errors, which are shown in thousandths."""


def errors_by_fold(table: pd.DataFrame) -> dict[str, str]:
    """Return the mean and standard deviation over folds of the mean error, by use, as text."""
    folds = table.groupby(["use", "fold"]).error.mean().groupby("use")
    return {str(use): f"{part.mean():.4f} ± {part.std(ddof=0):.4f}" for use, part in folds}


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


INTENDED_USE = (
    "Estimates the Agatston scores of the coronary arteries directly from a non-contrast chest CT, as a "
    "whole-scan estimate beside a score of lesions. For research; not a medical device."
)


@dataclass(frozen=True)
class VesselStudy(WholeScanStudy):
    """Networks and scales of scores. inputs: prepared scans by `input_key` and name."""

    inputs: Mapping[str, Mapping[str, Path]]

    NAME: ClassVar[str] = "vessels"
    TEXTS: ClassVar = texts_of("vessels")
    SETTINGS: ClassVar = VesselStudySettings
    PRESETS: ClassVar = {
        f"{prefix}{kind}": fitting.vessel_settings(size, kind)
        for prefix, size in (("", "compact"), ("paper-", "paper"))
        for kind in sorted(fitting.TRAINABLE, key=lambda kind: kind != "voxel-sum")
    }
    """By network, with an input of the paper's size (for a GPU) or a smaller one. voxel-sum is not from the paper; with
    -supervised it is trained on the location of digital patients' calcium too."""
    CONFIGURATIONS: ClassVar = {
        f"{kind}-{output}": VesselConfiguration(kind, output) for kind in KINDS for output in VESSEL_OUTPUTS
    }
    COLUMNS: ClassVar = tuple(f"{part}_{artery}" for part in ("true", "predicted") for artery in ARTERIES)
    SCORES: ClassVar = ARTERIES

    @classmethod
    def configurations_for(
        cls, settings: VesselStudySettings, scans: Sequence[TableScan]
    ) -> Sequence[VesselConfiguration]:
        # Supervision needs digital patients, whose calcium is known by location.
        default = [n for n, c in cls.CONFIGURATIONS.items() if c.kind != fitting.SUPERVISED or are_digital(scans)]
        return [
            replace(cls.CONFIGURATIONS[name], preset=settings.preset, tuning=tuning)
            for name in settings.names or default
            for tuning in (_TUNINGS if settings.grid else ((),))
        ]

    @classmethod
    def of_scans(
        cls,
        settings: VesselStudySettings,
        scan_list: ScanList,
        fits: Sequence[fitting.VesselSettings],
        progress: Progress,
    ) -> VesselStudy:
        inputs: dict[str, dict[str, Path]] = {}
        failed: dict[str, str] = {}
        for config in (fit.config for fit in fits):
            if (key := fitting.input_key(config)) not in inputs:
                options = (config, settings.workers, progress)
                inputs[key], reasons = fitting.prepare_vessels(scan_list.scans, settings.prepared, *options)
                failed |= reasons
        files = next(iter(inputs.values()))
        volumes = {name: fitting.heart_ml(file) for name, file in files.items() if name not in failed}
        return cls(settings, scan_list.cohort(volumes, failed, settings.budget), tuple(fits), inputs)

    @classmethod
    def for_training(cls, options: RunOptions, settings: fitting.VesselSettings, progress: Progress) -> WholeScanStudy:
        training = settings.training
        check_start_share(training.start_share, options.start is not None)
        if options.start is not None:
            card, network = fitting.network_to_start_from(options.start)
            training_of_start = replace(training, start=card.sha256)
            settings = replace(settings, config=network.config, training=training_of_start, start=options.start)
        return super().for_training(options, settings, progress)

    def fit(
        self, settings: fitting.VesselSettings, fold: int, folder: Path, progress: Progress | None = None
    ) -> FittedModel:
        data = self._fit_data(settings, fold)
        fit = fitting.fit_vessels(*data, settings, folder, self.settings.device, progress)

        def predict(rows: np.ndarray) -> np.ndarray:
            return np.round(fitting.predictions_of(fit.network, data[0], self.cohort.names(rows)), 3)

        return FittedModel(fit, predict, fit.seconds)

    def alike(self, configuration: VesselConfiguration) -> Hashable:
        return configuration.kind, configuration.tuning[:1]

    def task(self, settings: fitting.VesselSettings, fold: int) -> VesselTask:
        return fitting.training_task(*self._fit_data(settings, fold), settings)

    def _fit_data(self, settings: fitting.VesselSettings, fold: int) -> fitting.FitData:
        """Return the scans of a fit. The fold validates; in the last step those whose use it is, or the first one."""
        cohort, number = self.cohort, 0 if fold == HELD_OUT else fold
        training, validation = (cohort.names(rows) for rows in (cohort.training(number), cohort.validation(number)))
        learned = cohort.scans_at(cohort.training(HELD_OUT))
        if fold == HELD_OUT and (by_use := {scan.patient for scan in learned if scan.use == "validation"}):
            training, validation = (
                [scan.name for scan in learned if (scan.patient in by_use) == validates] for validates in (False, True)
            )
        return self._files(settings), fitting.targets_of(cohort.scans), training, validation

    def _files(self, settings: fitting.VesselSettings) -> Mapping[str, Path]:
        return self.inputs[fitting.input_key(settings.config)]

    @property
    def truth(self) -> np.ndarray:
        return np.stack(list(fitting.targets_of(self.cohort.scans).values()))

    @property
    def reference(self) -> str:
        return f"{self.factors_title.capitalize()}, logarithm"

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Return true and predicted total, and squared error in thousandths."""
        truth = self.truth[rows]
        error = PER_MILLE * ((values - truth) ** 2).mean(1)
        return {"": {"truth": truth.sum(1), "value": values.sum(1), "squared_error": error}}

    @property
    def scale(self) -> float:
        """Largest score of one artery among the patients that are not held out."""
        return float(np.delete(self.truth, self.cohort.held_out, 0).max()) or 1.0

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        """Return measures of totals, and the squared error of arteries.

        - Rank correlation: Spearman's, of the total.
        - Mean absolute error: of the total in Agatston units.
        - Squared error: mean over patients and arteries of scores divided by `scale`, in thousandths.
        - κ: linearly weighted, of the categories 0, 1–99, 100–399 and from 400 of the rounded total.
        """
        return [
            Measure("Rank correlation", rank_correlation, table),
            Measure("Mean absolute error", mean_absolute_difference, table),
            Measure("Squared error, ‰", mean_value, table.assign(value=table.squared_error / self.scale**2)),
            Measure(
                "κ of categories",
                of_classes(partial(kappa, classes=len(CATEGORY_TITLES)), category_numbers),
                table.assign(value=table.value.round()),
            ),
        ]

    def predicted_by(self, fold: int) -> list[tuple[str, np.ndarray]]:
        return [("training", self.cohort.training(fold)), *super().predicted_by(fold)]

    def more_sections(self, predicted: pd.DataFrame) -> Sequence[Section]:
        """Return Kecoglu's table 1: mean squared errors of the models of the folds, with their standard deviation."""
        uses = {"training": "Training", "validation": "Validation", "test": "Test"}
        truth, rows = self.truth, []
        for model, part in predicted.groupby("model", sort=False):
            errors = ((values_in(part) - truth[part.row]) / self.scale) ** 2
            folds = errors_by_fold(part.assign(error=errors.mean(1)))
            rows.append((model, *map(folds.get, uses)))
        rows += [(name, *map(cells.get, uses)) for name, cells in self.TEXTS.parts["table_1"].published.items()]
        table = self.TEXTS.table("table_1", ("Model", *uses.values()), rows)
        title, text = self.TEXTS.texts("errors")
        return (Section("table_1", title, (text,), (table,)),) if len(predicted) else ()

    def comparators(self) -> Mapping[str, Fit]:
        def mean(rows: np.ndarray) -> Predict:
            middle = self.truth[rows].mean(0)
            return lambda cases: np.tile(middle, (len(cases), 1))

        return {self.reference: self.factors_alone, "Always the mean": mean}

    def fit_factors(self, factors: np.ndarray, truth: np.ndarray) -> Predict:
        """Fit a linear regression of the scores' logarithms."""
        from sklearn.linear_model import LinearRegression

        model = LinearRegression().fit(factors, np.log1p(truth))
        return lambda cases: np.maximum(0, np.expm1(model.predict(cases)))

    def trained_model(self, options: RunOptions, settings: fitting.VesselSettings, fitted: FittedModel) -> TrainedModel:
        fit: fitting.VesselFit = fitted.model
        _, _, training, validation = self._fit_data(settings, HELD_OUT)
        counts = {"training": len(training), "validation": len(validation), "test": len(self.cohort.held_out)}
        size = "paper" if options.preset.startswith("paper") else "compact"
        facts = {**settings_as_json(settings.training), **fit.outcome.facts()}

        def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
            errors = {"training": round(fit.training, 6), "validation": round(fit.validation, 6)}
            metrics = {f"{use}_mse_normalised": error for use, error in errors.items()}
            test = self.test_results(model, settings, fitted)
            return {**metrics, "test": test}, {SCALE: fit.largest, CERTAINTY: fit.least_certainty}

        about = (self.describe_data(counts), settings.seed, facts, INTENDED_USE)
        return TrainedModel(fit.network, settings.config, size, *about, evaluate)

    def test(
        self,
        model: LoadedModel,
        fitted: FittedModel,
        settings: fitting.VesselSettings,
        comparison: ExperimentComparison,
    ) -> tuple[dict[str, object], np.ndarray]:
        """Test the model. Measures are of the scans whose score is stated."""
        network, cohort, truth = cast(VesselNet, model.network), self.cohort, self.truth

        def predict(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Return scores, and where they are undetermined."""
            scans = (self._files(settings), cohort.names(rows))
            scores = fitting.predictions_of(network, *scans)
            uncertain = fitting.certainties_of(network, *scans) < fitted.model.least_certainty
            return scores, uncertain & (scores.sum(1) >= NONE_BELOW)

        def results(rows: np.ndarray, predicted: np.ndarray) -> list[BootstrapResult]:
            scans = cohort.scans_at(rows)
            table = predicted_rows(scans, self.outcomes(rows, predicted)[""])
            arteries = (
                predicted_rows(scans, {"truth": truth[rows, n], "value": predicted[:, n]}) for n in range(len(ARTERIES))
            )
            measures = [*self.measures(table), *(Measure("ICC", icc, rows_of_artery) for rows_of_artery in arteries)]
            return [comparison.result(measure, "model") for measure in measures]

        predicted, undetermined = predict(cohort.held_out)
        rows = cohort.held_out[~undetermined]
        rank, _, squared_error, kappa, *by_artery = results(rows, predicted[~undetermined])
        by_factors = self.factors_alone(cohort.training(0))
        free = ~truth[cohort.held_out].any(1)
        called = (predicted.sum(1) >= 1) & ~undetermined
        measures: dict[str, object] = {
            "scans": len(cohort.held_out),
            "undetermined": int(undetermined.sum()),
            "without_calcium": {
                "scans": int(free.sum()),
                "called_coronary": int(called[free].sum()),
                "undetermined": int(undetermined[free].sum()),
            },
            "rank_correlation": rank.estimate.as_json(),
            "rank_correlation_age_and_heart_size": results(rows, by_factors(rows))[0].estimate.as_json(),
            "mse_normalised": round(float(squared_error.values[0]) / PER_MILLE, 6),
            "kappa_categories": kappa.estimate.as_json(),
            "icc": {artery: r.estimate.as_json() for artery, r in zip(ARTERIES, by_artery, strict=True)},
        }
        scores, uncertain = predict(cohort.controls)
        return measures, (scores.sum(1) >= NONE_BELOW) & ~uncertain
