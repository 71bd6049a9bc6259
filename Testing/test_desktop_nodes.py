"""Selectors of nodes and segments, and parameter nodes in the desktop host: what Slicer's do and refuse."""

import enum
from typing import Annotated

import pytest
import slicer
from slicer import vtkMRMLScalarVolumeNode

import desktop_host


@pytest.fixture(autouse=True)
def host(monkeypatch):
    desktop_host.install(monkeypatch, main_window=False)
    yield desktop_host
    desktop_host.errors.raise_errors()


def add_node(kind: str, name: str):
    return slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)


class Method(enum.Enum):
    RULE = 1
    MAP = 2


@pytest.fixture
def parameters():
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: vtkMRMLScalarVolumeNode
        weight: Annotated[float, WithinRange(0, 5)] = 2.5
        on: bool
        method: Method

    return Parameters(add_node("ScriptedModule", "parameters"))


class TestParameterNode:
    def test_values_are_stored_as_slicer_does(self, parameters):
        node, volume = parameters.parameterNode, add_node("ScalarVolume", "CT")
        parameters.volume, parameters.on, parameters.method = volume, True, Method.MAP
        assert node.GetNodeReference("volume") is volume
        stored = {name: node.GetParameter(name) for name in node.GetParameterNamesAsCommaSeparatedList().split(",")}
        assert stored == {"volume": "", "weight": "2.5", "on": "True", "method": "MAP"}
        again = type(parameters)(node)
        assert (again.volume, again.on, again.method) == (volume, True, Method.MAP)

    def test_wrong_values_and_types_are_refused(self, parameters):
        from slicer.parameterNodeWrapper import parameterNodeWrapper

        with pytest.raises(ValueError, match="range"):
            parameters.weight = 6.0
        with pytest.raises(TypeError):
            parameters.volume = add_node("Text", "text")
        assert parameters.weight == 2.5
        with pytest.raises(TypeError, match="serializer"):
            parameterNodeWrapper(type("Own", (), {"__annotations__": {"place": complex}}))

    def test_widget_that_slicer_refuses(self, parameters):
        import qt

        # Even a check box's subclass.
        for widget in (qt.QLineEdit(), type("Own", (qt.QCheckBox,), {})()):
            with pytest.raises(RuntimeError, match="GUI connector"):
                parameters.connectParametersToGui({"on": widget})
