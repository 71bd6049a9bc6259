"""A scan decomposed into a calcium map and a healthy image, without a threshold on the scan.

After van Velzen et al., section 3: the generator's map is subtracted from the slice, and voxels of the map that would
leave less than −10 HU in the healthy image are noise and set to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTScan, ScanWarning
from ..models.inference import predict
from ..models.preprocessing import HIGH_HU, LOW_HU, MAP_HU, HeartSlices, from_grid, slice_input

if TYPE_CHECKING:
    from ..models.cards import LoadedModel

SATURATED_MAP_HU = 100.0
"""Map above which a voxel is calcium beyond doubt, so that what the window cut off it is missing in the map."""


@dataclass(frozen=True)
class DecompositionSettings:
    """slice_threshold: probability from which a slice is decomposed.

    min_healthy_hu: the map is 0 where the healthy image would be lower (published: −10; None: rule off, which keeps
    calcium that lies in fat, and more noise). Applied on the network's grid, where the healthy image is made.
    floor_hu: the map is 0 where it is lower on the scan's grid. A sigmoid never reaches 0, so its rest would add up
    over the heart and join all lesions to one; not in the paper.
    within_heart: the map is 0 outside the heart mask.
    evidence_weights: what tells how probably a lesion of the map is coronary calcium (`evidence`); None for its place
    alone. most_not_coronary: lesions that with a higher probability are none are left out. The settings in CALIBRATED
    are chosen on scans with known calcium and stored with the model (`cac calibrate`).
    """

    slice_threshold: float = 0.5
    min_healthy_hu: float | None = -10.0
    floor_hu: float = 10.0
    within_heart: bool = True
    evidence_weights: dict[str, float] | None = None
    most_not_coronary: float = 1.0
    batch_size: int = 8

    @classmethod
    def of(cls, slices: LoadedModel, decomposition: LoadedModel) -> DecompositionSettings:
        """What is stored with two models."""
        stored = {**slices.card.calibration, **decomposition.card.calibration}
        return cls(**{name: stored[name] for name in CALIBRATED if name in stored})


CALIBRATED = (
    "slice_threshold",
    "min_healthy_hu",
    "floor_hu",
    "evidence_weights",
    "most_not_coronary",
)
"""Settings that a model card may hold."""


def calibration_warnings(decomposition: LoadedModel, others: Mapping[str, LoadedModel | None]) -> list[ScanWarning]:
    """Whether what of a map counts was chosen for the networks in use (`cac calibrate`), for others, or never.

    others: the networks used beside it, by kind; None for one that is not used.
    """
    card = decomposition.card
    if "evidence_weights" not in card.calibration:
        message = (
            f"The model {card.name} is not calibrated, so every lesion of its calcium map counts, whether it is "
            "coronary calcium or not. Calibrate it on scans with known calcium (cac calibrate)."
        )
        return [ScanWarning("map-not-calibrated", message)]
    known = card.validation.get("whole_method", {}).get("models", {})
    foreign = [own.card.name for kind, own in others.items() if own is not None and known.get(kind) != own.card.sha256]
    if not foreign:
        return []
    message = (
        f"The calcium map of {card.name} was calibrated with models other than {' and '.join(foreign)}, so more "
        "lesions may be counted wrongly or left out. Calibrate them together (cac calibrate)."
    )
    return [ScanWarning("map-calibrated-for-others", message)]


@dataclass(frozen=True)
class Decomposition:
    """calcium_map: float32, HU above healthy tissue, 0 where there is none, on the scan's grid. decomposed: bool [n],
    which slices of the network's grid were decomposed.
    """

    calcium_map: sitk.Image
    decomposed: np.ndarray
    settings: DecompositionSettings
    warnings: tuple[ScanWarning, ...] = ()


def calcium_map(
    scan: CTScan,
    heart_mask: sitk.Image,
    slices: HeartSlices,
    probabilities: np.ndarray | None,
    model: LoadedModel,
    settings: DecompositionSettings = DecompositionSettings(),
) -> Decomposition:
    """Take the heart's slices that show calcium apart.

    Args:
        scan: The CT.
        heart_mask: 0 outside, on the scan's grid.
        slices: From `preprocessing.heart_slices` of the same mask.
        probabilities: [n], of calcium in each of them; None decomposes them all (the paper's ablation).
        model: The loaded model.
        settings: How it is done.
    """
    decomposed = np.ones(len(slices), bool)
    if probabilities is not None:
        decomposed = np.asarray(probabilities) >= settings.slice_threshold
    maps, warnings = raw_maps(slices, decomposed, model, settings.batch_size)
    parts = assembled(scan, heart_mask, slices, maps, decomposed, settings)
    return replace(parts, warnings=(*warnings, *parts.warnings))


def raw_maps(
    slices: HeartSlices, decomposed: np.ndarray, model: LoadedModel, batch_size: int
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Run the generator, before any rule.

    Returns:
        The maps in HU, float32 [n, 224, 224], 0 where a slice is not decomposed, and warnings about memory.
    """
    maps = np.zeros(slices.heart.shape, np.float32)
    if not decomposed.any():
        return maps, ()
    config = model.card.config
    inputs = slice_input(slices, np.nonzero(decomposed)[0], config["neighbours"], config["position"])
    outputs, warnings = predict(model.network, inputs, batch_size)
    maps[decomposed] = outputs[:, 0] * np.float32(MAP_HU)
    return maps, warnings


def assembled(
    scan: CTScan,
    heart_mask: sitk.Image,
    slices: HeartSlices,
    maps: np.ndarray,
    decomposed: np.ndarray,
    settings: DecompositionSettings,
) -> Decomposition:
    """The decomposition that raw maps give by the settings' rules. maps: from `raw_maps`, of these slices or more."""
    chosen = np.nonzero(decomposed)[0]
    on_grid = np.zeros_like(maps)
    on_grid[chosen] = maps[chosen]
    if settings.min_healthy_hu is not None:
        seen = slice_input(slices, chosen)[:, 0] * np.float32(MAP_HU) + np.float32(LOW_HU)
        on_grid[chosen] *= seen - maps[chosen] >= settings.min_healthy_hu
    hu = from_grid(on_grid, slices.grid, scan.image)
    hu[hu < settings.floor_hu] = 0
    if settings.within_heart:
        hu[sitk.GetArrayViewFromImage(heart_mask) == 0] = 0
    return Decomposition(
        calcium_map=_like(scan.image, hu),
        decomposed=decomposed,
        settings=settings,
        warnings=_saturation(scan.hu, hu),
    )


def without(parts: Decomposition, left_out: np.ndarray) -> Decomposition:
    """The decomposition with the map 0 where `left_out` (bool [k, j, i], or of one value a slice) is true."""
    hu = sitk.GetArrayFromImage(parts.calcium_map)
    hu[np.broadcast_to(left_out, hu.shape)] = 0
    return replace(parts, calcium_map=_like(parts.calcium_map, hu))


def healthy_image(scan_image: sitk.Image, calcium_map: sitk.Image) -> sitk.Image:
    """The scan less its calcium map, in the scan's pixel type. Both are on one grid, the scan's or a part of it."""
    healthy = sitk.GetArrayFromImage(scan_image)
    calcium = sitk.GetArrayViewFromImage(calcium_map)
    changed = calcium != 0
    lower = healthy[changed] - calcium[changed]
    healthy[changed] = lower if healthy.dtype.kind == "f" else np.rint(lower)
    return _like(scan_image, healthy)


def _saturation(hu: np.ndarray, calcium: np.ndarray) -> tuple[ScanWarning, ...]:
    count = int((hu[calcium > SATURATED_MAP_HU] > HIGH_HU).sum())
    if not count:
        return ()
    message = (
        f"{count} voxels of calcium exceed {HIGH_HU:g} HU, the highest value that the decomposition represents, so "
        "their excess is missing from the calcium map and its pseudo-mass. Check whether they are metal."
    )
    return (ScanWarning("map-saturated", message),)


def _like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result
