"""Measures of models on the same cases.

An evaluator per network selects usable scans, runs all models on a scan, and declares the measures of their results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from CACScoringLib.anatomy.heart_network import HeartNetworkSettings, heart_mask
from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import CTError, NoHeartError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU, MAP_HU, middle_square, slice_input

from ..data.datasets import ScanSlices
from ..data.scan_samples import heart_of
from ..evaluation.measures import Measure, rates
from ..project.training_scan import TrainingScan
from ..statistics.bootstrap import mean, ratio
from ..statistics.masks import mask_agreement
from ..statistics.regression import rank_correlation
from ..statistics.roc import area_under_curve
from ..training.decomposition_metrics import PIXEL_VOLUME_MM3, REGION_PIXELS
from .heart import LEAST_DICE


class NotEvaluatedError(CTError):
    """Models cannot be evaluated on a scan. The message says why."""


@dataclass(frozen=True)
class Case:
    """A scan on which all models were evaluated.

    Attributes:
        name: Name of the scan.
        patient: Patient ID.
        digital: True if its true calcium is known.
        result: Result of the evaluator's `run`.
    """

    name: str
    patient: str
    digital: bool
    result: Any


class HeartEvaluator:
    """Evaluator of heart networks: the outline without scoring's margin against the reference outline."""

    prepared: ClassVar[None] = None
    better: ClassVar[dict[str, str]] = {
        "Dice, mean": "higher",
        f"Scans with a Dice of at least {LEAST_DICE:g}": "higher",
        "Average surface distance, mm, mean": "lower",
        "Hausdorff distance, mm, mean": "lower",
    }
    note = (
        "Where a model finds no heart its Dice is 0; distances are over the scans in which every model finds one. "
        "Outlines are compared without the margin by which scoring widens the heart."
    )
    columns = ("Dice", "Hausdorff distance, mm", "Average surface distance, mm")

    def unusable(self, scan: TrainingScan) -> str | None:
        return None if scan.heart_known else "its heart is not outlined, only proposed"

    def run(self, scan: TrainingScan, models: Sequence[LoadedModel]) -> np.ndarray:
        """Dice, Hausdorff and average surface distance in mm of each model, float [models, 3]."""
        ct = read_ct(scan.ct, scan.series)
        reference, region = heart_of(scan, ct), heart_region(ct).mask
        agreements = []
        for model in models:
            try:
                heart, _ = heart_mask(ct, model, HeartNetworkSettings(margin_mm=0), region)
                agreements.append(mask_agreement(heart, reference))
            except NoHeartError:
                agreements.append((0.0, math.nan, math.nan))
        return np.array(agreements)

    def measures(self, cases: Sequence[Case], thresholds: Sequence[float | None]) -> list[Measure]:
        everywhere = [case for case in cases if np.isfinite(case.result).all()]

        def means(column: int) -> Callable[..., np.ndarray]:
            return lambda weights, cases, model: mean(weights, np.array([case.result[model, column] for case in cases]))

        def good(weights: np.ndarray, cases: Sequence[Case], model: int) -> np.ndarray:
            return mean(weights, np.array([case.result[model, 0] >= LEAST_DICE for case in cases]))

        dice, share, surface, hausdorff = self.better
        return [
            Measure(dice, lambda *_: cases, means(0)),
            Measure(share, lambda *_: cases, good, proportion=True),
            Measure(surface, lambda *_: everywhere, means(2)),
            Measure(hausdorff, lambda *_: everywhere, means(1)),
        ]

    def row(self, case: np.ndarray, model: int, threshold: float | None) -> tuple[float, ...]:
        return tuple(map(float, case[model]))


@dataclass(frozen=True)
class SliceCase:
    """Labelled slices of a scan.

    Attributes:
        visible: True for visible coronary calcium, bool [n].
        probabilities: Probability of each model, float [models, n].
    """

    visible: np.ndarray
    probabilities: np.ndarray


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
    columns = ("Slices", "With visible calcium", "True positives", "False positives")

    def unusable(self, scan: TrainingScan) -> str | None:
        return None if scan.truth is not None else "none of its slices is labelled"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> SliceCase:
        labelled = np.nonzero(slices.labelled)[0]
        if not len(labelled):
            raise NotEvaluatedError("none of its slices is labelled")
        probabilities = []
        for model in models:
            config = model.card.config
            x = slice_input(
                slices.slices, labelled, config["neighbours"], config["position"], middle_square(config["size"])
            )
            probabilities.append(predict(model.network, x, 16)[0][:, 1])
        return SliceCase(slices.visible[labelled].astype(bool), np.array(probabilities, float))

    def measures(self, cases: Sequence[Case], thresholds: Sequence[float | None]) -> list[Measure]:
        slices = [(case, n) for case in cases for n in range(len(case.result.visible))]

        def area(weights: np.ndarray, pairs: Sequence[tuple[Case, int]], model: int) -> np.ndarray:
            probabilities = np.array([case.result.probabilities[model, n] for case, n in pairs], float)
            visible = np.array([case.result.visible[n] for case, n in pairs], bool)
            return area_under_curve(weights, visible, probabilities)

        def positive(item: tuple[Case, int], model: int) -> bool:
            case, n = item
            return case.result.probabilities[model, n] >= thresholds[model]

        title, *titles = self.better
        called = rates(titles, lambda *_: slices, positive, lambda item: bool(item[0].result.visible[item[1]]))
        models = tuple(n for n, threshold in enumerate(thresholds) if threshold is not None)
        return [Measure(title, lambda *_: slices, area), *(replace(rate, methods=models) for rate in called)]

    def row(self, case: SliceCase, model: int, threshold: float | None) -> tuple[int | None, ...]:
        counts = (len(case.visible), int(case.visible.sum()))
        if threshold is None:
            return (*counts, None, None)
        called = case.probabilities[model] >= threshold
        return (*counts, int((called & case.visible).sum()), int((called & ~case.visible).sum()))


