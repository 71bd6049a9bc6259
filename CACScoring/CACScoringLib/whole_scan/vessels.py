"""A whole-scan estimate by regression: the arteries' scores from the scan at once, without looking for lesions.

The networks are those of Kecoglu, and one of ours (`vessels`). What they say is an estimate of a whole heart: no
lesion stands behind it that a reader could check, so it never replaces a score.

What they see is defined here for training and use. Two fields: "scan" is that of Kecoglu: the slices about the middle
of the volume, cut off or filled up with air to their number, each as a whole, and the volume normalised in itself.
"heart" is a box about the heart, in HU of a fixed window, without what is not near the heart. Pixels are means over
their extent (`core.grid.ScanGrid`), so that calcium does not vanish between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..anatomy.heart_region import HeartRegion
from ..core.ct import AIR_HU, CTScan, ScanWarning
from ..core.grid import ScanGrid
from ..core.labels import MAIN_ARTERIES
from ..models.cards import LoadedModel, ModelError
from ..models.choice import VESSELS
from ..models.inference import predict
from ..models.preprocessing import heart_moments
from .estimates import WholeScanEstimate
from .trust import facts_of

if TYPE_CHECKING:
    from ..networks.vessels import VesselNet, VesselNetConfig


def vessel_input(image: sitk.Image, heart: sitk.Image, config: VesselNetConfig) -> np.ndarray:
    """A scan as the networks see it: float32 [slices, size, size], superior, posterior, left.

    Args:
        image: HU, of any axis order.
        heart: Mask (0 outside) on its grid; the field "scan" does not look at it.
        config: The network's configuration.

    Raises:
        MaskError: If the mask is empty or on another grid.
    """
    image = sitk.DICOMOrient(image, "LPS")
    if config.field == "scan":
        return _scan_field(image, config)
    heart = sitk.DICOMOrient(heart, "LPS")
    grid = vessel_grid(image, heart, config)
    hu = grid.resample(image, AIR_HU)
    spacing = (config.slice_mm, *[config.field_mm / config.size] * 2)
    scanned = _scanned(image, grid)[:, None, None]
    inside = (grid.resample(heart != 0, 0.0) >= 0.5) & scanned
    if not inside.any():  # a mask of a few voxels
        return np.zeros(inside.shape, np.float32)
    near = ndimage.distance_transform_edt(~inside, spacing) <= config.around_mm
    scaled = np.clip((hu - config.low_hu) / (config.high_hu - config.low_hu), 0, 1)
    return np.where(near & scanned, scaled, 0).astype(np.float32)


def vessel_grid(image: sitk.Image, heart: sitk.Image, config: VesselNetConfig) -> ScanGrid:
    """Grid of the input, in the voxel coordinates of an image in LPS order. Raises MaskError.

    The box of the field "heart" begins where a slice of the scan does, so that slices of its thickness stay whole.
    """
    if config.field == "scan":
        columns, rows, planes = image.GetSize()
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, float((planes - config.slices) // 2))
        return ScanGrid(first, step, (config.size, config.size, config.slices))
    centre, _, planes = heart_moments(heart, image)
    spacing = image.GetSpacing()
    step = (config.field_mm / config.size / spacing[0], config.field_mm / config.size / spacing[1])
    first = [c - (config.size - 1) / 2 * s for c, s in zip(centre, step, strict=False)]
    thickness = config.slice_mm / spacing[2]
    begin = round((planes.start + planes.stop - config.slices * thickness) / 2)
    return ScanGrid(
        (*first, begin - 0.5 + thickness / 2), (*step, thickness), (config.size, config.size, config.slices)
    )


def normalised(agatston: np.ndarray, largest: float, output: str) -> np.ndarray:
    """Scores as the networks give them: "linear", in shares of the largest; "log", likewise of its log1p."""
    agatston = np.asarray(agatston, float)
    return agatston / largest if output == "linear" else np.log1p(agatston) / np.log1p(largest)


def to_agatston(normalised: np.ndarray, largest: float, output: str) -> np.ndarray:
    """The inverse of `normalised`; what is below 0 is 0."""
    values = np.maximum(0, np.asarray(normalised, float))
    if output == "linear":
        return values * largest
    # Beyond what was learned from, the exponential would run away; ten times the largest is the end.
    return np.minimum(np.expm1(np.minimum(values, 10) * np.log1p(largest)), 10 * largest)


def _scanned(image: sitk.Image, grid: ScanGrid) -> np.ndarray:
    """True if the middle of each slice of a grid lies in the scan; beyond its end slices are repeated."""
    middles = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    return (middles >= -0.5) & (middles <= image.GetSize()[2] - 0.5)


def _scan_field(image: sitk.Image, config: VesselNetConfig) -> np.ndarray:
    columns, rows, planes = image.GetSize()
    start = (planes - config.slices) // 2
    part = image[:, :, max(0, start) : max(0, start) + min(planes, config.slices)]
    if (columns, rows) == (config.size, config.size):  # means over pixels would blur those they are
        hu = sitk.GetArrayFromImage(part).astype(np.float32)
    else:
        step = (columns / config.size, rows / config.size, 1.0)
        first = ((step[0] - 1) / 2, (step[1] - 1) / 2, 0.0)
        hu = ScanGrid(first, step, (config.size, config.size, part.GetSize()[2])).resample(part, AIR_HU)
    mean, sd = float(hu.mean(dtype=np.float64)), float(hu.std(dtype=np.float64))
    hu = (hu - mean) / max(sd, 1e-6)
    below = max(0, -start)
    above = config.slices - len(hu) - below
    air = (AIR_HU - mean) / max(sd, 1e-6)
    return np.pad(hu, ((below, above), (0, 0), (0, 0)), constant_values=np.float32(air)).astype(np.float32)


SCALE = "agatston_scale"
"""Key of a card's calibration: the Agatston score that 1 stands for."""

