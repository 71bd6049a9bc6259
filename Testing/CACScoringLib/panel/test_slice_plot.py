"""Tests of the plot along the body axis."""

import sys

import pytest


class TestPlot:
    @pytest.fixture
    def plot(self, panel):
        from CACScoringLib.panel.slice_plot import PlotSlice, SlicePlot

        slices = []
        plot = SlicePlot()
        plot.chosen.connect(slices.append)
        plot.resize(212, 96)
        plot.setSlices({k: PlotSlice(k, 0.5, True) for k in range(10, 20)})
        plot.clicked_slices = slices
        return plot

    def test_a_click_chooses(self, plot, panel):
        qt = sys.modules["qt"]
        place = qt.QPointF(plot.placeOf(14), 40)
        button = qt.Qt.LeftButton
        for kind in (qt.QEvent.MouseButtonPress, qt.QEvent.MouseButtonRelease):
            qt.QApplication.sendEvent(plot, qt.QMouseEvent(kind, place, place, button, button, qt.Qt.NoModifier))
        assert plot.clicked_slices == [14]

    def test_empty(self, plot):
        plot.setSlices({})
        assert plot.sliceAt(50) is None
