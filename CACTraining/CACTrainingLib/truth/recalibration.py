"""Recalibrate lesion probabilities and prediction intervals on a user's scans with reference scores.

Total scores give the errors behind the intervals and the calibration range; outlines also give slope and offset of the
candidates' log-odds. The stored calibration is fitted to all scans. The figures on the page are cross-fitted: every
step for a scan uses patients of other folds only, and the folds do not depend on any reference.

Few scans hardly move the former calibration: a penalty draws slope and offset to 1 and 0, and the former errors count
as `FORMER_SCANS` further scans. The networks and the evidence of the map's lesions stay.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.models.cards import NAME, SAMPLE, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import calibrated, install_copy
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.quality.calibration import METAL, CalibrationRange
from CACScoringLib.record.findings import CalibratedOn
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import COUNTED, Lesion, LesionSet, MethodScore, Verdict
from CACScoringLib.scoring.parts import CORONARY_KINDS
from CACScoringLib.scoring.scores import score_of
from CACScoringLib.scoring.uncertainty import (
    COUNTS_FROM,
    LIMITS,
    TOTAL,
    LesionCalibration,
    ScanErrors,
    ScoreCalibration,
    Uncertainty,
    log_odds,
    with_intervals,
)
from CACScoringLib.statistics.agreement import Statistic, icc, slope
from CACScoringLib.statistics.patient_folds import parts_by_patient

from ..evaluation.measures import ExperimentComparison, Measure, long_table, mean_difference, mean_value, value_row
from ..evaluation.parts import METHODS, Section, TablePart, count
from ..training.fits import FOLDS, FORMER_SCANS, KnownScore, fitted_uncertainty, penalised_logistic
from .agreement import LEAST, TEXTS, categories, category_kappa, f1_at
from .records import ComparedScan
from .scan_sections import held_rows, interval_table
from .scored_scan import SCORED_METHODS

MIN_PATIENTS = 20
MIN_OF_EACH = 5
"""Fewest patients with and without coronary calcium."""
MIN_CANDIDATES, MIN_CANDIDATE_PATIENTS = 10, 5
"""Fewest coronary candidates, fewest other candidates, and fewest patients with either, to fit probabilities."""
KINDS = {"automatic": "automatic", "map": "decomposition"}
"""Kind of score (`ScoreCalibration`) by the key of `scored_scan.SCORED_METHODS`. Reviewed scores are left out, because
their errors cannot be measured against a reader's reference."""


@dataclass(frozen=True)
class _Change:
    """Change of recorded log-odds. slope: Factor. offset: Addend."""

    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, cases: Sequence[Case]) -> _Change:
        """Fit the change to outlined lesions, regularised towards none; there is none without both classes."""
        lesions = [(lesion, is_coronary) for case in cases for lesion, is_coronary in case.outlined]
        coronary = np.array([is_coronary for _, is_coronary in lesions], float)
        if len(set(coronary.tolist())) < 2:
            return cls()
        columns = np.array([(log_odds(_verdict(lesion).probability), 1.0) for lesion, _ in lesions])
        bounds = ((0.0, None), (None, None))
        return cls(*penalised_logistic(columns, coronary, np.ones(2), np.array([1.0, 0.0]), bounds).tolist())

    def after(self, base: LesionCalibration) -> LesionCalibration:
        """Return the calibration that gives the changed probabilities where another gave the recorded ones."""
        weights = {name: self.slope * weight for name, weight in asdict(base).items()}
        for name in ("intercept", "gated_intercept"):
            weights[name] += self.offset
        return LesionCalibration(**weights)

    def probability(self, recorded: float | np.ndarray) -> np.ndarray:
        """Return the changed probability of a recorded one."""
        return 1 / (1 + np.exp(-(self.slope * log_odds(recorded) + self.offset)))

    def judged(self, lesion: Lesion) -> Lesion:
        """Return a lesion with its changed verdict. Noise, devices and calcium of other sites never count."""
        verdict = _verdict(lesion)
        probability = float(self.probability(verdict.probability))
        in_arteries = sum(verdict.kinds.get(LESION_KINDS[column], 0.0) for column in CORONARY_KINDS)
        counts = probability >= COUNTS_FROM and (verdict.counts or in_arteries >= 0.5)
        verdict = replace(verdict, not_coronary_probability=1 - probability, counts=counts)
        return replace(lesion, site=verdict.artery, verdict=verdict)

    def method(self, recorded: MethodScore) -> MethodScore:
        """Return a method's score by the changed verdicts, without intervals; that of the map stays."""
        lesions = recorded.lesions if recorded.is_map else [self.judged(lesion) for lesion in _judged(recorded)]
        counted = [lesion for lesion in lesions if lesion.status == COUNTED]
        return replace(
            recorded,
            total=score_of(counted),
            table=LesionSet.of(lesions),
            non_coronary=None,
        )


