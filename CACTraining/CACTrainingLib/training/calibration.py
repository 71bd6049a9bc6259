"""Fit on results of scans with known calcium what turns networks into scores: `cac calibrate`.

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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from CACScoringLib.core.errors import DataError
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import Calibration, find_model, read_card
from CACScoringLib.models.store import update_card
from CACScoringLib.networks.roles import SCORING
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.lesion_calibration import COUNTS_FROM, LesionCalibration
from CACScoringLib.scoring.map_evidence import INTERCEPT, coronary_probabilities
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, LesionAmounts, Uncertainty

from ..data.datasets import default_cache, find_scans
from ..project.training_scan import KINDS, TrainingScan
from ..statistics.patient_folds import parts_by_patient
from ..statistics.roc import threshold_at
from .evidence import FOLDS, cross_fitted_probabilities, fitted_weights, stack_features
from .measured_scans import LOGIT, MAP_RULE, PLACE, SLICE_THRESHOLD, LesionTable, MeasuredScan, measure_all
from .score_errors import fitted_errors

MAX_FALSE_SCANS = 0.04
"""Largest proportion of scans without coronary calcium, clean or with other calcium, that lesions without candidates
alone bring above zero."""

MIN_ANSWER = -1.4
"""Log-odds by the lesion network from which a lesion has a part in the calibration; most of the others are noise."""


@dataclass(frozen=True)
class MapEvidence:
    """Which lesions of the map count where nothing is dense.

    Attributes:
        weights: Weights of `map_evidence.MAP_FEATURES`; None if there are too few lesions, none of which counts then.
        limit: Probability from which a lesion counts.
    """

    weights: dict[str, float] | None
    limit: float

    def as_calibration(self) -> dict[str, object]:
        """Return the form that a model's card holds."""
        return {"evidence_weights": self.weights, "most_not_coronary": 1 - self.limit}


def choose(
    scans: Sequence[MeasuredScan], max_false_scans: float = MAX_FALSE_SCANS
) -> tuple[Calibration, dict[str, object], dict[str, object]]:
    """Return the calibration fitted to scans, and on these its performance and that of the automatic score.

    Raises DataError if a kind of scan is missing, or there are too few lesions to learn from.
    """
    kinds = {kind: [scan.kind == kind for scan in scans] for kind in ("distractor", "clean")}
    visible = [scan.visible for scan in scans]
    _check_kinds({kind: sum(part) for kind, part in {"visible": visible, **kinds}.items()})
    lesions, candidate_performance, clinical = fit_lesions(scans)
    evidence, in_map = fit_map(scans, clinical, kinds.values(), max_false_scans)
    calibration: Calibration = {**evidence.as_calibration(), "candidates": lesions and asdict(lesions)}
    uncertainty, coverage = stored_uncertainty(scans, clinical, in_map)
    if lesions is None:
        uncertainty.pop("automatic", None)
    calibration["uncertainty"] = uncertainty
    calibration["known"] = asdict(CalibrationRange.of([scan.facts for scan in scans]))
    counted = np.array([p.any() for p in in_map])
    performance: dict[str, object] = {
        "sensitivity_scans": float(counted[visible].mean()),
        "scans_with_visible_calcium": sum(visible),
        **{f"above_zero_{kind}_scans": float(counted[part].mean()) for kind, part in kinds.items()},
        **{f"scans_{kind}": sum(part) for kind, part in kinds.items()},
        "coverage_of_intervals": coverage,
        "patients": len({s.patient for s in scans}),
        "data": f"{patients_of(scans)}; each lesion evaluated by weights from other patients, the limits chosen on the "
        "same scans",
    }
    return calibration, performance, candidate_performance


def _check_kinds(counts: Mapping[str, int]) -> None:
    """Raise DataError if there is no scan of a kind. counts: Number of scans by kind."""
    if not all(counts.values()):
        stated = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise DataError(
            f"Calibration needs scans of all kinds; there are {stated}. Add patients, such as simulated ones of all "
            "kinds (cac phantom --output FOLDER --pairs 60)."
        )


