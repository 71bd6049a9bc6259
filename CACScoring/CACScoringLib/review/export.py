"""Export of a review: the files of `cac score` for the reviewed state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..core.ct import ScanWarning
from ..core.files import OutputFolder
from ..core.labels import Artery
from ..networks.configs import VESSELS
from ..record.findings import Categories, EpicardialFat
from ..record.provenance import Provenance, provenance_of
from ..record.review_record import ReviewRecord
from ..record.score_record import ScoreRecord
from ..report import files as report
from ..results import ScoreResult
from ..scoring.features import with_features
from ..scoring.methods import MethodResult, NonCoronaryResult, with_integrated_mass, with_masses
from ..scoring.reader_labels import with_status
from .state import ReviewState

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "lesions-given", "lesions-automatic"),
    *("noise-candidates", "doubt-decides", "possible-stent"),
    *("reviewed-empty", "unassigned-left-out", "label-outside-heart", "metal-labelled"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""

ABOUT_LABELS = ("labels-empty", "labels-off-calcium")
"""Warnings of a run about a label map, obsolete once a reader has changed the lesions."""


IN_PANEL, IN_BROWSER = "CAC panel of 3D Slicer", "CAC review in the browser"
"""Programs of a review, as named in `scores.json`."""


@dataclass(frozen=True)
class Reviewed:
    """State of a review, to be exported.

    Attributes:
        result: Result with masses and features (`with_measurements`), and the record of its review.
        record: Record of the run that was reviewed.
    """

    result: ScoreResult
    record: ScoreRecord


def result_of(
    state: ReviewState,
    methods: dict[str, MethodResult],
    categories: Categories | None,
    non_coronary: NonCoronaryResult | None,
    warnings: tuple[ScanWarning, ...],
    fat: EpicardialFat | None,
    images: bool = True,
) -> ScoreResult:
    """Return the result of a review, without masses, calcium map and loaded networks.

    images: False omits pericardium, territories and saliency, which are as large as the scan, if only numbers are read.
    """
    record = state.record
    truth = record.truth
    masses = None if truth is None else {a: truth.mass_mg[a.key] for a in Artery if a.key in truth.mass_mg}
    saliency = state.saliency() if images else None  # of the vessels' model, the only one that has any
    return ScoreResult(
        scan=replace(state.scan, source=Path(record.input.name or "CT")),
        heart=HeartRegion(state.heart, None, record.heart.source, pericardium=state.pericardium() if images else None),
        blood=record.measured,
        methods=methods,
        categories=categories,
        warnings=warnings,
        territories=state.territories() if images else None,
        non_coronary=non_coronary,
        recorded_models=record.models,
        provenance=_provenance_of_review(record),
        true_mass_mg=masses,
        estimates=tuple(replace(o, saliency=saliency) if o.network == VESSELS else o for o in state.estimates),
        familiarity=record.familiarity,
        normalisation=record.normalisation,
        scored=None if state.scored is state.scan else state.scored,
        mass_calibration=record.mass_calibration,
        epicardial_fat=fat,
    )


def _provenance_of_review(record: ScoreRecord) -> Provenance:
    """Return the provenance of a review's result: this program and time, and what the run followed from."""
    present, run = provenance_of(), record.provenance
    if run is None:
        return present
    names = ("version", "commit", "created", "machine", "command")
    return replace(run, **{name: getattr(present, name) for name in names})


def with_measurements(result: ScoreResult) -> ScoreResult:
    """Measure the masses of lesions that the run did not know, and the features of all."""
    masses = with_masses(result.methods, result.scored_scan, result.mass_calibration, result.non_coronary)
    masses = {name: with_integrated_mass(method) for name, method in masses.items()}
    return replace(result, methods=with_features(masses, result.scored_scan, result.territories))


def export_review(folder: Path, reviewed: Reviewed, overwrite: bool = False, reader: str | None = None) -> None:
    """Write `report.html`, `scores.json`, `lesions.csv`, `lesions.nii.gz`; with a calcium map `map_lesions.nii.gz`;
    with territories `territories.nii.gz`, with a pericardium `pericardium.nii.gz`.

    The folder is written atomically. reader: Name for the report; None for who confirmed the score. Raises OutputError,
    for example if the folder is not empty and overwrite is False.
    """
    from ..report import page  # Jinja2, which Slicer does not bring along

    result, identify = with_measurements(reviewed.result), reviewed.record.acquisition.identifies
    with OutputFolder(folder, overwrite).being_written() as files:
        labels = with_status(report.site_labels(result), result.methods["threshold"].status)
        images = {"lesions": labels, "territories": result.territories}
        images["pericardium"] = result.heart.pericardium
        if (in_map := result.methods.get("decomposition")) is not None:
            images["map_lesions"] = in_map.lesions.label_image(result.scan.image)
        for name, image in images.items():
            if image is not None:
                sitk.WriteImage(image, str(files / f"{name}.nii.gz"))
        report.write_csv(files, result, identify)
        confirmation = None if result.review is None else result.review.confirmation
        reader = reader or (None if confirmation is None else confirmation.reader)
        html = page.result_as_html(result, identify=identify, reader=reader)
        (files / "report.html").write_text(html, encoding="utf-8")
        document = report.result_as_json(result, {}, identify) | _unchanged(reviewed)
        _mark_looks(document, result.review)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (files / "scores.json").write_text(text + "\n", encoding="utf-8")


_FROM_RECORD = (
    *("input", "seconds", "territories", "candidate_evidence", "calibrated_on"),
    *("slice_probabilities", "slices_decomposed", "slices_by_reader", "decomposition_settings"),
)


def _unchanged(reviewed: Reviewed) -> dict[str, object]:
    """Return the part of `scores.json` that the review does not change."""
    return {key: value for key, value in asdict(reviewed.record).items() if key in _FROM_RECORD}


def _mark_looks(document: dict[str, Any], review: ReviewRecord | None) -> None:
    """State of each lesion of a confirmed score whether it was shown to the reader."""
    for name, confirmation in ({} if review is None else review.confirmations).items():
        lesions = document["methods"][name]["lesions"]
        if name == "threshold" and document["non_coronary"] is not None:
            lesions = lesions + document["non_coronary"]["lesion_list"]
        if confirmation.not_looked_at is not None:
            for lesion in lesions:
                lesion["looked_at"] = lesion["id"] not in confirmation.not_looked_at
