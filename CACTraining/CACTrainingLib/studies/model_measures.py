"""Measures of models on the same cases.

An evaluator per network selects usable scans, runs all models on a scan, and declares the measures of their results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import ndimage

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import CTError
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU, MAP_HU, middle_square, slice_input

from ..data.datasets import ScanSlices
from ..evaluation.measures import Measure, mean_value, rates, value_over_truth
from ..evaluation.parts import Cell
from ..project.training_scan import TrainingScan
from ..statistics.agreement import Statistic
from ..statistics.regression import rank_correlation
from ..statistics.roc import area_under_curve
from ..training.decomposition_metrics import PIXEL_VOLUME_MM3, REGION_PIXELS


class NotEvaluatedError(CTError):
    """Models cannot be evaluated on a scan. The message says why."""


Rows = list[dict[str, Any]]
"""Rows of a scan in the long table of an evaluator: `method` is the index of the model."""


class SliceEvaluator:
    """Evaluator of slice classifiers, on labelled slices with heart."""

    prepared = "slices"
    better: ClassVar[dict[str, str]] = dict.fromkeys(
        ("Area under the ROC curve", "Sensitivity", "Specificity", "Accuracy"), "higher"
    )
    note = (
        "The slices are those of the outlined heart, or of the proposed one where none is outlined, exactly as scoring "
        "passes them to the models. Sensitivity, specificity and accuracy are at the threshold on each model's card."
    )
    conditions = ()
    columns = ("Slices", "With visible calcium", "True positives", "False positives")

    def unusable(self, scan: TrainingScan) -> str | None:
        return None if scan.truth is not None else "none of its slices is labelled"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> Rows:
        labelled = np.nonzero(slices.labelled)[0]
        if not len(labelled):
            raise NotEvaluatedError("none of its slices is labelled")
        rows = []
        for n, model in enumerate(models):
            config = model.card.config
            x = slice_input(
                slices.slices, labelled, config["neighbours"], config["position"], middle_square(config["size"])
            )
            probabilities = predict(model.network, x, 16)[0][:, 1]
            rows += [
                {"method": n, "item": k, "truth": bool(slices.visible[k]), "value": float(p)}
                for k, p in zip(labelled, probabilities, strict=True)
            ]
        return rows

    def measures(self, table: pd.DataFrame, thresholds: Sequence[float | None]) -> list[Measure]:
        title, *titles = self.better
        limits = table.method.map(dict(enumerate(math.nan if t is None else t for t in thresholds)))
        models = [n for n, threshold in enumerate(thresholds) if threshold is not None]
        return [
            Measure(title, area_under_curve, table),
            *rates(titles, table.assign(value=table.value >= limits), models),
        ]

    def row(self, rows: pd.DataFrame, threshold: float | None) -> tuple[Cell, ...]:
        visible = rows.truth.astype(bool)
        if threshold is None:
            return (len(rows), int(visible.sum()), None, None)
        called = rows.value >= threshold
        return (len(rows), int(visible.sum()), int((called & visible).sum()), int((called & ~visible).sum()))


class MapEvaluator:
    """Evaluator of decompositions: the map of every slice with heart, by the rules on the card, against the truth."""

    prepared = "slices"
    better: ClassVar[dict[str, str]] = {
        "Rank correlation with true mass, slices": "higher",
        "Rank correlation with true mass, scans": "higher",
        "Overlap of map and true map": "higher",
        "Proportion of the map's mass that is at true calcium": "higher",
        "Mass found / true, scans with coronary calcium": "nearer to 1",
        "Mass found per scan without coronary calcium, HU·mm³": "lower",
    }
    note = (
        "Maps of every slice with heart, whatever the classifier predicts for it, within the heart, above the floor "
        "and by the rule for healthy tissue on each model's card. Overlap: twice the pixelwise minimum of map and "
        "true map over the sum of both; 1 is perfect."
    )
    conditions = ("true", "mass", "near", "common")
    """True mass of coronary calcium; of a model's map: its mass, that within REGION_PIXELS of true calcium, and the
    pixelwise minimum of map and true map."""
    columns = ("True mass, HU·mm³", "Mass found, HU·mm³", "Overlap")

    def unusable(self, scan: TrainingScan) -> str | None:
        return None if scan.calcium_map is not None else "its true calcium is not known"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> Rows:
        """Pseudo-masses of each slice in the heart in HU·mm³, of `conditions`."""
        numbers = np.arange(len(slices.slices))
        true = np.maximum(slices.calcium(numbers), 0) * np.float32(MAP_HU) * np.asarray(slices.slices.heart)
        cross = ndimage.generate_binary_structure(2, 1)[None]
        region = ndimage.binary_dilation(true > DecompositionSettings().floor_hu, cross, REGION_PIXELS)
        maps = [calcium_maps(model, slices, numbers) for model in models]

        def mass(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([part.sum((1, 2), dtype=np.float64) * PIXEL_VOLUME_MM3 for part in parts])

        common = mass([np.minimum(image, true) for image in maps])
        masses = zip(
            mass([true] * len(maps)), mass(maps), mass([image * region for image in maps]), common, strict=True
        )
        return [
            {"method": n, "item": k, **dict(zip(self.conditions, values, strict=True))}
            for n, of_model in enumerate(masses)
            for k, values in enumerate(zip(*of_model, strict=True))
        ]

    def measures(self, table: pd.DataFrame, thresholds: Sequence[float | None]) -> list[Measure]:
        def against_truth(rows: pd.DataFrame) -> pd.DataFrame:
            return rows.assign(truth=rows.true, value=rows.mass)

        scans = against_truth(
            table.groupby(["patient", "scan", "method"], as_index=False, sort=False)[list(self.conditions)].sum()
        )
        scans = scans.assign(item=0)
        parts: tuple[tuple[Statistic, pd.DataFrame], ...] = (
            (rank_correlation, against_truth(table)),
            (rank_correlation, scans),
            (value_over_truth, table.assign(truth=table.mass + table.true, value=2 * table.common)),
            (value_over_truth, table.assign(truth=table.mass, value=table.near)),
            (value_over_truth, scans[scans.true > 0]),
            (mean_value, scans[scans.true <= 0]),
        )
        return [Measure(title, *part) for title, part in zip(self.better, parts, strict=True)]

    def row(self, rows: pd.DataFrame, threshold: float | None) -> tuple[Cell, ...]:
        true, measured, common = (float(rows[name].sum()) for name in ("true", "mass", "common"))
        return (true, measured, 2 * common / (true + measured) if true + measured else None)


def calcium_maps(model: LoadedModel, slices: ScanSlices, numbers: np.ndarray) -> np.ndarray:
    """Compute calcium maps in HU as in scoring, on the networks' grid.

    Args:
        model: Decomposition network.
        slices: Prepared scan.
        numbers: Indices of slices.

    Returns:
        float32 [len(numbers), 224, 224]; 0 outside the heart, below the floor, and by the card's healthy-tissue rule.
    """
    rules_on_card = {name: model.card.calibration[name] for name in _RULES if name in model.card.calibration}
    rules = DecompositionSettings(**rules_on_card)
    config = model.card.config
    parts = [np.empty((0, *slices.slices.heart.shape[1:]), np.float32)]
    for start in range(0, len(numbers), 32):
        part = numbers[start : start + 32]
        x = slice_input(slices.slices, part, config["neighbours"], config["position"])
        maps = predict(model.network, x, rules.batch_size)[0][:, 0] * np.float32(MAP_HU)
        maps[(maps < rules.floor_hu) | ~np.asarray(slices.slices.heart[part])] = 0
        if rules.min_healthy_hu is not None:
            maps[x[:, 0] * np.float32(HIGH_HU - LOW_HU) + np.float32(LOW_HU) - maps < rules.min_healthy_hu] = 0
        parts.append(maps)
    return np.concatenate(parts)


_RULES = ("floor_hu", "min_healthy_hu")

Evaluator = SliceEvaluator | MapEvaluator
"""Evaluator of models of one network, which are identified by their index.

- prepared: kind of the cache that `run` reads.
- better: direction of better values, by title of a measure.
- unusable: reason why a scan cannot be used; None if it can.
- conditions: columns of the long table that `run` adds.
- columns: columns of `row`, which holds one scan and model.
"""

EVALUATORS: dict[str, Evaluator] = {
    "slices": SliceEvaluator(),
    "decomposition": MapEvaluator(),
}
"""Evaluator by key of the network."""
