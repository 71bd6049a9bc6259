"""Metal and other foreign bodies: told by the whole device wherever its densest voxels lie, or as long, thin, even and
on its way out of the heart."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.artefacts import (
    LINE_LENGTH_MM,
    LINE_OUTSIDE_MM,
    METAL_EDGE_HU,
    METAL_HU,
    Course,
    MetalKind,
    course,
    metal_lesions,
    without_metal,
)
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

MASK = slice(10, 30)
"""Columns of the heart in `scan_with`; metal beyond them is outside."""


def scan_with(hu, spacing=(1.0, 1.0, 3.0)):
    """A scan of 6 × 20 × 130 voxels of 40 HU with pieces of other HU, and the lesions in its heart.

    hu: pieces as (k, row, first column, last column, HU).
    """
    values = np.full((6, 20, 130), 40, np.int16)
    for k, row, first, last, value in hu:
        values[k, row, first : last + 1] = value
    image = image_of(values, spacing)
    arteries = np.zeros(values.shape, np.uint8)
    arteries[:, :, MASK] = Artery.UNASSIGNED
    return find_lesions(image, arteries, ScoringRules()), image


PLAQUE = (1, 4, 15, 18, 1500)
BAND = (3, 10, 25, 34, 700)


class TestDense:
    def test_a_device_with_its_densest_voxels_outside(self):
        lesions, image = scan_with([PLAQUE, BAND, (3, 10, 34, 36, 2500)])
        plaque, band = sorted(lesions.lesions, key=lambda lesion: -lesion.peak_hu)
        assert band.peak_hu < METAL_HU
        assert set(metal_lesions(lesions, image)) == {band.id}
        candidates, warnings = without_metal(lesions, image)
        assert [lesion.id for lesion in candidates.lesions] == [plaque.id]
        assert set(np.unique(candidates.id_map)) == {0, plaque.id}
        assert [w.code for w in warnings] == ["metal"]

    @pytest.mark.parametrize(("column", "metal"), [(29, 1), (28, 0)])
    def test_calcium_that_touches_metal_is_metal(self, column, metal):
        """Faint rims of a device and voxels of the next slice are metal."""
        lesions, image = scan_with([(3, 10, column, column, 300), (4, 11, 30, 31, 2500)])
        assert len(metal_lesions(lesions, image)) == metal

    @pytest.mark.parametrize(("bridge_hu", "metal"), [(METAL_EDGE_HU - 1, 0), (METAL_EDGE_HU, 1)])
    def test_bone_between_calcium_and_metal_is_no_bridge(self, bridge_hu, metal):
        lesions, image = scan_with([(3, 10, 20, 28, 900), (3, 10, 29, 40, bridge_hu), (3, 10, 41, 42, 2500)])
        assert len(lesions.lesions) == 1
        assert len(metal_lesions(lesions, image)) == metal


LENGTH = 100
"""Slices of 1 mm in `columns_of`; the heart fills the first half."""


def columns_of(*lines):
    """A scan of 1 mm voxels with upright columns, and the lesions in the lower half of its slices, which is the heart.

    lines: (first slice, last slice, edge length of its square section in voxels, HU).
    """
    values = np.full((LENGTH, 40, 20 * len(lines)), 40, np.int16)
    for n, (first, last, edge, hu) in enumerate(lines):
        # It leans, as vessels do.
        for k in range(first, last + 1):
            j = 10 + k // 10
            values[k, j : j + edge, 20 * n + 8 : 20 * n + 8 + edge] = hu
    image = sitk.GetImageFromArray(values)
    heart = np.zeros(values.shape, np.uint8)
    heart[: LENGTH // 2] = Artery.UNASSIGNED
    return find_lesions(image, heart, ScoringRules()), image


class TestLines:
    def test_a_catheter_on_its_way_out(self):
        lesions, image = columns_of((30, 95, 2, 800), (10, 20, 4, 1500))
        catheter, plaque = sorted(lesions.lesions, key=lambda lesion: lesion.peak_hu)
        assert metal_lesions(lesions, image) == {catheter.id: MetalKind.LINE}
        candidates, (warning,) = without_metal(lesions, image)
        assert candidates.lesions == (plaque,)
        assert warning.code == "metal"

    @pytest.mark.parametrize(
        "line",
        [
            (0, 49, 2, 800),  # a long calcified artery: nothing of it beyond the heart
            (30, 49 + int(LINE_OUTSIDE_MM) - 6, 2, 800),  # little beyond
            (40, 30 + int(LINE_LENGTH_MM), 2, 800),  # short
            (30, 95, 5, 800),  # wide, as a calcified wall or a rib
            (30, 95, 2, 240),  # faint, as a vessel with contrast
        ],
    )
    def test_other_calcium_is_no_line(self, line):
        lesions, image = columns_of(line)
        assert len(lesions.lesions) == 1
        assert metal_lesions(lesions, image) == {}

    @pytest.mark.parametrize(("edge", "metal"), [(12, True), (20, False)])
    def test_enhanced_blood_around_a_catheter_is_not_metal(self, edge, metal):
        values = sitk.GetArrayFromImage(columns_of((30, 95, 2, 1000))[1])
        values[:, :, :edge] = np.maximum(values[:, :, :edge], 350)
        blood = image_of(values, (1.25, 1.25, 1.0))
        heart = np.zeros(values.shape, np.uint8)
        heart[: LENGTH // 2] = Artery.UNASSIGNED
        lesions = find_lesions(blood, heart, ScoringRules())
        assert len(lesions.lesions) == 1
        assert bool(metal_lesions(lesions, blood)) == metal


def rod(count, inside, mm, hu=545.0):
    """The course of a straight row of voxels along k, whose first ones are candidates."""
    voxels = np.stack([np.arange(count), np.full(count, 4), np.full(count, 6)], axis=1)
    return course(voxels, np.broadcast_to(np.asarray(hu, float), count), np.arange(count) < inside, np.array(mm))


@pytest.mark.parametrize(
    ("count", "inside", "mm", "expected"),
    [
        (26, 16, (2.0, 2.0, 2.0), (52.0, 4.0, 20.0, 0.0)),
        (26, 26, (2.0, 1.0, 3.0), (52.0, 3.0, 0.0, 0.0)),
        (52, 32, (1.0, 1.0, 1.0), (52.0, 1.0, 20.0, 0.0)),  # in cells of 2 mm
        (10, 0, (2.0, 2.0, 2.0), (20.0, 4.0, 20.0, 0.0)),
        (9, 9, (2.0, 2.0, 2.0), (18.0, 4.0, 0.0, np.inf)),  # fewer than five parts of 4 mm
    ],
)
def test_the_course_of_a_rod_by_hand(count, inside, mm, expected):
    piece = rod(count, inside, mm)
    assert (piece.length_mm, piece.section_mm2, piece.outside_mm, piece.unevenness) == pytest.approx(expected)


def test_the_unevenness_of_a_rod_by_hand():
    """Parts of 200 and 800 HU above tissue in turn; without the ends six are dense and five faint."""
    piece = rod(26, 26, (2.0, 2.0, 2.0), np.where(np.arange(26) // 2 % 2, 845, 245))
    assert piece.unevenness == pytest.approx(600 * np.sqrt(30) / 5800)


@pytest.mark.parametrize(
    ("piece", "is_line"),
    [
        (Course(50.0, 12.0, 0.0, 0.4), True),
        (Course(49.9, 12.0, 0.0, 0.4), False),
        (Course(50.0, 12.1, 0.0, 0.4), False),
        (Course(50.0, 12.0, 0.0, 0.41), False),
    ],
)
def test_limits_of_a_line(piece, is_line):
    assert piece.is_line == is_line


@pytest.mark.parametrize(("hu", "is_metal"), [(1999, False), (2000, True)])
def test_metal_begins_at_2000_hu(hu, is_metal):
    assert bool(metal_lesions(*scan_with([(3, 10, 15, 16, hu)]))) == is_metal


@pytest.mark.parametrize(("length", "kind"), [(18, MetalKind.CLIP), (20, MetalKind.CLIP), (22, MetalKind.METAL)])
def test_short_metal_is_a_clip(length, kind):
    lesions, image = scan_with([(3, 10, 10, 9 + length, 2500)])
    assert set(metal_lesions(lesions, image).values()) == {kind}
