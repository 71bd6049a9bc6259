"""Reading of radiographs: grey values, size, view and patient by the header, with warnings."""

import contextlib

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import JPEGLosslessSV1
from radiograph_files import chest, lookup_table, stored, write_dicom

from CACScoringLib.core.errors import CTError, NotCTError, NotVolumeError, UnreadableError
from CACScoringLib.radiograph.reading import read_radiograph
from CACScoringLib.radiograph.view import STANDARD_PIXELS

CHEST = chest()
VALUES = stored(CHEST)


def codes(radiograph) -> set[str]:
    return {warning.code for warning in radiograph.warnings}


def same_picture(first: np.ndarray, second: np.ndarray) -> bool:
    """Return True if two pictures differ in brightness and contrast only, and neither is inverted."""
    return first.shape == second.shape and np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.999


ONLY_PIXEL_SPACING = {"ImagerPixelSpacing": None, "PixelSpacing": [0.9, 0.8]}
MAGNIFIED = {"PixelSpacingCalibrationType": "GEOMETRY", "EstimatedRadiographicMagnificationFactor": 1.25}


class TestDicom:
    def test_a_plain_radiograph(self, tmp_path):
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", VALUES))
        assert np.array_equal(radiograph.picture, VALUES)
        assert radiograph.picture.dtype == np.float32
        assert (radiograph.view, radiograph.pixel_mm) == ("PA", (1.0, 1.0))
        assert (radiograph.age_years, radiograph.sex) == (61, "F")
        assert radiograph.source == tmp_path / "pa.dcm"
        assert not radiograph.warnings
        assert radiograph.standard().shape == (STANDARD_PIXELS,) * 2

    def test_monochrome1_is_inverted_once(self, tmp_path):
        inverse = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", 4000 - VALUES, **inverse))
        assert same_picture(radiograph.picture, CHEST)
        assert not radiograph.warnings

    def test_rescale_comes_before_the_window(self, tmp_path):
        tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 3900.5, "WindowWidth": 4001}
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", VALUES, **tags))
        expected = np.clip(VALUES * 2.0 - 100, 1900, 5900)
        assert same_picture(radiograph.picture, expected)
        assert (radiograph.picture == radiograph.picture.min()).sum() == (VALUES <= 1000).sum()

    @pytest.mark.parametrize(("first", "bits"), [(500, 16), (0, 8), (500, 12)])
    def test_beyond_a_lookup_table_its_ends_go_on(self, tmp_path, first, bits):
        entries = [n * 255 // 999 for n in range(1000)]
        radiograph = read_radiograph(
            write_dicom(tmp_path / "pa.dcm", VALUES, VOILUTSequence=lookup_table(first, entries, bits))
        )
        expected = np.asarray(entries)[np.clip(VALUES.astype(int) - first, 0, 999)]
        assert np.array_equal(radiograph.picture, expected)

    def test_overlay_bits_above_the_stored_ones_are_no_grey_values(self, tmp_path):
        values = VALUES.copy()
        values[100:140, 100] |= 0x8000
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", values, BitsStored=12, HighBit=11))
        assert np.array_equal(radiograph.picture, VALUES)

    def test_padding_becomes_as_dark_as_the_darkest(self, tmp_path):
        values = VALUES + 100
        values[:40] = 65000
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", values, PixelPaddingValue=65000))
        assert (radiograph.picture[:40] == 100).all()
        assert np.array_equal(radiograph.picture[40:], values[40:])

    @pytest.mark.parametrize(
        ("relation", "sign", "raw", "kind"),
        [
            ("LIN", 1, np.exp(-CHEST / 50) * 60000, "MONOCHROME2"),
            ("LOG", 1, 4000 - CHEST * 10, "MONOCHROME1"),
            ("LOG", -1, CHEST * 10, "MONOCHROME2"),
        ],
    )
    def test_the_detectors_values_become_attenuation(self, tmp_path, relation, sign, raw, kind):
        tags = {"PixelIntensityRelationship": relation, "PixelIntensityRelationshipSign": sign}
        tags |= {"PresentationIntentType": "FOR PROCESSING", "PhotometricInterpretation": kind}
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", np.rint(raw).astype(np.uint16), **tags))
        assert same_picture(radiograph.picture, CHEST)
        assert codes(radiograph) == {"raw-pixels"}

    @pytest.mark.parametrize(
        ("tags", "pixel_mm", "warnings"),
        [
            ({"ImagerPixelSpacing": [0.9, 0.8], "PixelSpacing": [0.5, 0.5]}, (0.8, 0.9), set()),
            (ONLY_PIXEL_SPACING | {"PixelSpacingCalibrationType": "FIDUCIAL"}, (0.8, 0.9), {"pixel-size-uncertain"}),
            (ONLY_PIXEL_SPACING | MAGNIFIED, (1.0, 1.125), set()),
            ({"ImagerPixelSpacing": None}, None, {"pixel-size-unknown"}),
            ({"ImagerPixelSpacing": [0.01, 0.01]}, None, {"pixel-size-implausible", "pixel-size-unknown"}),
            ({"ImagerPixelSpacing": [0.5, 0.5]}, (0.5, 0.5), {"small-field"}),
        ],
    )
    def test_pixel_size(self, tmp_path, tags, pixel_mm, warnings):
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", VALUES, **tags))
        assert radiograph.pixel_mm == (None if pixel_mm is None else pytest.approx(pixel_mm))
        assert codes(radiograph) == warnings

    @pytest.mark.parametrize(
        ("tags", "view"),
        [
            ({"ViewPosition": "AP"}, "AP"),
            ({"ViewPosition": "LL"}, "lateral"),
            ({"ViewPosition": None}, None),
            ({"ViewPosition": "", "PatientOrientation": ["P", "F"]}, "lateral"),
            ({"ViewPosition": None, "PositionerPrimaryAngle": 0.0}, "PA"),
            ({"ViewPosition": None, "PositionerPrimaryAngle": 90.0}, "lateral"),
        ],
    )
    def test_view(self, tmp_path, tags, view):
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", VALUES, **tags))
        assert (radiograph.view, "view-unknown" in codes(radiograph)) == (view, view is None)
        assert ("view-ap" in codes(radiograph)) == (view == "AP")

    @pytest.mark.parametrize(
        ("orientation", "turn"),
        [
            (["R", "F"], lambda a: a[:, ::-1]),
            (["L", "H"], lambda a: a[::-1]),
            (["H", "R"], lambda a: a[::-1, ::-1].T),
        ],
    )
    def test_the_picture_is_turned_upright(self, tmp_path, orientation, turn):
        values = np.ascontiguousarray(turn(VALUES[:, :400]))
        tags = {"PatientOrientation": orientation, "ImagerPixelSpacing": [1.0, 0.8]}
        radiograph = read_radiograph(write_dicom(tmp_path / "pa.dcm", values, **tags))
        assert np.array_equal(radiograph.picture, VALUES[:, :400])
        assert radiograph.pixel_mm == ((1.0, 0.8) if orientation[0] in "HF" else (0.8, 1.0))

    def test_lossless_jpeg_is_left_to_itk(self, tmp_path):
        """Most CR archives use this compression, for which pydicom alone has no decoder."""
        write_jpeg(tmp_path / "pa.dcm", VALUES)
        ds = pydicom.dcmread(tmp_path / "pa.dcm")
        assert ds.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        ds.PhotometricInterpretation, ds.RescaleSlope, ds.RescaleIntercept = "MONOCHROME1", "2", "-100"
        ds.save_as(tmp_path / "pa.dcm")
        np.testing.assert_array_equal(read_radiograph(tmp_path / "pa.dcm").picture, -(VALUES * 2.0 - 100))

    @pytest.mark.parametrize(
        ("tags", "error", "words"),
        [
            ({"Modality": "CT"}, NotCTError, "slice of a CT"),
            ({"NumberOfFrames": 3}, NotVolumeError, "3 frames"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, NotVolumeError, "colour"),
            ({"PixelData": None}, UnreadableError, "no pixels"),
            ({"PixelData": b"\0" * 100}, UnreadableError, "100 bytes of pixels"),
            ({"WindowCenter": 5, "WindowWidth": 0}, UnreadableError, "grey values"),
        ],
    )
    def test_refused(self, tmp_path, tags, error, words):
        with pytest.raises(error, match=words):
            read_radiograph(write_dicom(tmp_path / "pa.dcm", VALUES, **tags))

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_broken_bytes_end_in_a_clear_error_or_a_picture(self, tmp_path, data):
        path, valid = tmp_path / "pa.dcm", tmp_path / "whole.dcm"
        if not valid.exists():  # UIDs differ between files, but all examples must begin with the same bytes
            write_dicom(valid, VALUES[::3, ::3], VOILUTSequence=lookup_table(0, [0, 4000]))
        content = bytearray(valid.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(132, 1200))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(content[: data.draw(st.integers(140, len(content)))]))
        with contextlib.suppress(CTError):
            assert np.isfinite(read_radiograph(path).picture).all()


