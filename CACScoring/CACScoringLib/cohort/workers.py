"""Jobs on the workers of a Dask cluster; a worker that dies loses only its own job.

A job is a task of `distributed`. Only as many jobs are submitted as there are workers, so that a worker's death is
attributed to its job. Each worker prepares once.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from ..core.ct import ScanWarning
from ..core.errors import CTError
from ..core.version import available_memory_bytes, core_count

LOCAL = "local"

BATCH_SYSTEMS = {
    "htcondor": "HTCondorCluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "slurm": "SLURMCluster",
}
"""Classes of dask-jobqueue by their names in its configuration."""

CLOSE_SECONDS = 30.0
"""Timeout of ending workers."""

DASHBOARD_ADDRESS = "127.0.0.1:8787"
"""Address of the dashboard, on this machine only, because it shows names of scans without authentication."""

_ADDRESS = re.compile(r"(tcp|tls)://[\w.\-\[\]:]+:\d+")

_CONFIG: dict[str, Any] = {
    # A job whose worker died is returned at once; `workers` retries it alone.
    "distributed.scheduler.allowed-failures": 0,
    # Workers hold no results, so spilling or pausing would free nothing; a worker above its limit is restarted.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Dask's default returns freed memory to the system at once; faulting it in again takes a third of a simulation.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**33,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**32,
}

_IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Code that workers of this machine run first: a terminal sends Ctrl-C to them, too; the client ends them."""


_current_name: ContextVar[str] = ContextVar("cluster", default=LOCAL)


def check_cluster(name: str) -> None:
    """Raise CTError for a `--cluster` that is neither LOCAL, a scheduler's address, nor a batch system."""
    if name != LOCAL and name not in BATCH_SYSTEMS and not _ADDRESS.fullmatch(name):
        names = ", ".join((LOCAL, "tcp://HOST:PORT", *BATCH_SYSTEMS))
        raise CTError(f"There is no cluster {name!r}. Give one of {names}.")


@contextmanager
def working_on(name: str) -> Iterator[None]:
    """Context in which `chosen_cluster` returns this value of `--cluster`. Raises CTError."""
    check_cluster(name)
    token = _current_name.set(name)
    try:
        yield
    finally:
        _current_name.reset(token)


def chosen_cluster() -> str:
    """Return the cluster of `working_on`, or else LOCAL, whose workers share this machine's memory."""
    return _current_name.get()


@contextmanager
def start_cluster(name: str, count: int, memory_bytes: int | None) -> Iterator[Any]:
    """Yield the address of the scheduler, or a new cluster, which is closed at the end.

    Args:
        name: Value of `--cluster`.
        count: Number of workers; those of a new cluster have one thread.
        memory_bytes: Memory limit of each worker on this machine; None for no limit.

    Raises:
        CTError: The cluster cannot be started.
    """
    if "://" in name:
        yield name
        return
    import dask
    from distributed import LocalCluster

    with dask.config.set(_CONFIG), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use")
        if name == LOCAL:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=memory_bytes or 0,
                dashboard_address=DASHBOARD_ADDRESS if find_spec("bokeh") else None,
                silence_logs=logging.CRITICAL,
                preload=_IGNORE_INTERRUPTS,
            )
        else:
            cluster = _batch_cluster(name)
            cluster.scale(count)
        try:
            yield cluster
        finally:
            # Workers that do not end in time on a busy machine end with this process. So does one that is just
            # starting, for which multiprocessing asserts "can only join a started process".
            with suppress(TimeoutError, asyncio.TimeoutError, AssertionError):
                cluster.close(timeout=CLOSE_SECONDS)


def _batch_cluster(name: str) -> Any:
    """Make a cluster of a batch system from Dask's configuration. Raises CTError.

    Unless configured otherwise, the dashboard listens on this machine only; Dask's default is all interfaces.
    """
    import dask

    try:
        import dask_jobqueue

        options = dask.config.get(f"jobqueue.{name}.scheduler-options", None) or {}
        kind = getattr(dask_jobqueue, BATCH_SYSTEMS[name])
        return kind(scheduler_options={"dashboard_address": DASHBOARD_ADDRESS, **options})
    except Exception as error:  # the exceptions differ between classes
        raise CTError(
            f"--cluster {name} could not be begun: {type(error).__name__}: {error}. Describe its jobs in the "
            "configuration of Dask, ~/.config/dask/jobqueue.yaml."
        ) from error


SCAN_BYTES = 3_000_000_000
"""Peak memory of one scoring process (512 × 512 × 300 voxels, all networks)."""

LOOK_SECONDS = 2.0
"""Interval between two queries of the number of workers."""

USUAL_WORKERS = 16
"""Number of workers requested from a batch system by default."""

ARRIVAL_SECONDS = 60.0
"""Time without a worker before a warning."""

CONNECT_SECONDS = 10.0
"""Time in which a scheduler has to answer."""

_WORKER_LOST = "The worker process ended; systems end processes when memory runs out."
_SCHEDULER_LOST = "The scheduler is gone. What is done is kept; run the same command again to continue."


