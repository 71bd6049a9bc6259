"""Classifiers of zero or non-zero coronary calcium by features of a CT, tuned within their training data.

Cross-validation inside the training data makes every choice: features that vary, their standardisation, the
classifier's settings, and the limit from which a probability counts as calcium. Held-out scans, of a fold or a test
set, are therefore unseen (nested cross-validation).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import AIR_HU, CTScan
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import file_sha256
from CACScoringLib.core.grid import triple
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.scan_grid import ScanGrid
from CACScoringLib.models.cards import find_model, read_network
from CACScoringLib.models.preprocessing import TERRITORY_PATCH, TERRITORY_SPACING_MM, heart_moments, territory_input
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.networks.radiomics import FAR_SD, RadiomicsNet
from CACScoringLib.networks.territories import TerritoryNet
from CACScoringLib.statistics.patient_folds import parts_by_patient
from CACScoringLib.whole_scan import radiomic_texture, radiomics
from CACScoringLib.whole_scan.radiomics import THRESHOLD_FEATURE, calcium_by_threshold

from ...data.scan_table import TableScan
from ..sources import load, prepare

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "both": (radiomics.HEART, radiomics.CANDIDATE),
    "heart": (radiomics.HEART,),
    "candidates": (radiomics.CANDIDATE,),
    "encoder": ("encoder_",),
}
"""Prefixes of the feature names of each set. Models of the encoder's are for comparison and cannot be stored."""

HEART_ML = "heart_volume_ml"


def feature_table(scans: Sequence[TableScan], names: Sequence[str], values: np.ndarray) -> pd.DataFrame:
    """Return features of scans [n, f] as a table with the columns scan, patient and calcium, True for any, besides."""
    about = {"scan": list(scans), "patient": [scan.patient for scan in scans]}
    calcium = np.array([bool(scan.total) for scan in scans], bool)
    return pd.DataFrame(values, columns=list(names)).assign(**about, calcium=calcium)


def features_in(table: pd.DataFrame, name: str) -> list[str]:
    """Return the feature names of a set of FEATURE_SETS."""
    return [feature for feature in table if feature.startswith(FEATURE_SETS[name])]


def true_classes(table: pd.DataFrame, by_threshold: bool) -> np.ndarray:
    """Return the true classes of scans, or those at 130 HU (`radiomics.calcium_by_threshold`), bool [n]."""
    if not by_threshold:
        return np.array(table.calcium, bool)
    return np.array([calcium_by_threshold({THRESHOLD_FEATURE: value}) for value in table[THRESHOLD_FEATURE]], bool)


def with_contrast(
    table: pd.DataFrame, contrast: pd.DataFrame | None, tested: Sequence[str] | np.ndarray
) -> pd.DataFrame:
    """Return a table and below it that of contrast-enhanced scans, if any, without those of tested patients."""
    return table if contrast is None else pd.concat([table, contrast[~contrast.patient.isin(tested)]])


@dataclass(frozen=True)
class EncoderSettings:
    """Pretrained encoder of a box about the heart's middle. Raises CTError.

    Attributes:
        file: TorchScript module from a box [1, 1, superior, posterior, left] to a vector [1, n]; None for the encoder
            of the bundled territories' network, whose box is its own.
        side: Side of the box in voxels.
        spacing_mm: Side of its voxels.
        low_hu: HU that becomes 0; lower ones too.
        high_hu: HU that becomes 1; higher ones too.
    """

    file: Path | None = None
    side: int = 96
    spacing_mm: float = 1.5
    low_hu: float = -1024.0
    high_hu: float = 2048.0

    def __post_init__(self) -> None:
        if self.file is not None and not self.file.is_file():
            raise CTError(f"The encoder {self.file} does not exist. Correct the path.")
        if self.side < 1 or self.spacing_mm <= 0 or self.low_hu >= self.high_hu:
            raise CTError(f"The encoder's box is impossible ({self}). Correct side, spacing_mm, low_hu or high_hu.")

    @property
    def key(self) -> str:
        """Text of all that the encoder's features depend on."""
        return f"{self!r} {file_sha256(self.file)}" if self.file else find_model("territories").card.sha256


