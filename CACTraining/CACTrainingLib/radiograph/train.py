"""Training of a network that detects coronary calcium on chest radiographs.

Training data are a table of radiographs: of digital patients (`radiograph.cohort`), or a user's with Agatston scores of
a CT. `cac evaluate radiograph` cross-validates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel, read_network
from CACScoringLib.networks.configs import BACKBONES, VIEWS, RadiographNetConfig
from CACScoringLib.networks.radiograph import RadiographNet
from CACScoringLib.radiograph.view import ENHANCEMENTS
from CACScoringLib.statistics.bootstrap import patient_estimate
from CACScoringLib.statistics.roc import above, area_name, area_under_curve

from ..data.scan_table import LABELS, join, read_radiographs
from ..training.runs import training_run
from ..training.settings import LoopSettings, RunOptions, facts_of, read_presets
from .cases import SUPER_RESOLUTIONS, are_digital
from .dataset import RadiographSet, check_label, load_radiographs
from .fitting import FitSettings, fit, knows_hearts, predictions_of, validation_split
from .task import SEVERE_FIRST, RadiographTraining

INTENDED_USE = (
    "Estimates the probability of coronary calcium from chest radiographs, where no CT is available. Trained on {data}."
    " For research; not a medical device."
)
DIGITAL = "radiographs of digital patients; no real radiograph with known calcium"
USER_TABLE = "the radiographs of a user's own table"


@dataclass(frozen=True)
class RadiographTrainSettings:
    """Settings of a radiograph model.

    Attributes:
        training: Settings of the training.
        backbone: Backbone of the network.
        views: Views of the network, "PA", "lateral" or "both".
        size: Side of the square input in pixels.
        enhancement: Enhancement of the radiographs' contrast.
        curriculum: True to train on severe calcium first, then on moderate, then on all.
        super_resolution: Super-resolution of digital patients' slices before projection.
        pretrained: File of weights with torchvision's names, for resnet18 or densenet121.
        external: Table of other patients for a test of the finished model.
    """

    training: RadiographTraining
    backbone: str = option("light", choices=BACKBONES)
    views: str = option("PA", choices=(*VIEWS, "both"))
    size: int = RadiographNetConfig.size
    enhancement: str = option("none", choices=ENHANCEMENTS)
    curriculum: bool = False
    super_resolution: str = option("none", choices=SUPER_RESOLUTIONS)
    pretrained: Path | None = None
    external: Path | None = None

    def fit_settings(self, options: RunOptions) -> FitSettings:
        """Return the settings of the fit."""
        views = VIEWS if self.views == "both" else (self.views,)
        config = RadiographNetConfig(self.backbone, views=views, size=self.size, enhancement=self.enhancement)
        training = replace(self.training, curriculum=SEVERE_FIRST) if self.curriculum else self.training
        return FitSettings(config, training, options.device, self.pretrained, options.start)


_LOOP = LoopSettings(average=0.98, half_precision=False)
PRESETS = read_presets("radiograph", RadiographTrainSettings(RadiographTraining(_LOOP)))


def train(options: RunOptions, settings: RadiographTrainSettings, progress: Progress) -> Path:
    """Train a radiograph model and write it; returns its card's path. Raises CTError, OutputError."""
    table, fitting = options.only_table(), settings.fit_settings(options)
    config, training, external = fitting.config, fitting.training, settings.external
    steps = ["radiographs", "training", "model", *(["external"] if external else [])]
    with training_run(options, "radiograph", training, {}, progress, steps) as run:
        load = partial(
            load_radiographs,
            views=config.views,
            enhancement=config.enhancement,
            super_resolution=settings.super_resolution,
            progress=progress,
        )
        with progress.step("radiographs"):
            finder = cast(RadiographNet, read_network(fitting.start)[1]) if fitting.start is not None else None
            rows = [row for row in read_radiographs(table, training.label) if row.use != "test"]
            external_rows = read_radiographs(external) if external else ()
            join(rows, external_rows)  # refuses patients in both
            data = load(rows, finder=finder)
        with progress.step("training"):
            loop = training.loop
            split = validation_split(data, loop.validation_share, loop.seed, training.label)
            network, calibration, outcome, metrics = fit(data, *split, fitting, options.folder, progress)
        digital = are_digital(table)
        uses = "; ".join(
            f"{use}: {len(cases)} radiographs of {len(np.unique(data.patients[cases]))} patients"
            for use, cases in zip(("training", "validation"), split, strict=True)
        )
        kind = "radiographs of digital patients" if digital else "radiographs of a user's table"
        facts = facts_of(training) | outcome.facts() | {"sharpening": settings.super_resolution}
        if fitting.start is not None:
            facts["start"] = read_network(fitting.start)[0].sha256

        def evaluate(model: LoadedModel) -> tuple[dict[str, Any], dict[str, Any]]:
            measure = partial(_metrics, cast(RadiographNet, model.network), calibration, fitting)
            group = "validation patients of the training's own split, on whom it was stopped and calibrated"
            with progress.step("model"):
                measured = {**metrics, **measure(data, split[1], training.label), "data": group}
            if external_rows:
                with progress.step("external"):
                    external_data = load(external_rows, finder=network)
                    truth = external_data.scores.get(LABELS[0])
                    label = training.label if truth is None or np.isnan(truth).any() else LABELS[0]
                    tested = measure(external_data, np.arange(len(external_data)), label)
                    tested["table_sha256"] = external_data.sha256
                    measured |= {f"external_{name}": value for name, value in tested.items()}
            return measured, calibration

        use = INTENDED_USE.format(data=DIGITAL if digital else USER_TABLE)
        about = (settings.backbone, f"{kind}; {uses}; table SHA-256 {data.sha256}", loop.seed, facts, use)
        return run.write_network(network, config, *about, evaluate)


def _metrics(
    network: RadiographNet,
    calibration: dict[str, dict[str, float] | None],
    fitting: FitSettings,
    data: RadiographSet,
    cases: np.ndarray,
    label: str,
) -> dict[str, object]:
    """Return areas under the ROC curve by `roc.area_name`, of the image and (with_factors_…) with factors, with 95 %
    intervals over resamples of the patients; None without one of the classes."""
    thresholds = fitting.config.thresholds
    truth = above(check_label(data, label)[cases], thresholds)
    image, fused = predictions_of(network, data, cases, calibration, knows_hearts(fitting))
    metrics: dict[str, object] = {"n": len(cases), "label": label}
    for prefix, probabilities in (("", image), ("with_factors_", fused)):
        for threshold, predicted, positive in zip(thresholds, probabilities.T, truth.T, strict=True):
            name, finite = f"{prefix}{area_name(threshold)}", ~np.isnan(predicted)
            predicted, positive = predicted[finite], positive[finite]
            if positive.all() or not positive.any():
                metrics[name] = None
                continue
            statistic = partial(area_under_curve, truth=positive, scores=predicted)
            estimate = patient_estimate(statistic, data.patients[cases][finite], fitting.training.loop.seed)
            interval = (estimate.low, estimate.high)
            metrics[name] = round(estimate.value, 4)
            metrics[f"{name}_95"] = [None if np.isnan(limit) else round(limit, 4) for limit in interval]
            metrics[f"n_{name}"] = [int(positive.sum()), int(len(positive) - positive.sum())]
    return metrics
