"""Processes that change inputs and read them, and are watched meanwhile."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random

import psutil

from .targets import TARGETS

MOST_SECONDS, MOST_WAITING = 20, 300
"""Of the processor's time, and of the clock's, for one input."""

MOST_BYTES = 400 * 2**20
"""That memory may grow by for one input; the scans have 0.2 MB."""


def work(ends: Connection, folder: Path) -> None:
    """Do what comes by a connection, (target, number), and send back what was done and what is wrong."""
    sound: dict[str, Path] = {}
    process = psutil.Process()
    while (task := ends.recv()) is not None:
        name, number = task
        if name not in sound:
            sound[name] = folder / name / "sound"
            sound[name].mkdir(parents=True)
            TARGETS[name].prepare(sound[name])
        trial = folder / name / f"{number}"
        before = process.memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        done, wrong = TARGETS[name].trial(sound[name], trial, Random(f"{name} {number}"))
        grown = _peak_bytes() - before
        if not wrong and grown > MOST_BYTES:
            wrong = f"took {grown / 2**20:.0f} MB"
        shutil.rmtree(trial)
        ends.send((done, wrong))


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


class Worker:
    """A process that does one task after another, and is watched."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cac-fuzz-"))
        self.ends, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=work, args=(other, self.folder), daemon=True)
        self.process.start()
        other.close()
        self.task: tuple[str, int] | None = None

    def begin(self, task: tuple[str, int]) -> None:
        self.task, self.begun = task, time.monotonic()
        self.used = self._seconds()
        self.ends.send(task)

    def answer(self) -> tuple[str, str] | None:
        """What was done and what is wrong; None while it is at work."""
        try:
            if self.ends.poll():
                return self.ends.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return "", f"the process ended ({self.process.exitcode})"
        used, waited = self._seconds() - self.used, time.monotonic() - self.begun
        if used > MOST_SECONDS or waited > MOST_WAITING:
            self.process.kill()
            return "", f"hangs: {used:.0f} s of the processor, {waited:.0f} s"
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _seconds(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system


def answers(tasks: Iterator[tuple[str, int]], workers: int) -> Iterator[tuple[str, int, str, str]]:
    """Target, number, what was done and what is wrong, of each task as it ends."""
    at_work: list[Worker] = []
    more = True
    while more or at_work:
        while more and len(at_work) < workers:
            at_work.append(Worker())
        for worker in list(at_work):
            if worker.task is not None:
                answer = worker.answer()
                if answer is None:
                    continue
                yield *worker.task, *answer
                worker.task = None
            task = next(tasks, None) if worker.process.is_alive() else None
            if task is None:
                more &= not worker.process.is_alive()
                worker.end()
                at_work.remove(worker)
            else:
                worker.begin(task)
        wait([worker.ends for worker in at_work], timeout=0.5)
