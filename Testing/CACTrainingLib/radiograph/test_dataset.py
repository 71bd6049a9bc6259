"""Radiographs in memory: squares, counterfactual pairs and labels."""

import numpy as np
import pytest
from made_experiments import Warned

from CACScoringLib.core.errors import TableError
from CACScoringLib.radiograph.view import view_of_path
from CACTrainingLib.data.scan_table import read_radiographs
from CACTrainingLib.radiograph.cases import read_case
from CACTrainingLib.radiograph.dataset import MARGIN_PIXELS, load_radiographs


def test_squares_are_cut_from_the_view_about_the_heart(drawn, drawn_folder):
    view = read_case(drawn_folder / "cases" / "case_3.npz")["PA"]
    row, column = drawn.corners[3, 0]
    expected = view_of_path(view.body)[row : row + MARGIN_PIXELS, column : column + MARGIN_PIXELS]
    np.testing.assert_allclose(drawn.squares[drawn.original_pictures()[3], 0] / 65535, expected, atol=1e-5)
    np.testing.assert_allclose(drawn.centres[3, 0], view.heart_centre)
    assert abs(drawn.corners[3, 0] + (MARGIN_PIXELS - 1) / 2 - drawn.centres[3, 0]).max() <= 0.5


def test_a_healthy_twin_is_the_same_chest_without_calcium(drawn, drawn_folder):
    view = read_case(drawn_folder / "cases" / "case_3.npz")["PA"]
    (counterfactual,) = np.nonzero((drawn.sample == 3) & (drawn.scale == 0))[0]
    row, column = drawn.corners[3, 0]
    expected = view_of_path(view.body - view.calcium)[row : row + MARGIN_PIXELS, column : column + MARGIN_PIXELS]
    np.testing.assert_allclose(drawn.squares[counterfactual, 0] / 65535, expected, atol=1e-5)
    assert abs(drawn.squares[counterfactual].astype(int) - drawn.squares[drawn.original_pictures()[3]]).max() > 5000


def test_own_pictures_are_cut_about_the_middle_and_that_is_told(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (500, 430), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text("file,patient,agatston\na.png,1,5\n", encoding="utf-8")
    progress = Warned()
    data = load_radiographs(read_radiographs(tmp_path / "own.csv"), views=("PA",), progress=progress)
    assert [warning.code for warning in progress.warnings] == ["heart-not-known"]
    assert data.centres.tolist() == [[[215.5, 215.5]]]
    assert not data.has_heart.any()
    assert not data.has_map.any()
    assert np.isnan(data.factors).all()
    with pytest.raises(TableError, match="super-resolution"):
        load_radiographs(read_radiographs(tmp_path / "own.csv"), ("PA",), super_resolution="learned")
    with pytest.raises(TableError, match="no lateral picture"):
        load_radiographs(read_radiographs(tmp_path / "own.csv"))
