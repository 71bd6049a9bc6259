"""Metal and other foreign bodies: told by the whole device wherever its densest voxels lie, or as long, thin, even and
on its way out of the heart."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.labels import Artery
from CACScoringLib.quality.artefacts import (
    LINE_LENGTH_MM,
    LINE_OUTSIDE_MM,
    METAL_EDGE_HU,
    METAL_HU,
    MetalKind,
    metal_lesions,
    without_metal,
)
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions

MASK = slice(10, 30)
"""Columns of the heart in `made`; metal beyond them is outside."""


def made(hu, spacing=(1.0, 1.0, 3.0)):
    """A scan of 6 × 20 × 130 voxels of 40 HU with pieces of other HU, and the lesions in its heart.

    hu: pieces as (k, row, first column, last column, HU).
    """
    values = np.full((6, 20, 130), 40, np.int16)
    for k, row, first, last, value in hu:
        values[k, row, first : last + 1] = value
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    arteries = np.zeros(values.shape, np.uint8)
    arteries[:, :, MASK] = Artery.UNASSIGNED
    return find_lesions(image, arteries, ScoringRules()), image


PLAQUE = (1, 4, 15, 18, 1500)
BAND = (3, 10, 25, 34, 700)


class TestDense:
    def test_a_device_whose_densest_voxels_lie_outside(self):
        found, image = made([PLAQUE, BAND, (3, 10, 34, 36, 2500)])
        plaque, band = sorted(found.lesions, key=lambda lesion: -lesion.peak_hu)
        assert band.peak_hu < METAL_HU
        assert set(metal_lesions(found, image)) == {band.id}
        kept, warnings = without_metal(found, image)
        assert [lesion.id for lesion in kept.lesions] == [plaque.id]
        assert set(np.unique(kept.id_map)) == {0, plaque.id}
        assert [w.code for w in warnings] == ["metal"]
        assert "1 lesion(s)" in warnings[0].message
        assert "(slices 3)" in warnings[0].message

    def test_what_touches_metal_is_metal(self):
        """As one faint rim of a device, or a voxel of the next slice, is."""
        found, image = made([(3, 10, 29, 29, 300), (4, 11, 30, 31, 2500)])
        assert len(metal_lesions(found, image)) == 1
        apart, image = made([(3, 10, 28, 28, 300), (4, 11, 30, 31, 2500)])
        assert len(metal_lesions(apart, image)) == 0

    def test_bone_between_calcium_and_metal_is_no_bridge(self):
        for bridge, metal in ((METAL_EDGE_HU - 1, 0), (METAL_EDGE_HU, 1)):
            found, image = made([(3, 10, 20, 28, 900), (3, 10, 29, 40, bridge), (3, 10, 41, 42, 2500)])
            assert len(found.lesions) == 1
            assert len(metal_lesions(found, image)) == metal


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
        found, image = columns_of((30, 95, 2, 800), (10, 20, 4, 1500))
        catheter, plaque = sorted(found.lesions, key=lambda lesion: lesion.peak_hu)
        assert metal_lesions(found, image) == {catheter.id: MetalKind.LINE}
        kept, (warning,) = without_metal(found, image)
        assert kept.lesions == (plaque,)
        assert "lead, catheter or wire (slices 30)" in warning.message

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
    def test_what_is_no_line(self, line):
        found, image = columns_of(line)
        assert len(found.lesions) == 1
        assert metal_lesions(found, image) == {}

    def test_enhanced_blood_around_a_catheter_is_not_metal(self):
        found, image = columns_of((30, 95, 2, 1000))
        values = sitk.GetArrayFromImage(image)
        for edge, metal in ((12, True), (20, False)):
            enhanced = values.copy()
            enhanced[:, :, :edge] = np.maximum(values[:, :, :edge], 350)
            blood = sitk.GetImageFromArray(enhanced)
            blood.SetSpacing((1.25, 1.25, 1.0))
            heart = np.zeros(values.shape, np.uint8)
            heart[: LENGTH // 2] = Artery.UNASSIGNED
            found = find_lesions(blood, heart, ScoringRules())
            assert len(found.lesions) == 1
            assert bool(metal_lesions(found, blood)) == metal
