"""The desktop host's views, layouts and segment editor: that they have what Slicer's have, and no more."""

import sys

import numpy as np
import pytest
import slicer
import vtk
from effect_desk import image_of

import desktop_host
from CACScoringLib.mrml import scene as mrml

EFFECT = """
from pathlib import Path
import qt
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect

class NoteEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Note"
        super().__init__(scriptedEffect)
        self.told = []
    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects
        clone = effects.qSlicerSegmentEditorScriptedEffect(None)
        clone.setPythonSource(__file__)
        return clone
    def icon(self):
        return qt.QIcon(str(Path(__file__).with_name("Note.png")))
    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Size", 1)
    def updateGUIFromMRML(self):
        self.told.append("parameter")
    def sourceVolumeNodeChanged(self):
        self.told.append("volume")
    def layoutChanged(self):
        self.told.append("layout")
    def processViewNodeEvents(self, viewNode, event, viewWidget):
        self.told.append(viewNode.GetName())
"""

TWO = """<layout type="vertical" split="true">
<item><layout type="horizontal"><item><view class="vtkMRMLSliceNode" singletontag="First"/></item>
<item><view class="vtkMRMLSliceNode" singletontag="Second"/></item></layout></item>
<item><view class="vtkMRMLViewNode" singletontag="9"/></item></layout>"""
TWO_ID = 5002


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    slicer.app.layoutManager().layoutLogic().GetLayoutNode().AddLayoutDescription(TWO_ID, TWO)
    yield desktop_host
    desktop_host.errors.raise_errors()


@pytest.fixture
def layouts(host):
    return slicer.app.layoutManager()


