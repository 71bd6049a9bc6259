"""The desktop host itself: that panels and effects meet in it what they meet in Slicer."""

import gc
import sys
import weakref

import numpy as np
import pytest
import slicer
import vtk
from training_driver import load_training

import desktop_host

EFFECT = """
import slicer, vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from vtk.util.numpy_support import vtk_to_numpy

class DotEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Dot"
        super().__init__(scriptedEffect)
    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects
        clone = effects.qSlicerSegmentEditorScriptedEffect(None)
        clone.setPythonSource(__file__)
        return clone
    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Reach", 1)
    def processInteractionEvents(self, interactor, event, viewWidget):
        if event != vtk.vtkCommand.LeftButtonPressEvent or viewWidget.className() != "qMRMLSliceWidget":
            return False
        labelmap = self.scriptedEffect.defaultModifierLabelmap()
        i, j, k = self.xyToIjk(interactor.GetEventPosition(), viewWidget, labelmap)
        reach = self.scriptedEffect.integerParameter("Reach")
        shape = labelmap.GetDimensions()[::-1]
        voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)
        voxels[k, j - reach : j + reach + 1, i - reach : i + reach + 1] = 1
        labelmap.Modified()
        self.scriptedEffect.saveStateForUndo()
        mode = slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd
        self.scriptedEffect.modifySelectedSegmentByLabelmap(labelmap, mode)
        return True
"""


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    yield desktop_host
    desktop_host.errors.raise_errors()


@pytest.fixture
def volume(host):
    values = np.zeros((20, 40, 40), np.int16)
    values[10, 10:20, 20:30] = 300
    return slicer.util.addVolumeFromArray(values, name="CT")


class TestNodes:
    def test_scene_is_saved_and_reopened(self, volume, tmp_path):
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.CreateDefaultDisplayNodes()
        segmentation.GetSegmentation().AddEmptySegment("LAD", "LAD", [0, 1, 0])
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        red = slicer.app.layoutManager().sliceWidget("Red")
        red.sliceLogic().SetSliceOffset(10)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (slicer.util.arrayFromVolume(volume) > 200).astype(np.uint8), segmentation, "LAD", volume
        )
        file = str(tmp_path / "scene.mrb")
        assert slicer.util.saveScene(file)
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(file)
        again = slicer.util.getNode("lesions")
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(again, "LAD", slicer.util.getNode("CT"))
        assert voxels.sum() == 100
        # The green segment, where the slice was.
        assert len(set(colour_at(red, (25, 15, 10)))) > 1


def colour_at(slice_widget, ras) -> tuple[int, int, int]:
    view = slice_widget.sliceView()
    position = desktop_host.events.view_position(slice_widget, ras).toPoint()
    pixel = view.grab().toImage().pixelColor(position)
    return pixel.red(), pixel.green(), pixel.blue()


class TestViews:
    def test_slices_show_volumes_blended_and_segments(self, volume):
        display = volume.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(300, 150)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        red = slicer.app.layoutManager().sliceWidget("Red")
        red.sliceLogic().SetSliceOffset(10)
        inside, outside = (25, 15, 10), (5, 15, 10)
        assert colour_at(red, inside) == (255, 255, 255)
        assert colour_at(red, outside) == (0, 0, 0)
        other = slicer.util.addVolumeFromArray(np.full((20, 40, 40), 150, np.int16))
        other.GetDisplayNode().SetAutoWindowLevel(False)
        other.GetDisplayNode().SetWindowLevel(300, 150)
        slicer.util.setSliceViewerLayers(foreground=other, foregroundOpacity=0.5)
        assert colour_at(red, outside)[0] == pytest.approx(64, abs=2)
        slicer.util.setSliceViewerLayers(foreground=None, foregroundOpacity=0.0)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.GetSegmentation().AddEmptySegment("s", "s", [0, 1, 0])
        mask = (slicer.util.arrayFromVolume(volume) > 200).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "s", volume)
        strength, green, _ = colour_at(red, inside)
        assert green > strength + 50
        assert colour_at(red, outside) == (0, 0, 0)

    def test_layout_of_ones_own(self, host):
        layouts = slicer.app.layoutManager()
        xml = """<layout type="horizontal"><item><view class="vtkMRMLSliceNode" singletontag="Mine">
        <property name="orientation" action="default">Coronal</property></view></item>
        <item><view class="vtkMRMLViewNode" singletontag="1"/></item></layout>"""
        layouts.layoutLogic().GetLayoutNode().AddLayoutDescription(5001, xml)
        layouts.setLayout(5001)
        host.events.process_events()
        assert layouts.layout == 5001
        assert layouts.sliceWidget("Mine").sliceView().visible
        assert not layouts.sliceWidget("Red").visible
        assert layouts.sliceWidget("Mine").sliceOrientation == "Coronal"
        assert layouts.threeDWidget(0).visible

    def test_without_a_main_window(self, monkeypatch):
        desktop_host.install(monkeypatch, main_window=False)
        assert slicer.app.layoutManager() is None
        assert slicer.util.mainWindow() is None

    def test_picture_of_the_desktop(self, volume, tmp_path):
        import qt

        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        file = desktop_host.grab(slicer.util.mainWindow(), tmp_path / "desktop.png")
        picture = qt.QImage(str(file))
        assert (picture.width(), picture.height()) == (1400, 900)
        colours = {picture.pixel(x, y) for x in range(500, 1400, 7) for y in range(100, 900, 7)}
        assert len(colours) > 20


