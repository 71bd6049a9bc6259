"""Jobs shared out to processes, where one that is killed loses its own job and no other.

`concurrent.futures` gives up all jobs when the system ends one process, and cannot tell whose job it was.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ..core.ct import CTError
from ..core.processes import available_memory_bytes, core_count

END_SECONDS = 10.0
"""How long a worker that was told to end may take, before it is killed."""


class WorkerError(CTError):
    """No worker can do any job."""


@dataclass(frozen=True)
class JobEvent:
    """state "begun", "done" (with the result) or "lost": its process ended, with this exit code (negative: signal)."""

    index: int
    state: str
    result: Any = None
    exit_code: int | None = None


class Workers:
    """Processes that each prepare once and then do one job after the other.

    prepare(), called in each process, returns the function that does a job; both have to be importable or picklable.
    budget: what the jobs at work may need together, in the unit of their needs (see `run`); None for no limit.
    A CTError that prepare raises is raised by `run`. Used with `with`: leaving ends all processes, those at work too
    (SIGTERM, so that their `finally` blocks run). Where this process is killed, each finishes its job.
    """

    def __init__(self, count: int, prepare: Callable[[], Callable[[Any], Any]], budget: int | None = None) -> None:
        self._count = count
        self._prepare = prepare
        self._budget = budget
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.tell_to_end()
        for worker in self._workers:
            worker.process.join(END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def run(self, jobs: Sequence[Any], needs: Sequence[int] | None = None) -> Iterator[JobEvent]:
        """Do the jobs and tell what becomes of each: "begun", then "done" or "lost".

        needs: of each job; it waits until the jobs at work leave so much of the budget. One job is always at work.
        Raises WorkerError when no process gets as far as its first job, and what `prepare` raises.
        """
        waiting = deque(range(len(jobs)))
        while waiting or any(worker.job is not None for worker in self._workers):
            while len(self._workers) < min(self._count, len(waiting) + sum(w.job is not None for w in self._workers)):
                self._workers.append(_Worker(self._prepare))
            for worker in self._workers:
                if worker.ready and worker.job is None and (index := self._next(waiting, needs)) is not None:
                    waiting.remove(index)
                    worker.take(index, jobs[index])
                    yield JobEvent(index, "begun")
            told = wait([worker.pipe for worker in self._workers])
            for worker in [w for w in self._workers if w.pipe in told]:
                yield from self._listen(worker)

    def _next(self, waiting: Sequence[int], needs: Sequence[int] | None) -> int | None:
        """The first waiting job for which the budget has room; any of them when none is at work."""
        if self._budget is None or needs is None:
            return next(iter(waiting), None)
        at_work = [needs[worker.job] for worker in self._workers if worker.job is not None]
        room = self._budget - sum(at_work)
        return next((index for index in waiting if not at_work or needs[index] <= room), None)

    def _listen(self, worker: _Worker) -> Iterator[JobEvent]:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join()
            worker.pipe.close()
            if worker.job is not None:
                yield JobEvent(worker.job, "lost", exit_code=worker.process.exitcode)
            elif not worker.ready:
                # One less may fit into memory; another one would probably fare as this did.
                self._count -= 1
                if self._count == 0:
                    code = worker.process.exitcode
                    raise WorkerError(
                        f"No process could begin its work (the last one ended with code {code})."
                    ) from None
            return
        if kind == "broken":
            raise content
        if kind == "ready":
            worker.ready = True
        else:
            index, worker.job = worker.job, None
            yield JobEvent(index, "done", content)


class _Worker:
    """One process, from the outside. job: index of what it does, None when idle."""

    def __init__(self, prepare: Callable) -> None:
        # Spawned, because a fork of a process that has threads may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs, prepare), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.ready = False
        self.job: int | None = None

    def take(self, index: int, job: Any) -> None:
        self.job = index
        with suppress(OSError):  # it may just have died, which its pipe tells next
            self.pipe.send(job)

    def tell_to_end(self) -> None:
        self.pipe.close()
        if self.job is not None or not self.ready:
            self.process.terminate()


def _work(pipe: Connection, prepare: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent tells whom to end
    signal.signal(signal.SIGTERM, _end)
    try:
        try:
            do = prepare()
        except CTError as error:
            pipe.send(("broken", error))
            return
        pipe.send(("ready", None))
        while True:
            pipe.send(("done", do(pipe.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent needs no more, or is gone


def _end(signal_number: int, frame: object) -> None:
    sys.exit(128 + signal_number)


def sensible_count(memory_each_bytes: int) -> int:
    """How many processes to use: one per core this process may use, as far as memory goes; at least one."""
    return max(1, min(core_count(), available_memory_bytes() // memory_each_bytes))
