"""Fit on scans with known calcium what turns networks into scores: `cac calibrate`.

- The weights of the evidence (logistic regression) that give each lesion of the map, and each candidate of the clinical
  rule, its probability of being coronary calcium.
- Which slices are decomposed, and the probability from which a lesion counts (`DecompositionSettings`), so that few
  scans without coronary calcium score above zero.
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

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import Calibration, bundled_folder, find_model, read_card
from CACScoringLib.models.choice import SCORING_NETWORKS
from CACScoringLib.models.store import update_card
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.evidence import Evidence, coronary_probabilities, probability_of_candidates
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, NOISE_HU, THICKNESS_MM

from ..data.datasets import default_cache, find_scans
from ..project.training_scan import TrainingScan
from ..statistics.patient_folds import parts_by_patient
from ..statistics.roc import threshold_at
from .evidence import (
    FOLDS,
    cross_fitted_probabilities,
    fitted_weights,
    nearest_limit,
    selected,
    stack_features,
    typical,
)
from .measured_scans import MAP_RULES, LesionTable, MapSettings, MeasuredScan, measure_all
from .score_errors import fitted_errors

SLICE_THRESHOLDS = (0.0, 0.05, 0.2)
"""Slice thresholds tried beside the one chosen in the classifier's training; at 0 all slices are decomposed."""

MAX_FALSE_SCANS = 0.04
"""Largest proportion of scans without coronary calcium, clean or with other calcium, that lesions without candidates
alone bring above zero."""

Scores = dict[str, dict[str, float]]
"""Agatston score and mass in mg by artery, with the keys of `uncertainty.LIMITS`."""


@dataclass(frozen=True)
class _Trial:
    """Settings of the calcium map under trial.

    Attributes:
        settings: The settings.
        probabilities: For each scan, the cross-fitted probabilities [n] that its lesions are coronary calcium; 1 or 0
            for those that count, or do not, by their candidates.
        limit: Probability from which a lesion counts.
    """

    settings: MapSettings
    probabilities: list[np.ndarray]
    limit: float

    def above_zero(self, selection: Sequence[bool]) -> float:
        """Return the proportion of the selected scans in which a lesion counts. selection: one bool for each scan."""
        probabilities = [p for p, is_selected in zip(self.probabilities, selection, strict=True) if is_selected]
        return float(np.mean([(p >= self.limit).any() for p in probabilities]))

    def mass_error(self, scans: Sequence[MeasuredScan]) -> float:
        """Return the mean absolute error of ln(1 + mass in mg) of the lesions that count."""
        masses = [
            scan.lesions[self.settings].pseudo_mass[p >= self.limit].sum() * scan.mg_per_hu_mm3
            for scan, p in zip(scans, self.probabilities, strict=True)
        ]
        true_masses = [sum(scan.true_mass_mg.values()) for scan in scans]
        return float(np.abs(np.log1p(masses) - np.log1p(true_masses)).mean())


