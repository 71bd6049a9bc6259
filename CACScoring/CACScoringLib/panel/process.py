"""Background processes that run Python: start one, receive its lines, end it with all its children."""

# Qt's names.
# ruff: noqa: N802, N803

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from ..core.text import PANEL_WORKER
from ..core.version import kill_tree

MODULE_FOLDER = Path(__file__).resolve().parents[2]
"""Folder of CACScoring.py and the library, wherever they are installed."""

LIBRARIES = ("CACScoringLib", "CACTrainingLib")
"""Packages whose commands workers run."""

COMMANDS, READY = "CACScoringLib.cli", "CACScoringLib.cli.ready"
"""Modules that run a scoring command: at once, or after it arrives on standard input."""


def workerCommand() -> tuple[str, dict[str, str]]:
    """Return Slicer's Python and an environment with our libraries on the path.

    Raises RuntimeError if Slicer's Python is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError(_("Slicer's Python (PythonSlicer) was not found."))
    # Folders of our installed libraries: one in the extension, two in the sources.
    specs = [importlib.util.find_spec(library) for library in LIBRARIES]
    folders = dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in specs if spec is not None)
    paths = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    # PYTHONSAFEPATH keeps Python from importing from the current folder.
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1"}
    return python, {**os.environ, **variables, **PANEL_WORKER}


class BackgroundProcess:
    """QProcess that runs Slicer's own Python, and can start it before the scoring command is known."""

    _waits = False

    def __init__(self) -> None:
        self._process: Any = None

    def getReady(self) -> None:
        """Start Python and import the library ahead of the next scoring command."""
        if self._waits:
            return
        self._waits, self._onLine = True, lambda line: None
        self._onEnd: Callable[[int], None] = self._onEarlyEnd
        try:
            self._start(["-m", READY], lambda line: self._onLine(line), lambda code: self._onEnd(code))
        except (OSError, RuntimeError):  # `start` will report the reason
            self._waits = False

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        """Run Python.

        Args:
            arguments: Python's arguments.
            onLine: Called with each line on standard error.
            onEnd: Called once with the exit code, unless the process is killed.
        """
        if self._waits and arguments[:2] == ["-m", COMMANDS]:
            self._waits, self._onLine, self._onEnd = False, onLine, onEnd
            self._process.write(json.dumps(arguments[2:]).encode() + b"\n")
        else:
            self.kill()
            self._start(arguments, onLine, onEnd)

    def _start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        python, variables = workerCommand()
        environment = qt.QProcessEnvironment()
        for name, value in variables.items():
            environment.insert(name, value)
        process = qt.QProcess()
        process.setProcessEnvironment(environment)
        # Standard output is not read, and a full pipe would block the worker.
        process.setStandardOutputFile(os.devnull)
        unfinished = bytearray()

        def readLines() -> None:
            unfinished.extend(bytes(process.readAllStandardError().data()))
            *lines, incomplete = bytes(unfinished).split(b"\n")
            unfinished[:] = incomplete
            for line in lines:
                onLine(line.decode(errors="replace").rstrip())

        def onFinished(*_: object) -> None:
            readLines()
            crashed = process.exitStatus() != qt.QProcess.NormalExit
            onEnd(-1 if crashed else process.exitCode())

        def onError(error: object) -> None:
            # QProcess emits finished() after all other errors.
            if error == qt.QProcess.FailedToStart:
                onLine(_("{python} could not be started.").format(python=python))
                onEnd(-1)

        process.readyReadStandardError.connect(readLines)
        process.finished.connect(onFinished)
        process.errorOccurred.connect(onError)
        self._process = process
        process.start(python, arguments)

    def kill(self) -> None:
        """End the process and its children at once."""
        self._waits = False
        process, self._process = self._process, None
        if process is None or process.state() == qt.QProcess.NotRunning:
            return
        # A killed process does not call onEnd.
        process.blockSignals(True)
        try:
            kill_tree(process.processId())
        except ImportError:  # psutil is not installed for the clinical rule alone
            # The launcher's child ends at its next report, because the pipe is closed.
            process.closeReadChannel(qt.QProcess.StandardError)
            process.kill()
        process.waitForFinished(2000)

    def _onEarlyEnd(self, exitCode: int) -> None:
        self._waits = False