def _verdict(lesion: Lesion) -> Verdict:
    assert lesion.verdict is not None
    return lesion.verdict


def _judged(method: MethodScore) -> list[Lesion]:
    """Return the lesions of an automatic clinical score that the lesion network has judged."""
    return [lesion for lesion in method.listed if lesion.verdict is not None and lesion.verdict.kinds]


class Case(NamedTuple):
    """A compared scan with the record of its scores."""

    scan: ComparedScan
    record: ScoreRecord

    @property
    def outlined(self) -> list[tuple[Lesion, bool]]:
        """Judged lesions of the clinical score, each with True if the reference outlines coronary calcium there."""
        listed = self.record.methods["threshold"].listed
        rows = [row for row in self.scan.lesions if row.method == "automatic" and not row.of_reference]
        pairs = [(listed[row.lesion], row.true) for row in rows if row.true is not None]
        return [(x, is_coronary) for x, is_coronary in pairs if x.verdict is not None and x.verdict.kinds]

    def methods(self, change: _Change) -> dict[str, MethodScore]:
        """Return the scores by the changed verdicts, by key of `scored_scan.SCORED_METHODS`."""
        methods = {kind: self.record.methods.get(name) for kind, (name, _) in SCORED_METHODS.items()}
        return {kind: change.method(method) for kind, method in methods.items() if method is not None}

    def known_score(self, method: MethodScore) -> KnownScore:
        """Return the lesions of a score with their probabilities, and the reference's scores."""
        lesions = [(x, x.verdict) for x in (*method.lesions, *method.left_out) if x.verdict is not None]
        return KnownScore(
            self.scan.patient,
            np.array([lesion.clinical_agatston for lesion, _ in lesions], float),
            np.array([verdict.artery.key for _, verdict in lesions], object),
            np.array([verdict.probability for _, verdict in lesions], float),
            {**self.scan.vessels, TOTAL: self.scan.reference_total},
        )


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
class Recalibration:
    """A new calibration with its evaluation.

    Attributes:
        cases: Scans that it was fitted to, with their recorded scores.
        cross_fitted: Scores of each scan by a calibration on other patients, by key of `scored_scan.SCORED_METHODS`.
        fitted: Fit to all scans.
        why_not: Reason why the probabilities were not fitted; empty if they were.
    """

    cases: tuple[Case, ...]
    cross_fitted: tuple[dict[str, MethodScore], ...]
    fitted: CalibrationFit
    why_not: str

    @property
    def patients(self) -> int:
        return len({case.scan.patient for case in self.cases})


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


