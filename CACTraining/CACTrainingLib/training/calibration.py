"""Calibration of the whole method on scans with known calcium: `cac calibrate`.

A generator's map always holds a little where there is no coronary calcium, and much that reaches 130 HU is none. How
probably a lesion of the map, or a candidate of the clinical rule, is coronary calcium is learned from its evidence by
logistic regression; which slices are decomposed, and how probable a
lesion must be to count (`DecompositionSettings`), is chosen so that few scans without coronary calcium score above
zero. Every lesion is evaluated with weights learned from other patients, so that the choice is not too hopeful; the
weights that are stored are learned from all. How far clinical scores are from an ideal reader's, and scores of the map
from the patient's true score, is stored (`uncertainty`), so that every total and artery has its interval. What the
scans were like is stored too, so that a scan unlike them is noticed (`familiarity`).

The patients must be others than those that the networks learned from, and others than those that are reported on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import Calibration, bundled_folder, find_model, read_card
from CACScoringLib.models.choice import SCORING_NETWORKS
from CACScoringLib.models.store import update_card
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.evidence import Evidence, coronary_probabilities
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS, NOISE_HU, THICKNESS_MM

from ..data.datasets import DataError, TrainingScan, default_cache, find_scans
from ..statistics.patient_folds import parts_by_patient
from ..statistics.roc import threshold_at
from .evidence import FOLDS, fitted_weights, nearest_limit, probabilities_by_others, stack_features, typical
from .measured_scans import MAP_RULES, FoundLesions, MapSettings, MeasuredScan, measure_all
from .score_errors import fitted_errors

SLICE_THRESHOLDS = (0.0, 0.05, 0.2)
"""Tried beside the threshold that the classifier's training chose; from 0 on all slices are decomposed."""


Scores = dict[str, dict[str, float]]
"""By artery, the Agatston score and mass in mg; keys as of `uncertainty.LIMITS`."""


@dataclass(frozen=True)
class FalsePositiveGoals:
    """Largest proportions of scans that may score above zero: of those whose only calcium is not coronary, and of those
    without any."""

    distractor: float = 0.08
    clean: float = 0.04


@dataclass(frozen=True)
class _Choice:
    """A way to decompose scans, and of each scan's lesions the probability of being coronary, by weights of
    other patients, [n]. limit: the least probability that counts."""

    settings: MapSettings
    probabilities: list[np.ndarray]
    limit: float

    def above_zero(self, chosen: Sequence[bool]) -> float:
        """Proportion of the chosen scans in which a lesion counts."""
        own = [p for p, wanted in zip(self.probabilities, chosen, strict=True) if wanted]
        return float(np.mean([(p >= self.limit).any() for p in own]))

    def mass_error(self, scans: Sequence[MeasuredScan]) -> float:
        """Mean distance of ln(1 + mass in mg) of the lesions that count from that of the true mass."""
        found = [
            scan.lesions[self.settings].pseudo_mass[p >= self.limit].sum() * scan.mg_per_hu_mm3
            for scan, p in zip(scans, self.probabilities, strict=True)
        ]
        true = [sum(scan.true_mass_mg.values()) for scan in scans]
        return float(np.abs(np.log1p(found) - np.log1p(true)).mean())


