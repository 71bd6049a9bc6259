"""Trainings of a project: progress, curves and samples; stop and resume.

A training runs as an independent process; its state is read from its folder.
"""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.process import workerCommand
from CACScoringLib.panel.widgets import fillRow, fitHeight, prepareColumns, say, showPicture, widthOf

from ..project.project import Project
from ..training import background_runs as training_runs
from ..training.background_runs import RunState
from ..training.curves import METRICS
from . import curve_nodes
from .parameters import Network

POLL_MILLISECONDS = 1000
TITLES = ("Name", "Network", "State", "Step", "Best")
COLUMN_LETTERS = (10, 8, 7, 9)
"""Widths of all columns in characters, except the first, which is stretched."""

UNDER_WAY = ("starting", "running")

_SELECTION_METRICS = ("score", "dice", "overlap", "auc")
"""Metric by which the best validation is selected, for territories, heart, calcium map and slices."""

_MAX_ROWS = 6


class RunsSection(PanelSection):
    """The list of trainings and the selected one.

    Args:
        ui: Widgets by name.
        panel: Widget of the page; trainings are read only while it is visible.
        onShown: Function called when the page becomes visible.
    """

    def __init__(self, ui, panel, onShown: Callable[[], None]) -> None:
        self._ui = ui
        self._panel = panel
        self._onShown = onShown
        self._project: Project | None = None
        self._runs: dict[str, RunState] = {}
        self._samples: list[tuple[int, Path]] = []
        self._sample: tuple[Any, ...] | None = None
        self._layoutBefore = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self._drawn: tuple[Any, ...] | None = None
        self._visible = False
        self._filling = False
        self._message = ""
        table = ui.runsTable
        prepareColumns(table, TITLES, COLUMN_LETTERS)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.itemSelectionChanged.connect(self._rowChosen)
        ui.stopButton.clicked.connect(self._stop)
        ui.resumeButton.clicked.connect(self._resume)
        ui.curvesButton.clicked.connect(self._toggleCurves)
        ui.sampleSlider.valueChanged.connect(self._showSample)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self.poll)
        self._timer.start()

    def setProject(self, project: Project | None) -> None:
        """Set another project; None for none."""
        self._project = project
        self._runs = {}
        self._message = ""

    def update(self) -> None:
        """Show all trainings."""
        if self._state is None:
            return
        names = [] if self._project is None else training_runs.runs_of(self._project.models_folder)
        self._runs = {name: self._runs.get(name) or training_runs.state_of(self._folder(name)) for name in names}
        self._showTable()
        self._showRun()

    def poll(self) -> None:
        """Read the running trainings and the selected one again."""
        visible = self._state is not None and self._panel.visible
        has_appeared, self._visible = visible and not self._visible, visible
        if has_appeared:
            self._runs = {}
            self._onShown()
        if not visible or self._project is None:
            return
        self._runs = {
            name: run for name, run in self._runs.items() if run.state not in UNDER_WAY and name != self._state.shownRun
        }
        self.update()

    def choose(self, name: str) -> None:
        """Select a new training."""
        self._message = ""
        self._runs.pop(name, None)
        self._state.shownRun = name

    def cancel(self) -> None:
        # Trainings continue.
        self._timer.stop()

    def _folder(self, name: str) -> Path:
        return self._project.models_folder / f"{name}.training"

    @property
    def _selectedRun(self) -> RunState | None:
        return self._runs.get(self._state.shownRun)

    # The list

    def _showTable(self) -> None:
        table, networks = self._ui.runsTable, {network.value: network.label() for network in Network}
        self._filling = True
        table.setRowCount(len(self._runs))
        for row, (name, run) in enumerate(self._runs.items()):
            network = networks.get(run.network, run.network)
            fillRow(table, row, (name, network, stateNames()[run.state], _stepOf(run), bestOf(run)))
        row = list(self._runs).index(self._state.shownRun) if self._state.shownRun in self._runs else -1
        if table.currentRow() != row:
            table.clearSelection()
            table.setCurrentCell(row, 0)
        fitHeight(table, min(max(len(self._runs), 2), _MAX_ROWS))
        self._filling = False

    def _rowChosen(self) -> None:
        row = self._ui.runsTable.currentRow()
        if not self._filling and 0 <= row < len(self._runs):
            self._message = ""
            self._state.shownRun = list(self._runs)[row]
            self.update()

    # The selected training

    def _showRun(self) -> None:
        ui, run = self._ui, self._selectedRun
        ui.stopButton.setEnabled(run is not None and run.state in UNDER_WAY)
        broken_off = run is not None and run.state in ("stopped", "failed")
        ui.resumeButton.setEnabled(broken_off)
        ui.resumeButton.setText(_("Start again") if broken_off and not run.can_resume else _("Resume"))
        ui.curvesButton.setEnabled(run is not None)
        say(ui.runLabel, self._message or ("" if run is None else _progressOf(run)))
        say(ui.runWarningsLabel, "" if run is None else "\n".join(f"⚠ {warning}" for warning in run.warnings))
        folder = None if run is None else self._folder(run.name)
        showing = curve_nodes.showsCurves()
        ui.curvesButton.setChecked(showing)
        if showing:
            curve_nodes.show({} if run is None else self._charts(folder, run))
        self._setSamples([] if run is None else training_runs.sample_pictures(folder))

    def _charts(self, folder: Path, run: RunState) -> dict[str, Any]:
        """Charts of a run; its curves are read again only after its file has changed."""
        metrics = folder / METRICS
        stamp = (folder, metrics.stat().st_mtime_ns if metrics.exists() else None)
        charts = curve_nodes.chartsOf(str(folder))
        if stamp != self._drawn or not charts:
            self._drawn = stamp
            charts = curve_nodes.updateCharts(str(folder), run.name, training_runs.read_curves(folder))
        return charts

    def _toggleCurves(self, *_args: object) -> None:
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        if curve_nodes.showsCurves():
            manager.setLayout(self._layoutBefore)
        else:
            self._layoutBefore, self._drawn = manager.layout, None
            curve_nodes.show({})
        self._showRun()

    def _stop(self, *_args: object) -> None:
        folder = self._folder(self._selectedRun.name)
        self._command(_("It could not be stopped: {error}"), lambda: training_runs.stop(folder))

    def _resume(self, *_args: object) -> None:
        folder = self._folder(self._selectedRun.name)
        self._command(_("It could not be resumed: {error}"), lambda: training_runs.resume(*workerCommand(), folder))

    def _command(self, failure: str, command: Callable[[], None]) -> None:
        try:
            command()
            self._message = ""
        except (CTError, OSError, RuntimeError) as error:
            self._message = failure.format(error=error)
        self._runs.pop(self._state.shownRun, None)
        self.update()

    # Samples

    def _setSamples(self, samples: list[tuple[int, Path]]) -> None:
        ui = self._ui
        at_end = ui.sampleSlider.value >= len(self._samples) - 1
        is_another_run = samples[:1] != self._samples[:1]
        self._samples = samples
        for widget in (ui.sampleLabel, ui.sampleRow):
            widget.setVisible(bool(samples))
        self._filling = True
        ui.sampleSlider.setRange(0, max(0, len(samples) - 1))
        if at_end or is_another_run:
            ui.sampleSlider.setValue(len(samples) - 1)
        self._filling = False
        self._showSample()

    def _showSample(self, *_args: object) -> None:
        if self._filling or not self._samples:
            return
        ui = self._ui
        step, path = self._samples[min(ui.sampleSlider.value, len(self._samples) - 1)]
        ui.sampleStepLabel.setText(_("step {step}").format(step=step))
        width = widthOf(ui.sampleLabel)
        if (path, width) != self._sample:
            self._sample = (path, width)
            showPicture(ui.sampleLabel, path)


