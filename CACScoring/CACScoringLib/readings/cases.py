"""Find the scans to review, with their CTs: one folder of results, or those of a cohort."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cohort import folder as cohort
from ..cohort import table
from ..core.acquisition import Acquisition
from ..core.ct import CTScan
from ..core.errors import CTError, OutputError, SeriesChoiceError
from ..core.files import LAST_FILE
from ..core.progress import ScanState
from ..core.tables import Line, read_table
from ..io.reading import read_ct
from ..io.series import find_series
from ..record.score_record import read_result
from ..report.attention import SEPARATOR
from ..results import METHOD_TITLES
from ..scans.source import ScanSource


@dataclass(frozen=True, kw_only=True)
class ReviewCase(ScanSource):
    """Scan to review. Its series is None if it was not given.

    Attributes:
        id: Identifier of the scan in the page's requests.
        folder: Folder of the results.
        status: Status of the clinical score before the review.
        agatston: Agatston score before the review; None if unknown.
        category_probability: Probability of the likeliest category; None if unknown.
        interval: Prediction interval before the review; None if unknown.
        has_category: True if the score has a category; candidates and scans out of distribution have none.
        patient_digest: Digest of the patient (`Acquisition.patient_digest`); empty if unknown.
        digest: Identifier of the scan in a cohort (`scans.source.scan_digest`).
        warnings: Codes of the warnings.
        severe: Codes of those that are severe in this result.
        reasons: Reasons to check the score (`Attention.reasons`).
        withheld: True if interval and category are withheld.
        is_undecided: True if a doubtful lesion decides the score.
    """

    id: str
    folder: Path
    status: str = ""
    agatston: float | None = None
    category_probability: float | None = None
    interval: tuple[float, float] | None = None
    has_category: bool = False
    patient_digest: str = ""
    digest: str = ""
    warnings: tuple[str, ...] = ()
    severe: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    withheld: bool = False
    is_undecided: bool = False

    def scan(self) -> CTScan:
        """Read the CT that was scored. Raises CTError."""
        if self.series is not None:
            return read_ct(self.ct, self.series)
        try:
            scan = read_ct(self.ct)
        except SeriesChoiceError:
            if (series := self._scored_series()) is None:
                raise
            return read_ct(self.ct, series)
        is_chosen = any(warning.code == "series-chosen" for warning in scan.warnings)
        series = self._scored_series() if is_chosen else None
        return scan if series is None else read_ct(self.ct, series)

    def _scored_series(self) -> str | None:
        """Return the UID of the series that was scored, if it is one of the folder's."""
        recorded = read_result(self.folder).input.series_sha256
        uids = find_series(self.ct)[0]
        return next((uid for uid in uids if Acquisition("DICOM", series_uid=uid).series_sha256 == recorded), None)


def cases_in(results: Path, ct: Path | None = None, series: str | None = None) -> list[ReviewCase]:
    """Return the scans of a folder of results, or of a cohort.

    Args:
        results: Folder written by `cac score` or `cac cohort`.
        ct: CT of a folder of results, which does not hold it.
        series: Series of the CT.

    Raises:
        OutputError: There are no results, or the CT is not given.
        CTError: The results cannot be read.
    """
    if (results / cohort.RECORD).is_file():
        return _cohort_cases(results, ct)
    if not (results / LAST_FILE).is_file():
        raise OutputError(f"{results} holds no results. Give a folder that cac score or cac cohort has written.")
    if ct is None:
        raise OutputError("The results do not hold the CT. Give it with --ct.")
    row = table.result_row(read_result(results))
    return [replace(_case(results.resolve(), ct.resolve(), results.resolve().name, row), series=series)]


def _cohort_cases(root: Path, ct: Path | None) -> list[ReviewCase]:
    if ct is not None:
        raise OutputError("The table of a cohort names its scans; leave out --ct.")
    lines = read_table(root / cohort.TABLE, ("name", "folder", "ct", "state")).lines
    digests = cohort.scan_digests(root / cohort.RECORD)
    cases = []
    for line in lines:
        name = line.text("folder")
        # Folders must be in the cohort's record, because its table may have been edited.
        if line.text("state") == "done" and name in digests and Path(name).name == name:
            folder, is_reviewed = (root / name).resolve(), bool(line.text("threshold_automatic_status"))
            row = table.result_row(read_result(folder)) if is_reviewed else _row(line)
            case = _case(folder, _find_ct(Path(line.text("ct")), root), line.text("name"), row)
            case = replace(case, group=line.text("scan_group"), patient=line.text("patient"))
            cases.append(replace(case, digest=digests[name]))
    if not cases:
        raise OutputError(f"The cohort {root} has no scan that was scored. Run its cac cohort again.")
    return cases


