"""Grids of images: parts lie where they were cut, and outlines stay where they are."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.grid import Grid, bounding_box, largest_part

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def image():
    values = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)
    return Grid((10, 8, 6), (0.7, 0.9, 3.0), (-20.0, 31.0, -160.0), TURNED).image(values)


def test_a_part_is_pasted_where_it_was_cut(image):
    grid = Grid.of(image)
    part = image[2:5, 1:7, 3:6]
    assert grid.box(part) == [slice(2, 5), slice(1, 7), slice(3, 6)]
    whole = grid.paste(part)
    assert Grid.of(whole) == grid
    expected = np.zeros((6, 8, 10), np.int16)
    expected[3:6, 1:7, 2:5] = sitk.GetArrayFromImage(part)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(whole), expected)


def test_a_mask_on_a_finer_grid_keeps_its_outline(image):
    inside = np.zeros((6, 8, 10), bool)
    inside[:, 2:6] = True
    coarse = Grid.of(image)
    assert (coarse.mask(coarse.image(inside)) == inside).all()
    fine = Grid.of(sitk.Expand(image, [3, 3, 1]))
    found = fine.mask(coarse.image(inside))
    assert found[:, 6:18].all()
    assert found.sum() == inside.sum() * 9


@pytest.mark.parametrize(
    "filled",
    [
        np.s_[2:4, 3:5, 4:7],
        np.s_[0:2, 3:5, 4:7],
        np.s_[2:4, 5:8, 9:10],
        np.s_[:, :, :],
        np.s_[0:0, 0:0, 0:0],
    ],
)
def test_a_mask_is_resampled_where_it_can_be_alone(image, filled):
    inside = np.zeros((6, 8, 10), bool)
    inside[filled] = True
    mask = Grid.of(image).image(inside)
    # Shifted, so that no voxel lies exactly between two; it goes beyond the mask's grid on some sides, where the
    # mask's border voxels go on, and ends within it on others.
    places = (((30, 26, 14), (-22.13, 30.17, -161.13)), ((8, 9, 4), (-23.0, 31.9, -155.37)), ((2, 2, 2), (90.0,) * 3))
    for size, origin in places:
        grid = Grid(size, (0.37, 0.41, 1.3), origin, TURNED)
        everywhere = sitk.GetArrayFromImage(grid.resample(mask * np.uint8(200))) >= 100
        np.testing.assert_array_equal(grid.mask(mask), everywhere)


def test_boxes_and_largest_parts():
    mask = np.zeros((5, 5, 5), bool)
    assert not largest_part(mask).any()
    mask[0, 0, 0] = mask[2:4, 2:, 1:3] = True
    assert largest_part(mask).sum() == 12
    assert bounding_box(largest_part(mask)) == (slice(2, 4), slice(2, 5), slice(1, 3))
