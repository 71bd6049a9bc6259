"""Pixels of slices in each DICOM encoding: equal HU, or an error."""

import gzip

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, only, write_series
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEGLSLossless,
    RLELossless,
)
from reading_checks import reads, refuses

from CACScoringLib.core.errors import NotHounsfieldError, UnreadableError
from CACScoringLib.io.reading import read_ct


def stored_as(syntax):
    """An edit that stores a slice in another transfer syntax."""

    def edit(ds, _):
        if syntax in (RLELossless, JPEGLSLossless):
            ds.compress(syntax, generate_instance_uid=False)
            return
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()

    return edit


@pytest.mark.parametrize(
    ("syntax", "signed"),
    [(RLELossless, True), (JPEGLSLossless, False), (DeflatedExplicitVRLittleEndian, True), (ExplicitVRBigEndian, True)],
)
def test_transfer_syntaxes(tmp_path, syntax, signed):
    write_series(tmp_path, chest_hu(), signed=signed, edit=stored_as(syntax))
    assert pydicom.dcmread(tmp_path / "slice000.dcm").file_meta.TransferSyntaxUID == syntax
    reads(tmp_path, chest_hu())


def test_a_compression_that_cannot_be_decoded_is_named(tmp_path):
    def compress(ds, _):
        stored_as(JPEGLSLossless)(ds, 0)
        ds.file_meta.TransferSyntaxUID = HTJ2KLossless

    write_series(tmp_path, chest_hu(), edit=compress)
    refuses(tmp_path, UnreadableError, r"slice000\.dcm.*\(High-Throughput JPEG 2000")


def with_bits(bits, above):
    """An edit to some of 16 bits stored. above: The bits above these, by the stored values."""

    def edit(ds, _):
        values = np.frombuffer(ds.PixelData, "<u2")
        ds.BitsStored, ds.HighBit = bits, bits - 1
        ds.PixelData = (values & (1 << bits) - 1 | above(values)).astype("<u2").tobytes()

    return edit


@pytest.mark.parametrize(("signed", "syntax"), [(False, ExplicitVRBigEndian), (True, None)])
@pytest.mark.parametrize(
    ("bits", "above"),
    [
        (12, lambda values: 0),
        (12, lambda values: values & 0xF000),
        (12, lambda values: (np.arange(values.size) % 5 == 0) * 0x1000),
        (15, lambda values: (np.arange(values.size) % 5 == 0) * 0x8000),
    ],
    ids=["none", "sign", "overlay", "a single spare bit"],
)
def test_bits_above_those_stored_mean_nothing(tmp_path, signed, bits, above, syntax):
    def edit(ds, k):
        with_bits(bits, above)(ds, k)
        if syntax:
            stored_as(syntax)(ds, k)

    write_series(tmp_path, chest_hu(), signed=signed, intercept=0 if signed else -1024, edit=edit)
    reads(tmp_path, chest_hu())


@pytest.mark.parametrize(
    ("tags", "edit"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, None),  # concerns display alone
        ({"RescaleIntercept": "-1024.0001"}, None),
        ({"RescaleIntercept": "-1023.9999"}, None),
        ({}, lambda ds, _: ds.add_new(0xFFFCFFFC, "OB", bytes(30))),  # data set trailing padding
    ],
    ids=["monochrome1", "intercept below", "intercept above", "padding after the pixels"],
)
def test_headers_that_change_no_hu(tmp_path, tags, edit):
    write_series(tmp_path, chest_hu(), tags=tags, edit=edit)
    reads(tmp_path, chest_hu())


def test_values_that_are_inverted(tmp_path):
    """Air and lung fill most of a chest; here they have the values of bone."""
    write_series(tmp_path, 476 - chest_hu(), tags={"PhotometricInterpretation": "MONOCHROME1"})
    refuses(tmp_path, NotHounsfieldError, "inverted")


