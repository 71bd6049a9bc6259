"""Scans from images: accepted values, orientation, warnings, and masks on the scan's grid."""

from itertools import permutations

import images
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu
from phantoms import tilted_direction

from CACScoringLib.core.ct import (
    Acquisition,
    mask_on_scan_grid,
    obliquity_degrees,
    same_grid,
    scan_from_image,
)
from CACScoringLib.core.errors import MaskError, NotHounsfieldError, NotVolumeError

ACQUISITION = Acquisition("memory")
SPACING_MM = (0.7, 0.8, 3.0)
ORIGIN_MM = (-100.0, -120.0, 30.0)


def image_of(hu, dtype=np.int16, spacing=SPACING_MM, origin=ORIGIN_MM, direction=images.AXIAL):
    return images.image_of(np.asarray(hu, dtype), spacing, origin, direction)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, False), (True, True, True)])
def test_every_axis_order_and_flip_is_the_same_scan(order, flips):
    image = image_of(chest_hu())
    # Half of these have a left-handed direction matrix.
    turned = sitk.Flip(sitk.PermuteAxes(image, order), flips, flipAboutOrigin=False)
    scan = scan_from_image(turned, ACQUISITION)
    np.testing.assert_array_equal(scan.hu, chest_hu())
    assert same_grid(scan.image, image)
    assert scan.warnings == ()


@pytest.mark.parametrize(("degrees", "warned"), [(2.9, False), (3.1, True)])
def test_oblique_slices_warn(degrees, warned):
    scan = scan_from_image(image_of(chest_hu(), direction=tilted_direction(degrees)), ACQUISITION)
    assert [w.code for w in scan.warnings] == (["oblique"] if warned else [])
    assert obliquity_degrees(scan.image) == pytest.approx(degrees)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (sitk.GetImageFromArray(chest_hu()[0].astype(np.int16)), "2-D"),
        (image_of(chest_hu()[:1]), "14×12×1"),
        (sitk.JoinSeries([image_of(chest_hu())] * 2), "2 time steps"),
        (sitk.Compose([image_of(chest_hu())] * 3), "3 values per voxel"),
        (sitk.RealAndImaginaryToComplex(*[image_of(chest_hu(), np.float32)] * 2), "complex"),
    ],
)
def test_images_that_are_no_volume(image, match):
    with pytest.raises(NotVolumeError, match=match):
        scan_from_image(image, ACQUISITION)


def values(low, high, step=1):
    ramp = np.resize(np.arange(low, high + step, step), (6, 20, 20))
    ramp[0, 0, 0], ramp[-1, -1, -1] = low, high
    return ramp


def with_one(value):
    hu = chest_hu().astype(float)
    hu[3, 3, 3] = value
    return hu


@pytest.mark.parametrize(
    ("hu", "dtype", "match"),
    [
        ((chest_hu() > 100) * 4, np.int16, "label map"),
        (values(0, 255), np.int16, "8-bit"),
        (values(-1, 1, 0.01), np.float32, "rescaled"),
        (with_one(np.nan), np.float32, "1 voxels"),
        (with_one(-np.inf), np.float32, "1 voxels"),
        (np.full((6, 20, 20), -1000), np.int16, "same value"),
        (np.clip(chest_hu(), -160, 240), np.int16, "clipped"),
    ],
)
def test_images_not_in_hounsfield_units(hu, dtype, match):
    with pytest.raises(NotHounsfieldError, match=match):
        scan_from_image(image_of(hu, dtype), ACQUISITION)


def with_values(*counts):
    """int16 [4, 10, 50] of tissue, bone (1200 HU) and air, with given counts of some values."""
    hu = np.resize(np.arange(-900, 900, 7), 2000)
    hu[-1] = 1200
    at = 0
    for value, count in counts:
        hu[at : at + count] = value
        at += count
    return hu.reshape(10, 50, 4).transpose(2, 0, 1)  # no slice is filled by one value


def spread(low, high, highest=1):
    """int16 [4, 10, 50] of all values from low to below high, and some voxels of the highest value."""
    hu = np.resize(np.arange(low, high), 2000)
    hu[-highest:] = high
    return hu.reshape(4, 10, 50)


