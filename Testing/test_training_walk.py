"""A walk through the training panel as a user makes it, with real workers, on the stand-in of the desktop.

Three digital patients are annotated, two networks are trained for a few steps, one of them killed and resumed; they are
evaluated, compared, installed, used for scoring and rolled back. Nothing here says that they are any good.

Set CAC_SCREENSHOTS to a folder to have a picture of every state of the panel; look at them after a change of it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile

import pytest
import slicer
from digital_pairs import write_coarse
from panel_driver import Driver, eventually, put_slicers_python_on_the_path
from training_driver import TrainingDriver, load_training

import desktop_host
from CACScoringLib.models.cards import find_model
from CACTrainingLib.project.annotations import SliceLabel, read_mask, slice_annotations
from CACTrainingLib.project.project import Project
from CACTrainingLib.training import background as training_runs
from CACTrainingLib.training.run_folder import CHECKPOINT, read_run
from test_walk import Camera

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script")

PATIENTS = (950341, 950344, 950345)
"""Digital patients with calcium in several slices."""
HEIGHTS_MM = (-75.0, 55.0)
STEPS = {"slices": 6, "decomposition": 6}


def write_scans(folder):
    """One coarse scan of each of PATIENTS."""
    for number in PATIENTS:
        write_coarse(number, folder / f"patient_{number}" / "scan_1", heights_mm=HEIGHTS_MM)
    return folder


@pytest.fixture
def walk(monkeypatch, tmp_path):
    """The modules as Slicer has them when it has started, and places of their own for all that they keep."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put_slicers_python_on_the_path(tmp_path, monkeypatch)
    load_training(monkeypatch, effect=True)
    driver = TrainingDriver(real=True)
    yield driver
    for name in ("slices-1", "decomposition-1"):
        folder = tmp_path / "project" / "models" / f"{name}.training"
        if folder.is_dir():
            training_runs.stop(folder)
    desktop_host.close_panel("CACTraining")


@pytest.mark.long
def test_from_scans_to_scores(walk, tmp_path):
    camera = Camera(os.environ.get("CAC_SCREENSHOTS"))
    driver, train, evaluate = walk, walk.widget.train, walk.widget.evaluate
    scans = write_scans(tmp_path / "scans")

    # A new project, with three digital scans.
    camera.panel("30-training-empty", driver)
    driver.new_project(tmp_path / "project")
    driver.add(scans)
    names = [f"patient_{number}/scan_1" for number in PATIENTS]
    assert [scan.name for scan in driver.project.scans] == names
    driver.split(34, 33, 33)
    uses = {scan.use for scan in driver.project.scans}
    assert uses == {"training", "validation", "test"}
    camera.panel("31-project", driver)

    # Slices are labelled with keys.
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
    # A region is painted.
    k = sorted(visible)[1]
    assert driver.paint("LAD", (k, 60, 64), diameter_mm=9) > 0  # reaches into no other slice
    camera.panel("33-regions", driver)
    assert read_mask(driver.project, driver.project.scans[-1].id, "AB", "regions") is not None
    driver.check()
    camera.panel("34-checked", driver)

    # Two networks are trained for a few steps.
    driver.tab("train")
    camera.panel("35-train", driver)
    begin(driver, "slices")
    wait_for(driver, "slices-1", lambda run: "training/loss" in curves(driver, "slices-1"))
    train.ui.curvesButton.click()
    camera.panel("36-training", driver)
    camera.views("36-training")
    wait_for(driver, "slices-1", lambda run: run.state == "done")
    begin(driver, "decomposition")
    # Killed as by a power cut, after its first checkpoint.
    folder = driver.project.models_folder / "decomposition-1.training"
    wait_for(driver, "decomposition-1", lambda run: run.state == "running" and (folder / CHECKPOINT).exists())
    os.kill(read_run(folder)["pid"], signal.SIGKILL)
    run = wait_for(driver, "decomposition-1", lambda run: run.state == "stopped")
    assert run.can_resume
    camera.panel("37-killed", driver)
    train.ui.resumeButton.click()
    # The panel is left meanwhile, and the project opened again later.
    slicer.util.selectModule("CACScoring")
    assert training_runs.state_of(folder).state in ("starting", "running")
    slicer.util.selectModule("CACTraining")
    driver.open_project(driver.project.folder)
    driver.tab("train")
    run = wait_for(driver, "decomposition-1", lambda run: run.state == "done")
    assert run.step == STEPS["decomposition"]
    assert train.ui.sampleLabel.pixmap.width() > 100
    camera.panel("38-trained", driver)
    camera.views("38-trained")

    # Evaluated on the scan that was kept for tests, and compared.
    driver.tab("evaluate")
    camera.panel("39-evaluate", driver)
    study(driver, "heart")
    camera.panel("40-study", driver)
    choose(evaluate.ui.evaluateStudyBox, "models")
    box = evaluate.ui.evaluateModelBox
    box.setCurrentIndex(next(n for n in range(box.count) if "slices-compact" in box.itemText(n)))
    choose(evaluate.ui.evaluateOtherBox, str(driver.project.models_folder / "slices-1.json"))
    study(driver, "models")

    camera.panel("41-comparison", driver)
    assert evaluate.ui.studyTable.rowCount > 0

    # Installed, and used to score.
    for name in ("slices-1", "decomposition-1"):
        choose(evaluate.ui.installModelBox, str(driver.project.models_folder / f"{name}.json"))
        evaluate.ui.installButton.click()
        assert eventually(lambda: slicer.app.processEvents() or not evaluate._worker.isRunning, 120)
        assert find_model(name.removesuffix("-1"), name).origin == "user", evaluate.ui.installLabel.text
    camera.panel("42-installed", driver)
    score(driver, camera)

    # And rolled back.
    slicer.util.selectModule("CACTraining")
    driver.tab("evaluate")
    evaluate.ui.rollBackButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not evaluate._worker.isRunning, 120)
    camera.panel("44-rolled-back", driver)
    assert "no longer installed" in evaluate.ui.installLabel.text
    scoring = slicer.modules.cacscoring.widgetRepresentation().self().logic.getParameterNode()
    assert (scoring.slicesModel, scoring.mapModel) == ("slices-1", "")
    assert Project.open(driver.project.folder).warnings == ()


