"""Python in the background of the desktop: start it, hear what it says, end it with all its children."""

# Qt's names.
# ruff: noqa: N802, N803

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import qt
from slicer.i18n import tr as _

from ..core.processes import kill_tree

MODULE_FOLDER = Path(__file__).resolve().parents[2]
"""Of CACScoring.py and the library, wherever they are installed."""

LIBRARIES = ("CACScoringLib", "CACTrainingLib")
"""What workers run commands of."""

COMMANDS, READY = "CACScoringLib.cli", "CACScoringLib.cli.ready"
"""What runs a command of scoring at once, or when it is told which."""


class Process(Protocol):
    """Runs Python with arguments in the background."""

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        """onLine: called with each line on standard error. onEnd: called once, with the exit code, unless killed."""

    def kill(self) -> None:
        """End the process and its children at once."""


def workerCommand() -> tuple[str, dict[str, str]]:
    """The Python to run a worker with, and its environment with our libraries on the path.

    Raises RuntimeError when Slicer's Python is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError(_("Slicer's Python (PythonSlicer) was not found."))
    paths = [*_libraryFolders(), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Safe: nothing is imported from the current folder.
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1"}
    return python, {**os.environ, **variables}


def _libraryFolders() -> list[str]:
    """Folders that hold our libraries, as far as they are installed: one in the extension, two in the sources."""
    found = [importlib.util.find_spec(library) for library in LIBRARIES]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in found if spec is not None))


class BackgroundProcess:
    """The `Process` of the desktop: a QProcess that runs Slicer's own Python."""

    def __init__(self) -> None:
        self._process = None

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        python, variables = workerCommand()
        environment = qt.QProcessEnvironment()
        for name, value in variables.items():
            environment.insert(name, value)
        process = qt.QProcess()
        process.setProcessEnvironment(environment)
        # Nobody reads it, and a full pipe would stop the worker.
        process.setStandardOutputFile(os.devnull)
        unfinished = bytearray()

        def read() -> None:
            unfinished.extend(bytes(process.readAllStandardError().data()))
            *lines, rest = bytes(unfinished).split(b"\n")
            unfinished[:] = rest
            for line in lines:
                onLine(line.decode(errors="replace").rstrip())

        def finished(*_: object) -> None:
            read()
            crashed = process.exitStatus() != qt.QProcess.NormalExit
            onEnd(-1 if crashed else process.exitCode())

        def failed(error: object) -> None:
            # Other errors are followed by finished().
            if error == qt.QProcess.FailedToStart:
                onLine(_("{python} could not be started.").format(python=python))
                onEnd(-1)

        process.readyReadStandardError.connect(read)
        process.finished.connect(finished)
        process.errorOccurred.connect(failed)
        self._process = process
        process.start(python, arguments)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None or process.state() == qt.QProcess.NotRunning:
            return
        # A kill is no ending that anybody waits for.
        process.blockSignals(True)
        try:
            kill_tree(process.processId())
        except ImportError:  # psutil, where the clinical rule alone was asked for
            # The launcher's child ends where it next reports, for nobody listens.
            process.closeReadChannel(qt.QProcess.StandardError)
            process.kill()
        process.waitForFinished(2000)


class ReadyProcess(BackgroundProcess):
    """The same, for a command of scoring that is wanted soon: its Python has begun, and imported what it needs."""

    _waits = False

    def getReady(self) -> None:
        """Begin what the next `start` of such a command goes on with."""
        if self._waits:
            return
        self._waits, self._onLine, self._onEnd = True, lambda line: None, self._lost
        try:
            super().start(["-m", READY], lambda line: self._onLine(line), lambda code: self._onEnd(code))
        except (OSError, RuntimeError):  # `start` says why
            self._waits = False

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        if self._waits and arguments[:2] == ["-m", COMMANDS]:
            self._waits, self._onLine, self._onEnd = False, onLine, onEnd
            self._process.write(json.dumps(arguments[2:]).encode() + b"\n")
        else:
            self.kill()
            super().start(arguments, onLine, onEnd)

    def kill(self) -> None:
        self._waits = False
        super().kill()

    def _lost(self, exitCode: int) -> None:
        self._waits = False
