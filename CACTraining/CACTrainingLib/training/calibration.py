"""Fit on results of scans with known calcium what turns networks into scores: `cac calibrate`.

- Temperature and offset of the lesion network's answers, and the probability from which a dense lesion counts.
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
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import Calibration, find_model, read_card
from CACScoringLib.models.store import update_card
from CACScoringLib.networks.roles import SCORING
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.lesion_calibration import LesionCalibration
from CACScoringLib.scoring.map_evidence import INTERCEPT
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, NOISE_HU, THICKNESS_MM

from ..data.datasets import default_cache, find_scans
from ..project.training_scan import KINDS, TrainingScan
from ..statistics.patient_folds import parts_by_patient
from ..statistics.roc import threshold_at
from .evidence import FOLDS, cross_fitted_probabilities, fitted_weights, nearest_limit, stack_features
from .measured_scans import LOGIT, MAP_RULE, SLICE_THRESHOLD, MeasuredScan, measure_all
from .score_errors import fitted_errors

MAX_FALSE_SCANS = 0.04
"""Largest proportion of scans without coronary calcium, clean or with other calcium, that lesions without candidates
alone bring above zero."""

Scores = dict[str, dict[str, float]]
"""Agatston score and mass in mg by artery, with the keys of `uncertainty.LIMITS`."""


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
    lesions, candidate_performance, clinical_masks = fit_lesions(scans)
    evidence, map_masks = fit_map(scans, clinical_masks, kinds.values(), max_false_scans)
    calibration: Calibration = {**evidence.as_calibration(), "candidates": lesions and asdict(lesions)}
    scores = _scores(scans, map_masks, clinical_masks)
    if lesions is None:
        del scores["automatic"]
    calibration["uncertainty"], coverage = stored_uncertainty(scans, scores)
    calibration["known"] = asdict(CalibrationRange.of([scan.facts for scan in scans]))
    counted = np.array([mask.any() for mask in map_masks])
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
    """Calibrate the lesion network's answers, and choose the probability from which a dense lesion counts.

    The limit is that of the best cross-fitted scores (`nearest_limit`).

    Returns:
        The calibration, None if there are too few lesions with or without coronary calcium; its performance; and for
        each scan which of its dense lesions count, bool [n].
    """
    parts = [replace(scan.dense, features={LOGIT: scan.dense.features[LOGIT]}) for scan in scans]
    probabilities = cross_fitted_probabilities([scan.patient for scan in scans], parts)
    if probabilities is None:
        return None, {}, [np.zeros(len(part.coronary), bool) for part in parts]
    is_artery = [part.artery <= max(MAIN_ARTERIES) for part in parts]
    truths = [sum(score["agatston"] for score in scan.reader.values()) for scan in scans]
    pairs = list(zip(parts, is_artery, strict=True))
    in_arteries = [p[mask] for p, mask in zip(probabilities, is_artery, strict=True)]
    limit, error = nearest_limit([part.agatston[mask] for part, mask in pairs], in_arteries, truths)
    masks = [(p >= limit) & mask for p, mask in zip(probabilities, is_artery, strict=True)]
    coronary = np.concatenate([part.coronary for part in parts])
    weights = fitted_weights(stack_features(parts), coronary)
    calibration = LesionCalibration(1 / max(weights[LOGIT], 1e-3), weights[INTERCEPT], limit)
    is_counted = np.concatenate(masks)
    performance: dict[str, object] = {
        "candidates": len(is_counted),
        "coronary": int(coronary.sum()),
        "precision": float(coronary[is_counted].mean()) if is_counted.any() else None,
        "recall": float(is_counted[coronary].mean()),
        "difference_of_ln_agatston": error,
    }
    for kind in ("distractor", "clean"):
        if positives := [mask.any() for mask, scan in zip(masks, scans, strict=True) if scan.kind == kind]:
            performance[f"above_zero_{kind}_scans"] = float(np.mean(positives))
    return calibration, performance, masks


def fit_map(
    scans: Sequence[MeasuredScan],
    clinical_masks: Sequence[np.ndarray],
    healthy: Iterable[Sequence[bool]],
    max_false_scans: float,
) -> tuple[MapEvidence, list[np.ndarray]]:
    """Fit which lesions of the map count where nothing is dense.

    The limit is the lowest by which these lesions bring at most `max_false_scans` of the scans without coronary calcium
    above zero.

    Args:
        scans: The scans.
        clinical_masks: For each scan which of its dense lesions count, bool [n].
        healthy: For each kind of scans without coronary calcium, True for the scans of it.
        max_false_scans: Largest share of these that may be above zero.

    Returns:
        The evidence, and for each scan which of its lesions of the map count, bool [n].
    """
    masks = []
    for scan, clinical in zip(scans, clinical_masks, strict=True):
        beneath = scan.lesions.beneath
        masks.append((beneath >= 0) & np.append(clinical, False)[beneath])
    alone = [scan.lesions.selected(scan.lesions.beneath < 0) for scan in scans]
    probabilities = cross_fitted_probabilities([scan.patient for scan in scans], alone)
    if probabilities is None:
        return MapEvidence(None, 1.0), masks
    decisive = [p[:0] if mask.any() else p for p, mask in zip(probabilities, masks, strict=True)]
    limit = max(_limit(decisive, selection, max_false_scans) for selection in healthy)
    for scan, mask, p in zip(scans, masks, probabilities, strict=True):
        mask[scan.lesions.beneath < 0] = p >= limit
    coronary = np.concatenate([part.coronary for part in alone])
    return MapEvidence(fitted_weights(stack_features(alone), coronary), limit), masks


def _scores(
    scans: Sequence[MeasuredScan], map_masks: Sequence[np.ndarray], clinical_masks: Sequence[np.ndarray]
) -> dict[str, list[Scores]]:
    """Return the scores of each scan, by kind (see `ScoreCalibration`), of the lesions in masks, bool [n]."""
    return {
        "automatic": [scan.dense.scores(mask, scan) for scan, mask in zip(scans, clinical_masks, strict=True)],
        "decomposition": [scan.lesions.scores(mask, scan) for scan, mask in zip(scans, map_masks, strict=True)],
    }


def stored_uncertainty(
    scans: Sequence[MeasuredScan], scores: Mapping[str, Sequence[Scores]]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the errors that prediction intervals are made of (`uncertainty.Uncertainty`), and their coverage.

    Automatic clinical scores are compared with those of the ideal reader of the same scan; scores of the map with the
    patient's reference score and true mass, in scans that have them.

    Args:
        scans: The scans.
        scores: Cross-fitted scores of each scan, by kind (see `ScoreCalibration`).

    Returns:
        The errors by kind, and the coverage of other patients' total Agatston scores by kind and class.
    """
    stored: dict[str, object] = {}
    coverage: dict[str, object] = {}
    names = tuple(artery.key for artery in MAIN_ARTERIES)
    for kind, kind_scores in scores.items():
        indices = [n for n, scan in enumerate(scans) if kind == "automatic" or scan.reference_agatston is not None]
        facts = [scans[n].facts for n in indices]
        noise, thickness = (np.array([f.get(key) or usual for f in facts], float) for key, usual in _USUAL_FACTS)
        patients = np.array([scans[n].patient for n in indices])
        if len(set(patients.tolist())) < FOLDS:
            continue
        parts: dict[str, dict[str, object]] = {"total": {}, "artery": {}}
        for quantity in LIMITS:
            predicted = np.array([[kind_scores[n][a][quantity] for a in names] for n in indices])
            truths = np.array([[_truth(scans[n], kind, quantity)[a] for a in names] for n in indices])
            repeated_facts = [np.repeat(values, len(names)) for values in (noise, thickness)]
            total = predicted.sum(1), truths.sum(1), noise, thickness
            parts["total"][quantity] = asdict(fitted_errors(quantity, *total))
            errors = fitted_errors(quantity, predicted.ravel(), truths.ravel(), *repeated_facts)
            parts["artery"][quantity] = asdict(errors)
            if quantity == "agatston":
                coverage[kind] = _coverage(patients, *total)
        stored[kind] = parts
    return stored, coverage


_USUAL_FACTS = (("noise_hu", NOISE_HU), ("slice_thickness_mm", THICKNESS_MM))


def _truth(scan: MeasuredScan, kind: str, quantity: str) -> dict[str, float]:
    """Return the reference values for a kind of score, by artery."""
    if kind == "automatic":
        return {artery: scores[quantity] for artery, scores in scan.reader.items()}
    return (scan.reference_agatston if quantity == "agatston" else scan.true_mass_mg) or {}


def _coverage(patients: np.ndarray, *values: np.ndarray) -> dict[str, list[int]]:
    """Count, by class of the truth, the total scores inside their cross-fitted interval, and all of them."""
    truths = values[1]
    fold = parts_by_patient(patients, truths > 0, FOLDS, seed=None)
    is_covered = np.zeros(len(truths), bool)
    for number in range(FOLDS):
        errors = fitted_errors("agatston", *(v[fold != number] for v in values))
        for n in np.flatnonzero(fold == number):
            low, high = errors.interval(values[0][n], values[2][n], values[3][n])
            is_covered[n] = low <= truths[n] <= high
    classes = np.searchsorted(LIMITS["agatston"], truths, side="right")
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