def write_jpeg(path, values):
    """Write a lossless JPEG in DICOM by ITK."""
    image = sitk.GetImageFromArray(values[None])
    for tag, value in (("0008|0060", "DX"), ("0018|1164", "1\\1"), ("0018|5101", "PA"), ("0018|0015", "CHEST")):
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.SetFileName(str(path))
    writer.Execute(image)
    return path


class TestPictures:
    @pytest.mark.parametrize("ending", ["tif", "jpg"])
    def test_8_bit(self, tmp_path, ending):
        path = tmp_path / f"pa.{ending}"
        Image.fromarray((VALUES // 16).astype(np.uint8)).save(path)
        radiograph = read_radiograph(path)
        assert same_picture(radiograph.picture, CHEST)
        assert (radiograph.pixel_mm, radiograph.view, radiograph.age_years, radiograph.sex) == (None, None, None, None)
        expected = {"pixel-size-unknown", "view-unknown"} | ({"lossy-compression"} if ending == "jpg" else set())
        assert codes(radiograph) == expected

    def test_colour_is_refused(self, tmp_path):
        colours = np.stack([VALUES // 16] * 3, -1).astype(np.uint8)
        colours[10, 10] = (200, 0, 0)
        Image.fromarray(colours).save(tmp_path / "pa.png")
        with pytest.raises(NotVolumeError, match="colour"):
            read_radiograph(tmp_path / "pa.png")

    @pytest.mark.parametrize("name", ["pa.png", "pa.nii.gz", "pa.dcm"])
    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(40)])
    def test_other_files_are_refused(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableError):
            read_radiograph(tmp_path / name)

    def test_an_even_or_a_tiny_picture(self, tmp_path):
        Image.fromarray(np.full((300, 300), 9, np.uint8)).save(tmp_path / "even.png")
        with pytest.raises(UnreadableError, match="empty image"):
            read_radiograph(tmp_path / "even.png")
        Image.fromarray(VALUES[:90, :90]).save(tmp_path / "tiny.png")
        with pytest.raises(UnreadableError, match="90 × 90"):
            read_radiograph(tmp_path / "tiny.png")


class TestImages:
    def write(self, path, values, spacing=(0.9, 1.1, 1.0)):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(spacing[: image.GetDimension()])
        sitk.WriteImage(image, path)
        return path

    @pytest.mark.parametrize(("ending", "values"), [("nii.gz", CHEST[None]), ("mha", CHEST)])
    def test_line_integrals(self, tmp_path, ending, values):
        radiograph = read_radiograph(self.write(tmp_path / f"pa.{ending}", values * np.float32(0.02)))
        np.testing.assert_allclose(radiograph.picture, CHEST * 0.02, rtol=1e-6)
        assert (radiograph.pixel_mm, codes(radiograph)) == (pytest.approx((0.9, 1.1)), {"view-unknown"})

    @pytest.mark.parametrize(
        ("values", "error", "words"),
        [
            (np.stack([CHEST] * 4), NotVolumeError, "volume"),
            (CHEST[None] - 1000, NotCTError, "slice of a CT"),
            (np.where(CHEST > 200, np.nan, CHEST)[None], UnreadableError, "not numbers"),
        ],
    )
    def test_refused(self, tmp_path, values, error, words):
        with pytest.raises(error, match=words):
            read_radiograph(self.write(tmp_path / "pa.nrrd", values))
