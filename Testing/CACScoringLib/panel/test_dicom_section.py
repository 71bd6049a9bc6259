"""The result as DICOM objects, and reviews from them, in the panel."""

import dicom_results
import highdicom
import panel_driver
import pydicom
import pytest
import slicer
from dicom_files import write_series
from pydicom.uid import generate_uid

from CACScoringLib.core.labels import Artery
from CACScoringLib.mrml import scene as mrml

SERIES = ("segmentation.dcm", "measurements.dcm", "cardiovascular-report.dcm", "report.pdf.dcm")


@pytest.fixture
def series(panel, tmp_path):
    """The chest as a DICOM series in Slicer's database, and its volume in the scene."""
    from DICOMLib import DICOMUtils

    given = dicom_results.chest_series(tmp_path / "chest")
    slicer.dicomDatabase.openDatabase(str(tmp_path / "database" / "ctkDICOM.sql"))
    assert DICOMUtils.importDicom(str(given.ct))
    return given


@pytest.fixture
def volume(series):
    return loaded(series.ct)


def loaded(folder, name="chest"):
    """What Slicer makes of a series: a volume that knows its images."""
    from CACScoringLib.io.reading import read_ct

    node = mrml.add_volume(slicer.mrmlScene, read_ct(folder).image, name)
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sorted(folder.iterdir())]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return node


@pytest.fixture
def reviewed(driver, tmp_path):
    """A result whose lesions a reader has given their arteries."""
    driver.score(networks=True)
    for slices, artery in (("5–6", "LAD"), ("12–13", "LCX"), ("16–17", "aorta")):
        driver.choose_lesion(slices)
        driver.press_artery(artery)
    driver.ui.reviewedBox.click()
    driver.settle()
    driver.out = tmp_path / "out"
    driver.out.mkdir()
    driver.widget.dicom._askForFolder = lambda: str(driver.out)
    driver.widget.dicom._worker._process = panel_driver.InThisProcess()
    return driver


def export(driver):
    driver.ui.dicomButton.click()
    driver.settle()
    return driver.out / "chest-cac-dicom"


