"""Noise as filtered back-projection makes it: a ramp times the kernel, stronger along the directions that crossed
more body, and correlated between overlapping slices.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from .scanner import Grid, Scanner

ATTENUATION_PER_MM = 0.0193
"""Water at 70 keV, about the mean energy of a 120 kVp beam behind a body (NIST XCOM 0.193 per cm)."""

AVERAGE_PATH_MM = 240.0
"""Water-equivalent path through an average chest; there `Scanner.noise_hu` holds."""

UNCORRECTED_SHARE = 0.6
"""Share of the attenuation that tube current modulation leaves in the noise; shape, not physics."""

LOW_FREQUENCY_FLOOR_PER_MM = 0.05
"""Measured spectra do not vanish at zero frequency as the ideal ramp does."""


class NoiseSource:
    """Noise fields of one scan, slice by slice, reproducible whatever the order or thread.

    seed: any integers that name patient, scan and purpose.
    """

    def __init__(self, seed: tuple[int, ...], grid: Grid, scanner: Scanner) -> None:
        self._seed = seed
        self._shape = grid.shape[1:]
        pixel = grid.spacing_mm[0]
        fy = np.fft.fftfreq(self._shape[0], pixel)[:, None]
        fx = np.fft.rfftfreq(self._shape[1], pixel)[None, :]
        frequency = np.hypot(fy, fx)
        power = (frequency + LOW_FREQUENCY_FLOOR_PER_MM) * scanner.kernel.transfer(frequency) ** 2
        self._amplitude = np.sqrt(power / _mean_power(power, self._shape[1])).astype(np.float32)
        self._frequency_squared = frequency**2
        self._along_y = (fy**2 / np.maximum(self._frequency_squared, 1e-12)).astype(np.float32)
        self.overlap = max(1, round(scanner.slice_thickness_mm / scanner.slice_spacing_mm))

    def smoothed_share(self, sigma_mm: float) -> float:
        """Standard deviation left of the noise after a Gaussian blur in the slice, 1 for none."""
        power = np.square(self._amplitude, dtype=np.float64)
        blur = np.exp(-4 * (math.pi * sigma_mm) ** 2 * self._frequency_squared)
        return math.sqrt(_mean_power(power * blur, self._shape[1]) / _mean_power(power, self._shape[1]))

    def fine_field(self, index: int, gain_x: float = 1.0, gain_y: float = 1.0) -> np.ndarray:
        """One independent field [rows, columns] of unit variance at gains of 1.

        gain_x, gain_y: relative standard deviation of views whose rays run along y and x (they carry the
        frequencies along x and y).
        """
        generator = np.random.default_rng([*self._seed, index])
        white = generator.standard_normal(self._shape, dtype=np.float32)
        gain = gain_x + (gain_y - gain_x) * self._along_y
        spectrum = fft.rfft2(white)
        spectrum *= self._amplitude
        spectrum *= gain
        return fft.irfft2(spectrum, s=self._shape, overwrite_x=True)

    def slice_field(self, k: int, gain_x: float = 1.0, gain_y: float = 1.0) -> np.ndarray:
        """Noise of slice k, unit variance at gains of 1; overlapping slices share the fields they share data with."""
        field = self.fine_field(k, gain_x, gain_y)
        for n in range(1, self.overlap):
            field += self.fine_field(k + n, gain_x, gain_y)
        return field / np.float32(math.sqrt(self.overlap))


def direction_gains(hu: np.ndarray, pixel_mm: float) -> tuple[float, float]:
    """Relative noise of rays along y and along x through a slice [rows, columns] in HU: (gain_x, gain_y).

    From the water-equivalent path through the middle of the body: noise power grows with exp(attenuation).
    """
    water = np.clip(hu[::4, ::4] / 1000.0 + 1.0, 0.0, 2.0)
    step = 4 * pixel_mm
    down, across = water.sum(axis=0) * step, water.sum(axis=1) * step
    along_y, along_x = _upper_mean(down), _upper_mean(across)
    factor = 0.5 * UNCORRECTED_SHARE * ATTENUATION_PER_MM
    return math.exp(factor * (along_y - AVERAGE_PATH_MM)), math.exp(factor * (along_x - AVERAGE_PATH_MM))


def _upper_mean(paths: np.ndarray) -> float:
    used = np.sort(paths)[-len(paths) // 3 :]
    return float(used.mean())


def _mean_power(power: np.ndarray, columns: int) -> float:
    """Mean of a power spectrum given on the half plane of a real transform."""
    weight = np.full(power.shape[1], 2.0)
    weight[0] = 1.0
    if columns % 2 == 0:
        weight[-1] = 1.0
    return float((power * weight).sum() / (power.shape[0] * columns))
