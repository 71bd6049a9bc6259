"""Reading a CT: the right HU at the right place, or an error that says what is wrong."""

import json
import math
import shutil
import struct
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, save, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage

from CACScoringLib.core.ct import (
    AIR_HU,
    Acquisition,
    CTError,
    CTScan,
    MixedSeriesError,
    NotCTError,
    NotHounsfieldError,
    NotVolumeError,
    SeriesChoiceError,
    SliceGeometryError,
    UnreadableError,
    same_grid,
)
from CACScoringLib.core.files import OutputError
from CACScoringLib.io import dicom, stack
from CACScoringLib.io.reading import read_acquisition, read_ct

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
FUZZED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def codes(scan):
    return [warning.code for warning in scan.warnings]


def shifted(shifts_mm, axis=2):
    """An edit that moves slice k by shifts_mm[k] along an axis."""

    def edit(ds, k):
        position = [float(value) for value in ds.ImagePositionPatient]
        position[axis] = round(position[axis] + shifts_mm[k], 4)
        ds.ImagePositionPatient = position

    return edit


def only(k, **tags):
    """An edit of slice k alone; None deletes."""

    def edit(ds, n):
        for keyword, value in tags.items() if n == k else ():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return edit


ODD = [0, 1, 0, 0, 0, -1]
TILT = [k * 3 * math.tan(math.radians(1.5)) for k in range(10)]
REFUSED = [
    # Hounsfield units
    (NotHounsfieldError, "6 of 6 slices have no rescale slope", {"RescaleSlope": None}, None),
    (NotHounsfieldError, r"1 of 6 slices have no rescale intercept.* slice002", {}, only(2, RescaleIntercept=None)),
    (NotHounsfieldError, "slope is 0", {"RescaleSlope": 0}, None),
    (NotHounsfieldError, "MGML, not HU", {"RescaleType": "MGML"}, None),
    (NotHounsfieldError, r"mixes rescale types \(HU, US\)", {}, only(2, RescaleType="US")),
    (NotHounsfieldError, "inverted", {"PhotometricInterpretation": "MONOCHROME1"}, None),
    (NotVolumeError, "colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, None),
    # Bits of a pixel: where a header describes them wrongly, values are read as others.
    (UnreadableError, "slice002.dcm holds 336 bytes of pixels, and 672 by its header", {}, only(2, BitsAllocated=32)),
    (UnreadableError, r"slice003\.dcm", {}, only(3, PixelData=None)),
    (UnreadableError, "describes pixels that no CT has", {"BitsStored": 20}, None),
    (UnreadableError, "describes pixels that no CT has", {"HighBit": 11}, None),
    (UnreadableError, "describes pixels that no CT has", {"BitsAllocated": 17}, None),
    (UnreadableError, r"slice002\.dcm does not say whether its pixels have a sign", {}, only(2, PixelRepresentation=2)),
    # One stack
    (SliceGeometryError, r"1 slices have the same position.*, at 36\.0 mm", {}, shifted([0, 0, 0, -3, 0, 0])),
    (SliceGeometryError, r"unevenly spaced.*at 40\.2 mm lies 1\.20 mm off", {}, shifted([0, 0, 0, 1.2, 0, 0])),
    (SliceGeometryError, "unevenly spaced", {}, shifted([0, 0, 0, 0, 0.4, 0.8])),
    (SliceGeometryError, r"sheared by 1\.5°", {}, shifted(TILT, 1)),
    (SliceGeometryError, r"shifted against each other by up to 5\.0 mm", {}, shifted([0, 0, 0, 5, 5, 5], 0)),
    (SliceGeometryError, "1 of 6 slices have a different orientation", {}, only(2, ImageOrientationPatient=ODD)),
    (SliceGeometryError, "differ in pixel spacing", {}, only(2, PixelSpacing=[0.8, 0.71])),
    (SliceGeometryError, "no valid image position: slice002", {}, only(2, ImagePositionPatient=None)),
    (SliceGeometryError, "no valid image position", {}, only(2, ImagePositionPatient=[0, 0])),
    (SliceGeometryError, "no valid image orientation", {}, only(2, ImageOrientationPatient=None)),
    (SliceGeometryError, "no valid pixel spacing", {}, only(2, PixelSpacing=None)),
    (SliceGeometryError, "differ in size: 5 of 14×12, 1 of 28×6", {}, only(2, Rows=6, Columns=28)),
    (SliceGeometryError, "not a pair of perpendicular", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, None),
    (SliceGeometryError, "not a pair of perpendicular", {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, None),
    (SliceGeometryError, "along axis i", {"PixelSpacing": [0.7, 0.05]}, None),
    (SliceGeometryError, "along axis j", {"PixelSpacing": [0.01, 0.7]}, None),
]


@pytest.mark.long
@pytest.mark.parametrize(("error", "match", "tags", "edit"), REFUSED)
def test_a_series_that_is_no_stack_of_hu(tmp_path, error, match, tags, edit):
    write_series(tmp_path, chest_hu(10 if "sheared" in match else 6), tags=tags, edit=edit)
    with pytest.raises(error, match=match):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"KVP": 100, "ConvolutionKernel": "B70f"}, "B35f, B70f"),
        ({"BitsStored": 12, "HighBit": 11}, "bits of a pixel 12, 16"),
    ],
)
def test_one_slice_that_differs_is_warned_of(tmp_path, tags, text):
    write_series(tmp_path, chest_hu(), edit=only(2, **tags))
    (warning,) = read_ct(tmp_path).warnings
    assert (warning.code, text in warning.message) == ("mixed-acquisition", True)