def choose(scans: Sequence[MeasuredScan], goals: FalsePositiveGoals) -> tuple[Calibration, dict[str, object]]:
    """Calibration and what it achieves on these scans.

    Of the ways to decompose scans, each with the lowest limit that keeps to the goals, the one whose masses come
    nearest to the true ones; of equal ones, that which decomposes fewer slices.
    Raises DataError when a kind of scan is missing, or there is nothing to learn from.
    """
    kinds = {kind: [scan.kind == kind for scan in scans] for kind in ("distractor", "clean")}
    shown = [scan.visible for scan in scans]
    if not any(shown) or not all(map(any, kinds.values())):
        counts = ", ".join(f"{sum(part)} {kind}" for kind, part in {"visible": shown, **kinds}.items())
        raise DataError(f"Calibration needs scans of all kinds; there are {counts}. Give more patients.")
    ranked = []
    for settings in scans[0].lesions:
        probabilities = probabilities_by_others(
            [scan.patient for scan in scans], [scan.lesions[settings] for scan in scans]
        )
        if probabilities is None:
            continue
        limit = max(_limit(probabilities, chosen, getattr(goals, kind)) for kind, chosen in kinds.items())
        choice = _Choice(settings, probabilities, limit)
        ranked.append(((choice.mass_error(scans), -settings.slice_threshold), choice))
    if not ranked:
        message = (
            "The calcium maps hold too few lesions with or without coronary calcium to learn from. Give more patients, "
            "or train the networks longer."
        )
        raise DataError(message)
    best = min(ranked, key=lambda found: found[0])[1]
    calibration: Calibration = asdict(best.settings)
    parts = [scan.lesions[best.settings] for scan in scans]
    features = stack_features(parts)
    calibration["evidence_weights"] = fitted_weights(features, np.concatenate([part.coronary for part in parts]))
    calibration["most_not_coronary"] = 1 - best.limit
    calibration["candidates"], of_candidates, counted = candidate_evidence(scans, best.settings)
    in_map = [p >= best.limit for p in best.probabilities]
    calibration["uncertainty"], covered = stored_uncertainty(scans, _scores(scans, best.settings, in_map, counted))
    calibration["known"] = asdict(CalibrationRange.of([scan.facts for scan in scans]))
    achieved: dict[str, object] = {
        "sensitivity_scans": best.above_zero(shown),
        "scans_with_visible_calcium": sum(shown),
        **{f"above_zero_{kind}_scans": best.above_zero(chosen) for kind, chosen in kinds.items()},
        **{f"scans_{kind}": sum(chosen) for kind, chosen in kinds.items()},
        "candidates": of_candidates,
        "coverage_of_intervals": covered,
        "patients": len({s.patient for s in scans}),
        "data": "digital patients apart from training, each lesion evaluated by weights from other patients; the "
        "limits were chosen on the same scans",
    }
    return calibration, achieved


def intervals(
    scans: Sequence[MeasuredScan], slice_threshold: float, stored: Calibration
) -> tuple[Calibration, dict[str, object]]:
    """Uncertainty of scores by the stored evidence, which stays as it is, and its coverage on these scans.

    slice_threshold, stored: of the cards of the classifier and the map. Raises DataError, CTError.
    """
    rule = stored.get("min_healthy_hu"), stored.get("floor_hu")
    weights, most = stored.get("evidence_weights"), stored.get("most_not_coronary")
    if rule not in MAP_RULES or weights is None or most is None:
        raise DataError("The map's card holds no evidence that could be kept. Calibrate without --intervals-only.")
    settings = MapSettings(slice_threshold, *rule)

    def counted(parts: Sequence[FoundLesions], weights: dict[str, float], most: float) -> list[np.ndarray]:
        return [coronary_probabilities(part.features, weights) >= 1 - most for part in parts]

    in_map = counted([scan.lesions[settings] for scan in scans], weights, most)
    evidence, clinical = Evidence.stored(stored), []
    if evidence is not None and evidence.weights is not None:
        candidates = [scan.candidates[settings] for scan in scans]
        clinical = counted(candidates, evidence.weights, evidence.most_not_coronary)
    uncertainty, covered = stored_uncertainty(scans, _scores(scans, settings, in_map, clinical))
    return {"uncertainty": uncertainty}, {"coverage_of_intervals": covered, "patients": len({s.patient for s in scans})}


def _scores(
    scans: Sequence[MeasuredScan],
    settings: MapSettings,
    in_map: Sequence[np.ndarray],
    clinical: Sequence[np.ndarray],
) -> dict[str, list[Scores]]:
    """Scores by kind (see `Uncertainty.stored`) of each scan. in_map, clinical: of each scan, which lesions of the map
    and which candidates count, bool [n]; none where candidates have no evidence."""
    kinds = {"decomposition": ([scan.lesions[settings] for scan in scans], in_map)}
    if len(clinical):
        kinds["automatic"] = ([scan.candidates[settings] for scan in scans], clinical)
    return {
        kind: [own.scores(counted, scan) for own, counted, scan in zip(*found, scans, strict=True)]
        for kind, found in kinds.items()
    }


