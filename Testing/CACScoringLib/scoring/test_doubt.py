"""Doubtful lesions that decide a score are named; others are not."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LesionSet, Verdict
from CACScoringLib.scoring.doubt import (
    decisive_warning,
    doubtful_lesions,
    impact,
    stent_warning,
    total_without_stents,
)
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import method_score, non_coronary_score
from CACScoringLib.scoring.uncertainty import ScanErrors, ScoreErrors, Uncertainty, with_intervals

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
        ([(10, 0.09, False)], False),
        ([(10, 0.11, False)], True),
        ([(10, 0.91, True)], False),
        ([(10, 0.89, True)], True),
        ([(100, 0.95, True), (10, 0.5, True)], True),
        ([(110, 0.95, True), (10, 0.5, True)], False),
        ([(95, 0.95, True), (10, 0.5, False)], True),
        ([(20, 0.95, True), (4, 0.5, False)], False),
        ([(19, 0.95, True), (5, 0.5, False)], True),
    ],
    ids=[
        *("hardly any", "one of nine", "hardly none", "eight of nine", "class", "same class", "class up"),
        *("less than a fifth", "a fifth"),
    ],
)
def test_a_change_of_class_or_of_a_fifth_decides(lesions, decides):
    codes = [warning.code for warning in warning_of(*lesions)]
    assert codes == (["doubt-decides"] if decides else [])


def errors_of(spread, level=0.9):
    """Errors of automatic scores, the same of arteries."""
    errors = ScoreErrors(spread, level)
    return ScanErrors({"automatic": Uncertainty(errors, errors)})


CERTAIN_ERRORS = errors_of(0.001)
"""Errors that leave the sum of the lesions as it is."""


@pytest.mark.parametrize(
    ("lesions", "low", "high"),
    [
        ([(100, 1.0, True), (10, 1.0, True)], 440, 440),
        ([(100, 1.0, True), (90, 0.6, True)], 400, 760),
        ([(100, 1.0, True), (90, 0.4, False)], 400, 760),
        ([(100, 1.0, True), (90, 0.02, False)], 400, 400),
        ([(100, 1.0, True), (90, 0.02, True)], 400, 760),
    ],
    ids=["certain", "counted", "left out", "too improbable", "improbable but counted"],
)
def test_intervals_hold_all_likely_sums_and_the_score_itself(lesions, low, high):
    scored = with_intervals(score_of(*lesions), CERTAIN_ERRORS)
    for part in (scored.total, scored.arteries["RCA"]):
        assert part.interval_90 == pytest.approx((low, high), rel=0.02)
        assert part.mass_interval_90 is None
    assert scored.arteries["LAD"].interval_90 == pytest.approx((0, 0), abs=0.02)


def test_intervals_of_many_doubtful_lesions_are_narrower_than_all_or_none():
    """With even chances 5 to 11 of 16 lesions of 20 belong, and all or none almost never."""
    low, high = with_intervals(score_of((100, 1.0, True), *[(5, 0.5, True)] * 16), CERTAIN_ERRORS).total.interval_90
    assert low == pytest.approx(400 + 5 * 20, rel=0.02)
    assert high == pytest.approx(400 + 16 * 20, rel=0.02)  # widened to the score, in which all count


def test_intervals_of_masses_hold_the_mass():
    """1 mg per 1000 HU mm³: a voxel of 3 mm³ and 450 HU has 1.35 mg."""
    rules = ScoringRules(calibration_mg_per_mm3_hu=0.001)
    for probability, low in ((1.0, 27.0), (0.5, 13.5), (0.01, 13.5)):
        method = replace(score_of((10, 1.0, True), (10, probability, True)), rules=rules)
        interval = with_intervals(method, CERTAIN_ERRORS).total.mass_interval_90
        assert interval == pytest.approx((low, 27.0), rel=0.02)


def test_a_single_plaque_that_is_not_certain_has_an_interval_from_zero():
    scored = with_intervals(score_of((40, 0.91, True)), CERTAIN_ERRORS)
    assert scored.total.interval_90 == pytest.approx((0, 160), abs=2)
    assert scored.category_probabilities["0"] == pytest.approx(0.09, abs=0.01)


def test_intervals_are_determined_by_a_readers_decision():
    method = score_of((1, 1.0, True), (50, 0.3, False))
    decided = [lesion.id for lesion in method.left_out]
    scored = with_intervals(method, CERTAIN_ERRORS, decided)
    assert scored.total.interval_90 == pytest.approx((4, 4), rel=0.02)
    assert scored.category_probabilities["1-99"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("lesions", "probabilities"),
    [
        ([(50, 0.25, False)], (0.75, 0, 0.25, 0)),
        ([(110, 0.97, True), (10, 0.8, True)], (0.006, 0.024, 0, 0.97)),
    ],
    ids=["left out", "both answers of two"],
)
def test_categories_of_all_sums_are_weighed(lesions, probabilities):
    scored = with_intervals(score_of(*lesions), CERTAIN_ERRORS)
    assert list(scored.category_probabilities.values()) == pytest.approx(probabilities, abs=1e-6)


def test_doubtful_calcium_elsewhere_gives_an_alternative():
    """A zero beside calcium of the root that has a probability of .3 of being coronary."""
    method = score_of((10, 0.3, False))
    (lesion,) = method.left_out
    root = LesionSet.of([replace(lesion, site=NonCoronary.AORTIC_VALVE)], method.table.every)
    zero = replace(method, table=method.table.part([]))
    assert with_intervals(zero, CERTAIN_ERRORS).alternative_agatston is None
    zero = replace(zero, table=root, non_coronary=non_coronary_score(False, root))
    scored = with_intervals(zero, CERTAIN_ERRORS)
    assert scored.alternative_agatston == 40
    assert scored.total.interval_90 == pytest.approx((0, 40), rel=0.02, abs=0.02)
    assert [warning.code for warning in decisive_warning(zero)] == ["doubt-decides"]


def test_candidates_that_nobody_judged_are_not_doubted():
    hu = np.zeros((2, 4, 20), np.float32)
    image = sitk.GetImageFromArray(hu)
    nothing = find_lesions(image, hu.astype(np.uint8), ScoringRules())
    assert decisive_warning(method_score("candidates", ScoringRules(), nothing)) == []


def test_possible_stents_are_named():
    method = score_of((100, 0.99, True), (40, 0.99, True))
    stent = method.lesions[-1]
    named = replace(stent, verdict=replace(stent.verdict, is_stent=True))
    method = replace(method, table=LesionSet.of((*method.lesions[:-1], named)))
    assert decisive_warning(method) == []
    (warning,) = stent_warning(method)
    assert warning.code == "possible-stent"
    assert f"lesion {stent.id})" in warning.message
    assert doubtful_lesions(method) == [named]


def stented(*cases, stents):
    """A score of lesions, of which those of these Agatston scores look like stents."""
    method = score_of(*cases)
    lesions = [
        replace(lesion, verdict=replace(lesion.verdict, is_stent=lesion.agatston in stents))
        for lesion in method.lesions
    ]
    return replace(method, table=LesionSet.of(lesions))


def test_stents_that_make_the_class_withhold_the_interval_until_a_reader_has_decided():
    method = stented((10, 0.99, True), (40, 0.99, True), (20, 0.99, True), stents={160, 80})
    assert total_without_stents(method) == 40
    scored = with_intervals(method, CERTAIN_ERRORS)
    largest = max(method.lesions, key=lambda lesion: lesion.agatston)
    assert (scored.alternative_agatston, scored.alternative_lesion) == (40, largest.id)
    assert scored.withheld
    assert not scored.has_intervals
    assert not scored.category_probabilities
    (warning,) = stent_warning(method)
    assert "40" in warning.message
    ids = [lesion.id for lesion in method.lesions]
    decided = with_intervals(method, CERTAIN_ERRORS, ids)
    assert not decided.withheld
    assert decided.has_intervals


def test_stents_that_leave_the_class_withhold_nothing():
    method = stented((25, 0.99, True), (5, 0.99, True), (2, 0.99, True), stents={20})
    assert total_without_stents(method) is None
    scored = with_intervals(method, CERTAIN_ERRORS)
    assert scored.has_intervals
    assert not scored.withheld
    assert [warning.code for warning in stent_warning(method)] == ["possible-stent"]


def test_the_map_beside_a_withheld_score_is_withheld():
    method = score_of((25, 0.99, True))
    assert with_intervals(method, CERTAIN_ERRORS).has_intervals
    withheld = with_intervals(method, CERTAIN_ERRORS, withheld=True)
    assert withheld.withheld
    assert not withheld.has_intervals


def test_the_impact_of_a_lesion_is_its_score_times_the_probability_of_an_error():
    method = score_of((100, 0.95, True), (20, 0.6, True), (30, 0.1, False), (40, 0.01, False))
    lesions = (*method.lesions, *method.left_out)
    impacts = {lesion.agatston: impact(method, lesion) for lesion in lesions}
    assert impacts == pytest.approx({400: 20, 80: 32, 120: 12, 160: 1.6})
    assert impact(replace(method, alternative_lesion=lesions[3].id), lesions[3]) == np.inf
    assert impact(method, replace(lesions[0], verdict=None)) == 0, "far from all arteries"
