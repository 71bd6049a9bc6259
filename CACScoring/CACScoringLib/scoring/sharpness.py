"""How sharp a scan is: the modulation transfer function (MTF) in the slice, measured in the scan itself.

Steps between tissues have a power spectrum that falls with f³ in the plane, whatever the patient. So the power of the
body times f³, relative to that of coarse structure, is the MTF squared, and no phantom is needed. Where noise outweighs
the edges it continues their curve: noise passed the ramp filter, which gives it power proportional to f, and then the
same kernel (Riederer, Pelc, Chesler 1978, 10.1088/0031-9155/23/3/008), but not the blur of focal spot and detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft

from ..core.ct import CTScan

COARSE_PER_MM = (0.037, 0.068)
"""Frequencies at which no kernel alters the image: there the MTF is taken as 1."""

STEP_PER_MM = 0.025
HIGHEST_PER_MM = 0.7
"""Of the curve. Beyond it there is little but noise."""

LEAST_NYQUIST_PER_MM = 0.45
"""Larger pixels (1.1 mm) do not show how sharp the kernel was."""

BODY_WINDOW_MM = 60.0
NOISE_WINDOW_MM = 20.0
MOST_SLICES = 12
LEAST_WINDOWS = 24
"""Of either kind; fewer do not tell."""

BODY_HU = (-1000.0, 400.0)
"""Values beyond are cut off, so that metal and bone do not outweigh all else."""

BODY_MEAN_HU = -800.0
"""Windows with a lower mean are mostly air."""

TISSUE_HU = (-10.0, 90.0)
"""Mean of the windows in which noise is measured: muscle, blood and liver."""

PURE_NOISE = 0.3
"""Proportion of these that is used: those with the least coarse structure for their fine one."""

APERTURE_SIGMA_MM = 0.47
"""Blur of focal spot and detector, which noise does not see (fitted to a Canon scan; see the simulated scanner)."""

RAMP_FLOOR_PER_MM = 0.05
"""Measured noise does not vanish at zero frequency as the ideal ramp does."""

EDGES_SEEN = 0.5
"""Proportion of the power that has to be edges for them to be measured."""


@dataclass(frozen=True)
class Sharpness:
    """frequency_per_mm, mtf: the curve, both [n]; 1 at the coarsest frequency."""

    frequency_per_mm: np.ndarray
    mtf: np.ndarray

    def at(self, frequency_per_mm: np.ndarray | float) -> np.ndarray:
        """The MTF at frequencies of any shape; beyond the curve its last value."""
        return np.interp(frequency_per_mm, self.frequency_per_mm, self.mtf)


def measured_sharpness(scan: CTScan) -> Sharpness | None:
    """The MTF of a scan in the slice; None where its pixels are too large, or it shows too little to tell."""
    spacing = scan.image.GetSpacing()[:2]
    highest = min(HIGHEST_PER_MM, 0.95 * 0.5 / max(spacing))
    if 0.5 / max(spacing) < LEAST_NYQUIST_PER_MM:
        return None
    frequency = np.arange(STEP_PER_MM, highest, STEP_PER_MM)
    slices = np.unique(np.linspace(0, len(scan.hu) - 1, min(MOST_SLICES, len(scan.hu))).round().astype(int))
    body = _body_power(scan.hu, slices, spacing, frequency)
    noise = _noise_power(scan.hu, slices, spacing, frequency)
    if body is None or noise is None:
        return None
    mtf = _mtf(frequency, body, noise)
    return None if mtf is None else Sharpness(frequency, mtf)


def _mtf(frequency: np.ndarray, body: np.ndarray, noise: np.ndarray) -> np.ndarray | None:
    """From the power of body and noise, [n]; None where there is nothing but noise."""
    # At the highest frequencies there is nothing but noise, which is another in the whole body than where it was pure.
    noise = noise * float(np.min((body / noise)[-3:]))
    edges = (body - noise) * frequency**3
    seen = body - noise >= EDGES_SEEN * body
    coarse = (frequency >= COARSE_PER_MM[0]) & (frequency <= COARSE_PER_MM[1])
    if not seen[frequency <= COARSE_PER_MM[1]].all():
        return None
    last = len(seen) - 1 if seen.all() else int(np.argmin(seen)) - 1
    by_noise = noise / (frequency + RAMP_FLOOR_PER_MM) * _aperture(frequency) ** 2
    square = np.where(np.arange(len(seen)) <= last, edges, by_noise * (edges[last] / by_noise[last]))
    mtf = np.sqrt(square / square[coarse].mean())
    smooth = np.exp(np.convolve(np.pad(np.log(mtf), 1, mode="edge"), np.ones(3) / 3, mode="valid"))
    smooth[frequency <= COARSE_PER_MM[1]] = 1.0
    return smooth


def _aperture(frequency: np.ndarray) -> np.ndarray:
    return np.exp(-2 * (np.pi * APERTURE_SIGMA_MM * frequency) ** 2)


def _body_power(
    hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray | None:
    """Mean power of windows that show the body, at each frequency."""
    found = [np.clip(windows, *BODY_HU) for windows in _windows(hu, slices, spacing, BODY_WINDOW_MM)]
    windows = np.concatenate(found) if found else np.zeros((0, 1, 1), np.float32)
    mean = windows.mean((1, 2), keepdims=True)
    shows_body = mean.reshape(-1) > BODY_MEAN_HU
    if shows_body.sum() < LEAST_WINDOWS:
        return None
    windows = windows[shows_body] - mean[shows_body]
    return _radial(_power(windows, spacing), windows.shape[1:], spacing, frequency).mean(0)


def _noise_power(
    hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray | None:
    """Mean power of the purest noise in soft tissue, at each frequency, on a scale of its own."""
    found = []
    for windows in _windows(hu, slices, spacing, NOISE_WINDOW_MM):
        mean = windows.mean((1, 2))
        found.append(windows[(mean > TISSUE_HU[0]) & (mean < TISSUE_HU[1])])
    windows = np.concatenate(found) if found else np.zeros((0, 1, 1), np.float32)
    if len(windows) < LEAST_WINDOWS:
        return None
    windows = _detrended(windows)
    power = _radial(_power(windows, spacing), windows.shape[1:], spacing, frequency)
    fine = power[:, frequency > 0.25].mean(1)
    coarse = power[:, (frequency > 0.04) & (frequency < 0.13)].mean(1)
    if not fine.any():
        return None
    purity = np.divide(coarse, fine, out=np.full(len(fine), np.inf), where=fine > 0)
    used = purity <= np.quantile(purity, PURE_NOISE)
    mean = (power[used] / fine[used, None]).mean(0)
    return mean if np.isfinite(mean).all() and (mean > 0).all() else None


def _windows(hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], side_mm: float) -> Iterator[np.ndarray]:
    """Of each slice all windows half a side apart, float32 [n, rows, columns]."""
    columns, rows = (2 * max(4, round(side_mm / (2 * step))) for step in spacing)
    if rows > hu.shape[1] or columns > hu.shape[2]:
        return
    for k in slices:
        view = np.lib.stride_tricks.sliding_window_view(hu[k], (rows, columns))
        yield view[:: rows // 2, :: columns // 2].reshape(-1, rows, columns).astype(np.float32)


def _detrended(windows: np.ndarray) -> np.ndarray:
    """Without the plane that fits each best."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in windows.shape[1:])
    flat = windows - windows.mean((1, 2), keepdims=True)
    for axis in (np.broadcast_to(y[:, None], flat.shape[1:]), np.broadcast_to(x[None], flat.shape[1:])):
        flat -= ((flat * axis).sum((1, 2)) / np.square(axis).sum())[:, None, None] * axis
    return flat


def _power(windows: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Power spectra of windows [n, rows, columns] under a Hann window, HU² mm²: [n, rows, columns / 2 + 1]."""
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in windows.shape[1:])).astype(np.float32)
    spectrum = fft.rfft2(windows * taper)
    return (spectrum.real**2 + spectrum.imag**2) * (spacing[0] * spacing[1] / float(np.square(taper).sum()))


def _radial(
    power: np.ndarray, shape: tuple[int, int], spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray:
    """Spectra as the mean over rings around each frequency, [n, frequencies]."""
    fy, fx = np.fft.fftfreq(shape[0], spacing[1]), np.fft.rfftfreq(shape[1], spacing[0])
    plane = np.hypot(fy[:, None], fx[None]).reshape(-1)
    width = max(STEP_PER_MM, 1.0 / min(shape[0] * spacing[1], shape[1] * spacing[0]))
    weights = np.maximum(0.0, 1.0 - np.abs(plane[None] - frequency[:, None]) / width).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    return power.reshape(len(power), -1) @ weights.T
