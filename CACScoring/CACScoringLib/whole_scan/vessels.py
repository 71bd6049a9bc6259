"""Whole-scan estimate by regression: the arteries' scores from a scan without lesions.

The networks are those of Kecoglu, and one of this project (`networks.vessels`). A reader cannot check their estimates
by lesions, so they never replace a score.

Their input is defined here for training and use, with one of two fields. "scan", as in Kecoglu, has complete slices
around the middle of the volume, cropped or padded with air, and is normalised by its mean and standard deviation.
"heart" is a box around the heart in a fixed HU window, with its surroundings masked. Pixels are means over their extent
(`core.grid.ScanGrid`), so that calcium does not vanish between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..anatomy.heart_region import HeartRegion
from ..core.ct import AIR_HU, CTScan, ScanWarning
from ..core.errors import ModelError
from ..core.grid import Grid
from ..core.labels import MAIN_ARTERIES
from ..core.scan_grid import ScanGrid
from ..core.warning_codes import run_check
from ..models.cards import LoadedModel
from ..models.inference import predict
from ..models.preprocessing import heart_moments
from ..networks.configs import TERRITORY_STEP
from .estimates import NONE_BELOW, WholeScanEstimate, estimate_of

if TYPE_CHECKING:
    import torch

    from ..networks.configs import VesselNetConfig
    from ..networks.vessels import VesselNet


def vessel_input(
    scan: CTScan, heart: np.ndarray, config: VesselNetConfig, territories: np.ndarray | None = None
) -> np.ndarray:
    """Return the networks' input of a scan: float32 [planes, size, size], superior, posterior, left.

    Args:
        scan: The CT.
        heart: Mask on its grid, bool [k, j, i], ignored for the field "scan".
        config: The network's configuration.
        territories: Labels of TERRITORIES on its grid, uint8 [k, j, i]; None if they are not known.

    Raises:
        MaskError: The mask is empty or of another shape.
    """
    if config.field == "scan":
        return _scan_field(scan.hu, config)
    grid = vessel_grid(scan, heart, config)
    hu = grid.resample(scan.hu, AIR_HU)
    spacing = (config.slice_mm, *[config.field_mm / config.size] * 2)
    in_scan = _slices_in_scan(len(scan.hu), grid)[:, None, None]
    inside = (grid.resample(heart, 0.0) >= 0.5) & in_scan
    if not inside.any():  # a mask of a few voxels
        return np.zeros((config.planes, *inside.shape[1:]), np.float32)
    near_heart = ndimage.distance_transform_edt(~inside, spacing) <= config.around_mm
    parts = [np.clip((hu - config.low_hu) / (config.high_hu - config.low_hu), 0, 1)]
    if config.territories:
        labels = np.zeros(hu.shape) if territories is None else _nearest(territories, grid)
        parts.append(TERRITORY_STEP * labels)
    return np.concatenate([np.where(near_heart & in_scan, part, 0) for part in parts]).astype(np.float32)


def vessel_grid(scan: CTScan, heart: np.ndarray, config: VesselNetConfig) -> ScanGrid:
    """Return the grid of the input in voxel coordinates of a scan. Raises MaskError.

    The box of the field "heart" begins at a slice of the scan, so that slices of equal thickness are not mixed.
    """
    if config.field == "scan":
        columns, rows, planes = scan.image.GetSize()
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, float((planes - config.slices) // 2))
        return ScanGrid(first, step, (config.size, config.size, config.slices))
    centre, _, planes = heart_moments(heart, scan)
    spacing = scan.image.GetSpacing()
    pixel_mm, half = config.field_mm / config.size, (config.size - 1) / 2
    step = (pixel_mm / spacing[0], pixel_mm / spacing[1], config.slice_mm / spacing[2])
    begin = round((planes.start + planes.stop - config.slices * step[2]) / 2)
    first = (centre[0] - half * step[0], centre[1] - half * step[1], begin - 0.5 + step[2] / 2)
    return ScanGrid(first, step, (config.size, config.size, config.slices))


def normalised_scores(agatston: np.ndarray, largest: float, output: str) -> np.ndarray:
    """Normalise scores as the networks' outputs: "linear" by the largest, "log" by its log1p after log1p."""
    agatston = np.asarray(agatston, float)
    return agatston / largest if output == "linear" else np.log1p(agatston) / np.log1p(largest)


