"""A calcium map from nothing but an annotator's keys: a project in the panel, from scans to an installed model.

Run from the repository's root; a project that is labelled in OUTPUT already is taken as it is, and its model made anew:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/annotator_project.py
        --scans FOLDER --known FOLDER --output OUTPUT [--count 40] [--errors 0.05] [--minutes 20] [--start CARD]

--scans: digital patients that stand in for real ones. The project gets their CTs alone, without their truth. A made-up
annotator labels every slice with V and N as the truth says, except for a share of --errors at random (seeded), with
real key presses in the panel on the stand-in of the desktop. Hearts are those that CAC proposes. Then, in the panel
too: split, training on these labels alone, calibration on the digital patients of --known, whose calcium is known, and
installation (into OUTPUT/installed). Printed: how many keys, the seconds that the panel's log counts, minutes of every
part, the validation on the annotator's labels, and the calibration. Evaluate the model with `weak_labels.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
from panel_driver import eventually, put_slicers_python_on_the_path
from training_driver import TrainingDriver, load_training

from CACScoringLib.models.cards import find_model
from CACTrainingLib.project.annotations import SliceLabel, slice_annotations
from CACTrainingLib.training import background
from desktop_host import close_panel

MODEL = "decomposition-1"
HOUR = 3600.0


def copies(scans: Path, output: Path, count: int) -> dict[str, set[int]]:
    """CTs of the first patients by number, alone, in a folder; the slices that show calcium, by the file's stem."""
    output.mkdir(parents=True)
    visible = {}
    for path in sorted(scans.rglob("truth.json"))[:count]:
        truth = json.loads(path.read_text(encoding="utf-8"))
        name = f"case_{truth['patient']}"
        shutil.copyfile(path.parent / "ct.nii.gz", output / f"{name}.nii.gz")
        visible[name] = {each["k"] for each in truth["slices"] if each["visible"]}
    return visible


def waited(done: Callable[[], bool], what: str) -> None:
    """Until it is done, as the panel sees it."""
    if not eventually(lambda: slicer.app.processEvents() or done(), HOUR):
        raise TimeoutError(f"{what}: not done within an hour")


def annotate(driver: TrainingDriver, visible: dict[str, set[int]], errors: float) -> tuple[int, int, int]:
    """Label all slices of all scans with keys; how many keys, how many of them wrong, how many V."""
    generator = np.random.default_rng(0)
    keys = wrong = shown = 0
    for row, scan in enumerate(driver.project.scans):
        truth = next(slices for name, slices in visible.items() if name in scan.name)
        mistaken: dict[int, bool] = {}

        def label(k: int, truth: set[int] = truth, mistaken: dict[int, bool] = mistaken) -> str:
            mistaken[k] = bool(generator.random() < errors)
            return "V" if (k in truth) != mistaken[k] else "N"

        driver.open_scan(row)
        keys += driver.label_all(label)
        wrong += sum(mistaken.values())
        labels = slice_annotations(driver.project, scan.id, "AB").labels
        shown += sum(said == SliceLabel.VISIBLE for said in labels.values())
    return keys, wrong, shown


def train(driver: TrainingDriver, minutes: float, start: Path | None) -> None:
    """From slice labels alone, compact, as the page of training offers it."""
    from CACTrainingLib.panel.parameters import Network, Preset, TrainMethod

    driver.tab("train")
    state, ui = driver.state, driver.widget.train.ui
    state.trainNetwork, state.trainMethod, state.trainPreset = Network.DECOMPOSITION, TrainMethod.LABELS, Preset.COMPACT
    state.trainMinutes, state.trainSteps, state.trainAnnotator = minutes, 1_000_000, "AB"
    state.trainStart = "" if start is None else str(start.resolve())
    waited(lambda: ui.trainStartButton.enabled, ui.trainCheckLabel.text)
    ui.trainStartButton.click()
    folder = driver.project.models_folder / f"{MODEL}.training"

    def ended() -> bool:
        state = background.state_of(folder)
        if state.state in ("failed", "stopped"):
            raise RuntimeError(f"The training {state.state}: {state.message}")
        return state.state == "done"

    waited(ended, "Training")


