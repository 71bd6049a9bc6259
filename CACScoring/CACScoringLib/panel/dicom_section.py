"""Export of a result as DICOM objects to a folder and to Slicer's DICOM database."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import scan_facts, widgets
from .job import BackgroundJob, Steps
from .lifecycle import PanelSection, Signal
from .packages import DICOM_REQUIREMENTS, ensurePackages

if TYPE_CHECKING:
    from ..review.scene import SceneReview


class DicomSection(PanelSection):
    """Widgets of the DICOM export.

    Attributes:
        added: Signal after objects were added to Slicer's DICOM database.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self.added = Signal()
        self._review: SceneReview | None = None
        cancelled = _("Cancelled. Nothing was written.")
        parts = ui.dicomLabel, ui.dicomBar, ui.dicomButton
        self.job = BackgroundJob(*parts, self._export, cancelled, self.update)

    def setReview(self, review: SceneReview | None) -> None:
        """Export this review; None for no result."""
        self._review = review
        if not self.job.isRunning:
            self.job.say("")
        self.update()

    def update(self) -> None:
        """Show the state."""
        ui, running = self._ui, self.job.isRunning
        self.job.update(self._review is not None)
        for box in (ui.identifyBox, ui.databaseBox, ui.readerEdit):
            box.setEnabled(not running)

    def cancel(self) -> None:
        super().cancel()
        self.update()

    def closeScene(self) -> None:
        self.cancel()

    def _export(self) -> Steps[str | None]:
        from ..review.output import write_dicom

        review, job, state = self._review, self.job, self._state
        files, reader = scan_facts.filesOf(review.nodes.volume), self._reader()
        if reason := ensurePackages(DICOM_REQUIREMENTS, purpose=_("Export as DICOM")):
            return reason
        if (target := widgets.askForNewFolder(f"{review.nodes.volume.GetName()}-cac-dicom")) is None:
            return None
        job.show(_("Preparing …"), 0.0)
        arguments = review.as_reviewed(), files, target, review.calcium_map(), state.exportIdentify, reader
        yield from job.call(write_dicom, *arguments)
        count = len(list(target.glob("*.dcm")))
        lines = [_("{count} DICOM objects were written to {folder}.").format(count=count, folder=target)]
        # The box keeps its value while the export runs; the panel's state may be closed by now.
        if self._ui.databaseBox.checked:
            lines.append(scan_facts.addFolder(target))
            self.added.emit()
        return "\n".join([*lines, *(event["message"] for event in job.warnings)])

    def _reader(self) -> str | None:
        """Return the reader's DICOM person name; None if the export is anonymous. Raises CTError."""
        from ..exchange.source import check_reader

        name = self._state.exportReader.strip() if self._state.exportIdentify else ""
        check_reader(name or None)
        return name or None
