"""Write all DICOM objects of a result beside its other files."""

from __future__ import annotations

from pathlib import Path

from ..core.acquisition import PSEUDONYM
from ..core.ct import ScanWarning
from ..results import ScoreResult
from .images import counted_labels, segmentation_of
from .measurements import measurements_of
from .source import SourceSeries, check_reader, source_series


def dicom_warnings(result: ScoreResult) -> tuple[ScanWarning, ...]:
    """Warnings about content that the DICOM objects of a result lack."""
    if result.methods["threshold"].status != "candidates":
        return ()
    message = "Nobody has evaluated the candidates, so that no DICOM report states a score."
    return (ScanWarning("dicom-no-scores", message),)


def source_for(result: ScoreResult, name_reader: bool = False) -> SourceSeries:
    """Return the series to which a result's DICOM objects refer. Arguments and errors as in `write_objects`."""
    content = result.record.as_json()
    # The same scan in another folder, or scored again, also with another key, gives the same objects.
    content["input"].pop("name")
    for name in ("provenance", "seconds", "review"):
        content.pop(name, None)
    for name in (*PSEUDONYM, "identity_digests"):
        content["acquisition"].pop(name)
    content = {"result": content, "reader": _reader(result) if name_reader else None}
    return source_series(result.scan, content, counted_labels(result))


def write_objects(folder: Path, result: ScoreResult, name_reader: bool = False) -> None:
    """Write a result's DICOM objects. Patient and study are those of the series, under which archives file them.

    Args:
        folder: Folder of the objects.
        result: Result of a scan from a DICOM series.
        name_reader: Name the reader who confirmed the score as observer and verifier.

    Raises:
        CTError: Objects cannot refer to the series, or the reader's name is no DICOM person name.
    """
    reader = _reader(result) if name_reader else None
    check_reader(reader)
    source = source_for(result, name_reader)
    method = result.methods["threshold"]
    segmentation = segmentation_of(result, counted_labels(result), source)
    if segmentation is not None:
        segmentation.save_as(folder / "segmentation.dcm", enforce_file_format=True)
    if method.status != "candidates":
        report = measurements_of(result, segmentation, source, reader)
        report.save_as(folder / "measurements.dcm", enforce_file_format=True)


def _reader(result: ScoreResult) -> str | None:
    """Return the reader who confirmed the clinical score; None if nobody has, or that is unknown."""
    review = result.record.review
    confirmation = None if review is None or not result.methods["threshold"].reviewed else review.confirmation
    return None if confirmation is None else confirmation.reader