def choose(
    scans: Sequence[MeasuredScan], max_false_scans: float = MAX_FALSE_SCANS
) -> tuple[Calibration, dict[str, object], dict[str, object]]:
    """Return the best calibration, and on these scans its performance and that of the automatic score.

    Each setting gets the lowest limit that keeps to `max_false_scans`; the one with the smallest error in mass is
    chosen. Ties go to fewer decomposed slices.
    Raises DataError if a kind of scan is missing, or there are too few lesions to learn from.
    """
    kinds = {kind: [scan.kind == kind for scan in scans] for kind in ("distractor", "clean")}
    visible = [scan.visible for scan in scans]
    if not any(visible) or not all(map(any, kinds.values())):
        counts = ", ".join(f"{sum(part)} {kind}" for kind, part in {"visible": visible, **kinds}.items())
        raise DataError(f"Calibration needs scans of all kinds; there are {counts}. Give more patients.")
    candidates = {settings: candidate_evidence(scans, settings) for settings in scans[0].lesions}
    verdicts = {
        settings: verdicts_of_candidates(scans, settings, evidence, probabilities)
        for settings, (evidence, _, probabilities) in candidates.items()
    }
    trials = []
    for settings, of_scans in verdicts.items():
        alone = cross_fitted_probabilities([scan.patient for scan in scans], lesions_alone(scans, settings, of_scans))
        if alone is None:
            continue
        probabilities = [_filled(verdict, p) for verdict, p in zip(of_scans, alone, strict=True)]
        decisive = [p[:0] if (verdict == 1).any() else p for verdict, p in zip(of_scans, alone, strict=True)]
        limit = max(_limit(decisive, selection, max_false_scans) for selection in kinds.values())
        trials.append(_Trial(settings, probabilities, limit))
    if not trials:
        message = (
            "The calcium maps hold too few lesions with or without coronary calcium to learn from. Give more patients, "
            "or train the networks longer."
        )
        raise DataError(message)
    best = min(trials, key=lambda trial: (trial.mass_error(scans), -trial.settings.slice_threshold))
    calibration: Calibration = asdict(best.settings)
    evidence, candidate_performance, candidate_probabilities = candidates[best.settings]
    parts = lesions_alone(scans, best.settings, verdicts[best.settings])
    coronary = np.concatenate([part.coronary for part in parts])
    calibration["evidence_weights"] = fitted_weights(stack_features(parts), coronary)
    calibration["most_not_coronary"] = 1 - best.limit
    calibration["candidates"] = evidence and asdict(evidence)
    clinical_masks = [] if evidence is None else _masks(candidate_probabilities, evidence)
    map_masks = [p >= best.limit for p in best.probabilities]
    scores = _scores(scans, best.settings, map_masks, clinical_masks)
    calibration["uncertainty"], coverage = stored_uncertainty(scans, scores)
    calibration["known"] = asdict(CalibrationRange.of([scan.facts for scan in scans]))
    performance: dict[str, object] = {
        "sensitivity_scans": best.above_zero(visible),
        "scans_with_visible_calcium": sum(visible),
        **{f"above_zero_{kind}_scans": best.above_zero(selection) for kind, selection in kinds.items()},
        **{f"scans_{kind}": sum(selection) for kind, selection in kinds.items()},
        "coverage_of_intervals": coverage,
        "patients": len({s.patient for s in scans}),
        "data": f"{patients_of(scans)}; each lesion evaluated by weights from other patients, the limits chosen on the "
        "same scans",
    }
    return calibration, performance, candidate_performance


def intervals(
    scans: Sequence[MeasuredScan], slice_threshold: float, stored: Calibration
) -> tuple[Calibration, dict[str, object]]:
    """Return the uncertainty of scores with the stored evidence weights, and its coverage on these scans.

    Args:
        scans: The scans.
        slice_threshold: Threshold from the classifier's card.
        stored: Calibration from the generator's card.

    Raises:
        DataError: The card holds no evidence weights.
        CTError: The stored evidence is damaged.
    """
    rule = stored.get("min_healthy_hu"), stored.get("floor_hu")
    weights, most = stored.get("evidence_weights"), stored.get("most_not_coronary")
    if rule not in MAP_RULES or weights is None or most is None:
        raise DataError("The map's card holds no evidence that could be kept. Calibrate without --intervals-only.")
    settings = MapSettings(slice_threshold, *rule)

    evidence, probabilities, clinical_masks = Evidence.stored(stored), [], []
    if evidence is not None and evidence.weights is not None:
        probabilities = [coronary_probabilities(scan.candidates[settings].features, evidence.weights) for scan in scans]
        clinical_masks = _masks(probabilities, evidence)
    verdicts = verdicts_of_candidates(scans, settings, evidence, probabilities)
    parts = lesions_alone(scans, settings, verdicts)
    judged = [coronary_probabilities(part.features, weights) for part in parts]
    map_masks = [_filled(verdict, p) >= 1 - most for verdict, p in zip(verdicts, judged, strict=True)]
    uncertainty, coverage = stored_uncertainty(scans, _scores(scans, settings, map_masks, clinical_masks))
    patients = len({scan.patient for scan in scans})
    return {"uncertainty": uncertainty}, {"coverage_of_intervals": coverage, "patients": patients}


