"""Scans whose anatomy contradicts their header."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, OrientationError, scan_from_image
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.quality.acquisition import _judge, require_oriented
from support.ellipsoid_chest import Chest

CHEST = Chest()


def chest(*reversed_axes: int):
    """Return scan and heart, reversed along axes (0 left, 1 posterior, 2 superior) of the same header."""
    heart = sitk.GetImageFromArray(CHEST.heart.astype("uint8"))
    images = [sitk.Flip(image, [axis in reversed_axes for axis in range(3)]) for image in (CHEST.image, heart)]
    for image in images:
        image.CopyInformation(CHEST.image)
    return scan_from_image(images[0], Acquisition("test")), images[1]


@pytest.mark.parametrize(("axis", "finding"), [(0, "dextrocardia"), (1, "spine"), (2, "lungs")])
def test_reversed_scan_is_refused_unless_allowed(axis, finding):
    scan, heart = chest(axis)
    with pytest.raises(OrientationError, match=f"{finding}.*--allow-unusual"):
        score_scan(scan, heart=heart)
    warnings = score_scan(scan, ScoreSettings(allow_reversed=True), heart).warnings
    assert any(warning.code == "reversed" and warning.severe for warning in warnings)


def test_chest_as_its_header_states_is_not_doubted():
    assert require_oriented(*chest()) == ()


def test_heart_on_the_right_alone_is_a_doubt():
    scan, heart = chest()
    moved = sitk.Resample(heart, heart, sitk.TranslationTransform(3, (40.0, 0.0, 0.0)))
    assert [warning.code for warning in require_oriented(scan, moved)] == ["orientation-doubtful"]


def test_field_of_view_without_spine_is_not_judged():
    scan, heart = chest(1)
    without_spine = slice(30, None)
    small = scan_from_image(scan.image[:, without_spine], Acquisition("test"))
    assert require_oriented(small, heart[:, without_spine]) == ()


USUAL = {
    "bone_behind_cm2": 12.0,
    "bone_in_front_cm2": 2.0,
    "heart_left_mm": 20.0,
    "aorta_left": 0.4,
    "lung_above": 0.1,
    "apex_left_mm": 10.0,
    "apex_front_mm": 5.0,
}


@pytest.mark.parametrize(
    ("measured", "against", "doubts"),
    [
        ({}, 0, 0),
        ({"heart_left_mm": None, "aorta_left": None, "lung_above": None}, 0, 0),
        ({"bone_behind_cm2": 3.0, "bone_in_front_cm2": 8.0}, 1, 0),
        ({"bone_behind_cm2": 3.0, "bone_in_front_cm2": 7.9}, 0, 0),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0, "heart_left_mm": -9.0}, 1, 0),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 8.9}, 0, 0),
        ({"heart_left_mm": 0.0}, 0, 0),
        ({"heart_left_mm": -0.1}, 0, 1),
        ({"heart_left_mm": -5.0, "aorta_left": -0.2}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": -0.11}, 1, 0),
        ({"heart_left_mm": -5.1, "aorta_left": -0.1}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": None}, 0, 1),
        ({"lung_above": -0.21}, 1, 0),
        ({"lung_above": -0.2}, 0, 1),
        ({"lung_above": -0.01}, 0, 1),
        ({"lung_above": 0.0}, 0, 0),
        ({"lung_above": -0.04, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 1, 0),
        ({"lung_above": -0.03, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 0, 1),
        ({"lung_above": -0.04, "apex_left_mm": -7.0, "apex_front_mm": 2.0}, 0, 1),
        ({"apex_left_mm": -8.0, "apex_front_mm": 2.0}, 0, 1),
        ({"apex_left_mm": -7.0, "apex_front_mm": 2.0}, 0, 0),
        ({"lung_above": None, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 0, 1),
        ({"apex_left_mm": 20.0, "apex_front_mm": -10.0}, 0, 0),
        ({"apex_left_mm": 20.0, "apex_front_mm": -10.1}, 0, 1),
        ({"heart_left_mm": -9.0, "aorta_left": -0.3, "lung_above": -0.3}, 2, 0),
    ],
)
def test_findings_at_their_limits(measured, against, doubts):
    found = _judge(**{**USUAL, **measured})
    assert tuple(map(len, found)) == (against, doubts)
