"""Intervals and probabilities of hand-made errors, whose answers are known on paper."""

import math
from dataclasses import replace

import pytest
from calibrated_cards import calibration_of

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError
from CACScoringLib.quality.calibration import Limits as RepeatabilityLimits
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.scoring.uncertainty import (
    CATEGORIES,
    LIMITS,
    TOTAL,
    Amount,
    Intervals,
    ScanErrors,
    ScoreErrors,
    Uncertainty,
    category_of,
    difficulty,
    shortest,
)


def with_errors(*errors, quantity="agatston", chances=((0.0, 0.0, 0.0),) * 3):
    return ScoreErrors(quantity, 0.0, 0.0, errors, chances)


@pytest.mark.parametrize(
    ("noise_hu", "thickness_mm", "expected"),
    [
        (20.0, 3.0, 1.0),
        (None, None, 1.0),
        (10.0, 3.0, 1.0),  # less noise is no easier
        (40.0, 3.0, 1.5),
        (60.0, 3.0, 2.0),
        (20.0, 6.0, 1.25),
        (20.0, 1.5, 1.25),
        (20.0, 0.75, 1.5),
        (40.0, 1.5, 1.75),
    ],
)
def test_difficulty_grows_with_noise_and_with_thickness_either_way(noise_hu, thickness_mm, expected):
    """One half for twice the noise, a quarter for twice or half the thickness."""
    assert difficulty((0.5, 0.25), noise_hu, thickness_mm) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("errors", "level", "expected"),
    [
        ((), 0.9, (-math.inf, math.inf)),
        ((-2.0, 3.0), 0.9, (-2.0, 3.0)),
        ((-9.0, -1.0, 0.0, 1.0), 0.5, (-1.0, 1.0)),
        ((-3.0, -2.0, 0.0, 1.0), 0.5, (-2.0, 1.0)),  # of two as short, that about zero
        ((-1.0, 0.0, 2.0, 3.0), 0.5, (-1.0, 2.0)),
        (tuple(range(-10, 10)), 0.9, (-9, 9)),  # 19 of 20, one more than nine of ten
        (tuple(range(-19, 20)), 0.9, (-18, 17)),  # 36 of 39, nine of ten of 40
        ((*[n / 100 for n in range(36)], 2.0, 3.0, 4.0), 0.9, (0.0, 0.35)),  # misses at one end widen nothing
    ],
)
def test_shortest_range(errors, level, expected):
    assert shortest(errors, level) == expected


@pytest.mark.parametrize(
    ("quantity", "score", "place", "expected"),
    [
        ("agatston", 0.5, 0, (0.0, 1.0)),
        ("agatston", 50.0, 1, (1.0, 100.0)),
        ("agatston", 150.0, 2, (100.0, 400.0)),
        ("mass_mg", 0.1, 0, (0.0, 0.2)),
        ("mass_mg", 5.0, 1, (0.2, 20.0)),
        ("mass_mg", 30.0, 2, (20.0, 80.0)),
    ],
)
def test_an_interval_of_a_single_class_ends_at_its_limits(quantity, score, place, expected):
    """The errors of this class are wide, those of lower ones far too large for them, those of higher ones too small."""
    errors = [(50.0,)] * place + [(-20.0, 20.0)] + [(-50.0,)] * (3 - place)
    assert with_errors(*errors, quantity=quantity).interval(score) == expected


def test_an_interval_by_hand():
    """Errors of ± ln 2 double 1 + score; a difficulty of 1.5 and a distance of 1 make that eightfold."""
    ln2 = math.log(2)
    errors = replace(with_errors(*[(-ln2, ln2)] * 4), noise_weight=0.5)
    assert errors.interval(199.0) == pytest.approx((99.0, 399.0))
    assert errors.interval(199.0, 40.0, 3.0, 1.0) == pytest.approx((24.0, 1599.0))


