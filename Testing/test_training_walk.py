"""A walk through the training panel as a user makes it, with real workers, on the stand-in of the desktop.

Three digital patients are annotated, a network is trained for a few steps, killed and resumed; it is compared with the
bundled one, installed, used for scoring and rolled back. Nothing here says that it is any good.

Set CAC_SCREENSHOTS to a folder to have a picture of every state of the panel; look at them after a change of it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from dataclasses import replace

import pytest
import SimpleITK as sitk
import slicer
from digital_pairs import write_coarse
from panel_driver import Driver, eventually, put_slicers_python_on_the_path
from training_driver import TrainingDriver, load_training, write_proposal

import desktop_host
from CACScoringLib.models.cards import ModelError, find_model, read_network
from CACScoringLib.models.store import save_model
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import read_mask, slice_annotations
from CACTrainingLib.project.project import Project
from CACTrainingLib.training import background as training_runs
from CACTrainingLib.training.run_folder import CHECKPOINT, read_run
from test_walk import Camera

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script")

PATIENTS = (950341, 950344, 950345)
"""Digital patients with calcium in several slices."""
HEIGHTS_MM = (-75.0, 55.0)
NETWORK, MODEL, STEPS = "decomposition", "decomposition-1", 6


def write_scans(folder):
    """One coarse scan of each of PATIENTS."""
    for number in PATIENTS:
        write_coarse(number, folder / f"patient_{number}" / "scan_1", heights_mm=HEIGHTS_MM)
    return folder


@pytest.fixture
def walk(monkeypatch, tmp_path):
    """The modules as after Slicer's startup, with temporary folders for their data."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_slicers_python_on_the_path(tmp_path, monkeypatch)
    load_training(monkeypatch, effect=True)
    driver = TrainingDriver(real=True)
    yield driver
    folder = tmp_path / "project" / "models" / f"{MODEL}.training"
    if folder.is_dir():
        training_runs.stop(folder)
    desktop_host.close_panel("CACTraining")


@pytest.mark.long
def test_from_scans_to_scores(walk, tmp_path):
    camera = Camera(os.environ.get("CAC_SCREENSHOTS"))
    camera.panel("30-training-empty", walk)
    walk.new_project(tmp_path / "project")
    walk.add(write_scans(tmp_path / "scans"))
    assert [scan.name for scan in walk.project.scans] == [f"patient_{number}/scan_1" for number in PATIENTS]
    walk.split(34, 33, 33)
    assert {scan.use for scan in walk.project.scans} == {"training", "validation", "test"}
    camera.panel("31-project", walk)
    annotate(walk, camera)
    train(walk, camera)
    evaluate(walk, camera)
    install_score_and_roll_back(walk, camera)
    assert Project.open(walk.project.folder).warnings == ()


def annotate(driver, camera) -> None:
    """Label slices with keys, and paint a region; the network finds only the first scan's heart."""
    for scan in driver.project.scans[1:]:
        ct = sitk.ReadImage(str(scan.ct))
        write_proposal(driver.project, scan.id, range(ct.GetDepth()), heart=ct > -100)
    for row, scan in enumerate(driver.project.scans):
        visible = visible_slices(scan)
        driver.open_scan(row)
        assert driver.opened is not None, driver.ui.workStatusLabel.text
        driver.label_all(lambda k, visible=visible: "V" if k in visible else "N")
        if row == 0:
            camera.panel("32-slices", driver)
            camera.views("32-slices")
        labels = slice_annotations(driver.project, scan.id, "AB").labels
        assert {k for k, label in labels.items() if label == SliceLabel.VISIBLE} == visible & set(labels)
    k = sorted(visible)[1]
    assert driver.paint("LAD", (k, 60, 64), diameter_mm=9) > 0  # reaches into no other slice
    camera.panel("33-regions", driver)
    assert read_mask(driver.project, driver.project.scans[-1].id, "AB", "regions") is not None
    driver.check()
    camera.panel("34-checked", driver)


def train(driver, camera) -> None:
    """Train a network for a few steps with one kill, and leave the panel meanwhile."""
    ui = driver.widget.train.ui
    driver.tab("train")
    camera.panel("35-train", driver)
    begin(driver)
    folder = driver.project.models_folder / f"{MODEL}.training"
    wait_for(driver, lambda run: run.state == "running" and (folder / CHECKPOINT).exists())
    ui.curvesButton.click()
    camera.panel("36-training", driver)
    camera.views("36-training")
    os.kill(read_run(folder)["pid"], signal.SIGKILL)
    assert wait_for(driver, lambda run: run.state == "stopped").can_resume
    camera.panel("37-killed", driver)
    ui.resumeButton.click()
    slicer.util.selectModule("CACScoring")
    assert training_runs.state_of(folder).state in ("starting", "running")
    slicer.util.selectModule("CACTraining")
    driver.open_project(driver.project.folder)
    driver.tab("train")
    assert wait_for(driver, lambda run: run.state == "done").step == STEPS
    assert "training/loss" in training_runs.read_curves(folder)
    assert ui.sampleLabel.pixmap.width() > 100
    camera.panel("38-trained", driver)
    camera.views("38-trained")


