"""Review of a scored scan: edits with undo, the resulting numbers and warnings, and the export.

Shared by the panel and the browser page. A state stores labels, slices and marks: in nodes of a scene
(`scene.ReviewNodes`) or in memory (`state.ReviewFolder`). Independent of MRML and Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from ..anatomy.courses import Course, artery_courses
from ..anatomy.heart_region import HeartRegion, measure_epicardial_fat
from ..core.ct import ScanWarning
from ..core.errors import CTError, MaskError
from ..core.labels import NOT_CORONARY, Artery, Labelled, Site
from ..mrml.scene_content import SliceRow
from ..networks.configs import VESSELS
from ..record.findings import Categories, EpicardialFat, Features
from ..record.provenance import Confirmation, JournalRecord, ReviewRecord, now, provenance_of
from ..record.scores import COUNTED, LEFT_OUT, OUTSIDE, Lesion, LesionVoxels, MethodScore, NonCoronaryScore
from ..results import ScoreResult
from ..scoring.scores import categories_of
from ..whole_scan.estimates import DIFFERS, WholeScanEstimate, disagreements, estimate_record
from .following import decided_otherwise, following_labels
from .output import ABOUT_CANDIDATES, ABOUT_LABELS, IN_PANEL, export_review
from .review import Difference, Review
from .state import ReviewChange, ReviewNotes, ReviewState, replayed, reviews_of

MAX_UNDO_STEPS = 100


class ScanReview:
    """A scored scan whose lesions a reader edits.

    Call `refresh` after anything but this object's own methods has edited the state. While voxels belong to two
    segments, or to one that is no artery, there are no numbers: `problems` holds the reason by method, `result` raises
    it, and `undo` returns to the last state without it.

    Args:
        state: Storage of labels, slices and marks.
        program: IN_PANEL or IN_BROWSER, for the export.
        record_change: Function called after every change with "edit", "undo" or "redo".

    Attributes:
        scan: The CT, with axes as in `CTScan` and the facts of the record.
        record: Record of the run that is reviewed.
        methods: "threshold", and "decomposition" if there is a calcium map.
        reader: Name or ID of the reader who edits and confirms.
        is_blind: True for a blind reading.
        journal_mark: Function that returns the mark of the review's journal for exports; None without a journal.

    Raises:
        UnreadableError: The parts of the state do not fit together.
    """

    def __init__(
        self,
        state: ReviewState,
        program: str = IN_PANEL,
        record_change: Callable[[str, ReviewChange], None] | None = None,
    ) -> None:
        self._state = state
        self._program = program
        self.reader = ""
        self.journal_mark: Callable[[], JournalRecord | None] = lambda: None
        self.is_blind = False
        self._record = record_change or (lambda kind, change: None)
        self.scan, self.record = state.scan, state.record
        self.methods = state.methods
        self._reviews = reviews_of(state)
        self.problems: dict[str, str] = {}
        self._set_marks(state.reviewed())
        self._slices = state.slices()
        self._outline: object = ()
        self._fat: EpicardialFat | None = None
        self._signatures: dict[str, object] = {}
        self._had_numbers: set[str] = set()
        self._undo: list[ReviewChange] = []
        self._redo: list[ReviewChange] = []
        self._take_in_voxels()
        self._start = {method: review.labelled for method, review in self._reviews.items()}
        self._candidates: dict[str, LesionVoxels] = {}
        self._switch_slices_off()
        for method, review in self._reviews.items():
            review.set_assigned(frozenset(state.notes(method).assigned))
            review.unseen = partial(self._unseen, method)

    # Numbers

    def refresh(self, seen_methods: Collection[str] | None = None, assigned: ReviewChange | None = None) -> bool:
        """Process edits of the state; return True if numbers changed. Fast if nothing was edited.

        All changes since the last call are one undo step. A decision about calcium of the clinical score holds for that
        of the calcium map at its place, too.

        Args:
            seen_methods: Methods whose edits a reader made and saw; None for all.
            assigned: Voxels that the reader gave to a site, which some may have had before.
        """
        if self._state.writing:
            return False
        problems, map_review = dict(self.problems), self._reviews.get("decomposition")
        map_before = None if map_review is None else map_review.labelled
        change = self._take_in()
        if assigned is not None:
            for method, voxels in assigned.voxels.items():
                change.voxels[method] = voxels.updated(change.voxels.get(method))
        has_new_outline = self._outline not in ((), self._state.pericardium_signature())
        if change:
            for method in change.voxels.keys() & (change.voxels if seen_methods is None else seen_methods):
                self._note_voxels(method, change.voxels[method].flat)
            self._carry_over(change, map_before)
            self._keep(change)
        return bool(change) or has_new_outline or problems != self.problems

    def _carry_over(self, change: ReviewChange, map_before: Labelled | None) -> None:
        """Let the calcium map follow what a change decides about the clinical score, within the change.

        map_before: Labels of the map before the change; None without a map.
        """
        following, decided = self._following_map("threshold"), change.voxels.get("threshold")
        if following is None or decided is None or map_before is None:
            return
        labels = following_labels(following, self._reviews["threshold"].labelled, decided)
        if labels.flat.size:
            self._state.write("decomposition", labels)
            if self._take_in_voxels():
                change.voxels["decomposition"] = Difference.of(map_before, following.labelled)

    def _keep(self, change: ReviewChange) -> None:
        """Keep an edit for undo, with its confirmations, and record it."""
        self._undo = [*self._undo, change][-MAX_UNDO_STEPS:]
        self._redo.clear()
        self._note_assigned(change)
        self._update_confirmations(change)
        self._record("edit", change)

    def result(self, method: str) -> MethodScore:
        """Return the current scores of a method. Raises MaskError while it has a problem."""
        self._check(method)
        return self._result(method)

    def _result(self, method: str, courses: Mapping[Artery, Course] | None = None) -> MethodScore:
        result = self._reviews[method].result(courses)
        return replace(result, non_coronary=None) if "threshold" in self.problems else result

    def lesions(self, method: str) -> tuple[Lesion, ...]:
        """Return the lesions of a method, non-coronary ones included. Raises MaskError while it has a problem."""
        self._check(method)
        return self._reviews[method].table.of_status(COUNTED, OUTSIDE).lesions

    def left_out(self, method: str) -> tuple[Lesion, ...]:
        """Return unassigned lesions that do not count; none while they count as candidates. Raises MaskError."""
        self._check(method)
        return self._reviews[method].table.of_status(LEFT_OUT).lesions

    def features(self, method: str) -> Features | None:
        """Return the current features of a method's lesions; None of too many. Raises MaskError as `result` does."""
        self._check(method)
        courses = artery_courses(self._state.territories(), self.scan.image.GetSpacing())
        return self._reviews[method].result(courses).features

    @property
    def non_coronary(self) -> NonCoronaryScore | None:
        """Calcium outside the coronary arteries by the clinical rule; None while nobody has separated it from coronary
        calcium, neither the run nor the reader, or while there is a problem."""
        return None if "threshold" in self.problems else self.result("threshold").non_coronary

    @property
    def epicardial_fat(self) -> EpicardialFat | None:
        """Fat within the pericardium as it is now; None without a whole pericardium."""
        signature = self._state.pericardium_signature()
        if signature != self._outline:
            self._outline, recorded = signature, self.record.epicardial_fat
            outline = self._state.pericardium()
            self._fat, _ = measure_epicardial_fat(self._state.scored, outline, "given")
            volume_cm3 = None if self._fat is None else self._fat.volume_cm3
            if recorded is not None and (outline is None or volume_cm3 == recorded.volume_cm3):
                self._fat = EpicardialFat(**vars(recorded))
        return self._fat

    def results(self) -> dict[str, MethodScore]:
        """Return the scores of all methods without a problem."""
        return {method: self.result(method) for method in self.methods if method not in self.problems}

    def review(self, method: str) -> Review:
        """Return the lesions and labels of a method, read-only."""
        return self._reviews[method]

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Warnings about the scan and about its current lesions."""
        obsolete = (DIFFERS, *(ABOUT_CANDIDATES if self.reviewed["threshold"] else ()))
        obsolete += ABOUT_LABELS if self._undo else ()
        warnings = [warning for warning in self.record.warnings if warning.code not in obsolete]
        if "threshold" not in self.problems:
            warnings += self._reviews["threshold"].warnings()
        warnings += disagreements(self.estimates, self.results())
        warnings += [ScanWarning("review-problem", text) for text in self.problems.values()]
        if slices := _slice_list(self.slices_off):
            message = f"A reader has excluded {slices} from the calcium map."
            warnings.append(ScanWarning("slices-switched-off", message))
        if slices := _slice_list(self.slices_wished):
            message = f"A reader has included {slices}, not decomposed yet. Score the scan again."
            warnings.append(ScanWarning("slices-to-decompose", message))
        return tuple(warnings)

    @property
    def estimates(self) -> tuple[WholeScanEstimate, ...]:
        """Whole-scan estimates of the run; a review does not change them."""
        return self._state.estimates

    def categories(self) -> Categories | None:
        """The published classes of the clinical score; None of candidates that nothing has evaluated, and while it
        has a problem."""
        if "threshold" in self.problems:
            return None
        result, recorded = self.result("threshold"), self.record.categories
        # The table of percentiles is not in the scene, so that the one recorded holds for its own score alone.
        is_unchanged = self.record.methods["threshold"].total.agatston == result.total.agatston
        percentile = recorded.percentile if recorded is not None and is_unchanged else None
        return categories_of(result, percentile)

    def position_of(self, method: str, lesion_id: int) -> tuple[float, float, float]:
        """Return the position in mm, RAS, of the lesion's voxel nearest to its centre of mass. Raises MaskError."""
        k, j, i = self._reviews[method].centre_of(lesion_id)
        x, y, z = self.scan.image.TransformIndexToPhysicalPoint((i, j, k))
        return -x, -y, z

    # Edits

    def assign(self, method: str, lesion_ids: Iterable[int], site: Site) -> None:
        """Assign listed lesions to an artery or a non-coronary site. Raises MaskError when one is not there."""
        self.give(method, self._reviews[method].flat_voxels(lesion_ids), int(site))

    def reject(self, method: str, lesion_ids: Iterable[int]) -> None:
        """Reject listed lesions. Raises MaskError when one is not there."""
        self.give(method, self._reviews[method].flat_voxels(lesion_ids), NOT_CORONARY)

    def give(self, method: str, flat: np.ndarray, label: int, by_reader: bool = True) -> None:
        """Label voxels: a `Site`, NOT_CORONARY, or 0 for none. Raises MaskError while the method has a problem.

        flat: Rising indices into the scan's array. by_reader: False if the reader may not have seen them.
        """
        self._check(method)
        labels = np.full(len(flat), label, np.uint8)
        assigned = ReviewChange({method: Difference(flat, labels, labels)}, {}, {})
        self._state.write(method, Labelled(flat, labels))
        is_new = bool(self._pairs(assigned, method) - self._reviews[method].assigned)
        self.refresh((method,) if by_reader else (), assigned=assigned if is_new else None)

    def _following_map(self, method: str) -> Review | None:
        """Return the review of the calcium map if decisions about a method's lesions hold for the map's, too.

        Those about the clinical score do, unless the map is confirmed or has a problem, or the reading is blind.
        """
        review = self._reviews.get("decomposition")
        follows = review is not None and review.method not in self.problems and not review.reviewed
        return review if follows and method == "threshold" and not self.is_blind else None

    def give_all(self, method: str, labelled: Labelled) -> None:
        """Begin with these labels and no others; not undone. Raises MaskError while the method has a problem."""
        self._check(method)
        self._state.write(method, labelled, alone=True)
        if change := self._take_in():
            self._keep(change)
        self._undo.clear()

    def pick(self, method: str, voxel: tuple[int, int, int], site: Site) -> None:
        """Assign the calcium connected to a voxel [k, j, i] within its present site to another site.

        Raises MaskError if there is none, or too much.
        """
        self.give(method, self._reviews[method].clicked_voxels(voxel), int(site))

    def paint(self, method: str, points: list[tuple[float, ...]], radius_mm: float, flat: bool, label: int) -> None:
        """Label the voxels under a round brush that reach the threshold; label 0 erases labelled voxels.

        Points of the stroke are [k, j, i] in voxels. flat: Paint in the slice alone. Raises MaskError if no voxel
        qualifies.
        """
        self.give(method, self._reviews[method].painted_voxels(points, radius_mm, flat, label == 0), label)

    def cut(
        self, method: str, lesion_id: int, point_kji: Iterable[float], normal_kji: Iterable[float], label: int
    ) -> None:
        """Cut a listed lesion by a plane and label its voxels on the side that the normal points to.

        The plane is given by a point and its normal in voxels. Raises MaskError if the lesion does not exist or lies on
        one side of the plane.
        """
        if not label:
            raise MaskError("The part of a lesion needs a site, or is rejected.")
        self.give(method, self._reviews[method].voxels_beyond_plane(lesion_id, point_kji, normal_kji), label)

    def reject_unassigned(self, method: str) -> None:
        """Reject all unassigned voxels."""
        labelled = self._reviews[method].labelled
        self.give(method, labelled.flat[labelled.values == Artery.UNASSIGNED], NOT_CORONARY, by_reader=False)

    def accept(self, method: str) -> None:
        """Confirm the score; lesions left out stay out. Raises MaskError while counted candidates have no artery."""
        if reason := self.refusal(method):
            raise MaskError(reason)
        self.set_reviewed(method, True)

    def refusal(self, method: str, unassigned_may_stay: bool = False) -> str:
        """Return the reason why a score cannot be confirmed, or an empty text. Raises MaskError as `result` does.

        unassigned_may_stay: Accept lesions without an artery, which then do not count, unless the reading is blind.
        """
        is_blind = self.is_blind and method == "threshold"
        if unassigned_may_stay and not is_blind:
            return ""
        count = self.result(method).arteries[Artery.UNASSIGNED].lesions
        if not count and not (is_blind and (self._reviews[method].labelled.values == Artery.UNASSIGNED).any()):
            return ""
        lesions = {0: "Some voxels have", 1: "1 lesion has"}.get(count, f"{count} lesions have")
        return f"{lesions} no artery. Assign or reject each, or press Reject the rest, before you confirm the score."

    def set_no_calcium(self, method: str) -> None:
        """Confirm a score of 0: reject every lesion of an artery and mark the method as reviewed, in one undo step.

        Without coronary calcium the map has none either: its lesions are rejected with the clinical ones, except for
        those about which a reader has decided otherwise; it is not confirmed. Raises MaskError while the method has a
        problem.
        """
        self._check(method)
        rejected = {method: self._in_arteries(method)}
        if (following := self._following_map(method)) is not None:
            decided = following.flat_voxels(decided_otherwise(following, self._reviews[method].labelled))
            rejected["decomposition"] = np.setdiff1d(self._in_arteries("decomposition"), decided)
        for name, flat in rejected.items():
            self._state.write(name, Labelled(flat, np.full(len(flat), NOT_CORONARY, np.uint8)))
        self._state.set_reviewed(method, True)
        self.refresh(seen_methods=())

    def _in_arteries(self, method: str) -> np.ndarray:
        """Return the flat indices of all voxels that are labelled as of an artery, or as unassigned."""
        labelled = self._reviews[method].labelled
        return labelled.flat[labelled.values <= max(Artery)]

    def set_reviewed(self, method: str, on: bool) -> None:
        """Set or clear the mark of a completed review of a method. A confirmed score may be confirmed once more.

        Raises MaskError if a blind reader has not decided about every candidate.
        """
        if on and (reason := self.refusal(method, unassigned_may_stay=True)):
            raise MaskError(reason)
        again = on and self.reviewed[method]
        self._state.set_reviewed(method, on)
        self.refresh()
        if again:
            self._keep(ReviewChange({}, {}, {method: (True, True)}))

    # Looking and confirming

    def look_at(self, method: str, lesion_ids: Iterable[int]) -> list[int]:
        """Record that lesions were shown to the reader; return a voxel of each that is new, as a flat index.

        Lesions that are gone or rejected are passed over.
        """
        flat, ids = self._reviews[method].voxels()
        voxels = flat[np.isin(ids, list(lesion_ids))]
        return self._note_voxels(method, voxels)

    def looked_at(self, method: str) -> set[int]:
        """Return the IDs of lesions that were shown to a reader."""
        return set(self._reviews[method].lesions_at(np.array(self._state.notes(method).looked_at, np.int64)))

    def not_looked_at(self, method: str) -> list[Lesion]:
        """Return the lesions that count, in the arteries and elsewhere, and were never shown to a reader."""
        looked_at = self.looked_at(method)
        return [lesion for lesion in self.lesions(method) if lesion.id not in looked_at]

    def candidates(self, method: str) -> LesionVoxels:
        """Return the candidates at the start of the reading: lesions of arteries, and those elsewhere that the networks
        have judged, any of which may decide the score; all lesions of a blind reading."""
        if method not in self._candidates:
            start, review = self._start[method], self._reviews[method]
            lesions = review.candidates_in(start.where(start.values != NOT_CORONARY))
            is_candidate = [isinstance(x.site, Artery) or review.verdict_of(x) is not None for x in lesions.lesions]
            self._candidates[method] = lesions.part(list(compress(lesions.lesions, is_candidate))).voxels
        return self._candidates[method]

    def unseen_candidates(self, method: str) -> set[int]:
        """Return the IDs of candidates at the start that were never shown to a reader."""
        voxels = self.candidates(method)
        looked_at = voxels.ids[np.isin(voxels.flat, self._state.notes(method).looked_at)]
        return set(voxels.ids.tolist()) - set(looked_at.tolist())

    def unseen_decisive(self, method: str) -> int | None:
        """Return the ID of the lesion that decides a score, if it was never shown to a reader; else None."""
        lesion_id = self.result(method).alternative_lesion
        return None if lesion_id in self.looked_at(method) else lesion_id

    @property
    def confirmations(self) -> dict[str, Confirmation]:
        """Confirmations of the confirmed scores, by method."""
        notes = {method: self._state.notes(method).confirmation for method in self.methods if self.reviewed[method]}
        return {method: confirmation for method, confirmation in notes.items() if confirmation is not None}

    def _unseen(self, method: str) -> tuple[int, ...] | None:
        """Return the IDs of lesions never shown to the reader who confirmed the score; None if unknown."""
        confirmation = self.confirmations.get(method)
        return None if confirmation is None else confirmation.not_looked_at

    def notes_looked_at(self, method: str) -> tuple[int, ...]:
        """Return the flat index of a voxel of each lesion that was shown to a reader."""
        return self._state.notes(method).looked_at

    def restore_notes(self, looked_at: dict[str, list[int]], confirmations: dict[str, Confirmation]) -> None:
        """Set the notes of a review that is rebuilt."""
        for method in self.methods:
            assigned = self._state.notes(method).assigned
            self._state.set_notes(
                method, ReviewNotes(tuple(looked_at.get(method, ())), confirmations.get(method), assigned)
            )

    def _note_voxels(self, method: str, voxels: np.ndarray) -> list[int]:
        """Note the lesions that have some of these voxels as looked at; return a voxel of each that is new."""
        if method in self.problems:
            return []
        new = []
        present = self._reviews[method].voxels()
        for flat, ids in (present, (self.candidates(method).flat, self.candidates(method).ids)):
            notes, is_new = self._state.notes(method), np.isin(flat, voxels)
            is_new &= ~np.isin(ids, ids[np.isin(flat, notes.looked_at)])
            first = flat[is_new][np.unique(ids[is_new], return_index=True)[1]].tolist()
            if first:
                self._state.set_notes(method, replace(notes, looked_at=(*notes.looked_at, *first)))
            new += first
        return new

    def _pairs(self, change: ReviewChange, method: str) -> set[tuple[int, int]]:
        """Return a voxel of each lesion that a change has assigned to a site, and the site's label."""
        flat, ids = self._reviews[method].voxels()
        voxels = change.voxels[method]
        is_lesion = np.isin(voxels.flat, flat)
        places, labels = voxels.flat[is_lesion], voxels.after[is_lesion]
        first = np.unique(ids[np.searchsorted(flat, places)], return_index=True)[1]
        return set(zip(places[first].tolist(), labels[first].tolist(), strict=True))

    def _note_assigned(self, change: ReviewChange, backward: bool = False) -> None:
        """Note the lesions that a change has assigned to a site; forget them when it is undone."""
        for method in change.voxels.keys() - self.problems.keys():
            notes, voxels = self._state.notes(method), change.voxels[method]
            if backward:
                after = dict(zip(voxels.flat.tolist(), voxels.after.tolist(), strict=True))
                assigned = {(voxel, label) for voxel, label in notes.assigned if after.get(voxel) != label}
            else:
                assigned = {*notes.assigned, *self._pairs(change, method)}
            self._state.set_notes(method, replace(notes, assigned=tuple(sorted(assigned))))
            self._reviews[method].set_assigned(frozenset(assigned))

    def _update_confirmations(self, change: ReviewChange) -> None:
        """Confirm anew what a change has confirmed, or has edited of a confirmed score."""
        for method, is_confirmed in self.reviewed.items():
            notes = self._state.notes(method)
            if not is_confirmed and notes.confirmation is not None:
                self._state.set_notes(method, replace(notes, confirmation=None))
            is_changed = change.slices or method in change.voxels or method in change.reviewed
            if is_confirmed and is_changed and method not in self.problems:
                lesions, unseen = self.lesions(method), self.not_looked_at(method)
                ids, count = tuple(lesion.id for lesion in unseen), len(np.unique(self.candidates(method).ids))
                counts = count, len(self.unseen_candidates(method)), _count_outside(lesions), _count_outside(unseen)
                confirmation = Confirmation(self.reader, now(), len(lesions), ids, *counts)
                self._state.set_notes(method, replace(notes, confirmation=confirmation))

    def slices(self) -> list[SliceRow]:
        """Return the slices of the calcium map; empty without a map."""
        return list(self._slices)

    @property
    def slices_off(self) -> tuple[int, ...]:
        """Decomposed slices that a reader switched off."""
        return tuple(row.k for row in self._slices if row.decomposed and not row.used)

    @property
    def slices_wished(self) -> tuple[int, ...]:
        """Slices that a reader switched on but that were never decomposed (a setting of `cac score`)."""
        return tuple(row.k for row in self._slices if row.used and not row.decomposed)

    def switch_slice(self, k: int, on: bool) -> None:
        """Include a slice of the calcium map or exclude it. The segments stay as they are.

        One that was never decomposed has no map to count: it is marked and waits for a new run (`slices_wished`).
        Raises MaskError when the map has no such slice.
        """
        if k not in [row.k for row in self._slices]:
            raise MaskError(f"There is no slice {k} in a calcium map of this scan.")
        self._state.set_used({k: on})
        self.refresh()

    @property
    def can_undo(self) -> bool:
        return bool(self._undo or self._restorable)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo) and not self._restorable

    @property
    def _restorable(self) -> set[str]:
        """Methods that `undo` restores: those whose problem arose here rather than in the loaded scene."""
        return self._had_numbers & set(self.problems)

    def undo(self) -> bool:
        """Undo the last step, whatever its source; return False if there is none."""
        self.refresh()
        if self._restorable:
            problems = dict(self.problems)
            for method in self._restorable:
                self._state.write(method, self._reviews[method].labelled, alone=True)
            self._take_in()
            return problems != self.problems
        return bool(self._undo) and self._move("undo", self._undo, self._redo)

    def redo(self) -> bool:
        """Redo the step that `undo` reverted; return False if there is none or something was edited since."""
        self.refresh()
        return self.can_redo and self._move("redo", self._redo, self._undo)

    def _move(self, kind: str, source: list[ReviewChange], target: list[ReviewChange]) -> bool:
        """Apply the last of some steps, forward or backward, and put it on top of the others. kind: undo or redo."""
        change, backward = source.pop(), kind == "undo"
        self._write(change, backward)
        self._take_in()
        target.append(change)
        self._note_assigned(change, backward)
        self._update_confirmations(change)
        self._record(kind, change)
        return True

    def make_blind(self, seed: str) -> None:
        """Suggest no artery, number candidates anew, and let the reader confirm only after a decision about each."""
        self.is_blind = True
        self._candidates.clear()
        for method, review in self._reviews.items():
            start = self._start[method].flat
            self._start[method] = Labelled(start, np.full(len(start), Artery.UNASSIGNED, np.uint8))
            review.suggests = False
            review.number_anew(self._start[method], f"{seed} {self.record.input.voxels_sha256}")

    def restore(self, steps: Iterable[tuple[str, ReviewChange]]) -> None:
        """Replay recorded changes in order. Each step is "begin", "edit", "undo" or "redo" with its change.

        Changes of methods that are not under review are passed over.
        """
        labels, steps = {method: review.labelled for method, review in self._reviews.items()}, list(steps)
        restored, by_reader = replayed(labels, steps), []
        for kind, recorded in steps:
            voxels = {method: part for method, part in recorded.voxels.items() if method in labels}
            marks = {method: on for method, on in recorded.reviewed.items() if method in labels}
            change = replace(recorded, voxels=voxels, reviewed=marks)
            if kind != "begin":
                by_reader.append((change, kind == "undo"))
            if kind == "undo":
                self._redo.append(self._undo.pop())
            elif kind != "begin":
                self._redo = [] if kind == "edit" else self._redo[:-1]
                self._undo = [*self._undo, change][-MAX_UNDO_STEPS:]
            self._write(replace(change, voxels={}), backward=kind == "undo")
        for method in labels:
            if restored[method] is not labels[method]:
                self._state.write(method, restored[method], alone=True)
        self._take_in()
        for change, is_undone in by_reader:
            self._note_assigned(change, is_undone)

    # Output

    def export(self, folder: Path, overwrite: bool = False) -> None:
        """Write the reviewed state; see `review.output.export_review`. Raises MaskError while there is a problem."""
        export_review(folder, self.as_reviewed(), self.record, overwrite)

    def as_reviewed(self) -> ScoreResult:
        """Return the current result with the record of its review. Raises MaskError while there is a problem."""
        for method in self.methods:
            self._check(method)
        result = self.as_result()
        marks = {name: method.reviewed for name, method in result.methods.items()}
        states = marks, self.slices_off, self.slices_wished, self.confirmations
        review = ReviewRecord(self._program, *states, journal=self.journal_mark(), run=self.record.provenance)
        return result.stating(review=review)

    def as_result(self, images: bool = True) -> ScoreResult:
        """Return the result of the methods without a problem, without the calcium map.

        images: False omits pericardium, territories and saliency, which are as large as the scan, if only numbers are
        read.
        """
        state, territories = self._state, self._state.territories() if images else None
        courses = artery_courses(territories, self.scan.image.GetSpacing())
        scored = (name for name in self.methods if name not in self.problems)
        methods = {name: self._result(name, courses if images else None) for name in scored}
        saliency = state.saliency() if images else None  # of the vessels' model, the only one that has any
        outline = state.pericardium() if images else None
        provenance = provenance_of()
        if self.record.provenance is not None:
            names = ("version", "commit", "created", "machine", "command")
            provenance = replace(self.record.provenance, **{name: getattr(provenance, name) for name in names})
        # All other parts are facts of the run, which a review does not change.
        record = replace(
            self.record,
            epicardial_fat=self.epicardial_fat,
            warnings=self.warnings,
            methods=methods,
            categories=self.categories(),
            second_opinions={e.network: estimate_record(e, methods) for e in self.estimates},
            provenance=provenance,
            review=None,
        )
        return ScoreResult(
            record=record,
            scan=self.scan.stating(source=Path(record.input.name or "CT")),
            region=HeartRegion(state.heart, None, record.heart.source, pericardium=outline),
            scored=None if state.scored is self.scan else state.scored,
            territory_labels=territories,
            estimates=tuple(replace(e, saliency=saliency) if e.network == VESSELS else e for e in self.estimates),
        )

    # The state

    def _check(self, method: str) -> None:
        if method in self.problems:
            raise MaskError(self.problems[method])

    def _write(self, change: ReviewChange, backward: bool) -> None:
        side = 0 if backward else 1
        for method, voxels in change.voxels.items():
            self._state.write(method, Labelled(voxels.flat, voxels.before if backward else voxels.after))
        if change.slices:
            self._state.set_used({k: used[side] for k, used in change.slices.items()})
        for method, marks in change.reviewed.items():
            self._state.set_reviewed(method, marks[side])

    def _take_in(self) -> ReviewChange:
        voxels = self._take_in_voxels()
        rows = self._state.slices()
        slices = {row.k: (old.used, row.used) for old, row in zip(self._slices, rows, strict=True) if old != row}
        self._slices = rows
        if slices:
            self._switch_slices_off()
        marks = self._state.reviewed()
        reviewed = {m: (self.reviewed[m], on) for m, on in marks.items() if on != self.reviewed[m]}
        self._set_marks(marks)
        return ReviewChange(voxels, slices, reviewed)

    def _set_marks(self, marks: dict[str, bool]) -> None:
        self.reviewed = marks
        for method, on in marks.items():
            self._reviews[method].reviewed = on

    def _take_in_voxels(self) -> dict[str, Difference]:
        changed = {}
        for method in self.methods:
            signature = self._state.signature(method)
            if signature == self._signatures.get(method):
                continue
            self._signatures[method] = signature
            self.problems.pop(method, None)
            try:
                difference = self._reviews[method].set_labelled(self._state.labelled(method))
            except CTError as error:
                self.problems[method] = str(error)
                continue
            self._had_numbers.add(method)
            if difference.flat.size:
                changed[method] = difference
        return changed

    def _switch_slices_off(self) -> None:
        if "decomposition" in self._reviews:
            self._reviews["decomposition"].set_slices_off(self.slices_off)


def _slice_list(slices: tuple[int, ...]) -> str:
    return f"slice{'' if len(slices) == 1 else 's'} {', '.join(map(str, slices))}" if slices else ""


def _count_outside(lesions: Iterable[Lesion]) -> int:
    return sum(not isinstance(lesion.site, Artery) for lesion in lesions)