class TestPlots:
    @pytest.fixture
    def chart(self, host):
        """A red series of 10, 20, 30 over 0, 1, 2 in a chart that the plot view shows."""
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
        values = np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]])
        slicer.util.updateTableFromArray(table, values, ["step", "loss"])
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "loss")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName("loss")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetColor(1, 0, 0)
        series.SetLineWidth(6)
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        chart.SetLegendVisibility(False)
        layouts = slicer.app.layoutManager()
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        assert layouts.plotViewCount == 1
        layouts.plotWidget(0).mrmlPlotViewNode().SetPlotChartNodeID(chart.GetID())
        return chart

    def view(self):
        view = slicer.app.layoutManager().plotWidget(0).plotView()
        slicer.app.processEvents()
        return view

    def test_series_is_drawn_in_its_colour(self, chart):
        assert red_pixels(self.view()) > 100
        chart.GetNthPlotSeriesNode(0).SetColor(0, 0, 1)
        assert red_pixels(self.view()) == 0
        assert self.view().chart().GetNumberOfPlots() == 1

    def test_axes_follow_the_table_and_the_node(self, chart):
        view = self.view()
        view.repaint()
        axis = view.chart().GetAxis(vtk.vtkAxis.LEFT)
        assert axis.GetMaximum() == pytest.approx(30, rel=0.1)
        table = chart.GetNthPlotSeriesNode(0).GetTableNode()
        values = np.array([[0.0, 10.0], [1.0, 500.0]])
        slicer.util.updateTableFromArray(table, values, ["step", "loss"])
        self.view().repaint()
        assert axis.GetMaximum() == pytest.approx(500, rel=0.1)
        chart.SetYAxisTitle("Loss")
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0, 50)
        self.view().repaint()
        assert (axis.GetTitle(), axis.GetMaximum()) == ("Loss", 50)

    def test_axes_that_fit_what_was_added(self, chart):
        """As in VTK, axes stay while a table grows, until they are told to fit."""
        view = self.view()
        view.repaint()
        node = chart.GetNthPlotSeriesNode(0).GetTableNode()
        grown = vtk.vtkTable()
        grown.DeepCopy(node.GetTable())
        grown.InsertNextBlankRow()
        grown.SetValueByName(3, "step", 900)
        grown.SetValueByName(3, "loss", 40)
        node.SetAndObserveTable(grown)
        axis = self.view().chart().GetAxis(vtk.vtkAxis.BOTTOM)
        assert axis.GetMaximum() == pytest.approx(2, rel=0.1)
        view.fitToContent()
        self.view().repaint()
        assert axis.GetMaximum() == pytest.approx(900, rel=0.1)

    def test_series_that_cannot_be_drawn_is_left_out(self, chart):
        chart.GetNthPlotSeriesNode(0).SetYColumnName("nowhere")
        assert self.view().chart().GetNumberOfPlots() == 0

    def test_closing_the_scene(self, chart):
        slicer.mrmlScene.Clear()
        assert self.view().chart().GetNumberOfPlots() == 0


def red_pixels(view) -> int:
    """How many pixels of a plot view are plainly red."""
    picture = view.grab().toImage()
    colours = (picture.pixelColor(x, y) for x in range(picture.width()) for y in range(picture.height()))
    return sum(c.red() > 200 and c.green() < 80 and c.blue() < 80 for c in colours)


