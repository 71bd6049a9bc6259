"""Task of radiograph models: training configurations, cross-validated and tested on other patients.

The axes are those of Saeed et al. (2025, arXiv 2511.11093): capacity, weights from scratch or pretrained,
super-resolution with enhancement, and curriculum; and of Hong et al. (2025, 10.1016/j.jcct.2025.03.010): three
thresholds, clinical factors, external patients and prognosis.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.options import changed_settings
from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.configs import RadiographNetConfig
from CACScoringLib.statistics.agreement import kappa
from CACScoringLib.statistics.patient_folds import CATEGORY_LIMITS, CATEGORY_TITLES, category_of
from CACScoringLib.statistics.roc import above, area_under_curve
from CACScoringLib.statistics.survival import concordance

from ..data.scan_table import LABELS, TableScan, join, read_radiographs
from ..evaluation.experiment import Cohort, Experiment, ExperimentRun, ExperimentSettings, Fit, Predict, TrainingBudget
from ..evaluation.measures import Measure, mean_value, rates
from ..evaluation.papers import texts_of
from ..evaluation.parts import Section
from . import fitting, train
from .cases import ScanRadiographSettings, are_digital, read_case
from .cohort import projected, write_scan_radiographs
from .dataset import RadiographSet, load_radiographs
from .prognosis import PROBABILITIES, SIMULATED, Events, events_sections, likely_category, simulate_events
from .task import SEVERE_FIRST, RadiographTask

THRESHOLDS = tuple(map(int, CATEGORY_LIMITS))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")
CATEGORY, EVENTS = "Category", "Simulated events"


@dataclass(frozen=True)
class RadiographConfiguration:
    """Training configuration of a network; it is always tested on the true score.

    Attributes:
        name: Unique name, usable as a folder name.
        backbone: Backbone of the network.
        views: Views of the network.
        super_resolution: Way of `cases.SUPER_RESOLUTIONS`.
        enhancement: Enhancement of the contrast.
        label: Score of LABELS used as label.
        curriculum: True to train on severe calcium first.
        counterfactual: True to add radiographs of the same patients with other or no calcium, and to expose each
            picture anew; else each patient has one exposure, the same in every configuration.
        located: True to train on the location of calcium, for "light" only.
        pretrained: True to start from the weights of `RadiographStudySettings.pretrained`.
        details: True to add details of several sizes to the network's input.
    """

    name: str = "base"
    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    super_resolution: str = "none"
    enhancement: str = "none"
    label: str = LABELS[0]
    curriculum: bool = False
    counterfactual: bool = True
    located: bool = True
    pretrained: bool = False
    details: bool = True

    @property
    def title(self) -> str:
        return self.name

    def fit_settings(self, budget: TrainingBudget, device: str, weights: Path | None = None) -> fitting.FitSettings:
        """Return the settings of a training: of as many pictures and validations as those of the light network.

        weights: initial ones.
        """
        config = RadiographNetConfig(
            self.backbone, views=self.views, thresholds=THRESHOLDS, enhancement=self.enhancement, details=self.details
        )
        preset, light = train.PRESETS[self.backbone].training, train.PRESETS["light"].training
        steps = max(1, _pictures(budget) // preset.batch_size)
        validate_every = max(1, steps * light.loop.validate_every // light.loop.steps)
        loop = replace(light.loop, seed=budget.seed, steps=steps, validate_every=validate_every)
        training = replace(
            preset,
            loop=loop,
            label=self.label,
            drawn_share=preset.drawn_share if self.counterfactual else 0.0,
            curriculum=SEVERE_FIRST if self.curriculum else (),
            locate_weight=preset.locate_weight if self.located else 0.0,
        )
        return fitting.FitSettings(config, training, device, weights)


def _pictures(budget: TrainingBudget) -> int:
    """Return the number of pictures of each training."""
    light = train.PRESETS["light"].training
    return light.batch_size * (light.loop.steps if budget.steps is None else budget.steps)


def _arms() -> dict[str, RadiographConfiguration]:
    """Return the configurations by name, the most important first, as the study's texts declare them."""
    arms: dict[str, RadiographConfiguration] = {}
    for arm in texts_of("radiograph").arms:
        like = arms.get(str(arm.get("like")), RadiographConfiguration())
        changes = {name: value for name, value in arm.items() if name != "like"}
        arms[str(arm["name"])] = changed_settings(like, changes, "radiograph")
    return arms


