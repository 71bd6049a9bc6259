"""Standard views of radiographs: geometry, percentiles, enhancement, inversion."""

import numpy as np
import pytest
from radiograph_files import chest
from scipy import ndimage

from CACScoringLib.core.errors import CTError
from CACScoringLib.drr.projection import Film, display
from CACScoringLib.radiograph.view import (
    SLICE_ROWS,
    STANDARD_PIXELS,
    enhance,
    looks_inverted,
    normalised_grey,
    standard_view,
)


def test_a_picture_on_the_standard_grid_keeps_its_pixels():
    picture = np.random.default_rng(0).random((STANDARD_PIXELS, STANDARD_PIXELS), np.float32)
    view = standard_view(picture, (0.5, 0.5))
    inside = (view > 0) & (view < 1)
    assert inside.mean() > 0.9
    assert np.corrcoef(view[inside], picture[inside])[0, 1] > 1 - 1e-9


def test_pixels_are_averaged_over_the_standard_pixels_extent():
    fine = np.random.default_rng(1).random((4 * STANDARD_PIXELS, 2 * STANDARD_PIXELS), np.float32)
    coarse = fine.reshape(STANDARD_PIXELS, 4, STANDARD_PIXELS, 2).mean((1, 3))
    expected = standard_view(coarse, (0.5, 0.5))
    np.testing.assert_allclose(standard_view(fine, (0.25, 0.125)), expected, atol=1e-5)


def test_percentiles_of_the_body_become_0_and_1():
    picture = np.arange(2000, dtype=np.float32).reshape(40, 50)
    body = picture >= 1000
    view = normalised_grey(picture, body)
    assert ((view[body] == 0).sum(), (view[body] == 1).sum()) == (10, 3)
    assert not view[~body].any()


@pytest.mark.parametrize("form", ["path", "film"])
def test_an_own_radiograph_is_seen_as_training_saw_its_path(form):
    path = chest(864, 864, (0.5, 0.5))
    picture = path
    if form == "film":
        dark, (low, high) = display(np.exp(-0.0193 * path), path > 20, Film())
        picture = np.clip((dark - low) / (high - low), 0, 1)
    difference = np.abs(standard_view(picture, (0.5, 0.5)) - normalised_grey(path, path > 20))
    assert difference.mean() < 0.04
    assert difference.max() < 0.1


@pytest.mark.parametrize(
    ("picture", "pixel_mm"),
    [
        (np.zeros((2, 3, 4)), (1, 1)),
        (np.array([[0, np.inf], [1, 2]]), None),
        (np.eye(9), (1.0, -1.0)),
        (np.eye(9), (np.nan, 1.0)),
    ],
)
def test_no_radiograph_is_refused(picture, pixel_mm):
    with pytest.raises(CTError):
        standard_view(picture, pixel_mm)


def test_equalised_is_each_values_rank():
    values = np.random.default_rng(2).random((64, 64)).astype(np.float32) ** 3
    # The darkest share one of its 256 bins.
    rank = values.ravel().argsort().argsort().reshape(values.shape) / values.size
    assert np.abs(enhance(values, "equalised") - rank)[rank > 0.5].max() < 0.05


def test_deblurring_raises_a_spot_blurred_by_slices_and_keeps_the_rest():
    spot = np.full((96, 96), 0.3, np.float32)
    spot[47:50, 40:50] = 0.6
    blurred = ndimage.uniform_filter1d(spot, SLICE_ROWS, axis=0)
    deblurred = enhance(blurred, "deblurred")
    assert np.square(deblurred - spot).mean() < 0.6 * np.square(blurred - spot).mean()
    assert np.abs(deblurred - 0.3)[:, :30].max() < 1e-5
    np.testing.assert_array_equal(enhance(blurred, "deblurred-clahe"), enhance(deblurred, "clahe"))


def test_an_inverted_frontal_view_is_recognised():
    view = standard_view(chest(432, 432), (1.0, 1.0))
    assert not looks_inverted(view)
    assert looks_inverted(1 - view)
