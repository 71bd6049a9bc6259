"""Tests that the panels' layouts show their contents entirely, in windows of any shape, and of the
plot along the body axis.
"""

import itertools
import sys

import numpy as np
import pytest
import slicer
import vtk
from effect_desk import image_of

import desktop_host
from CACScoringLib.mrml import scene as mrml
from desktop_host import errors

WINDOWS = [(1400, 900), (900, 1300)]


@pytest.fixture(params=WINDOWS, ids=str)
def window(request, monkeypatch):
    """The main window with the default layout, in one of the sizes."""
    desktop_host.install(monkeypatch)
    slicer.util.mainWindow().resize(*request.param)
    slicer.app.processEvents()
    yield slicer.util.mainWindow()
    errors.raise_errors()


@pytest.fixture
def views(window):
    from CACScoringLib.panel import views

    return views


@pytest.fixture
def radiograph_views(window):
    from CACScoringLib.panel import radiograph_section as radiograph_views

    return radiograph_views


@pytest.fixture
def volume(window):
    return mrml.add_volume(slicer.mrmlScene, image_of(np.full((90, 200, 220), 40, np.int16)), "CT")


@pytest.fixture
def heart(volume):
    """A heart 144 mm wide, 120 mm deep and 100 mm high."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Heart")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("heart", "Heart")
    mask = np.zeros((90, 200, 220), np.uint8)
    mask[20:70, 40:160, 30:174] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "heart", volume)
    return node


def corners(bounds) -> np.ndarray:
    return np.array([[*corner, 1.0] for corner in itertools.product(*(bounds[n : n + 2] for n in (0, 2, 4)))])


def share_of_slice(widget, bounds) -> np.ndarray:
    """Return the minimum and maximum x and y of a box, RAS, in a slice view, from 0 to 1 across the view."""
    matrix = np.linalg.inv(slicer.util.arrayFromVTKMatrix(widget.mrmlSliceNode().GetXYToRAS()))
    xy = (corners(bounds) @ matrix.T)[:, :2] / [widget.sliceView().width, widget.sliceView().height]
    return np.array([xy.min(0), xy.max(0)])


def share_of_view(view) -> np.ndarray:
    """Return the minimum and maximum x and y of a 3-D view's contents, from -1 to 1 across the view."""
    renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
    camera = renderer.GetActiveCamera()
    transform = camera.GetCompositeProjectionTransformMatrix(view.width / view.height, -1, 1)
    points = corners(renderer.ComputeVisiblePropBounds()) @ slicer.util.arrayFromVTKMatrix(transform).T
    xy = points[:, :2] / points[:, 3:]
    return np.array([xy.min(0), xy.max(0)])


def add_box(size: float, centre) -> None:
    source = vtk.vtkCubeSource()
    source.SetBounds(*(end for middle in centre for end in (middle - size / 2, middle + size / 2)))
    source.Update()
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    model.SetAndObservePolyData(source.GetOutput())
    model.CreateDefaultDisplayNodes()


