"""The content of a `scores.json` as frozen dataclasses, whose fields are its keys.

A field with a default may be missing while it is empty (WHEN_SET); keys without a field are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..core.acquisition import Acquisition
from ..core.ct import ScanWarning
from ..core.decoding import WHEN_SET, content_of
from ..core.files import SCHEMA
from ..core.labels import Artery, NonCoronary
from ..core.warning_codes import ADVICE_AFTER_REVIEW
from .features import Features
from .findings import BloodPool, CalibratedOn, Categories, EpicardialFat, Familiarity, MassCalibration, Normalisation
from .provenance import Provenance
from .review_record import ReviewRecord


@dataclass(frozen=True)
class InputRecord:
    """The scan.

    Attributes:
        name: Name of the scan; None if it has none.
        size: Columns, rows and slices.
        spacing_mm: Distances of voxels, x, y and z.
        voxels_sha256: SHA-256 of the voxels (`CTScan.voxels_sha256`).
        series_sha256: SHA-256 of the DICOM series UID; None of other files.
    """

    name: str | None
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels_sha256: str
    series_sha256: str | None = None


@dataclass(frozen=True)
class HeartRecord:
    """The heart. source: Network or method that located it, or "given"."""

    source: str


@dataclass(frozen=True)
class ModelRecord:
    """A network that made the result."""

    name: str
    network: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ScoreEntry:
    """Scores of a lesion, an artery or the whole scan, as `scoring.scores.Score` and `scoring.mass.CalciumMass`."""

    agatston: float
    volume_mm3: float | None = None
    mass_mg: float | None = None
    pseudo_mass_hu_mm3: float
    lesions: int
    peak_hu: float | None = None
    clinical_agatston: float
    integrated_mass_mg: float | None = None
    mass_standard_error_mg: float | None = None

    def cells(self, is_map: bool) -> dict[str, Any]:
        """Return the cells of tables by column: the fields, but agatston on the clinical scale."""
        adjusted = self.agatston if is_map else None
        return {**vars(self), "agatston": self.clinical_agatston, "adjusted_agatston": adjusted}


@dataclass(frozen=True, kw_only=True)
class IntervalEntry(ScoreEntry):
    """Scores of an artery or the whole scan, with 90 % prediction intervals."""

    interval_90: tuple[float, float] | None = None
    mass_interval_90: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ComponentRecord:
    """Part of a lesion in one slice. slice: Index from the scan's lowest slice."""

    slice: int
    voxels: int = 0
    area_mm2: float
    peak_hu: float | None = None
    weight: int
    agatston: float | None = None


@dataclass(frozen=True, kw_only=True)
class LesionRecord(ScoreEntry):
    """A lesion in a coronary artery or elsewhere.

    Attributes:
        suggested_artery: Key of the artery that its place suggests; None for reviewed lesions.
        confidence: Probability of the suggested artery.
        not_coronary_probability: Probability that it is no coronary calcium.
        reason: Reason why it is left out.
        evidence: Feature values by name; empty if it was not evaluated.
        looked_at: False for a lesion of a confirmed score that was never shown to the reader; None if unknown.
    """

    id: int
    voxels: int
    mean_hu: float | None = None
    centroid_ras_mm: tuple[float, float, float]
    components: tuple[ComponentRecord, ...]
    suggested_artery: str | None = field(default=None, metadata=WHEN_SET)
    confidence: float | None = field(default=None, metadata=WHEN_SET)
    not_coronary_probability: float | None = field(default=None, metadata=WHEN_SET)
    reason: str = field(default="", metadata=WHEN_SET)
    evidence: dict[str, float] = field(default_factory=dict, metadata=WHEN_SET)
    looked_at: bool | None = field(default=None, metadata=WHEN_SET)


@dataclass(frozen=True, kw_only=True)
class ArteryLesionRecord(LesionRecord):
    """A lesion of a method.

    Attributes:
        artery: Key of its artery.
        probability: Probability that a left-out candidate is coronary calcium.
    """

    artery: str
    probability: float | None = field(default=None, metadata=WHEN_SET)

    @property
    def likely_artery(self) -> str:
        """The suggested artery; the assigned one if none is suggested."""
        return self.suggested_artery or self.artery


