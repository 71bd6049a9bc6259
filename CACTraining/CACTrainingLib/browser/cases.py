"""The scans that are reviewed: a folder of results, or those of a cohort, each with the CT that was scored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.cohort import table
from CACScoringLib.core.ct import CTError, CTScan, SeriesChoiceError, UnreadableError
from CACScoringLib.core.output import LAST_FILE, OutputError
from CACScoringLib.core.tables import Line, read_table
from CACScoringLib.io.reading import read_ct
from CACScoringLib.scoring.comparison import read_result


@dataclass(frozen=True)
class Case:
    """A scan to be reviewed.

    id: by which the page names it. name: for people. folder: of the results. ct: image file or DICOM folder. status,
    agatston, category, certainty, interval: of the clinical score before the review; category_probability: of the
    likeliest category; None where unknown. warnings: codes.
    """

    id: str
    name: str
    folder: Path
    ct: Path
    patient: str = ""
    group: str = ""
    status: str = ""
    agatston: float | None = None
    category_probability: float | None = None
    interval: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    def result_sha256(self) -> str:
        """Of the `scores.json` that a review begins with. Raises UnreadableError."""
        try:
            return hashlib.sha256((self.folder / LAST_FILE).read_bytes()).hexdigest()
        except OSError as error:
            message = f"The result of {self.name} cannot be read ({error.strerror}). Score the scan again."
            raise UnreadableError(message) from error

    def scan(self) -> CTScan:
        """The CT that was scored. Raises CTError."""
        try:
            return read_ct(self.ct)
        except SeriesChoiceError:
            # Of several series the one that the run has recorded.
            series = read_result(self.folder)["acquisition"].get("series_number")
            if series is None:
                raise
            return read_ct(self.ct, str(series))


def cases_of(results: Path, ct: Path | None) -> list[Case]:
    """The scans of a folder of results, or of a cohort.

    results: a folder that `cac score` or `cac cohort` wrote. ct: the scan, of a folder of results, which does not hold
    it. Raises OutputError when there is none, or the scan is missing; CTErrors when the results cannot be read.
    """
    if (results / cohort.RECORD).is_file():
        if ct is not None:
            raise OutputError("The table of a cohort names its scans; leave out --ct.")
        return _of_cohort(results)
    if not (results / LAST_FILE).is_file():
        raise OutputError(f"{results} holds no results. Give a folder that cac score or cac cohort has written.")
    if ct is None:
        raise OutputError("The results do not hold the CT. Give it with --ct.")
    row = table.result_row(read_result(results))
    return [_case(results.resolve(), ct.resolve(), results.resolve().name, row)]


def _of_cohort(root: Path) -> list[Case]:
    lines = read_table(root / cohort.TABLE, ("name", "folder", "ct", "state")).lines
    known = json.loads((root / cohort.RECORD).read_text(encoding="utf-8"))["scans"]
    cases = []
    for line in lines:
        name = line.text("folder")
        # Names of folders come from the cohort's own record, not from a table that anybody may have edited.
        if line.text("state") == "done" and name in known and Path(name).name == name:
            ct = _present(Path(line.text("ct")), root)
            cases.append(_case((root / name).resolve(), ct, line.text("name"), _row(line)))
    if not cases:
        raise OutputError(f"The cohort {root} has no scan that was scored.")
    return cases


def _present(ct: Path, root: Path) -> Path:
    """Where a CT is whose path may begin at the folder in which the cohort was scored: often that of the results."""
    places = [place / ct for place in (Path(), root.resolve().parent, root)]
    return next((place for place in places if place.exists()), ct).resolve()


def _row(line: Line) -> dict:
    names = ("patient", "group", "warnings", "threshold_status")
    numbers = ("threshold_agatston", "threshold_interval_low", "threshold_interval_high")
    row: dict = {name: line.text(name) for name in names}
    row |= {name: line.number_in(name) for name in (*numbers, "threshold_category_probability")}
    return row


def _case(folder: Path, ct: Path, name: str, row: dict) -> Case:
    low, high = row.get("threshold_interval_low"), row.get("threshold_interval_high")
    return Case(
        id=hashlib.sha256(folder.name.encode()).hexdigest()[:16],
        name=name,
        folder=folder,
        ct=ct,
        patient=row.get("patient") or "",
        group=row.get("group") or "",
        status=row["threshold_status"],
        agatston=row["threshold_agatston"],
        category_probability=row.get("threshold_category_probability"),
        interval=None if low is None or high is None else (low, high),
        warnings=tuple(row["warnings"].split()),
    )


def check_present(cases: list[Case]) -> None:
    """Raises CTError when no CT is where the results say."""
    missing = [case for case in cases if not case.ct.exists()]
    if len(missing) == len(cases):
        raise CTError(f"The CT of {missing[0].name} is not at {missing[0].ct}, nor is any other. Move the scans back.")
