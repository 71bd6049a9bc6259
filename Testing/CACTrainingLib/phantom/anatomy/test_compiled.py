"""The compiled loops of painting equal their slow forms in NumPy."""

import numpy as np
import painted_by_numpy as slow
import pytest

from CACTrainingLib.phantom import PROTOCOLS, draw_pair, draw_patient, stream
from CACTrainingLib.phantom.anatomy import compiled, compiled_heart
from CACTrainingLib.phantom.anatomy.heart import Heart
from CACTrainingLib.phantom.anatomy.hearts.shape import STEP_MM

X, Y = np.linspace(-40, 55, 96).astype(np.float32), np.linspace(-30, 49, 80).astype(np.float32)


def fields(seed: int, *scales: float) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [(scale * generator.standard_normal((40, 50))).astype(np.float32) for scale in scales]


@pytest.mark.parametrize("seed", range(8))
def test_the_distance_to_a_tube_is_right_within_its_border(seed):
    g = np.random.default_rng(seed)
    path, radii = np.cumsum(g.normal(0, 12, (9, 3)), axis=0), g.uniform(1, 6, 9)
    j, i, distance = compiled.tube_distance(X, Y, 3.0, path, radii, 2.5)
    expected = slow.tube_distance(X, Y, 3.0, path, radii)
    in_slice = np.full(expected.shape, np.inf)
    in_slice[j : j + distance.shape[0], i : i + distance.shape[1]] = distance
    is_near = expected < 2.5
    np.testing.assert_allclose(in_slice[is_near], expected[is_near], atol=1e-4)
    assert (in_slice[~is_near] >= 2.5 - 1e-4).all()


def test_a_slice_beside_a_tube_is_empty():
    path = np.array([[0, 0, 20.0], [5, 5, 30]])
    assert compiled.tube_distance(X, Y, 3.0, path, np.ones(2), 1.0)[2].size == 0


@pytest.mark.parametrize("z_mm", [-6.0, 0.5, 7.9, 30.0])
def test_the_distance_to_an_ellipsoid_is_that_to_first_order(z_mm):
    centre, semi = np.array([3.0, -4, 1]), np.array([20.0, 11, 8])
    j, i, distance = compiled.ellipsoid_distance(X, Y, z_mm, centre, semi, 1.0)
    expected = slow.ellipsoid_distance(X, Y, z_mm, centre, semi)
    part = expected[j : j + distance.shape[0], i : i + distance.shape[1]]
    np.testing.assert_allclose(distance, part, atol=1e-3)
    assert (distance < 0).sum() == ((expected < 0) & (abs(z_mm - 1) < 9)).sum()


@pytest.mark.parametrize("columns", [1, 8, 12])
def test_lattices_are_read_to_the_last_bit(columns):
    g, shape = np.random.default_rng(columns), (6, 5, 7)
    table = g.standard_normal((210, columns)).astype(np.float32)
    low, places = np.array([-3.0, 2, 1], np.float32), g.uniform(-10, 30, (500, 3)).astype(np.float32)
    values = compiled_heart.interpolate(table, shape, low, STEP_MM, places)
    np.testing.assert_array_equal(values, slow.interpolate(table, shape, low, STEP_MM, places))


@pytest.mark.parametrize("surroundings", [True, False])
@pytest.mark.parametrize("contraction", [0.0, 0.7])
def test_chambers_are_painted_as_in_numpy(surroundings, contraction, monkeypatch):
    patient = draw_patient(77, surroundings=surroundings)
    heart = Heart(patient.body, draw_pair(PROTOCOLS["chest-varied"], stream(77, 20))[0][1], patient.heart)
    calls = []
    monkeypatch.setattr(compiled_heart, "paint_chambers", lambda *arguments: calls.append(arguments))
    from CACTrainingLib.phantom.anatomy.canvas import Canvas

    for z_mm in (-30.0, 0.0, 35.0):
        canvas = Canvas(np.arange(-90, 90, 0.9), np.arange(-80, 90, 0.9), z_mm, -850.0)
        lung = np.ones_like(canvas.hu)
        grain = np.random.default_rng(1).standard_normal(canvas.hu.shape).astype(np.float32)
        heart.paint(canvas, lung, grain, 0.0, contraction)
    monkeypatch.undo()
    for hu, lung, grain, inside, *facts in calls:
        painted = [hu.copy(), lung.copy(), grain, inside.copy()]
        expected = [hu.astype(float), lung.astype(float), grain.astype(float), inside.astype(float)]
        compiled_heart.paint_chambers(*painted, *facts)
        slow.paint_chambers(*expected, *facts)
        np.testing.assert_allclose(painted[0], expected[0], atol=0.3)
        np.testing.assert_allclose(painted[1], expected[1], atol=2e-3)
        np.testing.assert_allclose(painted[3], expected[3], atol=2e-3)
    assert len(calls) == 3


def test_the_chest_wall_is_painted_as_in_numpy():
    hu, inner, skin, flesh, grain, gland = fields(1, 100, 20, 20, 8, 1, 0.4)
    values = tuple(map(np.float32, (60, -95, 40, 55)))
    painted, expected, gland = hu.copy(), hu.copy(), np.clip(gland, 0, 1)
    compiled.paint_wall(painted, inner, skin - 15, np.abs(flesh), grain, gland, values)
    slow.paint_wall(expected, inner, skin - 15, np.abs(flesh), grain, gland, values)
    np.testing.assert_allclose(painted, expected, atol=1e-2)
    assert not np.array_equal(painted, hu)


def test_lungs_are_painted_as_in_numpy():
    hu, inner, grain, depth = fields(2, 100, 3, 1, 0.5)
    painted, expected = hu.copy(), hu.copy()
    facts = (inner, grain, depth, np.float32(-840), np.float32(50), np.float32(60))
    share = compiled.paint_lungs(painted, *facts)
    np.testing.assert_allclose(share, slow.paint_lungs(expected, *facts), atol=1e-5)
    np.testing.assert_allclose(painted, expected, atol=1e-2)


@pytest.mark.parametrize("calcified_hu", [0.0, 250.0])
def test_ribs_are_painted_as_in_numpy(calcified_hu):
    hu, inner, front, grain = fields(3, 100, 4, 0.3, 1)
    painted, expected, front = hu.copy(), hu.copy(), np.abs(front)
    facts = (inner + 5, front, grain, 10.0, (28.0, 60.0, 0.66), (3.0, 4.0), (5.0, 6.0), (900.0, 180.0, 90.0))
    compiled.paint_ribs(painted, *facts, calcified_hu)
    slow.paint_ribs(expected, *facts, calcified_hu)
    np.testing.assert_allclose(painted, expected, atol=5e-2)
    assert not np.array_equal(painted, hu)


def test_fields_are_mixed():
    parts = np.stack(fields(4, 1, 1, 1))
    shares = np.array([0.3, -0.5, 2], np.float32)
    np.testing.assert_allclose(compiled.mix(parts, shares), np.tensordot(shares, parts, 1), atol=1e-5)


def test_vessels_grow_from_the_nearest_node():
    g = np.random.default_rng(5)
    arguments = (g.uniform(-5, 5, 3), g.uniform(-60, 60, (60, 3)), g.standard_normal((60, 3)), 2.0)
    nodes, parent, leaves = compiled.grow_tree(*arguments)
    expected = slow.nearest_growth(*arguments)
    np.testing.assert_allclose(nodes, expected[0], atol=1e-9)
    np.testing.assert_array_equal(parent, expected[1])
    np.testing.assert_array_equal(leaves, expected[2])
