"""Long work in steps and threads, between which Slicer stays responsive."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from .widgets import singleShot

WAITING_SECONDS = 0.03
"""Time that Slicer waits for a thread before it processes events."""

T = TypeVar("T")


def inThread(work: Callable[[], T]) -> Generator[int, None, T]:
    """Run `work` in a thread and return its result; yield milliseconds to wait. Closing leaves the thread behind."""
    thread = ThreadPoolExecutor(1)
    running = thread.submit(work)
    thread.shutdown(wait=False)
    # Python's threads run only while Slicer executes Python, so waiting here alternates with Slicer's events.
    yield 0
    while not wait([running], WAITING_SECONDS).done:
        yield 0
    return running.result()


class StepRunner:
    """Runs a generator whose steps yield the milliseconds before the next step; a new one replaces the current one."""

    def __init__(self) -> None:
        self._steps: Generator[int, None, object] | None = None
        self._onEnd: Callable[[], object] = lambda: None
        self._timer = singleShot(0, self._next)

    @property
    def isRunning(self) -> bool:
        return self._steps is not None

    def start(self, steps: Generator[int, None, object], onEnd: Callable[[], object] = lambda: None) -> None:
        """Begin the steps. onEnd: called after the last one."""
        self.stop()
        self._steps, self._onEnd = steps, onEnd
        self._timer.start(0)

    def stop(self) -> None:
        """Abandon the work; onEnd is not called."""
        self._timer.stop()
        if self._steps is not None:
            self._steps.close()
        self._steps = None

    def _next(self) -> None:
        steps = self._steps
        try:
            pause = next(steps)
        except StopIteration:
            self._steps = None
            self._onEnd()
        except Exception:
            self._steps = None
            raise
        else:
            self._timer.start(pause)
