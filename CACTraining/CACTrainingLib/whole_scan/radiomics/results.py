"""What the models of the study of radiomics said, and how good that is, with intervals by a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...statistics.measures import Difference, difference
from ...statistics.resamples import Found, Resamples
from ...statistics.roc import area_within
from .data import Scans
from .plan import HELD_OUT, Cell

CROSSED, HELD = "crossed", "held"
"""Parts: cross-validated on the scans that are not held out; and those held out."""

ACCURACY, SENSITIVITY, SPECIFICITY, AREA = "Accuracy", "Sensitivity", "Specificity", "AUC"
MEASURES = (ACCURACY, SENSITIVITY, SPECIFICITY, AREA)


@dataclass(frozen=True)
class Judged:
    """What one way to make models said of m scans.

    rows: int [m], which scans. folds: in which each was judged. chances: of coronary calcium, float [m]. called:
    whether that reaches the limit of the model, which was chosen on the scans it learned from: bool [m]. others: the
    same of the patients with other calcium only, by the models of those held out; None where there are none.
    """

    rows: np.ndarray
    folds: np.ndarray
    chances: np.ndarray
    called: np.ndarray
    others: tuple[np.ndarray, np.ndarray] | None = None

    def of(self, keep: np.ndarray) -> Judged:
        """Only some of the scans. keep: bool [m]."""
        return Judged(self.rows[keep], self.folds[keep], self.chances[keep], self.called[keep], self.others)


def gathered(results: Sequence[Mapping]) -> Judged:
    """Of one cell, from what its jobs kept (`whole_scan.radiomics.fits`)."""
    chances = [np.asarray(result["probabilities"], float) for result in results]
    others = None
    if results[0].get("others") is not None:
        found = np.asarray(results[0]["others"], float)
        others = found, found >= results[0]["limit"]
    return Judged(
        np.concatenate([np.asarray(result["rows"], int) for result in results]),
        np.concatenate([np.full(len(result["rows"]), result["fold"]) for result in results]),
        np.concatenate(chances),
        np.concatenate([own >= result["limit"] for own, result in zip(chances, results, strict=True)]),
        others,
    )


@dataclass
class Study:
    """Scans, what was said of them by part and cell, and resamples of patients that all statistics share.

    folds: int [n] as in `whole_scan.radiomics.fits.Data`. kept: what the jobs kept, by cell and fold; a cell's part is
    judged when all its folds are there. others: scans with calcium that is not coronary only, where there are any.
    """

    scans: Scans
    folds: np.ndarray
    kept: Mapping[tuple[Cell, int], Mapping]
    seed: int = 0
    others: Scans | None = None
    parts: dict[str, dict[Cell, Judged]] = field(init=False)
    resamples: Resamples = field(init=False)
    other_resamples: Resamples = field(init=False)

    def __post_init__(self) -> None:
        self.resamples = Resamples(self.scans.patients, np.random.default_rng(self.seed))
        others = self.others.patients if self.others else ()
        self.other_resamples = Resamples(others, np.random.default_rng(self.seed + 1))
        self.parts = {CROSSED: {}, HELD: {}}
        crossed = sorted(set(self.folds.tolist()) - {HELD_OUT})
        for part, wanted in ((CROSSED, crossed), (HELD, [HELD_OUT])):
            for cell in dict.fromkeys(cell for cell, _ in self.kept):
                if wanted and all((cell, fold) in self.kept for fold in wanted):
                    self.parts[part][cell] = gathered([self.kept[cell, fold] for fold in wanted])

    def rows_of(self, part: str) -> np.ndarray:
        """Which scans are of a part."""
        return np.flatnonzero((self.folds == HELD_OUT) == (part == HELD))

    def rule(self, part: str) -> Judged:
        """The pseudo-label: whether any candidate counts; in the order of the candidates' score."""
        rows = self.rows_of(part)
        return Judged(rows, self.folds[rows], self.scans.features["agatston"][rows, 0], self.scans.pseudo[rows])

    def measures(self, judged: Judged, truth: np.ndarray | None = None) -> dict[str, Found]:
        """By the names in MEASURES. truth: bool [n] of all scans; whether there is any coronary calcium when None."""
        true = (self.scans.truth if truth is None else truth)[judged.rows]
        right = judged.called == true
        found = {
            name: self.resamples.share(judged.rows, right, of)
            for name, of in ((ACCURACY, np.ones(len(true), bool)), (SENSITIVITY, true), (SPECIFICITY, ~true))
        }
        return found | {AREA: self.area(judged, true)}

    def area(self, judged: Judged, true: np.ndarray) -> Found:
        """Area under the ROC curve of pairs within a fold. true: bool [m]."""
        return self.resamples.over_items(
            judged.rows, lambda weights: area_within(weights, judged.folds, true, judged.chances)
        )

    def best(self, cells: Sequence[Cell]) -> Cell | None:
        """The one with the greatest area under the curve, cross-validated; the first where several have it."""
        crossed = self.parts[CROSSED]

        def area(cell: Cell) -> float:
            judged = crossed[cell]
            one, true = np.ones((1, len(judged.rows))), self.scans.truth[judged.rows]
            return float(np.nan_to_num(area_within(one, judged.folds, true, judged.chances)[0]))

        return max((cell for cell in cells if cell in crossed), key=area, default=None)


def less(found: Found, other: Found) -> Difference:
    """Of two statistics of the same resamples, or of resamples that have nothing to do with each other."""
    return difference(found.values, other.values, min(found.n, other.n), min(found.patients, other.patients))


def less_share(found: Found, other: Found) -> Difference:
    """Of the shares of two groups of different patients.

    Where all or none of a group are hits, each of its resamples says the same; then the interval is Newcombe's (1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I) and p is Fisher's exact one, both with each
    patient counted once.
    """
    change = less(found, other)
    if (found.exact is None and other.exact is None) or not (found.patients and other.patients):
        return change
    from scipy.stats import fisher_exact
    from statsmodels.stats.proportion import confint_proportions_2indep

    sizes = found.patients, other.patients
    hits = [round(float(one.values[0]) * size) for one, size in zip((found, other), sizes, strict=True)]
    low, high = confint_proportions_2indep(hits[0], sizes[0], hits[1], sizes[1], method="newcomb")
    p = fisher_exact([[hit, size - hit] for hit, size in zip(hits, sizes, strict=True)]).pvalue
    return Difference(replace(change.estimate, low=float(low), high=float(high)), float(p))


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p of two ways being right equally often on the same scans (McNemar 1947), by statsmodels.

    first, second: whether each was right, bool [n].
    """
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[int((first == a)[second == b].sum()) for b in (True, False)] for a in (True, False)]
    return float(mcnemar(table, exact=True).pvalue)
