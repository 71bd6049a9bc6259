"""What the models of the study of radiomics said, and how good that is, with intervals by a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...experiments.configuration import ExperimentRun
from ...statistics.bootstrap import Found
from ...statistics.resamples import Resamples
from ...statistics.roc import area_within
from .configurations import HELD_OUT, Configuration
from .data import Scans

CROSSED, HELD = "crossed", "held"
"""Parts: cross-validated on the scans that are not held out; and those held out."""

ACCURACY, SENSITIVITY, SPECIFICITY, AREA = "Accuracy", "Sensitivity", "Specificity", "AUC"
MEASURES = (ACCURACY, SENSITIVITY, SPECIFICITY, AREA)


@dataclass(frozen=True)
class Evaluated:
    """What one way to make models said of m scans.

    rows: int [m], which scans. folds: in which each was evaluated. probabilities: of coronary calcium, float [m].
    called: whether that reaches the limit of the model, which was chosen on the scans it learned from: bool [m].
    noncoronary_controls: the same of the patients with other calcium only, by the models of those held out; None where
    there are none.
    """

    rows: np.ndarray
    folds: np.ndarray
    probabilities: np.ndarray
    called: np.ndarray
    noncoronary_controls: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, keep: np.ndarray) -> Evaluated:
        """Only some of the scans. keep: bool [m]."""
        return Evaluated(
            self.rows[keep], self.folds[keep], self.probabilities[keep], self.called[keep], self.noncoronary_controls
        )


def gathered(results: Sequence[Mapping]) -> Evaluated:
    """Of one configuration, from what its runs kept (`whole_scan.radiomics.study_runs`)."""
    probabilities = [np.asarray(result["probabilities"], float) for result in results]
    noncoronary_controls = None
    if results[0].get("others") is not None:
        found = np.asarray(results[0]["others"], float)
        noncoronary_controls = found, found >= results[0]["limit"]
    return Evaluated(
        np.concatenate([np.asarray(result["rows"], int) for result in results]),
        np.concatenate([np.full(len(result["rows"]), result["fold"]) for result in results]),
        np.concatenate(probabilities),
        np.concatenate([own >= result["limit"] for own, result in zip(probabilities, results, strict=True)]),
        noncoronary_controls,
    )


@dataclass
class Study:
    """Scans, what was said of them by part and configuration, and resamples of patients that all statistics share.

    folds: int [n] as in `whole_scan.radiomics.study_runs.Data`. kept: what the runs kept; a configuration's part is
    evaluated when all its folds are there. noncoronary_controls: scans with calcium that is not coronary only, where
    there are any.
    """

    scans: Scans
    folds: np.ndarray
    kept: Mapping[ExperimentRun, Mapping]
    seed: int = 0
    noncoronary_controls: Scans | None = None
    parts: dict[str, dict[Configuration, Evaluated]] = field(init=False)
    resamples: Resamples = field(init=False)
    other_resamples: Resamples = field(init=False)

    def __post_init__(self) -> None:
        self.resamples = Resamples(self.scans.patients, np.random.default_rng(self.seed))
        noncoronary_controls = self.noncoronary_controls.patients if self.noncoronary_controls else ()
        self.other_resamples = Resamples(noncoronary_controls, np.random.default_rng(self.seed + 1))
        self.parts = {CROSSED: {}, HELD: {}}
        crossed = sorted(set(self.folds.tolist()) - {HELD_OUT})
        for part, wanted in ((CROSSED, crossed), (HELD, [HELD_OUT])):
            for one in dict.fromkeys(run.configuration for run in self.kept):
                runs = [ExperimentRun(one, fold) for fold in wanted]
                if runs and all(run in self.kept for run in runs):
                    self.parts[part][one] = gathered([self.kept[run] for run in runs])

    def rows_of(self, part: str) -> np.ndarray:
        """Which scans are of a part."""
        return np.flatnonzero((self.folds == HELD_OUT) == (part == HELD))

    def rule(self, part: str) -> Evaluated:
        """The pseudo-label: whether any candidate counts; in the order of the candidates' score."""
        rows = self.rows_of(part)
        return Evaluated(rows, self.folds[rows], self.scans.features["agatston"][rows, 0], self.scans.pseudo[rows])

    def measures(self, evaluated: Evaluated, truth: np.ndarray | None = None) -> dict[str, Found]:
        """By the names in MEASURES. truth: bool [n] of all scans; whether there is any coronary calcium when None."""
        true = (self.scans.truth if truth is None else truth)[evaluated.rows]
        right = evaluated.called == true
        found = {
            name: self.resamples.proportion(evaluated.rows, right, of)
            for name, of in ((ACCURACY, np.ones(len(true), bool)), (SENSITIVITY, true), (SPECIFICITY, ~true))
        }
        return found | {AREA: self.area(evaluated, true)}

    def area(self, evaluated: Evaluated, true: np.ndarray) -> Found:
        """Area under the ROC curve of pairs within a fold. true: bool [m]."""
        return self.resamples.area_in_folds(evaluated.rows, evaluated.folds, true, evaluated.probabilities)

    def best(self, configs: Sequence[Configuration]) -> Configuration | None:
        """The one with the greatest area under the curve, cross-validated; the first where several have it."""
        crossed = self.parts[CROSSED]

        def area(config: Configuration) -> float:
            evaluated = crossed[config]
            one, true = np.ones((1, len(evaluated.rows))), self.scans.truth[evaluated.rows]
            return float(np.nan_to_num(area_within(one, evaluated.folds, true, evaluated.probabilities)[0]))

        return max((config for config in configs if config in crossed), key=area, default=None)
