"""Folders of radiographs: cases made by worker processes, their table, and the reasons of failures.

A folder holds its settings, a table with a row for each case, and for each case its views and a record of what they
were made from, so that a command that is run again continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import read_json, write_text_atomically
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.text import printable

from ..data.scan_table import RADIOGRAPH_TABLE
from .cases import CASES, SETTINGS

SCHEMA = "cac-radiographs/1"
FAILURES = "failures.csv"


@dataclass(frozen=True)
class CaseJob:
    """Case to make.

    Attributes:
        file: Unique name of its files.
        source: Argument of the function that makes it.
        columns: Cells of its row that are known before.
        made_from: JSON values that identify its sources; the case is made again if they change.
    """

    file: str
    source: Any
    columns: dict[str, Any]
    made_from: dict[str, Any]


Make = Callable[[Any, Path], dict[str, Any]]
"""Picklable function that writes a case of a source into a file, and returns further cells of its row."""


def open_folder(folder: Path, settings: dict[str, Any], more: Callable[[], dict[str, Any]] = dict) -> dict[str, Any]:
    """Return the record of a folder's settings, which is written into a new folder.

    more: function that returns what else a new record holds. Raises OutputError for a folder of other settings, or of
    something else.
    """
    path, content = folder / SETTINGS, json.loads(json.dumps({"schema": SCHEMA, **settings}))
    try:
        if path.exists():
            record = read_json(path)
        elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"{folder} is not empty and holds no radiographs. Choose another --output.")
        else:
            record = content | more()
            (folder / CASES).mkdir(parents=True, exist_ok=True)
            write_text_atomically(path, json.dumps(record, indent=1))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read or written ({error}). Choose another --output.") from error
    if not isinstance(record, dict) or record | content != record:
        raise OutputError(f"{folder} holds radiographs of other settings ({path}). Choose another --output.")
    return record


def write_cases(
    folder: Path,
    jobs: Iterable[CaseJob],
    make: Make,
    columns: Sequence[str],
    workers: int,
    counted: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, str]]:
    """Make the missing cases, and write the table and FAILURES; returns the table, and failures with reasons by name.

    Args:
        columns: Columns of the table; jobs and `make` give the cells, name, patient and a CT's path among them.
        workers: Number of processes.
        counted: Called with the numbers of finished and all cases.
    """
    jobs = list(jobs)
    events = run_jobs(partial(_start_worker, make, folder), jobs, workers, counted)
    rows, failures = [], []
    for job, event in zip(jobs, events, strict=True):
        result = event.reason if event.state == "lost" else event.result
        if isinstance(result, str):
            failures.append({**job.columns, "reason": result})
        else:
            rows.append({**job.columns, "file": f"{CASES}/{job.file}.npz", **result})
    parts = ((RADIOGRAPH_TABLE, columns, rows), (FAILURES, ("name", "ct", "reason"), failures))
    for name, titles, lines in parts:
        cells = ({title: printable(str(line.get(title, ""))) for title in titles} for line in lines)
        write_table(folder / name, list(titles), cells)
    return folder / RADIOGRAPH_TABLE, {failure["name"]: failure["reason"] for failure in failures}


def _start_worker(make: Make, folder: Path) -> Callable[[CaseJob], dict[str, Any] | str]:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the workers use all cores, one each
    return partial(_make_case, make, folder)


def _make_case(make: Make, folder: Path, job: CaseJob) -> dict[str, Any] | str:
    """Make a case if missing; returns further cells of its row, or the reason of a failure."""
    record = folder / CASES / f"{job.file}.json"
    case = record.with_suffix(".npz")
    try:
        if (cells := _recorded_cells(record, job)) is not None and case.exists():
            return cells
        record.unlink(missing_ok=True)
        cells = make(job.source, case)
        write_text_atomically(record, json.dumps({"made_from": job.made_from, "cells": cells}))
        return cells
    except CTError as error:
        return str(error)
    except OSError as error:
        return f"Reading or writing failed: {error.strerror} ({error.filename})."
    except MemoryError:
        return "Memory ran out. Try it with fewer --workers."


def _recorded_cells(record: Path, job: CaseJob) -> dict[str, Any] | None:
    """Return the recorded cells of a case; None if there are none, or its sources changed."""
    try:
        content = read_json(record)
        return content["cells"] if content["made_from"] == job.made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
