"""Test the operating points on the card of a slice classifier."""

from dataclasses import replace

import pytest
from handmade_networks import COMPACT

from CACScoringLib.core.errors import ModelError
from CACScoringLib.models.cards import Training, describe, find_model
from CACScoringLib.models.operating_points import (
    OPERATING_POINTS,
    PUBLISHED,
    SCORING,
    OperatingPoint,
    operating_point,
    published_limit,
)

POINTS = {
    PUBLISHED: {"threshold": 0.9, "sensitivity": 0.5, "false_positive_rate": 0.06},
    SCORING: {"threshold": 0.05, "sensitivity": 0.95, "false_positive_rate": 0.8, "accuracy": 0.3},
}


def card(points, limit=0.05):
    about = ({OPERATING_POINTS: points}, {"slice_threshold": limit}, "Apache-2.0", "Tests only.")
    return describe("c", COMPACT["slices"], "custom", Training("none", 0, {}, ""), *about)


def test_both_points_are_read():
    assert operating_point(card(POINTS), PUBLISHED) == OperatingPoint(0.9, 0.5, 0.06)
    assert operating_point(card(POINTS), SCORING).false_positive_rate == 0.8


@pytest.mark.parametrize(
    "points", [{}, None, {PUBLISHED: {"threshold": 0.9}}, {PUBLISHED: {**POINTS[PUBLISHED], "threshold": "x"}}]
)
def test_a_card_without_the_point_is_refused(points):
    with pytest.raises(ModelError, match=r"card of c .*'published'"):
        operating_point(card(points), PUBLISHED)
    assert published_limit(card(points)) is None


def test_rates_of_another_limit_are_refused():
    """A calibration that changes the limit leaves rates that nobody measured."""
    with pytest.raises(ModelError, match=r"limit 0.05, and scoring uses 0.2"):
        operating_point(card(POINTS, 0.2), SCORING)
    assert operating_point(card(POINTS, 0.2), PUBLISHED).threshold == 0.9


def test_an_older_card_is_refused():
    older = replace(card(POINTS), validation={"threshold": 0.9, "sensitivity": 0.5})
    with pytest.raises(ModelError):
        operating_point(older, PUBLISHED)


def test_the_bundled_classifier_states_both():
    bundled = find_model("slices").card
    published, scoring = operating_point(bundled, PUBLISHED), operating_point(bundled, SCORING)
    assert scoring.threshold < published.threshold
    assert scoring.sensitivity > published.sensitivity
