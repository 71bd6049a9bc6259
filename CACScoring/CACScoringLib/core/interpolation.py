"""Axes of a scan along which its voxels were interpolated: noise, or its correlation, changes periodically there."""

from __future__ import annotations

import numpy as np

from .slice_checks import MIN_BLOCKS, SOFT_TISSUE_HU, quiet_halves

MAX_RIPPLE = {0: (0.1, 12.0), 1: (0.05, 8.0), 2: (0.05, 8.0)}
"""Largest periodic change of noise along an array's axis: amplitude, and multiple of the median over all periods.
Patients: 0.04 and 6.1, along k 0.09 and 5.8; cine CT repeats its rows of detectors along k."""

MAX_CORRELATION_RIPPLE = 0.06
"""Largest periodic change of the correlation of noise in neighbouring slices. Scans of people: at most 0.04 in 17; 198
digital ones: at most 0.02; six of the people resampled linearly to slices 1.2 times as far apart: 0.08 to 0.11."""

MIN_FREQUENCY = 0.08
"""Lowest frequency of interpolated noise, 1/voxel; anatomy changes more slowly."""


def interpolated_axes(hu: np.ndarray) -> dict[int, float]:
    """Find axes of a scan [k, j, i] along which its voxels were interpolated, by periodic noise.

    Returns:
        The period in voxels by axis.
    """
    periods = {}
    steps = [max(1, size // 48) for size in hu.shape]
    for axis, (max_amplitude, max_multiple) in MAX_RIPPLE.items():
        part = hu[tuple(slice(None, None, 1 if n == axis else steps[n]) for n in range(3))]
        noise = _noise_along(np.moveaxis(part, axis, 0))
        if noise is None:
            continue
        amplitude, usual, period = _ripple(np.log(noise))
        if amplitude > max(max_amplitude, max_multiple * usual):
            periods[axis] = period
    return periods


def correlated_slices(hu: np.ndarray) -> dict[int, float]:
    """Find slices that were interpolated, by periodic correlation of noise in neighbouring ones.

    hu: Scan [k, j, i] whose slices lie where they belong; others correlate periodically, too.

    Returns:
        The period in slices by axis, which is 0.
    """
    correlations = _correlation_of_slices(hu[:, :: max(1, hu.shape[1] // 48)])
    if correlations is None:
        return {}
    amplitude, _, period = _ripple(correlations)
    return {0: period} if amplitude > MAX_CORRELATION_RIPPLE else {}


def _ripple(values: np.ndarray) -> tuple[float, float, float]:
    """Return the largest amplitude of a periodic change, the median over all periods, and the period in steps."""
    from scipy import ndimage

    ripple = values - ndimage.median_filter(values, 9, mode="nearest")
    amplitudes = np.abs(np.fft.rfft(ripple * np.hanning(ripple.size))) * 4 / ripple.size
    frequencies = np.fft.rfftfreq(ripple.size)
    amplitudes[frequencies < MIN_FREQUENCY] = 0
    peak = int(amplitudes.argmax())
    usual = float(np.median(amplitudes[frequencies >= MIN_FREQUENCY]))
    return float(amplitudes[peak]), usual, float(1 / frequencies[peak]) if peak else np.inf


def _correlation_of_slices(hu: np.ndarray) -> np.ndarray | None:
    """Return how the noise of tissue in each slice correlates with that in the next; None without enough tissue."""
    values = hu.astype(np.float32)
    noise = values[..., 1:-1] - (values[..., :-2] + values[..., 2:]) / 2
    centre = values[..., 1:-1]
    tissue = (centre > SOFT_TISSUE_HU[0]) & (centre < SOFT_TISSUE_HU[1]) & (np.abs(noise) < 150)
    counts = tissue.sum((1, 2))
    deviations = np.sqrt((noise**2).sum((1, 2), where=tissue) / np.maximum(counts, 1))
    noise /= np.maximum(deviations, 0.1)[:, None, None]
    tissue &= np.abs(noise) < 2  # edges correlate whatever the noise does
    shared = tissue[:-1] & tissue[1:]
    first, second = noise[:-1], noise[1:]
    products, *squares = (
        np.einsum("kji,kji,kji->k", a, b, shared, dtype=np.float32)
        for a, b in ((first, second), (first, first), (second, second))
    )
    places = np.flatnonzero((shared.sum((1, 2)) >= MIN_BLOCKS) & (deviations[:-1] >= 0.1) & (deviations[1:] >= 0.1))
    if places.size < 24:
        return None
    correlations = (products / np.sqrt(np.maximum(squares[0] * squares[1], 1e-6)))[places]
    return np.interp(np.arange(places[0], places[-1] + 1), places, correlations)


def _noise_along(values: np.ndarray) -> np.ndarray | None:
    """Return how tissue differs from its two neighbours along the first axis, by noise; None without enough tissue."""
    values = values.astype(np.float32, "C")
    differences = np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2)
    tissue = (values[1:-1] > SOFT_TISSUE_HU[0]) & (values[1:-1] < SOFT_TISSUE_HU[1]) & (differences < 150)
    noise = quiet_halves(differences, tissue)
    places = np.flatnonzero(np.isfinite(noise))
    if places.size < 24:
        return None
    noise = noise[places]
    if np.mean(noise) < 0.1:
        return None
    return np.maximum(np.interp(np.arange(places[0], places[-1] + 1), places, noise), 0.01)
