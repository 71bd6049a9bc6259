"""Measure the agreement of readings: κ of categories and of lesions' sites, intraclass correlation, Dice.

`write_tables` writes every reading with its lesions, and the agreement of pairs, for a statistician.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..core.categories import CATEGORIES, category_numbers, category_of
from ..core.errors import OutputError
from ..core.files import OutputFolder
from ..core.labels import NOT_CORONARY, Artery, Labelled
from ..core.tables import table_text
from ..record.columns import AGREEMENT_CSV, READ_LESION, READ_LESIONS_CSV, READINGS_CSV
from ..record.provenance import provenance_of
from ..record.score_record import read_result
from ..review.journal import CHANGES
from ..scoring.parts import connected_voxels
from ..statistics.agreement import agreement_interval, icc_of_pairs, kappa
from ..statistics.bootstrap import LEVEL, MIN_PATIENTS, Estimate, patient_estimate, patient_mean
from . import journals
from .cases import ReviewCase
from .work_list import WorkList

READINGS, LESIONS, AGREEMENT = "readings.csv", "reading_lesions.csv", "agreement.csv"

KINDS = {journals.FIRST: "1", journals.AGAIN: "2"}
"""Column "repetition" by the kind of a reader's own reading."""

Row = dict[str, Any]

LesionCells = tuple[int, int, int, int, int, str]
"""Cells of READ_LESION: number, voxels, first voxel, and site: key of a site, "rejected", or "none"."""

MIN_SCANS = 2
"""Smallest number of scans reviewed in both readings for κ and correlation."""


@dataclass(frozen=True)
class ReadingAgreement:
    """Agreement of two readings over the scans that both have reviewed.

    Attributes:
        readers: Names, "again" after that of a repetition.
        scans: Number of scans.
        patients: Number of their patients; of fewer than MIN_PATIENTS κ has no interval, and those of Dice and
            correlation are exact, else by the bootstrap.
        measures: κ of the four categories with linear weights, intraclass correlation of the total, mean Dice of voxels
            assigned to an artery, κ of the lesions' sites; None of too few scans.
    """

    readers: tuple[str, str]
    scans: int
    patients: int
    measures: dict[str, Estimate | None]

    def as_json(self) -> dict[str, Any]:
        """Return the agreement as the page takes it."""
        values = {name: value and value.as_json() for name, value in self.measures.items()}
        return {"readers": list(self.readers), "scans": self.scans, **values}


def agreement_of_pairs(work: WorkList) -> list[ReadingAgreement]:
    """Return the agreement of every two readers, and of each reader with planned repetitions. Raises CTError."""
    pairs = [[(reader, journals.FIRST) for reader in pair] for pair in combinations(work.readers, 2)]
    repeating = [r for r in work.readers if any(kind == journals.AGAIN for _, kind in work.plan[r])]
    return [_agreement(work, pair) for pair in (*pairs, *([(r, kind) for kind in KINDS] for r in repeating))]


def _agreement(work: WorkList, pair: list[tuple[str, str]]) -> ReadingAgreement:
    names = [f"{reader} again" if kind == journals.AGAIN else reader for reader, kind in pair]
    readings = [work.reading_of(*part) for part in pair]
    cases, totals = [], []
    for case in work.cases.values():
        progress = [work.progress(case, reading) for reading in readings]
        if all(reading.state == "reviewed" for reading in progress):
            cases.append(case)
            totals.append([reading.agatston for reading in progress])
    measures = _total_statistics(cases, np.array(totals).reshape(-1, 2))
    measures |= {"dice": _dice(cases, readings), "lesion_kappa": _lesion_kappa(cases, readings)}
    return ReadingAgreement((names[0], names[1]), len(cases), len({*map(_patient, cases)}), measures)


def _dice(cases: list[ReviewCase], readings: list[str]) -> Estimate:
    values = []
    for case in cases:
        first, second = (_coronary(case, reading, journals.stamp_of(case, reading)) for reading in readings)
        if count := len(first) + len(second):
            common = len(np.intersect1d(first, second, assume_unique=True))
            values.append((_patient(case), 2 * common / count))
    return _with_interval(patient_mean(values), len({patient for patient, _ in values}))


def _with_interval(estimate: Estimate, count: int) -> Estimate:
    """Add the interval of a mean of values from 0 to 1 where there are too few patients for a bootstrap.

    It has the bounds of a proportion of patients (Clopper and Pearson 1934), which no values between 0 and 1 of the
    same mean exceed in spread. count: Number of patients.
    """
    if count >= MIN_PATIENTS or not math.isfinite(estimate.value):
        return estimate
    share, tail = count * estimate.value, (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, share, count - share + 1) if share else 0.0
    high = stats.beta.ppf(1 - tail, share + 1, count - share) if share < count else 1.0
    return replace(estimate, low=float(low), high=float(high))


@lru_cache(maxsize=10_000)
def _coronary(case: ReviewCase, reading: str, _stamp: tuple[Any, ...]) -> np.ndarray:
    """Return the flat indices of voxels assigned to an artery, in rising order."""
    labelled = journals.labels_of_reading(case, reading)["threshold"]
    return labelled.flat[labelled.values < Artery.UNASSIGNED]


def _total_statistics(cases: list[ReviewCase], pairs: np.ndarray) -> dict[str, Estimate | None]:
    if len(pairs) < MIN_SCANS:
        return {"kappa": None, "icc": None}
    first, second = category_numbers(pairs.T)
    patients = [_patient(case) for case in cases]
    statistics = {
        "kappa": lambda weights: kappa(weights, first, second, len(CATEGORIES)),
        "icc": lambda weights: icc_of_pairs(weights, pairs),
    }
    estimates = {name: patient_estimate(statistic, patients) for name, statistic in statistics.items()}
    if len(set(patients)) < MIN_PATIENTS:
        low, high = agreement_interval(pairs)
        estimates["icc"] = replace(estimates["icc"], low=low, high=high)
    return dict(estimates)


