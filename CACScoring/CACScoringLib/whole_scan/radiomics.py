"""Detection of coronary calcium in a CT by radiomic features of the heart and of dense candidates in it.

After Abaid et al., "3D CT-Based Coronary Calcium Assessment", arXiv:2510.25347, without lesions drawn by experts.
Voxels of 130 HU in the heart region are candidates: calcium of a coronary artery, a valve or the aorta, or noise. A
classifier learns from features of the candidates, of their positions and of the heart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan, ScanWarning
from ..core.errors import ModelError
from ..core.grid import bounding_box, triple
from ..core.labels import MAIN_ARTERIES
from ..core.scan_grid import ScanGrid
from ..facts.dense import DenseVoxels
from ..models.cards import LoadedModel
from ..models.preprocessing import ELLIPSOID_RADII_PER_SD, heart_moments
from ..networks.configs import RadiomicsConfig
from ..quality.examination import measure_blood
from ..record.findings import BloodPool
from ..record.rules import ScoringRules
from ..record.scores import LesionSet, Verdict
from ..scoring.doubt import METAL_HU
from ..scoring.lesions import find_lesions
from ..scoring.sites import candidate_region, verdicts_by_place
from .estimates import WholeScanEstimate, estimate_of
from .radiomic_texture import ibsi_features

HEART, CANDIDATE = "heart_", "candidate_"
"""Prefixes of the features' names."""

CANDIDATE_FAMILIES = ("statistics", "intensity_histogram", "glcm", "glrlm", "glszm")
"""Families of candidates' features; those that need full neighbourhoods are useless in a few voxels."""

SOLID_MM3 = 8.0
"""Volume in mm³ below which candidates are mostly noise: about five voxels of a chest CT of 3 mm slices."""

BLOOD_SD = 3.0
"""Threshold above enhanced blood's brighter parts, in standard deviations of noise."""

THRESHOLD_FEATURE, THRESHOLD_AGATSTON = "candidate_solid_log_agatston", 0.0
"""Feature of a scan's class at 130 HU, the score of candidates of at least SOLID_MM3, and its limit."""

FAR_RANGES = 0.5
"""Distance outside the training range, as a share of it, from which a feature is unlike training."""

MAX_CONTRIBUTIONS = 8


def radiomic_features(scan: CTScan, region: HeartRegion, config: RadiomicsConfig | None = None) -> dict[str, float]:
    """Compute features of a scan by name: "heart_…" of the heart, "candidate_…" of dense candidates; all are finite.

    Args:
        scan: The CT.
        region: The scan's heart.
        config: Settings; its list of features is ignored. Undefined features are 0, as those of candidates without any.

    Raises:
        MaskError: The heart is empty.
        CTError: There are too many candidates.
        CTError: The package mirp is not installed.
    """
    if config is None:
        config = RadiomicsConfig()
    blood = measure_blood(scan, region.mask)
    heart = _heart_features(scan, region.mask, blood, config)
    return {**heart, **_candidate_features(scan, region, blood, config)}


def calcium_by_threshold(features: Mapping[str, float]) -> bool:
    """Return True if 130 HU alone detects coronary calcium: a scan's class without a reader, often wrong."""
    return math.expm1(features[THRESHOLD_FEATURE]) > THRESHOLD_AGATSTON


