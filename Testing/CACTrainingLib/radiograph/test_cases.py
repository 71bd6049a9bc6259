"""Cases as files."""

from dataclasses import replace

import numpy as np
import pytest
from made_experiments import Warned

from CACScoringLib.core.errors import CTError, TableError
from CACTrainingLib.data.scan_table import read_radiographs
from CACTrainingLib.radiograph.cases import View, read_case, write_case
from CACTrainingLib.radiograph.dataset import MARGIN_PIXELS, NONE, PATIENTS, load_radiographs
from CACTrainingLib.radiograph.exposure import PER_MM, Exposure, automatic_photons, expose, scattered, usual_logarithms
from CACTrainingLib.radiograph.settings import PRESETS
from CACTrainingLib.radiograph.task import Pictures


def view(seed):
    g = np.random.default_rng(seed)
    parts = (g.uniform(0, 500, (432, 432)), g.uniform(0, 20, (432, 432)), g.uniform(0, 90, (432, 432)))
    return View(*(part.astype(np.float32) for part in parts))


@pytest.fixture(scope="module")
def views():
    return {"PA": view(1), "lateral": view(2)}


@pytest.fixture
def path(tmp_path, views):
    write_case(tmp_path / "cases" / "one.npz", views)
    return tmp_path / "cases" / "one.npz"


def test_case_comes_back(path, views):
    loaded = read_case(path)
    assert list(loaded) == list(views)
    for name, view in views.items():
        for part, error_mm in (("body", 1 / 128), ("calcium", 1 / 2048), ("heart", 1 / 128)):
            values = getattr(loaded[name], part)
            assert values.dtype == np.float32
            assert np.abs(values - getattr(view, part)).max() <= 1.001 * error_mm
    assert [file.name for file in path.parent.iterdir()] == ["one.npz"]


def test_bodies_with_super_resolution_are_kept_apart(path, views):
    with pytest.raises(CTError, match=r"one\.npz has no super-resolution \(interpolated\)"):
        read_case(path, "interpolated")
    with pytest.raises(CTError, match="no super-resolution 'more'; choose of none, interpolated, learned"):
        read_case(path, "more")
    offsets = {"interpolated": 1, "learned": 2}
    write_case(path, views, {(name, way): view.body + n for name, view in views.items() for way, n in offsets.items()})
    for method, difference in {"none": 0, **offsets}.items():
        for name, loaded in read_case(path, method).items():
            np.testing.assert_allclose(loaded.body, views[name].body + difference, atol=0.01)
            np.testing.assert_allclose(loaded.calcium, views[name].calcium, atol=0.001)


def test_damaged_files_are_refused(path):
    complete = path.read_bytes()
    damaged = bytearray(complete)
    damaged[1000:3000] = bytes(2000)  # in the first array
    for content in (b"", complete[: len(complete) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(CTError, match=r"one\.npz cannot be read.*Make them again"):
            read_case(path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(CTError, match="Make them again"):
        read_case(path)


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


@pytest.mark.parametrize("lung_mm", [70.0, 110.0])
def test_quanta_behind_lung_and_heart_are_those_of_the_stated_exposure(lung_mm):
    """2.5 µGy of 31,000 quanta per mm², two thirds used, behind the lungs; behind the heart as water absorbs."""
    body = np.full((864, 864), lung_mm, np.float32)
    body[400:600, 380:480] = 180.0
    scatter = scattered(body)
    photons = automatic_photons("PA", usual_logarithms(body, scatter))
    quanta = {}
    for name, path in (("lung", lung_mm), ("heart", 180.0)):
        flat, field = np.full((400, 400), path, np.float32), np.float32(np.exp(-PER_MM * lung_mm))
        signal = np.exp(-expose(flat, field, Exposure(photons, 0.3), np.random.default_rng(0)))
        quanta[name] = signal.mean() ** 2 / signal.var() / 0.5**2  # per mm²
    assert quanta["lung"] == pytest.approx(2.5 * 31_000 * 2 / 3, rel=0.04)
    lung, heart = np.exp(-PER_MM * lung_mm), np.exp(-PER_MM * 180)
    assert quanta["heart"] / quanta["lung"] == pytest.approx((0.7 * heart + 0.3 * lung) / lung, rel=0.03)


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


def test_unknown_calcium_is_not_taken_for_none(write_cases, tmp_path):
    """A picture without its calcium would teach that what is left in the body is none."""
    write_cases(tmp_path, 4)
    rows = read_radiographs(tmp_path)
    for row in rows:
        views = read_case(row.files["PA"])
        write_case(row.files["PA"], {name: replace(view, knows_calcium=False) for name, view in views.items()})
    data = load_radiographs(rows, views=("PA",))
    assert not data.has_map.any()
    assert not data.calcium_path(3, 0, PATIENTS).any()
    pictures = Pictures(data, data.scores["agatston"], np.arange(4), PRESETS["light"].training)
    assert not pictures.redraws
    assert pictures.is_own.all()