def _lesion_kappa(cases: list[ReviewCase], readings: list[str]) -> Estimate | None:
    lesions = [(case, lesion) for case in cases for lesion in lesions_of(case.folder, _labels(case, readings))]
    if len(cases) < MIN_SCANS or not lesions:
        return None
    sites = np.array([[site for *_, site in lesion] for _, lesion in lesions])
    names, codes = np.unique(sites, return_inverse=True)
    first, second = codes.reshape(sites.shape).T
    patients = [_patient(case) for case, _ in lesions]
    return patient_estimate(lambda weights: kappa(weights, first, second, len(names), power=0), patients)


def _labels(case: ReviewCase, readings: Iterable[str]) -> list[Labelled]:
    return [journals.labels_of_reading(case, reading)["threshold"] for reading in readings]


def lesions_of(folder: Path, labels: Sequence[Labelled]) -> Iterator[list[LesionCells]]:
    """Iterate over the lesions of a result that at least one of its readings counts, each with a row by reading.

    A lesion is connected voxels that each reading gives one label. Raises CTError.
    """
    flat, values = journals.stack_labels(labels)
    if not flat.size:
        return
    shape = read_result(folder).input.size[::-1]
    part = connected_voxels(flat, np.unique(values, axis=1, return_inverse=True)[1].reshape(-1), shape)
    number = 0
    for first, size in zip(np.unique(part, return_index=True)[1], np.bincount(part), strict=True):
        sites = values[:, first]
        if ((sites > 0) & (sites != NOT_CORONARY) & (sites != Artery.UNASSIGNED)).any():
            number += 1
            k, j, i = (int(index) for index in np.unravel_index(flat[first], shape))
            yield [(number, int(size), k, j, i, journals.site_name(int(site))) for site in sites]


def _patient(case: ReviewCase) -> str:
    return case.patient or case.patient_digest or case.id


def write_tables(folder: Path, work: WorkList) -> None:
    """Write READINGS, LESIONS and AGREEMENT into a new folder.

    READINGS has a row per reviewed reading with its total; LESIONS a row for each of them per lesion that any reading
    of the scan counts. repetition is 1, 2, or "consensus". Raises OutputError, CTError.
    """
    if not work.is_closed:
        message = "Not all planned readings are reviewed. Tables show results and agreement; write them when they are."
        raise OutputError(message)
    present = provenance_of()
    cells = present.stated(identify=False).cells(None)
    provenance = {name: value for name, value in cells.items() if value}
    readings, lesions = [], []
    for case in work.cases.values():
        of_case, of_lesions = _readings(work, case)
        readings += of_case
        lesions += of_lesions
    pairs = [row for pair in agreement_of_pairs(work) for row in _measures(pair)]
    with OutputFolder(folder).being_written() as target:
        for name, columns, lines in (
            (READINGS, READINGS_CSV, readings),
            (LESIONS, READ_LESIONS_CSV, lesions),
            (AGREEMENT, AGREEMENT_CSV, pairs),
        ):
            table = table_text((*columns, *provenance), [line | provenance for line in lines], guarded=True)
            (target / name).write_text(table, encoding="utf-8")


def _readings(work: WorkList, case: ReviewCase) -> tuple[list[Row], list[Row]]:
    """Return the rows of a scan in READINGS and LESIONS."""
    kinds = [(reader, kind) for reader in work.readers for kind in (journals.FIRST, journals.AGAIN)] + [
        ("", journals.CONSENSUS)
    ]
    readings = [(reader, kind, work.reading_of(reader, kind)) for reader, kind in kinds]
    readings = [reading for reading in readings if work.progress(case, reading[2]).state == "reviewed"]
    pseudonym, heads, rows = read_result(case.folder).acquisition.pseudonym, [], []
    for reader, kind, reading in readings:
        progress, journal = work.progress(case, reading), journals.journal_of(case, reading)
        last, entries = journal.entries[-1], [entry for entry in journal.entries if entry.kind in CHANGES]
        head = {"scan": case.folder.name, "patient": case.patient, "reader": reader or last.reader}
        head |= {
            "repetition": {journals.FIRST: "1", journals.AGAIN: "2"}.get(kind, kind),
            "time": entries[-1].time,
        } | pseudonym
        category = category_of(last.agatston).replace("-", "–")
        total = {"seconds": progress.seconds, "changes": progress.changes, "agatston": progress.agatston}
        rows.append({**head, **total, "category": category, **(journal.mark.cells if journal.mark else {})})
        heads.append(head)
    lesions = [
        head | dict(zip(READ_LESION, cells, strict=True))
        for lesion in lesions_of(case.folder, _labels(case, (reading for _, _, reading in readings)))
        for head, cells in zip(heads, lesion, strict=True)
    ]
    return rows, lesions


def _measures(pair: ReadingAgreement) -> Iterator[Row]:
    for name, value in pair.measures.items():
        row: Row = {"first": pair.readers[0], "second": pair.readers[1], "measure": name, "scans": pair.scans}
        if value is not None:
            row |= {**value.as_json(), "n": value.n}
            exact = "F distribution" if name == "icc" else "binomial, patients"
            has_interval = math.isfinite(value.low)
            row["interval"] = (exact, "bootstrap, patients")[pair.patients >= MIN_PATIENTS] if has_interval else ""
        yield row
