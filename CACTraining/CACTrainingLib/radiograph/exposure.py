"""Exposure of digital patients' radiographs: scatter, quantum noise, and the view of the signal.

A chest stand with a grid and an automatic exposure: the detector gets about 2.5 µGy at the chambers, behind the lungs
from the front and behind the heart from the side, and uses two thirds of the quanta. The share of scatter behind the
heart is higher than that of the whole picture, since scatter is spread out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CACScoringLib.drr.projection import BODY_PATH_MM, CT_EFFECTIVE_KEV, attenuation_per_mm
from CACScoringLib.networks.configs import STANDARD_MM
from CACScoringLib.radiograph.view import HIGH, LOW, STANDARD_PIXELS

DETECTOR_UGY, QUANTA_PER_MM2_UGY, USED_SHARE = 2.5, 31_000.0, 2 / 3
"""Air kerma at the chambers; quanta of it at 120 kV behind a patient (RQA 9 of IEC 62220-1: 31,077); those used."""
CHAMBER_QUANTA_PER_MM2 = DETECTOR_UGY * QUANTA_PER_MM2_UGY * USED_SHARE
CHAMBERS = {"PA": ((0.3, 0.55, 0.22, 0.38), (0.3, 0.55, 0.62, 0.78)), "lateral": ((0.4, 0.6, 0.4, 0.6),)}
"""Top, bottom, left and right of the fields of a view that the automatic exposure measures, as shares of its side."""
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


def draw_exposure(photons: float, generator: np.random.Generator) -> Exposure:
    """Draw an exposure around the usual photons of a view (`automatic_photons`)."""
    return Exposure(photons * math.exp(generator.normal(0, PHOTON_SPREAD)), float(generator.uniform(*SCATTER_SHARES)))


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


def usual_logarithms(body_mm: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Return the logarithms of every fourth pixel of a complete view at the usual share of scatter.

    scatter: of the view, as of `scattered`.
    """
    usual = Exposure(math.inf, sum(SCATTER_SHARES) / 2)
    return expose(body_mm[::4, ::4], fine_scatter(scatter)[::4, ::4], usual, None)


def window(body_mm: np.ndarray, dark: np.ndarray) -> tuple[float, float]:
    """Return the logarithms shown as 0 and 1, as of `view.normalised_grey`.

    body_mm: complete view. dark: of it, as of `usual_logarithms`.
    """
    low, high = np.percentile(dark[body_mm[::4, ::4] > BODY_PATH_MM], [LOW, HIGH])
    return float(low), float(high)


def automatic_photons(view: str, dark: np.ndarray) -> float:
    """Return photons per pixel without a patient that give the chambers their quanta, in the median.

    dark: As of `usual_logarithms`.
    """
    side = len(dark)
    fields = [[round(share * side) for share in field] for field in CHAMBERS[view]]
    chambers = np.concatenate([dark[slice(*field[:2]), slice(*field[2:])].ravel() for field in fields])
    return CHAMBER_QUANTA_PER_MM2 * STANDARD_MM**2 * math.exp(float(np.median(chambers)))
