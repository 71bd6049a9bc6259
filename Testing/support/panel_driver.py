"""Shared by the panel's tests: the panel on the stand-in of the desktop, and a scripted worker."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
import slicer

import desktop_host
from CACScoringLib.core.labels import site_called
from desktop_host import events

SCROLL_BAR_PIXELS = 20

PANEL_SIZE = 411, 600
"""Width and height in pixels that 3D Slicer leaves a panel beside its views."""


def line(**event: object) -> str:
    return json.dumps(event)


class ScriptedProcess:
    """A process that does nothing by itself, and can write a worker's results."""

    def __init__(self) -> None:
        self.arguments: list[str] | None = None
        self.killed = False

    def start(self, arguments: list[str], on_line: Callable, on_end: Callable) -> None:
        self.arguments, self.say, self.end = arguments, on_line, on_end
        if "score" in arguments:
            self.ct = Path(arguments[arguments.index("score") + 1])
            self.folder = self.ct.parent
            self.output = Path(arguments[arguments.index("--output") + 1])

    @property
    def image(self) -> sitk.Image:
        """CT that the worker would read."""
        return sitk.ReadImage(str(self.ct))

    def getReady(self) -> None:  # noqa: N802
        pass

    def kill(self) -> None:
        self.killed = True

    def write_result(self, networks: bool = False, folder: Path | None = None) -> None:
        """Write the results in a folder, or else those of the chest."""
        shutil.copytree(folder or _result_of_the_chest(networks), self.output)

    def option(self, name: str) -> list[str]:
        """Values of an option of the command."""
        return [self.arguments[n + 1] for n, word in enumerate(self.arguments) if word == name]

    def settings(self) -> dict:
        """Settings of the command, by section."""
        return {name: value for text in self.option("--settings") for name, value in json.loads(text).items()}


