"""Arrays of images stay whole whatever happens to the image, as a notebook or a training holds them."""

import copy
import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import CACScoringLib as cac
from CACScoringLib.core.voxels import voxels_of

ROOT = Path(__file__).parents[3]


def viewed_after_a_shallow_copy(image):
    """Do what filters do: keep a shallow copy while the image is viewed again, which gives it another buffer."""
    shallow = sitk.Image(image)
    assert sitk.GetArrayViewFromImage(image).size == shallow.GetNumberOfPixels()


def test_an_array_outlives_the_buffers_and_the_image():
    values = np.arange(64**3, dtype=np.int32).reshape(64, 64, 64)
    image = sitk.GetImageFromArray(values)
    arrays = []
    for _ in range(3):
        arrays.append(voxels_of(image))
        viewed_after_a_shallow_copy(image)
    del image
    gc.collect()
    overwriting = [sitk.GetImageFromArray(np.zeros_like(values)) for _ in range(8)]
    for array in arrays:
        np.testing.assert_array_equal(array, values)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1
    assert len(overwriting) == 8


def test_a_scan_is_pickled_and_copied_without_its_array():
    scan = cac.CTScan.from_array(np.random.default_rng(0).normal(0, 300, (20, 40, 40)), spacing_mm=(3, 1, 1))
    size = len(pickle.dumps(scan))
    hu = scan.hu
    assert scan.hu is hu
    assert len(pickle.dumps(scan)) == size
    for again in (pickle.loads(pickle.dumps(scan)), copy.deepcopy(scan)):
        np.testing.assert_array_equal(again.hu, hu)


def test_no_other_view_stands_in_the_libraries():
    files = [*(ROOT / "CACScoring").rglob("*.py"), *(ROOT / "CACTraining").rglob("*.py")]
    assert len(files) > 300
    assert [f.name for f in files if "GetArrayViewFromImage" in f.read_text(encoding="utf-8")] == ["voxels.py"]
