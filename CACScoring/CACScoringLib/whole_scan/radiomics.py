"""True if a CT shows coronary calcium, from radiomic features of the heart and of what is dense in it.

After Abaid et al., "3D CT-Based Coronary Calcium Assessment", arXiv:2510.25347: no lesion is drawn by an expert. What
reaches 130 HU in the heart region is a candidate, be it calcium of a coronary, a valve or the aorta, or noise; features
of the candidates, of their places and of the whole heart are what a classifier learns from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..anatomy.arteries import SUGGESTED, ArterySuggestion, suggest_arteries
from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan, ScanWarning
from ..core.grid import ScanGrid
from ..models.cards import LoadedModel, ModelError
from ..models.preprocessing import ELLIPSOID_RADII_PER_SD, heart_moments
from ..quality.acquisition import BloodPool, measure_blood
from ..quality.artefacts import METAL_HU, without_metal
from ..scoring.evidence import candidate_region
from ..scoring.lesions import LesionSet, ScoringRules, find_lesions
from ..scoring.scores import component_agatston
from .estimates import WholeScanEstimate
from .radiomic_texture import ibsi_features
from .trust import facts_of

if TYPE_CHECKING:
    from ..networks.radiomics import RadiomicsConfig

HEART, CANDIDATE = "heart_", "candidate_"
"""Beginnings of the features' names."""

CANDIDATE_FAMILIES = ("statistics", "intensity_histogram", "glcm", "glrlm", "glszm")
"""Of textures; those that need a neighbourhood all around are of no use in a few voxels."""

SOLID_MM3 = 8.0
"""Smaller candidates are mostly noise: about five voxels of a chest CT of 3 mm slices."""

BLOOD_SD = 3.0
"""Where blood is enhanced, candidates begin so many standard deviations of noise above its brighter parts."""

PSEUDO_FEATURE, PSEUDO_AGATSTON = "candidate_solid_log_agatston", 0.0
"""A scan's pseudo-label is non-zero where the candidates of at least SOLID_MM3 score above this together."""

FAR_RANGES = 0.5
"""A feature is unlike training where it lies beyond the range seen there by more than this share of the range."""

MOST_CONTRIBUTIONS = 8


def radiomic_features(scan: CTScan, region: HeartRegion, config: RadiomicsConfig | None = None) -> dict[str, float]:
    """Features of a scan by name: "heart_…" of the whole heart, "candidate_…" of what is dense in it; all are finite.

    Args:
        scan: The CT.
        region: The scan's heart.
        config: How they are computed; its own list of features is not looked at. What cannot be computed is 0: all of
            the candidates' where there is none.

    Raises:
        MaskError: For an empty heart.
        CTError: If candidates are too many to be numbered.
        RadiomicsError: Without mirp.
    """
    if config is None:
        from ..networks.radiomics import RadiomicsConfig  # imports torch

        config = RadiomicsConfig()
    blood = measure_blood(scan, region.mask)
    heart = _heart_features(scan, region.mask, blood, config)
    return {**heart, **_candidate_features(scan, region, blood, config)}


def pseudo_label(features: Mapping[str, float]) -> bool:
    """True if thresholding alone says that a scan shows coronary calcium; nobody has looked at it, so it is noisy."""
    return math.expm1(features[PSEUDO_FEATURE]) > PSEUDO_AGATSTON


