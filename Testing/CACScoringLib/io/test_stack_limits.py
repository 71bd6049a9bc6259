"""Positions of slices at the limits of one stack."""

import pytest
from dicom_files import chest_hu, only, write_series
from reading_checks import reads, refuses

from CACScoringLib.core.errors import SliceGeometryError
from CACScoringLib.io.reading import read_ct


def moved(k, offset_mm):
    """An edit that moves slice k by (x, y, z) mm."""

    def edit(ds, number):
        if number == k:
            ds.ImagePositionPatient = [float(p) + o for p, o in zip(ds.ImagePositionPatient, offset_mm, strict=True)]

    return edit


@pytest.mark.parametrize(
    ("offset_mm", "accepted"),
    [
        ((0.0, 0.0, 0.24), True),
        ((0.0, 0.0, -0.24), True),
        ((0.0, 0.0, 0.27), False),
        ((0.0, 0.0, 2.0), False),
        ((0.49, 0.0, 0.0), True),
        ((0.0, -0.51, 0.0), False),
        ((0.4, 0.4, 0.0), False),
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
