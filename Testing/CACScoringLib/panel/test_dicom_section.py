"""Tests of exporting a result as DICOM objects from the panel, and of opening reviews from them."""

import dicom_results
import panel_driver
import pydicom
import pytest
import slicer
from dicom_files import write_series
from pydicom.uid import generate_uid

from CACScoringLib.mrml import scene as mrml


@pytest.fixture
def series(panel, tmp_path):
    """The chest as a DICOM series in Slicer's database."""
    from DICOMLib import DICOMUtils

    dicom = dicom_results.chest_series(tmp_path / "chest")
    slicer.dicomDatabase.openDatabase(str(tmp_path / "database" / "ctkDICOM.sql"))
    assert DICOMUtils.importDicom(str(dicom.ct))
    return dicom


@pytest.fixture
def volume(series):
    return loaded(series.ct)


def loaded(folder, name="chest"):
    """Return a series' volume with the UIDs of its images, as Slicer loads it."""
    from CACScoringLib.io.reading import read_ct

    node = mrml.add_volume(slicer.mrmlScene, read_ct(folder).image, name)
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in sorted(folder.iterdir())]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return node


@pytest.fixture
def reviewed(driver, tmp_path, monkeypatch):
    """A result whose lesions a reader has assigned to their sites."""
    driver.score(networks=True)
    for slices, artery in (("5–6", "LAD"), ("12–13", "LCX"), ("16–17", "aorta")):
        driver.assign(slices, artery)
    driver.ui.reviewedBox.click()
    driver.settle()
    driver.out = tmp_path / "out"
    driver.out.mkdir()
    monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(driver.out))
    driver.widget.dicom.job.process = panel_driver.InThisProcess()
    return driver


def export(driver):
    driver.ui.dicomButton.click()
    driver.settle()
    return driver.out / "chest-cac-dicom"


class TestExport:
    @pytest.mark.long
    def test_objects_come_into_the_database(self, reviewed):
        folder = export(reviewed)
        assert {path.name for path in folder.iterdir()} == {"segmentation.dcm", "measurements.dcm"}
        count = len(list(folder.iterdir()))
        assert reviewed.ui.dicomLabel.text == (
            f"{count} DICOM objects were written to {folder}.\nThey were added to Slicer's DICOM database."
        )
        uid = str(pydicom.dcmread(folder / "segmentation.dcm").SOPInstanceUID)
        file = slicer.dicomDatabase.fileForInstance(uid)
        assert file.startswith(slicer.dicomDatabase.databaseDirectory), "the folder may be deleted"

    @pytest.mark.long
    def test_the_reader_is_named_on_request_only(self, reviewed):
        reviewed.state.exportReader = "Reader^Rita"
        reviewed.ui.acceptButton.click()
        assert b"Reader^Rita" not in (export(reviewed) / "measurements.dcm").read_bytes()
        reviewed.ui.identifyBox.setChecked(True)
        reviewed.state.exportReader = "Ann"  # who reads next
        export(reviewed)
        report = pydicom.dcmread(reviewed.out / "chest-cac-dicom-2" / "measurements.dcm")
        assert report.VerifyingObserverSequence[0].VerifyingObserverName == "Reader^Rita"
        assert "Ann" not in str(report)

    @pytest.mark.long
    def test_a_ct_that_is_not_from_dicom(self, reviewed, volume):
        volume.RemoveAttribute("DICOM.instanceUIDs")
        export(reviewed)
        assert "chest was not loaded through the DICOM module" in reviewed.ui.dicomLabel.text

    @pytest.mark.long
    def test_cancel(self, reviewed, tmp_path):
        process = reviewed.widget.dicom.job.process = type(reviewed.process)()
        reviewed.ui.dicomButton.click()
        assert panel_driver.eventually(lambda: slicer.app.processEvents() or process.arguments)
        assert not reviewed.ui.databaseBox.enabled
        process.say(panel_driver.line(event="step", step="dicom", index=1, count=2))
        process.say(panel_driver.line(event="counted", done=2, count=4))
        assert (reviewed.ui.dicomLabel.text, reviewed.ui.dicomBar.value) == ("Step 2 of 2: dicom …", 750)
        reviewed.ui.dicomButton.click()
        assert process.killed
        assert reviewed.ui.dicomLabel.text == "Cancelled. Nothing was written."
        assert not list(tmp_path.glob("cac-panel-*")), "the job with the patient's images is removed"


class TestOpening:
    @pytest.fixture
    def exported(self, reviewed):
        """The panel after an export; `before` holds the exported result."""
        export(reviewed)
        reviewed.before = reviewed.review.result("threshold"), reviewed.review.non_coronary
        reviewed.state.inputHeart, reviewed.state.inputHeartSegment = reviewed.review.nodes.heart, "heart"
        reviewed.widget.scorer.job.process = panel_driver.InThisProcess()
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

    @pytest.mark.long
    def test_a_segmentation_from_the_database_brings_back_the_review(self, exported, series):
        self.choose(exported, "CAC: calcium by artery (SEG, ")
        self.open(exported)
        threshold, elsewhere = exported.before
        reopened = exported.review.result("threshold")
        assert reopened.reviewed
        assert (reopened.total, reopened.arteries) == (threshold.total, threshold.arteries)
        assert exported.review.non_coronary.scores == elsewhere.scores
        assert [lesion["Artery"] for lesion in exported.lesions()] == ["LAD", "LCX", "aorta"]

    @pytest.mark.long
    def test_lesions_of_another_scan_cannot_be_scored(self, exported, tmp_path):
        segmentation = pydicom.dcmread(exported.out / "chest-cac-dicom" / "segmentation.dcm")
        segmentation.FrameOfReferenceUID = generate_uid()
        segmentation.save_as(tmp_path / "other.dcm")
        exported.state.inputLesions = str(tmp_path / "other.dcm")
        assert "drawn on another scan" in exported.ui.lesionsLabel.text
        assert not exported.ui.scoreButton.enabled
        self.choose(exported, "found in the CT")
        assert exported.ui.scoreButton.enabled

    @pytest.mark.long
    def test_reviews_of_other_studies_are_not_offered(self, exported, tmp_path):
        import numpy as np

        from CACScoringLib.io.reading import read_ct

        hu = read_ct(exported.out.parent / "chest" / "series").hu
        write_series(tmp_path / "elsewhere", np.asarray(hu), spacing_mm=(3.0, 3.0, 3.0))
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(tmp_path / "elsewhere"))
        exported.ui.inputSelector.setCurrentNode(loaded(tmp_path / "elsewhere", "elsewhere"))
        texts = [exported.ui.lesionsBox.itemText(n) for n in range(exported.ui.lesionsBox.count)]
        assert texts == ["found in the CT", "Open a DICOM file …"]


def test_facts_follow_a_series_that_is_loaded_behind_the_open_panel(driver, volume):
    """The DICOM module names the images of a volume after it has added the volume."""
    uids = volume.GetAttribute("DICOM.instanceUIDs")
    volume.RemoveAttribute("DICOM.instanceUIDs")
    assert "Not loaded through the DICOM module" in driver.ui.factsLabel.text
    volume.SetAttribute("DICOM.instanceUIDs", uids)
    assert "kVp" in driver.ui.factsLabel.text
