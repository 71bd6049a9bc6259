"""Records of a study's scans: scores by every method, and the truth if known; stored as lines of JSON.

The truth of digital patients has the slices with visible coronary calcium, the regions that a reader would paint, and
the HU that calcium adds to each voxel. For other scans a reader's regions are the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from CACScoringLib.core.ct import mask_on_scan_grid
from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.labels import ARTERIES, MAIN_ARTERIES, SITES, Artery
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_lesion_labels, read_mask
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import ModelRecord, ScoreRecord
from CACScoringLib.record.scores import MethodScore
from CACScoringLib.scoring.lesions import score_labels
from CACScoringLib.scoring.uncertainty import TOTAL
from CACScoringLib.statistics.masks import mask_agreement

from ..phantom import LABEL_HU
from .scans import StudyScan
from .scored_scan import ScoredScan

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
        truth_mg: True coronary calcium of TOTAL and of ARTERIES, if known.
        distractors: Kinds of true non-coronary calcium and metal.
        slices: Visibility of calcium and the classifier's probability, for each slice with heart.
        slice_threshold: Probability from which the classifier calls a slice positive.
        map_lesions: Artery and mass of each lesion of the map, and True if it holds coronary calcium, None if unknown.
        heart: HEART_MEASURES of the segmented heart, if a reference is known.
        facts: Acquisition and scoring.
        refused: Reason why it could not be scored; then `values` is empty.
        warnings: Sentences about files that could not be read.
    """

    name: str
    patient: str
    number: int
    unit: str
    values: dict[str, Scores] = field(default_factory=dict)
    visible: bool | None = None
    visible_arteries: tuple[str, ...] | None = None
    truth_mg: dict[str, float] | None = None
    distractors: tuple[str, ...] = ()
    slices: tuple[tuple[bool, float], ...] = ()
    slice_threshold: float = 0.0
    map_lesions: tuple[tuple[str, float, bool | None], ...] = ()
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


def pairs_of(records: Iterable[StudyRecord]) -> list[tuple[StudyRecord, StudyRecord]]:
    """Return scans 1 and 2 of each patient with both scored, in the order of the records."""
    by_patient: dict[str, dict[int, StudyRecord]] = {}
    for record in records:
        if record.refused is None:
            by_patient.setdefault(record.patient, {})[record.number] = record
    return [(scans[1], scans[2]) for scans in by_patient.values() if {1, 2} <= set(scans)]


def refused(scan: StudyScan, reason: str) -> StudyRecord:
    """Record of a scan that could not be scored, or whose truth could not be read."""
    return StudyRecord(scan.name, scan.patient, scan.number, HU_MM3 if scan.truth is None else MG, refused=reason)


