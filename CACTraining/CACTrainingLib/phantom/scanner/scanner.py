"""Simulated CT scanner: its settings, and the transfer functions in the slice and along the table.

The in-plane modulation transfer function (MTF) is the blur of focal spot and detector times the kernel. Noise arises in
the detector, so only the kernel and the ramp filter shape it, not the focal spot; measured noise is therefore sharper
than measured edges. As in filtered back-projection it is a ramp times the kernel, stronger along directions that cross
more body, and correlated between overlapping slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy.special import erf

from CACScoringLib.core.grid import Grid
from CACScoringLib.quality.mass_calibration import calcium_hu_per_mg_cm3


@dataclass(frozen=True)
class Kernel:
    """Reconstruction kernel: exp(-2π²σ²f²) times an edge boost 1 + b·(1 - exp(-(f/f_b)²)).

    Attributes:
        name: Name of the kernel.
        sigma_mm: σ of the kernel's Gaussian.
        boost: Edge enhancement b, 0 for none.
        boost_frequency_per_mm: Frequency f_b of the edge enhancement.
    """

    name: str
    sigma_mm: float
    boost: float = 0.0
    boost_frequency_per_mm: float = 0.3

    def transfer(self, frequency_per_mm: np.ndarray) -> np.ndarray:
        """Return the kernel's factor at each spatial frequency (1 at zero frequency)."""
        f2 = np.square(frequency_per_mm)
        rise = 1.0 - np.exp(-f2 / self.boost_frequency_per_mm**2)
        return np.exp(-2 * (math.pi * self.sigma_mm) ** 2 * f2) * (1.0 + self.boost * rise)


KERNELS = {
    "soft": Kernel("soft", 0.49),
    "medium": Kernel("medium", 0.42, 0.35, 0.3),
    "sharp": Kernel("sharp", 0.33, 1.2, 0.4),
}
"""Kernels by name. Soft is fitted to the noise spectrum of a Canon FC12 scan (MTF 50 % at 0.38, 10 % at 0.68 per mm
without the focal spot). Medium and sharp lie between published MTFs of body and lung kernels and fit no scan."""


SLAB_MM = 36.0
"""Height in mm that a gated scan covers in one beat."""


@dataclass(frozen=True)
class Scanner:
    """Settings of a scan.

    Attributes:
        kvp: Tube voltage.
        kernel: Reconstruction kernel.
        slice_thickness_mm: Width of the slice profile.
        slice_spacing_mm: Distance of slices.
        field_of_view_mm: Width of a slice.
        matrix: Pixels along a slice.
        aperture_sigma_mm: In-plane blur of focal spot and detector; 0.47 fits the edges of the Canon scan of KERNELS.
        profile_sigma_mm: Rounding of the slice profile, a box of the slice's thickness.
        noise_hu: Standard deviation of the noise at the centre of an average body.
        rotation_s: Time of a rotation.
        table_speed_mm_s: Speed of the table.
        half_scan: True if half a rotation makes a slice (gated, or a fast spiral), False for a full one.
        start_phase: Gantry angle at the first slice, in turns.
        gate_phase: Phase of the cardiac cycle of a gated scan, which covers `SLAB_MM` a beat; None for no gating.
        beat_s: Length of a beat in a gated scan.
    """

    kvp: float = 120.0
    kernel: Kernel = field(default_factory=lambda: KERNELS["soft"])
    slice_thickness_mm: float = 3.0
    slice_spacing_mm: float = 3.0
    field_of_view_mm: float = 360.0
    matrix: int = 512
    aperture_sigma_mm: float = 0.47
    profile_sigma_mm: float = 0.35
    noise_hu: float = 20.0
    rotation_s: float = 0.5
    table_speed_mm_s: float = 40.0
    half_scan: bool = False
    start_phase: float = 0.0
    gate_phase: float | None = None
    beat_s: float = 1.0

    @property
    def pixel_mm(self) -> float:
        return self.field_of_view_mm / self.matrix

    @property
    def calcium_hu_per_mg_cm3(self) -> float:
        """HU of 1 mg/cm³ hydroxyapatite at the tube voltage."""
        return calcium_hu_per_mg_cm3(self.kvp)

    def transfer(self, frequency_per_mm: np.ndarray) -> np.ndarray:
        """Return the system's in-plane MTF at each spatial frequency."""
        aperture = np.exp(-2 * (math.pi * self.aperture_sigma_mm) ** 2 * np.square(frequency_per_mm))
        return self.kernel.transfer(frequency_per_mm) * aperture

    def profile(self, offset_mm: np.ndarray) -> np.ndarray:
        """Return the slice sensitivity per mm at a distance from the slice's centre (its integral is 1)."""
        s = self.profile_sigma_mm * math.sqrt(2.0)
        half = self.slice_thickness_mm / 2
        return (erf((offset_mm + half) / s) - erf((offset_mm - half) / s)) / (2 * self.slice_thickness_mm)

    @property
    def profile_reach_mm(self) -> float:
        """Distance from a slice's centre in mm beyond which its profile vanishes."""
        return self.slice_thickness_mm / 2 + 4 * self.profile_sigma_mm


