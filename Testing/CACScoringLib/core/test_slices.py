"""Detection of blank and repeated slices."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, SliceGeometryError, scan_from_image
from CACScoringLib.core.slices import blank_slices, repeated_slices


def changed(blank=(), copies=(), value=0):
    """int16 [8, 12, 14] of noise in air and tissue, with blank slices, and pairs of a slice and its copy."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, -700, (8, 12, 14), np.int16)
    hu[:, 3:9, 3:11] = rng.integers(-20, 80, (8, 6, 8))
    hu[3, 5, 5], hu[4, 5, 5] = 1200, 1300
    hu[list(blank)] = value
    for original, copy in copies:
        hu[copy] = hu[original]
    return hu


@pytest.mark.parametrize(
    ("blank", "inner", "outer"),
    [
        ((), [], []),
        ((2,), [2], []),
        ((2, 3, 6), [2, 3, 6], []),
        ((0, 1, 7), [], [0, 1, 7]),
        ((0, 2, 7), [2], [0, 7]),
        (range(7), [], list(range(7))),
        (range(8), [], list(range(8))),
    ],
)
def test_blank_slices(blank, inner, outer):
    assert blank_slices(changed(blank)) == (inner, outer)


@pytest.mark.parametrize(
    ("copies", "pairs"),
    [
        ([], []),
        ([(1, 2)], [(1, 2)]),
        ([(1, 2), (1, 6)], [(1, 2), (1, 6)]),
        ([(0, 1), (2, 3), (4, 5), (6, 7)], [(0, 1), (2, 3), (4, 5), (6, 7)]),
    ],
)
def test_repeated_slices(copies, pairs):
    assert repeated_slices(changed(copies=copies)) == pairs


def test_one_voxel_tells_slices_apart():
    hu = changed(copies=[(1, 2)])
    hu[2, 0, 0] += 1
    assert repeated_slices(hu) == []


def test_blank_slices_are_no_copies():
    assert repeated_slices(changed(blank=(0, 1, 6))) == []


@pytest.mark.parametrize("value", [0, -1024])
@pytest.mark.parametrize(
    ("blank", "copies", "expected"),
    [
        ((), (), []),
        ((0, 7), (), ["slices-blank"]),
        ((), [(1, 2)], ["slices-repeated"]),
        ((0,), [(1, 2)], ["slices-blank", "slices-repeated"]),
    ],
)
def test_slices_of_a_scan_are_warned_of(value, blank, copies, expected):
    image = sitk.GetImageFromArray(changed(blank, copies, value))
    scan = scan_from_image(image, Acquisition("test"))
    assert [warning.code for warning in scan.warnings] == expected
    severe = [warning.code for warning in scan.warnings if warning.severe]
    assert severe == [code for code in expected if code == "slices-repeated"]


@pytest.mark.parametrize("value", [0, -1024])
def test_blank_slices_within_a_scan_are_refused(value):
    image = sitk.GetImageFromArray(changed((0, 2, 5), value=value))
    with pytest.raises(SliceGeometryError, match=r"2 slices within the scan are blank.*\(slice 2, 5, "):
        scan_from_image(image, Acquisition("test"))


def test_slices_are_counted_from_the_feet():
    image = sitk.GetImageFromArray(changed(copies=[(1, 2)]))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))  # the first slice is the uppermost
    (warning,) = scan_from_image(image, Acquisition("test")).warnings
    assert (warning.code, "slice 6 of 5" in warning.message) == ("slices-repeated", True)
