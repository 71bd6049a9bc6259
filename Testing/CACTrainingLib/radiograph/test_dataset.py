"""Radiographs in memory: squares, exposures and labels."""

import numpy as np
import pytest
from made_experiments import Warned

from CACScoringLib.core.errors import TableError
from CACTrainingLib.data.scan_table import read_radiographs
from CACTrainingLib.radiograph.cases import read_case
from CACTrainingLib.radiograph.dataset import MARGIN_PIXELS, NONE, PATIENTS, load_radiographs
from CACTrainingLib.radiograph.exposure import PER_MM, Exposure, expose


def test_squares_are_cut_from_the_view_about_the_heart(drawn, drawn_folder):
    view = read_case(drawn_folder / "cases" / "case_3.npz")["PA"]
    row, column = drawn.corners[3, 0]
    square = slice(row, row + MARGIN_PIXELS), slice(column, column + MARGIN_PIXELS)
    np.testing.assert_allclose(drawn.path(3, 0), (view.body - view.calcium)[square], atol=0.01)
    np.testing.assert_allclose(drawn.calcium_path(3, 0, PATIENTS), view.calcium[square], atol=0.001)
    assert drawn.calcium_path(3, 0, 0).max() > 20
    assert not drawn.calcium_path(3, 0, NONE).any()
    np.testing.assert_allclose(drawn.centres[3, 0], view.heart_centre)
    assert abs(drawn.corners[3, 0] + (MARGIN_PIXELS - 1) / 2 - drawn.centres[3, 0]).max() <= 8


def test_a_picture_is_exposed_with_scatter_and_noise(drawn):
    picture = drawn.picture(3, 0)
    np.testing.assert_array_equal(picture, drawn.picture(3, 0))
    low, high = drawn.windows[3, 0]
    path = drawn.path(3, 0) + drawn.calcium_path(3, 0, PATIENTS)
    clean = (PER_MM * path - low) / (high - low)
    inside = (picture > 0) & (picture < 1)
    assert np.corrcoef(picture[inside], clean[inside])[0, 1] > 0.95
    flat = np.full((64, 64), 150.0, np.float32)
    exposure = Exposure(40_000, 0.3)
    scatter = np.full((64, 64), np.exp(-PER_MM * 100))
    signal = np.exp(-expose(flat, scatter, exposure, np.random.default_rng(0)))
    mean = 0.7 * np.exp(-PER_MM * 150) + 0.3 * np.exp(-PER_MM * 100)
    assert signal.mean() == pytest.approx(mean, rel=0.01)
    assert signal.std() == pytest.approx(np.sqrt(mean / 40_000), rel=0.05)


def test_own_pictures_are_cut_about_the_middle_and_that_is_told(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (500, 430), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text("file,patient,agatston\na.png,1,5\n", encoding="utf-8")
    progress = Warned()
    data = load_radiographs(read_radiographs(tmp_path / "own.csv"), views=("PA",), progress=progress)
    assert [warning.code for warning in progress.warnings] == ["heart-not-known"]
    assert data.centres.tolist() == [[[431.5, 431.5]]]
    assert not data.has_heart.any()
    assert not data.has_map.any()
    assert np.isnan(data.factors).all()
    with pytest.raises(TableError, match="super-resolution"):
        load_radiographs(read_radiographs(tmp_path / "own.csv"), ("PA",), super_resolution="learned")
    with pytest.raises(TableError, match="no lateral picture"):
        load_radiographs(read_radiographs(tmp_path / "own.csv"))
