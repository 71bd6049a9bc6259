"""The desktop host: its views, editor and modules refuse what Slicer refuses, and end with it."""

import gc
import sys
import types
import weakref

import pytest
import slicer
import vtk
from training_driver import load_training

import desktop_host

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


class TestNames:
    """What C++ alone can call is not seen from Python: PythonQt shows properties, slots and invokable methods."""

    def test_views_and_window(self, layouts):
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView)
        views = layouts.sliceWidget("Red").sliceView(), layouts.threeDWidget(0).threeDView()
        for owner, hidden in (
            *((view, ("renderer", "overlayRenderer", "mrmlScene", "end")) for view in views),
            (layouts.plotWidget(0).plotView(), ("forceRender", "mrmlScene", "mrmlPlotViewNode", "end")),
            (slicer.util.mainWindow(), ("selectModule", "selectedModule", "layouts")),
            (slicer.app, ("windows",)),
            (slicer.app.moduleManager(), ("loadedModuleNames",)),
        ):
            assert not [name for name in hidden if hasattr(owner, name)]

    def test_scripted_effect(self, host):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        hidden = ("icon", "clone", "setupOptionsFrame", "processInteractionEvents", "processViewNodeEvents")
        hidden += ("setMRMLDefaults", "referenceGeometryChanged", "sourceVolumeNodeChanged", "layoutChanged", "setName")
        assert not [name for name in hidden if hasattr(effect, name)]

    def test_a_module_that_is_not_there(self, host):
        with pytest.raises(RuntimeError, match="NoSuchModule"):
            slicer.util.selectModule("NoSuchModule")


class TestLayouts:
    def test_views_have_their_old_sizes_until_qt_has_laid_them_out(self, host, layouts):
        layouts.setLayout(TWO_ID)
        node = layouts.sliceWidget("First").mrmlSliceNode()
        # As wide as the view's size hint, outside of any layout.
        assert node.GetDimensions()[0] == 300
        host.events.process_events()
        assert node.GetDimensions()[0] == layouts.viewport().width // 2

    def test_views_that_are_not_shown_are_named_first(self, layouts):
        """In Slicer they come in any order: here the ones that who takes the first does not want."""
        layouts.setLayout(TWO_ID)
        names = layouts.sliceViewNames()
        assert set(names) == {"Red", "Green", "Yellow", "First", "Second"}
        mapped = [layouts.sliceWidget(name).mrmlSliceNode().IsMappedInLayout() for name in names]
        assert mapped == [False, False, False, True, True]
        assert [layouts.threeDWidget(n).mrmlViewNode().IsMappedInLayout() for n in range(2)] == [False, True]
        assert layouts.sliceWidget("Nobody") is None

    def test_a_layout_that_nobody_knows(self, layouts):
        layouts.setLayout(4711)
        assert layouts.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView

    def test_without_a_main_window(self, monkeypatch):
        desktop_host.install(monkeypatch, main_window=False)
        assert slicer.app.layoutManager() is None
        assert slicer.util.mainWindow() is None


class TestEditor:
    def test_a_second_one_in_no_panel(self, host):
        """Slicer, whose own effects live in each editor, would end in a segmentation fault."""
        editor = slicer.qMRMLSegmentEditorWidget()
        with pytest.raises(RuntimeError, match="Delete the editor"):
            slicer.qMRMLSegmentEditorWidget()
        editor.delete()

    def test_visible_means_visible(self, host):
        editor = slicer.qMRMLSegmentEditorWidget()
        assert not editor.undoEnabled
        editor.show()
        assert editor.undoEnabled
        editor.delete()


class TestModule:
    @pytest.fixture
    def module(self, host, monkeypatch, tmp_path):
        """A module whose panel says what happens to it."""
        from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

        said = []

        def setup(self) -> None:
            said.append(("setup", self.parent.mrmlScene()))
            raise ZeroDivisionError

        own = types.ModuleType("Mine")
        own.__file__ = str(tmp_path / "Mine.py")
        own.Mine = type("Mine", (ScriptedLoadableModule,), {})
        members = {"setup": setup, "enter": lambda self: said.append("enter")}
        own.MineWidget = type("MineWidget", (ScriptedLoadableModuleWidget,), members)
        monkeypatch.setitem(sys.modules, "Mine", own)
        desktop_host.scripted.load_module("Mine")
        return said

    def test_what_setup_raises_is_printed_and_kept(self, host, module, capsys):
        """The scene comes when the panel has been set up."""
        panel = slicer.modules.mine.widgetRepresentation()
        panel.enter()
        assert module == [("setup", None), "enter"]
        assert panel.mrmlScene() is slicer.mrmlScene
        assert "ZeroDivisionError" in capsys.readouterr().err
        with pytest.raises(ZeroDivisionError):
            host.errors.raise_errors()

    def test_opening_it_raises_that(self, host, module):
        with pytest.raises(ZeroDivisionError):
            host.open_panel("Mine")

    def test_nothing_is_ever_installed(self, monkeypatch):
        desktop_host.install(monkeypatch, main_window=False, testing=False)
        import slicer.packaging

        assert slicer.packaging.pip_ensure("numpy>=1") is None
        for install in (slicer.packaging.pip_ensure, slicer.util.pip_install):
            with pytest.raises(RuntimeError, match="installs nothing"):
                install("no-such-package-of-cac>=1")


class TestEnd:
    @pytest.mark.long
    def test_nothing_that_is_large_outlives_it(self):
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
