"""How good models are on the same cases, with resamples of patients that all of them share.

Each evaluator is for one network: it knows which scans it can use, runs all models on one scan, and turns what
it found into measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from CACScoringLib.anatomy.heart_network import HeartNetworkSettings, heart_mask
from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import CTError, NoHeartError, mask_on_scan_grid
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import LoadedModel
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU, MAP_HU, slice_input

from ..data.datasets import ScanSlices, TrainingScan
from ..statistics.bootstrap import Found, quantile
from ..statistics.masks import mask_agreement
from ..statistics.regression import rank_correlation
from ..statistics.resamples import Resamples
from ..training.decomposition_metrics import PIXEL_VOLUME_MM3, REGION_PIXELS
from .heart import LEAST_DICE


class NotEvaluatedError(CTError):
    """Models cannot be evaluated on a scan. The message says why."""


@dataclass(frozen=True)
class Measure:
    """title: in tables. better: "higher", "lower" or, of a ratio, "nearer to 1". unit: "" for what has none."""

    title: str
    better: str = "higher"
    unit: str = ""


class HeartEvaluator:
    """The heart found, without the margin that scoring adds, against the outline that is known."""

    prepared = None
    items = "scans"
    measures: ClassVar[dict[str, Measure]] = {
        "dice": Measure("Dice, mean"),
        "dice_median": Measure("Dice, median"),
        "good": Measure(f"Scans with a Dice of at least {LEAST_DICE:g}"),
        "surface_mm": Measure("Average surface distance, mm, mean", "lower", "mm"),
        "hausdorff_mm": Measure("Hausdorff distance, mm, mean", "lower", "mm"),
    }
    note = (
        "Where a model finds no heart its Dice is 0; distances are over the scans in which every model finds one. "
        "Outlines are compared without the margin by which scoring widens the heart."
    )

    def why_not(self, scan: TrainingScan) -> str | None:
        """Why a scan cannot be judged by."""
        return None if scan.heart_known else "its heart is not outlined, only proposed"

    def run(self, scan: TrainingScan, models: Sequence[LoadedModel]) -> np.ndarray:
        """Dice, Hausdorff and average surface distance in mm by each model: float [models, 3]. Raises CTError."""
        ct = read_ct(scan.ct, scan.series)
        mask = read_mask(scan.heart)
        if scan.heart_label is not None:
            mask = mask == scan.heart_label
        known, _ = mask_on_scan_grid(mask, ct, "heart mask")
        region = heart_region(ct).mask
        found = []
        for model in models:
            try:
                heart, _ = heart_mask(ct, model, HeartNetworkSettings(margin_mm=0), region)
                found.append(mask_agreement(heart, known))
            except NoHeartError:
                found.append((0.0, math.nan, math.nan))
        return np.array(found)

    def evaluator(
        self, resamples: Resamples, cases: Sequence[np.ndarray], thresholds: Sequence[float | None]
    ) -> list[dict]:
        """By model what is found, by the names of `measures`."""
        values = np.array(cases)  # [scans, models, 3]
        scans = np.arange(len(values))
        everywhere = np.isfinite(values).all((1, 2))
        results = []
        for own in values.transpose(1, 2, 0):
            dice, hausdorff, surface = own
            results.append(
                {
                    "dice": resamples.mean(scans, dice),
                    "dice_median": resamples.over_items(scans, lambda w, dice=dice: quantile(w, dice, 0.5)),
                    "good": resamples.proportion(scans, dice >= LEAST_DICE, np.ones(len(dice), bool)),
                    "surface_mm": resamples.mean(scans, np.where(everywhere, surface, np.nan)),
                    "hausdorff_mm": resamples.mean(scans, np.where(everywhere, hausdorff, np.nan)),
                }
            )
        return results

    def columns(self) -> tuple[str, ...]:
        return ("Dice", "Hausdorff distance, mm", "Average surface distance, mm")

    def row(self, case: np.ndarray, model: int, threshold: float | None) -> tuple[float, ...]:
        return tuple(map(float, case[model]))


@dataclass(frozen=True)
class SliceCase:
    """Slices of a scan whose label is known. visible: bool [n]. probabilities: float [models, n]."""

    visible: np.ndarray
    probabilities: np.ndarray


class SliceEvaluator:
    """The classifier on slices with heart of which it is known whether coronary calcium is visible."""

    prepared = "slices"
    items = "slices"
    measures: ClassVar[dict[str, Measure]] = {
        "auc": Measure("Area under the ROC curve"),
        "sensitivity": Measure("Sensitivity"),
        "specificity": Measure("Specificity"),
        "accuracy": Measure("Accuracy"),
    }
    note = (
        "Sensitivity, specificity and accuracy are at the threshold on each model's card. Where models were calibrated "
        "for different sensitivities these differ for that reason alone; the area under the curve does not."
    )

    def why_not(self, scan: TrainingScan) -> str | None:
        return None if scan.truth is not None else "none of its slices is labelled"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> SliceCase:
        """Raises NotJudgedError."""
        chosen = np.nonzero(slices.labelled)[0]
        if not len(chosen):
            raise NotEvaluatedError("none of its slices is labelled")
        probabilities = []
        for model in models:
            config = model.card.config
            size, context = config["size"], (config["neighbours"], config["position"])
            x = slice_input(slices.slices, chosen, *context, size)
            probabilities.append(predict(model.network, x, 16)[0][:, 1])
        return SliceCase(slices.visible[chosen].astype(bool), np.array(probabilities, float))

    def evaluator(
        self, resamples: Resamples, cases: Sequence[SliceCase], thresholds: Sequence[float | None]
    ) -> list[dict[str, Found]]:
        scans, truth, probabilities = self.pooled(cases)
        results = []
        for p, threshold in zip(probabilities, thresholds, strict=True):
            own = {"auc": resamples.area_under_curve(scans, truth, p)}
            if threshold is not None:
                called = p >= threshold
                own["sensitivity"] = resamples.proportion(scans, called, truth)
                own["specificity"] = resamples.proportion(scans, ~called, ~truth)
                own["accuracy"] = resamples.proportion(scans, called == truth, np.ones(len(truth), bool))
            results.append(own)
        return results

    @staticmethod
    def pooled(cases: Sequence[SliceCase]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all slices the scan, int [n], whether calcium is visible, bool [n], and probabilities [models, n]."""
        scans = np.repeat(np.arange(len(cases)), [len(case.visible) for case in cases])
        truth = np.concatenate([case.visible for case in cases])
        return scans, truth, np.concatenate([case.probabilities for case in cases], axis=1)

    def columns(self) -> tuple[str, ...]:
        return ("Slices", "With visible calcium", "Called positive rightly", "Called positive wrongly")

    def row(self, case: SliceCase, model: int, threshold: float | None) -> tuple[float | int | None, ...]:
        counts = (len(case.visible), int(case.visible.sum()))
        if threshold is None:
            return (*counts, None, None)
        called = case.probabilities[model] >= threshold
        return (*counts, int((called & case.visible).sum()), int((called & ~case.visible).sum()))


