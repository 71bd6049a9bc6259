"""Jobs on the workers of a Dask cluster; a worker that dies loses only its own job.

A job is a task of `distributed`. Only as many jobs are submitted as there are workers, so a million jobs take no memory
of the scheduler, and a worker's death is attributed to its job. Each worker prepares once.
"""

from __future__ import annotations

import logging
import queue
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

from ..core.ct import ScanWarning
from ..core.processes import available_memory_bytes, core_count
from .cluster import ClusterError, chosen_cluster, start_cluster

SCAN_BYTES = 3_000_000_000
"""Peak memory of one scoring process (512 × 512 × 300 voxels, all networks)."""

LOOK_SECONDS = 2.0
"""Interval between two queries of the number of workers."""

USUAL_WORKERS = 16
"""Number of workers requested from a batch system by default."""

FETCH_SECONDS = 10.0
"""Timeout of fetching the result of a finished job."""

GONE_SECONDS = 60.0
"""Time out of reach after which a scheduler counts as lost."""

ARRIVAL_SECONDS = 60.0
"""Time without a worker before a warning."""

CONNECT_TRIALS, CONNECT_SECONDS = 5, 5.0
"""Number of attempts to connect a client, see `connect_client`, and time in which a scheduler has to answer."""

MAX_GREETING_BYTES = 2**20

_WORKER_LOST = "The worker process ended; systems end processes when memory runs out."
_SCHEDULER_LOST = "The scheduler is gone. What is done is kept; run the same command again to continue."


@dataclass(frozen=True)
class JobEvent:
    """Event of a job.

    Attributes:
        index: Index of the job.
        state: "begun", "done", or "lost" if the worker died.
        result: Result of a job that is done.
        reason: Reason of a loss.
    """

    index: int
    state: str
    result: Any = None
    reason: str = ""


