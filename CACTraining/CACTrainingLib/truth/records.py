"""The table that every study reads: scores and lesions of each scan by every method, beside what is true of it.

A `ComparedScan` is stored as a line of JSON. Studies see them as long tables of scores, pairs and lesions; `Sample` and
`ComparedScans` hold the scans of a study, without and with a reference score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.record.score_record import ModelRecord
from CACScoringLib.record.scores import MethodScore
from CACScoringLib.scoring.uncertainty import TOTAL

from ..evaluation.measures import ExperimentComparison, long_table, value_row
from ..evaluation.papers import texts_of
from ..evaluation.parts import METHODS, count
from ..references.reference import ReferenceScan
from .scored_scan import SCORED_METHODS

MG, HU_MM3 = "mg", "HU·mm³"
"""Units of mass: mg for digital patients (pseudo-mass over the HU that 1 mg in 1 mm³ adds), pseudo-mass for others."""

MASS, AGATSTON = "mass", "agatston"

Scores = dict[str, tuple[float, float]]
"""One method's mass in the record's unit and Agatston score, on the clinical scale if the model has it, of one scan: of
TOTAL and of ARTERIES. The method "slices" has its count as both, and no arteries."""

HEART_MEASURES = ("dice", "hausdorff_mm", "surface_mm")
"""Agreement of hearts: Dice coefficient, Hausdorff distance, average symmetric surface distance."""


def amount(scores: Scores, quantity: str, parts: Sequence[str]) -> float:
    """Return a mass (MASS) or an Agatston score (AGATSTON), summed over TOTAL or some arteries."""
    return sum(scores.get(part, (0.0, 0.0))[quantity == AGATSTON] for part in parts)


@dataclass(frozen=True)
class ScoringFacts:
    """Acquisition of a scan, and how it was scored.

    Attributes:
        models: Models that scored it.
        warnings: Codes of the warnings.
        severe: Codes of those that are severe in this scan.
        seconds: Duration of scoring.
        decomposition_settings: Settings of the map.
        candidate_evidence: Calibration of the automatic clinical score's lesions; None without such a score.
        calibration: Facts for the calibration range; None if the clinical score is not automatic, or by an earlier
            version.
        hu_mm3_per_mass: HU·mm³ for one unit of mass.
        kvp: Tube voltage.
        slice_thickness_mm: Slice thickness.
        slice_spacing_mm: Distance of the slices.
    """

    models: tuple[ModelRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    severe: tuple[str, ...] = ()
    seconds: float = 0.0
    decomposition_settings: dict[str, object] | None = None
    candidate_evidence: dict[str, object] | None = None
    calibration: dict[str, float | None] | None = None
    hu_mm3_per_mass: float = 1.0
    kvp: float | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None


@dataclass(frozen=True)
class LesionRow:
    """A lesion that a method lists, or one of the reference as a method sees it.

    Attributes:
        method: Key of METHODS.
        lesion: Number among the lesions that the method lists, or among those of the reference, the largest first.
        of_reference: True for a lesion of the reference.
        artery: Key of its site: by the reference if it is one of the reference, else by the method.
        true: True if the reference has coronary calcium there; None if unknown.
        found: True if it counts, or if the method counts any of it.
        named: Key of the site that the method assigns; None for a lesion of the reference that it does not count.
        agatston: Agatston score, on the clinical scale.
        mass: Mass in the scan's unit.
        at: Key of the site that the reference labels at a false positive.
        picture: Picture of an error, relative to the output.
    """

    method: str
    lesion: int
    of_reference: bool
    artery: str
    true: bool | None
    found: bool
    named: str | None
    agatston: float
    mass: float
    at: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class ComparedScan:
    """A scan, scored and compared with its reference.

    Attributes:
        name: Name of the scan in the reference.
        patient: Patient ID.
        number: 1 or 2 for the scans of a pair.
        folder: Name of the folder of its results.
        unit: Unit of mass, MG or HU_MM3.
        values: Score by METHODS, as far as available.
        total: Agatston score of the reference; None if unknown.
        vessels: Agatston score of the reference by vessel.
        has_outlines: True if it is known where all coronary calcium lies.
        lesions: Lesions of methods and reference.
        visible: True if coronary calcium is visible, by the truth or else by the reader's regions; None if unknown.
        visible_arteries: Arteries with visible calcium; None if unknown.
        truth_mg: True coronary calcium of TOTAL and of ARTERIES, if known.
        distractors: Kinds of true non-coronary calcium and metal.
        slices: Visibility of calcium and the classifier's probability, for each slice with heart.
        slice_threshold: Probability from which the classifier calls a slice positive.
        heart: HEART_MEASURES of the segmented heart, if a reference is known.
        facts: Acquisition and scoring.
        refused: Reason why it could not be scored; then `values` is empty.
        warnings: Sentences about files that could not be read.
    """

    name: str
    patient: str
    number: int = 1
    folder: str = ""
    unit: str = HU_MM3
    values: dict[str, Scores] = field(default_factory=dict)
    total: float | None = None
    vessels: dict[str, float] = field(default_factory=dict)
    has_outlines: bool = False
    lesions: tuple[LesionRow, ...] = ()
    visible: bool | None = None
    visible_arteries: tuple[str, ...] | None = None
    truth_mg: dict[str, float] | None = None
    distractors: tuple[str, ...] = ()
    slices: tuple[tuple[bool, float], ...] = ()
    slice_threshold: float = 0.0
    heart: dict[str, float] | None = None
    facts: ScoringFacts = ScoringFacts()
    refused: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> str | None:
        """Kind of the scan; None if unknown.

        - "visible": visible coronary calcium.
        - "hidden": coronary calcium that is visible in no slice.
        - "distractor": non-coronary calcium or metal only.
        - "clean": no calcium.
        """
        if self.visible:
            return "visible"
        if self.truth_mg is None or self.visible is None:
            return None
        if self.truth_mg[TOTAL] > 0:
            return "hidden"
        return "distractor" if self.distractors else "clean"

    @property
    def reference_total(self) -> float:
        """Agatston score of the reference, where one is known."""
        assert self.total is not None
        return self.total

    def measured(self, method: str, parts: Sequence[str] = (TOTAL,)) -> float:
        """Return the Agatston score by a method, summed over arteries."""
        return amount(self.values[method], AGATSTON, parts)


def lesion_table(scans: Iterable[ComparedScan], vessels: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Long table of the lesions of all scans: the scan, its patient, and the fields of `LesionRow`.

    vessels: Arteries by vessel of the reference, whose names take the arteries' place; of another site, None.
    """
    rows = [{"scan": scan.name, "patient": scan.patient, **vars(row)} for scan in scans for row in scan.lesions]
    table = pd.DataFrame(rows, columns=["scan", "patient", *LesionRow.__dataclass_fields__])
    if vessels is None:
        return table
    of_artery = {artery: vessel for vessel, arteries in vessels.items() for artery in arteries}
    return table.assign(**{name: [of_artery.get(key) for key in table[name]] for name in ("artery", "named")})


