"""Long work in steps and threads, so that Slicer answers its user in between."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from .widgets import singleShot

WAITING_SECONDS = 0.03
"""Time that Slicer waits at once for what a thread does."""

T = TypeVar("T")


def inThread(work: Callable[[], T]) -> Generator[int, None, T]:
    """Return what `work` does in a thread, which may be left behind at the end. Gives milliseconds to wait."""
    thread = ThreadPoolExecutor(1)
    running = thread.submit(work)
    thread.shutdown(wait=False)
    # Threads of Python run only while Slicer is in Python: so it waits a little, answers its user, waits again.
    yield 0
    while not wait([running], WAITING_SECONDS).done:
        yield 0
    return running.result()


class StepRunner:
    """Runs work whose steps give the milliseconds to wait before the next. What is started last replaces what runs."""

    def __init__(self) -> None:
        self._steps: Generator[int, None, object] | None = None
        self._onEnd: Callable[[], object] = lambda: None
        self._timer = singleShot(0, self._next)

    @property
    def isRunning(self) -> bool:
        return self._steps is not None

    def start(self, steps: Generator[int, None, object], onEnd: Callable[[], object] = lambda: None) -> None:
        """Begin. onEnd: called after the last step."""
        self.stop()
        self._steps, self._onEnd = steps, onEnd
        self._timer.start(0)

    def stop(self) -> None:
        """Leave the work where it is; nothing more is called."""
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
