"""Review of the lesions of one method: compute lesions, suggestions and scores from labels.

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
from ..record.score_record import LesionRecord, MethodRecord, NonCoronaryRecord
from ..scoring.artefacts import MetalKind, metal_lesions, metal_warning
from ..scoring.arteries import ArterySuggestion
from ..scoring.evidence import LeftOut
from ..scoring.intervals import with_intervals
from ..scoring.lesions import Lesion, LesionSet, find_lesions
from ..scoring.mass import CalciumMass
from ..scoring.methods import MethodResult, NonCoronaryResult, elsewhere_result, with_integrated_mass
from ..scoring.reader_labels import outside_warning
from ..scoring.rules import ScoringRules
from ..scoring.scores import score_lesions, score_sites
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


def lesion_key(slices: Iterable[int], voxels: int, centroid_ras_mm: Iterable[float]) -> LesionKey:
    """Return the identity of a lesion in its scan, independent of its site and stable when written to a file.

    The centroid is binned to hundredths of a millimetre with an odd offset, so that rounding its last digit does not
    change the bin.
    """
    x, y, z = (math.floor(c * 100 + 0.31415926) for c in centroid_ras_mm)
    return tuple(slices), voxels, (x, y, z)


def _key(lesion: Lesion) -> LesionKey:
    return lesion_key(lesion.slice_indices, lesion.voxels, lesion.centroid_ras_mm)


@dataclass(frozen=True)
class RecordedLesion:
    """A lesion in the record of a run.

    Attributes:
        id: Number of the lesion.
        suggestion: Suggested artery; None if there was none.
        site: Site by the run; None after a review.
        reason: Reason why an automatic score left it out.
        integrated_mass_mg: Mass without a threshold.
        mass_standard_error_mg: Its standard error.
    """

    id: int
    suggestion: ArterySuggestion | None = None
    site: Site | None = None
    reason: str = ""
    integrated_mass_mg: float | None = None
    mass_standard_error_mg: float | None = None


def recorded_lesions(
    method: MethodRecord, elsewhere: NonCoronaryRecord | None = None
) -> dict[LesionKey, RecordedLesion]:
    """Return the lesions of a recorded method. elsewhere: Non-coronary calcium, for the clinical rule."""
    sites = {site.key: site for site in Artery}
    listed: list[tuple[LesionRecord, Site, bool]]
    listed = [(lesion, sites[lesion.artery], method.reviewed) for lesion in method.lesions]
    if elsewhere:
        other_sites = {site.key: site for site in NonCoronary}
        listed += [(lesion, other_sites[lesion.site], elsewhere.reviewed) for lesion in elsewhere.lesion_list]
    listed += [(lesion, Artery.UNASSIGNED, False) for lesion in method.left_out]
    recorded = {}
    for lesion, site, reviewed in listed:
        slices = sorted({part.slice for part in lesion.components})
        suggestion = None
        artery, confidence, not_coronary = lesion.suggested_artery, lesion.confidence, lesion.not_coronary_probability
        if artery is not None and confidence is not None and not_coronary is not None:
            suggestion = ArterySuggestion(lesion.id, sites[artery], confidence, not_coronary)
        mass = lesion.integrated_mass_mg, lesion.mass_standard_error_mg
        entry = RecordedLesion(lesion.id, suggestion, None if reviewed else site, lesion.reason, *mass)
        recorded[lesion_key(slices, lesion.voxels, lesion.centroid_ras_mm)] = entry
    return recorded


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
    coronary: MethodResult
    elsewhere: NonCoronaryResult
    left_out: LeftOut | None


@dataclass(eq=False)
class Review:
    """One method's lesions, derived from labels.

    Attributes:
        method: "threshold" or "decomposition".
        image: Image of the lesions, axes as in `CTScan`: the CT, or the calcium map.
        rules: Rules that the method was scored by.
        heart: Mask on the image's grid.
        peaks: The CT, for a calcium map (see `find_lesions`).
        recorded: Lesions of the run that is reviewed. They keep suggestion and ID as long as their voxels stay.
        by_territory: True if the run assigned the lesions of the map to arteries by territory.
        unreviewed: Status of the scores until they are reviewed; an automatic score leaves out unassigned lesions.
        errors: Errors from which scores get intervals; None if unknown.
        reviewed: True if a reader has confirmed the review. Unassigned lesions are then left out, as by
            `cac score --lesions`; before, they are candidates, or beside an automatic score, as by `cac score`.
    """

    method: str
    image: sitk.Image
    rules: ScoringRules
    heart: sitk.Image
    peaks: sitk.Image | None = None
    recorded: Mapping[LesionKey, RecordedLesion] = field(default_factory=dict)
    by_territory: bool = False
    unreviewed: str = "candidates"
    errors: ScanErrors | None = None

    def __post_init__(self) -> None:
        self.reviewed = False
        self.suggests = True
        """False if no artery is suggested; set before the first result."""
        self.labelled = Labelled(np.zeros(0, np.int64), np.zeros(0, np.uint8))
        """All labelled voxels, unassigned and rejected ones (NOT_CORONARY) included."""
        self._slices_off: frozenset[int] = frozenset()
        self._lesions: LesionSet | None = None
        self._rejected: LesionSet | None = None
        self._results: dict[bool, _Evaluation] = {}
        self._ids = {key: lesion.id for key, lesion in self.recorded.items()}
        self._highest_id = max(self._ids.values(), default=0)
        self._suggestions = {key: lesion.suggestion for key, lesion in self.recorded.items() if lesion.suggestion}
        self._candidates: np.ndarray | None = None  # flat indices of the voxels of the run's lesions
        self._metal: tuple[set[int], dict[int, MetalKind]] = set(), {}  # of which lesions

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

    def result(self) -> MethodResult:
        """Return the scores of the labels of arteries."""
        return self._evaluation().coronary

    def non_coronary(self) -> NonCoronaryResult:
        """Return the scores of the labels outside the coronary arteries."""
        return self._evaluation().elsewhere

    def lesions(self) -> LesionSet:
        """Return the lesions that count, in the arteries and elsewhere."""
        return self._evaluation().lesions

    def left_out(self) -> LeftOut | None:
        """Return unassigned lesions that do not count; None while they count as candidates."""
        return self._evaluation().left_out

    def probability_of(self, lesion: Lesion) -> float | None:
        """Return the probability of coronary calcium by the run's networks; None for lesions without evidence."""
        recorded = self.recorded.get(_key(lesion))
        if self.unreviewed != "automatic" or recorded is None or recorded.suggestion is None:
            return None
        return 1 - recorded.suggestion.not_coronary_probability

    def integrated_mass_of(self, lesion: Lesion) -> tuple[float | None, float | None]:
        """Return the run's integrated mass of a lesion and its standard error in mg; None for lesions edited since."""
        recorded = self.recorded.get(_key(lesion))
        return (None, None) if recorded is None else (recorded.integrated_mass_mg, recorded.mass_standard_error_mg)

    def suggested_site(self, lesion: Lesion) -> Site | None:
        """Return the suggested site of a lesion; None after the review.

        It is the run's site until a reader changes it, or the artery that an unassigned lesion's location suggests.
        """
        if self.reviewed:
            return None
        if any(lesion is rejected for rejected in self.rejected().lesions):
            return _artery_of(self._suggestions.get(_key(lesion)))
        if lesion.artery == Artery.UNASSIGNED:
            return _artery_of(self.result().suggestion_of(lesion))
        recorded = self.recorded.get(_key(lesion))
        return lesion.artery if recorded is not None and recorded.site == lesion.artery else None

    def warnings(self) -> list[ScanWarning]:
        """Return the warnings of `cac score --lesions` about a reviewed clinical score."""
        if not self.reviewed:
            return []
        lesions = self.lesions()
        warnings = [
            *outside_warning(self.result().lesions, self.heart),
            *metal_warning(lesions, self._metal_among(lesions)),
        ]
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
        flat = [part.flat[np.isin(part.voxel_ids, ids)] for part in sets]
        return np.sort(np.concatenate(flat))

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rising flat indices of the voxels of all lesions, left-out ones included, and their IDs."""
        lesion_set = self._all_lesions()
        return lesion_set.flat, lesion_set.voxel_ids

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
            self._lesions = self._with_ids(lesion_set, counted.flat)
            if self._candidates is None:
                recorded = {lesion.id: self.recorded.get(_key(lesion)) for lesion in self._lesions.lesions}
                of_run = [
                    number for number, lesion in recorded.items() if lesion is not None and lesion.site is not None
                ]
                self._candidates = self.flat_voxels(of_run)
        return self._lesions

    def rejected(self) -> LesionSet:
        """Return rejected lesions as unassigned; known ones keep their IDs."""
        if self._rejected is None:
            counts = (self.labelled.values == NOT_CORONARY) & self._is_bright_enough()
            flat = self.labelled.flat[counts]
            labelled = Labelled(flat, np.full(len(flat), Artery.UNASSIGNED, np.uint8))
            self._rejected = self._with_ids(find_lesions(self.image, labelled, self.rules, self.peaks), flat)
        return self._rejected

    def _with_ids(self, lesion_set: LesionSet, flat: np.ndarray) -> LesionSet:
        """Renumber lesions: known ones keep their IDs, new ones get the next. flat: Voxels of all lesions."""
        number_of = np.array([0, *(self._id_of(lesion) for lesion in lesion_set.lesions)], np.uint16)
        ids = lesion_set.id_map.reshape(-1)
        ids[flat] = number_of[ids[flat]]
        lesions = tuple(replace(lesion, id=int(number_of[lesion.id])) for lesion in lesion_set.lesions)
        return LesionSet(lesions, lesion_set.id_map)

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
        lesion_set, left_out = self._all_lesions(), None
        by_artery = self.reviewed or self.method == "threshold" or self.by_territory
        lesions = list(lesion_set.lesions) if by_artery else _from_head_to_feet(lesion_set)
        if self.reviewed or (self.unreviewed == "automatic" and self.method == "threshold"):
            out = lesion_set.part([lesion for lesion in lesions if lesion.artery == Artery.UNASSIGNED])
            reasons = [getattr(self.recorded.get(_key(lesion)), "reason", "") for lesion in out.lesions]
            places = tuple(
                replace(self._suggestions.get(_key(x), ArterySuggestion.unknown(x.id)), lesion_id=x.id)
                for x in out.lesions
            )
            left_out = LeftOut(out, places, tuple(r or "not assigned to an artery" for r in reasons))
            lesions = [lesion for lesion in lesions if lesion.artery != Artery.UNASSIGNED]
        coronary, elsewhere = (
            lesion_set.part([lesion for lesion in lesions if isinstance(lesion.artery, kind)])
            for kind in (Artery, NonCoronary)
        )
        spacing = self.image.GetSpacing()
        result = MethodResult(
            status="reviewed" if self.reviewed else self.unreviewed,
            rules=self.rules,
            lesions=coronary,
            total=score_lesions(coronary.lesions, spacing, self.rules),
            arteries=score_sites(coronary.lesions, spacing, self.rules),
            suggestions=self._suggested(coronary) if self.suggests and not self.reviewed else (),
            no_calcium=self.reviewed and not (self.labelled.values <= max(Artery)).any(),
            left_out=None if self.reviewed else left_out,
            masses={lesion.id: CalciumMass(*self.integrated_mass_of(lesion)) for lesion in coronary.lesions},
        )
        if self.errors is not None:
            result = with_intervals(self.method, result, self.errors, spacing)
        non_coronary = elsewhere_result(self.reviewed, self.rules, elsewhere, spacing)
        return _Evaluation(lesion_set.part(lesions), with_integrated_mass(result), non_coronary, left_out)

    def _suggested(self, part: LesionSet) -> tuple[ArterySuggestion, ...]:
        """Return the run's suggested arteries, of the lesions that it had."""
        pairs = ((lesion.id, self._suggestions.get(_key(lesion))) for lesion in part.lesions)
        return tuple(replace(suggestion, lesion_id=number) for number, suggestion in pairs if suggestion is not None)

    def _metal_among(self, lesion_set: LesionSet) -> dict[int, MetalKind]:
        """Lesions that are metal, by id (see `artefacts.metal_lesions`).

        The run's candidates hold no metal, so the search, which takes seconds, runs only if lesions have other voxels,
        and only once per set of lesions.
        """
        ids = {lesion.id for lesion in lesion_set.lesions}
        if ids != self._metal[0]:
            new = self._candidates is None or not np.isin(lesion_set.flat, self._candidates).all()
            self._metal = ids, metal_lesions(lesion_set, self.image) if new else {}
        return self._metal[1]


def _artery_of(suggestion: ArterySuggestion | None) -> Artery | None:
    return None if suggestion is None or suggestion.artery == Artery.UNASSIGNED else suggestion.artery


def _from_head_to_feet(lesion_set: LesionSet) -> list[Lesion]:
    """Return lesions in the order in which `cac score` detects them; `LesionSet` orders them by artery.

    Sums of floating-point numbers depend on the order.
    """
    ids, first = np.unique(lesion_set.voxel_ids, return_index=True)
    place = dict(zip(ids.tolist(), first.tolist(), strict=True))

    def order(lesion: Lesion) -> tuple[float, int]:
        return -sum(c.slice_index * c.voxels for c in lesion.components) / lesion.voxels, place[lesion.id]

    return sorted(lesion_set.lesions, key=order)
