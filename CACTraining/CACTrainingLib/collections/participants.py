"""Scans of listed participants of NLST or of listed series: one series each, a manifest, and a download that resumes.

A participant's series is chosen as DeepCAC chose its scans (AIM-Harvard/DeepCAC, stats/README.md): the baseline scan,
the spacing nearest to 2.5 mm, then the softest kernel. The index states slice thickness instead of spacing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from CACScoringLib.core.errors import CTError, TableError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import Table, read_table

from ..references.collection import Collection
from ..references.manifest import ManifestRow, write_manifest
from . import commons
from .commons import RemoteSeries, waiting_series

PATIENT_COLUMNS = ("PID", "patient", "patient_id", "PatientID")
SERIES_COLUMNS = ("series", "selected_series_uid", "series_uid", "SeriesInstanceUID")
"""Columns of a table that name participants, or series, the first that it has."""

BASELINE = "0"
"""Study year of the first scan in descriptions of NLST."""

WANTED_MM, MAX_THIN_MM, MAX_OVERLAPPING_MM = 2.5, 2.5, 3.2
"""Spacing that DeepCAC's networks were trained on, its largest, and the thickness of slices that overlap.

Series of 3.2 mm (Philips MX8000) have as many images as those of 2 mm, so their spacing is smaller than their
thickness; DeepCAC's table has participants whose baseline series all have it.
"""

KERNELS = (
    *("B31f", "B30f", "B20f", "C", "FC10", "FC11", "FC02", "STANDARD", "BODY", "B50f", "B60f", "B70f", "B80f", "D"),
    *("FC51", "FC53", "BONE", "LUNG"),
)
"""DeepCAC's order of kernels from soft to hard."""

NOT_A_SERIES = "The index has no CT series of this UID."

GIGABYTE_MB = 1000.0
"""Size of a download above which it is asked for."""


@dataclass(frozen=True)
class Choice:
    """The series of a participant.

    Attributes:
        patient: Patient ID.
        series: Chosen series; None if there is none.
        reason: Reason for the series, or why there is none.
    """

    patient: str
    series: RemoteSeries | None
    reason: str

    def row(self, failed: Mapping[str, str]) -> ManifestRow:
        """Return the line of the manifest. failed: Reasons of failed downloads by UID."""
        series = self.series
        if series is None:
            return ManifestRow(self.patient, problem=self.reason)
        kernel, thickness_mm = series.reconstruction or ("", "")
        size = (kernel, str(thickness_mm), str(series.images), f"{series.size_mb:.1f}", series.licence)
        place = series.folder.as_posix()
        return ManifestRow(series.patient, series.uid, *size, place, self.reason, failed.get(series.uid, ""))


def choose(table: Table, series: Sequence[RemoteSeries]) -> list[Choice]:
    """Choose the series of each line of a table, in its order. Raises TableError for a table of another layout."""
    series_column, patient_column = (
        next((column for column in columns if column in table), "") for columns in (SERIES_COLUMNS, PATIENT_COLUMNS)
    )
    if not (series_column or patient_column):
        columns = f"of participants ({', '.join(PATIENT_COLUMNS)}) or series ({', '.join(SERIES_COLUMNS)})"
        raise TableError(f"The table {table.path} has no column {columns}; it has {', '.join(table.columns)}.")
    listed = series_column or patient_column
    for line in table.lines:
        line.need(listed)
    names = [line.text(listed) for line in table.lines]
    table.need_distinct(names, "series" if series_column else "participant")
    if not series_column:
        by_patient: dict[str, list[RemoteSeries]] = {}
        for entry in series:
            by_patient.setdefault(entry.patient, []).append(entry)
        return [baseline_choice(patient, by_patient.get(patient, [])) for patient in names]
    by_uid = {entry.uid: entry for entry in series}
    return [
        Choice(line.text(patient_column) or uid, by_uid.get(uid), "Listed." if uid in by_uid else NOT_A_SERIES)
        for line, uid in zip(table.lines, names, strict=True)
    ]


