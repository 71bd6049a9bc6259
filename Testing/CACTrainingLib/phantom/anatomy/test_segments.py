"""Segments of trees whose borders are known, and plaque spread evenly over them."""

import numpy as np
import pytest
from scipy import stats

from CACTrainingLib.phantom.anatomy.coronaries import CoronaryTree, vessel_along_path
from CACTrainingLib.phantom.anatomy.segments import SEGMENTS, draw_plaque_by_segment, stretches_of

LENGTH_MM = {"LM": 10, "LAD": 90, "LCX": 60, "RCA": 100, "RV": 30, "PDA": 50, "PL": 20, "D1": 25, "D2": 35, "OM1": 40}
LENGTH_MM |= {"OM2": 30, "D3": 15}
ORIGIN_MM = {"RV": 40, "PDA": 80, "PL": 95, "D1": 20, "D2": 50, "D3": 70, "OM1": 24, "OM2": 45}
"""Distance of each branch's origin from its parent's start."""


def tree(dominance="right", without=()):
    """Straight vessels: arteries along x, each in a plane of its own, branches along z."""
    arteries = {"D": "LAD", "O": "LCX", "R": "RCA", "P": "RCA" if dominance == "right" else "LCX"}
    vessels = []
    for name, length in LENGTH_MM.items():
        if name in without:
            continue
        artery = arteries[name[0]] if name in ORIGIN_MM else name
        start = np.array([ORIGIN_MM.get(name, 0), 50.0 * list(LENGTH_MM).index(artery), 0])
        # A vessel ends at the last of its points, which are 0.5 mm apart.
        end = start + (length + 0.25) * np.array([0, 0, 1] if name in ORIGIN_MM else [1, 0, 0])
        vessels.append(vessel_along_path(name, artery, np.stack([start, end]), 1.8, 1.0))
    return CoronaryTree(tuple(vessels), dominance)


def borders(stretches):
    """Ends of each stretch by segment and vessel, to the millimetre."""
    return {(s.segment, s.vessel.name): (round(s.start_mm), round(s.end_mm)) for s in stretches}


def test_segments_end_at_branches_or_halfway():
    by_vessel = {
        **{"RCA": {1: (0, 20), 2: (20, 40), 3: (40, 80), 16: (80, 100)}, "LM": {5: (0, 10)}},
        **{"LAD": {6: (0, 20), 7: (20, 55), 8: (55, 90)}, "D1": {9: (0, 25)}, "D2": {10: (0, 35)}, "D3": {10: (0, 15)}},
        **{"LCX": {11: (0, 24), 13: (24, 60)}, "OM1": {12: (0, 40)}, "OM2": {14: (0, 30)}},
        **{"PDA": {4: (0, 50)}, "PL": {16: (0, 20)}},
    }
    expected = {(segment, name): ends for name, parts in by_vessel.items() for segment, ends in parts.items()}
    assert borders(stretches_of(tree())) == expected


def test_a_left_dominant_tree_has_its_posterior_branches_on_the_left():
    ends = borders(stretches_of(tree("left")))
    assert ends[3, "RCA"] == (40, 100)
    assert {segment for segment, _ in ends} == set(SEGMENTS) - {4, 16}
    assert (ends[15, "PDA"], ends[18, "PL"]) == ((0, 50), (0, 20))


def test_missing_branches_leave_no_segment_empty():
    ends = borders(stretches_of(tree(without=("RV", "D1", "D2", "D3", "OM1", "OM2"))))
    assert ends[2, "RCA"] == (20, 40), "half of the way to the posterior descending artery"
    assert (ends[6, "LAD"], ends[11, "LCX"]) == ((0, 27), (0, 18))
    assert not {9, 10, 12, 14} & {segment for segment, _ in ends}
    ends = borders(stretches_of(tree(without=("D1",))))
    assert ends[9, "D2"] == (0, 35), "the first one there is"


@pytest.mark.long
def test_plaque_is_even_along_each_segment_and_log_uniform_in_mass():
    straight = tree()
    stretches = {(s.segment, s.vessel.name): s for s in stretches_of(straight)}
    places, masses = {}, []
    for seed in range(60):
        for segment, plaque in draw_plaque_by_segment(straight, np.random.default_rng(seed), (3.0, 60.0)).values():
            stretch = stretches[segment, plaque.vessel]
            share = (plaque.middle_mm - stretch.start_mm) / (stretch.end_mm - stretch.start_mm)
            places.setdefault(segment, []).append(share)
            masses.append(plaque.mass_mg)
    assert set(places) == {stretch.segment for stretch in stretches.values()}
    for segment in (1, 2, 3, 7, 8, 13):
        assert stats.kstest(places[segment], "uniform").pvalue > 1e-3, segment
    quartiles = np.quantile(np.log(masses), (0.25, 0.5, 0.75))
    assert quartiles == pytest.approx(np.log(3) + np.log(20) * np.array([0.25, 0.5, 0.75]), abs=0.2)


def test_a_share_of_the_segments_has_plaque():
    generator = np.random.default_rng(0)
    numbers = [len(draw_plaque_by_segment(tree(), generator, (3.0, 60.0), share=0.2)) for _ in range(60)]
    assert np.mean(numbers) == pytest.approx(0.2 * 15, rel=0.25)
