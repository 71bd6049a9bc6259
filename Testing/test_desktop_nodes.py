"""Selectors of nodes and segments, modules and packages in the desktop host: that they do what Slicer's do."""

import sys
import types

import pytest
import slicer

import desktop_host


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch, main_window=False)
    yield desktop_host
    desktop_host.errors.raise_errors()


def add_node(kind: str, name: str):
    return slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)


@pytest.mark.usefixtures("host")
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

    @pytest.mark.parametrize(("removed", "left"), [(0, None), (1, 0), (2, 1)])
    def test_a_removed_node_leaves_the_one_before_it(self, selector, removed, left):
        """Qt's combo box goes back by one; from the first there is nothing to go back to, and so with "None"."""
        for none in (False, True):
            nodes = [add_node("ScalarVolume", name) for name in "abc"]
            selector.noneEnabled = none
            selector.setMRMLScene(slicer.mrmlScene)
            selector.setCurrentNode(nodes[removed])
            slicer.mrmlScene.RemoveNode(nodes[removed])
            assert selector.currentNode() is (None if left is None else nodes[left])
            slicer.mrmlScene.Clear()

    def test_a_new_name_is_told_as_a_change(self, selector):
        volume, told = add_node("ScalarVolume", "CT"), []
        selector.setMRMLScene(slicer.mrmlScene)
        selector.currentNodeChanged.connect(told.append)
        volume.SetName("other")
        assert told == [volume]

    def test_a_second_attribute_replaces_the_first(self, selector):
        first, second = add_node("ScalarVolume", "first"), add_node("ScalarVolume", "second")
        first.SetAttribute("One", "1")
        second.SetAttribute("Two", "2")
        selector.setMRMLScene(slicer.mrmlScene)
        selector.addAttribute("vtkMRMLScalarVolumeNode", "One")
        assert (selector.nodeCount(), selector.nodeFromIndex(0)) == (1, first)
        selector.addAttribute("vtkMRMLScalarVolumeNode", "Two", "2")
        assert (selector.nodeCount(), selector.nodeFromIndex(0)) == (1, second)
        assert selector.nodeFromIndex(1) is None

    def test_a_choice_before_there_is_a_scene_is_remembered(self, selector):
        add_node("ScalarVolume", "first")
        second = add_node("ScalarVolume", "second")
        selector.currentNodeID = second.GetID()
        selector.setMRMLScene(slicer.mrmlScene)
        assert selector.currentNode() is second


@pytest.mark.usefixtures("host")
class TestSegmentSelector:
    @pytest.fixture
    def selector(self):
        selector = slicer.qMRMLSegmentSelectorWidget()
        selector.setMRMLScene(slicer.mrmlScene)
        return selector

    def segmentation(self, *names: str):
        node = add_node("Segmentation", "of " + " ".join(names))
        for name in names:
            node.GetSegmentation().AddEmptySegment(name, name)
        return node

    def test_the_first_segment_is_chosen_and_told_before_the_node(self, selector):
        told = []
        selector.currentSegmentChanged.connect(told.append)
        selector.currentNodeChanged.connect(told.append)
        node = self.segmentation()
        assert (told, selector.currentSegmentID()) == ([node], "")
        node.GetSegmentation().AddEmptySegment("heart", "Heart")
        other = self.segmentation("lung", "bone")
        selector.setCurrentNode(other)
        assert told == [node, "heart", "lung", other]

    def test_none(self, selector):
        """Where none may be chosen it is, until a segment has been; another node's first segment follows that one."""
        selector.noneEnabled = True
        one, other = self.segmentation("heart", "lung"), self.segmentation("bone")
        selector.setCurrentNode(one)
        assert selector.currentSegmentID() == ""
        selector.setCurrentSegmentID("lung")
        selector.setCurrentNode(other)
        assert selector.currentSegmentID() == "bone"
        selector.setCurrentNode(None)
        assert selector.currentNode() is None
        # As in Slicer, what was current stays so without a node.
        assert selector.currentSegmentID() == "bone"

    def test_in_a_row_its_parts_may_grow(self, selector):
        """Which makes it take what height there is, unless its own policy says otherwise."""
        import qt

        selector.horizontalLayout = True
        assert not selector.horizontalLayout, "Slicer's getter asks for rows, which a grid never loses"
        parts = [each for each in selector.children() if each.className() == "qMRMLNodeComboBox"]
        assert [each.sizePolicy.verticalPolicy() for each in parts] == [qt.QSizePolicy.Preferred]
        assert selector.sizePolicy.verticalPolicy() != qt.QSizePolicy.Fixed


class TestModule:
    @pytest.fixture
    def module(self, host, monkeypatch, tmp_path):
        """A module whose panel tells what happens to it."""
        from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

        told = []

        def setup(self) -> None:
            told.append(("setup", self.parent.mrmlScene()))
            raise ZeroDivisionError

        own = types.ModuleType("Mine")
        own.__file__ = str(tmp_path / "Mine.py")
        own.Mine = type("Mine", (ScriptedLoadableModule,), {})
        members = {"setup": setup, "enter": lambda self: told.append("enter")}
        own.MineWidget = type("MineWidget", (ScriptedLoadableModuleWidget,), members)
        monkeypatch.setitem(sys.modules, "Mine", own)
        desktop_host.scripted.load_module("Mine")
        return types.SimpleNamespace(own=own, told=told)

    def test_what_setup_raises_is_printed_and_kept(self, host, module, capsys):
        """The scene comes when the panel has been set up."""
        panel = slicer.modules.mine.widgetRepresentation()
        panel.enter()
        assert module.told == [("setup", None), "enter"]
        assert panel.isEntered
        assert panel.mrmlScene() is slicer.mrmlScene
        assert "ZeroDivisionError" in capsys.readouterr().err
        with pytest.raises(ZeroDivisionError):
            host.errors.raise_errors()

    def test_opening_it_raises_that(self, host, module):
        with pytest.raises(ZeroDivisionError):
            host.open_panel("Mine")

    def test_a_panel_that_cannot_be_made(self, host, module, monkeypatch):
        monkeypatch.setattr(module.own.MineWidget, "__init__", lambda self: None)
        assert slicer.modules.mine.widgetRepresentation() is None
        with pytest.raises(TypeError):
            host.errors.raise_errors()

    def test_what_the_application_has_and_nothing_else(self, host):
        assert slicer.app.isInstalled is True
        assert not hasattr(slicer.app, "windows")
        assert not hasattr(slicer.app.moduleManager(), "loadedModuleNames")
        assert slicer.app.moduleManager().factoryManager().isLoaded("Volumes")
        slicer.util.exit(3)
        assert slicer.app._exit_status == 3


class TestPackages:
    MISSING = "no-such-package-of-cac>=1"

    def test_nothing_happens_in_testing_mode(self, host):
        import slicer.packaging

        assert slicer.packaging.pip_check("numpy>=1")
        assert not slicer.packaging.pip_check(self.MISSING)
        assert slicer.packaging.pip_ensure(["numpy>=1", self.MISSING], requester="CAC") is None

    def test_nothing_is_ever_installed(self, monkeypatch):
        desktop_host.install(monkeypatch, main_window=False, testing=False)
        import slicer.packaging

        assert slicer.packaging.pip_ensure("numpy>=1") is None
        for install in (slicer.packaging.pip_ensure, slicer.util.pip_install):
            with pytest.raises(RuntimeError, match="installs nothing"):
                install(self.MISSING)
