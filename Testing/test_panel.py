"""The scoring panel, driven on the stand-in of the desktop (see desktop_host for what that proves)."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

import desktop_host
from CACScoringLib import mrml

WARNING = "Nobody has reviewed these candidates."


def chest_image() -> sitk.Image:
    values = np.full((4, 8, 8), -1000, np.int16)
    values[:, 1:7, 1:7] = 40
    values[1, 3, 3:5] = 320
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.0, 1.0, 3.0))
    return image


def line(**event) -> str:
    return json.dumps(event)


class ScriptedProcess:
    """A `Process` whose story the test tells; it writes what the worker would."""

    def __init__(self) -> None:
        self.arguments = None
        self.killed = False

    def start(self, arguments, on_line, on_end) -> None:
        self.arguments, self.say, self.end = arguments, on_line, on_end
        ct = Path(arguments[arguments.index("score") + 1])
        self.image = sitk.ReadImage(str(ct))
        self.folder = ct.parent
        self.output = Path(arguments[arguments.index("--output") + 1])

    def kill(self) -> None:
        self.killed = True

    def write_result(self) -> None:
        self.output.mkdir()
        empty = {"agatston": 0.0, "volume_mm3": 0.0, "mass_mg": None, "pseudo_mass_hu_mm3": 0.0, "lesions": 0}
        empty["peak_hu"] = None
        found = {**empty, "agatston": 6.0, "volume_mm3": 6.0, "pseudo_mass_hu_mm3": 1920.0, "lesions": 1}
        found["peak_hu"] = 320.0
        component = {"slice": 1, "voxels": 2, "area_mm2": 2.0, "peak_hu": 320.0, "weight": 3, "agatston": 6.0}
        lesion = {"id": 1, "artery": "unassigned", **found, "components": [component]}
        arteries = dict.fromkeys(("LM", "LAD", "LCX", "RCA", "other"), empty) | {"unassigned": found}
        method = {"reviewed": False, "total": found, "arteries": arteries, "lesions": [lesion]}
        document = {"schema": "cac-score/1", "methods": {"threshold": method}}
        (self.output / "scores.json").write_text(json.dumps(document), encoding="utf-8")
        sitk.WriteImage(self.image > 0, str(self.output / "heart.nii.gz"))
        labels = sitk.Cast(self.image > 300, sitk.sitkUInt8) * 6
        sitk.WriteImage(labels, str(self.output / "lesions.nii.gz"))


@pytest.fixture
def panel(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return desktop_host.load_panel(monkeypatch, "CACScoring")


@pytest.fixture
def volume(panel):
    return mrml.add_volume(slicer.mrmlScene, chest_image(), "chest")


@pytest.fixture
def process():
    return ScriptedProcess()


@pytest.fixture
def open_panel(panel):
    """Makes the panel's widget, and cleans it up as the application does."""
    opened = []

    def make():
        opened.append(panel.CACScoringWidget(desktop_host.widgets.Panel()))
        opened[-1].setup()
        return opened[-1]

    yield make
    for widget in opened:
        widget.cleanup()


@pytest.fixture
def widget(open_panel, volume, process):
    widget = open_panel()
    widget.logic._process = process
    return widget


def result_nodes() -> list[str]:
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return sorted(n.GetName() for n in nodes if n.IsA("vtkMRMLSegmentationNode") or n.IsA("vtkMRMLTableNode"))


def all_nodes() -> list[str]:
    return [slicer.mrmlScene.GetNthNode(n).GetID() for n in range(slicer.mrmlScene.GetNumberOfNodes())]


