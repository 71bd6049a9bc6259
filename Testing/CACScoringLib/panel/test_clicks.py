"""Decisions of the effect CAC Lesion about a click, without Slicer and Qt."""

import numpy as np
import pytest

from CACScoringLib.panel.effects import clicks
from CACScoringLib.review.picking import PickLimits, pick_lesion

SPACING_MM = (3.0, 0.5, 0.5)
SITES = np.zeros((1, 5, 9), np.uint8)
"""A lesion of six voxels in a row: the first two in the LAD, the next three in the LM, the last without a site."""
SITES[0, 2, 1:7] = 1, 1, 2, 2, 2, 0
HU = np.zeros(SITES.shape, np.int16)
HU[0, 2, 1:7] = 400
NAMES = {1: "LAD", 2: "LM"}


def pick(i: int, across: bool = False):
    """Pick the lesion at a column, within its site or across sites."""
    return pick_lesion(HU, (0, 2, i), SPACING_MM, sites=None if across else SITES.__getitem__)


def sites_of(voxels) -> dict[str, int]:
    numbers = SITES[voxels.part][voxels.mask]
    return {name: int((numbers == n).sum()) for n, name in NAMES.items() if (numbers == n).any()}


def offer(segment: str, i: int = 1):
    return clicks.offer_across(pick(i), pick(i, across=True), segment, sites_of, float(np.prod(SPACING_MM)))


def test_the_parts_at_other_sites_are_offered():
    """Of 0.75 mm³ a voxel."""
    assert offer("LAD").parts_mm3 == pytest.approx({"LM": 2.25, "": 0.75})
    assert offer("RCA").parts_mm3 == pytest.approx({"LAD": 1.5, "LM": 2.25, "": 0.75})
    assert offer("LAD").lesion.count == 6


def test_nothing_is_offered_for_a_lesion_that_ends_with_its_site_or_leaks():
    across_sites = pick(1, across=True)
    assert clicks.offer_across(across_sites, across_sites, "LAD", lambda voxels: {"LAD": voxels.count}, 1.0) is None
    assert clicks.offer_across(across_sites, None, "LAD", sites_of, 1.0) is None
    leaked = pick_lesion(HU, (0, 2, 1), SPACING_MM, limits=PickLimits(most_volume_mm3=1.0))
    assert leaked.leaked
    assert clicks.offer_across(pick(1), leaked, "LAD", sites_of, 1.0) is None


def test_a_second_click_takes_the_offer_in_its_lesion_and_segment_alone():
    offered = offer("LAD")
    assert offered.is_taken("LAD", (0, 2, 6))
    assert not offered.is_taken("LM", (0, 2, 6))
    assert not offered.is_taken("LAD", (0, 0, 0))
    assert not offered.is_taken("LAD", None)


def test_a_leak_is_refused_before_a_missing_segment():
    leaked = pick_lesion(HU, (0, 2, 1), SPACING_MM, limits=PickLimits(most_volume_mm3=1.0))
    for segment in ("LAD", ""):
        text, values = clicks.refusal(leaked, segment)
        assert "larger than 1 mm³" in text.format(**values)
    assert "Choose an artery" in clicks.refusal(pick(1), "").text
    assert clicks.refusal(pick(1), "LAD") is None


@pytest.mark.parametrize(
    ("former", "changed", "expected"),
    [
        (["LM"], 3, "Moved to LAD from LM: a."),
        ([], 3, "Added to LAD: a."),
        (["LM"], 0, "It belongs to LAD already, or is masked."),
    ],
)
def test_outcome(former, changed, expected):
    text, values = clicks.outcome("LAD", former, "a", changed)
    assert text.format(**values) == expected


@pytest.mark.parametrize(
    ("hu", "expected"), [(None, "scan ends here"), (129.0, "129 HU, below"), (130.0, "Outside the heart")]
)
def test_why_nothing_is_there(hu, expected):
    text, values = clicks.nothing_there(hu, 130.0)
    assert expected in text.format(**values)