@dataclass(frozen=True)
class MapCase:
    """Slices with heart of a scan with known calcium; pseudo-masses in the heart in HU·mm³.

    Attributes:
        true: True mass of coronary calcium, [n].
        mass: Mass of each model's map, [models, n].
        near_mass: Mass of the map within REGION_PIXELS of true calcium, [models, n].
        common_mass: Pixelwise minimum of map and true map, [models, n].
    """

    true: np.ndarray
    mass: np.ndarray
    near_mass: np.ndarray
    common_mass: np.ndarray


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
    columns = ("True mass, HU·mm³", "Mass found, HU·mm³", "Overlap")

    def unusable(self, scan: TrainingScan) -> str | None:
        return None if scan.calcium_map is not None else "its true calcium is not known"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> MapCase:
        numbers = np.arange(len(slices.slices))
        true = np.maximum(slices.calcium(numbers), 0) * np.float32(MAP_HU) * np.asarray(slices.slices.heart)
        cross = ndimage.generate_binary_structure(2, 1)[None]
        region = ndimage.binary_dilation(true > DecompositionSettings().floor_hu, cross, REGION_PIXELS)
        maps = [calcium_maps(model, slices, numbers) for model in models]

        def mass(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([part.sum((1, 2), dtype=np.float64) * PIXEL_VOLUME_MM3 for part in parts])

        near_masses = mass([image * region for image in maps])
        return MapCase(mass([true])[0], mass(maps), near_masses, mass([np.minimum(image, true) for image in maps]))

    def measures(self, cases: Sequence[Case], thresholds: Sequence[float | None]) -> list[Measure]:
        slices = [(case, n) for case in cases for n in range(len(case.result.true))]
        sick = [case for case in cases if case.result.true.sum() > 0]
        healthy = [case for case in cases if not case.result.true.sum() > 0]

        def of_slices(statistic: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
            """Apply a statistic of weights, true mass, mass, near mass and common mass to slices."""

            def values(weights: np.ndarray, items: Sequence[tuple[Case, int]], model: int) -> np.ndarray:
                results = [(c.result, n) for c, n in items]
                rows = [(r.true[n], *(a[model, n] for a in (r.mass, r.near_mass, r.common_mass))) for r, n in results]
                return statistic(weights, *np.array(rows).reshape(-1, 4).T)

            return values

        def of_scans(statistic: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
            """Apply a statistic of weights, true mass and mass to scans."""

            def values(weights: np.ndarray, items: Sequence[Case], model: int) -> np.ndarray:
                rows = [(case.result.true.sum(), case.result.mass[model].sum()) for case in items]
                return statistic(weights, *np.array(rows).reshape(-1, 2).T)

            return values

        statistics = (
            (slices, of_slices(lambda w, true, mass, *_: rank_correlation(w, mass, true))),
            (cases, of_scans(lambda w, true, mass: rank_correlation(w, mass, true))),
            (slices, of_slices(lambda w, true, mass, _, common: ratio(w, 2 * common, mass + true))),
            (slices, of_slices(lambda w, _, mass, near_calcium, __: ratio(w, near_calcium, mass))),
            (sick, of_scans(lambda w, true, mass: ratio(w, mass, true))),
            (healthy, of_scans(lambda w, true, mass: mean(w, mass))),
        )
        return [
            Measure(title, lambda *_, items=items: items, statistic)
            for title, (items, statistic) in zip(self.better, statistics, strict=True)
        ]

    def row(self, case: MapCase, model: int, threshold: float | None) -> tuple[float | None, ...]:
        true, measured = float(case.true.sum()), float(case.mass[model].sum())
        overlap = 2 * float(case.common_mass[model].sum()) / (true + measured) if true + measured else None
        return (true, measured, overlap)


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

Evaluator = HeartEvaluator | SliceEvaluator | MapEvaluator
"""Evaluator of models of one network, which are identified by their index.

- prepared: kind of the cache that `run` reads; None for the scan itself.
- better: direction of better values, by title of a measure.
- unusable: reason why a scan cannot be used; None if it can.
- columns: columns of `row`, which holds one scan and model.
"""

EVALUATORS: dict[str, Evaluator] = {
    "heart": HeartEvaluator(),
    "slices": SliceEvaluator(),
    "decomposition": MapEvaluator(),
}
"""Evaluator by key of the network."""
