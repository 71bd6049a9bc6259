"""Parts of what is dense, by the kinds of their voxels."""

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.facts.dense import DenseVoxels
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.scoring.parts import (
    ANSWERS,
    artery_chances,
    dense_means,
    plaques_of,
    voxel_parts,
    without_devices_in_plaque,
)

ANYWHERE = dict.fromkeys(ARTERIES, 0.25)
"""Territories that leave the artery to the network."""


def shares(of_kinds, names=LESION_KINDS):
    """Return a row of probabilities by name."""
    row = np.zeros(len(names), np.float32)
    for name, share in of_kinds.items():
        row[list(names).index(name)] = share
    return row


def parts_of(kinds, size, territories=None):
    """Parts of voxels with these kinds, probabilities by first and last column, in a row of 1 mm steps."""
    probabilities = np.zeros((size, len(LESION_KINDS)), np.float32)
    for (first, end), chances in kinds.items():
        probabilities[first:end] = shares(chances)
    is_dense = probabilities.sum(axis=1) > 0
    flat = np.flatnonzero(is_dense)
    places = np.zeros((len(flat), 11), np.float32)
    places[:, 1:5] = shares(territories or {"RCA": 1.0}, ARTERIES)
    grid = Grid((size, 1, 1), (1.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    voxels = DenseVoxels(flat, np.zeros(len(flat), np.uint8), places)
    parts = voxel_parts(voxels.flat, voxels.arteries, probabilities[is_dense], np.full(len(flat), 300.0), grid)
    return parts, [list(ANSWERS)[answer] for answer in parts.answers[parts.part]]


def test_a_lesion_is_divided_where_its_kinds_change():
    kinds = {
        (0, 8): {"RCA": 0.4, "LM": 0.2, "aorta": 0.4},
        (8, 16): {"aortic valve and root": 0.8, "RCA": 0.2},
    }
    parts, answers = parts_of(kinds, 20)
    assert answers == ["RCA"] * 8 + ["aortic valve and root"] * 8
    assert parts.means[:, LESION_KINDS.index("RCA")] == pytest.approx([0.4, 0.2])
    assert parts.means[:, len(LESION_KINDS) :] == pytest.approx(np.array([[0, 0, 0, 1], [0, 0, 0, 1]]))


def test_slivers_follow_what_they_touch_and_devices_count_together():
    kinds = {(0, 8): {"lead": 0.4, "clip": 0.3, "noise": 0.3}, (8, 9): {"LAD": 0.9, "noise": 0.1}}
    parts, answers = parts_of(kinds, 12)
    assert answers == ["device"] * 9
    assert parts.means[0, LESION_KINDS.index("LAD")] == pytest.approx(0.1)


def test_a_stent_is_of_the_artery_whose_territory_holds_it():
    for artery in ARTERIES:
        assert set(parts_of({(0, 8): {"stent": 0.6, "clip": 0.4}}, 9, {artery: 1.0})[1]) == {artery}


def test_blurred_edges_follow_their_lesion_and_certain_noise_does_not():
    blurred, certain = {"noise": 0.7, "RCA": 0.3}, {"noise": 0.9, "RCA": 0.1}
    kinds = {(0, 8): {"RCA": 1.0}, (8, 16): blurred, (16, 24): certain, (26, 34): blurred}
    answers = parts_of(kinds, 40)[1]
    assert answers == ["RCA"] * 16 + ["noise"] * 16


LAD, LM, LCX = ({artery: 0.7, second: 0.3} for artery, second in (("LAD", "LM"), ("LM", "LAD"), ("LCX", "LM")))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({(0, 20): LAD, (20, 24): LM}, ["LAD"] * 24),
        ({(0, 20): LAD, (20, 26): LM}, ["LAD"] * 20 + ["LM"] * 6),
        ({(0, 20): LAD, (20, 24): LM, (24, 44): LAD}, ["LAD"] * 44),
        ({(0, 20): LAD, (20, 28): {"LM": 0.7, "LCX": 0.3}, (28, 48): LCX}, ["LAD"] * 20 + ["LCX"] * 28),
        ({(0, 20): LAD, (20, 28): {"LM": 0.7, "LAD": 0.3}, (28, 48): LCX}, ["LAD"] * 28 + ["LCX"] * 20),
        ({(0, 20): LAD, (21, 25): LM}, ["LAD"] * 20 + ["LM"] * 4),
        ({(0, 3): LAD, (3, 8): LM}, ["LM"] * 8),
    ],
    ids=["short", "long", "between", "fork to LCX", "fork to LAD", "apart", "both short"],
)
def test_short_branches_of_a_plaque_are_not_split_off(kinds, expected):
    assert parts_of(kinds, 50, ANYWHERE)[1] == expected


def test_territories_outweigh_a_small_preference_of_the_network():
    kinds = {(0, 8): {"LM": 0.6, "LAD": 0.4}}
    assert set(parts_of(kinds, 9, ANYWHERE)[1]) == {"LM"}
    assert set(parts_of(kinds, 9, {"LM": 0.4, "LAD": 0.6})[1]) == {"LAD"}
    assert set(parts_of({(0, 8): {"LM": 0.9, "LAD": 0.1}}, 9, {"LM": 0.4, "LAD": 0.6})[1]) == {"LM"}