ATTENUATION_PER_MM = 0.0193
"""Attenuation of water at 70 keV, about the mean energy of a 120 kVp beam behind a body (NIST XCOM 0.193 per cm)."""

AVERAGE_PATH_MM = 240.0
"""Water-equivalent path in mm through an average chest, for which `Scanner.noise_hu` holds."""

UNCORRECTED_SHARE = 0.6
"""Share of the attenuation that tube current modulation leaves in the noise; illustrative."""

LOW_FREQUENCY_FLOOR_PER_MM = 0.05
"""Offset of the noise ramp per mm: measured spectra do not vanish at zero frequency."""


class NoiseSource:
    """Noise fields of a scan, slice by slice, reproducible in any order.

    seed: integers that identify patient, scan and purpose.
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
        # Neighbours that overlap share fields.
        self._spectrum = lru_cache(self.overlap)(self._draw_spectrum)

    def smoothed_share(self, sigma_mm: float) -> float:
        """Return the share of the noise's standard deviation left by a Gaussian blur in the slice."""
        power = np.square(self._amplitude, dtype=np.float64)
        blur = np.exp(-4 * (math.pi * sigma_mm) ** 2 * self._frequency_squared)
        return math.sqrt(_mean_power(power * blur, self._shape[1]) / _mean_power(power, self._shape[1]))

    def fine_field(self, index: int, gain_x: float = 1.0, gain_y: float = 1.0) -> np.ndarray:
        """Draw an independent field [rows, columns] of unit variance at gains of 1.

        gain_x, gain_y: relative standard deviation of views whose rays run along y and x (they carry the
        frequencies along x and y).
        """
        gain = gain_x + (gain_y - gain_x) * self._along_y
        return fft.irfft2(self._spectrum(index) * gain, s=self._shape, overwrite_x=True)

    def _draw_spectrum(self, index: int) -> np.ndarray:
        generator = np.random.default_rng([*self._seed, index])
        return fft.rfft2(generator.standard_normal(self._shape, dtype=np.float32)) * self._amplitude

    def slice_field(self, k: int, gain_x: float = 1.0, gain_y: float = 1.0) -> np.ndarray:
        """Return the noise of slice k, of unit variance at gains of 1; overlapping slices share fields."""
        field = self.fine_field(k, gain_x, gain_y)
        for n in range(1, self.overlap):
            field += self.fine_field(k + n, gain_x, gain_y)
        return field / np.float32(math.sqrt(self.overlap))


def direction_gains(hu: np.ndarray, pixel_mm: float) -> tuple[float, float]:
    """Return the relative noise (gain_x, gain_y) of rays along y and along x through a slice [rows, columns] in HU.

    Noise power grows with exp(attenuation) along the water-equivalent path through the middle of the body.
    """
    water = np.clip(hu[::4, ::4] / 1000.0 + 1.0, 0.0, 2.0)
    step = 4 * pixel_mm
    down, across = water.sum(axis=0) * step, water.sum(axis=1) * step
    along_y, along_x = _upper_mean(down), _upper_mean(across)
    factor = 0.5 * UNCORRECTED_SHARE * ATTENUATION_PER_MM
    return math.exp(factor * (along_y - AVERAGE_PATH_MM)), math.exp(factor * (along_x - AVERAGE_PATH_MM))


def _upper_mean(paths: np.ndarray) -> float:
    longest = np.sort(paths)[-len(paths) // 3 :]
    return float(longest.mean())


def _mean_power(power: np.ndarray, columns: int) -> float:
    """Return the mean of a power spectrum on the half plane of a real transform."""
    weight = np.full(power.shape[1], 2.0)
    weight[0] = 1.0
    if columns % 2 == 0:
        weight[-1] = 1.0
    return float((power * weight).sum() / (power.shape[0] * columns))
