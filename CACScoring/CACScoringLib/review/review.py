"""Review of the lesions of one method: compute lesions and scores from labels, with the run's verdicts.

The functions are those of `cac score`, so the numbers agree to the last digit. Independent of MRML and Qt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.courses import Course
from ..core.ct import ScanWarning
from ..core.errors import CTError, MaskError
from ..core.labels import NOT_CORONARY, Artery, Labelled, NonCoronary, Site
from ..core.voxels import voxels_of
from ..facts.measurement import ScanFacts
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, MethodScore, Verdict
from ..scoring.doubt import doubts_about
from ..scoring.lesions import find_lesions
from ..scoring.mass import MeasuredMasses
from ..scoring.score import LesionLabels, counted_masses, score
from ..scoring.uncertainty import ScanErrors
from .picking import brush_stroke, pick_lesion

LesionKey = tuple[tuple[int, ...], int, tuple[int, int, int]]

MAX_IDS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Difference:
    """Voxels whose label differs.

    Attributes:
        flat: Rising flat indices.
        before: Labels before, uint8, 0 for none.
        after: Labels after, uint8, 0 for none.
    """

    flat: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, before: Labelled, after: Labelled) -> Difference:
        places = np.union1d(before.flat, after.flat)
        labels = np.zeros((2, len(places)), np.uint8)
        for values, side in zip(labels, (before, after), strict=True):
            values[np.searchsorted(places, side.flat)] = side.values
        changed = labels[0] != labels[1]
        return cls(places[changed], *labels[:, changed])

    def updated(self, change: Difference | None) -> Difference:
        """Return the difference with the voxels of another one, which replace its own."""
        if change is None:
            return self
        alone = ~np.isin(self.flat, change.flat)
        flat = np.concatenate([self.flat[alone], change.flat])
        order = np.argsort(flat)
        before, after = (np.append(self.before[alone], change.before), np.append(self.after[alone], change.after))
        return Difference(flat[order], before[order], after[order])


@dataclass(eq=False)
class Review:
    """One method's lesions, derived from labels.

    Attributes:
        method: "threshold" or "decomposition".
        facts: Facts of the scan.
        rules: Rules that the method was scored by.
        calcium_map: Calcium map on the scan's grid; None for the clinical rule.
        run_lesions: Lesions of the run that is reviewed. They keep verdict and ID as long as their voxels stay.
        of_reader: Kinds of sites (Artery, NonCoronary) that a reader has decided about in the run.
        knows_elsewhere: True if the run separated calcium outside the arteries.
        unreviewed: Status of the scores until they are reviewed; an automatic score leaves out unassigned lesions.
        clinical: Review of the clinical score, for a calcium map.
        errors: Errors of scores in the scan.
        reviewed: True if a reader has confirmed the review. Unassigned lesions are then left out, as by
            `cac score --lesions`; before, they are candidates, or beside an automatic score, as by `cac score`.
    """

    method: str
    facts: ScanFacts
    rules: ScoringRules
    calcium_map: sitk.Image | None = None
    run_lesions: Sequence[Lesion] = ()
    of_reader: tuple[type[Site], ...] = ()
    knows_elsewhere: bool = True
    unreviewed: str = "candidates"
    clinical: Review | None = None
    errors: ScanErrors = field(default_factory=ScanErrors)

    def __post_init__(self) -> None:
        self.reviewed = False
        self.suggests = True
        """False if no artery is suggested; set before the first result."""
        self.labelled = Labelled(np.zeros(0, np.int64), np.zeros(0, np.uint8))
        """All labelled voxels, unassigned and rejected ones (NOT_CORONARY) included."""
        self.assigned: frozenset[tuple[int, int]] = frozenset()
        """Flat index of a voxel of each lesion that a reader has assigned to a site in this review, and its label."""
        self._slices_off: frozenset[int] = frozenset()
        self._lesions: LesionSet | None = None
        self._rejected: LesionSet | None = None
        self.unseen: Callable[[], Collection[int] | None] = lambda: None
        """Function that returns the IDs of lesions never shown to the reader who confirmed; None if unknown."""
        self._scored: tuple[object, MethodScore | None, MethodScore] | None = None
        """Scores of the labels, with the state and the clinical scores that they follow from."""
        self._masses: MeasuredMasses = {}
        """Masses of lesions as they are and as they were before edits."""
        self._recorded = {self._key(lesion): lesion for lesion in self.run_lesions}
        self._ids = {key: lesion.id for key, lesion in self._recorded.items()}
        self._highest_id = max(self._ids.values(), default=0)

    def _key(self, lesion: Lesion) -> LesionKey:
        """Return the identity of a lesion in its scan, independent of its site.

        It holds the sums of its voxels' indices along i, j, k, which are whole numbers, so that it does not depend on
        the last digits of a stored position.
        """
        x, y, z = lesion.centroid_ras_mm
        i, j, k = self.facts.scan.image.TransformPhysicalPointToContinuousIndex((-x, -y, z))
        sums = round(i * lesion.voxels), round(j * lesion.voxels), round(k * lesion.voxels)
        return lesion.slices, lesion.voxels, sums

    def number_anew(self, labelled: Labelled, seed: str) -> None:
        """Number the lesions of labels in a random order, which tells nothing of what the networks found."""
        keys = sorted(map(self._key, self.candidates_in(labelled).lesions))
        random.Random(seed).shuffle(keys)
        self._ids = {key: number for number, key in enumerate(keys, 1)}
        self._highest_id = len(keys)
        self._forget()

    def set_labelled(self, labelled: Labelled) -> Difference:
        """Replace the labels and return what changed. Raises MaskError when one is that of no site."""
        if (highest := int(labelled.values.max(initial=0))) > max(NonCoronary):
            raise MaskError(f"A label of the review is {highest}; the highest is {int(max(NonCoronary))}.")
        difference = Difference.of(self.labelled, labelled)
        self.labelled = labelled
        if difference.flat.size:
            self._forget()
        return difference

    def set_assigned(self, assigned: frozenset[tuple[int, int]]) -> None:
        """Set what a reader has assigned, about which there is no doubt."""
        self.assigned = assigned
        self._scored = None

    def set_slices_off(self, slices: Iterable[int]) -> None:
        """Set the slices k whose labelled voxels do not count."""
        self._slices_off = frozenset(slices)
        self._forget()

    def _forget(self) -> None:
        self._lesions = self._rejected = None
        self._scored = None

    @property
    def image(self) -> sitk.Image:
        """Image of the lesions, the CT or the calcium map."""
        return self.facts.scan.image if self.calcium_map is None else self.calcium_map

    def result(self, courses: Mapping[Artery, Course] | None = None) -> MethodScore:
        """Return the scores of the labels. courses: Courses of the arteries, for scores with features."""
        clinical, state = None if self.clinical is None else self.clinical.result(), (self.reviewed, self.unseen())
        if courses is not None:
            return self._score(clinical, courses)
        if self._scored is None or self._scored[0] != state or self._scored[1] is not clinical:
            self._scored = state, clinical, self._score(clinical)
        return self._scored[2]

    def _score(self, clinical: MethodScore | None, courses: Mapping[Artery, Course] | None = None) -> MethodScore:
        labels = self._labels()
        masses = counted_masses(self.facts, labels, clinical, self._masses)
        self._masses |= masses
        return score(self.facts, labels, self.errors, clinical, courses, masses)

    @property
    def table(self) -> LesionSet:
        """All lesions: those that count, unassigned ones that do not (left out), and those outside the arteries."""
        return self.result().table

    def probability_of(self, lesion: Lesion) -> float | None:
        """Return the probability of coronary calcium by the run's networks; None for lesions without it."""
        recorded = self._recorded.get(self._key(lesion))
        if recorded is None or recorded.verdict is None or self.unreviewed != "automatic":
            return None if recorded is None else recorded.networks_probability
        return recorded.verdict.probability

    def suggested_site(self, lesion: Lesion) -> Site | None:
        """Return the suggested site of a lesion; None after the review.

        It is the run's site until a reader changes it, or the artery that an unassigned lesion's location suggests.
        """
        if self.reviewed:
            return None
        is_rejected = any(lesion is rejected for rejected in self.rejected().lesions)
        if is_rejected or lesion.site == Artery.UNASSIGNED:
            verdict = self.verdict_of(lesion) if is_rejected or self.suggests else None
            return None if verdict is None or verdict.artery == Artery.UNASSIGNED else verdict.artery
        is_by_run = self._site_by_run(lesion) == lesion.site and not self.is_assigned(lesion)
        return lesion.site if is_by_run else None

    def is_assigned(self, lesion: Lesion) -> bool:
        """Return True if a reader has assigned a lesion to its present site."""
        flat, ids = self.voxels()
        assigned = [voxel for voxel, label in self.assigned if label == lesion.site]
        return bool(assigned) and lesion.id in ids[np.isin(flat, assigned)]

    def verdict_of(self, lesion: Lesion) -> Verdict | None:
        """Return the answer of the run's networks about a lesion; None if they gave none."""
        recorded = self._recorded.get(self._key(lesion))
        return None if recorded is None else recorded.verdict

    def _site_by_run(self, lesion: Lesion) -> Site | None:
        """Return the site that the run gave a lesion; None of other lesions, and where a reader decided."""
        recorded = self._recorded.get(self._key(lesion))
        return None if recorded is None or isinstance(recorded.site, self.of_reader) else recorded.site

    def warnings(self) -> list[ScanWarning]:
        """Return the warnings of `cac score --lesions` about a reviewed clinical score."""
        if not self.reviewed:
            return []
        warnings = doubts_about(self.result(), self._labels().of_reader, self.facts.region, self.facts.blood)
        if count := int((self.labelled.values == Artery.UNASSIGNED).sum()):
            message = f"{count} voxels are not assigned to an artery and do not count in the reviewed score."
            warnings.append(ScanWarning("unassigned-left-out", message))
        return warnings

    def flat_voxels(self, lesion_ids: Iterable[int]) -> np.ndarray:
        """Return flat indices of the voxels of lesions, left-out or rejected ones included. Raises MaskError."""
        ids = list(lesion_ids)
        sets = (self._all_lesions(), self.rejected())
        if missing := set(ids) - {number for part in sets for number in part.ids}:
            numbers = ", ".join(map(str, sorted(missing)))
            raise MaskError(f"There is no lesion {numbers} any more. Choose it again in the list.")
        return np.sort(np.concatenate([part.with_ids(ids).voxels.flat for part in sets]))

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rising flat indices of the voxels of all lesions, left-out ones included, and their IDs."""
        voxels = self._all_lesions().voxels
        return voxels.flat, voxels.ids

    def lesions_at(self, flat: np.ndarray) -> list[int]:
        """Return the IDs of lesions, left-out ones included, that have some of these voxels."""
        places, ids = self.voxels()
        return np.unique(ids[np.isin(places, flat)]).tolist()

    def centre_of(self, lesion_id: int) -> tuple[int, int, int]:
        """Return the voxel (k, j, i) of a lesion nearest to its centre of mass. Raises MaskError."""
        kji = self._places(self.flat_voxels([lesion_id]))
        nearest = (((kji - kji.mean(0)) * self.image.GetSpacing()[::-1]) ** 2).sum(1).argmin()
        k, j, i = kji[nearest].tolist()
        return k, j, i

    def _places(self, flat: np.ndarray) -> np.ndarray:
        """Return the positions [n, (k, j, i)] of voxels."""
        return np.stack(np.unravel_index(flat, self.image.GetSize()[::-1]), axis=1)

    # Voxels of an edit, as rising flat indices into the scan's array

    def clicked_voxels(self, voxel: Sequence[int]) -> np.ndarray:
        """Return the calcium connected to a voxel [k, j, i] within its site. Raises MaskError if none, or too much."""
        hu, threshold = voxels_of(self.image), self.rules.threshold_hu
        labels = np.zeros(hu.shape, np.uint8)
        labels.reshape(-1)[self.labelled.flat] = self.labelled.values
        pick = pick_lesion(hu, voxel, self.image.GetSpacing()[::-1], threshold, sites=labels.__getitem__)
        if pick is None:
            raise MaskError(f"Nothing there reaches {threshold:g} HU, so that it counts for no score.")
        if pick.leaked:
            raise MaskError(f"{pick.reason} Paint it with the brush if it is coronary calcium.")
        return pick.flat(hu.shape)

    def painted_voxels(
        self, points: Sequence[Sequence[float]], radius_mm: float, flat: bool, erases: bool
    ) -> np.ndarray:
        """Return the voxels under a brush that reach the threshold, or under an eraser that have a label.

        Arguments as in `ScanReview.paint`. Raises MaskError if there are none.
        """
        hu, threshold = voxels_of(self.image), self.rules.threshold_hu
        spacing = np.array(self.image.GetSpacing())
        places = [np.array(point[::-1]) * spacing for point in points]
        to_mm, normal = np.diag([*spacing, 1.0]), (0, 0, 1) if flat else None
        ends = zip(places, places[1:] or places, strict=False)
        strokes = [brush_stroke(hu.shape, to_mm, start, end, radius_mm, normal) for start, end in ends]
        covered = np.unique(np.concatenate([np.zeros(0, int), *(s.flat(hu.shape) for s in strokes if s is not None)]))
        if erases:
            covered = covered[np.isin(covered, self.labelled.flat)]
            message = "Nothing under the eraser belongs to a lesion."
        else:
            covered = covered[hu.reshape(-1)[covered] >= threshold]
            message = f"Nothing under the brush reaches {threshold:g} HU, so that it counts for no score."
        if not covered.size:
            raise MaskError(message)
        return covered

    def voxels_beyond_plane(
        self, lesion_id: int, point_kji: Iterable[float], normal_kji: Iterable[float]
    ) -> np.ndarray:
        """Return the voxels of a lesion on the side of a plane that its normal points to.

        Arguments as in `ScanReview.cut`. Raises MaskError if the plane does not divide the lesion.
        """
        flat = self.flat_voxels([lesion_id])
        is_far_side = (self._places(flat) - list(point_kji)) @ np.asarray(list(normal_kji), float) > 0
        if is_far_side.all() or not is_far_side.any():
            raise MaskError(f"The line does not divide lesion {lesion_id}. Draw it through the lesion.")
        return flat[is_far_side]

    def _all_lesions(self) -> LesionSet:
        """Return all lesions; known ones keep their IDs."""
        if self._lesions is None:
            self._lesions = self.candidates_in(self.labelled.where(self.labelled.values != NOT_CORONARY))
        return self._lesions

    def candidates_in(self, labelled: Labelled) -> LesionSet:
        """Return the lesions of other labels; known ones keep their IDs."""
        is_map = self.calcium_map is not None
        ct, map_hu = (self.facts.scan.image, voxels_of(self.image)) if is_map else (self.image, None)
        columns, rows, _ = self.image.GetSize()
        counted = labelled.where(~np.isin(labelled.flat // (rows * columns), list(self._slices_off)))
        return self._with_ids(find_lesions(ct, counted, self.rules, map_hu))

    def rejected(self) -> LesionSet:
        """Return rejected lesions as unassigned; known ones keep their IDs."""
        if self._rejected is None:
            flat = self.labelled.flat[self.labelled.values == NOT_CORONARY]
            self._rejected = self.candidates_in(Labelled(flat, np.full(len(flat), Artery.UNASSIGNED, np.uint8)))
        return self._rejected

    def _with_ids(self, lesion_set: LesionSet) -> LesionSet:
        """Renumber lesions: known ones keep their IDs, and new ones get the next ID."""
        ids = list(map(self._id_of, lesion_set.lesions))
        number_of = np.array([0, *ids], np.uint16)
        voxels = replace(lesion_set.every, ids=number_of[lesion_set.every.ids])
        return LesionSet({**lesion_set.columns, "id": ids}, voxels)

    def _id_of(self, lesion: Lesion) -> int:
        key = self._key(lesion)
        if key not in self._ids:
            self._highest_id += 1
            if self._highest_id > MAX_IDS:
                raise CTError(f"{self._highest_id} separate lesions: this is noise, not calcium.")
            self._ids[key] = self._highest_id
        return self._ids[key]

    def _labels(self) -> LesionLabels:
        """Return the lesions with the verdicts of the run."""
        lesions, unseen = self._all_lesions(), self.unseen()
        lesions = lesions.with_columns(verdict=list(map(self._verdict, lesions.lesions)))
        if unseen is not None:
            lesions = lesions.with_columns(looked_at=[number not in unseen for number in lesions.ids])
        if self.reviewed and self.suggests:
            chances = map(self.probability_of, lesions.lesions)
            rounded = [None if chance is None else round(chance, 3) for chance in chances]
            lesions = lesions.with_columns(networks_probability=rounded)
        # Labels of arteries alone leave the other sites unreviewed.
        is_open = self.knows_elsewhere and self.of_reader == (Artery,)
        is_open |= not set(lesions.non_coronary.ids).isdisjoint(unseen or ())
        return LesionLabels(
            status="reviewed" if self.reviewed else self.unreviewed,
            rules=self.rules,
            lesions=lesions,
            of_reader=() if not self.reviewed else (Artery,) if is_open else (Artery, NonCoronary),
            knows_elsewhere=self.knows_elsewhere or bool((self.labelled.values > NOT_CORONARY).any()),
            no_calcium=self.reviewed and not (self.labelled.values <= max(Artery)).any(),
            decided=[lesion.id for lesion in lesions.lesions if self.is_assigned(lesion)],
        )

    def _verdict(self, lesion: Lesion) -> Verdict | None:
        """Return the run's verdict about a lesion with its present site: counted, left out, or outside the arteries."""
        verdict = self.verdict_of(lesion)
        leaves_out = self.reviewed or (self.unreviewed == "automatic" and self.method == "threshold")
        if lesion.site == Artery.UNASSIGNED and leaves_out:
            unknown = Verdict(artery=Artery.UNASSIGNED, confidence=0.0, not_coronary_probability=0.5)
            verdict = verdict or unknown
            return replace(verdict, counts=False, reason=verdict.reason or "not assigned to an artery")
        if self.reviewed or not self.suggests or verdict is None:
            return None
        if isinstance(lesion.site, Artery):
            return replace(verdict, counts=True, reason="")
        return verdict if self._recorded[self._key(lesion)].site == lesion.site else None
