"""Classifiers that tell zero from non-zero coronary calcium by features of a CT, tuned within what they learn from.

Every choice is made by cross-validation inside the data given: which features hardly vary, how they are standardised,
the classifier's settings, and the limit from which a probability counts as calcium. So whoever keeps scans apart, a
fold or a test set, has them judged by a model that knew nothing of them (nested cross-validation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.whole_scan.radiomics import pseudo_label

from ...statistics.patient_folds import parts_by_patient
from ...statistics.roc import area_under_curve

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

    from CACScoringLib.networks.radiomics import RadiomicsConfig, RadiomicsNet

    from ..encoders import FeatureTable

CLASSIFIERS = {
    "logistic": "Logistic regression",
    "forest": "Random forest",
    "svm": "Support vector machine",
    "boosting": "Gradient boosting",
}

SETTINGS: dict[str, tuple[dict[str, float], ...]] = {
    "logistic": tuple({"l1": l1, "C": c} for l1 in (1.0, 0.0) for c in (0.01, 0.03, 0.1, 0.3, 1.0)),
    "forest": tuple({"min_samples_leaf": n, "max_features": m} for n in (5, 1) for m in (1.0, 3.0)),
    "svm": tuple({"C": c, "gamma": g} for g in (0.1, 0.3, 1.0) for c in (0.3, 1.0, 3.0, 10.0)),
    "boosting": tuple({"max_depth": d, "n_estimators": n} for d in (1, 2, 3) for n in (50, 150)),
}
"""What is tried, the simpler before the more flexible, which it has to beat. gamma: times the features' number.
max_features: of a split, times the square root of the features' number."""

INNER_FOLDS = 5
SENSITIVITY = 0.95
SAME_SHARE = 0.95
"""A feature that is the same in this proportion of scans is left out."""


class FittingError(CTError):
    """A classifier cannot be fitted. The message says what to do."""


