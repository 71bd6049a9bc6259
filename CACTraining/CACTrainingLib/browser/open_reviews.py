"""Reviews that are open in the server: each rebuilt from its journal, edited by one request at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from CACScoringLib.core.ct import CTError, CTScan, MaskError
from CACScoringLib.core.labels import Artery, Labelled
from CACScoringLib.core.progress import Progress
from CACScoringLib.review.dicom_job import DicomJob, write_dicom
from CACScoringLib.review.export import IN_BROWSER, export_review
from CACScoringLib.review.folder import ReviewFolder
from CACScoringLib.review.journal import CHANGES, Entry
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import Change

from . import actions
from .cases import Case
from .images import ScanImages
from .readings import SHARED, agreed, disputed, journal_of, labels_of
from .shown import blinded, shown

MOST_OPEN = 4
"""A large scan takes about a gigabyte."""


class ChangedError(CTError):
    """The review is not the one that the reader saw."""


class OpenReview:
    """One reading of a scan. lock: to be held by whoever reads or edits it. heart: mask on the scan's grid.

    scan: the case's. Raises CTError when its results or its journal cannot be read.
    """

    def __init__(self, case: Case, reading: str, scan: CTScan) -> None:
        self.lock = threading.RLock()
        self._exporting = threading.Lock()
        self.case = case
        self.reading = reading
        self._journal = journal_of(case, reading)
        self._dicom_files = scan.dicom_files
        state = ReviewFolder(case.folder, scan)
        self.review = ScanReview(state, IN_BROWSER, self._record)
        self.review.restore(self._journal.steps)
        self.images = ScanImages(state)
        self.heart = state.heart
        self._now = ("", "", 0.0)
        self._disputed: dict[str, np.ndarray] = {}

    def begin_consensus(self, readings: Sequence[str]) -> None:
        """Begin with what these readings agree on, unless that was done; what they disagree on is unassigned, and has
        to be decided before the score is accepted. Raises CTError."""
        labels = [labels_of(self.case, reading) for reading in readings]
        for method in self.review.methods:
            label_maps = [each[method] for each in labels]
            self._disputed[method] = disputed(label_maps)
            if not self._journal.entries:
                self.review.give_all(method, agreed(label_maps))

    def begin_blind(self) -> None:
        """Begin with all candidates undecided, whatever the networks found, unless the reading was begun."""
        if not self._journal.entries:
            for method in self.review.methods:
                labelled = self.review.review(method).labelled
                everything = np.full(len(labelled.flat), Artery.UNASSIGNED, np.uint8)
                self.review.give_all(method, Labelled(labelled.flat, everything))

    @property
    def version(self) -> int:
        """Number of changes."""
        return len(self._journal.steps)

    def shown(self, blind: bool = False) -> dict:
        """State of a review as the page shows it. blind: True for a reader who must not see what the networks found."""
        undecided = {method: self._undecided(method) for method in self._disputed}
        state = shown(self.review, self.version, undecided, self._last_reader())
        return (blinded(state) if blind else state) | {"seconds": self._journal.seconds}

    def _last_change(self) -> Entry | None:
        return next((entry for entry in reversed(self._journal.entries) if entry.kind in CHANGES), None)

    def _last_reader(self) -> str | None:
        last = self._last_change()
        return None if last is None else last.reader

    def lesion_volume(self, method: str) -> bytes | None:
        """The labels of a method's lesions, see `ScanImages.lesions`; None where there is no such method."""
        return self.images.lesions(self.review, method) if method in self.review.methods else None

    def _undecided(self, method: str) -> set[int]:
        """Ids of lesions on which readers disagree, and which a consensus has not decided yet."""
        method_review = self.review.review(method)
        labelled = method_review.labelled
        unassigned = labelled.flat[labelled.values == Artery.UNASSIGNED]
        flat, ids = method_review.voxels()
        return set(ids[np.isin(flat, np.intersect1d(unassigned, self._disputed[method]))].tolist())

    def request_of(self, content: object) -> actions.Request:
        """Check a request. Raises `actions.RefusedError`."""
        return actions.request_of(content, self.review.scan.image.GetSize()[::-1], self.review.methods)

    def act(self, reader: str, request: actions.Request, blind: bool = False) -> None:
        """Do what a reader asks for; it is in the journal when this returns. blind: as of `shown`.

        Raises ChangedError when the review changed since the reader saw it, MaskError when it cannot be done, and
        JournalError when it cannot be kept: then the review has to be opened again.
        """
        if request.version != self.version:
            last = self._last_change()
            who = "elsewhere" if last is None else f"by {last.reader}, {last.time[11:19]} UTC"
            raise ChangedError(
                f"This scan was changed {who}, after you saw it (version {self.version}, yours was {request.version}). "
                "The page shows it as it is now; your last action was not done. Repeat it if it is still right."
            )
        finishes = request.action == "accept" or (request.action == "reviewed" and request.parts["on"])
        if finishes and request.method in self._disputed and (undecided := self._undecided(request.method)):
            raise MaskError(
                f"The readers disagree on {len(undecided)} lesion(s): {', '.join(map(str, sorted(undecided)))}. Give "
                "each to a site or reject it before you accept the score."
            )
        if finishes and blind:
            self._check_decided()
        self._now = (reader, request.words, request.seconds)
        actions.carry_out(self.review, request)

    def _check_decided(self) -> None:
        """Raise MaskError while a blind reader has not decided about all candidates."""
        labelled = self.review.review("threshold").labelled
        if (labelled.values == Artery.UNASSIGNED).any():
            raise MaskError("Assign or reject every candidate first. Reject the rest rejects those that are left.")

    def spend(self, reader: str, seconds: float) -> None:
        """Keep the time that a reader spent without a change. Raises JournalError."""
        self._append("time", reader, "", seconds)

    def export(self, reader: str, dicom: bool) -> Path:
        """Write the review as `export_review` does, into a folder beside the results, called "draft" before the score
        is accepted. Takes `lock` only to read the review, which can be edited meanwhile. Raises CTError, OutputError.

        dicom: whether DICOM objects are written too, where the scan is a DICOM series.
        """
        with self._exporting:
            with self.lock:
                reviewed, last_reader = self.review.as_reviewed(), self._last_reader()
            name = "reviewed" if reviewed.result.methods["threshold"].reviewed else "draft"
            if self.reading != SHARED:
                name += f"-{self._journal.file.stem}"
            folder = self.case.folder / name
            export_review(folder, reviewed, overwrite=True, reader=last_reader)
            if dicom and (files := self._dicom_files):
                job = DicomJob(reviewed.result, files, folder / "dicom", self.review.calcium_map(), reader=reader)
                write_dicom(job, Progress())
            with self.lock:
                self._append("export", reader, name, 0.0)
        return folder

    def _record(self, kind: str, change: Change) -> None:
        reader, words, seconds = self._now
        self._append(kind, reader, words, seconds, change)

    def _append(self, kind: str, reader: str, words: str, seconds: float, change: Change | None = None) -> None:
        result = self.review.result("threshold")
        entry = Entry(kind, reader, words, seconds, result.reviewed, result.total.agatston, change)
        self._journal.append(entry)