def candidate_evidence(
    scans: Sequence[MeasuredScan], settings: MapSettings
) -> tuple[dict[str, object] | None, dict[str, object], list[np.ndarray]]:
    """Evidence by which the automatic clinical score evaluates candidates (`Evidence`), what it achieves, and
    of each scan which candidates count.

    The limit is the least one whose scores, with every candidate evaluated by weights from other patients, are not
    clearly farther from the ideal reader's than the best (`nearest_limit`). None where there are too few candidates of
    either class.
    """
    parts = [scan.candidates[settings] for scan in scans]
    probabilities = probabilities_by_others([scan.patient for scan in scans], parts)
    if probabilities is None:
        return None, {}, []
    truths = [sum(own["agatston"] for own in scan.reader.values()) for scan in scans]
    # The least that is not clearly worse: in people networks are less sure than in simulated patients.
    limit, error = nearest_limit([part.agatston for part in parts], probabilities, truths, toward=0.0)
    counted = [p >= limit for p in probabilities]
    features = stack_features(parts)
    coronary = np.concatenate([part.coronary for part in parts])
    evidence = {
        "weights": fitted_weights(features, coronary),
        "typical": typical(features[coronary]),
        "most_not_coronary": 1 - limit,
    }
    every, held = np.concatenate(counted), coronary.astype(bool)
    achieved = {
        "candidates": len(every),
        "coronary": int(held.sum()),
        "precision": float(held[every].mean()) if every.any() else None,
        "recall": float(every[held].mean()),
        "difference_of_ln_agatston": error,
    }
    for kind in ("distractor", "clean"):
        if own := [c.any() for c, scan in zip(counted, scans, strict=True) if scan.kind == kind]:
            achieved[f"above_zero_{kind}_scans"] = float(np.mean(own))
    return evidence, achieved, counted


def stored_uncertainty(
    scans: Sequence[MeasuredScan], scores: Mapping[str, Sequence[Scores]]
) -> tuple[dict[str, object], dict[str, object]]:
    """Errors that intervals of scores are made of (`uncertainty.Uncertainty`), and their coverage of other patients'
    total Agatston scores, by kind and class.

    Automatic clinical scores are compared with those of the ideal reader of the same scan, scores of the map with the
    patient's reference score and true mass, as far as these are known.

    Args:
        scans: The scans.
        scores: By kind (see `Uncertainty.stored`), of each scan; scores as they are found in unseen patients.
    """
    stored: dict[str, object] = {}
    covered: dict[str, object] = {}
    names = tuple(artery.key for artery in MAIN_ARTERIES)
    for kind, every in scores.items():
        known = [n for n, scan in enumerate(scans) if kind == "automatic" or scan.reference_agatston is not None]
        noise, thickness = (np.array([scans[n].facts.get(key) or usual for n in known], float) for key, usual in _USUAL)
        patients = np.array([scans[n].patient for n in known])
        if len(set(patients.tolist())) < FOLDS:
            continue
        parts: dict[str, dict[str, object]] = {"total": {}, "artery": {}}
        for quantity in LIMITS:
            own = np.array([[every[n][a][quantity] for a in names] for n in known])
            truths = np.array([[_truth(scans[n], kind, quantity)[a] for a in names] for n in known])
            facts = [np.repeat(values, len(names)) for values in (noise, thickness)]
            total = own.sum(1), truths.sum(1), noise, thickness
            parts["total"][quantity] = asdict(fitted_errors(quantity, *total))
            parts["artery"][quantity] = asdict(fitted_errors(quantity, own.ravel(), truths.ravel(), *facts))
            if quantity == "agatston":
                covered[kind] = _coverage(patients, *total)
        stored[kind] = parts
    return stored, covered


_USUAL = (("noise_hu", NOISE_HU), ("slice_thickness_mm", THICKNESS_MM))


