"""Radiographs with a sharpened heart compared with the projection of a sharpened CT."""

import numpy as np
import pytest
from images import image_of

from CACScoringLib.core.grid import Grid
from CACScoringLib.drr.projection import water_equivalent_mm
from CACTrainingLib.radiograph.cases import view_geometry
from CACTrainingLib.radiograph.super_resolution import fade, interpolate, thin_grid, thin_slice_bodies

SPACING, ORIGIN = (2.0, 2.0, 3.0), (-60.0, -50.0, -45.0)
LOW, HIGH = (6, 10, 12), (24, 40, 45)
STANDS = {"PA": view_geometry(1.5, -1.0, (0.0, 0.0, 0.0)), "lateral": view_geometry(90.0, 0.0, (3.0, 2.0, 1.0))}


@pytest.fixture(scope="module")
def ct():
    """Noisy body with a dense plaque."""
    hu = np.random.default_rng(1).normal(0, 60, (30, 50, 60))
    hu[:, :4] = hu[:, -4:] = -1000
    hu[14:16, 24:27, 28:31] += 700
    return hu.astype(np.int16)


@pytest.fixture(scope="module")
def box(ct):
    """Slices around the heart."""
    return np.ascontiguousarray(ct[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))])


@pytest.fixture(scope="module")
def bodies(ct):
    return {view: water_equivalent_mm(image_of(ct, SPACING, ORIGIN), stand) for view, stand in STANDS.items()}


@pytest.mark.parametrize("view", STANDS)
def test_same_as_projecting_the_sharpened_ct(ct, box, bodies, view):
    thin = interpolate(box, 3)
    origin = tuple(o + s * n for o, s, n in zip(ORIGIN, SPACING, LOW[::-1], strict=True))
    grid = thin_grid(Grid(box.shape[::-1], SPACING, origin))
    projected = thin_slice_bodies(bodies, STANDS, box, grid, {"interpolated": thin})[view, "interpolated"]
    sharpened = interpolate(np.maximum(ct, -1000), 3, order=1)
    thin_box = tuple(slice(f * a, f * b) for a, b, f in zip(LOW, HIGH, (3, 1, 1), strict=True))
    weights = fade(thin.shape, (2.0, 2.0, 1.0))
    before = np.maximum(interpolate(box, 3, order=1), -1000)
    sharpened[thin_box] += weights * (np.maximum(thin, -1000) - before)
    direct = water_equivalent_mm(image_of(sharpened, (2.0, 2.0, 1.0), (*ORIGIN[:2], ORIGIN[2] - 1)), STANDS[view])
    middle = slice(180, 250)  # thin slices end before thick ones at the CT's ends
    assert np.abs(projected - bodies[view])[middle].max() > 0.2
    np.testing.assert_allclose(projected[middle], direct[middle], atol=2e-3)
