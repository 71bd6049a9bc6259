"""Tests of a run from the button to the result in the scene."""

import sys

import numpy as np
import panel_results
import pytest
import SimpleITK as sitk
import slicer
from panel_driver import eventually, line

WARNING = "The scan was made at 100 kVp."


def result_nodes() -> list[str]:
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return sorted(n.GetName() for n in nodes if n.IsA("vtkMRMLSegmentationNode") or n.IsA("vtkMRMLTableNode"))


def all_nodes() -> list[str]:
    return [slicer.mrmlScene.GetNthNode(n).GetID() for n in range(slicer.mrmlScene.GetNumberOfNodes())]


class TestRun:
    def test_a_run_from_button_to_table(self, driver):
        driver.begin()
        assert driver.widget.scorer.isRunning
        assert not driver.ui.inputSelector.enabled
        process = driver.process
        chest = panel_results.chest_image()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(process.image), sitk.GetArrayFromImage(chest))
        assert process.image.GetSpacing() == chest.GetSpacing()

        process.say(line(event="step", step="heart", index=1, count=4))
        assert driver.ui.statusLabel.text == "Step 2 of 4: heart …"
        assert driver.ui.progressBar.value == 250
        process.say(line(event="counted", done=1, count=2))
        assert driver.ui.progressBar.value == 375
        process.say(line(event="warning", code="kvp", message=WARNING))
        driver.widget.exit()  # which does not stop the run
        process.write_result()
        process.end(0)
        driver.settle()

        driver.widget.enter()
        assert driver.ui.statusLabel.text == "Done."
        assert not driver.widget.scorer.isRunning
        assert driver.ui.inputSelector.enabled
        kinds = ["Candidates of chest (130 HU)", "Heart of chest", "Lesions of chest", "Scores of chest"]
        assert result_nodes() == kinds
        assert driver.scores()["Total"][0] == "1,458.0"
        assert len(driver.lesions()) == 3
        assert not process.folder.exists()

    def test_rounding_of_the_spacing_does_not_reach_the_score(self, driver, volume):
        volume.SetSpacing(2.9999999999999996, 3.0, 3.0000000000000004)
        driver.begin()
        assert driver.process.image.GetSpacing() == (3.0, 3.0, 3.0)

    @pytest.mark.parametrize(
        ("lines", "code", "text"),
        [
            ([line(event="failed", message="No heart in the field of view.", exit_code=3)], 3, "No heart in the field"),
            ([], 0, "does not exist"),
        ],
        ids=["refused", "nothing written"],
    )
    def test_a_failed_run_shows_the_reason_and_leaves_the_scene(self, driver, lines, code, text):
        before = all_nodes()
        driver.begin()
        for word in lines:
            driver.process.say(word)
        driver.end(code)
        assert text in driver.ui.statusLabel.text
        assert all_nodes() == before
        assert not driver.process.folder.exists()

    def test_cancel_kills_and_leaves_the_scene(self, driver):
        """Cancel while the CT is written, while the worker runs, and while its result is read."""
        before = all_nodes()
        driver.ui.scoreButton.click()
        driver.ui.scoreButton.click()
        driver.settle()
        assert driver.process.arguments is None, "it was never started"
        driver.begin()
        driver.process.write_result()
        driver.ui.scoreButton.click()
        assert driver.process.killed
        assert "Cancelled" in driver.ui.statusLabel.text
        assert not driver.process.folder.exists()
        # Later lines of the killed worker are ignored.
        driver.process.say(line(event="step", step="scores", index=3, count=6))
        driver.end()
        assert "Cancelled" in driver.ui.statusLabel.text
        driver.begin()
        driver.process.write_result()
        driver.process.end(0)
        driver.ui.scoreButton.click()
        driver.settle()
        assert "Cancelled" in driver.ui.statusLabel.text
        assert all_nodes() == before

    def test_volume_removed_meanwhile(self, driver, volume):
        driver.begin()
        driver.process.write_result()
        slicer.mrmlScene.RemoveNode(volume)
        driver.end()
        assert "closed" in driver.ui.statusLabel.text
        assert result_nodes() == []

    def test_closing_the_scene_cancels(self, driver):
        driver.begin()
        slicer.mrmlScene.Clear()
        assert driver.process.killed
        assert not driver.widget.scorer.isRunning
        assert not driver.ui.scoreButton.enabled

    @pytest.mark.parametrize("closed", [False, True])
    def test_a_result_is_shown_from_the_scene_and_goes_with_the_scene(self, driver, closed):
        """Press the button, or close the scene, between the two steps."""
        driver.begin()
        driver.process.write_result()
        driver.process.end(0)
        eventually(lambda: slicer.app.processEvents() or result_nodes())
        if closed:
            slicer.mrmlScene.Clear()
        else:
            driver.widget.scorer.cancel()
        driver.settle()
        assert ("closed" if closed else "Done") in driver.ui.statusLabel.text
        assert (driver.review is None) == closed

    def test_slicers_python_is_missing(self, panel, volume, monkeypatch):
        monkeypatch.setenv("PATH", "")
        scorer, messages = panel.CACScoringLogic().scorer, []
        scorer.finished.connect(lambda review, message: messages.append(message))
        scorer.score(volume)
        eventually(lambda: slicer.app.processEvents() or not scorer.isRunning)
        assert "PythonSlicer" in messages[0]
        assert not scorer.isRunning

    def test_reload_loads_the_library_afresh(self, driver, monkeypatch):
        for name, module in list(sys.modules.items()):
            if name.startswith("CACScoringLib"):
                monkeypatch.setitem(sys.modules, name, module)
        before = sys.modules["CACScoringLib.panel.job"]
        driver.widget.onReload()
        assert sys.modules["CACScoringLib.panel.job"] is not before
