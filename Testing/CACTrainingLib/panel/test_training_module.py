"""The module and its panel as a whole: opening and closing scans, blind annotation, saved scenes, the self test."""

import shutil
from pathlib import Path

import pytest
import slicer
from annotated_project import write_proposal
from panel_driver import PANEL_SIZE, InThisProcess, beyond_the_panel

from CACTrainingLib.project.annotations import slice_annotations
from desktop_host import events

BUNDLED = Path(__file__).parents[3] / "CACScoring" / "CACScoringLib" / "Resources" / "Models"


def volumes() -> list:
    return slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def reopen(path: Path) -> None:
    """Save the scene, close it and open it again."""
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(path))
    events.process_events()


class TestModule:
    NAMES = ("test_everyPageOpens", "test_labelsAreSavedAsTheyAreMade")

    @pytest.mark.parametrize("name", NAMES)
    def test_self_test_passes(self, modules, name):
        import CACTraining

        test = CACTraining.CACTrainingTest(name)
        test.setUp()
        getattr(test, name)()
        test.tearDown()


class TestNarrowPanel:
    def test_nothing_lies_beyond_it(self, annotating):
        assert beyond_the_panel(annotating.widget) == []

    def test_each_page_begins_at_its_top(self, annotating):
        import qt

        area, panel = qt.QScrollArea(), annotating.widget.parent
        area.setWidgetResizable(True)
        area.setWidget(panel)
        area.resize(PANEL_SIZE[0], 200)
        area.show()
        for page in ("train", "project"):
            bar = area.verticalScrollBar()
            slicer.app.processEvents()
            bar.setValue(bar.maximum)
            assert bar.value > 0
            annotating.tab(page)
            slicer.app.processEvents()
            assert bar.value == 0
        area.takeWidget()


class TestOpening:
    @pytest.mark.main_window
    def test_shows_the_heart_and_the_first_slice_alone(self, annotating):
        composite = annotating.view.mrmlSliceCompositeNode()
        assert composite.GetBackgroundVolumeID() == annotating.opened.volume.GetID()
        node = annotating.view.mrmlSliceNode()
        assert node.GetSliceOffset() == pytest.approx(3.0)
        # The heart is 28 voxels of 4 mm wide, and seen whole.
        assert 112 <= min(node.GetFieldOfView()[:2]) < 140
        display = annotating.opened.volume.GetDisplayNode()
        assert (display.GetWindow(), display.GetLevel()) == (600, 150)
        lesions = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Candidates of another scan")
        lesions.CreateDefaultDisplayNodes()
        annotating.keys("VN")
        annotating.open_scan(1)
        assert not lesions.GetDisplayNode().GetVisibility()
        annotating.open_scan(0)
        assert annotating.widget.annotate.slices.current == 3, "after the last that was labelled"

    def test_page_down_opens_the_next_that_is_not_done(self, annotating):
        annotating.label_all(lambda k: "N")
        annotating.next_scan()
        assert annotating.opened.scan.id == "0002"
        annotating.open_scan(2)
        annotating.next_scan()
        assert annotating.opened.scan.id == "0002"

    def test_a_scan_that_cannot_be_read_is_reported(self, annotating):
        (annotating.project.scan("0002").ct).write_bytes(b"no image")
        annotating.open_scan(1)
        assert annotating.opened is None
        assert "ct.nii.gz" in annotating.ui.workStatusLabel.text
        assert not annotating.ui.taskTabs.enabled
        assert annotating.ui.openingBar.isHidden()

    def test_without_a_heart_all_slices_are_labelled(self, annotating):
        """These scans show no lungs, so that no heart is found in them."""
        folder = annotating.project.scan_folder("0002") / "proposal"
        (folder / "proposal.json").unlink()
        annotating.open_scan(1)
        assert annotating.ui.sliceCountLabel.text == "0 of 10"

    def test_opening_another_project_while_a_scan_is_opened(self, annotating, tmp_path):
        annotating.keys("V")
        process = InThisProcess(waits=True)
        annotating.widget.annotate.job.process = process
        annotating.ui.workTable.setCurrentCell(1, 0)
        annotating.ui.openScanButton.click()
        annotating.new_project(tmp_path / "other")
        assert process.killed
        assert annotating.opened is None
        assert not volumes()
        assert annotating.rows(annotating.ui.workTable) == []

    def test_prepare_all(self, annotating):
        """Scans with a proposal are skipped."""
        annotating.ui.prepareButton.click()
        annotating.wait()
        assert "All scans are prepared" in annotating.ui.workStatusLabel.text
        assert "--overwrite" not in annotating.processes["prepare"].arguments

    def test_suggestions_by_a_model_of_the_project(self, annotating):
        """Proposals by another network are replaced."""
        folder = annotating.project.models_folder
        folder.mkdir(exist_ok=True)
        for ending in (".json", ".safetensors"):
            shutil.copy(BUNDLED / f"slices-compact{ending}", folder)
        annotating.tab("project")
        annotating.tab("annotate")
        box = annotating.ui.proposalModelBox
        box.setCurrentIndex(box.findData("slices-compact"))
        assert annotating.state.proposalModel == "slices-compact"
        process = annotating.widget.annotate.prepare.job.process = InThisProcess(waits=True)
        annotating.ui.prepareButton.click()
        assert process.arguments[process.arguments.index("--model") + 1] == str(folder / "slices-compact.json")
        assert "--overwrite" in process.arguments
        assert not box.enabled
        annotating.ui.prepareButton.click()
        assert process.killed
        assert box.enabled

    def test_order_by_uncertainty(self, annotating):
        write_proposal(annotating.project, "0003", [1, 2], {1: 0.5, 2: 0.5})
        annotating.ui.orderBox.setCurrentIndex(1)
        slicer.app.processEvents()
        rows = annotating.rows(annotating.ui.workTable)
        assert rows[0]["Scan"] == "scan 2"
        assert rows[0]["Model unsure"] == "1.00"


class TestBlind:
    def test_hides_names_and_order(self, annotating):
        annotating.ui.suggestionBox.click()
        annotating.ui.blindBox.click()
        slicer.app.processEvents()
        names = [row["Scan"] for row in annotating.rows(annotating.ui.workTable)]
        assert names == ["Case 1", "Case 2", "Case 3"]
        assert annotating.opened is None
        assert not annotating.ui.orderBox.enabled
        assert not annotating.state.showSuggestion


class TestScene:
    def test_closed_while_a_scan_is_open(self, annotating):
        annotating.keys("VN")
        slicer.mrmlScene.Clear()
        events.process_events()
        assert annotating.opened is None
        assert annotating.project is None
        annotating.key("V")
        assert annotating.ui.sliceLabel.text == "Open a scan from the work list."

    def test_a_saved_scene_is_continued(self, annotating, tmp_path):
        annotating.keys("VN")
        annotating.ui.suggestionBox.click()
        project = annotating.project
        reopen(tmp_path / "scene.mrb")
        assert annotating.project.folder == project.folder
        assert annotating.state.annotator == "AB"
        assert annotating.opened.scan.id == "0001"
        assert len(volumes()) == 1
        assert annotating.ui.sliceCountLabel.text == "2 of 8"
        annotating.tab("annotate")
        annotating.key("U")
        assert len(slice_annotations(project, "0001", "AB").labels) == 3
        slicer.mrmlScene.RemoveNode(annotating.opened.volume)
        reopen(tmp_path / "without its CT.mrb")
        assert annotating.project is not None
        assert annotating.opened is None
