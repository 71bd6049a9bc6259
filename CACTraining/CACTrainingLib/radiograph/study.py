"""Radiograph models: training configurations, cross-validated and tested on other patients.

The axes are those of Saeed et al. (2025, arXiv 2511.11093): capacity, weights from scratch or pretrained,
super-resolution with enhancement, and curriculum; and of Hong et al. (2025, 10.1016/j.jcct.2025.03.010): three
thresholds, clinical factors, external patients and prognosis.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.categories import CATEGORY_TITLES, category_numbers
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel, read_network
from CACScoringLib.networks.radiograph import RadiographNet
from CACScoringLib.statistics.agreement import kappa
from CACScoringLib.statistics.roc import above, area_under_curve
from CACScoringLib.statistics.survival import concordance

from ..data.scan_table import LABELS, TESTED, TableScan, join, read_radiographs
from ..evaluation.experiment import (
    HELD_OUT,
    Cohort,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    Fit,
    FittedModel,
    Predict,
)
from ..evaluation.measures import Measure, mean_value, rates
from ..evaluation.parts import Section
from ..training.runs import TrainedModel
from ..training.settings import RunOptions, settings_as_json
from . import fitting
from .cases import ScanRadiographSettings, are_digital, read_case
from .cohort import projected, write_scan_radiographs
from .dataset import RadiographSet
from .prognosis import PROBABILITIES, SIMULATED, Events, events_sections, likely_category, simulate_events
from .settings import (
    BASE,
    CONFIGURATIONS,
    DIGITAL,
    INTENDED_USE,
    PRESETS,
    TEXTS,
    THRESHOLDS,
    USER_TABLE,
    RadiographConfiguration,
    RadiographTrainSettings,
    pictures_of,
)
from .task import RadiographTask

THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")
CATEGORY, EVENTS = "Category", "Simulated events"


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
    """Configurations of training, compared with the base; data is a table of radiographs or its folder.

    Attributes:
        lacking: What the data lack for other configurations, by name.
        training_radiographs: Radiographs of the scans that are not held out, for `train`.
    """

    lacking: Mapping[str, str] = field(default_factory=dict)
    training_radiographs: RadiographSet | None = None

    NAME: ClassVar[str] = "radiograph"
    TEXTS: ClassVar = TEXTS
    SETTINGS: ClassVar = RadiographStudySettings
    PRESETS: ClassVar = PRESETS
    CONFIGURATIONS: ClassVar = CONFIGURATIONS
    COLUMNS: ClassVar = (LABELS[0], *PROBABILITIES)
    ROWS: ClassVar = {
        **{title: (title,) for title in THRESHOLD_TITLES},
        "Mean": THRESHOLD_TITLES,
        CATEGORY: (CATEGORY,),
        EVENTS: (EVENTS,),
    }
    FACTORS: ClassVar = ("age", "sex", "BMI")

    @classmethod
    def read(cls, settings: RadiographStudySettings, progress: Progress) -> RadiographStudy:
        settings, failed = _with_radiographs(settings, progress)
        data, test = (
            read_radiographs(table, LABELS[0], settings.gated) if table else ()
            for table in (settings.data, settings.test)
        )
        scans, test_names = join(data, test)
        outside, factors = dict.fromkeys(test_names, HELD_OUT), np.array([scan.factors for scan in scans])
        cohort = Cohort.split(scans, outside, settings.budget, factors, failed)
        configurations = [
            c for c in cls.CONFIGURATIONS.values() if c == BASE or not settings.names or c.name in settings.names
        ]
        lacking = {c.name: reason for c in configurations if c != BASE and (reason := _lacking(c, scans, settings))}
        return cls(settings, cohort, tuple(c for c in configurations if c.name not in lacking), lacking)

    @classmethod
    def for_training(
        cls, options: RunOptions, settings: RadiographTrainSettings, progress: Progress
    ) -> RadiographStudy:
        table, fit_settings = options.only_table(), settings.fit_settings(options)
        study = cls.SETTINGS(table, options.folder, settings.external, device=options.device)
        label, start = fit_settings.training.label, fit_settings.start
        learned = [scan for scan in read_radiographs(table, label) if scan.use != "test"]
        scans, test_names = join(learned, read_radiographs(settings.external) if settings.external else ())
        finder = cast(RadiographNet, read_network(start)[1]) if start is not None else None
        # The others are loaded once the network finds their hearts.
        radiographs = fit_settings.radiographs(learned, finder, progress)
        folds = np.array([[HELD_OUT if scan.name in test_names else 0] for scan in scans])
        score = np.array([np.nan if scan.total is None else scan.total for scan in scans])
        cohort = Cohort(scans, folds, score, np.array([scan.factors for scan in scans]))
        return cls(study, cohort, (fit_settings,), training_radiographs=radiographs)

    def notes(self) -> Sequence[str]:
        names: dict[str, list[str]] = {}
        for name, reason in self.lacking.items():
            names.setdefault(reason, []).append(name)
        pictures = (
            f"Every network learns from {pictures_of(self.settings.budget)} pictures and chooses among as many "
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
        years, event = simulate_events(category_numbers(self.truth[first]), self.settings.budget.seed)
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

    def fit_settings(self, configuration: RadiographConfiguration) -> fitting.FitSettings:
        return configuration.fit_settings(self.settings.budget, self.settings.device, self._weights(configuration))

    def fit(
        self, settings: fitting.FitSettings, fold: int, folder: Path, progress: Progress | None = None
    ) -> FittedModel:
        data = self._radiographs(settings)
        fit = fitting.fit(data, *self._split(settings, fold), settings, folder, progress)

        def predict(rows: np.ndarray) -> np.ndarray:
            locate = fitting.knows_hearts(settings)
            return np.concatenate(fitting.predictions_of(fit.network, data, rows, fit.calibration, locate), 1)

        return FittedModel(fit, predict, float(fit.outcome.seconds))

    def alike(self, configuration: RadiographConfiguration) -> Hashable:
        return configuration.backbone, len(configuration.views), configuration.details

    def cost(self, runs: Sequence[ExperimentRun]) -> float:
        seconds = super().cost(runs)
        _loaded.clear()  # the workers load their own
        return seconds

    def task(self, settings: fitting.FitSettings, fold: int) -> RadiographTask:
        return fitting.training_task(self._radiographs(settings), *self._split(settings, fold), settings)

    def _radiographs(self, settings: fitting.FitSettings) -> RadiographSet:
        """Return the radiographs as a fit needs them, in the order of the cohort. Raises CTError."""
        if self.training_radiographs is not None:
            return self.training_radiographs
        pictures = (settings.config.views, settings.config.enhancement, settings.super_resolution)
        key = (self.settings.data, self.settings.test, settings.one_exposure, *pictures)
        if key not in _loaded:
            _loaded.clear()  # frees its memory first
            _loaded[key] = settings.radiographs(self.cohort.scans)
        return _loaded[key]

    def _split(self, settings: fitting.FitSettings, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the training cases of a fit, and those that stop and calibrate it."""
        loop, rows = settings.training.loop, self.cohort.training(fold)
        label = settings.training.label if fold == HELD_OUT else LABELS[0]
        seed = loop.seed + 1 + fold  # that of the loop in the last step
        return fitting.validation_split(self._radiographs(settings), loop.validation_share, seed, label, rows)

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
            CATEGORY: {"truth": category_numbers(truth), "value": likely_category(values)},
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
        return {self.factors_title: self.factors_alone} if np.isfinite(self.cohort.factors).all() else {}

    def fit_factors(self, factors: np.ndarray, truth: np.ndarray) -> Predict:
        """Fit a logistic regression of each threshold on standardised factors, with a standard normal prior."""
        scaler = StandardScaler().fit(factors)
        scaled, priors = scaler.transform(factors), [0.0] * factors.shape[1]
        is_above = above(truth, THRESHOLDS).T
        weights = np.transpose([fitting.fit_logistic(scaled, column, priors, 1.0) for column in is_above])
        return lambda cases: expit(weights[0] + scaler.transform(cases) @ weights[1:])

    def trained_model(self, options: RunOptions, settings: fitting.FitSettings, fitted: FittedModel) -> TrainedModel:
        fit, data, training = cast(fitting.RadiographFit, fitted.model), self._radiographs(settings), settings.training
        split = self._split(settings, HELD_OUT)
        uses = "; ".join(
            f"{use}: {len(cases)} radiographs of {self.cohort.n_patients(cases)} patients"
            for use, cases in zip(("training", "validation"), split, strict=True)
        )
        kind = "radiographs of digital patients" if self.is_digital else "radiographs of a user's table"
        facts = settings_as_json(training) | fit.outcome.facts() | {"sharpening": settings.super_resolution}
        if settings.start is not None:
            facts["start"] = read_network(settings.start)[0].sha256

        def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
            measure = partial(fitting.card_metrics, cast(RadiographNet, model.network), fit.calibration, settings)
            group = "validation patients of the training's own split, on whom it was stopped and calibrated"
            metrics = {**fit.metrics, **measure(data, split[1], training.label), "data": group}
            if len(rows := self.cohort.held_out):
                scans = [replace(s, name=s.name.removeprefix(TESTED)) for s in self.cohort.scans_at(rows)]
                external = settings.radiographs(scans, fit.network)
                truth = external.scores.get(LABELS[0])
                label = training.label if truth is None or np.isnan(truth).any() else LABELS[0]
                test = measure(external, np.arange(len(external)), label) | {"table_sha256": external.sha256}
                metrics |= {f"external_{name}": value for name, value in test.items()}
            return metrics, fit.calibration

        use = INTENDED_USE.format(data=DIGITAL if self.is_digital else USER_TABLE)
        about = (f"{kind}; {uses}; table SHA-256 {data.sha256}", training.loop.seed, facts, use)
        return TrainedModel(fit.network, settings.config, settings.config.backbone, *about, evaluate)


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


_loaded: dict[tuple[Any, ...], RadiographSet] = {}
"""Radiographs of the last run of this process, which the next run mostly shares."""
