"""Categories are those of the score as it is printed."""

import math

import numpy as np
import pytest

from CACScoringLib.core.categories import CATEGORIES, CATEGORY_TITLES, category_numbers, category_of, whole_score


@pytest.mark.parametrize(
    ("agatston", "rounded"),
    [(0, 0), (1e-9, 1), (1.49, 1), (1.5, 2), (2.5, 3)],
)
def test_scores_are_rounded_half_up_but_never_to_zero(agatston, rounded):
    assert whole_score(agatston) == rounded


@pytest.mark.parametrize("agatston", [-0.1, math.nan, math.inf])
def test_what_is_no_score_is_refused(agatston):
    with pytest.raises(ValueError, match="from 0 up"):
        whole_score(agatston)


def test_categories_begin_above_zero_and_at_100_and_400_of_the_rounded_score():
    scores = np.array([[0, 1e-9, 0.3], [99.49, 99.5, 399.49], [399.5, 1e5, 100]])
    numbers = category_numbers(scores)
    assert numbers.tolist() == [[0, 1, 1], [1, 2, 2], [3, 3, 2]]
    for score, number in zip(scores.flat, numbers.flat, strict=True):
        assert category_of(score) == CATEGORIES[number]
    assert len(CATEGORY_TITLES) == len(CATEGORIES)


def test_negative_estimates_are_in_the_lowest_category():
    assert category_numbers(np.array([-3.0, np.nan])).tolist() == [0, 0]
