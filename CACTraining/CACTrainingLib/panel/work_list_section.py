"""The work list: scans to annotate, their progress, the next scan, and proposals of all scans in the background."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel.job import BackgroundJob, Event, JobError, Steps
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.widgets import fillBox, fillRow, fitHeight, hideEmptyColumns, prepareColumns, say

from ..project.annotations import check_annotator
from ..project.project import Project
from ..project.proposals import read_proposal
from ..project.work_list import WorkItem, shown_name, work_list
from .parameters import LIBRARY, cardsIn

TITLES = ("Scan", "State", "Slices", "Unsure", "Regions", "Heart", "Model\nunsure")
_STATE_COLUMN, _SLICES_COLUMN, _UNSURE_COLUMN = map(TITLES.index, ("State", "Slices", "Unsure"))
_COLUMN_LETTERS = (7, 8, 7, 8, 5, 7)
_MAX_ROWS = 5


class WorkListSection(PanelSection):
    """Widgets of the work list. `onOpen` is called with the id of the scan to open and its displayed name."""

    def __init__(self, ui, onOpen: Callable[[str, str], None]) -> None:
        self._ui = ui
        self._onOpen = onOpen
        self._project: Project | None = None
        self._items: list[WorkItem] = []
        self._names: dict[str, str] = {}
        prepareColumns(ui.workTable, TITLES, _COLUMN_LETTERS)
        ui.workTable.horizontalHeaderItem(len(TITLES) - 1).setToolTip(
            _("This is the mean entropy of the predictions for slices without a label: 0 is certain, 1 undecided.")
        )
        ui.annotatorEdit.editingFinished.connect(self._annotatorGiven)
        ui.workTable.itemSelectionChanged.connect(self._showButtons)
        ui.workTable.cellDoubleClicked.connect(lambda *_args: self._openSelected())
        ui.openScanButton.clicked.connect(lambda *_args: self._openSelected())
        ui.nextScanButton.clicked.connect(lambda *_args: self.openNext())
        ui.openingBar.setVisible(False)

    def setProject(self, project: Project | None) -> None:
        self._project = project
        self.update()

    def update(self) -> None:
        """List the scans of the project."""
        ui, state = self._ui, self._state
        selected = self.selected
        self._items, self._names = [], {}
        if state is not None and ui.annotatorEdit.text != state.annotator:
            ui.annotatorEdit.setText(state.annotator)
        if self._project is None:
            self.say(_("Open a project on the page Project."))
        elif not state.annotator:
            self.say(_("Enter your name or initials: every annotator has separate annotations."))
        else:
            try:
                self._items = work_list(self._project, state.annotator, "blind" if state.blind else state.order.value)
            except CTError as error:
                self.say(str(error))
            else:
                done, count = sum(item.state == "done" for item in self._items), len(self._items)
                text = _("Scans done: {done} of {count}.").format(done=done, count=count)
                self.say(text if count else _("The project has no scans yet. Add some on the page Project."))
        blind = state is not None and state.blind
        self._names = {item.scan.id: shown_name(item, n, blind) for n, item in enumerate(self._items, 1)}
        ui.workTable.setRowCount(len(self._items))
        for row, item in enumerate(self._items):
            self._fill(row, item)
        hideEmptyColumns(ui.workTable)
        fitHeight(ui.workTable, min(len(self._items), _MAX_ROWS))
        ui.workTable.setVisible(bool(self._items))
        ui.orderBox.setEnabled(not blind)
        self.select(selected or (state.scanId if state is not None else ""))
        self._showButtons()

    @property
    def selected(self) -> str:
        """Id of the selected scan; empty without one."""
        row = self._ui.workTable.currentRow()
        return self._items[row].scan.id if 0 <= row < len(self._items) else ""

    def select(self, scanId: str) -> None:
        """Select a scan's row."""
        row = next((row for row, item in enumerate(self._items) if item.scan.id == scanId), -1)
        self._ui.workTable.setCurrentCell(row, 0)

    def showProgress(self, scanId: str, done: int, count: int, unsure: int) -> None:
        """Update one scan's progress without reading the others again."""
        row = next((row for row, item in enumerate(self._items) if item.scan.id == scanId), None)
        if row is not None:
            table = self._ui.workTable
            table.item(row, _SLICES_COLUMN).setText(f"{done} / {count}")
            table.item(row, _UNSURE_COLUMN).setText(str(unsure or ""))
            if 0 < done < count:
                table.item(row, _STATE_COLUMN).setText(_stateNames()["begun"])
            hideEmptyColumns(table)

    def openNext(self) -> None:
        """Open the next scan that is neither done nor missing, downwards and then from the top."""
        if self._project is None:
            return
        opened = self._state.scanId
        self.update()
        start = next((row + 1 for row, item in enumerate(self._items) if item.scan.id == opened), 0)
        circle = self._items[start:] + self._items[:start]
        following = next((i for i in circle if i.state not in ("done", "missing") and i.scan.id != opened), None)
        if following is None:
            self.say(_("There is no further scan to annotate."))
            return
        self.select(following.scan.id)
        self._openSelected()

    def say(self, text: str) -> None:
        say(self._ui.workStatusLabel, text)

    def _annotatorGiven(self) -> None:
        if self._state is None:
            return
        name = self._ui.annotatorEdit.text.strip()
        try:
            self._state.annotator = check_annotator(name) if name else ""
        except CTError as error:
            self.say(str(error))
        self._ui.annotatorEdit.setText(self._state.annotator)

    def _fill(self, row: int, item: WorkItem) -> None:
        done = f"{item.slices_done} / {'?' if item.slices is None else item.slices}"
        uncertainty = "" if item.uncertainty is None else f"{item.uncertainty:.2f}"
        masks = [_("yes") if mask else "" for mask in (item.regions, item.heart)]
        first = self._names[item.scan.id], _stateNames()[item.state], done, str(item.unsure or "")
        fillRow(self._ui.workTable, row, (*first, *masks, uncertainty), (2, 3, 6))

    def _showButtons(self) -> None:
        state = next((item.state for item in self._items if item.scan.id == self.selected), "missing")
        self._ui.openScanButton.setEnabled(state != "missing")
        self._ui.nextScanButton.setEnabled(bool(self._items))

    def _openSelected(self) -> None:
        item = next((item for item in self._items if item.scan.id == self.selected), None)
        if item is not None and item.state == "missing":
            self.say(_("The CT of this scan is missing. Relocate it on the page Project."))
        elif item is not None:
            self._onOpen(item.scan.id, self._names[item.scan.id])