def to_agatston(normalised: np.ndarray, largest: float, output: str) -> np.ndarray:
    """Invert `normalised_scores`; outputs below 0 give 0."""
    values = np.maximum(0, np.asarray(normalised, float))
    if output == "linear":
        return values * largest
    # Limit the exponential outside the training range to ten times the largest score.
    return np.minimum(np.expm1(np.minimum(values, 10) * np.log1p(largest)), 10 * largest)


def _nearest(labels: np.ndarray, grid: ScanGrid) -> np.ndarray:
    """Return the labels [k, j, i] nearest to a grid's voxels."""
    axes = zip(grid.first, grid.step, grid.size, labels.shape[::-1], strict=True)
    places = [np.clip(np.rint(first + step * np.arange(n)), 0, most - 1).astype(int) for first, step, n, most in axes]
    return labels[np.ix_(*places[::-1])]


def _slices_in_scan(count: int, grid: ScanGrid) -> np.ndarray:
    """Return True for slices of a grid with their middle in the scan; beyond its ends slices are repeated."""
    middles = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    return (middles >= -0.5) & (middles <= count - 0.5)


def _scan_field(hu: np.ndarray, config: VesselNetConfig) -> np.ndarray:
    planes, rows, columns = hu.shape
    start = (planes - config.slices) // 2
    part = hu[max(0, start) : max(0, start) + min(planes, config.slices)]
    if (columns, rows) == (config.size, config.size):  # resampling would blur pixels of the same size
        hu = part.astype(np.float32)
    else:
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, 0.0)
        hu = ScanGrid(first, step, (config.size, config.size, len(part))).resample(part, AIR_HU)
    mean, sd = float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))
    hu = (hu - mean) / max(sd, 1e-6)
    below = max(0, -start)
    above = config.slices - len(hu) - below
    air = (AIR_HU - mean) / max(sd, 1e-6)
    return np.pad(hu, ((below, above), (0, 0), (0, 0)), constant_values=np.float32(air)).astype(np.float32)


SCALE = "agatston_scale"
"""Key of a card's calibration: Agatston score of an output of 1."""

FACTOR = "agatston_factor"
"""Key of a card's calibration: factor on all scores, fitted on patients unseen in training; 1 without it."""

CERTAINTY = "least_certainty"
"""Key of a card's calibration: `VesselNet.certainty` below which the total is undetermined; 0 without it."""

SAMPLES = 12
NOISE = 0.02
"""Noise of SmoothGrad's samples, relative to the input's range."""


