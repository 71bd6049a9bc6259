"""Long work of the panels, in steps between which Slicer stays responsive: commands of a library, and threads.

Work is a generator. Each step yields the milliseconds before the next one, or None while a command runs. A message for
the user may be returned in the end.
"""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from slicer.i18n import tr as _

from ..core.errors import CTError, OutputError
from ..core.files import parse_json
from .process import BackgroundProcess
from .widgets import say, singleShot

LIBRARY = "CACScoringLib"
"""Package whose commands the panel runs."""

WAITING_SECONDS = 0.03
"""Time that Slicer waits for a thread before it processes events."""

T = TypeVar("T")
Steps = Generator["int | None", None, T]

Event = dict[str, Any]
"""Event of a command, see `core.progress.JsonProgress`."""


class JobError(RuntimeError):
    """Error with the reason why a command failed or could not be started."""


def inThread(work: Callable[[], T]) -> Steps[T]:
    """Run `work` in a thread and return its result. Closing leaves the thread behind."""
    thread = ThreadPoolExecutor(1)
    running = thread.submit(work)
    thread.shutdown(wait=False)
    # Python's threads run only while Slicer executes Python, so waiting here alternates with Slicer's events.
    yield 0
    while not wait([running], WAITING_SECONDS).done:
        yield 0
    return running.result()


def temporaryFolder() -> AbstractContextManager[str]:
    """Make a folder for files of a job, removed when its block ends, also by cancelling."""
    return tempfile.TemporaryDirectory(prefix="cac-panel-", ignore_cleanup_errors=True)


