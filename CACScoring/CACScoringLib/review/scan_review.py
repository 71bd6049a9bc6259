"""A scored scan whose lesions a reader edits: every edit, its undo, the numbers and warnings that follow, the export.

Both the panel and the page in a browser review with it. Where labels, slices and marks are kept is its state's matter:
in nodes of a scene (`nodes.ReviewNodes`), or in memory (`folder.ReviewFolder`). Knows no MRML and no Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, MaskError, ScanWarning
from ..core.labels import NOT_CORONARY, Artery, Labelled, Site
from ..core.records import stored_warnings
from ..mrml.scene_content import SliceRow
from ..results import ScoreResult
from ..scoring.evidence import LeftOut
from ..scoring.lesions import Lesion
from ..scoring.methods import Categories, MethodResult, NonCoronaryResult, categories_of
from ..scoring.scores import Percentile
from ..whole_scan.estimates import DIFFERS, WholeScanEstimate, disagreements
from .export import ABOUT_CANDIDATES, ABOUT_LABELS, IN_PANEL, Reviewed, export_review, result_of
from .picking import brush_stroke, pick_lesion
from .review import Difference, Review
from .state import Change, ReviewState, reviews_of

MOST_UNDO_STEPS = 100


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
        methods: "threshold", and "decomposition" if there is a calcium map.

    Raises:
        UnreadableError: The parts of the state do not fit together.
    """

    def __init__(
        self,
        state: ReviewState,
        program: str = IN_PANEL,
        record_change: Callable[[str, Change], None] | None = None,
    ) -> None:
        self._state = state
        self._program = program
        self._record = record_change or (lambda kind, change: None)
        self.scan = state.scan
        self.methods = state.methods
        self._reviews = reviews_of(state)
        self.problems: dict[str, str] = {}
        self._set_marks(state.reviewed())
        self._slices = state.slices()
        self._signatures: dict[str, tuple] = {}
        self._had_numbers: set[str] = set()
        self._undo: list[Change] = []
        self._redo: list[Change] = []
        self._take_in_voxels()
        self._switch_slices_off()

    # Numbers

    def refresh(self) -> bool:
        """Take in what has been edited; True when numbers changed. Costs next to nothing when nothing was edited.

        All that changed since the last call is one step for `undo`.
        """
        if self._state.writing:
            return False
        problems = dict(self.problems)
        change = self._take_in()
        if change:
            self._undo = [*self._undo, change][-MOST_UNDO_STEPS:]
            self._redo.clear()
            self._record("edit", change)
        return bool(change) or problems != self.problems

    def result(self, method: str) -> MethodResult:
        """The scores of a method as reviewed now. Raises MaskError while it has a problem."""
        self._check(method)
        return self._reviews[method].result()

    def lesions(self, method: str) -> tuple[Lesion, ...]:
        """All lesions of a method, those outside the coronary arteries too. Raises MaskError while it has a problem."""
        self._check(method)
        return self._reviews[method].lesions().lesions

    def left_out(self, method: str) -> LeftOut | None:
        """Unassigned lesions that do not count (see `Review.left_out`). Raises MaskError while it has a problem."""
        self._check(method)
        return self._reviews[method].left_out()

    @property
    def non_coronary(self) -> NonCoronaryResult | None:
        """Calcium outside the coronary arteries by the clinical rule; None while nobody has separated it from coronary
        calcium, neither the run nor the reader, or while there is a problem."""
        recorded, review = self._state.record.get("non_coronary"), self._reviews["threshold"]
        unknown = recorded is None and not (review.labelled.values > NOT_CORONARY).any()
        if unknown or "threshold" in self.problems:
            return None
        elsewhere = review.non_coronary()
        # Labels of arteries alone leave the other sites unreviewed.
        if recorded is not None and self._state.record["methods"]["threshold"]["reviewed"]:
            return replace(elsewhere, reviewed=elsewhere.reviewed and recorded["reviewed"])
        return elsewhere

    def results(self) -> dict[str, MethodResult]:
        """The scores of all methods without a problem."""
        return {method: self.result(method) for method in self.methods if method not in self.problems}

    def review(self, method: str) -> Review:
        """The lesions and labels of a method, for looking things up."""
        return self._reviews[method]

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Warnings about the scan and about the lesions as they are now."""
        obsolete = (DIFFERS, *(ABOUT_CANDIDATES if self.reviewed["threshold"] else ()))
        obsolete += ABOUT_LABELS if self._undo else ()
        warnings = [warning for warning in stored_warnings(self._state.record) if warning.code not in obsolete]
        if "threshold" not in self.problems:
            warnings += self._reviews["threshold"].warnings(self._state.heart)
        warnings += disagreements(self.estimates, self.results())
        warnings += [ScanWarning("review-problem", text) for text in self.problems.values()]
        if off := self.slices_off:
            message = f"A reader has excluded {_listed(off)} from the calcium map."
            warnings.append(ScanWarning("slices-switched-off", message))
        if wished := self.slices_wished:
            message = f"A reader has included {_listed(wished)}, not decomposed yet. Score the scan again."
            warnings.append(ScanWarning("slices-to-decompose", message))
        return tuple(warnings)

    @property
    def estimates(self) -> tuple[WholeScanEstimate, ...]:
        """The whole-scan estimates that the run has recorded; a review changes none."""
        return self._state.estimates

    def categories(self) -> Categories | None:
        """The published classes of the clinical score; None of candidates that nothing has evaluated, and while it
        has a problem."""
        if "threshold" in self.problems:
            return None
        result, recorded = self.result("threshold"), self._state.record["categories"]
        # The table of percentiles is not in the scene, so that the one recorded holds for its own score alone.
        same = self._state.record["methods"]["threshold"]["total"]["agatston"] == result.total.agatston
        known = recorded["percentile"] if recorded is not None and same else None
        return categories_of(result, None if known is None else Percentile(**known))

    def position_of(self, method: str, lesion_id: int) -> tuple[float, float, float]:
        """Position at which to show a lesion: its voxel nearest to its centre of mass, mm, Slicer's RAS axes. Raises
        MaskError."""
        k, j, i = self._reviews[method].centre_of(lesion_id)
        x, y, z = self.scan.image.TransformIndexToPhysicalPoint((i, j, k))
        return -x, -y, z

    # Edits

    def assign(self, method: str, lesion_ids: Iterable[int], site: Site) -> None:
        """Give listed lesions to an artery, or to a site outside them. Raises MaskError when one is not there."""
        self.give(method, self._reviews[method].flat_voxels(lesion_ids), int(site))

    def reject(self, method: str, lesion_ids: Iterable[int]) -> None:
        """Say that listed lesions are no calcium, or of no interest. Raises MaskError when one is not there."""
        self.give(method, self._reviews[method].flat_voxels(lesion_ids), NOT_CORONARY)

    def give(self, method: str, flat: np.ndarray, label: int) -> None:
        """Give voxels to a label: of a `Site`, NOT_CORONARY, or 0 for none. Raises MaskError while it has a problem.

        flat: indices into the scan's array, rising.
        """
        self._check(method)
        self._state.write(method, Labelled(flat, np.full(len(flat), label, np.uint8)))
        self.refresh()

    def give_all(self, method: str, labelled: Labelled) -> None:
        """Label these voxels and no others. Raises MaskError while the method has a problem."""
        self._check(method)
        self._state.write(method, labelled, alone=True)
        self.refresh()

    def pick(self, method: str, voxel: tuple[int, int, int], site: Site) -> None:
        """Give the calcium at a voxel, [k, j, i], to a site, as far as it belongs to one site now. Raises MaskError
        where there is none, or too much."""
        own = self._reviews[method]
        hu = sitk.GetArrayViewFromImage(own.image)
        labels = np.zeros(hu.shape, np.uint8)
        labels.reshape(-1)[own.labelled.flat] = own.labelled.values
        spacing, threshold = own.image.GetSpacing()[::-1], own.rules.threshold_hu
        pick = pick_lesion(hu, voxel, spacing, threshold, sites=labels.__getitem__)
        if pick is None:
            raise MaskError(f"Nothing there reaches {own.rules.threshold_hu:g} HU, so that it counts for no score.")
        if pick.leaked:
            raise MaskError(f"{pick.reason} Paint it with the brush if it is coronary calcium.")
        self.give(method, pick.flat(hu.shape), int(site))

    def paint(self, method: str, points: list[tuple[float, ...]], radius_mm: float, flat: bool, label: int) -> None:
        """Give what a round brush covers to a label: the voxels that count by the rule, or for label 0 those that have
        one. Raises MaskError when there are none.

        points: of the stroke, [k, j, i] in voxels. flat: paint in the slice alone. label: as of `give`.
        """
        own = self._reviews[method]
        hu, spacing = sitk.GetArrayViewFromImage(own.image), np.array(own.image.GetSpacing())
        places = [np.array(point[::-1]) * spacing for point in points]
        to_mm, normal = np.diag([*spacing, 1.0]), (0, 0, 1) if flat else None
        ends = zip(places, places[1:] or places, strict=False)
        strokes = [brush_stroke(hu.shape, to_mm, start, end, radius_mm, normal) for start, end in ends]
        under = np.unique(np.concatenate([np.zeros(0, int), *(s.flat(hu.shape) for s in strokes if s is not None)]))
        if label:
            under = under[hu.reshape(-1)[under] >= own.rules.threshold_hu]
            nothing = f"Nothing under the brush reaches {own.rules.threshold_hu:g} HU, so that it counts for no score."
        else:
            under = under[np.isin(under, own.labelled.flat)]
            nothing = "Nothing under the eraser belongs to a lesion."
        if not under.size:
            raise MaskError(nothing)
        self.give(method, under, label)

    def cut(
        self, method: str, lesion_id: int, point_kji: Iterable[float], normal_kji: Iterable[float], label: int
    ) -> None:
        """Cut a listed lesion by a plane: its voxels on the side that the normal points to go to another label.

        point_kji: on the plane, voxels. normal_kji: of the plane, in voxels' axes. label: as of `give`. Raises
        MaskError when the lesion is not there, or lies on one side of the plane.
        """
        if not label:
            raise MaskError("The part of a lesion needs a site, or is rejected.")
        flat = self._reviews[method].flat_voxels([lesion_id])
        kji = np.stack(np.unravel_index(flat, self.scan.image.GetSize()[::-1]), axis=1)
        beyond = (kji - np.asarray(list(point_kji), float)) @ np.asarray(list(normal_kji), float) > 0
        if beyond.all() or not beyond.any():
            raise MaskError(f"The line does not divide lesion {lesion_id}. Draw it through the lesion.")
        self.give(method, flat[beyond], label)

    def reject_unassigned(self, method: str) -> None:
        """Say that nothing that is still unassigned is coronary."""
        labelled = self._reviews[method].labelled
        self.give(method, labelled.flat[labelled.values == Artery.UNASSIGNED], NOT_CORONARY)

    def accept(self, method: str) -> None:
        """Say that the score is right as it stands; what is left out stays out. Raises MaskError while lesions that
        nothing has evaluated have no artery: they would be lost."""
        if unassigned := self.result(method).arteries[Artery.UNASSIGNED].lesions:
            count = "1 lesion has" if unassigned == 1 else f"{unassigned} lesions have"
            raise MaskError(f"{count} no artery. Assign or reject what is unassigned before you accept the score.")
        self.set_reviewed(method, True)

    def set_no_calcium(self) -> None:
        """Say that there is no coronary calcium: reject every lesion of an artery, of every method, and mark all
        methods as reviewed.

        One step for `undo`. Raises MaskError while a method has a problem.
        """
        if self.problems:
            raise MaskError(next(iter(self.problems.values())))
        for method in self.methods:
            labelled = self._reviews[method].labelled
            flat = labelled.flat[labelled.values <= max(Artery)]
            self._state.write(method, Labelled(flat, np.full(len(flat), NOT_CORONARY, np.uint8)))
            self._state.set_reviewed(method, True)
        self.refresh()

    def set_reviewed(self, method: str, on: bool) -> None:
        """Say that the review of a method is done, or is not."""
        self._state.set_reviewed(method, on)
        self.refresh()

    def slices(self) -> list[SliceRow]:
        """The slices of the scan in the calcium map; none without one."""
        return list(self._slices)

    @property
    def slices_off(self) -> tuple[int, ...]:
        """Slices that were decomposed and that a reader switched off."""
        return tuple(row.k for row in self._slices if row.decomposed and not row.used)

    @property
    def slices_wished(self) -> tuple[int, ...]:
        """Slices that a reader switched on but that were never decomposed, which `cac score` does by a setting."""
        return tuple(row.k for row in self._slices if row.used and not row.decomposed)

    def switch_slice(self, k: int, on: bool) -> None:
        """Let the calcium map count in a slice, or not. The segments stay as they are.

        One that was never decomposed has no map to count: it is marked and waits for a new run (`slices_wished`).
        Raises MaskError when the map has no such slice.
        """
        if k not in [row.k for row in self._slices]:
            raise MaskError(f"There is no slice {k} in a calcium map of this scan.")
        self._state.set_used({k: on})
        self.refresh()

    @property
    def can_undo(self) -> bool:
        return bool(self._undo or self._spoilt)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo) and not self._spoilt

    @property
    def _spoilt(self) -> set[str]:
        """Methods that had numbers before their problem; a scene may also come with one, and then is left alone."""
        return self._had_numbers & set(self.problems)

    def undo(self) -> bool:
        """Take the last step back, whoever made it: an edit here, painting, a slice, the reviewed mark. False: none."""
        self.refresh()
        if self._spoilt:
            problems = dict(self.problems)
            for method in self._spoilt:
                self._state.write(method, self._reviews[method].labelled, alone=True)
            self._take_in()
            return problems != self.problems
        if not self._undo:
            return False
        change = self._undo.pop()
        self._apply(change, backward=True)
        self._redo.append(change)
        self._record("undo", change)
        return True

    def redo(self) -> bool:
        """Make the step again that `undo` took back. False: none, or something else was edited since."""
        self.refresh()
        if not self.can_redo:
            return False
        change = self._redo.pop()
        self._apply(change, backward=False)
        self._undo.append(change)
        self._record("redo", change)
        return True

    def restore(self, steps: Iterable[tuple[str, Change]]) -> None:
        """Make changes again that were recorded, in their order. Steps: "edit", "undo" or "redo", and the change."""
        for kind, change in steps:
            if kind == "undo":
                self._redo.append(self._undo.pop())
            else:
                self._redo = [] if kind == "edit" else self._redo[:-1]
                self._undo = [*self._undo, change][-MOST_UNDO_STEPS:]
            self._write(change, backward=kind == "undo")
        self._take_in()

    # Output

    def export(self, folder: Path, overwrite: bool = False, reader: str | None = None) -> None:
        """Write the state as reviewed; see `review.export.export_review`. Raises MaskError while there is a problem."""
        export_review(folder, self.as_reviewed(), overwrite, reader)

    def as_reviewed(self) -> Reviewed:
        """The state as it is now, for exports. Raises MaskError while there is a problem."""
        for method in self.methods:
            self._check(method)
        return Reviewed(self.as_result(), self._state.record, self._program, self.slices_off, self.slices_wished)

    def as_result(self, images: bool = True) -> ScoreResult:
        """The result that the review comes to, of the methods without a problem (see `export.result_of`)."""
        numbers = self.results(), self.categories(), self.non_coronary
        return result_of(self._state, *numbers, self.warnings, images)

    def calcium_map(self) -> sitk.Image | None:
        """The calcium map on the scan's grid; None without one. Raises UnreadableError when it is another."""
        return self._state.whole_map() if "decomposition" in self.methods else None

    # The state

    def _check(self, method: str) -> None:
        if method in self.problems:
            raise MaskError(self.problems[method])

    def _apply(self, change: Change, backward: bool) -> None:
        self._write(change, backward)
        self._take_in()

    def _write(self, change: Change, backward: bool) -> None:
        now = 0 if backward else 1
        for method, voxels in change.voxels.items():
            self._state.write(method, Labelled(voxels.flat, voxels.before if backward else voxels.after))
        if change.slices:
            self._state.set_used({k: used[now] for k, used in change.slices.items()})
        for method, marks in change.reviewed.items():
            self._state.set_reviewed(method, marks[now])

    def _take_in(self) -> Change:
        voxels = self._take_in_voxels()
        rows = self._state.slices()
        slices = {row.k: (old.used, row.used) for old, row in zip(self._slices, rows, strict=True) if old != row}
        self._slices = rows
        if slices:
            self._switch_slices_off()
        marks = self._state.reviewed()
        reviewed = {m: (self.reviewed[m], on) for m, on in marks.items() if on != self.reviewed[m]}
        self._set_marks(marks)
        return Change(voxels, slices, reviewed)

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


def _listed(slices: tuple[int, ...]) -> str:
    return f"slice{'' if len(slices) == 1 else 's'} {', '.join(map(str, slices))}"
