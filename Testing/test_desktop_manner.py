"""The desktop host's Qt and CTK behave like PythonQt's, and refuse what Slicer refuses."""

import pytest
import slicer

import desktop_host

UI = """<ui version="4.0"><class>Form</class><widget class="QWidget" name="Form"><layout class="QVBoxLayout">
<item><widget class="ctkUnheardOf" name="slider"/></item></layout></widget></ui>"""


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    yield desktop_host
    desktop_host.errors.raise_errors()


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

    def test_only_slots_and_properties_of_doubles(self):
        import ctk

        assert not hasattr(ctk.ctkCollapsibleButton(), "setCollapsed")
        assert not hasattr(slicer.qMRMLNodeComboBox(), "setNodeTypes")
        for widget in (ctk.ctkSliderWidget(), slicer.qMRMLSliderWidget()):
            assert not hasattr(widget, "setRange")
        with pytest.raises(AttributeError):
            slicer.qMRMLNodeComboBox().nodeTypes = "vtkMRMLScalarVolumeNode"


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
        assert int(qt.Qt.AlignRight | qt.Qt.AlignVCenter) == 0x82
        assert [7, 8][qt.Qt.Horizontal] == 8
        with pytest.raises(TypeError):
            qt.Qt.AlignLeft in (qt.Qt.AlignLeft | qt.Qt.AlignTop)  # noqa: B015  what is tested

    def test_a_file_dialog_gives_the_name_alone(self, host):
        import qt

        def decline() -> None:
            qt.QApplication.activeModalWidget().reject()

        qt.QTimer.singleShot(50, decline)
        assert qt.QFileDialog.getOpenFileName(None, "title") == ""

    def test_no_keywords(self):
        import ctk
        import qt

        for kind in (qt.QLabel, qt.QTimer, ctk.ctkCollapsibleButton, slicer.qMRMLNodeComboBox):
            with pytest.raises(ValueError, match="keyword"):
                kind(parent=None)
        widget_class = type("Own", (qt.QWidget,), {"__init__": lambda self, tag: qt.QWidget.__init__(self)})
        assert widget_class(tag=1)


class TestForms:
    def test_unknown_class_in_ui_file(self, host, tmp_path):
        file = tmp_path / "form.ui"
        file.write_text(UI, encoding="utf-8")
        with pytest.raises(RuntimeError, match="ctkUnheardOf"):
            slicer.util.loadUI(str(file))


class TestEvents:
    def test_error_in_a_slot_is_raised(self, host):
        import qt

        button = qt.QPushButton()
        button.clicked.connect(lambda: 1 / 0)
        button.click()
        with pytest.raises(ZeroDivisionError):
            host.errors.raise_errors()