def recalibrate(cases: Sequence[Case], base: ModelCard) -> Recalibration:
    """Fit a calibration to scans and cross-fit it by patient.

    Args:
        cases: Compared scans; those without an automatic score are ignored.
        base: Card of the model that they were scored with.

    Raises:
        TooFewError: There are too few scans.
    """
    usable = [case for case in cases if case.scan.facts.calibration is not None]
    _check_enough([case.scan for case in usable])
    why_not = _why_not_refitted(usable)
    former = base.calibration_as(ScoreCalibration)
    fold = _folds(usable)
    fits = [_fit(_outside_fold(usable, fold, number), former, not why_not) for number in range(FOLDS)]
    crossed = tuple(_evaluated(case, fits[number]) for case, number in zip(usable, fold, strict=True))
    return Recalibration(tuple(usable), crossed, _fit(usable, former, not why_not), why_not)


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
    calibrated_on = CalibratedOn(reference, len(recalibration.cases), recalibration.patients, today)
    # Figures measured with the former evidence do not hold for the new one.
    former = card.validation.get("whole_method", {})
    provenance = {key: former[key] for key in ("models", "data") if key in former}
    achieved = {"data": str(calibrated_on), "from": card.name, "weights_fitted": not recalibration.why_not}
    calibration = {**card.calibration, **recalibration.fitted.as_calibration(), "calibrated_on": asdict(calibrated_on)}
    former_figures = {name: part for name, part in card.validation.items() if name != SAMPLE}
    validation = {**former_figures, "whole_method": provenance, "recalibration": achieved}
    use = f"{card.intended_use.split(_USE)[0]}{_USE} {calibrated_on}, for scans and patients like theirs."
    # Normalised to JSON types, so that an identical calibration is not stored twice.
    content = json.loads(json.dumps({"calibration": calibration, "validation": validation}))
    copy = replace(calibrated(card, content["calibration"]), validation=content["validation"])
    return install_copy(base.path, replace(copy, name=name, intended_use=use))


_USE = " Calibrated by its user on"


def _fit(cases: Sequence[Case], former: ScoreCalibration, refit: bool) -> CalibrationFit:
    """Fit a calibration, starting from the former one. refit: True to fit the probabilities too."""
    assert former.candidates is not None
    change, changes = _Change(), [_Change()] * len(cases)
    if refit:
        fold = _folds(cases)
        by_fold = [_Change.of(_outside_fold(cases, fold, number)) for number in range(FOLDS)]
        change, changes = _Change.of(cases), [by_fold[number] for number in fold]
    crossed = [case.methods(own_change) for case, own_change in zip(cases, changes, strict=True)]
    uncertainty = {}
    for method, kind in KINDS.items():
        if kind in former.uncertainty:
            pairs = zip(cases, crossed, strict=True)
            scores = [case.known_score(methods[method]) for case, methods in pairs if method in methods]
            uncertainty[kind] = fitted_uncertainty(scores, former.uncertainty[kind], MIN_PATIENTS)
    calibration_range = CalibrationRange.of(
        [case.scan.facts.calibration for case in cases if case.scan.facts.calibration]
    )
    return CalibrationFit(change.after(former.candidates), change, uncertainty, calibration_range)


def _evaluated(case: Case, fitted: CalibrationFit) -> dict[str, MethodScore]:
    """Score a scan as the fit would have it scored."""
    recorded = case.record.familiarity
    has_metal = recorded is not None and METAL in recorded.causes
    familiarity = fitted.calibration_range.familiarity(case.scan.facts.calibration or {}, has_metal)
    errors = ScanErrors(fitted.uncertainty, familiarity)
    return {kind: with_intervals(method, errors) for kind, method in case.methods(fitted.change).items()}


def _folds(cases: Sequence[Case]) -> np.ndarray:
    """Fold of each scan, no patient in two. Stratified by the former score, so that no reference moves its scan."""
    positive = np.array([case.scan.measured("automatic") > 0 for case in cases])
    return parts_by_patient([case.scan.patient for case in cases], positive, FOLDS, seed=None)


def _outside_fold(cases: Sequence[Case], fold: np.ndarray, number: int) -> list[Case]:
    """Return the scans of all folds but one."""
    return [case for case, part in zip(cases, fold, strict=True) if part != number]


