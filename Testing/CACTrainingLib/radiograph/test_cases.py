"""Cases as files."""

import numpy as np
import pytest

from CACScoringLib.core.errors import CTError
from CACTrainingLib.radiograph.cases import View, read_case, write_case


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
    for content in (b"", b"PK\x03\x04", complete[: len(complete) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(CTError, match=r"one\.npz cannot be read.*Make them again"):
            read_case(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)
    with pytest.raises(CTError, match="cannot be read"):
        read_case(path)