@pytest.fixture
def editor(volume, tmp_path):
    """Segment Editor with an effect that paints squares, on an empty segment; the red slice shows k = 10."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    file = tmp_path / "DotLib" / "Dot.py"
    file.parent.mkdir()
    file.write_text(EFFECT, encoding="utf-8")
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    assert effect.setPythonSource(file.as_posix())
    effect.self().register()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("LAD", "LAD")
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    editor.setActiveEffectByName("Dot")
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().FitSliceToBackground()
    slicer.app.layoutManager().sliceWidget("Red").sliceLogic().SetSliceOffset(10)
    yield editor
    editor.removeViewObservations()
    sys.modules.pop("DotLib", None)


def painted() -> np.ndarray:
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(
        slicer.util.getNode("lesions"), "LAD", slicer.util.getNode("CT")
    )
    return np.zeros((20, 40, 40)) if voxels is None else voxels


@pytest.mark.usefixtures("editor")
class TestSegmentEditor:
    def test_click_reaches_the_effect_and_can_be_undone(self, host, editor):
        red = slicer.app.layoutManager().sliceWidget("Red")
        assert editor.sourceVolumeNode() is slicer.util.getNode("CT")
        host.events.click(red, (20, 12, 10))
        assert np.argwhere(painted()).min(0).tolist() == [10, 11, 19]
        assert painted().sum() == 9
        editor.undo()
        assert painted().sum() == 0
        editor.redo()
        assert painted().sum() == 9

    def test_masking_is_respected(self, host, editor):
        editor.mrmlSegmentEditorNode().SetSourceVolumeIntensityMask(True)
        editor.mrmlSegmentEditorNode().SetSourceVolumeIntensityMaskRange(200, 400)
        host.events.click(slicer.app.layoutManager().sliceWidget("Red"), (20, 12, 10))
        assert painted().sum() == 6

    def test_handled_event_is_kept_from_others(self, host):
        red, seen = slicer.app.layoutManager().sliceWidget("Red"), []
        red.sliceView().interactor().AddObserver(vtk.vtkCommand.LeftButtonPressEvent, lambda *_: seen.append(1))
        host.events.press(red, (20, 12, 10))
        assert seen == []

    def test_parameters_are_the_effects_own(self, editor):
        node = editor.mrmlSegmentEditorNode()
        assert node.GetAttribute("Dot.Reach") == "1"
        editor.activeEffect().setParameter("Reach", 2)
        assert editor.activeEffect().integerParameter("Reach") == 2

    def test_shortcuts_come_before_keys(self, host, editor):
        red, pressed = slicer.app.layoutManager().sliceWidget("Red"), []
        interactor = red.sliceView().interactor()
        interactor.AddObserver(vtk.vtkCommand.KeyPressEvent, lambda *_: pressed.append(interactor.GetKeySym()))
        host.events.enter(red)
        host.events.key(red, "X")
        assert pressed == ["x"]
        editor.installKeyboardShortcuts()
        host.events.key(red, "1")
        assert pressed == ["x"]
        assert editor.activeEffect() is None
        editor.uninstallKeyboardShortcuts()

    def test_other_segment_keeps_the_effect(self, editor):
        slicer.util.getNode("lesions").GetSegmentation().AddEmptySegment("RCA", "RCA")
        editor.mrmlSegmentEditorNode().SetSelectedSegmentID("RCA")
        assert editor.activeEffect().name == "Dot"
        assert editor.currentSegmentID() == "RCA"

    def test_other_segmentation_ends_the_effect(self, editor):
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        editor.setSegmentationNode(other)
        assert editor.activeEffect() is None

    def test_closing_the_scene(self, editor):
        slicer.mrmlScene.Clear()
        assert editor.segmentationNode() is None


class TestEnd:
    def test_nothing_that_is_large_outlives_it(self, monkeypatch):
        """Not even until Python looks for cycles, which it does seldom."""
        gc.disable()
        try:
            with pytest.MonkeyPatch.context() as patch:
                load_training(patch)
                import qt

                panel = weakref.ref(desktop_host.open_panel("CACTraining"))
                view = slicer.app.layoutManager().threeDWidget(0).threeDView()
                large = [vtk.vtkWeakReference() for _ in range(2)]
                for reference, each in zip(large, (slicer.mrmlScene, view.renderWindow()), strict=True):
                    reference.Set(each)
                    assert reference.Get() is each
                del each, view
                desktop_host.close_panel("CACTraining")
            assert [each.Get() for each in large] == [None, None]
            assert panel() is None
            assert not qt.QApplication.allWidgets()
        finally:
            gc.enable()
