"""A reader's review of the lesions of one method: labels in, the numbers of `cac score` out.

Nothing is kept that can be derived: lesions, suggestions and scores are found from the labels by what `cac score` uses,
so that they are the same to the last digit. After an edit only the lesions it touches are found anew. Knows no MRML and
no Qt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.arteries import ArterySuggestion, suggest_arteries
from ..core.ct import CTError, MaskError, ScanWarning
from ..core.labels import NOT_CORONARY, Artery, Labelled, NonCoronary, Site
from ..core.tables import table_text
from ..quality.artefacts import MetalKind, metal_lesions, metal_warning
from ..results import METHOD_TITLES, STATUSES, MethodResult, NonCoronaryResult, with_intervals
from ..scoring.evidence import LeftOut
from ..scoring.lesions import Lesion, LesionSet, ScoringRules, find_lesions
from ..scoring.scores import Score, score_arteries, score_lesions, score_non_coronary
from ..scoring.sites import outside_warning
from ..scoring.uncertainty import ScanErrors

LesionKey = tuple[tuple[int, ...], int, tuple[int, int, int]]


@dataclass(frozen=True)
class Difference:
    """Voxels whose label differs. flat: indices, rising. before, after: uint8, their labels, 0 for none."""

    flat: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, before: Labelled, after: Labelled) -> Difference:
        if np.array_equal(before.flat, after.flat):
            places, labels = before.flat, [before.values, after.values]
        else:
            places, labels = _union(before.flat, after.flat), []
            for side in (before, after):
                on_places = np.zeros(len(places), np.uint8)
                on_places[np.searchsorted(places, side.flat)] = side.values
                labels.append(on_places)
        changed = labels[0] != labels[1]
        return cls(places[changed], labels[0][changed], labels[1][changed])


def _union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Flat indices, rising, that are among one or the other; both rise."""
    return one if np.array_equal(one, other) else _distinct(np.concatenate([one, other]))


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Each number once, rising. NumPy's own takes several times as long where most of them rise already."""
    numbers = np.sort(numbers, kind="stable")
    return numbers[np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]]


def lesion_key(slices: Iterable[int], voxels: int, centroid_ras_mm: Iterable[float]) -> LesionKey:
    """What tells a lesion from all others of a scan, however it was assigned, and survives being written to a file.

    Its place counts in hundredths of a millimetre. They begin at an odd place, so that a centroid that a file has
    rounded in its last digit does not fall into the next one.
    """
    return tuple(slices), voxels, tuple(math.floor(c * 100 + 0.31415926) for c in centroid_ras_mm)


def _key(lesion: Lesion) -> LesionKey:
    return lesion_key(lesion.slice_indices, lesion.voxels, lesion.centroid_ras_mm)


@dataclass(frozen=True)
class KnownLesion:
    """What a run has recorded of a lesion: its id, the artery it suggested and the site it gave the lesion, None after
    a review, why an automatic score left it out, and its mass without a threshold with its standard error."""

    id: int
    suggestion: ArterySuggestion | None
    site: Site | None = None
    left_out_for: str = ""
    integrated_mass_mg: float | None = None
    mass_standard_error_mg: float | None = None


def known_lesions(method: Mapping, elsewhere: Mapping | None = None) -> dict[LesionKey, KnownLesion]:
    """The lesions of a method in a `scores.json`. elsewhere: its "non_coronary", for the clinical rule."""
    arteries, sites = ({site.key: site for site in kind} for kind in (Artery, NonCoronary))
    found = [(lesion, arteries[lesion["artery"]], method["reviewed"]) for lesion in method["lesions"]]
    if elsewhere:
        found += [(lesion, sites[lesion["site"]], elsewhere["reviewed"]) for lesion in elsewhere["lesion_list"]]
    found += [(lesion, Artery.UNASSIGNED, False) for lesion in method.get("left_out", ())]
    known = {}
    for lesion, site, reviewed in found:
        slices = sorted({part["slice"] for part in lesion["components"]})
        suggestion = None
        if "suggested_artery" in lesion:
            probabilities = lesion["confidence"], lesion["not_coronary_probability"]
            suggestion = ArterySuggestion(lesion["id"], arteries[lesion["suggested_artery"]], *probabilities)
        key = lesion_key(slices, lesion["voxels"], lesion["centroid_ras_mm"])
        mass = lesion.get("integrated_mass_mg"), lesion.get("mass_standard_error_mg")
        known[key] = KnownLesion(lesion["id"], suggestion, None if reviewed else site, lesion.get("reason", ""), *mass)
    return known


