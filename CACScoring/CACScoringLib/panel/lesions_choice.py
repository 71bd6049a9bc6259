"""Choice of the lesions that a run starts from: found by the run, or read from a DICOM review."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from ..core.errors import CTError
from . import dicom_database
from .widgets import askForFile, dataOf, fillBox, say

_ASK = "?"
"""Data of the choice that asks for a file."""


class LesionsChoice:
    """Combo box of lesions: found by the run, segmentations and structure sets of the CT's study in Slicer's DICOM
    database, or a file.

    Attributes:
        problem: Reason why the chosen file cannot be used, or empty.
        automatic: True if the file's lesions were made by an algorithm alone.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._state: Any = None
        self._listedStudy: list[str] | None = None
        self._reviews: list[tuple[str, str]] = []
        self._readKey: tuple[Any, ...] | None = None
        self.problem, self._facts, self.automatic = "", "", False
        ui.lesionsBox.currentIndexChanged.connect(self._onChoice)

    @property
    def path(self) -> Path | None:
        """The chosen file; None if the run finds the lesions."""
        return Path(self._state.inputLesions) if self._state is not None and self._state.inputLesions else None

    def list(self, state) -> None:
        """Query the database again. state: the parameter node; None while the panel is closed."""
        self._listedStudy = None
        if state is not None:
            self.show(state)

    def show(self, state) -> None:
        """Show the state."""
        self._state = state
        study = dicom_database.instanceUIDs(state.inputVolume)[:1]
        if study != self._listedStudy:
            self._listedStudy = study
            self._reviews = dicom_database.reviewsOf(state.inputVolume)
        choices = [(_("found in the CT"), ""), *self._reviews]
        path = state.inputLesions
        if path and path not in [data for _text, data in choices]:
            choices.append((Path(path).name, path))
        fillBox(self._ui.lesionsBox, [*choices, (_("Open a DICOM file …"), _ASK)], path)
        self._read()
        say(self._ui.lesionsLabel, f"⚠ {self.problem}" if self.problem else self._facts)

    def _onChoice(self, _index: int) -> None:
        if self._state is None:
            return
        path = dataOf(self._ui.lesionsBox)
        if path == _ASK:
            title = _("DICOM segmentation or structure set")
            path = askForFile(title, "CACScoring/lesionsFolder") or self._state.inputLesions
        if path == self._state.inputLesions:
            self.show(self._state)  # cancelled the dialog
        else:
            self._state.inputLesions = path

    def _read(self) -> None:
        """Read the chosen file, unless it was read already, and check that it belongs to the CT."""
        volume = self._state.inputVolume
        key = self._state.inputLesions, dicom_database.instanceUIDs(volume)[:1]
        if key == self._readKey:
            return
        self._readKey = key
        self.problem, self._facts, self.automatic = "", "", False
        if self.path is None:
            return
        try:
            self._readFile(self.path, dicom_database.frameOfReference(volume))
        except (CTError, OSError) as error:
            self.problem = str(error)

    def _readFile(self, path: Path, frameOfReference: str) -> None:
        from ..exchange.reviewed import read_review_file

        if not path.is_file():
            self.problem = _("{path} is not there any more. Choose other lesions.").format(path=path)
            return
        file = read_review_file(path)
        if frameOfReference and file.frames_of_reference and frameOfReference not in file.frames_of_reference:
            self.problem = _("{name} was drawn on another scan: its frame of reference is not that of the CT.").format(
                name=path.name
            )
            return
        self.automatic = file.automatic
        state = _("made by an algorithm alone, to be reviewed") if file.automatic else _("a review")
        self._facts = _("{state}: {segments}. Press Score to open it.").format(
            state=state.capitalize(), segments=", ".join(file.segments)
        )
