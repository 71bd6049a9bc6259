"""Detection of blank, repeated and foreign slices, of interpolation and of values that are no HU."""

import re

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.errors import SliceGeometryError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.interpolation import correlated_slices, interpolated_axes
from CACScoringLib.core.slice_checks import (
    BLOCK,
    _Blocks,
    blank_slices,
    foreign_slices,
    repeated_slices,
    slice_measures,
    tissue_values,
)
from CACScoringLib.mrml.sample_data import sample_file
from CACScoringLib.quality.examination import tissue_warnings


@pytest.mark.parametrize(("row", "column"), [(6, 16), (10, 16), (8, 12), (8, 20)])
def test_a_block_is_beside_what_touches_it(row, column):
    """Blocks of 4 pixels in every fourth row; beside them are pixels 2 rows or a block away."""
    hu = np.zeros((1, 40, 40), np.int16)
    hu[0, row, column : column + BLOCK] = 100
    mean = np.zeros((1, 10, 10), np.float32)
    blocks = _Blocks(hu, np.zeros((BLOCK, 1, 10, 10), np.float32), mean, mean > 0, (4, BLOCK))
    assert blocks.beside_maximum()[0, 2, 4] == 100
    assert blocks.beside_maximum()[0, 5:, 7:].max() == 0


def changed(blank=(), copies=(), value=0):
    """int16 [8, 12, 14] of noise in air and tissue, with blank slices, and pairs of a slice and its copy."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, -700, (8, 12, 14), np.int16)
    hu[:, 3:9, 3:11] = rng.integers(-20, 80, (8, 6, 8))
    hu[3, 5, 5], hu[4, 5, 5] = 1200, 1300
    hu[list(blank)] = value
    for original, copy in copies:
        hu[copy] = hu[original]
    return hu


@pytest.mark.parametrize(
    ("blank", "inner", "outer"),
    [
        ((), [], []),
        ((0, 2, 7), [2], [0, 7]),
        (range(7), [], list(range(7))),
        (range(8), [], list(range(8))),
    ],
)
def test_blank_slices(blank, inner, outer):
    assert blank_slices(changed(blank)) == (inner, outer)


@pytest.mark.parametrize(
    "copies", [[], [(1, 2), (1, 6)], [(0, 1), (2, 3), (4, 5), (6, 7)]], ids=lambda copies: len(copies)
)
def test_repeated_slices(copies):
    hu = changed(copies=copies)
    assert repeated_slices(hu) == copies
    hu[:, 0, 0] += np.arange(8, dtype=np.int16)
    assert repeated_slices(hu) == [], "they differ in a voxel"
    assert repeated_slices(changed(blank=(0, 1, 6))) == []


@pytest.mark.parametrize(
    ("blank", "copies", "expected"),
    [((), (), []), ((0,), [(1, 2)], [("slices-blank", False), ("slices-repeated", True)])],
)
def test_warnings_of_blank_and_repeated_slices(blank, copies, expected):
    scan = scan_from_image(sitk.GetImageFromArray(changed(blank, copies)), Acquisition("test"))
    assert [(warning.code, warning.severe) for warning in scan.warnings] == expected


def test_blank_slices_within_a_scan_are_refused():
    image = sitk.GetImageFromArray(changed((0, 2, 5), value=-1024))
    with pytest.raises(SliceGeometryError, match=r"2 slices within the scan are blank.*\(slice 2, 5, "):
        scan_from_image(image, Acquisition("test"))


@pytest.mark.parametrize(("highest_hu", "codes"), [(1200, []), (900, ["values-clipped"])])
def test_clipping_above_display_windows_is_doubted_mildly(highest_hu, codes):
    hu = np.minimum(changed(), highest_hu)
    hu[:, 4, 4:6] = highest_hu
    warnings = scan_from_image(sitk.GetImageFromArray(hu), Acquisition("test")).warnings
    assert [(warning.code, warning.severe) for warning in warnings] == [(code, False) for code in codes]


def test_slices_are_counted_from_the_feet():
    image = sitk.GetImageFromArray(changed(copies=[(1, 2)]))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))  # the first slice is the uppermost
    (warning,) = scan_from_image(image, Acquisition("test")).warnings
    assert (warning.code, "slice 6 of 5" in warning.message) == ("slices-repeated", True)


@pytest.fixture(scope="module")
def patient():
    return sitk.DICOMOrient(sitk.ReadImage(str(sample_file())), "LPS")


def warned(hu, image):
    return scan_from_image(Grid.of(image).image(hu), Acquisition("test")).warnings


NOISE = np.random.default_rng(0).integers(-1, 2, (512, 512))


@pytest.mark.parametrize(
    ("slices", "change"),
    [
        ([27], lambda hu: hu[27, :, ::-1]),
        ([27], lambda hu: (hu[26].astype(int) + hu[28]) // 2),
        ([27], lambda hu: hu[26] + NOISE[: hu.shape[1], : hu.shape[2]]),
        ([27], lambda hu: hu[27] + 24),
        ([27, 28], lambda hu: hu[[28, 27]]),
    ],
    ids=["mirrored", "averaged", "copied", "shifted", "exchanged"],
)
def test_foreign_slices_are_named(patient, slices, change):
    hu = sitk.GetArrayFromImage(patient)
    hu[slices] = change(hu).copy()
    assert list(foreign_slices(hu)) == slices


def blurred(hu, slices, sigma):
    return np.rint(ndimage.gaussian_filter(hu.astype(np.float32), sigma)[slices])


RUN = slice(24, 30)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hu: hu[RUN] + 20, "off that of slice"),
        (lambda hu: blurred(hu, RUN, (0, 1, 1)), "smoother"),
        (lambda hu: np.rint(ndimage.uniform_filter1d(hu.astype(np.float32), 5, axis=0))[RUN], "mean of its neighbours"),
    ],
    ids=["high", "smoothed", "averaged"],
)
def test_runs_of_changed_slices_are_named(patient, change, reason):
    hu = sitk.GetArrayFromImage(patient)
    hu[RUN] = change(hu)
    named = foreign_slices(hu)
    assert any(reason in text for text in named.values())
    assert all(22 <= k <= 31 for k in named)


@pytest.mark.parametrize("first", [1, 2])
def test_every_second_slice_a_mean_is_named(patient, first):
    hu = sitk.GetArrayFromImage(patient)
    means = np.arange(first, len(hu) - 1, 2)
    hu[means] = np.rint((hu[means - 1] + hu[means + 1]) / 2)
    assert sum("mean of its neighbours" in text for text in foreign_slices(hu).values()) > 20


def test_slices_lost_and_renumbered_are_doubted_mildly(patient):
    hu = np.delete(sitk.GetArrayFromImage(patient), range(26, 28), 0)
    ((place, reason),) = foreign_slices(hu, "slice-gaps").items()
    assert (place, "may be missing" in reason) == (26, True)
    assert [(w.code, w.severe) for w in warned(hu, patient)] == [("slice-gaps", False)]


def breathing(hu, slices):
    """Move what lies above the scan's middle down by slices, in front; not in the back."""
    rows = np.flatnonzero((hu > -300).any((0, 2)))
    share = np.clip((rows[0] + 0.6 * np.ptp(rows) - np.arange(hu.shape[1])) / (0.3 * np.ptp(rows)), 0, 1)
    moved, places = hu.astype(np.float32), np.arange(len(hu) // 2, len(hu))
    for j in np.flatnonzero(share):
        low, part = divmod(np.minimum(places + slices * share[j], len(hu) - 1.001), 1)
        low, part = low.astype(int), part.astype(np.float32)[:, None]
        moved[places, j] = (1 - part) * hu[low, j] + part * hu[low + 1, j]
    return np.rint(moved)[: len(hu) - slices]


@pytest.mark.parametrize("slices", [6, 8])
def test_a_breath_is_doubted_mildly(patient, slices):
    hu = breathing(sitk.GetArrayFromImage(patient), slices)
    assert list(foreign_slices(hu, "slice-gaps")) == [27]
    assert not any("missing" in reason for reason in foreign_slices(hu).values())


def test_air_that_a_file_adds_changes_no_measure_of_slices(patient):
    hu = sitk.GetArrayFromImage(patient)
    padded = np.pad(hu, ((0, 0), (40, 40), (40, 40)), constant_values=-1024)
    for code in ("slices-foreign", "slice-gaps"):
        measures = zip(slice_measures(hu, code), slice_measures(padded, code), strict=True)
        for (check, values), (_, padded_values) in measures:
            np.testing.assert_array_equal(values, padded_values, check.message)


def test_saturated_values_are_not_foreign(patient):
    hu = np.minimum(sitk.GetArrayFromImage(patient), 500)
    assert foreign_slices(hu) == {}


def test_fat_and_muscle_are_measured_in_each_quarter(patient):
    hu = sitk.GetArrayFromImage(patient)
    fat, muscle = tissue_values(hu).T
    assert fat == pytest.approx(-100, abs=3)
    assert muscle == pytest.approx(51, abs=3)
    assert tissue_values(hu + 24).sum() == pytest.approx((fat + muscle).sum() + 8 * 24, abs=8)


@pytest.mark.parametrize(
    ("offset", "drift", "codes"),
    [
        (24, 0, ["tissue-off"]),
        (-24, 0, ["tissue-off"]),
        (0, 0.5, ["tissue-drift"]),
        (0, -0.5, ["tissue-drift"]),
        (8, 0.1, []),
    ],
)
def test_shifted_and_drifting_values_are_doubted_by_fat_and_muscle(patient, offset, drift, codes):
    """Air is cut off at −1024 HU, so that it does not show the shift."""
    hu = sitk.GetArrayFromImage(patient).astype(np.float32)
    hu += offset + drift * (np.arange(len(hu)) - len(hu) / 2)[:, None, None]
    hu = np.maximum(np.rint(hu), -1024).astype(np.int16)
    warnings = tissue_warnings(hu, tissue_values(hu))
    assert [(w.code, w.severe) for w in warnings] == [(code, code == "tissue-off") for code in codes]
    for warning in warnings if drift else ():
        assert re.match(rf"Fat changes by [{'+' if drift > 0 else '-'}].* quarter 1 to quarter 4", warning.message)


@pytest.mark.parametrize(("fat_hu", "muscle_hu"), [(-53, 45), (-53, 53), (-104, 58), (-95, 27)])
def test_fat_or_muscle_alone_is_no_shift(patient, fat_hu, muscle_hu):
    values = np.array([[fat_hu, muscle_hu]] * 4, float)
    assert tissue_warnings(sitk.GetArrayFromImage(patient), values) == []


def test_a_change_of_muscle_alone_is_no_drift(patient):
    hu = sitk.GetArrayFromImage(patient)
    is_muscle = (hu > 20) & (hu < 90) & (np.arange(len(hu)) > len(hu) * 3 // 4)[:, None, None]
    hu = np.where(is_muscle, hu + 40, hu).astype(np.int16)
    assert tissue_warnings(hu, tissue_values(hu)) == []


@pytest.mark.parametrize(("height", "codes"), [(8, []), (25, ["tissue-drift"]), (-25, ["tissue-drift"])])
def test_values_that_rise_and_fall_along_a_scan_are_doubted(patient, height, codes):
    hu = sitk.GetArrayFromImage(patient).astype(np.float32)
    hu += height * np.sin(2 * np.pi * np.linspace(0, 1, len(hu)))[:, None, None]
    hu = np.maximum(np.rint(hu), -1024).astype(np.int16)
    warnings = tissue_warnings(hu, tissue_values(hu))
    assert [warning.code for warning in warnings] == codes


def test_plastics_of_a_phantom_are_doubted_mildly(patient):
    hu = sitk.GetArrayFromImage(patient)
    noise = np.random.default_rng(0).normal(0, 10, (20, *hu.shape[1:]))
    phantom = np.rint(hu[27] + 24 + noise).astype(np.int16)
    (warning,) = tissue_warnings(phantom, tissue_values(phantom))
    assert (warning.code, warning.severe) == ("tissue-off", False)
    assert "phantom" in warning.message


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 3.0), (1.2, 1.2, 2.5)])
def test_interpolated_voxels_are_warned_of(patient, spacing_mm):
    size = [
        int((n - 1) * s / step) for n, s, step in zip(patient.GetSize(), patient.GetSpacing(), spacing_mm, strict=True)
    ]
    resampled = sitk.Resample(
        patient, size, sitk.Transform(), sitk.sitkLinear, patient.GetOrigin(), spacing_mm, patient.GetDirection()
    )
    (warning,) = scan_from_image(resampled, Acquisition("test")).warnings
    assert (warning.code, warning.severe) == ("interpolated", True)