@pytest.mark.parametrize(("count", "at", "packed"), [(1, 0, False), (16, 100, False), (400, 0, True)])
def test_bytes_written_into_the_pixels(tmp_path, count, at, packed):
    """They shift the image and leave surplus bytes at the end of the file, which may look like an element."""
    paths = write_series(tmp_path, chest_hu())
    content = paths[2].read_bytes()
    start = len(content) - 2 * chest_hu()[2].size + at
    content = content[:start] + bytes(range(count % 250)) + bytes(count - count % 250) + content[start:]
    if packed:
        paths[2].unlink()
        paths[2] = tmp_path / "slice002.dcm.gz"
        content = gzip.compress(content)
    paths[2].write_bytes(content)
    refuses(tmp_path, UnreadableError, r"slice002\.dcm.*other bytes were written into it")


@pytest.mark.parametrize(("extra", "accepted"), [(0, True), (1, True), (2, False)])
def test_a_padding_byte_and_no_more(tmp_path, extra, accepted):
    """An odd number of one-byte pixels has a padding byte (PS3.5 8.1.1)."""

    def edit(ds, _):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype("u1").tobytes() + bytes(extra)

    hu = chest_hu(rows=11, columns=13) // 16 * 16
    hu[hu > 300] = 1200
    write_series(tmp_path, hu, slope=16, edit=edit)
    if accepted:
        reads(tmp_path, hu)
    else:
        refuses(tmp_path, UnreadableError, r"holds 14[56] bytes of pixels, and 143 by its header")


@pytest.mark.parametrize("tags", [{"SpacingBetweenSlices": -3.0}, {"SliceThickness": 6.0}])
def test_the_spacing_of_slices_is_that_of_their_positions(tmp_path, tags):
    write_series(tmp_path, chest_hu(), tags=tags)
    scan = reads(tmp_path, chest_hu())
    assert (scan.slice_spacing_mm, scan.acquisition.slice_thickness_mm) == (3.0, tags.get("SliceThickness", 3.0))