class TestHounsfield:
    def test_values_and_places(self, tmp_path):
        write_series(tmp_path, chest_hu())
        scan = read_ct(tmp_path)
        np.testing.assert_array_equal(scan.hu, chest_hu())
        assert scan.hu.dtype == np.int16
        assert scan.image.GetSpacing() == pytest.approx((0.7, 0.8, 3.0))
        assert scan.image.GetOrigin() == pytest.approx((-100.0, -120.0, 30.0))
        assert scan.warnings == ()
        assert scan.source == tmp_path

    def test_every_slice_has_its_own_rescale(self, tmp_path):
        hu = chest_hu(4) // 2 * 2
        write_series(tmp_path, hu, slope=[1, 2, 1, 2], intercept=[-1024, -1024, -2000, 0], signed=True)
        scan = read_ct(tmp_path)
        np.testing.assert_array_equal(scan.hu, hu)
        assert scan.hu.dtype == np.int16

    @pytest.mark.parametrize("media", [None, SecondaryCaptureImageStorage])
    def test_fractional_rescale(self, tmp_path, media):
        hu = chest_hu(3) + 0.5
        write_series(
            tmp_path,
            hu,
            slope=[0.5, 1, 0.25],
            intercept=[-1024, -1024.5, -1000],
            tags={"SOPClassUID": media} if media else None,
        )
        scan = read_ct(tmp_path)
        assert scan.hu.dtype == np.float32
        np.testing.assert_array_equal(scan.hu, hu)

    @pytest.mark.parametrize("rescale", [{"RescaleIntercept": -10240}, {"RescaleSlope": 0.5}, {"RescaleSlope": -1}])
    @pytest.mark.parametrize("k", [0, 3, 5])
    def test_a_rescale_that_does_not_continue_the_neighbours(self, tmp_path, rescale, k):
        write_series(tmp_path, chest_hu(), edit=only(k, **rescale))
        with pytest.raises(NotHounsfieldError, match=rf"soft tissue by [+-]\d+ HU.*slice00{k}\.dcm \(slope"):
            read_ct(tmp_path)

    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("intercept", [-1024, -8192])
    def test_signed_and_unsigned(self, tmp_path, signed, intercept):
        write_series(tmp_path, chest_hu(), signed=signed, intercept=intercept)
        np.testing.assert_array_equal(read_ct(tmp_path).hu, chest_hu())

    @pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
    def test_compressed_jpeg_lossless(self, tmp_path, compressor):
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.KeepOriginalImageUIDOn()
        for path in write_series(tmp_path, chest_hu(), signed=True, intercept=0, name="{:02d}".format):
            writer.SetFileName(str(path.with_suffix(".dcm")))
            writer.Execute(sitk.ReadImage(str(path)))
            compressed = pydicom.dcmread(path.with_suffix(".dcm"))
            original = pydicom.dcmread(path, stop_before_pixels=True)
            assert compressed.file_meta.TransferSyntaxUID.is_compressed
            compressed.update(original)
            compressed.save_as(path)
            path.with_suffix(".dcm").unlink()
        np.testing.assert_array_equal(read_ct(tmp_path).hu, chest_hu())

    @pytest.mark.parametrize(
        ("stored", "tag", "signed"),
        [
            (-2000, -2000, True),
            (-3024, -3024, True),
            (-2000, 63536, True),
            (62512, 62512, False),
            (63536, -2000, False),
        ],
    )
    def test_padding_is_air(self, tmp_path, stored, tag, signed):
        # In two of these the tag has the bits of the stored value under the other sign, as some writers give it.
        intercept = 0 if signed else -1024
        hu = chest_hu()
        hu[:, 0] = stored + intercept
        write_series(tmp_path, hu, signed=signed, intercept=intercept, edit=padding_tag(tag))
        scan = read_ct(tmp_path)
        assert (scan.hu[:, 0] == AIR_HU).all()
        np.testing.assert_array_equal(scan.hu[:, 1:], chest_hu()[:, 1:])
        assert scan.warnings == ()

    def test_values_below_air_that_are_no_padding_are_counted(self, tmp_path):
        hu = chest_hu()
        hu[2, 0, :5] = -2000 + np.arange(5)
        write_series(tmp_path, hu, intercept=-3024)
        scan = read_ct(tmp_path)
        assert codes(scan) == ["below-air"]
        assert "4 voxels (0.4%)" in scan.warnings[0].message
        assert "down to -2000 HU" in scan.warnings[0].message

    @pytest.mark.parametrize("tag", [0, -300, 65236])
    def test_padding_with_a_tissue_value_is_left_with_a_warning(self, tmp_path, tag):
        write_series(tmp_path, chest_hu(), signed=True, intercept=0, edit=padding_tag(tag))
        scan = read_ct(tmp_path)
        np.testing.assert_array_equal(scan.hu, chest_hu())
        assert codes(scan) == ["padding-among-tissue"]

    def test_rescale_type_left_out_or_unspecified(self, tmp_path):
        write_series(tmp_path / "without", chest_hu(), tags={"RescaleType": None})
        write_series(tmp_path / "unspecified", chest_hu(), tags={"RescaleType": "US"})
        assert codes(read_ct(tmp_path / "without")) == []
        assert codes(read_ct(tmp_path / "unspecified")) == ["unit-unspecified"]


