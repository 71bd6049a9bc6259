"""Data files of shapes: all are read, and points lie at their anchors."""

import numpy as np

from CACTrainingLib.phantom.shapes import place_points


def test_points_lie_at_their_anchors():
    anchors = {"body": np.zeros(3), "spine": np.array([0, 60.5, 0])}
    places = place_points([("spine", 3, -20, 190), ("body", 8, 1, 0)], anchors)
    assert places.tolist() == [[3, 40.5, 190], [8, 1, 0]]