@dataclass(frozen=True)
class Standardisation:
    """kept: indices of the features that vary, [m]. mean, sd: theirs, [m]. lowest, highest: as seen, [m]."""

    kept: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Standardisation:
        """features: [n, f]. Raises FittingError where none of them varies."""
        most = math.ceil(SAME_SHARE * len(features) - 1e-9)
        kept = [n for n, column in enumerate(features.T) if np.unique(column, return_counts=True)[1].max() < most]
        if not kept:
            raise FittingError(f"None of {features.shape[1]} features varies among {len(features)} scans.")
        own = features[:, kept]
        return cls(np.array(kept), own.mean(0), own.std(0), own.min(0), own.max(0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[n, f] -> [n, m], limited as the network limits it (`networks.radiomics.FAR_SD`)."""
        from CACScoringLib.networks.radiomics import FAR_SD

        return np.clip((features[:, self.kept] - self.mean) / self.sd, -FAR_SD, FAR_SD)


@dataclass(frozen=True)
class FittedClassifier:
    """kind: of CLASSIFIERS. settings: chosen of SETTINGS. limit: from this probability on it is called calcium.

    squash: slope and offset of the logistic function that makes probabilities of an SVM's distances (Platt 1999).
    out_of_fold: probability of each scan learned from, by the inner fold's model that had not seen its patient, [n].
    """

    kind: str
    settings: dict[str, float]
    standardisation: Standardisation
    model: ClassifierMixin
    squash: tuple[float, float] | None
    limit: float
    out_of_fold: np.ndarray
    inputs: int

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of coronary calcium, [n], for features [n, f] in the order of the fit."""
        features = np.asarray(features, float)
        if features.ndim != 2 or features.shape[1] != self.inputs:
            raise ValueError(f"Features of shape {features.shape} were given; the fit had {self.inputs}.")
        return _squashed(_scores(self.model, self.standardisation(features)), self.squash)

    @property
    def weights(self) -> np.ndarray | None:
        """Of standardised features in a logistic regression, [f], 0 for those left out; None for other kinds."""
        if self.kind != "logistic":
            return None
        weights = np.zeros(self.inputs)
        weights[self.standardisation.kept] = self.model.coef_[0]
        return weights


@dataclass(frozen=True)
class NestedScores:
    """probabilities, limits: of each scan by the model of the fold that it was held out of, [n]; NaN where none did."""

    probabilities: np.ndarray
    limits: np.ndarray


def fit_classifier(
    kind: str, features: np.ndarray, labels: np.ndarray, patients: Sequence[str], seed: int
) -> FittedClassifier:
    """A classifier tuned by cross-validation among the scans given, split by patient.

    kind: of CLASSIFIERS. features: finite, [n, f]. labels: bool, [n], whether there is calcium. patients: whose each
    scan is, [n]. The settings with the greatest mean area under the ROC curve over the inner folds are taken; of equal
    ones the first. Raises FittingError where there are too few scans of one class.
    """
    features, labels = np.asarray(features, float), np.asarray(labels, bool)
    if kind not in CLASSIFIERS:
        raise ValueError(f"{kind!r} is not a classifier; choose one of {', '.join(CLASSIFIERS)}.")
    if not np.isfinite(features).all():
        raise FittingError("Some of the features are not numbers. Compute them again.")
    parts = _inner_folds(labels, patients, seed)
    standardised = [(Standardisation.of(features[training]), training, evaluated) for training, evaluated in parts]
    best: tuple[float, dict[str, float], np.ndarray] | None = None
    for settings in SETTINGS[kind]:
        scores, areas = np.full(len(labels), np.nan), []
        for standardisation, training, evaluated in standardised:
            model = _model(kind, settings, len(standardisation.kept), seed)
            model.fit(standardisation(features[training]), labels[training])
            scores[evaluated] = _scores(model, standardisation(features[evaluated]))
            own = area_under_curve(np.ones((1, len(evaluated))), labels[evaluated], scores[evaluated])[0]
            areas.append(own)
        area = float(np.nanmean(areas))
        if best is None or area > best[0] + 1e-9:
            best = area, settings, scores
    _, settings, scores = best
    squash = _platt(scores, labels) if kind == "svm" else None
    out_of_fold = _squashed(scores, squash)
    standardisation = Standardisation.of(features)
    model = _model(kind, settings, len(standardisation.kept), seed)
    model.fit(standardisation(features), labels)
    limit = limit_for_sensitivity(out_of_fold, labels)
    return FittedClassifier(kind, settings, standardisation, model, squash, limit, out_of_fold, features.shape[1])


def nested_scores(
    kind: str,
    features: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    folds: Sequence[tuple[Sequence[int], Sequence[int]]],
    seed: int,
) -> NestedScores:
    """Predictions for scans by models that were not trained on them. folds: indices of training and evaluated scans."""
    features, labels, patients = np.asarray(features, float), np.asarray(labels, bool), np.asarray(patients)
    found = NestedScores(np.full(len(labels), np.nan), np.full(len(labels), np.nan))
    for training, evaluated in folds:
        training, evaluated = np.asarray(training, int), np.asarray(evaluated, int)
        model = fit_classifier(kind, features[training], labels[training], patients[training], seed)
        found.probabilities[evaluated] = model.probabilities(features[evaluated])
        found.limits[evaluated] = model.limit
    return found


def limit_for_sensitivity(probabilities: np.ndarray, labels: np.ndarray, sensitivity: float = SENSITIVITY) -> float:
    """The highest limit from which at least this proportion of the scans with calcium is found, between two scans.

    probabilities: of scans that their model has not learned from, or the limit would be too high.
    """
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels, bool)
    positive = np.sort(probabilities[labels])[::-1]
    if not len(positive):
        raise FittingError("There is no scan with calcium to choose a limit by.")
    least = positive[math.ceil(sensitivity * len(positive) - 1e-9) - 1]
    below = probabilities[probabilities < least]
    return float((least + below.max(initial=0.0)) / 2)


def pseudo_labels(table: FeatureTable) -> np.ndarray:
    """Bool [n]: `radiomics.pseudo_label` of each scan. table: of "candidates" or "both"."""
    return np.array([pseudo_label(dict(zip(table.features, row, strict=True))) for row in table.values], bool)


def as_network(
    fitted: FittedClassifier, names: Sequence[str], config: RadiomicsConfig
) -> tuple[RadiomicsNet, RadiomicsConfig]:
    """A logistic regression as the network that scoring loads, with only the features that have a weight.

    names: of the features of the fit. config: how they were computed. Returns the network and its configuration.
    """
    from dataclasses import replace

    import torch

    from CACScoringLib.networks.radiomics import RadiomicsNet

    if fitted.weights is None:
        raise ValueError(f"{CLASSIFIERS[fitted.kind]} cannot be stored; only the logistic regression can.")
    own = fitted.standardisation
    weights = fitted.model.coef_[0]
    used = np.flatnonzero(weights)
    config = replace(config, features=tuple(names[n] for n in own.kept[used]))
    network = RadiomicsNet(config)
    with torch.no_grad():
        for name, values in (
            *(("mean", own.mean), ("sd", own.sd), ("lowest", own.lowest), ("highest", own.highest)),
            *(("weight", weights),),
        ):
            getattr(network, name).copy_(torch.from_numpy(values[used]))
        network.bias.fill_(float(fitted.model.intercept_[0]))
    return network.eval(), config


def _inner_folds(labels: np.ndarray, patients: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    patients = np.asarray(patients)
    fewest = min(len(np.unique(patients[labels])), len(np.unique(patients[~labels])))
    if fewest < 2:
        counts = f"{int(labels.sum())} scans with calcium and {int((~labels).sum())} without"
        raise FittingError(f"There are {counts}; both are needed, of at least two patients each. Give more patients.")
    count = min(INNER_FOLDS, fewest)
    part = parts_by_patient(patients, labels, count, seed)
    return [(np.flatnonzero(part != number), np.flatnonzero(part == number)) for number in range(count)]


def _model(kind: str, settings: dict[str, float], features: int, seed: int) -> ClassifierMixin:
    """One thread each: studies run many at once."""
    if kind == "logistic":
        import sklearn
        from sklearn.linear_model import LogisticRegression

        # penalty went out of use with 1.8, before which l1_ratio says nothing to this solver.
        old = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8)
        kind_of = {"penalty": "l1" if settings["l1"] else "l2"} if old else {"l1_ratio": settings["l1"]}
        return LogisticRegression(
            C=settings["C"], solver="liblinear", intercept_scaling=10.0, max_iter=1000, random_state=seed, **kind_of
        )
    if kind == "svm":
        from sklearn.svm import SVC

        return SVC(C=settings["C"], gamma=settings["gamma"] / features, random_state=seed)
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    tried = dict(settings)
    most = min(features, round(tried.pop("max_features", 2.0) * math.sqrt(features)))
    if kind == "forest":
        return RandomForestClassifier(100, max_features=most, n_jobs=1, random_state=seed, **tried)
    return GradientBoostingClassifier(learning_rate=0.1, subsample=0.8, max_features=most, random_state=seed, **tried)


def _scores(model: ClassifierMixin, x: np.ndarray) -> np.ndarray:
    """Probabilities, or an SVM's distances, [n]."""
    return model.predict_proba(x)[:, 1] if hasattr(model, "predict_proba") else model.decision_function(x)


def _platt(distances: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and offset of a logistic function; a slope is never negative, or it would turn the order around."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e3).fit(distances[:, None], labels)
    return max(float(fitted.coef_[0, 0]), 0.0), float(fitted.intercept_[0])


def _squashed(scores: np.ndarray, squash: tuple[float, float] | None) -> np.ndarray:
    if squash is None:
        return scores
    return 1 / (1 + np.exp(-np.clip(squash[0] * scores + squash[1], -50, 50)))
