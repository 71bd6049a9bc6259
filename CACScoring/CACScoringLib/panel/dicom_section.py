"""Export of a result as DICOM objects to a folder and to Slicer's DICOM database."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import dicom_database, widgets
from .lifecycle import Section, Signal
from .packages import DICOM_REQUIREMENTS, ensurePackages
from .worker import ButtonCommand, Worker

if TYPE_CHECKING:
    from ..review.scene import SceneReview


class DicomSection(Section):
    """Widgets of the DICOM export.

    Attributes:
        added: Signal after objects were added to Slicer's DICOM database.
    """

    def __init__(self, ui, worker: Worker) -> None:
        self._ui = ui
        self.added = Signal()
        self._review: SceneReview | None = None
        texts = _("Export as DICOM …"), _("Cancelled. Nothing was written.")
        self._task = ButtonCommand(worker, ui.dicomButton, ui.dicomLabel, ui.dicomBar, *texts)
        self._task.startRequested.connect(self._start)
        self._task.changed.connect(self.update)

    def setReview(self, review: SceneReview | None) -> None:
        """Export this review; None for no result."""
        self._review = review
        if not self._task.worker.isRunning:
            self._task.say("")
        self.update()

    def update(self) -> None:
        """Show the state."""
        ui, running = self._ui, self._task.worker.isRunning
        self._task.update(self._review is not None)
        for box in (ui.identifyBox, ui.databaseBox, ui.readerEdit):
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
            result, calcium_map = review.as_reviewed().result, review.calcium_map()
            write_job(job, DicomJob(result, files, target, calcium_map, self._state.exportIdentify, reader))
        except (CTError, OSError) as error:
            task.cancel()
            task.say(str(error))
            return
        task.show(_("Preparing …"), 0.0)
        task.start(["export_dicom", str(job)], lambda reason: self._onEnd(reason, target), module="panel.background")

    def _reader(self) -> str | None:
        """Return the reader's DICOM person name; None if the export is anonymous. Raises CTError."""
        from ..exchange.source import check_reader

        name = self._state.exportReader.strip() if self._state.exportIdentify else ""
        check_reader(name or None)
        return name or None

    def _onEnd(self, reason: str, target: Path) -> None:
        lines = [reason]
        if not reason:
            count = len(list(target.glob("*.dcm")))
            lines = [_("{count} DICOM objects were written to {folder}.").format(count=count, folder=target)]
            # The box keeps its value while the export runs; the panel's state may be closed by now.
            if self._ui.databaseBox.checked:
                lines.append(dicom_database.addFolder(target))
                self.added.emit()
            lines += [event["message"] for event in self._task.worker.warnings]
        self._task.say("\n".join(lines))
        self.update()
