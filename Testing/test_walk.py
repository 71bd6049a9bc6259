"""A walk through the panel as a user makes it, with the real worker, on the stand-in of the desktop.

Set CAC_SCREENSHOTS to a folder to have a picture of every state of the panel; look at them after a change of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk
import slicer
from dicom_files import write_series
from panel_driver import Driver, eventually, put_slicers_python_on_the_path

import desktop_host
from CACScoringLib.cli import main as cli
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.io.reading import read_ct
from CACScoringLib.mrml.sample_data import SAMPLE_NAME, sample_file
from CACScoringLib.mrml.scene import add_volume

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script"),
]

EFFECTS = ("SegmentEditorCACLesion", "SegmentEditorCACRegion", "SegmentEditorCACDecompose")
PANEL_WIDTH, PANEL_HEIGHT = 500, 760


class Camera:
    """Camera for the panel and the views, active if CAC_SCREENSHOTS names a folder."""

    def __init__(self) -> None:
        folder = os.environ.get("CAC_SCREENSHOTS")
        self._folder = None if folder is None else Path(folder)

    def panel(self, name: str, driver: Driver) -> None:
        if self._folder is not None:
            parent = driver.widget.parent
            for _ in range(3):  # text that is wrapped is higher than was thought before its width was known
                height = max(PANEL_HEIGHT, parent.layout().totalHeightForWidth(PANEL_WIDTH))
                parent.resize(PANEL_WIDTH, height)
                slicer.app.processEvents()
            self._take(parent, f"panel-{name}")

    def views(self, name: str) -> None:
        if self._folder is not None:
            self._take(slicer.app.layoutManager().viewport(), f"views-{name}")

    def _take(self, widget, name: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        desktop_host.grab(widget, self._folder / f"{name}.png")


@pytest.fixture
def camera():
    return Camera()


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """The panel with its effects as after Slicer's startup, with the real worker."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    put_slicers_python_on_the_path(tmp_path, monkeypatch)
    module = Path(__file__).parents[1] / "CACScoring"
    for effect in EFFECTS:
        monkeypatch.syspath_prepend(str(module / effect))
    desktop_host.load_panel(monkeypatch, "CACScoring")
    for effect in EFFECTS:
        desktop_host.load(monkeypatch, effect)
    slicer.app.startupCompleted.emit()
    yield Driver(real=True)
    desktop_host.close_panel("CACScoring")


def happens(condition: Callable[[], object], seconds: float = 300) -> object:
    """Run Slicer's event loop until a condition is true; return it."""
    return eventually(lambda: slicer.app.processEvents() or condition(), seconds)


def score(driver: Driver) -> None:
    """Press *Score*, and wait for the result."""
    driver.ui.scoreButton.click()
    assert happens(lambda: not driver.widget.scorer.isRunning)
    driver.settle()
    assert driver.ui.statusLabel.text == "Done."


def _coronary(driver: Driver) -> list[dict[str, object]]:
    """Rows of coronary lesions, assigned or suggested."""
    arteries = {artery.key for artery in Artery}
    return [lesion for lesion in driver.lesions() if lesion["Artery"].removesuffix("?") in arteries]


def load_series(folder: Path) -> Path:
    """Load the sample from a series in Slicer's DICOM database, to whose images it refers; return its folder."""
    from DICOMLib import DICOMUtils

    image = sitk.ReadImage(str(sample_file()))
    places = {"spacing_mm": image.GetSpacing(), "origin_mm": image.GetOrigin()}
    frame = {"FrameOfReferenceUID": pydicom.uid.generate_uid()}
    files = write_series(folder / "series", sitk.GetArrayFromImage(image), tags=frame, **places)
    slicer.dicomDatabase.openDatabase(str(folder / "database" / "ctkDICOM.sql"))
    assert DICOMUtils.importDicom(str(folder / "series"))
    node = add_volume(slicer.mrmlScene, read_ct(folder / "series").image, SAMPLE_NAME)
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return folder / "series"


