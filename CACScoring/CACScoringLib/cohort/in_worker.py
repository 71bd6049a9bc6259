"""What runs in the workers of a cluster. Imports `distributed`, so this module is imported where it is used."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed import WorkerPlugin, get_worker

from ..core.processes import available_memory_bytes

MEMORY = "cac-memory"
"""Resource of a Dask worker: bytes that its jobs may need together."""


class Prepared(WorkerPlugin):
    """Gives a worker its memory as a resource, and what does the jobs, which is made when the first one comes."""

    def __init__(self, token: str, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        self.name, self._prepare = token, prepare
        self._work: Callable[[Any], Any] | None = None

    async def setup(self, worker: Any) -> None:
        with suppress(ValueError):  # not in the main thread
            # A terminal sends Ctrl-C to all; the client ends the workers.
            self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._lock = threading.Lock()
        limit = worker.memory_manager.memory_limit or available_memory_bytes()
        await worker.set_resources(**{MEMORY: float(limit)})

    def teardown(self, worker: Any) -> None:
        with suppress(ValueError, AttributeError, TypeError):
            signal.signal(signal.SIGINT, self._interrupt)

    def prepared(self) -> Callable[[Any], Any]:
        """What does a job."""
        with self._lock:
            if self._work is None:
                self._work = self._prepare()
        return self._work


def do(token: str, topic: str, key: str, job: Any) -> Any:
    """Do a job, and tell the client that it has begun. token: of the plugin. key: of the task."""
    worker = get_worker()
    work = worker.plugins[token].prepared()
    worker.log_event(topic, key)
    return work(job)
