"""Parameter nodes in the desktop host: how they are stored, and their connection to widgets."""

import enum
from typing import Annotated

import pytest
import slicer
from slicer import vtkMRMLScalarVolumeNode

import desktop_host

UI = """<ui version="4.0"><class>Form</class><widget class="QWidget" name="Form"><layout class="QVBoxLayout">
<item><widget class="ctkCollapsibleButton" name="box"><property name="text"><string>Box</string></property>
<property name="collapsed"><bool>true</bool></property><layout class="QFormLayout">
<item row="0" column="1"><widget class="QLabel" name="inside"/></item></layout></widget></item>
<item><widget class="ctkSliderWidget" name="slider"><property name="maximum"><double>5.0</double></property>
<property name="SlicerParameterName" stdset="0"><string>weight</string></property></widget></item>
<item><widget class="qMRMLNodeComboBox" name="selector"><property name="nodeTypes"><stringlist>
<string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="noneEnabled"><bool>true</bool></property>
<property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item>
<item><widget class="QCheckBox" name="check"><property name="SlicerParameterName" stdset="0">
<string>on</string></property></widget></item>
<item><widget class="QComboBox" name="combo"><property name="SlicerParameterName" stdset="0">
<string>pack.method</string></property></widget></item></layout></widget></ui>"""


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    yield desktop_host
    desktop_host.errors.raise_errors()


@pytest.fixture
def volume(host):
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")


@pytest.fixture
def form(host, tmp_path):
    file = tmp_path / "form.ui"
    file.write_text(UI, encoding="utf-8")
    return slicer.util.loadUI(str(file))


class Method(enum.Enum):
    RULE = 1
    MAP = 2


def parameter_node():
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper, parameterPack

    @parameterPack
    class Pack:
        method: Method
        names: list[str]

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        weight: Annotated[float, WithinRange(0, 5)] = 2.5
        on: bool
        counts: dict[str, int]
        either: int | None
        pack: Pack

    return Parameters(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


class TestParameterNode:
    def test_values_are_stored_as_slicer_does(self, volume):
        parameters = parameter_node()
        node = parameters.parameterNode
        assert node.GetParameter("weight") == "2.5"
        parameters.volume, parameters.on, parameters.either = volume, True, 4
        parameters.counts["LAD"] = 2
        parameters.pack.method = Method.MAP
        parameters.pack.names.append("x")
        assert node.GetNodeReference("volume") is volume
        stored = {name: node.GetParameter(name) for name in node.GetParameterNamesAsCommaSeparatedList().split(",")}
        assert stored == {
            **{"volume": "", "weight": "2.5", "on": "True", "either.0": "4"},
            **{"counts.len": "1", "counts.0.0": "LAD", "counts.0.1": "2"},
            **{"pack.method": "MAP", "pack.names.len": "1", "pack.names.0": "x"},
        }
        # As Slicer's, without a default.
        assert (parameters.counts.get("LAD"), parameters.counts.get("RCA")) == (2, None)
        with pytest.raises(TypeError):
            parameters.counts.get("RCA", 0)
        again = type(parameters)(node)
        assert (again.counts["LAD"], again.pack.method, again.either) == (2, Method.MAP, 4)

    def test_wrong_values_are_refused(self, host):
        parameters = parameter_node()
        with pytest.raises(ValueError, match="range"):
            parameters.weight = 6.0
        with pytest.raises(TypeError):
            parameters.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
        assert parameters.weight == 2.5

    def test_gui_and_parameters_follow_each_other(self, form, volume):
        parameters, ui = parameter_node(), slicer.util.childWidgetVariables(form)
        ui.selector.setMRMLScene(slicer.mrmlScene)
        tag = parameters.connectGui(form)
        assert ui.slider.value == 2.5
        ui.slider.value = 4.0
        ui.check.checked = True
        ui.selector.setCurrentNode(volume)
        ui.combo.setCurrentIndex(1)
        assert (parameters.weight, parameters.on, parameters.volume) == (4.0, True, volume)
        assert parameters.pack.method is Method.MAP
        parameters.weight = 1.0
        assert ui.slider.value == 1.0
        parameters.disconnectGui(tag)
        ui.slider.value = 3.0
        assert parameters.weight == 1.0

    def test_widget_that_slicer_refuses(self, host):
        import qt

        # Even a check box's subclass.
        for widget in (qt.QLineEdit(), type("Own", (qt.QCheckBox,), {})()):
            with pytest.raises(RuntimeError, match="GUI connector"):
                parameter_node().connectParametersToGui({"on": widget})
