"""Study of vessel regression: networks and scales of scores, cross-validated and tested on held-out patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.configs import VESSEL_OUTPUTS
from CACScoringLib.networks.vessels import PRESETS

from ...evaluation.experiment import Cohort, ExperimentRun, TrainingBudget, check_known
from ...evaluation.measures import Measure, mean_absolute_difference, mean_value, of_classes
from ...evaluation.parts import PUBLISHED
from ...statistics.agreement import kappa
from ...statistics.patient_folds import CATEGORY_TITLES, category_of
from ...statistics.regression import rank_correlation
from ...training.run_folder import TrainingError
from ..prepared import PreparedScans
from ..scan_table import are_digital
from ..study import FACTORS, Fit, WholeScanStudy, WholeScanStudySettings, cohort_of
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


def factors_alone(cohort: Cohort, scores: np.ndarray, logarithm: bool) -> tuple[str, Fit] | None:
    """Return title and fit of a linear regression of scores, or their logarithms, on age, sex and heart size.

    Factors unknown for some scans are left out; None if all are. scores: [n, 4] of all scans.
    """
    from sklearn.linear_model import LinearRegression

    if not (columns := cohort.known_factors):
        return None
    factors = cohort.factors[:, columns]

    def fit(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        model = LinearRegression().fit(factors[rows], np.log1p(scores[rows]) if logarithm else scores[rows])
        inverse = np.expm1 if logarithm else np.asarray
        return lambda held_out: np.maximum(0, inverse(model.predict(factors[held_out])))

    title = ", ".join(FACTORS[n] for n in columns).capitalize()
    return f"{title}{', logarithm' if logarithm else ''}", fit


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
    """

    kind: str
    output: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.output}"

    @property
    def title(self) -> str:
        return KINDS[self.kind] + (", logarithm" if self.output == "log" else "")


CONFIGURATIONS = {f"{kind}-{output}": VesselConfiguration(kind, output) for kind in KINDS for output in VESSEL_OUTPUTS}


@dataclass(frozen=True)
class VesselBudget(TrainingBudget):
    """Budget of the study.

    Attributes:
        networks: Names in CONFIGURATIONS; empty for all.
        preset: Preset of PRESETS.
    """

    networks: tuple[str, ...] = ()
    preset: str = "compact"

    def __post_init__(self) -> None:
        check_known(self.networks, CONFIGURATIONS, "network")
        check_known([self.preset], PRESETS, "preset")
        super().__post_init__()


@dataclass(frozen=True)
class VesselStudySettings(WholeScanStudySettings):
    """Settings of the study; see `WholeScanStudySettings`."""

    budget: VesselBudget = field(default_factory=VesselBudget)


@dataclass(frozen=True)
class VesselStudy(WholeScanStudy):
    """Study of networks and scales of scores. inputs: prepared scans by `input_key` and name."""

    inputs: Mapping[str, Mapping[str, Path]]

    PAGE_TITLE: ClassVar[str] = "Coronary calcium scores by vessel regression, without finding lesions"
    PUBLISHED: ClassVar = (f"{PUBLISHED}: Kecoglu, best of CNN, SE-CNN and ViT", None, None, 8.4, None)
    EXPLANATION: ClassVar[str] = (
        "All networks predict the scores of LM, LAD, LCX and RCA; rank correlation, absolute error and categories are "
        "of their total. CNN, SE-CNN and ViT are those of Kecoglu. “Voxel sum” is our own: one small network takes "
        "each slice with its neighbours, and its outputs are summed over the voxels; “supervised” was also trained on "
        "the location of the calcium of digital patients. “Logarithm” learns the logarithms of the scores. Squared "
        "errors are of scores divided by the largest score of one artery among the patients that were not held out; "
        "the published one is of other scans, normalised in an unknown way."
    )
    COLUMNS: ClassVar = tuple(f"{part}_{artery}" for part in ("true", "predicted") for artery in ARTERIES)

    @classmethod
    def read(cls, settings: VesselStudySettings, progress: Progress) -> VesselStudy:
        scans, tested = settings.read()
        budget = settings.budget
        # Supervision needs digital patients, whose calcium is known by location.
        default = [name for name, c in CONFIGURATIONS.items() if c.kind != fitting.SUPERVISED or are_digital(scans)]
        configurations = tuple(CONFIGURATIONS[name] for name in budget.networks or default)
        prepared: dict[str, PreparedScans] = {}
        for config in (_fit_settings(c, settings).config for c in configurations):
            if (key := fitting.input_key(config)) not in prepared:
                prepared[key] = fitting.prepare_vessels(scans, settings.prepared, config, settings.workers, progress)
        failed = {name: reason for kind in prepared.values() for name, reason in kind.failed.items()}
        files = next(iter(prepared.values())).files
        volumes = {name: fitting.heart_ml(file) for name, file in files.items() if name not in failed}
        cohort = cohort_of(scans, tested, volumes, failed, budget.folds, budget.seed)
        return cls(settings, cohort, configurations, {key: kind.files for key, kind in prepared.items()})

    def key(self, run: ExperimentRun) -> str:
        return f"{self.settings.budget.preset} {super().key(run)}"

    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)
        cohort, settings = self.cohort, _fit_settings(run.configuration, self.settings)
        files = self.inputs[fitting.input_key(settings.config)]
        training, validation, test = (
            cohort.names(rows) for rows in (cohort.training(run.fold), cohort.validation(run.fold), cohort.held_out)
        )
        fit = fitting.fit_vessels(files, fitting.targets_of(cohort.scans), training, validation, settings, folder)
        predicted = {
            name: fitting.predictions_of(fit.network, files, names)
            for name, names in (("validation", validation), ("test", test))
        }
        if not all(np.isfinite(scores).all() for scores in predicted.values()):
            raise TrainingError("A training gave no numbers. Choose fewer --steps, or another --seed.")
        scores = {name: np.round(values, 3).tolist() for name, values in predicted.items()}
        return {**scores, "fold": run.fold, "seconds": float(fit.seconds)}

    @property
    def truth(self) -> np.ndarray:
        return np.stack(list(fitting.targets_of(self.cohort.scans).values()))

    def columns(self, truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        return columns_of(truth, predicted)

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        learned = np.setdiff1d(np.arange(len(self.truth)), self.cohort.held_out)
        scale = float(self.truth[learned].max()) or 1.0
        return measures_of(table, scale)

    def comparators(self) -> Sequence[tuple[str, Fit]]:
        regressions = (factors_alone(self.cohort, self.truth, logarithm) for logarithm in (False, True))
        return [("Always the mean", mean_of(self.truth)), *filter(None, regressions)]


def _fit_settings(configuration: VesselConfiguration, settings: VesselStudySettings) -> fitting.FitSettings:
    budget = settings.budget
    fit = fitting.fit_settings(budget.preset, configuration.kind, configuration.output, settings.device)
    loop = replace(fit.training.loop, seed=budget.seed)
    loop = loop if budget.steps is None else replace(loop, steps=budget.steps)
    return replace(fit, training=replace(fit.training, loop=loop))
