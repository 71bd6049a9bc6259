"""Evidence of candidates, limit and intervals fitted anew to one's own scans with reference scores.

What is fitted depends on what the reference holds. Totals give the limit from which a candidate counts, the errors that
intervals are made of, and what the scans are like; outlines also the weights of the evidence. All scans teach what is
stored. What the page reports is cross-fitted: each scan is evaluated by what the patients of other folds taught, in all
steps, so that its own reference has no part in its score and interval. Which fold a patient is in does not depend on
any reference either.

So that few scans do not make it worse, what is fitted departs from what the model held before only as far as the scans
tell: weights are drawn to the former ones, the limit moves no further than the scans demand, and classes of few scans
keep the former errors beside their own.

The network stays as it is, and so does the evidence of the map's lesions, for what its own evidence left out is not
kept with results.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.models.cards import NAME, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import install_copy
from CACScoringLib.quality.calibration import METAL, CalibratedOn, CalibrationRange
from CACScoringLib.scoring.evidence import FEATURES, Evidence, coronary_probabilities
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, NOISE_HU, THICKNESS_MM, ScoreErrors, Uncertainty

from ..statistics.patient_folds import parts_by_patient
from ..training.evidence import FOLDS, fitted_weights, nearest_limit, typical
from ..training.score_errors import fitted_errors
from .comparison import ComparedScan
from .reference import VESSELS

LEAST_PATIENTS = 20
LEAST_OF_EACH = 5
"""Patients with coronary calcium, and without any; also on each side of a category's limit."""
LEAST_CANDIDATES, LEAST_CANDIDATE_PATIENTS = 10, 5
"""Of candidates that are coronary calcium, and of others, and patients that they come from, to learn weights."""
LEAST_OF_CLASS = 19
"""Scans of a class of the truth: fewer errors have no value that 5 % of them exceed."""

KINDS = {"automatic": "automatic", "map": "decomposition"}
"""Kind of score (`Uncertainty.stored`) by the key of `comparison.METHODS`. Errors of a reader's scores cannot be known
from a reference that is a reader's itself."""


class TooFewError(CTError):
    """The scans do not suffice to calibrate by. The message says what is missing."""


@dataclass(frozen=True)
class _Scan:
    """A compared scan as arrays. arteries: of the reference; None where it does not tell all four."""

    compared: ComparedScan

    @cached_property
    def features(self) -> np.ndarray:
        return np.array(self.compared.candidates.features, float).reshape(-1, len(FEATURES))

    @cached_property
    def agatston(self) -> np.ndarray:
        return np.array(self.compared.candidates.agatston, float)

    @cached_property
    def coronary(self) -> np.ndarray | None:
        coronary = self.compared.candidates.coronary
        return None if coronary is None else np.array(coronary, bool)

    @property
    def arteries(self) -> list[float] | None:
        vessels = self.compared.vessels
        return [vessels[name] for name in VESSELS] if set(vessels) == set(VESSELS) else None

    def fact(self, name: str, usual: float) -> float:
        return float(self.compared.candidates.facts.get(name) or usual)

    def scores(self, kind: str, counted: np.ndarray) -> tuple[float, list[float]]:
        """Total and score of each artery. counted: which candidates do, [n]."""
        if kind != "automatic":
            map_scores = self.compared.candidates.map_arteries
            return self.compared.measured["map"], [map_scores[artery.key] for artery in MAIN_ARTERIES]
        names = np.array(self.compared.candidates.arteries)
        return float(self.agatston[counted].sum()), [
            float(self.agatston[counted & (names == artery.key)].sum()) for artery in MAIN_ARTERIES
        ]


@dataclass(frozen=True)
class Fitted:
    """Result of a fit. errors: of Agatston scores, by kind and part ("total", "artery"). known: what they were
    like."""

    evidence: Evidence
    errors: dict[str, dict[str, ScoreErrors]]
    known: CalibrationRange

    def as_calibration(self) -> dict[str, object]:
        """Return the form that a model's card holds."""
        errors = {k: {p: {"agatston": asdict(e)} for p, e in parts.items()} for k, parts in self.errors.items()}
        uncertainty = {kind: {"total": {}, "artery": {}, **parts} for kind, parts in errors.items()}
        return {"candidates": asdict(self.evidence), "uncertainty": uncertainty, "known": asdict(self.known)}


@dataclass(frozen=True)
class CrossFitted:
    """A scan by what other patients fitted. automatic: its clinical score. intervals: of the total, by method; None
    where they are withheld. probabilities: of `uncertainty.CATEGORIES`; empty where withheld."""

    automatic: float
    intervals: dict[str, tuple[float, float] | None]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Recalibration:
    """scans: that it was fitted to. cross_fitted: of each. fitted: by all. why_not: why the weights were not fitted;
    empty where they were."""

    scans: tuple[ComparedScan, ...]
    cross_fitted: tuple[CrossFitted, ...]
    fitted: Fitted
    why_not: str

    @property
    def patients(self) -> int:
        return len({scan.patient for scan in self.scans})


