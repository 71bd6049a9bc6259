"""Write all DICOM objects of a result beside its other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset

from ..core.acquisition import PSEUDONYM
from ..core.ct import ScanWarning
from ..core.progress import Progress
from ..results import CalciumResult
from .images import counted_labels, key_images_of, segmentation_of
from .measurements import measurements_of
from .source import SourceSeries, check_reader, source_of


def dicom_warnings(result: CalciumResult) -> tuple[ScanWarning, ...]:
    """Warnings about content that the DICOM objects of a result lack."""
    if result.methods["threshold"].status != "candidates":
        return ()
    message = "Nobody has evaluated the candidates, so that no DICOM report states a score."
    return (ScanWarning("dicom-no-scores", message),)


def source_for(result: CalciumResult, reader: str | None = None) -> SourceSeries:
    """Return the series to which a result's DICOM objects refer. Arguments and errors as in `write_objects`."""
    content = result.record.as_json()
    # The same scan in another folder, or scored again, also with another key, gives the same objects.
    content["input"].pop("name")
    for name in ("provenance", "seconds", "review"):
        content.pop(name, None)
    for name in (*PSEUDONYM, "identity_digests"):
        content["acquisition"].pop(name)
    return source_of(result.scan, {"result": content, "reader": reader}, counted_labels(result))


def write_objects(
    folder: Path,
    result: CalciumResult,
    reader: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a result's DICOM objects. Patient and study are those of the series, under which archives file them.

    Args:
        folder: Folder of the objects.
        result: Result of a scan from a DICOM series.
        reader: Reviewer as a DICOM person name; None to name nobody.
        progress: Reports the number of kinds of objects written.

    Raises:
        CTError: Objects cannot refer to the series, or the reader's name is no DICOM person name.
    """
    check_reader(reader)
    source = source_for(result, reader)
    reader = reader if result.methods["threshold"].reviewed else None
    segmentation = segmentation_of(result, counted_labels(result), source)
    kinds: dict[str, Callable[[], Dataset | None]] = {"segmentation.dcm": lambda: segmentation}
    if result.methods["threshold"].status != "candidates":
        kinds["measurements.dcm"] = lambda: measurements_of(result, segmentation, source, reader)
    progress = progress or Progress()
    for n, (name, make) in enumerate(kinds.items()):
        progress.counted(n, len(kinds) + 1)
        if (dataset := make()) is not None:
            dataset.save_as(folder / name, enforce_file_format=True)
    progress.counted(len(kinds), len(kinds) + 1)
    for number, image in enumerate(key_images_of(result, source), 1):
        image.save_as(folder / f"key_{number}.dcm", enforce_file_format=True)
