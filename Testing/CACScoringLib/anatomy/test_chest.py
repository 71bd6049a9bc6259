"""Landmarks of a chest: the filled hull of the lungs, against testing every point of a plane."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from CACScoringLib.anatomy.chest import _filled_hull
from CACScoringLib.core.grid import bounding_box


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


@pytest.mark.parametrize("points", [0, 1, 2, 3, 5, 20, 200])
def test_filled_hull_is_that_of_every_point(points):
    rng = np.random.default_rng(points)
    filled = 0
    for _ in range(60):
        plane = np.zeros(rng.integers(2, 150, 2), bool)
        plane[tuple((rng.random((2, points)) * np.array(plane.shape)[:, None]).astype(int))] = True
        hull = _filled_hull(plane)
        np.testing.assert_array_equal(hull, filled_point_by_point(plane))
        filled += hull.sum()
    assert (filled > 0) == (points >= 3)


def test_points_on_one_line_have_no_hull():
    for line in (np.s_[4, 2:9], np.s_[2:9, 4], (np.arange(9), np.arange(9))):
        plane = np.zeros((12, 12), bool)
        plane[line] = True
        assert not _filled_hull(plane).any()


@pytest.mark.parametrize("count", [1, 2, 9])
def test_bounding_box_is_that_of_scipy(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        mask = np.zeros((7, 11, 5), bool)
        mask[tuple(rng.integers(0, mask.shape, (count, 3)).T)] = True
        assert bounding_box(mask) == ndimage.find_objects(mask.view(np.int8))[0]
