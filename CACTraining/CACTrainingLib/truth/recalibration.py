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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORIES, LIMITS, category_numbers, category_of
from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.models.cards import NAME, SAMPLE, ModelCard, StoredModel, list_models
from CACScoringLib.models.store import calibrated, install_copy
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.quality.calibration import METAL
from CACScoringLib.record.findings import CalibratedOn
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import CATEGORISED_BELOW, Lesion, Verdict
from CACScoringLib.scoring.parts import CORONARY_KINDS
from CACScoringLib.scoring.uncertainty import TOTAL, LesionAmounts, ScoreCalibration, log_odds
from CACScoringLib.statistics.agreement import Statistic, icc, slope
from CACScoringLib.statistics.patient_folds import parts_by_patient

from ..evaluation.measures import ExperimentComparison, Measure, long_table, mean_difference, mean_value, value_row
from ..evaluation.parts import METHODS, Section, TablePart, count
from ..training.fits import FOLDS, FORMER, FORMER_SCANS
from .agreement import LEAST, TEXTS, category_kappa, f1_at
from .calibration import MIN_PATIENTS, CalibrationFit, calibrate
from .measured_scans import MeasuredScan
from .records import ComparedScan
from .scan_sections import held_rows, interval_table
from .scored_scan import SCORED_METHODS

MIN_OF_EACH = 5
"""Fewest patients with and without coronary calcium."""
MIN_CANDIDATES, MIN_CANDIDATE_PATIENTS = 10, 5
"""Fewest coronary candidates, fewest other candidates, and fewest patients with either, to fit probabilities."""


class Case(NamedTuple):
    """A compared scan with the record of its scores."""

    scan: ComparedScan
    record: ScoreRecord

    def measured(self) -> MeasuredScan:
        """Return its lesions with their former probabilities, and the scores of its reference."""
        rows = [row for row in self.scan.lesions if row.method == "automatic" and not row.of_reference]
        truths = {row.lesion: row.true for row in rows}
        dense, in_map = list[dict[str, object]](), list[dict[str, object]]()
        for number, lesion in enumerate(self.record.methods["threshold"].listed):
            verdict = lesion.verdict
            if verdict is not None and verdict.kinds:
                # Noise, devices and calcium of other sites never count.
                in_arteries = sum(verdict.kinds.get(LESION_KINDS[column], 0.0) for column in CORONARY_KINDS)
                row = _row(lesion, verdict) | {FORMER: float(log_odds(verdict.probability))}
                row |= {"coronary": truths.get(number), "may_count": verdict.counts or in_arteries >= 0.5}
                dense.append(row)
        mapped = self.record.methods.get("decomposition")
        for lesion in () if mapped is None else mapped.lesions:
            if lesion.verdict is not None:
                in_map.append(_row(lesion, lesion.verdict) | {"probability": lesion.verdict.probability})
        truth = {TOTAL: self.scan.reference_total, **self.scan.vessels}
        of_map = None if mapped is None else truth
        tables = (
            _table(in_map, ("agatston", "artery", "probability")),
            _table(dense, ("agatston", "artery", FORMER, "may_count", "coronary")),
        )
        facts: dict[str, float | str | None] = {**(self.scan.facts.calibration or {})}
        return MeasuredScan(self.scan.patient, "", False, *tables, truth, of_map, facts, is_gated=False)


_KINDS = {"agatston": float, FORMER: float, "probability": float, "may_count": bool}
"""Types of the columns of a user's lesions, besides objects."""


def _table(rows: Sequence[dict[str, object]], columns: Iterable[str]) -> pd.DataFrame:
    values = {name: [row[name] for row in rows] for name in columns}
    return pd.DataFrame({name: pd.Series(column, dtype=_KINDS.get(name, object)) for name, column in values.items()})


def _row(lesion: Lesion, verdict: Verdict) -> dict[str, object]:
    return {"agatston": lesion.clinical_agatston, "artery": verdict.artery.key}


class CrossFittedScore(NamedTuple):
    """Score of a scan by a calibration on other patients.

    Attributes:
        agatston: Total Agatston score.
        interval_90: Prediction interval of the total; None if it is withheld or unknown.
        probabilities: Probability of each category; empty if withheld or unknown.
    """

    agatston: float
    interval_90: tuple[float, float] | None
    probabilities: dict[str, float]


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
    cross_fitted: tuple[dict[str, CrossFittedScore], ...]
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
    scans = [case.measured() for case in usable]
    why_not = _why_not_refitted(scans)
    former = base.calibration_as(ScoreCalibration)
    # Stratified by the former score, so that no reference moves its scan.
    positive = np.array([case.scan.measured("automatic") > 0 for case in usable])
    fold = parts_by_patient([scan.patient for scan in scans], positive, FOLDS, seed=None)
    fits = [
        calibrate([scan for scan, part in zip(scans, fold, strict=True) if part != number], former, not why_not)
        for number in range(FOLDS)
    ]
    crossed = tuple(_scored(case, scan, fits[number]) for case, scan, number in zip(usable, scans, fold, strict=True))
    return Recalibration(tuple(usable), crossed, calibrate(scans, former, not why_not), why_not)


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


