"""Masks whose overlap and distances are known on paper."""

import numpy as np
import pytest
from images import image_of

from CACScoringLib.core.errors import MaskError
from CACScoringLib.statistics.masks import dice, mask_agreement

SPACING_MM = (1.0, 1.0, 3.0)


def box(k, j, i, shape=(20, 40, 40)):
    """A mask of 1 in ranges of k, j, i."""
    array = np.zeros(shape, np.uint8)
    array[slice(*k), slice(*j), slice(*i)] = 1
    return image_of(array, SPACING_MM)


def test_a_box_moved_sideways():
    first, second = box((5, 15), (10, 30), (10, 30)), box((5, 15), (10, 30), (13, 33))
    dice, hausdorff, surface = mask_agreement(first, second)
    assert dice == pytest.approx(17 / 20)
    assert hausdorff == 3
    assert 0 < surface < 3


def test_distance_is_in_mm_along_each_axis():
    first = box((4, 5), (10, 11), (10, 11))
    moved = (box((6, 7), (10, 11), (10, 11)), box((4, 5), (14, 15), (13, 14)))
    assert [mask_agreement(first, second)[1:] for second in moved] == [(6, 6), (5, 5)]


def test_both_directions_count():
    full, part = box((2, 18), (5, 35), (5, 35)), box((2, 18), (5, 35), (5, 20))
    assert mask_agreement(full, part) == mask_agreement(part, full)
    assert mask_agreement(part, full)[1] == 15


def test_an_empty_mask_is_refused():
    with pytest.raises(MaskError, match="found heart mask is empty"):
        mask_agreement(box((0, 0), (0, 0), (0, 0)), box((2, 4), (2, 4), (2, 4)))


def test_two_grids_are_refused():
    shifted = box((2, 4), (2, 4), (2, 4))
    shifted.SetOrigin((5, 0, 0))
    with pytest.raises(MaskError, match="different grids"):
        mask_agreement(box((2, 4), (2, 4), (2, 4)), shifted)


def test_dice_of_nothing_is_not_defined():
    empty, diagonal = np.zeros((2, 4), bool), np.eye(2, 4, dtype=bool)
    assert dice(empty, empty) is None
    assert dice(empty, diagonal) == 0
    assert dice(diagonal, np.ones((2, 4), bool)) == pytest.approx(2 * 2 / (2 + 8))
