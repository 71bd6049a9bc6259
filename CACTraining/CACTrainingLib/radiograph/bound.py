"""Bound of the evidence on radiographs: areas under the ROC curve of an ideal observer.

The observer knows the shape of a patient's calcium, and its place up to a shift; the anatomy is Gaussian noise of the
mean power spectrum of the same patients without calcium, after the mean picture is subtracted. The likelihood ratio of
a picture is the mean over all shifts of that of calcium shifted so. With two views the vertical shift is common to
both. The area compares a patient's calcium with the same noise without calcium.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft
from scipy.special import logsumexp

from CACScoringLib.networks.configs import STANDARD_MM

from ..data.scan_table import LABELS
from ..statistics.roc import area_under_curve
from .dataset import MARGIN_PIXELS, PATIENTS, RadiographSet, check_label
from .exposure import draw_exposure, expose, fine_scatter

SHIFTS_MM = (0.0, 10.0, 30.0)
"""Largest distances of the calcium from the place where the observer expects it."""
DRAWS = 40
"""Pictures with and without calcium that are drawn for each patient."""


PIXELS = 2
"""Pixels of a square on a side of the pixels that the observer sees."""


def bound_of(data: RadiographSet, thresholds: Sequence[float], seed: int) -> dict[str, dict[float, dict[float, float]]]:
    """Return `ideal_areas` of the pictures of digital patients by view, and of both views together."""
    side = MARGIN_PIXELS // PIXELS
    noise = np.empty((len(data), len(data.views), side, side), np.float32)
    signals = np.empty_like(noise)
    generator = np.random.default_rng(seed)
    for case in range(len(data)):
        for view, name in enumerate(data.views):
            exposure, body = draw_exposure(name, generator), data.path(case, view)
            scatter = fine_scatter(data.scatter[case, view])
            with_calcium, without = (
                expose(path, scatter, exposure, None) for path in (body + data.calcium_path(case, view, PATIENTS), body)
            )
            noise[case, view] = _binned(expose(body, scatter, exposure, generator))
            signals[case, view] = _binned(with_calcium - without)
    parts = {name: [n] for n, name in enumerate(data.views)}
    if len(parts) > 1:
        parts["both"] = [*range(len(parts))]
    scores, pixel_mm = check_label(data, LABELS[0]), PIXELS * STANDARD_MM
    return {
        title: ideal_areas(noise[:, views], signals[:, views], scores, thresholds, pixel_mm, seed)
        for title, views in parts.items()
    }


def _binned(square: np.ndarray) -> np.ndarray:
    side = MARGIN_PIXELS // PIXELS
    return square.reshape(side, PIXELS, side, PIXELS).mean((1, 3))


def ideal_areas(
    noise: np.ndarray, signals: np.ndarray, scores: np.ndarray, thresholds: Sequence[float], pixel_mm: float, seed: int
) -> dict[float, dict[float, float]]:
    """Return the area of each threshold of the score by shift of SHIFTS_MM; NaN without such patients.

    Args:
        noise: Pictures without calcium, in logarithms of the signal [n, V, rows, columns].
        signals: What each patient's calcium adds to them [n, V, rows, columns].
        scores: Scores [n].
        thresholds: Lowest scores; 0 stands for any above it.
        pixel_mm: Pixel size.
        seed: Seed of the draws.
    """
    shape = noise.shape[2:]
    hann = np.hanning(shape[0] + 2)[1:-1, None] * np.hanning(shape[1] + 2)[None, 1:-1]
    spectra = fft.rfft2(hann * (noise - noise.mean(0)))
    power = (np.abs(spectra) ** 2).mean(0) * (len(noise) / (len(noise) - 1)) / (hann**2).sum()
    power[:, 0, 0] = power.max((1, 2))  # the mean brightness tells nothing
    white = np.random.default_rng(seed).standard_normal((DRAWS, *noise.shape[1:]), np.float32)
    drawn = fft.rfft2(white) / np.sqrt(power)
    areas = np.array([_patient_areas(fft.rfft2(s), drawn, power, shape, pixel_mm) for s in signals])
    above = {t: scores > 0 if t == 0 else scores >= t for t in thresholds}
    return {
        shift: {t: float(areas[rows, n].mean()) if rows.any() else float("nan") for t, rows in above.items()}
        for n, shift in enumerate(SHIFTS_MM)
    }


def _patient_areas(
    signal: np.ndarray, drawn: np.ndarray, power: np.ndarray, shape: tuple[int, ...], pixel_mm: float
) -> list[float]:
    """Return the areas by shift of a patient's signal, given as its Fourier transform [V, rows, columns / 2 + 1]."""
    if not np.abs(signal).any():
        return [0.5] * len(SHIFTS_MM)
    # Log likelihood ratio of each shift, up to a constant: the filtered picture [draws, V, rows, columns].
    without = fft.irfft2(np.conj(signal) * drawn, shape)
    added = fft.irfft2(np.abs(signal) ** 2 / power, shape)
    truth = np.repeat([False, True], len(drawn))
    even = np.ones((1, len(truth)))
    rows, columns = (fft.fftfreq(count, 1 / (count * pixel_mm)) for count in shape)
    result = []
    for shift in SHIFTS_MM:
        inside = np.hypot(rows[:, None], columns[None]) <= shift
        part = np.ix_(inside.any(1), inside.any(0))
        ratios = [_log_ratio(logs[:, :, part[0], part[1]], inside[part]) for logs in (without, without + added)]
        result.append(float(area_under_curve(even, truth, np.concatenate(ratios))[0]))
    return result


def _log_ratio(logs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean likelihood ratio over shifts [draws]. logs: [draws, V, rows, columns]."""
    by_row = logsumexp(np.where(inside, logs, -np.inf), axis=3)  # views have the row in common
    return logsumexp(by_row.sum(1), axis=1)
