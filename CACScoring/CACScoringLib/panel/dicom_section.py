"""The result as DICOM objects: into a folder, and into Slicer's DICOM database."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import dicom_database, widgets
from .lifecycle import Section, Signal
from .packages import DICOM_REQUIREMENTS, ensurePackages
from .worker import Task, Worker

if TYPE_CHECKING:
    from ..review.scene import SceneReview


class DicomSection(Section):
    """The widgets of the export as DICOM. worker: makes the objects. added: tells that Slicer's database has more."""

    def __init__(self, ui, worker: Worker) -> None:
        self._ui = ui
        self.added = Signal()
        self._review: SceneReview | None = None
        cancelled = _("Cancelled. Nothing was written.")
        self._task = Task(worker, ui.dicomButton, ui.dicomLabel, ui.dicomBar, _("Export as DICOM …"), cancelled)
        self._task.asked.connect(self._start)
        self._task.changed.connect(self.update)

    def setReview(self, review: SceneReview | None) -> None:
        """review: None where there is no result."""
        self._review = review
        if not self._task.worker.isRunning:
            self._task.say("")
        self.update()

    def update(self) -> None:
        """Show the state."""
        ui, running = self._ui, self._task.worker.isRunning
        self._task.update(self._review is not None)
        named = self._state is not None and self._state.exportIdentify
        ui.readerEdit.setEnabled(named and not running)
        for box in (ui.identifyBox, ui.databaseBox):
            box.setEnabled(not running)

    def cancel(self) -> None:
        self._task.cancel()
        self.update()

    def closeScene(self) -> None:
        self.cancel()

    def _start(self) -> None:
        from ..core.ct import CTError
        from ..review.dicom_job import DicomJob, write_job

        review, task = self._review, self._task
        try:
            files = dicom_database.filesOf(review.nodes.volume)
            reader = self._reader()
            if reason := ensurePackages(DICOM_REQUIREMENTS, purpose=_("Export as DICOM")):
                task.say(reason)
                return
            folder = widgets.askForFolder()
            if not folder:
                return
            target = widgets.newFolder(Path(folder), f"{review.nodes.volume.GetName()}-cac-dicom")
            job = task.worker.newFolder()
            shown = review.as_reviewed().result, files, target, review.calcium_map(), self._state.exportIdentify, reader
            write_job(job, DicomJob(*shown))
        except (CTError, OSError) as error:
            task.cancel()
            task.say(str(error))
            return
        task.show(_("Preparing …"), 0.0)
        task.start(["export_dicom", str(job)], lambda reason: self._ended(reason, target), module="panel.background")

    def _reader(self) -> str | None:
        """Who reviewed the result, as a DICOM person name, where that is to be named. Raises CTError."""
        from ..exchange.source import check_reader

        name = self._state.exportReader.strip() if self._state.exportIdentify else ""
        check_reader(name or None)
        return name or None

    def _ended(self, reason: str, target: Path) -> None:
        lines = [reason]
        if not reason:
            count = len(list(target.glob("*.dcm")))
            lines = [_("{count} DICOM objects were written to {folder}.").format(count=count, folder=target)]
            # What was asked for when it began; the panel may have been left meanwhile.
            if self._ui.databaseBox.checked:
                lines.append(dicom_database.addFolder(target))
                self.added.emit()
            lines += [event["message"] for event in self._task.worker.warnings]
        self._task.say("\n".join(lines))
        self.update()