def _stateNames() -> dict[str, str]:
    return {"new": _("new"), "begun": _("begun"), "done": _("done"), "missing": _("missing")}


class PrepareSection(PanelSection):
    """Widgets of proposals.

    Args:
        ui: Widgets by name.
        onChanged: Function called when there are new proposals.
    """

    def __init__(self, ui, onChanged: Callable[[], None]) -> None:
        self._ui = ui
        parts, cancelled = (ui.workStatusLabel, None, ui.prepareButton), _("Stopped. Prepared scans are kept.")
        self.job = BackgroundJob(*parts, self._prepare, cancelled, self.update, LIBRARY)
        self._onChanged = onChanged
        self._project: Project | None = None
        self._cards: dict[str, Path] = {}
        self.bind(ui.proposalModelBox, "proposalModel")

    def setProject(self, project: Project | None) -> None:
        if project is None or self._project is None or project.folder != self._project.folder:
            self.cancel()
        self._project = project
        self.update()

    def update(self) -> None:
        """Show the list of models and the selected one."""
        ui, state = self._ui, self._state
        self._cards = {} if self._project is None else _classifiers(self._project.models_folder)
        box, model = ui.proposalModelBox, "" if state is None else state.proposalModel
        fillBox(box, [(_("the network that comes with CAC"), ""), *((name, name) for name in self._cards)], model)
        box.setEnabled(not self.job.isRunning)
        self.job.update(self._project is not None and bool(self._project.scans))
        if self.job.isRunning:
            ui.prepareButton.setText(_("Stop preparing"))

    @property
    def arguments(self) -> list[str]:
        """Options of `cac project prepare` for the selected model."""
        card = self._cards.get(self._state.proposalModel) if self._state is not None else None
        return [] if card is None else ["--model", str(card)]

    def cancel(self) -> None:
        # Finished proposals are kept.
        if self.job.isRunning:
            self.job.cancel()
            self.update()

    def _prepare(self) -> Steps[str]:
        if reason := ensurePackages(requester="CAC Training", purpose=_("Preparing scans")):
            return reason

        def onEvent(event: Event) -> None:
            if event["event"] == "counted":
                self.job.say(_("Preparing: {done} of {count} scans …").format(**event))

        overwrite = ["--overwrite"] if self._isStale() else []
        self.job.say(_("Preparing …"))
        text = _("All scans are prepared.")
        try:
            arguments = ["project", "prepare", str(self._project.folder), *self.arguments, *overwrite]
            yield from self.job.run(arguments, onEvent=onEvent)
        except JobError as error:
            text = str(error)
        finally:
            self._onChanged()
        count = sum(event["code"] == "scan-failed" for event in self.job.warnings)
        return "\n".join([text, *([_("Scans without a proposal: {count}.").format(count=count)] if count else [])])

    def _isStale(self) -> bool:
        """True if any proposal is by another model than the selected one."""
        model = self._state.proposalModel
        proposals = [read_proposal(self._project, scan.id) for scan in self._project.scans]
        models = [set(proposal.models) for proposal in proposals if proposal is not None and proposal.probabilities]
        return any(model not in names if model else names & set(self._cards) for names in models)


def _classifiers(folder: Path) -> dict[str, Path]:
    """Cards of the project's own classifiers of slices, by name."""
    cards = {card.name: Path(path) for path, card in cardsIn(folder).items() if card.network == "slices"}
    return {name: path for name, path in cards.items() if path.with_suffix(".safetensors").is_file()}
