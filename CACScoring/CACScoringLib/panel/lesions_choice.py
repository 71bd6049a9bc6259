"""Which lesions a run begins with: those that it finds, or those of a review from DICOM."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from . import dicom_database
from .widgets import dataOf, fillBox, say

_ASK = "?"
"""Data of the choice that asks for a file."""


class LesionsChoice:
    """The box of lesions: found by the run, segmentations and structure sets of the CT's study in Slicer's DICOM
    database, or a file.

    problem: why the chosen file cannot be used, or empty. automatic: whether an algorithm alone made what it holds.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._state = None
        self._listedFor: list[str] | None = None
        self._offered: list[tuple[str, str]] = []
        self._readFor: tuple | None = None
        self.problem, self._facts, self.automatic = "", "", False
        ui.lesionsBox.currentIndexChanged.connect(self._chosen)

    @property
    def path(self) -> Path | None:
        """The chosen file; None for the lesions that the run finds."""
        return Path(self._state.inputLesions) if self._state is not None and self._state.inputLesions else None

    def list(self, state) -> None:
        """Look anew for what there is. state: the parameter node; None while the panel is closed."""
        self._listedFor = None
        if state is not None:
            self.show(state)

    def show(self, state) -> None:
        """Show the state."""
        self._state = state
        study = dicom_database.instanceUIDs(state.inputVolume)[:1]
        if study != self._listedFor:
            self._listedFor = study
            self._offered = dicom_database.reviewsOf(state.inputVolume)
        choices = [(_("found in the CT"), ""), *self._offered]
        chosen = state.inputLesions
        if chosen and chosen not in [path for _text, path in choices]:
            choices.append((Path(chosen).name, chosen))
        fillBox(self._ui.lesionsBox, [*choices, (_("Open a DICOM file …"), _ASK)], chosen)
        self._read()
        say(self._ui.lesionsLabel, f"⚠ {self.problem}" if self.problem else self._facts)

    def _chosen(self, _index: int) -> None:
        if self._state is None:
            return
        chosen = dataOf(self._ui.lesionsBox)
        if chosen == _ASK:
            chosen = askForLesions() or self._state.inputLesions
        if chosen == self._state.inputLesions:
            self.show(self._state)  # thought better of it
        else:
            self._state.inputLesions = chosen

    def _read(self) -> None:
        """Find out whether the chosen file may be used for the chosen CT."""
        from ..core.ct import CTError

        volume = self._state.inputVolume
        asked = self._state.inputLesions, dicom_database.instanceUIDs(volume)[:1]
        if asked == self._readFor:
            return
        self._readFor = asked
        self.problem, self._facts, self.automatic = "", "", False
        if self.path is None:
            return
        try:
            self._readFile(self.path, dicom_database.frameOfReference(volume))
        except (CTError, OSError) as error:
            self.problem = str(error)

    def _readFile(self, path: Path, drawnIn: str) -> None:
        from ..exchange.review_file import read_review_file

        if not path.is_file():
            self.problem = _("{path} is not there any more. Choose other lesions.").format(path=path)
            return
        file = read_review_file(path)
        if drawnIn and file.frames_of_reference and drawnIn not in file.frames_of_reference:
            self.problem = _("{name} was drawn on another scan: its frame of reference is not that of the CT.").format(
                name=path.name
            )
            return
        self.automatic = file.automatic
        state = _("made by an algorithm alone, to be reviewed") if file.automatic else _("a review")
        self._facts = _("{state}: {segments}. Press Score to open it.").format(
            state=state.capitalize(), segments=", ".join(file.segments)
        )


def askForLesions() -> str:
    """Ask for a DICOM segmentation or structure set, beginning where one was opened last; empty for none."""
    settings = qt.QSettings()
    last = settings.value("CACScoring/lesionsFolder", "")
    file = qt.QFileDialog.getOpenFileName(None, _("DICOM segmentation or structure set"), last)
    if file:
        settings.setValue("CACScoring/lesionsFolder", str(Path(file).parent))
    return file
