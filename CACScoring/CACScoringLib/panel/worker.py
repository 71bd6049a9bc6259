"""A command of a library in the background, and what it reports: see `progress.JsonProgress`."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from slicer.i18n import tr as _

from .process import BackgroundProcess, Process

LIBRARY = "CACScoringLib"
"""The panel's own."""


class Worker:
    """Runs one command at a time.

    process: what runs it; None for a background process of Slicer's own Python. library: whose commands they are.
    warnings: the "warning" events of the command that runs, or ran last.
    """

    def __init__(self, process: Process | None = None, library: str = LIBRARY) -> None:
        self._process = process
        self._library = library
        self._onEnd: Callable[[str], None] | None = None
        self.warnings: list[dict] = []

    @property
    def isRunning(self) -> bool:
        return self._onEnd is not None

    def start(
        self,
        arguments: list[str],
        onEnd: Callable[[str], None],
        onProgress: Callable[[str, float], None] = lambda text, behind: None,
        onEvent: Callable[[dict], None] = lambda event: None,
        module: str = "cli",
    ) -> None:
        """Begin `python -m <library>.<module>` with these arguments; a command of `cli` is told to report its progress.

        onEnd: called once, unless cancelled, with why the command failed or could not be started, or with an empty text
        when it ended well. onProgress: called with what is being done, empty where the command does not tell, and which
        part of the whole is behind, 0 to 1. onEvent: called with each event. Raises RuntimeError when a command is
        running already.
        """
        if self.isRunning:
            raise RuntimeError("A command is running already.")
        if self._process is None:
            self._process = BackgroundProcess()
        self._reason, self._otherLines, self.warnings = "", [], []
        self._step = _Step()
        self._onProgress, self._onEvent, self._onEnd = onProgress, onEvent, onEnd
        report = ["--progress", "json"] if module == "cli" else []
        try:
            self._process.start(["-m", f"{self._library}.{module}", *arguments, *report], self._hear, self._ended)
        except (OSError, RuntimeError) as error:
            self._onEnd = None
            onEnd(str(error))

    def cancel(self) -> None:
        """End the command, if one is running; nothing more is called."""
        if self.isRunning:
            self._onEnd = None
            self._process.kill()

    def _hear(self, line: str) -> None:
        if not self.isRunning:
            return
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self._otherLines.append(line)
            return
        if kind == "failed":
            self._reason = event["message"]
        elif kind == "warning":
            self.warnings.append(event)
        elif kind == "step" and event.get("index") is not None:
            self._step = _Step(event["step"], event["index"], event["count"])
            self._onProgress(self._step.text, self._step.behind(0.0))
        elif kind == "counted" and event["count"]:
            self._onProgress(self._step.text, self._step.behind(event["done"] / event["count"]))
        # Who heard of the progress may have cancelled.
        if self.isRunning:
            self._onEvent(event)

    def _ended(self, exitCode: int) -> None:
        if not self.isRunning:
            return
        onEnd, self._onEnd = self._onEnd, None
        if exitCode == 0:
            onEnd("")
            return
        words = "\n".join(self._otherLines[-3:])
        text = _("The worker ended with code {code}. {words}").format(code=exitCode, words=words)
        onEnd(self._reason or text.strip())


@dataclass(frozen=True)
class _Step:
    """Of a command's work; the whole of it where it tells of none."""

    name: str = ""
    index: int = 0
    count: int = 1

    @property
    def text(self) -> str:
        if not self.name:
            return ""
        text = _("Step {number} of {count}: {step} …")
        return text.format(number=self.index + 1, count=self.count, step=self.name)

    def behind(self, done: float) -> float:
        """The part of the whole that is behind. done: the part of the step that is."""
        return (self.index + done) / self.count


def showIn(label, bar) -> Callable[[str, float], None]:
    """What shows progress in a label, which keeps its text while there is no other, and in a bar of 1000 steps."""

    def show(text: str, behind: float) -> None:
        if text:
            label.setText(text)
        bar.setValue(round(1000 * behind))

    return show
