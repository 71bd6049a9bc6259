"""Files with random damage: read as a scan, or refused with an error that states the reason."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, save, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import image_of

from CACScoringLib.core.ct import AIR_HU, CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct

FUZZED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def scan_or_error(path):
    try:
        scan = read_ct(path)
    except CTError:
        return None
    assert isinstance(scan, CTScan)
    assert scan.hu.min() >= AIR_HU
    return scan


@pytest.mark.long
@FUZZED
@given(data=st.binary(max_size=600), name=st.sampled_from(["a.dcm", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a"]))
def test_random_bytes(tmp_path, data, name):
    head = {"a.dcm": bytes(128) + b"DICM", "a.nrrd": b"NRRD0005\n", "a.mha": b"ObjectType = Image\nNDims = 3\n"}
    path = tmp_path / name
    for content in (data, head.get(name, b"") + data):
        path.write_bytes(content)
        assert scan_or_error(path) is None
        assert scan_or_error(tmp_path) is None


@pytest.mark.long
def test_tags_deleted(tmp_path):
    read = []

    @FUZZED
    @given(choice=st.data())
    def check(choice):
        shutil.rmtree(tmp_path / "ct", ignore_errors=True)
        paths = write_series(tmp_path / "ct", chest_hu(3))
        path = choice.draw(st.sampled_from(paths))
        ds = pydicom.dcmread(path)
        keywords = sorted(element.keyword for element in ds)
        for keyword in choice.draw(st.lists(st.sampled_from(keywords), min_size=1, max_size=3, unique=True)):
            delattr(ds, keyword)
        save(ds, path)
        read.append(scan_or_error(tmp_path / "ct"))
        # The outcome is never a scan with other values, or with fewer slices and no warning.
        if read[-1] is not None and not read[-1].warnings:
            np.testing.assert_array_equal(read[-1].hu, chest_hu(3))

    check()
    assert sum(scan is not None and not scan.warnings for scan in read) >= 3
    assert read.count(None) >= 3


@pytest.mark.long
@FUZZED
@given(where=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=4))
def test_dicom_bytes_changed(tmp_path, where, new):
    shutil.rmtree(tmp_path / "ct", ignore_errors=True)
    path = write_series(tmp_path / "ct", chest_hu(3))[1]
    data = bytearray(path.read_bytes())
    start = 132 + int(where * (len(data) - 132))
    data[start : start + len(new)] = new
    path.write_bytes(data)
    scan_or_error(tmp_path / "ct")


@pytest.mark.long
@FUZZED
@given(
    name=st.sampled_from(["a.nii", "a.nrrd", "a.mha"]), where=st.integers(0, 350), new=st.binary(min_size=1, max_size=4)
)
def test_header_bytes_changed(tmp_path, name, where, new):
    image = image_of(chest_hu().astype(np.int16), (0.7, 0.7, 3.0))
    sitk.WriteImage(image, str(tmp_path / name))
    data = bytearray((tmp_path / name).read_bytes())
    data[where : where + len(new)] = new
    (tmp_path / name).write_bytes(data)
    scan_or_error(tmp_path / name)
