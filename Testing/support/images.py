"""Images from arrays, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.grid import Grid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def image_of(
    values: np.ndarray,
    spacing_mm: Sequence[float] = (1.0, 1.0, 3.0),
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    direction: Sequence[float] | None = None,
) -> sitk.Image:
    """Return an array [k, j, i] as an image; bool becomes uint8 0/1."""
    return Grid(values.shape[::-1], tuple(spacing_mm), tuple(origin_mm), tuple(direction or AXIAL)).image(values)
