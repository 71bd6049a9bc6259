"""Calcium of the aortic root at ostia: where it is stated, and what interval and categories make of it."""

from dataclasses import replace

import heart_with_territories as heart
import numpy as np
import pytest

from CACScoringLib.anatomy.courses import Course
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import TERRITORIES, Artery, NonCoronary
from CACScoringLib.facts.measurement import ScanFacts
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.ostium import ostial_calcium, ostium_warning
from CACScoringLib.scoring.score import LesionLabels, score
from CACScoringLib.scoring.uncertainty import ScanErrors, ScoreErrors, Uncertainty

ROOT_END = 24
"""Column at which the root's territory ends, and that of the RCA begins; voxels are 1 mm wide."""

RULES = ScoringRules()


def facts_of(columns, hu=450, artery="RCA"):
    """Return a scan with calcium of the root in these columns, 4 rows and 2 slices of 3 mm, and its lesions."""
    scan = heart.scan()
    values = np.minimum(scan.hu, 100)
    place = (slice(6, 8), slice(18, 22), slice(*columns))
    values[place] = hu
    scan = replace(scan, image=Grid.of(scan.image).image(values))
    rows = slice(2, 12), slice(10, 30)
    boxes = {"aortic valve and root": (*rows, slice(4, ROOT_END)), artery: (*rows, slice(ROOT_END, 56))}
    region = heart.region_of(scan.image, boxes)
    sites = np.zeros(values.shape, np.uint8)
    sites[place] = NonCoronary.AORTIC_VALVE
    return ScanFacts(scan, region, RULES), find_lesions(scan, sites, RULES)


def found_in(columns, decided=(), artery="RCA", **facts):
    """Return the scores by artery, of an artery that runs along a row of voxels."""
    facts, table = facts_of(columns, artery=artery, **facts)
    distances_mm = np.arange(56.0 - ROOT_END)
    places_mm = np.stack([np.full(32, 19.5), np.full(32, 19.5), ROOT_END + distances_mm], axis=1)
    courses = {Artery[artery]: Course(places_mm, distances_mm, 0.0, 31.0)}
    lesions = ostial_calcium(facts.scan, RULES, table, facts.region.territory_labels, courses, decided)
    return {lesion.site: round(lesion.agatston) for lesion in lesions}


@pytest.mark.parametrize("artery", ["RCA", "LM"])
def test_the_part_in_the_beginning_of_an_artery_is_stated(artery):
    """Two of eight columns, of 4 × 2 voxels of 1 mm² and a weight of 4 in each slice."""
    assert found_in((18, 26), artery=artery) == {Artery[artery]: 2 * 4 * 2 * 4}


def test_no_more_than_eight_millimetres_are():
    assert found_in((18, 50)) == {Artery.RCA: pytest.approx(8.5 * 4 * 2 * 4, abs=0.5 * 4 * 2 * 4)}


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        ((14, 24), {}),
        ((40, 50), {}),
        ((18, 25), {"hu": 150}),
        ((18, 26), {"artery": "LAD"}),
        ((18, 26), {"decided": (1,)}),
    ],
    ids=["in the root", "farther along", "below 30", "another artery", "a reader decided"],
)
def test_other_calcium_of_the_root_is_not(columns, facts):
    assert found_in(columns, **facts) == {}


def test_without_territories_nothing_is_stated():
    facts, table = facts_of((18, 26))
    assert ostial_calcium(facts.scan, RULES, table, None) == []
    assert ostial_calcium(facts.scan, RULES, table, np.zeros_like(facts.region.territory_labels)) == []
    assert TERRITORIES.index("RCA") in facts.region.territory_labels


def test_upper_end_and_categories_include_it():
    """Nothing counts: without calcium at the ostium zero is certain, with it as likely as not."""
    errors = ScanErrors({"automatic": Uncertainty(ScoreErrors(0.1, 0.9), ScoreErrors(0.1, 0.9))})

    def scored(columns):
        facts, table = facts_of(columns)
        return score(facts, LesionLabels("automatic", RULES, table, knows_elsewhere=True), errors)

    silent, doubtful = scored((14, 24)), scored((18, 26))
    assert silent.total.interval_90 == pytest.approx((0, 0), abs=0.2)
    assert silent.category_probabilities["0"] == pytest.approx(1.0, abs=1e-6)
    for part in (doubtful.total, doubtful.arteries["RCA"]):
        assert part.agatston == 0
        assert part.interval_90[0] == pytest.approx(0, abs=0.2)
        assert 40 < part.interval_90[1] < 90
    assert doubtful.arteries["LAD"].interval_90 == silent.arteries["LAD"].interval_90
    assert doubtful.category_probabilities["0"] == pytest.approx(0.5, abs=0.01)
    assert doubtful.category_probabilities["1-99"] == pytest.approx(0.5, abs=0.01)


def test_it_is_named_by_a_mild_warning():
    facts, table = facts_of((18, 26))
    (warning,) = ostium_warning(ostial_calcium(facts.scan, RULES, table, facts.region.territory_labels))
    assert (warning.code, warning.severe) == ("ostium-doubtful", False)
    assert ostium_warning([]) == []