def test_slices_interpolated_by_splines_are_warned_of(patient):
    hu = ndimage.zoom(sitk.GetArrayFromImage(patient).astype(np.float32), (64 / 54, 1, 1), order=3)
    assert list(interpolated_axes(np.rint(hu))) == [0]


def test_slices_brought_further_apart_show_in_the_correlation_of_their_noise(patient, monkeypatch):
    """Slices of 3 mm, linearly interpolated at every 3.6 mm."""
    hu = sitk.GetArrayFromImage(patient).astype(np.float32)
    places = np.arange(0, len(hu) - 1, 1.2)
    below, share = places.astype(int), (places % 1)[:, None, None].astype(np.float32)
    hu = np.rint(hu[below] * (1 - share) + hu[below + 1] * share)
    assert list(correlated_slices(hu)) == [0]
    monkeypatch.setattr("CACScoringLib.core.interpolation.MAX_CORRELATION_RIPPLE", 1)
    assert correlated_slices(hu) == {}


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda hu: hu, []),
        (lambda hu: hu * 1.1, ["air-off", "coarse-values"]),
        (lambda hu: hu - 45.0, ["air-off"]),
        (lambda hu: hu + 100.0, ["air-off"]),
        (lambda hu: np.rint(hu / 16.0) * 16.0, ["coarse-values"]),
        (lambda hu: np.rint(hu / 1.5) * 1.5, ["coarse-values"]),
    ],
)
def test_values_that_are_no_hu_are_warned_of(patient, change, codes):
    warnings = warned(change(sitk.GetArrayFromImage(patient)), patient)
    assert [(w.code, w.severe) for w in warnings] == [(code, code == "air-off") for code in codes]


