"""Task of vessel regression: networks and scales of scores, cross-validated and tested on held-out patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.configs import VESSEL_OUTPUTS
from CACScoringLib.networks.vessels import PRESETS

from ...evaluation.experiment import Cohort, Experiment, ExperimentRun, Fit, Predict, TrainingBudget
from ...evaluation.measures import Measure, mean_absolute_difference, mean_value, of_classes
from ...statistics.agreement import kappa, rank_correlation
from ...statistics.patient_folds import CATEGORY_TITLES, category_of
from ..sources import WholeScanStudySettings, are_digital, cohort_of, factors_title
from . import fitting

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


@dataclass(frozen=True)
class VesselConfiguration:
    """Configuration of a network.

    Attributes:
        kind: Kind of KINDS.
        output: Scale of scores in training, of VESSEL_OUTPUTS.
        preset: Size of the input, of PRESETS.
    """

    kind: str
    output: str
    preset: str = "compact"

    @property
    def title(self) -> str:
        return KINDS[self.kind] + (", logarithm" if self.output == "log" else "")

    def fit_settings(self, budget: TrainingBudget) -> fitting.VesselSettings:
        """Return the settings of a training."""
        fit = fitting.vessel_settings(self.preset, self.kind, self.output)
        loop = replace(fit.training.loop, seed=budget.seed, steps=budget.steps or fit.training.loop.steps)
        return replace(fit, training=replace(fit.training, loop=loop))


@dataclass(frozen=True)
class VesselStudySettings(WholeScanStudySettings):
    """Settings of the study. preset: preset of PRESETS. Raises CTError."""

    preset: str = "compact"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise CTError(f"There is no preset {self.preset!r}; choose one of {', '.join(PRESETS)}.")


@dataclass(frozen=True)
class VesselStudy(Experiment):
    """Task of networks and scales of scores. inputs: prepared scans by `input_key` and name."""

    inputs: Mapping[str, Mapping[str, Path]]

    NAME: ClassVar[str] = "vessels"
    PAGE_TITLE: ClassVar[str] = "Coronary calcium scores by vessel regression, without finding lesions"
    EXPLANATION: ClassVar[str] = (
        "All networks predict the scores of LM, LAD, LCX and RCA; rank correlation, absolute error and categories are "
        "of their total. CNN, SE-CNN and ViT are those of Kecoglu. “Voxel sum” is our own: one small network takes "
        "each slice with its neighbours, and its outputs are summed over the voxels; “supervised” was also trained on "
        "the location of the calcium of digital patients. “Logarithm” learns the logarithms of the scores. Squared "
        "errors are of scores divided by the largest score of one artery among the patients that were not held out; "
        "the published one is of other scans, normalised in an unknown way."
    )
    SETTINGS: ClassVar = VesselStudySettings
    CONFIGURATIONS: ClassVar = {
        f"{kind}-{output}": VesselConfiguration(kind, output) for kind in KINDS for output in VESSEL_OUTPUTS
    }
    COLUMNS: ClassVar = tuple(f"{part}_{artery}" for part in ("true", "predicted") for artery in ARTERIES)

    @classmethod
    def read(cls, settings: VesselStudySettings, progress: Progress) -> VesselStudy:
        scans, test_names = settings.read()
        # Supervision needs digital patients, whose calcium is known by location.
        default = [n for n, c in cls.CONFIGURATIONS.items() if c.kind != fitting.SUPERVISED or are_digital(scans)]
        configurations = [replace(cls.CONFIGURATIONS[n], preset=settings.preset) for n in settings.names or default]
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
        import torch

        torch.set_num_threads(1)
        cohort, settings = self.cohort, run.configuration.fit_settings(self.settings.budget)
        files = self.inputs[fitting.input_key(settings.config)]
        training, validation = (cohort.names(rows) for rows in (cohort.training(run.fold), cohort.validation(run.fold)))
        data = (files, fitting.targets_of(cohort.scans), training, validation)
        fit = fitting.fit_vessels(*data, settings, folder, self.settings.device)

        def predict(rows: np.ndarray) -> np.ndarray:
            return np.round(fitting.predictions_of(fit.network, files, cohort.names(rows)), 3)

        return predict, fit.seconds

    @property
    def is_digital(self) -> bool:
        return are_digital(self.cohort.scans)

    @property
    def truth(self) -> np.ndarray:
        return np.stack(list(fitting.targets_of(self.cohort.scans).values()))

    @property
    def reference(self) -> str:
        return f"{factors_title(self.cohort.known_factors)}, logarithm"

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {"": columns_of(self.truth[rows], values)}

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        learned = np.setdiff1d(np.arange(len(self.truth)), self.cohort.held_out)
        return measures_of(table, float(self.truth[learned].max()) or 1.0)

    def comparators(self) -> Mapping[str, Fit]:
        return {self.reference: factors_alone(self.cohort, self.truth), "Always the mean": mean_of(self.truth)}