class BackgroundJob:
    """Background work of a panel, one piece at a time, with its messages, progress and button.

    Attributes:
        process: Process for commands.
        steps: The current work; None if there is none.
        warnings: The "warning" events of the current or last command.
    """

    def __init__(
        self,
        label: Any = None,
        bar: Any = None,
        button: Any = None,
        work: Callable[[], Steps[str | None]] | None = None,
        cancelled: str = "",
        onChanged: Callable[[], object] = lambda: None,
        library: str = LIBRARY,
    ) -> None:
        """Prepare, and connect the button.

        Args:
            label: Label for messages; None for none.
            bar: Bar of 1000 steps, shown while work runs; None for none.
            button: Button that starts and cancels the work, with its own text while nothing runs; None for none.
            work: Function that returns the button's work; its message, or the reason of a failure, is shown.
            cancelled: Message after the work was cancelled.
            onChanged: Called when the button's work begins and when it ends.
            library: Package whose commands are run.
        """
        self.process = BackgroundProcess()
        self._library = library
        self.steps: Any = None
        self._timer = singleShot(0, self._step)
        self._onEvent: Callable[[Event], object] | None = None
        self.warnings: list[Event] = []
        self._label, self._bar, self._button, self._work = label, bar, button, work
        self._cancelled, self._onChanged, self._title = cancelled, onChanged, "" if button is None else button.text
        if button is not None:
            button.clicked.connect(self._pressed)
        self._showBar()

    @property
    def isRunning(self) -> bool:
        return self.steps is not None

    def start(self, steps: Steps[T], onEnd: Callable[[T | None, str], object] | None = None) -> None:
        """Begin work, in place of the current one, and do its first step.

        onEnd: called once, unless cancelled, with the result and an empty text, or with None and a failure's reason;
        None to show the result, a message, or the reason.
        """
        self._abandon()
        self.steps = steps
        self._onEnd: Callable[[Any, str], object] = onEnd or self._showEnd
        self._showBar()
        self._step()

    def cancel(self) -> None:
        """Abandon the work and end its command, without further calls."""
        if self._abandon() and self._cancelled:
            self.say(self._cancelled)

    def _abandon(self) -> bool:
        steps, self.steps = self.steps, None
        self._timer.stop()
        if steps is not None and not steps.gi_running:  # else it is closed after its step
            steps.close()
        self._showBar()
        return steps is not None

    def close(self) -> None:
        """Cancel, and end a process that waits for the next command."""
        self.cancel()
        self.process.kill()

    def update(self, ready: bool) -> None:
        """Show the state. ready: True if the button can start its work."""
        if self._button is not None:
            self._button.setText(_("Cancel") if self.isRunning else self._title)
            self._button.setEnabled(self.isRunning or ready)

    def showIn(self, label, bar) -> None:
        """Show messages and progress in another label and bar."""
        self._label, self._bar = label, bar
        self._showBar()

    def _showBar(self) -> None:
        if self._bar is not None:
            self._bar.setVisible(self.isRunning)

    def say(self, text: str) -> None:
        """Show a text; hide the label for an empty text."""
        if self._label is not None:
            say(self._label, text)

    def show(self, text: str, fraction: float) -> None:
        """Show progress; an empty text leaves the label."""
        if text:
            self.say(text)
        if self._bar is not None:
            self._bar.setValue(round(1000 * fraction))

    def _pressed(self, *_args: object) -> None:
        if self.isRunning:
            self.cancel()
        else:
            self.start(self._work())
        self._onChanged()

    def _showEnd(self, message: str | None, reason: str) -> None:
        if reason or message is not None:
            self.say(reason or message)
        self._onChanged()

    def getReady(self) -> None:
        """Start Python ahead of the next scoring command."""
        if not self.isRunning:
            self.process.getReady()

    def run(
        self,
        arguments: list[str],
        onProgress: Callable[[str, float], object] | None = None,
        onEvent: Callable[[Event], object] = lambda event: None,
        module: str = "cli",
    ) -> Steps[None]:
        """Run `python -m <library>.<module>`; commands of `cli` get the option to report their progress.

        Args:
            arguments: The command's arguments.
            onProgress: Called with the text of the step, empty if the command reports none, and the fraction done; None
                to show both.
            onEvent: Called with each event, see `core.progress.JsonProgress`.
            module: Module of the library.

        Raises:
            JobError: The command failed or could not be started.
        """
        self._reason, self._progressStep, self.warnings = "", ("", 0, 1), []
        self._plainLines: list[str] = []
        ends: list[int] = []
        self._onProgress, self._onEvent = onProgress or self.show, onEvent

        def onEnd(code: int) -> None:
            if self._onEvent is onEvent:
                ends.append(code)
                if not self.steps.gi_running:
                    self._step()

        report = ["--progress", "json"] if module == "cli" else []
        try:
            self.process.start(["-m", f"{self._library}.{module}", *arguments, *report], self._onLine, onEnd)
            while not ends:
                yield None
        except (OSError, RuntimeError) as error:
            raise JobError(str(error)) from error
        finally:
            self._onEvent = None
            if not ends:
                self.process.kill()
        if ends[0] != 0:
            words = "\n".join(self._plainLines[-3:])
            text = _("The worker ended with code {code}. {words}").format(code=ends[0], words=words)
            raise JobError(self._reason or text.strip())

    def call(self, function: Callable[..., T], *arguments: object) -> Steps[T]:
        """Call a function of a library in the background and return its result.

        Args:
            function: Function of a module; takes the arguments, then a `Progress`. All need to be fit for pickling.
            *arguments: The function's arguments.

        Raises:
            JobError: The function raised CTError, OutputError or OSError, or could not be called.
        """
        from . import background

        with temporaryFolder() as name:
            folder = Path(name)
            yield from inThread(lambda: background.write_call(folder, function, arguments))
            yield from self.run([name], module="panel.background")
            return (yield from inThread(lambda: background.returned_value(folder)))

    def _step(self) -> None:
        steps = self.steps
        try:
            pause = next(steps)
        except StopIteration as end:
            self._end(steps, end.value, "")
        except Exception as error:
            self._end(steps, None, str(error))
            if not isinstance(error, (CTError, OutputError, OSError, JobError)):
                raise
        else:
            if self.steps is not steps:  # cancelled during the step
                steps.close()
            elif pause is not None:
                self._timer.start(pause)

    def _end(self, steps: Steps[Any], result: object, reason: str) -> None:
        if self.steps is steps:
            self.steps = None
            self._showBar()
            self._onEnd(result, reason)

    def _onLine(self, line: str) -> None:
        if self._onEvent is None:
            return
        try:
            event = parse_json(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self._plainLines.append(line)
            return
        if kind == "failed":
            self._reason = event["message"]
        elif kind == "warning":
            self.warnings.append(event)
        elif kind == "step" and event.get("index") is not None:
            text = _("Step {number} of {count}: {step} …")
            text = text.format(number=event["index"] + 1, count=event["count"], step=event["step"])
            self._progressStep = text, event["index"], event["count"]
            self._reportProgress(0.0)
        elif kind == "counted" and event["count"]:
            self._reportProgress(event["done"] / event["count"])
        if self._onEvent is not None:  # onProgress may have cancelled the command
            self._onEvent(event)

    def _reportProgress(self, stepFraction: float) -> None:
        """Report progress. stepFraction: fraction of the step, or of the command if it reports no steps."""
        text, index, count = self._progressStep
        self._onProgress(text, (index + stepFraction) / count)
