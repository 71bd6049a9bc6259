"""Intervals and categories of scores by stored errors, whose answers are known on paper."""

import math
from dataclasses import replace

import pytest
from calibrated_cards import calibration_of

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError
from CACScoringLib.quality.calibration import Limits as RepeatabilityLimits
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.scoring.uncertainty import TOTAL, LesionAmounts, ScanErrors, ScoreErrors, Uncertainty


@pytest.mark.parametrize(
    ("level", "distance", "power"), [(0.9, 0.0, 1.6449), (0.9, 0.5, 1.5 * 1.6449), (0.5, 0.0, 0.6745)]
)
def test_intervals_widen_with_the_level_and_the_distance_from_the_calibration_range(level, distance, power):
    errors, lesions = ScoreErrors(0.4, level), LesionAmounts([99.0, 100.0], [1.0, 1.0])
    expected = [200 * math.exp(sign * 0.4 * power) - 1 for sign in (-1, 1)]
    assert errors.interval(lesions, distance) == pytest.approx(expected, rel=0.01)
    assert errors.distribution(lesions, distance).spreads == pytest.approx(0.4 * (1 + distance))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (100.0, (100 - 40 * 1.645 / 1.96, 100 + 40 * 1.645 / 1.96)),
        (0.0, None),  # no reader's zero is known by repeatability
        (500.0, (500 - 120 * 1.645 / 1.96, 500 + 120 * 1.645 / 1.96)),
        (501.0, None),  # beyond the study
    ],
)
def test_intervals_of_a_reviewed_score(score, expected):
    """95 % of differences below 2 · (10 + 0.1 · score); of nine in ten by the normal distribution."""
    limits = {"threshold": {"agatston": {"total": RepeatabilityLimits(10.0, 0.1, 2.0, 99, 500.0)}}}
    study = Repeatability(True, "", "", {}, None, {}, limits)
    errors = ScanErrors(repeatability=study)
    intervals = errors.of_reviewed({TOTAL: score, "LAD": score})
    assert intervals == ({} if expected is None else {TOTAL: pytest.approx(expected)})
    assert replace(errors, repeatability=None).of_reviewed({TOTAL: score}) == {}


STORED = {"spread": 0.5, "level": 0.8}


def test_errors_come_back_from_a_card():
    errors = restore(STORED, ScoreErrors)
    assert errors == ScoreErrors(0.5, 0.8)
    stored = {"uncertainty": {"automatic": {"total": STORED, "artery": {"spread": 1, "level": 0.7}}}}
    assert calibration_of(stored).uncertainty == {"automatic": Uncertainty(errors, ScoreErrors(1.0, 0.7))}
    assert calibration_of({}).uncertainty == {}


@pytest.mark.parametrize(
    "total",
    [
        STORED | {"spread": -0.1},
        STORED | {"spread": math.nan},
        STORED | {"level": 0},
        STORED | {"level": 1},
        {"level": 0.9},
    ],
)
def test_broken_errors_are_refused(total):
    with pytest.raises(CTError, match="Calibrate it again"):
        calibration_of({"uncertainty": {"automatic": {"total": total, "artery": STORED}}})