def features_of(
    scans: Sequence[TableScan],
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    encoder: EncoderSettings | None = None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Compute radiomic features of scans in their order; returns them and failures with reasons by name.

    folder: cache of features (`prepared.prepare`). Raises CTError if no scan can be prepared.
    """
    encoder = encoder or EncoderSettings()
    work = partial(radiomics_work, encoder=encoder)
    key = f"{RadiomicsConfig()!r} {_source_digest()} {encoder.key}"
    files, failed = prepare(scans, folder, "radiomics", work, key, workers, progress)
    usable = tuple(scan for scan in scans if scan.name in files)
    arrays = [load(files[scan.name]) for scan in usable]
    names = tuple(map(str, arrays[0]["names"]))
    return feature_table(usable, names, np.array([content["values"] for content in arrays], float)), failed


def radiomics_work(scan: CTScan, region: HeartRegion, encoder: EncoderSettings) -> dict[str, np.ndarray]:
    """Return `radiomics.radiomic_features` and `encoder_features` as arrays, for `prepared.prepare`."""
    features = radiomics.radiomic_features(scan, region, RadiomicsConfig()) | encoder_features(scan, region, encoder)
    return {"names": np.array(list(features)), "values": np.array(list(features.values()), float)}


def encoder_features(scan: CTScan, region: HeartRegion, encoder: EncoderSettings) -> dict[str, float]:
    """Compute features of a pretrained encoder about the heart's middle.

    Those of the bundled one are the mean and the highest value of each channel at its lowest resolution. Raises
    CTError if a user's gives no vector of numbers.
    """
    side, spacing = (
        (encoder.side, (encoder.spacing_mm,) * 3) if encoder.file else (TERRITORY_PATCH, TERRITORY_SPACING_MM)
    )
    step = ScanGrid.over(scan.image, spacing).step
    middle, _, _ = heart_moments(region.mask, scan)
    first = (m - (side - 1) / 2 * length for m, length in zip(middle, step, strict=True))
    hu = ScanGrid(triple(first), step, (side,) * 3).resample(scan.hu, AIR_HU)
    with torch.inference_mode():
        if encoder.file:
            vector = _encoded(encoder, hu)
        else:
            channels = _bundled_encoder().features(torch.from_numpy(territory_input(hu))[None])[-1][0].flatten(1)
            vector = torch.cat([channels.mean(1), channels.amax(1)])
    return {f"encoder_{n}": value for n, value in enumerate(vector.tolist())}


def _encoded(encoder: EncoderSettings, hu: np.ndarray) -> torch.Tensor:
    """Return a user's encoder's vector [n] of a box of HU. Raises CTError."""
    x = np.clip((hu - encoder.low_hu) / (encoder.high_hu - encoder.low_hu), 0, 1).astype(np.float32)
    try:
        vector = _script(str(encoder.file))(torch.from_numpy(x)[None, None])
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        message = f"{encoder.file} is no TorchScript encoder of a box of {encoder.side} voxels ({reason})."
        raise CTError(f"{message} Save the module by torch.jit, and state its box.") from error
    if not isinstance(vector, torch.Tensor) or vector.ndim != 2 or len(vector) != 1 or not vector.isfinite().all():
        raise CTError(f"{encoder.file} gives no vector of numbers [1, n] of a box. Pool its features in the module.")
    return vector[0].float()


@cache
def _script(file: str) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the format, which needs no code of the encoder's
        return torch.jit.load(file, map_location="cpu").eval()


@cache
def _bundled_encoder() -> TerritoryNet:
    return cast(TerritoryNet, read_network(find_model("territories").path)[1].eval())


def _source_digest() -> str:
    """Return a digest of the code that features depend on, whose change invalidates the cache."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (radiomics, radiomic_texture))
    return hashlib.sha256(sources).hexdigest()[:16]


CLASSIFIERS = {
    "logistic": "Logistic regression",
    "forest": "Random forest",
    "svm": "Support vector machine",
    "boosting": "Gradient boosting",
}

# scikit-learn 1.8 replaced penalty by l1_ratio.
_L1, _L2 = (
    ({"penalty": ["l1"]}, {"penalty": ["l2"]})
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8)
    else ({"l1_ratio": [1.0]}, {"l1_ratio": [0.0]})
)
_INVERSE_STRENGTHS = {"C": [0.01, 0.03, 0.1, 0.3, 1.0]}

