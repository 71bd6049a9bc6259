"""The project page: creating, opening, filling and splitting a project, and messages about faults."""

import shutil

import pytest
import slicer
from panel_driver import InThisProcess

from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations


@pytest.fixture
def opened(driver, project):
    """The panel with the project open, for the annotator AB."""
    driver.open_project(project.folder)
    driver.annotator("AB")
    return driver


def status(driver) -> str:
    return driver.ui.projectStatusLabel.text


class TestFolder:
    def test_open(self, opened, project):
        rows = opened.rows(opened.ui.scanTable)
        assert [row["Scan"] for row in rows] == ["scan 0", "scan 1", "scan 2"]
        assert list(rows[0].values()) == ["scan 0", "patient 0", "not assigned", ""]

    def test_another_folder_is_refused_and_the_open_project_stays(self, opened, tmp_path):
        former, folder = opened.project, tmp_path / "other"
        folder.mkdir()
        opened.open_project(folder)
        assert str(folder) in status(opened)
        assert opened.project is former
        assert opened.state.projectFolder == str(former.folder)


class TestAnnotator:
    def test_another_annotator_closes_the_scan(self, opened):
        opened.open_scan(0)
        opened.key("V")
        opened.annotator("CD")
        assert opened.opened is None
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
        opened.open_scan(0)
        assert opened.ui.sliceCountLabel.text == "0 of 8"
        opened.annotator("AB")
        opened.open_scan(0)
        assert opened.ui.sliceCountLabel.text == "1 of 8"


class TestScans:
    def test_added_in_the_background(self, driver, scans, tmp_path):
        driver.new_project(tmp_path / "new")
        ui, process = driver.ui, InThisProcess(waits=True)
        driver.widget.project.job.process = process
        driver.widget.project._askForFolder = lambda title: str(scans)
        ui.addFolderButton.click()
        assert not ui.projectBar.isHidden()
        assert not any(button.enabled for button in (ui.addFolderButton, ui.checkButton, ui.openProjectButton))
        process.run()
        driver.wait()
        assert ui.projectBar.isHidden()
        assert ui.checkButton.enabled
        assert len(driver.project.scans) == 3
        assert len(driver.rows(ui.workTable)) == 3

    def test_a_removed_scan_is_kept_in_a_named_folder(self, opened):
        opened.open_scan(1)
        opened.key("V")
        opened.tab("project")
        opened.ui.scanTable.setCurrentCell(1, 0)
        opened.ui.removeButton.click()
        assert [scan.name for scan in opened.project.scans] == ["scan 0", "scan 2"]
        assert str(opened.project.folder / "removed") in status(opened)
        assert list((opened.project.folder / "removed").glob("0002-*/annotators/AB/slices.jsonl"))
        assert opened.opened is None

    def test_moved_scans_are_found_again(self, opened, scans, tmp_path):
        shutil.move(scans, tmp_path / "moved")
        opened.open_project(opened.project.folder)
        assert "Missing scans: 3" in opened.ui.projectLabel.text
        assert {row["State"] for row in opened.rows(opened.ui.workTable)} == {"missing"}
        opened.open_scan(0)
        assert opened.opened is None
        opened.tab("project")
        opened.widget.project._askForFolder = lambda title: str(tmp_path / "moved")
        opened.ui.relocateButton.click()
        opened.wait()
        assert not opened.project.missing()

    def test_blind_annotators_do_not_see_who_has_annotated(self, opened):
        opened.open_scan(0)
        opened.key("V")
        opened.widget.project.update()
        assert opened.rows(opened.ui.scanTable)[0]["Annotated by"] == "AB"
        opened.state.blind = True
        opened.widget.project.update()
        assert opened.rows(opened.ui.scanTable)[0]["Annotated by"] == ""


class TestReports:
    @pytest.mark.long
    def test_agreement_with_the_truth(self, opened):
        annotations = slice_annotations(opened.project, "0001", "AB")
        for k in range(1, 9):
            annotations.set(k, SliceLabel.VISIBLE if k in (3, 4) else SliceLabel.NOT_VISIBLE)
        opened.ui.checkSectionButton.collapsed = False
        opened.ui.agreementButton.click()
        opened.wait()
        assert not opened.ui.agreementTable.isHidden()
        (row,) = opened.rows(opened.ui.agreementTable)
        assert row["Annotators"] == "AB – truth"
        assert row["Slices"] == "8"


class TestState:
    def test_a_project_that_is_gone_is_reported_once(self, driver, tmp_path):
        driver.state.projectFolder = str(tmp_path / "gone")
        assert driver.project is None
        assert str(tmp_path / "gone") in status(driver)


class TestUse:
    def test_the_use_of_the_selected_scans_patient_is_chosen(self, opened):
        box = opened.ui.useBox
        assert not box.enabled
        assert box.currentIndex == -1
        opened.ui.scanTable.setCurrentCell(1, 0)
        box.setCurrentIndex(box.findData("test"))
        box.activated.emit(box.currentIndex)
        assert [scan.use for scan in opened.project.scans] == ["", "test", ""]
        assert opened.rows(opened.ui.scanTable)[1]["Use"] == "test"
