"""Areas under the ROC curves of two model readers of digital patients' radiographs.

One knows the shape of all of a patient's calcium, and its place up to a shift; the other knows its largest lesion
alone, anywhere in the heart. Both subtract the mean picture, divide each picture by its local SD (ribs and vessels vary
more than a lung's field), and take what remains for stationary Gaussian noise of its mean spectrum. The likelihood
ratio of a picture is the mean over all shifts of that of the calcium shifted so. With two views the vertical shift is
common to both. The area compares a patient's picture with those of the other patients without calcium. As anatomy is no
such noise, better readers are possible: the areas are no bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft, ndimage
from scipy.special import logsumexp

from CACScoringLib.networks.configs import STANDARD_MM

from ..data.scan_table import LABELS
from .dataset import MARGIN_PIXELS, PATIENTS, RadiographSet, check_label
from .exposure import draw_exposure, expose, fine_scatter

SHIFTS_MM = (0.0, 10.0, 30.0)
"""Largest distances of the calcium from the place where the reader who knows its shape expects it."""

HEART_MM = 60.0
"""The same for the reader who knows the largest lesion alone: anywhere in the heart."""

READERS = (*(f"shape known, {'place known' if s == 0 else f'within {s:g} mm'}" for s in SHIFTS_MM), "largest lesion")
"""Titles of the readers' areas."""

PIXELS = 2
"""Pixels of a square on a side of the pixels that the reader sees."""

_LOCAL_MM = 30.0
"""Standard deviation of the Gaussian weights of a local SD; with a lesion's size a spot would be divided by itself."""


def reader_areas(
    data: RadiographSet, thresholds: Sequence[float], seed: int, most: int | None = None
) -> dict[str, dict[str, dict[float, float]]]:
    """Return areas by view, and for both views together, by title of READERS and threshold, as of `areas_of`.

    most: Number of cases to read at most.
    """
    side, count = MARGIN_PIXELS // PIXELS, min(len(data), most or len(data))
    without, added, largest = np.zeros((3, count, len(data.views), side, side), np.float32)
    generator = np.random.default_rng(seed)
    for case in range(count):
        for view in range(len(data.views)):
            exposure, body = draw_exposure(data.photons[case, view], generator), data.path(case, view)
            scatter = fine_scatter(data.scatter[case, view])
            calcium = data.calcium_path(case, view, PATIENTS)
            clean = expose(body, scatter, exposure, None)
            without[case, view] = _binned(expose(body, scatter, exposure, generator))
            for signals, path in ((added, calcium), (largest, largest_part(calcium))):
                signals[case, view] = _binned(expose(body + path, scatter, exposure, None) - clean)
    parts = {name: [n] for n, name in enumerate(data.views)}
    if len(parts) > 1:
        parts["both"] = [*range(len(parts))]
    scores, pixel_mm = check_label(data, LABELS[0])[:count], PIXELS * STANDARD_MM
    areas = {}
    for title, views in parts.items():
        pictures = without[:, views], added[:, views]
        of_readers = areas_of(*pictures, added[:, views], scores, thresholds, pixel_mm, SHIFTS_MM)
        of_readers += areas_of(*pictures, largest[:, views], scores, thresholds, pixel_mm, (HEART_MM,))
        areas[title] = dict(zip(READERS, of_readers, strict=True))
    return areas


def largest_part(path_mm: np.ndarray) -> np.ndarray:
    """Return the path of the connected part with the most calcium of a view, 0 elsewhere."""
    labels, count = ndimage.label(path_mm > 0)
    if not count:
        return np.zeros_like(path_mm)
    return path_mm * (labels == 1 + np.argmax(ndimage.sum(path_mm, labels, range(1, count + 1))))


def _binned(square: np.ndarray) -> np.ndarray:
    side = MARGIN_PIXELS // PIXELS
    return square.reshape(side, PIXELS, side, PIXELS).mean((1, 3))


def areas_of(
    without: np.ndarray,
    added: np.ndarray,
    expected: np.ndarray,
    scores: np.ndarray,
    thresholds: Sequence[float],
    pixel_mm: float,
    shifts_mm: Sequence[float],
) -> list[dict[float, float]]:
    """Return, for each largest shift, the area of each threshold of the score; NaN without such patients.

    Args:
        without: Pictures without calcium, in logarithms of the signal [n, V, rows, columns].
        added: What each patient's calcium adds to them [n, V, rows, columns].
        expected: What the reader expects of that [n, V, rows, columns].
        scores: Scores [n].
        thresholds: Lowest scores; 0 stands for any above it.
        pixel_mm: Pixel size.
        shifts_mm: Largest distances of the calcium from its expected place.
    """
    shape = without.shape[2:]
    hann = np.hanning(shape[0] + 2)[1:-1, None] * np.hanning(shape[1] + 2)[None, 1:-1]
    mean = without.mean(0)
    healthy, local_sd = _divided(without - mean, pixel_mm)
    power = (np.abs(fft.rfft2(hann * healthy)) ** 2).mean(0) * (len(without) / (len(without) - 1)) / (hann**2).sum()
    power[:, 0, 0] = power.max((1, 2))  # the mean brightness tells nothing
    whitened = fft.rfft2(healthy) / power
    rows, columns = (fft.fftfreq(count, 1 / (count * pixel_mm)) for count in shape)
    distance = np.hypot(rows[:, None], columns[None])
    areas = np.full((len(without), len(shifts_mm)), 0.5)
    for patient, signal in enumerate(fft.rfft2(expected / local_sd.mean(0))):
        if not expected[patient].any():
            continue
        calcified, _ = _divided(without[patient] + added[patient] - mean, pixel_mm)
        pictures = whitened.copy()
        pictures[patient] = fft.rfft2(calcified) / power
        # Log likelihood ratio of each shift, up to a constant: the filtered picture [n, V, rows, columns].
        logs = fft.irfft2(np.conj(signal) * pictures, shape)
        for number, shift in enumerate(shifts_mm):
            inside = distance <= shift
            part = np.ix_(inside.any(1), inside.any(0))
            ratios = _log_ratio(logs[:, :, part[0], part[1]], inside[part])
            areas[patient, number] = (np.delete(ratios, patient) < ratios[patient]).mean()
    above = {t: scores > 0 if t == 0 else scores >= t for t in thresholds}
    return [
        {t: float(column[rows].mean()) if rows.any() else float("nan") for t, rows in above.items()}
        for column in areas.T
    ]


def _divided(pictures: np.ndarray, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures [..., rows, columns] divided by their local SD, and this."""
    sigma = (*[0] * (pictures.ndim - 2), *[_LOCAL_MM / pixel_mm] * 2)
    deviation = pictures - ndimage.gaussian_filter(pictures, sigma)
    sd = np.sqrt(ndimage.gaussian_filter(deviation**2, sigma))
    return pictures / sd, sd


def _log_ratio(logs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean likelihood ratio over shifts [n]. logs: [n, V, rows, columns]."""
    by_row = logsumexp(np.where(inside, logs, -np.inf), axis=3)  # views have the row in common
    return logsumexp(by_row.sum(1), axis=1)