CONFIGURATIONS = _arms()
BASE = CONFIGURATIONS["base"]
"""Configuration with which all others are compared."""
WITH_FACTORS = f"{BASE.title} with age, sex, BMI"
LARGE = ("resnet18", "densenet121")


@dataclass(frozen=True)
class RadiographStudySettings(ExperimentSettings):
    """Settings of the study. Raises CTError.

    Attributes:
        pretrained: File of torchvision's weights by network of LARGE.
        projection: Settings of the radiographs of CTs.
    """

    pretrained: dict[str, Path] = field(default_factory=dict)
    projection: ScanRadiographSettings = field(default_factory=partial(ScanRadiographSettings, "sharpener-compact"))

    def __post_init__(self) -> None:
        if foreign := sorted(self.pretrained.keys() - set(LARGE)):
            raise CTError(f"There are no pretrained weights for {foreign[0]!r}; give those of {' or '.join(LARGE)}.")
        if missing := [file for file in self.pretrained.values() if not file.is_file()]:
            raise CTError(f"The pretrained weights {missing[0]} do not exist. Correct the path.")


@dataclass(frozen=True)
class RadiographStudy(Experiment):
    """Task of training configurations, compared with the base; data is a table of radiographs or its folder.

    lacking: what the data lack for other configurations, by name.
    """

    lacking: Mapping[str, str] = field(default_factory=dict)

    NAME: ClassVar[str] = "radiograph"
    SETTINGS: ClassVar = RadiographStudySettings
    CONFIGURATIONS: ClassVar = CONFIGURATIONS
    COLUMNS: ClassVar = (LABELS[0], *PROBABILITIES)
    ROWS: ClassVar = {
        **{title: (title,) for title in THRESHOLD_TITLES},
        "Mean": THRESHOLD_TITLES,
        CATEGORY: (CATEGORY,),
        EVENTS: (EVENTS,),
    }

    @classmethod
    def read(cls, settings: RadiographStudySettings, progress: Progress) -> RadiographStudy:
        settings, failed = _with_radiographs(settings, progress)
        scans, test_names = _radiographs(settings)
        cohort = Cohort.split(scans, test_names, settings.budget, np.array([scan.factors for scan in scans]), failed)
        configurations = [
            c for c in cls.CONFIGURATIONS.values() if c == BASE or not settings.names or c.name in settings.names
        ]
        lacking = {c.name: reason for c in configurations if c != BASE and (reason := _lacking(c, scans, settings))}
        return cls(settings, cohort, tuple(c for c in configurations if c.name not in lacking), lacking)

    def notes(self) -> Sequence[str]:
        names: dict[str, list[str]] = {}
        for name, reason in self.lacking.items():
            names.setdefault(reason, []).append(name)
        pictures = (
            f"Every network learns from {_pictures(self.settings.budget)} pictures and chooses among as many "
            "validations. Configurations without pairs of one patient have the same exposure of each patient, whatever "
            "the enhancement."
        )
        untrained = (f"Not trained, for want of {why}: {', '.join(group)}." for why, group in names.items())
        return [SIMULATED, pictures, *untrained]

    def key(self, run: ExperimentRun) -> str:
        weights = self._weights(run.configuration)
        return super().key(run) + (f" {_digest(weights)}" if weights else "")

    def _weights(self, configuration: RadiographConfiguration) -> Path | None:
        return self.settings.pretrained[configuration.backbone] if configuration.pretrained else None

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and occurrence of simulated events, the same for all scans of a patient."""
        _, first, patient = np.unique(self.cohort.patients, return_index=True, return_inverse=True)
        years, event = simulate_events(category_of(self.truth[first]), self.settings.budget.seed)
        return years[patient], event[patient]

    @property
    def is_digital(self) -> bool:
        return are_digital(self.settings.data)

    @property
    def truth(self) -> np.ndarray:
        return self.cohort.score

    @property
    def reference(self) -> str:
        return BASE.title

    def fit(self, run: ExperimentRun, folder: Path) -> tuple[Predict, float]:
        settings, data, split = self._fit_arguments(run)
        network, calibration, outcome, _ = fitting.fit(data, *split, settings, folder)

        def predict(rows: np.ndarray) -> np.ndarray:
            locate = fitting.knows_hearts(settings)
            return np.concatenate(fitting.predictions_of(network, data, rows, calibration, locate), 1)

        return predict, float(outcome.seconds)

    def alike(self, configuration: RadiographConfiguration) -> Hashable:
        return configuration.backbone, len(configuration.views), configuration.details

    def cost(self, runs: Sequence[ExperimentRun]) -> float:
        seconds = super().cost(runs)
        _loaded.clear()  # the workers load their own
        return seconds

    def task(self, run: ExperimentRun) -> RadiographTask:
        settings, data, split = self._fit_arguments(run)
        return fitting.training_task(data, *split, settings)

    def _fit_arguments(
        self, run: ExperimentRun
    ) -> tuple[fitting.FitSettings, RadiographSet, tuple[np.ndarray, np.ndarray]]:
        """Return the settings of a run, the radiographs, and its training and validation cases."""
        torch.set_num_threads(1)
        configuration, budget = run.configuration, self.settings.budget
        settings = configuration.fit_settings(budget, self.settings.device, self._weights(configuration))
        data = _loaded_radiographs(configuration, self.settings)
        rows = self.cohort.training(run.fold)
        return settings, data, fitting.validation_split(data, 0.2, budget.seed + 1 + run.fold, LABELS[0], rows)

    def predictors(self, configuration: RadiographConfiguration, values: np.ndarray) -> dict[str, np.ndarray]:
        image, fused = values[:, : len(THRESHOLDS)], values[:, len(THRESHOLDS) :]
        return {configuration.title: image, **({WITH_FACTORS: fused} if configuration == BASE else {})}

    def outcomes(self, rows: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        truth, (years, event) = self.truth[rows], (part[rows] for part in self.events)
        is_above, called = above(truth, THRESHOLDS) > 0, values >= above(self.truth, THRESHOLDS).mean(0)
        by_threshold = {
            title: {"truth": is_above[:, n], "value": values[:, n], "called": called[:, n]}
            for n, title in enumerate(THRESHOLD_TITLES)
        }
        return {
            **by_threshold,
            CATEGORY: {"truth": category_of(truth), "value": likely_category(values)},
            EVENTS: {"truth": np.where(event, years, -years), "value": values.sum(1)},
        }

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        categories = table[table.outcome == CATEGORY]
        detection = table[table.outcome.isin(THRESHOLD_TITLES)]
        hits = rates(("Sensitivity", "Specificity"), detection.assign(value=detection.called))
        squared = (detection.value.astype(float) - detection.truth.astype(float)) ** 2
        return [
            Measure("AUC", area_under_curve, detection),
            *hits,
            Measure("Brier score", mean_value, detection.assign(value=squared)),
            Measure("κ", partial(kappa, classes=len(CATEGORY_TITLES)), categories),
            Measure("C", _concordance, table[table.outcome == EVENTS]),
        ]

    def more_sections(self, predicted: pd.DataFrame) -> Sequence[Section]:
        """Return the sections on simulated events, with the mean of a patient's cross-validated probabilities."""
        model = WITH_FACTORS if (predicted.model == WITH_FACTORS).any() else BASE.title
        part = predicted[(predicted.model == model) & (predicted.use == "validation")]
        if part.empty:
            return ()
        means = part.drop(columns=["model", "use", "fold"]).groupby("row").mean()
        patients, first = np.unique(np.array(self.cohort.patients)[means.index], return_index=True)
        rows, chances = means.index.to_numpy()[first], means.to_numpy()[first]
        years, event = (part[rows] for part in self.events)
        how = f"{SIMULATED} The predicted category is that of “{model}”."
        facts = (self.truth[rows], self.cohort.factors[rows], how)
        events = Events(tuple(patients), years, event, likely_category(chances), chances.sum(1), *facts)
        sections = events_sections(events, self.settings.budget.seed)
        return [replace(section, title=f"{section.title} (simulated)") for section in sections]

    def comparators(self) -> Mapping[str, Fit]:
        return {"age, sex, BMI": self._by_factors} if np.isfinite(self.cohort.factors).all() else {}

    def _by_factors(self, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Fit a logistic regression of each threshold on standardised factors, with a standard normal prior."""
        scaled = StandardScaler().fit(self.cohort.factors[rows]).transform(self.cohort.factors)
        is_above = above(self.truth[rows], THRESHOLDS).T
        weights = np.transpose([fitting.fit_logistic(scaled[rows], target, [0.0] * 3, 1.0) for target in is_above])
        return lambda held_out: expit(weights[0] + scaled[held_out] @ weights[1:])


def _concordance(weights: np.ndarray, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Harrell's C, a `Statistic`. truth: times of events, and negative ones of losses to follow-up."""
    return concordance(weights, np.abs(truth), truth > 0, value)


@cache
def _digest(file: Path) -> str:
    return file_sha256(file)[:16]


def _lacking(
    configuration: RadiographConfiguration, scans: Sequence[TableScan], settings: RadiographStudySettings
) -> str:
    """Return what the data lack for a configuration, or an empty text."""
    if configuration.pretrained and configuration.backbone not in settings.pretrained:
        return "weights (pretrained)"
    if any(configuration.label not in scan.scores for scan in scans):
        return configuration.label
    if configuration.located != configuration.counterfactual and not are_digital(settings.data):
        return "known calcium"  # without it, neither differs from the base
    if configuration.super_resolution != "none":
        try:
            read_case(scans[0].files["PA"], configuration.super_resolution)
        except CTError:
            return "super-resolution"
    return ""


def _with_radiographs(
    settings: RadiographStudySettings, progress: Progress
) -> tuple[RadiographStudySettings, dict[str, str]]:
    """Project CTs into the output folder; return settings with radiographs alone, and failures by name."""
    failed: dict[str, str] = {}

    def radiographs(source: Path, name: str) -> Path:
        if not projected(source):
            return source
        options = (settings.output / name, settings.workers, progress, settings.gated, settings.projection)
        table, reasons = write_scan_radiographs(source, *options)
        failed.update(reasons)
        return table.parent

    data, test = radiographs(settings.data, "radiographs"), settings.test
    return replace(settings, data=data, test=test and radiographs(test, "radiographs-test")), failed


def _radiographs(settings: ExperimentSettings) -> tuple[tuple[TableScan, ...], list[str]]:
    """Read the radiographs of a study, and the names of those of the test, if any. Raises TableError."""
    data, test = (
        read_radiographs(table, LABELS[0], settings.gated) if table else () for table in (settings.data, settings.test)
    )
    return join(data, test)


_loaded: dict[tuple[Any, ...], RadiographSet] = {}
"""Radiographs of the last run of this process, which the next run mostly shares."""


def _loaded_radiographs(configuration: RadiographConfiguration, settings: ExperimentSettings) -> RadiographSet:
    """Load the radiographs of a study as a configuration needs them. Raises CTError."""
    pictures = (configuration.views, configuration.enhancement, configuration.super_resolution)
    one_exposure = not configuration.counterfactual
    key = (settings.data, settings.test, one_exposure, *pictures)
    if key not in _loaded:
        _loaded.clear()  # frees its memory first
        _loaded[key] = load_radiographs(_radiographs(settings)[0], *pictures, one_exposure=one_exposure)
    return _loaded[key]