def _scored(case: Case, scan: MeasuredScan, fitted: CalibrationFit) -> dict[str, CrossFittedScore]:
    """Score a scan as the calibration would have it scored."""
    dense = fitted.judged(scan.dense)
    scores = {"automatic": _score(case, dense, float(dense.agatston[dense.counts].sum()), fitted, "automatic")}
    if scan.reference_agatston is not None:
        scores["map"] = _score(case, scan.lesions, float(scan.lesions.agatston.sum()), fitted, "decomposition")
    return scores


def _score(case: Case, lesions: pd.DataFrame, agatston: float, fitted: CalibrationFit, kind: str) -> CrossFittedScore:
    recorded, calibration_range = case.record.familiarity, fitted.scores.known
    assert calibration_range is not None
    has_metal = recorded is not None and METAL in recorded.causes
    familiarity = calibration_range.familiarity(case.scan.facts.calibration or {}, has_metal)
    if familiarity.out_of_range or kind not in fitted.scores.uncertainty:
        return CrossFittedScore(agatston, None, {})
    errors = fitted.scores.uncertainty[kind].total
    amounts = LesionAmounts(lesions.agatston.tolist(), lesions.probability.tolist())
    distribution = errors.distribution(amounts, familiarity.distance)
    low, high = distribution.interval(errors.level)
    chances = dict(zip(CATEGORIES, distribution.chances(LIMITS), strict=True))
    has_chances = agatston < CATEGORISED_BELOW
    return CrossFittedScore(agatston, (min(low, agatston), max(high, agatston)), chances if has_chances else {})


def _check_enough(scans: Sequence[ComparedScan]) -> None:
    patients = len({scan.patient for scan in scans})
    if patients < MIN_PATIENTS:
        raise TooFewError(
            f"{patients} patients have a reference and an automatic clinical score; a calibration needs "
            f"{MIN_PATIENTS} at least. Scans that an earlier version scored count after scoring with --overwrite."
        )
    with_calcium = {scan.patient for scan in scans if category_of(scan.reference_total) != CATEGORIES[0]}
    without = {scan.patient for scan in scans if category_of(scan.reference_total) == CATEGORIES[0]}
    if min(len(with_calcium), len(without)) < MIN_OF_EACH:
        raise TooFewError(
            f"A calibration needs {MIN_OF_EACH} patients with coronary calcium and {MIN_OF_EACH} without any."
        )


def _why_not_refitted(scans: Sequence[MeasuredScan]) -> str:
    """Return the reason why probabilities cannot be fitted; empty if they can."""
    candidates = [(scan.patient, is_coronary) for scan in scans for is_coronary in scan.dense.coronary]
    outlined = [(patient, bool(is_coronary)) for patient, is_coronary in candidates if is_coronary is not None]
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
        place, after = int(category_numbers(np.array(scan.reference_total))), crossed["automatic"]
        before = record.categories.probabilities if record.categories else {}
        for method, probabilities, score in (
            ("before", before, scan.measured("automatic")),
            ("after", after.probabilities, after.agatston),
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
    scores: dict[str, list[tuple[ComparedScan, tuple[float, float] | None]]] = {}
    for method, (name, _) in SCORED_METHODS.items():
        recorded = [case for case in result.cases if name in case.record.methods]
        before = [(case.scan, case.record.methods[name].total.interval_90) for case in recorded]
        pairs = zip(result.cases, result.cross_fitted, strict=True)
        after = [(case.scan, crossed[method].interval_90) for case, crossed in pairs if method in crossed]
        scores |= {f"{METHODS[method]}, before": before, f"{METHODS[method]}, after": after}
    patients = [case.scan.patient for case in result.cases]
    comparison = ExperimentComparison(patients, {title: title for title in scores}, np.random.default_rng(0))
    lines = held_rows(comparison, interval_table(scores))
    rows = [(title, part.scan.nunique(), *cells) for title, part, cells in lines]
    return TEXTS.table("calibration_intervals", ("Reference", "Scans", *scores), rows)
