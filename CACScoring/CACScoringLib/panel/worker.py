"""Background commands of a library and their events, see `core.progress.JsonProgress`."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from slicer.i18n import tr as _

from ..core.files import parse_json
from .lifecycle import Signal
from .process import BackgroundProcess, Process, ReadyProcess
from .widgets import say
from .wording import inPanel

LIBRARY = "CACScoringLib"
"""Package whose commands the panel runs."""

POLL_MILLISECONDS = 20
"""Interval in which `Worker.run` checks for the end of its command."""


class WorkerError(RuntimeError):
    """Error with the reason why a command failed or could not be started."""


class Worker:
    """Runs one command at a time.

    Attributes:
        warnings: The "warning" events of the current or last command.
    """

    def __init__(self, process: Process | None = None, library: str = LIBRARY) -> None:
        """Prepare.

        Args:
            process: Process for the command; None for a background process of Slicer's own Python.
            library: Package whose commands are run.
        """
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
        onProgress: Callable[[str, float], None] = lambda text, fraction: None,
        onEvent: Callable[[dict], None] = lambda event: None,
        module: str = "cli",
    ) -> None:
        """Start `python -m <library>.<module>`; commands of `cli` get the option to report their progress.

        Args:
            arguments: The command's arguments.
            onEnd: Called once, unless cancelled, with the reason why the command failed or could not be started, or
                with an empty text if it succeeded.
            onProgress: Called with the text of the step, empty if the command reports none, and the fraction done.
            onEvent: Called with each event.
            module: Module of the library.

        Raises:
            RuntimeError: A command is running already.
        """
        if self.isRunning:
            raise RuntimeError("A command is running already.")
        if self._process is None:
            self._process = BackgroundProcess()
        self._reason, self._plainLines, self.warnings = "", [], []
        self._step = ("", 0, 1)
        self._onProgress, self._onEvent, self._onEnd = onProgress, onEvent, onEnd
        report = ["--progress", "json"] if module == "cli" else []
        try:
            command = ["-m", f"{self._library}.{module}", *arguments, *report]
            self._process.start(command, self._onLine, self._onProcessEnd)
        except (OSError, RuntimeError) as error:
            self._end(str(error))

    def run(self, arguments: list[str], onProgress: Callable[[str, float], None], module: str = "cli") -> Iterator[int]:
        """Run a command as a step of longer work: yield milliseconds to wait until it has ended.

        Closing the iterator ends the command. Raises WorkerError.
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
        """End the current command, without further calls, and remove its folder."""
        if self.isRunning:
            self._onEnd = None
            self._process.kill()
        self._removeFolder()

    def getReady(self) -> None:
        """Start Python ahead of the next command, if the process can."""
        if isinstance(self._process, ReadyProcess) and not self.isRunning:
            self._process.getReady()

    def close(self) -> None:
        """End the current command and the process that waits for the next."""
        self.cancel()
        if isinstance(self._process, ReadyProcess):
            self._process.kill()

    def newFolder(self) -> Path:
        """Make a temporary folder for the next command, removed when it is cancelled or after `onEnd`."""
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
            if not self.isRunning:  # onEnd may have started another command
                self._removeFolder()

    def _onLine(self, line: str) -> None:
        if not self.isRunning:
            return
        try:
            event = parse_json(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self._plainLines.append(line)
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
            self._reportProgress(0.0)
        elif kind == "counted" and event["count"]:
            self._reportProgress(event["done"] / event["count"])
        # onProgress may have cancelled the command.
        if self.isRunning:
            self._onEvent(event)

    def _reportProgress(self, stepFraction: float) -> None:
        """Report progress. stepFraction: fraction of the step, or of the command if it reports no steps."""
        text, index, count = self._step
        self._onProgress(text, (index + stepFraction) / count)

    def _onProcessEnd(self, exitCode: int) -> None:
        if not self.isRunning:
            return
        words = "\n".join(self._plainLines[-3:])
        text = _("The worker ended with code {code}. {words}").format(code=exitCode, words=words)
        self._end("" if exitCode == 0 else self._reason or text.strip())


def showIn(label, bar) -> Callable[[str, float], None]:
    """Return a function that shows progress in a label and a bar of 1000 steps; an empty text leaves the label."""

    def show(text: str, fraction: float) -> None:
        if text:
            say(label, text)
        bar.setValue(round(1000 * fraction))

    return show


class ButtonCommand:
    """A command that a button starts and cancels, with a label and a bar for its progress.

    Attributes:
        worker: Worker that runs the command.
        startRequested: Signal when the button is pressed while nothing runs.
        changed: Signal after the button was handled.
        show: Function that shows a text and the fraction done.
    """

    def __init__(self, worker: Worker, button, label, bar, title: str, cancelled: str) -> None:
        """Connect the button.

        Args:
            worker: Worker that runs the command.
            button: The button.
            label: Label for messages.
            bar: Progress bar.
            title: Text of the button while nothing runs.
            cancelled: Message after the command was cancelled.
        """
        self.worker, self.startRequested, self.changed = worker, Signal(), Signal()
        self._button, self._label, self._bar = button, label, bar
        self._title, self._cancelled = title, cancelled
        self.show = showIn(label, bar)
        button.clicked.connect(self._pressed)
        bar.setVisible(False)

    def _pressed(self, *_args: object) -> None:
        if self.worker.isRunning:
            self.cancel()
        else:
            self.startRequested.emit()
        self.changed.emit()

    def start(self, arguments: list[str], onEnd: Callable[[str], None], module: str = "cli") -> None:
        """Start a command, see `Worker.start`, and show its progress in label and bar."""
        self.worker.start(arguments, onEnd, self.show, module=module)

    def cancel(self) -> None:
        """End the command, if one is running."""
        if self.worker.isRunning:
            self.say(self._cancelled)
        self.worker.cancel()

    def update(self, ready: bool) -> None:
        """Show the state. ready: True if the command can be started."""
        running = self.worker.isRunning
        self._button.setText(_("Cancel") if running else self._title)
        self._button.setEnabled(running or ready)
        self._bar.setVisible(running)

    def say(self, text: str) -> None:
        """Show a text; hide the label for an empty text."""
        say(self._label, text)
