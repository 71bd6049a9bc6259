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


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
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

    def test_a_module_that_is_not_there(self, host):
        with pytest.raises(RuntimeError, match="NoSuchModule"):
            slicer.util.selectModule("NoSuchModule")


class TestEditor:
    def test_a_second_one_in_no_panel(self, host):
        """Slicer, whose own effects live in each editor, would end in a segmentation fault."""
        editor = slicer.qMRMLSegmentEditorWidget()
        with pytest.raises(RuntimeError, match="Delete the editor"):
            slicer.qMRMLSegmentEditorWidget()
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