@pytest.fixture
def effect(host, tmp_path):
    """A scripted effect that is known to the editors that come after it; its icon has a picture."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects
    import qt

    file = tmp_path / "NoteLib" / "Note.py"
    file.parent.mkdir()
    file.write_text(EFFECT, encoding="utf-8")
    picture = qt.QPixmap(21, 21)
    picture.fill(qt.QColor(200, 0, 0))
    assert picture.save(str(file.with_name("Note.png")))
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    assert effect.setPythonSource(file.as_posix())
    effect.self().register()
    yield effect
    sys.modules.pop("NoteLib", None)


@pytest.fixture
def editor(effect):
    """Segment Editor on two empty segments."""
    volume = mrml.add_volume(slicer.mrmlScene, image_of(np.zeros((8, 10, 10), np.int16)), "CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.CreateDefaultDisplayNodes()
    for name in ("LAD", "RCA"):
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    yield editor
    editor.setActiveEffect(None)
    editor.removeViewObservations()


class TestNames:
    """What C++ alone can call is not seen from Python: PythonQt shows properties, slots and invokable methods."""

    def test_main_window(self, host):
        window = slicer.util.mainWindow()
        assert not [name for name in ("selectModule", "selectedModule", "layouts") if hasattr(window, name)]
        assert slicer.util.selectedModule() == ""
        with pytest.raises(RuntimeError, match="NoSuchModule"):
            slicer.util.selectModule("NoSuchModule")

    @pytest.mark.parametrize("name", ["renderer", "overlayRenderer", "mrmlScene", "end"])
    def test_render_views(self, layouts, name):
        for view in (layouts.sliceWidget("Red").sliceView(), layouts.threeDWidget(0).threeDView()):
            assert not hasattr(view, name)
            assert view.renderWindow().GetRenderers().GetFirstRenderer() is not None

    def test_plot_view(self, layouts):
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        view = layouts.plotWidget(0).plotView()
        hidden = ("forceRender", "mrmlScene", "mrmlPlotViewNode", "end")
        assert not [name for name in hidden if hasattr(view, name)]

    def test_scripted_effect(self, effect):
        hidden = ["icon", "clone", "setupOptionsFrame", "processInteractionEvents", "processViewNodeEvents"]
        hidden += ["setMRMLDefaults", "referenceGeometryChanged", "sourceVolumeNodeChanged", "layoutChanged"]
        hidden += ["masterVolumeNodeChanged", "interactionNodeModified", "setName"]
        assert not [name for name in hidden if hasattr(effect, name)]
        seen = ("helpText", "activate", "createCursor", "cleanup", "active", "updateGUIFromMRML", "self")
        assert all(callable(getattr(effect, name)) for name in seen)


class TestLayouts:
    def test_views_have_their_old_sizes_until_qt_has_laid_them_out(self, host, layouts):
        layouts.setLayout(TWO_ID)
        node = layouts.sliceWidget("First").mrmlSliceNode()
        # As wide as the view's size hint, outside of any layout.
        assert node.GetDimensions()[0] == 300
        host.events.process_events()
        assert node.GetDimensions()[0] == layouts.viewport().width // 2
        assert layouts.sliceWidget("First").sliceView().width == node.GetDimensions()[0]

    def test_views_that_are_not_shown_are_named_too(self, layouts):
        assert set(layouts.sliceViewNames()) == {"Red", "Green", "Yellow"}
        layouts.setLayout(TWO_ID)
        names = layouts.sliceViewNames()
        assert set(names) == {"Red", "Green", "Yellow", "First", "Second"}
        mapped = [layouts.sliceWidget(name).mrmlSliceNode().IsMappedInLayout() for name in names]
        # In Slicer they come in any order: here the ones that who takes the first does not want.
        assert mapped == [False, False, False, True, True]
        assert layouts.threeDViewCount == 2
        assert [layouts.threeDWidget(n).mrmlViewNode().IsMappedInLayout() for n in range(2)] == [False, True]
        assert layouts.threeDWidget(2) is None
        assert layouts.threeDWidget("View9").mrmlViewNode().GetLayoutName() == "9"
        assert layouts.sliceWidget("Nobody") is None

    def test_order_is_no_ones_own(self, monkeypatch):
        orders = set()
        for _ in range(12):
            with monkeypatch.context() as context:
                desktop_host.install(context)
                orders.add(slicer.app.layoutManager().sliceViewNames())
            if len(orders) > 1:
                return
        pytest.fail(f"Always {orders}")

    def test_hidden_views_are_not_visible(self, host, layouts):
        layouts.setLayout(TWO_ID)
        host.events.process_events()
        shown = {name for name in layouts.sliceViewNames() if layouts.sliceWidget(name).visible}
        assert shown == {"First", "Second"}

    def test_layout_is_made_anew_whenever_its_node_is_modified(self, layouts):
        changed = []
        layouts.layoutChanged.connect(changed.append)
        layouts.layoutLogic().GetLayoutNode().Modified()
        layouts.setLayout(layouts.layout)
        assert changed == [layouts.layout]
        layouts.setLayout(4711)
        assert layouts.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView, "for one that nobody knows"

    def test_splitters(self, host, layouts):
        layouts.setLayout(TWO_ID)
        host.events.process_events()
        page = layouts.sliceWidget("First").parent()
        assert page.parent().className() == "QSplitter"
        assert layouts.threeDWidget("View9").parent() == page.parent()
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        assert layouts.sliceWidget("First").parent() == layouts.viewport()

    def test_views_of_a_node_that_is_removed(self, host, layouts):
        layouts.setLayout(TWO_ID)
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        node, logics = layouts.sliceWidget("First").mrmlSliceNode(), layouts.mrmlSliceLogics().GetNumberOfItems()
        slicer.mrmlScene.RemoveNode(node)
        assert "First" not in layouts.sliceViewNames()
        assert layouts.mrmlSliceLogics().GetNumberOfItems() == logics - 1
        host.events.process_events()

    def test_closing_the_scene(self, host, layouts):
        layouts.setLayout(TWO_ID)
        slicer.mrmlScene.Clear()
        host.events.process_events()
        assert layouts.sliceWidget("First").sliceView().visible


class TestViews:
    def test_camera_ignores_the_width_of_the_view(self, host, layouts):
        source = vtk.vtkCubeSource()
        source.SetXLength(200)
        source.Update()
        model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
        model.SetAndObservePolyData(source.GetOutput())
        model.CreateDefaultDisplayNodes()
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView)
        distances = []
        for size in ((1900, 700), (800, 1200)):
            slicer.util.mainWindow().resize(*size)
            host.events.process_events()
            view = layouts.threeDWidget("View1").threeDView()
            view.resetFocalPoint()
            view.resetCamera()
            camera = view.cameraNode()
            distances.append(np.linalg.norm(np.subtract(camera.GetPosition(), camera.GetFocalPoint())))
        assert distances[0] == pytest.approx(distances[1], rel=1e-3)
        assert view.width < view.height

    def test_drawn_by_force_only_while_visible(self, host, layouts):
        drawn = []
        for name in ("Red", "Yellow"):
            window = layouts.sliceWidget(name).sliceView().renderWindow()
            window.AddObserver("EndEvent", lambda *_, name=name: drawn.append(name))
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
        host.events.process_events()
        drawn.clear()
        slicer.util.forceRenderAllViews()
        assert drawn == ["Red"]
        # Nor while a scene is read or closed.
        slicer.mrmlScene.StartState(slicer.mrmlScene.BatchProcessState)
        slicer.util.forceRenderAllViews()
        layouts.sliceWidget("Red").grab()
        assert drawn == ["Red"]
        slicer.mrmlScene.EndState(slicer.mrmlScene.BatchProcessState)

    def test_positions_in_a_slice(self, layouts):
        view = layouts.sliceWidget("Red").sliceView()
        xyz = view.convertDeviceToXYZ((10, 20))
        assert xyz == [10, 20, 0]
        assert view.convertRASToXYZ(view.convertXYZToRAS(xyz)) == pytest.approx(xyz)


class TestEditor:
    def test_parameters_of_effects_are_told_apart_from_the_node(self, editor):
        editor.setActiveEffectByName("Note")
        node, told = editor.mrmlSegmentEditorNode(), []
        node.AddObserver("ModifiedEvent", lambda *_: told.append("modified"))
        node.AddObserver(node.EffectParameterModified, lambda *_: told.append("parameter"))
        editor.activeEffect().self().told.clear()
        editor.activeEffect().setParameter("Size", 2)
        assert told == ["parameter"]
        assert editor.activeEffect().self().told == ["parameter"]
        with pytest.raises(KeyError, match="Unheard"):
            editor.activeEffect().parameter("Unheard")

    def test_inside_which_segment_is_not_said(self, editor):
        node, kind = editor.mrmlSegmentEditorNode(), slicer.vtkMRMLSegmentationNode
        node.SetMaskMode(kind.EditAllowedInsideSingleSegment)
        assert node.GetMaskMode() == kind.EditAllowedEverywhere
        node.SetMaskSegmentID("RCA")
        node.SetMaskMode(kind.EditAllowedInsideSingleSegment)
        assert node.GetMaskMode() == kind.EditAllowedInsideSingleSegment
        editor.segmentationNode().GetSegmentation().RemoveSegment("RCA")
        assert node.GetMaskMode() == kind.EditAllowedEverywhere

    def test_icon_without_a_picture(self, editor, tmp_path):
        button = slicer.util.findChild(editor, "Note")
        assert button.icon.availableSizes()
        cursor = editor.effectByName("Note").createCursor(slicer.app.layoutManager().sliceWidget("Red"))
        assert not cursor.pixmap().isNull()
        (tmp_path / "NoteLib" / "Note.png").unlink()
        with pytest.raises(RuntimeError, match="has no picture"):
            slicer.qMRMLSegmentEditorWidget(slicer.util.mainWindow())

    def test_a_second_one_in_no_panel(self, editor):
        """Slicer, whose own effects live in each editor, would end in a segmentation fault."""
        with pytest.raises(RuntimeError, match="Delete the editor"):
            slicer.qMRMLSegmentEditorWidget()

    def test_effect_ends_when_points_are_placed(self, editor):
        editor.setActiveEffectByName("Note")
        node = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        node.SetCurrentInteractionMode(node.Place)
        assert editor.activeEffect() is None

    def test_hidden_views_are_observed_too(self, editor):
        layouts = slicer.app.layoutManager()
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
        editor.setActiveEffectByName("Note")
        told = editor.activeEffect().self().told
        layouts.sliceWidget("Green").mrmlSliceNode().Modified()
        assert told[-1] == "Green"
        layouts.setLayout(TWO_ID)
        assert "layout" in told

    def test_visible_means_visible(self, editor):
        assert not editor.undoEnabled
        assert not editor.sourceVolumeNodeSelectorVisible
        editor.show()
        assert editor.undoEnabled
        editor.undoEnabled = editor.segmentationNodeSelectorVisible = False
        assert not editor.undoEnabled
        assert not editor.segmentationNodeSelectorVisible
        assert editor.effectCount() == 2, "with the button of no effect"
        assert editor.effectByIndex(0) is None

    def test_extent_of_an_edit(self, editor):
        editor.setActiveEffectByName("Note")
        effect = editor.activeEffect()
        labelmap = effect.defaultModifierLabelmap()
        labelmap.GetPointData().GetScalars().Fill(1)
        effect.modifySelectedSegmentByLabelmap(labelmap, effect.ModificationModeAdd, [0, 1, 0, 1, 0, 1])
        image = slicer.vtkOrientedImageData()
        editor.segmentationNode().GetBinaryLabelmapRepresentation("LAD", image)
        assert image.GetPointData().GetScalars().GetRange() == (1, 1)
        assert image.GetNumberOfPoints() == 8
        with pytest.raises(TypeError):
            effect.modifySegmentByLabelmap(
                editor.segmentationNode(), "LAD", labelmap, effect.ModificationModeAdd, [0, 1, 0, 1, 0, 1], False
            )

    def test_next_segment_by_key(self, editor):
        assert editor.currentSegmentID() == "LAD"
        editor.selectSegmentAtOffset(1)
        assert editor.currentSegmentID() == "RCA"
        editor.selectSegmentAtOffset(1)
        assert editor.currentSegmentID() == "LAD"
        editor.selectSegmentAtOffset(-1)
        assert editor.currentSegmentID() == "LAD", "there is none before the first"

    def test_pixel_of_a_position(self, editor):
        widget = slicer.app.layoutManager().sliceWidget("Red")
        editor.setActiveEffectByName("Note")
        effect = editor.activeEffect().self()
        assert effect.rasToXy(effect.xyToRas((31, 42), widget), widget) in ([31, 42], [30, 42], [31, 41], [30, 41])

    def test_one_volume_is_told_once(self, editor):
        told = editor.effectByName("Note").self().told
        assert told.count("volume") == 1
        editor.setSourceVolumeNode(editor.sourceVolumeNode())
        assert told.count("volume") == 1
