"""Readings of a folder of results by a named reader, in the order of the reading plan, and their tables."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import slicer
from slicer.i18n import tr as _

from ..core.errors import CTError, JournalError, OutputError
from . import widgets
from .job import BackgroundJob, Steps
from .lifecycle import PanelSection, Signal
from .review_section import readerName
from .widgets import say, singleShot

if TYPE_CHECKING:
    from ..mrml.scene import SceneNodes
    from ..mrml.scene_content import SceneContent
    from ..readings.cases import ReviewCase
    from ..readings.recorded_review import RecordedReview
    from ..readings.work_list import ReadingProgress, WorkList
    from ..review.scene import SceneReview
    from ..review.state import ReviewChange

TRAINING_LIBRARY = "CACTrainingLib"
"""Package whose command writes the tables."""

REPEATED = 0.2
"""Proportion of the scans of a new plan that each reader reads again."""

TITLES = ("Reading", "State", "Agatston")
STATES = {"new": "to read", "begun": "begun", "reviewed": "confirmed"}
"""Texts of the table by the state of a reading."""


class ReadingsSection(PanelSection):
    """Widgets of the readings.

    Attributes:
        chosen: Signal with the `SceneReading` to open.
        closing: Signal to close the open reading.
        current: The reading that is open or being opened; None without one.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self.chosen, self.closing = Signal(), Signal()
        self.current: SceneReading | None = None
        self._listed: tuple[str, str] | None = None
        self._work: WorkList | None = None
        self._items: list[tuple[ReviewCase, str, ReadingProgress]] = []
        """Scan, kind and progress of each reading, in the order of the list."""
        self._planned: list[str] = []
        self._reader = self._note = ""
        self._wasConfirmed = False
        widgets.prepareColumns(ui.readingTable, TITLES, (10, 9))
        ui.readingTable.cellDoubleClicked.connect(lambda row, _column: self._open(row))
        edit = ui.readingReaderEdit
        edit.editingFinished.connect(lambda: self.set("exportReader", edit.text.strip()))
        ui.readingsButton.contentsCollapsed.connect(lambda *_args: self.update())
        for button in (ui.openReadingButton, ui.nextReadingButton):
            button.clicked.connect(lambda *_args: self._openNext())
        ui.planButton.clicked.connect(lambda *_args: self._makePlan())
        parts, cancelled = (ui.readingsLabel, None, ui.tablesButton), _("Cancelled. No tables were written.")
        self.job = BackgroundJob(*parts, self._writeTables, cancelled, self._showState, TRAINING_LIBRARY)
        self._fault = singleShot(0, self._closeAfterFault)
        self._closed: list[SceneReading] = []
        # In a step of its own, because the panel's boxes still show the nodes while another result is chosen.
        self._removing = singleShot(0, self._removeClosed)
        self._showProgress()

    def updateParameters(self) -> None:
        """Apply changes of the state: another folder of results, or another reader."""
        state, edit = self._state, self._ui.readingReaderEdit
        if edit.text.strip() != state.exportReader:
            edit.setText(state.exportReader)
        edit.setPlaceholderText(readerName(None))
        if self.current is not None and self.current.reader != readerName(state):
            self.closing.emit()
        self.update()

    def update(self) -> None:
        """List the readings if the folder or the reader has changed."""
        if self._state is None or (self._ui.readingsButton.collapsed and self.current is None):
            return
        listed = self._state.cohortOutput, readerName(self._state)
        if listed != self._listed:
            self._listed = listed
            self._list(*listed)

    def begin(self, reading: SceneReading) -> None:
        """Follow a reading that is open now."""
        reading.onFault = self._fault.start
        self._showProgress()

    def end(self) -> None:
        """Close the open reading."""
        reading, self.current = self.current, None
        if reading is not None:
            reading.close()
            self._closed.append(reading)
            self._removing.start()
            self._showProgress()

    def _removeClosed(self) -> None:
        while self._closed:
            self._closed.pop().removeNodes()

    def noteActivity(self) -> None:
        if self.current is not None:
            self.current.noteActivity()

    def numbersChanged(self) -> None:
        """Show the progress after a change of the open reading that confirms it, or no longer."""
        if self.current is not None and self.current.isConfirmed != self._wasConfirmed:
            self._showProgress()

    def cleanup(self) -> None:
        super().cleanup()
        self.end()
        self._fault.stop()
        self._removing.stop()
        self._removeClosed()

    def _list(self, output: str, reader: str) -> None:
        from ..readings.cases import cases_in
        from ..readings.journals import PLAN
        from ..readings.work_list import WorkList, plan_of, planned_readers

        self._work, self._reader, self._planned, self._note = None, reader, [], ""
        if not output:
            self._note = _("Choose the folder of results above.")
        else:
            folder = Path(output)
            try:
                cases = cases_in(folder)
                self._planned = planned_readers(folder)
                if not self._planned:
                    self._note = _("There is no {file}: every scan is read once, in this order.").format(file=PLAN)
                if reader in self._planned or not self._planned:
                    plan = plan_of(folder, cases, [reader])
                    self._work = WorkList(cases, [reader], True, any(reading.is_blind for reading in plan), plan)
                else:
                    text = _("{reader} is not a reader of the plan. Enter one of: {names}.")
                    self._note = text.format(reader=reader, names=", ".join(self._planned))
            except (CTError, OutputError) as error:
                self._note = str(error)
        self._showProgress()

    def _makePlan(self) -> None:
        """Plan blind readings of all scans by the readers that the field names, each with a part of them repeated."""
        from ..readings.cases import cases_in
        from ..readings.work_list import plan_of

        folder = Path(self._state.cohortOutput)
        names = list(dict.fromkeys(filter(None, map(str.strip, readerName(self._state).split(",")))))
        try:
            plan_of(folder, cases_in(folder), names, REPEATED, blind=True)
        except (CTError, OutputError) as error:
            self._say(str(error))
            return
        self._listed = None
        self._state.exportReader = names[0]
        self.update()

    def _showProgress(self) -> None:
        """Show the readings and their states."""
        reading, work, table = self.current, self._work, self._ui.readingTable
        self._wasConfirmed = reading is not None and reading.isConfirmed
        self._items = []
        for case_id, kind in [] if work is None else work.order(self._reader):
            case = work.cases[case_id]
            self._items.append((case, kind, work.progress(case, work.reading_of(self._reader, kind))))
        table.setRowCount(len(self._items))
        for row, (case, kind, progress) in enumerate(self._items):
            score = f"{progress.agatston:.1f}" if progress.state == "reviewed" else ""
            texts = work.name_of(case, self._reader, kind), _(STATES[progress.state]), score
            widgets.fillRow(table, row, texts, (2,), progress.problem or None)
        done = sum(progress.state == "reviewed" for *_reading, progress in self._items)
        text = _("{done} of {count} readings confirmed.").format(done=done, count=len(self._items))
        say(self._ui.readingsLabel, " ".join(filter(None, ("" if work is None else text, self._note))))
        self._ui.readingFrame.setVisible(reading is not None and reading.review is not None)
        if reading is not None:
            recorded = _("Reading by {reader}, recorded. {progress}")
            say(self._ui.readingLabel, recorded.format(reader=reading.reader, progress=text))
        self._showState()

    def _showState(self) -> None:
        ui = self._ui
        ui.openReadingButton.setEnabled(bool(self._items) and "," not in self._reader)
        ui.planButton.setVisible(bool(self._items) and not self._planned)
        # Tables show all answers, so that readers of the plan get them after its last reading, and nobody else.
        may_write = bool(self._items) and self._work.is_closed
        self.job.update(may_write and importlib.util.find_spec(TRAINING_LIBRARY) is not None)

    def _openNext(self) -> None:
        """Open the next reading that is not confirmed, after the open one; begin again at the top after the last."""
        self._showProgress()
        places = [(case.id, kind) for case, kind, _progress in self._items]
        current = None if self.current is None else (self.current.case.id, self.current.kind)
        first = places.index(current) + 1 if current in places else 0
        for row in (*range(first, len(places)), *range(first)):
            case, kind, progress = self._items[row]
            if places[row] != current and progress.state != "reviewed" and not self._refusal(case, kind):
                self._open(row)
                return
        if self._work is not None:
            self._say(_("There is no other reading to do."))

    def _refusal(self, case: ReviewCase, kind: str) -> str:
        return self._work.refusal(case, self._reader, kind, to_change=True)

    def _open(self, row: int) -> None:
        case, kind, _progress = self._items[row]
        reason = self._refusal(case, kind)
        if "," in self._reader:  # several readers, who need a plan
            reason = _("Enter the name of one reader, or make a plan for all of them.")
        if reason:
            self._say(reason)
            return
        name, blind = self._work.name_of(case, self._reader, kind), self._work.hides(case, self._reader, kind)
        self.chosen.emit(SceneReading(case, kind, self._reader, name, blind))

    def _say(self, text: str) -> None:
        say(self._ui.readingsLabel, text)
        say(self._ui.totalLabel, text)

    def _closeAfterFault(self) -> None:
        if self.current is not None and self.current.fault:
            fault = self.current.fault
            self.closing.emit()
            say(self._ui.statusLabel, fault)

    def _writeTables(self) -> Steps[str | None]:
        from ..readings.cases import cases_in
        from ..readings.journals import readers_of

        output = self._state.cohortOutput
        target = widgets.askForNewFolder("readings", _("Folder for the tables of readings"))
        if target is None:
            return None
        names = self._planned or readers_of(cases_in(Path(output)))
        if len(names) < 2 and not self._planned:
            return _("Tables compare readers, and there are no two readers of these scans yet.")
        readers = [word for name in names for word in ("--reader", name)]
        command = ["review", output, *readers, "--double", "--tables", str(target)]
        yield from self.job.run(command)
        return _("Written to {folder}").format(folder=target)