class TestExport:
    def test_objects_state_the_review(self, reviewed):
        folder = export(reviewed)
        found = {path.name for path in folder.iterdir()}
        assert {*SERIES, "calcium_map.dcm", "key_1.dcm"} <= found
        report = highdicom.sr.srread(folder / "measurements.dcm")
        assert report.PreliminaryFlag == "FINAL"
        groups = report.content.get_volumetric_roi_measurement_groups()
        scores = {g.tracking_identifier: g.get_measurements()[0].value for g in groups}
        threshold = reviewed.review.result("threshold")
        assert scores["Coronary calcium: LAD"] == threshold.arteries[Artery.LAD].agatston
        assert scores["Coronary calcium: LCX"] == threshold.arteries[Artery.LCX].agatston
        assert "Calcium: thoracic aorta" in scores
        (total,) = [g for g in report.content.get_image_measurement_groups() if "total" in g.tracking_identifier][:1]
        assert total.get_measurements()[0].value == threshold.total.agatston
        source = pydicom.dcmread(next(iter(dicom_series(reviewed))), stop_before_pixels=True)
        assert report.StudyInstanceUID == source.StudyInstanceUID

    def test_they_name_the_runs_models(self, reviewed):
        names = [model["name"] for model in reviewed.review.as_reviewed().record["models"]]
        assert names
        content = (export(reviewed) / "measurements.dcm").read_bytes()
        assert all(f": {name}, SHA-256".encode() in content for name in names)

    def test_they_come_into_the_database(self, reviewed):
        folder = export(reviewed)
        count = len(list(folder.iterdir()))
        assert reviewed.ui.dicomLabel.text == (
            f"{count} DICOM objects were written to {folder}.\nThey were added to Slicer's DICOM database."
        )
        uid = str(pydicom.dcmread(folder / "segmentation.dcm").SOPInstanceUID)
        kept = slicer.dicomDatabase.fileForInstance(uid)
        assert kept.startswith(slicer.dicomDatabase.databaseDirectory), "the folder may be deleted"

    def test_not_where_that_is_switched_off(self, reviewed):
        reviewed.ui.databaseBox.setChecked(False)
        uid = str(pydicom.dcmread(export(reviewed) / "segmentation.dcm").SOPInstanceUID)
        assert slicer.dicomDatabase.fileForInstance(uid) == ""

    def test_a_closed_database_is_told(self, reviewed, monkeypatch):
        monkeypatch.setattr(reviewed.widget.dicom._worker._process, "start", closing_the_database())
        export(reviewed)
        assert "database is not open, so they were not added" in reviewed.ui.dicomLabel.text

    def test_an_import_that_fails_is_told(self, reviewed, monkeypatch):
        import DICOMLib

        monkeypatch.setattr(DICOMLib.DICOMUtils, "importDicom", lambda *_: False)
        export(reviewed)
        assert "could not be added" in reviewed.ui.dicomLabel.text

    def test_patient_and_reader_are_named_where_asked_for_alone(self, reviewed):
        assert not reviewed.ui.readerEdit.enabled
        reviewed.state.exportReader = "Reader^Rita"
        assert b"Reader^Rita" not in (export(reviewed) / "measurements.dcm").read_bytes()
        reviewed.ui.identifyBox.setChecked(True)
        assert reviewed.ui.readerEdit.enabled
        assert reviewed.ui.readerEdit.text == "Reader^Rita"
        export(reviewed)
        assert b"Reader^Rita" in (reviewed.out / "chest-cac-dicom-2" / "measurements.dcm").read_bytes()
        pdf = pydicom.dcmread(reviewed.out / "chest-cac-dicom-2" / "report.pdf.dcm")
        assert pdf.BurnedInAnnotation == "YES"

    def test_what_is_no_name_is_refused_before_anything_is_made(self, reviewed):
        reviewed.ui.identifyBox.setChecked(True)
        reviewed.state.exportReader = "a\\b"
        export(reviewed)
        assert "no DICOM person name" in reviewed.ui.dicomLabel.text
        assert not list(reviewed.out.iterdir())

    def test_a_ct_that_is_not_from_dicom(self, reviewed, volume):
        volume.RemoveAttribute("DICOM.instanceUIDs")
        export(reviewed)
        assert "chest was not loaded through the DICOM module" in reviewed.ui.dicomLabel.text

    def test_images_that_are_gone(self, reviewed, series):
        for path in sorted(series.ct.iterdir())[:2]:
            path.unlink()
        export(reviewed)
        assert "2 of 20 images of chest are no longer" in reviewed.ui.dicomLabel.text

    def test_images_that_have_changed_leave_no_folder(self, reviewed, series):
        for path in series.ct.iterdir():
            header = pydicom.dcmread(path)
            x, y, z = header.ImagePositionPatient
            header.ImagePositionPatient = [x, y, float(z) + 30]
            header.save_as(path)
        export(reviewed)
        assert "changed after it was read" in reviewed.ui.dicomLabel.text
        assert not list(reviewed.out.iterdir())

    def test_cancel(self, reviewed, tmp_path):
        process = reviewed.widget.dicom._worker._process = type(reviewed.process)()
        reviewed.ui.dicomButton.click()
        assert reviewed.ui.dicomButton.text == "Cancel"
        assert not reviewed.ui.databaseBox.enabled
        process.say(panel_driver.line(event="step", step="dicom", index=1, count=2))
        process.say(panel_driver.line(event="counted", done=2, count=4))
        assert (reviewed.ui.dicomLabel.text, reviewed.ui.dicomBar.value) == ("Step 2 of 2: dicom …", 750)
        reviewed.ui.dicomButton.click()
        assert process.killed
        assert reviewed.ui.dicomLabel.text == "Cancelled. Nothing was written."
        assert reviewed.ui.dicomButton.text == "Export as DICOM …"
        assert not list(tmp_path.glob("cac-dicom-*")), "the job with the patient's images is removed"

    def test_nowhere(self, reviewed):
        reviewed.widget.dicom._askForFolder = lambda: ""
        reviewed.ui.dicomButton.click()
        assert not reviewed.ui.dicomLabel.visible

    def test_nothing_to_export_without_a_result(self, driver):
        assert not driver.ui.dicomButton.enabled

    @pytest.mark.long
    @pytest.mark.usefixtures("slicers_python")
    def test_in_a_process_of_its_own(self, reviewed):
        reviewed.widget.dicom._worker._process = None
        reviewed.ui.dicomButton.click()
        done = reviewed.widget.dicom._worker
        assert panel_driver.eventually(lambda: slicer.app.processEvents() or not done.isRunning, 120)
        assert (reviewed.out / "chest-cac-dicom" / "measurements.dcm").exists(), reviewed.ui.dicomLabel.text