def test_a_scan(driver, camera, tmp_path, monkeypatch):
    ui = driver.ui
    camera.panel("01-empty", driver)
    assert not ui.scoreButton.enabled
    series = load_series(tmp_path)
    camera.panel("02-loaded", driver)
    assert ui.inputSelector.currentNode().GetName() == SAMPLE_NAME
    ui.advancedBox.collapsed = False
    camera.panel("03-advanced", driver)
    ui.advancedBox.collapsed = True
    begin_and_cancel(driver, camera, tmp_path)
    score(driver)
    camera.panel("06-scored", driver)
    camera.views("06-scored")
    assert len(driver.lesions()) > 3
    scores_equal_the_command_lines(driver, series, tmp_path)
    review_lesions(driver, camera)
    review_map(driver, camera)
    accept_and_export(driver, camera, tmp_path, monkeypatch)
    save_and_open_again(driver, camera, tmp_path)
    make_a_radiograph(driver, camera)


def begin_and_cancel(driver: Driver, camera: Camera, temporary: Path) -> None:
    """Cancel scoring; the scene stays unchanged."""
    ui, nodes = driver.ui, slicer.mrmlScene.GetNumberOfNodes()
    ui.scoreButton.click()
    assert happens(lambda: ui.statusLabel.text.startswith("Step"))
    camera.panel("04-scoring", driver)
    ui.scoreButton.click()
    camera.panel("05-cancelled", driver)
    assert "Cancelled" in ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert not list(temporary.glob("cac-scoring-*"))


def scores_equal_the_command_lines(driver: Driver, series: Path, folder: Path) -> None:
    """To the last digit, for both methods and every artery."""
    settings = '{"results": {"scene": false}}'
    assert cli.main(["score", str(series), "--output", str(folder / "cli"), "--settings", settings]) == 0
    written = json.loads((folder / "cli" / "scores.json").read_text(encoding="utf-8"))
    for method, expected in written["methods"].items():
        result = driver.review.result(method)
        arteries = {artery.key: score.agatston for artery, score in result.arteries.items()}
        assert arteries == {key: score["agatston"] for key, score in expected["arteries"].items()}
        for name in ("agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions", "peak_hu"):
            assert getattr(result.total, name) == expected["total"][name]


def review_lesions(driver: Driver, camera: Camera) -> None:
    """Assign one lesion to an artery, reject another and undo that, and assign a third to a non-coronary site."""
    ui = driver.ui

    def agatston() -> float:
        return driver.review.result("threshold").total.agatston

    def choose_other() -> None:
        driver.choose_lesion(next(x["Slices"] for x in _coronary(driver) if x["Artery"] != "LCX"))

    total = agatston()
    largest = max(_coronary(driver), key=lambda lesion: lesion["Agatston"])
    before = driver.review.result("threshold").arteries[Artery.LCX].lesions
    driver.choose_lesion(largest["Slices"])
    driver.press_artery("LCX")
    assert driver.review.result("threshold").arteries[Artery.LCX].lesions == before + 1
    choose_other()
    driver.press_artery("reject")
    rejected = agatston()
    assert rejected < total
    camera.panel("07-reviewing", driver)
    ui.undoButton.click()
    assert agatston() == total
    ui.redoButton.click()
    assert agatston() == rejected
    choose_other()
    driver.press_artery("mitral annulus")
    assert agatston() < rejected
    assert driver.review.non_coronary.scores[NonCoronary.MITRAL_ANNULUS].lesions == 1
    camera.panel("07-sites", driver)
    ui.undoButton.click()
    assert agatston() == rejected


def review_map(driver: Driver, camera: Camera) -> None:
    """Switch a slice of the calcium map off, fade, show surfaces, and open the editor with the extension's effects."""
    ui = driver.ui
    ui.moreButton.collapsed = False
    ui.reviewMethodBox.setCurrentIndex(1)
    mapped = driver.review.result("decomposition")
    driver.choose_slice(mapped.lesions[0].slices[0])
    ui.sliceBox.click()
    assert driver.review.result("decomposition").total.agatston < mapped.total.agatston
    camera.panel("08-slice-off", driver)
    ui.fadeSlider.setValue(0.5)
    ui.show3DBox.setChecked(True)
    camera.views("08-faded-3d")
    ui.show3DBox.setChecked(False)
    ui.reviewMethodBox.setCurrentIndex(0)
    ui.moreButton.collapsed = True
    ui.editorBox.collapsed = False
    driver.widget.review._editor.widget.setActiveEffectByName("CAC Lesion")
    camera.panel("09-editor", driver)
    ui.editorBox.collapsed = True


