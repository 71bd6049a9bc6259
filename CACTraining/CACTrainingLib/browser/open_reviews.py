"""Keep reviews open in the server, each rebuilt from its journal and edited by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np

from CACScoringLib.cohort.reviewed import count_reviews, is_cohort
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import ChangedError, MaskError
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.readings import journals
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.recorded_review import RecordedReview
from CACScoringLib.record.provenance import ReaderScore
from CACScoringLib.review.journal import CHANGES
from CACScoringLib.review.output import IN_BROWSER, export_review, write_dicom
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder

from . import actions
from .images import ScanImages
from .page_state import blind_state, page_state

MAX_OPEN_REVIEWS = 4
"""Number of reviews in memory; a large scan takes about a gigabyte."""


class OpenReview(RecordedReview):
    """Reading of a scan in the browser.

    Attributes:
        lock: Lock to hold while the review is read or edited.
        images: Images for the page.
        heart: Mask of the heart on the scan's grid.

    Raises:
        CTError: The results or the journal cannot be read.
    """

    def __init__(self, case: ReviewCase, reading: str, scan: CTScan) -> None:
        self.lock = threading.RLock()
        self._exporting = threading.Lock()
        self._dicom_files = scan.dicom_files
        self._present_action = ("", "", 0.0)
        state = ReviewFolder(case.folder, scan)
        make = partial(ScanReview, state, IN_BROWSER)
        super().__init__(case, reading, make, lambda: self._present_action)
        self.images = ScanImages(state)
        self.heart = state.heart
        self._disputed: dict[str, np.ndarray] = {}
        self._readings: Sequence[str] = ()

    def begin_consensus(self, readings: Sequence[str]) -> None:
        """Start with the labels on which the readings agree, unless the consensus was begun.

        Disputed lesions are unassigned, and have to be decided before the score is accepted. Raises CTError.
        """
        self._readings = readings
        labels = [journals.labels_of_reading(self.case, reading) for reading in readings]
        for method in self.review.methods:
            label_maps = [reading_labels[method] for reading_labels in labels]
            self._disputed[method] = journals.disputed_voxels(label_maps)
            if not self.journal.entries:
                self.review.give_all(method, journals.agreed_labels(label_maps))

    @property
    def version(self) -> int:
        """Number of changes."""
        return len(self.journal.steps)

    def page_state(self, blind: bool = False) -> dict[str, Any]:
        """Return the review's state for the page. blind: True to hide the networks' results."""
        undecided = {method: self._undecided(method) for method in self._disputed}
        state = page_state(self.review, self.version, undecided)
        return (blind_state(state) if blind else state) | {"seconds": self.journal.seconds}

    def _undecided(self, method: str) -> set[int]:
        """Return the ids of disputed lesions that the consensus has not decided yet."""
        method_review = self.review.review(method)
        labelled = method_review.labelled
        unassigned = labelled.flat[labelled.values == Artery.UNASSIGNED]
        flat, ids = method_review.voxels()
        return set(ids[np.isin(flat, np.intersect1d(unassigned, self._disputed[method]))].tolist())

    def request_of(self, content: object) -> actions.Request:
        """Check a request. Raises `actions.RefusedError`."""
        return actions.request_of(content, self.review.scan.image.GetSize()[::-1], self.review.methods)

    def act(self, reader: str, request: actions.Request) -> None:
        """Carry out a reader's request; it is in the journal when this returns.

        Raises:
            ChangedError: The review has changed since the reader saw it.
            MaskError: The request cannot be carried out.
            JournalError: The change cannot be saved; the review has to be opened again.
        """
        if request.version != self.version:
            last = self.last_change()
            source = "elsewhere" if last is None else f"by {last.reader}, {last.time[11:19]} UTC"
            raise ChangedError(
                f"This scan was changed {source}, after you saw it (version {self.version}, yours was "
                f"{request.version}). The page shows it as it is now; your last action was not done. Repeat it if it "
                "is still right."
            )
        finishes = request.action == "accept" or (request.action == "reviewed" and request.parts["on"])
        if finishes and request.method in self._disputed and (undecided := self._undecided(request.method)):
            raise MaskError(
                f"The readers disagree on {len(undecided)} lesion(s): {', '.join(map(str, sorted(undecided)))}. Give "
                "each to a site or reject it before you accept the score."
            )
        self.look_at(request.looked_at)
        self._present_action = (reader, request.words, request.seconds)
        self.review.reader = reader
        actions.carry_out(self.review, request)

    def spend(self, reader: str, seconds: float, looked_at: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        """Record time that a reader spent without a change, and the lesions shown. Raises JournalError."""
        self.look_at(looked_at)
        self.note("time", reader, "", seconds)

    def look_at(self, lesions: Mapping[str, Sequence[int]]) -> None:
        """Note lesions, by method, that were shown to the reader; the next entry of the journal holds them."""
        for method, ids in lesions.items():
            if method in self.review.methods:
                self.review.look_at(method, ids)

    def export(self, reader: str, dicom: bool) -> Path:
        """Export the review into a folder below the results, called "draft" before the score is accepted.

        The review can be edited meanwhile: `lock` is held only while it is read. dicom: True to write DICOM objects
        too, if the scan is a DICOM series. Raises CTError, OutputError.
        """
        with self._exporting:
            with self.lock:
                reviewed = self.review.as_reviewed()
            name = "reviewed" if reviewed.methods["threshold"].reviewed else "draft"
            if self.reading != journals.SHARED:
                name += f"-{self.journal.file.stem}"
            folder = self.case.folder / name
            if (review := reviewed.record.review) is not None:
                reviewed = reviewed.stating(review=replace(review, readings=tuple(map(self._score_of, self._readings))))
            export_review(folder, reviewed, self.review.record, overwrite=True)
            if dicom and (files := self._dicom_files):
                write_dicom(reviewed, files, folder / "dicom", True, Progress())
            if is_cohort(self.case.folder.parent):
                count_reviews(self.case.folder.parent)
            with self.lock:
                self.note("export", reader, name, 0.0)
        return folder

    def _score_of(self, reading: str) -> ReaderScore:
        """Return what a reader had before the consensus."""
        entry = next(e for e in reversed(journals.journal_of(self.case, reading).entries) if e.kind in CHANGES)
        labelled, review = journals.labels_of_reading(self.case, reading)["threshold"], self.review.review("threshold")
        sites: dict[str, str] = {}
        rejected = review.rejected().voxels
        for flat, ids in (review.voxels(), (rejected.flat, rejected.ids)):
            sites |= {str(n): journals.site_in(labelled, flat[ids == n]) for n in np.unique(ids).tolist()}
        return ReaderScore(journals.reader_of(reading), entry.time, entry.agatston, sites)


_Value = TypeVar("_Value")


class _Cache(Generic[_Value]):
    """Cache of a slow function's last MAX_OPEN_REVIEWS results; threads with equal arguments share one call."""

    def __init__(self, function: Callable[..., _Value]) -> None:
        self._function = function
        self._calls: dict[tuple[Hashable, ...], Future[_Value]] = {}
        self._lock = threading.Lock()

    def get(self, *arguments: Hashable) -> _Value:
        with self._lock:
            is_first = arguments not in self._calls
            call = self._calls[arguments] = self._calls.pop(arguments, Future())
            while len(self._calls) > MAX_OPEN_REVIEWS:
                del self._calls[next(iter(self._calls))]
        if is_first:
            try:
                call.set_result(self._function(*arguments))
            except BaseException as error:
                self.forget(*arguments)
                call.set_exception(error)
        return call.result()

    def forget(self, *arguments: Hashable) -> None:
        with self._lock:
            self._calls.pop(arguments, None)


class OpenReviews:
    """Scans and reviews in memory; all changes are in the reviews' journals.

    Args:
        begin: Function called with case and reading before its review is opened.
        prepare: Function called with each review when it is opened.
    """

    def __init__(
        self,
        begin: Callable[[ReviewCase, str], None] = lambda case, reading: None,
        prepare: Callable[[OpenReview], None] = lambda review: None,
    ) -> None:
        self._begin, self._prepare = begin, prepare
        self._scans, self._reviews = _Cache(ReviewCase.scan), _Cache(self._open)

    def scan(self, case: ReviewCase) -> CTScan:
        """Return the CT of a case, without opening its review. Raises CTError."""
        return self._scans.get(case)

    def get(self, case: ReviewCase, reading: str) -> OpenReview:
        """Return the review of a reading, opened on first use. Raises CTError."""
        return self._reviews.get(case, reading)

    def close(self, case: ReviewCase, reading: str) -> None:
        """Drop a review, so that it is rebuilt from its journal on its next use."""
        self._reviews.forget(case, reading)

    def _open(self, case: ReviewCase, reading: str) -> OpenReview:
        self._begin(case, reading)
        review = OpenReview(case, reading, self.scan(case))
        self._prepare(review)
        return review
