"""All DICOM objects of a result, written beside its other files."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset

from ..core.ct import ScanWarning
from ..report.files import result_as_json
from ..results import ScoreResult
from .cardiovascular import cardiovascular_report_of
from .document import encapsulated_pdf_of
from .key_slices import key_images_of
from .map_object import parametric_map_of
from .measurements import measurements_of
from .segmentation import counted_labels, segmentation_of
from .source import SourceSeries, source_of


def dicom_warnings(result: ScoreResult) -> tuple[ScanWarning, ...]:
    """What the DICOM objects of a result will lack."""
    warnings = []
    elsewhere = result.non_coronary
    if not result.methods["threshold"].lesions.lesions and not (elsewhere and elsewhere.lesions.lesions):
        message = "There is no calcium to segment, so that no DICOM segmentation was written."
        warnings.append(ScanWarning("dicom-no-segmentation", message))
    if result.methods["threshold"].status == "candidates":
        message = "Nobody has evaluated the candidates, so that no DICOM report states a score."
        warnings.append(ScanWarning("dicom-no-scores", message))
    return tuple(warnings)


def source_for(result: ScoreResult, identify: bool = False, reader: str | None = None) -> SourceSeries:
    """The series that a result's DICOM objects refer to. Raises NotDicomError, CTError."""
    content = result_as_json(result, {}, identify)
    content["input"].pop("name")  # the same scan in another folder gives the same objects
    voxels = [counted_labels(result)]
    if result.decomposition is not None:
        voxels.append(result.decomposition.calcium_map)
    return source_of(result.scan, {"result": content, "reader": reader if identify else None}, *voxels)


def write_objects(folder: Path, result: ScoreResult, identify: bool = False, reader: str | None = None) -> None:
    """Write a result's DICOM objects.

    Args:
        folder: Where to.
        result: Of a scan that was read from a DICOM series.
        identify: Name the reader. Patient and study are those of the series whatever this is, so that archives file the
            objects under them.
        reader: Who reviewed it, as a DICOM person name.

    Raises:
        CTError: The series cannot be referred to.
    """
    source = source_for(result, identify, reader)
    reader = reader if identify and result.methods["threshold"].reviewed else None
    segmentation = segmentation_of(result, counted_labels(result), source)
    objects: dict[str, Dataset | None] = {
        "segmentation.dcm": segmentation,
        "calcium_map.dcm": parametric_map_of(result, source),
        "report.pdf.dcm": encapsulated_pdf_of(result, source, identify),
    }
    for number, image in enumerate(key_images_of(result, source), 1):
        objects[f"key_{number}.dcm"] = image
    if result.methods["threshold"].status != "candidates":
        objects["measurements.dcm"] = measurements_of(result, segmentation, source, reader)
        objects["cardiovascular-report.dcm"] = cardiovascular_report_of(result, segmentation, source, reader)
    for name, made in objects.items():
        if made is not None:
            made.save_as(folder / name, enforce_file_format=True)