@pytest.mark.parametrize(("score", "expected"), [(99.0, (0.1, 0.4, 0.25, 0.25)), (0.0, (0.5, 0.5, 0.0, 0.0))])
def test_probabilities_of_classes(score, expected):
    """Log-odds of nine to one, even and one to three of reaching 1, 100 and 400 at ln(1 + score) = ln 100; at a score
    of 0 even, and next to nothing."""
    ln100 = math.log(100)
    nine, third = math.log(9) / ln100, -math.log(3) / ln100
    chances = ((nine, 0.0, 0.0), (1.0, -60.0, -ln100), (third, -60.0, 0.0))
    errors = with_errors((-9.0, 0.0), (0.0,), (0.0,), (0.0,), chances=chances)
    assert errors.probabilities(score) == pytest.approx(expected, abs=1e-9)


def test_a_score_above_those_of_all_without_calcium_leaves_no_probability_of_none():
    """The highest such score was e² − 1; at twice the errors e⁴ − 1 is."""
    chances = ((0.0, 0.0, 0.0), (0.0, 0.0, -math.log(3)), (0.0, 0.0, -math.log(3)))
    errors = with_errors((-2.0, 0.0), (0.0,), (0.0,), (0.0,), chances=chances)
    assert errors.probabilities(math.expm1(1.9)) == pytest.approx((0.5, 0.25, 0.0, 0.25))
    assert errors.probabilities(math.expm1(2.1)) == pytest.approx((0.0, 0.5, 0.0, 0.5))
    assert errors.probabilities(math.expm1(2.1), scale=2.0) == pytest.approx((0.5, 0.25, 0.0, 0.25))


@pytest.mark.parametrize(("score", "expected"), [(0.0, (0.75, 0.0, 0.0, 0.25)), (0.5, (0.5, 0.0, 0.0, 0.5))])
def test_a_score_of_zero_has_a_weight_of_its_own(score, expected):
    """One to three of reaching every limit at a score of 0, else even."""
    errors = with_errors((-9.0, 0.0), (0.0,), (0.0,), (0.0,), chances=((0.0, -math.log(3), 0.0),) * 3)
    assert errors.probabilities(score) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("part", "score", "mass_mg", "expected"),
    [
        (Intervals((10.0, 50.0), (1.0, 5.0)), 30.0, 3.0, Intervals((10.0, 40.0), (1.0, 4.0))),
        (Intervals((10.0, 30.0), (1.0, 3.0)), 30.0, 3.0, Intervals((10.0, 30.0), (1.0, 3.0))),
        (Intervals((10.0, 50.0), (1.0, 5.0)), 45.0, 4.5, Intervals((10.0, 45.0), (1.0, 4.5))),  # holds the score
        (Intervals((10.0, 50.0), (1.0, 5.0)), 30.0, None, Intervals((10.0, 40.0), (1.0, 5.0))),
        (Intervals((10.0, 50.0)), 30.0, 3.0, Intervals((10.0, 40.0))),
        (Intervals((50.0, 90.0)), 60.0, None, Intervals((50.0, 60.0))),  # its own score exceeds the total
    ],
)
def test_an_arterys_interval_ends_with_the_totals(part, score, mass_mg, expected):
    total = Intervals((0.0, 40.0), (0.0, 4.0))
    assert part.within(total, Amount(score, mass_mg)) == expected


def doubling(factor, quantity="agatston"):
    """Errors by which 1 + the true score lies within that factor of 1 + the score, in its class."""
    width = math.log(factor)
    return replace(with_errors(*[(-width, width)] * 4, quantity=quantity), noise_weight=1.0)


