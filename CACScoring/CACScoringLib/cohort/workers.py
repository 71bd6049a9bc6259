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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ..core.ct import ScanWarning
from ..core.processes import available_memory_bytes, core_count
from .cluster import CLOSE_SECONDS, ClusterChoice, ClusterError, chosen_cluster, started

LOOK_SECONDS = 2.0
"""Between two looks at which workers there are."""

USUAL_WORKERS = 16
"""How many are asked for of a batch system where nobody says how many."""

FETCH_SECONDS = 10.0
"""How long the result of a job that is done may take to arrive."""

GONE_SECONDS = 60.0
"""How long a scheduler may be out of reach before the run is given up."""

START_SECONDS = 60.0
"""How long a worker may take from its arrival until it can do jobs; and how long none may arrive without a warning."""

ENOUGH_WORKERS = 3
"""How many workers of a cluster made here have to fail before all are taken to: one may stand on a broken node."""

CONNECT_TRIALS = 5
"""How often a client asks a scheduler whose greeting does not come alone."""

_PLUGIN = "cac-"
"""Begins the name of what a client leaves with the workers; its id follows."""

_GONE = "The scheduler is gone. What is done is kept; run the same command again to continue."


@dataclass(frozen=True)
class JobEvent:
    """state "begun", "done" (with the result) or "lost": the worker that did it died; reason tells what is known."""

    index: int
    state: str
    result: Any = None
    reason: str = ""


