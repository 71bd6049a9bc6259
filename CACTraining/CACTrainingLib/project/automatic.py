"""Find the automatic scores of a project's scans, as `cac cohort PROJECT/scans.csv --output PROJECT/results` writes."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.scans.table import scans_of_table

from .files import SCANS_FILE

RESULTS = "results"
"""Subfolder of a project with the results of a cohort of its scans."""


def automatic_results(project: Path) -> dict[tuple[Path, str | None], Path]:
    """Return the folder of each scored scan's results by CT and series; empty without results.

    Raises UnreadableError if the record of the results is damaged.
    """
    record = project / RESULTS / cohort.RECORD
    if not record.is_file():
        return {}
    folders = {digest: record.parent / name for name, digest in cohort.scan_digests(record).items()}
    results = {}
    for scan in scans_of_table(project / SCANS_FILE)[0]:
        folder = folders.get(scan.label)
        if folder is not None and (folder / LAST_FILE).is_file():
            results[scan.ct.resolve(), scan.series] = folder
    return results