@dataclass(frozen=True)
class _Counted:
    """What labels give. lesions: of the arteries and elsewhere. left_out: unassigned ones that do not count."""

    lesions: LesionSet
    coronary: MethodResult
    elsewhere: NonCoronaryResult
    left_out: LeftOut | None


class Review:
    """One method's lesions, derived from labels.

    method: "threshold" or "decomposition". image: what the lesions are found in, axes as in `CTScan`: the CT, or the
    calcium map. rules: those that the method was scored by. peaks: the CT, for a calcium map (see `find_lesions`).
    heart: mask on the image's grid, by which a lesion that nobody has reviewed and no run knew gets its suggested
    artery from its place. known: lesions of the run that began the review; they keep their suggestions, and like all
    lesions their ids, for as long as their voxels stay. by_territory: whether the run knew territories, by which it
    found each lesion of the map in its artery. unreviewed: status of the scores while they are not reviewed; unassigned
    lesions of an automatic score are left out of it. errors: by which its scores get intervals; None where unknown.
    """

    def __init__(
        self,
        method: str,
        image: sitk.Image,
        rules: ScoringRules,
        peaks: sitk.Image | None = None,
        heart: sitk.Image | None = None,
        known: Mapping[LesionKey, KnownLesion] | None = None,
        by_territory: bool = False,
        unreviewed: str = "candidates",
        errors: ScanErrors | None = None,
    ) -> None:
        self.method = method
        self.image = image
        self.rules = rules
        self.peaks = peaks
        self._unreviewed = unreviewed
        self._errors = errors
        self._shape = image.GetSize()[::-1]
        self._labels = Labelled(np.zeros(0, np.int64), np.zeros(0, np.uint8))
        self._slices_off: frozenset[int] = frozenset()
        self._counted = self._labels
        self._found = LesionSet((), np.zeros(self._shape, np.uint16))
        self._current = True
        self._by_artery = method == "threshold" or by_territory
        self._results: dict[bool, _Counted] = {}
        self._shown = False
        known = known or {}
        self._ids = {key: lesion.id for key, lesion in known.items()}
        self._reasons = {key: lesion.left_out_for for key, lesion in known.items()}
        self._masses = {
            key: (lesion.integrated_mass_mg, lesion.mass_standard_error_mg) for key, lesion in known.items()
        }
        self._highest_id = max(self._ids.values(), default=0)
        self._sites = {key: lesion.site for key, lesion in known.items()}
        suggested = {key: lesion.suggestion for key, lesion in known.items() if lesion.suggestion is not None}
        self._evaluated = dict(suggested) if unreviewed == "automatic" else {}
        self._suggestions = _Suggestions(image, heart, suggested)
        self._metal_sought: set[LesionKey] | None = None
        self._metal: dict[LesionKey, MetalKind] = {}
        self._not_metal: np.ndarray | None = None  # flat indices of the run's candidates

    @property
    def labelled(self) -> Labelled:
        """All labelled voxels, unassigned and rejected ones (NOT_CORONARY) included."""
        return self._labels

    def set_labelled(self, labelled: Labelled) -> Difference:
        """Take new labels; says what changed. Raises MaskError when one is that of no site."""
        if (highest := int(labelled.values.max(initial=0))) > max(NonCoronary):
            raise MaskError(f"A label of the review is {highest}; the highest is {int(max(NonCoronary))}.")
        difference = Difference.of(self._labels, labelled)
        self._labels = labelled
        self._current = self._current and not difference.flat.size
        return difference

    def set_slices_off(self, slices: Iterable[int]) -> None:
        """Slices, k, whose labelled voxels do not count."""
        self._slices_off = frozenset(slices)
        self._current = False

    def result(self, reviewed: bool) -> MethodResult:
        """The scores of the labels of arteries.

        reviewed: False lists unassigned lesions as candidates, or beside an automatic score, as `cac score` does; True
        leaves them out, as `cac score --lesions` does.
        """
        return self._counted_as(reviewed).coronary

    def non_coronary(self, reviewed: bool) -> NonCoronaryResult:
        """The scores of the labels outside the coronary arteries. reviewed: as of `result`."""
        return self._counted_as(reviewed).elsewhere

    def lesions(self, reviewed: bool) -> LesionSet:
        """All lesions, of the arteries and elsewhere. reviewed: as of `result`."""
        return self._counted_as(reviewed).lesions

    def left_out(self, reviewed: bool) -> LeftOut | None:
        """Unassigned lesions that do not count; None while they do, as candidates. reviewed: as of `result`."""
        return self._counted_as(reviewed).left_out

    def probability_of(self, lesion: Lesion) -> float | None:
        """That a lesion is coronary calcium, by the evidence of the run's networks; None where they have not evaluated
        it. It stays after the review."""
        own = self._evaluated.get(_key(lesion))
        return None if own is None else 1 - own.not_coronary_probability

    def integrated_mass_of(self, lesion: Lesion) -> tuple[float | None, float | None]:
        """Calcium mass without a threshold of a lesion as the run measured it, and its standard error, mg. None where
        it did not, as of a lesion that a reader has painted or cut since."""
        return self._masses.get(_key(lesion), (None, None))

    def metal_among(self, found: LesionSet) -> dict[int, MetalKind]:
        """Lesions that are metal, by id (see `artefacts.metal_lesions`).

        The search takes seconds, so it is only made where lesions have voxels that were no candidates of the run, which
        keeps no metal among them, and where other voxels are lesions than at the last call.
        """
        ids = {_key(lesion): lesion.id for lesion in found.lesions}
        if ids.keys() != self._metal_sought:
            flat = self._counted.flat[found.id_map.reshape(-1)[self._counted.flat] > 0]
            metal = {} if _among(flat, self._not_metal).all() else metal_lesions(found, self.image)
            self._metal = {key: metal[number] for key, number in ids.items() if number in metal}
            self._metal_sought = set(ids)
        return {ids[key]: kind for key, kind in self._metal.items()}

    def suggested_site(self, lesion: Lesion) -> Site | None:
        """The site of a lesion of the last result that is a suggestion: the run's, as long as no reader has given the
        lesion another, or of an unassigned one the artery that its place suggests. None once all are reviewed."""
        if self._shown:
            return None
        if lesion.artery == Artery.UNASSIGNED:
            suggested = self.result(False).suggestion_of(lesion)
            return None if suggested is None else suggested.artery
        return lesion.artery if self._sites.get(_key(lesion)) == lesion.artery else None

    def _counted_as(self, reviewed: bool) -> _Counted:
        self._shown = reviewed
        if not self._current:
            self._find()
            self._results.clear()
            self._current = True
        if reviewed not in self._results:
            self._results[reviewed] = self._scored(reviewed)
        return self._results[reviewed]

    def flat_voxels(self, lesion_ids: Iterable[int]) -> np.ndarray:
        """Flat indices of the voxels of lesions of the last result, those left out too. Raises MaskError when there is
        none of that id."""
        counted = self._counted_as(self._shown)
        wanted = list(lesion_ids)
        others = () if counted.left_out is None else counted.left_out.lesions.lesions
        known = {lesion.id for lesion in (*counted.lesions.lesions, *others)}
        if missing := [number for number in wanted if number not in known]:
            raise MaskError(f"There is no lesion {', '.join(map(str, missing))} any more. Choose it again in the list.")
        return self._counted.flat[np.isin(self._found.id_map.reshape(-1)[self._counted.flat], wanted)]

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices, rising, of the voxels of all lesions of the last result, those left out too; and their ids."""
        self._counted_as(self._shown)
        ids = self._found.id_map.reshape(-1)[self._counted.flat]
        return self._counted.flat[ids > 0], ids[ids > 0]

    def centre_of(self, lesion_id: int) -> tuple[int, int, int]:
        """The voxel (k, j, i) of a lesion that lies nearest to its centre of mass. Raises MaskError."""
        kji = np.stack(np.unravel_index(self.flat_voxels([lesion_id]), self._shape), axis=1)
        spacing = np.array(self.image.GetSpacing()[::-1])
        nearest = (((kji - kji.mean(0)) * spacing) ** 2).sum(1).argmin()
        return tuple(int(n) for n in kji[nearest])

    def _find(self) -> None:
        """Find anew what may have changed: all voxels that hang together with one that did."""
        counted = self._labels.where(self._counts())
        changed = Difference.of(self._counted, counted).flat
        near = _hanging_together(changed, _union(self._counted.flat, counted.flat), self._shape)
        old_ids = self._found.id_map.reshape(-1)
        gone = set(np.flatnonzero(np.bincount(old_ids[near])).tolist())
        kept = [lesion for lesion in self._found.lesions if lesion.id not in gone]

        again = counted.where(_among(counted.flat, near))
        new = find_lesions(self.image, again, self.rules, self.peaks)
        if len(kept) + len(new.lesions) > np.iinfo(np.uint16).max:
            raise CTError(f"{len(kept) + len(new.lesions)} separate lesions: this is noise, not calcium.")
        number_of = np.zeros(len(new.lesions) + 1, np.uint16)
        taken = {lesion.id for lesion in kept}
        for lesion in _in_order(new, again.flat, self._by_artery):
            number_of[lesion.id] = self._id_of(lesion, taken)
        id_map = np.zeros(self._shape, np.uint16)
        ids = id_map.reshape(-1)
        ids[self._counted.flat] = old_ids[self._counted.flat]
        ids[near] = 0
        ids[again.flat] = number_of[new.id_map.reshape(-1)[again.flat]]
        lesions = (*kept, *(replace(lesion, id=int(number_of[lesion.id])) for lesion in new.lesions))
        self._found, self._counted = LesionSet(lesions, id_map), counted
        if self._not_metal is None:
            of_run = [lesion.id for lesion in lesions if self._sites.get(_key(lesion)) is not None]
            self._not_metal = counted.flat[np.isin(ids[counted.flat], of_run)]

    def _counts(self) -> np.ndarray:
        counts = self._labels.values != NOT_CORONARY
        if self._slices_off:
            slices = self._labels.flat // (self._shape[1] * self._shape[2])
            counts &= ~np.isin(slices, list(self._slices_off))
        return counts & (
            sitk.GetArrayViewFromImage(self.image).reshape(-1)[self._labels.flat] >= self.rules.threshold_hu
        )

    def _id_of(self, lesion: Lesion, taken: set[int]) -> int:
        """The id that the lesion had before, or the next one that is free. Takes it."""
        key = _key(lesion)
        number = self._ids.get(key, 0)
        if not number or number in taken:
            self._highest_id += 1
            number = self._highest_id
            if number > np.iinfo(np.uint16).max:
                number = next(n for n in range(1, number) if n not in taken)
            self._ids[key] = number
        taken.add(number)
        return number

    def _scored(self, reviewed: bool) -> _Counted:
        lesions = tuple(_in_order(self._found, self._counted.flat, reviewed or self._by_artery))
        left_out = None
        if reviewed or (self._unreviewed == "automatic" and self.method == "threshold"):
            left_out = self._left_out(tuple(lesion for lesion in lesions if lesion.artery == Artery.UNASSIGNED))
            lesions = tuple(lesion for lesion in lesions if lesion.artery != Artery.UNASSIGNED)
        coronary = self._part(tuple(lesion for lesion in lesions if isinstance(lesion.artery, Artery)))
        elsewhere = self._part(tuple(lesion for lesion in lesions if isinstance(lesion.artery, NonCoronary)))
        spacing = self.image.GetSpacing()
        result = MethodResult(
            status="reviewed" if reviewed else self._unreviewed,
            rules=self.rules,
            lesions=coronary,
            total=score_lesions(coronary.lesions, spacing, self.rules),
            arteries=score_arteries(coronary.lesions, spacing, self.rules),
            suggestions=() if reviewed else self._suggestions.of(coronary, self._counted.flat),
            no_calcium=reviewed and not (self._labels.values <= max(Artery)).any(),
            left_out=None if reviewed else left_out,
        )
        if self._errors is not None:
            result = with_intervals(self.method, result, self._errors)
        scores = score_non_coronary(elsewhere.lesions, spacing, self.rules)
        others = NonCoronaryResult(reviewed, self.rules, elsewhere, scores)
        return _Counted(self._part(lesions), result, others, left_out)

    def _left_out(self, lesions: tuple[Lesion, ...]) -> LeftOut:
        part = self._part(lesions)
        reasons = tuple(self._reasons.get(_key(lesion)) or "not assigned to an artery" for lesion in lesions)
        return LeftOut(part, self._suggestions.of(part, self._counted.flat), reasons)

    def _part(self, lesions: tuple[Lesion, ...]) -> LesionSet:
        """Some of the lesions that were found."""
        if len(lesions) == len(self._found.lesions):
            return LesionSet(lesions, self._found.id_map)
        at = self._counted.flat
        found = self._found.id_map.reshape(-1)[at]
        ids = np.zeros(self._shape, np.uint16)
        ids.reshape(-1)[at] = np.where(np.isin(found, [lesion.id for lesion in lesions]), found, np.uint16(0))
        return LesionSet(lesions, ids)


def _in_order(found: LesionSet, labelled: np.ndarray, by_artery: bool) -> list[Lesion]:
    """The lesions in the order of `cac score`: by artery, then from head to feet.

    It finds those of a map that nobody has reviewed before they have arteries, hence `by_artery`. The order matters,
    because sums of floating-point numbers depend on it. labelled: flat indices, rising, of all the lesions' voxels.
    """
    ids = found.id_map.reshape(-1)[labelled]
    first = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
    first[ids[::-1]] = labelled[::-1]

    def place(lesion: Lesion) -> tuple[int, float, int]:
        height = sum(c.slice_index * c.voxels for c in lesion.components) / lesion.voxels
        return int(lesion.artery) if by_artery else 0, -height, int(first[lesion.id])

    return sorted(found.lesions, key=place)


def _among(flat: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of some flat indices are among others; both rise."""
    if not others.size:
        return np.zeros(len(flat), bool)
    return others[np.minimum(np.searchsorted(others, flat), len(others) - 1)] == flat


