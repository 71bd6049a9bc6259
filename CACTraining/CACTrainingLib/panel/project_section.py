"""The project page: folder, scans and their use, findings, and agreement of annotators."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.panel import widgets
from CACScoringLib.panel.job import BackgroundJob, Event
from CACScoringLib.panel.lifecycle import PanelSection

from ..project.annotations import annotators, patient_kinds
from ..project.project import Project
from .parameters import LIBRARY

SCAN_TITLES = ("Scan", "Patient", "Use", "Annotated by")
_MAX_ROWS = 8
_LAST_PROJECT = "CACTraining/lastProject"
_MESSAGES = 8
"""Most messages of a command that are shown."""

AGREEMENT_TITLES = ("Annotators", "Scans", "Slices", "κ", "Same", "Dice\nregions", "Dice\nheart")


class ProjectSection(PanelSection):
    """Widgets of the project page.

    Args:
        ui: Widgets by name.
        onProject: Function called with the project when it is opened or changed, with None when it is closed.
    """

    def __init__(self, ui, onProject: Callable[[Project | None], None]) -> None:
        self._ui = ui
        self.job = BackgroundJob(ui.projectStatusLabel, ui.projectBar, library=LIBRARY)
        self._onProject = onProject
        self._project: Project | None = None
        self._folder = ""
        last = "CACTraining/lastFolder"
        self._askForFolder, self._askForFile = (
            partial(widgets.askForFolder, setting=last),
            partial(widgets.askForFile, setting=last),
        )
        self._inSight = widgets.InSight(ui.checkSectionButton)
        widgets.prepareColumns(ui.scanTable, SCAN_TITLES, (9, 12, 11))
        widgets.prepareColumns(ui.agreementTable, AGREEMENT_TITLES, (5, 5, 15, 5, 7, 6))
        ui.agreementTable.setToolTip(
            _("κ (95 % interval) and the proportion of equal labels leave out slices that an annotator is unsure of.")
        )
        ui.agreementTable.setVisible(False)
        ui.projectFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        for button, action in (
            (ui.openProjectButton, lambda: self._take(create=False)),
            (ui.newProjectButton, lambda: self._take(create=True)),
            (ui.addFolderButton, lambda: self._add(self._askForFolder(_("Folder with scans")))),
            (ui.addFileButton, lambda: self._add(self._askForFile(_("CT file")))),
            (ui.relocateButton, self._relocate),
            (ui.removeButton, self._remove),
            (ui.splitButton, self._split),
            (ui.checkButton, self._check),
            (ui.agreementButton, self._compare),
        ):
            button.clicked.connect(lambda *_args, action=action: action())
        for use, name in _useNames().items():
            ui.useBox.addItem(name, use)
        ui.useBox.activated.connect(lambda *_args: self._setUse())
        ui.scanTable.itemSelectionChanged.connect(self._showButtons)
        self.update()

    @property
    def project(self) -> Project | None:
        return self._project

    # Calls of the panel

    def setProject(self, project: Project | None) -> None:
        """Show another project; None for none."""
        self._project = project
        self._folder = "" if project is None else str(project.folder)
        widgets.say(self._ui.findingLabel, "")
        self._ui.agreementTable.setRowCount(0)
        self._ui.agreementTable.setVisible(False)
        self.update()

    def updateParameters(self) -> None:
        """Open the project of the state."""
        state, ui = self._state, self._ui
        if state.projectFolder != self._folder:
            self.cancel()
            self._folder = state.projectFolder
            last = slicer.app.userSettings().value(_LAST_PROJECT, "")
            ui.projectFolderEdit.setCurrentPath(state.projectFolder or last)
            self._openFolder(state.projectFolder)

    def update(self) -> None:
        """Show the project."""
        ui, project = self._ui, self._project
        scans = () if project is None else project.scans
        missing = set() if project is None else {scan.id for scan in project.missing()}
        # A scan's state could identify it to a blind annotator.
        blind = self._state is not None and self._state.blind
        ui.scanTable.setRowCount(len(scans))
        for row, scan in enumerate(scans):
            names = () if blind else self._try(partial(annotators, project, scan.id)) or ()
            state = _("missing") if scan.id in missing else ", ".join(names)
            widgets.fillRow(ui.scanTable, row, (scan.name, scan.patient, _useNames()[scan.use], state))
            ui.scanTable.item(row, 0).setToolTip(f"{scan.ct} ({scan.source})")
        widgets.hideEmptyColumns(ui.scanTable)
        widgets.fitHeight(ui.scanTable, min(len(scans), _MAX_ROWS))
        ui.scanTable.setVisible(bool(scans))
        ui.projectLabel.setText(self._facts(missing))
        self._showButtons()

    # Showing

    def _facts(self, missing: set[str]) -> str:
        project = self._project
        if project is None:
            return _("Choose a folder, and open the project in it or make a new one.")
        uses = [scan.use for scan in project.scans]
        counts = ", ".join(f"{uses.count(use)} {name}" for use, name in _useNames().items() if use in uses)
        text = _("{name}. Scans: {count} ({counts})") if uses else _("{name}. No scans yet")
        lines = [text.format(name=project.name, count=len(uses), counts=counts)]
        if missing:
            lines.append(_("⚠ Missing scans: {count}. Relocate them.").format(count=len(missing)))
        return "\n".join([*lines, *(f"⚠ {warning}" for warning in project.warnings)])

    def _showButtons(self) -> None:
        ui, project, idle = self._ui, self._project, not self.job.isRunning
        opened, full = project is not None and idle, project is not None and bool(project.scans) and idle
        for buttons, ready in (
            ((ui.openProjectButton, ui.newProjectButton), idle),
            ((ui.addFolderButton, ui.addFileButton, ui.checkButton), opened),
            ((ui.relocateButton, ui.splitButton, ui.agreementButton), full),
            ((ui.removeButton, ui.useBox), full and self._selected() is not None),
        ):
            for button in buttons:
                button.setEnabled(ready)
        scan = self._selected()
        text = _("Use of {patient}:").format(patient=scan.patient) if scan is not None else _("Use of a patient:")
        ui.useBoxLabel.setText(text)
        ui.useBox.setCurrentIndex(-1 if scan is None else ui.useBox.findData(scan.use))

    def _selected(self):
        row = self._ui.scanTable.currentRow()
        scans = self._project.scans if self._project is not None else ()
        return scans[row] if 0 <= row < len(scans) else None

    def _sayAll(self, lines: list[str]) -> None:
        lines = [line for line in lines if line]
        more = [_("{count} more messages.").format(count=len(lines) - _MESSAGES)] if len(lines) > _MESSAGES else []
        self.job.say("\n".join(lines[:_MESSAGES] + more))

    # Actions of the user

    def _take(self, create: bool) -> None:
        """Open or create a project; the present one stays open if that fails."""
        title = _("Folder for the new project") if create else _("Folder of the project")
        folder = self._ui.projectFolderEdit.currentPath or self._askForFolder(title)
        if not folder:
            return
        project = self._try(lambda: (Project.create if create else Project.open)(Path(folder)))
        if project is None:
            return
        self.job.say("")
        self._replaceProject(project)
        self._ui.projectFolderEdit.setCurrentPath(self._folder)
        self._state.projectFolder = self._folder
        slicer.app.userSettings().setValue(_LAST_PROJECT, self._folder)

    def _openFolder(self, folder: str) -> None:
        """Open the project that a scene names."""
        self.job.say("")
        self._replaceProject(self._try(lambda: Project.open(Path(folder))) if folder else None)
        self._folder = folder  # a folder that fails is not tried again with every change

    def _replaceProject(self, project: Project | None) -> None:
        self.setProject(project)
        self._onProject(project)

    def _changed(self) -> None:
        """Reload the project after its scans have changed."""
        self._try(self._project.reload)
        self.update()
        self._onProject(self._project)

    def _add(self, source: str) -> None:
        if source:
            self._run(_("Adding scans …"), ["add", str(self._project.folder), source], self._added)

    def _added(self, reason: str, events: list[Event]) -> None:
        self._changed()
        counts = [_("Scans added: {added}.").format(**event) for event in events if event["event"] == "added"]
        self._sayAll([*counts, reason, *self._warnings()])

    def _try(self, call: Callable[[], Any]) -> Any:
        """Call a function and return its result; None, after showing the reason, if it fails."""
        try:
            return call()
        except (CTError, OSError) as error:
            self.job.say(str(error))
            return None

    def _remove(self) -> None:
        scan, place = self._selected(), self._project.folder / "removed"
        self.job.say(_("{name} was taken out. It is kept in {place}.").format(name=scan.name, place=place))
        self._try(lambda: self._project.remove(scan.id))
        self._changed()

    def _split(self) -> None:
        project, boxes = self._project, (self._ui.trainingBox, self._ui.validationBox, self._ui.testBox)
        shares = tuple(box.value / 100 for box in boxes)
        if (assigned := self._try(lambda: project.split(shares, kinds=patient_kinds(project)))) is not None:
            self.job.say(_("Patients assigned: {count}. Earlier assignments are kept.").format(count=len(assigned)))
            self._changed()

    def _setUse(self) -> None:
        scan, use = self._selected(), widgets.dataOf(self._ui.useBox)
        self._try(lambda: self._project.set_use({scan.patient: use}))
        self._changed()

    def _relocate(self) -> None:
        """Search for the missing scans, or all, below a new folder in place of their common one."""
        scans = self._project.missing() or list(self._project.scans)
        old = os.path.commonpath([scan.ct.parent for scan in scans])
        new = self._askForFolder(_("Where is {folder} now?").format(folder=old))
        if new:
            arguments = ["relocate", str(self._project.folder), old, new]
            self._run(_("Comparing the scans …"), arguments, self._relocated)

    def _relocated(self, reason: str, events: list[Event]) -> None:
        self._changed()
        result = next((event for event in events if event["event"] == "relocated"), {"count": 0, "missing": 0})
        text = _("Scans found again: {count}. Still missing: {missing}.")
        self.job.say(reason or text.format(count=result["count"], missing=result["missing"]))

    def _check(self) -> None:
        widgets.say(self._ui.findingLabel, "")
        self._run(_("Checking …"), ["check", str(self._project.folder)], self._checked)

    def _checked(self, reason: str, events: list[Event]) -> None:
        findings = [event for event in events if event["event"] == "finding"]
        lines = findingLines(findings, self._project)
        if not any(finding["severity"] == "error" for finding in findings):
            lines.append(reason or _("✓ Training can start."))
        widgets.say(self._ui.findingLabel, "\n".join(lines))
        self.job.say("")
        self._inSight.start()

    def _compare(self) -> None:
        self._ui.agreementTable.setRowCount(0)
        self._run(_("Comparing annotators …"), ["agreement", str(self._project.folder)], self._compared)

    def _compared(self, reason: str, events: list[Event]) -> None:
        rows = []
        for pair in [event for event in events if event["event"] == "agreement"]:
            kappa = pair["kappa"]
            interval = "" if kappa["low"] is None else f" [{kappa['low']:.2f}, {kappa['high']:.2f}]"
            dice = (_number(pair[key]["value"]) for key in ("same", "regions", "heart"))
            counts = str(pair["scans"]), str(pair["slices"])
            rows.append((f"{pair['first']} – {pair['second']}", *counts, _number(kappa["value"]) + interval, *dice))
        table = self._ui.agreementTable
        table.setVisible(bool(rows))
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            widgets.fillRow(table, row, texts, range(1, 7))
        nobody = _("No scan was annotated by two annotators, or by one beside a known ground truth.")
        self._sayAll([reason or ("" if rows else nobody), *self._warnings()])
        if rows:
            self._inSight.start()

    def _run(self, text: str, arguments: list[str], onEnd: Callable[[str, list[Event]], None]) -> None:
        """Run a command in the background; onEnd takes the reason of a failure, or "", and the events."""
        events: list[Event] = []

        def onJobEnd(_nothing: None, reason: str) -> None:
            onEnd(reason, events)
            self._showButtons()

        self.job.show(text, 0.0)
        self.job.start(self.job.run(["project", *arguments], onEvent=events.append), onJobEnd)
        self._showButtons()

    def _warnings(self) -> list[str]:
        return [event["message"] for event in self.job.warnings]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _useNames() -> dict[str, str]:
    return {"training": _("training"), "validation": _("validation"), "test": _("test"), "": _("not assigned")}


_MARKS = {"error": "✗", "warning": "⚠", "note": "·"}
"""Marks of severities, most severe first."""

_REMEDIES = {
    "add": "Page Project: Add folder.",
    "relocate": "Page Project: Relocate.",
    "split": "Page Project: Split.",
    "use": "Page Project: choose the use of the patient.",
    "prepare": "Page Annotate: Prepare all.",
    "labels": "Choose the calcium map, and the method that learns from slice labels.",
}
"""Buttons to press, by remedy; translated on display."""


def findingLines(findings: Sequence[Mapping[str, Any]], project: Project) -> list[str]:
    """Format "finding" events of `cac project check` as lines, most severe first, each with its scans and remedy."""
    names_of = {scan.id: scan.name for scan in project.scans}
    lines = []
    for finding in sorted(findings, key=lambda finding: list(_MARKS).index(finding["severity"])):
        names = [names_of[scan_id] for scan_id in finding["scans"] if scan_id in names_of]
        parts = [_MARKS[finding["severity"]], finding["message"], f"({abbreviated_list(names)})" if names else ""]
        remedy = _REMEDIES.get(finding.get("remedy", ""), "")
        lines.append(" ".join(filter(None, [*parts, _(remedy) if remedy else ""])))
    return lines