def stateNames() -> dict[str, str]:
    """Titles of a training's states."""
    names = {"starting": _("starting …"), "running": _("running"), "stopped": _("stopped")}
    return {**names, "failed": _("failed"), "done": _("done")}


def bestOf(run: RunState) -> str:
    """Selection metric and value of the best validation; empty before the first."""
    metric = next((name for name in _SELECTION_METRICS if name in run.best), None)
    return "" if metric is None else f"{metric} {run.best[metric]:.3f}"


def _stepOf(run: RunState) -> str:
    return f"{run.step}" if run.steps is None else f"{run.step}/{run.steps}"


def _progressOf(run: RunState) -> str:
    minutes, seconds = divmod(round(run.seconds), 60)
    text = _("{name}: {state}, step {step}, {minutes}:{seconds:02d} min of training.")
    state = stateNames()[run.state]
    lines = [text.format(name=run.name, state=state, step=_stepOf(run), minutes=minutes, seconds=seconds)]
    if best := bestOf(run):
        text = _("Best: {best} at step {step:.0f}, which is kept.")
        lines.append(text.format(best=best, step=run.best.get("step", run.step)))
    if run.message:
        lines.append(_("Now: {doing}.").format(doing=run.message) if run.state in UNDER_WAY else run.message)
    return "\n".join(lines)
