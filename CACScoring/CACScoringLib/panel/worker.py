"""A command of a library in the background, and what it reports: see `progress.JsonProgress`."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import json
from collections.abc import Callable

from slicer.i18n import tr as _

from .process import BackgroundProcess, Process

LIBRARY = "CACScoringLib"
"""The panel's own."""


class Worker:
    """Runs one command at a time.

    process: what runs it; None for a background process of Slicer's own Python. library: whose commands they are.
    """

    def __init__(self, process: Process | None = None, library: str = LIBRARY) -> None:
        self._process = process
        self._library = library
        self._onEvent = self._onEnd = None
        self._reason = ""
        self._otherLines: list[str] = []

    @property
    def isRunning(self) -> bool:
        return self._onEnd is not None

    def start(
        self, arguments: list[str], onEvent: Callable[[dict], None], onEnd: Callable[[str], None], module: str = "cli"
    ) -> None:
        """Begin `python -m <library>.<module>` with these arguments.

        onEvent: called with each event. onEnd: called once, unless cancelled, with why the command failed, or with an
        empty text when it ended well. Raises OSError, RuntimeError when it cannot be started or another is running.
        """
        if self.isRunning:
            raise RuntimeError("A command is running already.")
        if self._process is None:
            self._process = BackgroundProcess()
        self._reason, self._otherLines = "", []
        self._onEvent, self._onEnd = onEvent, onEnd
        try:
            self._process.start(["-m", f"{self._library}.{module}", *arguments], self._hear, self._ended)
        except (OSError, RuntimeError):
            self._onEvent = self._onEnd = None
            raise

    def cancel(self) -> None:
        """End the command, if one is running; nothing more is called."""
        if self.isRunning:
            self._onEvent = self._onEnd = None
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
        self._onEvent(event)

    def _ended(self, exitCode: int) -> None:
        if not self.isRunning:
            return
        onEnd = self._onEnd
        self._onEvent = self._onEnd = None
        if exitCode == 0:
            onEnd("")
            return
        words = "\n".join(self._otherLines[-3:])
        text = _("The worker ended with code {code}. {words}").format(code=exitCode, words=words)
        onEnd(self._reason or text.strip())


def stepOf(event: dict) -> tuple[str, float] | None:
    """What is being done and which part of the whole is behind, 0 to 1, from a "step" event; None from others."""
    if event["event"] != "step" or event.get("index") is None:
        return None
    number, count = event["index"] + 1, event["count"]
    text = _("Step {number} of {count}: {step} …").format(number=number, count=count, step=event["step"])
    return text, event["index"] / count
