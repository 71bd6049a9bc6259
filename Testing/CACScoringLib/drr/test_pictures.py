"""Radiographs for panels: settings, pictures on the detector, previews, and positions of the stand."""

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.drr import pictures
from CACScoringLib.drr.geometry import centre_mm
from CACScoringLib.drr.pictures import preview, reduced, stand_of
from CACScoringLib.drr.projection import calcium_path, radiograph, water_equivalent_mm
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


@pytest.fixture(scope="module")
def chest():
    """CT, calcium map and heart of a body of water with a rod of calcium in the heart; 1 × 1 × 2 mm."""
    k, j, i = np.ogrid[0:60, 0:120, 0:150]
    hu = np.full((60, 120, 150), -1000, np.int16)
    hu[np.broadcast_to(((i - 75) / 65) ** 2 + ((j - 60) / 50) ** 2 <= 1, hu.shape)] = 0
    heart = ((k - 30) / 20) ** 2 + ((j - 50) / 20) ** 2 + ((i - 85) / 20) ** 2 <= 1
    calcium = np.zeros(hu.shape, np.float32)
    calcium[20:40, 48:52, 84:90] = 400
    hu[heart] = 40
    arrays = (hu + calcium.astype(np.int16), calcium, heart)
    return [image_of(array, (1.0, 1.0, 2.0), (-70.0, -50.0, 900.0)) for array in arrays]


@pytest.fixture(scope="module")
def scan(chest):
    return reduced(*chest)


def geometry_of(settings, pixels, image):
    return settings.geometry(centre_mm(image), pixels)


@pytest.mark.parametrize("angle", [0.0, 35.0])
def test_sums_along_rays_of_a_reduced_scan_stay(chest, angle):
    scan = reduced(*chest)
    assert scan.image.GetSize() == (50, 40, 30)
    geometry = geometry_of(DrrSettings(angle, detector_mm=260.0), 200, chest[0])
    assert geometry.isocentre_mm == scan.isocentre_mm
    full, small = (water_equivalent_mm(image, geometry) for image in (chest[0], scan.image))
    assert abs(small.sum() / full.sum() - 1) < 0.01
    full, small = (calcium_path(image, geometry) for image in (chest[1], scan.calcium))
    assert abs(small.sum() / full.sum() - 1) < 0.02


def test_calcium_is_coloured_in_its_shadow(scan, chest):
    settings = DrrSettings(detector_mm=260.0)
    picture = preview(scan, settings, 64, 1.0).astype(int)
    coloured = picture[..., 0] - picture[..., 2] > 20
    shadow = calcium_path(chest[1], settings.geometry(centre_mm(chest[0]), 64))
    assert coloured[shadow > 0.05].all()
    assert not coloured[shadow == 0].mean() > 0.02


@pytest.mark.parametrize("settings", [DrrSettings(90.0), DrrSettings(-70.0, 20.0), DrrSettings(180.0, mirrored=True)])
def test_the_beam_passes_the_isocentre_and_meets_the_detector_at_right_angles(settings):
    stand = stand_of(settings.geometry((10.0, 20.0, 30.0)))
    centre = stand.corners.mean(0)
    along = (centre - stand.source) / 1800
    assert np.linalg.norm(along) == pytest.approx(1)
    assert np.allclose(stand.source + 1600 * along, (10, 20, 30))
    assert np.allclose((stand.corners - centre) @ along, 0)
    assert np.linalg.norm(stand.corners[1] - stand.corners[0]) == pytest.approx(430)
