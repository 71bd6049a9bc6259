"""The desktop host's Qt and CTK behave like PythonQt's, refuse what Slicer refuses, and end with the desktop."""

import ast
import gc
import weakref
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import slicer
import vtk
from training_driver import load_training

import desktop_host


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch, main_window=False)
    yield desktop_host
    desktop_host.errors.raise_errors()


def test_slicers_wheel_has_none_of_the_doubles():
    files = Path(desktop_host.__file__).parent.glob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    assert classes >= {"qMRMLSegmentEditorWidget", "ScriptedLoadableModuleWidget", "ctkDICOMDatabase"}
    assert classes & {*dir(slicer), *dir(slicer.util)} == set()
    modules = ("ScriptedLoadableModule", "i18n", "packaging", "parameterNodeWrapper")
    assert [name for name in modules if PathFinder.find_spec(name, slicer.__path__)] == []
    assert [name for name in ("ctk", "qt", "DICOMLib") if PathFinder.find_spec(name)] == []


@pytest.mark.usefixtures("host")
class TestProperties:
    def test_no_property_can_be_called(self):
        import ctk
        import qt

        table = qt.QTableWidget(2, 2)
        for widget in (table, table.horizontalHeader(), qt.QPushButton(), qt.QComboBox(), ctk.ctkCollapsibleButton()):
            assert widget.sizeHint.height() > 0
            for name in ("sizeHint", "minimumSizeHint", "width", "objectName"):
                with pytest.raises(TypeError, match="not callable"):
                    getattr(widget, name)()

    def test_new_attributes_on_pythons_classes_only(self):
        import ctk
        import qt

        for widget in (qt.QLabel(), ctk.ctkCollapsibleButton()):
            with pytest.raises(AttributeError, match="colour"):
                widget.colour = "red"
        widget_class = type("Own", (qt.QWidget,), {})()
        widget_class.colour = "red"
        assert widget_class.colour == "red"
        # Qt's slots cannot be replaced there, either.
        with pytest.raises(AttributeError, match="overwritten"):
            widget_class.update = None


@pytest.mark.usefixtures("host")
class TestValues:
    def test_empty_invalid_and_null_values_are_false(self):
        import qt

        empty = [qt.QVBoxLayout(), qt.QFormLayout(), qt.QMenu(), qt.QSize(0, 5), qt.QRect(), qt.QPoint(0, 0)]
        empty += [qt.QIcon(), qt.QColor(), qt.QModelIndex(), qt.QByteArray(), qt.QKeySequence(), qt.QUrl()]
        assert not any(empty)
        full = [qt.QSize(1, 5), qt.QRect(0, 0, 2, 2), qt.QPoint(0, 1), qt.QColor(0, 0, 0), qt.QByteArray(b"a")]
        # Widgets are true even if empty.
        assert all([*full, qt.QComboBox(), qt.QListWidget(), qt.QWidget()])

    def test_enumerations_are_integers(self):
        import qt

        assert qt.Qt.Unchecked == 0
        assert not qt.Qt.Unchecked
        assert qt.QAbstractItemView.SingleSelection == 1 < qt.QAbstractItemView.ExtendedSelection
        assert (int(qt.Qt.AlignRight | qt.Qt.AlignVCenter), [7, 8][qt.Qt.Horizontal]) == (0x82, 8)
        with pytest.raises(TypeError):
            qt.Qt.AlignLeft in (qt.Qt.AlignLeft | qt.Qt.AlignTop)  # noqa: B015  what is tested


class TestEvents:
    def test_error_in_a_slot_is_raised(self, host):
        import qt

        button = qt.QPushButton()
        button.clicked.connect(lambda: 1 / 0)
        button.click()
        with pytest.raises(ZeroDivisionError):
            host.errors.raise_errors()


@pytest.mark.long
def test_nothing_large_outlives_the_panel():
    """The objects are freed without Python's garbage collector."""
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            load_training(patch)
            import qt

            panel = weakref.ref(desktop_host.open_panel("CACTraining"))
            scene = vtk.vtkWeakReference()  # the host keeps render windows for the next desktop
            scene.Set(slicer.mrmlScene)
            assert scene.Get() is slicer.mrmlScene
            desktop_host.close_panel("CACTraining")
        assert scene.Get() is None
        assert panel() is None
        assert not qt.QApplication.allWidgets()
    finally:
        gc.enable()
