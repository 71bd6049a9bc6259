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

import numpy as np

from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.models.cards import NAME, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import install_copy
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.record.findings import CalibratedOn
from CACScoringLib.scoring.intervals import MAX_RATIO
from CACScoringLib.scoring.lesion_calibration import COUNTS_FROM, LesionCalibration
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, TOTAL, ScoreCalibration, Uncertainty

from ..evaluation.measures import ExperimentComparison, Measure, long_table, mean_difference, mean_value, value_row
from ..evaluation.parts import METHODS, Cell, Section, TablePart, count
from ..statistics.agreement import Statistic, icc, slope
from ..statistics.patient_folds import CATEGORY_TITLES, parts_by_patient
from ..training.fits import FOLDS, FORMER_SCANS, KnownScore, fitted_uncertainty, penalised_logistic
from .agreement import LEAST, categories, category_kappa, f1_at
from .comparison import Candidate, ComparedScan

MIN_PATIENTS = 20
MIN_OF_EACH = 5
"""Fewest patients with and without coronary calcium."""
MIN_CANDIDATES, MIN_CANDIDATE_PATIENTS = 10, 5
"""Fewest coronary candidates, fewest other candidates, and fewest patients with either, to fit probabilities."""
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


def _outlined(scan: ComparedScan) -> list[Candidate]:
    """Return the clinical candidates that the reference's outlines label."""
    return [x for x in _lesions(scan, "automatic") if x.coronary is not None]


def _lesions(scan: ComparedScan, method: str) -> list[Candidate]:
    assert scan.candidates is not None
    return scan.candidates.lesions[method]