@dataclass(frozen=True)
class MapCase:
    """Slices with heart of a scan whose true calcium is known; all float, in the heart.

    true_mass: [n], of what coronary calcium adds, HU·mm³; true_volume: [n], where that reaches the floor, mm³. mass,
    volume: [models, n], of the maps. near: [models, n], mass of the map at true calcium or a pixel or two from it.
    both: [models, n], mass that map and truth have in common, pixel by pixel.
    """

    true_mass: np.ndarray
    true_volume: np.ndarray
    mass: np.ndarray
    volume: np.ndarray
    near: np.ndarray
    both: np.ndarray


class MapEvaluator:
    """The calcium map of every slice with heart, after the rules on its card, against the true one."""

    prepared = "slices"
    items = "slices"
    measures: ClassVar[dict[str, Measure]] = {
        "rank_mass": Measure("Rank correlation with true mass, slices"),
        "rank_volume": Measure("Rank correlation with true volume, slices"),
        "rank_scans": Measure("Rank correlation with true mass, scans"),
        "overlap": Measure("Overlap of map and true map"),
        "captured": Measure("Mass of the map at true calcium / true mass", "nearer to 1"),
        "precision": Measure("Proportion of the map's mass that is at true calcium"),
        "ratio": Measure("Mass found / true, scans with coronary calcium", "nearer to 1"),
        "wrong": Measure("Mass found per scan without coronary calcium, HU·mm³", "lower", "HU·mm³"),
    }
    note = (
        "Maps of every slice with heart, whatever the classifier predicts for it, within the heart, above the floor "
        "and by the rule for healthy tissue on each model's card. Overlap: twice the pixelwise minimum of map and "
        "true map over the sum of both; 1 is perfect."
    )

    def why_not(self, scan: TrainingScan) -> str | None:
        return None if scan.calcium_map is not None else "its true calcium is not known"

    def run(self, slices: ScanSlices, models: Sequence[LoadedModel]) -> MapCase:
        everything = np.arange(len(slices.slices))
        heart = np.asarray(slices.slices.heart)
        true = np.maximum(slices.calcium(everything), 0) * np.float32(MAP_HU) * heart
        floor = DecompositionSettings().floor_hu
        cross = ndimage.generate_binary_structure(2, 1)[None]
        region = ndimage.binary_dilation(true > floor, cross, REGION_PIXELS)
        maps = [calcium_maps(model, slices, everything) for model in models]

        def mass(part: np.ndarray) -> np.ndarray:
            return part.sum((1, 2), dtype=np.float64) * PIXEL_VOLUME_MM3

        return MapCase(
            true_mass=mass(true),
            true_volume=mass(true >= floor),
            mass=np.array([mass(own) for own in maps]),
            volume=np.array([mass(own > 0) for own in maps]),
            near=np.array([mass(own * region) for own in maps]),
            both=np.array([mass(np.minimum(own, true)) for own in maps]),
        )

    def evaluator(
        self, resamples: Resamples, cases: Sequence[MapCase], thresholds: Sequence[float | None]
    ) -> list[dict[str, Found]]:
        scans = np.repeat(np.arange(len(cases)), [len(case.true_mass) for case in cases])
        each = np.arange(len(cases))
        true, true_volume = (np.concatenate([getattr(c, name) for c in cases]) for name in ("true_mass", "true_volume"))
        by_scan = np.array([case.true_mass.sum() for case in cases])
        sick = (by_scan > 0)[scans]
        results = []
        for model in range(len(thresholds)):
            mass, volume, near, both = (
                np.concatenate([getattr(case, name)[model] for case in cases])
                for name in ("mass", "volume", "near", "both")
            )
            found = np.array([case.mass[model].sum() for case in cases])
            results.append(
                {
                    "rank_mass": resamples.over_items(scans, lambda w, x=mass: rank_correlation(w, x, true)),
                    "rank_volume": resamples.over_items(scans, lambda w, x=volume: rank_correlation(w, x, true_volume)),
                    "rank_scans": resamples.over_items(each, lambda w, x=found: rank_correlation(w, x, by_scan)),
                    "overlap": resamples.ratio(scans, 2 * both, mass + true, len(scans)),
                    "captured": resamples.ratio(scans, near, true, int((true > 0).sum())),
                    "precision": resamples.ratio(scans, near, mass, int((mass > 0).sum())),
                    "ratio": resamples.ratio(scans, mass * sick, true * sick, int((by_scan > 0).sum())),
                    "wrong": resamples.mean(each, np.where(by_scan > 0, np.nan, found)),
                }
            )
        return results

    def columns(self) -> tuple[str, ...]:
        return ("True mass, HU·mm³", "Mass found, HU·mm³", "Overlap")

    def row(self, case: MapCase, model: int, threshold: float | None) -> tuple[float | None, ...]:
        true, found = float(case.true_mass.sum()), float(case.mass[model].sum())
        overlap = 2 * float(case.both[model].sum()) / (true + found) if true + found else None
        return (true, found, overlap)