def fit_lesions(
    scans: Sequence[MeasuredScan],
) -> tuple[LesionCalibration | None, dict[str, object], list[np.ndarray]]:
    """Calibrate the lesion network's answers, of gated scans and of others.

    Lesions that the network thinks improbable (MIN_ANSWER), nearly all noise, have no part in the fit. Where there are
    too few lesions of gated scans or of the others, both have the same weights.

    Returns:
        The calibration, None if there are too few lesions with or without coronary calcium; its performance; and for
        each scan the cross-fitted probability of each dense lesion [n].
    """
    weights: dict[bool, dict[str, float]] = {}
    probabilities = [np.zeros(len(scan.dense.coronary)) for scan in scans]
    for is_gated in (False, True):
        numbers = [n for n, scan in enumerate(scans) if scan.is_gated == is_gated]
        parts = [_evidence(scans[n].dense) for n in numbers]
        likely = [part.selected(part.features[LOGIT] >= MIN_ANSWER) for part in parts]
        patients = [scans[n].patient for n in numbers]
        crossed = cross_fitted_probabilities(patients, likely, parts) if parts else None
        if crossed is None:
            continue
        coronary = np.concatenate([part.coronary for part in likely])
        weights[is_gated] = fitted_weights(stack_features(likely), coronary)
        for n, p in zip(numbers, crossed, strict=True):
            probabilities[n] = p
    if not weights:
        return None, {}, probabilities
    shared = next(iter(weights.values()))
    for n, scan in enumerate(scans):
        if scan.is_gated not in weights:
            probabilities[n] = coronary_probabilities(_evidence(scan.dense).features, shared)
    usual, gated = (weights.get(key, shared) for key in (False, True))
    calibration = LesionCalibration(
        *(usual[name] for name in (LOGIT, PLACE, INTERCEPT)), *(gated[name] for name in (LOGIT, PLACE, INTERCEPT))
    )
    counted = np.concatenate(_counted(scans, probabilities))
    coronary = np.concatenate([scan.dense.coronary for scan in scans])
    performance: dict[str, object] = {
        "candidates": len(counted),
        "coronary": int(coronary.sum()),
        "precision": float(coronary[counted].mean()) if counted.any() else None,
        "recall": float(counted[coronary].mean()),
    }
    for kind in ("distractor", "clean"):
        masks = _counted(scans, probabilities)
        if positives := [mask.any() for mask, scan in zip(masks, scans, strict=True) if scan.kind == kind]:
            performance[f"above_zero_{kind}_scans"] = float(np.mean(positives))
    return calibration, performance, probabilities


def _evidence(dense: LesionTable) -> LesionTable:
    """Return dense lesions with the evidence of their calibration alone."""
    return replace(dense, features={name: dense.features[name] for name in (LOGIT, PLACE)})


