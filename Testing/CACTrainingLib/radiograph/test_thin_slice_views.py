"""Sharpened radiographs against the projection of the whole sharpened CT."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from in_this_process import InThisProcess

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.output import OutputError
from CACScoringLib.drr.projection import water_equivalent_mm
from CACTrainingLib.radiograph import thin_slice_views
from CACTrainingLib.radiograph.cases import CASES, HeartBox, View, read_case, view_geometry, write_case
from CACTrainingLib.radiograph.super_resolution import interpolated
from CACTrainingLib.radiograph.thin_slice_views import add_thin_slice_views, as_projected, fade, thin_slice_bodies

pytestmark = pytest.mark.usefixtures("in_this_process")

SPACING, ORIGIN = (2.0, 2.0, 3.0), (-60.0, -50.0, -45.0)
LOW, HIGH = (6, 10, 12), (24, 40, 45)
STANDS = {"PA": view_geometry(1.5, -1.0, (0.0, 0.0, 0.0)), "lateral": view_geometry(90.0, 0.0, (3.0, 2.0, 1.0))}


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(thin_slice_views, "Workers", InThisProcess)


def image_of(hu, spacing, origin):
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


@pytest.fixture(scope="module")
def ct():
    """A body with a dense plaque and much noise."""
    hu = np.random.default_rng(1).normal(0, 60, (30, 50, 60))
    hu[:, :4] = hu[:, -4:] = -1000
    hu[14:16, 24:27, 28:31] += 700
    return hu.astype(np.int16)


@pytest.fixture(scope="module")
def box(ct):
    own = ct[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))]
    origin = tuple(o + s * n for o, s, n in zip(ORIGIN, SPACING, LOW[::-1], strict=True))
    return HeartBox(np.ascontiguousarray(own), SPACING, origin, STANDS)


@pytest.fixture(scope="module")
def bodies(ct):
    return {view: water_equivalent_mm(image_of(ct, SPACING, ORIGIN), stand) for view, stand in STANDS.items()}


@pytest.mark.parametrize("view", STANDS)
def test_same_as_projecting_the_sharpened_ct(ct, box, bodies, view):
    thin = interpolated(box.hu, 3)
    found = thin_slice_bodies(bodies, box, {"interpolated": thin})[view, "interpolated"]
    whole = as_projected(np.maximum(ct, -1000), 3)
    own = tuple(slice(f * a, f * b) for a, b, f in zip(LOW, HIGH, (3, 1, 1), strict=True))
    weights = fade(thin.shape, (2.0, 2.0, 1.0))
    before = np.maximum(as_projected(box.hu, 3), -1000)
    whole[own] += weights * (np.maximum(thin, -1000) - before)
    direct = water_equivalent_mm(image_of(whole, (2.0, 2.0, 1.0), (*ORIGIN[:2], ORIGIN[2] - 1)), STANDS[view])
    middle = slice(180, 250)  # thin slices end sooner at the CT's ends than thick ones do
    assert np.abs(found - bodies[view])[middle].max() > 0.2
    np.testing.assert_allclose(found[middle], direct[middle], atol=2e-3)


def test_slices_as_the_projector_sees_them_change_nothing(box, bodies):
    found = thin_slice_bodies(bodies, box, {"learned": as_projected(box.hu, 3)})
    for view, body in bodies.items():
        np.testing.assert_allclose(found[view, "learned"], body, atol=1e-4)


@pytest.fixture
def cohort(tmp_path, box, bodies):
    nothing = np.zeros((432, 432), np.float32)
    views = {view: View(body, nothing, nothing) for view, body in bodies.items()}
    write_case(tmp_path / CASES / "one.npz", views, box)
    write_case(tmp_path / CASES / "without.npz", views)
    (tmp_path / CASES / "torn.npz").write_bytes(b"PK")
    return tmp_path


def test_cohort_is_sharpened_and_goes_on(cohort, box, bodies):
    path = cohort / CASES / "one.npz"
    with pytest.raises(CTError, match=r"one\.npz were projected without super-resolution.*learned was asked for"):
        read_case(path, "learned")
    done, failed = add_thin_slice_views(cohort)
    assert done == 1
    assert failed.keys() == {"without", "torn"}
    assert "without the box" in failed["without"]
    assert "torn.npz cannot be read" in failed["torn"]
    expected = thin_slice_bodies(bodies, box, {"interpolated": interpolated(box.hu, 3)})
    for view in STANDS:
        plain, sharp, learned = (read_case(path, method)[view] for method in ("none", "interpolated", "learned"))
        np.testing.assert_allclose(plain.body, bodies[view], atol=0.01)
        # Stored to 1/64 mm, once before and once after.
        np.testing.assert_allclose(sharp.body, expected[view, "interpolated"], atol=1.001 / 64)
        assert np.abs(learned.body - sharp.body).max() > 0.05
    # A second run leaves the case as it is.
    written = path.stat().st_mtime_ns
    assert add_thin_slice_views(cohort)[0] == 1
    assert path.stat().st_mtime_ns == written
    settings = json.loads((cohort / thin_slice_views.SETTINGS).read_text(encoding="utf-8"))
    (cohort / thin_slice_views.SETTINGS).write_text(json.dumps({**settings, "sha256": "another"}), encoding="utf-8")
    with pytest.raises(OutputError, match="super-resolution with other settings"):
        add_thin_slice_views(cohort)


def test_what_cannot_be_sharpened(tmp_path):
    with pytest.raises(CTError, match="holds no radiographs"):
        add_thin_slice_views(tmp_path)
