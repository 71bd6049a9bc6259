"""Landmarks of a chest: the filled hull of the lungs and grown masks, each against a slow reference."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from CACScoringLib.anatomy.between_lungs import (
    Chest,
    _filled_hull,
    _inside_chest_wall,
    _tissue_between_lungs,
    landmarks,
)
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


def test_chest_is_the_hull_of_a_lung_and_its_mirror_image():
    lungs = np.zeros((40, 30, 60), bool)
    lungs[35, 10:20, 40:50] = True
    space = _inside_chest_wall(lungs, midline=30)
    chest = np.zeros_like(lungs)
    chest[10:36, 10:20, 11:50] = True  # voxels of 3 mm
    np.testing.assert_array_equal(space, chest)


def test_heart_tissue_ends_at_the_spine():
    shape = (3, 60, 80)
    space, none = np.ones(shape, bool), np.zeros(shape, bool)
    chest = Chest(np.full(shape, 40.0), none, space, none, 40, 0, 59, 80, np.full(3, 30.0))
    tissue = _tissue_between_lungs(chest)[1]
    assert np.flatnonzero(tissue[:, 40]).tolist() == list(range(29))
    assert np.flatnonzero(tissue[:, 47]).tolist() == list(range(34)), "15 mm further beside the vertebrae"
    assert np.flatnonzero(tissue[5]).tolist() == list(range(21, 74))


def test_bone_at_the_spine_begins_a_voxel_in_front_of_the_vertebrae(chest):
    hu = chest.scan().coarse_hu.copy()
    usual = landmarks(hu)
    k, row = len(hu) // 2, int(usual.spine_front[len(hu) // 2])
    for rows_in_front, is_bone in ((1, True), (2, False)):
        dotted = hu.copy()
        dotted[k, row - rows_in_front, usual.midline] = 400
        bone = landmarks(dotted).bone
        assert not usual.bone[k, row - rows_in_front, usual.midline]
        assert bone[k, row - rows_in_front, usual.midline] == is_bone


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