@pytest.mark.parametrize("lost_hu", [1e-4, -0.45])
def test_whole_hu_that_were_shifted_are_restored(patient, lost_hu):
    hu = sitk.GetArrayFromImage(patient)
    image = Grid.of(patient).image((hu + lost_hu).astype(np.float32))
    scan = scan_from_image(image, Acquisition("test"))
    assert scan.hu.dtype == np.int16
    assert (scan.hu == hu).all()


@pytest.mark.parametrize(("step_hu", "intercept_hu"), [(1.05, 0.0), (1.15, 0.4)])
def test_whole_hu_stored_in_fractional_steps_keep_dense_voxels(patient, step_hu, intercept_hu):
    hu = sitk.GetArrayFromImage(patient)
    stored = np.rint((hu - intercept_hu) / step_hu) * step_hu + intercept_hu
    scan = scan_from_image(Grid.of(patient).image(stored.astype(np.float32)), Acquisition("test"))
    assert ((scan.hu >= 130) == (hu >= 130)).all()


def test_fractions_of_hu_stay(patient):
    hu = sitk.GetArrayFromImage(patient) + np.random.default_rng(0).uniform(-0.1, 0.1, patient.GetSize()[::-1])
    image = Grid.of(patient).image(hu)
    assert np.allclose(scan_from_image(image, Acquisition("test")).hu, np.maximum(hu, -1024), atol=1e-4)
