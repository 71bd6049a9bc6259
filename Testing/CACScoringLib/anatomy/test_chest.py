"""Landmarks of a chest: the filled hull of the lungs and grown masks, each against a slow reference."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from CACScoringLib.anatomy.between_lungs import _filled_hull
from CACScoringLib.core.grid import grown


def filled_point_by_point(plane: np.ndarray) -> np.ndarray:
    """The slow reference: every point of the plane against every edge of the hull of the shape's rim."""
    rim = np.argwhere(plane & ~ndimage.binary_erosion(plane))
    try:
        edges = ConvexHull(rim).equations
    except (QhullError, ValueError):
        return np.zeros_like(plane)
    j, i = np.indices(plane.shape)
    points = np.stack([j.ravel(), i.ravel(), np.ones(j.size)])
    return (edges @ points).max(0).reshape(plane.shape) <= 1e-3


@pytest.mark.parametrize("points", [0, 2, 3, 20, 200])
def test_filled_hull_is_that_of_every_point(points):
    rng = np.random.default_rng(points)
    filled = 0
    for _ in range(30):
        plane = np.zeros(rng.integers(2, 150, 2), bool)
        plane[tuple((rng.random((2, points)) * np.array(plane.shape)[:, None]).astype(int))] = True
        hull = _filled_hull(plane)
        np.testing.assert_array_equal(hull, filled_point_by_point(plane))
        filled += hull.sum()
    assert (filled > 0) == (points >= 3)


@pytest.mark.parametrize(("axes", "steps"), [((0, 1, 2), 3), ((1, 2), 5), ((1, 2), 0)])
def test_grown_is_scipys_dilation_and_its_complement_the_erosion(axes, steps):
    mask = np.random.default_rng(steps).random((9, 14, 11)) < 0.05
    cross = ndimage.generate_binary_structure(3, 1)
    if 0 not in axes:
        cross[[0, 2]] = False
    before = mask.copy()
    dilated = ndimage.binary_dilation(mask, cross, iterations=steps) if steps else mask
    np.testing.assert_array_equal(grown(mask, steps, axes), dilated)
    np.testing.assert_array_equal(mask, before)
    eroded = ndimage.binary_erosion(~mask, cross, iterations=steps, border_value=1) if steps else ~mask
    np.testing.assert_array_equal(~grown(mask, steps, axes), eroded)
