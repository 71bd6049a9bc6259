"""Stacks of a series: images outside are left out with a warning, or an error if the right ones are unclear.

Positions at the limits of one stack follow, and two reconstructions under one series.
"""

import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, only, save, set_tags, write_series
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from reading_checks import reads, refuses

import CACScoringLib as cac
from CACScoringLib.core.errors import SliceGeometryError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct

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
        *((SMALL_IMAGE, SHEET), (None, SHEET), (SMALL_IMAGE, {})),
        *((None, {"ImageOrientationPatient": SAGITTAL}), (None, {"PixelSpacing": [0.5, 0.5]}), (None, {})),
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


@pytest.mark.parametrize("name", ["slice{:03d} (1).dcm", "copy/slice{:03d}.dcm"])
def test_a_series_copied_twice(tmp_path, name):
    """A copy has all UIDs, beside the slices or in its own folder."""
    paths = write_series(tmp_path, chest_hu())
    (tmp_path / "copy").mkdir()
    for k, path in enumerate(paths):
        shutil.copy(path, tmp_path / name.format(k))
    scan = reads(tmp_path, chest_hu(), ["images-left-out"])
    assert "6 copies" in scan.warnings[0].message


def moved(k, offset_mm):
    """An edit that moves slice k by (x, y, z) mm."""

    def edit(ds, number):
        if number == k:
            ds.ImagePositionPatient = [float(p) + o for p, o in zip(ds.ImagePositionPatient, offset_mm, strict=True)]

    return edit


@pytest.mark.parametrize(
    ("offset_mm", "accepted"),
    [
        *(((0.0, 0.0, -0.24), True), ((0.0, 0.0, 0.27), False)),
        *(((0.49, 0.0, 0.0), True), ((0.0, -0.51, 0.0), False), ((0.4, 0.4, 0.0), False)),
    ],
)
def test_a_slice_out_of_its_place(tmp_path, offset_mm, accepted):
    """Slices 3 mm apart; the limits along their normal and within their plane differ."""
    write_series(tmp_path, chest_hu(), edit=moved(2, offset_mm))
    if accepted:
        assert reads(tmp_path, chest_hu()).slice_spacing_mm == pytest.approx(3.0)
    else:
        refuses(tmp_path, SliceGeometryError)


@pytest.mark.parametrize(
    ("spacing_mm", "jitter_mm", "accepted"), [(3.0, 0.2, True), (3.0, 0.5, False), (1.0, 0.14, True)]
)
def test_positions_of_an_encoder(tmp_path, spacing_mm, jitter_mm, accepted):
    """Each position deviates by up to the jitter."""

    def edit(ds, k):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, float(z) + jitter_mm * (-1, 1, 0)[k % 3]]

    write_series(tmp_path, chest_hu(30), spacing_mm=(0.7, 0.8, spacing_mm), edit=edit)
    if accepted:
        scan = reads(tmp_path, chest_hu(30))
        assert scan.slice_spacing_mm == pytest.approx(spacing_mm, abs=2 * jitter_mm / 29)
    else:
        refuses(tmp_path, SliceGeometryError, "unevenly spaced")


@pytest.mark.parametrize(
    ("tags", "accepted"),
    [
        ({"PixelSpacing": [0.8009, 0.7]}, True),
        ({"PixelSpacing": [0.8, 0.7012]}, False),
        ({"ImageOrientationPatient": [1, 0.0009, 0, -0.0009, 1, 0]}, True),
        ({"ImageOrientationPatient": [1, 0.0011, 0, -0.0011, 1, 0]}, False),
    ],
)
def test_the_second_of_two_slices_has_another_grid(tmp_path, tags, accepted):
    write_series(tmp_path, chest_hu(2), edit=only(1, **tags))
    if accepted:
        assert read_ct(tmp_path).image.GetSpacing() == pytest.approx((0.7, 0.8, 3.0))
    else:
        refuses(tmp_path, SliceGeometryError)


THICKNESS_MM, PLAQUE_MM, PLAQUE_HU, TISSUE_HU = 3.0, (40.2, 46.6), 600, 40
AREA_MM2 = 4 * 4 * 0.7 * 0.8
PLAQUE = slice(8, 12), slice(9, 13)


def share_in_slice(z):
    """Share of the plaque in the slice around z."""
    low, high = PLAQUE_MM
    half = THICKNESS_MM / 2
    return np.clip(np.minimum(z + half, high) - np.maximum(z - half, low), 0, None) / THICKNESS_MM


def reconstruction(folder, first_mm, **tags):
    """Write 12 slices of 3 mm, of the kernel and series of all; return the Agatston score on paper."""
    z = first_mm + THICKNESS_MM * np.arange(12)
    hu = np.random.default_rng(int(10 * first_mm)).normal(TISSUE_HU, 10, (12, 20, 24)).round()
    hu[:, :, :3] -= 1000
    hu[0, 0, 20], hu[1, 0, 20] = 1200, 1300  # bone, so that the plaque is not where the image is clipped
    plaque_hu = np.rint(TISSUE_HU + share_in_slice(z) * (PLAQUE_HU - TISSUE_HU))
    hu[(slice(None), *PLAQUE)] = plaque_hu[:, None, None]
    kernel = {"ConvolutionKernel": "B35f", "SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", **tags}
    write_series(folder, hu, origin_mm=(0, 0, first_mm), tags=kernel, name=f"{first_mm:g}-{{:03d}}".format)
    return AREA_MM2 * sum((np.array([130, 200, 300, 400]) <= value).sum() for value in plaque_hu)


def agatston(folder):
    scan = cac.read_ct(folder)
    labels = np.zeros(scan.hu.shape, np.uint8)
    labels[(slice(None), *PLAQUE)] = 1
    image = Grid.of(scan.image).image(labels)
    return scan, cac.agatston(scan, image).total.agatston


@pytest.mark.long
def test_halfway_slices_score_as_the_mean_of_both(tmp_path):
    scores = [reconstruction(tmp_path / str(n), first) for n, first in enumerate((30.0, 31.5))]
    assert scores[0] != scores[1]
    assert [agatston(tmp_path / str(n))[1] for n in range(2)] == pytest.approx(scores)
    scan, score = agatston(tmp_path)
    assert (scan.slice_spacing_mm, scan.acquisition.slice_thickness_mm) == (pytest.approx(1.5), 3)
    assert score == pytest.approx(np.mean(scores))


def test_another_thickness_by_turns_is_reported(tmp_path):
    reconstruction(tmp_path / "0", 30.0)
    reconstruction(tmp_path / "1", 31.5, SliceThickness=1.5)
    assert "mixed-acquisition" in [warning.code for warning in cac.read_ct(tmp_path).warnings]


def test_positions_that_go_back_and_forth_are_named(tmp_path):
    """Every second slice lies 10 mm too low, so that slices seem to be missing at both ends."""

    def shift(dataset, k):
        dataset.ImagePositionPatient[2] -= 10 * (k % 2)

    write_series(tmp_path, chest_hu(21), spacing_mm=(0.7, 0.8, 2.5), edit=shift)
    with pytest.raises(SliceGeometryError, match=r"back and forth, by \+12.5 and -7.5 mm"):
        read_ct(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("first_mm", "reason"), [(30.0, "several reconstructions"), (31.0, "11 slices are missing")])
def test_slices_at_the_same_or_uneven_places_are_refused(tmp_path, first_mm, reason):
    reconstruction(tmp_path / "0", 30.0)
    reconstruction(tmp_path / "1", first_mm, RescaleIntercept=-1023)
    with pytest.raises(cac.CTError, match=reason):
        cac.read_ct(tmp_path)