def padding_tag(value):
    def edit(ds, _):
        ds.add_new(0x00280120, "US" if value >= 0 else "SS", value)

    return edit


class TestGeometry:
    def test_order_comes_from_positions_alone(self, tmp_path):
        shuffled = [3, 0, 5, 1, 4, 2]

        def edit(ds, k):
            ds.InstanceNumber = shuffled[k]
            ds.SliceLocation = -k

        write_series(tmp_path, chest_hu(), edit=edit, name=lambda k: f"{shuffled[(k + 2) % 6]}.dcm")
        scan = read_ct(tmp_path)
        np.testing.assert_array_equal(scan.hu, chest_hu())
        assert scan.image.GetOrigin() == pytest.approx((-100, -120, 30))

    def test_sagittal_and_oblique(self, tmp_path):
        write_series(tmp_path / "sagittal", chest_hu(), orientation=(0, 1, 0, 0, 0, -1))
        scan = read_ct(tmp_path / "sagittal")
        # i runs posterior, j down, k (their cross product) to the right.
        np.testing.assert_array_equal(scan.hu, np.transpose(chest_hu(), (1, 2, 0))[::-1, :, ::-1])
        assert scan.image.GetSpacing() == pytest.approx((3.0, 0.7, 0.8))
        c, s = math.cos(math.radians(10)), math.sin(math.radians(10))
        write_series(tmp_path / "oblique", chest_hu(), orientation=(1, 0, 0, 0, c, s))
        scan = read_ct(tmp_path / "oblique")
        np.testing.assert_array_equal(scan.hu, chest_hu())
        assert codes(scan) == ["oblique"]

    @pytest.mark.long
    @pytest.mark.parametrize("spacing", [0.625, 1.25, 2.5])
    def test_positions_rounded_to_a_tenth_pass(self, tmp_path, spacing):
        def edit(ds, _):
            ds.ImagePositionPatient = [round(float(value), 1) for value in ds.ImagePositionPatient]

        write_series(tmp_path, chest_hu(40), spacing_mm=(0.7, 0.7, spacing), edit=edit)
        assert read_ct(tmp_path).slice_spacing_mm == pytest.approx(spacing, abs=0.1 / 39)

    @pytest.mark.parametrize("rounded", [False, True])
    def test_missing_slices(self, tmp_path, rounded):
        def edit(ds, _):
            if rounded:
                ds.ImagePositionPatient = [round(float(value), 1) for value in ds.ImagePositionPatient]

        paths = write_series(tmp_path, chest_hu(24), spacing_mm=(0.7, 0.7, 0.625), origin_mm=(0, 0, 30.0), edit=edit)
        for k in (3, 7, 8, 14, 15, 16, 17, 18):
            paths[k].unlink()
        with pytest.raises(
            SliceGeometryError,
            match=r"8 slices are missing.*1 between 31\.\d and 32\.\d mm, 2 between 33\.\d and 35\.\d mm, 5 between",
        ):
            read_ct(tmp_path)


