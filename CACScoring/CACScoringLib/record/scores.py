"""Lesions with their verdicts, and scores of them: as they are computed, written to `scores.json` and read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..core.decoding import IN_MEMORY, WHEN_SET, content_of, decoded
from ..core.errors import WrongValueError
from ..core.grid import Grid
from ..core.labels import Artery, NonCoronary, Site, SiteMap
from .findings import CalibratedOn, Features
from .rules import ScoringRules
from .sums import check_signs, check_sums

STATUSES = {
    "reviewed": "reviewed",
    "given": "labels given, not reviewed",
    "automatic": "automatic, not reviewed",
    "candidates": "UNREVIEWED candidates, not a calcium score",
}
"""Titles of a score's states: assigned to arteries by a person, labelled by nobody who is named, selected by the
networks, or not evaluated, so that candidates may be anything dense."""

CATEGORISED_BELOW = 1000.0
"""Automatic scores from here on have no category probabilities: too few calibration patients reach them."""


MIN_WRITTEN = 0.001
"""Least probability of a kind that is written."""

COUNTED, LEFT_OUT, OUTSIDE = "counted", "left out", "outside"
"""Status of a lesion: it counts, an automatic score leaves it out, or it lies outside the coronary arteries."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of one lesion, one artery or a whole scan.

    Attributes:
        agatston: Σ area (mm²) × weight over slice components × slice spacing / 3 mm; of the calcium map, which has no
            threshold, several times a clinical score.
        volume_mm3: Voxels × voxel volume.
        mass_mg: Integrated mass; None if unknown.
        pseudo_mass_hu_mm3: Σ HU × voxel volume (van Velzen: generative models for reproducible calcium scoring).
        lesions: Number of lesions.
        peak_hu: Highest voxel; None without a lesion.
        clinical_agatston: Score on the clinical scale, which is printed: `agatston` of the clinical rule, the
            *Agatston equivalent* of the lesions' masses for the calcium map.
        integrated_mass_mg: Mass by `scoring.mass`; None if it was not measured.
        mass_standard_error_mg: Standard error by noise and background, without that of the calibration.
    """

    agatston: float
    volume_mm3: float
    mass_mg: float | None = None
    pseudo_mass_hu_mm3: float
    lesions: int
    peak_hu: float | None = None
    clinical_agatston: float
    integrated_mass_mg: float | None = None
    mass_standard_error_mg: float | None = None


@dataclass(frozen=True, kw_only=True)
class SumScore(Score):
    """Scores of an artery or the whole scan.

    Attributes:
        interval_90: 90 % prediction interval of `clinical_agatston`, of a reviewed score the repeatability of a second
            scan; None if unknown or withheld.
        mass_interval_90: That of the mass.
    """

    interval_90: tuple[float, float] | None = None
    mass_interval_90: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SliceComponent:
    """Touching voxels of one lesion in one axial slice.

    Attributes:
        slice: Index from the scan's lowest slice.
        voxels: Number of voxels.
        area_mm2: Area of the voxels in the slice.
        peak_hu: Highest voxel.
        weight: Density weight, 1 to 4.
        agatston: Contribution to the Agatston score.
    """

    slice: int
    voxels: int
    area_mm2: float
    peak_hu: float
    weight: int
    agatston: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The networks' answer about an unreviewed lesion.

    Attributes:
        artery: Likeliest of MAIN_ARTERIES; UNASSIGNED without territories.
        confidence: Probability of the artery if the lesion is coronary.
        not_coronary_probability: Probability that the lesion is not coronary, by its place or by the networks.
        second: Another artery that is nearly as likely; None if the artery is not doubtful. Not written.
        counts: False for a candidate that an automatic score leaves out.
        reason: Reason to leave it out, or why it is not coronary, in words.
        kinds: Probability of each kind of lesion by the lesion network (`networks.configs.LESION_KINDS`), before
            calibration; empty for place alone, and of the calcium map.
        is_stent: True if it looks like a stent. Not written.
        coronary: Probability of being coronary calcium by the lesion network, before calibration, of its plaque. Not
            written.
        in_artery: Probability of lying in the territory of an artery, of its plaque. Not written.
    """

    artery: Artery
    confidence: float
    not_coronary_probability: float
    second: Artery | None = None
    counts: bool = True
    reason: str = ""
    kinds: dict[str, float] = field(default_factory=dict)
    is_stent: bool = False
    coronary: float = 0.0
    in_artery: float = 0.0

    @property
    def probability(self) -> float:
        """Probability that the lesion is coronary calcium."""
        return 1 - self.not_coronary_probability

    @property
    def arteries(self) -> str:
        """Name of the artery, or names of both likely ones, such as "LAD or LM"."""
        return self.artery.key if self.second is None else f"{self.artery.key} or {self.second.key}"

    def as_written(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of a lesion in `scores.json` that hold its verdict."""
        content = {
            "suggested_artery": self.artery.key,
            "confidence": self.confidence,
            "not_coronary_probability": self.not_coronary_probability,
            "probability": None if self.counts else self.probability,
            "reason": self.reason,
            "kinds": {name: share for name, share in self.kinds.items() if share >= MIN_WRITTEN},
        }
        return {name: value for name, value in content.items() if value not in (None, "", {})}

    @staticmethod
    def as_read(content: dict[str, Any]) -> dict[str, Any]:
        """Return the fields from the keys of a lesion."""
        return {**content, "artery": content.get("suggested_artery"), "counts": "probability" not in content}


@dataclass(frozen=True, kw_only=True)
class Lesion(Score):
    """Slice components of one artery or other site that touch in three dimensions (26 neighbours), with their scores.

    Attributes:
        id: Number in the lesion map, from 1.
        site: Artery, or site outside the coronary arteries; written as "artery" or "site".
        voxels: Number of voxels.
        peak_hu: Highest voxel.
        mean_hu: Mean of the voxels.
        centroid_ras_mm: Mean position of the voxels, Slicer's RAS axes.
        components: Touching voxels, slice by slice.
        verdict: The networks' answer about it; None of lesions that a reader labelled, and of those far from arteries.
        looked_at: False for a lesion of a confirmed score that was never shown to the reader; None if unknown.
        networks_probability: Probability of coronary calcium, by the networks, of a lesion of a reviewed score; None if
            unknown, and of an unreviewed score, whose verdicts hold it.
    """

    id: int
    site: Site
    voxels: int
    peak_hu: float
    mean_hu: float
    centroid_ras_mm: tuple[float, float, float]
    components: tuple[SliceComponent, ...]
    verdict: Verdict | None = None
    looked_at: bool | None = field(default=None, metadata=WHEN_SET)
    networks_probability: float | None = field(default=None, metadata=WHEN_SET)

    def __repr__(self) -> str:
        return f"Lesion({self.id}, {self.site.key}, {self.voxels} voxels, peak {self.peak_hu:.0f} HU)"

    @property
    def status(self) -> str:
        """Status, one of COUNTED, LEFT_OUT and OUTSIDE."""
        return lesion_status(self.site, self.verdict)

    @property
    def slices(self) -> tuple[int, ...]:
        """Slices that the lesion reaches, counted from the feet."""
        return tuple(sorted({c.slice for c in self.components}))

    @property
    def slice_range(self) -> str:
        """Lowest and highest slice, such as "39–41"; empty without slices."""
        return "–".join(map(str, dict.fromkeys((*self.slices[:1], *self.slices[-1:]))))

    @property
    def likely_artery(self) -> str:
        """Key of the artery that the networks suggest; of the site without a verdict, or if it is no artery."""
        is_open = self.verdict is not None and isinstance(self.site, Artery)
        return self.verdict.artery.key if self.verdict is not None and is_open else self.site.key

    def as_written(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of `scores.json`, in which the verdict's lie beside the lesion's own."""
        name = "artery" if isinstance(self.site, Artery) else "site"
        site, verdict = content.pop("site"), content.pop("verdict")
        return {name: site, **content, **(verdict or {})}

    @staticmethod
    def as_read(content: dict[str, Any]) -> dict[str, Any]:
        """Return the fields from the keys of `scores.json`. Raises WrongValueError."""
        name, sites = ("artery", Artery) if "artery" in content else ("site", NonCoronary)
        site = next((site for site in sites if site.key == content.get(name)), None)
        if site is None:
            raise WrongValueError(name, content.get(name))
        return {**content, "site": site, "verdict": content if content.get("suggested_artery") else None}


@dataclass(frozen=True)
class LesionVoxels:
    """Voxels of lesions in a scan.

    Attributes:
        shape: Shape of the scan's array [k, j, i].
        flat: Indices of the voxels in that array, rising [n].
        ids: Lesion of each, uint16 [n].
    """

    shape: tuple[int, int, int]
    flat: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)

    def of(self, ids: Iterable[int]) -> LesionVoxels:
        """Return the voxels of some lesions."""
        is_listed = np.isin(self.ids, list(ids))
        return self if is_listed.all() else LesionVoxels(self.shape, self.flat[is_listed], self.ids[is_listed])

    def looked_up(self, table: np.ndarray) -> np.ndarray:
        """Return the value in a table of each voxel's lesion, by its ID, [k, j, i]; 0 elsewhere."""
        values = np.zeros(self.shape, table.dtype)
        values.reshape(-1)[self.flat] = table[self.ids]
        return values