@functools.cache
def _result_of_the_chest(networks: bool) -> str:
    """Folder of the chest's results, scored once for all tests."""
    import panel_results  # needs PyTorch, which an environment like 3D Slicer's lacks

    folder = Path(tempfile.mkdtemp(prefix="cac-chest-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    panel_results.write(folder, panel_results.chest_image(), networks)
    return str(folder)


class Driver:
    """The opened panel and a user's actions; if `real`, Slicer's Python scores the scans."""

    def __init__(self, real: bool = False) -> None:
        self.widget = desktop_host.open_panel("CACScoring")
        self.ui = self.widget.ui
        if not real:
            self.widget.scorer.close()
            self.process = self.widget.scorer.job.process = ScriptedProcess()

    @property
    def state(self):
        return self.widget.logic.getParameterNode()

    @property
    def review(self):
        return self.widget._review

    def score(self, networks: bool = False, folder: Path | None = None) -> None:
        """Run from the click on the button to the result in the scene, with results as for `write_result`."""
        self.begin()
        self.finish(networks, folder)

    def finish(self, networks: bool = False, folder: Path | None = None) -> None:
        """Let the worker end with results as for `write_result`, and wait for the panel."""
        self.process.write_result(networks, folder)
        self.end()

    def end(self, code: int = 0) -> None:
        """Let the worker end, and wait for the panel."""
        self.process.end(code)
        self.settle()

    def begin(self, button: object = None) -> None:
        """Press a button that scores, *Score* by default, and wait for the worker."""
        self.process.arguments = None
        (self.ui.scoreButton if button is None else button).click()
        eventually(lambda: slicer.app.processEvents() or self.process.arguments is not None)

    def settle(self) -> None:
        """Wait until the panel has handled all events."""
        jobs = self.widget.scorer, self.widget.importing
        eventually(lambda: slicer.app.processEvents() or not any(job.isRunning for job in jobs))
        time.sleep(0.03)  # the panel collects changes for a moment
        for _ in range(3):  # the layout, then its views
            slicer.app.processEvents()

    def lesions(self) -> list[dict[str, object]]:
        """Rows of the list by column title."""
        table = self.ui.lesionTable
        titles, rows = titles_of(table), range(table.rowCount)
        return [{t: table.item(row, n).data(0) for n, t in enumerate(titles)} for row in rows]

    def choose_lesion(self, slices: str) -> None:
        """Click the row of the lesion in these slices."""
        row = next(n for n, lesion in enumerate(self.lesions()) if lesion["Slices"] == slices)
        self.ui.lesionTable.setCurrentCell(row, 0)

    def key(self, keys: str) -> None:
        """Press a key while the list has the focus."""
        self.widget.parent.show()
        self.ui.lesionTable.setFocus()
        events.key(self.ui.lesionTable, keys)
        self.settle()

    @property
    def current(self) -> int | None:
        """Number of the selected lesion."""
        return self.widget.review.table.current

    def press_artery(self, name: str) -> None:
        """Press the button of a site, or "reject"."""
        site = None if name == "reject" else site_called(name)
        self.widget.review._assign(site)
        self.settle()

    def assign(self, slices: str, artery: str) -> None:
        """Give the lesion in these slices to a site, or "reject" it."""
        self.choose_lesion(slices)
        self.press_artery(artery)

    def choose_slice(self, k: int) -> None:
        """Click the slice in the plot."""
        self.widget.review.plot.chosen.emit(k)
        slicer.app.processEvents()

    def scores(self) -> dict[str, list[str]]:
        """Cells of the result's table by artery, without the first column."""
        return {row[0]: row[1:] for row in cells_of(self.ui.scoreTable)}


def titles_of(table) -> list[str]:
    """Titles of a table's columns in one line each."""
    return [table.horizontalHeaderItem(n).text().replace("\n", " ") for n in range(table.columnCount)]


def cells_of(table) -> list[list[str]]:
    """Texts of a table's rows, "" for a cell without an item."""
    rows = [[table.item(row, n) for n in range(table.columnCount)] for row in range(table.rowCount)]
    return [["" if cell is None else cell.text() for cell in row] for row in rows]


def least_width(widget) -> int:
    """Open every page and section of a panel; return its least width in pixels.

    Slicer's window grows with it and does not shrink again; 400 pixels and the views fit a screen of 1366.
    """
    pages = widget.ui.pages
    for index in range(pages.count):
        pages.setCurrentIndex(index)
        for section in slicer.util.findChildren(pages.widget(index), className="ctkCollapsible*"):
            section.collapsed = False
        slicer.app.processEvents()
    areas = slicer.util.findChildren(pages, className="QScrollArea")
    contents = [area.widget().minimumSizeHint.width() + SCROLL_BAR_PIXELS for area in areas]
    return max(widget.parent.layout().minimumSize().width(), *contents)


def beyond_the_panel(widget) -> list[str]:
    """Open every page and section in a panel of PANEL_SIZE; return what of it lies beyond its right edge."""
    import qt

    panel, pages, beyond = widget.parent, widget.ui.pages, []
    panel.show()
    for index in range(pages.count):
        pages.setCurrentIndex(index)
        for section in slicer.util.findChildren(pages.widget(index), className="ctkCollapsible*"):
            section.collapsed = False
        for _ in range(3):
            panel.resize(*PANEL_SIZE)
            slicer.app.processEvents()
        for kind in ("QAbstractButton", "QComboBox", "QLineEdit", "QAbstractSlider", "QLabel", "QTableWidget"):
            for part in slicer.util.findChildren(pages.widget(index)):
                if not part.inherits(kind) or not part.visible:
                    continue
                edge = part.mapTo(panel, qt.QPoint(part.width, 0)).x()
                is_cut = kind == "QTableWidget" and part.horizontalHeader().length() > part.viewport().width
                if edge > PANEL_SIZE[0] or is_cut:
                    beyond.append(f"page {index}: {part.objectName}")
    return beyond


def eventually(condition: Callable[[], object], seconds: float = 20) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    return False


def put_slicers_python_on_the_path(folder: Path, monkeypatch) -> None:
    """Put a PythonSlicer on the path that runs Python as a child process, like the real one."""
    launcher = folder / "bin" / "PythonSlicer"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{launcher.parent}{os.pathsep}{os.environ['PATH']}")


class InThisProcess(ScriptedProcess):
    """Runs the real command in this process: soon, or if it waits, when the test calls `run`."""

    def __init__(self, waits: bool = False) -> None:
        super().__init__()
        self.waits = waits

    def start(self, arguments: list[str], on_line: Callable, on_end: Callable) -> None:
        self.arguments, self.say, self.end, self.killed = arguments, on_line, on_end, False
        if not self.waits:
            from PySide6.QtCore import QTimer

            # Output arrives after start() has returned, as from a process.
            QTimer.singleShot(0, self.run)

    def run(self) -> None:
        """Run the command and pass on its output."""
        if self.killed:
            return
        module, *words = self.arguments[1:]
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = importlib.import_module(f"{module}.main" if module.endswith(".cli") else module).main(words)
            except SystemExit as end:
                code = end.code
        for text in output.getvalue().splitlines():
            self.say(text)
        self.end(code or 0)
