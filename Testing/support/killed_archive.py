"""Studies that arrive in an Orthanc while it and the watch on it are killed at random, and what is left in the end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pydicom
from archive_peers import REPORT_CLASS, stub_scorer
from dicom_files import chest_hu, write_series
from orthanc import Orthanc

from CACScoringLib.archive.address import Access, ArchiveError, connect
from CACScoringLib.archive.files import dicom_files
from CACScoringLib.archive.journal import STATES
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.archive.watch import Watch, WatchSettings, opened

IMAGES = 4
SETTLE_SECONDS = 2.0
JOB_SECONDS = 0.05
PATIENCE = 4
"""Times as long as studies arrive it is killed, at most, until all are scored."""


@dataclass(frozen=True)
class Outcome:
    """What the archive holds in the end, and what it took.

    scored_once: series with one report, about all of their images. lost: series without one. repeated: series with
    several. images_lost: CT slices that are not there. begun: scorings begun, those that were killed included.
    """

    studies: int
    scored_once: int
    lost: int
    repeated: int
    images_lost: int
    begun: int
    archive_kills: int
    watch_kills: int
    states: dict[str, int]
    seconds: float


def watch_forever(address: str, output: str, log: str, once: bool) -> None:
    """The process that is killed."""
    settings = WatchSettings(poll_seconds=0.3, settle_seconds=SETTLE_SECONDS, once=once)
    with opened(Path(output), {}) as journal:
        watch = Watch(connect(address, Access()), Path(output), SeriesFilter(), settings, journal, print)
        watch.run(stub_scorer(Path(log), JOB_SECONDS))


class _Watcher:
    """Starts and kills the process of a watch."""

    def __init__(self, address: str, folder: Path) -> None:
        self._words = [sys.executable, __file__, address, str(folder / "watch"), str(folder / "scorings.log")]
        self._said = folder / "watch.log"

    def start(self, *more: str) -> subprocess.Popen:
        with self._said.open("ab") as said:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            return subprocess.Popen([*self._words, *more], stdout=said, stderr=said, env=environment)


def push_studies(address: str, folder: Path, count: int, seconds: float) -> None:
    """Studies that arrive evenly over a time, from a scanner that sends again at once what was not taken."""
    start = time.monotonic()
    archive = connect(address, Access())
    for number in range(count):
        tags = {"PatientID": f"P{number}", "StudyDate": f"2026{number % 12 + 1:02d}{number % 28 + 1:02d}"}
        files = dicom_files(write_series(folder / f"{number:04d}", chest_hu(IMAGES, seed=number), tags=tags))
        time.sleep(max(0.0, start + number * seconds / count - time.monotonic()))
        while True:
            try:
                if archive.store(files):
                    raise RuntimeError("Orthanc refused a CT.")
                break
            except ArchiveError:
                time.sleep(0.2)


def run(folder: Path, protocol: str, studies: int, seconds: float, seed: int = 0, every: float = 9.0) -> Outcome:
    """Let studies arrive, kill, and count. protocol: "dicomweb" or "dimse", of the watch. seconds: of arriving.
    every: seconds between kills, on average."""
    chance, began = random.Random(seed), time.monotonic()
    archive = Orthanc(folder / "orthanc").start()
    address = archive.web_address if protocol == "dicomweb" else archive.dimse_address
    watcher = _Watcher(address, folder)
    process = watcher.start()
    kills: Counter[str] = Counter()
    pusher = threading.Thread(target=push_studies, args=(archive.web_address, folder / "given", studies, seconds))
    try:
        pusher.start()
        while pusher.is_alive() or (_done(folder) < studies and time.monotonic() - began < PATIENCE * seconds):
            time.sleep(chance.uniform(every / 3, every * 5 / 3))
            if chance.random() < 0.7:
                _wait_for_work(folder / "scorings.log")
                time.sleep(chance.uniform(0, 0.6))
            who = chance.choice(("archive", "watch", "watch", "both"))
            if who != "archive":
                process.kill()
                process.wait()
                kills["watch"] += 1
            if who != "watch":
                archive.kill()
                kills["archive"] += 1
                time.sleep(chance.uniform(0, 1.5))
                archive.start()
            if who != "archive":
                process = watcher.start()
        pusher.join()
        process.kill()
        process.wait()
        kills["watch"] += 1
        watcher.start("--once").wait()
        return _outcome(archive, folder, studies, kills, time.monotonic() - began)
    finally:
        process.kill()
        process.wait()
        archive.stop()


def _done(folder: Path) -> int:
    """How many series are done, as the watch's table told it last."""
    table = folder / "watch" / "watch.csv"
    return table.read_text().count(",done,") if table.exists() else 0


def _wait_for_work(log: Path) -> None:
    """Until a scoring begins, so that most kills strike while something is done; at most some seconds."""
    size = log.stat().st_size if log.exists() else 0
    for _ in range(400):
        if log.exists() and log.stat().st_size > size:
            return
        time.sleep(0.02)


def _outcome(archive: Orthanc, folder: Path, studies: int, kills: Counter[str], seconds: float) -> Outcome:
    """As the archive's own interface tells it."""
    reports: Counter[str] = Counter()
    images = 0
    for instance in archive.ask("/instances?expand"):
        tags = archive.ask(f"/instances/{instance['ID']}/tags?short")
        if tags["0008,0016"] == REPORT_CLASS:
            about = tags["0040,a375"][0]["0008,1115"][0]["0020,000e"]
            whole = tags["0008,103e"] == f"CAC, {IMAGES} images"
            reports[about] += 1 if whole else 1000
        else:
            images += 1
    given = [next((folder / "given" / f"{number:04d}").iterdir()) for number in range(studies)]
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in given]
    lines = (folder / "watch" / "watch.csv").read_text().splitlines()[1:]
    states = Counter(state for line in lines for state in STATES if line.split(",")[1] == state)
    return Outcome(
        studies,
        scored_once=sum(reports[uid] == 1 for uid in uids),
        lost=sum(reports[uid] == 0 for uid in uids),
        repeated=sum(reports[uid] > 1 for uid in uids),
        images_lost=studies * IMAGES - images,
        begun=len((folder / "scorings.log").read_text().splitlines()),
        archive_kills=kills["archive"],
        watch_kills=kills["watch"],
        states=dict(states),
        seconds=seconds,
    )


if __name__ == "__main__":
    watch_forever(*sys.argv[1:4], once="--once" in sys.argv)
