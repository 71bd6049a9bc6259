"""Fit on results of scans with known calcium what turns networks into scores.

`cac calibrate` fits all of it on digital patients; `cac evaluate accuracy --calibrate` fits it on a user's scans, with
the former calibration as its prior (`recalibration`).

- The weights of the lesion network's answers and of the territories (logistic regression), by which a dense lesion is
  coronary calcium; gated scans have weights of their own.
- The weights of the evidence (logistic regression) that a lesion of the map where nothing is dense is coronary calcium,
  and the probability from which it counts, so that few scans without coronary calcium score above zero.
- The errors from which each total and artery gets its prediction interval (`uncertainty`): of clinical scores against
  an ideal reader's, of the map's scores against the patient's true score.
- The calibration range, outside which a scan is out of distribution (`quality.calibration`).

Weights are cross-fitted by patient, so that choices and intervals are not optimistic; the stored weights are fitted on
all patients. These must differ from the patients that the networks learned from, and from those of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.core.categories import CATEGORIES, category_numbers
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.text import counted
from CACScoringLib.models.cards import Calibration, find_model, read_card
from CACScoringLib.models.operating_points import SCORING_LIMIT
from CACScoringLib.models.store import update_card
from CACScoringLib.networks.configs import JUDGES, SCORING
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.sites import INTERCEPT, MAP_FEATURES, coronary_probabilities
from CACScoringLib.scoring.uncertainty import COUNTS_FROM, TOTAL, LesionCalibration, ScoreCalibration, Uncertainty
from CACScoringLib.statistics.patient_folds import parts_by_patient
from CACScoringLib.statistics.roc import threshold_at

from ..data.datasets import default_cache, find_scans
from ..project.training_scan import KINDS, TrainingScan, read_truth
from ..training.fits import (
    FOLDS,
    FORMER,
    KnownScore,
    columns_of,
    cross_fitted_probabilities,
    fitted_errors,
    fitted_uncertainty,
    fitted_weights,
)
from .measured_scans import LOGIT, MAP_RULE, PLACE, MeasuredScan, measure_all

MAX_FALSE_SCANS = 0.04
"""Largest proportion of scans without coronary calcium, clean or with other calcium, that lesions without candidates
alone bring above zero."""

HEALTHY = ("distractor", "clean")
"""Kinds of scans without coronary calcium."""

MIN_PATIENTS = 20
"""Fewest patients of a calibration with a former one, and fewest with scores of all arteries to fit their errors."""

MIN_ANSWER = -1.4
"""Log-odds by the lesion network from which a lesion has a part in the calibration; most of the others are noise."""


@dataclass(frozen=True)
class CalibrationFit:
    """Calibration fitted to scans.

    Attributes:
        scores: The calibration.
        weights: Weights of FORMER and INTERCEPT; empty without a former calibration.
        evidence: What the card holds about the map's evidence; empty if it stays.
        dense: Dense lesions with their cross-fitted probability, and the column counts, True if they count by it.
        in_map: Lesions of the map with theirs, 0 of those that do not count.
        coverage: Cross-fitted coverage of total Agatston scores by kind and class; empty with a former calibration.
        performance: Performance of the automatic score on the scans.
    """

    scores: ScoreCalibration
    weights: dict[str, float]
    evidence: dict[str, object]
    dense: pd.DataFrame
    in_map: pd.DataFrame
    coverage: dict[str, object]
    performance: dict[str, object]

    def as_calibration(self) -> dict[str, object]:
        """Return the form that a model's card holds."""
        lesions, uncertainty = self.scores.candidates, self.scores.uncertainty
        assert self.scores.known is not None
        return {
            **self.evidence,
            "candidates": None if lesions is None else asdict(lesions),
            "uncertainty": {kind: asdict(errors) for kind, errors in uncertainty.items()},
            "known": asdict(self.scores.known),
        }

    def judged(self, dense: pd.DataFrame) -> pd.DataFrame:
        """Return a user's dense lesions with their probability, and counts, True if they count by it."""
        return with_counts(dense.assign(probability=coronary_probabilities(columns_of(dense, (FORMER,)), self.weights)))


