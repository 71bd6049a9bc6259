"""Export of a review: the files of `cac score` for the reviewed state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..anatomy.courses import artery_courses
from ..core.files import OutputFolder
from ..io.image_files import write_image
from ..record.score_record import ScoreRecord
from ..record.scores import Lesion
from ..report import files as report
from ..results import ScoreResult
from ..scoring.features import features_of
from ..scoring.mass import MAX_MEASURED, with_masses
from ..scoring.scores import with_lesions

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "lesions-given", "lesions-automatic"),
    *("noise-candidates", "doubt-decides", "possible-stent"),
    *("reviewed-empty", "unassigned-left-out", "label-outside-heart", "possible-metal"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""

ABOUT_LABELS = ("labels-empty", "labels-off-calcium")
"""Warnings of a run about a label map, obsolete once a reader has changed the lesions."""

IN_PANEL, IN_BROWSER = "CAC panel of 3D Slicer", "CAC review in the browser"
"""Programs of a review, as named in `scores.json`."""


def measured(result: ScoreResult) -> ScoreResult:
    """Measure the masses of lesions that the run did not know, and the features of all."""
    record, scan = result.record, result.scored_scan
    calcium = None if record.non_coronary is None else record.non_coronary.lesion_set.id_map > 0
    courses = artery_courses(result.territories, scan.image.GetSpacing())
    methods = {}
    for name, method in record.methods.items():
        lesions = with_masses(method.lesion_set, scan, record.mass_calibration, calcium, method.is_map)
        has_masses = record.mass_calibration is not None and len(lesions) <= MAX_MEASURED
        method = with_lesions(method, lesions, has_masses)
        methods[name] = replace(method, features=features_of(method, scan, courses))
    return result.stating(methods=methods)


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

    result, identify = measured(result), run.acquisition.identifies
    result = result.stating(**_with_looks(result.record))
    with OutputFolder(folder, overwrite).being_written() as files:
        for name, image in report.label_images(result).items():
            write_image(image, files / f"{name}.nii.gz")
        report.write_csv(files, result.record, identify)
        html = page.result_as_html(result, identify, reader=reader)
        (files / "report.html").write_text(html, encoding="utf-8")
        report.write_json(files / "scores.json", result.record, run.seconds, identify)


def _with_looks(record: ScoreRecord) -> dict[str, Any]:
    """Return the parts of a record whose lesions state whether they were shown to the reader of a confirmed score."""
    methods, elsewhere = dict(record.methods), record.non_coronary
    for name, confirmation in ({} if record.review is None else record.review.confirmations).items():
        if (unseen := confirmation.not_looked_at) is None:
            continue

        def looked_at(lesions: tuple[Lesion, ...], unseen: tuple[int, ...] = unseen) -> tuple[Lesion, ...]:
            return tuple(replace(lesion, looked_at=lesion.id not in unseen) for lesion in lesions)

        methods[name] = replace(methods[name], lesions=looked_at(methods[name].lesions))
        if name == "threshold" and elsewhere is not None:
            elsewhere = replace(elsewhere, lesion_list=looked_at(elsewhere.lesion_list))
    return {"methods": methods, "non_coronary": elsewhere}
