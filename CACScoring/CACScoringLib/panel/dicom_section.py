"""The result as DICOM objects: into a folder, and into Slicer's DICOM database."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from . import dicom_database
from .lifecycle import Section
from .packages import DICOM_REQUIREMENTS, ensurePackages
from .widgets import newFolder, say
from .worker import Worker, showIn

if TYPE_CHECKING:
    from ..review.scene import SceneReview


class DicomSection(Section):
    """The widgets of the export as DICOM.

    worker: makes the objects. askForFolder: asks the user where to write; returns an empty text for nowhere. onAdded:
    called when objects came into the database.
    """

    def __init__(self, ui, worker: Worker, askForFolder: Callable[[], str], onAdded: Callable[[], None]) -> None:
        self._ui = ui
        self._worker = worker
        self._askForFolder = askForFolder
        self._onAdded = onAdded
        self._review: SceneReview | None = None
        self._temporary: Path | None = None
        self._onProgress = showIn(ui.dicomLabel, ui.dicomBar)
        ui.dicomButton.clicked.connect(self._startOrCancel)
        ui.dicomBar.setVisible(False)

    def setReview(self, review: SceneReview | None) -> None:
        """review: None where there is no result."""
        self._review = review
        if not self._worker.isRunning:
            say(self._ui.dicomLabel, "")
        self.update()

    def update(self) -> None:
        """Show the state."""
        ui, running = self._ui, self._worker.isRunning
        ui.dicomButton.setText(_("Cancel") if running else _("Export as DICOM …"))
        ui.dicomButton.setEnabled(running or self._review is not None)
        ui.dicomBar.setVisible(running)
        named = self._state is not None and self._state.exportIdentify
        ui.readerEdit.setEnabled(named and not running)
        for box in (ui.identifyBox, ui.databaseBox):
            box.setEnabled(not running)

    def cancel(self) -> None:
        if self._worker.isRunning:
            self._worker.cancel()
            self._removeTemporary()
            say(self._ui.dicomLabel, _("Cancelled. Nothing was written."))
            self.update()

    def closeScene(self) -> None:
        self.cancel()

    def _startOrCancel(self, *_args: object) -> None:
        if self._worker.isRunning:
            self.cancel()
        else:
            self._start()
            self.update()

    def _start(self) -> None:
        from ..core.ct import CTError

        try:
            files = dicom_database.filesOf(self._review.nodes.volume)
            reader = self._reader()
        except CTError as error:
            say(self._ui.dicomLabel, str(error))
            return
        if reason := ensurePackages(DICOM_REQUIREMENTS, purpose=_("Export as DICOM")):
            say(self._ui.dicomLabel, reason)
            return
        folder = self._askForFolder()
        if not folder:
            return
        target = newFolder(Path(folder), f"{self._review.nodes.volume.GetName()}-cac-dicom")
        try:
            self._writeJob(files, target, reader)
        except (CTError, OSError) as error:
            self._removeTemporary()
            say(self._ui.dicomLabel, str(error))
            return
        say(self._ui.dicomLabel, _("Preparing …"))
        self._ui.dicomBar.setValue(0)
        self._worker.start(
            [str(self._temporary)],
            lambda reason: self._ended(reason, target),
            self._onProgress,
            module="panel.export_dicom",
        )

    def _reader(self) -> str | None:
        """Who reviewed the result, as a DICOM person name, where that is to be named. Raises CTError."""
        from ..exchange.person import check_reader

        name = self._state.exportReader.strip() if self._state.exportIdentify else ""
        check_reader(name or None)
        return name or None

    def _writeJob(self, files: tuple[Path, ...], target: Path, reader: str | None) -> None:
        from ..review.dicom_job import DicomJob, write_job

        review = self._review
        self._temporary = Path(tempfile.mkdtemp(prefix="cac-dicom-"))
        shown = review.as_reviewed().result, files, target, review.calcium_map(), self._state.exportIdentify, reader
        write_job(self._temporary, DicomJob(*shown))

    def _ended(self, reason: str, target: Path) -> None:
        self._removeTemporary()
        if reason:
            say(self._ui.dicomLabel, reason)
        else:
            self._tell(target)
        self.update()

    def _tell(self, target: Path) -> None:
        count = len(list(target.glob("*.dcm")))
        lines = [_("{count} DICOM objects were written to {folder}.").format(count=count, folder=target)]
        lines += [event["message"] for event in self._worker.warnings]
        # What was asked for when it began; the panel may have been left meanwhile.
        if self._ui.databaseBox.checked:
            lines.insert(1, dicom_database.addFolder(target))
            self._onAdded()
        say(self._ui.dicomLabel, "\n".join(lines))

    def _removeTemporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