def vessel_estimate(
    scan: CTScan, region: HeartRegion, model: LoadedModel, saliency: bool = False
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    """Estimate the arteries' scores.

    Args:
        scan: The CT.
        region: The scan's heart.
        model: The loaded model.
        saliency: True to compute the map, which takes SAMPLES times as long for networks other than "voxel-sum".

    Returns:
        The estimate, and warnings about it.

    Raises:
        ModelError: The model is of another kind.
        MaskError: The mask does not fit the scan.
        CTError: The device is missing or has too little memory.
    """
    scores, x, notes = vessel_scores(scan, region, model)
    network, scale = _network_and_scale(model)
    largest, grid = _factor(model) * scale, vessel_grid(scan, region.mask, network.config)
    warnings = [*notes, *_cut_warnings(region.mask, grid)]
    if (highest := scores.max()) > largest:
        message = f"{highest:.0f} for one artery is more than any in training ({largest:.0f}): an extrapolation."
        warnings.append(ScanWarning("vessels-beyond-training", message))
    estimated: dict[str, Any] = {"agatston": _by_artery(scores), "total": float(scores.sum())}
    limit = float(model.card.calibration.get(CERTAINTY, 0.0))
    if scores.sum() >= NONE_BELOW and _answer(network.certainty, network, x) < limit:
        estimated = {"undetermined": True}
    undetermined = _factor(model) * np.array(_answer(network.undetermined, network, x))
    if undetermined.sum() >= NONE_BELOW:
        estimated["undetermined_agatston"] = _by_artery(undetermined)
    image = _saliency_image(network, x, grid, scan) if saliency else None
    weights = _answer(network.slice_weights, network, x)
    estimated["slice_weights"] = None if weights is None else tuple(weights)
    return estimate_of(model.card, image, **estimated), tuple(warnings)


def vessel_scores(
    scan: CTScan, region: HeartRegion, model: LoadedModel
) -> tuple[np.ndarray, np.ndarray, tuple[ScanWarning, ...]]:
    """Return the scores of MAIN_ARTERIES, the network's input, and warnings; errors as of `vessel_estimate`."""
    network, largest = _network_and_scale(model)
    territories = region.territory_labels if network.config.territories else None
    x = vessel_input(scan, region.mask, network.config, territories)
    outputs, notes = predict(network, x[None], 1)
    return _factor(model) * to_agatston(outputs[0], largest, network.config.output), x, notes


def _by_artery(scores: np.ndarray) -> dict[str, float]:
    return {artery.key: float(score) for artery, score in zip(MAIN_ARTERIES, scores, strict=True)}


def _factor(model: LoadedModel) -> float:
    return float(model.card.calibration.get(FACTOR, 1.0))


def _network_and_scale(model: LoadedModel) -> tuple[VesselNet, float]:
    """Return a model's network and the Agatston score of an output of 1. Raises ModelError."""
    from ..networks.vessels import VesselNet

    network, largest = model.network, model.card.calibration.get(SCALE)
    if not isinstance(network, VesselNet) or not isinstance(largest, int | float):
        raise ModelError(f"{model.card.name} is not a vessel regression model, or lacks its scale. Train it again.")
    return network, float(largest)


def saliency(network: VesselNet, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Compute the attribution of the sum of a network's outputs: float32 [slices, size, size], not negative, any scale.

    For "voxel-sum" it is the Agatston score of each voxel. For the others it is SmoothGrad (Smilkov et al. 2017,
    arXiv:1706.03825), the root of the sum of squared gradients over SAMPLES noisy copies, which shows sensitivity to
    changes, not calcium.

    Args:
        network: Network in eval mode.
        x: Input of the same shape.
        seed: Seed of the noise.
    """
    import torch

    device = next(network.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device)
    with torch.no_grad():
        maps = network.maps(batch)
    if maps is not None:
        return maps[0].sum(0).cpu().numpy()
    from monai.visualize.gradient_based import SmoothGrad

    from ..networks.vessels import Total

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        gradient = SmoothGrad(Total(network).eval(), NOISE, SAMPLES, verbose=False)(batch, 0)
    network.zero_grad(set_to_none=True)
    return gradient[0].float().cpu().numpy()


def _saliency_image(network: VesselNet, x: np.ndarray, grid: ScanGrid, scan: CTScan) -> sitk.Image:
    """Return the saliency on the scan's grid, 0 to 1."""
    values = grid.paste(saliency(network, x), scan.image.GetSize())
    if (highest := values.max()) > 0:
        values /= highest
    return Grid.of(scan.image).image(values)


def _answer(question: Callable[[torch.Tensor], Any], network: VesselNet, x: np.ndarray) -> Any:
    """Return what a network's method answers about one input; None if it answers nothing."""
    import torch

    with torch.inference_mode():
        answer = question(torch.from_numpy(x)[None].to(next(network.parameters()).device))
    return None if answer is None else answer[0].tolist()


def _cut_warnings(mask: np.ndarray, grid: ScanGrid) -> tuple[ScanWarning, ...]:
    """Warn if much of the heart lies outside the network's input."""
    inside = mask
    for axis, (first, step, size) in enumerate(zip(grid.first[::-1], grid.step[::-1], grid.size[::-1], strict=True)):
        places = np.arange(mask.shape[axis])
        in_box = (places >= first - step / 2) & (places < first + (size - 0.5) * step)
        inside = inside & in_box.reshape([-1 if n == axis else 1 for n in range(3)])
    outside = 1 - float(inside.sum()) / max(1, int(mask.sum()))
    return tuple(run_check("vessels-heart-cut", outside))
