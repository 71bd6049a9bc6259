"""Reading of a CT: correct HU and geometry, or an error that states the fault."""

import math

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, only, write_series
from images import image_of
from pydicom.uid import SecondaryCaptureImageStorage
from reading_checks import codes, reads, refuses

from CACScoringLib.core.ct import AIR_HU, Acquisition, same_grid
from CACScoringLib.core.errors import (
    NotHounsfieldError,
    NotVolumeError,
    OutputError,
    SliceGeometryError,
    UnreadableError,
)
from CACScoringLib.io.reading import read_ct, read_mask, with_facts


def shifted(shifts_mm, axis=2):
    """An edit that moves slice k by shifts_mm[k] along an axis."""

    def edit(ds, k):
        position = [float(value) for value in ds.ImagePositionPatient]
        position[axis] = round(position[axis] + shifts_mm[k], 4)
        ds.ImagePositionPatient = position

    return edit


TILT = [k * 3 * math.tan(math.radians(1.5)) for k in range(10)]
REFUSED = [
    # Hounsfield units
    (NotHounsfieldError, "6 of 6 slices have no rescale slope", {"RescaleSlope": None}, None),
    (NotHounsfieldError, r"1 of 6 slices have no rescale intercept.* slice002", {}, only(2, RescaleIntercept=None)),
    (NotHounsfieldError, r"rescale slope \(.*not 0; stated: 0", {"RescaleSlope": 0}, None),
    (NotHounsfieldError, "MGML, not HU", {"RescaleType": "MGML"}, None),
    (NotHounsfieldError, r"mixes rescale types \(HU, US\)", {}, only(2, RescaleType="US")),
    (NotVolumeError, "colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, None),
    # Bits of a pixel: a wrong description in the header would change values.
    (UnreadableError, "slice002.dcm holds 336 bytes of pixels, and 672 by its header", {}, only(2, BitsAllocated=32)),
    (UnreadableError, r"slice003\.dcm", {}, only(3, PixelData=None)),
    (UnreadableError, "describes pixels that no CT has", {"BitsStored": 20}, None),
    (UnreadableError, "describes pixels that no CT has", {"HighBit": 11}, None),
    (UnreadableError, "describes pixels that no CT has", {"BitsAllocated": 17}, None),
    (UnreadableError, r"slice002\.dcm describes pixels that no CT has", {}, only(2, PixelRepresentation=2)),
    # One stack
    (SliceGeometryError, r"1 slices have the same position.*, at 36\.0 mm", {}, shifted([0, 0, 0, -3, 0, 0])),
    (SliceGeometryError, r"unevenly spaced.*at 40\.2 mm lies 1\.20 mm off", {}, shifted([0, 0, 0, 1.2, 0, 0])),
    (SliceGeometryError, "unevenly spaced", {}, shifted([0, 0, 0, 0, 0.4, 0.8])),
    (SliceGeometryError, r"sheared by 1\.5°", {}, shifted(TILT, 1)),
    (SliceGeometryError, r"shifted against each other by up to 5\.0 mm", {}, shifted([0, 0, 0, 5, 5, 5], 0)),
    (SliceGeometryError, "differ in pixel spacing", {}, only(2, PixelSpacing=[0.8, 0.71])),
    (SliceGeometryError, "no valid image position", {}, only(2, ImagePositionPatient=[0, 0])),
    (SliceGeometryError, "no valid image orientation", {}, only(2, ImageOrientationPatient=None)),
    (SliceGeometryError, "no valid pixel spacing", {}, only(2, PixelSpacing=None)),
    (SliceGeometryError, "differ in size: 5 of 14×12, 1 of 28×6", {}, only(2, Rows=6, Columns=28)),
    (SliceGeometryError, "not a pair of perpendicular", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, None),
    (SliceGeometryError, "along axis i", {"PixelSpacing": [0.7, 0.05]}, None),
    (SliceGeometryError, "along axis j", {"PixelSpacing": [0.01, 0.7]}, None),
]


@pytest.mark.long
@pytest.mark.parametrize(("error", "match", "tags", "edit"), REFUSED)
def test_a_series_that_is_no_stack_of_hu(tmp_path, error, match, tags, edit):
    write_series(tmp_path, chest_hu(10 if "sheared" in match else 6), tags=tags, edit=edit)
    refuses(tmp_path, error, match)


class TestHounsfield:
    def test_values_and_places(self, tmp_path):
        write_series(tmp_path, chest_hu())
        scan = reads(tmp_path, chest_hu())
        assert (scan.hu.dtype, scan.image.GetSpacing()) == (np.int16, pytest.approx((0.7, 0.8, 3.0)))
        assert (scan.image.GetOrigin(), scan.warnings) == (pytest.approx((-100.0, -120.0, 30.0)), ())
        assert scan.source == tmp_path

    def test_every_slice_has_its_own_rescale(self, tmp_path):
        hu = chest_hu(4) // 2 * 2
        write_series(tmp_path, hu, slope=[1, 2, 1, 2], intercept=[-1024, -1024, -2000, 0], signed=True)
        scan = reads(tmp_path, hu)
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

    @pytest.mark.parametrize(
        ("rescale", "k"), [({"RescaleIntercept": -10240}, 0), ({"RescaleSlope": 0.5}, 3), ({"RescaleSlope": -1}, 5)]
    )
    def test_a_rescale_that_does_not_continue_the_neighbours(self, tmp_path, rescale, k):
        write_series(tmp_path, chest_hu(), edit=only(k, **rescale))
        refuses(tmp_path, NotHounsfieldError, rf"soft tissue by [+-]\d+ HU.*slice00{k}\.dcm \(slope")

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
        reads(tmp_path, chest_hu())

    @pytest.mark.parametrize(
        ("stored", "tag", "signed"),
        [
            *((-2000, -2000, True), (-2000, 63536, True)),
            *((62512, 62512, False), (63536, -2000, False)),
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

    @pytest.mark.parametrize("tag", [0, 65236])
    def test_padding_with_a_tissue_value_stays_with_a_warning(self, tmp_path, tag):
        write_series(tmp_path, chest_hu(), signed=True, intercept=0, edit=padding_tag(tag))
        reads(tmp_path, chest_hu(), ["padding-among-tissue"])

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
    def test_order_depends_only_on_positions(self, tmp_path):
        shuffled = [3, 0, 5, 1, 4, 2]

        def edit(ds, k):
            ds.InstanceNumber = shuffled[k]
            ds.SliceLocation = -k

        write_series(tmp_path, chest_hu(), edit=edit, name=lambda k: f"{shuffled[(k + 2) % 6]}.dcm")
        scan = reads(tmp_path, chest_hu())
        assert scan.image.GetOrigin() == pytest.approx((-100, -120, 30))

    def test_sagittal_and_oblique(self, tmp_path):
        write_series(tmp_path / "sagittal", chest_hu(), orientation=(0, 1, 0, 0, 0, -1))
        scan = reads(tmp_path / "sagittal", np.transpose(chest_hu(), (1, 2, 0))[::-1, :, ::-1])
        assert scan.image.GetSpacing() == pytest.approx((3.0, 0.7, 0.8))
        c, s = math.cos(math.radians(10)), math.sin(math.radians(10))
        write_series(tmp_path / "oblique", chest_hu(), orientation=(1, 0, 0, 0, c, s))
        reads(tmp_path / "oblique", chest_hu(), ["oblique"])

    @pytest.mark.parametrize("rounded", [False, True])
    def test_missing_slices(self, tmp_path, rounded):
        def edit(ds, _):
            if rounded:
                ds.ImagePositionPatient = [round(float(value), 1) for value in ds.ImagePositionPatient]

        paths = write_series(tmp_path, chest_hu(24), spacing_mm=(0.7, 0.7, 0.625), origin_mm=(0, 0, 30.0), edit=edit)
        for k in (3, 7, 8, 14, 15, 16, 17, 18):
            paths[k].unlink()
        gaps = r"1 between 31\.\d and 32\.\d mm, 2 between 33\.\d and 35\.\d mm, 5 between"
        refuses(tmp_path, SliceGeometryError, rf"8 slices are missing.*{gaps}")


class TestImageFiles:
    def image(self, hu=None, spacing=(0.7, 0.8, 3.0), dtype=np.int16):
        return image_of((chest_hu() if hu is None else hu).astype(dtype), spacing, (-100, -120, 30))

    def write(self, path, image=None):
        sitk.WriteImage(image or self.image(), str(path))
        return path

    @pytest.mark.parametrize(
        ("name", "file_format"),
        [
            *(("ct.nii", "NIfTI"), ("ct.nii.gz", "NIfTI"), ("ct.nrrd", "NRRD"), ("ct.nhdr", "NRRD")),
            *(("ct.mha", "MetaImage"), ("ct.mhd", "MetaImage")),
        ],
    )
    def test_formats(self, tmp_path, name, file_format):
        path = self.write(tmp_path / name)
        scan = reads(path, chest_hu())
        assert same_grid(scan.image, self.image())
        assert (scan.acquisition.file_format, scan.warnings, scan.source) == (file_format, (), path)

    def test_lost_geometry_warns(self, tmp_path):
        bare = sitk.GetImageFromArray(chest_hu().astype(np.int16))
        for name in ("ct.nrrd", "ct.mha"):
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
        refuses(path, SliceGeometryError, "not at right angles")

    def test_files_that_are_no_ct(self, tmp_path):
        mask = sitk.GetImageFromArray((chest_hu() > 100).astype(np.uint8))
        for name, image, error, match in (
            ("a.png", sitk.GetImageFromArray(np.eye(9, dtype=np.uint8)), UnreadableError, "PNG"),
            ("a.tif", self.image(), UnreadableError, "is a TIFF file"),
            ("a.nii", sitk.JoinSeries([self.image()] * 2), NotVolumeError, "4-D"),
            ("a.nrrd", self.image(spacing=(0.7, 0.7, 30)), SliceGeometryError, "along axis k is 30 mm"),
            ("plain.nii.gz", mask, NotHounsfieldError, "label map"),
        ):
            refuses(self.write(tmp_path / name, image), error, match)
        for layers in (mask, sitk.Compose(mask, mask)):
            layers.SetMetaData("Segment0_ID", "Segment_1")
            refuses(self.write(tmp_path / "one.seg.nrrd", layers), NotHounsfieldError, "label map")
        for name, content, match in (
            ("empty.nii", b"", "is empty"),
            ("text.txt", b"no image", "no known image format"),
            ("false.nrrd", b"NRRD0004\nnothing\n", r"header of false\.nrrd is damaged"),
        ):
            (tmp_path / name).write_bytes(content)
            refuses(tmp_path / name, UnreadableError, match)

    def test_header_that_claims_too_much(self, tmp_path):
        path = self.write(tmp_path / "ct.nii")
        data = bytearray(path.read_bytes())
        data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
        path.write_bytes(data)
        refuses(path, UnreadableError, "30000×30000×30000")


@pytest.mark.long
def test_dicom_and_nrrd_of_the_same_scan_are_equal(real_ct):
    dicom, nrrd = read_ct(real_ct("cip_copdgene/ct-64Dicom")), read_ct(real_ct("cip_copdgene/ct-64.nrrd"))
    np.testing.assert_array_equal(dicom.hu, nrrd.hu)
    assert same_grid(dicom.image, nrrd.image)
    assert dicom.warnings == nrrd.warnings == ()
    assert dicom.acquisition.slice_thickness_mm == pytest.approx(3.98734)


class TestAcquisitionFile:
    """Acquisition of a scan that a program passes on without its DICOM header."""

    def read(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        return with_facts(Acquisition("DICOM", kernel="B30f"), tmp_path / "a.json")

    def test_fields(self, tmp_path):
        acquisition = self.read(tmp_path, '{"kvp": 100, "patient_age_years": 61, "gating": null}')
        assert acquisition == Acquisition("DICOM", kvp=100.0, kernel="B30f", patient_age_years=61), "others stay"
        assert isinstance(acquisition.kvp, float)

    @pytest.mark.parametrize(("text", "message"), [("{", "JSON"), ('{"kvp": "120"}', "kvp in --settings is '120'")])
    def test_invalid_files_are_refused(self, tmp_path, text, message):
        with pytest.raises((UnreadableError, OutputError), match=message):
            self.read(tmp_path, text)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ""])
def test_dicom_slices_with_names_of_image_files(tmp_path, ending):
    for path in write_series(tmp_path / "ct", chest_hu()):
        path.rename(path.with_name(path.stem + ending))
    reads(tmp_path / "ct", chest_hu())


def test_labels_that_are_nearly_whole_numbers(tmp_path):
    """Writers scale labels by slopes of single precision; fractions of other maps are no labels."""
    labels = np.zeros((4, 5, 6), np.float32)
    labels[1, 2, 3], labels[2, 2, 2], labels[3, 1, 1] = 1.9999998, 3.0004, 0.9991
    sitk.WriteImage(image_of(labels, (1, 1, 3)), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(tmp_path / "labels.nii.gz")), np.rint(labels))
    sitk.WriteImage(image_of(labels + np.float32(0.01), (1, 1, 3)), tmp_path / "other.nii.gz")
    assert read_mask(tmp_path / "other.nii.gz").GetPixel(0, 0, 0) == np.float32(0.01)


@pytest.mark.parametrize(
    ("orientation", "thickness_mm"),
    [((1, 0, 0, 0, 1, 0), 3.0), ((1, 0, 0, 0, 0, -1), None)],
)
def test_the_thickness_of_coronal_slices_is_not_that_of_axial_slices(tmp_path, orientation, thickness_mm):
    write_series(tmp_path, chest_hu(), orientation=orientation)
    assert read_ct(tmp_path).acquisition.slice_thickness_mm == thickness_mm
