"""What X-rays do on their way: attenuation in water and bone, tube spectra, and the picture they leave.

Mass attenuation coefficients: Hubbell and Seltzer, NIST Standard Reference Database 126 (physics.nist.gov/xaamdi),
tables of liquid water, cortical bone (ICRU-44) and aluminium; between its energies log–log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .geometry import ProjectionError

CT_EFFECTIVE_KEV = 70.0
"""At this energy HU are taken to be measured: the mean of a filtered 120 kVp spectrum behind a body."""

BONE_ABOVE_HU = 100.0
"""What exceeds this is calcium: its attenuation falls faster with energy than that of water, as bone's does."""

_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_CM2_PER_G = {
    "water": (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
}
_ALUMINIUM_G_PER_CM3 = 2.699


@dataclass(frozen=True)
class Spectrum:
    """Photon energies and the part of the unattenuated signal that each makes; the parts sum up to 1."""

    kev: tuple[float, ...] = (CT_EFFECTIVE_KEV,)
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Film:
    """How a radiograph is made visible.

    linear: grey follows the intensity; otherwise its logarithm, as on film. low, high: percentiles of the body that
    become black and white (bone is white in both). scatter_fraction: of the signal behind the patient; it is spread
    by a Gaussian of scatter_mm on the detector. photons: per pixel without a patient, for Poisson noise of `seed`;
    None is no noise.
    """

    linear: bool = False
    low: float = 1.0
    high: float = 99.7
    scatter_fraction: float = 0.0
    scatter_mm: float = 40.0
    photons: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.scatter_fraction < 1 or not 0 <= self.low < self.high <= 100:
            raise ProjectionError("Give a scatter fraction from 0 to below 1, and percentiles from 0 to 100 that rise.")
        if self.photons is not None and not 0 < self.photons <= 1e12:
            raise ProjectionError(f"{self.photons:g} photons per pixel cannot form an image. Give 1 to 1e12.")


def attenuation_per_mm(material: str, kev: float) -> float:
    """Of water, or of bone and aluminium at a density of 1 g/cm³. Raises ProjectionError outside 10 to 150 keV."""
    if not _KEV[0] <= kev <= _KEV[-1]:
        raise ProjectionError(f"The energy is {kev:g} keV. Give {_KEV[0]:g} to {_KEV[-1]:g} keV.")
    return float(np.exp(np.interp(math.log(kev), np.log(_KEV), np.log(_CM2_PER_G[material])))) / 10


def tube_spectrum(kvp: float, aluminium_mm: float = 3.0, steps: int = 16) -> Spectrum:
    """Signal of an energy-integrating detector under a tube: Kramers' bremsstrahlung behind a filter (1923,
    doi:10.1080/14786442308565244), without characteristic lines and without the anode's heel.

    Raises ProjectionError outside 40 to 150 kVp or for a negative filter.
    """
    if not 40 <= kvp <= 150 or aluminium_mm < 0:
        raise ProjectionError(f"The tube is at {kvp:g} kVp behind {aluminium_mm:g} mm Al. Give 40 to 150 kVp.")
    edges = np.linspace(15.0, kvp, steps + 1)
    kev = (edges[1:] + edges[:-1]) / 2
    filtered = [attenuation_per_mm("aluminium", e) * _ALUMINIUM_G_PER_CM3 * aluminium_mm for e in kev]
    weights = (kvp - kev) * np.exp(-np.array(filtered))
    return Spectrum(tuple(kev.tolist()), tuple((weights / weights.sum()).tolist()))


def intensity(soft_mm: np.ndarray, excess_mm: np.ndarray | None, spectrum: Spectrum) -> np.ndarray:
    """Signal behind a patient, 1 without one, float32 [row, column].

    Args:
        soft_mm: Water-equivalent path of all up to BONE_ABOVE_HU.
        excess_mm: Of what exceeds it, by its attenuation at CT_EFFECTIVE_KEV; None where all counts as water.
        spectrum: The photons' spectrum.
    """
    total = np.zeros(soft_mm.shape, np.float32)
    for kev, weight in zip(spectrum.kev, spectrum.weights, strict=True):
        path = attenuation_per_mm("water", kev) * soft_mm
        if excess_mm is not None:
            path += calcium_per_mm(kev) * excess_mm
        total += weight * np.exp(-path)
    return total


def calcium_per_mm(kev: float) -> float:
    """Attenuation at an energy of calcium that attenuates like water at CT_EFFECTIVE_KEV."""
    water = attenuation_per_mm("water", CT_EFFECTIVE_KEV)
    return water * attenuation_per_mm("bone", kev) / attenuation_per_mm("bone", CT_EFFECTIVE_KEV)


def detected(signal: np.ndarray, film: Film, pixel_mm: Sequence[float]) -> np.ndarray:
    """A signal with scatter and noise, float32 [row, column]."""
    if film.scatter_fraction:
        image = sitk.GetImageFromArray(signal.astype(np.float32))
        image.SetSpacing(tuple(pixel_mm))
        # By recursion, whose cost does not grow with the width; it needs four pixels.
        spread = image if min(signal.shape) < 4 else sitk.SmoothingRecursiveGaussian(image, film.scatter_mm)
        share = film.scatter_fraction
        signal = (1 - share) * signal + share * sitk.GetArrayFromImage(spread)
    if film.photons is not None:
        rng = np.random.default_rng(film.seed)
        signal = rng.poisson(np.maximum(signal, 0) * film.photons) / film.photons
    return signal.astype(np.float32)


def displayed(signal: np.ndarray, body: np.ndarray, film: Film) -> tuple[np.ndarray, tuple[float, float]]:
    """Make a signal visible.

    Args:
        signal: At the detector, 1 without a patient.
        body: Bool, the pixels that set the window.
        film: How it is shown.

    Returns:
        What is shown, brighter where more was absorbed, float32 [row, column], and its window: the values that are
        shown black and white.
    """
    floor = 0.5 / film.photons if film.photons else 1e-12
    dark = 1 - signal if film.linear else -np.log(np.maximum(signal, np.float32(floor)))
    low, high = np.percentile(dark[body] if body.any() else dark, [film.low, film.high])
    return dark, (float(low), float(max(high, low + 1e-6)))
