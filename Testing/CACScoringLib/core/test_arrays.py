"""Scans from arrays: geometry, and refused arrays."""

import pickle

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu
from images import image_of

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.errors import CTError, NotHounsfieldError, NotVolumeError, OrientationError, SliceGeometryError
from CACScoringLib.core.voxels import ArrayImage
from CACScoringLib.mrml.sample_data import sample_file


def affine(columns, origin=(0.0, 0.0, 0.0)):
    """Affine of RAS columns, one for each axis of the array."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns, float).T
    matrix[:3, 3] = origin
    return matrix


def test_an_affine_places_each_axis():
    hu = chest_hu()
    # Array axes: to the feet (3 mm), to anterior (0.8 mm), to the right (0.7 mm).
    turned = hu[::-1, ::-1, ::-1]
    scan = CTScan.from_array(turned, affine([(0, 0, -3), (0, 0.8, 0), (0.7, 0, 0)], origin=(10, 20, 30)))
    np.testing.assert_array_equal(scan.hu, hu)
    np.testing.assert_allclose(scan.image.GetSpacing(), (0.7, 0.8, 3))
    k, j, i = (n - 1 for n in hu.shape)
    # The array's first voxel, right 10, anterior 20, superior 30, is the scan's last one.
    np.testing.assert_allclose(scan.image.TransformIndexToPhysicalPoint((i, j, k)), (-10, -20, 30))
    reordered = CTScan.from_array(hu.T, affine([(-0.7, 0, 0), (0, -0.8, 0), (0, 0, 3)]))
    np.testing.assert_array_equal(reordered.hu, hu)


def test_a_spacing_stands_for_axes_of_a_scan():
    acquisition = Acquisition("memory", kvp=100)
    scan = CTScan.from_array(chest_hu(), spacing_mm=(3, 0.8, 0.7), acquisition=acquisition)
    np.testing.assert_array_equal(scan.hu, chest_hu())
    np.testing.assert_allclose(scan.image.GetSpacing(), (0.7, 0.8, 3))
    assert scan.image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert scan.acquisition is acquisition


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">i2"])
def test_any_real_type_is_taken(dtype):
    np.testing.assert_array_equal(CTScan.from_array(chest_hu().astype(dtype), spacing_mm=(3, 1, 1)).hu, chest_hu())


@pytest.mark.parametrize(
    ("array", "place", "error"),
    [
        (np.zeros((4, 4)), {"spacing_mm": (1, 1, 1)}, NotVolumeError),
        (np.full((4, 4, 4), "a"), {"spacing_mm": (1, 1, 1)}, NotHounsfieldError),
        (chest_hu(), {}, SliceGeometryError),
        (chest_hu(), {"spacing_mm": (1, 1, 1), "affine": np.eye(4)}, SliceGeometryError),
        (chest_hu(), {"spacing_mm": (3, 1)}, SliceGeometryError),
        (chest_hu(), {"spacing_mm": "3 mm"}, SliceGeometryError),
        (chest_hu(), {"spacing_mm": (3, 0, 1)}, SliceGeometryError),
        (chest_hu(), {"spacing_mm": (3, np.nan, 1)}, SliceGeometryError),
        (chest_hu(), {"affine": np.eye(3)}, SliceGeometryError),
        (chest_hu(), {"affine": affine([(1, 0, 0), (0.1, 1, 0), (0, 0, 1)])}, SliceGeometryError),
        (np.zeros((4, 4, 4)), {"affine": np.eye(4)}, NotHounsfieldError),
    ],
)
def test_invalid_arrays_are_refused(array, place, error):
    with pytest.raises(error) as raised:
        CTScan.from_array(array, **place)
    assert isinstance(raised.value, CTError)


def test_an_image_is_an_array():
    image = image_of(np.arange(24, dtype=np.int16).reshape(2, 3, 4), (1, 2, 3))
    wrapped = ArrayImage(image)
    np.testing.assert_array_equal(np.asarray(wrapped), np.arange(24).reshape(2, 3, 4))
    assert np.asarray(wrapped).dtype == np.int16
    assert np.asarray(wrapped, float).dtype == float
    copied = pickle.loads(pickle.dumps(wrapped))
    np.testing.assert_array_equal(np.asarray(copied), np.asarray(wrapped))
    assert copied.GetSpacing() == (1, 2, 3)


def test_exchanged_axes_contradict_the_spine():
    hu = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(sample_file())), "LPS"))
    right = affine([(-1.2, 0, 0), (0, -1.2, 0), (0, 0, 3)])
    assert CTScan.from_array(hu.T, right).hu.shape == hu.shape
    assert CTScan.from_array(hu, spacing_mm=(3, 1.2, 1.2)).hu.shape == hu.shape
    for array, place, course in (
        (hu, {"affine": right}, "left to right"),
        (hu.T, {"spacing_mm": (1.2, 1.2, 3)}, "left to right"),
        (hu.swapaxes(0, 1), {"spacing_mm": (1.2, 3, 1.2)}, "front to back"),
    ):
        with pytest.raises(OrientationError, match=f"spine runs from {course}"):
            CTScan.from_array(array, **place)