def _truth(scan: MeasuredScan, kind: str, quantity: str) -> dict[str, float]:
    """What scores of this kind are compared with, by artery."""
    if kind == "automatic":
        return {artery: own[quantity] for artery, own in scan.reader.items()}
    return (scan.reference_agatston if quantity == "agatston" else scan.true_mass_mg) or {}


def _coverage(patients: np.ndarray, *values: np.ndarray) -> dict[str, list[int]]:
    """Number of total scores in an interval made by other patients, and of all, by class of the truth."""
    truths = values[1]
    fold = parts_by_patient(patients, truths > 0, FOLDS, seed=None)
    held = np.zeros(len(truths), bool)
    for number in range(FOLDS):
        errors = fitted_errors("agatston", *(v[fold != number] for v in values))
        for n in np.flatnonzero(fold == number):
            low, high = errors.interval(values[0][n], values[2][n], values[3][n])
            held[n] = low <= truths[n] <= high
    of_class = np.searchsorted(LIMITS["agatston"], truths, side="right")
    return {name: [int(held[of_class == c].sum()), int((of_class == c).sum())] for c, name in enumerate(CATEGORIES)}


def _limit(probabilities: Sequence[np.ndarray], chosen: Sequence[bool], most: float) -> float:
    """The lowest probability that the likeliest lesion reaches in at most this proportion of the chosen scans."""
    return threshold_at(
        np.array([p.max(initial=0.0) for p, own in zip(probabilities, chosen, strict=True) if own]), most
    )


def for_calibration(scans: Sequence[TrainingScan]) -> list[TrainingScan]:
    """The scans whose calcium is known, without those stored for training or test: what a model has learned by heart
    looks surer than it is, and what is tested on must be new. Raises DataError when none is left."""
    usable = [scan for scan in scans if scan.calcium_map is not None and scan.use in ("", "validation")]
    if not usable:
        raise DataError(
            f"None of {len(scans)} scans can be calibrated on: their calcium must be known, as of digital patients and "
            "inserted plaque, and in a project they must be stored for validation."
        )
    return usable


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Calibrate as the command line asks, changing the cards of the classifier and of the generator.

    With --intervals-only, or a classifier that comes with CAC, the classifier's threshold stays, and the rest is fitted
    for it. Returns the generator's card. Raises CTError, OutputError.
    """
    territories = arguments.territories or find_model("territories").path
    models = (arguments.heart, territories, arguments.slices, arguments.decomposition)
    for path, network in zip(models, SCORING_NETWORKS, strict=True):
        if path is not None and read_card(path).network != network:
            raise DataError(f"{path} is a model for {read_card(path).network!r}, not for {network!r}.")
    progress.begin(["scans", "model"])
    with progress.step("scans"):
        cache = arguments.cache or default_cache() / "calibration"
        scans = for_calibration(find_scans(arguments.data))
        bundled = arguments.slices.resolve().parent == bundled_folder().resolve()
        stored = read_card(arguments.slices).calibration.get("slice_threshold", DecompositionSettings.slice_threshold)
        fixed = bundled or arguments.intervals_only
        thresholds = [stored] if fixed else sorted({*SLICE_THRESHOLDS, stored})
        measured = measure_all(scans, models, thresholds, cache, arguments.workers, progress)
    with progress.step("model"):
        fitted_with = {read_card(p).network: read_card(p).sha256 for p in models if p is not None}
        if arguments.intervals_only:
            card = read_card(arguments.decomposition)
            calibration, found = intervals(measured, stored, card.calibration)
            before = card.validation.get("whole_method", {})
            achieved = {"evidence_models": before.get("models", {}), **before, **found, "models": fitted_with}
        else:
            calibration, achieved = choose(measured, FalsePositiveGoals())
            achieved |= {"models": fitted_with, "evidence_models": fitted_with}
        # The threshold belongs to the classifier: another one's map must not be cut by it.
        threshold = calibration.pop("slice_threshold", None)
        if not fixed:
            update_card(arguments.slices, {"slice_threshold": threshold}, {})
        path = update_card(arguments.decomposition, calibration, {"whole_method": achieved})
    progress.done(path)
    return path
