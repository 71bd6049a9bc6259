"""Reading plan: the order in which each reader reads each scan, and which scans again, for intra-reader agreement."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import OutputError
from ..core.files import REVIEWS, write_text_atomically
from ..core.tables import read_table, table_text
from .cases import ReviewCase
from .journals import AGAIN, FIRST, PLAN

_KINDS = (FIRST, AGAIN)
_COLUMNS = ("reader", "position", "scan", "repetition", "blind", "not_before")

READINGS_BETWEEN = 10
"""Smallest number of other readings between the two of a scan, as far as there are scans that are read once."""


@dataclass(frozen=True)
class PlannedReading:
    """A reading of the plan.

    Attributes:
        reader: Name of the reader.
        scan: Folder of the scan's results.
        kind: FIRST for the first reading of a scan, AGAIN for its repetition.
        is_blind: True if names and automatic scores are hidden until all readings are reviewed.
        not_before: Date before which a repetition does not begin, ISO 8601; "" for any.
    """

    reader: str
    scan: str
    kind: str
    is_blind: bool = False
    not_before: str = ""


def plan_of(
    folder: Path,
    cases: Sequence[ReviewCase],
    readers: Sequence[str],
    repeated: float | None = None,
    seed: int = 0,
    blind: bool = False,
    washout: str = "",
) -> list[PlannedReading]:
    """Return the plan in a folder of results; make and write it if there is none and `repeated` is given.

    Args:
        folder: Folder of the results.
        cases: Scans to read.
        readers: Names of the readers.
        repeated: Proportion of scans that each reader reads again, 0 to 1; None to ask for no plan.
        seed: Seed of the order.
        blind: True to plan blind readings.
        washout: Date before which no repetition begins, ISO 8601; "" for any.

    Returns:
        Readings of all planned readers in their order; empty without a plan.

    Raises:
        OutputError: The plan is damaged, or not one of these readers and scans.
    """
    file = folder / PLAN
    if not file.exists():
        if repeated is None:
            return []
        if any(any((case.folder / REVIEWS).glob("*.jsonl")) for case in cases):
            message = f"Readings in {folder} were begun without a plan. Move the folders {REVIEWS} away to plan anew."
            raise OutputError(message)
        plan = _random_plan(sorted(case.folder.name for case in cases), readers, repeated, seed)
        dates = {FIRST: "", AGAIN: washout}
        plan = [replace(reading, is_blind=blind, not_before=dates[reading.kind]) for reading in plan]
        _write(file, plan)
        return plan
    plan = _read(file)
    scans = {case.folder.name for case in cases}
    for reader in readers:
        planned = {reading.scan for reading in plan if reading.reader == reader and reading.kind == FIRST}
        if planned != scans:
            fault = f"plans no scans for {reader}" if not planned else "is a plan of other scans"
            raise OutputError(f"{file} {fault}. Name its readers, or move it away to make a new plan.")
    return plan


def planned_readers(folder: Path) -> list[str]:
    """Return the readers of the plan in a folder of results; empty without a plan. Raises OutputError."""
    file = folder / PLAN
    return list(dict.fromkeys(reading.reader for reading in _read(file))) if file.exists() else []


def _random_plan(scans: list[str], readers: Sequence[str], repeated: float, seed: int) -> list[PlannedReading]:
    """Return a random plan. The same scans are repeated by all readers, after all first readings."""
    if not 0 <= repeated <= 1:
        raise OutputError(f"--repeat is {repeated:g}. Give the proportion of scans to read again, from 0 to 1.")
    again = random.Random(seed).sample(scans, round(repeated * len(scans)))
    plan = []
    for reader in readers:
        first, second = (random.Random(f"{seed} {reader} {kind}") for kind in _KINDS)
        order = first.sample(scans, len(scans))
        last = [scan for scan in order if scan not in again][-READINGS_BETWEEN:]
        order = [*(scan for scan in order if scan not in last), *last]
        plan += [PlannedReading(reader, scan, FIRST) for scan in order]
        plan += [PlannedReading(reader, scan, AGAIN) for scan in second.sample(again, len(again))]
    return plan


def _write(file: Path, plan: list[PlannedReading]) -> None:
    positions: dict[str, int] = {}
    rows = []
    for reading in plan:
        positions[reading.reader] = positions.get(reading.reader, 0) + 1
        repetition = 1 + _KINDS.index(reading.kind)
        how = repetition, int(reading.is_blind), reading.not_before
        rows.append((reading.reader, positions[reading.reader], reading.scan, *how))
    try:
        write_text_atomically(file, table_text(_COLUMNS, rows))
    except OSError as error:
        raise OutputError(f"{file} cannot be written ({error.strerror}). Check its folder's permissions.") from error


def _read(file: Path) -> list[PlannedReading]:
    plan = []
    for line in read_table(file, _COLUMNS).lines:
        if (repetition := line.text("repetition")) not in ("1", "2"):
            raise OutputError(f"{file}, line {line.number}: repetition is {repetition!r}, not 1 or 2. Correct it.")
        kind, is_blind = _KINDS[int(repetition) - 1], line.text("blind") == "1"
        plan.append(PlannedReading(line.text("reader"), line.text("scan"), kind, is_blind, line.text("not_before")))
    return plan
