"""Records of a study's scans: scores by every method, and the truth if known; stored as lines of JSON.

`studies.truth` makes the records from images; the studies (`reproducibility`, `detection`, …) read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from CACScoringLib.record.score_record import ModelRecord

MG, HU_MM3 = "mg", "HU·mm³"
"""Units of mass: mg for digital patients (pseudo-mass over the HU that 1 mg in 1 mm³ adds), pseudo-mass for others."""


@dataclass(frozen=True)
class Value:
    """One method's score of one scan. The method "slices" has its count as mass and Agatston score, and no arteries.

    Attributes:
        mass: Mass in the record's unit.
        agatston: Agatston score, on the clinical scale if the model has it.
        arteries: Mass and Agatston score by artery (ARTERIES).
    """

    mass: float
    agatston: float
    arteries: dict[str, tuple[float, float]]

    def score(self, quantity: str, arteries: Sequence[str] | None = None) -> float:
        """Mass ("mass") or Agatston score ("agatston"), in total or in some arteries."""
        if arteries is None:
            return self.mass if quantity == "mass" else self.agatston
        return sum(self.arteries.get(artery, (0.0, 0.0))[quantity == "agatston"] for artery in arteries)


@dataclass(frozen=True)
class Truth:
    """True calcium of a patient.

    Attributes:
        mass_mg: Coronary calcium.
        arteries_mg: Coronary calcium by artery.
        distractors: Kinds of non-coronary calcium and metal.
    """

    mass_mg: float
    arteries_mg: dict[str, float]
    distractors: tuple[str, ...]

    def mass(self, arteries: Sequence[str] | None = None) -> float:
        """True mass in mg, in total or in some arteries."""
        return self.mass_mg if arteries is None else sum(self.arteries_mg.get(artery, 0.0) for artery in arteries)


@dataclass(frozen=True)
class HeartAgreement:
    """Agreement of the segmented with the reference heart.

    Attributes:
        dice: Dice coefficient.
        hausdorff_mm: Hausdorff distance.
        surface_mm: Average symmetric surface distance.
    """

    dice: float
    hausdorff_mm: float
    surface_mm: float


@dataclass(frozen=True)
class ScoringFacts:
    """Acquisition of a scan, and how it was scored.

    Attributes:
        models: Models that scored it.
        warnings: Codes of the warnings.
        decomposition_settings: Settings of the map.
        candidate_evidence: Calibration of the automatic clinical score's lesions; None without such a score.
        hu_mm3_per_mass: HU·mm³ for one unit of mass.
        kvp: Tube voltage.
        slice_thickness_mm: Slice thickness.
        slice_spacing_mm: Distance of the slices.
    """

    models: tuple[ModelRecord, ...] = ()
    warnings: tuple[str, ...] = ()
    decomposition_settings: dict[str, object] | None = None
    candidate_evidence: dict[str, object] | None = None
    hu_mm3_per_mass: float = 1.0
    kvp: float | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None


@dataclass(frozen=True)
class StudyRecord:
    """One scan of a pair.

    Attributes:
        name: Name of the scan in the cohort.
        patient: Patient ID.
        number: 1 or 2.
        unit: Unit of mass, MG or HU_MM3.
        values: Score by METHODS, as far as available.
        visible: True if coronary calcium is visible, by the truth or else by the reader's regions; None if unknown.
        visible_arteries: Arteries with visible calcium; None if unknown.
        truth: True calcium, if known.
        slices: Visibility of calcium and the classifier's probability, for each slice with heart.
        slice_threshold: Probability from which the classifier calls a slice positive.
        map_lesions: Artery and mass of each lesion of the map, and True if it holds coronary calcium, None if unknown.
        heart: Agreement of the segmented heart, if a reference is known.
        facts: Acquisition and scoring.
        refused: Reason why it could not be scored; then `values` is empty.
        warnings: Sentences about files that could not be read.
    """

    name: str
    patient: str
    number: int
    unit: str
    values: dict[str, Value] = field(default_factory=dict)
    visible: bool | None = None
    visible_arteries: tuple[str, ...] | None = None
    truth: Truth | None = None
    slices: tuple[tuple[bool, float], ...] = ()
    slice_threshold: float = 0.0
    map_lesions: tuple[tuple[str, float, bool | None], ...] = ()
    heart: HeartAgreement | None = None
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
        if self.truth is None or self.visible is None:
            return None
        if self.truth.mass_mg > 0:
            return "hidden"
        return "distractor" if self.truth.distractors else "clean"


def pairs_of(records: Iterable[StudyRecord]) -> list[tuple[StudyRecord, StudyRecord]]:
    """Return scans 1 and 2 of each patient with both scored, in the order of the records."""
    by_patient: dict[str, dict[int, StudyRecord]] = {}
    for record in records:
        if record.refused is None:
            by_patient.setdefault(record.patient, {})[record.number] = record
    return [(scans[1], scans[2]) for scans in by_patient.values() if {1, 2} <= set(scans)]