def test_chances_of_arteries_by_hand():
    """0.8 · 0.25 and 0.6 · 0.75, and the least that either says, 0.01 and 0.02, where neither knows of anything."""
    kinds = np.stack([shares({"LM": 0.8**4, "LAD": 0.6**4}), shares({"noise": 1.0})])
    territories = np.stack([shares({"LM": 0.25, "LAD": 0.75}, ARTERIES), shares({}, ARTERIES)])
    chances = artery_chances(kinds, territories)
    assert chances[0] == pytest.approx(np.array([0.2, 0.45, 0.006325, 0.006325]) / 0.66265, rel=1e-3)
    assert chances[1] == pytest.approx([0.25] * 4)


def test_means_of_dense_voxels_are_weighted_by_their_excess():
    """Excesses over 100 HU of 50 and 200; of the second group 1, and none of the third."""
    groups, columns = np.array([0, 0, 1, 3]), np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0], [1.0, 1.0]])
    means = dense_means(groups, columns, np.array([150.0, 300.0, 90.0, 101.0]))
    np.testing.assert_allclose(means, [[0.2, 0.8], [0.5, 0.0], [0.0, 0.0], [1.0, 1.0]])


def device_in(first, second, gap=0):
    """Return kinds of two neighbouring groups of four voxels of 300 HU, after devices in plaque were moved.

    gap: Voxels between the groups.
    """
    hu = np.zeros((1, 1, 8 + gap), np.float32)
    hu[..., :4] = hu[..., 4 + gap :] = 300
    kinds = np.concatenate([np.tile(shares(row), (4, 1)) for row in (first, second)])
    moved = without_devices_in_plaque(kinds, np.flatnonzero(hu), hu)
    return [{kind: p for kind, p in zip(LESION_KINDS, row.tolist(), strict=True) if p} for row in moved[[0, -1]]]


def test_a_device_in_plaque_is_plaque():
    """The piece as a whole decides: .45 LAD and .15 RCA, .40 clip. Each voxel keeps the proportion of its arteries."""
    first, second = device_in({"LAD": 0.6, "RCA": 0.3, "clip": 0.1}, {"LAD": 0.3, "clip": 0.5, "lead": 0.2})
    assert first == pytest.approx({"LAD": 0.6 / 0.9, "RCA": 0.3 / 0.9}, abs=1e-3)
    assert second == pytest.approx({"LAD": 1.0, "RCA": 0.0}, abs=0.01)


def test_a_voxel_of_a_plaque_that_is_all_device_has_the_arteries_of_its_piece():
    assert device_in({"LAD": 0.9, "RCA": 0.1}, {"clip": 0.4, "stent": 0.6})[1] == pytest.approx(
        {"LAD": 0.36, "RCA": 0.04, "stent": 0.6}
    )


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [
        ({"LAD": 0.4, "clip": 0.6}, {"LAD": 0.4, "clip": 0.6}, 0),
        ({"LAD": 1.0}, {"clip": 1.0}, 1),
        ({"LAD": 0.3, "noise": 0.5, "clip": 0.2}, {"LAD": 0.3, "noise": 0.5, "clip": 0.2}, 0),
        ({"stent": 0.6, "clip": 0.4}, {"stent": 0.6, "clip": 0.4}, 0),
    ],
    ids=["device", "apart", "noise", "stent"],
)
def test_a_device_elsewhere_stays_one(first, second, gap):
    assert device_in(first, second, gap) == [pytest.approx(first), pytest.approx(second)]


def plaques(*pieces):
    """Number the plaques of pieces, each with its answer and its boxes along k, j, i in voxels of 1 × 1 × 3 mm."""
    volume = np.full((4, 30, 30), -1)
    for number, (_, *box) in enumerate(pieces):
        volume[tuple(slice(*side) for side in box)] = number
    flat = np.flatnonzero(volume >= 0)
    answers = np.array([list(ANSWERS).index(answer) for answer, *_ in pieces], np.uint8)
    grid = Grid((30, 30, 4), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0))
    return plaques_of(volume.reshape(-1)[flat], answers, flat, grid).tolist()


PLAQUE = ("LAD", (1, 2), (0, 4), (0, 4))


@pytest.mark.parametrize(
    ("second", "is_same"),
    [
        (("LAD", (1, 2), (0, 4), (8, 9)), True),
        (("LAD", (1, 2), (0, 4), (9, 10)), False),
        (("LAD", (1, 2), (8, 9), (8, 9)), True),
        (("LAD", (2, 3), (8, 9), (0, 4)), True),
        (("LAD", (3, 4), (0, 4), (0, 4)), False),
        (("LM", (1, 2), (0, 4), (5, 9)), False),
        (("noise", (1, 2), (0, 4), (5, 9)), False),
    ],
    ids=["5 mm", "6 mm", "both axes", "next slice", "two slices on", "another artery", "noise"],
)
def test_pieces_of_one_artery_a_few_millimetres_apart_are_one_plaque(second, is_same):
    first, other = plaques(PLAQUE, second)
    assert (first == other) == is_same


def test_pieces_are_one_plaque_through_others_between_them():
    ends = [("LAD", (1, 2), (0, 4), (12, 16)), ("noise", (1, 2), (20, 24), (0, 4)), ("noise", (1, 2), (26, 29), (0, 4))]
    first, last, *noise = plaques(PLAQUE, *ends)
    assert len({first, last, *noise}) == 4
    with_middle = plaques(PLAQUE, *ends, ("LAD", (2, 3), (0, 4), (6, 10)))
    assert with_middle[0] == with_middle[1] == with_middle[-1]
    assert plaques() == []