def radiomics_estimate(
    scan: CTScan, region: HeartRegion, model: LoadedModel
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    """Estimate the probability of any coronary calcium.

    Returns:
        The estimate, and warnings about it.

    Raises:
        MaskError: The mask does not fit the scan.
        CTError: The package mirp is not installed.
        ModelError: The model needs features that this version does not compute.
    """
    import torch

    from ..networks.radiomics import RadiomicsNet

    network = model.network
    if not isinstance(network, RadiomicsNet):
        raise ModelError(f"{model.card.name} is not a radiomics model. Train or install it again.")
    config = RadiomicsConfig(**model.card.config)
    features = radiomic_features(scan, region, config)
    if missing := [name for name in config.features if name not in features]:
        message = f"{model.card.name} requires {len(missing)} features that are not computed, among them {missing[0]}."
        raise ModelError(f"{message} It was trained with another version; train or install it again.")
    limit = model.card.calibration.get("probability_limit")
    if not isinstance(limit, int | float):
        raise ModelError(f"The card of {model.card.name} states no probability_limit. Train or install it again.")
    values = [features[name] for name in config.features]
    with torch.inference_mode():
        x = torch.tensor([values], dtype=torch.float32).to(network.weight)
        shares = network.contributions(x)[0].float().cpu().numpy()
        probability = float(torch.sigmoid(network(x).double())[0, 0])
        lowest, highest = (b.float().cpu().numpy() for b in (network.lowest, network.highest))
    order = np.argsort(-np.abs(shares))[:MAX_CONTRIBUTIONS]
    contributions = {config.features[n]: float(shares[n]) for n in order if shares[n] != 0}
    estimate = estimate_of(model.card, probability=probability, limit=float(limit), contributions=contributions)
    return estimate, _unlike_training(config.features, values, lowest, highest, model.card.name)


def find_candidates(
    scan: CTScan, region: HeartRegion, blood: BloodPool | None
) -> tuple[LesionSet, list[Verdict], float]:
    """Find candidates in the heart region, without metal.

    The threshold is raised above enhanced blood, and the bounds of weights by as much.

    Returns:
        The candidates, the verdict of each by its place, and the threshold.
    """
    rules = ScoringRules()
    if blood is not None and blood.enhanced:
        threshold = max(rules.threshold_hu, blood.bright_hu + BLOOD_SD * blood.noise_hu)
        bounds = triple(bound + threshold - rules.threshold_hu for bound in rules.weight_bounds_hu)
        rules = replace(rules, threshold_hu=threshold, weight_bounds_hu=bounds)
    lesions = find_lesions(scan, candidate_region(region), rules)
    lesions = lesions.part(peak_hu < METAL_HU for peak_hu in lesions.columns["peak_hu"])
    return lesions, verdicts_by_place(lesions, DenseVoxels.of(lesions, region.territories)), rules.threshold_hu


def _heart_features(
    scan: CTScan, mask: np.ndarray, blood: BloodPool | None, config: RadiomicsConfig
) -> dict[str, float]:
    _, spread, _ = heart_moments(mask, scan)
    spacing = scan.image.GetSpacing()
    grid = grid_around(scan, mask, [config.heart_mm] * 3)
    hu = grid.resample(scan.hu, float(config.low_hu) - 1)
    inside = grid.resample(mask, 0.0) >= 0.5
    textures = ibsi_features(hu, inside, (config.low_hu, config.high_hu), config.bin_width_hu)
    radii = [ELLIPSOID_RADII_PER_SD * sd * mm for sd, mm in zip(spread, spacing, strict=True)]
    features = {
        "volume_ml": float(mask.sum()) * math.prod(spacing) / 1000,
        **dict(zip(("radius_left_mm", "radius_posterior_mm", "radius_superior_mm"), radii, strict=True)),
        "blood_hu": 0.0 if blood is None else blood.median_hu,
        "blood_noise_hu": 0.0 if blood is None else blood.noise_hu,
    }
    return {HEART + name: value for name, value in {**features, **textures}.items()}


def _candidate_features(
    scan: CTScan, region: HeartRegion, blood: BloodPool | None, config: RadiomicsConfig
) -> dict[str, float]:
    lesions, verdicts, threshold_hu = find_candidates(scan, region, blood)
    features = _lesion_features(scan, region, lesions, verdicts)
    # Textures within slices skip slices without a candidate.
    planes = np.flatnonzero(lesions.id_map.any((1, 2)))
    limits = (threshold_hu, METAL_HU)
    texture = ibsi_features(
        scan.hu[planes], lesions.id_map[planes] != 0, limits, config.bin_width_hu, True, CANDIDATE_FAMILIES
    )
    return {CANDIDATE + name: value for name, value in {**features, **texture}.items()}


def _lesion_features(
    scan: CTScan, region: HeartRegion, lesions: LesionSet, verdicts: Sequence[Verdict]
) -> dict[str, float]:
    """Return counts, scores and positions of candidates.

    Scores are natural logarithms of 1 + Agatston score. "solid" candidates have at least SOLID_MM3. "coronary" scores
    are weighted by the probability of a coronary position; those by artery are of candidates nearest to it; "probable"
    candidates have a probability above one half. The place is the mean position weighted by score in the heart's frame:
    0 at its centre, 1 at its superior, posterior and left edge.
    """
    scores = np.array([lesion.agatston for lesion in lesions.lesions])
    volumes = np.array([lesion.volume_mm3 for lesion in lesions.lesions])
    coronary = np.array([verdict.probability for verdict in verdicts])
    peaks = np.array([lesion.peak_hu for lesion in lesions.lesions])
    solid = volumes >= SOLID_MM3
    probable = solid & (coronary > 0.5)
    features = {
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
    for artery in MAIN_ARTERIES:
        members = np.array([s.artery == artery for s in verdicts], bool) & solid
        features[f"{artery.key.lower()}_log_agatston"] = (
            math.log1p((scores * coronary)[members].sum()) if members.any() else 0.0
        )
    centre, spread, _ = heart_moments(region.mask, scan)
    place = np.zeros(3)
    if scores.sum() > 0:
        places = np.array([_kji(scan.image, lesion.centroid_ras_mm) for lesion in lesions.lesions])
        mean = (places * scores[:, None]).sum(0) / scores.sum()
        place = (mean - centre[::-1]) / (ELLIPSOID_RADII_PER_SD * np.array(spread[::-1]))
    axes = ("superior", "posterior", "left")
    return features | {f"place_{axis}": float(position) for axis, position in zip(axes, place, strict=True)}


def _kji(image: sitk.Image, ras_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = ras_mm
    return image.TransformPhysicalPointToContinuousIndex((-x, -y, z))[::-1]


def grid_around(scan: CTScan, mask: np.ndarray, sides_mm: Sequence[float]) -> ScanGrid:
    """Return a grid that covers a mask, with a margin of one voxel.

    Args:
        scan: The CT.
        mask: bool [k, j, i], not empty.
        sides_mm: Sides of its voxels, (i, j, k).
    """
    first, step, size = [], [], []
    for part, mm, side_mm in zip(bounding_box(mask)[::-1], scan.image.GetSpacing(), sides_mm, strict=True):
        start, count = part.start, part.stop - part.start
        voxels = math.ceil(count * mm / side_mm) + 2
        step.append(side_mm / mm)
        size.append(voxels)
        first.append(start + (count - 1) / 2 - (voxels - 1) / 2 * step[-1])
    return ScanGrid(tuple(first), tuple(step), tuple(size))


def _unlike_training(
    names: Sequence[str], values: Sequence[float], lowest: np.ndarray, highest: np.ndarray, model: str
) -> tuple[ScanWarning, ...]:
    margin = FAR_RANGES * (highest - lowest) + 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))
    unlike = [
        f"{name} {value:.4g} (seen: {low:.4g} to {high:.4g})"
        for name, value, low, high, tolerance in zip(names, values, lowest, highest, margin, strict=True)
        if not low - tolerance <= value <= high + tolerance
    ]
    if not unlike:
        return ()
    count, total = len(unlike), len(names)
    features = ", ".join(unlike[:3]) + (" …" if count > 3 else "")
    message = f"{count} of {total} features of {model} are unlike training: {features}. Do not rely on it here."
    return (ScanWarning("unlike-training", message),)