SETTINGS: dict[str, list[dict[str, list[Any]]]] = {
    "logistic": [{**_L1, **_INVERSE_STRENGTHS}, {**_L2, **_INVERSE_STRENGTHS}],
    "forest": [{"min_samples_leaf": [5, 1], "max_features": ["sqrt", 0.2]}],
    "svm": [{"C": [0.3, 1.0, 3.0, 10.0]}],
    "boosting": [{"max_depth": [1, 2, 3], "n_estimators": [50, 150]}],
}
"""Settings to try, the simpler first, which win ties."""

INNER_FOLDS = 5
SAME_SHARE = 0.95
"""Proportion of scans with an equal value from which a feature is left out."""


class Standardisation(TransformerMixin, BaseEstimator):
    """Selection of features that vary, standardised and limited as in the network (`networks.radiomics.FAR_SD`).

    After the fit, indices_ [m] are those of these features; mean_, sd_, lowest_ and highest_ [m] are their statistics.
    """

    def fit(self, features: np.ndarray, labels: np.ndarray | None = None) -> Standardisation:
        """Select and measure features [n, f]. Raises CTError if none of them varies."""
        most = math.ceil(SAME_SHARE * len(features) - 1e-9)
        self.indices_ = np.array(
            [n for n, column in enumerate(features.T) if np.unique(column, return_counts=True)[1].max() < most], int
        )
        if not len(self.indices_):
            raise CTError(f"None of {features.shape[1]} features varies among {len(features)} scans.")
        x = features[:, self.indices_]
        self.mean_, self.sd_, self.lowest_, self.highest_ = x.mean(0), x.std(0), x.min(0), x.max(0)
        return self

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Select and standardise features, [n, f] -> [n, m]."""
        return np.clip((features[:, self.indices_] - self.mean_) / self.sd_, -FAR_SD, FAR_SD)


@dataclass(frozen=True)
class FittedClassifier:
    """FittedModel and tuned classifier.

    Attributes:
        kind: Kind of CLASSIFIERS.
        settings: Best of SETTINGS.
        model: Standardisation and classifier.
        limit: Probability from which a scan counts as calcium.
        out_of_fold: Probability of each training scan by the inner fold's model that had not seen its patient [n].
        inputs: Number of features.
    """

    kind: str
    settings: dict[str, object]
    model: Pipeline
    limit: float
    out_of_fold: np.ndarray
    inputs: int

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Predict the probability of coronary calcium [n] from features [n, f] in the order of the fit.

        For a support vector machine it is the logistic function of the distance, correctly ordered but not calibrated.
        """
        return _probabilities(getattr(self.model, _method(self.kind))(features))


