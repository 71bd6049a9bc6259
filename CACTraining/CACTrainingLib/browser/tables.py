"""Tables of readings for a statistician: every reading with its lesions, and the agreement of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.tables import table_text
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import AGAIN, CONSENSUS, FIRST, journal_of
from CACScoringLib.readings.work_list import WorkList
from CACScoringLib.record.provenance import provenance_of
from CACScoringLib.review.journal import CHANGES
from CACScoringLib.scoring.uncertainty import CATEGORIES

from ..statistics.patient_folds import category_of
from .agreement import PairAgreement, agreement_of_pairs, lesions_of

READINGS, AGREEMENT = "readings.csv", "agreement.csv"

_READING = ("scan", "patient", "reader", "repetition", "time", "seconds", "changes", "agatston", "category")
_LESION = ("lesion", "voxels", "slice", "row", "column", "site")

Row = dict[str, Any]


def write_tables(folder: Path, work: WorkList) -> None:
    """Write READINGS and AGREEMENT into a new folder.

    READINGS has a row per reviewed reading with its total, then a row per lesion that any reading of the scan counts;
    repetition is 1, 2, or "consensus". Raises OutputError, CTError.
    """
    present = provenance_of()
    cells = present.stated(identify=False).cells(None)
    provenance = {name: value for name, value in cells.items() if value}
    rows = [row for case in work.cases.values() for row in _readings(work, case)]
    pairs = [row for pair in agreement_of_pairs(work) for row in _measures(pair)]
    measures = ("first", "second", "measure", "estimate", "low", "high", "n", "scans")
    with OutputFolder(folder).being_written() as target:
        for name, columns, lines in ((READINGS, (*_READING, *_LESION), rows), (AGREEMENT, measures, pairs)):
            table = table_text((*columns, *provenance), [line | provenance for line in lines], guarded=True)
            (target / name).write_text(table, encoding="utf-8")


def _readings(work: WorkList, case: ReviewCase) -> Iterator[Row]:
    kinds = [(reader, kind) for reader in work.readers for kind in (FIRST, AGAIN)] + [("", CONSENSUS)]
    readings = [(reader, kind, work.reading_of(reader, kind)) for reader, kind in kinds]
    readings = [reading for reading in readings if work.progress(case, reading[2]).state == "reviewed"]
    heads: list[Row] = []
    for reader, kind, reading in readings:
        progress, last = work.progress(case, reading), journal_of(case, reading).entries[-1]
        entries = [entry for entry in journal_of(case, reading).entries if entry.kind in CHANGES]
        head = {"scan": case.folder.name, "patient": case.patient, "reader": reader or last.reader}
        head |= {"repetition": {FIRST: "1", AGAIN: "2"}.get(kind, kind), "time": entries[-1].time}
        category = CATEGORIES[int(category_of(np.array([progress.agatston]))[0])].replace("-", "–")
        total = {"seconds": progress.seconds, "changes": progress.changes, "agatston": progress.agatston}
        yield head | total | {"category": category}
        heads.append(head)
    for lesion in lesions_of(case, [reading for _, _, reading in readings]):
        k, j, i = lesion.place
        for head, site in zip(heads, lesion.sites, strict=True):
            place = {"lesion": lesion.number, "voxels": lesion.voxels, "slice": k, "row": j, "column": i}
            yield head | place | {"site": site}


def _measures(pair: PairAgreement) -> Iterator[Row]:
    for name, value in pair.measures.items():
        row = {"first": pair.readers[0], "second": pair.readers[1], "measure": name, "scans": pair.scans}
        if value is not None:
            row |= value.as_json() | {"n": value.n}
        yield row
