"""DICOM objects of a review, made by a process of their own. Knows no MRML and no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk

from ..core.acquisition import IDENTIFYING
from ..core.ct import CTScan
from ..core.errors import CTError
from ..core.files import OutputFolder
from ..core.progress import Progress
from ..io.acquisition import acquisition_of
from ..io.dicom import read_slice
from ..results import CalciumResult


@dataclass(frozen=True)
class DicomJob:
    """Input of the DICOM objects of a review.

    Attributes:
        result: Result of the review (`ScanReview.as_reviewed`).
        files: Files of the scan's DICOM series, in any order.
        target: Folder of the objects.
        calcium_map: Calcium map on the scan's grid; None without one.
        identify: As in `exchange.write.write_objects`.
        reader: As in `exchange.write.write_objects`.
    """

    result: CalciumResult
    files: tuple[Path, ...]
    target: Path
    calcium_map: sitk.Image | None = None
    identify: bool = False
    reader: str | None = None


def write_dicom(job: DicomJob, progress: Progress) -> None:
    """Make the DICOM objects of a review; the target is whole or not there.

    Raises CTError, as when the files are not the scan that was reviewed, and OutputError.
    """
    from ..exchange.source import check_series
    from ..exchange.write import dicom_warnings, write_objects

    progress.begin(["reading", "dicom"])
    with progress.step("reading"):
        scan = _scan_of(job)
        check_series(scan)
        result = replace(job.result, scan=scan)
        warnings = dicom_warnings(result)
        result = result.stating(warnings=(*result.record.warnings, *warnings))
    with progress.step("dicom"), OutputFolder(job.target).being_written() as target:
        write_objects(target, result, job.identify, job.reader, job.calcium_map, progress)
    for warning in warnings:
        progress.warning(warning)
    progress.done(job.target)


def _scan_of(job: DicomJob) -> CTScan:
    scan = replace(job.result.scan, dicom_files=job.files)
    if not job.identify:
        return scan
    first = read_slice(job.files[0])
    if first is None:
        raise CTError(f"{job.files[0].name} is no DICOM file any more. Load the CT again.")
    of_patient = acquisition_of([first])
    identity = {name: getattr(of_patient, name) for name in IDENTIFYING}
    return replace(scan, acquisition=replace(scan.acquisition, **identity))
