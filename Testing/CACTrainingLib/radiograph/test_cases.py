"""Cases as files."""

import numpy as np
import pytest

from CACScoringLib.core.ct import CTError
from CACTrainingLib.radiograph.cases import (
    HeartBox,
    View,
    add_thin_slices,
    has_thin_slices,
    read_box,
    read_case,
    view_geometry,
    write_case,
)


def view(seed):
    g = np.random.default_rng(seed)
    parts = (g.uniform(0, 500, (432, 432)), g.uniform(0, 20, (432, 432)), g.uniform(0, 90, (432, 432)))
    return View(*(part.astype(np.float32) for part in parts))


@pytest.fixture(scope="module")
def views():
    return {"PA": view(1), "lateral": view(2)}


@pytest.fixture(scope="module")
def box():
    hu = np.random.default_rng(3).integers(-1024, 3071, (4, 5, 6)).astype(np.int16)
    stands = {"PA": view_geometry(1.25, -0.5, (3.0, -4.5, 9.0)), "lateral": view_geometry(91.0, 2.0, (1.0, 2.0, 3.0))}
    return HeartBox(hu, (1.0, 1.5, 3.0), (-10.0, 20.0, -33.25), stands)


@pytest.fixture
def path(tmp_path, views, box):
    write_case(tmp_path / "cases" / "one.npz", views, box)
    return tmp_path / "cases" / "one.npz"


def test_case_comes_back(path, views, box):
    found = read_case(path)
    assert list(found) == list(views)
    for name, wanted in views.items():
        for part, error_mm in (("body", 1 / 128), ("calcium", 1 / 2048), ("heart", 1 / 128)):
            values = getattr(found[name], part)
            assert values.dtype == np.float32
            assert np.abs(values - getattr(wanted, part)).max() <= 1.001 * error_mm
    again = read_box(path)
    np.testing.assert_array_equal(again.hu, box.hu)
    assert (again.spacing_mm, again.origin_mm, again.geometries) == (box.spacing_mm, box.origin_mm, box.geometries)
    assert [file.name for file in path.parent.iterdir()] == ["one.npz"]


def test_sharpened_bodies_are_told_from_the_plain_one(path, views):
    with pytest.raises(
        CTError,
        match=r"one\.npz were projected without super-resolution.*interpolated was asked for.*super-resolution on",
    ):
        read_case(path, "interpolated")
    with pytest.raises(CTError, match="no super-resolution 'more'; choose one of none, interpolated, learned"):
        read_case(path, "more")
    assert not has_thin_slices(path)
    add_thin_slices(path, {(name, "interpolated"): view.body + 1 for name, view in views.items()})
    assert not has_thin_slices(path)
    add_thin_slices(path, {(name, "learned"): view.body + 2 for name, view in views.items()})
    assert has_thin_slices(path)
    for method, more in (("none", 0), ("interpolated", 1), ("learned", 2)):
        for name, found in read_case(path, method).items():
            np.testing.assert_allclose(found.body, views[name].body + more, atol=0.01)
            np.testing.assert_allclose(found.calcium, views[name].calcium, atol=0.001)
    assert read_box(path) is not None
    assert [file.name for file in path.parent.iterdir()] == ["one.npz"]


def test_middle_of_the_heart():
    nothing = np.zeros((432, 432), np.float32)
    heart = nothing.copy()
    heart[100:201, 50] = heart[120, 50:121] = 3
    assert View(nothing, nothing, heart).heart_centre == (150, 85)
    assert View(nothing, nothing, nothing).heart_centre is None


def test_damaged_files_are_told(path):
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[1000:3000] = bytes(2000)  # in the first array
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(CTError, match=r"one\.npz cannot be read.*Make them again"):
            read_case(path)
    path.write_bytes(b"PK")
    for read in (read_box, has_thin_slices, lambda path: add_thin_slices(path, {})):
        with pytest.raises(CTError, match="cannot be read"):
            read(path)
    with pytest.raises(CTError, match="cannot be read"):
        read_case(path.with_name("missing.npz"))
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)
    with pytest.raises(CTError, match="a single array"):
        read_case(path)