class TestSideBySide:
    def test_whole_heart_at_once(self, views, volume, heart):
        """Show the views for the first time."""
        views.showSideBySide(volume, heart, volume, volume)
        bounds = [0.0] * 6
        heart.GetRASBounds(bounds)
        sizes = []
        for _ in range(2):
            for name in (views.ORIGINAL, views.MAP, views.CORONAL):
                low, high = share_of_slice(slicer.app.layoutManager().sliceWidget(name), bounds)
                assert (low > 0).all(), name
                assert (high < 1).all(), name
                assert (high - low).max() > 0.5, f"{name} is filled"
                sizes.append((high - low).max())
            # A second layout by Qt changes nothing.
            slicer.app.processEvents()
        assert sizes[:3] == pytest.approx(sizes[3:])

    def test_point_in_sight_moves_no_view_in_its_plane(self, views, volume, heart):
        views.showSideBySide(volume, heart, None, None)
        bounds = [0.0] * 6
        heart.GetRASBounds(bounds)
        widget = slicer.app.layoutManager().sliceWidget(views.CORONAL)
        before = share_of_slice(widget, bounds)
        inside = [0.9 * bounds[n] + 0.1 * bounds[n + 1] for n in (0, 2, 4)]
        views.jumpTo(inside)
        assert share_of_slice(widget, bounds) == pytest.approx(before)
        assert views.positionOf(widget.mrmlSliceNode())[1] == pytest.approx(inside[1], abs=1)
        assert views.positionOf(views.axialSliceNode())[2] == pytest.approx(inside[2], abs=1)
        # A zoomed view in which the point is out of sight is centred on it.
        node = widget.mrmlSliceNode()
        node.SetFieldOfView(*(size / 6 for size in node.GetFieldOfView()[:2]), 1)
        node.UpdateMatrices()
        views.jumpTo(inside)
        low, high = share_of_slice(widget, [inside[n // 2] for n in range(6)])
        assert (low + high) / 2 == pytest.approx([0.5, 0.5], abs=0.02)


class TestRadiograph:
    def test_source_and_detector_are_in_sight(self, radiograph_views, volume):
        """Check also a layout that remains from a closed scene."""
        radiograph_views.showLayout(volume)
        slicer.mrmlScene.Clear()
        add_box(400, (0, 0, 0))
        add_box(500, (0, 900, 0))
        add_box(20, (0, -1500, 0))
        slicer.app.processEvents()
        radiograph_views.showLayout()
        slicer.app.processEvents()
        low, high = share_of_view(radiograph_views.views.shownThreeDWidget().threeDView())
        assert (low > -1).all()
        assert (high < 1).all()
        assert (high - low).max() > 0.8, "and not far away"


@pytest.mark.parametrize("window", WINDOWS[:1], indirect=True)
def test_a_surface_of_no_lesions_is_no_error(views, volume):
    image = mrml.image_of_volume(volume)
    empty = mrml.add_lesions(slicer.mrmlScene, "Lesions", volume, image < -2000)
    log = vtk.vtkStringOutputWindow()
    before = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(log)
    try:
        views.showSurface(empty, 1.0, True)
        slicer.app.processEvents()
    finally:
        vtk.vtkOutputWindow.SetInstance(before)
    assert log.GetOutput() == ""
    assert empty.GetSegmentation().GetSegment("LAD").GetRepresentation("Closed surface").GetNumberOfPoints() == 0


@pytest.fixture
def plot(shared_panel):
    from CACScoringLib.panel.slice_plot import SlicePlot

    plot = SlicePlot()
    plot.resize(212, 96)
    plot.setSlices(dict.fromkeys(range(10, 20), 0.5), {})
    return plot


def test_a_click_in_the_plot_chooses_a_slice(plot):
    qt, slices = sys.modules["qt"], []
    plot.chosen.connect(slices.append)
    place, button = qt.QPointF(plot.placeOf(14), 40), qt.Qt.LeftButton
    for kind in (qt.QEvent.MouseButtonPress, qt.QEvent.MouseButtonRelease):
        qt.QApplication.sendEvent(plot, qt.QMouseEvent(kind, place, place, button, button, qt.Qt.NoModifier))
    assert slices == [14]


def test_the_plot_draws_a_line_at_a_limit(plot):
    def rows():
        image = plot.grab().toImage()
        return [image.pixelColor(image.width() // 2, y).name() for y in range(image.height())]

    slices = dict.fromkeys(range(10, 20), 0.0)
    plot.setSlices(slices, {})
    before = rows()
    plot.setSlices(slices, {}, limits=(0.5,))
    changed = [y for y, (old, new) in enumerate(zip(before, rows(), strict=True)) if old != new]
    assert len(changed) == 1
    assert abs(changed[0] - (plot._bottom() - plot._height(0.5))) <= 1


def test_an_empty_plot_has_no_slice(plot):
    plot.setSlices({}, {})
    assert plot.sliceAt(50) is None
