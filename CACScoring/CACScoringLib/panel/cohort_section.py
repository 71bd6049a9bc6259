"""Page of cohorts: runs `cac cohort` in the background, lists the scans of a folder of results, and opens one."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from . import widgets
from .command_section import CommandSection
from .input_section import argumentsOf, scoringRequirements
from .job import BackgroundJob, Event, Steps, inThread
from .lifecycle import Signal
from .packages import COHORT_REQUIREMENTS, ensurePackages
from .parameters import COHORT, Method

if TYPE_CHECKING:
    from ..core.progress import ScanState

TITLES = ("Scan", "State", "Clinical\nAgatston", "Clinical\nscore is", "Map")
STATES = {"waiting": "waiting", "running": "running", "done": "done", "skipped": "existing", "failed": "failed"}
"""Texts of the table by the state of a scan."""

COLUMN_LETTERS = (10, 8, 11, 7)
"""Widths of the columns in letters; the first column is stretched."""

_MAP_COLUMN = 4

_SCANS_FOR_ESTIMATE = 3
"""Number of scans that must end before the remaining time is estimated."""

_ROWS_AT_ONCE = 200
"""Rows of a finished cohort that are filled in one step, between which Slicer stays responsive."""

_FINISHED_STATES = ("done", "skipped", "failed")


class CohortSection(CommandSection):
    """Page of cohorts.

    Attributes:
        scanChosen: Signal with the "scan" event of the row to open.
    """

    def __init__(self, ui) -> None:
        super().__init__(ui, COHORT)
        layout, form, self._settingsLabel = ui.cohortContents.layout(), qt.QFormLayout(), widgets.messageLabel()
        self.addRows(form, 0, *COHORT.fields)
        layout.insertLayout(0, form)
        layout.insertWidget(1, self._settingsLabel)
        tip = _("Score all scans of the folder in the background.")
        cancelled = _("Cancelled. Finished scans are kept; start again to continue.")
        self.addCommand(layout, 2, _("Score all"), tip, self._score, cancelled)
        self.scanChosen = Signal()
        self._scans: list[Event] = []
        self._startTime: float | None = None
        self._initialCount = 0
        self._listing = BackgroundJob()
        self._listed: tuple[str, float | None, float | None] = "", None, None
        """Folder of results in the table, and the times at which its list and its plan of readings were written."""
        self._isBlinded = False
        ui.pages.currentChanged.connect(self._pageChanged)
        table = ui.cohortTable
        widgets.prepareColumns(table, TITLES, COLUMN_LETTERS)
        table.itemSelectionChanged.connect(self.update)
        table.cellDoubleClicked.connect(self._open)
        ui.cohortOpenButton.clicked.connect(self._open)

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None:
            return
        self.showPaths()
        self.setRowsEnabled(not self.job.isRunning)
        networks = _("clinical rule and calcium map") if state.method == Method.BOTH else _("clinical rule alone")
        self._settingsLabel.setText(
            _("Method, models, device and rules are those of the first page: {method}.").format(method=networks)
        )
        self.job.update(bool(state.cohortSource and state.cohortOutput))
        ui.cohortBar.setVisible(True)
        if not self.job.isRunning and (stamp := _stampOf(state.cohortOutput)) != self._listed:
            self._listed = stamp
            self._list()
        scan = self._selected()
        ui.cohortOpenButton.setEnabled(self._mayOpen(scan))
        blinded = _("Blind readings are to be done, so the networks' results are hidden. Scans open by Next reading.")
        widgets.say(ui.cohortNoteLabel, blinded if self._isBlinded else "" if scan is None else _noteOf(scan))

    def cancel(self) -> None:
        super().cancel()
        self._listing.cancel()

    def _pageChanged(self, *_args: object) -> None:
        if self._isBlinded and self._state is not None:
            self._list()  # a reading may have been the last one

    def _list(self) -> None:
        """Begin to list the scans of the folder of results."""
        self._listing.start(self._listScans(Path(self._state.cohortOutput)), self._showListed)

    def _listScans(self, folder: Path) -> Steps[str]:
        from ..cohort.folder import RECORD

        self._scans, self._isBlinded = [], False
        self.ui.cohortTable.setRowCount(0)
        if self._listed[1] is None or not (folder / RECORD).is_file():
            return ""
        states, self._isBlinded = yield from inThread(lambda: _stored(folder))
        self.ui.cohortTable.setColumnHidden(_MAP_COLUMN, not any("decomposition" in x.agatston for x in states))
        self.ui.cohortTable.setRowCount(len(states))
        for first in range(0, len(states), _ROWS_AT_ONCE):
            for state in states[first : first + _ROWS_AT_ONCE]:
                paths = {"folder": str(state.folder), "ct": str(state.ct)}
                self._scans.append(asdict(state) | paths)
                self._fill(self._scans[-1])
            yield 0
        failed_count = sum(state.state == "failed" for state in states)
        text = _("Scans: {count}, failed: {failed}.")
        return text.format(count=len(states), failed=failed_count)

    def _showListed(self, text: str | None, reason: str) -> None:
        self.job.say(reason or text or "")
        self.update()

    def _mayOpen(self, scan: Event | None) -> bool:
        return scan is not None and scan["state"] in ("done", "skipped") and not self._isBlinded

    def _score(self) -> Steps[str]:
        state, table, output = self._state, self.ui.cohortTable, self._state.cohortOutput
        requirements = (*scoringRequirements(state), *COHORT_REQUIREMENTS)
        if reason := ensurePackages(requirements, purpose=_("A cohort")):
            return reason
        self._listing.cancel()
        self._scans, self._startTime, self._initialCount = [], None, 0
        table.setRowCount(0)
        table.setColumnHidden(_MAP_COLUMN, state.method != Method.BOTH)
        self.job.show(_("Looking for scans …"), 0.0)
        command = ["cohort", *COHORT.words(state), *argumentsOf(state)]
        try:
            yield from self.job.run(command, self._onProgress, self._onEvent)
        finally:
            self._listed = _stampOf(output)  # the rows of the run stay
        self.ui.cohortBar.setValue(1000)
        failed = sum(scan["state"] == "failed" for scan in self._scans)
        text = _("Scans done: {count}, failed: {failed}. The table of all scans is in {folder}.")
        return text.format(count=len(self._scans) - failed, failed=failed, folder=output)

    def _onProgress(self, text: str, fraction: float) -> None:
        if text and not self._scans:
            self.job.say(text)

    def _onEvent(self, event: Event) -> None:
        if event["event"] == "scan":
            self._show(event)
        elif event["event"] == "warning":
            self.job.say(event["message"])

    def _show(self, scan: Event) -> None:
        table, row = self.ui.cohortTable, scan["index"]
        while len(self._scans) <= row:
            self._scans.append({"index": len(self._scans), "name": "", "state": "waiting"})
        table.setRowCount(len(self._scans))
        self._scans[row] = scan
        self._fill(scan)
        finished_count = sum(item["state"] in _FINISHED_STATES for item in self._scans)
        self.ui.cohortBar.setValue(round(1000 * finished_count / len(self._scans)))
        if scan["state"] == "running" and self._startTime is None:
            self._startTime, self._initialCount = time.monotonic(), finished_count
        self.job.say(self._progressText(finished_count))
        self.update()

    def _fill(self, scan: Event) -> None:
        """Write a scan's row, without what the networks found while blind readings are to be done."""
        shown = {"reason": scan.get("reason")} if self._isBlinded else scan
        state = _(STATES[scan["state"]]) + (" ⚠" if shown.get("warnings") else "")
        texts = scan["name"], state, *_scores(shown)
        widgets.fillRow(self.ui.cohortTable, scan["index"], texts, (2, _MAP_COLUMN), _noteOf(shown) or None)

    def _progressText(self, finished_count: int) -> str:
        """Return the numbers of finished and failed scans, and an estimate of the remaining time."""
        count, failed = len(self._scans), sum(item["state"] == "failed" for item in self._scans)
        text = _("{ended} of {count} scans, {failed} failed …").format(ended=finished_count, count=count, failed=failed)
        scored_count, waiting_count = finished_count - self._initialCount, count - finished_count
        if self._startTime is not None and scored_count >= _SCANS_FOR_ESTIMATE and waiting_count:
            minutes = (time.monotonic() - self._startTime) / scored_count * waiting_count / 60
            text += " " + _("About {minutes} min are left.").format(minutes=max(1, round(minutes)))
        return text

    def _selected(self) -> Event | None:
        row = self.ui.cohortTable.currentRow()
        return self._scans[row] if 0 <= row < len(self._scans) else None

    def _open(self, *_args: object) -> None:
        scan = self._selected()
        if self._mayOpen(scan):
            self.scanChosen.emit(scan)


