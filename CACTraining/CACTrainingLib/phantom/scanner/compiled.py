"""Compiled inner loops of a scan: points on a grid, reconstruction from moving views, noise.

Spectra are complex64 [rows, columns], views indices of directions int64 [rows, columns]; the view opposite to one is
half the directions later. The slow forms in NumPy stand in the tests.
"""

from __future__ import annotations

import math

import numpy as np

from ..anatomy.compiled import compiled


@compiled
def add_levels(
    spectrum: np.ndarray, changes: np.ndarray, views: np.ndarray, shares: np.ndarray, transfer: np.ndarray
) -> None:
    """Add to a slice's spectrum how it changes at levels of a movement, each in its share of the views, in place.

    Args:
        changes: Spectra of the changes at all levels but the first [levels - 1, rows, columns].
        shares: Weights of the directions at each level, float32 [levels, directions].
        transfer: Transfer function, float32 [rows, columns].
    """
    levels, directions = shares.shape
    for j in range(views.shape[0]):
        for i in range(views.shape[1]):
            first = views[j, i]
            second = first + directions // 2
            if second >= directions:
                second -= directions
            total = shares[0, first] + shares[0, second]
            change = np.complex64(0)
            for level in range(1, levels):
                weight = shares[level, first] + shares[level, second]
                total += weight
                change += weight * changes[level - 1, j, i]
            spectrum[j, i] += change * (transfer[j, i] / total)


@compiled
def _cosine_and_sine(angle: np.float32) -> tuple[np.float32, np.float32]:
    """Return both to 2e-6, by the series of a quarter turn (faster than the C library's)."""
    quarters = np.floor(angle * np.float32(2 / math.pi) + np.float32(0.5))
    x = angle - quarters * np.float32(math.pi / 2)
    square = x * x
    sine = x * (
        np.float32(1) + square * (np.float32(-1 / 6) + square * (np.float32(1 / 120) - square / np.float32(5040)))
    )
    fourth = np.float32(1 / 24) + square * (np.float32(-1 / 720) + square / np.float32(40320))
    cosine = np.float32(1) + square * (np.float32(-0.5) + square * fourth)
    turn = int(quarters) & 3
    if turn == 0:
        return cosine, sine
    if turn == 1:
        return -sine, cosine
    return (-cosine, -sine) if turn == 2 else (sine, -cosine)


@compiled
def moving_spectrum(
    spectra: np.ndarray,
    views: np.ndarray,
    shares: np.ndarray,
    shifts: np.ndarray,
    fx: np.ndarray,
    fy: np.ndarray,
) -> np.ndarray:
    """Return the spectrum of points that move while views are taken: one phase factor a direction.

    Args:
        spectra: Spectra of the points at levels of height [levels, rows, columns].
        shares: Weights of the directions at each level, float32 [levels, directions].
        shifts: -2π times the shift x, y in mm of each direction's view, float32 [2, directions].
        fx, fy: Frequencies in 1/mm [columns] and [rows].
    """
    levels, directions = shares.shape
    total = np.empty(views.shape, np.complex64)
    for j in range(views.shape[0]):
        for i in range(views.shape[1]):
            view, real, imaginary = views[j, i], np.float32(0), np.float32(0)
            for _ in range(2):
                blend = np.complex64(0)
                for level in range(levels):
                    blend += shares[level, view] * spectra[level, j, i]
                cosine, sine = _cosine_and_sine(fx[i] * shifts[0, view] + fy[j] * shifts[1, view])
                real += blend.real * cosine - blend.imag * sine
                imaginary += blend.real * sine + blend.imag * cosine
                view += directions // 2
                if view >= directions:
                    view -= directions
            total[j, i] = complex(real, imaginary)
    return total


@compiled
def scatter(
    positions: np.ndarray,
    weights: np.ndarray,
    origin: tuple[float, float],
    pixel: tuple[float, float],
    image: np.ndarray,
) -> None:
    """Add points to an image [rows, columns] in place, each shared by its four nearest pixels.

    positions: float64 [n, 3]. weights: Per pixel [n]. origin, pixel: x and y of the first pixel, and its sides.
    """
    rows, columns = image.shape
    for n in range(len(weights)):
        column, row = (positions[n, 0] - origin[0]) / pixel[0], (positions[n, 1] - origin[1]) / pixel[1]
        if column < 0 or column >= columns - 1 or row < 0 or row >= rows - 1:
            continue
        i, j = int(column), int(row)
        s, t, weight = column - i, row - j, weights[n]
        image[j, i] += weight * (1 - s) * (1 - t)
        image[j, i + 1] += weight * s * (1 - t)
        image[j + 1, i] += weight * (1 - s) * t
        image[j + 1, i + 1] += weight * s * t


@compiled
def finish(clean: np.ndarray, noise: np.ndarray, share: np.ndarray, noise_hu: float, low: float, high: float) -> None:
    """Add noise of unit variance to a slice in HU, and limit and round it, in place. share: Relative noise."""
    for j in range(clean.shape[0]):
        for i in range(clean.shape[1]):
            value = clean[j, i] + noise[j, i] * share[j, i] * np.float32(noise_hu)
            clean[j, i] = np.rint(min(max(value, np.float32(low)), np.float32(high)))