def evaluate(driver, camera) -> None:
    """Compare the new model with the bundled one on the test scan."""
    section = driver.widget.evaluate
    ui = section.ui
    driver.tab("evaluate")
    camera.panel("39-evaluate", driver)
    choose(ui.evaluateStudyBox, "models")
    box = ui.evaluateModelBox
    bundled = find_model(NETWORK).card.name
    box.setCurrentIndex(next(n for n in range(box.count) if bundled in box.itemText(n)))
    choose(ui.evaluateOtherBox, str(driver.project.models_folder / f"{MODEL}.json"))
    ui.evaluateButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not section.job.isRunning, 300)
    assert ui.evaluateStatusLabel.text.startswith("Done"), ui.evaluateStatusLabel.text
    assert ui.studyBox.currentText.startswith("Comparison")
    camera.panel("41-comparison", driver)


def install_score_and_roll_back(driver, camera) -> None:
    """Install the new model, which is refused, then one with sound weights; score with it, and roll it back."""
    section = driver.widget.evaluate
    choose(section.ui.installModelBox, str(driver.project.models_folder / f"{MODEL}.json"))
    section.ui.installButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not section.job.isRunning, 120)
    with pytest.raises(ModelError, match="There is no model"):  # after a few steps it finds no calcium
        find_model(NETWORK, MODEL)
    card, network = read_network(find_model(NETWORK).path)
    save_model(network, replace(card, name=MODEL), driver.project.models_folder, overwrite=True)
    section.ui.installButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not section.job.isRunning, 120)
    assert find_model(NETWORK, MODEL).origin == "user", section.ui.installLabel.text
    camera.panel("42-installed", driver)
    score(driver, camera)
    slicer.util.selectModule("CACTraining")
    driver.tab("evaluate")
    section.ui.rollBackButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not section.job.isRunning, 120)
    camera.panel("44-rolled-back", driver)
    assert "no longer installed" in section.ui.installLabel.text
    assert slicer.modules.cacscoring.widgetRepresentation().self().logic.getParameterNode().mapModel == ""


def visible_slices(scan) -> set[int]:
    """Slices in which a digital scan shows coronary calcium."""
    truth = json.loads(scan.truth.read_text(encoding="utf-8"))
    return {label["k"] for label in truth["slices"] if label["visible"]}


def choose(box, data: str) -> None:
    box.setCurrentIndex(box.findData(data))
    slicer.app.processEvents()


def begin(driver) -> None:
    """Choose NETWORK and few steps, wait for the check, and start."""
    ui = driver.widget.train.ui
    n = [network.value for network in type(driver.state.trainNetwork)].index(NETWORK)
    ui.trainNetworkBox.setCurrentIndex(n)
    ui.trainNetworkBox.activated.emit(n)
    ui.trainStepsBox.setValue(STEPS)
    ui.trainDeviceBox.setCurrentIndex(1)
    ready = eventually(lambda: slicer.app.processEvents() or ui.trainStartButton.enabled, 60)
    assert ready, ui.trainCheckLabel.text
    ui.trainStartButton.click()
    assert driver.state.shownRun == MODEL, ui.trainCheckLabel.text


def wait_for(driver, condition, seconds: float = 300):
    """Wait until the training reaches a condition, and the panel shows it."""
    folder = driver.project.models_folder / f"{MODEL}.training"

    def state():
        slicer.app.processEvents()
        run = training_runs.state_of(folder)
        assert run.state != "failed", run.message
        return run if condition(run) else None

    run = eventually(state, seconds)
    assert run, training_runs.state_of(folder)
    driver.widget.train.runs.poll()
    slicer.app.processEvents()
    return run


def score(driver, camera) -> None:
    """Score the test scan in CAC Scoring with its installed models."""
    scan = next(scan for scan in driver.project.scans if scan.use == "test")
    volume = slicer.util.loadVolume(str(scan.ct), {"name": "test scan"})
    scoring = Driver(real=True)
    scoring.ui.inputSelector.setCurrentNode(volume)
    assert scoring.ui.mapModelBox.currentText == MODEL
    scoring.ui.scoreButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not scoring.widget.scorer.isRunning, 300)
    scoring.settle()
    camera.panel("43-scored", scoring)
    assert scoring.ui.statusLabel.text == "Done."
