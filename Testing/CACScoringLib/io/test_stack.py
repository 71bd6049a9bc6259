"""Images outside a series' stack: left out with a warning, or an error if the right ones are unclear."""

import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, save, set_tags, write_series
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from reading_checks import reads, refuses

from CACScoringLib.core.errors import SliceGeometryError

SAGITTAL = [0, 1, 0, 0, 0, -1]
SHEET = {
    "SOPClassUID": SecondaryCaptureImageStorage,
    "ImageType": ["DERIVED", "SECONDARY"],
    **dict.fromkeys(["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"]),
}


def add(path, name, hu=None, **tags):
    """Write an image of the same series beside a slice; a tag of None is deleted."""
    ds = pydicom.dcmread(path)
    ds.SOPInstanceUID = generate_uid()
    if hu is not None:
        ds.Rows, ds.Columns = hu.shape
        ds.PixelData = np.asarray(hu + 1024, "<u2").tobytes()
    set_tags(ds, tags)
    return save(ds, path.with_name(name))


SMALL_IMAGE = chest_hu(1, rows=20, columns=30)[0]


@pytest.mark.parametrize(
    ("hu", "tags"),
    [
        (SMALL_IMAGE, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": SAGITTAL}),
        (SMALL_IMAGE, SHEET),
        (None, SHEET),
        (SMALL_IMAGE, {}),
        (None, {"ImageOrientationPatient": SAGITTAL}),
        (None, {"PixelSpacing": [0.5, 0.5]}),
        (None, {}),
        (chest_hu(1, seed=1)[0], {"ConvolutionKernel": "B70f"}),
        (chest_hu(1, seed=1)[0], {"AcquisitionNumber": 2}),
    ],
    ids=["localizer", "sheet", "large sheet", "size", "orientation", "spacing", "copy", "kernel", "acquisition"],
)
def test_images_outside_the_stack_are_named(tmp_path, hu, tags):
    paths = write_series(tmp_path, chest_hu())
    extra = add(paths[2], "extra.dcm", hu, **tags)
    scan = reads(tmp_path, chest_hu(), ["images-left-out"])
    # The first copy by name stays.
    removed, stayed = ("slice002.dcm", extra) if hu is None and not tags else ("extra.dcm", paths[2])
    assert removed in scan.warnings[0].message
    assert len(scan.dicom_files) == 6
    assert stayed in scan.dicom_files


ALTERED = chest_hu()[2].copy()
ALTERED[5, 5] += 1


@pytest.mark.parametrize(
    ("name", "hu", "tags", "match"),
    [
        ("extra.dcm", chest_hu(1, seed=1)[0], {}, "1 slices have the same position"),
        ("slice002 (1).dcm", ALTERED, {}, "1 slices have the same position"),
        # A damaged slice of the stack: without it, there is a gap.
        ("slice002.dcm", None, {"ImageOrientationPatient": SAGITTAL}, "1 of 6 slices have a different orientation"),
    ],
    ids=["another image", "nearly a copy", "damaged"],
)
def test_a_doubtful_slice_is_refused(tmp_path, name, hu, tags, match):
    add(write_series(tmp_path, chest_hu())[2], name, hu, **tags)
    refuses(tmp_path, SliceGeometryError, match)


def test_two_full_stacks(tmp_path):
    for path in write_series(tmp_path, chest_hu()):
        add(path, f"copy-{path.name}", ConvolutionKernel="B70f")
    refuses(tmp_path, SliceGeometryError, "6 slices have the same position")


@pytest.mark.parametrize("name", ["slice{:03d} (1).dcm", "copy/slice{:03d}.dcm"])
def test_a_series_copied_twice(tmp_path, name):
    """A copy has all UIDs, beside the slices or in its own folder."""
    paths = write_series(tmp_path, chest_hu())
    (tmp_path / "copy").mkdir()
    for k, path in enumerate(paths):
        shutil.copy(path, tmp_path / name.format(k))
    scan = reads(tmp_path, chest_hu(), ["images-left-out"])
    assert "6 copies" in scan.warnings[0].message
