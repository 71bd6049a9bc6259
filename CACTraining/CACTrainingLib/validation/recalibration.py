"""Recalibrate lesion probabilities, their limit and prediction intervals on a user's scans with reference scores.

Total scores give the limit from which a candidate counts, the errors behind the intervals, and the calibration range;
outlines also give temperature and offset of the probabilities. The stored calibration is fitted to all scans. The
figures on the page are cross-fitted: every step for a scan uses patients of other folds only, and the folds do not
depend on any reference.

The fit is regularised towards the former calibration, so that few scans do not make it worse: temperature and offset
are drawn to the former ones, the limit moves no further than the scans demand, and classes of few scans keep the
former errors too.

The networks stay, and so does the evidence of the map's lesions, because results do not hold the lesions that it
excluded.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery
from CACScoringLib.models.cards import NAME, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import install_copy
from CACScoringLib.quality.calibration import METAL, CalibrationRange
from CACScoringLib.record.findings import CalibratedOn
from CACScoringLib.scoring.lesion_calibration import LesionCalibration
from CACScoringLib.scoring.map_evidence import INTERCEPT
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, NOISE_HU, THICKNESS_MM, ScoreCalibration, ScoreErrors

from ..references.reference import VESSELS
from ..statistics.patient_folds import parts_by_patient
from ..training.evidence import FOLDS, fitted_weights, nearest_limit
from ..training.measured_scans import LOGIT
from ..training.score_errors import fitted_errors
from .candidates import ScanCandidates
from .comparison import ComparedScan

MIN_PATIENTS = 20
MIN_OF_EACH = 5
"""Fewest patients with and without coronary calcium, and on each side of a category's limit."""
MIN_CANDIDATES, MIN_CANDIDATE_PATIENTS = 10, 5
"""Fewest coronary candidates, fewest other candidates, and fewest patients with either, to fit probabilities."""
MIN_OF_CLASS = 19
"""Fewest scans of a category for errors of its own; fewer have no value that 5 % of them exceed."""

KINDS = {"automatic": "automatic", "map": "decomposition"}
"""Kind of score (`ScoreCalibration`) by the key of `comparison.SCORED_METHODS`. Reviewed scores are left out, because
their errors cannot be measured against a reader's reference."""


@dataclass(frozen=True)
class _Change:
    """Change of recorded log-odds. slope: Factor. offset: Addend."""

    slope: float = 1.0
    offset: float = 0.0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the changed probabilities, [n]."""
        return 1 / (1 + np.exp(-(self.slope * logits + self.offset)))

    def of(self, base: LesionCalibration, limit: float) -> LesionCalibration:
        """Return the calibration that gives the changed probabilities of a network calibrated by another one."""
        slope = max(self.slope, 1e-3)
        return LesionCalibration(base.temperature / slope, slope * base.offset + self.offset, limit)


@dataclass(frozen=True)
class _Scan:
    """A compared scan as arrays."""

    compared: ComparedScan
    candidates: ScanCandidates

    @cached_property
    def logits(self) -> np.ndarray:
        return np.array(self.candidates.logits, float)

    @cached_property
    def is_artery(self) -> np.ndarray:
        """True for candidates that count at some limit, bool [n]."""
        return np.array(self.candidates.arteries) != Artery.UNASSIGNED.key

    @cached_property
    def agatston(self) -> np.ndarray:
        return np.array(self.candidates.agatston, float)

    @cached_property
    def coronary(self) -> np.ndarray | None:
        coronary = self.candidates.coronary
        return None if coronary is None else np.array(coronary, bool)

    @property
    def arteries(self) -> list[float] | None:
        """Reference score of each main artery; None if the reference lacks one."""
        vessels = self.compared.vessels
        return [vessels[name] for name in VESSELS] if set(vessels) == set(VESSELS) else None

    def counted(self, change: _Change, limit: float) -> np.ndarray:
        """Return True for candidates that count from a probability on, bool [n]."""
        return self.is_artery & (change.probabilities(self.logits) >= limit)

    def scores(self, kind: str, counted: np.ndarray) -> tuple[float, list[float]]:
        """Total and score of each artery. The mask `counted`, bool [n], selects the candidates of automatic scores."""
        if kind != "automatic":
            map_scores = self.candidates.map_arteries
            return self.compared.measured["map"], [map_scores[artery.key] for artery in MAIN_ARTERIES]
        names = np.array(self.candidates.arteries)
        return float(self.agatston[counted].sum()), [
            float(self.agatston[counted & (names == artery.key)].sum()) for artery in MAIN_ARTERIES
        ]


@dataclass(frozen=True)
class CalibrationFit:
    """Result of a fit.

    Attributes:
        lesions: Calibration of the candidates' probabilities.
        change: The same, as a change of the recorded ones.
        errors: Errors of Agatston scores by kind and part ("total", "artery").
        calibration_range: Range of the scans' facts.
    """

    lesions: LesionCalibration
    change: _Change
    errors: dict[str, dict[str, ScoreErrors]]
    calibration_range: CalibrationRange

    def as_calibration(self) -> dict[str, object]:
        """Return the form that a model's card holds."""
        errors = {k: {p: {"agatston": asdict(e)} for p, e in parts.items()} for k, parts in self.errors.items()}
        uncertainty = {kind: {"total": {}, "artery": {}, **parts} for kind, parts in errors.items()}
        limits = asdict(self.calibration_range)
        return {"candidates": asdict(self.lesions), "uncertainty": uncertainty, "known": limits}


