"""Export of a review: the files of `cac score` for the reviewed state."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.decoding import content_of
from ..core.files import OutputFolder
from ..io.image_files import write_image
from ..record.review_record import ReviewRecord
from ..record.score_record import ScoreRecord
from ..report import files as report
from ..results import ScoreResult
from ..scoring.features import with_features
from ..scoring.methods import with_integrated_mass, with_masses

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "lesions-given", "lesions-automatic"),
    *("noise-candidates", "doubt-decides", "possible-stent"),
    *("reviewed-empty", "unassigned-left-out", "label-outside-heart", "metal-labelled"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""

ABOUT_LABELS = ("labels-empty", "labels-off-calcium")
"""Warnings of a run about a label map, obsolete once a reader has changed the lesions."""

_FROM_RUN = (
    *("input", "seconds", "territories", "candidate_evidence", "calibrated_on"),
    *("slice_probabilities", "slices_decomposed", "slices_by_reader", "decomposition_settings"),
)
"""Keys of `scores.json` that a review does not change."""

IN_PANEL, IN_BROWSER = "CAC panel of 3D Slicer", "CAC review in the browser"
"""Programs of a review, as named in `scores.json`."""


def with_measurements(result: ScoreResult) -> ScoreResult:
    """Measure the masses of lesions that the run did not know, and the features of all."""
    masses = with_masses(result.methods, result.scored_scan, result.mass_calibration, result.non_coronary)
    masses = {name: with_integrated_mass(method) for name, method in masses.items()}
    return replace(result, methods=with_features(masses, result.scored_scan, result.territories))


def export_review(
    folder: Path, result: ScoreResult, run: ScoreRecord, overwrite: bool = False, reader: str | None = None
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

    result, identify = with_measurements(result), run.acquisition.identifies
    with OutputFolder(folder, overwrite).being_written() as files:
        for name, image in report.label_images(result).items():
            write_image(image, files / f"{name}.nii.gz")
        report.write_csv(files, result, identify)
        html = page.result_as_html(result, identify, reader=reader)
        (files / "report.html").write_text(html, encoding="utf-8")
        recorded = {key: content_of(getattr(run, key)) for key in _FROM_RUN}
        document = report.result_as_json(result, {}, identify) | recorded
        _mark_looks(document, result.review)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (files / "scores.json").write_text(text + "\n", encoding="utf-8")


def _mark_looks(document: dict[str, Any], review: ReviewRecord | None) -> None:
    """State of each lesion of a confirmed score whether it was shown to the reader."""
    for name, confirmation in ({} if review is None else review.confirmations).items():
        lesions = document["methods"][name]["lesions"]
        if name == "threshold" and document["non_coronary"] is not None:
            lesions = lesions + document["non_coronary"]["lesion_list"]
        if confirmation.not_looked_at is not None:
            for lesion in lesions:
                lesion["looked_at"] = lesion["id"] not in confirmation.not_looked_at
