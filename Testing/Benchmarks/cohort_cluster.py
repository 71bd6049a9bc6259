"""A cohort's engine: stub scans at scale, and a real cohort by several workers against a plain loop.

    python Testing/Benchmarks/cohort_cluster.py stubs 2000                  # time and memory per scan, with failures
    python Testing/Benchmarks/cohort_cluster.py stubs 2000 tcp://HOST:PORT  # the same by workers of a scheduler
    python Testing/Benchmarks/cohort_cluster.py loop TABLE FOLDER [ROUNDS]  # cac cohort with 2 workers against a loop
    python Testing/Benchmarks/cohort_cluster.py loop TABLE FOLDER ROUNDS full

A stub sleeps for 1 to 3 ms and writes a small result; 1 in 100 fails with its reason, 1 in 100 has corrupted input, 1
in 1000 kills its worker the first time. Everything else is what `cac cohort` does. Say how busy the machine was: the
script prints its load, and measures in alternation.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from small_scans import write_scans

from CACScoringLib.cohort import cohort
from CACScoringLib.cohort.cluster import cluster_choice
from CACScoringLib.cohort.cohort import Sharing, score_cohort
from CACScoringLib.cohort.scans import scans_of_table
from CACScoringLib.cohort.scoring import ScanJob, ScanOutcome, ScanRecord, prepare_scoring, write_record
from CACScoringLib.core.output import LAST_FILE
from CACScoringLib.core.progress import Progress, ScanState
from CACScoringLib.run import ModelChoice, RunSettings, chosen_models

WORKERS = 2
TEMPLATE = "template.json"


def kind_of(number: int) -> str:
    part = float(np.random.default_rng(number).random())
    return "killed" if part < 0.001 else "failed" if part < 0.011 else "corrupted" if part < 0.021 else "done"


def prepare_stub(settings: RunSettings, models: object, fetch: object):
    template = ""

    def do(job: ScanJob) -> ScanOutcome:
        begun, number = time.perf_counter(), int(job.scan.name)
        nonlocal template
        template = template or (job.folder.parent.parent / TEMPLATE).read_text(encoding="utf-8")
        time.sleep(float(np.random.default_rng(number + 1).uniform(0.001, 0.003)))
        kind = kind_of(number)
        if kind == "killed":
            try:
                (job.folder.parent / f".killed-{number}").touch(exist_ok=False)
                os._exit(1)
            except FileExistsError:
                pass
        elif kind != "done":
            return ScanOutcome(reason=f"The scan is {kind}.")
        content = json.loads(template)  # of its own: the worker keeps it until the client has fetched it
        content["methods"]["threshold"]["total"]["agatston"] = float(number)
        job.folder.mkdir(exist_ok=True)  # a job is done again where its worker dies before its result was fetched
        record = ScanRecord("", "", job.settings, round(time.perf_counter() - begun, 4))
        write_record(job.folder, record)
        (job.folder / LAST_FILE).write_text(json.dumps(content), encoding="utf-8")
        return ScanOutcome(content, record)

    return do


class Clock(Progress):
    """When the first scan began and the last ended, and ten times in between what was taken until then."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = 0.0, 0.0
        self._process = psutil.Process()

    def counted(self, done: int, total: int) -> None:
        if done % max(1, total // 10) == 0 and self.begun:
            spent, memory = self._process.cpu_times(), self._process.memory_info().rss
            print(
                f"  {done} after {time.perf_counter() - self.begun:.0f} s, {spent.user + spent.system:.0f} s of "
                f"processors, {memory / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )

    def scan(self, state: ScanState) -> None:
        if state.state == "running":
            self.begun, self.ended = self.begun or time.perf_counter(), time.perf_counter()


def stubs(count: int, cluster: str = "local") -> None:
    import pyarrow.parquet as pq

    cohort.prepare_scoring = prepare_stub
    with tempfile.TemporaryDirectory() as place:
        folder, output = Path(place), Path(place) / "out"
        [scan], _ = scans_of_table(write_scans(folder / "scans", 1))
        do = prepare_scoring(RunSettings(scene=False), chosen_models(ModelChoice(threshold_only=True)))
        (folder / TEMPLATE).write_text(json.dumps(do(ScanJob(scan, folder / "one", "")).content), encoding="utf-8")
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["ct", "name"], *([f"{i}.nii.gz", i] for i in range(count))])
        process, clock, settings = psutil.Process(), Clock(), RunSettings(scene=False)
        before, cpu, begun = process.memory_info().rss, process.cpu_times(), time.perf_counter()
        sharing = Sharing(cluster_choice(cluster), WORKERS)
        score_cohort(folder / "table.csv", output, settings, ModelChoice(threshold_only=True), sharing, progress=clock)
        took, after = time.perf_counter() - begun, process.cpu_times()
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slept = 0.002 * count / WORKERS
        load = os.getloadavg()[0]
        print(f"{count} stubs, {WORKERS} workers, {cluster}, load {load:.1f}: {took:.1f} s, {slept:.1f} s asleep")
        spent = after.user + after.system - cpu.user - cpu.system
        print(
            f"  {clock.begun - begun:.1f} s until the first, {begun + took - clock.ended:.1f} s after the last, "
            f"between {1000 * (clock.ended - clock.begun - slept) / count:.2f} ms a scan beside its sleep; "
            f"processor time of client and scheduler {1000 * spent / count:.2f} ms a scan"
        )
        print(f"  memory of client and scheduler: peak {peak / 1e6:.0f} MB, {(peak - before) / count:.0f} bytes a scan")
        kinds = [kind_of(i) for i in range(count)]
        scans = pq.read_table(output / "scans.parquet").to_pydict()
        scores = pq.read_table(output / "scores.parquet", columns=["scan", "method", "artery", "agatston"]).to_pylist()
        totals = [s["agatston"] for s in scores if (s["method"], s["artery"]) == ("threshold", "total")]
        fine = [float(i) for i, kind in enumerate(kinds) if kind in ("done", "killed")]
        whole = len(set(scans["scan"])) == count and sorted(totals) == fine
        whole = whole and scans["state"].count("failed") == count - len(fine)
        print(f"  {len(set(scans['scan']))} scans, {len(totals)} scores of {len(fine)}; {Counter(scans['reason'])}")
        with (output / "cohort.csv").open(encoding="utf-8", newline="") as stream:
            rows = [(int(row["name"]), row["state"]) for row in csv.DictReader(stream)]
        states = [(i, "done" if kind in ("done", "killed") else "failed") for i, kind in enumerate(kinds)]
        print(
            f"  killed {kinds.count('killed')}, failed {count - len(fine)}; tables complete: {whole and rows == states}"
        )
        begun = time.perf_counter()
        again(folder / "table.csv", output, settings)
        print(f"  the same command again, nothing to do but {count - len(fine)} failures: ", end="")
        print(f"{time.perf_counter() - begun:.1f} s; size of the tables ", end="")
        print(
            ", ".join(f"{f.name} {f.stat().st_size / count:.0f}" for f in sorted(output.glob("[!.]*.*"))),
            "bytes a scan",
        )