class TestPanel:
    def test_module_describes_itself(self, panel):
        parent = type("Parent", (), {})()
        panel.CACScoring(parent)
        assert parent.categories == ["Cardiac"]
        slicer.app.startupCompleted.emit()
        names = vtk.vtkStringArray()
        slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
        assert mrml.TERMINOLOGY in [names.GetValue(n) for n in range(names.GetNumberOfValues())]

    def test_first_ct_is_chosen_and_can_be_scored(self, widget, volume):
        assert widget.inputSelector.currentNode() is volume
        assert widget.scoreButton.enabled
        assert widget.scoreButton.text == "Score"

    def test_nothing_to_score(self, open_panel):
        widget = open_panel()
        assert not widget.scoreButton.enabled

    def test_label_maps_are_not_offered(self, widget, volume):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        with pytest.raises(ValueError, match="labels"):
            widget.inputSelector.setCurrentNode(labels)

    def test_only_a_label_map_in_the_scene(self, open_panel):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        widget = open_panel()
        assert widget.inputSelector.currentNode() is None

    def test_choice_is_kept_with_the_scene(self, widget, volume):
        other = mrml.add_volume(slicer.mrmlScene, chest_image(), "other")
        widget.inputSelector.setCurrentNode(other)
        node = slicer.mrmlScene.GetSingletonNode("CACScoring", "vtkMRMLScriptedModuleNode")
        assert node.GetNodeReference("inputVolume") is other


class TestRun:
    def test_a_run_from_button_to_table(self, widget, volume, process):
        widget.scoreButton.click()
        assert widget.scoreButton.text == "Cancel"
        assert not widget.inputSelector.enabled
        command = process.arguments
        assert command[:3] == ["-m", "CACScoringLib.cli", "score"]
        assert command[-3:] == ["--no-scene", "--progress", "json"]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(process.image), sitk.GetArrayFromImage(chest_image()))
        assert process.image.GetSpacing() == (1.0, 1.0, 3.0)

        process.say(line(event="step", step="heart", index=1, count=6))
        assert widget.statusLabel.text == "Step 2 of 6: heart …"
        process.say(line(event="warning", code="unreviewed", message=WARNING))
        process.write_result()
        process.end(0)

        assert widget.statusLabel.text == "Done."
        assert widget.scoreButton.text == "Score"
        assert widget.inputSelector.enabled
        assert WARNING in widget.warningsLabel.text
        assert result_nodes() == [f"{kind} of chest" for kind in ("Calcium", "Heart", "Lesions", "Scores")]
        table = widget.resultsTable.tableNode
        assert table.GetName() == "Scores of chest"
        assert table.GetTable().GetValueByName(6, "Agatston").ToDouble() == 6.0
        state = widget.logic.getParameterNode()
        assert mrml.segment_mask(state.calcium, "unassigned", chest_image()).sum() == 2
        assert state.lesionTable.GetNumberOfRows() == 1
        assert not process.folder.exists()

    def test_refusal_shows_the_reason_and_leaves_the_scene(self, widget, process):
        before = all_nodes()
        widget.scoreButton.click()
        process.say(line(event="failed", message="No heart in the field of view.", exit_code=3))
        process.end(3)
        assert widget.statusLabel.text == "No heart in the field of view."
        assert widget.scoreButton.text == "Score"
        assert all_nodes() == before
        assert not process.folder.exists()

    def test_crash_shows_the_last_words(self, widget, process):
        widget.scoreButton.click()
        for text in ("Traceback (most recent call last):", "MemoryError", "[1, 2]"):
            process.say(text)
        process.end(-1)
        assert "MemoryError" in widget.statusLabel.text
        assert "code -1" in widget.statusLabel.text

    def test_worker_that_writes_nothing(self, widget, process):
        before = all_nodes()
        widget.scoreButton.click()
        process.end(0)
        assert "scores.json" in widget.statusLabel.text
        assert all_nodes() == before

    def test_cancel_kills_and_leaves_the_scene(self, widget, process):
        before = all_nodes()
        widget.scoreButton.click()
        process.write_result()
        widget.scoreButton.click()
        assert process.killed
        assert "Cancelled" in widget.statusLabel.text
        assert widget.scoreButton.text == "Score"
        assert all_nodes() == before
        assert not process.folder.exists()
        # What a dying worker still says comes too late.
        process.say(line(event="step", step="scores", index=3, count=6))
        process.end(0)
        assert "Cancelled" in widget.statusLabel.text
        assert all_nodes() == before

    def test_second_run_keeps_the_first_result(self, widget, process):
        for _ in range(2):
            widget.scoreButton.click()
            process.write_result()
            process.end(0)
        assert result_nodes().count("Calcium of chest") == 2

    def test_volume_removed_meanwhile(self, widget, volume, process):
        widget.scoreButton.click()
        process.write_result()
        slicer.mrmlScene.RemoveNode(volume)
        process.end(0)
        assert "closed" in widget.statusLabel.text
        assert result_nodes() == []

    def test_closing_the_scene_cancels(self, widget, process):
        widget.scoreButton.click()
        slicer.mrmlScene.Clear()
        assert process.killed
        assert not widget.logic.isRunning
        assert not widget.scoreButton.enabled

    def test_leaving_the_panel_does_not_stop_the_run(self, widget, process):
        widget.scoreButton.click()
        widget.exit()
        process.write_result()
        process.end(0)
        widget.enter()
        assert widget.resultsTable.tableNode.GetName() == "Scores of chest"

    def test_volume_under_a_transform_is_refused(self, widget, volume, process):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
        volume.SetAndObserveTransformNodeID(transform.GetID())
        widget.scoreButton.click()
        assert "transform" in widget.statusLabel.text
        assert process.arguments is None

    def test_slicers_python_is_missing(self, panel, volume, monkeypatch):
        monkeypatch.setenv("PATH", "")
        outcomes = []
        panel.CACScoringLogic().score(volume, lambda status: None, outcomes.append)
        assert "PythonSlicer" in outcomes[0].message

    def test_reload_loads_the_library_afresh(self, widget, monkeypatch):
        saved = {name: module for name, module in sys.modules.items() if name.startswith("CACScoringLib")}
        for name, module in saved.items():
            monkeypatch.setitem(sys.modules, name, module)
        widget.onReload()
        assert not any(name.startswith("CACScoringLib") for name in sys.modules)
        assert widget.reloads == 1


