"""Find the scans to review of a training project, or of a folder of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.core.files import OutputError
from CACScoringLib.readings.cases import ReviewCase, cases_in
from CACScoringLib.scans.table import scans_of_table

from ..project.automatic import RESULTS
from ..project.files import SCANS_FILE
from ..project.project import is_project


def cases_of(results: Path, ct: Path | None, series: str | None = None) -> list[ReviewCase]:
    """Return the scans of a training project scored by a cohort; else those of `cases_in`, as its errors are."""
    return _project_cases(results, ct) if is_project(results) else cases_in(results, ct, series)


def results_of(folder: Path) -> Path:
    """Return the folder of results: a subfolder of a project, else the folder itself."""
    return folder / RESULTS if is_project(folder) else folder


def _project_cases(folder: Path, ct: Path | None) -> list[ReviewCase]:
    root = results_of(folder)
    scans = folder / SCANS_FILE
    if not (root / cohort.RECORD).is_file():
        raise OutputError(f"The scans of the project are not scored. First: cac cohort {scans} --output {root}")
    by_digest = {case.digest: case for case in cases_in(root, ct)}
    cases = []
    for scan in scans_of_table(scans)[0]:
        if (case := by_digest.get(scan.label)) is not None:
            cases.append(replace(case, ct=scan.ct.resolve(), series=scan.series, patient=scan.patient))
    if not cases:
        raise OutputError(f"No scan of the project is scored as it is. Again: cac cohort {scans} --output {root}")
    return cases
