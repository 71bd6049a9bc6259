"""Tests of CAC Region."""

import numpy as np
import pytest
from effect_desk import rotation


class TestRegion:
    def test_brush_is_a_centimetre_and_free_of_threshold(self, desk):
        effect = desk.use("CAC Region")
        assert effect.boxes["DiameterMm"].value == 10
        desk.click((7, 20, 20))
        painted = np.argwhere(desk.voxels("LAD"))
        assert set(painted[:, 0]) == {7}
        assert len(painted) == pytest.approx(np.pi * 5**2, rel=0.1)

    @pytest.mark.parametrize("order", ["LPS", "SAR"])
    @pytest.mark.parametrize("direction", [None, ("x", 25)], ids=str)
    def test_stroke_in_any_axes_is_a_single_layer(self, make_desk, order, direction):
        desk = make_desk(order, direction and rotation(*direction))
        desk.use("CAC Region")
        painted = np.argwhere(stroke(desk, [15, 19, 25]))
        assert set(painted[:, 0]) == {7}
        # Along voxel centres the area is up to 191, because eleven rows rather than ten lie within 5 mm.
        assert len(painted) == pytest.approx(np.pi * 25 + 10 * 10, rel=0.08)

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


def stroke(desk, columns) -> np.ndarray:
    """Paint along a row of slice 7 and return the painted voxels."""
    for act, column in zip([desk.press, *[desk.move] * (len(columns) - 2), desk.release], columns, strict=True):
        act((7, 20, column))
    return desk.voxels("LAD")