@pytest.fixture
def slicers_python(tmp_path, monkeypatch):
    """A PythonSlicer on the path that, like the real one, runs Python as its child."""
    launcher = tmp_path / "bin" / "PythonSlicer"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{launcher.parent}{os.pathsep}{os.environ['PATH']}")
    return launcher


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
@pytest.mark.usefixtures("slicers_python")
class TestBackgroundProcess:
    def run(self, panel, code: str):
        lines, codes = [], []
        process = panel.BackgroundProcess()
        process.start(["-c", code], lines.append, codes.append)
        process._process.run_events()
        return lines, codes

    def test_lines_and_exit_code(self, panel):
        lines, codes = self.run(panel, "import sys; sys.stderr.buffer.write('añ\\nbö…\\nend'.encode()); sys.exit(3)")
        assert lines == ["añ", "bö…"]
        assert codes == [3]

    def test_module_folder_is_on_the_path(self, panel):
        code = "import sys, CACScoringLib; print(CACScoringLib.__file__, file=sys.stderr)"
        lines, codes = self.run(panel, code)
        assert codes == [0]
        assert Path(lines[0]).parent == Path(mrml.__file__).parent

    def test_kill_ends_the_launchers_child_too(self, panel, tmp_path):
        codes = []
        process = panel.BackgroundProcess()
        mark = tmp_path / "pid"
        code = f"import os, time, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(60)"
        process.start(["-c", code], lambda line: None, codes.append)
        child = _eventually(lambda: mark.exists() and mark.read_text())
        process.kill()
        assert _eventually(lambda: not _alive(int(child)))
        assert codes == []

    def test_kill_of_nothing(self, panel):
        panel.BackgroundProcess().kill()


def _alive(process_id: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def _eventually(condition, seconds: float = 10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    return False


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
@pytest.mark.usefixtures("slicers_python")
class TestSelfTest:
    """The module's own self test, with the real command as its worker."""

    @pytest.mark.parametrize("name", ["test_scoreSyntheticChest", "test_refusalLeavesTheSceneAsItWas"])
    def test_passes(self, panel, name):
        test = panel.CACScoringTest(name)
        test.setUp()
        getattr(test, name)()
        test.tearDown()

    def test_names_are_those_slicer_runs(self, panel):
        names = [name for name in dir(panel.CACScoringTest) if "test" in name and name not in dir(object)]
        own = [name for name in names if name in vars(panel.CACScoringTest)]
        assert own == ["test_refusalLeavesTheSceneAsItWas", "test_scoreSyntheticChest"]