class TestHeaders:
    """What headers say about the images, beside their geometry and values."""

    @pytest.mark.parametrize(
        ("tags", "code"),
        [
            ({"BurnedInAnnotation": "YES"}, "burned-in"),
            ({"LossyImageCompression": "01"}, "lossy-compression"),
            ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_VNC"]}, "derived-image"),
            ({"ImageType": ["DERIVED", "SECONDARY", "VOLUME", "MAT_REMOVED"]}, "derived-image"),
            ({"SeriesDescription": "Thorax MIP 10 mm"}, "derived-image"),
            ({"SeriesDescription": "MonoE 40 keV"}, "derived-image"),
            ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MPR"]}, None),
            ({"PatientPosition": "HFS"}, None),
            ({"PatientPosition": "HFP"}, None),
            ({"PatientPosition": "HFS", "ImageOrientationPatient": [1, 0, 0, 0, -1, 0]}, "patient-position"),
            ({"PatientPosition": "HFS", "ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, "patient-position"),
            ({"PatientPosition": "FFS", "ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, None),
            ({"TriggerTime": 700}, None),
        ],
    )
    def test_images_that_headers_cast_doubt_on(self, tmp_path, tags, code):
        write_series(tmp_path, chest_hu(), tags=tags)
        assert codes(read_ct(tmp_path)) == ([code] if code else [])

    @pytest.mark.parametrize(
        ("keyword", "values", "code"),
        [
            ("NominalPercentageOfCardiacPhase", [40, 40, 40, 75, 75, 75], ["cardiac-phases"]),
            ("TriggerTime", [300, 300, 300, 700, 700, 700], ["cardiac-phases"]),
            ("TriggerTime", [640, 655, 700, 690, 710, 660], []),
        ],
    )
    def test_cardiac_phases_mixed_in_one_stack(self, tmp_path, keyword, values, code):
        write_series(tmp_path, chest_hu(), edit=lambda ds, k: setattr(ds, keyword, values[k]))
        assert codes(read_ct(tmp_path)) == code

    @pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"])
    def test_patients_or_studies_mixed_in_one_series(self, tmp_path, keyword):
        write_series(tmp_path, chest_hu(), tags={keyword: "19500101"}, edit=only(3, **{keyword: "19500102"}))
        with pytest.raises(MixedSeriesError, match=r"slice000\.dcm and slice003\.dcm have one series UID"):
            read_ct(tmp_path)

    def test_one_patient_written_in_several_ways(self, tmp_path):
        names = ["Doe^Jane", "DOE^JANE", "Doe^Jane^^", "", "Doe^Jane ", "doe^jane"]
        write_series(tmp_path, chest_hu(), edit=lambda ds, k: setattr(ds, "PatientName", names[k]))
        assert codes(read_ct(tmp_path)) == []


class TestSeriesChoice:
    def two_series(self, folder, second_number=4):
        write_series(folder / "a", chest_hu())
        tags = {"SeriesNumber": second_number, "SeriesDescription": "Lung", "ConvolutionKernel": "B70f"}
        paths = write_series(folder / "b", chest_hu(5, seed=1), tags=tags)
        return pydicom.dcmread(paths[0]).SeriesInstanceUID

    def test_by_number_and_by_uid(self, tmp_path):
        uid = self.two_series(tmp_path)
        assert read_ct(tmp_path, "3").acquisition.series_number == 3
        assert read_ct(tmp_path, " 4 ").acquisition.series_uid == uid
        np.testing.assert_array_equal(read_ct(tmp_path, uid).hu, chest_hu(5, seed=1))

    @pytest.mark.long
    def test_ambiguous_number(self, tmp_path):
        """The place in the list, which is in the order of UIDs, tells the series apart; so does the UID."""
        uid = self.two_series(tmp_path, second_number=3)
        write_series(tmp_path / "c", chest_hu(4, seed=2), tags={"SeriesNumber": 4})
        for wanted, said in (("3", "2 CT series have the number 3"), (None, "3 CT series"), ("3.3", "no CT series")):
            with pytest.raises(SeriesChoiceError, match=said) as caught:
                read_ct(tmp_path, wanted)
            lines = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
            assert lines == (["3.1", "3.2"] if wanted == "3" else ["3.1", "3.2", "4"])
            lung = next(line for line in str(caught.value).splitlines() if "Lung" in line)
            assert "kernel B70f, 3 mm thick, unknown time, 5 slices, UID " + uid in lung
        label = lung.split(":")[0].strip()
        uids = sorted(read_ct(tmp_path, name).acquisition.series_uid for name in ("3.1", "3.2"))
        assert uid in uids
        assert uids == [read_ct(tmp_path, name).acquisition.series_uid for name in ("3.1", "3.2")]
        for name in (uid, label):
            assert read_ct(tmp_path, name).acquisition.series_uid == uid

    @pytest.mark.parametrize(
        ("keyword", "values", "stated"),
        [
            ("NominalPercentageOfCardiacPhase", (40, 75), "% of the cycle"),
            ("TriggerTime", (300, 700), "ms after the R wave"),
        ],
    )
    @pytest.mark.parametrize("number", [3, None])
    def test_cardiac_phases_of_one_series(self, tmp_path, keyword, values, stated, number):
        for n, value in enumerate(values):
            tags = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", keyword: value, "SeriesNumber": number}
            write_series(tmp_path / str(n), chest_hu(seed=n), tags=tags)
        for wanted in (None, "1.2.3"):
            with pytest.raises(SeriesChoiceError, match=r"2 .*cardiac phases") as caught:
                read_ct(tmp_path, wanted)
            lines = str(caught.value).splitlines()[1:]
            assert [f"{value} {stated}" in line for value, line in zip(values, lines, strict=True)] == [True, True]
        for n, line in enumerate(lines):
            scan = read_ct(tmp_path, line.split(":")[0])
            np.testing.assert_array_equal(scan.hu, chest_hu(seed=n))
            assert codes(scan) == []

    def test_localizers_are_no_candidates(self, tmp_path):
        write_series(tmp_path / "ct", chest_hu())
        scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1}
        write_series(tmp_path / "scout", chest_hu(2), tags=scout)
        assert read_ct(tmp_path).acquisition.series_number == 3
        shutil.rmtree(tmp_path / "ct")
        with pytest.raises(NotVolumeError, match="localizer"):
            read_ct(tmp_path)

    def test_other_modalities(self, tmp_path):
        write_series(tmp_path / "mr", chest_hu(2), tags={"Modality": "MR"})
        write_series(tmp_path / "seg", chest_hu(3), tags={"Modality": "SEG"})
        with pytest.raises(NotCTError, match="2 of modality MR, 3 of modality SEG"):
            read_ct(tmp_path)
        write_series(tmp_path / "ct", chest_hu())
        np.testing.assert_array_equal(read_ct(tmp_path).hu, chest_hu())

    def test_description_cannot_write_to_the_terminal(self, tmp_path):
        for name in "ab":
            write_series(tmp_path / name, chest_hu(2), tags={"SeriesDescription": "\x1b[2J../../etc\npasswd"})
        with pytest.raises(SeriesChoiceError) as caught:
            read_ct(tmp_path)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 3


class TestDicomFiles:
    @pytest.mark.parametrize("keep", [0.4, 0.9, 0.999])
    def test_truncated_slice(self, tmp_path, keep):
        path = write_series(tmp_path, chest_hu(rows=60, columns=60))[3]
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        with pytest.raises(UnreadableError, match=r"slice003\.dcm"):
            read_ct(tmp_path)

    @pytest.mark.parametrize("missing", [8, 50, 300])
    def test_truncated_compressed_slice(self, tmp_path, missing):
        path = write_series(tmp_path, chest_hu())[3]
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path)
        path.write_bytes(path.read_bytes()[:-missing])
        with pytest.raises(UnreadableError, match=r"slice003\.dcm"):
            read_ct(tmp_path)

    @pytest.mark.parametrize("claimed", [2**30, 2**31 - 256, 2**32 - 16])
    @pytest.mark.parametrize("form", ["explicit", "implicit"])
    def test_lengths_are_checked_before_they_are_believed(self, tmp_path, monkeypatch, form, claimed):
        """GDCM would set aside what an element behind the pixels claims to hold, gigabytes, and fill it."""
        header = struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, claimed)
        if form == "implicit":
            header = struct.pack("<HHI", 0x7FE1, 0x10, claimed)
        for path in write_series(tmp_path, chest_hu()):
            path.write_bytes(path.read_bytes() + header + b"appended")
        monkeypatch.setattr(stack.sitk, "ImageFileReader", lambda: pytest.fail("GDCM was asked"))
        with pytest.raises(UnreadableError, match=r"slice000\.dcm is truncated, or other bytes were written into it"):
            read_ct(tmp_path)

    def test_no_more_is_set_aside_for_a_header_than_it_holds(self, tmp_path):
        """An element that is looked at claims 2 GB."""
        path = write_series(tmp_path, chest_hu())[3]
        content = path.read_bytes()
        at = content.index(b"CaSc 3.0") - 4
        path.write_bytes(content[:at] + b"UT\0\0" + struct.pack("<I", 2**31 - 256) + content[at + 4 :])
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableError, match="truncated, or other bytes"):
                dicom.read_slice(path)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()

    def test_broken_headers_are_named_in_a_warning(self, tmp_path):
        write_series(tmp_path, chest_hu())
        (tmp_path / "torn.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
        scan = read_ct(tmp_path)
        assert codes(scan) == ["unread-files"]
        assert "torn.dcm" in scan.warnings[0].message

    @pytest.mark.parametrize("tags", [{"SOPClassUID": ENHANCED_CT}, {"NumberOfFrames": 40}])
    def test_multi_frame(self, tmp_path, tags):
        path = write_series(tmp_path, chest_hu(1), tags={**tags, "ImagePositionPatient": None})[0]
        for given_path in (path, tmp_path):
            with pytest.raises(UnreadableError, match="multi-frame CT without functional groups"):
                read_ct(given_path)

    def test_nothing_to_read(self, tmp_path):
        path = write_series(tmp_path / "ct", chest_hu())[0]
        (tmp_path / "empty").mkdir()
        for source, series, error, match in (
            (tmp_path / "absent", None, UnreadableError, "does not exist"),
            (tmp_path / "empty", None, UnreadableError, "no readable DICOM file"),
            (path, None, NotVolumeError, "Give the folder"),
            (path, "3", SeriesChoiceError, "has no series"),
            (path.parent, "7", SeriesChoiceError, "no CT series '7'"),
            (write_series(tmp_path / "one", chest_hu(1))[0].parent, None, NotVolumeError, "1 slice"),
            (write_series(tmp_path / "mr", chest_hu(1), tags={"Modality": "MR"})[0], None, NotCTError, "modality MR"),
        ):
            with pytest.raises(error, match=match):
                read_ct(source, series)


class TestAcquisition:
    def read(self, folder, **tags):
        write_series(folder, chest_hu(2), tags=tags)
        return read_ct(folder).acquisition

    def test_facts(self, tmp_path):
        facts = self.read(tmp_path, ConvolutionKernel=["I31f", "2"], ContrastBolusAgent="Iopamidol", SliceThickness=5)
        assert facts.file_format == "DICOM"
        assert (facts.kvp, facts.kernel, facts.slice_thickness_mm, facts.exposure_mas) == (120, "I31f 2", 5, 80)
        assert (facts.manufacturer, facts.scanner_model, facts.contrast_agent) == ("Maker", "Model X", "Iopamidol")
        assert (facts.series_number, facts.series_description, facts.study_date) == (3, "CaSc 3.0", "2024-01-31")
        assert (facts.patient_sex, facts.patient_age_years, facts.patient_id) == ("F", 58, "P1")
        assert facts.patient_name == "Doe^Jane"
        assert facts.gating is None

    def test_missing_facts_are_none(self, tmp_path):
        names = """KVP ConvolutionKernel Manufacturer ManufacturerModelName SliceThickness Exposure SeriesNumber
            SeriesDescription StudyDate PatientSex PatientAge PatientID PatientName SeriesInstanceUID"""
        facts = self.read(tmp_path / "without", **dict.fromkeys(names.split()))
        assert {name for name, value in vars(facts).items() if value is not None} == {"file_format"}
        empty = self.read(tmp_path / "empty", ContrastBolusAgent="", KVP="", PatientName="", ConvolutionKernel=" ")
        assert (empty.contrast_agent, empty.kvp, empty.patient_name, empty.kernel) == (None, None, None, None)

    def test_mass_factors(self, tmp_path):
        """DICOM 0018,9351 and 0018,9352, in single precision."""
        tags = {"CalciumScoringMassFactorPatient": 0.76, "CalciumScoringMassFactorDevice": [0.74, 0.77, 0.81]}
        facts = self.read(tmp_path / "stated", **tags)
        device = (facts.mass_factor_small, facts.mass_factor_medium, facts.mass_factor_large)
        assert (facts.mass_factor_patient, *device) == pytest.approx((0.76, 0.74, 0.77, 0.81), abs=1e-6)
        tags = {"CalciumScoringMassFactorPatient": 0.0, "CalciumScoringMassFactorDevice": [0.74, 1000.0, 0.81]}
        facts = self.read(tmp_path / "wrong", **tags)
        assert (facts.mass_factor_patient, facts.mass_factor_small) == (None, None)

    @pytest.mark.parametrize(
        ("age", "years"),
        [("058Y", 58), ("018M", 1), ("105W", 2), ("010D", 0), ("58", None), ("", None)],
    )
    @pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
    def test_ages(self, tmp_path, age, years):
        assert self.read(tmp_path, PatientAge=age).patient_age_years == years

    @pytest.mark.parametrize(
        ("tags", "gating"),
        [
            ({"CardiacSynchronizationTechnique": "PROSPECTIVE"}, "PROSPECTIVE"),
            ({"CardiacSynchronizationTechnique": "NONE"}, None),
            ({"ScanOptions": ["HELICAL", "CG"]}, "ECG"),
            ({"ScanOptions": "ECG_GATED"}, "ECG"),
            ({"ScanOptions": "NON ECG GATED"}, None),
            ({"ScanOptions": "HELICAL MODE"}, None),
            ({"AcquisitionType": "SEQUENCED"}, None),
        ],
    )
    def test_gating(self, tmp_path, tags, gating):
        assert self.read(tmp_path, **tags).gating == gating

    def test_exposure_is_the_median_and_knows_micro(self, tmp_path):
        write_series(tmp_path / "modulated", chest_hu(3), edit=lambda ds, k: setattr(ds, "Exposure", [90, 20, 40][k]))
        assert read_ct(tmp_path / "modulated").acquisition.exposure_mas == 40
        assert self.read(tmp_path / "micro", Exposure=None, ExposureInuAs=12500).exposure_mas == 12.5


class TestImageFiles:
    def image(self, hu=None, spacing=(0.7, 0.8, 3.0), dtype=np.int16):
        image = sitk.GetImageFromArray((chest_hu() if hu is None else hu).astype(dtype))
        image.SetSpacing(spacing)
        image.SetOrigin((-100, -120, 30))
        return image

    def write(self, path, image=None):
        sitk.WriteImage(image or self.image(), str(path))
        return path

    @pytest.mark.parametrize(
        ("name", "file_format"),
        [
            ("ct.nii", "NIfTI"),
            ("ct.nii.gz", "NIfTI"),
            ("ct.nrrd", "NRRD"),
            ("ct.nhdr", "NRRD"),
            ("ct.mha", "MetaImage"),
            ("ct.mhd", "MetaImage"),
        ],
    )
    def test_formats(self, tmp_path, name, file_format):
        path = self.write(tmp_path / name)
        scan = read_ct(path)
        np.testing.assert_array_equal(scan.hu, chest_hu())
        assert same_grid(scan.image, self.image())
        assert scan.acquisition.file_format == file_format
        assert scan.warnings == ()
        assert scan.source == path

    @pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd"])
    @pytest.mark.parametrize("missing", [10, 700])
    def test_truncated(self, tmp_path, name, missing):
        path = self.write(tmp_path / name)
        beside = {".nhdr": ".raw.gz", ".mhd": ".zraw"}
        data = path.with_suffix(beside.get(path.suffix, path.suffix))
        if not data.exists():
            data = path.with_suffix(".raw")
        data.write_bytes(data.read_bytes()[:-missing])
        with pytest.raises(UnreadableError, match="ct"):
            read_ct(path)

    def test_lost_geometry_warns(self, tmp_path):
        bare = sitk.GetImageFromArray(chest_hu().astype(np.int16))
        for name in ("ct.nii", "ct.nrrd", "ct.mha"):
            assert codes(read_ct(self.write(tmp_path / name, bare))) == ["geometry-unknown"]

    def test_nifti_without_orientation_warns(self, tmp_path):
        path = self.write(tmp_path / "ct.nii")
        data = bytearray(path.read_bytes())
        data[252:256] = bytes(4)  # qform_code, sform_code
        path.write_bytes(data)
        scan = read_ct(path)
        assert codes(scan) == ["geometry-unknown"]
        assert "qform" in scan.warnings[0].message

    def test_sheared_axes(self, tmp_path):
        path = self.write(tmp_path / "ct.mha")
        header = path.read_bytes()
        assert header.count(b"TransformMatrix = 1 0 0 0 1 0 0 0 1") == 1
        path.write_bytes(header.replace(b"= 1 0 0 0 1 0 0 0 1", b"= 1 0 0 0 1 0 0.3 0 1"))
        with pytest.raises(SliceGeometryError, match="not at right angles"):
            read_ct(path)

    def test_files_that_are_no_ct(self, tmp_path):
        one = sitk.GetImageFromArray((chest_hu() > 100).astype(np.uint8))
        for name, image, error, match in (
            ("a.png", sitk.GetImageFromArray(np.eye(9, dtype=np.uint8)), UnreadableError, "PNG"),
            ("a.tif", self.image(), UnreadableError, "is a TIFF file"),
            ("a.mha", self.image()[:, :, 0], NotVolumeError, "2-D"),
            ("a.nii", sitk.JoinSeries([self.image()] * 2), NotVolumeError, "4-D"),
            ("a.nrrd", self.image(spacing=(0.7, 0.7, 30)), SliceGeometryError, "along axis k is 30 mm"),
            ("plain.nii.gz", one, NotHounsfieldError, "label map"),
        ):
            with pytest.raises(error, match=match):
                read_ct(self.write(tmp_path / name, image))
        for layers in (one, sitk.Compose(one, one)):
            layers.SetMetaData("Segment0_ID", "Segment_1")
            with pytest.raises(NotHounsfieldError, match="label map"):
                read_ct(self.write(tmp_path / "one.seg.nrrd", layers))
        for name, content, match in (
            ("empty.nii", b"", "is empty"),
            ("text.txt", b"no image", "no known image format"),
            ("false.nrrd", b"NRRD0004\nnothing\n", r"false\.nrrd cannot be read"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UnreadableError, match=match):
                read_ct(tmp_path / name)

    def test_header_that_claims_too_much(self, tmp_path):
        path = self.write(tmp_path / "ct.nii")
        data = bytearray(path.read_bytes())
        data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match="30000×30000×30000"):
            read_ct(path)


def scan_or_error(path):
    try:
        scan = read_ct(path)
    except CTError:
        return None
    assert isinstance(scan, CTScan)
    assert scan.hu.min() >= AIR_HU
    return scan


class TestBadInputs:
    @pytest.mark.long
    @FUZZED
    @given(data=st.binary(max_size=600), name=st.sampled_from(["a.dcm", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a"]))
    def test_random_bytes(self, tmp_path, data, name):
        head = {"a.dcm": bytes(128) + b"DICM", "a.nrrd": b"NRRD0005\n", "a.mha": b"ObjectType = Image\nNDims = 3\n"}
        path = tmp_path / name
        for content in (data, head.get(name, b"") + data):
            path.write_bytes(content)
            assert scan_or_error(path) is None
            assert scan_or_error(tmp_path) is None

    @pytest.mark.long
    @FUZZED
    @given(choice=st.data())
    def test_tags_deleted_or_changed(self, tmp_path, choice):
        shutil.rmtree(tmp_path / "ct", ignore_errors=True)
        paths = write_series(tmp_path / "ct", chest_hu(3))
        path = choice.draw(st.sampled_from(paths))
        ds = pydicom.dcmread(path)
        keywords = sorted(element.keyword for element in ds)
        for keyword in choice.draw(st.lists(st.sampled_from(keywords), min_size=1, max_size=3, unique=True)):
            delattr(ds, keyword)
        save(ds, path)
        scan = scan_or_error(tmp_path / "ct")
        # Whatever was left out, a scan with other values or fewer slices without a word is never the outcome.
        if scan is not None and not scan.warnings:
            np.testing.assert_array_equal(scan.hu, chest_hu(3))

    @pytest.mark.long
    @FUZZED
    @given(where=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=4))
    def test_dicom_bytes_changed(self, tmp_path, where, new):
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
        name=st.sampled_from(["a.nii", "a.nrrd", "a.mha"]),
        where=st.integers(0, 350),
        new=st.binary(min_size=1, max_size=4),
    )
    def test_header_bytes_changed(self, tmp_path, name, where, new):
        image = sitk.GetImageFromArray(chest_hu().astype(np.int16))
        image.SetSpacing((0.7, 0.7, 3.0))
        sitk.WriteImage(image, str(tmp_path / name))
        data = bytearray((tmp_path / name).read_bytes())
        data[where : where + len(new)] = new
        (tmp_path / name).write_bytes(data)
        scan_or_error(tmp_path / name)


class TestRealSeries:
    @pytest.mark.long
    def test_dicom_and_nrrd_of_the_same_scan_are_equal(self, real_ct):
        dicom, nrrd = read_ct(real_ct("cip_copdgene/ct-64Dicom")), read_ct(real_ct("cip_copdgene/ct-64.nrrd"))
        np.testing.assert_array_equal(dicom.hu, nrrd.hu)
        assert same_grid(dicom.image, nrrd.image)
        assert dicom.warnings == nrrd.warnings == ()
        assert dicom.acquisition.slice_thickness_mm == pytest.approx(3.98734)


class TestAcquisitionFile:
    """What a program knows of a scan that it hands over without its DICOM header."""

    def read(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        return read_acquisition(tmp_path / "a.json")

    def test_fields(self, tmp_path):
        found = self.read(tmp_path, '{"kvp": 100, "kernel": "Qr36", "patient_age_years": 61, "gating": null}')
        assert found == Acquisition("DICOM", kvp=100.0, kernel="Qr36", patient_age_years=61)
        assert isinstance(found.kvp, float)

    def test_facts_of_a_scan_come_back(self, tmp_path):
        made = Acquisition("NRRD", kvp=120.0, slice_thickness_mm=2.5, patient_sex="F")
        assert self.read(tmp_path, json.dumps(made.facts())) == made

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "JSON"),
            ("[]", "object with fields"),
            ('{"kVp": 120}', "fields of these names: .*kvp"),
            ('{"kvp": "120"}', "kvp in --settings is '120'"),
            ('{"kvp": true}', "kvp in --settings is True"),
            ('{"kvp": NaN}', "kvp in --settings is nan"),
            ('{"patient_age_years": 60.5}', "60.5"),
            ('{"file_format": null}', "file_format in --settings is None"),
        ],
    )
    def test_what_is_none_is_refused(self, tmp_path, text, message):
        with pytest.raises((UnreadableError, OutputError), match=message):
            self.read(tmp_path, text)

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(UnreadableError, match="missing"):
            read_acquisition(tmp_path / "missing.json")
