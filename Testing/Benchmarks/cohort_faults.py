"""Random faults during a cohort: are its tables at the end those of an undisturbed run?

    python Testing/Benchmarks/cohort_faults.py FOLDER FAULTS [SEED [FIRST]]    # as root, for folders that are mounted

In each campaign a cohort of small scans, two of them broken, is scored by `cac cohort` with two workers into a folder
of its own; faults come at random times, and the command is begun again whenever it ended. A campaign ends with a run
that nobody disturbs. In every second campaign the workers belong to a scheduler of their own.

worker, client, scheduler: killed. full: no space is left for some seconds. gone-input, gone-output: the folder is
unmounted for some seconds. second: another client begins on the same folder. clock: a scan gets a date up to ten years
off. What a campaign gave is printed as it ends. FIRST: number of the first campaign (1), to go on after others of the
same folder and seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from small_scans import write_scans

SCANS, BROKEN, FAULTS_EACH = 40, 2, 10
DISK_BYTES = 64 << 20
KINDS = ("worker", "client", "full", "gone-input", "gone-output", "second", "clock", "scheduler")
RUN_SECONDS = 900.0


class Campaign:
    """A cohort that is disturbed."""

    def __init__(self, folder: Path, source: Path, of_address: bool, rng: random.Random) -> None:
        self.folder, self.rng, self.of_address = folder, rng, of_address
        self.input, self.disk, self.output = folder / "input", folder / "disk", folder / "output"
        for place in (self.input, self.disk, self.output):
            place.mkdir(parents=True)
        self.source = source
        mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", self.disk)
        mount("--bind", self.source, self.input)
        mount("--bind", self.disk, self.output)
        self.cluster: list[subprocess.Popen] = []
        self.client: subprocess.Popen | None = None
        self.log = (folder / "log.txt").open("wb")
        if of_address:
            self.begin_cluster()

    def begin_cluster(self) -> None:
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        dask = (sys.executable, "-m")
        end = {"stdout": self.log, "stderr": self.log}
        scheduler = (*dask, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        one = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        self.cluster = [subprocess.Popen([*scheduler, "--scheduler-file", file], env=one, **end)]
        while not file.exists():
            time.sleep(0.5)
        worker = (*dask, "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard")
        self.cluster += [subprocess.Popen(worker, **end) for _ in range(2)]

    def command(self) -> list:
        run = [sys.executable, "-m", "CACTrainingLib.cli", "cohort", self.input / "table.csv", "--output"]
        run += [self.output, "--threshold-only", "--no-healthy", "--workers", "2", "--progress", "json"]
        if self.of_address:
            run += ["--cluster", json.loads((self.folder / "scheduler.json").read_text())["address"]]
        return run

    def begin(self) -> None:
        if self.client is None or self.client.poll() is not None:
            self.client = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log)

    def finish(self) -> int:
        """Wait for the client, with nothing disturbed; its exit code."""
        assert self.client is not None
        try:
            return self.client.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            kill(self.client.pid)
            return -999

    def disturb(self, kind: str) -> str:  # noqa: C901 - a branch per kind
        """Do a fault; returns what is told of it beside its kind."""
        rng = self.rng
        if kind == "worker":
            roots = self.cluster[1:] or [self.client]
            found = [p for root in roots if root for p in descendants(root.pid) if "spawn_main" in " ".join(command(p))]
            if not found:
                return "no worker yet"
            found[rng.randrange(len(found))].kill()
        elif kind == "client":
            assert self.client is not None
            self.client.kill()
            self.client.wait()
        elif kind == "scheduler":
            if not self.of_address:
                return "none of its own"
            for process in self.cluster:
                kill(process.pid)
            self.begin_cluster()
        elif kind == "full":
            filler = self.disk / ".filler"
            with suppress(OSError), filler.open("wb") as stream:
                while True:
                    stream.write(bytes(1 << 16))
                    stream.flush()
            time.sleep(rng.uniform(1, 5))
            filler.unlink(missing_ok=True)
        elif kind.startswith("gone"):
            place, of = (self.input, self.source) if kind == "gone-input" else (self.output, self.disk)
            subprocess.run(["umount", "-l", place], check=True)
            time.sleep(rng.uniform(1, 5))
            mount("--bind", of, place)
        elif kind == "second":
            code = subprocess.run(self.command(), stdout=self.log, stderr=self.log, timeout=RUN_SECONDS).returncode
            return f"exit code {code}"
        elif kind == "clock":
            scan = self.source / f"scan-{rng.randrange(SCANS - BROKEN)}.nii.gz"
            when = time.time() + rng.uniform(-1, 1) * 3.15e8
            os.utime(scan, (when, when))
        return ""

    def close(self) -> None:
        for process in (*self.cluster, self.client):
            if process:
                kill(process.pid)
        for place in (self.input, self.output, self.disk):
            subprocess.run(["umount", "-l", place], check=False)
        self.log.close()


def mount(*what: object) -> None:
    subprocess.run(["mount", *what], check=True)


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def descendants(number: int) -> list[psutil.Process]:
    try:
        return psutil.Process(number).children(recursive=True)
    except psutil.Error:
        return []


def kill(number: int) -> None:
    from CACScoringLib.core.processes import kill_tree

    kill_tree(number)


def tables(output: Path) -> dict[str, object]:
    """What the tables hold, without times and memory."""
    import csv

    import pyarrow.parquet as pq

    changing = {"seconds", "wall_seconds", "peak_memory_bytes"}
    found: dict[str, object] = {}
    for name in ("scans", "scores", "lesions"):
        rows = pq.read_table(output / f"{name}.parquet").to_pylist()
        found[name] = sorted(repr({k: v for k, v in row.items() if k not in changing}) for row in rows)
    with (output / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found["cohort"] = [{k: v for k, v in row.items() if k not in {*changing, "ct", "reason"}} for row in rows]
    found["reasons"] = [bool(row["reason"]) for row in rows]
    found["files"] = sorted(
        str(path.relative_to(output)) for path in output.rglob("*") if path.name not in (".cohort.lock", ".filler")
    )
    return found


def campaign(folder: Path, number: int, rng: random.Random, kinds: list[str], expected: dict | None) -> dict | None:
    """Run one and say what it gave. expected: tables of an undisturbed run; None for that run itself."""
    shutil.rmtree(folder / f"c{number}", ignore_errors=True)
    scans = folder / f"c{number}" / "scans"
    write_scans(scans, SCANS, BROKEN)
    one = Campaign(folder / f"c{number}", scans, number % 2 == 1, rng)
    told, begun = [], time.time()
    try:
        one.begin()
        for kind in kinds:
            time.sleep(rng.uniform(1, 20))
            ended = one.client.poll()
            one.begin()
            told.append((kind, one.disturb(kind), ended))
        code = one.finish()
        one.begin()
        code = one.finish()
        found = tables(one.output)
    finally:
        one.close()
    differing = [name for name in found if expected is not None and found[name] != expected[name]]
    states = Counter(row["state"] for row in found["cohort"])
    print(
        f"campaign {number} ({'scheduler' if number % 2 else 'local'}): {told}; last exit code {code}, {dict(states)}; "
        f"differing from the undisturbed: {differing or 'nothing'}; {time.time() - begun:.0f} s, "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for name in differing:
        if isinstance(found[name], list):
            odd = [row for row in found[name] if row not in expected[name]]
            lacking = [row for row in expected[name] if row not in found[name]]
            print("  ", name, "only here:", odd[:2], "; only undisturbed:", lacking[:2], flush=True)
    return found


def main(folder: Path, faults: int, seed: int, number: int) -> None:
    kept = folder / "undisturbed.json"
    if not kept.exists():
        undisturbed = campaign(folder, 0, random.Random(seed), [], None)
        kept.write_text(json.dumps(undisturbed), encoding="utf-8")
    expected, done = json.loads(kept.read_text(encoding="utf-8")), 0
    while done < faults:
        rng = random.Random(seed + number)
        kinds = [rng.choice(KINDS if number % 2 else KINDS[:-1]) for _ in range(min(FAULTS_EACH, faults - done))]
        campaign(folder, number, rng, kinds, expected)
        number, done = number + 1, done + len(kinds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(int, (*sys.argv, *("1", "1")[len(sys.argv) - 3 :])[3:5]))