@dataclass(frozen=True)
class CrossFitted:
    """Scores of a scan by a calibration on other patients.

    Attributes:
        automatic: Automatic clinical score.
        intervals: Interval of the total by method; None if withheld.
        probabilities: Probability by `uncertainty.CATEGORIES`; empty if withheld.
    """

    automatic: float
    intervals: dict[str, tuple[float, float] | None]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Recalibration:
    """A new calibration with its evaluation.

    Attributes:
        scans: Scans that it was fitted to.
        former: Recorded scores of each scan.
        cross_fitted: Cross-fitted scores of each scan.
        fitted: Fit to all scans.
        why_not: Reason why the probabilities were not fitted; empty if they were.
    """

    scans: tuple[ComparedScan, ...]
    former: tuple[ScanCandidates, ...]
    cross_fitted: tuple[CrossFitted, ...]
    fitted: CalibrationFit
    why_not: str

    @property
    def patients(self) -> int:
        return len({scan.patient for scan in self.scans})


def check(name: str, base: ModelCard | None, patients: int) -> None:
    """Check that a calibration can be fitted and stored.

    Args:
        name: Name of the calibrated copy.
        base: Card of the calcium map's model in use; None without one.
        patients: Number of patients with a reference.

    Raises:
        CTError: The name is taken or invalid, or the model cannot be calibrated.
        TooFewError: There are too few patients.
    """
    if base is None or base.calibration_as(ScoreCalibration).candidates is None:
        raise CTError("No model is in use whose lesions are calibrated; there is nothing to calibrate anew.")
    namesakes = [m for m in list_models() if m.card.name == name and "calibrated_on" not in m.card.calibration]
    if not NAME.fullmatch(name) or namesakes or base.name == name:
        raise CTError(
            f"{name!r} is the name of another model, or none: use small letters, digits, dots, dashes and underscores."
        )
    if patients < MIN_PATIENTS:
        raise TooFewError(f"The reference has {patients} patients; a calibration needs {MIN_PATIENTS} at least.")


def recalibrate(scans: Sequence[ComparedScan], base: ModelCard) -> Recalibration:
    """Fit a calibration to scans and cross-fit it by patient.

    Args:
        scans: Compared scans; those without an automatic score are ignored.
        base: Card of the model that they were scored with.

    Raises:
        TooFewError: There are too few scans.
    """
    usable = [_Scan(scan, scan.candidates) for scan in scans if scan.candidates is not None]
    _check_enough(usable)
    why_not = _why_not_refitted(usable)
    fitter = _Fitter(base, refit=not why_not)
    fold = _folds(usable)
    cross_fitted: list[CrossFitted | None] = [None] * len(usable)
    for number in range(FOLDS):
        fitted = fitter.fit([scan for scan, part in zip(usable, fold, strict=True) if part != number])
        for n in np.flatnonzero(fold == number):
            cross_fitted[n] = _evaluated(usable[n], fitted)
    return Recalibration(
        tuple(scan.compared for scan in usable),
        tuple(scan.candidates for scan in usable),
        tuple(result for result in cross_fitted if result is not None),
        fitter.fit(usable),
        why_not,
    )


