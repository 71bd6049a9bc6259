"""Choice of the Dask cluster: this machine, a scheduler, or a batch system."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from ..core.ct import CTError

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
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
}


class ClusterError(CTError):
    """The cluster cannot be used."""


@dataclass(frozen=True)
class ClusterChoice:
    """Value of `--cluster`: "local", "tcp://HOST:PORT" or "tls://…", or a batch system.

    Raises ClusterError for other names.
    """

    name: str = LOCAL

    def __post_init__(self) -> None:
        if not (self.is_local or self.is_of_batch_system or self.is_scheduler):
            names = ", ".join((LOCAL, "tcp://HOST:PORT", *BATCH_SYSTEMS))
            raise ClusterError(f"There is no cluster {self.name!r}. Give one of {names}.")

    @property
    def is_local(self) -> bool:
        """True if the workers are processes of this machine, which share its memory."""
        return self.name == LOCAL

    @property
    def is_scheduler(self) -> bool:
        """True if this is the address of a running scheduler."""
        return _ADDRESS.fullmatch(self.name) is not None

    @property
    def is_of_batch_system(self) -> bool:
        """True if dask-jobqueue starts the workers."""
        return self.name in BATCH_SYSTEMS


_current_choice: ContextVar[ClusterChoice | None] = ContextVar("cluster", default=None)


@contextmanager
def working_on(choice: ClusterChoice) -> Iterator[None]:
    """Context in which `chosen_cluster` returns this choice."""
    token = _current_choice.set(choice)
    try:
        yield
    finally:
        _current_choice.reset(token)


def chosen_cluster() -> ClusterChoice:
    """Return the cluster of `working_on`, or else this machine."""
    return _current_choice.get() or ClusterChoice()


@contextmanager
def start_cluster(choice: ClusterChoice, count: int, memory_bytes: int | None) -> Iterator[Any]:
    """Yield the address of the scheduler, or a new cluster, which is closed at the end.

    Args:
        choice: Choice of the cluster.
        count: Number of workers; those of a new cluster have one thread.
        memory_bytes: Memory limit of each worker on this machine; None for no limit.

    Raises:
        ClusterError: The cluster cannot be started.
    """
    if choice.is_scheduler:
        yield choice.name
        return
    import dask
    from distributed import LocalCluster

    with dask.config.set(_CONFIG), warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", "Port .* is already in use")
        with _hold_interrupts():
            if choice.is_local:
                dashboard = DASHBOARD_ADDRESS if find_spec("bokeh") else None
                cluster = LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=memory_bytes or 0,
                    dashboard_address=dashboard,
                    silence_logs=logging.CRITICAL,
                    preload=f"{__package__}.in_worker",
                )
            else:
                cluster = batch_cluster(choice.name)
                cluster.scale(count)
            stack.callback(_close, cluster)
        yield cluster


def _close(cluster: Any) -> None:
    """Close a cluster.

    Workers that do not end in time on a busy machine end with this process. So does a worker that is just starting, for
    which multiprocessing asserts "can only join a started process".
    """
    with suppress(TimeoutError, asyncio.TimeoutError, AssertionError):
        cluster.close(timeout=CLOSE_SECONDS)


@contextmanager
def _hold_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until a cluster is made, so that it can be closed.

    A terminal sends Ctrl-C to the workers, too. They inherit the blocked signal, so none prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    can_mask = hasattr(signal, "pthread_sigmask")
    if can_mask:
        resource_tracker.ensure_running()  # if started later, it would unblock the signal again
        former_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if can_mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, former_mask)
        signal.signal(signal.SIGINT, handler)
    if pending and callable(handler):
        handler(*pending[0])


def batch_cluster(name: str) -> Any:
    """Make a cluster of a batch system from Dask's configuration. Raises ClusterError.

    Unless configured otherwise, the dashboard listens on this machine only; Dask's default is all interfaces.
    """
    import dask

    try:
        import dask_jobqueue

        options = dask.config.get(f"jobqueue.{name}.scheduler-options", None) or {}
        kind = getattr(dask_jobqueue, BATCH_SYSTEMS[name])
        return kind(scheduler_options={"dashboard_address": DASHBOARD_ADDRESS, **options})
    except Exception as error:  # the exceptions differ between classes
        raise ClusterError(
            f"--cluster {name} could not be begun: {type(error).__name__}: {error}. Describe its jobs in the "
            "configuration of Dask, ~/.config/dask/jobqueue.yaml."
        ) from error