def soft_chest():
    """int16 [9, 24, 28] HU of noise about soft tissue and air, with distinct slices."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-1000, 12, (9, 24, 28))
    hu[:, 4:20, 4:24] = rng.normal(40, 12, (9, 16, 20))
    hu[:, 10, 10] = 1200 + np.arange(9)
    return np.rint(hu)


@pytest.mark.parametrize("intercept", [-996, -1016])
def test_the_images_decide_whether_a_slice_has_another_scale(tmp_path, intercept):
    intercepts = np.full(9, -1024)
    intercepts[4] = intercept
    write_series(tmp_path / "right", soft_chest(), intercept=intercepts, signed=True)
    scan = reads(tmp_path / "right", np.maximum(soft_chest(), -1024), ["mixed-acquisition"])
    assert "slice004" in scan.warnings[0].message
    write_series(tmp_path / "wrong", soft_chest(), edit=only(4, RescaleIntercept=intercept), signed=True)
    refuses(tmp_path / "wrong", NotHounsfieldError, rf"slice004\.dcm \(slope 1, intercept {intercept}")


def test_the_images_decide_whether_half_the_slices_have_another_scale(tmp_path):
    write_series(tmp_path, soft_chest(), edit=lambda ds, k: setattr(ds, "RescaleIntercept", -1024 if k < 5 else -1000))
    refuses(tmp_path, NotHounsfieldError, r"slice005\.dcm \(slope 1, intercept -1000")


def test_a_slope_that_is_off_by_a_thousandth_is_named(tmp_path):
    write_series(tmp_path, soft_chest(), edit=only(4, RescaleSlope=1.001))
    (warning,) = read_ct(tmp_path).warnings
    assert ("mixed-acquisition", "slice004" in warning.message) == (warning.code, True)


@pytest.mark.parametrize(("padding_hu", "stated"), [(-500, True), (0, True), (200, False), (4000, False)])
def test_padding_around_a_round_field_of_view_is_air(tmp_path, padding_hu, stated):
    hu = np.random.default_rng(0).integers(-1000, 100, (6, 32, 32))
    hu[:, 9, 9] = 1500
    j, i = np.mgrid[:32, :32]
    outside = np.hypot(j - 15.5, i - 15.5) > 15.8
    hu[:, outside] = padding_hu
    write_series(tmp_path, hu, tags={"PixelPaddingValue": padding_hu + 1024} if stated else {})
    scan = read_ct(tmp_path)
    assert (scan.hu == np.where(outside, -1024, hu)).all()
    assert "padding-among-tissue" not in {warning.code for warning in scan.warnings}


@pytest.mark.parametrize(
    ("tail", "is_round"),
    [
        *((b"\0", True), (bytes(100_001), False), (b"\n", False), (b"\r\n", True)),
        *((b"    ", False), (b"\xff" * 5000, True)),
    ],
)
def test_blanks_after_the_pixels(tmp_path, tail, is_round):
    hu = np.random.default_rng(0).integers(-1000, 100, (6, 32, 32))
    hu[:, 9, 9] = 1500
    if is_round:
        j, i = np.mgrid[:32, :32]
        hu[:, np.hypot(j - 15.5, i - 15.5) > 15.8] = -1024  # stored as 0
    for path in write_series(tmp_path / "scan", hu):
        path.write_bytes(path.read_bytes() + tail)
    assert (read_ct(tmp_path / "scan").hu == hu).all()


@pytest.mark.parametrize(("inserted", "row"), [(b"\0", 0), (bytes(2), 31), (b"\1\2", 0), (b"\xff\xff", 31)])
def test_bytes_within_the_pixels_are_no_blanks_after_them(tmp_path, inserted, row):
    hu = np.random.default_rng(0).integers(-1000, 100, (6, 32, 32))
    j, i = np.mgrid[:32, :32]
    hu[:, np.hypot(j - 15.5, i - 15.5) > 15.8] = -1024
    path = write_series(tmp_path, hu)[3]
    content, at = path.read_bytes(), -2 * 32 * (32 - row)
    path.write_bytes(content[:at] + inserted + content[at:])
    refuses(tmp_path, UnreadableError, "other bytes were written into it")


def test_padding_and_values_beyond_the_stored_bits(tmp_path):
    """GE writes −3024 around the field into series of 12 bits; some writers state 12 bits for values above 4095."""
    hu = chest_hu()
    hu[:, 0] = -3024
    bits = {"BitsStored": 12, "HighBit": 11}
    write_series(tmp_path / "padding", hu, signed=True, tags={**bits, "PixelPaddingValue": -2000})
    np.testing.assert_array_equal(read_ct(tmp_path / "padding").hu[:, 0], -1024)
    rows, columns = np.mgrid[:24, :28]
    metal = np.rint(4000 * np.exp(-((rows - 12) ** 2 + (columns - 14) ** 2) / 18))
    hu = np.maximum(soft_chest() + metal, -1024)
    write_series(tmp_path / "dense", hu, tags=bits)
    np.testing.assert_array_equal(read_ct(tmp_path / "dense").hu, hu)


def test_numbers_of_another_kind_of_text_are_read(tmp_path):
    def edit(ds, _):
        for keyword in ("PixelSpacing", "RescaleIntercept"):
            value = ds[keyword].value
            text = "\\".join(map(str, value)) if keyword == "PixelSpacing" else str(value)
            ds[keyword] = pydicom.DataElement(keyword, "UT", text)

    write_series(tmp_path, chest_hu(), edit=edit)
    scan = reads(tmp_path, chest_hu())
    assert scan.image.GetSpacing()[:2] == pytest.approx((0.7, 0.8))


@pytest.mark.parametrize("signed", [False, True])
def test_values_of_12_bits_whose_header_names_the_highest_of_16_bits(tmp_path, signed):
    """In the lowest bits they are read; in the upper ones, as that header means, they are refused."""

    def edit(ds, _):
        ds.BitsStored, ds.HighBit = 12, 15

    def shift(ds, k):
        edit(ds, k)
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") << 4).astype("<u2").tobytes()

    hu = np.clip(chest_hu(), -1000, 1000)
    write_series(tmp_path / "low", hu, signed=signed, edit=edit)
    reads(tmp_path / "low", hu)
    write_series(tmp_path / "high", hu, signed=signed, edit=shift)
    refuses(tmp_path / "high", UnreadableError, "upper 12 of 16 bits")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian])
def test_exchanged_bytes_are_named(tmp_path, signed, syntax):
    def swap(ds, k):
        if syntax:
            ds.file_meta.TransferSyntaxUID = syntax  # with little-endian values
        else:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()

    write_series(tmp_path, chest_hu(8, 64, 64), signed=signed, edit=swap)
    refuses(tmp_path, NotHounsfieldError, "bytes of the pixels")
