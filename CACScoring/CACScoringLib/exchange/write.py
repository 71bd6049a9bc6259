"""Write all DICOM objects of a result beside its other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
from pydicom import Dataset

from ..core.acquisition import PSEUDONYM
from ..core.ct import ScanWarning
from ..core.progress import Progress
from ..results import CalciumResult
from .document import encapsulated_pdf_of
from .images import counted_labels, key_images_of, parametric_map_of, segmentation_of
from .measurements import measurements_of
from .source import SourceSeries, check_reader, source_of


def dicom_warnings(result: CalciumResult) -> tuple[ScanWarning, ...]:
    """Warnings about content that the DICOM objects of a result lack."""
    if result.methods["threshold"].status != "candidates":
        return ()
    message = "Nobody has evaluated the candidates, so that no DICOM report states a score."
    return (ScanWarning("dicom-no-scores", message),)


def source_for(
    result: CalciumResult, identify: bool = False, reader: str | None = None, calcium_map: sitk.Image | None = None
) -> SourceSeries:
    """Return the series to which a result's DICOM objects refer. Arguments and errors as in `write_objects`."""
    content = result.record.as_json(identify)
    # The same scan in another folder, or scored again, also with another key, gives the same objects.
    content["input"].pop("name")
    for name in ("provenance", "seconds", "review"):
        content.pop(name, None)
    for name in (*PSEUDONYM, "identity_digests"):
        content["acquisition"].pop(name)
    voxels = [counted_labels(result)]
    if (map_image := _map_of(result, calcium_map)) is not None:
        voxels.append(map_image)
    return source_of(result.scan, {"result": content, "reader": reader}, *voxels)


def write_objects(
    folder: Path,
    result: CalciumResult,
    identify: bool = False,
    reader: str | None = None,
    calcium_map: sitk.Image | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a result's DICOM objects.

    Args:
        folder: Folder of the objects.
        result: Result of a scan from a DICOM series.
        identify: True to print the patient in the PDF. Patient and study are always those of the series, under which
            archives file the objects.
        reader: Reviewer as a DICOM person name; None to name nobody.
        calcium_map: Map on the scan's grid, for the result of a review, which holds none.
        progress: Reports the number of kinds of objects written.

    Raises:
        CTError: Objects cannot refer to the series, or the reader's name is no DICOM person name.
    """
    check_reader(reader)
    source = source_for(result, identify, reader, calcium_map)
    reader = reader if result.methods["threshold"].reviewed else None
    segmentation = segmentation_of(result, counted_labels(result), source)
    map_image = _map_of(result, calcium_map)
    kinds: dict[str, Callable[[], Dataset | None]] = {"segmentation.dcm": lambda: segmentation}
    if result.methods["threshold"].status != "candidates":
        kinds["measurements.dcm"] = lambda: measurements_of(result, segmentation, source, reader)
    kinds["report.pdf.dcm"] = lambda: encapsulated_pdf_of(result, source, identify)
    if map_image is not None:
        kinds["calcium_map.dcm"] = lambda: parametric_map_of(map_image, source)
    progress = progress or Progress()
    for n, (name, make) in enumerate(kinds.items()):
        progress.counted(n, len(kinds) + 1)
        if (dataset := make()) is not None:
            dataset.save_as(folder / name, enforce_file_format=True)
    progress.counted(len(kinds), len(kinds) + 1)
    for number, image in enumerate(key_images_of(result, source), 1):
        image.save_as(folder / f"key_{number}.dcm", enforce_file_format=True)


def _map_of(result: CalciumResult, calcium_map: sitk.Image | None) -> sitk.Image | None:
    return calcium_map if result.decomposition is None else result.decomposition.image()
