"""Task of radiograph models: training configurations, cross-validated and tested on other patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress

from ..data.scan_table import LABELS, TableScan, join, read_radiographs
from ..evaluation.experiment import (
    Cohort,
    Experiment,
    ExperimentRun,
    ExperimentSettings,
    Fit,
    TrainingBudget,
    values_of,
)
from ..evaluation.measures import Measure, mean_value, rates
from ..evaluation.parts import Cell, Section, Table
from ..statistics.agreement import kappa
from ..statistics.patient_folds import CATEGORY_LIMITS, CATEGORY_TITLES, category_of
from ..statistics.roc import above, area_under_curve
from .cases import SUPER_RESOLUTIONS, are_digital
from .prognosis import PROBABILITIES, likely_category

if TYPE_CHECKING:
    from .dataset import RadiographSet
    from .fitting import FitSettings

THRESHOLDS = tuple(map(int, CATEGORY_LIMITS))
THRESHOLD_TITLES = ("> 0", "≥ 100", "≥ 400")
CATEGORY = "Category"


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
        counterfactual: True to add radiographs of the same patients with other or no calcium.
        located: True to train on the location of calcium, for "light" only.
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

    @property
    def title(self) -> str:
        return self.name

    def fit_settings(self, budget: TrainingBudget, device: str) -> FitSettings:
        """Return the settings of a training. Steps are in proportion to the presets'."""
        from CACScoringLib.networks.radiograph import RadiographNetConfig

        from .fitting import FitSettings
        from .task import SEVERE_FIRST
        from .train import PRESETS

        config = RadiographNetConfig(
            backbone=self.backbone, views=self.views, thresholds=THRESHOLDS, enhancement=self.enhancement
        )
        preset = PRESETS[self.backbone].training
        proportion = 1.0 if budget.steps is None else budget.steps / PRESETS["light"].training.loop.steps
        loop = replace(preset.loop, seed=budget.seed, steps=max(1, round(proportion * preset.loop.steps)))
        training = replace(
            preset,
            loop=loop,
            label=self.label,
            drawn_share=preset.drawn_share if self.counterfactual else 0.0,
            curriculum=SEVERE_FIRST if self.curriculum else (),
            locate_weight=preset.locate_weight if self.located else 0.0,
        )
        return FitSettings(config, training, device)


BASE = RadiographConfiguration()
"""Configuration with which all others are compared."""

BOTH_VIEWS = replace(BASE, name="two-views", views=("PA", "lateral"))

_CONFIGURATIONS = (
    BASE,
    replace(BASE, name="lateral", views=("lateral",)),
    BOTH_VIEWS,
    replace(BASE, name="resnet18", backbone="resnet18", located=False),
    replace(BASE, name="densenet121", backbone="densenet121", located=False),
    replace(BASE, name="not-located", located=False),
    replace(BASE, name="no-pairs", counterfactual=False),
    # As in the papers: pictures and scores only.
    *(
        replace(BASE, name=name, label=label, curriculum=curriculum, counterfactual=False, located=False)
        for label, kind in zip(LABELS, ("plain", "reader-labels", "automatic-labels"), strict=True)
        for name, curriculum in ((kind, False), (f"{kind}-curriculum", True))
    ),
    *(
        replace(BASE, name=f"{slices}-{contrast}", super_resolution=slices, enhancement=contrast)
        for slices in SUPER_RESOLUTIONS
        for contrast in ("none", "clahe", "equalised", "unsharp")
        if (slices, contrast) != ("none", "none")
    ),
)
"""Configurations, the most important first."""