class TestOpening:
    @pytest.fixture
    def again(self, reviewed):
        """The same CT without a result, after an export; `reviewed.before` is what the export stated."""
        export(reviewed)
        reviewed.before = reviewed.review.result("threshold"), reviewed.review.non_coronary
        reviewed.state.inputHeart, reviewed.state.inputHeartSegment = reviewed.review.nodes.heart, "heart"
        reviewed.widget.logic._worker._process = panel_driver.InThisProcess()
        return reviewed

    def choose(self, driver, text):
        box = driver.ui.lesionsBox
        (index,) = [n for n in range(box.count) if text in box.itemText(n)]
        box.setCurrentIndex(index)
        driver.settle()

    def open(self, driver):
        first = driver.review
        driver.ui.scoreButton.click()
        driver.settle()
        assert driver.ui.statusLabel.text == "Done."
        assert driver.review is not first

    def test_a_segmentation_from_the_database_brings_back_the_review(self, again, series):
        self.choose(again, "CAC: calcium by artery (SEG, ")
        assert again.ui.lesionsLabel.text.startswith("A review: LAD, LCX, thoracic aorta.")
        self.open(again)
        threshold, elsewhere = again.before
        found = again.review.result("threshold")
        assert found.reviewed
        assert (found.total, found.arteries) == (threshold.total, threshold.arteries)
        assert again.review.non_coronary.scores == elsewhere.scores
        assert [lesion["Artery"] for lesion in again.lesions()] == ["LAD", "LCX", "aorta"]

    def test_a_file_of_another_tool(self, again, tmp_path):
        made = pydicom.dcmread(again.out / "chest-cac-dicom" / "segmentation.dcm")
        for item in made.SegmentSequence:
            del item.AnatomicRegionSequence
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        made.save_as(tmp_path / "other.dcm")
        again.widget.input._lesions._askForFile = lambda: str(tmp_path / "other.dcm")
        self.choose(again, "Open a DICOM file")
        assert again.state.inputLesions == str(tmp_path / "other.dcm")
        assert again.ui.lesionsBox.currentText == "other.dcm"
        self.open(again)
        assert again.review.result("threshold").total == again.before[0].total

    def test_a_file_that_is_not_chosen_after_all(self, again):
        again.widget.input._lesions._askForFile = lambda: ""
        self.choose(again, "Open a DICOM file")
        assert again.state.inputLesions == ""
        assert again.ui.lesionsBox.currentText == "found in the CT"

    def test_what_an_algorithm_made_waits_for_a_reader(self, again, tmp_path):
        made = pydicom.dcmread(again.out / "chest-cac-dicom" / "segmentation.dcm")
        for item in made.SegmentSequence:
            item.SegmentAlgorithmType = "AUTOMATIC"
        made.save_as(tmp_path / "automatic.dcm")
        again.state.inputLesions = str(tmp_path / "automatic.dcm")
        assert again.ui.lesionsLabel.text.startswith("Made by an algorithm alone, to be reviewed")
        self.open(again)
        assert not again.review.reviewed["threshold"]
        assert not again.review.result("threshold").reviewed
        assert "lesions-automatic" in [warning.code for warning in again.review.warnings]
        assert again.review.result("threshold").arteries[Artery.LAD] == again.before[0].arteries[Artery.LAD]
        again.ui.acceptButton.click()
        again.settle()
        assert again.review.result("threshold").total == again.before[0].total

    def test_lesions_of_another_scan_cannot_be_scored(self, again, tmp_path):
        made = pydicom.dcmread(again.out / "chest-cac-dicom" / "segmentation.dcm")
        made.FrameOfReferenceUID = generate_uid()
        made.save_as(tmp_path / "other.dcm")
        again.state.inputLesions = str(tmp_path / "other.dcm")
        assert "drawn on another scan" in again.ui.lesionsLabel.text
        assert not again.ui.scoreButton.enabled
        self.choose(again, "found in the CT")
        assert again.ui.scoreButton.enabled

    @pytest.mark.parametrize("content", [None, b"", b"\0" * 128 + b"DICM" + b"\1" * 40])
    def test_broken_and_missing_files_are_told(self, again, content, tmp_path):
        if content is not None:
            (tmp_path / "broken.dcm").write_bytes(content)
        again.state.inputLesions = str(tmp_path / "broken.dcm")
        assert "broken.dcm" in again.ui.lesionsLabel.text
        assert not again.ui.scoreButton.enabled

    def test_a_ct_is_no_review(self, again, series):
        again.state.inputLesions = str(next(iter(series.ct.iterdir())))
        assert "modality CT, which holds no lesions" in again.ui.lesionsLabel.text

    def test_reviews_of_other_studies_are_not_offered(self, again, tmp_path):
        import numpy as np

        from CACScoringLib.io.reading import read_ct

        hu = read_ct(again.out.parent / "chest" / "series").hu
        write_series(tmp_path / "elsewhere", np.asarray(hu), spacing_mm=(3.0, 3.0, 3.0))
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(tmp_path / "elsewhere"))
        again.ui.inputSelector.setCurrentNode(loaded(tmp_path / "elsewhere", "elsewhere"))
        texts = [again.ui.lesionsBox.itemText(n) for n in range(again.ui.lesionsBox.count)]
        assert texts == ["found in the CT", "Open a DICOM file …"]


def dicom_series(driver):
    """Files of the volume under review."""
    from CACScoringLib.panel.dicom_database import filesOf

    return filesOf(driver.review.nodes.volume)


def closing_the_database():
    work = panel_driver.InThisProcess().start

    def start(*arguments):
        slicer.dicomDatabase.closeDatabase()
        work(*arguments)

    return start
