"""Tests of the plot along the body axis."""

import sys

import pytest


@pytest.fixture
def plot(panel):
    from CACScoringLib.panel.slice_plot import SlicePlot

    plot = SlicePlot()
    plot.resize(212, 96)
    plot.setSlices(dict.fromkeys(range(10, 20), 0.5), {})
    return plot


def test_a_click_chooses_a_slice(plot):
    qt, slices = sys.modules["qt"], []
    plot.chosen.connect(slices.append)
    place, button = qt.QPointF(plot.placeOf(14), 40), qt.Qt.LeftButton
    for kind in (qt.QEvent.MouseButtonPress, qt.QEvent.MouseButtonRelease):
        qt.QApplication.sendEvent(plot, qt.QMouseEvent(kind, place, place, button, button, qt.Qt.NoModifier))
    assert slices == [14]


def test_an_empty_plot_has_no_slice(plot):
    plot.setSlices({}, {})
    assert plot.sliceAt(50) is None
