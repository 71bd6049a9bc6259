"""Parts of what is dense, by the kinds of their voxels."""

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.scoring.lesion_parts import ANSWERS, voxel_parts
from CACScoringLib.scoring.sites import DenseVoxels


def parts_of(kinds, shape, rca=1.0):
    """Parts of voxels with these kinds, probabilities by first and last column, in one row of 1 mm³ voxels."""
    flat = np.flatnonzero(np.ones(shape))
    probabilities = np.zeros((shape[2], len(LESION_KINDS)), np.float32)
    for (first, end), chances in kinds.items():
        for kind, chance in chances.items():
            probabilities[first:end, LESION_KINDS.index(kind)] = chance
    is_dense = probabilities.sum(axis=1) > 0
    places = np.zeros((int(is_dense.sum()), 11), np.float32)
    places[:, 4], places[:, 2] = rca, 1 - rca
    grid = Grid(shape[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    voxels = DenseVoxels(flat[is_dense], np.zeros(len(places), np.uint8), places)
    parts = voxel_parts(voxels, probabilities[is_dense], grid)
    return parts, [list(ANSWERS)[answer] for answer in parts.answers[parts.part]]


def test_a_lesion_is_divided_where_its_kinds_change():
    kinds = {
        (0, 8): {"RCA": 0.4, "LM": 0.2, "aorta": 0.4},
        (8, 16): {"aortic valve and root": 0.8, "RCA": 0.2},
    }
    parts, answers = parts_of(kinds, (1, 1, 20))
    assert answers == ["RCA"] * 8 + ["aortic valve and root"] * 8
    assert parts.kinds[:, LESION_KINDS.index("RCA")] == pytest.approx([0.4, 0.2])


def test_slivers_follow_what_they_touch_and_devices_count_together():
    kinds = {(0, 8): {"lead": 0.4, "clip": 0.3, "noise": 0.3}, (8, 9): {"LAD": 0.9, "noise": 0.1}}
    parts, answers = parts_of(kinds, (1, 1, 12))
    assert answers == ["device"] * 9
    assert parts.kinds[0, LESION_KINDS.index("LAD")] == pytest.approx(0.1)


def test_a_stent_is_of_the_artery_whose_territory_holds_it():
    for rca, artery in ((1.0, "RCA"), (0.0, "LAD")):
        assert set(parts_of({(0, 8): {"stent": 0.6, "clip": 0.4}}, (1, 1, 9), rca)[1]) == {artery}


def test_blurred_edges_follow_their_lesion_and_certain_noise_does_not():
    blurred, certain = {"noise": 0.7, "LCX": 0.3}, {"noise": 0.9, "LCX": 0.1}
    kinds = {(0, 8): {"LCX": 1.0}, (8, 16): blurred, (16, 24): certain, (26, 34): blurred}
    answers = parts_of(kinds, (1, 1, 40))[1]
    assert answers == ["LCX"] * 16 + ["noise"] * 16


def test_nothing_dense_has_no_parts():
    parts, answers = parts_of({}, (1, 1, 4))
    assert answers == []
    assert parts.kinds.shape == (0, len(LESION_KINDS))
