"""Blind readings: all candidates undecided, and no result of the networks."""

from __future__ import annotations

import json
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
from ..record.scores import MethodScore
from ..review.folder import labels_as_scored
from ..review.journal import JournalEntry
from ..review.review import Difference
from ..review.state import ReviewChange
from ..scoring.scores import score_of
from .cases import ReviewCase
from .journals import journal_of


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
    listed = sorted(method.listed, key=lambda lesion: lesion.id)
    none = score_of(())
    no_numbers: dict[str, Any] = dict.fromkeys(BLINDED)
    blind = MethodScore(
        status="candidates",
        rules=method.rules,
        total=none,
        arteries=SiteMap(dict.fromkeys(method.arteries, none)),
        lesions=tuple(replace(x, site=Artery.UNASSIGNED, verdict=None, **no_numbers) for x in listed),
    )
    return ScoreRecord(
        **{name: getattr(record, name) for name in _BLIND_FIELDS}, warnings=(), methods={"threshold": blind}
    )


def hidden(case: ReviewCase, name: str, text: str) -> str:
    """Replace the names and folders of a scan in a message by the name that a blind reader sees."""
    for part in (str(case.ct), str(case.folder), case.folder.name, case.name):
        text = text.replace(part, name)
    return text