def _known_score(scan: ComparedScan, method: str, change: _Change) -> KnownScore:
    """Return a method's lesions with their changed probabilities, and the reference's scores; those of the map stay."""
    lesions = _lesions(scan, method)
    probability = (change if method == "automatic" else _Change()).probabilities(lesions)
    agatston, artery = np.array([x.agatston for x in lesions], float), np.array([x.artery for x in lesions], object)
    return KnownScore(scan.patient, agatston, artery, probability, {**scan.vessels, TOTAL: scan.total})


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
        scans: Scans that it was fitted to, with their recorded scores.
        cross_fitted: Cross-fitted scores of each scan.
        fitted: Fit to all scans.
        why_not: Reason why the probabilities were not fitted; empty if they were.
    """

    scans: tuple[ComparedScan, ...]
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
    usable = [scan for scan in scans if scan.candidates is not None]
    _check_enough(usable)
    why_not = _why_not_refitted(usable)
    former = base.calibration_as(ScoreCalibration)
    fold = _folds(usable)
    fits = [_fit(_outside_fold(usable, fold, number), former, not why_not) for number in range(FOLDS)]
    crossed = tuple(_evaluated(scan, fits[number]) for scan, number in zip(usable, fold, strict=True))
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


def _fit(scans: Sequence[ComparedScan], former: ScoreCalibration, refit: bool) -> CalibrationFit:
    """Fit a calibration, starting from the former one. refit: True to fit the probabilities too."""
    assert former.candidates is not None
    change, changes = _Change(), [_Change()] * len(scans)
    if refit:
        fold = _folds(scans)
        by_fold = [_change_of(_outside_fold(scans, fold, number)) for number in range(FOLDS)]
        change, changes = _change_of(scans), [by_fold[number] for number in fold]
    uncertainty = {}
    for method, kind in KINDS.items():
        if kind in former.uncertainty:
            pairs = [pair for pair in zip(scans, changes, strict=True) if method in pair[0].measured]
            scores = [_known_score(scan, method, scan_change) for scan, scan_change in pairs]
            uncertainty[kind] = fitted_uncertainty(scores, former.uncertainty[kind], MIN_PATIENTS)
    calibration_range = CalibrationRange.of([scan.candidates.facts for scan in scans if scan.candidates])
    return CalibrationFit(change.after(former.candidates), change, uncertainty, calibration_range)


def _change_of(scans: Sequence[ComparedScan]) -> _Change:
    return _Change.of([x for scan in scans for x in _outlined(scan)])


def _evaluated(scan: ComparedScan, fitted: CalibrationFit) -> CrossFitted:
    """Score a scan as the fit would have it scored."""
    assert scan.candidates is not None
    familiarity = fitted.calibration_range.familiarity(scan.candidates.facts, scan.candidates.metal)
    scores = {method: _known_score(scan, method, fitted.change) for method in KINDS}
    can_count = np.array([x.can_count for x in _lesions(scan, "automatic")], bool)
    counts = can_count & (scores["automatic"].probability >= COUNTS_FROM)
    totals = {
        "automatic": float(scores["automatic"].agatston[counts].sum()),
        "map": float(scores["map"].agatston.sum()),
    }
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(KINDS)
    if not familiarity.out_of_range:
        for method, kind in KINDS.items():
            if kind not in fitted.uncertainty or method not in scan.measured:
                continue
            score, lesions = totals[method], scores[method].amounts(TOTAL)
            low, high = fitted.uncertainty[kind].total.interval(lesions, familiarity.distance)
            if (high + 1) / (low + 1) <= MAX_RATIO or score < LIMITS[0]:
                intervals[method] = min(low, score), max(high, score)
    if intervals["automatic"] is None:
        return CrossFitted(totals["automatic"], intervals, {})
    errors = fitted.uncertainty["automatic"].total
    distribution = errors.distribution(scores["automatic"].amounts(TOTAL), familiarity.distance)
    chances = dict(zip(CATEGORIES, distribution.chances(LIMITS), strict=True))
    return CrossFitted(totals["automatic"], intervals, chances)


def _folds(scans: Sequence[ComparedScan]) -> np.ndarray:
    """Fold of each scan, no patient in two. Stratified by the former score, so that no reference moves its scan."""
    positive = np.array([scan.measured["automatic"] > 0 for scan in scans])
    return parts_by_patient([scan.patient for scan in scans], positive, FOLDS, seed=None)


def _outside_fold(scans: Sequence[ComparedScan], fold: np.ndarray, number: int) -> list[ComparedScan]:
    """Return the scans of all folds but one."""
    return [scan for scan, part in zip(scans, fold, strict=True) if part != number]


def _check_enough(scans: Sequence[ComparedScan]) -> None:
    patients = len({scan.patient for scan in scans})
    if patients < MIN_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{MIN_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    with_calcium = {scan.patient for scan in scans if scan.total >= LIMITS[0]}
    without = {scan.patient for scan in scans if scan.total < LIMITS[0]}
    if min(len(with_calcium), len(without)) < MIN_OF_EACH:
        raise TooFewError(
            f"A calibration needs {MIN_OF_EACH} patients with coronary calcium and {MIN_OF_EACH} without any."
        )


def _why_not_refitted(scans: Sequence[ComparedScan]) -> str:
    """Return the reason why probabilities cannot be fitted; empty if they can."""
    outlined = [(scan.patient, x.coronary) for scan in scans for x in _outlined(scan)]
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


_SECTION = "calibration", "Calibration on these scans"

MEASURES: dict[str, Statistic] = {
    "ICC of totals": icc,
    "Slope": slope,
    "Mean difference": mean_difference,
    "κ of categories": category_kappa,
    **{f"F1 at ≥ {least}": f1_at(least) for least in LEAST},
}


def refused_section(reason: str) -> Section:
    """Section with the reason why nothing was calibrated."""
    return Section(*_SECTION, (f"Nothing was calibrated or stored. {reason}",))


def section(result: Recalibration, name: str, base: str) -> Section:
    """Section on a calibration stored as the model `name`, fitted from the model `base`."""
    scans = f"{count(result.scans, 'scan')} of {count(result.patients, 'patient')}"
    weights = f"stay: {result.why_not}" if result.why_not else "were fitted too."
    text = (
        f"“Before” is {base}, as the other sections have it. “After” is cross-fitted: the patients were split into "
        f"{FOLDS} folds, and each scan was evaluated by what the patients of the other folds taught, so that its own "
        f"reference has no part in its score and interval. What is stored was fitted to all {scans}, and was not "
        "evaluated on others.",
        "Fitted: errors of scores, and the range of scans that are known; other scans get wider intervals, or none. "
        f"The candidates' probabilities {weights} The former errors count as {FORMER_SCANS} further scans. Those of "
        f"arteries stay without LM, LAD, LCX and RCA of {MIN_PATIENTS} patients. Networks and the evidence of the "
        "map's lesions stay.",
        f"It is stored as the model {name}. Score with it by “cac score --model {name}” or “cac cohort --model "
        f"{name}”. Without that, {base} scores as before; “cac models install {name} --previous” takes {name} away.",
    )
    tables = (_agreement(result), _intervals(result))
    return Section(*_SECTION, text, tables)


def _agreement(result: Recalibration) -> TablePart:
    rows = []
    for scan, crossed in zip(result.scans, result.cross_fitted, strict=True):
        place, former = int(categories(np.array([scan.total]))[0]), scan.candidates and scan.candidates.probabilities
        for method, probabilities, score in (
            ("before", former, scan.measured["automatic"]),
            ("after", crossed.probabilities, crossed.automatic),
        ):
            probability = [*probabilities.values()][place] if probabilities else math.nan
            rows.append(value_row(scan, method, score, scan.total, probability=probability))
    table = long_table(rows, ("probability",))
    measures = [Measure(title, statistic, table) for title, statistic in MEASURES.items()]
    likely = table[table.probability.notna()]
    if likely.groupby("scan").size().gt(1).any():
        likely = likely.assign(value=likely.probability)
        measures.append(Measure("Mean probability of the true category", mean_value, likely))
    titles = {"before": "Before", "after": "After"}
    comparison = ExperimentComparison([scan.patient for scan in result.scans], titles, np.random.default_rng(0))
    note = (
        f"{METHODS['automatic']} against the reference, on the same scans. Differences are after minus before; slope 1 "
        "and differences of 0 are best. The calcium map's own scores are not changed by a calibration."
    )
    columns = ("Measure", "After, cross-fitted", "Before", "Difference", "p")
    lines = comparison.paired_rows(measures, "after", "before")
    return TablePart("calibration_agreement", "Agreement before and after", columns, tuple(lines), note)


def _coverage(result: Recalibration, method: str, place: int | None, after: bool) -> tuple[int, int, int]:
    """Number of intervals that hold the reference, of intervals, and of scans.

    Args:
        result: The calibration.
        method: Key of the method.
        place: Index of the reference's category; None for all scans.
        after: True for cross-fitted intervals, False for recorded ones.
    """
    cases = zip(result.scans, result.cross_fitted, strict=True)
    group = [case for case in cases if place is None or categories(np.array([case[0].total])) == place]
    recorded = [{} if scan.candidates is None else scan.candidates.intervals for scan, _ in group]
    intervals = [crossed.intervals[method] for _, crossed in group] if after else [x.get(method) for x in recorded]
    limits = [(scan.total, ends) for (scan, _), ends in zip(group, intervals, strict=True) if ends]
    held = sum(low <= total <= high for total, (low, high) in limits)
    return held, len(limits), len(group)


def _intervals(result: Recalibration) -> TablePart:
    variants = [(method, after) for method in KINDS for after in (False, True)]
    columns = tuple(f"{METHODS[method]}, {'after' if after else 'before'}" for method, after in variants)
    rows: list[tuple[Cell, ...]] = []
    for place, title in [*enumerate(CATEGORY_TITLES), (None, "all")]:
        results = [_coverage(result, method, place, after) for method, after in variants]
        cells = (f"{held} of {total}" if total else "none" for held, total, _ in results)
        rows.append((title, results[0][2], *cells))
    note = (
        "How many 90 % intervals of totals hold the reference's score, of how many that are given; by its category. "
        "Intervals before are for the score that a still scan without noise would give, those after for the score that "
        "the reference's readers give. Intervals are withheld where a scan is unlike those of the calibration."
    )
    title = "Intervals before and after"
    return TablePart("calibration_intervals", title, ("Reference", "Scans", *columns), tuple(rows), note)