def calibrate(
    scans: Sequence[MeasuredScan],
    former: ScoreCalibration | None = None,
    refits: bool = True,
    max_false_scans: float = MAX_FALSE_SCANS,
) -> CalibrationFit:
    """Fit a calibration to scans.

    Args:
        scans: The scans.
        former: Calibration of the same networks that few scans hardly move, and whose evidence of the map stays; None
            for none.
        refits: False if the probabilities of lesions stay, as those of the former calibration.
        max_false_scans: Largest share of scans without coronary calcium that the map alone may bring above zero.
    """
    if former is None:
        (lesions, performance, dense), weights = fit_lesions(scans), dict[str, float]()
        evidence, in_map = fit_map(scans, dense, max_false_scans)
    else:
        lesions, weights, dense = refit_lesions(scans, former, refits)
        performance, evidence, in_map = {}, {}, _stacked(scans, [scan.lesions for scan in scans])
    uncertainty, coverage = fit_errors(scans, dense, in_map, former)
    if lesions is None:
        uncertainty.pop("automatic", None)
    scores = ScoreCalibration(lesions, uncertainty, CalibrationRange.of([scan.facts for scan in scans]))
    return CalibrationFit(scores, weights, evidence, dense, in_map, coverage, performance)


def refit_lesions(
    scans: Sequence[MeasuredScan], former: ScoreCalibration, refits: bool
) -> tuple[LesionCalibration, dict[str, float], pd.DataFrame]:
    """Change the probabilities of lesions: slope and offset of their former log-odds.

    Returns:
        The calibration that gives the changed probabilities where the former one gave the former ones; slope and
        offset; and all dense lesions with their cross-fitted probability and the column counts.
    """
    assert former.candidates is not None
    dense = _stacked(scans, [scan.dense for scan in scans])
    is_known = dense.coronary.notna().to_numpy()
    dense["coronary"] = dense.coronary.eq(True)
    weights = {FORMER: 1.0, INTERCEPT: 0.0}
    crossed = cross_fitted_probabilities(dense, (FORMER,), is_known) if refits else None
    if crossed is None:
        crossed = coronary_probabilities(columns_of(dense, (FORMER,)), weights)
    else:
        weights = fitted_weights(columns_of(dense[is_known], (FORMER,)), dense.coronary[is_known].to_numpy())
    changed = {name: weights[FORMER] * weight for name, weight in asdict(former.candidates).items()}
    for name in ("intercept", "gated_intercept"):
        changed[name] += weights[INTERCEPT]
    return LesionCalibration(**changed), weights, with_counts(dense.assign(probability=crossed))


def with_counts(dense: pd.DataFrame) -> pd.DataFrame:
    """Return a user's dense lesions with counts, True if they count by their probability."""
    return dense.assign(counts=(dense.probability >= COUNTS_FROM) & dense.may_count)


def choose(
    scans: Sequence[MeasuredScan], max_false_scans: float = MAX_FALSE_SCANS
) -> tuple[Calibration, dict[str, object], dict[str, object]]:
    """Return the calibration fitted to scans, and on these its performance and that of the automatic score.

    Raises DataError if a kind of scan is missing, or there are too few lesions to learn from.
    """
    kinds = {kind: [scan.kind == kind for scan in scans] for kind in HEALTHY}
    visible = [scan.visible for scan in scans]
    _check_kinds({kind: sum(part) for kind, part in {"visible": visible, **kinds}.items()})
    fitted = calibrate(scans, max_false_scans=max_false_scans)
    counted = _by_scan(scans, fitted.in_map, fitted.in_map.probability) > 0
    performance: dict[str, object] = {
        "sensitivity_scans": float(counted[visible].mean()),
        "scans_with_visible_calcium": sum(visible),
        **{f"above_zero_{kind}_scans": float(counted[part].mean()) for kind, part in kinds.items()},
        **{f"scans_{kind}": sum(part) for kind, part in kinds.items()},
        "coverage_of_intervals": fitted.coverage,
        "patients": len({s.patient for s in scans}),
        "data": f"{patients_of(scans)}; each lesion evaluated by weights from other patients, the limits chosen on the "
        "same scans",
    }
    return fitted.as_calibration(), performance, fitted.performance


