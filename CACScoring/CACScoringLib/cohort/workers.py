"""Jobs shared out to the workers of a Dask cluster, where a worker that dies loses its own job and no other.

A job is a task of `distributed`. As many are handed over as there are workers to do them, so that a million jobs take
no memory of the scheduler, and the death of a worker is put down to the job that it did. Each worker prepares once.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from ..core.ct import ScanWarning
from ..core.processes import available_memory_bytes, core_count
from .cluster import ClusterError, chosen_cluster, start_cluster

SCAN_BYTES = 3_000_000_000
"""What a process may take that scores a chest CT of 512 × 512 × 300 voxels with all networks."""

LOOK_SECONDS = 2.0
"""Between two looks at which workers there are."""

USUAL_WORKERS = 16
"""How many are asked for of a batch system where nobody says how many."""

FETCH_SECONDS = 10.0
"""How long the result of a job that is done may take to arrive."""

GONE_SECONDS = 60.0
"""How long a scheduler may be out of reach before the run is given up."""

ARRIVAL_SECONDS = 60.0
"""How long no worker may arrive without a warning."""

CONNECT_TRIALS = 5
"""How often a client asks a scheduler whose greeting does not come alone."""

_DIED = "The worker process ended; systems end processes when memory runs out."
_GONE = "The scheduler is gone. What is done is kept; run the same command again to continue."


@dataclass(frozen=True)
class JobEvent:
    """state "begun", "done" (with the result) or "lost": its worker died; reason: what is known of its death."""

    index: int
    state: str
    result: Any = None
    reason: str = ""


class Workers:
    """Workers that each prepare once and then do one job after the other.

    prepare(), called in each worker, returns the function that does a job; both have to be importable or picklable.
    They are those of `cluster.chosen_cluster`. memory_bytes: of all workers together on this machine; None for
    no limit. warn: called where no worker arrives. What prepare or a job raises is raised by `run`.
    Used with `with`: leaving ends all workers that were begun here; jobs that are at work elsewhere are left to end.
    """

    def __init__(
        self,
        count: int | None,
        prepare: Callable[[], Callable[[Any], Any]],
        memory_bytes: int | None = None,
        warn: Callable[[ScanWarning], None] | None = None,
    ) -> None:
        self._count, self._prepare, self._memory = count, prepare, memory_bytes
        self._choice, self._warn = chosen_cluster(), warn
        self._stack = ExitStack()
        self._alone = False
        self._client: Any = None
        self._cluster: Any = None
        self._places, self._looked = 0, 0.0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._client = None

    def run(self, jobs: Sequence[Any], alone: bool = False) -> Iterator[JobEvent]:
        """Do the jobs and yield what becomes of each: "begun", then "done" or "lost".

        Args:
            jobs: What each is given; picklable.
            alone: On this machine one worker has all the memory, and does one job at a time.

        Raises:
            ClusterError: There is no cluster, its scheduler is gone, its workers cannot load CAC, or all the first jobs
                ended their workers.
        """
        if not jobs:
            return
        import cloudpickle

        self._connect(min(self._count or USUAL_WORKERS, len(jobs)), alone)
        prepared = cloudpickle.dumps(self._prepare)
        self._topic = f"cac-{uuid.uuid4().hex}"
        self._at_work: dict[str, tuple[int, Any]] = {}
        self._inbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._begun = self._seen = time.monotonic()
        self._client.subscribe_topic(self._topic, lambda event: self._inbox.put(("begun", event[1])))
        waiting = deque(range(len(jobs)))
        done = lost = most = 0
        try:
            while waiting or self._at_work:
                self._look()
                most = max(most, self._places)
                while waiting and len(self._at_work) < self._places:
                    index = waiting.popleft()
                    self._hand_over(index, jobs[index], prepared)
                with suppress(queue.Empty):
                    kind, key = self._inbox.get(timeout=LOOK_SECONDS if self._places else 0.05)
                    if key not in self._at_work:
                        continue
                    index, future = self._at_work[key]
                    if kind == "begun":
                        yield JobEvent(index, "begun")
                        continue
                    del self._at_work[key]
                    if (event := self._ended(index, future)) is None:
                        self._client.cancel([future])
                        waiting.appendleft(index)
                        continue
                    done, lost = done + (event.state == "done"), lost + (event.state == "lost")
                    if not done and lost > 2 * most + 2:
                        raise ClusterError(
                            f"The first {lost} jobs all ended their workers. {event.reason} Give each worker more "
                            "memory (fewer --workers on this computer), read their log, and run the command again."
                        )
                    if event.state == "lost":
                        self._looked, self._places = 0.0, 0  # else the next job is given to a worker that is at work
                    yield event
        finally:
            self._client.unsubscribe_topic(self._topic)
            with suppress(Exception):  # where the scheduler is gone, there is nothing to cancel
                self._client.cancel([future for _, future in self._at_work.values()])

    def _connect(self, count: int, alone: bool) -> None:
        if self._client is not None:
            if not self._choice.is_local or alone == self._alone:
                return
            self._stack.close()
        for name in ("distributed", "distributed.client"):  # `run` raises what went wrong
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._alone = alone
        count = 1 if alone and self._choice.is_local else count
        memory = self._memory and self._memory // count
        self._cluster = self._stack.enter_context(start_cluster(self._choice, count, memory))
        try:
            self._client = self._stack.enter_context(connect_client(self._cluster))
        except OSError as error:
            raise ClusterError(
                f"There is no scheduler at {self._choice.name} ({error}). Begin one with dask scheduler, or correct "
                "the address, and run the command again."
            ) from error
        self._places, self._looked = 0, 0.0
        if not self._choice.is_local:  # others use the workers after this run
            self._stack.callback(_forgotten, self._client)

    def _hand_over(self, index: int, job: Any, prepared: bytes) -> None:
        from .in_worker import do

        key = f"{self._topic}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(do, self._client.id, prepared, self._topic, key, job, key=key, pure=False)
        self._at_work[key] = index, future
        future.add_done_callback(lambda ended: self._inbox.put(("ended", key)))

    def _look(self) -> None:
        """See which workers there are; those that a wall time or a death has taken away are asked for again."""
        now = time.monotonic()
        if self._client.status == "running":
            self._seen = now
        elif self._client.status == "closed" or now - self._seen > GONE_SECONDS:
            raise ClusterError(_GONE)
        if now - self._looked < LOOK_SECONDS and self._places:
            return
        self._looked = now
        try:
            found = self._client.scheduler_info()["workers"].values()
        except (KeyError, OSError):  # it has gone just now, which its status shows the next time
            return
        places = sum(worker["nthreads"] for worker in found)
        self._places = min(places, self._count or places)
        wanted = getattr(self._cluster, "worker_spec", None)
        if wanted is not None and len(getattr(self._cluster, "workers", wanted)) < len(wanted):
            self._cluster.scale(len(wanted))
        if places:
            self._warn = None
        elif self._warn and now - self._begun > ARRIVAL_SECONDS:
            message = f"No worker of --cluster {self._choice.name} connected in {ARRIVAL_SECONDS:.0f} s. Still waiting."
            self._warn(ScanWarning("no-workers", message))
            self._warn = None

    def _ended(self, index: int, future: Any) -> JobEvent | None:
        """What became of a job; None where its worker died before the result was fetched, so that it is done again."""
        from concurrent.futures import CancelledError

        from distributed import TimeoutError as LateError
        from distributed.scheduler import KilledWorker

        try:
            event = JobEvent(index, "done", future.result(timeout=FETCH_SECONDS))
        except LateError:
            return None
        except KilledWorker:
            return JobEvent(index, "lost", reason=_DIED)
        except CancelledError as error:
            raise ClusterError(_GONE) from error
        except ImportError as error:
            if self._choice.is_local:
                raise
            raise ClusterError(
                f"A worker of --cluster {self._choice.name} cannot load CAC: {error}. Install this version of CAC for "
                "the Python that it runs with, or begin it with dask of this installation, and run the command again."
            ) from error
        future.release()
        return event


def run_jobs(
    prepare: Callable[[], Callable[[Any], Any]],
    jobs: Sequence[Any],
    count: int,
    counted: Callable[[int, int], None] | None = None,
) -> list[JobEvent]:
    """Do the jobs on up to `count` workers, see `Workers`, and return how each ended, in their order.

    counted: called with (ended, all) after each.
    """
    ended: dict[int, JobEvent] = {}
    with Workers(min(count, len(jobs)), prepare) as workers, closing(workers.run(jobs)) as events:
        for event in events:
            if event.state != "begun":
                ended[event.index] = event
                if counted:
                    counted(len(ended), len(jobs))
    return [ended[index] for index in range(len(jobs))]


def connect_client(cluster: Any) -> Any:
    """A client of a cluster or a scheduler's address, to be closed by the caller. Raises OSError where there is none.

    Dask's client asserts that the scheduler's greeting comes alone. What the scheduler sends to all clients within the
    same 2 ms, as when a worker leaves, comes with it; so it is tried again.
    """
    from distributed import Client

    for _ in range(CONNECT_TRIALS):
        with suppress(AssertionError):
            return Client(cluster, set_as_default=False)
    raise OSError("it is too busy to answer")


def _forgotten(client: Any) -> None:
    from .in_worker import forget

    with suppress(Exception):  # of a scheduler or a worker that has just gone
        if client.status == "running":
            client.run(forget, client.id, on_error="ignore")


def sensible_count(memory_each_bytes: int = SCAN_BYTES) -> int:
    """Number of processes to use: one per core this process may use, as far as memory goes; at least one."""
    return max(1, min(core_count(), available_memory_bytes() // memory_each_bytes))
