"""Scans with a known kernel: random edges between tissues and noise, filtered with the kernel."""

from __future__ import annotations

from functools import cache

import numpy as np
from images import image_of
from scipy import fft

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image

PIXEL_MM = 0.75
SOFT, SHARP, BONE = (0.68, 0.0), (0.57, 1.2), (0.51, 3.0)
"""Gaussian σ of the system in mm and edge boost, similar to the simulated scanner's kernels."""


def transfer(kernel: tuple[float, float], frequency: np.ndarray) -> np.ndarray:
    """The MTF at frequencies in 1/mm."""
    sigma, boost = kernel
    return np.exp(-2 * (np.pi * sigma * frequency) ** 2) * (1 + boost * (1 - np.exp(-((frequency / 0.45) ** 2))))


@cache
def scan_with(
    kernel: tuple[float, float], noise_hu: float = 10.0, slices: int = 3, size: int = 280, calcium: bool = False
) -> CTScan:
    """Make a body of 280 pixels of 0.75 mm with lungs and organs in 3 mm slices, optionally with calcium discs of 3 mm
    and 600 HU."""
    generator = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size]
    hu = np.full((slices, size, size), -1000.0)
    for plane in hu:
        plane[(x - size / 2) ** 2 + (y - size / 2) ** 2 < (0.46 * size) ** 2] = 40
        for _ in range(40):
            radius = generator.uniform(3, 22)
            place = generator.uniform(0.2 * size, 0.8 * size, 2)
            plane[(x - place[0]) ** 2 + (y - place[1]) ** 2 < radius**2] = generator.choice([-850, -100, 20, 60])
        plane[(x - size / 2) ** 2 + (y - size / 2) ** 2 < (0.18 * size) ** 2] = 40
        if calcium:
            plane[(x - size / 2 - 20) ** 2 + (y - size / 2) ** 2 <= 2**2] = 600
    frequency = np.hypot(np.fft.fftfreq(size, PIXEL_MM)[:, None], np.fft.rfftfreq(size, PIXEL_MM)[None])
    mtf = transfer(kernel, frequency)
    without_aperture = mtf / np.exp(-2 * (np.pi * 0.47 * frequency) ** 2)
    ramp = np.sqrt(frequency + 0.05) * without_aperture
    white = np.random.default_rng(8).normal(size=hu.shape)
    noise = fft.irfft2(fft.rfft2(white) * ramp, s=hu.shape[1:])
    usual = np.sqrt(frequency + 0.05) * transfer(SOFT, frequency) / np.exp(-2 * (np.pi * 0.47 * frequency) ** 2)
    soft = fft.irfft2(fft.rfft2(white) * usual, s=hu.shape[1:]).std()
    measured = fft.irfft2(fft.rfft2(hu) * mtf, s=hu.shape[1:]) + noise * (noise_hu / soft)
    image = image_of(np.rint(measured).astype(np.int16), (PIXEL_MM, PIXEL_MM, 3.0))
    return scan_from_image(image, Acquisition("test", kvp=120.0, slice_thickness_mm=3.0))
