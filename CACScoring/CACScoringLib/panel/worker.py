"""A command of a library in the background, and what it reports: see `progress.JsonProgress`."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from slicer.i18n import tr as _

from .lifecycle import Signal
from .process import BackgroundProcess, Process, ReadyProcess
from .widgets import say
from .wording import inPanel

LIBRARY = "CACScoringLib"
"""The panel's own."""

POLL_MILLISECONDS = 20
"""How often `Worker.run` looks whether the command has ended."""


class WorkerError(RuntimeError):
    """A command that failed or could not be started, with the reason."""


class Worker:
    """Runs one command at a time.

    process: what runs it; None for a background process of Slicer's own Python. library: whose commands they are.
    warnings: the "warning" events of the command that runs, or ran last.
    """

    def __init__(self, process: Process | None = None, library: str = LIBRARY) -> None:
        self._process = process
        self._library = library
        self._onEnd: Callable[[str], None] | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
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
        self._step = ("", 0, 1)
        self._onProgress, self._onEvent, self._onEnd = onProgress, onEvent, onEnd
        report = ["--progress", "json"] if module == "cli" else []
        try:
            self._process.start(["-m", f"{self._library}.{module}", *arguments, *report], self._hear, self._ended)
        except (OSError, RuntimeError) as error:
            self._end(str(error))

    def run(self, arguments: list[str], onProgress: Callable[[str, float], None], module: str = "cli") -> Iterator[int]:
        """The same as steps of a longer work: yields milliseconds to wait until the command has ended.

        Whoever closes the iterator ends the command. Raises WorkerError.
        """
        reasons: list[str] = []
        self.start(arguments, reasons.append, onProgress, module=module)
        try:
            while not reasons:
                yield POLL_MILLISECONDS
        finally:
            self.cancel()
        if reasons[0]:
            raise WorkerError(reasons[0])

    def cancel(self) -> None:
        """End the command, if one is running; nothing more is called, and its folder is removed."""
        if self.isRunning:
            self._onEnd = None
            self._process.kill()
        self._removeFolder()

    def getReady(self) -> None:
        """Begin what the next command needs, where the process can."""
        if isinstance(self._process, ReadyProcess) and not self.isRunning:
            self._process.getReady()

    def close(self) -> None:
        """End the command, if one is running, and what has been begun for the next."""
        self.cancel()
        if isinstance(self._process, ReadyProcess):
            self._process.kill()

    def newFolder(self) -> Path:
        """A temporary folder for the next command, removed when that was cancelled or, after `onEnd`, has ended."""
        self._removeFolder()
        self._folder = tempfile.TemporaryDirectory(prefix="cac-panel-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def _removeFolder(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _end(self, reason: str) -> None:
        onEnd, self._onEnd = self._onEnd, None
        try:
            onEnd(reason)
        finally:
            if not self.isRunning:  # what has heard of the end may have started another command
                self._removeFolder()

    def _hear(self, line: str) -> None:
        if not self.isRunning:
            return
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self._otherLines.append(line)
            return
        if "message" in event:
            event["message"] = inPanel(event["message"])
        if kind == "failed":
            self._reason = event["message"]
        elif kind == "warning":
            self.warnings.append(event)
        elif kind == "step" and event.get("index") is not None:
            text = _("Step {number} of {count}: {step} …")
            text = text.format(number=event["index"] + 1, count=event["count"], step=event["step"])
            self._step = text, event["index"], event["count"]
            self._progressed(0.0)
        elif kind == "counted" and event["count"]:
            self._progressed(event["done"] / event["count"])
        # Who heard of the progress may have cancelled.
        if self.isRunning:
            self._onEvent(event)

    def _progressed(self, done: float) -> None:
        """done: part of the step that is behind; of the whole where the command tells of no steps."""
        text, index, count = self._step
        self._onProgress(text, (index + done) / count)

    def _ended(self, exitCode: int) -> None:
        if not self.isRunning:
            return
        words = "\n".join(self._otherLines[-3:])
        text = _("The worker ended with code {code}. {words}").format(code=exitCode, words=words)
        self._end("" if exitCode == 0 else self._reason or text.strip())


def showIn(label, bar) -> Callable[[str, float], None]:
    """What shows progress in a label, which keeps its text while there is no other, and in a bar of 1000 steps."""

    def show(text: str, behind: float) -> None:
        if text:
            say(label, text)
        bar.setValue(round(1000 * behind))

    return show


class Task:
    """A command that a button starts and cancels, with a label and a bar that show how it goes.

    worker: runs the command. title: of the button while nothing runs. cancelled: what the label says of a command that
    was ended early. asked: tells that the command is wanted. changed: tells that the button was dealt with.
    """

    def __init__(self, worker: Worker, button, label, bar, title: str, cancelled: str) -> None:
        self.worker, self.asked, self.changed = worker, Signal(), Signal()
        self._button, self._label, self._bar = button, label, bar
        self._title, self._cancelled = title, cancelled
        self.show = showIn(label, bar)
        button.clicked.connect(self._pressed)
        bar.setVisible(False)

    def _pressed(self, *_args: object) -> None:
        if self.worker.isRunning:
            self.cancel()
        else:
            self.asked.emit()
        self.changed.emit()

    def start(self, arguments: list[str], onEnd: Callable[[str], None], module: str = "cli") -> None:
        """As `Worker.start`, with the progress in label and bar."""
        self.worker.start(arguments, onEnd, self.show, module=module)

    def cancel(self) -> None:
        """End the command, if one is running."""
        if self.worker.isRunning:
            self.say(self._cancelled)
        self.worker.cancel()

    def update(self, ready: bool) -> None:
        """Show the state. ready: whether the command could be started."""
        running = self.worker.isRunning
        self._button.setText(_("Cancel") if running else self._title)
        self._button.setEnabled(running or ready)
        self._bar.setVisible(running)

    def say(self, text: str) -> None:
        """Show a text; without one the label takes no room."""
        say(self._label, text)
