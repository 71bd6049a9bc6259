"""A cohort's engine: stub scans at scale, and a real cohort by several workers against a plain loop.

    python Testing/Benchmarks/cohort_cluster.py stubs 2000        # time of the engine per task, memory, with failures
    python Testing/Benchmarks/cohort_cluster.py loop TABLE FOLDER  # cac cohort with 2 workers against a loop

A stub takes a time drawn from 1 to 3 ms; 1 in 100 fails with its reason, 1 in 100 has corrupted input, 1 in 1000 kills
its worker the first time. Say how busy the machine was: the script prints its load.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from CACScoringLib.cohort.cohort import Sharing, score_cohort
from CACScoringLib.cohort.folder import safe_name
from CACScoringLib.cohort.scans import scans_of_table
from CACScoringLib.cohort.scoring import ScanJob, prepare_scoring
from CACScoringLib.cohort.workers import Workers
from CACScoringLib.run import ModelChoice, RunSettings, chosen_models

WORKERS = 2


def stub(marks: Path):
    return partial(do_stub, marks)


def do_stub(marks: Path, number: int) -> str:
    rng = np.random.default_rng(number)
    time.sleep(float(rng.uniform(0.001, 0.003)))
    kind = rng.random()
    if kind < 0.001:
        try:
            (marks / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return "done"
        os._exit(1)
    return "failed" if kind < 0.011 else "corrupted" if kind < 0.021 else "done"


def stubs(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Workers(WORKERS, partial(stub, Path(folder))) as pool:
        list(pool.run([1, 2, 3, 4]))  # the workers have begun
        process, begun = psutil.Process(), time.perf_counter()
        before, cpu = process.memory_info().rss, process.cpu_times()
        lost, results = [], {}
        for event in pool.run(range(count)):
            if event.state == "lost":
                lost.append(event.index)
            elif event.state == "done":
                results[event.index] = event.result
        first = time.perf_counter() - begun
        after = process.cpu_times()
        for event in pool.run(lost, alone=True):
            if event.state == "done":
                results[lost[event.index]] = event.result
    spent = after.user + after.system - cpu.user - cpu.system
    slept = sum(float(np.random.default_rng(number).uniform(0.001, 0.003)) for number in range(count)) / WORKERS
    print(
        f"{count} stubs, {WORKERS} workers, load {os.getloadavg()[0]:.1f}: {first:.1f} s, of which {slept:.1f} s asleep"
    )
    print(
        f"overhead {1000 * (first - slept) / count:.2f} ms a task; "
        f"processor time of client and scheduler {1000 * spent / count:.2f} ms a task"
    )
    grown = process.memory_info().rss - before
    print(f"memory of client and scheduler grew by {grown / 1e6:.1f} MB, {grown / count:.0f} bytes a task")
    kinds = {kind: sum(result == kind for result in results.values()) for kind in ("done", "failed", "corrupted")}
    print(f"killed workers {len(lost)}, then {kinds}; complete: {sorted(results) == list(range(count))}")


def loop(table: Path, output: Path) -> None:
    settings, choice = RunSettings(scene=False), ModelChoice(threshold_only=True)
    scans, _ = scans_of_table(table)
    do = prepare_scoring(settings, chosen_models(choice))
    output.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    for scan in scans:
        do(ScanJob(scan, output / f"loop-{safe_name(scan.name)}", ""))
    plain = time.perf_counter() - begun
    for workers in (1, WORKERS):
        begun = time.perf_counter()
        score_cohort(table, output / f"workers-{workers}", settings, choice, Sharing(workers=workers))
        took = time.perf_counter() - begun
        load = os.getloadavg()[0]
        print(
            f"{len(scans)} scans, {workers} workers: {took:.1f} s, loop {plain:.1f} s, "
            f"{plain / took:.2f} times as fast, load {load:.1f}"
        )


if __name__ == "__main__":
    if sys.argv[1] == "stubs":
        stubs(int(sys.argv[2]))
    else:
        loop(Path(sys.argv[2]), Path(sys.argv[3]))