def refused_scans(results: Path) -> list[tuple[str, str]]:
    """Return name and reason of a cohort's scans that could not be scored; [] for another folder. Raises CTError."""
    if not (results / cohort.RECORD).is_file():
        return []
    lines = read_table(results / cohort.TABLE, ("name", "state", "reason")).lines
    return [(line.text("name"), line.text("reason")) for line in lines if line.text("state") == "failed"]


def listed_scans(root: Path) -> list[ScanState]:
    """Return the scans of a cohort as its table lists them, failed ones included.

    Those whose results are complete are "skipped". Raises CTError.
    """
    digests = cohort.scan_digests(root / cohort.RECORD)
    states: list[ScanState] = []
    for line in read_table(root / cohort.TABLE, ("name", "folder", "ct", "state")).lines:
        name, ct = line.text("folder"), _find_ct(Path(line.text("ct")), root)
        # Folders must be in the cohort's record, because its table may have been edited.
        if name in digests and Path(name).name == name and (root / name / LAST_FILE).is_file():
            totals = {method: line.number_in(f"{method}_agatston") for method in METHOD_TITLES}
            state = ScanState(
                len(states),
                line.text("name"),
                root / name,
                ct,
                state="skipped",
                status={method: line.text(f"{method}_status") for method in totals},
                agatston={method: total for method, total in totals.items() if total is not None},
                warnings=tuple(line.text("warnings").split()),
            )
        else:
            reason = line.text("reason") or "The results are not there any more. Score the scans again."
            code = line.text("code")
            state = ScanState(len(states), line.text("name"), root, ct, state="failed", reason=reason, code=code)
        states.append(state)
    return states


def _find_ct(ct: Path, root: Path) -> Path:
    """Resolve a CT's path, which may be relative to the working folder of the cohort, often that of the results."""
    places = [place / ct for place in (Path(), root.resolve().parent, root)]
    return next((place for place in places if place.exists()), ct).resolve()


def _row(line: Line) -> dict[str, Any]:
    names = ("patient", "patient_digest", "scan_group", "warnings", "threshold_status", "threshold_cac_drs")
    numbers = ("agatston", "interval_low", "interval_high", "category_probability", "alternative_agatston")
    row: dict[str, Any] = {name: line.text(name) for name in (*names, "severe_warnings", "look_first")}
    row |= {name: line.number_in(name) for name in (f"threshold_{number}" for number in numbers)}
    return row | {"threshold_withheld": line.text("threshold_withheld") == "True"}


def _case(folder: Path, ct: Path, name: str, row: Mapping[str, Any]) -> ReviewCase:
    low, high = row.get("threshold_interval_low"), row.get("threshold_interval_high")
    return ReviewCase(
        id=hashlib.sha256(folder.name.encode()).hexdigest()[:16],
        name=name,
        folder=folder,
        ct=ct,
        patient=row.get("patient") or "",
        patient_digest=row.get("patient_digest") or "",
        group=row.get("scan_group") or "",
        status=row["threshold_status"],
        agatston=row["threshold_agatston"],
        category_probability=row.get("threshold_category_probability"),
        has_category=bool(row.get("threshold_cac_drs")),
        interval=None if low is None or high is None else (low, high),
        warnings=tuple(row["warnings"].split()),
        severe=tuple(row["severe_warnings"].split()),
        reasons=tuple(filter(None, row["look_first"].split(SEPARATOR))),
        withheld=row["threshold_withheld"],
        is_undecided=row["threshold_alternative_agatston"] is not None,
    )


def check_present(cases: list[ReviewCase]) -> None:
    """Raise CTError if all CTs are missing."""
    missing = [case for case in cases if not case.ct.exists()]
    if len(missing) == len(cases):
        raise CTError(f"The CT of {missing[0].name} is not at {missing[0].ct}, nor is any other. Move the scans back.")