CUT_SHARE = 0.02
"""Share of the heart outside what the network sees from which on a warning is given."""

SAMPLES = 12
NOISE = 0.02
"""Of the noise of SmoothGrad's samples, relative to the input's range."""


def vessel_estimate(
    scan: CTScan, region: HeartRegion, model: LoadedModel, saliency: bool = False
) -> tuple[WholeScanEstimate, tuple[ScanWarning, ...]]:
    """Estimate the arteries' scores.

    Args:
        scan: The CT.
        region: The scan's heart.
        model: The loaded model.
        saliency: Also make the map, which takes SAMPLES times as long for networks other than "voxel-sum".

    Returns:
        The estimate, and warnings about it.

    Raises:
        ModelError: For another kind of model.
        MaskError: The mask does not fit the scan.
        DeviceError: The device is not there or has too little memory.
    """
    if model.card.network != VESSELS or not isinstance(model.card.calibration.get(SCALE), int | float):
        raise ModelError(f"{model.card.name} is not a vessel regression model, or lacks its scale. Train it again.")
    config = model.network.config
    x = vessel_input(scan.image, region.mask, config)
    outputs, warnings = predict(model.network, x[None], 1)
    largest = float(model.card.calibration[SCALE])
    scores = to_agatston(outputs[0], largest, config.output)
    grid = vessel_grid(scan.image, region.mask, config)
    warnings = [*warnings, *_cut(region.mask, grid)]
    if scores.max() > largest:
        message = f"{scores.max():.0f} for one artery is more than any in training ({largest:.0f}): an extrapolation."
        warnings.append(ScanWarning("vessels-beyond-training", message))
    estimate = WholeScanEstimate(
        **facts_of(model),
        agatston={artery: float(score) for artery, score in zip(MAIN_ARTERIES, scores, strict=True)},
        total=float(scores.sum()),
        slice_weights=_slice_weights(model.network, x),
        saliency=_pictured(model.network, x, grid, scan) if saliency else None,
    )
    return estimate, tuple(warnings)


def saliency(network: VesselNet, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Attribution of the sum of a network's outputs: float32 [slices, size, size], not below 0, of any scale.

    Of "voxel-sum" it is the Agatston score that it sees in each voxel. Of the others it is SmoothGrad (Smilkov et al.
    2017, arXiv:1706.03825), the root of the sum of squared gradients over SAMPLES noisy copies: where a change would
    change the answer, not where calcium is.

    Args:
        network: In eval mode.
        x: Its input, likewise.
        seed: Seed of the noise.
    """
    import torch

    device = next(network.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device)
    with torch.no_grad():
        maps = network.maps(batch)
    if maps is not None:
        return maps[0].sum(0).cpu().numpy()
    from monai.visualize import SmoothGrad

    from ..networks.vessels import Total

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        gradient = SmoothGrad(Total(network).eval(), NOISE, SAMPLES, verbose=False)(batch, 0)
    network.zero_grad(set_to_none=True)
    return gradient[0].float().cpu().numpy()


def _pictured(network: VesselNet, x: np.ndarray, grid: ScanGrid, scan: CTScan) -> sitk.Image:
    """The saliency on the scan's grid, 0 to 1."""
    shown = grid.paste(saliency(network, x), scan.image.GetSize())
    if (highest := shown.max()) > 0:
        shown /= highest
    image = sitk.GetImageFromArray(shown)
    image.CopyInformation(scan.image)
    return image


def _slice_weights(network: VesselNet, x: np.ndarray) -> tuple[float, ...] | None:
    import torch

    with torch.inference_mode():
        weights = network.slice_weights(torch.from_numpy(x)[None].to(next(network.parameters()).device))
    return None if weights is None else tuple(weights[0].tolist())


def _cut(heart: sitk.Image, grid: ScanGrid) -> tuple[ScanWarning, ...]:
    """A warning where much of the heart lies outside what the network sees."""
    mask = sitk.GetArrayViewFromImage(heart) != 0
    inside = mask
    for axis, (first, step, size) in enumerate(zip(grid.first[::-1], grid.step[::-1], grid.size[::-1], strict=True)):
        places = np.arange(mask.shape[axis])
        seen = (places >= first - step / 2) & (places < first + (size - 0.5) * step)
        inside = inside & seen.reshape([-1 if n == axis else 1 for n in range(3)])
    outside = 1 - float(inside.sum()) / max(1, int(mask.sum()))
    if outside <= CUT_SHARE:
        return ()
    message = f"{outside:.0%} of the heart lies outside what the vessel regression sees; calcium there is not included."
    return (ScanWarning("vessels-heart-cut", message),)