def lesion_status(site: Site, verdict: Verdict | None) -> str:
    """Return the status of a lesion by its site and verdict."""
    if not isinstance(site, Artery):
        return OUTSIDE
    return COUNTED if verdict is None or verdict.counts else LEFT_OUT


@dataclass(frozen=True, eq=False)
class LesionSet:
    """Table of lesions, a row each, with their voxels.

    Two tables are equal if their rows are.

    Attributes:
        columns: Values by the name of a field of `Lesion`, each [n]; rows as found by site and then from head to feet.
        known_voxels: Voxels of these and perhaps other lesions; None of a result that was read.
    """

    columns: Mapping[str, Sequence[Any]] = field(repr=False, metadata=IN_MEMORY)
    known_voxels: LesionVoxels | None = field(default=None, repr=False, metadata=IN_MEMORY)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LesionSet) and self.lesions == other.lesions

    @classmethod
    def of(cls, lesions: Iterable[Lesion], every: LesionVoxels | None = None) -> LesionSet:
        """Return the table of lesions. every: Their voxels, and perhaps those of others."""
        rows = tuple(lesions)
        table = cls({f.name: [getattr(lesion, f.name) for lesion in rows] for f in fields(Lesion)}, every)
        table.__dict__["lesions"] = rows
        return table

    @property
    def every(self) -> LesionVoxels:
        """Voxels of these and perhaps other lesions; not of a result that was read."""
        assert self.known_voxels is not None
        return self.known_voxels

    @cached_property
    def lesions(self) -> tuple[Lesion, ...]:
        """Rows as lesions."""
        rows = zip(*self.columns.values(), strict=True)
        return tuple(Lesion(**dict(zip(self.columns, row, strict=True))) for row in rows)

    def with_columns(self, **columns: Sequence[Any]) -> LesionSet:
        """Return the table with further or other columns."""
        return LesionSet({**self.columns, **columns}, self.known_voxels)

    def part(self, is_selected: Iterable[object]) -> LesionSet:
        """Return some of the rows. is_selected: True for these, [n]."""
        selection = list(is_selected)
        columns = {name: list(compress(values, selection)) for name, values in self.columns.items()}
        part = LesionSet(columns, self.known_voxels)
        if "lesions" in self.__dict__:  # each row is made once
            part.__dict__["lesions"] = tuple(compress(self.lesions, selection))
        return part

    def of_status(self, *statuses: str) -> LesionSet:
        """Return the rows with a status."""
        return self.part(status in statuses for status in self.statuses)

    def with_ids(self, ids: Iterable[int]) -> LesionSet:
        """Return the rows with these IDs."""
        listed = set(ids)
        return self.part(number in listed for number in self.ids)

    @property
    def ids(self) -> Sequence[int]:
        """IDs of the lesions, in their order."""
        return self.columns["id"]

    @property
    def verdicts(self) -> Sequence[Verdict | None]:
        """Verdicts about the lesions."""
        return self.columns.get("verdict", [None] * len(self.ids))

    @property
    def statuses(self) -> list[str]:
        """Status of each lesion."""
        return list(map(lesion_status, self.columns["site"], self.verdicts))

    @property
    def coronary(self) -> LesionSet:
        """Lesions of arteries, those not assigned included."""
        return self.of_status(COUNTED, LEFT_OUT)

    @property
    def non_coronary(self) -> LesionSet:
        """Lesions outside the coronary arteries."""
        return self.of_status(OUTSIDE)

    @cached_property
    def voxels(self) -> LesionVoxels:
        """Voxels of these lesions."""
        return self.every.of(self.ids)

    @cached_property
    def id_map(self) -> np.ndarray:
        """Lesion's id at its voxels, else 0, uint16 [k, j, i]."""
        return self.voxels.looked_up(np.arange(max(self.ids, default=0) + 1, dtype=np.uint16))

    @property
    def site_of_ids(self) -> np.ndarray:
        """Label of the `Site` of the lesion with each id, 0 without one, uint8 [highest id + 1]."""
        sites = np.zeros(max(self.ids, default=0) + 1, np.uint8)  # ids have gaps once lesions were removed
        sites[list(self.ids)] = self.columns["site"]
        return sites

    def site_map(self) -> np.ndarray:
        """Return the label of the `Site` at each lesion's voxels, else 0, uint8 [k, j, i]."""
        return self.voxels.looked_up(self.site_of_ids)

    def label_image(self, grid: sitk.Image) -> sitk.Image:
        """Return the site map as an image. grid: Image that the lesions were found in."""
        return Grid.of(grid).image(self.site_map())


