"""Doubtful lesions that decide a score are named; others are not."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LesionSet, Verdict
from CACScoringLib.scoring.doubt import decisive_warning, impact, stent_warning
from CACScoringLib.scoring.intervals import with_intervals
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import method_score, non_coronary_score
from CACScoringLib.scoring.uncertainty import LIMITS, ScanErrors, ScoreErrors, Uncertainty

SPACING_MM = (1.0, 1.0, 3.0)


def score_of(*lesions):
    """Score lesions given by (voxels of 450 HU, probability, counts): 4 Agatston points a voxel."""
    hu = np.zeros((2 * len(lesions), 4, 120), np.float32)
    for number, (voxels, *_) in enumerate(lesions):
        hu[2 * number, 1, :voxels] = 450
    image = image_of(hu, SPACING_MM)
    found = find_lesions(image, np.where(hu > 0, np.uint8(Artery.RCA), 0), ScoringRules())
    by_slice = {lesion.slices[0]: lesion.id for lesion in found.lesions}
    ids = [by_slice[2 * number] for number in range(len(lesions))]
    facts = dict(zip(ids, lesions, strict=True))
    judged = found.with_columns(verdict=[verdict_of(*facts[number][1:]) for number in found.ids])
    return method_score("automatic", ScoringRules(), judged)


def verdict_of(probability, counts):
    about = {"artery": Artery.RCA, "confidence": 1.0, "not_coronary_probability": 1 - probability}
    return Verdict(**about, counts=counts, reason="" if counts else "faint")


def warning_of(*lesions):
    return decisive_warning(score_of(*lesions))


@pytest.mark.parametrize(
    ("lesions", "decides"),
    [
        ([(10, 0.95, True)], False),
        ([(10, 0.6, True)], True),
        ([(10, 0.4, False)], True),
        ([(10, 0.05, False)], False),
        ([(10, 0.19, False)], False),
        ([(10, 0.21, False)], True),
        ([(100, 0.95, True), (10, 0.5, True)], True),
        ([(110, 0.95, True), (10, 0.5, True)], False),
        ([(110, 0.95, True), (10, 0.5, False)], False),
        ([(95, 0.95, True), (10, 0.5, False)], True),
    ],
    ids=[
        "sure",
        "zero without",
        "zero with",
        "surely none",
        "hardly any",
        "a fifth",
        "class",
        "same class",
        "higher, same class",
        "class up",
    ],
)
def test_a_change_of_class_or_of_a_fifth_decides(lesions, decides):
    codes = [warning.code for warning in warning_of(*lesions)]
    assert codes == (["doubt-decides"] if decides else [])


def test_a_fifth_of_the_score_decides_within_a_class():
    assert warning_of((20, 0.95, True), (4, 0.5, False)) == []
    (warning,) = warning_of((19, 0.95, True), (5, 0.5, False))
    assert warning.code == "doubt-decides"


def errors_of_a_factor(factor):
    """Errors by which the truth lies within a factor of 1 + score, the same in all classes."""
    rising = tuple(np.linspace(-np.log(factor), np.log(factor), 41).tolist())
    errors = ScoreErrors("agatston", 0.0, 0.0, (rising,) * 4, ((0.0, 0.0, 0.0),) * 3)
    return ScanErrors({"automatic": Uncertainty({"agatston": errors}, {"agatston": errors})}, None, None)


@pytest.mark.parametrize(
    ("lesions", "low", "high"),
    [
        ([(100, 0.95, True), (10, 0.95, True)], 440, 440),
        ([(100, 0.95, True), (90, 0.6, True)], 400, 760),
        ([(100, 0.95, True), (90, 0.4, False)], 400, 760),
        ([(20, 0.95, True), (90, 0.6, True), (80, 0.3, False)], 80, 760),
        ([(5, 0.6, True)] * 6, 0, 120),
    ],
    ids=["certain", "counted", "left out", "both", "none decides alone"],
)
def test_the_interval_spans_both_answers(lesions, low, high):
    """Of errors of a factor of 1.5 each way, nine in ten count."""
    method = score_of(*lesions)
    scored = with_intervals(method, errors_of_a_factor(1.5))
    expected = [(1 + method.total.agatston) * 1.5**power - 1 for power in (-0.9, 0.9)]
    for ends in (scored.total.interval_90, scored.arteries["RCA"].interval_90):
        assert ends == pytest.approx((min(low, expected[0]), max(high, expected[1])), rel=0.05)


@pytest.mark.parametrize(
    ("lesions", "probabilities"),
    [
        ([(50, 0.95, True)], (0, 0, 1, 0)),
        ([(50, 0.7, True)], (0.3, 0, 0.7, 0)),
        ([(50, 0.25, False)], (0.75, 0, 0.25, 0)),
        ([(150, 0.6, True), (50, 0.8, True)], (0, 0, 0.4, 0.6)),
    ],
    ids=["certain", "counted", "left out", "two, of which the largest"],
)
def test_categories_of_both_answers_are_weighed(lesions, probabilities):
    """Errors and chances leave no doubt about a score itself."""
    steep = tuple((100.0, 0.0, -100.0 * np.log1p(limit - 0.5)) for limit in LIMITS["agatston"])
    errors = replace(errors_of_a_factor(1.0).by_kind["automatic"].total["agatston"], chances=steep)
    known = ScanErrors({"automatic": Uncertainty({"agatston": errors}, {"agatston": errors})}, None, None)
    scored = with_intervals(score_of(*lesions), known)
    assert list(scored.category_probabilities.values()) == pytest.approx(probabilities, abs=1e-6)


def test_doubtful_calcium_elsewhere_gives_an_alternative():
    """A zero beside calcium of the root that has a probability of .3 of being coronary."""
    method = score_of((10, 0.3, False))
    (lesion,) = method.left_out
    root = LesionSet.of([replace(lesion, site=NonCoronary.AORTIC_VALVE)], method.table.every)
    zero = replace(method, left_out=())
    assert with_intervals(zero, errors_of_a_factor(1.5)).alternative_agatston is None
    zero = replace(zero, non_coronary=non_coronary_score(False, root))
    scored = with_intervals(zero, errors_of_a_factor(1.5))
    assert scored.alternative_agatston == 40
    assert scored.total.interval_90 == pytest.approx((0, 40))
    assert [warning.code for warning in decisive_warning(zero)] == ["doubt-decides"]


def test_candidates_that_nobody_judged_are_not_doubted():
    hu = np.zeros((2, 4, 20), np.float32)
    image = sitk.GetImageFromArray(hu)
    nothing = find_lesions(image, hu.astype(np.uint8), ScoringRules())
    assert decisive_warning(method_score("candidates", ScoringRules(), nothing)) == []


def test_the_interval_holds_the_score_without_possible_stents():
    method = score_of((100, 0.99, True), (40, 0.99, True))
    stent = method.lesions[-1]
    named = replace(stent, verdict=replace(stent.verdict, is_stent=True))
    method = replace(method, lesions=(*method.lesions[:-1], named))
    scored = with_intervals(method, errors_of_a_factor(1.0))
    without = method.total.agatston - stent.agatston
    assert scored.total.interval_90 == pytest.approx((without, method.total.agatston), rel=1e-6)
    assert decisive_warning(method) == []
    assert [warning.code for warning in stent_warning(method)] == ["possible-stent"]
    assert not scored.withheld


def test_the_impact_of_a_lesion_is_its_score_times_the_probability_of_an_error():
    method = score_of((100, 0.95, True), (20, 0.6, True), (30, 0.1, False), (40, 0.01, False))
    lesions = (*method.lesions, *method.left_out)
    impacts = {lesion.agatston: impact(method, lesion) for lesion in lesions}
    assert impacts == pytest.approx({400: 20, 80: 32, 120: 12, 160: 1.6})
    assert impact(replace(method, alternative_lesion=lesions[3].id), lesions[3]) == np.inf
    assert impact(method, replace(lesions[0], verdict=None)) == 0, "far from all arteries"