def _hanging_together(seeds: np.ndarray, flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Those of `flat` from which a seed is reached over touching voxels (26 neighbours), rising; the seeds too.

    Rows and slices are not told apart, so that a little too much may come along.
    """
    row, plane = shape[2], shape[1] * shape[2]
    steps = np.array([k * plane + j * row + i for k in (-1, 0, 1) for j in (-1, 0, 1) for i in (-1, 0, 1)])
    if not flat.size:
        return flat
    reached = np.zeros(len(flat), bool)
    edge = np.searchsorted(flat, seeds)
    while edge.size:
        reached[edge] = True
        wanted = (flat[edge][:, None] + steps).reshape(-1)
        at = np.minimum(np.searchsorted(flat, wanted), len(flat) - 1)
        edge = _distinct(at[(flat[at] == wanted) & ~reached[at]])
    return flat[reached]


class _Suggestions:
    """Suggested arteries of lesions: those of the run where it knew the lesion, else by place, found once each."""

    def __init__(self, image: sitk.Image, heart: sitk.Image | None, known: dict[LesionKey, ArterySuggestion]) -> None:
        self._image = image
        self._heart = heart
        self._known = known
        self._box: list[tuple[int, int]] = []
        self._part: tuple[sitk.Image, sitk.Image] | None = None

    def of(self, found: LesionSet, labelled: np.ndarray) -> tuple[ArterySuggestion, ...]:
        """Of each lesion, in the lesions' order. labelled: flat indices of all their voxels."""
        keys = {lesion.id: _key(lesion) for lesion in found.lesions}
        new = tuple(lesion for lesion in found.lesions if keys[lesion.id] not in self._known)
        if new and self._heart is not None:
            for suggestion in self._by_place(replace(found, lesions=new), self._heart, labelled):
                self._known[keys[suggestion.lesion_id]] = suggestion
        pairs = [(number, self._known.get(key)) for number, key in keys.items()]
        return tuple(replace(suggestion, lesion_id=number) for number, suggestion in pairs if suggestion is not None)

    def _by_place(self, found: LesionSet, heart: sitk.Image, labelled: np.ndarray) -> list[ArterySuggestion]:
        """Found in the smallest part of the scan that holds heart and lesions: the rest would only take time."""
        axes = np.unravel_index(labelled, found.id_map.shape)
        if self._part is None:
            inside = sitk.GetArrayViewFromImage(heart) != 0
            of_heart = (np.flatnonzero(inside.any(others)) for others in ((1, 2), (0, 2), (0, 1)))
            axes = [np.concatenate(both) for both in zip(axes, of_heart, strict=True)]
        ends = [(int(axis.min()), int(axis.max()) + 1) for axis in axes]
        if self._part is None or any(
            a < start or b > stop for (a, b), (start, stop) in zip(ends, self._box, strict=True)
        ):
            both = zip(ends, self._box or ends, strict=True)
            self._box = [(min(a, start), max(b, stop)) for (a, b), (start, stop) in both]
            place = tuple(slice(*pair) for pair in self._box[::-1])
            self._part = self._image[place], heart[place]
        id_map = found.id_map[tuple(slice(*pair) for pair in self._box)]
        return suggest_arteries(replace(found, id_map=id_map), *self._part)


def review_warnings(review: Review, reviewed: bool, heart: sitk.Image) -> tuple[ScanWarning, ...]:
    """Doubts about a review of the clinical rule, as `cac score --lesions` has them. heart: mask on the scan's grid."""
    if not reviewed:
        return ()
    coronary, every = review.result(reviewed).lesions, review.lesions(reviewed)
    warnings = [*outside_warning(coronary, heart), *metal_warning(every, review.metal_among(every))]
    if unassigned := int((review.labelled.values == Artery.UNASSIGNED).sum()):
        message = f"{unassigned} voxels are not assigned to an artery and do not count in the reviewed score."
        warnings.append(ScanWarning("unassigned-left-out", message))
    return tuple(warnings)


def result_as_copied_text(methods: Mapping[str, MethodResult], elsewhere: NonCoronaryResult | None = None) -> str:
    """Totals per method and artery for the clipboard: tab separated lines that a spreadsheet takes as columns.

    elsewhere: calcium outside the coronary arteries, below them.
    """
    measures = ("Agatston (of the map: adjusted)", "Volume mm³", "Mass mg", "Pseudo-mass HU·mm³", "Peak HU")
    lines = []

    def add(title: str, name: str, score: Score, state: str) -> None:
        numbers = (score.agatston, score.volume_mm3, score.mass_mg, score.pseudo_mass_hu_mm3, score.peak_hu)
        shown = ["" if number is None else f"{number:.3f}" for number in numbers]
        lines.append((title, name, score.lesions, *shown, state))

    for name, method in methods.items():
        state = STATUSES[method.status]
        state += ", no coronary calcium" if method.no_calcium else ""
        for artery, score in method.arteries.items():
            add(METHOD_TITLES[name], artery.key, score, state)
        add(METHOD_TITLES[name], "total", method.total, state)
    for site, score in elsewhere.scores.items() if elsewhere is not None else ():
        state = "reviewed" if elsewhere.reviewed else "not reviewed"
        add("Outside the coronary arteries", site.full_name, score, state)
    return table_text(("Method", "Artery", "Lesions", *measures, "State"), lines, delimiter="\t")