@dataclass(frozen=True)
class NonCoronaryScore:
    """Scores of calcium outside the coronary arteries, by the clinical rule.

    Its lesions are `MethodScore.outside`; they are written as `lesion_list`.

    Attributes:
        reviewed: True if a reader assigned its sites; else they are suggested by the territories.
        aortic_valve: Score of the site, as are the next three.
    """

    reviewed: bool
    aortic_valve: Score
    mitral_annulus: Score
    thoracic_aorta: Score
    other: Score

    @property
    def scores(self) -> SiteMap[NonCoronary, Score]:
        """Score of each site, those without calcium included."""
        return SiteMap({site: getattr(self, site.key) for site in NonCoronary})


@dataclass(frozen=True, kw_only=True)
class MethodScore:
    """Scores by one method: the table of its lesions, and the sums of those that count.

    Attributes:
        status: Key of STATUSES.
        rules: Scoring rules.
        total: Score of all lesions that count.
        arteries: Score of each artery, those without calcium included; by label or name.
        no_calcium: True if a reader reviewed the scan and labelled nothing.
        table: All lesions with their status: counted, left out (those that a reader has assigned to no artery, too,
            unless the result was read), and outside the arteries. `lesions`, `left_out` and `outside` are views of it.
        features: Features of the lesions; None if not measured.
        non_coronary: Calcium outside the arteries by the clinical rule, also of the calcium map; None if unknown.
        category_probabilities: Probability of each score category; empty if unknown, withheld or reviewed.
        alternative_agatston: Total without possible stents if they make its class; else with the largest decisive
            doubtful lesion counted, if it does not count, or without it if it does; None if none decides.
        alternative_lesion: ID of that lesion, the largest of possible stents.
        withheld: True if the scan is out of the calibration range, or possible stents make the class, so that intervals
            and categories are withheld.
        calibrated_on: Reference scans that the intervals were calibrated on; None for digital patients.
    """

    status: str
    rules: ScoringRules
    total: SumScore
    arteries: SiteMap[Artery, SumScore]
    no_calcium: bool = False
    table: LesionSet = field(repr=False)
    features: Features | None = None
    non_coronary: NonCoronaryScore | None = None
    category_probabilities: dict[str, float] = field(default_factory=dict, metadata=IN_MEMORY)
    alternative_agatston: float | None = field(default=None, metadata=WHEN_SET)
    alternative_lesion: int | None = field(default=None, metadata=WHEN_SET)
    withheld: bool = field(default=False, metadata=IN_MEMORY)
    calibrated_on: CalibratedOn | None = field(default=None, metadata=IN_MEMORY)

    def __repr__(self) -> str:
        return f"MethodScore({self.status}, agatston={self.total.clinical_agatston:.1f}, lesions={self.total.lesions})"

    @property
    def reviewed(self) -> bool:
        """True if a person assigned the lesions to arteries."""
        return self.status == "reviewed"

    @property
    def is_map(self) -> bool:
        """True for the calcium map, whose scores on the clinical scale follow from masses."""
        return self.rules.is_map

    @property
    def has_intervals(self) -> bool:
        return any(score.interval_90 is not None for score in (self.total, *self.arteries.values()))

    @property
    def probabilities_withheld(self) -> bool:
        """True if the score has an interval but is too high for category probabilities (CATEGORISED_BELOW)."""
        return not self.reviewed and self.has_intervals and self.total.clinical_agatston >= CATEGORISED_BELOW

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """Lesions that count."""
        return self.lesion_set.lesions

    @property
    def left_out(self) -> tuple[Lesion, ...]:
        """Candidates that an automatic score leaves out, each in its likeliest artery."""
        return self.left_out_set.lesions

    @property
    def outside(self) -> tuple[Lesion, ...]:
        """Lesions outside the coronary arteries."""
        return self.outside_set.lesions

    @property
    def listed(self) -> tuple[Lesion, ...]:
        """Lesions that count, those left out, and those outside the arteries."""
        return (*self.lesions, *self.left_out, *self.outside)

    @cached_property
    def lesion_set(self) -> LesionSet:
        """Rows of the lesions that count."""
        return self.table.of_status(COUNTED)

    @cached_property
    def left_out_set(self) -> LesionSet:
        """Rows of the candidates that an automatic score leaves out, each in its likeliest artery."""
        rows = self.table.of_status(*((LEFT_OUT,) if self.status == "automatic" else ()))
        return rows.with_columns(site=[verdict.artery for verdict in rows.verdicts if verdict is not None])

    @cached_property
    def outside_set(self) -> LesionSet:
        """Rows of the lesions outside the coronary arteries."""
        return self.table.of_status(OUTSIDE)

    def counted_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the `Artery` labels of the lesions that count, 0 elsewhere.

        Args:
            labels: Content of `lesions.nii.gz` or `map_lesions.nii.gz`, uint8; the first also holds calcium outside the
                coronary arteries, and as UNASSIGNED the candidates that an automatic score leaves out.
        """
        last = Artery.OTHER if self.left_out else max(Artery)
        return np.where(labels <= last, labels, np.uint8(0))

    def as_written(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of `scores.json`, which hold what follows from the fields too."""
        equivalent = self.total.clinical_agatston if self.is_map else None
        views = {name: content_of(getattr(self, name)) for name in ("lesions", "left_out", "outside")}
        parts: dict[str, Any] = {}
        for name, part in content.items():
            parts |= views if name == "table" else {name: part}
        return {**parts, "reviewed": self.reviewed, "scaled_agatston": equivalent, "agatston_scale": None}

    @staticmethod
    def as_read(content: dict[str, Any]) -> dict[str, Any]:
        """Return the fields from the keys of `scores.json`. Raises WrongValueError."""
        keys = {"lesions": "lesions", "left_out": "left_out", "outside": "non_coronary.lesion_list"}
        views = {name: decoded(content.get(name, ()), tuple[Lesion, ...], key) for name, key in keys.items()}
        left_out = [replace(lesion, site=Artery.UNASSIGNED) for lesion in views["left_out"]]
        for number, lesion in enumerate(left_out):
            if lesion.status != LEFT_OUT:
                raise WrongValueError(f"left_out[{number}].probability")
        total = decoded(content.get("total"), SumScore, "total")
        arteries = decoded(content.get("arteries"), SiteMap[Artery, SumScore], "arteries")
        is_blind = content.get("status") == "candidates" and not total.lesions  # of a reading without the networks
        summed = () if is_blind else views["lesions"]
        check_sums(total, [(artery.key, score) for artery, score in arteries.items()], summed)
        for name, lesions in views.items():
            for number, lesion in enumerate(lesions):
                check_signs(lesion, f"{keys[name]}[{number}]")
        table = LesionSet.of((*views["lesions"], *left_out, *views["outside"]))
        return {**content, "total": total, "arteries": arteries, "table": table}
