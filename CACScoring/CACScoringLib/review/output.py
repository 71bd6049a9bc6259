"""Files and DICOM objects of a review, as `cac score` writes them. Knows no MRML and no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.files import OutputFolder
from ..core.progress import Progress
from ..io.image_files import write_image
from ..record.score_record import ScoreRecord
from ..report import files as report
from ..results import ScoreResult

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "lesions-given", "lesions-automatic"),
    *("noise-candidates", "doubt-decides", "possible-stent", "ostium-doubtful"),
    *("reviewed-empty", "unassigned-left-out", "label-outside-heart", "possible-metal"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""

ABOUT_LABELS = ("labels-empty", "labels-off-calcium")
"""Warnings of a run about a label map, obsolete once a reader has changed the lesions."""

IN_PANEL, IN_BROWSER = "CAC panel of 3D Slicer", "CAC review in the browser"
"""Programs of a review, as named in `scores.json`."""


def export_review(folder: Path, result: ScoreResult, run: ScoreRecord, overwrite: bool = False) -> None:
    """Write `report.html`, `scores.json`, `lesions.csv`, `lesions.nii.gz`; with a calcium map `map_lesions.nii.gz`;
    with territories `territories.nii.gz`, with a pericardium `pericardium.nii.gz`.

    The folder is written atomically.

    Args:
        folder: Target.
        result: Reviewed result (`ScanReview.as_reviewed`).
        run: Record of the run that was reviewed.
        overwrite: Replace an earlier result in the folder.

    Raises:
        OutputError: The folder cannot be written, or is not empty and overwrite is False.
    """
    from ..report import page  # Jinja2, which Slicer does not bring along

    identify = run.acquisition.identifies
    with OutputFolder(folder, overwrite).being_written() as files:
        for name, image in report.label_images(result):
            write_image(image, files / f"{name}.nii.gz")
        report.write_csv(files, result.record, identify)
        html = page.result_as_html(result, identify)
        (files / "report.html").write_text(html, encoding="utf-8")
        report.write_json(files / "scores.json", result.record, run.seconds, identify)


def write_dicom(
    result: ScoreResult,
    files: Sequence[Path],
    target: Path,
    name_reader: bool,
    progress: Progress,
) -> None:
    """Make the DICOM objects of a review in a process of their own; the target is whole or not there.

    Args:
        result: Result of the review (`ScanReview.as_reviewed`).
        files: Files of the scan's DICOM series, in any order.
        target: Folder of the objects.
        name_reader: As in `exchange.write.write_objects`.
        progress: Reports the steps and the warnings.

    Raises:
        CTError: As when the files are not the scan that was reviewed.
        OutputError: The target cannot be written.
    """
    from ..exchange.source import check_series
    from ..exchange.write import dicom_warnings, write_objects

    progress.begin(["reading", "dicom"])
    with progress.step("reading"):
        scan = result.scan.stating(dicom_files=tuple(files))
        check_series(scan)
        result = replace(result, scan=scan)
        warnings = dicom_warnings(result)
        result = result.stating(warnings=(*result.record.warnings, *warnings))
    with progress.step("dicom"), OutputFolder(target).being_written() as folder:
        write_objects(folder, result, name_reader)
    for warning in warnings:
        progress.warning(warning)
    progress.done(target)
