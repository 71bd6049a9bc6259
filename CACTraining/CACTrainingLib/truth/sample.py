"""The scored scans of a study, compared by method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.scoring.uncertainty import TOTAL

from ..evaluation.measures import ExperimentComparison, long_table, value_row
from ..evaluation.papers import texts_of
from ..evaluation.parts import METHODS, count
from .records import AGATSTON, MASS, ComparedScan, amount, pairs_of

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
TEXTS = texts_of("pairs")
"""Texts of all studies of scan pairs."""

TOTALS = {TOTAL: (TOTAL,)}
"""Vessels of `score_table` for the score of all arteries."""

CONDITIONS = ("number", "quantity", "kind", "visible", "distractors")
"""Conditions of `score_table`."""

Pair = tuple[ComparedScan, ComparedScan]


class Sample(ExperimentComparison):
    """The scans of a study. Raises CTError.

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
        records: Sequence[ComparedScan],
        generator: np.random.Generator,
        titles: Mapping[str, str] = METHODS,
        reference: str = CALCIUM_MAP,
    ) -> None:
        self.records = tuple(records)
        self.scans = tuple(record for record in records if record.refused is None)
        self.pairs = tuple(pairs_of(records))
        units = sorted({record.unit for record in self.scans})
        if len(units) > 1:
            raise CTError(f"The scans' masses are in {' and in '.join(units)}. Evaluate them as two studies.")
        self.unit = units[0] if units else ""
        existing = {m: title for m, title in titles.items() if any(m in record.values for record in self.scans)}
        super().__init__([scan.patient for scan in self.scans], existing, generator, reference, CEILING)

    def opening(self) -> str:
        """Paragraph with the numbers of scans, pairs and patients, and the refused scans."""
        refused = [record for record in self.records if record.refused is not None]
        scored = f"{count(self.scans, 'scan')} of {count({scan.patient for scan in self.scans}, 'patient')} were scored"
        text = f"{scored}, among them {count(self.pairs, 'complete pair')}."
        if refused:
            first = "; ".join(f"{record.name}: {record.refused}" for record in refused[:3])
            more = "" if len(refused) <= 3 else f"; and {len(refused) - 3} more"
            text += f" {count(refused, 'scan')} could not be scored ({first}{more})."
        return text


def score_table(
    records: Sequence[ComparedScan], quantity: str = MASS, vessels: Mapping[str, Sequence[str]] = TOTALS
) -> pd.DataFrame:
    """Long table of scans by all methods. The truth is the true mass in mg, NaN if unknown.

    Its conditions are `quantity`, and of the record `number`, `kind`, `visible`, which is the vessel's where there are
    vessels, and `distractors`: True with non-coronary calcium or metal.

    Args:
        records: Records of scored scans.
        quantity: MASS or AGATSTON.
        vessels: Parts of the score by vessel, a row for each.
    """
    rows = []
    for record in records:
        for vessel, parts in vessels.items():
            visible = record.visible if vessel == TOTAL else bool({*parts} & {*(record.visible_arteries or ())})
            true_mass = math.nan if record.truth_mg is None else sum(record.truth_mg.get(part, 0.0) for part in parts)
            conditions = (record.number, quantity, record.kind, visible, bool(record.distractors))
            about = dict(zip(CONDITIONS, conditions, strict=True))
            rows += [
                value_row(record, method, amount(scores, quantity, parts), true_mass, vessel, **about)
                for method, scores in record.values.items()
            ]
    return long_table(rows, CONDITIONS)


def all_scores(records: Sequence[ComparedScan]) -> pd.DataFrame:
    """Long table of masses and Agatston scores of scored scans, in total and by artery."""
    vessels = {**TOTALS, **{artery: (artery,) for artery in ARTERIES}}
    return pd.concat([score_table(records, quantity, vessels) for quantity in (MASS, AGATSTON)])


def pair_table(
    pairs: Sequence[Pair], quantity: str = MASS, vessels: Mapping[str, Sequence[str]] = TOTALS
) -> pd.DataFrame:
    """Long table of pairs: the truth is the first scan's score, the value the second's; `visible` holds of both.

    Arguments as for `score_table`.
    """
    first, second = (score_table(scans, quantity, vessels) for scans in ([a for a, _ in pairs], [b for _, b in pairs]))
    key = ["patient", "method", "item"]
    table = first.merge(second, on=key, suffixes=("", "_second"), how="inner")
    table = table.assign(truth=table.value, value=table.value_second)
    return table.assign(visible=table.visible.eq(True) & table.visible_second.eq(True))
