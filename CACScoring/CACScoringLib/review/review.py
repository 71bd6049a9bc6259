"""Review of the lesions of one method: compute lesions and scores from labels, with the run's verdicts.

The functions are those of `cac score`, so the numbers agree to the last digit. Independent of MRML and Qt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from ..core.ct import ScanWarning
from ..core.errors import CTError, MaskError
from ..core.labels import NOT_CORONARY, Artery, Labelled, NonCoronary, Site
from ..core.voxels import voxels_of
from ..record.findings import MassCalibration
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, MethodScore, NonCoronaryScore, Verdict
from ..scoring.artefacts import dense_warning
from ..scoring.intervals import with_intervals
from ..scoring.lesions import find_lesions
from ..scoring.mass import MAX_MEASURED, Mass, lesion_masses, with_mass
from ..scoring.reader_labels import outside_warning
from ..scoring.scores import method_score, non_coronary_score
from ..scoring.uncertainty import ScanErrors

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
        before, after = (
            np.append(self.before[alone], change.before),
            np.append(self.after[alone], change.after),
        )
        return Difference(flat[order], before[order], after[order])


def _key(lesion: Lesion) -> LesionKey:
    """Return the identity of a lesion in its scan, independent of its site and stable when written to a file.

    The centroid is binned to hundredths of a millimetre with an odd offset, so that rounding its last digit does not
    change the bin.
    """
    x, y, z = (math.floor(c * 100 + 0.31415926) for c in lesion.centroid_ras_mm)
    return lesion.slices, lesion.voxels, (x, y, z)


def recorded_lesions(method: MethodScore, elsewhere: NonCoronaryScore | None = None) -> dict[LesionKey, Lesion]:
    """Return the lesions of a recorded method, those left out as unassigned.

    elsewhere: Non-coronary calcium, for the clinical rule.
    """
    left_out = [replace(lesion, site=Artery.UNASSIGNED) for lesion in method.left_out]
    listed = [*method.lesions, *(() if elsewhere is None else elsewhere.lesion_list), *left_out]
    return {_key(lesion): lesion for lesion in listed}


@dataclass(frozen=True)
class _Evaluation:
    """Scores that follow from the labels.

    Attributes:
        lesions: Lesions that count, in the arteries and elsewhere.
        coronary: Scores of the arteries.
        elsewhere: Scores of other sites.
        left_out: Unassigned lesions, which do not count.
    """

    lesions: LesionSet
    coronary: MethodScore
    elsewhere: NonCoronaryScore
    left_out: tuple[Lesion, ...]


@dataclass(eq=False)
class Review:
    """One method's lesions, derived from labels.

    Attributes:
        method: "threshold" or "decomposition".
        image: Image of the lesions, axes as in `CTScan`: the CT, or the calcium map.
        rules: Rules that the method was scored by.
        heart: Mask on the image's grid, bool [k, j, i].
        peaks: The CT, for a calcium map (see `find_lesions`).
        recorded: Lesions of the run that is reviewed. They keep verdict and ID as long as their voxels stay.
        of_reader: Kinds of sites (Artery, NonCoronary) that a reader has decided about in the run.
        unreviewed: Status of the scores until they are reviewed; an automatic score leaves out unassigned lesions.
        errors: Errors from which scores get intervals; None if unknown.
        calibration: Mass calibration of the run; None if unknown.
        reviewed: True if a reader has confirmed the review. Unassigned lesions are then left out, as by
            `cac score --lesions`; before, they are candidates, or beside an automatic score, as by `cac score`.
    """

    method: str
    image: sitk.Image
    rules: ScoringRules
    heart: np.ndarray
    peaks: sitk.Image | None = None
    recorded: Mapping[LesionKey, Lesion] = field(default_factory=dict)
    of_reader: tuple[type[Site], ...] = ()
    unreviewed: str = "candidates"
    errors: ScanErrors | None = None
    calibration: MassCalibration | None = None

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
        self._results: dict[bool, _Evaluation] = {}
        self._ids = {key: lesion.id for key, lesion in self.recorded.items()}
        self._highest_id = max(self._ids.values(), default=0)
        self._masses: dict[int, Mass] = {}
        """Masses that the run did not measure, by the lesions' IDs, which change with their voxels."""

    def set_labelled(self, labelled: Labelled) -> Difference:
        """Replace the labels and return what changed. Raises MaskError when one is that of no site."""
        if (highest := int(labelled.values.max(initial=0))) > max(NonCoronary):
            raise MaskError(f"A label of the review is {highest}; the highest is {int(max(NonCoronary))}.")
        difference = Difference.of(self.labelled, labelled)
        self.labelled = labelled
        if difference.flat.size:
            self._forget()
        return difference

    def set_slices_off(self, slices: Iterable[int]) -> None:
        """Set the slices k whose labelled voxels do not count."""
        self._slices_off = frozenset(slices)
        self._forget()

    def _forget(self) -> None:
        self._lesions = self._rejected = None
        self._results.clear()

    def result(self) -> MethodScore:
        """Return the scores of the labels of arteries."""
        return self._evaluation().coronary

    def non_coronary(self) -> NonCoronaryScore:
        """Return the scores of the labels outside the coronary arteries."""
        return self._evaluation().elsewhere

    def lesions(self) -> LesionSet:
        """Return the lesions that count, in the arteries and elsewhere."""
        return self._evaluation().lesions

    def left_out(self) -> tuple[Lesion, ...]:
        """Return unassigned lesions that do not count; none while they count as candidates."""
        return self._evaluation().left_out

    def probability_of(self, lesion: Lesion) -> float | None:
        """Return the probability of coronary calcium by the run's networks; None for lesions without it."""
        verdict = self._verdict_of(lesion)
        return None if self.unreviewed != "automatic" or verdict is None else verdict.probability

    def suggested_site(self, lesion: Lesion) -> Site | None:
        """Return the suggested site of a lesion; None after the review.

        It is the run's site until a reader changes it, or the artery that an unassigned lesion's location suggests.
        """
        if self.reviewed:
            return None
        is_rejected = any(lesion is rejected for rejected in self.rejected().lesions)
        if is_rejected or lesion.site == Artery.UNASSIGNED:
            verdict = self._verdict_of(lesion) if is_rejected or self.suggests else None
            return None if verdict is None or verdict.artery == Artery.UNASSIGNED else verdict.artery
        is_by_run = self._site_by_run(lesion) == lesion.site and not self._is_assigned(lesion)
        return lesion.site if is_by_run else None

    def _is_assigned(self, lesion: Lesion) -> bool:
        """Return True if a reader has assigned a lesion to its present site."""
        flat, ids = self.voxels()
        assigned = [voxel for voxel, label in self.assigned if label == lesion.site]
        return bool(assigned) and lesion.id in ids[np.isin(flat, assigned)]

    def _verdict_of(self, lesion: Lesion) -> Verdict | None:
        recorded = self.recorded.get(_key(lesion))
        return None if recorded is None else recorded.verdict

    def _site_by_run(self, lesion: Lesion) -> Site | None:
        """Return the site that the run gave a lesion; None of other lesions, and where a reader decided."""
        recorded = self.recorded.get(_key(lesion))
        return None if recorded is None or isinstance(recorded.site, self.of_reader) else recorded.site

    def warnings(self) -> list[ScanWarning]:
        """Return the warnings of `cac score --lesions` about a reviewed clinical score."""
        if not self.reviewed:
            return []
        warnings = [*outside_warning(self.result().lesion_set, self.heart), *dense_warning(self.lesions())]
        if unassigned := int((self.labelled.values == Artery.UNASSIGNED).sum()):
            message = f"{unassigned} voxels are not assigned to an artery and do not count in the reviewed score."
            warnings.append(ScanWarning("unassigned-left-out", message))
        return warnings

    def flat_voxels(self, lesion_ids: Iterable[int]) -> np.ndarray:
        """Return flat indices of the voxels of lesions, left-out or rejected ones included. Raises MaskError."""
        ids = list(lesion_ids)
        sets = (self._all_lesions(), self.rejected())
        if missing := set(ids) - {lesion.id for part in sets for lesion in part.lesions}:
            numbers = ", ".join(map(str, sorted(missing)))
            raise MaskError(f"There is no lesion {numbers} any more. Choose it again in the list.")
        return np.sort(np.concatenate([part.of(ids).voxels.flat for part in sets]))

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rising flat indices of the voxels of all lesions, left-out ones included, and their IDs."""
        voxels = self._all_lesions().voxels
        return voxels.flat, voxels.ids

    def centre_of(self, lesion_id: int) -> tuple[int, int, int]:
        """Return the voxel (k, j, i) of a lesion nearest to its centre of mass. Raises MaskError."""
        kji = np.stack(np.unravel_index(self.flat_voxels([lesion_id]), self._hu.shape), axis=1)
        spacing = np.array(self.image.GetSpacing()[::-1])
        nearest = (((kji - kji.mean(0)) * spacing) ** 2).sum(1).argmin()
        k, j, i = kji[nearest].tolist()
        return k, j, i

    @cached_property
    def _hu(self) -> np.ndarray:
        return voxels_of(self.image)

    def _all_lesions(self) -> LesionSet:
        """Return all lesions; known ones keep their IDs."""
        if self._lesions is None:
            counted = self.labelled.where((self.labelled.values != NOT_CORONARY) & self._is_bright_enough())
            lesion_set = find_lesions(self.image, counted, self.rules, self.peaks)
            self._lesions = self._with_ids(lesion_set)
        return self._lesions

    def rejected(self) -> LesionSet:
        """Return rejected lesions as unassigned; known ones keep their IDs."""
        if self._rejected is None:
            counts = (self.labelled.values == NOT_CORONARY) & self._is_bright_enough()
            flat = self.labelled.flat[counts]
            labelled = Labelled(flat, np.full(len(flat), Artery.UNASSIGNED, np.uint8))
            self._rejected = self._with_ids(find_lesions(self.image, labelled, self.rules, self.peaks))
        return self._rejected

    def _with_ids(self, lesion_set: LesionSet) -> LesionSet:
        """Renumber lesions: known ones keep their IDs, and masses, and new ones get the next ID."""
        number_of, lesions = np.zeros(len(lesion_set.lesions) + 1, np.uint16), []
        for lesion in lesion_set.lesions:
            number_of[lesion.id], recorded = self._id_of(lesion), self.recorded.get(_key(lesion))
            if recorded is not None:
                lesion = with_mass(lesion, recorded.integrated_mass_mg, recorded.mass_standard_error_mg)
            lesions.append(replace(lesion, id=int(number_of[lesion.id])))
        voxels = lesion_set.voxels
        return LesionSet(tuple(lesions), replace(voxels, ids=number_of[voxels.ids]))

    def _is_bright_enough(self) -> np.ndarray:
        """Mask of the labelled voxels that reach the threshold, in slices that are on."""
        slices = self.labelled.flat // math.prod(self._hu.shape[1:])
        is_on = ~np.isin(slices, list(self._slices_off))
        return is_on & (self._hu.reshape(-1)[self.labelled.flat] >= self.rules.threshold_hu)

    def _id_of(self, lesion: Lesion) -> int:
        key = _key(lesion)
        if key not in self._ids:
            self._highest_id += 1
            if self._highest_id > MAX_IDS:
                raise CTError(f"{self._highest_id} separate lesions: this is noise, not calcium.")
            self._ids[key] = self._highest_id
        return self._ids[key]

    def _evaluation(self) -> _Evaluation:
        if self.reviewed not in self._results:
            self._results[self.reviewed] = self._evaluate()
        return self._results[self.reviewed]

    def _evaluate(self) -> _Evaluation:
        lesion_set, left_out = self._all_lesions(), []
        lesions = list(lesion_set.lesions)
        if self.reviewed or (self.unreviewed == "automatic" and self.method == "threshold"):
            left_out = [self._left_out(lesion) for lesion in lesions if lesion.site == Artery.UNASSIGNED]
            lesions = [lesion for lesion in lesions if lesion.site != Artery.UNASSIGNED]
        if self.suggests and not self.reviewed:
            lesions = [self._with_verdict(lesion) for lesion in lesions]
        counted = lesion_set.part(self._measured(lesion_set.part(lesions)))
        result = method_score(
            status="reviewed" if self.reviewed else self.unreviewed,
            rules=self.rules,
            lesions=counted.coronary.lesions,
            voxels=lesion_set.voxels,
            left_out=() if self.reviewed else left_out,
            no_calcium=self.reviewed and not (self.labelled.values <= max(Artery)).any(),
            has_masses=True,
        )
        if self.errors is not None:
            result = with_intervals(result, self.errors, counted.non_coronary.lesions)
        return _Evaluation(counted, result, non_coronary_score(self.reviewed, counted), tuple(left_out))

    def _measured(self, counted: LesionSet) -> tuple[Lesion, ...]:
        """Return the lesions with the masses of those in the arteries, also of those that the run did not measure."""
        coronary, calibration = counted.coronary, self.calibration
        missing = {lesion.id for lesion in coronary.lesions if lesion.integrated_mass_mg is None}
        if calibration is None or len(coronary.lesions) > MAX_MEASURED:
            return counted.lesions
        if missing - self._masses.keys():
            hu, elsewhere = voxels_of(self.peaks or self.image), counted.non_coronary.id_map > 0
            of_map = self.method == "decomposition"
            facts = calibration, elsewhere, of_map, missing - self._masses.keys()
            self._masses |= lesion_masses(hu, self.image.GetSpacing(), coronary, *facts)
        return tuple(with_mass(x, *self._masses[x.id]) if x.id in missing else x for x in counted.lesions)

    def _with_verdict(self, lesion: Lesion) -> Lesion:
        """Return a lesion with the run's verdict, if it had one; one outside the arteries if it has kept its site."""
        recorded = self.recorded.get(_key(lesion))
        if not isinstance(lesion.site, Artery):
            is_known = recorded is not None and recorded.site == lesion.site
            return replace(lesion, verdict=recorded.verdict if recorded is not None and is_known else None)
        verdict = self._verdict_of(lesion)
        return replace(lesion, verdict=verdict and replace(verdict, counts=True, reason=""))

    def _left_out(self, lesion: Lesion) -> Lesion:
        """Return a lesion that does not count with the run's verdict, or one that knows nothing."""
        unknown = Verdict(artery=Artery.UNASSIGNED, confidence=0.0, not_coronary_probability=0.5)
        verdict = self._verdict_of(lesion) or unknown
        reason = verdict.reason or "not assigned to an artery"
        return replace(lesion, verdict=replace(verdict, counts=False, reason=reason))