def store(recalibration: Recalibration, base: StoredModel, name: str, reference: str) -> StoredModel:
    """Install a copy of the model with this calibration. No name of a patient or file is stored.

    Args:
        recalibration: The calibration.
        base: Model that the scans were scored with.
        name: Name of the copy.
        reference: Title of the reference's format.

    Raises:
        ModelError: The copy cannot be installed.
    """
    card = base.card
    today = datetime.date.today().isoformat()
    calibrated_on = CalibratedOn(reference, len(recalibration.scans), recalibration.patients, today)
    # Figures measured with the former evidence do not hold for the new one.
    former = card.validation.get("whole_method", {})
    provenance = {key: former[key] for key in ("models", "data") if key in former}
    achieved = {"data": str(calibrated_on), "from": card.name, "weights_fitted": not recalibration.why_not}
    calibration = {**card.calibration, **recalibration.fitted.as_calibration(), "calibrated_on": asdict(calibrated_on)}
    validation = {**card.validation, "whole_method": provenance, "recalibration": achieved}
    use = f"{card.intended_use.split(_USE)[0]}{_USE} {calibrated_on}, for scans and patients like theirs."
    # Normalised to JSON types, so that an identical calibration is not stored twice.
    content = json.loads(json.dumps({"calibration": calibration, "validation": validation}))
    return install_copy(base.path, replace(card, name=name, intended_use=use, **content))


_USE = " Calibrated by its user on"


class _Fitter:
    """Fit of a calibration to scans, starting from a model's; `refit` includes the probabilities."""

    def __init__(self, base: ModelCard, refit: bool) -> None:
        stored = base.calibration_as(ScoreCalibration)
        assert stored.candidates is not None
        self._present, self._refit = stored.candidates, refit
        self._errors = {kind: stored.uncertainty.get(kind) for kind in KINDS.values()}

    def fit(self, scans: Sequence[_Scan]) -> CalibrationFit:
        fold = _folds(scans) if self._refit else np.zeros(len(scans), int)
        probabilities: list[np.ndarray] = [np.zeros(0)] * len(scans)
        for number in sorted(set(fold.tolist())):
            training_scans = [scan for scan, part in zip(scans, fold, strict=True) if part != number]
            change = self._change_of(training_scans)
            for n in np.flatnonzero(fold == number).tolist():
                probabilities[n] = change.probabilities(scans[n].logits)[scans[n].is_artery]
        truths = [scan.compared.total for scan in scans]
        agatston = [scan.agatston[scan.is_artery] for scan in scans]
        limit, _ = nearest_limit(agatston, probabilities, truths, toward=self._present.counts_from)
        counted = []
        for scan, p in zip(scans, probabilities, strict=True):
            counted.append(scan.is_artery.copy())
            counted[-1][scan.is_artery] = p >= limit
        errors = {kind: self._fitted_errors(kind, scans, counted) for kind in KINDS.values()}
        facts = [scan.candidates.facts for scan in scans]
        change = self._change_of(scans)
        return CalibrationFit(change.of(self._present, limit), change, errors, CalibrationRange.of(facts))

    def _change_of(self, scans: Sequence[_Scan]) -> _Change:
        """Fit the change of the log-odds, regularised towards none; there is none without data."""
        outlined = [scan for scan in scans if scan.coronary is not None] if self._refit else []
        coronary = np.concatenate([scan.coronary for scan in outlined]) if outlined else np.zeros(0, bool)
        if len(set(coronary.tolist())) < 2:
            return _Change()
        features = {LOGIT: np.concatenate([scan.logits for scan in outlined])}
        weights = fitted_weights(features, coronary, toward={LOGIT: 1.0})
        return _Change(weights[LOGIT], weights[INTERCEPT])

    def _fitted_errors(
        self, kind: str, scans: Sequence[_Scan], counted: Sequence[np.ndarray]
    ) -> dict[str, ScoreErrors]:
        scores = [scan.scores(kind, part) for scan, part in zip(scans, counted, strict=True)]
        totals = np.array([total for total, _ in scores])
        truths = np.array([scan.compared.total for scan in scans])
        noise_hu = np.array([scan.candidates.facts.get("noise_hu") or NOISE_HU for scan in scans])
        thickness_mm = np.array([scan.candidates.facts.get("slice_thickness_mm") or THICKNESS_MM for scan in scans])
        before = self._errors[kind]
        former = None if before is None else before.total.get("agatston")
        errors = {"total": _errors(totals, truths, (noise_hu, thickness_mm), former)}
        if former is not None:
            pairs = zip(LIMITS["agatston"], errors["total"].chances, former.chances, strict=True)
            chances = tuple(part if _both_sides(scans, limit) else earlier for limit, part, earlier in pairs)
            errors["total"] = replace(errors["total"], chances=chances)
        complete = [n for n, scan in enumerate(scans) if scan.arteries is not None]
        if len({scans[n].compared.patient for n in complete}) >= MIN_PATIENTS:
            artery_scores = np.array([scores[n][1] for n in complete]).ravel()
            artery_truths = np.array([scans[n].arteries for n in complete]).ravel()
            facts = tuple(np.repeat(fact[complete], len(MAIN_ARTERIES)) for fact in (noise_hu, thickness_mm))
            former = None if before is None else before.artery.get("agatston")
            errors["artery"] = _errors(artery_scores, artery_truths, facts, former)
        return errors


