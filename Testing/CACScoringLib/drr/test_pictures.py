"""Radiographs for panels: settings, and pictures on the detector."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.drr import pictures
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.projection import calcium_path, radiograph
from CACScoringLib.drr.settings import DrrSettings

SMALL = {"pixels": 40}


def cube(spot=(10, 12, 14), hu=900.0):
    """Return 96 mm of water in air with a bright voxel (k, j, i), off the origin, with 4 mm voxels."""
    values = np.full((32, 32, 32), -1000, np.float32)
    values[4:28, 4:28, 4:28] = 0
    values[spot] = hu
    return image_of(values, (4.0, 4.0, 4.0), (100.0, -50.0, 30.0))


class TestPlace:
    @pytest.mark.long
    @pytest.mark.parametrize("settings", [DrrSettings(**SMALL), DrrSettings(30.0, 15.0, True, **SMALL)])
    def test_a_voxel_lies_on_the_line_from_the_source_to_its_shadow(self, settings):
        spot = (10, 12, 14)
        image = cube(spot, 30000.0)
        geometry = settings.geometry(centre_mm(image))
        picture = pictures.placed(radiograph(image, geometry).line_integrals, geometry)
        _, row, column = np.unravel_index(np.argmax(sitk.GetArrayViewFromImage(picture)), (1, 40, 40))
        shadow = np.array(picture.TransformContinuousIndexToPhysicalPoint((float(column), float(row), 0.0)))
        voxel = np.array(image.TransformIndexToPhysicalPoint(spot[::-1]))
        forwards = geometry.axes()[0]
        source = np.array(geometry.isocentre_mm) - settings.source_isocentre_mm * forwards
        expected = source + (voxel - source) * settings.source_detector_mm / ((voxel - source) @ forwards)
        assert np.abs(shadow - expected).max() <= picture.GetSpacing()[0]


class TestRadiograph:
    @pytest.mark.long
    def test_holds_the_projections(self):
        image, settings = cube(), DrrSettings(30.0, kvp=90.0, table=True, **SMALL)
        calcium = sitk.Cast(image > 500, sitk.sitkFloat32) * 400
        heart = image[4:20, 4:20, 4:20] > -500  # on a smaller grid
        made = pictures.make_radiograph(settings, image, calcium, heart)
        geometry = settings.geometry(centre_mm(image))
        expected = radiograph(image, geometry, settings.spectrum())
        np.testing.assert_allclose(sitk.GetArrayFromImage(made.picture)[0], expected.line_integrals, atol=1e-5)
        assert made.window == pytest.approx(expected.window)
        np.testing.assert_allclose(sitk.GetArrayFromImage(made.calcium)[0], calcium_path(calcium, geometry), atol=1e-6)
        assert set(np.unique(sitk.GetArrayFromImage(made.heart))) == {0, 1}

    def test_the_table_is_removed_unless_kept_by_a_setting(self):
        image = cube()
        image[4:28, 30, 4:28] = 500  # a board behind the body
        without, with_table = (
            pictures.make_radiograph(DrrSettings(table=table, **SMALL), image).picture for table in (False, True)
        )
        assert sitk.GetArrayFromImage(without).sum() < 0.98 * sitk.GetArrayFromImage(with_table).sum()