def baseline_choice(patient: str, series: Sequence[RemoteSeries]) -> Choice:
    """Choose a participant's series by DeepCAC's rule; of equal ones, the one with most images."""
    by_thickness: dict[float, list[tuple[str, RemoteSeries]]] = {}
    for entry in series:
        is_chest = entry.images >= commons.MIN_IMAGES and entry.description.partition(",")[0] == BASELINE
        if is_chest and entry.reconstruction:
            kernel, thickness_mm = entry.reconstruction
            by_thickness.setdefault(thickness_mm, []).append((kernel, entry))
    if not series:
        return Choice(patient, None, "The index has no CT of this participant.")
    if not by_thickness:
        return Choice(patient, None, f"None of {len(series)} CT series is a baseline scan with a stated thickness.")
    thin = [mm for mm in by_thickness if mm <= MAX_THIN_MM]
    usable = thin or [mm for mm in by_thickness if mm <= MAX_OVERLAPPING_MM]
    if not usable:
        return Choice(patient, None, f"The slices of its baseline series are {min(by_thickness):g} mm thick or more.")
    nearest = min(usable, key=lambda mm: abs(WANTED_MM - mm))
    names = sorted({name for name, _ in by_thickness[nearest]}, key=_hardness)
    equal = [entry for name, entry in by_thickness[nearest] if name == names[0]]
    best = min(equal, key=lambda entry: (-entry.images, entry.uid))
    reason = f"Baseline; {nearest:g} mm of {_listed(sorted(by_thickness))}; kernel {names[0]} of {_listed(names)}"
    softest = min((name for mm in usable for name, _ in by_thickness[mm]), key=_hardness)
    if _hardness(softest) < _hardness(names[0]):
        reason += f"; by the kernel first it would be {softest}"
    if names[0] not in KERNELS:
        reason += f"; {names[0]} is not in DeepCAC's order"
    if not thin:
        return Choice(patient, best, f"{reason}; slices overlap.")
    if len(equal) > 1:
        return Choice(patient, best, f"{reason}; most images of {len(equal)} such series.")
    return Choice(patient, best, f"{reason}.")


def _listed(items: Sequence[object]) -> str:
    return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)


def _hardness(kernel: str) -> int:
    return KERNELS.index(kernel) if kernel in KERNELS else len(KERNELS)


def fetch_participants(
    collection: Collection,
    table: Path,
    folder: Path,
    progress: Progress,
    agrees: Callable[[str], bool],
    count: int | None = None,
) -> tuple[int, int]:
    """Choose and fetch the series of a table's participants, and write the manifest before and after.

    Args:
        collection: NLST.
        table: Table with one of PATIENT_COLUMNS or SERIES_COLUMNS.
        folder: Folder for a folder per participant and series, made if needed.
        progress: Progress.
        agrees: Function of the size, as a sentence; True to fetch as much.
        count: Number of lines of the table to use, from the first; None for all.

    Returns:
        The number of series in the folder, and of the table's lines.

    Raises:
        TableError: The table cannot be read, or has another layout.
        CTError: Nothing of it is in the index, or there is no connection.
    """
    progress.begin(["index", "download"])
    with progress.step("index"):
        lines = read_table(table, short_lines=True)
        choices = choose(replace(lines, lines=lines.lines[:count]), commons.series_of(collection))
        series = [choice.series for choice in choices if choice.series is not None]
        missing = Counter(choice.reason for choice in choices if choice.series is None)
        progress.note(f"{len(series)} of {len(choices)} have one series.")
        for reason, number in missing.most_common():
            progress.note(f"{number}: {reason}")
        if not series:
            raise CTError(f"No line of {table} has a series in {collection.title}. {choices[0].reason}")
        collection.write_terms(folder)
        write_manifest(folder, [choice.row({}) for choice in choices])
        waiting = waiting_series(series, folder, progress)
    size_mb = sum(entry.size_mb for entry in waiting)
    if size_mb > GIGABYTE_MB and not agrees(f"{len(waiting)} series, {size_mb / 1000:,.1f} GB, are to be fetched."):
        return len(series) - len(waiting), len(choices)
    with progress.step("download"):
        client = commons.connected_client(collection, folder) if waiting else None
        failed = commons.download(client, waiting, folder, progress)
        write_manifest(folder, [choice.row(failed) for choice in choices])
    return len(series) - len(failed), len(choices)
