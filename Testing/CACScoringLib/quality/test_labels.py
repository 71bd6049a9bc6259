"""Labels that miss parts of the calcium they lie on, or hold none."""

import numpy as np
import pytest
from scipy import ndimage

from CACScoringLib.scoring.labels import MAX_MISSED_SHARE, label_doubts

LESIONS = [(6, 20, 26), (9, 24, 50), (12, 30, 20), (20, 10, 60), (30, 50, 40)]
"""First voxels of lesions of 4 × 4 pixels in three slices."""


@pytest.fixture(scope="module")
def scan():
    hu = np.full((40, 80, 80), 40, np.int16)
    for k, j, i in LESIONS:
        hu[k : k + 3, j : j + 4, i : i + 4] = 300
    hu[20:23, 10:14, 64:75] = 300  # the last but one joins calcium of the aorta, which is not labelled
    labelled = hu > 130
    labelled[:, :, 64:] = False
    return hu, labelled


def messages(scan, labelled):
    warnings = label_doubts(labelled, scan[0], 130.0)
    assert {warning.code for warning in warnings} <= {"labels-doubtful"}
    assert not any(warning.severe for warning in warnings)
    return " ".join(warning.message for warning in warnings)


def test_labels_along_or_around_the_calcium_are_not_doubted(scan):
    hu, labelled = scan
    assert messages((hu[:, :, :64], labelled), labelled[:, :, :64]) == ""
    assert messages((hu[:, :, :64], labelled), ndimage.binary_dilation(labelled[:, :, :64], np.ones((1, 5, 5)))) == ""
    assert messages(scan, labelled) == "", "calcium of another organ that touches it"


def without_side(labelled):
    return labelled & np.roll(labelled, 1, 2)


def without_second_slices(labelled):
    return labelled & (np.arange(len(labelled)) % 2 == 0)[:, None, None]


def without_tops(labelled):
    return labelled & np.roll(labelled, -1, 0)


@pytest.mark.parametrize(
    ("change", "slices"),
    [(without_side, "6, 7, 8, 9"), (without_second_slices, "7, 9, 11"), (without_tops, "8, 11, 14")],
)
def test_a_side_or_slices_without_labels_are_reported(scan, change, slices):
    assert f"are not labelled (slice {slices}" in messages(scan, change(scan[1]))


def test_labels_that_end_half_way_are_reported_though_they_miss_little(scan):
    labelled = scan[1]
    cut = labelled & (np.arange(len(labelled)) < 31)[:, None, None]
    missed = np.count_nonzero(labelled[31] & ~cut[31])
    assert missed < MAX_MISSED_SHARE * np.count_nonzero(cut)
    assert "are not labelled (slice 20, 21, 22, 31" in messages(scan, cut)
    between_lesions = labelled & (np.arange(len(labelled)) < 25)[:, None, None]
    assert messages(scan, between_lesions) == ""


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_small_lesion_labelled_in_part_is_reported(columns):
    hu = np.full((9, 30, 30), 40, np.int16)
    hu[4, 10:14, 10:14] = 300
    labelled = np.zeros(hu.shape, bool)
    labelled[4, 8:16, 8 : 10 + columns] = True
    assert "4 dense voxels" in messages((hu,), labelled)
