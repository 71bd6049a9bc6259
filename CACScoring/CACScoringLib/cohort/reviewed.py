"""Reviewed results of a cohort's scans: a scan's review counts in its row of `cohort.csv`, however it was made.

A review lies in a subfolder of the scan's folder of results: the page of `cac review` exports into it; those of the
panel, and scores of labels (`cac score --lesions --reader`), count if they were written there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..core.errors import OutputError, TableError, UnreadableError
from ..core.files import LAST_FILE, write_text_atomically
from ..core.tables import read_table, table_text
from ..record.score_record import ScoreRecord, read_result
from .folder import RECORD, TABLE, scan_digests
from .scoring import whole_scores
from .table import AUTOMATIC, SCAN, automatic_cells, result_row

_OWN_READING = re.compile(r"(reader|repeat)_")
"""Beginning of the journals of readers who each read alone; of these only a consensus counts."""


def reviewed_result(folder: Path, run: ScoreRecord) -> ScoreRecord | None:
    """Return the reviewed result of a scan: a consensus, else the one confirmed last; None without one.

    Reviews of another scan, as of one that has since been replaced, do not count.

    Args:
        folder: Folder of the scan's result.
        run: Record of the result.
    """
    reviews = [record for record in _results_within(folder) if _counts(record, run)]
    return max(reviews, key=_rank, default=None)


def _results_within(folder: Path) -> Iterator[ScoreRecord]:
    for file in sorted(folder.glob(f"*/{LAST_FILE}")):
        with suppress(UnreadableError):
            yield read_result(file.parent)


def _counts(record: ScoreRecord, run: ScoreRecord) -> bool:
    review = record.review
    if review is None or review.confirmation is None or not record.methods["threshold"].reviewed:
        return False
    journal = review.journal
    is_own_reading = journal is not None and not review.readings and bool(_OWN_READING.match(journal.file))
    return not is_own_reading and record.input.voxels_sha256 == run.input.voxels_sha256


def _rank(record: ScoreRecord) -> tuple[bool, str]:
    review = record.review
    assert review is not None
    assert review.confirmation is not None
    return bool(review.readings), review.confirmation.time


def scan_row(folder: Path, run: ScoreRecord) -> tuple[ScoreRecord, dict[str, object]]:
    """Return the record that counts for a scan, and its row: reviewed once there is a review. Arguments as above."""
    reviewed = reviewed_result(folder, run)
    return (run, result_row(run)) if reviewed is None else (reviewed, result_row(reviewed) | automatic_cells(run))


def is_cohort(folder: Path) -> bool:
    """Return True for a folder of `cac cohort`."""
    return (folder / RECORD).is_file()


def count_reviews(cohort: Path) -> None:
    """Bring the rows of reviewed scans in a cohort's table up to date.

    Raises:
        OutputError: The table is missing or damaged, or cannot be written.
    """
    file = cohort / TABLE
    try:
        table, digests = read_table(file, ("folder", "state")), scan_digests(cohort / RECORD)
    except (TableError, UnreadableError) as error:
        raise OutputError(f"{file} is missing or damaged. Run the cac cohort that wrote it again.") from error
    names = [*table.columns, *(name for name in AUTOMATIC if name not in table)]
    before = [{name: line.text(name) for name in names} for line in table.lines]
    rows = [cells | _changes(cohort, cells, digests, names) for cells in before]
    if rows == before:
        return
    try:
        write_text_atomically(file, f"\ufeff{table_text(names, rows)}")
    except OSError as error:
        raise OutputError(f"Cannot write {file}: {error.strerror}. Close it in other programs.") from error


def _changes(cohort: Path, cells: Mapping[str, str], scans: Container[str], names: Sequence[str]) -> dict[str, str]:
    """Return the cells of a scan's row that follow from its result, if a review was made or withdrawn."""
    name = cells["folder"]
    # Folders must be in the cohort's record, because its table may have been edited.
    if cells["state"] != "done" or name not in scans:
        return {}
    folder, was_reviewed = cohort / name, any(cells[column] for column in AUTOMATIC)
    if not was_reviewed and not any(folder.glob(f"*/{LAST_FILE}")):
        return {}
    run = whole_scores(folder)
    if run is None:
        return {}
    row = dict.fromkeys(names) | scan_row(folder, run)[1]
    changed = [column for column in names if column in row and column not in SCAN]
    lines = table_text(changed, [row], guarded=True).splitlines(keepends=True)
    return dict(zip(changed, list(csv.reader(lines))[1], strict=True))
