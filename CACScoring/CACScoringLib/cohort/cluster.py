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
"""Classes of dask-jobqueue by the names that its configuration has for them."""

CLOSE_SECONDS = 30.0
"""How long workers may take to end."""

BOARD = "127.0.0.1:8787"
"""Where the dashboard listens: it shows names of scans, and asks nobody who they are."""

_ADDRESS = re.compile(r"(tcp|tls)://[\w.\-\[\]:]+:\d+")

_CONFIG: dict[str, Any] = {
    # A job whose worker died is given back at once: `workers` tries it once more, alone.
    "distributed.scheduler.allowed-failures": 0,
    # No results stay in the workers, so that spilling or pausing would free nothing; a worker that takes more than its
    # limit is ended and begun anew.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # By Dask's own setting a worker returns freed memory to the system at once. Faulting it in again takes a third of a
    # simulation's time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**33,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**32,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
}


class ClusterError(CTError):
    """The cluster cannot be used as asked. The message says what to do."""


@dataclass(frozen=True)
class ClusterChoice:
    """A cluster as `--cluster` names it: "local", "tcp://HOST:PORT" or "tls://…", or a batch system.

    Raises ClusterError for others.
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
        """True if it is the address of a scheduler that runs."""
        return _ADDRESS.fullmatch(self.name) is not None

    @property
    def is_of_batch_system(self) -> bool:
        """True if dask-jobqueue begins the workers."""
        return self.name in BATCH_SYSTEMS


_asked_for: ContextVar[ClusterChoice | None] = ContextVar("cluster", default=None)


@contextmanager
def working_on(choice: ClusterChoice) -> Iterator[None]:
    """While it lasts, `chosen_cluster` is this one, however deep in a command work is shared out."""
    token = _asked_for.set(choice)
    try:
        yield
    finally:
        _asked_for.reset(token)


def chosen_cluster() -> ClusterChoice:
    """The cluster of `working_on`; else this machine."""
    return _asked_for.get() or ClusterChoice()


@contextmanager
def start_cluster(choice: ClusterChoice, count: int, memory_bytes: int | None) -> Iterator[Any]:
    """Give the address of the scheduler, or a cluster that is made, and closed at the end.

    Args:
        choice: Which one.
        count: Workers, of one thread each where they are made here.
        memory_bytes: Limit of each worker on this machine; None for none.

    Raises:
        ClusterError: The cluster cannot be made.
    """
    if choice.is_scheduler:
        yield choice.name
        return
    import dask
    from distributed import LocalCluster

    with dask.config.set(_CONFIG), warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", "Port .* is already in use")
        with _interrupts_held():
            if choice.is_local:
                board = BOARD if find_spec("bokeh") else None
                cluster = LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=memory_bytes or 0,
                    dashboard_address=board,
                    silence_logs=logging.CRITICAL,
                    preload=f"{__package__}.in_worker",
                )
            else:
                cluster = of_batch_system(choice.name)
                cluster.scale(count)
            stack.callback(_close, cluster)
        yield cluster


def _close(cluster: Any) -> None:
    """Close a cluster.

    What does not end in time on a busy machine ends with this process; so does a worker that is just being begun, at
    which multiprocessing asserts "can only join a started process".
    """
    with suppress(TimeoutError, asyncio.TimeoutError, AssertionError):
        cluster.close(timeout=CLOSE_SECONDS)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until a cluster is made, so that it can be closed.

    A terminal sends Ctrl-C to the workers too. They inherit the blocked signal, so that none prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    masks = hasattr(signal, "pthread_sigmask")
    if masks:
        resource_tracker.ensure_running()  # begun later, it would unblock the signal again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if pending and callable(handler):
        handler(*pending[0])


def of_batch_system(name: str) -> Any:
    """A cluster as Dask's configuration describes it; its dashboard is for this machine unless that says otherwise:
    Dask's own default listens on all interfaces. Raises ClusterError."""
    import dask

    try:
        import dask_jobqueue

        options = dask.config.get(f"jobqueue.{name}.scheduler-options", None) or {}
        kind = getattr(dask_jobqueue, BATCH_SYSTEMS[name])
        return kind(scheduler_options={"dashboard_address": BOARD, **options})
    except Exception as error:  # each class has its own
        raise ClusterError(
            f"--cluster {name} could not be begun: {type(error).__name__}: {error}. Describe its jobs in the "
            "configuration of Dask, ~/.config/dask/jobqueue.yaml."
        ) from error
