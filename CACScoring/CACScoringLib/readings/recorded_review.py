"""Review of a scan by a reader, of which every change is recorded in the journal of the reading; blind readings.

A blind reading begins with all candidates undecided, and shows no result of the networks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..core.grid import Grid
from ..core.labels import Artery, Labelled, SiteMap
from ..core.voxels import voxels_of
from ..mrml.scene_content import SceneContent
from ..record.columns import BLINDED
from ..record.score_record import ScoreRecord, read_result, record_from_text
from ..record.scores import LesionSet, MethodScore
from ..review.journal import CHANGES, JournalEntry
from ..review.review import Difference
from ..review.scan_review import ScanReview
from ..review.state import ReviewChange, labels_as_scored
from ..scoring.scores import score_of
from .cases import ReviewCase
from .journals import journal_of


class RecordedReview:
    """Review of a scan that continues its journal, and records every change in it.

    Args:
        case: Scan under review.
        reading: Name of the reading.
        make: Function that makes the review, given the function that records its changes.
        present_action: Function that returns the reader of a change, the action in words, and the reader's seconds
            since the last entry.

    Attributes:
        review: State and edits of the review.
        journal: Journal of the reading.

    Raises:
        CTError: The results or the journal cannot be read.
    """

    def __init__(
        self,
        case: ReviewCase,
        reading: str,
        make: Callable[[Callable[[str, ReviewChange], None]], ScanReview],
        present_action: Callable[[], tuple[str, str, float]],
    ) -> None:
        self.case = case
        self.reading = reading
        self._action = present_action
        self.journal = journal_of(case, reading)
        self.review = make(self._record)
        self.review.journal_mark = lambda: self.journal.mark
        self.review.restore(self.journal.steps)
        if entries := self.journal.entries:
            looked_at = {method: self._looked_at(method) for method in self.review.methods}
            self.review.restore_notes(looked_at, entries[-1].confirmations)

    def _looked_at(self, method: str) -> list[int]:
        """Return voxels of lesions that were shown to the reader, as the journal has them."""
        return [voxel for entry in self.journal.entries for voxel in entry.looked_at.get(method, ())]

    def last_change(self) -> JournalEntry | None:
        """Return the last entry with a change; None without one."""
        return next((entry for entry in reversed(self.journal.entries) if entry.kind in CHANGES), None)

    def _record(self, kind: str, change: ReviewChange) -> None:
        self.note(kind, *self._action(), change)

    def note(self, kind: str, reader: str, words: str, seconds: float, change: ReviewChange | None = None) -> None:
        """Append an entry, with the lesions shown since the last entry. Raises JournalError."""
        if "threshold" in self.review.problems:
            last = self.journal.entries[-1:]
            after = (last[0].reviewed, last[0].agatston) if last else (False, 0.0)
        else:
            result = self.review.result("threshold")
            after = result.reviewed, result.total.agatston
        notes = {m: {*self.review.notes_looked_at(m)} - {*self._looked_at(m)} for m in self.review.methods}
        new = {method: sorted(voxels) for method, voxels in notes.items() if voxels}
        confirmations = self.review.confirmations
        self.journal.append(JournalEntry(kind, reader, words, seconds, *after, change, new, confirmations))


def begin_blind(case: ReviewCase, reading: str) -> None:
    """Begin the journal of a blind reading with all candidates undecided, unless it was begun. Raises CTError."""
    journal = journal_of(case, reading)
    if journal.entries:
        return
    methods, changes, marks = read_result(case.folder).methods, {}, {}
    for method, labelled in labels_as_scored(case.folder).items():
        undecided = Labelled(labelled.flat, np.full(len(labelled.flat), Artery.UNASSIGNED, np.uint8))
        changes[method] = Difference.of(labelled, undecided)
        if methods[method].reviewed:
            marks[method] = (True, False)
    journal.append(JournalEntry("edit", "", "", 0.0, False, 0.0, ReviewChange(changes, {}, marks)))


def blind_content(content: SceneContent) -> SceneContent:
    """Return a result's scene with the CT, the heart and the candidates alone. Raises UnreadableError."""
    record = _blind_record(record_from_text(content.record, content.name))
    text = json.dumps(record.as_json(identify=True), ensure_ascii=False, allow_nan=False)
    candidates = (voxels_of(content.lesions) > 0) * np.uint8(Artery.UNASSIGNED)
    lesions: sitk.Image = Grid.of(content.lesions).image(candidates)
    return SceneContent(content.name, content.ct, content.heart, lesions, text)


_BLIND_FIELDS = (
    *("input", "acquisition", "heart", "models", "measured", "normalisation", "mass_calibration", "provenance"),
)
"""Fields of a record that show no result of the networks."""


def _blind_record(record: ScoreRecord) -> ScoreRecord:
    method = record.methods["threshold"]
    listed = sorted(method.table.lesions, key=lambda lesion: lesion.id)
    none = score_of(())
    no_numbers: dict[str, Any] = dict.fromkeys(BLINDED)
    blind = MethodScore(
        status="candidates",
        rules=method.rules,
        total=none,
        arteries=SiteMap(dict.fromkeys(method.arteries, none)),
        table=LesionSet.of(replace(x, site=Artery.UNASSIGNED, verdict=None, **no_numbers) for x in listed),
    )
    return ScoreRecord(
        **{name: getattr(record, name) for name in _BLIND_FIELDS}, warnings=(), methods={"threshold": blind}
    )


def hidden(case: ReviewCase, name: str, text: str) -> str:
    """Replace the names and folders of a scan in a message by the name that a blind reader sees."""
    for part in (str(case.ct), str(case.folder), case.folder.name, case.name):
        text = text.replace(part, name)
    return text
