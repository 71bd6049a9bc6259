"""Bound of the evidence on radiographs: areas under the ROC curve of an ideal observer.

The observer knows the shape of a patient's calcium, and its place up to a shift, and takes the anatomy for Gaussian
noise of the mean power spectrum of the same patients without calcium, after the mean picture is subtracted. The
likelihood ratio of a picture is the mean over all shifts of that of calcium shifted so. With two views the vertical
shift is common to both. The area compares a patient's picture with those of the other patients without calcium: real
anatomy, whose ribs and vessels are no Gaussian noise, hides more than such noise would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft
from scipy.special import logsumexp

from CACScoringLib.networks.configs import STANDARD_MM

from ..data.scan_table import LABELS
from .dataset import MARGIN_PIXELS, PATIENTS, RadiographSet, check_label
from .exposure import draw_exposure, expose, fine_scatter

SHIFTS_MM = (0.0, 10.0, 30.0)
"""Largest distances of the calcium from the place where the observer expects it."""

PIXELS = 2
"""Pixels of a square on a side of the pixels that the observer sees."""


def bound_of(data: RadiographSet, thresholds: Sequence[float], seed: int) -> dict[str, dict[float, dict[float, float]]]:
    """Return `ideal_areas` of the pictures of digital patients by view, and of both views together."""
    side = MARGIN_PIXELS // PIXELS
    noise = np.empty((len(data), len(data.views), side, side), np.float32)
    signals = np.empty_like(noise)
    generator = np.random.default_rng(seed)
    for case in range(len(data)):
        for view in range(len(data.views)):
            exposure, body = draw_exposure(data.photons[case, view], generator), data.path(case, view)
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
        title: ideal_areas(noise[:, views], signals[:, views], scores, thresholds, pixel_mm)
        for title, views in parts.items()
    }


def _binned(square: np.ndarray) -> np.ndarray:
    side = MARGIN_PIXELS // PIXELS
    return square.reshape(side, PIXELS, side, PIXELS).mean((1, 3))


def ideal_areas(
    noise: np.ndarray, signals: np.ndarray, scores: np.ndarray, thresholds: Sequence[float], pixel_mm: float
) -> dict[float, dict[float, float]]:
    """Return the area of each threshold of the score by shift of SHIFTS_MM; NaN without such patients.

    Args:
        noise: Pictures without calcium, in logarithms of the signal [n, V, rows, columns].
        signals: What each patient's calcium adds to them [n, V, rows, columns].
        scores: Scores [n].
        thresholds: Lowest scores; 0 stands for any above it.
        pixel_mm: Pixel size.
    """
    shape = noise.shape[2:]
    hann = np.hanning(shape[0] + 2)[1:-1, None] * np.hanning(shape[1] + 2)[None, 1:-1]
    noise = noise - noise.mean(0)
    power = (np.abs(fft.rfft2(hann * noise)) ** 2).mean(0) * (len(noise) / (len(noise) - 1)) / (hann**2).sum()
    power[:, 0, 0] = power.max((1, 2))  # the mean brightness tells nothing
    whitened = fft.rfft2(noise) / power
    rows, columns = (fft.fftfreq(count, 1 / (count * pixel_mm)) for count in shape)
    distance = np.hypot(rows[:, None], columns[None])
    areas = np.full((len(signals), len(SHIFTS_MM)), 0.5)
    for patient, signal in enumerate(fft.rfft2(signals)):
        if not signal.any():
            continue
        # Log likelihood ratio of each shift, up to a constant: the filtered picture [n, V, rows, columns].
        logs = fft.irfft2(np.conj(signal) * whitened, shape)
        logs[patient] += fft.irfft2(np.abs(signal) ** 2 / power, shape)
        for number, shift in enumerate(SHIFTS_MM):
            inside = distance <= shift
            part = np.ix_(inside.any(1), inside.any(0))
            ratios = _log_ratio(logs[:, :, part[0], part[1]], inside[part])
            areas[patient, number] = (np.delete(ratios, patient) < ratios[patient]).mean()
    above = {t: scores > 0 if t == 0 else scores >= t for t in thresholds}
    return {
        shift: {t: float(areas[rows, n].mean()) if rows.any() else float("nan") for t, rows in above.items()}
        for n, shift in enumerate(SHIFTS_MM)
    }


def _log_ratio(logs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean likelihood ratio over shifts [n]. logs: [n, V, rows, columns]."""
    by_row = logsumexp(np.where(inside, logs, -np.inf), axis=3)  # views have the row in common
    return logsumexp(by_row.sum(1), axis=1)