def radiomics_estimate(
    scan: CTScan, region: HeartRegion, model: LoadedModel
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    """Estimate the probability of any coronary calcium.

    Returns:
        The estimate, and warnings about it.

    Raises:
        MaskError: The mask does not fit the scan.
        RadiomicsError: The package mirp is not installed.
        ModelError: If the model wants features that this version does not compute.
    """
    import torch

    from ..networks.radiomics import RadiomicsConfig

    config = RadiomicsConfig(**model.card.config)
    features = radiomic_features(scan, region, config)
    if missing := [name for name in config.features if name not in features]:
        message = f"{model.card.name} requires {len(missing)} features that are not computed, among them {missing[0]}."
        raise ModelError(f"{message} It was trained with another version; train or install it again.")
    limit = model.card.calibration.get("probability_limit")
    if not isinstance(limit, int | float):
        raise ModelError(f"The card of {model.card.name} states no probability_limit. Train or install it again.")
    network = model.network
    values = [features[name] for name in config.features]
    with torch.inference_mode():
        x = torch.tensor([values], dtype=torch.float32).to(network.weight)
        shares = network.contributions(x)[0].float().cpu().numpy()
        probability = float(torch.sigmoid(network(x).double())[0, 0])
        lowest, highest = (b.float().cpu().numpy() for b in (network.lowest, network.highest))
    order = np.argsort(-np.abs(shares))[:MOST_CONTRIBUTIONS]
    contributions = {config.features[n]: float(shares[n]) for n in order if shares[n] != 0}
    estimate = WholeScanEstimate(
        **facts_of(model), probability=probability, limit=float(limit), contributions=contributions
    )
    return estimate, _unlike_training(config.features, values, lowest, highest, model.card.name)


def find_candidates(
    scan: CTScan, region: HeartRegion, blood: BloodPool | None
) -> tuple[LesionSet, list[ArterySuggestion], ScoringRules]:
    """Find what reaches the threshold in the heart region, without metal.

    Where blood is enhanced, it would itself be a candidate: the threshold is raised above it, and the bounds of weights
    by as much.

    Returns:
        The candidates, where in the heart each lies, and the rules.
    """
    rules = ScoringRules()
    if blood is not None and blood.enhanced:
        raised = max(rules.threshold_hu, blood.bright_hu + BLOOD_SD * blood.noise_hu)
        bounds = tuple(bound + raised - rules.threshold_hu for bound in rules.weight_bounds_hu)
        name = f"Agatston above enhanced blood, {raised:.0f} HU"
        rules = replace(rules, name=name, threshold_hu=raised, weight_bounds_hu=bounds)
    found, _ = without_metal(find_lesions(scan.image, candidate_region(region), rules), scan.image)
    return found, suggest_arteries(found, scan.image, region.mask), rules


def _heart_features(
    scan: CTScan, mask: sitk.Image, blood: BloodPool | None, config: RadiomicsConfig
) -> dict[str, float]:
    _, spread, _ = heart_moments(mask, scan.image)
    spacing = scan.image.GetSpacing()
    grid = grid_around(scan.image, mask, [config.heart_mm] * 3)
    hu = grid.resample(scan.image, float(config.low_hu) - 1)
    inside = grid.resample(mask != 0, 0.0) >= 0.5
    found = ibsi_features(hu, inside, (config.low_hu, config.high_hu), config.bin_width_hu)
    radii = [ELLIPSOID_RADII_PER_SD * sd * mm for sd, mm in zip(spread, spacing, strict=True)]
    own = {
        "volume_ml": float((sitk.GetArrayViewFromImage(mask) != 0).sum()) * math.prod(spacing) / 1000,
        **dict(zip(("radius_left_mm", "radius_posterior_mm", "radius_superior_mm"), radii, strict=True)),
        "blood_hu": 0.0 if blood is None else blood.median_hu,
        "blood_noise_hu": 0.0 if blood is None else blood.noise_hu,
    }
    return {HEART + name: value for name, value in {**own, **found}.items()}


def _candidate_features(
    scan: CTScan, region: HeartRegion, blood: BloodPool | None, config: RadiomicsConfig
) -> dict[str, float]:
    found, suggestions, rules = find_candidates(scan, region, blood)
    own = _lesion_features(scan, region, found, suggestions, rules)
    # Textures within slices need no slice without a candidate.
    planes = np.flatnonzero(found.id_map.any((1, 2)))
    limits = (rules.threshold_hu, METAL_HU)
    texture = ibsi_features(
        scan.hu[planes], found.id_map[planes] != 0, limits, config.bin_width_hu, True, CANDIDATE_FAMILIES
    )
    return {CANDIDATE + name: value for name, value in {**own, **texture}.items()}


def _lesion_features(
    scan: CTScan,
    region: HeartRegion,
    found: LesionSet,
    suggestions: Sequence[ArterySuggestion],
    rules: ScoringRules,
) -> dict[str, float]:
    """Scores are natural logarithms of 1 + Agatston score. "solid": of candidates of at least SOLID_MM3. "coronary":
    times the probability that their place is a coronary artery's; by artery, where it is likeliest; "probable": where
    it is likelier one than none. The place is the mean one, weighted by score, in the heart's frame: 0 its centre, 1
    its edge towards superior, posterior and left.
    """
    spacing = scan.image.GetSpacing()
    voxel_mm3 = math.prod(spacing)
    scores = np.array([sum(component_agatston(c, spacing[2], rules) for c in one.components) for one in found.lesions])
    volumes = np.array([lesion.voxels * voxel_mm3 for lesion in found.lesions])
    coronary = np.array([1 - s.not_coronary_probability for s in suggestions])
    peaks = np.array([lesion.peak_hu for lesion in found.lesions])
    solid = volumes >= SOLID_MM3
    probable = solid & (coronary > 0.5)
    own = {
        "count": float(len(scores)),
        "log_agatston": math.log1p(scores.sum()),
        "log_volume_mm3": math.log1p(volumes.sum()),
        "highest_hu": float(peaks.max(initial=0)),
        "largest_log_agatston": math.log1p(scores.max(initial=0)),
        "solid_count": float(solid.sum()),
        "solid_log_agatston": math.log1p(scores[solid].sum()),
        "coronary_log_agatston": math.log1p((scores * coronary)[solid].sum()) if solid.any() else 0.0,
        "coronary_largest_log_agatston": math.log1p((scores * coronary).max(initial=0)) if len(scores) else 0.0,
        "probable_count": float(probable.sum()),
        "probable_log_agatston": math.log1p(scores[probable].sum()),
        "coronary_most_probable": float(coronary[solid].max(initial=0)) if solid.any() else 0.0,
    }
    for artery in SUGGESTED:
        here = np.array([s.artery == artery for s in suggestions], bool) & solid
        own[f"{artery.key.lower()}_log_agatston"] = math.log1p((scores * coronary)[here].sum()) if here.any() else 0.0
    centre, spread, _ = heart_moments(region.mask, scan.image)
    place = np.zeros(3)
    if scores.sum() > 0:
        places = np.array([_kji(scan.image, lesion.centroid_ras_mm) for lesion in found.lesions])
        mean = (places * scores[:, None]).sum(0) / scores.sum()
        place = (mean - centre[::-1]) / (ELLIPSOID_RADII_PER_SD * np.array(spread[::-1]))
    return own | {f"place_{axis}": float(p) for axis, p in zip(("superior", "posterior", "left"), place, strict=True)}


def _kji(image: sitk.Image, ras_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = ras_mm
    return image.TransformPhysicalPointToContinuousIndex((-x, -y, z))[::-1]


def grid_around(image: sitk.Image, mask: sitk.Image, sides_mm: Sequence[float]) -> ScanGrid:
    """A grid that covers a mask, with a voxel's margin.

    Args:
        image: The CT, HU.
        mask: bool [k, j, i], not empty.
        sides_mm: Of its voxels, (i, j, k).
    """
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask != 0)
    box = shape.GetBoundingBox(1)
    first, step, size = [], [], []
    for start, count, mm, side_mm in zip(box[:3], box[3:], image.GetSpacing(), sides_mm, strict=True):
        voxels = math.ceil(count * mm / side_mm) + 2
        step.append(side_mm / mm)
        size.append(voxels)
        first.append(start + (count - 1) / 2 - (voxels - 1) / 2 * step[-1])
    return ScanGrid(tuple(first), tuple(step), tuple(size))


def _unlike_training(
    names: Sequence[str], values: Sequence[float], lowest: np.ndarray, highest: np.ndarray, model: str
) -> tuple[ScanWarning, ...]:
    margin = FAR_RANGES * (highest - lowest) + 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))
    far = [
        f"{name} {value:.4g} (seen: {low:.4g} to {high:.4g})"
        for name, value, low, high, more in zip(names, values, lowest, highest, margin, strict=True)
        if not low - more <= value <= high + more
    ]
    if not far:
        return ()
    shown = ", ".join(far[:3]) + (" …" if len(far) > 3 else "")
    message = f"{len(far)} of {len(names)} features of {model} are unlike training: {shown}. Do not rely on it here."
    return (ScanWarning("unlike-training", message),)
