"""Compared scans: scores and lesions of every method beside what is true of the scan; stored as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.record.score_record import ModelRecord
from CACScoringLib.record.scores import MethodScore
from CACScoringLib.scoring.uncertainty import TOTAL

from ..references.reference import ReferenceScan

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