def again(table: Path, output: Path, settings: RunSettings) -> None:
    score_cohort(table, output, settings, ModelChoice(threshold_only=True), Sharing(workers=WORKERS))


def part_of_loop(scans: list, folder: Path, choice: ModelChoice) -> None:
    do = prepare_scoring(RunSettings(scene=False), chosen_models(choice))
    for index, scan in enumerate(scans):
        outcome = do(ScanJob(scan, folder / f"scan-{index}", ""))
        assert outcome.reason is None, outcome.reason


def processor_seconds() -> float:
    """Of this process and of those that it began and that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def in_processes(parts: list, folder: Path, choice: ModelChoice) -> tuple[float, float]:
    """Seconds that plain loops take, a process each; and of processors."""
    shutil.rmtree(folder, ignore_errors=True)
    begun, before = time.perf_counter(), processor_seconds()
    context = get_context("spawn")
    runs = [context.Process(target=part_of_loop, args=(part, folder / f"p{i}", choice)) for i, part in enumerate(parts)]
    for i, run in enumerate(runs):
        (folder / f"p{i}").mkdir(parents=True)
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    return time.perf_counter() - begun, processor_seconds() - before


def loop(table: Path, output: Path, rounds: int, full: bool) -> None:
    choice = ModelChoice(threshold_only=not full)
    scans, _ = scans_of_table(table)
    print(f"{len(scans)} scans, {'full method' if full else 'clinical rule'}; seconds with starting of processes; load")
    print("round  loop  two loops beside each other  cohort, 2 workers  quotient  load before and after")
    quotients, ideal = [], []
    for number in range(rounds):
        loads = [os.getloadavg()[0]]
        one, alone = in_processes([scans], output / "loop", choice)
        two, _ = in_processes([scans[::2], scans[1::2]], output / "loops", choice)
        shutil.rmtree(output / "cohort", ignore_errors=True)
        begun, before = time.perf_counter(), processor_seconds()
        score_cohort(table, output / "cohort", RunSettings(scene=False), choice, Sharing(workers=WORKERS))
        took, spent = time.perf_counter() - begun, processor_seconds() - before
        loads.append(os.getloadavg()[0])
        quotients.append(one / took)
        ideal.append(one / two)
        print(f"{number}  {one:.1f}  {two:.1f}  {took:.1f}  {one / took:.2f}  ", *loads, flush=True)
        print(f"   seconds of processors: loop {alone:.1f}, cohort {spent:.1f}", flush=True)
    print(
        f"median: {statistics.median(quotients):.2f} times as fast as a loop; "
        f"two loops beside each other, which have no engine: {statistics.median(ideal):.2f} times"
    )


if __name__ == "__main__":
    if sys.argv[1] == "stubs":
        stubs(int(sys.argv[2]), *sys.argv[3:])
    else:
        loop(Path(sys.argv[2]), Path(sys.argv[3]), int((*sys.argv, "", "3")[4] or 3), "full" in sys.argv)
