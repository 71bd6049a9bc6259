"""CAC Region: the brush."""

import itertools

import numpy as np
import pytest
import slicer
from effect_desk import SHAPE, rotation


class TestRegion:
    def test_brush_is_one_centimetre_and_free_of_threshold(self, desk):
        effect = desk.use("CAC Region")
        assert effect.boxes["DiameterMm"].value == 10
        desk.click((7, 20, 20))
        painted = np.argwhere(desk.voxels("LAD"))
        assert set(painted[:, 0]) == {7}
        assert len(painted) == pytest.approx(np.pi * 5**2, rel=0.1)

    def test_ball(self, desk):
        effect = desk.use("CAC Region")
        effect.boxes["Sphere"].setChecked(True)
        desk.click((8, 20, 20))
        desk.show_slice(8)
        painted = np.argwhere(desk.voxels("LAD"))
        assert len(painted) * 2 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.12)
        assert set(painted[:, 0]) == {5, 6, 7, 8, 9}

    @pytest.mark.parametrize("order", ["LPS", "SAR"])
    @pytest.mark.parametrize("direction", [None, ("x", 25)], ids=str)
    def test_stroke_in_any_axes_is_one_layer(self, make_desk, order, direction):
        desk = make_desk(order, direction and rotation(*direction))
        desk.use("CAC Region")
        painted = np.argwhere(stroke(desk, [15, 19, 25])[0])
        assert set(painted[:, 0]) == {7}
        # Up to 191: along voxels' centres, eleven rows of them lie within 5 mm and not ten.
        assert len(painted) == pytest.approx(np.pi * 25 + 10 * 10, rel=0.08)

    @pytest.mark.parametrize("direction", [None, ("x", 25)], ids=str)
    def test_stroke_in_any_window_covers_the_centres_within_its_radius(self, make_desk, direction):
        """How many they are depends on where in its pixels the mouse has been."""
        counts = set()
        for height in (800, 847, 894, 1035, 1082):
            slicer.mrmlScene.Clear()
            slicer.util.mainWindow().resize(1000 + height, height)
            slicer.app.processEvents()
            desk = make_desk("LPS", direction and rotation(*direction))
            desk.use("CAC Region")
            painted, way = stroke(desk, [15, 19, 25])
            expected = np.zeros(SHAPE, bool)
            # The scan's slices have pixels of 1 × 1 mm.
            j, i = np.mgrid[: SHAPE[1], : SHAPE[2]]
            expected[7] = np.min([distance(i, j, *ends) for ends in itertools.pairwise(way)], 0) <= 5 + 1e-6
            np.testing.assert_array_equal(painted, expected)
            counts.add(int(painted.sum()))
            desk.close()
        assert len(counts) > 1

    def test_keys_wheel_and_undo(self, desk):
        effect = desk.use("CAC Region")
        desk.click((7, 15, 15))
        first = desk.counts()["LAD"]
        desk.key("3")
        desk.click((7, 15, 15))
        assert desk.counts() == {"LCX": first}
        desk.at((7, 15, 15))
        desk.interactor.SetShiftKey(1)
        desk.interactor.InvokeEvent("MouseWheelForwardEvent")
        assert effect.boxes["DiameterMm"].value == 12
        desk.interactor.InvokeEvent("MouseWheelBackwardEvent")
        assert effect.boxes["DiameterMm"].value == pytest.approx(10, abs=0.06)
        desk.editor.undo()
        assert desk.counts() == {"LAD": first}


def stroke(desk, columns) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Paint along a row of slice 7. Returns what is painted, and where (i, j) the mouse has been to the pixel."""
    way = []
    for act, column in zip([desk.press, *[desk.move] * (len(columns) - 2), desk.release], columns, strict=True):
        act((7, 20, column))
        point = desk.view.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*desk.interactor.GetEventPosition(), 0.0, 1.0))
        i, j, _k = desk.grid.TransformPhysicalPointToContinuousIndex((-point[0], -point[1], point[2]))
        way.append((i, j))
    return desk.voxels("LAD"), way


def distance(i, j, start, end) -> np.ndarray:
    """From the points (i, j) to the way between two others."""
    step = np.subtract(end, start)
    at = np.clip(((i - start[0]) * step[0] + (j - start[1]) * step[1]) / (step @ step), 0, 1)
    return np.hypot(i - start[0] - at * step[0], j - start[1] - at * step[1])
