"""The measured hearts in their common frame: read, blended and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

PARTS = ("lv_epi", "lv", "rv", "la", "ra", "aorta", "pulmonary")
"""Closed surfaces: the left ventricle's outside, and the blood in chambers and great vessels."""
LANDMARKS = ("lv", "rv", "la", "ra", "mitral", "aortic", "tricuspid", "pulmonary", "apex")
REACH_MM = 25.0
"""Distances are softened to within this, so that a series spends itself near the surface."""


class HeartModelError(Exception):
    """A file of hearts cannot be read. The message says which."""


def soft(distance_mm: np.ndarray) -> np.ndarray:
    """Distances as shares of REACH_MM, -1 to 1, linear near 0."""
    return np.tanh(distance_mm / REACH_MM)


def hard(softened: np.ndarray) -> np.ndarray:
    """The distance in mm that `soft` softened."""
    return REACH_MM * np.arctanh(np.clip(softened, -0.97, 0.97))


def cosine_index(order: int, size_mm: np.ndarray) -> np.ndarray:
    """Wave numbers [n, 3] of a series that resolves the same everywhere; `order` along the longest side."""
    counts = np.ceil(order * size_mm / size_mm.max()).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    return index[((index / size_mm * size_mm.max() / order) ** 2).sum(axis=1) < 1]


@dataclass(frozen=True)
class HeartModels:
    """Several hearts. low_mm, size_mm: the box of the series. index: wave numbers [n, 3]. coefficients: [hearts,
    PARTS, n]. landmarks_mm: [hearts, LANDMARKS, 3]. lines: centre lines [m, 3] of arteries by "heart artery" and
    papillary: [2, 3] tip and base by "heart muscle", of those hearts that have them. All in the common frame."""

    names: tuple[str, ...]
    low_mm: np.ndarray
    size_mm: np.ndarray
    index: np.ndarray
    coefficients: np.ndarray
    landmarks_mm: np.ndarray
    lines: dict[str, np.ndarray]
    papillary: dict[str, np.ndarray]

    def distances(self, weights: np.ndarray, axes_mm: list[np.ndarray]) -> np.ndarray:
        """Signed distances in mm [PARTS, i, j, k] of a blend of the hearts, on a lattice in the common frame.

        weights: [hearts], of sum 1. axes_mm: the lattice's places along u, v, w.
        """
        counts = self.index.max(axis=0) + 1
        series = np.zeros((len(PARTS), *counts), np.float32)
        series[(slice(None), *self.index.T)] = np.tensordot(weights, self.coefficients, 1)
        for axis, (places, low, size, count) in enumerate(
            zip(axes_mm, self.low_mm, self.size_mm, counts, strict=True), 1
        ):
            inside = np.clip((np.asarray(places) - low) / size, 0, 1)
            waves = np.cos(np.pi * np.outer(inside, np.arange(count))).astype(np.float32)
            series = np.moveaxis(np.tensordot(series, waves, axes=(axis, 1)), -1, axis)
        return hard(series)


def read_models(path: Path) -> HeartModels:
    """Read a file of measured hearts. Raises HeartModelError."""
    try:
        with np.load(path) as data:
            return HeartModels(
                names=tuple(str(name) for name in data["names"]),
                low_mm=data["low_mm"],
                size_mm=data["size_mm"],
                index=data["index"].astype(int),
                coefficients=(data["coefficients"] * data["scale"]).astype(np.float32),
                landmarks_mm=data["landmarks_mm"].astype(float),
                lines={key[5:]: data[key].astype(float) for key in data.files if key.startswith("line ")},
                papillary={key[10:]: data[key].astype(float) for key in data.files if key.startswith("papillary ")},
            )
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise HeartModelError(
            f"{path} holds no measured hearts ({type(error).__name__}: {error}). Install CAC again."
        ) from error
