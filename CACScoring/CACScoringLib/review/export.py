"""Export of a review: the files of `cac score` for the reviewed state."""

from __future__ import annotations

from pathlib import Path

from ..core.files import OutputFolder
from ..io.image_files import write_image
from ..record.score_record import ScoreRecord
from ..report import files as report
from ..results import CalciumResult

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "lesions-given", "lesions-automatic"),
    *("noise-candidates", "doubt-decides", "interval-undetermined", "possible-stent"),
    *("reviewed-empty", "unassigned-left-out", "label-outside-heart", "possible-metal"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""

ABOUT_LABELS = ("labels-empty", "labels-off-calcium")
"""Warnings of a run about a label map, obsolete once a reader has changed the lesions."""

IN_PANEL, IN_BROWSER = "CAC panel of 3D Slicer", "CAC review in the browser"
"""Programs of a review, as named in `scores.json`."""


def export_review(
    folder: Path, result: CalciumResult, run: ScoreRecord, overwrite: bool = False, reader: str | None = None
) -> None:
    """Write `report.html`, `scores.json`, `lesions.csv`, `lesions.nii.gz`; with a calcium map `map_lesions.nii.gz`;
    with territories `territories.nii.gz`, with a pericardium `pericardium.nii.gz`.

    The folder is written atomically.

    Args:
        folder: Target.
        result: Reviewed result (`ScanReview.as_reviewed`).
        run: Record of the run that was reviewed.
        overwrite: Replace an earlier result in the folder.
        reader: Name for the report; None for who confirmed the score.

    Raises:
        OutputError: The folder cannot be written, or is not empty and overwrite is False.
    """
    from ..report import page  # Jinja2, which Slicer does not bring along

    identify = run.acquisition.identifies
    with OutputFolder(folder, overwrite).being_written() as files:
        for name, image in report.label_images(result).items():
            write_image(image, files / f"{name}.nii.gz")
        report.write_csv(files, result.record, identify)
        html = page.result_as_html(result, identify, reader=reader)
        (files / "report.html").write_text(html, encoding="utf-8")
        report.write_json(files / "scores.json", result.record, run.seconds, identify)
