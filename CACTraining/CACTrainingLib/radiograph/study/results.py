"""What the study's trainings predicted, and how good that is, with intervals by a bootstrap over patients.

Networks of different folds are not on one scale, so that an area under the curve counts only pairs of a patient with
and one without within the same fold (each pair of each fold counts alike). With one fold it is the plain area.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...data.scan_table import table_hash
from ...statistics.bootstrap import Found
from ...statistics.regression import log_odds
from ...statistics.resamples import Resamples
from ..table import read_table
from .configurations import THRESHOLDS, Configuration


@dataclass(frozen=True)
class Radiographs:
    """The rows of a study's table, n of them.

    names: unlike each other. patients: whose each is. agatston: the reference. factors: age in years, 1 for men, BMI,
    float [n, 3]; None where the table has not all of them. sha256: of what the table says.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    agatston: np.ndarray
    factors: np.ndarray | None
    sha256: str

    def above(self, threshold: float) -> np.ndarray:
        """Whether the reference is above 0, or from a threshold on: bool [n]."""
        return self.agatston > 0 if threshold == 0 else self.agatston >= threshold


@dataclass(frozen=True)
class Predictions:
    """Of one configuration, for those of a study's radiographs that were tested; m of them.

    rows: int [m], which. folds: int [m], in which they were tested. logits, image, both: of the network, calibrated,
    and with clinical factors (None without): float [m, thresholds]. seconds: of each training. weights: of the network.
    """

    rows: np.ndarray
    folds: np.ndarray
    logits: np.ndarray
    image: np.ndarray
    both: np.ndarray | None
    seconds: tuple[float, ...]
    steps: tuple[int, ...]
    weights: int | None


def read_radiographs(table: Path, score: str = "agatston") -> Radiographs:
    """A table of radiographs (see `table.read_table`). score: the column of the reference. Raises TableError."""
    rows = read_table(table, score)
    factors = np.array([row.factors for row in rows])
    return Radiographs(
        tuple(row.name for row in rows),
        tuple(row.patient for row in rows),
        np.array([row.scores[score] for row in rows]),
        factors if np.isfinite(factors).all() else None,
        table_hash(rows),
    )


def gathered(data: Radiographs, results: Sequence[Mapping]) -> Predictions:
    """A configuration's predictions from what its runs kept (`study_runs`)."""
    places = {name: n for n, name in enumerate(data.names)}
    rows = np.array([places[name] for result in results for name in result["names"]], int)
    folds = np.array([result["fold"] for result in results for _ in result["names"]], int)

    def joined(key: str) -> np.ndarray:
        return np.concatenate([np.asarray(result[key], float) for result in results])

    both = joined("both") if all(result.get("both") is not None for result in results) else None
    return Predictions(
        rows,
        folds,
        joined("logits"),
        joined("image"),
        both,
        tuple(result["seconds"] for result in results),
        tuple(result["steps"] for result in results),
        results[0].get("weights"),
    )


@dataclass
class Study:
    """Radiographs with predictions by configuration, and resamples of the patients that all statistics share.

    predictions: of trainings that are complete; folds: of the cross-validation, int [n].
    """

    data: Radiographs
    predictions: Mapping[Configuration, Predictions]
    folds: np.ndarray
    seed: int = 0
    resamples: Resamples = field(init=False)

    def __post_init__(self) -> None:
        self.resamples = Resamples(self.data.patients, np.random.default_rng(self.seed))

    def areas(self, predictions: Predictions, scores: np.ndarray, rows: np.ndarray | None = None) -> list[Found]:
        """Areas under the curve within folds, of each threshold, and last their mean.

        scores: [m, thresholds]. rows: only these radiographs.
        """
        own = slice(None) if rows is None else np.isin(predictions.rows, rows)
        chosen, folds = predictions.rows[own], predictions.folds[own]
        found = [
            self.resamples.area_in_folds(chosen, folds, self.data.above(threshold)[chosen], scores[own][:, n])
            for n, threshold in enumerate(THRESHOLDS)
        ]
        mean = np.mean([one.values for one in found], axis=0)
        return [*found, Found(mean, found[0].n, found[0].patients)]

    def shared(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Radiographs that every one of the configurations was tested on: int, rising."""
        rows = self.predictions[configurations[0]].rows
        for configuration in configurations[1:]:
            rows = np.intersect1d(rows, self.predictions[configuration].rows)
        return np.sort(rows)


def factors_alone(study: Study) -> Predictions | None:
    """Logistic regression on age, sex and BMI, cross-validated in the same folds; None where they are not known."""
    if study.data.factors is None:
        return None
    everyone = np.arange(len(study.data.names))
    probabilities = np.zeros((len(everyone), len(THRESHOLDS)))
    for fold in np.unique(study.folds):
        train = study.folds != fold
        probabilities[~train] = factors_model(study.data, train)(study.data.factors[~train])
    return Predictions(everyone, study.folds, log_odds(probabilities), probabilities, probabilities, (), (), None)


def factors_model(data: Radiographs, train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Learns from some radiographs; gives chances [n, thresholds] of factors [n, 3]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = []
    for threshold in THRESHOLDS:
        truth = data.above(threshold)[train]
        constant = truth.all() or not truth.any()
        # With standardised factors, the library's slight penalty changes nothing that could be seen.
        model = make_pipeline(StandardScaler(), LogisticRegression())
        models.append(float(truth.mean()) if constant else model.fit(data.factors[train], truth))

    def probabilities(factors: np.ndarray) -> np.ndarray:
        columns = [
            np.full(len(factors), model) if isinstance(model, float) else model.predict_proba(factors)[:, 1]
            for model in models
        ]
        return np.stack(columns, 1)

    return probabilities
