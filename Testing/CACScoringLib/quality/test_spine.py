"""Size of vertebrae, and warnings of a wrong pixel or slice spacing."""

from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.quality.examination import body_warnings, spine_warnings, uneven_noise_warnings
from CACScoringLib.quality.spine import vertebrae

PITCH_MM, BODY_MM, CANAL_MM, PIXEL_MM, SLICE_MM = 24.0, 32.0, 14.0, 1.0, 2.0


@cache
def chest() -> tuple[np.ndarray, np.ndarray]:
    """HU [k, j, i] of a heart before a spine, and the heart's mask. Discs of 5 mm lie between vertebral bodies."""
    z, y, x = np.meshgrid(np.arange(70) * SLICE_MM, np.arange(160.0), np.arange(200.0), indexing="ij")
    hu = np.where(((x - 100) / 95) ** 2 + ((y - 80) / 75) ** 2 < 1, 45.0, -1000.0)
    in_disc = (z % PITCH_MM) < 5
    body = ((x - 100) / (BODY_MM / 2)) ** 2 + ((y - 105) / 14) ** 2 < 1
    arch = (abs(x - 100) < 16) & (y > 115) & (y < 140)
    canal = ((x - 100) / (CANAL_MM / 2)) ** 2 + ((y - 124) / 7) ** 2 < 1
    hu[body & ~in_disc] = 260
    hu[arch] = 350
    hu[canal] = 40
    hu += np.random.default_rng(0).normal(0, 12, hu.shape)
    heart = (x - 100) ** 2 + (y - 50) ** 2 + (z - 70) ** 2 < 40**2
    return np.rint(hu).astype(np.int16), heart


def measured(scales=(1.0, 1.0, 1.0)):
    """Scan of the chest with scaled spacings, and the heart's mask."""
    spacing_mm = tuple(step * scale for step, scale in zip((PIXEL_MM, PIXEL_MM, SLICE_MM), scales, strict=True))
    image = image_of(chest()[0], spacing_mm)
    return scan_from_image(image, Acquisition("test"), is_known=True), chest()[1]


def test_distance_and_width_of_vertebrae():
    pitch_mm, width_mm = vertebrae(*measured())
    assert pitch_mm == pytest.approx(PITCH_MM, abs=0.5)
    assert width_mm == pytest.approx((BODY_MM * CANAL_MM) ** 0.5, abs=2)


def test_a_spine_at_the_border_of_the_field_is_not_measured():
    hu, heart = (part[:, :104] for part in chest())
    scan = scan_from_image(image_of(hu, (PIXEL_MM, PIXEL_MM, SLICE_MM)), Acquisition("test"), is_known=True)
    assert vertebrae(scan, heart) == (None, None)


@pytest.mark.parametrize(
    ("scales", "count"),
    [
        *(((1, 1, 1), 0), ((1, 1, 1.5), 1), ((1, 1, 1 / 1.5), 1)),
        *(((1.5, 1.5, 1), 1), ((1 / 1.5, 1 / 1.5, 1), 1), ((1.5, 1.5, 1.5), 2)),
    ],
)
def test_wrong_spacings_are_doubted_severely_where_distance_and_width_are_off(scales, count):
    assert doubts(vertebrae(*measured(scales))) == [("geometry-implausible", count == 2)] * count


def test_a_spine_that_repeats_better_after_two_vertebrae_is_measured_by_one():
    # As in digital patients, every second vertebra is denser: the correlation is highest at twice the distance.
    hu, heart = chest()
    place_mm = np.arange(len(hu)) * SLICE_MM
    is_second = ((place_mm // PITCH_MM) % 2 == 1)[:, None, None] & (hu > 200)
    scan = scan_from_image(
        image_of(np.where(is_second, hu + 25, hu).astype(np.int16), (1.0, 1.0, SLICE_MM)),
        Acquisition("test"),
        is_known=True,
    )
    assert vertebrae(scan, heart)[0] == pytest.approx(PITCH_MM, abs=0.5)


def doubts(sizes_mm, age_years=None):
    return [(warning.code, warning.severe) for warning in spine_warnings(*sizes_mm, age_years)]


@pytest.mark.parametrize("scales", [(1, 1, 1.2), (1.25, 1.25, 0.97)])
def test_spacings_wrong_by_a_quarter_change_the_shape_of_vertebrae(scales):
    assert doubts(vertebrae(*measured(scales))) == [("spacings-unusual", False)]


@pytest.mark.parametrize(
    ("sizes_mm", "age_years", "expected"),
    [
        ((19.9, 16.0), 15, [("geometry-implausible", False)] * 2),
        ((15.0, 16.0), 16, [("geometry-implausible", True)] * 2),
        ((15.0, None), None, [("geometry-implausible", False)]),
        ((21.0, 16.0), None, [("geometry-implausible", False)]),
        ((46.2, 21.0), None, [("geometry-implausible", False)]),
        ((None, None), 9, []),
        ((21.0, 20.0), 9, []),
        ((20.5, 21.2), 9, [("spacings-unusual", False)]),
    ],
)
def test_small_vertebrae_of_children_give_no_severe_warning(sizes_mm, age_years, expected):
    assert doubts(sizes_mm, age_years) == expected


@pytest.mark.parametrize(("sd_hu", "expected"), [(0, []), (60, ["noise-uneven"])])
def test_local_noise_in_the_heart(sd_hu, expected):
    hu, heart = chest()
    hu = hu.copy()
    hu[28:38, 40:52, 80:92] = -900  # edges of air are no noise
    box = hu[25:45, 30:50, 100:120]
    box += np.rint(np.random.default_rng(1).normal(0, sd_hu, box.shape)).astype(np.int16)
    scan = scan_from_image(image_of(hu, (1.0, 1.0, 2.0)), Acquisition("test"), is_known=True)
    assert [warning.code for warning in uneven_noise_warnings(scan, heart)] == expected


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        *(((0.8, 0.805, 3), []), ((3, 0.8, 0.8), [])),
        *(((1.0, 0.8, 3), ["geometry-implausible"]), ((0.8, 0.4, 3), ["geometry-implausible"])),
    ],
)
def test_pixels_of_scanners_are_square(spacing_mm, expected):
    hu = np.full((3, 4, 4), 40, np.int16)
    hu[0], hu[1, 0, 0] = -1000, 1200
    scan = scan_from_image(image_of(hu, spacing_mm), Acquisition("test"))
    assert [warning.code for warning in body_warnings(scan)] == expected


def test_scans_without_a_spine_are_not_judged():
    hu = sitk.GetArrayFromImage(image_of(chest()[0], (1, 1, 2)))
    hu[hu > 150] = 50
    scan = scan_from_image(image_of(hu, (1.0, 1.0, 2.0)), Acquisition("test"), is_known=True)
    assert vertebrae(scan, chest()[1]) == (None, None)
