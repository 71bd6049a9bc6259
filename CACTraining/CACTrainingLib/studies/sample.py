"""The scored scans of a study, compared by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from CACScoringLib.core.ct import CTError

from ..evaluation.measures import MethodComparison, patients_of
from ..evaluation.parts import METHODS, count
from .records import StudyRecord, pairs_of

MASS, AGATSTON = "mass", "agatston"
WITH_AGATSTON = ("map", "reader", "automatic")
"""Methods with an Agatston score."""
WITH_MASS = ("map", "reader", "automatic", "noise_free")
"""Methods with a calcium mass; the control only counts slices."""
CALCIUM_MAP = "map"
"""Key of the method that the others are compared with."""
CEILING = "noise_free"
"""Key of the method left out of comparisons, because no method on the scan itself can reach it."""
VESSELS = {"LM and LAD": ("LM", "LAD"), "LCX": ("LCX",), "RCA": ("RCA",)}
"""Arteries by vessel; the left main belongs to the descending artery, as in table 3 of van Velzen et al."""
PAPER = "van Velzen et al., Generative models for reproducible coronary calcium scoring"

Pair = tuple[StudyRecord, StudyRecord]


class MixedUnitsError(CTError):
    """Records of one study give masses in different units."""


class Sample(MethodComparison):
    """The scans of a study. Raises MixedUnitsError.

    Attributes:
        records: Records of all scans.
        scans: Records of the scored scans.
        pairs: Records of both scans of a patient.
        unit: Unit of mass.
        titles: Titles of the methods that any scan has a value of.
        reference: Method that the others are compared with.
    """

    def __init__(
        self,
        records: Sequence[StudyRecord],
        generator: np.random.Generator,
        titles: Mapping[str, str] = METHODS,
        reference: str = CALCIUM_MAP,
    ) -> None:
        self.records = tuple(records)
        self.scans = tuple(record for record in records if record.refused is None)
        self.pairs = tuple(pairs_of(records))
        units = sorted({record.unit for record in self.scans})
        if len(units) > 1:
            raise MixedUnitsError(f"The scans' masses are in {' and in '.join(units)}. Evaluate them as two studies.")
        self.unit = units[0] if units else ""
        existing = {m: title for m, title in titles.items() if any(m in record.values for record in self.scans)}
        super().__init__(patients_of(self.scans), existing, reference, generator, CEILING)

    def opening(self) -> str:
        """Paragraph with the numbers of scans, pairs and patients, and the refused scans."""
        refused = [record for record in self.records if record.refused is not None]
        scored = f"{count(self.scans, 'scan')} of {count(set(patients_of(self.scans)), 'patient')} were scored"
        text = f"{scored}, among them {count(self.pairs, 'complete pair')}."
        if refused:
            first = "; ".join(f"{record.scan}: {record.refused}" for record in refused[:3])
            more = "" if len(refused) <= 3 else f"; and {len(refused) - 3} more"
            text += f" {count(refused, 'scan')} could not be scored ({first}{more})."
        return text


def having(items: Sequence[Any], *methods: str) -> list[Any]:
    """Select the scans or pairs with values of all methods."""
    pairs = ((item,) if isinstance(item, StudyRecord) else item for item in items)
    complete = (all(m in record.values for record in pair for m in methods) for pair in pairs)
    return [item for item, is_complete in zip(items, complete, strict=True) if is_complete]


def score(record: StudyRecord, method: str, quantity: str = MASS, arteries: Sequence[str] | None = None) -> float:
    """Mass or Agatston score of a scan by a method, in total or in some arteries."""
    value = record.values[method]
    if arteries is None:
        return value.mass if quantity == MASS else value.agatston
    return sum(value.arteries.get(artery, (0.0, 0.0))[quantity == AGATSTON] for artery in arteries)


def scores(
    items: Sequence[StudyRecord], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """Scores of scans, float [n]."""
    return np.array([score(record, method, quantity, arteries) for record in items], float)


def pair_scores(
    pairs: Sequence[Pair], method: str, quantity: str = MASS, arteries: Sequence[str] | None = None
) -> np.ndarray:
    """Scores of both scans, float [n, 2]."""
    return np.array([scores(pair, method, quantity, arteries) for pair in pairs]).reshape(-1, 2)