class Workers:
    """Workers that each prepare once and then do one job after the other.

    prepare(), called in each worker, returns the function that does a job; both have to be importable or picklable.
    cluster: where they are; None for `cluster.chosen_cluster`. memory_bytes: of all workers together on this machine;
    None for no limit. tell: is given the address of the dashboard. warn: is told where no worker comes. What prepare or
    a job raises is raised by `run`.
    Used with `with`: leaving ends all workers that were begun here; jobs that are at work elsewhere are left to end.
    """

    def __init__(
        self,
        count: int | None,
        prepare: Callable[[], Callable[[Any], Any]],
        memory_bytes: int | None = None,
        cluster: ClusterChoice | None = None,
        tell: Callable[[str], None] | None = None,
        warn: Callable[[ScanWarning], None] | None = None,
    ) -> None:
        self._count, self._prepare, self._memory = count, prepare, memory_bytes
        self._choice, self._tell, self._warn = cluster or chosen_cluster(), tell, warn
        self._stack = ExitStack()
        self._alone = False
        self._client: Any = None
        self._cluster: Any = None
        self._token = ""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._client = None

    def run(self, jobs: Sequence[Any], needs: Sequence[int] | None = None, alone: bool = False) -> Iterator[JobEvent]:
        """Do the jobs and tell what becomes of each: "begun", then "done" or "lost".

        Args:
            jobs: What each is given; picklable.
            needs: Bytes of memory of each; a worker begins a job only where it has so many.
            alone: On this machine one worker has all the memory, and does one job at a time.

        Raises:
            ClusterError: There is no cluster, its scheduler is gone, its workers cannot load CAC, or all the first jobs
                ended their workers.
        """
        if not jobs:
            return
        self._connect(min(self._count or USUAL_WORKERS, len(jobs)), alone)
        run = _Run(self._client, self._cluster, self._token, self._count, self._arrivals)
        yield from run.events(jobs, needs)

    def _connect(self, count: int, alone: bool) -> None:
        if self._client is not None:
            if not self._choice.is_local or alone == self._alone:
                return
            self._stack.close()
        from .in_worker import Prepared

        for name in ("distributed", "distributed.client"):  # `run` tells what went wrong
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._alone = alone
        if self._choice.is_local:
            count = 1 if alone else count
        count = self._choice.workers or count
        self._cluster = self._stack.enter_context(
            started(self._choice, count, self._memory and self._memory // (1 if alone else count))
        )
        try:
            self._client = self._stack.enter_context(connected(self._cluster))
        except OSError as error:
            raise ClusterError(
                f"There is no scheduler at {self._choice.name} ({error}). Begin one with dask scheduler, or correct "
                "the address, and run the command again."
            ) from error
        self._arrivals = Arrivals(self._client, self._choice, self._warn)
        self._token = f"{_PLUGIN}{self._client.id}"
        if not self._choice.is_local:  # others use the workers after this run, and should not keep its models
            self._stack.callback(_forget_plugin, self._client, self._token)
            for left in _left_by_others(self._client):
                _forget_plugin(self._client, left)
        try:
            self._client.register_plugin(Prepared(self._token, self._prepare))
        except Exception as error:  # whatever a worker raised
            raise ClusterError(_cannot_load(self._choice, str(error))) from error
        if self._tell and (board := _dashboard(self._client)):
            self._tell(board)


def connected(cluster: Any) -> Any:
    """A client of a cluster or a scheduler's address, to be closed by the caller. Raises OSError where there is none.

    Dask's client asserts that the scheduler's greeting comes alone. What the scheduler tells all clients within the
    same 2 ms, as when a worker leaves, comes with it; so it is tried again.
    """
    from distributed import Client

    for _ in range(CONNECT_TRIALS):
        with suppress(AssertionError):
            return Client(cluster, set_as_default=False)
    raise OSError("it is too busy to answer")


def _left_by_others(client: Any) -> list[str]:
    """Plugins of CAC whose client was killed: workers would keep their models, and later ones load them."""

    def left(dask_scheduler: Any, start: str = _PLUGIN) -> list[str]:  # of its own: the scheduler may lack CAC
        names = [name for name in dask_scheduler.worker_plugins if name.startswith(start)]
        return [name for name in names if name[len(start) :] not in dask_scheduler.clients]

    with suppress(Exception):  # of a scheduler that runs no functions of clients
        return client.run_on_scheduler(left)
    return []


def _forget_plugin(client: Any, token: str) -> None:
    if client.status == "running":
        with suppress(Exception):  # of a worker that has not got it
            client.sync(client.scheduler.unregister_worker_plugin, name=token, callback_timeout=CLOSE_SECONDS)


def _cannot_load(choice: ClusterChoice, reason: str) -> str:
    return (
        f"The workers of --cluster {choice.name} cannot load CAC: {reason}. Install this version of CAC for the Python "
        "that they run with, or begin them with dask of this installation, and run the command again."
    )


class Arrivals:
    """Workers that have come to a scheduler and are not ready: those that cannot load CAC leave without a word."""

    def __init__(self, client: Any, choice: ClusterChoice, warn: Callable[[ScanWarning], None] | None) -> None:
        self._client, self._choice, self._warn = client, choice, warn
        self._enough = ENOUGH_WORKERS if choice.address is None else 1
        self._came: dict[str, float] = {}
        self._begun = time.monotonic()
        client.subscribe_topic("all", self._note)

    def _note(self, event: tuple[float, Any]) -> None:
        if isinstance(event[1], dict) and event[1].get("action") == "add-worker":
            self._came[event[1]["worker"]] = time.monotonic()

    def some_ready(self) -> None:
        """Some worker can do jobs."""
        self._came.clear()
        self._warn = None

    def none_ready(self) -> None:
        """No worker can. Raises ClusterError where enough have come and had the time to begin."""
        now, came = time.monotonic(), dict(self._came)
        if len(came) >= self._enough and now - min(came.values()) > START_SECONDS:
            events = [event for address in came for _, event in self._client.get_events(address)]
            reasons = [e["reason"] for e in events if isinstance(e, dict) and e.get("action") == "closing-worker"]
            reason = reasons[-1] if reasons else f"none of {len(came)} was ready after {START_SECONDS:.0f} s"
            raise ClusterError(_cannot_load(self._choice, f"{reason} (their log tells more)"))
        if self._warn and not came and now - self._begun > START_SECONDS:
            message = f"No worker of --cluster {self._choice.name} has come in {START_SECONDS:.0f} s. Still waiting."
            self._warn(ScanWarning("no-workers", message))
            self._warn = None


class _Run:
    """Jobs on their way through a cluster, by the keys of their tasks."""

    def __init__(self, client: Any, cluster: Any, token: str, count: int | None, arrivals: Arrivals) -> None:
        self._client, self._cluster, self._token, self._count = client, cluster, token, count
        self._arrivals = arrivals
        self._topic = f"{token}-{uuid.uuid4().hex[:8]}"
        self._inbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._at_work: dict[str, tuple[int, Any, float]] = {}
        self._places, self._largest, self._looked, self._seen, self._handed = 0, 0.0, 0.0, time.monotonic(), 0

    def events(self, jobs: Sequence[Any], needs: Sequence[int] | None) -> Iterator[JobEvent]:
        self._client.subscribe_topic(self._topic, lambda event: self._inbox.put(("begun", event[1])))
        waiting = deque(range(len(jobs)))
        done = lost = 0
        try:
            while waiting or self._at_work:
                waiting.extendleft(self._look())
                while waiting and len(self._at_work) < self._places:
                    index = waiting.popleft()
                    self._hand_over(index, jobs[index], None if needs is None else needs[index])
                with suppress(queue.Empty):
                    kind, key = self._inbox.get(timeout=LOOK_SECONDS)
                    if key not in self._at_work:
                        continue
                    index, future, _ = self._at_work[key]
                    if kind == "begun":
                        yield JobEvent(index, "begun")
                        continue
                    del self._at_work[key]
                    if (event := _ended(index, future)) is None:
                        self._client.cancel([future])
                        waiting.appendleft(index)
                        continue
                    done, lost = done + (event.state == "done"), lost + (event.state == "lost")
                    if not done and lost > 2 * self._places + 2:
                        raise ClusterError(
                            f"The first {lost} jobs all ended their workers. {event.reason} Give each worker more "
                            "memory (fewer --workers on this computer), read their log, and run the command again."
                        )
                    yield event
        finally:
            self._client.unsubscribe_topic(self._topic)
            if self._at_work:
                with suppress(Exception):  # where the scheduler is gone, there is nothing to cancel
                    self._client.cancel([future for _, future, _ in self._at_work.values()])

    def _hand_over(self, index: int, job: Any, need: int | None) -> None:
        from .in_worker import MEMORY, do

        self._handed += 1
        key = f"{self._topic}-{self._handed}"
        limit = {} if need is None else {MEMORY: min(need, self._largest)}
        future = self._client.submit(do, self._token, self._topic, key, job, key=key, pure=False, resources=limit)
        self._at_work[key] = index, future, time.monotonic()
        future.add_done_callback(lambda ended: self._inbox.put(("ended", key)))

    def _look(self) -> list[int]:
        """See which workers there are; those that a wall time or a death has taken away are asked for again.

        Returns jobs to be handed over anew: a task that found no worker, because the last one had just gone, is not
        looked at again by the scheduler when the memory of a new one becomes known.
        """
        from .in_worker import MEMORY

        now = time.monotonic()
        if self._client.status == "running":
            self._seen = now
        elif self._client.status == "closed" or now - self._seen > GONE_SECONDS:
            raise ClusterError(_GONE)
        if now - self._looked < LOOK_SECONDS and self._places:
            return []
        self._looked = now
        try:
            found = self._client.scheduler_info()["workers"].values()
        except (KeyError, OSError):  # it has gone just now, which its status tells the next time
            return []
        ready = [worker for worker in found if MEMORY in worker["resources"]]
        places = sum(worker["nthreads"] for worker in ready)
        self._places = min(places, self._count or places)
        self._largest = max((worker["resources"][MEMORY] for worker in ready), default=0.0)
        wanted = getattr(self._cluster, "worker_spec", None)
        if wanted is not None and len(getattr(self._cluster, "workers", wanted)) < len(wanted):
            self._cluster.scale(len(wanted))
        if not ready:
            self._arrivals.none_ready()
            time.sleep(0.05)
            return []
        self._arrivals.some_ready()
        return self._stranded()

    def _stranded(self) -> list[int]:
        before = time.monotonic() - LOOK_SECONDS
        idle = {key for key, (_, _, since) in self._at_work.items() if since < before}
        if idle:
            idle -= {key for keys in self._client.processing().values() for key in keys}
        gone = [self._at_work.pop(key) for key in idle if self._at_work[key][1].status == "pending"]
        if gone:
            self._client.cancel([future for _, future, _ in gone])
        return [index for index, _, _ in gone]


def _ended(index: int, future: Any) -> JobEvent | None:
    """What became of a job; None where its worker died before the result was fetched, so that it is done again."""
    from concurrent.futures import CancelledError

    from distributed import TimeoutError as LateError
    from distributed.scheduler import KilledWorker

    try:
        event = JobEvent(index, "done", future.result(timeout=FETCH_SECONDS))
    except LateError:
        return None
    except KilledWorker:
        return JobEvent(index, "lost", reason="The worker process ended; systems end processes when memory runs out.")
    except CancelledError as error:
        raise ClusterError(_GONE) from error
    future.release()
    return event


def _dashboard(client: Any) -> str:
    """Address of the dashboard; that of this machine where it listens to no other."""
    try:
        link = client.dashboard_link or ""
    except (KeyError, ValueError):
        return ""
    server = getattr(getattr(client.cluster, "scheduler", None), "http_server", None)
    if link and getattr(server, "address", None) == "127.0.0.1":
        return f"http://127.0.0.1:{server.port}/status"
    return link


def sensible_count(memory_each_bytes: int) -> int:
    """How many processes to use: one per core this process may use, as far as memory goes; at least one."""
    return max(1, min(core_count(), available_memory_bytes() // memory_each_bytes))