def verdicts_of_candidates(
    scans: Sequence[MeasuredScan],
    settings: MapSettings,
    evidence: Evidence | None,
    probabilities: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Return for each scan whether each lesion of the map counts by its candidates.

    Args:
        scans: The scans.
        settings: Settings of the map.
        evidence: By which candidates count; None if they were not judged.
        probabilities: For each scan, of its candidates being coronary calcium, [candidates].

    Returns:
        1 or 0, and NaN for a lesion in which nothing is dense, float [n].
    """
    tables = [scan.lesions[settings] for scan in scans]
    if evidence is None or not len(probabilities):
        return [np.full(len(table.coronary), np.nan) for table in tables]
    verdicts = []
    for table, candidates in zip(tables, probabilities, strict=True):
        shared = table.shared.reshape(len(table.coronary), len(candidates))
        of_candidates = probability_of_candidates(shared, candidates, table.elsewhere)
        verdict = np.where(1 - of_candidates <= evidence.most_not_coronary, 1.0, 0.0)
        verdicts.append(np.where(np.isnan(of_candidates), np.nan, verdict))
    return verdicts


def lesions_alone(
    scans: Sequence[MeasuredScan], settings: MapSettings, verdicts: Sequence[np.ndarray]
) -> list[LesionTable]:
    """Return the lesions of each scan's map in which nothing is dense. verdicts: From `verdicts_of_candidates`."""
    return [scan.lesions[settings].selected(np.isnan(verdict)) for scan, verdict in zip(scans, verdicts, strict=True)]


def _filled(verdicts: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    filled = verdicts.copy()
    filled[np.isnan(verdicts)] = probabilities
    return filled


def _masks(probabilities: Sequence[np.ndarray], evidence: Evidence) -> list[np.ndarray]:
    return [p >= 1 - evidence.most_not_coronary for p in probabilities]


def _scores(
    scans: Sequence[MeasuredScan],
    settings: MapSettings,
    map_masks: Sequence[np.ndarray],
    clinical_masks: Sequence[np.ndarray],
) -> dict[str, list[Scores]]:
    """Return the scores of each scan, by kind (see `Uncertainty.stored`).

    map_masks: For each scan, bool [n], True for lesions of the map that count. clinical_masks: The same for candidates
    of the clinical rule; empty if these have no evidence weights.
    """
    scores = {"decomposition": [x.lesions[settings].scores(m, x) for x, m in zip(scans, map_masks, strict=True)]}
    if len(clinical_masks):
        pairs = zip(scans, clinical_masks, strict=True)
        scores["automatic"] = [scan.candidates[settings].scores(mask, scan) for scan, mask in pairs]
    return scores


def candidate_evidence(
    scans: Sequence[MeasuredScan], settings: MapSettings
) -> tuple[Evidence | None, dict[str, object], list[np.ndarray]]:
    """Fit the evidence by which the automatic clinical score evaluates candidates.

    The limit is that of the best cross-fitted scores (`nearest_limit`).

    Returns:
        The evidence, or None if there are too few candidates of either class; its performance; and for each scan
        the cross-fitted probabilities of its candidates.
    """
    parts = [scan.candidates[settings] for scan in scans]
    probabilities = cross_fitted_probabilities([scan.patient for scan in scans], parts)
    if probabilities is None:
        return None, {}, []
    truths = [sum(score["agatston"] for score in scan.reader.values()) for scan in scans]
    limit, error = nearest_limit([part.agatston for part in parts], probabilities, truths)
    masks = [p >= limit for p in probabilities]
    features = stack_features(parts)
    coronary = np.concatenate([part.coronary for part in parts])
    typical_features = typical(selected(features, coronary.astype(bool)))
    evidence = Evidence(fitted_weights(features, coronary), typical_features, 1 - limit)
    is_counted, is_coronary = np.concatenate(masks), coronary.astype(bool)
    performance: dict[str, object] = {
        "candidates": len(is_counted),
        "coronary": int(is_coronary.sum()),
        "precision": float(is_coronary[is_counted].mean()) if is_counted.any() else None,
        "recall": float(is_counted[is_coronary].mean()),
        "difference_of_ln_agatston": error,
    }
    for kind in ("distractor", "clean"):
        if positives := [c.any() for c, scan in zip(masks, scans, strict=True) if scan.kind == kind]:
            performance[f"above_zero_{kind}_scans"] = float(np.mean(positives))
    return evidence, performance, probabilities


def stored_uncertainty(
    scans: Sequence[MeasuredScan], scores: Mapping[str, Sequence[Scores]]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the errors that prediction intervals are made of (`uncertainty.Uncertainty`), and their coverage.

    Automatic clinical scores are compared with those of the ideal reader of the same scan; scores of the map with the
    patient's reference score and true mass, in scans that have them.

    Args:
        scans: The scans.
        scores: Cross-fitted scores of each scan, by kind (see `Uncertainty.stored`).

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
    """Calibrate as the command line asks, and update the cards of the classifier and the generator.

    With --intervals-only, or a classifier that comes with CAC, the classifier's threshold stays, and the rest is fitted
    for it. Returns the path of the generator's card.

    Raises:
        CTError: The scans or the models cannot be used.
        OutputError: The card cannot be written.
    """
    territories = arguments.territories or find_model("territories").path
    slices = arguments.slices or find_model("slices").path
    lesions = arguments.lesions or find_model("lesions").path
    models = (territories, slices, arguments.decomposition, lesions)
    for path, network in zip(models, SCORING_NETWORKS, strict=True):
        if read_card(path).network != network:
            raise DataError(f"{path} is a model for {read_card(path).network!r}, not for {network!r}.")
    progress.begin(["scans", "model"])
    with progress.step("scans"):
        cache = arguments.cache or default_cache() / "calibration"
        scans = calibration_scans(find_scans(arguments.data))
        is_bundled = slices.resolve().parent == bundled_folder().resolve()
        default = DecompositionSettings.slice_threshold
        stored_threshold = read_card(slices).calibration.get("slice_threshold", default)
        is_fixed = is_bundled or arguments.intervals_only
        thresholds = [stored_threshold] if is_fixed else sorted({*SLICE_THRESHOLDS, stored_threshold})
        measured_scans = measure_all(scans, models, thresholds, cache, arguments.workers, progress)
    with progress.step("model"):
        hashes = {read_card(p).network: read_card(p).sha256 for p in models}
        of_candidates = {kind: hashes[kind] for kind in ("territories", "lesions")}
        card = read_card(arguments.decomposition)
        previous = card.validation.get("whole_method", {})
        validation: dict[str, object] = {}
        if arguments.intervals_only:
            calibration, coverage = intervals(measured_scans, stored_threshold, card.calibration)
            validation["whole_method"] = (
                {"evidence_models": previous.get("models", {})} | previous | coverage | {"models": hashes}
            )
        else:
            calibration, performance, candidates = choose(measured_scans)
            validation["whole_method"] = performance | {"models": hashes, "evidence_models": hashes}
            validation["automatic_score"] = candidates | {"models": of_candidates, "data": patients_of(measured_scans)}
        # The threshold belongs to the classifier and must not be applied to the maps of another one.
        threshold = calibration.pop("slice_threshold", None)
        if not is_fixed:
            update_card(slices, {"slice_threshold": threshold}, {})
        path = update_card(arguments.decomposition, calibration, validation)
    progress.done(path)
    return path