def _check_kinds(counts: Mapping[str, int]) -> None:
    """Raise DataError if there is no scan of a kind. counts: Number of scans by kind."""
    if not all(counts.values()):
        stated = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise DataError(
            f"Calibration needs scans of all kinds; there are {stated}. Add patients, such as simulated ones of all "
            "kinds (cac phantom --output FOLDER --pairs 60)."
        )


def _stacked(scans: Sequence[MeasuredScan], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the scans' lesions, with the number and the patient of their scan, and whether it is gated."""
    numbers = np.repeat(np.arange(len(scans)), [len(table) for table in tables])
    about = {name: np.array([getattr(scan, name) for scan in scans])[numbers] for name in ("patient", "is_gated")}
    return pd.concat(tables, ignore_index=True).assign(scan=numbers, **about)


def _by_scan(scans: Sequence[MeasuredScan], lesions: pd.DataFrame, values: np.ndarray | pd.Series) -> np.ndarray:
    """Return the highest value of each scan's lesions, 0 without any, [scans]."""
    highest = np.zeros(len(scans))
    np.maximum.at(highest, lesions.scan.to_numpy(), np.asarray(values, float))
    return highest


def fit_lesions(
    scans: Sequence[MeasuredScan],
) -> tuple[LesionCalibration | None, dict[str, object], pd.DataFrame]:
    """Calibrate the lesion network's answers, of gated scans and of others.

    Lesions that the network thinks improbable (MIN_ANSWER), nearly all noise, have no part in the fit. Where there are
    too few lesions of gated scans or of the others, both have the same weights.

    Returns:
        The calibration, None if there are too few lesions with or without coronary calcium; its performance; and all
        dense lesions with their cross-fitted probability and the column counts, True if they count by it.
    """
    dense = _stacked(scans, [scan.dense for scan in scans]).assign(probability=0.0)
    likely, evidence = dense[LOGIT] >= MIN_ANSWER, (LOGIT, PLACE)
    weights: dict[bool, dict[str, float]] = {}
    for is_gated in (False, True):
        part = dense.is_gated == is_gated
        crossed = cross_fitted_probabilities(dense[part], evidence, likely[part].to_numpy())
        if crossed is not None:
            learned = dense[part & likely]
            weights[is_gated] = fitted_weights(columns_of(learned, evidence), learned.coronary.to_numpy())
            dense.loc[part, "probability"] = crossed
    if not weights:
        return None, {}, dense.assign(counts=False)
    shared = next(iter(weights.values()))
    if unfitted := {False, True} - weights.keys():
        part = dense.is_gated.isin(unfitted)
        dense.loc[part, "probability"] = coronary_probabilities(columns_of(dense[part], evidence), shared)
    usual, gated = (weights.get(key, shared) for key in (False, True))
    parameters = [part[name] for part in (usual, gated) for name in (*evidence, INTERCEPT)]
    dense["counts"] = (dense.probability >= COUNTS_FROM) & dense.artery.notna()
    performance: dict[str, object] = {
        "candidates": len(dense),
        "coronary": int(dense.coronary.sum()),
        "precision": float(dense.coronary[dense.counts].mean()) if dense.counts.any() else None,
        "recall": float(dense.counts[dense.coronary].mean()),
    }
    positive = _by_scan(scans, dense, dense.counts)
    for kind in HEALTHY:
        if any(part := [scan.kind == kind for scan in scans]):
            performance[f"above_zero_{kind}_scans"] = float(positive[part].mean())
    return LesionCalibration(*parameters), performance, dense


def fit_map(
    scans: Sequence[MeasuredScan], dense: pd.DataFrame, max_false_scans: float
) -> tuple[dict[str, object], pd.DataFrame]:
    """Fit which lesions of the map count where nothing is dense.

    The limit is the lowest probability by which these lesions bring at most `max_false_scans` of the scans without
    coronary calcium of any kind above zero. Without enough lesions to fit to, none of them counts.

    Args:
        scans: The scans.
        dense: Dense lesions as of `fit_lesions`.
        max_false_scans: Largest share of these that may be above zero.

    Returns:
        What the card holds about the evidence, and all lesions of the map with their cross-fitted probability, 0 of
        those that do not count.
    """
    lesions = _stacked(scans, [scan.lesions for scan in scans])
    alone = lesions.beneath.to_numpy() < 0
    row = np.searchsorted(dense.scan, lesions.scan) + lesions.beneath.to_numpy()
    of_dense = np.append((dense.probability * dense.counts).to_numpy(), 0.0)
    lesions["probability"] = of_dense[np.where(alone, -1, row)]
    faint = lesions[alone]
    crossed = cross_fitted_probabilities(faint, MAP_FEATURES, np.full(len(faint), True))
    if crossed is None:
        return {"evidence_weights": None, "most_not_coronary": 0.0}, lesions
    decisive = np.where(_by_scan(scans, lesions, lesions.probability) > 0, 0.0, _by_scan(scans, faint, crossed))
    healthy = (decisive[[scan.kind == kind for scan in scans]] for kind in HEALTHY)
    limit = max(threshold_at(highest, max_false_scans) for highest in healthy)
    lesions.loc[alone, "probability"] = np.where(crossed >= limit, crossed, 0.0)
    weights = fitted_weights(columns_of(faint, MAP_FEATURES), faint.coronary.to_numpy())
    return {"evidence_weights": weights, "most_not_coronary": 1 - limit}, lesions


_OF_SCORE = ("agatston", "artery", "probability")


def fit_errors(
    scans: Sequence[MeasuredScan], dense: pd.DataFrame, in_map: pd.DataFrame, former: ScoreCalibration | None = None
) -> tuple[dict[str, Uncertainty], dict[str, object]]:
    """Return the errors that prediction intervals are made of, and their coverage.

    Automatic clinical scores are compared with those of the ideal reader of the same scan; scores of the map with the
    patient's reference score, in scans that have one.

    Args:
        scans: The scans.
        dense: Dense lesions with their cross-fitted probability.
        in_map: Lesions of the map with theirs, 0 of those that do not count.
        former: Former calibration, whose kinds of errors are fitted anew, and not cross-fitted here.

    Returns:
        The errors by kind, and the cross-fitted coverage of total Agatston scores by kind and class.
    """
    stored: dict[str, Uncertainty] = {}
    coverage: dict[str, object] = {}
    for kind, lesions, name in (
        ("automatic", dense, "reader_agatston"),
        ("decomposition", in_map, "reference_agatston"),
    ):
        scores = [
            KnownScore(
                patient=scan.patient,
                truth={TOTAL: sum(truth.values())} | truth,
                **{column: lesions.loc[lesions.scan == n, column].to_numpy() for column in _OF_SCORE},
            )
            for n, scan in enumerate(scans)
            if (truth := getattr(scan, name))
        ]
        if former is not None:
            if kind in former.uncertainty:
                stored[kind] = fitted_uncertainty(scores, former.uncertainty[kind], MIN_PATIENTS)
        elif len({score.patient for score in scores}) >= FOLDS:
            stored[kind] = fitted_uncertainty(scores)
            coverage[kind] = _coverage(scores)
    return stored, coverage


def _coverage(scores: Sequence[KnownScore]) -> dict[str, list[int]]:
    """Count, by class of the truth, the total scores inside their cross-fitted interval, and all of them."""
    lesions, truths = [score.amounts(TOTAL) for score in scores], np.array([score.truth[TOTAL] for score in scores])
    fold = parts_by_patient([score.patient for score in scores], truths > 0, FOLDS, seed=None)
    is_covered = np.zeros(len(truths), bool)
    for number in range(FOLDS):
        learned = np.flatnonzero(fold != number).tolist()
        errors = fitted_errors([lesions[n] for n in learned], truths[learned], by_class=True)
        for n in np.flatnonzero(fold == number).tolist():
            low, high = errors.interval(lesions[n])
            is_covered[n] = low <= truths[n] <= high
    classes = category_numbers(truths)
    return {name: [int(is_covered[classes == c].sum()), int((classes == c).sum())] for c, name in enumerate(CATEGORIES)}


def patients_of(scans: Sequence[MeasuredScan]) -> str:
    """Return the patients that a calibration was fitted on, in words for the card."""
    patients = {scan.patient for scan in scans}
    numbers = sorted(int(patient) for patient in patients if patient.isdecimal())
    # A patient begins a range where the number before it is missing, and ends one where the next is.
    first = [str(number) for number in numbers if number - 1 not in numbers]
    last = [str(number) for number in numbers if number + 1 not in numbers]
    ranges = [low if low == high else f"{low} to {high}" for low, high in zip(first, last, strict=True)]
    names = ", ".join((*ranges, *sorted(patient for patient in patients if not patient.isdecimal())))
    return f"{counted(len(scans), 'scan')} of {counted(len(patients), 'patient')}: {names}"


def calibration_scans(scans: Sequence[TrainingScan]) -> list[TrainingScan]:
    """Return the scans with known calcium, without those with a stent or reserved for training or test.

    A model is overconfident on its training scans, and test scans must stay new. A stent counts by rule until a reader
    rejects it. Raises DataError if none remain.
    """
    with_calcium = [scan for scan in scans if scan.calcium_map is not None and scan.use in ("", "validation")]
    usable = [scan for scan in with_calcium if not _has_stent(scan)]
    if not usable:
        raise DataError(
            f"None of {len(scans)} scans can be calibrated on: their calcium must be known, as of digital patients and "
            "inserted plaque, and in a project they must be stored for validation."
        )
    return usable


def _has_stent(scan: TrainingScan) -> bool:
    truth = {} if scan.truth is None else read_truth(scan.truth)
    return any(distractor["kind"] == "stent" for distractor in truth.get("distractors", []))


def run(arguments: Any, progress: Progress) -> Path:
    """Calibrate as the command line asks, and update the card of the map's model.

    Returns:
        Its path.

    Raises:
        CTError: The scans or the models cannot be used.
        OutputError: The card cannot be written.
    """
    models = {network: getattr(arguments, network) or find_model(network).path for network in SCORING}
    cards = {network: read_card(path) for network, path in models.items()}
    for network, card in cards.items():
        if card.network != network:
            raise DataError(f"{models[network]} is a model for {card.network!r}, not for {network!r}.")
    progress.begin(["scans", "model"])
    with progress.step("scans"):
        cache = arguments.cache or default_cache() / "calibration"
        scans = calibration_scans(find_scans(arguments.data))
        _check_kinds({kind: sum(scan.kind == kind for scan in scans) for kind in KINDS})  # before minutes of work
        measured_scans = measure_all(scans, models, cache, arguments.workers, progress)
    with progress.step("model"):
        hashes = {network: card.sha256 for network, card in cards.items()}
        of_candidates = {kind: hashes[kind] for kind in JUDGES}
        calibration, performance, candidates = choose(measured_scans)
        calibration = {**MAP_RULE, **cards["decomposition"].calibration, **calibration}
        validation: dict[str, object] = {
            "whole_method": performance | {"models": hashes},
            "automatic_score": candidates
            | {"models": of_candidates, "data": patients_of(measured_scans), "counts_from": COUNTS_FROM},
        }
        if "slice_threshold" not in cards["slices"].calibration:
            update_card(models["slices"], {"slice_threshold": SCORING_LIMIT}, {})
        path = update_card(models["decomposition"], calibration, validation)
    progress.done(path)
    return path
