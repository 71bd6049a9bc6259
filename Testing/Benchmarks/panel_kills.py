"""The panel's background process killed at random moments (SIGKILL): the panel tells so, and can do it again.

Run from the repository's root, on Linux:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/panel_kills.py [--count 50]
        [--minutes M] [--seed 0]

In the stand-in of the desktop a chest is scored, and its reviewed result exported as DICOM, by the process that the
panel starts: Slicer's launcher, and Python as its child. After a random part of the usual time the child alone or both
are killed. Wrong is: a panel that waits on, says nothing, or shows a result of a run that was killed; a scene that has
changed; an export that is neither whole nor absent; folders of the job left behind (they hold the patient's images).
In the end both are done once more without a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dicom_results
import psutil
import pydicom
import pytest
import slicer
from panel_driver import Driver, put_slicers_python_on_the_path

import desktop_host
from CACScoringLib.core.processes import kill_tree
from CACScoringLib.io.reading import read_ct
from CACScoringLib.mrml import scene as mrml


def until(done: Callable[[], bool], seconds: float) -> bool:
    """Let the panel work until something is so, at most so long; returns whether it is."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)
    slicer.app.processEvents()
    return done()


def kill(worker: object, launcher_too: bool) -> bool:
    """End what a worker has started; returns whether it was still at work, and not the panel with its result."""
    launcher = worker._process._process.processId()
    children = psutil.Process(launcher).children(recursive=True) if launcher else []
    if launcher_too and children:
        kill_tree(launcher)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    return bool(children)


class Scoring:
    """By the button of the panel, in the heart of a result that is there."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        driver.score()
        driver.state.inputHeart, driver.state.inputHeartSegment = driver.review.nodes.heart, "heart"
        self.driver, self.worker = driver, driver.widget.logic._worker
        self.worker._process = None  # that of the desktop

    def begin(self) -> None:
        self.nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.driver.ui.scoreButton.click()

    @property
    def busy(self) -> bool:
        return self.driver.widget.logic.isRunning

    def wrong(self, killed: bool) -> str:
        """What is wrong with the end."""
        said = self.driver.ui.statusLabel.text
        if not killed:
            return "" if said == "Done." and self.driver.review is not None else f"not done: {said}"
        if slicer.mrmlScene.GetNumberOfNodes() != self.nodes:
            return "the scene has changed"
        return "" if "worker ended with code" in said else f"it says: {said}"


class Export:
    """As DICOM."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.worker, self.folder = driver, driver.widget.dicom._worker, folder / "out"
        self.folder.mkdir(exist_ok=True)
        driver.ui.databaseBox.setChecked(False)
        driver.widget.dicom._askForFolder = lambda: str(self.folder)
        driver.ui.reviewedBox.click()
        driver.settle()

    def begin(self) -> None:
        self.before = set(self.folder.iterdir())
        self.driver.ui.dicomButton.click()

    @property
    def busy(self) -> bool:
        return self.worker.isRunning

    def wrong(self, killed: bool) -> str:
        """What is wrong with the end."""
        said = self.driver.ui.dicomLabel.text
        new = [path for path in self.folder.iterdir() if path not in self.before and not path.name.startswith(".")]
        if not killed:
            return "" if new and "were written" in said else f"not done: {said}"
        if new and not (new[0] / "measurements.dcm").exists():
            return f"half an export: {sorted(path.name for path in new[0].iterdir())}"
        return "" if "worker ended with code" in said else f"it says: {said}"


def measure(name: str, job: Scoring | Export, count: int, minutes: float, place: Path, generator: random.Random) -> int:
    """Kill a job so often, and do it once more. Returns how many ends were wrong."""
    begun = time.monotonic()
    job.begin()
    assert until(lambda: not job.busy, 300), "fails undisturbed"
    usual = time.monotonic() - begun
    assert not job.wrong(killed=False), job.wrong(killed=False)
    wrong = kills = ended = 0
    while kills < count and time.monotonic() < begun + 60 * minutes:
        job.begin()
        if until(lambda: not job.busy, generator.uniform(0.05, 1.0) * usual):
            ended += 1
            complaint = job.wrong(killed=False)
        else:
            killed = kill(job.worker, launcher_too=generator.random() < 0.5)
            complaint = "" if until(lambda: not job.busy, 30) else "the panel waits on"
            killed = killed and bool(job.wrong(killed=False))  # else it came when all was done
            kills, ended = kills + killed, ended + (not killed)
            complaint = complaint or job.wrong(killed)
        if not complaint and (left := [*place.glob("cac-scoring-*"), *place.glob("cac-dicom-*")]):
            complaint = f"left behind: {left}"
        wrong += bool(complaint)
        if complaint:
            print(f"  {name}: {complaint}", flush=True)
    job.begin()
    assert until(lambda: not job.busy, 300)
    last = job.wrong(killed=False)
    figures = f"{kills} kills, {ended} ended before, {wrong} wrong"
    print(f"panel, {name} ({usual:.1f} s): {figures}; again: {last or 'done'}", flush=True)
    return wrong + bool(last)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="of each of both")
    parser.add_argument("--minutes", type=float, default=600.0, help="at most, of each of both")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, wrong = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory(prefix="cac-panel-kills-") as folder, pytest.MonkeyPatch.context() as monkeypatch:
        place = Path(folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        put_slicers_python_on_the_path(place, monkeypatch)
        desktop_host.load_panel(monkeypatch, "CACScoring", main_window=False)
        given = dicom_results.chest_series(place / "chest")
        from DICOMLib import DICOMUtils

        slicer.dicomDatabase.openDatabase(str(place / "database" / "ctkDICOM.sql"))
        assert DICOMUtils.importDicom(str(given.ct))
        node = mrml.add_volume(slicer.mrmlScene, read_ct(given.ct).image, "chest")
        files = sorted(given.ct.iterdir())
        uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files]
        node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
        driver = Driver()
        driver.state.method = type(driver.state.method).CLINICAL_RULE
        for name, job in (("scoring", Scoring), ("export as DICOM", Export)):
            own = job(driver, place)
            wrong += measure(name, own, arguments.count, arguments.minutes, place, generator)
        desktop_host.close_panel("CACScoring")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