@pytest.mark.parametrize(
    ("hu", "accepted"),
    [
        (values(-1, 2500), True),
        (values(0, 2500), False),
        (spread(-199, 56), False),  # a span of 255
        (spread(-199, 57), True),  # wider than 8 bits
        (spread(-200, 55), True),  # fat or air
        (spread(-55, 199), False),
        (spread(-55, 200), True),
        (spread(-900, 599, 2), True),
        (spread(-900, 599, 3), False),
        (spread(-900, 600, 3), True),
    ],
)
def test_limits_of_hounsfield_units(hu, accepted):
    """Refused: more than 0.1 % of voxels at a highest value below 600 HU, or values within 8 bits."""
    if accepted:
        assert scan_from_image(image_of(hu), ACQUISITION).hu.shape == hu.shape
    else:
        with pytest.raises(NotHounsfieldError):
            scan_from_image(image_of(hu), ACQUISITION)


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        (((-1024, 500),), False),
        (((-3000, 500), (-1201, 2)), False),  # padding, and one in a thousand
        (((-3000, 500), (-1201, 3)), True),
        (((-3000, 500), (-1200, 3)), False),
    ],
)
def test_values_below_air_that_are_no_padding(counts, warned):
    scan = scan_from_image(image_of(with_values(*counts)), ACQUISITION)
    assert [warning.code for warning in scan.warnings] == ["below-air"] * warned
    assert scan.hu.min() >= -1024


def test_an_image_of_two_slices_of_two_pixels_is_a_volume():
    hu = np.array([[[-1000, 40], [300, 1200]], [[0, 10], [20, 30]]])
    scan = scan_from_image(image_of(hu), ACQUISITION)
    np.testing.assert_array_equal(scan.hu, hu)
    sizes = (scan.slice_spacing_mm, scan.voxel_volume_mm3)
    assert sizes == pytest.approx((3.0, 1.68))


@pytest.mark.parametrize(
    ("kvp", "kernel", "expected"),
    [(100.0, "Sa36f", 120.0), (100.0, "Sa", 100.0), (100.0, None, 100.0), (None, "Sa36", None)],
)
def test_the_voltage_for_the_hu_of_calcium(kvp, kernel, expected):
    assert Acquisition("memory", kvp=kvp, kernel=kernel).calcium_kvp == expected


@pytest.mark.parametrize(
    ("description", "mix"),
    [
        *(("DE_Chest 3.0 B30f F_0.5", "F_0.5"), ("DE_Angio M_0.3", "M_0.3"), ("CaSc 3.0 f 0,6", "f 0,6")),
        *(("CaSc 3.0 B35f", None), ("FIL_0.5", None), ("F_5", None), (None, None)),
    ],
)
def test_a_mixture_of_two_voltages_looks_as_at_120_kvp(description, mix):
    acquisition = Acquisition("memory", kvp=100.0, series_description=description)
    assert (acquisition.energy_mix, acquisition.calcium_kvp) == (mix, 120.0 if mix else 100.0)


@pytest.mark.parametrize(
    ("manufacturer", "kernel", "values"),
    [
        *(
            ("SIEMENS", "Sd36f", "relative electron density"),
            ("Siemens Healthineers", "Sd40d 2", "relative electron density"),
        ),
        *((None, "Sd36f", "relative electron density"), ("SIEMENS", "Sa36f", "120 kVp"), ("SIEMENS", "Qr36d", None)),
        *(("Canon", "Sd36f", None), ("SIEMENS", "STANDARD", None), ("SIEMENS", "Sd", None), ("SIEMENS", None, None)),
    ],
)
def test_kernels_that_change_hu(manufacturer, kernel, values):
    assert Acquisition("memory", manufacturer=manufacturer, kernel=kernel).kernel_values == values


class TestStorage:
    def test_fractions_of_hu_survive(self):
        hu = chest_hu().astype(float)
        hu[2, 5, 5] = 199.5
        scan = scan_from_image(image_of(hu, np.float64), ACQUISITION)
        assert scan.hu.dtype == np.float32
        assert scan.hu[2, 5, 5] == 199.5

    def test_values_above_int16_are_not_wrapped(self):
        hu = chest_hu()
        hu[0, 4, 4] = 62512
        assert scan_from_image(image_of(hu, np.int32), ACQUISITION).hu[0, 4, 4] == 32767


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"dtype": np.float32}, True),
        # 13 steps of a voxel's width, and 5 between slices, are less than 0.01 mm off, or more.
        *(({"spacing": spacing}, True) for spacing in ((0.70074, 0.8, 3.0), (0.7, 0.8, 3.0019))),
        *(({"spacing": spacing}, False) for spacing in ((0.7008, 0.8, 3.0), (0.7, 0.8, 3.0021))),
        ({"origin": (-100.0, -120.0, 30.02)}, False),
        ({"direction": tilted_direction(0.1)}, False),
        ({"hu": chest_hu()[:5]}, False),
    ],
)
def test_corners_decide_whether_grids_are_the_same(changed, is_same):
    assert same_grid(image_of(chest_hu()), image_of(**{"hu": chest_hu(), **changed})) == is_same


