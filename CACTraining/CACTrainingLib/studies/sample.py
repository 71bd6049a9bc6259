"""The scored scans of a study with the resamples of its patients: what every section of the results starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from CACScoringLib.core.ct import CTError

from ..report.parts import METHODS, count
from ..statistics.bootstrap import Bootstrap, Difference, Found, paired_difference
from .records import StudyRecord, pairs_of

MASS, AGATSTON = "mass", "agatston"
WITH_AGATSTON = ("map", "reader", "automatic")
"""Methods with a score on the Agatston scale; the others only count or weigh."""
WITH_MASS = ("map", "reader", "automatic", "noise_free")
"""Methods that weigh calcium; the control only counts slices."""
OWN = "map"
"""The method that the others are compared with."""
VESSELS = {"LM and LAD": ("LM", "LAD"), "LCX": ("LCX",), "RCA": ("RCA",)}
"""The left main belongs to the descending artery, as in table 3 of van Velzen et al."""
LOWER, HIGHER = "lower for the map", "higher for the map"
PAPER = "van Velzen et al., Generative models for reproducible coronary calcium scoring"

Pair = tuple[StudyRecord, StudyRecord]


class MixedUnitsError(CTError):
    """Records of one study give masses in different units."""


class Sample:
    """records: all of a study. scans: those that were scored; pairs: of both scans of a patient.

    methods: keys of METHODS that any scan has a value of, in their order. unit: of mass.
    Raises MixedUnitsError.
    """

    def __init__(self, records: Sequence[StudyRecord], generator: np.random.Generator) -> None:
        self.records = tuple(records)
        self.scans = tuple(record for record in records if record.refused is None)
        self.pairs = tuple(pairs_of(records))
        units = sorted({record.unit for record in self.scans})
        if len(units) > 1:
            raise MixedUnitsError(f"The scans' masses are in {' and in '.join(units)}. Evaluate them as two studies.")
        self.unit = units[0] if units else ""
        self.methods = tuple(m for m in METHODS if any(m in record.values for record in self.scans))
        self.bootstrap = Bootstrap([record.patient for record in self.scans], generator)

    @property
    def has_truth(self) -> bool:
        return any(record.truth is not None for record in self.scans)

    def comparators(self, of: Sequence[str] = tuple(METHODS)) -> tuple[str, ...]:
        """Methods to compare the map with; the ceiling is none, because no method on the scan itself can reach it."""
        return tuple(m for m in self.methods if m in of and m not in (OWN, "noise_free"))

    def weights(self, items: Sequence[StudyRecord | Pair]) -> np.ndarray:
        """Float [1 + resamples, items]."""
        return self.bootstrap.weights(patients_of(items))

    def compare(
        self, items: Sequence[StudyRecord | Pair], statistic: Callable[[np.ndarray, str], np.ndarray], comparator: str
    ) -> tuple[float, float, Difference]:
        """The map's value, the rival's, and the difference, on the same items. statistic: of weights and a method."""
        weights = self.weights(items)
        own, other = statistic(weights, OWN), statistic(weights, comparator)
        found = (Found(values, len(items), len(set(patients_of(items)))) for values in (own, other))
        change = paired_difference(*found)
        return float(own[0]), float(other[0]), change

    def opening(self) -> str:
        """One paragraph: how many scans, pairs and patients, and which were refused."""
        refused = [record for record in self.records if record.refused is not None]
        scored = f"{count(self.scans, 'scan')} of {count(set(patients_of(self.scans)), 'patient')} were scored"
        text = f"{scored}, among them {count(self.pairs, 'complete pair')}."
        if refused:
            first = "; ".join(f"{record.scan}: {record.refused}" for record in refused[:3])
            more = "" if len(refused) <= 3 else f"; and {len(refused) - 3} more"
            text += (
                f" {count(refused, 'scan')} could not be scored and {'is' if len(refused) == 1 else 'are'} left out of "
                f"every figure ({first}{more})."
            )
        return text


def patients_of(items: Sequence[StudyRecord | Pair]) -> list[str]:
    return [(item if isinstance(item, StudyRecord) else item[0]).patient for item in items]


def having(items: Sequence[StudyRecord | Pair], *methods: str) -> list:
    """Scans, or pairs, that have a value of every method."""
    return [
        item
        for item in items
        if all(m in record.values for m in methods for record in ((item,) if isinstance(item, StudyRecord) else item))
    ]


def score(record: StudyRecord, method: str, quantity: str = MASS, arteries: Sequence[str] | None = None) -> float:
    """A method's score of a scan; of some arteries together, 0 where the method found none there."""
    value = record.values[method]
    if arteries is None:
        return value.mass if quantity == MASS else value.agatston
    parts = [value.arteries.get(artery, (0.0, 0.0)) for artery in arteries]
    return sum(part[0 if quantity == MASS else 1] for part in parts)


def scores(
    items: Sequence[StudyRecord | Pair], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """Of scans [n], of pairs [n, 2]."""
    if items and not isinstance(items[0], StudyRecord):
        return np.array([[score(record, method, quantity, arteries) for record in pair] for pair in items])
    return np.array([score(record, method, quantity, arteries) for record in items]).reshape(len(items))


def pair_scores(
    pairs: Sequence[Pair], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """[n, 2]."""
    return scores(pairs, method, quantity, arteries).reshape(-1, 2)


def compared(change: Difference, below: str, above: str) -> str:
    """A difference in words: it is said to lie on one side only where its interval leaves zero out.

    below, above: what a difference below and above zero means, such as “lower for the map”.
    """
    found = change.estimate
    if math.isnan(found.low):
        return "too few to compare"
    p = "p < 0.001" if change.p < 0.001 else f"p = {change.p:.2g}"
    word = below if found.high < 0 else above if found.low > 0 else "no difference shown by this sample"
    numbers = f"{found.value:+.2f}, 95 % interval {found.low:+.2f} to {found.high:+.2f}".replace("-", "−")
    return f"{word} ({numbers}, {p})"