def _errors(
    scores: np.ndarray, truths: np.ndarray, facts: Sequence[np.ndarray], former: ScoreErrors | None
) -> ScoreErrors:
    """Fit the errors of scores.

    Categories of few scans keep the former errors too. The growth of errors with noise and slice thickness is kept,
    because a user's scans hardly vary in these.

    Args:
        scores: [n].
        truths: [n].
        facts: Noise in HU and slice thickness in mm, [n] each.
        former: Former errors; None if unknown.
    """
    fitted = fitted_errors("agatston", scores, truths, *facts)
    if former is None:
        return fitted
    scaled = np.log1p(truths) - np.log1p(scores)
    scaled /= [former.difficulty(*pair) for pair in zip(*facts, strict=True)]
    of_class = np.searchsorted(LIMITS["agatston"], truths, side="right")
    errors = []
    for place, former_errors in enumerate(former.errors):
        new_errors = scaled[of_class == place].tolist()
        errors.append(tuple(sorted(new_errors if len(new_errors) >= MIN_OF_CLASS else (*new_errors, *former_errors))))
    noise_weight, thickness_weight = former.noise_weight, former.thickness_weight
    return replace(fitted, errors=tuple(errors), noise_weight=noise_weight, thickness_weight=thickness_weight)


def _evaluated(scan: _Scan, fitted: CalibrationFit) -> CrossFitted:
    counted = scan.counted(fitted.change, fitted.lesions.counts_from)
    facts = scan.candidates.facts
    familiarity = fitted.calibration_range.familiarity(facts)
    if scan.candidates.metal:
        familiarity = familiarity.flag(METAL)
    total, _ = scan.scores("automatic", counted)
    intervals: dict[str, tuple[float, float] | None] = {}
    for method, kind in KINDS.items():
        errors, score = fitted.errors[kind]["total"], scan.scores(kind, counted)[0]
        intervals[method] = (
            None
            if familiarity.out_of_range
            else errors.interval(score, facts["noise_hu"], facts["slice_thickness_mm"], familiarity.distance)
        )
    chances = fitted.errors["automatic"]["total"].probabilities(total)
    probabilities = {} if familiarity.out_of_range else dict(zip(CATEGORIES, chances, strict=True))
    return CrossFitted(total, intervals, probabilities)


def _folds(scans: Sequence[_Scan]) -> np.ndarray:
    """Fold of each scan, no patient in two. Stratified by the former score, so that no reference moves its scan."""
    positive = np.array([scan.compared.measured["automatic"] > 0 for scan in scans])
    return parts_by_patient([scan.compared.patient for scan in scans], positive, FOLDS, seed=None)


def _both_sides(scans: Sequence[_Scan], limit: float) -> bool:
    """True if there are enough patients on both sides of a category's limit."""
    above = {scan.compared.patient for scan in scans if scan.compared.total >= limit}
    below = {scan.compared.patient for scan in scans if scan.compared.total < limit}
    return min(len(above), len(below)) >= MIN_OF_EACH


def _check_enough(scans: Sequence[_Scan]) -> None:
    patients = len({scan.compared.patient for scan in scans})
    if patients < MIN_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{MIN_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    if not _both_sides(scans, LIMITS["agatston"][0]):
        raise TooFewError(
            f"A calibration needs {MIN_OF_EACH} patients with coronary calcium and {MIN_OF_EACH} without any."
        )


def _why_not_refitted(scans: Sequence[_Scan]) -> str:
    """Return the reason why probabilities cannot be fitted; empty if they can."""
    outlined = [(scan.compared.patient, scan.coronary) for scan in scans if scan.coronary is not None]
    if not any(coronary.any() for _, coronary in outlined):
        return "The reference has no outlines that hold candidates, so which of them are coronary calcium is unknown."
    for value, meaning in ((True, "coronary calcium"), (False, "something else")):
        count = sum(np.count_nonzero(coronary == value) for _, coronary in outlined)
        patients = len({patient for patient, coronary in outlined if (coronary == value).any()})
        if count < MIN_CANDIDATES or patients < MIN_CANDIDATE_PATIENTS:
            return (
                f"{count} candidates of {patients} patients are {meaning}; probabilities need {MIN_CANDIDATES} of "
                f"{MIN_CANDIDATE_PATIENTS}."
            )
    return ""
