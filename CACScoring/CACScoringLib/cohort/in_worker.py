"""Functions that run in the workers of a cluster. Imports `distributed`, so this module is imported where it is
used."""

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
    """Called in workers of this machine: a terminal sends Ctrl-C to them too, but the client ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def do(client: str, prepare: bytes, topic: str, key: str, job: Any) -> Any:
    """Do a job, and notify the client that it has begun.

    Args:
        client: For which a worker prepares once.
        prepare: The pickled function that returns what does a job.
        topic: Where the client listens.
        key: Of the task.
        job: What is done.
    """
    with _lock:
        if client not in _prepared:
            for left in list(_prepared)[:-1]:  # models of clients that were killed
                del _prepared[left]
            _prepared[client] = pickle.loads(prepare)()
        work = _prepared[client]
    get_worker().log_event(topic, key)
    return work(job)


def forget(client: str) -> None:
    """Free what was prepared for a client."""
    _prepared.pop(client, None)
