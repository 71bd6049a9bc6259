"""Scans whose anatomy contradicts their header."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, OrientationError, scan_from_image
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.quality.orientation import require_oriented
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
