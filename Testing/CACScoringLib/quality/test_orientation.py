"""Scans whose anatomy contradicts their header, and findings at their limits."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.errors import OrientationError
from CACScoringLib.core.grid import Grid
from CACScoringLib.pipeline import score_scan
from CACScoringLib.quality import orientation
from CACScoringLib.quality.orientation import contrary_findings, require_oriented
from support.ellipsoid_chest import Chest

CHEST = Chest()


@cache
def chest(*reversed_axes: int):
    """Return scan and heart, reversed along axes (0 left, 1 posterior, 2 superior) of the same header."""
    hu = sitk.GetArrayFromImage(CHEST.image)
    hu[60:, 52:58, 70:77] = -990  # the airway
    hu, heart = (np.flip(a, [2 - n for n in reversed_axes]) for a in (hu, CHEST.heart))
    return scan_from_image(Grid.of(CHEST.image).image(hu), Acquisition("test")), heart


@pytest.mark.parametrize(("axis", "finding"), [(0, "dextrocardia"), (1, "spine"), (2, "lungs")])
def test_reversed_scan_is_refused_unless_allowed(axis, finding):
    scan, heart = chest(axis)
    with pytest.raises(OrientationError, match=finding):
        require_oriented(scan, heart)
    (warning,) = require_oriented(scan, heart, allow_reversed=True)
    assert (warning.code, warning.severe) == ("reversed", True)


def test_a_reversed_scan_is_not_scored():
    scan, heart = chest(0)
    with pytest.raises(OrientationError, match="dextrocardia"):
        score_scan(scan, heart=scan.grid.image(heart.copy()))


@pytest.mark.parametrize(
    ("axes", "flip", "finding"),
    [
        ((0, 2, 1), 1, "turned"),
        ((0, 2, 1), 2, "turned"),
        ((1, 2, 0), None, "axes are in another order"),
        ((1, 0, 2), None, "axes are in another order"),
    ],
)
def test_arrays_of_other_axes_and_turned_pictures_are_refused(axes, flip, finding):
    """A picture is turned if rows and columns are exchanged and one of them is reversed."""
    arrays = (a.transpose(axes) for a in (sitk.GetArrayFromImage(CHEST.image), CHEST.heart))
    hu, heart = (a if flip is None else np.flip(a, flip) for a in arrays)
    with pytest.raises(OrientationError, match=finding):
        require_oriented(scan_from_image(image_of(hu, (3, 3, 3)), Acquisition("test")), heart)


def test_chest_as_its_header_states_is_not_doubted():
    assert require_oriented(*chest()) == ()


def test_heart_on_the_right_alone_is_a_doubt():
    scan, heart = chest()
    moved = np.roll(heart, -13, 2)
    assert [warning.code for warning in require_oriented(scan, moved)] == ["orientation-doubtful"]


@pytest.mark.parametrize(("filled", "codes"), [(0.3, ["reversed"]), (0.6, ["orientation-doubtful"])])
def test_a_heart_between_lungs_of_different_size_is_a_doubt(filled, codes):
    """Lung that is filled from below, as by an effusion, shifts a heart; so nothing of it is refused."""
    scan, heart = chest(0)
    hu = sitk.GetArrayFromImage(scan.image)
    slices = np.flatnonzero(heart.any((1, 2)))
    part = hu[slices[0] : slices[0] + round(filled * len(slices)), :, : hu.shape[2] // 2]
    part[part < -700] = np.where(part[part < -700] > -960, 20, part[part < -700])
    image = Grid.of(scan.image).image(hu)
    changed = scan_from_image(image, Acquisition("test"))
    assert [warning.code for warning in require_oriented(changed, heart, allow_reversed=True)] == codes


def test_field_of_view_without_spine_is_not_judged():
    scan, heart = chest(1)
    without_spine = slice(30, None)
    small = scan_from_image(scan.image[:, without_spine], Acquisition("test"))
    assert require_oriented(small, heart[:, without_spine]) == ()


def doubts(hu, heart):
    """Warnings on voxels of 3 mm, those of the working grid, with the range of HU of a CT."""
    hu[:, -1], hu[:, -1, 0] = -1000, 1500
    scan = scan_from_image(image_of(hu, (3.0, 3.0, 3.0)), Acquisition("test"))
    return [warning.code for warning in require_oriented(scan, heart, allow_reversed=True)]


def tissue_and_heart():
    """Soft tissue, and a heart of 21 slices in its middle."""
    hu, heart = np.full((50, 60, 60), 40, np.int16), np.zeros((50, 60, 60), bool)
    heart[14:35, 20:40, 20:40] = 1
    return hu, heart


def test_tissue_beside_the_spine_is_compared_from_the_hearts_lower_two_fifths_on(monkeypatch):
    """Below them lie liver and diaphragm. The heart has 21 slices from 14 on."""
    hu, heart = tissue_and_heart()
    hu[:, :40] = -800
    hu[:, 44:52, 26:34] = 400
    hu[22:24, :40, 31:] = 40
    places = {}
    monkeypatch.setattr(orientation, "contrary_findings", lambda found: places.update(found) or [[], [], []])
    assert doubts(hu, heart) == []
    assert places["tissue_left"] == pytest.approx(2 / 13, abs=0.005)


@pytest.mark.parametrize(
    ("spine", "lung", "expected"), [(4, [2, 3, 5, 6], 1.0), (4, [3, 5, 6, 9], 0.5), (7, [1, 6, 9], 1.0)]
)
def test_lungs_are_compared_as_far_as_both_sides_are_in_view(spine, lung, expected):
    hu = np.full((2, 3, 10), 40, np.int16)
    hu[:, :, lung] = -800
    assert orientation._lung_balance(hu, spine) == expected


@pytest.mark.parametrize(
    ("left_mm", "front_mm", "codes"),
    [
        *((-3, 0, []), (-6, 0, ["orientation-doubtful"]), (0, -6, ["orientation-doubtful"])),
        *((9, -9, []), (9, -12, ["orientation-doubtful"]), (-9, 12, []), (-18, 12, ["orientation-doubtful"])),
    ],
)
def test_direction_of_the_apex(left_mm, front_mm, codes):
    """The lower third of a heart in soft tissue is moved against the rest of it."""
    hu, heart = tissue_and_heart()
    heart[:] = 0
    i, j = 20 + left_mm // 3, 20 - front_mm // 3
    heart[10:20, j : j + 20, i : i + 20] = 1
    heart[20:40, 20:40, 20:40] = 1
    assert doubts(hu, heart) == codes


@pytest.mark.parametrize(
    ("lung", "slices", "codes"),
    [
        *(([], 50, []), (range(8, 22), 50, []), (range(-22, -8), 50, ["orientation-doubtful"])),
        *((range(-8, 8), 50, []), (range(-9, 8), 50, ["orientation-doubtful"]), (range(-9, 9), 50, [])),
        *(((-22, 21), 50, []), ((-22, 22), 50, ["orientation-doubtful"]), ((-23,), 50, [])),
        *(((-22, -21, -20), 37, ["orientation-doubtful"]), ((-22, -21, -20), 36, [])),
    ],
)
def test_lung_above_and_below_the_heart(lung, slices, codes):
    """Counted are slices 24 to 66 mm above and below its centre, 8 to 22 voxels, if 15 mm of both are in view."""
    hu, heart = tissue_and_heart()
    hu[[24 + k for k in lung]] = -800
    assert doubts(hu[:slices], heart[:slices]) == codes


@pytest.mark.parametrize(
    ("behind", "front", "codes"),
    [
        ((9, 9), (0, 0), []),  # 7.3 cm²
        ((9, 10), (0, 0), ["orientation-doubtful"]),  # 8.1 cm², to the left of the heart
        ((0, 0), (9, 9), ["orientation-doubtful"]),  # a spine by its place in the body alone
        ((0, 0), (9, 10), ["reversed"]),
        ((6, 8), (9, 10), ["orientation-doubtful"]),  # 4.3 cm² behind, more than half of that in front
        ((6, 7), (9, 10), ["reversed"]),
    ],
)
def test_bone_around_the_heart(behind, front, codes):
    """A voxel has 0.09 cm²; a spine has 8 cm² and more, and lies in front if there is twice as much as behind."""
    hu, heart = tissue_and_heart()
    hu[:, 44 : 44 + behind[0], 31 : 31 + behind[1]] = 500
    hu[:, 4 : 4 + front[0], 25 : 25 + front[1]] = 500
    assert doubts(hu, heart) == codes


USUAL = {
    **{"bone_behind_cm2": 12.0, "bone_in_front_cm2": 2.0, "spine_behind_mm": 45.0, "heart_left_mm": 20.0},
    **{"aorta_left": 0.4, "tissue_left": 0.3, "lung_balance": 0.8, "lung_above": 0.1, "airway_above": 3.0},
    **{"airway_below": 0.0, "apex_left_mm": 10.0, "apex_front_mm": 5.0},
}

NAMES = ("spine_behind_mm", "heart_left_mm", "aorta_left", "tissue_left", "lung_balance", "lung_above")
UNKNOWN = dict.fromkeys((*NAMES, "airway_above", "airway_below"), math.nan)


@pytest.mark.parametrize(
    ("measured", "counts"),
    [
        ({}, (0, 0, 0)),
        (UNKNOWN, (0, 0, 0)),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0}, (1, 0, 0)),
        ({"bone_behind_cm2": 4.6, "bone_in_front_cm2": 9.0}, (0, 0, 0)),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0, "spine_behind_mm": -23.0}, (2, 0, 0)),
        ({"spine_behind_mm": -22.0}, (0, 0, 0)),
        ({"apex_front_mm": -11.0, "apex_left_mm": 20.0, "spine_behind_mm": -23.0}, (2, 0, 0)),
        ({"heart_left_mm": -10.0}, (0, 0, 0)),
        ({"heart_left_mm": -10.1}, (0, 1, 0)),
        ({"heart_left_mm": -6.0, "aorta_left": -0.2}, (0, 1, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.15}, (0, 1, 0)),
        ({"aorta_left": -0.16, "tissue_left": -0.16}, (0, 1, 0)),
        ({"aorta_left": -0.16, "tissue_left": -0.15}, (0, 1, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": math.nan, "tissue_left": -0.16}, (0, 2, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "lung_balance": 0.6}, (0, 2, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "tissue_left": -0.5, "lung_balance": 0.59}, (0, 1, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "lung_balance": math.nan}, (0, 2, 0)),
        ({"lung_above": -0.5}, (0, 0, 1)),
        ({"lung_above": -0.04, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, (0, 0, 2)),
        ({"lung_above": -0.03, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, (0, 0, 1)),
        ({"lung_above": -0.04, "apex_left_mm": -7.0, "apex_front_mm": 2.0}, (0, 0, 1)),
        ({"lung_above": -0.04, "airway_above": 0.09, "airway_below": 1.0}, (0, 0, 2)),
        ({"lung_above": -0.04, "airway_above": 0.1, "airway_below": 1.0}, (0, 0, 1)),
        ({"airway_above": 0.0, "airway_below": 0.9}, (0, 0, 0)),
        ({"airway_above": 0.0, "airway_below": 5.0, "lung_above": math.nan}, (0, 0, 1)),
    ],
)
def test_findings_at_their_limits(measured, counts):
    """Findings about back, left and up; two of a kind refuse a scan."""
    assert tuple(map(len, contrary_findings({**USUAL, **measured}))) == counts
