"""Recalibrate lesion probabilities and prediction intervals on a user's scans with reference scores.

Total scores give the errors behind the intervals and the calibration range; outlines also give slope and offset of the
candidates' log-odds. The stored calibration is fitted to all scans. The figures on the page are cross-fitted: every
step for a scan uses patients of other folds only, and the folds do not depend on any reference.

Few scans hardly move the former calibration: a penalty draws slope and offset to 1 and 0, and the former errors count
as FORMER_SCANS further scans. The networks and the evidence of the map's lesions stay.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.models.cards import NAME, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import install_copy
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.record.findings import CalibratedOn
from CACScoringLib.scoring.intervals import MAX_RATIO
from CACScoringLib.scoring.lesion_calibration import COUNTS_FROM, LesionCalibration
from CACScoringLib.scoring.uncertainty import (
    CATEGORIES,
    LIMITS,
    LesionAmounts,
    ScoreCalibration,
    ScoreErrors,
    Uncertainty,
)

from ..references.reference import VESSELS
from ..statistics.patient_folds import parts_by_patient
from ..training.evidence import FOLDS
from ..training.score_errors import fitted_errors, penalised_logistic
from .candidates import Candidate, ScanCandidates
from .comparison import ComparedScan

MIN_PATIENTS = 20
MIN_OF_EACH = 5
"""Fewest patients with and without coronary calcium."""
MIN_CANDIDATES, MIN_CANDIDATE_PATIENTS = 10, 5
"""Fewest coronary candidates, fewest other candidates, and fewest patients with either, to fit probabilities."""
FORMER_SCANS = 20
"""Number of scans that the former errors count as beside the user's."""

KINDS = {"automatic": "automatic", "map": "decomposition"}
"""Kind of score (`ScoreCalibration`) by the key of `comparison.SCORED_METHODS`. Reviewed scores are left out, because
their errors cannot be measured against a reader's reference."""


