"""Progress on standard error: a bar for people, JSON lines for programs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from .ct import ScanWarning
from .text import printable
from .warning_codes import OPTIONS


@dataclass(frozen=True, slots=True)
class ScanState:
    """State of one scan of a cohort.

    Attributes:
        index: Row in the cohort's table.
        name: Name for people; not necessarily unique.
        folder: Folder of the results.
        ct: Path of the scan, as `read_ct` takes it.
        series: Series in that path, as `read_ct` takes it.
        state: "waiting", "running", "done", "skipped" (done before) or "failed".
        reason: Reason for a failure or for waiting again.
        status: Status of the total by method (`results.STATUSES`), for scans that are done.
        agatston: Total on the clinical scale by method.
        warnings: Codes of the warnings.
        severe: Severe warnings; messages begin with the scan's name.
        seconds: Sum of the scan's steps.
        code: Code of the reason for a failure.
        by_facts: True if its former result was scored again by its facts, after a new calibration.
        facts_fault: Why that was not possible, so that it was scored anew.
    """

    index: int
    name: str
    folder: Path
    ct: Path
    series: str | None = None
    state: str = "waiting"
    reason: str | None = None
    status: dict[str, str] | None = None
    agatston: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    severe: tuple[ScanWarning, ...] = ()
    seconds: float | None = None
    code: str = ""
    by_facts: bool = False
    facts_fault: str = ""


class Progress:
    """Silent progress that counts and times the steps of a run."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.seconds: dict[str, float] = {}

    def begin(self, steps: list[str]) -> None:
        """Announce the names of all steps."""
        self.steps = steps

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Enclose one step."""
        self._begin_step(name)
        start = time.perf_counter()
        yield
        self._end_step(name)
        self.seconds[name] = time.perf_counter() - start

    def counted(self, done: int, count: int, seconds_left: float | None = None) -> None:
        """Report repetitions done within a step, of `count` in all.

        seconds_left: Time that the others will take; None if it follows from the time that these took.
        """

    def scan(self, state: ScanState) -> None:
        """Report a new state of a scan of a cohort."""

    def warning(self, warning: ScanWarning) -> None:
        """Report a doubt about the result."""

    def event(self, name: str, /, **facts: object) -> None:
        """Report an event of a command to programs."""

    def note(self, text: str) -> None:
        """Report a line about the course of a run to a person."""

    def done(self, output: Path) -> None:
        """Report the success of the run."""

    def failed(self, message: str, exit_code: int) -> None:
        """Report the error that ended the run."""

    def interrupted(self, message: str, exit_code: int) -> None:
        """Report that a person or the system has stopped the run."""
        self.failed(message, exit_code)

    def _begin_step(self, name: str) -> None:
        """Report the beginning of a step."""

    def _end_step(self, name: str) -> None:
        """Report the end of a step."""


class TextProgress(Progress):
    """Bar on a terminal; elsewhere warnings, errors, and a line a minute about repetitions.

    Args:
        stream: Standard error.
        quiet: Print only severe warnings and the error that ends a run.
        bar: Draw the bar without a terminal too, as in a notebook.
    """

    _WIDTH = 24
    _LOG_SECONDS = 60.0
    """Seconds between two lines about repetitions where there is no bar."""

    def __init__(self, stream: TextIO, quiet: bool = False, bar: bool = False) -> None:
        super().__init__()
        self._stream = stream
        self._bar = (bar or stream.isatty()) and not quiet
        self._quiet = quiet
        self._logged = time.monotonic()
        self._step = ""
        self._first: tuple[int, float] | None = None

    def _begin_step(self, name: str) -> None:
        self._step, self._first = f"{name}: ", None
        if name in self.steps:
            self._draw(self.steps.index(name), len(self.steps), f"{name} …")

    def _end_step(self, name: str) -> None:
        if self._bar:  # results are printed next
            self._line("")

    def counted(self, done: int, count: int, seconds_left: float | None = None) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first[0]:
            self._first = done, now
        if seconds_left is None and done > self._first[0]:
            seconds_left = (now - self._first[1]) / (done - self._first[0]) * (count - done)
        time_left = "" if seconds_left is None else f", {duration_text(seconds_left)} left"
        self._draw(done, count, f"{done} of {count}{time_left}")
        if not self._bar and now - self._logged > self._LOG_SECONDS:
            self._logged = now
            self._note(f"{self._step}{done} of {count}{time_left}")

    def _draw(self, done: int, count: int, text: str) -> None:
        if self._bar:
            filled = self._WIDTH * done // count
            bar = "█" * filled + "░" * (self._WIDTH - filled)
            self._show(f"{bar} {text}")

    def _show(self, text: str) -> None:
        """Replace the bar."""
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()

    def scan(self, state: ScanState) -> None:
        if state.state == "failed":
            self._note(f"Failed: {state.name}: {state.reason}")

    def note(self, text: str) -> None:
        self._note(text)

    def warning(self, warning: ScanWarning) -> None:
        """Print a warning; a severe one always, because a score must not be read without it."""
        option = OPTIONS.get(warning.code)
        message = f"{warning.message} ({option})" if option else warning.message
        if warning.severe:
            self._line(f"CAUTION: {message}")
        else:
            self._note(f"Warning: {message}")

    def done(self, output: Path) -> None:
        self._note("")

    def failed(self, message: str, exit_code: int) -> None:
        self._line(f"Error: {message}")

    def interrupted(self, message: str, exit_code: int) -> None:
        self._line(message)

    def _note(self, text: str) -> None:
        if not self._quiet:
            self._line(text)

    def _line(self, text: str) -> None:
        self._stream.write(("\r\x1b[K" if self._bar else "") + (printable(text, message=True) + "\n" if text else ""))
        self._stream.flush()


class CellProgress(TextProgress):
    """Bar in a notebook's cell, one line that each state replaces. Warnings go where the interface reports them.

    Args:
        handle: Handle of IPython's `display`, whose `update` replaces what is shown.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(io.StringIO(), bar=True)
        self._handle = handle

    def _show(self, text: str) -> None:
        self._handle.update({"text/plain": text}, raw=True)

    def _line(self, text: str) -> None:
        self._show(text)


class JsonProgress(Progress):
    """One JSON object a line: {"event": …}, "step", "counted", "scan", "warning", "done" or "failed"."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def _begin_step(self, name: str) -> None:
        index = self.steps.index(name) if name in self.steps else None
        self.event("step", step=name, index=index, count=len(self.steps))

    def counted(self, done: int, count: int, seconds_left: float | None = None) -> None:
        self.event("counted", done=done, count=count, seconds_left=seconds_left and round(seconds_left))

    def scan(self, state: ScanState) -> None:
        self.event("scan", **{**asdict(state), "folder": str(state.folder), "ct": str(state.ct)})

    def warning(self, warning: ScanWarning) -> None:
        self.event("warning", code=warning.code, message=warning.message, severe=warning.severe)

    def done(self, output: Path) -> None:
        self.event("done", output=str(output))

    def failed(self, message: str, exit_code: int) -> None:
        self.event("failed", message=message, exit_code=exit_code)

    def event(self, name: str, /, **facts: object) -> None:
        self._stream.write(json.dumps({"event": name, **facts}) + "\n")
        self._stream.flush()


def duration_text(seconds: float) -> str:
    """Return a duration in hours and minutes, such as "2 h 5 min"."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "less than a minute"


def progress_for(kind: str, stream: TextIO) -> Progress:
    """Return the progress of a kind: "auto" (bar or text), "json" or "none"."""
    return JsonProgress(stream) if kind == "json" else TextProgress(stream, quiet=kind == "none")