@dataclass(frozen=True)
class JobEvent:
    """Event of a job.

    Attributes:
        index: Index of the job.
        state: "begun" when it is given to a worker, "done", or "lost" if the worker died.
        result: Result of a job that is done.
        reason: Reason of a loss.
    """

    index: int
    state: str
    result: Any = None
    reason: str = ""


class Workers:
    """Workers of `chosen_cluster`, which each prepare once and then run one job after the other.

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
        self._name, self._warn = chosen_cluster(), warn
        self._stack = ExitStack()
        self._alone = False
        self._client: Any = None
        self._cluster: Any = None

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
            CTError: There is no cluster, its scheduler is lost, its workers cannot load CAC, or all the first jobs
                killed their workers.
        """
        if not jobs:
            return
        self._connect(min(self._count or USUAL_WORKERS, len(jobs)), alone)
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        running: dict[Any, int] = {}
        begun = done = lost = most = 0
        try:
            while begun < len(jobs) or running:
                places = self._places()
                most = max(most, places)
                while begun < len(jobs) and len(running) < places:
                    future = self._client.submit(run_job, self._pickled, jobs[begun], pure=False)
                    running[future] = begun
                    future.add_done_callback(ended.put)
                    yield JobEvent(begun, "begun")
                    begun += 1
                with suppress(queue.Empty):
                    future = ended.get(timeout=LOOK_SECONDS)
                    event = self._outcome(running.pop(future), future)
                    done, lost = done + (event.state == "done"), lost + (event.state == "lost")
                    if not done and lost > 2 * most + 2:
                        raise CTError(
                            f"The first {lost} jobs all ended their workers. {event.reason} Give each worker more "
                            "memory (fewer --workers on this computer), read their log, and run the command again."
                        )
                    yield event
        finally:
            with suppress(Exception):  # a lost scheduler has nothing to cancel
                self._client.cancel(list(running))

    def _connect(self, count: int, alone: bool) -> None:
        import cloudpickle
        from distributed import Client

        alone = alone and self._name == LOCAL
        if self._client is not None:
            if alone == self._alone:
                return
            self._stack.close()
        for name in ("distributed", "distributed.client"):  # `run` raises the errors
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._alone = alone
        count = 1 if alone else count
        memory = self._memory and self._memory // count
        self._cluster = self._stack.enter_context(start_cluster(self._name, count, memory))
        self._start_time = time.monotonic()
        try:
            client = Client(self._cluster, timeout=CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            raise CTError(
                f"There is no scheduler at {self._name} ({error}). Begin one with dask scheduler, or correct "
                "the address, and run the command again."
            ) from error
        self._client = self._stack.enter_context(client)
        self._pickled = cloudpickle.dumps(self._prepare)  # once, as workers compare it

    def _places(self) -> int:
        """Return how many jobs may run at once; request replacements of workers that reached their wall time."""
        try:
            places = sum(self._client.nthreads().values())
        except (OSError, RuntimeError) as error:
            raise CTError(_SCHEDULER_LOST) from error
        worker_spec = getattr(self._cluster, "worker_spec", {})
        if worker_spec and len(self._cluster.workers) < len(worker_spec):
            self._cluster.scale(len(worker_spec))
        if places:
            self._warn = None
        elif self._warn and time.monotonic() - self._start_time > ARRIVAL_SECONDS:
            message = f"No worker of --cluster {self._name} connected in {ARRIVAL_SECONDS:.0f} s. Still waiting."
            self._warn(ScanWarning("no-workers", message))
            self._warn = None
        return min(places, self._count or places)

    def _outcome(self, index: int, future: Any) -> JobEvent:
        """Return the event of a job that ended. Raises its exception, CTError."""
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        try:
            return JobEvent(index, "done", future.result())
        except KilledWorker:
            return JobEvent(index, "lost", reason=_WORKER_LOST)
        except CancelledError as error:
            raise CTError(_SCHEDULER_LOST) from error
        except ImportError as error:
            if self._name == LOCAL:
                raise
            raise CTError(
                f"A worker of --cluster {self._name} cannot load CAC: {error}. Install this version of CAC for "
                "the Python that it runs with, or begin it with dask of this installation, and run the command again."
            ) from error


_preparing = threading.Lock()


@lru_cache(maxsize=1)  # models of an earlier run are dropped
def _prepared(prepare: bytes) -> Callable[[Any], Any]:
    return pickle.loads(prepare)()


def run_job(prepare: bytes, job: Any) -> Any:
    """Run a job in a worker, which prepares before its first. prepare: Pickled function, see `Workers`."""
    with _preparing:
        work = _prepared(prepare)
    return work(job)


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


def sensible_count(memory_each_bytes: int = SCAN_BYTES) -> int:
    """Return the number of processes to use: one per available core, as far as memory allows; at least one."""
    return max(1, min(core_count(), available_memory_bytes() // memory_each_bytes))
