"""Exposure of digital patients' radiographs: scatter, quantum noise, and the view of the signal.

A chest stand with a grid and an automatic exposure, which gives a lateral view four times the photons: about 2.5 µGy at
the detector behind the lungs, of which it uses two thirds. The share of scatter behind the heart is higher than that of
the whole picture, since scatter is spread out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CACScoringLib.drr.projection import BODY_PATH_MM, CT_EFFECTIVE_KEV, attenuation_per_mm
from CACScoringLib.networks.configs import STANDARD_MM
from CACScoringLib.radiograph.view import HIGH, LOW, STANDARD_PIXELS

PHOTONS = {"PA": 40_000.0, "lateral": 160_000.0}
"""Usual photons per pixel without a patient."""
PHOTON_SPREAD, SCATTER_SHARES, SCATTER_MM = 0.3, (0.2, 0.4), 40.0
"""Standard deviation of the photons' logarithm, range of the share of scatter, and its standard deviation in mm."""
COARSE = 8
"""Pixels of the view on a side of a pixel of the scatter."""
PER_MM = np.float32(attenuation_per_mm("water", CT_EFFECTIVE_KEV))


@dataclass(frozen=True)
class Exposure:
    """Exposure of one view. photons: per pixel without a patient. scatter: share of the signal."""

    photons: float
    scatter: float


def draw_exposure(view: str, generator: np.random.Generator) -> Exposure:
    """Draw an exposure around the usual one of a view."""
    photons = PHOTONS[view] * math.exp(generator.normal(0, PHOTON_SPREAD))
    return Exposure(photons, float(generator.uniform(*SCATTER_SHARES)))


def scattered(body_mm: np.ndarray) -> np.ndarray:
    """Return the scatter of a view of paths in mm of water, at share 1, on pixels of COARSE [rows, columns]."""
    side = STANDARD_PIXELS // COARSE
    coarse = np.exp(-PER_MM * body_mm).reshape(side, COARSE, side, COARSE).mean((1, 3))
    return ndimage.gaussian_filter(coarse, SCATTER_MM / (COARSE * STANDARD_MM), mode="nearest").astype(np.float32)


def expose(
    path_mm: np.ndarray, scatter: np.ndarray, exposure: Exposure, generator: np.random.Generator | None
) -> np.ndarray:
    """Return the negative logarithm of the signal, same shape, float32.

    path_mm: Paths in mm of water. scatter: As of `scattered`, at the same pixels. generator: None for no noise.
    """
    signal = (1 - exposure.scatter) * np.exp(-PER_MM * path_mm) + exposure.scatter * scatter
    if generator is not None:
        signal = signal + np.sqrt(signal / exposure.photons) * generator.standard_normal(signal.shape, np.float32)
    return -np.log(np.maximum(signal, 1e-6, dtype=np.float32))


def fine_scatter(scatter: np.ndarray) -> np.ndarray:
    """Return scatter at the view's pixels."""
    return ndimage.zoom(scatter, COARSE, order=1, mode="nearest", grid_mode=True)


def window(body_mm: np.ndarray, scatter: np.ndarray) -> tuple[float, float]:
    """Return the logarithms shown as 0 and 1, as of `view.normalise`.

    body_mm: complete view. scatter: of it, as of `scattered`.
    """
    usual = Exposure(math.inf, sum(SCATTER_SHARES) / 2)
    dark = expose(body_mm[::4, ::4], fine_scatter(scatter)[::4, ::4], usual, None)
    low, high = np.percentile(dark[body_mm[::4, ::4] > BODY_PATH_MM], [LOW, HIGH])
    return float(low), float(high)