@pytest.mark.parametrize(
    ("facts", "total", "artery"),
    [
        ((None, None), (99.0, 399.0), (24.0, 399.0)),  # factors 2 and 4, to 1599 for the artery: no more than the total
        ((20.0, 3.0), (99.0, 399.0), (24.0, 399.0)),
        ((40.0, 3.0), (49.0, 799.0), (5.25, 799.0)),  # twice the noise squares them
        ((20.0, 3.0, 1.0), (49.0, 799.0), (5.25, 799.0)),  # and so does a distance of 1
    ],
)
def test_intervals_of_total_and_artery_by_hand(facts, total, artery):
    """From a score of 199, of the LAD 99."""
    errors = Uncertainty({"agatston": doubling(2)}, {"agatston": doubling(4)})
    intervals = errors.intervals({TOTAL: Amount(199.0), "LAD": Amount(99.0)}, *facts)
    assert intervals[TOTAL].agatston == pytest.approx(total)
    assert intervals["LAD"].agatston == pytest.approx(artery)
    assert intervals[TOTAL].mass_mg is None


def test_intervals_of_masses():
    errors = {"agatston": doubling(2), "mass_mg": doubling(2, "mass_mg")}
    score = Amount(199.0, 39.0)
    intervals = Uncertainty(errors, {}).intervals({TOTAL: score, "LAD": score}, None, None)
    assert intervals.keys() == {TOTAL}
    assert intervals[TOTAL].mass_mg == pytest.approx((19.0, 79.0))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (100.0, (100 - 40 * 1.645 / 1.96, 100 + 40 * 1.645 / 1.96)),
        (0.0, (0.0, 20 * 1.645 / 1.96)),
        (500.0, (500 - 120 * 1.645 / 1.96, 500 + 120 * 1.645 / 1.96)),
        (501.0, None),  # beyond the study
    ],
)
def test_intervals_of_a_reviewed_score(score, expected):
    """95 % of differences below 2 · (10 + 0.1 · score); of nine in ten by the normal distribution."""
    limits = {"threshold": {"agatston": {"total": RepeatabilityLimits(10.0, 0.1, 2.0, 99, 500.0)}}}
    study = Repeatability(True, "", "", {}, None, {}, limits)
    errors = ScanErrors({}, None, None, repeatability=study)
    intervals = errors.of_reviewed({TOTAL: Amount(score), "LAD": Amount(score)})
    assert intervals == ({} if expected is None else {TOTAL: Intervals(pytest.approx(expected))})
    assert replace(errors, repeatability=None).of_reviewed({TOTAL: Amount(0.0)}) == {}


STORED = {
    "quantity": "agatston",
    "noise_weight": 1,
    "thickness_weight": 2,
    "errors": [[0], [1], [2], [3, 4]],
    "chances": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
}


def test_errors_come_back_from_a_card():
    errors = restore(STORED, ScoreErrors)
    assert errors == ScoreErrors("agatston", 1.0, 2.0, ((0,), (1,), (2,), (3, 4)), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    assert errors.difficulty(60.0, 12.0) == pytest.approx(1 + 2 * 1 + 2 * 2)
    stored = {"uncertainty": {"automatic": {"total": {"agatston": STORED}, "artery": {}}}}
    assert calibration_of(stored).uncertainty == {"automatic": Uncertainty({"agatston": errors}, {})}
    assert calibration_of({}).uncertainty == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"errors": [[0], [1], [2]]},
        {"errors": [[0]] * 5},
        {"chances": [[1, 2, 3]] * 2},
        {"chances": [[1, 2]] * 3},
        {"quantity": "volume"},
        {"noise_weight": None},
        {"errors": None},
    ],
)
def test_errors_of_other_versions_are_refused(changed):
    with pytest.raises(CTError, match=r"Calibrate (it|the model) again"):
        calibration_of({"uncertainty": {"automatic": {"total": {"agatston": STORED | changed}, "artery": {}}}})


def test_categories_begin_at_1_100_and_400():
    assert LIMITS["agatston"] == (1.0, 100.0, 400.0)
    expected = [name for name in CATEGORIES for _ in range(2)][1:-1]
    assert [category_of(score) for score in (0, 1, 99, 100, 399, 400)] == expected