MAX_IDLE_SECONDS = 60.0
"""Time without an action that counts as reading, as in the browser."""


class SceneReading:
    """A reading that a reader does in the scene.

    The scene does not save its nodes: the journal in the results holds the reading, and reopens it.

    Attributes:
        case: Scan that is read.
        kind: FIRST or AGAIN.
        reader: Name of the reader.
        name: Name of the scan that the reader sees.
        blind: True if the networks' results are hidden.
        review: The review; None until it is open.
    """

    def __init__(self, case: ReviewCase, kind: str, reader: str, name: str, blind: bool) -> None:
        self.case, self.kind, self.reader, self.name, self.blind = case, kind, reader, name, blind
        self.review: SceneReview | None = None
        self.fault = ""
        self.onFault: Callable[[], object] = lambda: None
        self._recorded: RecordedReview | None = None
        self._seconds, self._lastActive = 0.0, time.monotonic()

    @property
    def journalName(self) -> str:
        """Name of the reading, by which its journal is found."""
        from ..readings.journals import reading_by

        return reading_by(self.reader, self.kind)

    @property
    def isOpen(self) -> bool:
        return self.review is not None and bool(slicer.mrmlScene.IsNodePresent(self.review.nodes.record))

    @property
    def isConfirmed(self) -> bool:
        return self.review is not None and self.review.reviewed["threshold"]

    def begin(self, content: SceneContent) -> SceneContent:
        """Begin the journal of a blind reading; return the content that the reader may see. Raises CTError."""
        from ..readings.recorded_review import begin_blind, blind_content

        if not self.blind:
            return content
        begin_blind(self.case, self.journalName)
        return blind_content(content)

    def open(self, nodes: SceneNodes, content: SceneContent) -> SceneReview:
        """Return the review of new nodes as its journal has it. Raises CTError."""
        from ..readings.recorded_review import RecordedReview
        from ..review.scene import SceneReview

        for node in _nodesIn(nodes):
            node.SetSaveWithScene(False)

        def make(record: Callable[[str, ReviewChange], None]) -> SceneReview:
            return SceneReview(slicer.mrmlScene, nodes, content, self._recording(record))

        self._recorded = RecordedReview(self.case, self.journalName, make, self._action)
        self.review = review = cast("SceneReview", self._recorded.review)
        review.reader = self.reader
        if self.blind:
            review.make_blind(self.journalName)
        review.update_tables()
        self._lastActive = time.monotonic()
        return review

    def _action(self) -> tuple[str, str, float]:
        return self.reader, _("in 3D Slicer"), self.takeSeconds()

    def _recording(self, record: Callable[[str, ReviewChange], None]) -> Callable[[str, ReviewChange], None]:
        """Return a function that records changes until one cannot be stored."""

        def recordUnlessFaulty(kind: str, change: ReviewChange) -> None:
            if self.fault:
                return  # what follows a lost change cannot be stored either
            try:
                record(kind, change)
            except JournalError as error:
                self.fault = str(error)
                self.onFault()
                raise

        return recordUnlessFaulty

    def noteActivity(self) -> None:
        """Count the time since the last action, up to a limit, as reading."""
        now = time.monotonic()
        self._seconds += min(now - self._lastActive, MAX_IDLE_SECONDS)
        self._lastActive = now

    def takeSeconds(self) -> float:
        self.noteActivity()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Record the time and the lesions shown since the last change."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None and not self.fault and (seconds := self.takeSeconds()) > 1:
            try:
                recorded.note("time", self.reader, "", seconds)
            except CTError as error:
                self.fault = str(error)

    def removeNodes(self) -> None:
        """Remove the nodes from the scene; the CT stays if it was scored anew meanwhile."""
        from ..mrml.scene import records_in, remove_node, volume_of_record

        if not self.isOpen:
            return
        nodes = self.review.nodes
        scored_volumes = [
            volume_of_record(record) for record in records_in(slicer.mrmlScene) if record is not nodes.record
        ]
        for node in _nodesIn(nodes):
            if node is nodes.volume and node in scored_volumes:
                node.SetSaveWithScene(True)
            elif slicer.mrmlScene.IsNodePresent(node):
                remove_node(slicer.mrmlScene, node)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        if nodes.volume not in scored_volumes:
            hierarchy.RemoveItem(nodes.folder)


def _nodesIn(nodes: SceneNodes) -> list[slicer.vtkMRMLNode]:
    return [node for node in vars(nodes).values() if isinstance(node, slicer.vtkMRMLNode)]