def make_record(scan: StudyScan, folder: Path) -> StudyRecord:
    """Make the record of a scan from its folder of results.

    Raises CTError or OSError for files that cannot be read, ValueError, KeyError or TypeError for their content.
    """
    files = _Files(scan, folder)
    record, methods = files.record, files.methods
    if "map" not in methods:
        raise CTError("It was scored by the clinical rule alone. Score it with the networks, as cac evaluate does.")
    values = {key: scores_of(methods[key], files.per_mass) for key in ("map", "automatic")}
    rules = record.methods["threshold"].rules
    if files.regions is not None:
        values["reader"] = _label_scores(files, files.regions, rules)
    threshold = record.slices_positive_from
    settings: Mapping[str, Any] = record.decomposition_settings or {}
    if threshold is None:
        threshold = float(settings["slice_threshold"])
    probabilities = record.slice_probabilities or ()
    count = float(sum(p is not None and p >= threshold for p in probabilities))
    values["slices"] = {TOTAL: (count, count)}
    if files.true_hu is not None:
        values["noise_free"] = _noise_free(files, files.true_hu)
    visible = files.visible_slices
    with_probability = () if visible is None else [(visible[k], p) for k, p in enumerate(probabilities) if k in visible]
    heart, warnings = _heart(files)
    return StudyRecord(
        name=scan.name,
        patient=scan.patient,
        number=scan.number,
        unit=MG if files.truth else HU_MM3,
        visible=files.visible,
        visible_arteries=None if files.regions is None else _arteries_in(files.regions),
        truth_mg=_truth_mg(files.truth),
        distractors=tuple(sorted({d["kind"] for d in files.truth["distractors"]})) if files.truth else (),
        values=values,
        slices=tuple((shows_calcium, p) for shows_calcium, p in with_probability if p is not None),
        slice_threshold=threshold,
        map_lesions=_map_lesions(files),
        heart=heart,
        facts=_facts(record, files),
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Files(ScoredScan):
    """A scan with its results and its truth, or a reader's masks."""

    scan: StudyScan

    @cached_property
    def truth(self) -> dict[str, Any] | None:
        return None if self.scan.truth is None else self.scan.read_truth()

    @cached_property
    def per_mass(self) -> float:
        """HU·mm³ for one unit of mass."""
        return self.scan.hu_mm3_per_mass()

    @cached_property
    def regions(self) -> np.ndarray | None:
        """A reader's `Artery` labels, uint8; None if nobody painted any, all 0 if the reader saw no calcium."""
        path = self.scan.lesions if self.scan.truth is None else self.scan.truth_file("regions.nii.gz")
        painted = None if path is None else read_lesion_labels(path)
        if painted is None or not voxels_of(painted).any():
            has_positive_label = any(shows for _, shows in self.scan.labels or ())
            none_seen = (painted is not None or self.scan.labelled_whole) and not has_positive_label
            return np.zeros(self.ct.hu.shape, np.uint8) if none_seen else None
        labels, _ = mask_on_scan_grid(painted, self.ct, "lesion label map")
        if unknown := set(np.unique(labels).tolist()) - {0, *SITES}:
            raise MaskError(f"{path} holds the label {max(unknown)}, which is not that of an artery or another site.")
        labels[labels >= Artery.UNASSIGNED] = 0
        return labels

    @cached_property
    def visible_slices(self) -> dict[int, bool] | None:
        """Visibility of coronary calcium in each slice with known truth."""
        if self.truth:
            return {int(label["k"]): bool(label["visible"]) for label in self.truth["slices"]}
        if self.scan.labels is not None:
            return dict(self.scan.labels)
        return None if self.regions is None else dict(enumerate(np.any(self.regions, axis=(1, 2)).tolist()))

    @property
    def visible(self) -> bool | None:
        """True if coronary calcium is visible in the scan; None where that is unknown."""
        slices = self.visible_slices
        if slices is None:
            return None
        if self.truth or any(slices.values()):
            return any(slices.values())
        return None if self.regions is None else bool(self.regions.any())

    @cached_property
    def true_hu(self) -> np.ndarray | None:
        """HU that coronary calcium adds, negative lobes included; float32."""
        if not self.truth:
            return None
        calcium = self.image(self.scan.truth_file("calcium_map.nii.gz"))
        calcium *= np.float32(self.truth["calcium_hu_per_mg_cm3"])
        return calcium


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


def _label_scores(files: _Files, labels: np.ndarray, rules: ScoringRules, values: np.ndarray | None = None) -> Scores:
    method = score_labels(files.ct, labels, rules, values)
    scores = {**{artery.key: method.arteries[artery] for artery in MAIN_ARTERIES}, TOTAL: method.total}
    return {part: (score.pseudo_mass_hu_mm3 / files.per_mass, score.agatston) for part, score in scores.items()}


def _noise_free(files: _Files, true_hu: np.ndarray) -> Scores:
    """Scores of the noise-free map: mass of its positive part; arteries and Agatston score from voxels of LABEL_HU."""
    arteries = files.image(files.scan.truth_file("arteries.nii.gz"))
    rules = ScoringRules(name="adjusted Agatston", threshold_hu=LABEL_HU)
    scores = _label_scores(files, arteries, rules, true_hu)
    positive = float(true_hu.sum(dtype=np.float64, where=true_hu > 0))
    mass = positive * math.prod(files.ct.image.GetSpacing()) / files.per_mass
    return scores | {TOTAL: (mass, scores[TOTAL][1])}


def _truth_mg(truth: Mapping[str, Any] | None) -> dict[str, float] | None:
    if not truth:
        return None
    masses = {TOTAL: truth["mass_mg"], **{artery: truth["mass_mg_by_artery"][artery] for artery in ARTERIES}}
    return {part: float(mass) for part, mass in masses.items()}


def _map_lesions(files: _Files) -> tuple[tuple[str, float, bool | None], ...]:
    """Artery and mass of each lesion of the map, and True if it holds coronary calcium, None if unknown."""
    true_hu = None if files.true_hu is None else files.true_hu.reshape(-1)
    return tuple(
        (
            lesion.record.site.key,
            lesion.record.pseudo_mass_hu_mm3 / files.per_mass,
            None if true_hu is None else bool((true_hu[lesion.flat] >= LABEL_HU).any()),
        )
        for lesion in files.lesions("map")[: len(files.methods["map"].lesions)]
    )


def _heart(files: _Files) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    path = files.scan.heart if files.scan.truth is None else files.scan.truth_file("heart.nii.gz")
    if path is None:
        return None, ()
    try:
        reference, _ = mask_on_scan_grid(read_mask(path), files.ct, "heart mask")
        heart = read_mask(files.folder / "heart.nii.gz")
        heart.CopyInformation(files.ct.image)
        agreement = mask_agreement(heart, files.ct.grid.image(reference))
        return dict(zip(HEART_MEASURES, agreement, strict=True)), ()
    except CTError as error:
        return None, (f"Its heart cannot be compared: {error}",)


def _arteries_in(regions: np.ndarray) -> tuple[str, ...]:
    labels = np.unique(regions)
    return tuple(artery.key for artery in Artery if artery in labels and artery.key in ARTERIES)


def _facts(record: ScoreRecord, files: _Files) -> ScoringFacts:
    scanner = files.truth["scanner"] if files.truth else {}  # images do not tell
    return ScoringFacts(
        models=record.models,
        warnings=record.warning_codes,
        decomposition_settings=record.decomposition_settings,
        candidate_evidence=record.candidate_evidence,
        hu_mm3_per_mass=files.per_mass,
        kvp=scanner.get("kvp", record.acquisition.kvp),
        slice_thickness_mm=scanner.get("slice_thickness_mm", record.acquisition.slice_thickness_mm),
        slice_spacing_mm=record.input.spacing_mm[2],
    )