def pairs_of(records: Iterable[ComparedScan]) -> list[tuple[ComparedScan, ComparedScan]]:
    """Return scans 1 and 2 of each patient with both scored, in the order of the records."""
    by_patient: dict[str, dict[int, ComparedScan]] = {}
    for record in records:
        if record.refused is None:
            by_patient.setdefault(record.patient, {})[record.number] = record
    return [(scans[1], scans[2]) for scans in by_patient.values() if {1, 2} <= set(scans)]


def refused(scan: ReferenceScan, reason: str) -> ComparedScan:
    """Record of a scan that could not be scored, or whose truth could not be read."""
    unit = HU_MM3 if scan.truth is None else MG
    return ComparedScan(scan.name, scan.patient, scan.number, unit=unit, refused=reason)


def scores_of(method: MethodScore, per_mass: float) -> Scores:
    """Scores of a method. Lesions that no reader assigned count for the suggested artery.

    per_mass: HU·mm³ for one unit of mass.
    """
    scores = {TOTAL: (method.total.pseudo_mass_hu_mm3 / per_mass, method.total.clinical_agatston)}
    for artery in ARTERIES:
        lesions = [lesion for lesion in method.lesions if lesion.likely_artery == artery]
        masses = (lesion.pseudo_mass_hu_mm3 / per_mass for lesion in lesions)
        scores[artery] = sum(masses, 0.0), sum((lesion.clinical_agatston for lesion in lesions), 0.0)
    return scores


WITH_AGATSTON = ("map", "reader", "automatic")
"""Methods with an Agatston score."""
WITH_MASS = ("map", "reader", "automatic", "noise_free")
"""Methods with a calcium mass; the control only counts slices."""
CALCIUM_MAP = "map"
"""Key of the method that the others are compared with."""
CEILING = "noise_free"
"""Key of the method left out of comparisons, because no method on the scan itself can reach it."""
VESSELS = {"LM and LAD": ("LM", "LAD"), "LCX": ("LCX",), "RCA": ("RCA",)}
"""Arteries by vessel; the left main belongs to the descending artery, as in table 3 of van Velzen et al."""
TEXTS = texts_of("pairs")
"""Texts of all studies of scan pairs."""

TOTALS = {TOTAL: (TOTAL,)}
"""Vessels of `score_table` for the score of all arteries."""

CONDITIONS = ("number", "quantity", "kind", "visible", "distractors")
"""Conditions of `score_table`."""


Pair = tuple[ComparedScan, ComparedScan]