def check(name: str, base: ModelCard | None, patients: int) -> None:
    """Raises CTError where a name cannot be given, a model cannot be calibrated, or there are too few patients.

    base: of the calcium map's model that scans are scored with; None without one.
    """
    if base is None or Evidence.stored(base.calibration) is None:
        raise CTError("No model is in use that evaluates candidates by evidence; there is nothing to calibrate anew.")
    others = [m for m in list_models() if m.card.name == name and CalibratedOn.stored(m.card.calibration) is None]
    if not NAME.fullmatch(name) or others or base.name == name:
        raise CTError(
            f"{name!r} is the name of another model, or none: use small letters, digits, dots, dashes and underscores."
        )
    if patients < LEAST_PATIENTS:
        raise TooFewError(f"The reference has {patients} patients; a calibration needs {LEAST_PATIENTS} at least.")


def recalibrate(scans: Sequence[ComparedScan], base: ModelCard) -> Recalibration:
    """Fit to scans, and evaluate each by others.

    Args:
        scans: All that were compared; those without an automatic score tell nothing.
        base: Card of the model that they were scored with.

    Raises:
        TooFewError: They do not suffice.
    """
    usable = [_Scan(scan) for scan in scans if scan.candidates is not None]
    _enough(usable)
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
        tuple(result for result in cross_fitted if result is not None),
        fitter.fit(usable),
        why_not,
    )


def store(recalibration: Recalibration, base: StoredModel, name: str, reference: str) -> StoredModel:
    """Install a copy of the model under a name, with this calibration. No name of a patient or file is stored.

    Args:
        recalibration: The calibration.
        base: The model that the scans were scored with.
        name: Of the copy.
        reference: Title of its format.

    Raises:
        ModelError: It cannot be installed.
    """
    card = base.card
    today = datetime.date.today().isoformat()
    calibrated_on = CalibratedOn(reference, len(recalibration.scans), recalibration.patients, today)
    # What was measured with the former evidence does not hold for the new one.
    former = card.validation.get("whole_method", {})
    provenance = {key: former[key] for key in ("models", "evidence_models", "data") if key in former}
    achieved = {"data": str(calibrated_on), "from": card.name, "weights_fitted": not recalibration.why_not}
    calibration = {**card.calibration, **recalibration.fitted.as_calibration(), "calibrated_on": asdict(calibrated_on)}
    validation = {**card.validation, "whole_method": provenance, "recalibration": achieved}
    use = f"{card.intended_use.split(_USE)[0]}{_USE} {calibrated_on}, for scans and patients like theirs."
    # As it will be read: an identical calibration is not stored twice.
    content = json.loads(json.dumps({"calibration": calibration, "validation": validation}))
    return install_copy(base.path, replace(card, name=name, intended_use=use, **content))


_USE = " Calibrated by its user on"


class _Fitter:
    """Fits to scans, beginning from a model. refit: weights too."""

    def __init__(self, base: ModelCard, refit: bool) -> None:
        evidence = Evidence.stored(base.calibration)
        assert evidence is not None
        self._present, self._refit = evidence, refit
        self._errors = {kind: Uncertainty.stored(base.calibration, kind) for kind in KINDS.values()}

    def fit(self, scans: Sequence[_Scan]) -> Fitted:
        fold = _folds(scans) if self._refit else np.zeros(len(scans), int)
        probabilities: list[np.ndarray] = [np.zeros(0)] * len(scans)
        for number in sorted(set(fold.tolist())):
            others = [scan for scan, part in zip(scans, fold, strict=True) if part != number]
            weights = self._evidence_of(others).weights
            for n in np.flatnonzero(fold == number):
                probabilities[n] = coronary_probabilities(scans[n].features, weights)
        truths = [scan.compared.total for scan in scans]
        former = 1 - self._present.most_not_coronary
        limit, _ = nearest_limit([scan.agatston for scan in scans], probabilities, truths, toward=former)
        counted = [p >= limit for p in probabilities]
        errors = {kind: self._fitted_errors(kind, scans, counted) for kind in KINDS.values()}
        facts = [scan.compared.candidates.facts for scan in scans]
        return Fitted(
            replace(self._evidence_of(scans), most_not_coronary=1 - limit), errors, CalibrationRange.of(facts)
        )

    def _evidence_of(self, scans: Sequence[_Scan]) -> Evidence:
        """With weights fitted to scans where there is something to fit to, drawn to the present ones."""
        outlined = [scan for scan in scans if scan.coronary is not None] if self._refit else []
        coronary = np.concatenate([scan.coronary for scan in outlined]) if outlined else np.zeros(0, bool)
        if len(set(coronary.tolist())) < 2:
            return self._present
        features = np.concatenate([scan.features for scan in outlined])
        weights = fitted_weights(features, coronary, toward=self._present.weights)
        return replace(self._present, weights=weights, typical=typical(features[coronary]))

    def _fitted_errors(
        self, kind: str, scans: Sequence[_Scan], counted: Sequence[np.ndarray]
    ) -> dict[str, ScoreErrors]:
        scores = [scan.scores(kind, part) for scan, part in zip(scans, counted, strict=True)]
        totals = np.array([total for total, _ in scores])
        truths = np.array([scan.compared.total for scan in scans])
        facts = _noise_and_thickness(scans)
        before = self._errors[kind]
        former = None if before is None else before.total.get("agatston")
        errors = {"total": _errors(totals, truths, facts, former)}
        if former is not None:
            pairs = zip(LIMITS["agatston"], errors["total"].chances, former.chances, strict=True)
            chances = tuple(part if _both_sides(scans, limit) else earlier for limit, part, earlier in pairs)
            errors["total"] = replace(errors["total"], chances=chances)
        complete = [n for n, scan in enumerate(scans) if scan.arteries is not None]
        if len({scans[n].compared.patient for n in complete}) >= LEAST_PATIENTS:
            artery_scores = np.array([scores[n][1] for n in complete]).ravel()
            artery_truths = np.array([scans[n].arteries for n in complete]).ravel()
            facts = tuple(np.repeat(fact[complete], len(MAIN_ARTERIES)) for fact in facts)
            former = None if before is None else before.artery.get("agatston")
            errors["artery"] = _errors(artery_scores, artery_truths, facts, former)
        return errors


