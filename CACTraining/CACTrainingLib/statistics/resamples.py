"""Resamples of patients that several models share, and what a measure is in each of them.

What a measure is a sum over is first summed by patient, so that thousands of slices cost no more than their patients.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from .bootstrap import Bootstrap, Found, exact_proportion, ratio
from .roc import area_within

_CHUNK = 4_000_000
"""Weights of items held at once."""


class Resamples:
    """Resamples of the patients of some scans. patients: whose each scan is."""

    def __init__(self, patients: Sequence[Hashable], generator: np.random.Generator) -> None:
        names = list(dict.fromkeys(patients))
        places = {name: n for n, name in enumerate(names)}
        self.of_scan = np.array([places[name] for name in patients], int)
        self.weights = Bootstrap(names, generator).weights(names)
        """How often each patient counts: float [1 + resamples, patients]."""

    def sums(self, scans: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sum of items by patient: float [patients].

        Args:
            scans: int [items], which scan each is of.
            values: [items].
        """
        return np.bincount(self.of_scan[scans], np.asarray(values, float), self.weights.shape[1])

    def ratio(self, scans: np.ndarray, top: np.ndarray, bottom: np.ndarray, n: int) -> Found:
        """Sum over sum of items, of which n count.

        Args:
            scans: int [items], which scan each is of.
            top, bottom: [items].
            n: number of items that count.
        """
        values = ratio(self.weights, self.sums(scans, top), self.sums(scans, bottom))
        return Found(values, n, self._count(scans[np.asarray(bottom) != 0]))

    def proportion(self, scans: np.ndarray, hits: np.ndarray, of: np.ndarray) -> Found:
        """Proportion of hits among some items. All or none: as in `Bootstrap.proportion`.

        Args:
            scans: int [items], which scan each is of.
            hits: bool [items].
            of: the items that count, bool [items].
        """
        hits, n = hits & of, int(of.sum())
        found = self.ratio(scans, hits, of, n)
        if n and hits.sum() in (0, n):
            return replace(found, exact=exact_proportion(bool(hits.any()), n, found.patients))
        return found

    def mean(self, scans: np.ndarray, values: np.ndarray) -> Found:
        """Mean of items that are numbers; NaN ones are left out.

        Args:
            scans: int [items], which scan each is of.
            values: [items].
        """
        known = np.isfinite(values)
        return self.ratio(scans, np.where(known, values, 0.0), known, int(known.sum()))

    def over_items(self, scans: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Found:
        """A statistic of items that is no sum.

        Args:
            scans: int [items], which scan each is of.
            statistic: of weights, float [resamples, items].
        """
        place = self.of_scan[scans]
        rows = max(1, _CHUNK // max(1, len(place)))
        parts = [self.weights[n : n + rows][:, place] for n in range(0, len(self.weights), rows)]
        return Found(np.concatenate([statistic(part) for part in parts]), len(place), self._count(scans))

    def area_in_folds(self, scans: np.ndarray, folds: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> Found:
        """Area under the ROC curve of pairs within a fold: networks of different folds are not on one scale.

        Args:
            scans: int [items], which scan each is of.
            folds: int [items].
            truth: bool [items].
            scores: [items].
        """
        return self.over_items(scans, lambda weights: area_within(weights, folds, truth, scores))

    def _count(self, scans: np.ndarray) -> int:
        return len(np.unique(self.of_scan[scans]))
