"""Properties of radiographs: independence of axes and of rotation, and reading back from DICOM."""

import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.drr import projection
from CACScoringLib.drr.files import write_dicom
from CACScoringLib.drr.geometry import view_named

VIEWS = ["PA", "lateral", "37", "tilted"]


def geometry(view, **fields):
    fields = {"pixels": (46, 40), "detector_mm": (200.0, 180.0), "isocentre_mm": (3.0, -5.0, 8.0)} | fields
    geometry = replace(view_named("20"), tilt_degrees=15.0) if view == "tilted" else view_named(view)
    return replace(geometry, **fields)


def image_of(values, oblique_degrees=0.0):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((4.0, 3.5, 5.0))
    sine, cosine = math.sin(math.radians(oblique_degrees)), math.cos(math.radians(oblique_degrees))
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    image.SetOrigin([-c for c in centre])
    return image


def bumps(seed=0):
    """Return smooth bumps without symmetry, float32 [k, j, i], 0 to about 1, and 0 at the rim."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((26, 32, 30), dtype=np.float32)
    total = np.zeros(k.shape, np.float32)
    for _ in range(4):
        z, y, x = rng.uniform(9, 17, 3)
        total += np.exp(-((k - z) ** 2 + (j - y) ** 2 + (i - x) ** 2) / 12).astype(np.float32)
    return total


@pytest.fixture(scope="module")
def patient():
    return image_of((1000 * bumps() - 1000).astype(np.float32))


def error(computed, expected):
    return np.abs(computed - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("order", ["RAS", "PIR", "SAL", "ILA"])
def test_order_and_flips_of_axes_do_not_matter(patient, order, view):
    path = projection.water_equivalent_mm(sitk.DICOMOrient(patient, order), geometry(view))
    assert error(path, projection.water_equivalent_mm(patient, geometry(view))) < 1e-5


@pytest.mark.parametrize("degrees", [-25.0, 10.0, 40.0])
def test_patient_and_stand_turned_together_give_the_same(degrees):
    """Rotating patient and stand about the same axis leaves the radiograph unchanged."""
    values = (1000 * bumps() - 1000).astype(np.float32)
    straight = projection.water_equivalent_mm(image_of(values), geometry("37", isocentre_mm=(0.0, 0.0, 0.0)))
    turned = geometry(str(37 + degrees), isocentre_mm=(0.0, 0.0, 0.0))
    assert error(projection.water_equivalent_mm(image_of(values, degrees), turned), straight) < 1e-4


def test_radiograph_in_dicom_is_read_back_unchanged(patient, tmp_path):
    from CACScoringLib.radiograph.reading import read_radiograph

    picture = projection.radiograph(patient, replace(view_named("PA"), pixels=(256, 240)))
    write_dicom(tmp_path / "x.dcm", picture, Acquisition("NIfTI"))
    loaded = read_radiograph(tmp_path / "x.dcm")
    assert loaded.view == "PA"
    assert loaded.pixel_mm == pytest.approx(picture.geometry.pixel_mm)
    np.testing.assert_allclose(loaded.picture / 65535, picture.grey, atol=1e-4)