def visible_slices(scan) -> set[int]:
    """Where a digital scan shows coronary calcium."""
    truth = json.loads(scan.truth.read_text(encoding="utf-8"))
    return {each["k"] for each in truth["slices"] if each["visible"]}


def choose(box, data: str) -> None:
    box.setCurrentIndex(box.findData(data))
    slicer.app.processEvents()


def begin(driver, network: str) -> None:
    """Choose a network and few steps, wait for the check, and start."""
    ui = driver.widget.train.ui
    n = [each.value for each in type(driver.state.trainNetwork)].index(network)
    ui.trainNetworkBox.setCurrentIndex(n)
    ui.trainNetworkBox.activated.emit(n)
    ui.trainStepsBox.setValue(STEPS[network])
    ui.trainDeviceBox.setCurrentIndex(1)
    ready = eventually(lambda: slicer.app.processEvents() or ui.trainStartButton.enabled, 60)
    assert ready, ui.trainCheckLabel.text
    ui.trainStartButton.click()
    assert driver.state.shownRun == f"{network}-1", ui.trainCheckLabel.text


def wait_for(driver, name: str, condition, seconds: float = 300):
    """Until the training is as wanted, and the panel shows it."""
    folder = driver.project.models_folder / f"{name}.training"

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


def curves(driver, name: str):
    return training_runs.read_curves(driver.project.models_folder / f"{name}.training")


def study(driver, name: str) -> None:
    """Make a study of the test scan, and wait for it."""
    evaluate = driver.widget.evaluate
    choose(evaluate.ui.evaluateStudyBox, name)
    evaluate.ui.evaluateButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not evaluate._worker.isRunning, 300)
    assert evaluate.ui.evaluateStatusLabel.text.startswith("Done"), evaluate.ui.evaluateStatusLabel.text
    assert evaluate.view.study.folder.name.startswith(name)


def score(driver, camera) -> None:
    """Score the scan that was kept for tests in CAC Scoring, with what was installed there."""
    scan = next(scan for scan in driver.project.scans if scan.use == "test")
    volume = slicer.util.loadVolume(str(scan.ct), {"name": "test scan"})
    scoring = Driver()
    scoring.widget.scorer._worker._process = None
    scoring.ui.inputSelector.setCurrentNode(volume)
    for box, name in ((scoring.ui.slicesModelBox, "slices-1"), (scoring.ui.mapModelBox, "decomposition-1")):
        assert box.currentText == name
    scoring.ui.scoreButton.click()
    assert eventually(lambda: slicer.app.processEvents() or not scoring.widget.scorer.isRunning, 300)
    scoring.settle()
    camera.panel("43-scored", scoring)
    assert scoring.ui.statusLabel.text == "Done."
