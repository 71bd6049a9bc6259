"""Thin slices made of thick ones, before a CT is projected: by interpolation, or by what a network learned.

The baseline is a cubic B-spline along the table. The network (`van_velzen.SliceSuperResolution`) adds to it what it
learned from digital hearts that were scanned in thick and in thin slices (`thin_slices`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from CACScoringLib.models.cards import LoadedModel, ModelError, find_model, load_model
from CACScoringLib.models.inference import predict
from CACScoringLib.networks.van_velzen import SliceSuperResolutionConfig

from .thin_slices import SlicePair

NETWORK = "super_resolution"
HU_SCALE = 100.0
"""The network's unit."""

CALCIUM_HU = 50.0
"""From here on a voxel counts as calcified when slices are compared."""

VISIBLE_HU = 130.0


def interpolated(hu: np.ndarray, factor: int, order: int = 3) -> np.ndarray:
    """Thin slices by a spline along the table, float32 [factor k, j, i].

    hu: [k, j, i], at least two slices. order: 3 is the cubic B-spline, beyond the first and last slice the volume is
    mirrored; 1 is linear, and these are repeated. The thin slices share each thick one evenly.
    """
    shape, first = (factor * len(hu), *hu.shape[1:]), (1 - factor) / (2 * factor)
    mode = "mirror" if order > 1 else "nearest"
    return ndimage.affine_transform(hu, (1 / factor, 1, 1), (first, 0, 0), shape, np.float32, order, mode)


def learned(hu: np.ndarray, model: LoadedModel, batch_size: int = 8) -> np.ndarray:
    """Thin slices by a network, float32 [factor k, j, i]. hu: [k, j, i], at least two slices."""
    config = SliceSuperResolutionConfig(**model.card.config)
    added = predict(model.network, network_input(hu, config), batch_size)[0]
    added = HU_SCALE * added.reshape(-1, *hu.shape[1:])
    added += interpolated(hu, config.factor)
    return added


def network_input(hu: np.ndarray, config: SliceSuperResolutionConfig) -> np.ndarray:
    """Every slice amid its neighbours, float32 [k, 2 neighbours + 1, j, i]; the end slices are repeated."""
    own = np.arange(len(hu))[:, None] + np.arange(-config.neighbours, config.neighbours + 1)
    scaled = hu.astype(np.float32) / np.float32(HU_SCALE)
    return scaled[own.clip(0, len(hu) - 1)]


@lru_cache(maxsize=1)
def super_resolution_model(factor: int, name: str | None = None) -> LoadedModel:
    """The model that comes with CAC, or the one of this name. Raises ModelError where it makes other slices."""
    stored = find_model(NETWORK, name)
    if stored.card.config["factor"] != factor:
        made = stored.card.config["factor"]
        raise ModelError(f"The model {stored.card.name} makes {made} slices of one; {factor} are needed.")
    return load_model(stored.path, "cpu")


def quality(thin: np.ndarray, pair: SlicePair) -> dict[str, float]:
    """How near thin slices come to those of the thin scan, HU; without those about calcium where there is none.

    rms_heart: root mean square of the difference in the heart; the thin scan has no noise. rms_calcium, bias_calcium:
    the same, and the mean, in voxels with calcium of CALCIUM_HU. peaks: the highest value of a plaque over that in the
    thin scan, mean of the plaques that reach VISIBLE_HU there.
    """
    factor = len(pair.thin) // len(pair.thick)
    difference = thin - pair.thin
    heart = np.repeat(pair.heart, factor, axis=0)
    found = {"rms_heart": _rms(difference[heart])}
    plaques, count = ndimage.label(pair.calcium >= CALCIUM_HU)
    if count:
        calcified = difference[plaques > 0]
        found |= {"rms_calcium": _rms(calcified), "bias_calcium": calcified.mean()}
        numbers = np.arange(1, count + 1)
        true = ndimage.maximum(pair.thin, plaques, numbers)
        visible = true >= VISIBLE_HU
        if visible.any():
            found["peaks"] = (ndimage.maximum(thin, plaques, numbers)[visible] / true[visible]).mean()
    return {name: float(value) for name, value in found.items()}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
