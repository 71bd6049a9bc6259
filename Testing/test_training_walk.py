"""A walk through the training panel as a user makes it, with real workers, on the stand-in of the desktop.

Three digital patients are annotated, a network is trained for a few steps, killed and resumed; a model is installed,
used for scoring and rolled back. Nothing here says that the network is any good. Pictures are made as in test_walk.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace

import pytest
import SimpleITK as sitk
import slicer
from annotated_project import write_proposal
from digital_pairs import write_coarse
from panel_driver import Driver, put_slicers_python_on_the_path
from training_driver import TrainingDriver, load_training

import desktop_host
from CACScoringLib.models.cards import find_model, read_network
from CACScoringLib.models.store import save_model
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import read_annotated_mask, slice_annotations
from CACTrainingLib.project.project import Project
from CACTrainingLib.training import background_runs
from CACTrainingLib.training.run_folder import CHECKPOINT, read_run
from test_walk import Camera, happens, score

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script")

NETWORK, MODEL, STEPS = "decomposition", "decomposition-1", 6
PATIENTS = (950341, 950344, 950345)
"""Digital patients with calcium in several slices."""


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """The training panel as after Slicer's startup, with temporary folders for its data."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_slicers_python_on_the_path(tmp_path, monkeypatch)
    load_training(monkeypatch, effect=True)
    yield TrainingDriver(real=True)
    folder = tmp_path / "project" / "models" / f"{MODEL}.training"
    if folder.is_dir():
        background_runs.stop(folder)
    desktop_host.close_panel("CACTraining")


@pytest.mark.long
def test_from_scans_to_scores(driver, tmp_path):
    camera = Camera()
    camera.panel("30-training-empty", driver)
    driver.new_project(tmp_path / "project")
    for number in PATIENTS:
        write_coarse(number, tmp_path / "scans" / f"patient_{number}" / "scan_1", heights_mm=(-75.0, 55.0))
    driver.add(tmp_path / "scans")
    assert [scan.name for scan in driver.project.scans] == [f"patient_{number}/scan_1" for number in PATIENTS]
    driver.split(34, 33, 33)
    assert {scan.use for scan in driver.project.scans} == {"training", "validation", "test"}
    camera.panel("31-project", driver)
    annotate(driver, camera)
    train(driver, camera)
    install_score_and_roll_back(driver, camera)
    assert Project.open(driver.project.folder).warnings == ()


def annotate(driver, camera: Camera) -> None:
    """Label slices with keys, and paint a region; the network finds only the first scan's heart."""
    for scan in driver.project.scans[1:]:
        ct = sitk.ReadImage(str(scan.ct))
        write_proposal(driver.project, scan.id, range(ct.GetDepth()), heart=ct > -100)
    for row, scan in enumerate(driver.project.scans):
        truth = json.loads(scan.truth.read_text(encoding="utf-8"))
        visible = {label["k"] for label in truth["slices"] if label["visible"]}
        driver.open_scan(row)
        assert driver.opened is not None, driver.ui.workStatusLabel.text
        driver.label_all(lambda k, visible=visible: "V" if k in visible else "N")
        if row == 0:
            camera.panel("32-slices", driver)
            camera.views("32-slices")
        labels = slice_annotations(driver.project, scan.id, "AB").labels
        assert {k for k, label in labels.items() if label == SliceLabel.VISIBLE} == visible & set(labels)
    assert driver.paint("LAD", (sorted(visible)[1], 60, 64), diameter_mm=9) > 0  # reaches into no other slice
    camera.panel("33-regions", driver)
    assert read_annotated_mask(driver.project, driver.project.scans[-1].id, "AB", "regions") is not None
    driver.check()
    camera.panel("34-checked", driver)


def train(driver, camera: Camera) -> None:
    """Train a network for a few steps with one kill, and leave the panel meanwhile."""
    ui, folder = driver.widget.train.ui, driver.project.models_folder / f"{MODEL}.training"

    def wait_for(condition: Callable) -> background_runs.RunState:
        """Wait until the training reaches a condition, and the panel shows it."""

        def state():
            run = background_runs.state_of(folder)
            assert run.state != "failed", run.message
            return run if condition(run) else None

        run = happens(state)
        assert run, background_runs.state_of(folder)
        driver.widget.train.runs.poll()
        slicer.app.processEvents()
        return run

    driver.tab("train")
    camera.panel("35-train", driver)
    n = [network.value for network in type(driver.state.trainNetwork)].index(NETWORK)
    ui.trainNetworkBox.setCurrentIndex(n)
    ui.trainNetworkBox.activated.emit(n)
    ui.trainStepsBox.setValue(STEPS)
    ui.trainDeviceBox.setCurrentIndex(1)
    assert happens(lambda: ui.trainStartButton.enabled), ui.trainCheckLabel.text
    ui.trainStartButton.click()
    assert driver.state.shownRun == MODEL, ui.trainCheckLabel.text
    wait_for(lambda run: run.state == "running" and (folder / CHECKPOINT).exists())
    ui.curvesButton.click()
    camera.panel("36-training", driver)
    camera.views("36-training")
    os.kill(read_run(folder)["pid"], signal.SIGKILL)
    assert wait_for(lambda run: run.state == "stopped").can_resume
    camera.panel("37-killed", driver)
    ui.resumeButton.click()
    slicer.util.selectModule("CACScoring")
    slicer.util.selectModule("CACTraining")
    driver.open_project(driver.project.folder)
    driver.tab("train")
    assert wait_for(lambda run: run.state == "done").step == STEPS
    assert "training/loss" in background_runs.read_curves(folder)
    assert ui.sampleLabel.pixmap.width() > 100
    camera.panel("38-trained", driver)
    camera.views("38-trained")


def install_score_and_roll_back(driver, camera: Camera) -> None:
    """Install a model of the project with sound weights, score the test scan with it, and roll it back."""
    section, ui = driver.widget.evaluate, driver.widget.evaluate.ui
    card, network = read_network(find_model(NETWORK).path)
    save_model(network, replace(card, name=MODEL), driver.project.models_folder, overwrite=True)
    driver.tab("evaluate")
    camera.panel("39-evaluate", driver)
    ui.installModelBox.setCurrentIndex(ui.installModelBox.findData(str(driver.project.models_folder / f"{MODEL}.json")))
    slicer.app.processEvents()
    ui.installButton.click()
    assert happens(lambda: not section.install.job.isRunning)
    assert find_model(NETWORK, MODEL).origin == "user", ui.installLabel.text
    camera.panel("42-installed", driver)
    scan = next(scan for scan in driver.project.scans if scan.use == "test")
    scoring = Driver(real=True)
    scoring.ui.inputSelector.setCurrentNode(slicer.util.loadVolume(str(scan.ct), {"name": "test scan"}))
    assert scoring.ui.mapModelBox.currentText == MODEL
    score(scoring)
    camera.panel("43-scored", scoring)
    slicer.util.selectModule("CACTraining")
    driver.tab("evaluate")
    ui.rollBackButton.click()
    assert happens(lambda: not section.install.job.isRunning)
    camera.panel("44-rolled-back", driver)
    assert scoring.state.mapModel == ""