@dataclass(frozen=True)
class _Change:
    """Change of recorded log-odds. slope: Factor. offset: Addend."""

    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> _Change:
        """Fit the change to outlined candidates, regularised towards none; there is none without both classes."""
        coronary = np.array([x.coronary for x in candidates], float)
        if len(set(coronary.tolist())) < 2:
            return cls()
        columns = np.array([(x.logit, 1.0) for x in candidates])
        bounds = ((0.0, None), (None, None))
        return cls(*penalised_logistic(columns, coronary, np.ones(2), np.array([1.0, 0.0]), bounds).tolist())

    def after(self, base: LesionCalibration) -> LesionCalibration:
        """Return the calibration that gives the changed probabilities where another gave the recorded ones."""
        weights = {name: self.slope * weight for name, weight in asdict(base).items()}
        for name in ("intercept", "gated_intercept"):
            weights[name] += self.offset
        return LesionCalibration(**weights)

    def probabilities(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Return the changed probabilities, [n]."""
        return 1 / (1 + np.exp(-(self.slope * np.array([x.logit for x in candidates], float) + self.offset)))


@dataclass(frozen=True)
class _Scan:
    """A scan to fit to. An artery is given by its key; None stands for the total."""

    compared: ComparedScan
    candidates: ScanCandidates

    @property
    def outlined(self) -> list[Candidate]:
        """Candidates that the reference's outlines label."""
        return [x for x in self.candidates.lesions["automatic"] if x.coronary is not None]

    @property
    def has_arteries(self) -> bool:
        return set(self.compared.vessels) == set(VESSELS)

    def truth(self, artery: str | None = None) -> float:
        """Return the reference's score."""
        return self.compared.total if artery is None else self.compared.vessels[artery]

    def part(self, method: str, artery: str | None = None) -> list[Candidate]:
        """Return the lesions of a method."""
        return [x for x in self.candidates.lesions[method] if artery in (None, x.artery)]

    def amounts(self, method: str, change: _Change, artery: str | None = None) -> LesionAmounts:
        """Return the lesions with their changed probabilities; those of the map stay."""
        part = self.part(method, artery)
        change = change if method == "automatic" else _Change()
        return LesionAmounts([x.agatston for x in part], change.probabilities(part).tolist())

    def score(self, method: str, change: _Change, artery: str | None = None) -> float:
        """Return the score of the lesions that count after the change."""
        part = self.part(method, artery)
        chances = change.probabilities(part)
        counted = [x.agatston for x, p in zip(part, chances, strict=True) if x.can_count and p >= COUNTS_FROM]
        return sum(counted if method == "automatic" else (x.agatston for x in part))


@dataclass(frozen=True)
class CalibrationFit:
    """Result of a fit.

    Attributes:
        lesions: Calibration of the candidates' probabilities.
        change: The same, as a change of the recorded ones.
        uncertainty: Errors of scores by kind.
        calibration_range: Range of the scans' facts.
    """

    lesions: LesionCalibration
    change: _Change
    uncertainty: dict[str, Uncertainty]
    calibration_range: CalibrationRange

    def as_calibration(self) -> dict[str, object]:
        """Return the form that a model's card holds."""
        uncertainty = {kind: asdict(errors) for kind, errors in self.uncertainty.items()}
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
    former = base.calibration_as(ScoreCalibration)
    fold = _folds(usable)
    fits = [_fit(_outside_fold(usable, fold, number), former, not why_not) for number in range(FOLDS)]
    return Recalibration(
        tuple(scan.compared for scan in usable),
        tuple(scan.candidates for scan in usable),
        tuple(_evaluated(scan, fits[number]) for scan, number in zip(usable, fold, strict=True)),
        _fit(usable, former, not why_not),
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


def _fit(scans: Sequence[_Scan], former: ScoreCalibration, refit: bool) -> CalibrationFit:
    """Fit a calibration, starting from the former one. refit: True to fit the probabilities too."""
    assert former.candidates is not None
    change, changes = _Change(), [_Change()] * len(scans)
    if refit:
        fold = _folds(scans)
        by_fold = [_change_of(_outside_fold(scans, fold, number)) for number in range(FOLDS)]
        change, changes = _change_of(scans), [by_fold[number] for number in fold]
    uncertainty = {
        kind: _fitted_uncertainty(method, scans, changes, former.uncertainty[kind])
        for method, kind in KINDS.items()
        if kind in former.uncertainty
    }
    calibration_range = CalibrationRange.of([scan.candidates.facts for scan in scans])
    return CalibrationFit(change.after(former.candidates), change, uncertainty, calibration_range)


def _change_of(scans: Sequence[_Scan]) -> _Change:
    return _Change.of([x for scan in scans for x in scan.outlined])


def _fitted_uncertainty(
    method: str, scans: Sequence[_Scan], changes: Sequence[_Change], former: Uncertainty
) -> Uncertainty:
    """Fit the errors of a method's scores; those of arteries stay without reference scores of enough patients."""
    pairs = [(scan, change) for scan, change in zip(scans, changes, strict=True) if method in scan.compared.measured]
    of_arteries = [pair for pair in pairs if pair[0].has_arteries]
    enough = len({scan.compared.patient for scan, _ in of_arteries}) >= MIN_PATIENTS
    keys = [artery.key for artery in MAIN_ARTERIES]
    return Uncertainty(
        _fitted_errors(method, pairs, (None,), former.total),
        _fitted_errors(method, of_arteries, keys, former.artery) if enough else former.artery,
    )


def _fitted_errors(
    method: str, pairs: Sequence[tuple[_Scan, _Change]], parts: Sequence[str | None], former: ScoreErrors
) -> ScoreErrors:
    """Fit the errors of the parts of scores, total or arteries, with the former ones as FORMER_SCANS further scans.

    The level is the higher one of scores with and without calcium: those without hardly need any.
    """
    lesions = [scan.amounts(method, change, part) for scan, change in pairs for part in parts]
    truths = np.array([scan.truth(part) for scan, _ in pairs for part in parts])
    squares = len(pairs) * fitted_errors(lesions, truths).spread ** 2 + FORMER_SCANS * former.spread**2
    spreads = (math.sqrt(squares / (len(pairs) + FORMER_SCANS)),)
    classes = [np.flatnonzero(part) for part in (truths > 0, truths <= 0) if part.any()]
    fits = [fitted_errors([lesions[n] for n in part.tolist()], truths[part], spreads) for part in classes]
    return max(fits, key=lambda errors: errors.level)


def _evaluated(scan: _Scan, fitted: CalibrationFit) -> CrossFitted:
    """Score a scan as the fit would have it scored."""
    change, facts = fitted.change, scan.candidates.facts
    familiarity = fitted.calibration_range.familiarity(facts, scan.candidates.metal)
    total = scan.score("automatic", change)
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(KINDS)
    if familiarity.out_of_range:
        return CrossFitted(total, intervals, {})
    for method, kind in KINDS.items():
        if kind not in fitted.uncertainty or method not in scan.compared.measured:
            continue
        errors, score = fitted.uncertainty[kind].total, scan.score(method, change)
        low, high = errors.interval(scan.amounts(method, change), familiarity.distance)
        if (high + 1) / (low + 1) <= MAX_RATIO or score < LIMITS[0]:
            intervals[method] = min(low, score), max(high, score)
    if intervals["automatic"] is None:
        return CrossFitted(total, intervals, {})
    errors = fitted.uncertainty["automatic"].total
    distribution = errors.distribution(scan.amounts("automatic", change), familiarity.distance)
    return CrossFitted(total, intervals, dict(zip(CATEGORIES, distribution.chances(LIMITS), strict=True)))


def _folds(scans: Sequence[_Scan]) -> np.ndarray:
    """Fold of each scan, no patient in two. Stratified by the former score, so that no reference moves its scan."""
    positive = np.array([scan.compared.measured["automatic"] > 0 for scan in scans])
    return parts_by_patient([scan.compared.patient for scan in scans], positive, FOLDS, seed=None)


def _outside_fold(scans: Sequence[_Scan], fold: np.ndarray, number: int) -> list[_Scan]:
    """Return the scans of all folds but one."""
    return [scan for scan, part in zip(scans, fold, strict=True) if part != number]


def _check_enough(scans: Sequence[_Scan]) -> None:
    patients = len({scan.compared.patient for scan in scans})
    if patients < MIN_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{MIN_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    with_calcium = {scan.compared.patient for scan in scans if scan.compared.total >= LIMITS[0]}
    without = {scan.compared.patient for scan in scans if scan.compared.total < LIMITS[0]}
    if min(len(with_calcium), len(without)) < MIN_OF_EACH:
        raise TooFewError(
            f"A calibration needs {MIN_OF_EACH} patients with coronary calcium and {MIN_OF_EACH} without any."
        )


def _why_not_refitted(scans: Sequence[_Scan]) -> str:
    """Return the reason why probabilities cannot be fitted; empty if they can."""
    outlined = [(scan.compared.patient, x.coronary) for scan in scans for x in scan.outlined]
    if not any(coronary for _, coronary in outlined):
        return "The reference has no outlines that hold candidates, so which of them are coronary calcium is unknown."
    for value, meaning in ((True, "coronary calcium"), (False, "something else")):
        patients = [patient for patient, coronary in outlined if coronary == value]
        if len(patients) < MIN_CANDIDATES or len(set(patients)) < MIN_CANDIDATE_PATIENTS:
            return (
                f"{len(patients)} candidates of {len(set(patients))} patients are {meaning}; probabilities need "
                f"{MIN_CANDIDATES} of {MIN_CANDIDATE_PATIENTS}."
            )
    return ""
