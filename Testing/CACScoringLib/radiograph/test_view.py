"""Views of radiographs: geometry by invariance, percentiles by counting, enhancement against its definition."""

import numpy as np
import pytest
from radiograph_files import chest

from CACScoringLib.drr.xray import Film, displayed
from CACScoringLib.radiograph.view import (
    LARGER_SIDE_MM,
    STANDARD_PIXELS,
    ViewError,
    enhanced,
    looks_inverted,
    normalised,
    standard_view,
    view_of_path,
)


def test_a_picture_on_the_standard_grid_keeps_its_pixels():
    picture = np.random.default_rng(0).random((STANDARD_PIXELS, STANDARD_PIXELS), np.float32)
    view = standard_view(picture, (1.0, 1.0))
    inside = (view > 0) & (view < 1)
    assert inside.mean() > 0.9
    assert np.corrcoef(view[inside], picture[inside])[0, 1] > 1 - 1e-9


def test_pixels_are_averaged_over_the_standard_pixels_extent():
    fine = np.random.default_rng(1).random((4 * STANDARD_PIXELS, 2 * STANDARD_PIXELS), np.float32)
    coarse = fine.reshape(STANDARD_PIXELS, 4, STANDARD_PIXELS, 2).mean((1, 3))
    expected = standard_view(coarse, (1.0, 1.0))
    np.testing.assert_allclose(standard_view(fine, (0.5, 0.25)), expected, atol=1e-5)


def test_without_a_pixel_size_the_larger_side_is_a_cassettes():
    picture = chest(860, 700, (0.5, 0.5))
    assert np.array_equal(standard_view(picture, None), standard_view(picture, (LARGER_SIDE_MM / 860,) * 2))


def test_percentiles_of_the_body_become_0_and_1():
    picture = np.arange(2000, dtype=np.float32).reshape(40, 50)
    body = picture >= 1000
    view = normalised(picture, body)
    assert (view[body] == 0).sum() == 10
    assert (view[body] == 1).sum() == 3
    assert not view[~body].any()


@pytest.mark.parametrize("form", ["path", "film"])
def test_an_own_radiograph_is_seen_as_training_saw_its_path(form):
    path = chest(432, 432, (1.0, 1.0))
    picture = path
    if form == "film":
        dark, (low, high) = displayed(np.exp(-0.0193 * path), path > 20, Film())
        picture = np.clip((dark - low) / (high - low), 0, 1)
    difference = np.abs(standard_view(picture, (1.0, 1.0)) - view_of_path(path))
    assert difference.mean() < 0.04
    assert difference.max() < 0.1


@pytest.mark.parametrize(
    ("picture", "pixel_mm"),
    [
        (np.zeros((2, 3, 4)), (1, 1)),
        (np.zeros((1, 9)), (1, 1)),
        (np.full((9, 9), np.nan), (1, 1)),
        (np.array([[0, np.inf], [1, 2]]), None),
        (np.eye(9), (0.0, 1.0)),
        (np.eye(9), (1.0, -1.0)),
        (np.eye(9), (np.nan, 1.0)),
        (np.eye(9), (1e9, 1.0)),
    ],
)
def test_what_is_no_radiograph_is_refused(picture, pixel_mm):
    with pytest.raises(ViewError):
        standard_view(picture, pixel_mm)


class TestEnhancement:
    view = standard_view(chest(432, 432, (1.0, 1.0)), (1.0, 1.0))

    def test_equalised_is_each_values_rank(self):
        values = np.random.default_rng(2).random((64, 64)).astype(np.float32) ** 3
        # The darkest share one of its 256 bins.
        rank = values.ravel().argsort().argsort().reshape(values.shape) / values.size
        assert np.abs(enhanced(values, "equalised") - rank)[rank > 0.5].max() < 0.05

    def test_clahe_raises_faint_local_contrast(self):
        faint = np.full((432, 432), 0.3, np.float32) + 0.01 * (np.indices((432, 432)).sum(0) // 20 % 2)
        assert enhanced(faint, "clahe").std() > 2 * faint.std()

    def test_unsharp_overshoots_at_an_edge_alone(self):
        edge = np.full((100, 100), 0.4, np.float32)
        edge[:, 50:] = 0.6
        result = enhanced(edge, "unsharp")
        assert result[50, 49] < 0.35
        assert result[50, 50] > 0.65
        np.testing.assert_allclose(result[:, [5, 95]], edge[:, [5, 95]], atol=1e-3)

    def test_others_are_refused(self):
        with pytest.raises(ViewError, match="clahe"):
            enhanced(self.view, "sharper")


class TestInverted:
    def test_frontal(self):
        view = view_of_path(chest(432, 432))
        assert not looks_inverted(view)
        assert looks_inverted(1 - view)

    def test_lateral(self):
        y, x = np.mgrid[:432, :432]
        lateral = np.where(abs(x - 216) < 150 - 0.2 * abs(y - 250), 0.7, 0.0)
        assert not looks_inverted(lateral, lateral=True)
        assert looks_inverted(1 - lateral, lateral=True)
