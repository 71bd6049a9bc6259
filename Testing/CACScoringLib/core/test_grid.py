"""Grids of images: parts, outlines, and means over voxels."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.grid import Grid, bounding_box, largest_part
from CACScoringLib.core.scan_grid import ScanGrid

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def image():
    values = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)
    return Grid((10, 8, 6), (0.7, 0.9, 3.0), (-20.0, 31.0, -160.0), TURNED).image(values)


def test_a_part_is_pasted_at_its_place(image):
    grid = Grid.of(image)
    part = image[2:5, 1:7, 3:6]
    assert grid.box(part) == [slice(2, 5), slice(1, 7), slice(3, 6)]
    pasted = grid.paste(part)
    assert Grid.of(pasted) == grid
    expected = np.zeros((6, 8, 10), np.int16)
    expected[3:6, 1:7, 2:5] = sitk.GetArrayFromImage(part)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(pasted), expected)


def test_a_mask_on_a_finer_grid_keeps_its_outline(image):
    inside = np.zeros((6, 8, 10), bool)
    inside[:, 2:6] = True
    coarse = Grid.of(image)
    assert (coarse.mask(inside, coarse) == inside).all()
    fine = Grid.of(sitk.Expand(image, [3, 3, 1]))
    fine_inside = fine.mask(inside, coarse)
    assert fine_inside[:, 6:18].all()
    assert fine_inside.sum() == inside.sum() * 9


@pytest.mark.parametrize(
    "filled",
    [
        np.s_[0:2, 3:5, 4:7],
        np.s_[2:4, 5:8, 9:10],
        np.s_[:, :, :],
        np.s_[0:0, 0:0, 0:0],
    ],
)
def test_a_mask_is_resampled_only_in_slices_within_reach(image, filled):
    inside = np.zeros((6, 8, 10), bool)
    inside[filled] = True
    mask = Grid.of(image).image(inside)
    # Shifted, so no voxel lies exactly between two; beyond the mask's grid on some sides, where its border voxels
    # continue, and within it on others.
    places = (((30, 26, 14), (-22.13, 30.17, -161.13)), ((8, 9, 4), (-23.0, 31.9, -155.37)), ((2, 2, 2), (90.0,) * 3))
    for size, origin in places:
        grid = Grid(size, (0.37, 0.41, 1.3), origin, TURNED)
        everywhere = sitk.GetArrayFromImage(grid.resample(mask * np.uint8(200))) >= 100
        np.testing.assert_array_equal(grid.mask(inside, Grid.of(image)), everywhere)


def test_boxes_and_largest_parts():
    mask = np.zeros((5, 5, 5), bool)
    assert not largest_part(mask).any()
    mask[0, 0, 0] = mask[2:4, 2:, 1:3] = True
    assert largest_part(mask).sum() == 12
    assert bounding_box(largest_part(mask)) == (slice(2, 4), slice(2, 5), slice(1, 3))


def line(values, axis):
    """Return an array [k, j, i] with values along one axis (0 for i), three voxels wide along the others."""
    shape = [1, 1, 1]
    shape[2 - axis] = len(values)
    sides = [3, 3, 3]
    sides[2 - axis] = len(values)
    return np.broadcast_to(np.array(values, np.float32).reshape(shape), sides)


def line_grid(first, step, count, axis):
    """Return a grid along one axis, with the middle voxel of `line` along the others."""

    def along(value, neutral):
        return tuple(value if n == axis else neutral for n in range(3))

    return ScanGrid(along(first, 1.0), along(step, 1.0), along(count, 1))


IN_PLANE = [
    # first, step, count: values 10, 20, 40 at 0, 1, 2, from where they rise to 100 at -1 and 3, the value outside
    (0.5, 1.0, 1, (15.0,)),  # from 0 to 1 linear
    (1.0, 3.0, 1, (88.75 / 3,)),  # from -0.5 to 2.5: 16.25 + 15 + 30 + 27.5
    (1.0, 4.0, 1, (42.5,)),  # from -1 to 3: 55 + 15 + 30 + 70
    (-0.5, 1.0, 1, (55.0,)),  # from -1 to 0
    (-2.0, 1.0, 1, (100.0,)),  # wholly outside
    (2.25, 0.5, 1, (55.0,)),  # from 2 to 2.5
    (0.0, 1.0, 3, (22.5, 21.25, 45.0)),
    (0.0, 0.5, 5, (16.25, 15.0, 20.625, 30.0, 42.5)),
]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("first", "step", "count", "expected"), IN_PLANE)
def test_means_in_plane_by_hand(axis, first, step, count, expected):
    means = line_grid(first, step, count, axis).resample(line((10, 20, 40), axis), 100.0)
    np.testing.assert_allclose(means.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "step", "count", "expected"),
    [
        (0.25, 1.0, 1, (12.5,)),  # slabs
        (1.0, 4.0, 1, (70 / 3,)),  # the part in the scan alone
        (-3.0, 1.0, 8, (10.0, 10.0, 10.0, 10.0, 20.0, 40.0, 40.0, 40.0)),  # end slices go on
    ],
)
def test_means_of_slices_by_hand(first, step, count, expected):
    test_means_in_plane_by_hand(2, first, step, count, expected)


def test_an_image_goes_on_with_the_value_outside():
    values = np.random.default_rng(0).normal(50.0, 20.0, (3, 7, 8)).astype(np.float32)
    padded = np.pad(values, ((0, 0), (2, 2), (4, 4)), constant_values=-1024.0)
    step, size = (1.3, 0.7, 1.0), (9, 12, 3)
    means = (
        ScanGrid(first, step, size).resample(part, -1024.0)
        for first, part in (((-1.2, -0.9, 0.0), values), ((2.8, 1.1, 0.0), padded))
    )
    np.testing.assert_allclose(*means, rtol=1e-4)


def test_an_image_at_once_along_all_axes():
    """Means of linear values are the values at the centres, with fewer pixels than the image has and with more."""
    k, j, i = np.indices((5, 6, 7)).astype(np.float32)
    image = 100 * k + 10 * j + i
    coarse = ScanGrid((2.0, 1.5, 1.0), (2.0, 2.0, 1.0), (2, 2, 2))
    fine = ScanGrid((2.0, 1.75, 1.0), (0.5, 0.5, 1.0), (6, 5, 3))
    for grid in (coarse, fine):
        centres = (f + s * np.arange(n) for f, s, n in zip(grid.first, grid.step, grid.size, strict=True))
        x, y, z = np.meshgrid(*centres, indexing="ij")
        values = (100 * z + 10 * y + x).transpose()
        # Linear interpolation rounds only bends, which these values lack.
        np.testing.assert_allclose(grid.resample(image, -1000.0), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("size_mm", "spacing_mm", "first", "step", "count"),
    [
        (1.0, 4.0, 1.5, 4.0, 2),  # 8 mm over 6, from the place of its first voxel, 0
        (2.0, 3.0, 0.25, 1.5, 4),
        (1.0, 99.0, 49.0, 99.0, 1),
        (1.0 + 1e-5, 2.0, 0.5, 2.0 / (1 + 1e-5), 3),  # a spacing in single precision adds no voxel
    ],
)
def test_a_grid_over_an_image_by_hand(size_mm, spacing_mm, first, step, count):
    grid = ScanGrid.over(image_of(np.zeros((6, 6, 6)), (size_mm,) * 3), (spacing_mm,) * 3)
    assert grid.size == (count,) * 3
    assert grid.first == pytest.approx((first,) * 3, abs=1e-4)
    assert grid.step == pytest.approx((step,) * 3)


@pytest.mark.parametrize(
    ("spacing_mm", "grid_mm"), [((0.7, 0.83, 3.0), 1.5), ((1.37, 0.5, 1.25), 3.0), ((2.0, 2.0, 6.0), 1.5)]
)
def test_a_part_of_a_scan_has_the_same_voxels(spacing_mm, grid_mm):
    """Cutting off columns, rows or slices moves no voxel, and their numbers stay."""
    image = image_of(np.zeros((40, 50, 60)), spacing_mm, (-123.4, 56.7, -890.1), TURNED)
    whole = ScanGrid.over(image, (grid_mm,) * 3)
    start = (7, 3, 5)
    part_image = sitk.Crop(image, start, (11, 2, 9))
    part = ScanGrid.over(part_image, (grid_mm,) * 3)
    firsts = np.array(whole.first), np.array(part.first) + start
    skipped = (firsts[1] - firsts[0]) / whole.step
    assert skipped == pytest.approx(np.rint(skipped), abs=1e-3)
    numbers = np.array(part.numbers(part_image)) - whole.numbers(image)
    assert numbers.tolist() == np.rint(skipped).tolist()
    # Both cover their image, and no voxel lies beyond it.
    for grid, covered in ((whole, image), (part, part_image)):
        for first, step, count, size in zip(grid.first, grid.step, grid.size, covered.GetSize(), strict=True):
            assert -step < first - step / 2 + 0.5 < 1e-3 * step
            assert -1e-3 * step < first + (count - 0.5) * step - (size - 0.5) < step


def test_thick_slices_begin_with_those_of_the_grid():
    for spacing_mm, grid_mm, expected in ((3.0, 3.0, 0.0), (3.0, 1.5, -0.25), (1.5, 3.0, 0.5), (6.0, 1.5, -0.375)):
        for place in (0.0, -7.3):
            image = image_of(np.zeros((10, 4, 4)), (1.0, 1.0, spacing_mm), (0.0, 0.0, place))
            first = ScanGrid.over(image, (1.5, 1.5, grid_mm)).first[2]
            assert (first - expected) % 1 == pytest.approx(0, abs=1e-6) or (first - expected) % 1 == pytest.approx(1)


def test_a_box_of_a_grid_and_its_place():
    """Voxel (0, 0, 0) of the box is (3, 2, 1) of the grid, at 0.5 + 3 · 2, 1 + 2 · 3 and 2 + 4 of the scan."""
    grid = ScanGrid((0.5, 1.0, 2.0), (2.0, 3.0, 4.0), (9, 8, 7))
    part = grid.crop((slice(1, 3), slice(2, 6), slice(3, 9)))
    assert part == ScanGrid((6.5, 7.0, 6.0), (2.0, 3.0, 4.0), (6, 4, 2))
    in_space = part.in_space(image_of(np.zeros((9, 9, 9)), (0.5, 0.6, 3.0), (10.0, 20.0, 30.0)))
    assert in_space.size == (6, 4, 2)
    assert in_space.spacing_mm == pytest.approx((1.0, 1.8, 12.0))
    assert in_space.origin_mm == pytest.approx((13.25, 24.2, 48.0))


def test_pasting_preserves_the_sum():
    """A voxel has the volume of 8 scan voxels."""
    array = np.zeros((4, 5, 6), np.float32)
    array[2, 2, 3] = 1.0
    grid = ScanGrid((0.5, 0.5, 0.5), (2.0, 2.0, 2.0), (6, 5, 4))
    back = grid.paste(array, (12, 10, 8))
    assert back.shape == (8, 10, 12)
    assert back.sum() == pytest.approx(8.0)
    np.testing.assert_allclose(back.sum((1, 2)), [0, 0, 0, 0, 4, 4, 0, 0], atol=1e-6)
    # A triangle of two scan voxels each way around 6.5, averaged over voxels.
    np.testing.assert_allclose(back.sum((0, 1)) / 4, [0, 0, 0, 0, 0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0], atol=1e-6)


def test_parts_of_a_scan_are_pasted_as_in_the_whole():
    array = np.random.default_rng(0).random((4, 5, 6), np.float32)
    grid = ScanGrid((0.7, 0.5, 1.5), (2.0, 1.7, 0.6), (6, 5, 4))
    part = grid.paste(array, (5, 4, 3), (2, 3, 1))
    np.testing.assert_allclose(part, grid.paste(array, (12, 10, 8))[1:4, 3:7, 2:7], atol=1e-6)
    assert part.any()