def _stampOf(output: str) -> tuple[str, float | None, float | None]:
    """Return a folder of results, and the times at which its table and its plan of readings were written, if any."""
    if not output:
        return output, None, None
    from ..cohort.folder import TABLE
    from ..readings.journals import PLAN

    times: list[float | None] = []
    for name in (TABLE, PLAN):
        try:
            times.append((Path(output) / name).stat().st_mtime)
        except OSError:
            times.append(None)
    return output, times[0], times[1]


def _stored(folder: Path) -> tuple[list[ScanState], bool]:
    """Return the scans of a folder of results, and True while blind readings of them are to be done."""
    from ..readings.cases import listed_scans
    from ..readings.work_list import is_blinded

    return listed_scans(folder), is_blinded(folder)


def _noteOf(scan: Event) -> str:
    """Return the reason why a scan failed, or its warnings with advice."""
    from ..core.warning_codes import ADVICE

    warnings = (f"{code.replace('-', ' ').capitalize()}. {ADVICE.get(code, '')}" for code in scan.get("warnings") or ())
    return scan.get("reason") or "\n".join(warnings)


def _scores(scan: Event) -> tuple[str, str, str]:
    """Return the texts of the clinical score, its status and the calcium map's score; empty where there is none."""
    status = (scan.get("status") or {}).get("threshold", "")
    scores = scan.get("agatston") or {}
    clinical, of_map = (f"{scores[key]:.1f}" if key in scores else "" for key in ("threshold", "decomposition"))
    # Candidates are no score, and stand in brackets.
    return f"({clinical})" if status == "candidates" else clinical, _(status), of_map