def test_digest_holds_the_voxels_whatever_axes_and_type_the_file_has():
    scans = [image_of(chest_hu()), sitk.DICOMOrient(image_of(chest_hu()), "RAS"), image_of(chest_hu(), np.float32)]
    (digest,) = {scan_from_image(image, ACQUISITION).voxels_sha256 for image in scans}
    hu = chest_hu()
    hu[2, 3, 4] += 1
    assert scan_from_image(image_of(hu), ACQUISITION).voxels_sha256 != digest


class TestMaskOnScanGrid:
    def scan(self):
        return scan_from_image(image_of(chest_hu()), ACQUISITION)

    def labels(self):
        labels = np.zeros(chest_hu().shape)
        labels[2:4, 5:8, 4:9] = 3
        return labels

    @pytest.mark.parametrize("dtype", [np.uint8, np.float64])
    def test_on_the_same_grid(self, dtype):
        mask, warnings = mask_on_scan_grid(image_of(self.labels(), dtype), self.scan(), "heart mask")
        np.testing.assert_array_equal(mask, self.labels())
        assert mask.dtype == np.uint8
        assert warnings == ()

    def test_cropped_mask_is_put_back_with_a_warning(self):
        crop = image_of(self.labels(), np.uint8)[3:10, 4:9, 1:5]
        mask, warnings = mask_on_scan_grid(crop, self.scan(), "heart mask")
        np.testing.assert_array_equal(mask, self.labels())
        assert [w.code for w in warnings] == ["mask-resampled"]

    def test_labels_lost_in_resampling_are_named(self):
        """Nearest neighbours miss a voxel between the scan's voxels; the warning names the lost label."""
        hu = np.random.default_rng(1).integers(-1000, 1400, (6, 8, 8)).astype(np.int16)
        labels = np.zeros((12, 16, 16), np.uint8)
        labels[2:8, 2:8, 2:8] = 1
        labels[11, 15, 15] = 3
        # A twentieth of a millimetre off, so that no voxel lies halfway between two.
        mask = images.image_of(labels, (1.0, 1.0, 1.0), (-0.05, -0.05, -0.05))
        scan = scan_from_image(images.image_of(hu, (2.0, 2.0, 2.0)), ACQUISITION)
        _, warnings = mask_on_scan_grid(mask, scan, "labels")
        assert "Labels 3 were lost" in warnings[0].message

    def test_refused(self):
        for mask, match in [
            (image_of(chest_hu()), "Was the CT given in its place"),
            (image_of(self.labels() * 0.5, np.float32), "whole numbers"),
            (image_of(self.labels() / 3 * 256, np.int16), "whole numbers"),
            (image_of(-self.labels(), np.int16), "whole numbers"),
            (image_of(self.labels() * 0, np.uint8), "no labelled voxel inside the scan"),
            (image_of(self.labels(), np.uint8, origin=(500.0, 0.0, 0.0)), "no labelled voxel inside the scan"),
            (sitk.GetImageFromArray(self.labels()[2].astype(np.uint8)), "2-D"),
        ]:
            with pytest.raises(MaskError, match=f"heart mask.*{match}|{match}.*heart mask"):
                mask_on_scan_grid(mask, self.scan(), "heart mask")

    def test_the_highest_label(self):
        mask, _ = mask_on_scan_grid(image_of(self.labels() * 85, np.int16), self.scan(), "labels")
        assert mask.max() == 255

    def test_an_empty_mask_is_accepted_on_request(self):
        one_voxel = image_of(self.labels()[:1, :1, :1] * 0, np.uint8)
        smaller = image_of(self.labels()[:4, :4, :4] * 0, np.uint8)
        for empty in (image_of(self.labels() * 0, np.uint8), one_voxel, smaller):
            mask, _ = mask_on_scan_grid(empty, self.scan(), "labels", may_be_empty=True)
            assert (mask.shape, mask.dtype) == (self.scan().hu.shape, np.uint8)
            assert not mask.any()


@pytest.mark.parametrize("with_time", [False, True])
def test_one_component_vectors_become_scalars(with_time):
    image = sitk.GetImageFromArray(chest_hu()[..., None].astype(np.int16), isVector=True)
    labels = sitk.GetImageFromArray((chest_hu() > 300)[..., None].astype(np.uint8), isVector=True)
    if with_time:
        image, labels = sitk.JoinSeries([image]), sitk.JoinSeries([labels])
    scan = scan_from_image(image, ACQUISITION)
    np.testing.assert_array_equal(scan.hu, chest_hu())
    mask, _ = mask_on_scan_grid(labels, scan, "mask")
    np.testing.assert_array_equal(mask, chest_hu() > 300)