def fit_classifier(
    kind: str,
    features: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str] | np.ndarray,
    seed: int,
    sensitivity: float | None = None,
) -> FittedClassifier:
    """Fit a classifier, tuned by cross-validation among its scans, split by patient.

    The settings with the largest mean area under the ROC curve over the inner folds win; ties go to the first.

    Args:
        kind: One of CLASSIFIERS.
        features: Finite, [n, f].
        labels: True for calcium, bool [n].
        patients: Patient of each scan, [n].
        seed: Seed of the inner folds and the classifier.
        sensitivity: Least sensitivity of the limit; see `best_limit`.

    Raises:
        CTError: There are too few scans of one class, or no usable features.
    """
    features, labels = np.asarray(features, float), np.asarray(labels, bool)
    if not np.isfinite(features).all():
        raise CTError("Some of the features are not numbers. Compute them again.")
    parts = _inner_folds(labels, patients, seed)
    model = Pipeline([("standardisation", Standardisation()), ("classifier", _classifier(kind, seed))])
    grid = [{f"classifier__{name}": values for name, values in choices.items()} for choices in SETTINGS[kind]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small inner fold may have scans of one class only
        search = GridSearchCV(model, grid, scoring="roc_auc", cv=parts, error_score="raise").fit(features, labels)
    best = search.best_estimator_
    out_of_fold = _probabilities(cross_val_predict(best, features, labels, cv=parts, method=_method(kind)))
    settings = {name.removeprefix("classifier__"): value for name, value in search.best_params_.items()}
    limit = best_limit(out_of_fold, labels, sensitivity)
    return FittedClassifier(kind, settings, best, limit, out_of_fold, features.shape[1])


def best_limit(probabilities: np.ndarray, labels: np.ndarray, sensitivity: float | None = None) -> float:
    """Return the limit with the highest mean of sensitivity and specificity, midway between two scans.

    Args:
        probabilities: Of scans unseen by their model; those of training scans would be too far apart.
        labels: True for calcium.
        sensitivity: Return the highest limit with at least this sensitivity instead.
    """
    false, true, limits = roc_curve(labels, probabilities, drop_intermediate=False)
    least = limits[np.argmax(true - false if sensitivity is None else true >= sensitivity)]
    below = probabilities[probabilities < least]
    return float((least + below.max(initial=0.0)) / 2)


def as_network(
    fitted: FittedClassifier, names: Sequence[str], config: RadiomicsConfig
) -> tuple[RadiomicsNet, RadiomicsConfig]:
    """Convert a logistic regression to the network that scoring loads, with features of non-zero weight only.

    names: features of the fit. config: settings of their computation. Returns the network and its configuration.
    """
    if fitted.kind != "logistic":
        raise ValueError(f"{CLASSIFIERS[fitted.kind]} cannot be stored; only the logistic regression can.")
    scale, regression = fitted.model.named_steps.values()
    weights = regression.coef_[0]
    weighted = np.flatnonzero(weights)
    config = replace(config, features=tuple(names[n] for n in scale.indices_[weighted]))
    network = RadiomicsNet(config)
    values = {"mean": scale.mean_, "sd": scale.sd_, "lowest": scale.lowest_, "highest": scale.highest_}
    values["weight"] = weights
    with torch.no_grad():
        for name, vector in values.items():
            getattr(network, name).copy_(torch.from_numpy(vector[weighted]))
        network.bias.fill_(float(regression.intercept_[0]))
    return network.eval(), config


def _inner_folds(
    labels: np.ndarray, patients: Sequence[str] | np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    names = np.asarray(patients)
    fewest = min(len(np.unique(names[labels])), len(np.unique(names[~labels])))
    if fewest < 2:
        counts = f"{int(labels.sum())} scans with calcium and {int((~labels).sum())} without"
        raise CTError(f"There are {counts}; both are needed, of at least two patients each. Give more patients.")
    count = min(INNER_FOLDS, fewest)
    part = parts_by_patient(patients, labels, count, seed)
    return [(np.flatnonzero(part != number), np.flatnonzero(part == number)) for number in range(count)]


def _classifier(kind: str, seed: int) -> BaseEstimator:
    """Return an unfitted classifier with one thread, since studies run many at once."""
    classifiers = {
        "logistic": LogisticRegression(solver="liblinear", intercept_scaling=10.0, max_iter=1000),
        "forest": RandomForestClassifier(100, n_jobs=1),
        "svm": SVC(),
        "boosting": GradientBoostingClassifier(subsample=0.8, max_features="sqrt"),
    }
    return classifiers[kind].set_params(random_state=seed)


def _method(kind: str) -> str:
    return "decision_function" if kind == "svm" else "predict_proba"


def _probabilities(predicted: np.ndarray) -> np.ndarray:
    """Return probabilities [n] from those of both classes [n, 2], or from distances [n]."""
    return predicted[:, 1] if predicted.ndim == 2 else 1 / (1 + np.exp(-np.clip(predicted, -50, 50)))
