"""All DICOM objects of a result, written beside its other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
from pydicom import Dataset

from ..core.ct import ScanWarning
from ..core.progress import Progress
from ..report.files import result_as_json
from ..results import ScoreResult
from .cardiovascular import cardiovascular_report_of
from .document import encapsulated_pdf_of
from .key_slices import key_images_of
from .map_object import parametric_map_of
from .measurements import measurements_of
from .segmentation import counted_labels, segmentation_of
from .source import SourceSeries, check_reader, source_of


def dicom_warnings(result: ScoreResult) -> tuple[ScanWarning, ...]:
    """Warnings about content that the DICOM objects of a result lack."""
    if result.methods["threshold"].status != "candidates":
        return ()
    message = "Nobody has evaluated the candidates, so that no DICOM report states a score."
    return (ScanWarning("dicom-no-scores", message),)


def source_for(
    result: ScoreResult,
    identify: bool = False,
    reader: str | None = None,
    calcium_map: sitk.Image | None = None,
) -> SourceSeries:
    """The series that a result's DICOM objects refer to. Arguments and errors as in `write_objects`."""
    content = result_as_json(result, {}, identify)
    content["input"].pop("name")  # the same scan in another folder gives the same objects
    voxels = [counted_labels(result)]
    if (found := _map_of(result, calcium_map)) is not None:
        voxels.append(found)
    return source_of(result.scan, {"result": content, "reader": reader if identify else None}, *voxels)


def write_objects(
    folder: Path,
    result: ScoreResult,
    identify: bool = False,
    reader: str | None = None,
    calcium_map: sitk.Image | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a result's DICOM objects.

    Args:
        folder: Where to.
        result: Of a scan that was read from a DICOM series.
        identify: Name the reader. Patient and study are those of the series whatever this is, so that archives file the
            objects under them.
        reader: Who reviewed it, as a DICOM person name.
        calcium_map: On the scan's grid, of a review, whose result holds none.
        progress: Reports how many kinds of objects are made.

    Raises:
        CTError: The series cannot be referred to, or the reader's name is none.
    """
    check_reader(reader)
    source = source_for(result, identify, reader, calcium_map)
    reader = reader if identify and result.methods["threshold"].reviewed else None
    segmentation = segmentation_of(result, counted_labels(result), source)
    found = _map_of(result, calcium_map)
    kinds: dict[str, Callable[[], Dataset | None]] = {"segmentation.dcm": lambda: segmentation}
    if result.methods["threshold"].status != "candidates":
        kinds["measurements.dcm"] = lambda: measurements_of(result, segmentation, source, reader)
        kinds["cardiovascular-report.dcm"] = lambda: cardiovascular_report_of(result, segmentation, source, reader)
    kinds["report.pdf.dcm"] = lambda: encapsulated_pdf_of(result, source, identify)
    if found is not None:
        kinds["calcium_map.dcm"] = lambda: parametric_map_of(found, source)
    progress = progress or Progress()
    for n, (name, make) in enumerate(kinds.items()):
        progress.counted(n, len(kinds) + 1)
        if (made := make()) is not None:
            made.save_as(folder / name, enforce_file_format=True)
    progress.counted(len(kinds), len(kinds) + 1)
    for number, image in enumerate(key_images_of(result, source), 1):
        image.save_as(folder / f"key_{number}.dcm", enforce_file_format=True)


def _map_of(result: ScoreResult, calcium_map: sitk.Image | None) -> sitk.Image | None:
    return calcium_map if result.decomposition is None else result.decomposition.calcium_map
