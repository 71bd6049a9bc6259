"""The page of the project: its folder, its scans and their use, what is missing, and how far annotators agree."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ctk
import slicer
from slicer.i18n import tr as _

from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.table_widgets import fillRow, hideEmptyColumns, prepareColumns
from CACScoringLib.panel.worker import Worker, showIn

from ..asking import askForFile, askForFolder

if TYPE_CHECKING:
    from ...project.project import Project

SCAN_TITLES = ("Scan", "Patient", "Source", "Use", "Annotated by")
_LAST_PROJECT = "CACTraining/lastProject"
_MESSAGES = 8
"""So many are shown of those that a command leaves behind."""

AGREEMENT_TITLES = ("Annotators", "Scans", "Slices", "κ", "Same", "Dice\nregions", "Dice\nheart")


class ProjectSection(Section):
    """The widgets of the page.

    worker: runs what takes long. onProject: called with the project after it was opened or its scans have changed, and
    with None when none is open.
    """

    def __init__(self, ui, worker: Worker, onProject: Callable[[Project | None], None]) -> None:
        self._ui = ui
        self._worker = worker
        self._onProject = onProject
        self._project: Project | None = None
        self._folder = ""
        self._askForFolder = askForFolder
        self._askForFile = askForFile
        prepareColumns(ui.scanTable, SCAN_TITLES, (15, 11, 8, 11))
        prepareColumns(ui.findingTable, ("Severity", "Finding"), (10,))
        ui.findingTable.setWordWrap(True)
        prepareColumns(ui.agreementTable, AGREEMENT_TITLES, (12, 5, 5, 15, 5, 7))
        ui.agreementTable.setToolTip(
            _("κ (95 % interval) and the proportion of equal labels leave out slices that an annotator is unsure of.")
        )
        for table in (ui.findingTable, ui.agreementTable):
            table.setVisible(False)
        ui.projectFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        for button, action in (
            (ui.openProjectButton, self._open),
            (ui.newProjectButton, self._create),
            (ui.addFolderButton, lambda: self._add(self._askForFolder(_("Folder with scans")))),
            (ui.addFileButton, lambda: self._add(self._askForFile(_("CT file")))),
            (ui.relocateButton, self._relocate),
            (ui.removeButton, self._remove),
            (ui.splitButton, self._split),
            (ui.checkButton, self._check),
            (ui.agreementButton, self._compare),
        ):
            button.clicked.connect(lambda *_args, action=action: action())
        ui.annotatorEdit.editingFinished.connect(self._annotatorGiven)
        ui.scanTable.itemSelectionChanged.connect(self._showButtons)
        ui.projectBar.setVisible(False)
        self._showProgress = showIn(ui.projectStatusLabel, ui.projectBar)
        self.update()

    @property
    def project(self) -> Project | None:
        return self._project

    # What the panel tells

    def setProject(self, project: Project | None) -> None:
        """Show another project; None for none."""
        self._project = project
        self._folder = "" if project is None else str(project.folder)
        for table in (self._ui.findingTable, self._ui.agreementTable):
            table.setRowCount(0)
            table.setVisible(False)
        self.update()

    def updateParameters(self) -> None:
        """Open the project that the state names, and show the rest of the state."""
        state, ui = self._state, self._ui
        if state.projectFolder != self._folder:
            self.cancel()
            self._folder = state.projectFolder
            last = slicer.app.userSettings().value(_LAST_PROJECT, "")
            ui.projectFolderEdit.setCurrentPath(state.projectFolder or last)
            self._openFolder(state.projectFolder)
        if ui.annotatorEdit.text != state.annotator:
            ui.annotatorEdit.setText(state.annotator)

    def update(self) -> None:
        """Show the project as it is in its folder."""
        ui, project = self._ui, self._project
        scans = () if project is None else project.scans
        gone = set() if project is None else {scan.id for scan in project.missing()}
        # Who annotates blind must not learn from a scan's state which one it is.
        blind = self._state is not None and self._state.blind
        ui.scanTable.setRowCount(len(scans))
        for row, scan in enumerate(scans):
            states = self._states(scan.id) if not blind else ""
            state = _("missing") if scan.id in gone else states
            fillRow(ui.scanTable, row, (scan.name, scan.patient, scan.source, _useNames()[scan.use], state))
        hideEmptyColumns(ui.scanTable)
        ui.projectLabel.setText(self._facts(gone))
        self._showButtons()

    def cancel(self) -> None:
        self._worker.cancel()
        self._ui.projectBar.setVisible(False)

    # Showing

    def _facts(self, gone: set[str]) -> str:
        project = self._project
        if project is None:
            return _("Choose a folder, and open the project in it or make a new one.")
        uses = [scan.use for scan in project.scans]
        counts = ", ".join(f"{uses.count(use)} {name}" for use, name in _useNames().items() if use in uses)
        lines = [_("{name}. Scans: {count} ({counts})").format(name=project.name, count=len(uses), counts=counts)]
        if not uses:
            lines = [_("{name}. No scans yet").format(name=project.name)]
        if gone:
            lines.append(_("⚠ Missing scans: {count}. Relocate them.").format(count=len(gone)))
        return "\n".join([*lines, *(f"⚠ {warning}" for warning in project.warnings)])

    def _states(self, scanId: str) -> str:
        """Who has annotated a scan."""
        from CACScoringLib.core.ct import CTError

        from ...project.annotations import annotators

        try:
            return ", ".join(annotators(self._project, scanId))
        except CTError as error:
            return str(error)

    def _showButtons(self) -> None:
        ui, project, idle = self._ui, self._project, not self._worker.isRunning
        for button in (ui.addFolderButton, ui.addFileButton):
            button.setEnabled(project is not None and idle)
        some = project is not None and bool(project.scans) and idle
        for widget in (ui.relocateButton, ui.splitButton, ui.agreementButton):
            widget.setEnabled(some)
        ui.checkButton.setEnabled(project is not None and idle)
        ui.removeButton.setEnabled(some and self._selected() is not None)
        for button in (ui.openProjectButton, ui.newProjectButton):
            button.setEnabled(idle)

    def _selected(self):
        row = self._ui.scanTable.currentRow()
        scans = self._project.scans if self._project is not None else ()
        return scans[row] if 0 <= row < len(scans) else None

    def _say(self, text: str) -> None:
        self._ui.projectStatusLabel.setText(text)

    # What the user does

    def _annotatorGiven(self) -> None:
        from CACScoringLib.core.ct import CTError

        from ...project.annotations import check_annotator

        if self._state is None:
            return
        name = self._ui.annotatorEdit.text.strip()
        try:
            self._state.annotator = check_annotator(name) if name else ""
        except CTError as error:
            self._say(str(error))
            self._ui.annotatorEdit.setText(self._state.annotator)

    def _open(self) -> None:
        folder = self._ui.projectFolderEdit.currentPath
        if not folder:
            folder = self._askForFolder(_("Folder of the project"))
        if folder:
            self._take(folder, create=False)

    def _create(self) -> None:
        folder = self._ui.projectFolderEdit.currentPath
        if not folder:
            folder = self._askForFolder(_("Folder for the new project"))
        if folder:
            self._take(folder, create=True)

    def _take(self, folder: str, create: bool) -> None:
        """Open or make a project. The one that is open stays when that fails."""
        from CACScoringLib.core.ct import CTError

        from ...project.project import Project

        try:
            project = (Project.create if create else Project.open)(Path(folder))
        except (CTError, OSError) as error:
            self._say(str(error))
            return
        self._say("")
        self._shown(project)
        self._ui.projectFolderEdit.setCurrentPath(self._folder)
        self._state.projectFolder = self._folder
        slicer.app.userSettings().setValue(_LAST_PROJECT, self._folder)

    def _openFolder(self, folder: str) -> None:
        """Open the project that a scene names."""
        from CACScoringLib.core.ct import CTError

        from ...project.project import Project

        self._say("")
        if not folder:
            self._shown(None)
            return
        try:
            project = Project.open(Path(folder))
        except (CTError, OSError) as error:
            self._shown(None)
            self._folder = folder  # not to be tried again with every change
            self._say(str(error))
            return
        self._shown(project)
        self._folder = folder

    def _shown(self, project: Project | None) -> None:
        self.setProject(project)
        self._onProject(project)

    def _changed(self) -> None:
        """The project's scans are others now."""
        from CACScoringLib.core.ct import CTError

        try:
            self._project.reload()
        except CTError as error:
            self._say(str(error))
        self.update()
        self._onProject(self._project)

    def _add(self, source: str) -> None:
        if source:
            self._run(_("Adding scans …"), ["add", str(self._project.folder), source], self._added)

    def _added(self, reason: str, events: list[dict]) -> None:
        self._changed()
        count = next((event["added"] for event in events if event["event"] == "added"), None)
        lines = [] if count is None else [_("Scans added: {count}.").format(count=count)]
        lines += [*filter(None, [reason]), *self._warnings()]
        more = len(lines) - _MESSAGES
        lines = lines[:_MESSAGES] + ([_("{count} more messages.").format(count=more)] if more > 0 else [])
        self._say("\n".join(lines))

    def _remove(self) -> None:
        from CACScoringLib.core.ct import CTError

        scan = self._selected()
        try:
            self._project.remove(scan.id)
        except (CTError, OSError) as error:
            self._say(str(error))
        else:
            place = self._project.folder / "removed"
            self._say(_("{name} was taken out. Its annotations and its row are kept in {place}.").format(
                name=scan.name, place=place
            ))  # fmt: skip
        self._changed()

    def _split(self) -> None:
        from CACScoringLib.core.ct import CTError

        boxes = (self._ui.trainingBox, self._ui.validationBox, self._ui.testBox)
        from ...project.split import patient_kinds

        try:
            given = self._project.split(tuple(box.value / 100 for box in boxes), kinds=patient_kinds(self._project))
        except (CTError, OSError) as error:
            self._say(str(error))
            return
        text = _("Patients assigned: {count}. Earlier assignments are kept.")
        self._say(text.format(count=len(given)))
        self._changed()

    def _relocate(self) -> None:
        """Look for the missing scans, or for all, below another folder than the one they share."""
        scans = self._project.missing() or list(self._project.scans)
        old = os.path.commonpath([scan.ct.parent for scan in scans])
        new = self._askForFolder(_("Where is {folder} now?").format(folder=old))
        if new:
            arguments = ["relocate", str(self._project.folder), old, new]
            self._run(_("Comparing the scans …"), arguments, self._relocated)

    def _relocated(self, reason: str, events: list[dict]) -> None:
        self._changed()
        found = next((event for event in events if event["event"] == "relocated"), {"count": 0, "missing": 0})
        text = _("Scans found again: {count}. Still missing: {missing}.")
        self._say(reason or text.format(count=found["count"], missing=found["missing"]))

    def _check(self) -> None:
        self._ui.findingTable.setRowCount(0)
        self._run(_("Checking …"), ["check", str(self._project.folder)], self._checked)

    def _checked(self, reason: str, events: list[dict]) -> None:
        findings = [event for event in events if event["event"] == "finding"]
        table = self._ui.findingTable
        table.setVisible(bool(findings))
        table.setRowCount(len(findings))
        for row, finding in enumerate(findings):
            names = ", ".join(self._nameOf(each) for each in finding["scans"][:_MESSAGES])
            more = "" if len(finding["scans"]) <= _MESSAGES else ", …"
            message = finding["message"] + (f" ({names}{more})" if names else "")
            fillRow(table, row, (_severities()[finding["severity"]], message))
        table.resizeRowsToContents()
        self._say(reason or _("Training can start."))

    def _nameOf(self, scanId: str) -> str:
        return next((scan.name for scan in self._project.scans if scan.id == scanId), scanId)

    def _compare(self) -> None:
        self._ui.agreementTable.setRowCount(0)
        self._run(_("Comparing annotators …"), ["agreement", str(self._project.folder)], self._compared)

    def _compared(self, reason: str, events: list[dict]) -> None:
        pairs = [event for event in events if event["event"] == "agreement"]
        table = self._ui.agreementTable
        table.setVisible(bool(pairs))
        table.setRowCount(len(pairs))
        for row, pair in enumerate(pairs):
            kappa = pair["kappa"]
            with_interval = _number(kappa["value"])
            if kappa["low"] is not None:
                with_interval += f" [{kappa['low']:.2f}, {kappa['high']:.2f}]"
            texts = (
                f"{pair['first']} – {pair['second']}",
                str(pair["scans"]),
                str(pair["slices"]),
                with_interval,
                *(_number(pair[key]["value"]) for key in ("same", "regions", "heart")),
            )
            fillRow(table, row, texts, range(1, 7))
        nobody = _("No scan was annotated by two annotators, or by one beside a known ground truth.")
        self._say("\n".join(filter(None, [reason or ("" if pairs else nobody), *self._warnings()])))

    def _run(self, text: str, arguments: list[str], onEnd: Callable[[str, list[dict]], None]) -> None:
        """Run a command in the background. onEnd: called with why it failed, or "", and the events it reported."""
        events: list[dict] = []

        def ended(reason: str) -> None:
            self._ui.projectBar.setVisible(False)
            onEnd(reason, events)
            self._showButtons()

        self._showProgress(text, 0.0)
        self._ui.projectBar.setVisible(True)
        self._worker.start(["project", *arguments], ended, self._showProgress, events.append)
        self._showButtons()

    def _warnings(self) -> list[str]:
        return [event["message"] for event in self._worker.warnings]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _useNames() -> dict[str, str]:
    return {"training": _("training"), "validation": _("validation"), "test": _("test"), "": _("not assigned")}


def _severities() -> dict[str, str]:
    return {"error": _("error"), "warning": _("warning"), "note": _("note")}
