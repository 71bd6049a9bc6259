"""A study's figures: positions of drawn items, read from the drawing."""

import re
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from CACScoringLib.quality.calibration import Limits
from CACTrainingLib.evaluation.figures import (
    Panel,
    ScorePairs,
    bland_altman,
    panels_of_values,
    rendered,
)
from CACTrainingLib.evaluation.parts import Figure

LIMITS = Limits(intercept=2.0, slope=0.5, factor=2.0, pairs=30, highest=100.0)


def drawn(draw, *arguments, **options):
    drawing = Drawing(figsize=(7, 4), layout="constrained")
    draw(drawing, *arguments, **options)
    return drawing


def dots(axis):
    return np.concatenate([collection.get_offsets() for collection in axis.collections])


def curve(line):
    """Data of a line as plain arrays."""
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


class TestBlandAltman:
    def test_dots_and_limits(self):
        drawing = drawn(bland_altman, [ScorePairs("map", [10, 0], [20, 0], LIMITS)], "mg", 1.0)
        axis = drawing.axes[0]
        assert dots(axis).tolist() == [[15, 10], [0, 0]]
        dashed = [curve(line) for line in axis.lines if line.get_linestyle() == "--"]
        for sign, (x, y) in zip((-1, 1), dashed, strict=True):
            np.testing.assert_allclose(y, sign * 2 * (2 + 0.5 * x))
        assert "n = 2" in axis.get_title(loc="left") + axis.get_title()


def test_names_with_dollars_are_no_formulas():
    panel = Panel("a$b$c", ("$x$",), {"map": [1.0]})
    files = rendered(Figure("drawn", "t", partial(panels_of_values, panels=[panel], y_title="$"), size_inches=(3, 2)))
    assert set(files) == {"png", "svg"}
    assert b"<script" not in files["svg"]
    assert not re.search(rb'href="http', files["svg"])
