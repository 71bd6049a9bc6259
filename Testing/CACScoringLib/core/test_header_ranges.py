"""Numbers of headers have one range each, and every field of an acquisition is held to it."""

import math

import pytest

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.header_ranges import FIELD_RANGES, RANGES, are_in_range
from CACScoringLib.pipeline import ScoreSettings


@pytest.mark.parametrize("keyword", RANGES)
def test_limits_of_a_range_belong_to_it_and_what_lies_beyond_does_not(keyword):
    allowed = RANGES[keyword]
    assert are_in_range(keyword, [allowed.high])
    assert are_in_range(keyword, [allowed.low]) == (not (allowed.is_nonzero and allowed.low == 0))
    beyond = [math.nextafter(allowed.low, -math.inf), math.nextafter(allowed.high, math.inf), math.nan, math.inf]
    assert not any(are_in_range(keyword, [allowed.high, value]) for value in beyond)
    assert are_in_range(keyword, [0.0]) == (allowed.low <= 0 <= allowed.high and not allowed.is_nonzero)


def test_numbers_of_other_elements_have_no_range_but_are_finite():
    assert are_in_range("SeriesNumber", [-1e9])
    assert not are_in_range("SeriesNumber", [math.inf])


@pytest.mark.parametrize("name", FIELD_RANGES)
def test_an_acquisition_holds_no_number_that_no_scanner_writes(name):
    allowed = FIELD_RANGES[name]
    assert getattr(Acquisition("test", **{name: allowed.high}), name) == allowed.high
    for value in (allowed.low - 1, 2 * allowed.high, math.nan):
        with pytest.raises(CTError, match=name):
            Acquisition("test", **{name: value})


@pytest.mark.parametrize("kvp", [0, -120, 120_000, math.nan])
def test_the_option_for_the_tube_voltage_has_the_same_range(kvp):
    with pytest.raises(CTError, match="tube voltage"):
        ScoreSettings(kvp=kvp)