def _check_enough(scans: Sequence[ComparedScan]) -> None:
    patients = len({scan.patient for scan in scans})
    if patients < MIN_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{MIN_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    with_calcium = {scan.patient for scan in scans if scan.reference_total >= LIMITS[0]}
    without = {scan.patient for scan in scans if scan.reference_total < LIMITS[0]}
    if min(len(with_calcium), len(without)) < MIN_OF_EACH:
        raise TooFewError(
            f"A calibration needs {MIN_OF_EACH} patients with coronary calcium and {MIN_OF_EACH} without any."
        )


def _why_not_refitted(cases: Sequence[Case]) -> str:
    """Return the reason why probabilities cannot be fitted; empty if they can."""
    outlined = [(case.scan.patient, is_coronary) for case in cases for _, is_coronary in case.outlined]
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


_TITLE = TEXTS.parts["calibration"].title

MEASURES: dict[str, Statistic] = {
    "ICC of totals": icc,
    "Slope": slope,
    "Mean difference": mean_difference,
    "κ of categories": category_kappa,
    **{f"F1 at ≥ {least}": f1_at(least) for least in LEAST},
}


def refused_section(reason: str) -> Section:
    """Section with the reason why nothing was calibrated."""
    return Section("calibration", _TITLE, (f"Nothing was calibrated or stored. {reason}",))


def section(result: Recalibration, name: str, base: str) -> Section:
    """Section on a calibration stored as the model `name`, fitted from the model `base`."""
    scans = f"{count(result.cases, 'scan')} of {count(result.patients, 'patient')}"
    weights = f"stay: {result.why_not}" if result.why_not else "were fitted too."
    values = {"base": base, "name": name, "folds": FOLDS, "scans": scans, "weights": weights, "former": FORMER_SCANS}
    texts = (TEXTS.texts(part, **values, patients=MIN_PATIENTS) for part in ("cross_fitted", "calibration", "stored"))
    return Section("calibration", _TITLE, tuple(note for _, note in texts), (_agreement(result), _intervals(result)))


def _agreement(result: Recalibration) -> TablePart:
    rows = []
    for (scan, record), crossed in zip(result.cases, result.cross_fitted, strict=True):
        place, after = int(categories(np.array([scan.reference_total]))[0]), crossed["automatic"]
        before = record.categories.probabilities if record.categories else {}
        for method, probabilities, score in (
            ("before", before, scan.measured("automatic")),
            ("after", after.category_probabilities, after.total.clinical_agatston),
        ):
            probability = [*probabilities.values()][place] if probabilities else math.nan
            rows.append(value_row(scan, method, score, scan.reference_total, probability=probability))
    table = long_table(rows, ("probability",))
    measures = [Measure(title, statistic, table) for title, statistic in MEASURES.items()]
    likely = table[table.probability.notna()]
    if likely.groupby("scan").size().gt(1).any():
        likely = likely.assign(value=likely.probability)
        measures.append(Measure("Mean probability of the true category", mean_value, likely))
    titles = {"before": "Before", "after": "After"}
    comparison = ExperimentComparison([case.scan.patient for case in result.cases], titles, np.random.default_rng(0))
    columns = ("Measure", "After, cross-fitted", "Before", "Difference", "p")
    return TEXTS.table("calibration_agreement", columns, comparison.paired_rows(measures, "after", "before"))


def _intervals(result: Recalibration) -> TablePart:
    scores: dict[str, list[tuple[ComparedScan, MethodScore]]] = {}
    for method, (name, _) in SCORED_METHODS.items():
        before = [(case.scan, case.record.methods[name]) for case in result.cases if name in case.record.methods]
        pairs = zip(result.cases, result.cross_fitted, strict=True)
        after = [(case.scan, crossed[method]) for case, crossed in pairs if method in crossed]
        scores |= {f"{METHODS[method]}, before": before, f"{METHODS[method]}, after": after}
    patients = [case.scan.patient for case in result.cases]
    comparison = ExperimentComparison(patients, {title: title for title in scores}, np.random.default_rng(0))
    lines = held_rows(comparison, interval_table(scores))
    rows = [(title, part.scan.nunique(), *cells) for title, part, cells in lines]
    return TEXTS.table("calibration_intervals", ("Reference", "Scans", *scores), rows)