class Workers:
    """Workers of `cluster.chosen_cluster`, which each prepare once and then run one job after the other.

    Use as a context manager: its end stops all workers started here; jobs on other machines finish. `run` raises
    exceptions of preparations and jobs.
    """

    def __init__(
        self,
        count: int | None,
        prepare: Callable[[], Callable[[Any], Any]],
        memory_bytes: int | None = None,
        warn: Callable[[ScanWarning], None] | None = None,
    ) -> None:
        """Choose the workers.

        Args:
            count: Number of workers; None for as many as the cluster has.
            prepare: Function called in each worker, which returns a function of a job. Both must be picklable.
            memory_bytes: Memory of all workers together on this machine; None for no limit.
            warn: Called if no worker connects.
        """
        self._count, self._prepare, self._memory = count, prepare, memory_bytes
        self._choice, self._warn = chosen_cluster(), warn
        self._stack = ExitStack()
        self._alone = False
        self._client: Any = None
        self._cluster: Any = None
        self._places, self._last_look = 0, 0.0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._client = None

    def run(self, jobs: Sequence[Any], alone: bool = False) -> Generator[JobEvent, None, None]:
        """Run the jobs and yield events of each: "begun", then "done" or "lost".

        Args:
            jobs: Picklable arguments of the jobs.
            alone: On this machine, use one worker with all memory.

        Raises:
            ClusterError: There is no cluster, its scheduler is lost, its workers cannot load CAC, or all the first jobs
                killed their workers.
        """
        if not jobs:
            return
        import cloudpickle

        self._connect(min(self._count or USUAL_WORKERS, len(jobs)), alone)
        pickled = cloudpickle.dumps(self._prepare)
        self._topic = f"cac-{uuid.uuid4().hex}"
        self._running: dict[str, tuple[int, Any]] = {}
        self._inbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._start_time = self._last_contact = time.monotonic()
        self._client.subscribe_topic(self._topic, lambda event: self._inbox.put(("begun", event[1])))
        waiting = deque(range(len(jobs)))
        done = lost = most = 0
        try:
            while waiting or self._running:
                self._update_places()
                most = max(most, self._places)
                while waiting and len(self._running) < self._places:
                    index = waiting.popleft()
                    self._submit(index, jobs[index], pickled)
                with suppress(queue.Empty):
                    kind, key = self._inbox.get(timeout=LOOK_SECONDS if self._places else 0.05)
                    if key not in self._running:
                        continue
                    index, future = self._running[key]
                    if kind == "begun":
                        yield JobEvent(index, "begun")
                        continue
                    del self._running[key]
                    if (event := self._outcome(index, future)) is None:
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
                        self._last_look, self._places = 0.0, 0  # or the next job would go to a busy worker
                    yield event
        finally:
            self._client.unsubscribe_topic(self._topic)
            with suppress(Exception):  # a lost scheduler has nothing to cancel
                self._client.cancel([future for _, future in self._running.values()])

    def _connect(self, count: int, alone: bool) -> None:
        if self._client is not None:
            if not self._choice.is_local or alone == self._alone:
                return
            self._stack.close()
        for name in ("distributed", "distributed.client"):  # `run` raises the errors
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
        self._places, self._last_look = 0, 0.0
        if not self._choice.is_local:  # the workers outlive this run
            self._stack.callback(_forget_client, self._client)

    def _submit(self, index: int, job: Any, pickled: bytes) -> None:
        from .in_worker import run_job

        key = f"{self._topic}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(run_job, self._client.id, pickled, self._topic, key, job, key=key, pure=False)
        self._running[key] = index, future
        future.add_done_callback(lambda finished_future: self._inbox.put(("ended", key)))

    def _update_places(self) -> None:
        """Update the number of workers, and request replacements of workers that died or reached their wall time."""
        now = time.monotonic()
        if self._client.status == "running":
            self._last_contact = now
        elif self._client.status == "closed" or now - self._last_contact > GONE_SECONDS:
            raise ClusterError(_SCHEDULER_LOST)
        if now - self._last_look < LOOK_SECONDS and self._places:
            return
        self._last_look = now
        try:
            infos = self._client.scheduler_info()["workers"].values()
        except (KeyError, OSError):  # the scheduler has just gone; its status shows that the next time
            return
        places = sum(worker["nthreads"] for worker in infos)
        self._places = min(places, self._count or places)
        worker_spec = getattr(self._cluster, "worker_spec", None)
        if worker_spec is not None and len(getattr(self._cluster, "workers", worker_spec)) < len(worker_spec):
            self._cluster.scale(len(worker_spec))
        if places:
            self._warn = None
        elif self._warn and now - self._start_time > ARRIVAL_SECONDS:
            message = f"No worker of --cluster {self._choice.name} connected in {ARRIVAL_SECONDS:.0f} s. Still waiting."
            self._warn(ScanWarning("no-workers", message))
            self._warn = None

    def _outcome(self, index: int, future: Any) -> JobEvent | None:
        """Return the event of a finished job; None to run it again if its worker died before the result was fetched."""
        from concurrent.futures import CancelledError

        from distributed import TimeoutError as LateError
        from distributed.scheduler import KilledWorker

        try:
            event = JobEvent(index, "done", future.result(timeout=FETCH_SECONDS))
        except LateError:
            return None
        except KilledWorker:
            return JobEvent(index, "lost", reason=_WORKER_LOST)
        except CancelledError as error:
            raise ClusterError(_SCHEDULER_LOST) from error
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
    """Run jobs on up to `count` workers, see `Workers`, and return their final events in order.

    counted: called with the numbers of finished and all jobs after each.
    """
    outcomes: dict[int, JobEvent] = {}
    with Workers(min(count, len(jobs)), prepare) as workers, closing(workers.run(jobs)) as events:
        for event in events:
            if event.state != "begun":
                outcomes[event.index] = event
                if counted:
                    counted(len(outcomes), len(jobs))
    return [outcomes[index] for index in range(len(jobs))]


def connect_client(cluster: Any) -> Any:
    """Return a client of a cluster or a scheduler's address, to be closed by the caller. Raises OSError.

    Dask's client asserts that the scheduler's greeting is its only message. Messages to all clients within the same
    2 ms, such as a worker's departure, break this, so the connection is retried.
    """
    from distributed import Client

    if isinstance(cluster, str):
        _check_scheduler(cluster)
    for _ in range(CONNECT_TRIALS):
        with suppress(AssertionError):
            return Client(cluster, set_as_default=False)
    raise OSError("it is too busy to answer")


def _check_scheduler(address: str) -> None:
    """Raise OSError if no scheduler answers at an address soon; Dask's client would try for minutes."""
    place, _, port = address.partition("://")[2].rpartition(":")
    with socket.create_connection((place.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
        if address.startswith("tcp"):  # a scheduler greets first, with the length of its greeting
            connection.settimeout(CONNECT_SECONDS)
            length = int.from_bytes(connection.recv(8), "little")
            if not 0 < length < MAX_GREETING_BYTES:
                raise OSError("its answer is none of a scheduler")


def _forget_client(client: Any) -> None:
    from .in_worker import forget

    with suppress(Exception):  # the scheduler or a worker may have just gone
        if client.status == "running":
            client.run(forget, client.id, on_error="ignore")


def sensible_count(memory_each_bytes: int = SCAN_BYTES) -> int:
    """Return the number of processes to use: one per available core, as far as memory allows; at least one."""
    return max(1, min(core_count(), available_memory_bytes() // memory_each_bytes))