@dataclass(frozen=True)
class RadiographStudy(Experiment):
    """Task of training configurations, compared with the base; data is a table of radiographs or its folder."""

    PAGE_TITLE: ClassVar[str] = "Detection of coronary calcium on chest radiographs"
    EXPLANATION: ClassVar[str] = (
        "Sensitivity and specificity are at a probability equal to the proportion of patients above the threshold. "
        "Brier score: mean squared difference of probability and outcome. Category: the highest threshold whose "
        "probability, and that of all below it, is one half or more; linearly weighted κ with the true category."
    )
    CONFIGURATIONS: ClassVar = {configuration.name: configuration for configuration in _CONFIGURATIONS}
    MIN_FOLDS: ClassVar[int] = 3  # for the test, for stopping and calibration, and for training
    COLUMNS: ClassVar = (LABELS[0], *PROBABILITIES)
    ROWS: ClassVar = {
        **{title: (title,) for title in THRESHOLD_TITLES},
        "Mean": THRESHOLD_TITLES,
        CATEGORY: (CATEGORY,),
    }

    @classmethod
    def read(cls, settings: ExperimentSettings, progress: Progress) -> RadiographStudy:
        scans, test_names = _radiographs(settings)
        cohort = Cohort.split(scans, test_names, settings.budget, np.array([scan.factors for scan in scans]), {})
        configurations = [
            c for c in cls.CONFIGURATIONS.values() if c == BASE or not settings.names or c.name in settings.names
        ]
        if not are_digital(settings.data) and not settings.names:
            # The other configurations need CTs with known calcium.
            configurations = [
                c for c in configurations if c.super_resolution == "none" and c.name not in ("not-located", "no-pairs")
            ]
        return cls(settings, cohort, tuple(configurations))

    @property
    def is_digital(self) -> bool:
        return are_digital(self.settings.data)

    @property
    def truth(self) -> np.ndarray:
        return self.cohort.score

    @property
    def reference(self) -> str:
        return BASE.title

    def train(self, run: ExperimentRun, folder: Path) -> dict[str, Any]:
        import torch

        from .fitting import fit, knows_hearts, predictions_of, validation_split

        torch.set_num_threads(1)
        cohort, budget = self.cohort, self.settings.budget
        settings = run.configuration.fit_settings(budget, self.settings.device)
        data = _loaded_radiographs(run.configuration, self.settings)
        split = validation_split(data, 0.2, budget.seed + 1 + run.fold, LABELS[0], cohort.training(run.fold))
        network, calibration, outcome, _ = fit(data, *split, settings, folder)
        values = {}
        for use, rows in (("validation", cohort.validation(run.fold)), ("test", cohort.held_out)):
            image, fused = predictions_of(network, data, rows, calibration, knows_hearts(settings))
            if not np.isfinite(image).all():
                raise CTError(f"{run.configuration.name} gave no numbers. Choose fewer --steps, or another --seed.")
            values[use] = values_of(np.concatenate([image, fused], 1))
        return {**values, "seconds": float(outcome.seconds)}

    def predictors(self, configuration: RadiographConfiguration, values: np.ndarray) -> dict[str, np.ndarray]:
        image, fused = values[:, : len(THRESHOLDS)], values[:, len(THRESHOLDS) :]
        with_factors = {f"{configuration.title} with age, sex, BMI": fused} if configuration == BASE else {}
        return {configuration.title: image, **with_factors}

    def outcomes(self, truth: np.ndarray, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        is_above, called = above(truth, THRESHOLDS) > 0, values >= above(self.truth, THRESHOLDS).mean(0)
        by_threshold = {
            title: {"truth": is_above[:, n], "value": values[:, n], "called": called[:, n]}
            for n, title in enumerate(THRESHOLD_TITLES)
        }
        return {**by_threshold, CATEGORY: {"truth": category_of(truth), "value": likely_category(values)}}

    def measures(self, table: pd.DataFrame) -> Sequence[Measure]:
        categories = table[table.outcome == CATEGORY]
        detection = table[table.outcome != CATEGORY]
        hits = rates(("Sensitivity", "Specificity"), detection.assign(value=detection.called))
        squared = (detection.value.astype(float) - detection.truth.astype(float)) ** 2
        return [
            Measure("AUC", area_under_curve, detection),
            *hits,
            Measure("Brier score", mean_value, detection.assign(value=squared)),
            Measure("κ", partial(kappa, classes=len(CATEGORY_TITLES)), categories),
        ]

    def more_sections(self) -> Sequence[Section]:
        """Return what an ideal observer could see on digital patients."""
        if not self.is_digital:
            return ()
        from .bound import SHIFTS_MM, bound_of

        data = _loaded_radiographs(BOTH_VIEWS, self.settings)
        bounds = bound_of(data, THRESHOLDS, self.settings.budget.seed)
        rows: list[tuple[Cell, ...]] = [
            (f"{view}, {'known' if shift == 0 else f'within {shift:g} mm'}", *bound[shift].values())
            for view, bound in bounds.items()
            for shift in SHIFTS_MM
        ]
        text = (
            "Area under the ROC curve of an observer who knows the calcium's shape and, up to a shift, its place, in "
            "stationary noise with the mean spectrum of these chests, against the same noise without calcium."
        )
        table = Table("bound", "What could be seen: ideal observer", ("View and place", *THRESHOLD_TITLES), tuple(rows))
        return (Section("bound", "What could be seen", (text,), (table,)),)

    def comparators(self) -> Mapping[str, Fit]:
        return {"age, sex, BMI": self._by_factors} if np.isfinite(self.cohort.factors).all() else {}

    def _by_factors(self, rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Fit a logistic regression of each threshold, or its proportion if all patients are on one side of it."""
        factors, models = self.cohort.factors, []
        for is_above in above(self.truth[rows], THRESHOLDS).T > 0:
            both_sides = is_above.any() and not is_above.all()
            model = (
                make_pipeline(StandardScaler(), LogisticRegression()).fit(factors[rows], is_above)
                if both_sides
                else None
            )
            models.append(model or float(is_above.mean()))

        def predict(held_out: np.ndarray) -> np.ndarray:
            x = factors[held_out]
            return np.stack(
                [np.full(len(x), m) if isinstance(m, float) else m.predict_proba(x)[:, 1] for m in models], 1
            )

        return predict


def _radiographs(settings: ExperimentSettings) -> tuple[tuple[TableScan, ...], list[str]]:
    """Read the radiographs of a study, and the names of those of the test, if any. Raises TableError."""
    data, test = (read_radiographs(table, LABELS[0]) if table else () for table in (settings.data, settings.test))
    return join(data, test)


_loaded: dict[tuple[Any, ...], RadiographSet] = {}
"""Radiographs of the last run of this process, which the next run mostly shares."""


def _loaded_radiographs(configuration: RadiographConfiguration, settings: ExperimentSettings) -> RadiographSet:
    """Load the radiographs of a study as a configuration needs them. Raises CTError."""
    from .dataset import load_radiographs

    pictures = (configuration.views, configuration.enhancement, configuration.super_resolution)
    key = (settings.data, settings.test, *pictures)
    if key not in _loaded:
        _loaded.clear()  # frees its memory first
        _loaded[key] = load_radiographs(_radiographs(settings)[0], *pictures)
    return _loaded[key]
