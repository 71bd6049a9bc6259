"""Metrics of a calcium map against the true one, on slices as scoring sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats
from torch import nn

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.models.preprocessing import LOW_HU, MAP_HU, SLICE_SPACING_MM
from CACScoringLib.networks.configs import GeneratorConfig

from ..data.datasets import SliceDataset
from ..project.training_scan import KINDS

SCORING = DecompositionSettings()
FLOOR_HU = SCORING.floor_hu
MIN_HEALTHY_HU = SCORING.min_healthy_hu
"""Floor of the map and lowest HU of the healthy image, as in scoring."""

REGION_PIXELS = 2
PIXEL_VOLUME_MM3 = float(np.prod(SLICE_SPACING_MM))

EMPTY_SHARE, FULL_SHARE = 0.02, 0.05


@dataclass(frozen=True)
class SliceSample:
    """Slices to evaluate, as indices in a `SliceDataset`, int [n].

    Attributes:
        visible: Slices with visible coronary calcium.
        distractor: Slices with bright non-coronary calcium, from scans without coronary calcium.
        clean: Slices without calcium.
    """

    visible: np.ndarray
    distractor: np.ndarray
    clean: np.ndarray


def sample_slices(data: SliceDataset, max_count: int, seed: int, known_maps: bool = True) -> SliceSample:
    """Draw a fixed sample of at most `max_count` slices of each group.

    known_maps: True to draw visible slices from those with a true map, if there are any.
    """
    generator = np.random.default_rng([seed, 8])
    has_truth = data.has_map if known_maps and data.has_map.any() else np.ones(len(data), bool)
    groups = (
        data.visible & has_truth,
        ~data.visible & ~data.calcium & data.bright & (data.kind != KINDS.index("clean")),
        ~data.visible & ~data.calcium & ~data.bright,
    )
    parts = [np.nonzero(members)[0] for members in groups]
    return SliceSample(*(np.sort(generator.choice(p, min(max_count, len(p)), replace=False)) for p in parts))


def predicted_maps(
    network: Runner | nn.Module, config: GeneratorConfig, data: SliceDataset, slices: np.ndarray, rule: bool = False
) -> np.ndarray:
    """Return calcium maps in HU within the heart, above the floor, float32 [len(slices), 224, 224].

    rule: True to apply the −10 HU rule.
    """
    results = [np.empty((0, *data.scans[0].slices.heart.shape[1:]), np.float32)]
    for start in range(0, len(slices), 32):
        part = slices[start : start + 32]
        x = data.network_input(part, config.neighbours, config.position)
        maps = predict(network, x, 8)[0][:, 0] * np.float32(MAP_HU)
        maps[(maps < FLOOR_HU) | ~data.heart(part)] = 0
        if rule and MIN_HEALTHY_HU is not None:
            maps[x[:, 0] * MAP_HU + LOW_HU - maps < MIN_HEALTHY_HU] = 0
        results.append(maps)
    return np.concatenate(results)


def map_metrics(
    network: Runner | nn.Module, config: GeneratorConfig, data: SliceDataset, sample: SliceSample, rule: bool = False
) -> dict[str, float]:
    """Return metrics of the predicted maps, by name. rule: True to apply the −10 HU rule.

    - `auc`: How well a slice's pseudo-mass discriminates visible calcium.
    - `detection`: Proportion of slices with any pseudo-mass, those with visible calcium less the others.
    - `mass_…`, `slices_above_zero_…`: Pseudo-mass per slice in HU·mm³, and proportion of slices with any, by group.
    - `covered_clean`: Share of the heart covered by the map on clean slices.

    With true maps also, on the slices that have one unless stated:
    - `captured`: Map near true calcium, over the true map.
    - `precision`: Map near true calcium, over the whole map.
    - `precision_visible`: The same in slices with visible calcium, which alone the published method decomposes.
    - `overlap`: Twice the pixelwise minimum of map and true map, over their sum; 1 is perfect.
    - `correlation`, `slope`: Pseudo-mass of visible slices against the true one.
    """
    visible = predicted_maps(network, config, data, sample.visible, rule)
    distractor = predicted_maps(network, config, data, sample.distractor, rule)
    clean = predicted_maps(network, config, data, sample.clean, rule)
    masses = [maps.sum((1, 2), dtype=np.float64) * PIXEL_VOLUME_MM3 for maps in (visible, distractor, clean)]
    metrics = {}
    for name, mass in zip(("visible", "distractor", "clean"), masses, strict=True):
        if len(mass):
            metrics[f"mass_{name}"] = float(mass.mean())
            metrics[f"slices_above_zero_{name}"] = float((mass > 0).mean())
    negative = np.concatenate(masses[1:])
    if len(negative):
        wins = stats.mannwhitneyu(masses[0], negative).statistic
        metrics["auc"] = float(wins / (len(masses[0]) * len(negative)))
        metrics["detection"] = float((masses[0] > 0).mean() - (negative > 0).mean())
    if len(clean):
        metrics["covered_clean"] = float((clean > 0).sum() / max(1, data.heart(sample.clean).sum()))
    has_map = data.has_map[sample.visible]
    if has_map.any():
        mapped = sample.visible[has_map]
        true = np.maximum(data.true_map(mapped)[:, 0] * MAP_HU, 0) * data.heart(mapped)
        elsewhere = negative.sum() / PIXEL_VOLUME_MM3 * has_map.mean()
        metrics |= _against_truth(visible[has_map], true, float(elsewhere))
    return metrics


def near_calcium(true: np.ndarray) -> np.ndarray:
    """Return True within REGION_PIXELS of true calcium above FLOOR_HU, bool [n, j, i].

    true: True maps in HU, float32 [n, j, i].
    """
    return ndimage.binary_dilation(true > FLOOR_HU, ndimage.generate_binary_structure(2, 1)[None], REGION_PIXELS)


def _against_truth(maps: np.ndarray, true: np.ndarray, elsewhere: float) -> dict[str, float]:
    region = near_calcium(true)
    captured_mass = float(maps[region].sum(dtype=np.float64))
    visible_mass, true_mass = float(maps.sum(dtype=np.float64)), float(true.sum(dtype=np.float64))
    total = visible_mass + elsewhere
    overlap = float(np.minimum(maps, true).sum(dtype=np.float64))
    slice_masses, true_slice_masses = maps.sum((1, 2)), true.sum((1, 2))
    has_spread = slice_masses.std() > 0 and true_slice_masses.std() > 0
    return {
        "captured": captured_mass / true_mass,
        "precision": captured_mass / total if total else 0.0,
        "precision_visible": captured_mass / visible_mass if visible_mass else 0.0,
        "overlap": 2 * overlap / (total + true_mass),
        "correlation": float(np.corrcoef(slice_masses, true_slice_masses)[0, 1]) if has_spread else 0.0,
        "slope": float(np.polyfit(true_slice_masses, slice_masses, 1)[0]) if has_spread else 0.0,
        "mass_true": true_mass * PIXEL_VOLUME_MM3 / len(true),
    }


def deciding_metric(data: SliceDataset, sample: SliceSample) -> str:
    """Return the metric that chooses a map learned from slice labels.

    The published results depend on how the map follows the calcium from slice to slice, whatever its scale
    (`correlation`), and on which slices it finds (`detection`, at FLOOR_HU). The former needs the true map of all
    slices with visible calcium. The area (`auc`) would choose a haze of which slices with calcium hold more.
    """
    return "correlation" if data.has_map[sample.visible].all() else "detection"


def collapse(metrics: dict[str, float]) -> list[ScanWarning]:
    """Return warnings of a map that is empty or covers the heart."""
    warnings = []
    remedy = "If this lasts, start from a model, or change the weights of the losses or the learning rate."
    mass, true = metrics["mass_visible"], metrics.get("mass_true", 0.0)
    if mass <= EMPTY_SHARE * true:
        of = f" of {true:,.0f}" if true else ""
        message = f"The calcium map is empty: {mass:,.0f}{of} HU·mm³ per slice with visible calcium. {remedy}"
        warnings.append(ScanWarning("map-empty", message))
    covered = metrics.get("covered_clean", 0.0)
    if covered > FULL_SHARE:
        message = f"The calcium map covers {covered:.0%} of the heart on slices without calcium. {remedy}"
        warnings.append(ScanWarning("map-everywhere", message))
    return warnings