def calibrate_and_install(driver: TrainingDriver) -> str:
    """With the buttons; returns what the panel says in the end."""
    driver.tab("evaluate")
    evaluate = driver.widget.evaluate
    ui, card = evaluate.ui, str(driver.project.models_folder / f"{MODEL}.json")
    ui.installModelBox.setCurrentIndex(ui.installModelBox.findData(card))
    ui.calibrateButton.click()
    waited(lambda: not evaluate._worker.isRunning, "Calibration")
    said = ui.installLabel.text
    print(said)
    ui.installButton.click()
    waited(lambda: not evaluate._worker.isRunning, "Installation")
    return ui.installLabel.text


def walk(driver: TrainingDriver, arguments: argparse.Namespace) -> None:
    """All parts, each with its time."""
    start = time.perf_counter()

    def part(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        print(f"{name}: {(now - start) / 60:.1f} minutes", flush=True)
        start = now

    project = arguments.output / "project"
    if project.exists():
        driver.open_project(project)
        driver.annotator("AB")
    else:
        label_scans(driver, arguments, part)
    driver.split(80, 20, 0)
    train(driver, arguments.minutes, arguments.start)
    part("training")
    driver.add(arguments.known)
    driver.split(0, 100, 0)
    print(calibrate_and_install(driver))
    part("calibration and installation")
    card = find_model("decomposition", MODEL).card
    print(json.dumps({"validation": card.validation, "calibration": card.calibration}, indent=1, default=str))
    print(f"steps: {card.training.settings['steps_done']}")


def label_scans(driver: TrainingDriver, arguments: argparse.Namespace, part: Callable[[str], None]) -> None:
    """Make the project, and label it."""
    visible = copies(arguments.scans, arguments.output / "scans", arguments.count)
    driver.new_project(arguments.output / "project")
    driver.add(arguments.output / "scans")
    driver.ui.prepareButton.click()
    waited(lambda: not driver.widget.annotate.prepare._worker.isRunning, "Preparing")
    part(f"{len(driver.project.scans)} scans added, hearts and predictions proposed")
    keys, wrong, shown = annotate(driver, visible, arguments.errors)
    logged = [
        seconds
        for scan in driver.project.scans
        for seconds in slice_annotations(driver.project, scan.id, "AB").seconds.values()
    ]
    part(f"{keys} keys, {wrong} of them wrong, {shown} slices called visible; {sum(logged):.0f} s by the log of keys")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="digital patients to label")
    parser.add_argument("--known", type=Path, required=True, help="digital patients to calibrate on")
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--errors", type=float, default=0.05, help="share of wrong keys")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training")
    parser.add_argument("--start", type=Path, help="card of a model to begin with")
    arguments = parser.parse_args()
    arguments.output = arguments.output.resolve()
    if (arguments.output / "project" / "models" / f"{MODEL}.training").exists():
        parser.error(f"{arguments.output} holds a trained model")
    for name in ("temporary", "installed", "cache"):
        (arguments.output / name).mkdir(parents=True, exist_ok=True)
    os.environ["CAC_MODEL_DIR"] = str(arguments.output / "installed")
    os.environ["XDG_CACHE_HOME"] = str(arguments.output / "cache")
    tempfile.tempdir = str(arguments.output / "temporary")
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_slicers_python_on_the_path(Path(tempfile.mkdtemp()), monkeypatch)
        load_training(monkeypatch)
        driver = TrainingDriver(real=True)
        try:
            walk(driver, arguments)
        finally:
            close_panel("CACTraining")
    return 0


if __name__ == "__main__":
    sys.exit(main())
