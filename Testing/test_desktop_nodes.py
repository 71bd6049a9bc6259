"""Selectors of nodes and segments, and parameter nodes in the desktop host: what Slicer's do and refuse."""

import enum
from types import SimpleNamespace
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


class TestNodeSelector:
    @pytest.fixture
    def selector(self):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        return selector

    def test_follows_the_scene(self, selector):
        volume, chosen = add_node("ScalarVolume", "CT"), []
        selector.showChildNodeTypes = False
        selector.currentNodeChanged.connect(chosen.append)
        selector.setMRMLScene(slicer.mrmlScene)
        assert chosen == [volume]
        labels, other = add_node("LabelMapVolume", "labels"), add_node("ScalarVolume", "other")
        assert selector.nodeCount() == 2
        selector.setCurrentNode(labels)
        assert selector.currentNode() is None
        selector.setCurrentNode(other)
        selector.sortFilterProxyModel().hiddenNodeIDs = [other.GetID()]
        assert selector.currentNode() is volume
        slicer.mrmlScene.Clear()
        assert selector.currentNode() is None

    def test_a_new_name_is_told_as_a_change(self, selector):
        volume, chosen = add_node("ScalarVolume", "CT"), []
        selector.setMRMLScene(slicer.mrmlScene)
        selector.currentNodeChanged.connect(chosen.append)
        volume.SetName("other")
        assert chosen == [volume]

    def test_a_second_attribute_replaces_the_first(self, selector):
        first, second = add_node("ScalarVolume", "first"), add_node("ScalarVolume", "second")
        first.SetAttribute("One", "1")
        second.SetAttribute("Two", "2")
        selector.setMRMLScene(slicer.mrmlScene)
        selector.addAttribute("vtkMRMLScalarVolumeNode", "One")
        assert (selector.nodeCount(), selector.nodeFromIndex(0)) == (1, first)
        selector.addAttribute("vtkMRMLScalarVolumeNode", "Two", "2")
        assert (selector.nodeCount(), selector.nodeFromIndex(0)) == (1, second)

    def test_the_first_segment_is_chosen_and_told_before_the_node(self):
        selector, said = slicer.qMRMLSegmentSelectorWidget(), []
        selector.setMRMLScene(slicer.mrmlScene)
        selector.currentSegmentChanged.connect(said.append)
        selector.currentNodeChanged.connect(said.append)
        node = add_node("Segmentation", "hearts")
        node.GetSegmentation().AddEmptySegment("heart", "Heart")
        other = add_node("Segmentation", "others")
        other.GetSegmentation().AddEmptySegment("lung", "Lung")
        selector.setCurrentNode(other)
        assert said == [node, "heart", "lung", other]


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

    def test_gui_and_parameters_follow_each_other(self, parameters):
        import qt

        ui = SimpleNamespace(weight=qt.QDoubleSpinBox(), on=qt.QCheckBox(), method=qt.QComboBox())
        for name, widget in vars(ui).items():
            widget.setProperty("SlicerParameterName", name)
        tag = parameters.connectGui(ui)
        assert ui.weight.value == 2.5
        ui.weight.value, ui.on.checked = 4.0, True
        ui.method.setCurrentIndex(1)
        assert (parameters.weight, parameters.on, parameters.method) == (4.0, True, Method.MAP)
        parameters.weight = 1.0
        assert ui.weight.value == 1.0
        parameters.disconnectGui(tag)
        ui.weight.value = 3.0
        assert parameters.weight == 1.0

    def test_widget_that_slicer_refuses(self, parameters):
        import qt

        # Even a check box's subclass.
        for widget in (qt.QLineEdit(), type("Own", (qt.QCheckBox,), {})()):
            with pytest.raises(RuntimeError, match="GUI connector"):
                parameters.connectParametersToGui({"on": widget})