def calcium_maps(model: LoadedModel, slices: ScanSlices, chosen: np.ndarray) -> np.ndarray:
    """Calcium maps in HU as scoring makes them on the networks' grid: float32 [len(chosen), 224, 224], 0 outside the
    heart, below the floor, and where the rule for healthy tissue on the card says so."""
    stored = {name: model.card.calibration[name] for name in _RULES if name in model.card.calibration}
    rules = DecompositionSettings(**stored)
    config = model.card.config
    parts = [np.empty((0, *slices.slices.heart.shape[1:]), np.float32)]
    for start in range(0, len(chosen), 32):
        part = chosen[start : start + 32]
        x = slice_input(slices.slices, part, config["neighbours"], config["position"])
        maps = predict(model.network, x, rules.batch_size)[0][:, 0] * np.float32(MAP_HU)
        maps[(maps < rules.floor_hu) | ~np.asarray(slices.slices.heart[part])] = 0
        if rules.min_healthy_hu is not None:
            maps[x[:, 0] * np.float32(HIGH_HU - LOW_HU) + np.float32(LOW_HU) - maps < rules.min_healthy_hu] = 0
        parts.append(maps)
    return np.concatenate(parts)


_RULES = ("floor_hu", "min_healthy_hu")

Evaluator = HeartEvaluator | SliceEvaluator | MapEvaluator
EVALUATORS = {"heart": HeartEvaluator, "slices": SliceEvaluator, "decomposition": MapEvaluator}
"""By the key of the network."""
