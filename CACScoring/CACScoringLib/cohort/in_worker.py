"""Functions that run in the workers of a cluster. Imported on use only, because it imports `distributed`."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

from distributed import get_worker

_lock = threading.Lock()
_prepared: dict[str, Callable[[Any], Any]] = {}


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C in workers of this machine, to which a terminal sends it, too; the client ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_job(client: str, prepare: bytes, topic: str, key: str, job: Any) -> Any:
    """Run a job, and notify the client of its start.

    Args:
        client: ID of the client, for which a worker prepares once.
        prepare: Pickled function that returns a function of a job.
        topic: Topic that the client has subscribed to.
        key: Key of the task.
        job: The job.
    """
    with _lock:
        if client not in _prepared:
            for former_client in list(_prepared)[:-1]:  # with models of killed clients
                del _prepared[former_client]
            _prepared[client] = pickle.loads(prepare)()
        work = _prepared[client]
    get_worker().log_event(topic, key)
    return work(job)


def forget(client: str) -> None:
    """Free the memory of a client's preparation."""
    _prepared.pop(client, None)
