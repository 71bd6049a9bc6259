"""Which artery, valve or vessel calcium is given to by territories whose place is known."""

import numpy as np
import pytest
from images import image_of
from known_territories import label_of, territories_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.facts.dense import DenseVoxels
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.parts import SLIVER_MM3
from CACScoringLib.scoring.sites import candidate_sites, verdicts_by_place

SHAPE = (6, 24, 24)
GRID = Grid.of(image_of(np.zeros(SHAPE, np.uint8)))
LAD, LCX, ANNULUS, RCA, OTHER_ORGAN = map(label_of, ("LAD", "LCX", "aortic valve and root", "RCA", "other"))


def halves(left_label, right_label):
    """Return labels with one territory in the columns below 12 and another from there on."""
    names = np.full(SHAPE, left_label)
    names[:, :, 12:] = right_label
    return names


def region_of(names, sure=1.0, bone=None):
    return HeartRegion(names > 0, bone, "hand", territories=territories_of(names, sure))


def sites(names, candidates, **more):
    return candidate_sites(region_of(names, **more), candidates, GRID)


def box(*columns):
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 8:12, slice(*columns)] = True
    return mask


@pytest.mark.parametrize(
    ("left_name", "right_name", "expected"),
    [
        (ANNULUS, RCA, (NonCoronary.AORTIC_VALVE, Artery.RCA)),
        (label_of("mitral annulus"), LCX, (NonCoronary.MITRAL_ANNULUS, Artery.LCX)),
        (label_of("ascending aorta"), label_of("descending aorta"), (NonCoronary.THORACIC_AORTA,) * 2),
    ],
)
def test_a_lesion_across_two_territories_is_split(left_name, right_name, expected):
    labels = sites(halves(left_name, right_name), box(6, 18))
    assert (labels[2:4, 8:12, 6:12] == expected[0]).all()
    assert (labels[2:4, 8:12, 12:18] == expected[1]).all()
    assert (labels > 0).sum() == box(6, 18).sum()


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        ([(4, 12, 12)], Artery.LAD),  # 3 mm³ at the lesion's corner
        ([(2, 8, 12), (2, 9, 12)], Artery.LCX),  # 6 mm³
        ([(2, 8, 13)], Artery.LCX),  # apart
    ],
)
def test_a_sliver_is_not_split_off(neighbours, expected):
    assert 3.0 < SLIVER_MM3 <= 6.0
    candidates = box(6, 12)
    for at in neighbours:
        candidates[at] = True
    labels = sites(halves(LAD, LCX), candidates)
    assert {labels[at] for at in neighbours} == {expected}
    assert (labels[box(6, 12)] == Artery.LAD).all()


def test_bone_is_no_candidate_but_the_aorta_is():
    bone = np.zeros(SHAPE, bool)
    bone[:, :, :9] = True
    candidates = box(6, 8) | box(11, 18)
    labels = sites(np.full(SHAPE, label_of("descending aorta")), candidates, bone=bone)
    assert not labels[:, :, :9].any()
    assert (labels[2:4, 8:12, 11:18] == NonCoronary.THORACIC_AORTA).all()


@pytest.mark.parametrize(("name", "counts"), [("descending aorta", False), ("RCA", True)])
def test_calcium_of_the_aorta_connected_with_bone_is_bone(name, counts):
    """A vertebra that the territory reaches into; an artery may touch the sternum."""
    bone = np.zeros(SHAPE, bool)
    bone[:, :, :9] = True
    labels = sites(np.full(SHAPE, label_of(name)), box(6, 18), bone=bone)
    assert (labels[2:4, 8:12, 9:18] > 0).all() == counts
    assert labels.any() == counts


@pytest.mark.parametrize(
    ("at", "adjacent"),
    [
        ((0, 0, 0), (1, 1, 1)),
        ((5, 23, 23), (4, 22, 22)),
        ((1, 22, 1), (0, 23, 0)),
    ],
)
def test_aorta_in_a_corner_of_the_scan_touches_only_its_neighbours(at, adjacent):
    """Bone beside it makes it bone; bone in the opposite corner does not."""
    names = np.full(SHAPE, label_of("descending aorta"))
    candidates = np.zeros(SHAPE, bool)
    candidates[at] = True
    opposite = tuple(size - 1 - place for place, size in zip(at, SHAPE, strict=True))
    for place, counts in ((adjacent, False), (opposite, True)):
        bone = np.zeros(SHAPE, bool)
        bone[place] = True
        assert bool(sites(names, candidates, bone=bone)[at]) == counts


def test_without_territories_candidates_are_not_assigned():
    region = HeartRegion(np.ones(SHAPE, bool), None, "lungs")
    labels = candidate_sites(region, box(6, 18), GRID)
    assert (labels[box(6, 18)] == Artery.UNASSIGNED).all()
    assert labels.sum() == Artery.UNASSIGNED * box(6, 18).sum()
    lesions = find_lesions(image_of(np.where(box(6, 18), 300, 40).astype(np.int16)), labels, ScoringRules())
    (verdict,) = verdicts_by_place(lesions, DenseVoxels.of(lesions, None))
    assert (verdict.artery, verdict.not_coronary_probability) == (Artery.UNASSIGNED, 0.5)


def test_verdicts_say_how_sure_the_territories_are():
    names = halves(LAD, RCA)
    region = region_of(names, sure=0.7)
    hu = np.where(box(2, 8), 300, 40).astype(np.int16)
    hu[0], hu[0, 0, 0] = -1000, 900
    hu[:, 0, 1] = np.arange(len(hu))  # or slices would look lost
    scan = scan_from_image(image_of(hu), Acquisition("test"))
    lesions = find_lesions(scan.image, candidate_sites(region, box(2, 8), GRID), ScoringRules())
    (verdict,) = verdicts_by_place(lesions, DenseVoxels.of(lesions, region.territories))
    # Eleven territories: 0.7 for the LAD, 0.03 for each other.
    coronary = 0.7 + 3 * 0.03
    assert verdict.artery is Artery.LAD
    assert verdict.confidence == pytest.approx(0.7 / coronary, abs=1e-3)
    assert verdict.not_coronary_probability == pytest.approx(1 - coronary, abs=1e-3)
    # A network that is surer than it is right is believed less.
    (less,) = verdicts_by_place(lesions, DenseVoxels.of(lesions, region.territories), temperature=2.0)
    assert less.confidence == pytest.approx(0.7**0.5 / (0.7**0.5 + 3 * 0.03**0.5), abs=1e-3)
    assert less.not_coronary_probability == verdict.not_coronary_probability


@pytest.mark.parametrize(("share", "second"), [(0.6, Artery.LM), (0.75, None)])
def test_two_likely_arteries_are_both_named(share, second):
    region = region_of(np.full(SHAPE, LAD), sure=0.95 * share)
    region.territories.probability[label_of("LM")] = 0.95 * (1 - share)
    labels = np.where(box(6, 18), np.uint8(Artery.LAD), np.uint8(0))
    scan = CTScan(image_of(np.where(labels > 0, 300, 0).astype(np.int16)), Acquisition("hand"))
    lesions = find_lesions(scan.image, labels, ScoringRules())
    (verdict,) = verdicts_by_place(lesions, DenseVoxels.of(lesions, region.territories))
    assert (verdict.artery, verdict.second) == (Artery.LAD, second)
    assert verdict.arteries == ("LAD or LM" if second else "LAD")
