"""Shapes on a slice."""

import numpy as np

from CACTrainingLib.phantom.anatomy.canvas import Canvas


def test_a_tube_is_its_nearest_cone():
    """Compare with single segments in double precision."""
    canvas = Canvas(np.arange(-40, 40, 0.7), np.arange(-30, 30, 0.7), 3.0, 0.0)
    path = np.array([[-20.0, -12.0, 1.0], [-5.0, 2.0, 8.0], [-5.0, 2.0, 8.0], [9.0, 10.0, -2.0], [10.0, -8.0, 3.0]])
    radii = np.array([3.0, 4.0, 4.0, 2.0, 5.0])
    box, distance = canvas.tube_distance(path, radii, 2.0)
    y, x = np.meshgrid(canvas.y_mm[box[0]], canvas.x_mm[box[1]], indexing="ij")
    places = np.stack([x, y, np.full_like(x, canvas.z_mm)], -1).astype(float)
    cone_distances = []
    for a, b, r, s in zip(path, path[1:], radii, radii[1:], strict=False):
        t = np.clip((places - a) @ (b - a) / max((b - a) @ (b - a), 1e-9), 0, 1)[..., None]
        cone_distances.append(np.linalg.norm(places - a - t * (b - a), axis=-1) - (r + t[..., 0] * (s - r)))
    assert np.abs(distance - np.min(cone_distances, axis=0)).max() < 1e-4