_Value = TypeVar("_Value")


class _Kept(Generic[_Value]):
    """What a slow function returns, MOST_OPEN times; the value used longest ago goes first. It is called once for
    arguments that several threads ask for."""

    def __init__(self, function: Callable[..., _Value]) -> None:
        self._function = function
        self._values: OrderedDict[tuple[Hashable, ...], _Value] = OrderedDict()
        self._lock = threading.Lock()
        self._at_work: dict[tuple[Hashable, ...], threading.Lock] = {}

    def get(self, *arguments: Hashable) -> _Value:
        with self._lock:
            lock = self._at_work.setdefault(arguments, threading.Lock())
        with lock:
            with self._lock:
                if arguments in self._values:
                    self._values.move_to_end(arguments)
                    return self._values[arguments]
            value = self._function(*arguments)
            with self._lock:
                self._values[arguments] = value
                while len(self._values) > MOST_OPEN:
                    self._values.popitem(last=False)
            return value

    def forget(self, *arguments: Hashable) -> None:
        with self._lock:
            self._values.pop(arguments, None)


class OpenReviews:
    """The scans and reviews that are in memory; all changes are in the reviews' journals.

    prepare: is given each review when it is opened.
    """

    def __init__(self, prepare: Callable[[OpenReview], None] = lambda review: None) -> None:
        self._prepare = prepare
        self._scans, self._reviews = _Kept(Case.scan), _Kept(self._open)

    def scan(self, case: Case) -> CTScan:
        """The CT of a case, which is there before its review. Raises CTError."""
        return self._scans.get(case)

    def get(self, case: Case, reading: str) -> OpenReview:
        """The review of a reading, opened when it is not. Raises CTError."""
        return self._reviews.get(case, reading)

    def close(self, case: Case, reading: str) -> None:
        """Forget a review, so that it is rebuilt from its journal when it is asked for again."""
        self._reviews.forget(case, reading)

    def _open(self, case: Case, reading: str) -> OpenReview:
        review = OpenReview(case, reading, self.scan(case))
        self._prepare(review)
        return review
