"""One model of the study of radiomics, in a process of its own: fitted, and what it says of others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from CACScoringLib.core.ct import CTError

from ...experiments.configuration import ExperimentRun, TrainingBudget
from ...experiments.jobs import Prepared
from ...statistics.bootstrap import Bootstrap, estimate
from ...statistics.roc import area_under_curve
from .configurations import HELD_OUT, Configuration
from .data import Scans

REPEATS = 20
"""How often a feature is shuffled among the held-out scans."""
LISTED = 15
"""Features whose importance gets an interval over patients."""
IMPORTANCE_RESAMPLES = 400
LEAST_OF_A_CLASS = 5
"""With fewer scans of either kind there is nothing to tune a model by."""


@dataclass(frozen=True)
class Data:
    """own: the study's scans. folds: int [n], in which each is tested, or HELD_OUT. contrast: further scans to learn
    from; noncoronary_controls: further scans to test on.
    """

    own: Scans
    folds: np.ndarray
    contrast: Scans | None = None
    noncoronary_controls: Scans | None = None


def trainer(data: Data, budget: TrainingBudget) -> Prepared:
    """What does a run, and returns what the study keeps of it. Each process works on one core."""
    return _Trainer(data, budget.seed)


@dataclass(frozen=True)
class _Trainer:
    data: Data
    seed: int

    def __call__(self, run: ExperimentRun) -> dict:
        from .fitting import fit_classifier

        began = time.perf_counter()
        config, own = run.configuration, self.data.own
        rows = np.flatnonzero(self.data.folds == run.fold)
        features, labels, patients = self._learned_from(run)
        if min(labels.sum(), (~labels).sum()) < LEAST_OF_A_CLASS:
            raise CTError(
                f"Of {len(labels)} scans to learn from, {labels.sum()} count as having calcium; there have to be "
                f"{LEAST_OF_A_CLASS} with and {LEAST_OF_A_CLASS} without. Give more patients."
            )
        model = fit_classifier(config.classifier, features, labels, patients, self.seed)
        result = {
            "rows": rows.tolist(),
            "fold": run.fold,
            "probabilities": _probabilities(model, own.features[config.features][rows]),
            "limit": float(model.limit),
            "others": None,
            "weights": None if model.weights is None else np.asarray(model.weights, float).tolist(),
            "importance": None,
            "learned_from": len(labels),
        }
        if run.fold == HELD_OUT:
            if self.data.noncoronary_controls is not None:
                result["others"] = _probabilities(model, self.data.noncoronary_controls.features[config.features])
            if config == Configuration("both", config.classifier):
                tested = own.chosen(rows)
                values, titles = tested.features[config.features], tested.titles[config.features]
                result["importance"] = importance(model, values, tested.truth, tested.patients, titles)
        return result | {"seconds": time.perf_counter() - began}

    def _learned_from(self, run: ExperimentRun) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Features, labels and patients of every scan that is neither held out nor of a patient who is tested."""
        config, own = run.configuration, self.data.own
        tested = np.flatnonzero(self.data.folds == run.fold)
        rows = np.flatnonzero((self.data.folds != HELD_OUT) & (self.data.folds != run.fold))
        parts = [own.chosen(rows)]
        if config.contrast and self.data.contrast is not None:
            hidden = {own.patients[row] for row in (*tested, *np.flatnonzero(self.data.folds == HELD_OUT))}
            more = self.data.contrast
            parts.append(more.chosen([n for n, patient in enumerate(more.patients) if patient not in hidden]))
        features = np.concatenate([part.features[config.features] for part in parts])
        labels = np.concatenate([part.pseudo if config.pseudo else part.truth for part in parts])
        return features, labels, tuple(patient for part in parts for patient in part.patients)


def _probabilities(model, features: np.ndarray) -> list[float]:
    found = np.asarray(model.probabilities(features), float) if len(features) else np.zeros(0)
    if not np.isfinite(found).all():
        raise CTError("The model gave values that are not numbers. Check whether all features are numbers.")
    return found.tolist()


def _rounded(value: float) -> float:
    """What is not shown is not kept, for a sum in another order is another in the last digits."""
    return round(float(value), 9) + 0.0


def family_of(feature: str) -> str:
    """Of features that carry much the same information: the first two words of the name."""
    return "_".join(feature.split("_")[:2])


def importance(
    model, features: np.ndarray, truth: np.ndarray, patients: tuple[str, ...], titles: tuple[str, ...]
) -> dict[str, list]:
    """How much of the area under the ROC curve is lost when a feature, or a family of them, is shuffled among scans.

    Breiman 2001 (doi:10.1023/A:1010933404324), on scans that were not learned from. Features that say the same stand in
    for each other, so that a family is shuffled as one as well. features: [n, f]. Returns under "features" and
    "families" rows of a name, the mean loss, its standard deviation over shuffles, and the ends of its 95 % interval
    over patients (of the LISTED greatest features and of all families; else None), the greatest loss first.
    """
    generator = np.random.default_rng(0)
    orders = np.stack([generator.permutation(len(truth)) for _ in range(REPEATS)])
    weights = Bootstrap(patients, np.random.default_rng(0), IMPORTANCE_RESAMPLES).weights(patients)
    whole = area_under_curve(weights, truth, model.probabilities(features))
    families: dict[str, list[int]] = {}
    for column, title in enumerate(titles):
        families.setdefault(family_of(title), []).append(column)

    def shuffled(columns: list[int]) -> np.ndarray:
        """Chances with these columns shuffled: [repeats, n]."""
        if not np.ptp(features[:, columns], axis=0).any():
            return np.tile(model.probabilities(features), (REPEATS, 1))
        many = np.tile(features, (REPEATS, 1, 1))
        many[:, :, columns] = features[orders][:, :, columns]
        return model.probabilities(many.reshape(-1, features.shape[1])).reshape(REPEATS, -1)

    def rows_of(groups: Mapping[str, list[int]], listed: int) -> list[list]:
        found = {}
        for name, columns in groups.items():
            probabilities = shuffled(columns)
            found[name] = (
                probabilities,
                [whole[0] - area_under_curve(weights[:1], truth, own)[0] for own in probabilities],
            )
        order = sorted(found, key=lambda name: -np.mean(found[name][1]))
        rows = []
        for place, name in enumerate(order):
            probabilities, losses = found[name]
            ends = [None, None]
            if place < listed:
                drawn = whole - np.mean([area_under_curve(weights, truth, own) for own in probabilities], axis=0)
                interval = estimate(drawn, len(truth), len(set(patients)))
                ends = [_rounded(end) if np.isfinite(end) else None for end in (interval.low, interval.high)]
            rows.append([name, _rounded(np.mean(losses)), _rounded(np.std(losses, ddof=1)), *ends])
        return rows

    single = {title: [column] for column, title in enumerate(titles)}
    return {"features": rows_of(single, LISTED), "families": rows_of(families, len(families))}