def _errors(
    scores: np.ndarray, truths: np.ndarray, facts: Sequence[np.ndarray], former: ScoreErrors | None
) -> ScoreErrors:
    """Errors of scores, [n]; classes of few scans keep the errors of before beside their own. How errors grow with
    noise and thickness, of which one's own scans tell little, is as before. facts: noise and thickness, [n] each.
    former: before; None where it is unknown."""
    fitted = fitted_errors("agatston", scores, truths, *facts)
    if former is None:
        return fitted
    scaled = np.log1p(truths) - np.log1p(scores)
    scaled /= [former.difficulty(*pair) for pair in zip(*facts, strict=True)]
    of_class = np.searchsorted(LIMITS["agatston"], truths, side="right")
    errors = []
    for place, known in enumerate(former.errors):
        own_errors = scaled[of_class == place].tolist()
        errors.append(tuple(sorted(own_errors if len(own_errors) >= LEAST_OF_CLASS else (*own_errors, *known))))
    weights = {"noise_weight": former.noise_weight, "thickness_weight": former.thickness_weight}
    return replace(fitted, errors=tuple(errors), **weights)


def _evaluated(scan: _Scan, fitted: Fitted) -> CrossFitted:
    evidence = fitted.evidence
    counted = coronary_probabilities(scan.features, evidence.weights) >= 1 - evidence.most_not_coronary
    facts = scan.compared.candidates.facts
    familiarity = fitted.known.familiarity(facts)
    if scan.compared.candidates.metal:
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
    """The fold of each scan, no patient in two. By what was found before: a reference shall not move its scan."""
    positive = np.array([scan.compared.measured["automatic"] > 0 for scan in scans])
    return parts_by_patient([scan.compared.patient for scan in scans], positive, FOLDS, seed=None)


def _noise_and_thickness(scans: Sequence[_Scan]) -> tuple[np.ndarray, ...]:
    usual = (("noise_hu", NOISE_HU), ("slice_thickness_mm", THICKNESS_MM))
    return tuple(np.array([scan.fact(name, value) for scan in scans]) for name, value in usual)


def _both_sides(scans: Sequence[_Scan], limit: float) -> bool:
    """True if enough patients lie on either side of a category's limit."""
    above = {scan.compared.patient for scan in scans if scan.compared.total >= limit}
    below = {scan.compared.patient for scan in scans if scan.compared.total < limit}
    return min(len(above), len(below)) >= LEAST_OF_EACH


def _enough(scans: Sequence[_Scan]) -> None:
    patients = len({scan.compared.patient for scan in scans})
    if patients < LEAST_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{LEAST_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    if not _both_sides(scans, LIMITS["agatston"][0]):
        raise TooFewError(
            f"A calibration needs {LEAST_OF_EACH} patients with coronary calcium and {LEAST_OF_EACH} without any."
        )


def _why_not_refitted(scans: Sequence[_Scan]) -> str:
    """Empty where weights can be fitted."""
    outlined = [scan for scan in scans if scan.coronary is not None]
    if not any(scan.coronary.any() for scan in outlined):
        return "The reference has no outlines that hold candidates, so which of them are coronary calcium is unknown."
    for value, what in ((True, "coronary calcium"), (False, "something else")):
        count = sum(int((scan.coronary == value).sum()) for scan in outlined)
        patients = len({scan.compared.patient for scan in outlined if (scan.coronary == value).any()})
        if count < LEAST_CANDIDATES or patients < LEAST_CANDIDATE_PATIENTS:
            return (
                f"{count} candidates of {patients} patients are {what}; weights need {LEAST_CANDIDATES} of "
                f"{LEAST_CANDIDATE_PATIENTS}."
            )
    return ""