@dataclass(frozen=True)
class MethodRecord:
    """Scores by one method, as `scoring.methods.MethodResult`."""

    status: str
    reviewed: bool
    total: IntervalEntry
    arteries: dict[str, IntervalEntry]
    agatston_scale: float | None = None
    scaled_agatston: float | None = None
    no_calcium: bool = False
    lesions: tuple[ArteryLesionRecord, ...] = ()
    left_out: tuple[ArteryLesionRecord, ...] = ()
    features: Features | None = None

    def counted_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the `Artery` labels of the lesions that count, 0 elsewhere.

        Args:
            labels: Content of `lesions.nii.gz` or `map_lesions.nii.gz`, uint8; the first also holds calcium outside the
                coronary arteries, and as UNASSIGNED the candidates that an automatic score leaves out.
        """
        last = Artery.OTHER if self.left_out else max(Artery)
        return np.where(labels <= last, labels, np.uint8(0))


@dataclass(frozen=True, kw_only=True)
class SiteLesionRecord(LesionRecord):
    """A lesion outside the coronary arteries. site: Key of `NonCoronary`."""

    site: str


@dataclass(frozen=True)
class NonCoronaryRecord:
    """Calcium outside the coronary arteries by the clinical rule."""

    reviewed: bool
    aortic_valve: ScoreEntry
    mitral_annulus: ScoreEntry
    thoracic_aorta: ScoreEntry
    other: ScoreEntry
    lesion_list: tuple[SiteLesionRecord, ...] = ()

    @property
    def sites(self) -> dict[NonCoronary, ScoreEntry]:
        """Scores by site."""
        return {site: getattr(self, site.key) for site in NonCoronary}


@dataclass(frozen=True)
class EstimateModelRecord:
    """The network of a whole-scan estimate."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EstimateRecord:
    """A whole-scan estimate, as `whole_scan.estimates.WholeScanEstimate`: scores by artery, or a probability.

    Attributes:
        calcium: True if it predicts coronary calcium.
        risk_class: Class of the total.
        agreement: Agreement with each method; None with one that nobody reviewed.
    """

    model: EstimateModelRecord
    trust: str
    calcium: bool | None = None
    agatston: dict[str, float] | None = field(default=None, metadata=WHEN_SET)
    total: float | None = field(default=None, metadata=WHEN_SET)
    risk_class: str | None = field(default=None, metadata=WHEN_SET)
    slice_weights: tuple[float, ...] | None = None
    probability: float | None = field(default=None, metadata=WHEN_SET)
    limit: float | None = field(default=None, metadata=WHEN_SET)
    contributions: dict[str, float] = field(default_factory=dict, metadata=WHEN_SET)
    agreement: dict[str, dict[str, object] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TruthRecord:
    """Truth of a digital patient. mass_mg: Mass of calcium, "total" and by artery."""

    mass_mg: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """The content of a `scores.json`, whose keys the fields are; the reference of results describes them.

    Attributes:
        rules: Fields of `ScoringRules` by method.
        second_opinions: Whole-scan estimates by network.
    """

    input: InputRecord
    acquisition: Acquisition
    measured: BloodPool | None = None
    normalisation: Normalisation | None = None
    familiarity: Familiarity | None = None
    mass_calibration: MassCalibration | None = None
    heart: HeartRecord
    epicardial_fat: EpicardialFat | None = None
    warnings: tuple[ScanWarning, ...]
    rules: dict[str, dict[str, object]]
    models: tuple[ModelRecord, ...]
    methods: dict[str, MethodRecord]
    non_coronary: NonCoronaryRecord | None = None
    territories: dict[str, object] | None = None
    slice_probabilities: tuple[float | None, ...] | None = None
    slices_positive_from: float | None = None
    slices_by_reader: dict[str, str] = field(default_factory=dict)
    slices_decomposed: tuple[bool, ...] | None = None
    decomposition_settings: dict[str, object] | None = None
    candidate_evidence: dict[str, object] | None = None
    calibrated_on: CalibratedOn | None = None
    categories: Categories | None = None
    truth: TruthRecord | None = None
    second_opinions: dict[str, EstimateRecord] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: Provenance | None = None
    review: ReviewRecord | None = field(default=None, metadata=WHEN_SET)

    def as_json(self, identify: bool = False) -> dict[str, Any]:
        """Return the content of `scores.json`. identify: As in `Acquisition.facts`."""
        return {"schema": SCHEMA, **content_of(self), "acquisition": self.acquisition.facts(identify)}

    @property
    def provenance_cells(self) -> dict[str, str | None]:
        """Cells of `provenance.COLUMNS`; empty if the provenance is unknown."""
        confirmation = None if self.review is None else self.review.confirmation
        confirmed = (None, None) if confirmation is None else (confirmation.reader, confirmation.time)
        return {} if self.provenance is None else self.provenance.cells(self.input.voxels_sha256, *confirmed)

    @property
    def noise_hu(self) -> float | None:
        """Noise of the scan; None if it could not be measured."""
        return None if self.measured is None else self.measured.noise_hu

    @property
    def model_hashes(self) -> dict[str, str]:
        """SHA-256 of the models by network."""
        return {model.network: model.sha256 for model in self.models}

    @property
    def warning_codes(self) -> tuple[str, ...]:
        """Codes of the warnings, each once."""
        return tuple(dict.fromkeys(warning.code for warning in self.warnings))

    def severe_warnings(self, name: str) -> list[ScanWarning]:
        """Return the severe warnings, which every command that uses the score repeats. name: The scan in them."""
        reviewed = "threshold" in self.methods and self.methods["threshold"].reviewed
        severe = [warning for warning in with_severity(self.warnings, reviewed) if warning.severe]
        return [replace(warning, message=f"{name}: {warning.message}") for warning in severe]


def with_severity(warnings: Iterable[ScanWarning], reviewed: bool) -> list[ScanWarning]:
    """Return warnings as severe as they are for a score.

    reviewed: True if a reader confirmed the score, so that warnings of automatic scores are not severe.
    """
    milder = ADVICE_AFTER_REVIEW if reviewed else {}
    return [replace(warning, severe=False) if warning.code in milder else warning for warning in warnings]


def severe_first(warnings: Iterable[ScanWarning]) -> list[ScanWarning]:
    """Return warnings in their order, the severe ones first."""
    return sorted(warnings, key=lambda warning: not warning.severe)
