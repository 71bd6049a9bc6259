"""Measure how long the scoring panel blocks Slicer when scoring begins, and while the result is loaded.

Run from the repository's root, on a machine that is otherwise idle:

    export QT_QPA_PLATFORM=offscreen
    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/panel_speed.py CT RESULT
        [--runs 5]

CT is an image file, RESULT the folder that `cac score CT --output RESULT` wrote. The panel is driven in the desktop
host, with a process that copies RESULT instead of scoring. Times are of one round of Qt's events on the GUI thread,
without drawing the views; CPU is that thread's. Goal: none above 0.1 s. For another version of the source, set
PYTHONPATH to it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pytest
import SimpleITK as sitk
import slicer
from panel_driver import Driver

import desktop_host
from CACScoringLib.mrml.scene import add_volume


class Rounds:
    """Seconds and CPU seconds of each round of events."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def run(self, action) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        action()
        self.seconds.append(time.perf_counter() - wall)
        self.cpu.append(time.thread_time() - cpu)


def one_run(ct: sitk.Image, result: Path) -> tuple[Rounds, Rounds, float]:
    """Rounds from the click to the worker's start, rounds from its end, and total seconds of the latter."""
    driver = Driver()
    driver.ui.inputSelector.setCurrentNode(add_volume(slicer.mrmlScene, ct, "CT"))
    slicer.app.processEvents()
    button_rounds = Rounds()
    button_rounds.run(driver.ui.scoreButton.click)
    while driver.process.arguments is None:
        button_rounds.run(slicer.app.processEvents)
    driver.process.write_result(folder=result)
    rounds, start = Rounds(), time.perf_counter()
    rounds.run(lambda: driver.process.end(0))
    while driver.widget.scorer.isRunning:
        rounds.run(slicer.app.processEvents)
    for _ in range(5):  # what the panel does a moment later
        time.sleep(0.03)
        rounds.run(slicer.app.processEvents)
    total = time.perf_counter() - start
    desktop_host.close_panel("CACScoring")
    slicer.mrmlScene.Clear(0)
    return button_rounds, rounds, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    ct = sitk.ReadImage(str(arguments.ct))
    with pytest.MonkeyPatch.context() as monkeypatch:
        desktop_host.load_panel(monkeypatch, "CACScoring")
        # The first run loads the libraries.
        runs = [one_run(ct, arguments.result) for _ in range(arguments.runs + 1)][1:]
    print(f"{'×'.join(map(str, ct.GetSize()))} voxels, {arguments.runs} runs; median (highest), s")
    for name, values in {
        "longest round at the beginning": [max(rounds.seconds) for rounds, _, _ in runs],
        "its CPU": [max(rounds.cpu) for rounds, _, _ in runs],
        "longest round at the end": [max(rounds.seconds) for _, rounds, _ in runs],
        "CPU of that": [max(rounds.cpu) for _, rounds, _ in runs],
        "from the process's end to the scene": [total for _, _, total in runs],
    }.items():
        print(f"  {name:36} {statistics.median(values):.3f} ({max(values):.3f})")


if __name__ == "__main__":
    main()