def accept_and_export(driver: Driver, camera: Camera, folder: Path, monkeypatch) -> None:
    ui = driver.ui
    ui.rejectRestButton.click()
    ui.reviewedBox.click()
    camera.panel("10-reviewed", driver)
    assert "category" in ui.headLabel.text.lower()
    monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(folder))
    ui.exportButton.click()
    exported = folder / f"{SAMPLE_NAME}-cac"
    names = {path.name for path in exported.iterdir()}
    assert {"lesions.csv", "lesions.nii.gz", "map_lesions.nii.gz", "report.html", "scores.json"} <= names
    written = json.loads((exported / "scores.json").read_text(encoding="utf-8"))
    assert written["methods"]["threshold"]["total"]["agatston"] == driver.review.result("threshold").total.agatston
    ui.dicomButton.click()
    assert happens(lambda: not driver.widget.dicom.job.isRunning)
    names = {path.name for path in (folder / f"{SAMPLE_NAME}-cac-dicom").iterdir()}
    assert names == {"segmentation.dcm", "measurements.dcm"}, ui.dicomLabel.text


def save_and_open_again(driver: Driver, camera: Camera, folder: Path) -> None:
    scores = driver.scores()
    assert slicer.util.saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert driver.lesions() == []
    slicer.util.loadScene(str(folder / "scene.mrb"))
    driver.settle()
    camera.panel("11-reopened", driver)
    camera.views("11-reopened")
    assert driver.scores() == scores
    assert driver.ui.reviewedBox.checked


def make_a_radiograph(driver: Driver, camera: Camera) -> None:
    """Turn the radiograph while preview and stand follow, then make it."""
    ui, section = driver.ui, driver.widget.drr
    ui.pages.setCurrentIndex(2)
    assert happens(lambda: not section._preparing.isRunning)
    ui.drrLayoutButton.click()
    for angle in range(0, 50, 5):
        ui.drrAngleDegreesBox.setValue(angle)
        slicer.app.processEvents()
    assert happens(lambda: not (section._drawTimer.active or section._drawing.isRunning))
    camera.panel("12-radiograph", driver)
    camera.views("12-radiograph")
    ui.drrViewBox.setCurrentIndex(0)
    ui.drrPixelsBox.setValue(512)
    ui.drrRunButton.click()
    assert happens(lambda: ui.drrStatusLabel.text.startswith("Made")), ui.drrStatusLabel.text
    camera.panel("13-radiograph-made", driver)
    camera.views("13-radiograph-made")
    ui.pages.setCurrentIndex(0)
    models = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLModelNode")}
    assert not models & {"Radiograph beam", "Radiograph detector", "Radiograph body"}


def test_many_scans(driver, camera, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(sample_file(), scans / "patient-1.nrrd")
    noise = sitk.AdditiveGaussianNoise(sitk.Image([40, 40, 40], sitk.sitkInt16) - 900, 20.0, 0.0, 1)
    sitk.WriteImage(noise, str(scans / "air.nrrd"))
    ui = driver.ui
    ui.methodBox.setCurrentIndex(1)
    ui.pages.setCurrentIndex(1)
    camera.panel("20-cohort-empty", driver)
    ui.cohortSourceBox.setCurrentPath(str(scans))
    ui.cohortOutputBox.setCurrentPath(str(tmp_path / "results"))
    ui.cohortRunButton.click()
    assert happens(lambda: ui.cohortTable.rowCount == 2)
    camera.panel("21-cohort-running", driver)
    assert happens(lambda: ui.cohortRunButton.text == "Score all")
    states = {ui.cohortTable.item(row, 0).text(): ui.cohortTable.item(row, 1).text().split()[0] for row in range(2)}
    assert states == {"air": "failed", "patient-1": "done"}
    camera.panel("22-cohort-done", driver)

    row = next(row for row in range(2) if ui.cohortTable.item(row, 0).text() == "patient-1")
    ui.cohortTable.setCurrentCell(row, 0)
    ui.cohortOpenButton.click()
    assert happens(lambda: not driver.widget.scorer.isRunning)
    driver.settle()
    assert ui.pages.currentIndex == 0
    assert driver.review.nodes.volume.GetName() == "patient-1"
    assert f"{driver.review.result('threshold').total.agatston:.1f}" == ui.cohortTable.item(row, 2).text().strip("()")
    camera.panel("23-cohort-opened", driver)