class Sample(ExperimentComparison):
    """The scans of a study. Raises CTError.

    Attributes:
        records: Records of all scans.
        scans: Records of the scored scans.
        pairs: Records of both scans of a patient.
        unit: Unit of mass.
        titles: Titles of the methods that any scan has a value of.
        reference: Method that the others are compared with.
    """

    def __init__(
        self,
        records: Sequence[ComparedScan],
        generator: np.random.Generator,
        titles: Mapping[str, str] = METHODS,
        reference: str = CALCIUM_MAP,
    ) -> None:
        self.records = tuple(records)
        self.scans = tuple(record for record in records if record.refused is None)
        self.pairs = tuple(pairs_of(records))
        units = sorted({record.unit for record in self.scans})
        if len(units) > 1:
            raise CTError(f"The scans' masses are in {' and in '.join(units)}. Evaluate them as two studies.")
        self.unit = units[0] if units else ""
        existing = {m: title for m, title in titles.items() if any(m in record.values for record in self.scans)}
        super().__init__([scan.patient for scan in self.scans], existing, generator, reference, CEILING)

    def opening(self) -> str:
        """Paragraph with the numbers of scans, pairs and patients, and the refused scans."""
        refused = [record for record in self.records if record.refused is not None]
        scored = f"{count(self.scans, 'scan')} of {count({scan.patient for scan in self.scans}, 'patient')} were scored"
        text = f"{scored}, among them {count(self.pairs, 'complete pair')}."
        if refused:
            first = "; ".join(f"{record.name}: {record.refused}" for record in refused[:3])
            more = "" if len(refused) <= 3 else f"; and {len(refused) - 3} more"
            text += f" {count(refused, 'scan')} could not be scored ({first}{more})."
        return text


def score_table(
    records: Sequence[ComparedScan], quantity: str = MASS, vessels: Mapping[str, Sequence[str]] = TOTALS
) -> pd.DataFrame:
    """Long table of scans by all methods. The truth is the true mass in mg, NaN if unknown.

    Its conditions are `quantity`, and of the record `number`, `kind`, `visible`, which is the vessel's where there are
    vessels, and `distractors`: True with non-coronary calcium or metal.

    Args:
        records: Records of scored scans.
        quantity: MASS or AGATSTON.
        vessels: Parts of the score by vessel, a row for each.
    """
    rows = []
    for record in records:
        for vessel, parts in vessels.items():
            visible = record.visible if vessel == TOTAL else bool({*parts} & {*(record.visible_arteries or ())})
            true_mass = math.nan if record.truth_mg is None else sum(record.truth_mg.get(part, 0.0) for part in parts)
            conditions = (record.number, quantity, record.kind, visible, bool(record.distractors))
            about = dict(zip(CONDITIONS, conditions, strict=True))
            rows += [
                value_row(record, method, amount(scores, quantity, parts), true_mass, vessel, **about)
                for method, scores in record.values.items()
            ]
    return long_table(rows, CONDITIONS)


def all_scores(records: Sequence[ComparedScan]) -> pd.DataFrame:
    """Long table of masses and Agatston scores of scored scans, in total and by artery."""
    vessels = {**TOTALS, **{artery: (artery,) for artery in ARTERIES}}
    return pd.concat([score_table(records, quantity, vessels) for quantity in (MASS, AGATSTON)])


def pair_table(
    pairs: Sequence[Pair],
    quantity: str = MASS,
    vessels: Mapping[str, Sequence[str]] = TOTALS,
) -> pd.DataFrame:
    """Long table of pairs: the truth is the first scan's score, the value the second's; `visible` holds of both.

    Arguments as for `score_table`.
    """
    first, second = (score_table(scans, quantity, vessels) for scans in ([a for a, _ in pairs], [b for _, b in pairs]))
    key = ["patient", "method", "item"]
    table = first.merge(second, on=key, suffixes=("", "_second"), how="inner")
    table = table.assign(truth=table.value, value=table.value_second)
    return table.assign(visible=table.visible.eq(True) & table.visible_second.eq(True))


class ComparedScans(ExperimentComparison):
    """All compared scans, by the methods that scored all of them.

    Attributes:
        scans: The scans.
        vessels: Vessels of the `Reference`.
        methods: Keys of the methods, the clinical one first.
        totals: Long table of the total scores against the reference's.
    """

    def __init__(
        self, scans: Sequence[ComparedScan], generator: np.random.Generator, vessels: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.scans, self.vessels = tuple(scans), vessels
        self.methods = tuple(key for key in SCORED_METHODS if all(key in scan.values for scan in scans))
        super().__init__([scan.patient for scan in scans], {key: METHODS[key] for key in self.methods}, generator)
        self.totals = long_table(
            value_row(scan, method, scan.measured(method), scan.reference_total)
            for scan in scans
            for method in SCORED_METHODS
            if method in scan.values
        )

    @property
    def severe(self) -> tuple[str, ...]:
        """Names of the scans with a severe warning."""
        return tuple(scan.name for scan in self.scans if scan.facts.severe)

    @property
    def marked(self) -> str:
        """Sentence of a caption on these scans."""
        return f"Red rings: scans with a severe warning, which count too ({len(self.severe)} of {len(self.scans)})."

    def vessel_scores(self) -> pd.DataFrame:
        """Long table of the vessels' scores, of the scans whose reference has them."""
        return long_table(
            value_row(scan, method, scan.measured(method, arteries), scan.vessels[vessel], vessel)
            for vessel, arteries in self.vessels.items()
            for scan in self.scans
            if vessel in scan.vessels
            for method in SCORED_METHODS
            if method in scan.values
        )
