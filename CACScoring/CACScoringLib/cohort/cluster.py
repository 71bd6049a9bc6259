"""Choice of the Dask cluster: this machine, a scheduler, or a batch system."""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

from ..core.errors import CTError

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