def _counted(scans: Sequence[MeasuredScan], probabilities: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each scan which of its dense lesions count, bool [n]."""
    return [
        (p >= COUNTS_FROM) & (scan.dense.artery <= max(MAIN_ARTERIES))
        for scan, p in zip(scans, probabilities, strict=True)
    ]


def fit_map(
    scans: Sequence[MeasuredScan],
    clinical: Sequence[np.ndarray],
    healthy: Iterable[Sequence[bool]],
    max_false_scans: float,
) -> tuple[MapEvidence, list[np.ndarray]]:
    """Fit which lesions of the map count where nothing is dense.

    The limit is the lowest by which these lesions bring at most `max_false_scans` of the scans without coronary calcium
    above zero.

    Args:
        scans: The scans.
        clinical: Cross-fitted probability of each scan's dense lesions, [n].
        healthy: For each kind of scans without coronary calcium, True for the scans of it.
        max_false_scans: Largest share of these that may be above zero.

    Returns:
        The evidence, and for each scan the cross-fitted probability of its lesions of the map, 0 of those that do not
        count, [n].
    """
    counted = _counted(scans, clinical)
    probabilities = []
    for scan, p, mask in zip(scans, clinical, counted, strict=True):
        beneath = scan.lesions.beneath
        probabilities.append(np.where(beneath >= 0, np.append(p * mask, 0.0)[beneath], 0.0))
    alone = [scan.lesions.selected(scan.lesions.beneath < 0) for scan in scans]
    crossed = cross_fitted_probabilities([scan.patient for scan in scans], alone)
    if crossed is None:
        return MapEvidence(None, 1.0), probabilities
    decisive = [p[:0] if of_dense.any() else p for p, of_dense in zip(crossed, probabilities, strict=True)]
    limit = max(_limit(decisive, selection, max_false_scans) for selection in healthy)
    for scan, of_map, p in zip(scans, probabilities, crossed, strict=True):
        of_map[scan.lesions.beneath < 0] = np.where(p >= limit, p, 0.0)
    coronary = np.concatenate([part.coronary for part in alone])
    return MapEvidence(fitted_weights(stack_features(alone), coronary), limit), probabilities


def stored_uncertainty(
    scans: Sequence[MeasuredScan], clinical: Sequence[np.ndarray], in_map: Sequence[np.ndarray]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the errors that prediction intervals are made of (`uncertainty.Uncertainty`), and their coverage.

    Automatic clinical scores are compared with those of the ideal reader of the same scan; scores of the map with the
    patient's reference score, in scans that have one.

    Args:
        scans: The scans.
        clinical: Cross-fitted probability of each scan's dense lesions, [n].
        in_map: That of its lesions of the map, 0 of those that do not count, [n].

    Returns:
        The errors by kind, and the cross-fitted coverage of total Agatston scores by kind and class.
    """
    stored: dict[str, object] = {}
    coverage: dict[str, object] = {}
    kinds: dict[str, list[tuple[LesionTable, np.ndarray, dict[str, float] | None]]] = {
        "automatic": [(scan.dense, p, scan.reader_agatston) for scan, p in zip(scans, clinical, strict=True)],
        "decomposition": [(scan.lesions, p, scan.reference_agatston) for scan, p in zip(scans, in_map, strict=True)],
    }
    for kind, rows in kinds.items():
        cases = [(table, p, truth, scan.patient) for (table, p, truth), scan in zip(rows, scans, strict=True) if truth]
        patients = np.array([patient for *_, patient in cases])
        if len(set(patients.tolist())) < FOLDS:
            continue
        total = _errors_of([(table, p, sum(truth.values()), None) for table, p, truth, _ in cases])
        artery = _errors_of([(table, p, truth[a.key], a) for table, p, truth, _ in cases for a in MAIN_ARTERIES])
        stored[kind] = asdict(Uncertainty(fitted_errors(*total), fitted_errors(*artery)))
        coverage[kind] = _coverage(patients, *total)
    return stored, coverage


def _errors_of(
    cases: Sequence[tuple[LesionTable, np.ndarray, float, Artery | None]],
) -> tuple[list[LesionAmounts], np.ndarray]:
    """Return the arguments of `fitted_errors`. cases: Lesions, their probabilities, true score, and artery or None."""
    lesions = []
    for table, p, _, artery in cases:
        part = np.ones(len(p), bool) if artery is None else table.artery == artery
        lesions.append(LesionAmounts(table.agatston[part].tolist(), p[part].tolist()))
    return lesions, np.array([truth for _, _, truth, _ in cases], float)


def _coverage(patients: np.ndarray, lesions: Sequence[LesionAmounts], truths: np.ndarray) -> dict[str, list[int]]:
    """Count, by class of the truth, the total scores inside their cross-fitted interval, and all of them."""
    fold = parts_by_patient(patients, truths > 0, FOLDS, seed=None)
    is_covered = np.zeros(len(truths), bool)
    for number in range(FOLDS):
        learned = np.flatnonzero(fold != number).tolist()
        errors = fitted_errors([lesions[n] for n in learned], truths[learned])
        for n in np.flatnonzero(fold == number).tolist():
            low, high = errors.interval(lesions[n])
            is_covered[n] = low <= truths[n] <= high
    classes = np.searchsorted(LIMITS, truths, side="right")
    return {name: [int(is_covered[classes == c].sum()), int((classes == c).sum())] for c, name in enumerate(CATEGORIES)}


def _limit(probabilities: Sequence[np.ndarray], selection: Sequence[bool], max_share: float) -> float:
    """Return the lowest probability that lesions reach in at most `max_share` of the selected scans."""
    selected_probabilities = (p for p, is_selected in zip(probabilities, selection, strict=True) if is_selected)
    return threshold_at(np.array([p.max(initial=0.0) for p in selected_probabilities]), max_share)


def patients_of(scans: Sequence[MeasuredScan]) -> str:
    """Return the patients that a calibration was fitted on, in words for the card."""
    patients = {scan.patient for scan in scans}
    numbers = sorted(int(patient) for patient in patients if patient.isdecimal())
    # A patient begins a range where the number before it is missing, and ends one where the next is.
    first = [str(number) for number in numbers if number - 1 not in numbers]
    last = [str(number) for number in numbers if number + 1 not in numbers]
    ranges = [low if low == high else f"{low} to {high}" for low, high in zip(first, last, strict=True)]
    names = ", ".join((*ranges, *sorted(patient for patient in patients if not patient.isdecimal())))
    return f"{len(scans)} scans of {len(patients)} patients: {names}"


def calibration_scans(scans: Sequence[TrainingScan]) -> list[TrainingScan]:
    """Return the scans with known calcium, without those reserved for training or test.

    A model is overconfident on its training scans, and test scans must stay new. Raises DataError if none remain.
    """
    usable = [scan for scan in scans if scan.calcium_map is not None and scan.use in ("", "validation")]
    if not usable:
        raise DataError(
            f"None of {len(scans)} scans can be calibrated on: their calcium must be known, as of digital patients and "
            "inserted plaque, and in a project they must be stored for validation."
        )
    return usable


def run(arguments: Any, progress: Progress) -> Path:
    """Calibrate as the command line asks, and update the card of the map's model.

    Returns:
        Its path.

    Raises:
        CTError: The scans or the models cannot be used.
        OutputError: The card cannot be written.
    """
    territories = arguments.territories or find_model("territories").path
    slices = arguments.slices or find_model("slices").path
    lesions = arguments.lesions or find_model("lesions").path
    models = (territories, slices, arguments.decomposition, lesions)
    for path, network in zip(models, SCORING, strict=True):
        if read_card(path).network != network:
            raise DataError(f"{path} is a model for {read_card(path).network!r}, not for {network!r}.")
    progress.begin(["scans", "model"])
    with progress.step("scans"):
        cache = arguments.cache or default_cache() / "calibration"
        scans = calibration_scans(find_scans(arguments.data))
        _check_kinds({kind: sum(scan.kind == kind for scan in scans) for kind in KINDS})  # before minutes of work
        measured_scans = measure_all(scans, models, cache, arguments.workers, progress)
    with progress.step("model"):
        hashes = {read_card(p).network: read_card(p).sha256 for p in models}
        of_candidates = {kind: hashes[kind] for kind in ("territories", "lesions")}
        card = read_card(arguments.decomposition)
        calibration, performance, candidates = choose(measured_scans)
        calibration = {**MAP_RULE, **card.calibration, **calibration}
        validation: dict[str, object] = {
            "whole_method": performance | {"models": hashes},
            "automatic_score": candidates | {"models": of_candidates, "data": patients_of(measured_scans)},
        }
        if "slice_threshold" not in read_card(slices).calibration:
            update_card(slices, {"slice_threshold": SLICE_THRESHOLD}, {})
        path = update_card(arguments.decomposition, calibration, validation)
    progress.done(path)
    return path
