"""What a reader's review leaves for others: the files of `cac score`, of the state as reviewed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan, ScanWarning
from ..core.labels import Artery
from ..core.output import OutputFolder
from ..quality.acquisition import BloodPool
from ..quality.calibration_range import Familiarity
from ..quality.normalisation import Normalisation
from ..report import files as report
from ..report import page
from ..results import STATUSES, Categories, MethodResult, NonCoronaryResult, ScoreResult, with_masses
from ..scoring.mass_calibration import MassCalibration
from ..whole_scan.estimates import WholeScanEstimate

ABOUT_CANDIDATES = (
    *("unreviewed", "automatic", "noise-candidates", "reviewed-empty"),
    *("unassigned-left-out", "label-outside-heart", "metal-labelled"),
)
"""Warnings of a run about its lesions, obsolete after a review; those about the scan stay."""


@dataclass(frozen=True)
class Place:
    """Where readers review. name: in the warning that says so; program: in `scores.json`."""

    name: str
    program: str


IN_PANEL = Place("the panel in 3D Slicer", "CAC panel of 3D Slicer")
IN_BROWSER = Place("the review in the browser", "CAC review in the browser")


@dataclass(frozen=True)
class Reviewed:
    """The state of a review, to be exported.

    record: the `scores.json` of the run that it began with. heart: mask on the scan's grid. slices_off: slices, from
    the feet, of the calcium map that the reader switched off; slices_wished: on, though they were never decomposed.
    estimates: whole-scan estimates that the run has recorded. non_coronary, territories: as of a `ScoreResult`. place:
    where it was reviewed.
    """

    scan: CTScan
    heart: sitk.Image
    methods: dict[str, MethodResult]
    categories: Categories | None
    warnings: tuple[ScanWarning, ...]
    record: dict
    slices_off: tuple[int, ...] = ()
    slices_wished: tuple[int, ...] = ()
    estimates: tuple[WholeScanEstimate, ...] = ()
    non_coronary: NonCoronaryResult | None = None
    territories: sitk.Image | None = None
    place: Place = IN_PANEL


def export_review(folder: Path, reviewed: Reviewed, overwrite: bool = False) -> None:
    """Write `report.html`, `scores.json`, `lesions.csv`, `lesions.nii.gz`; of a calcium map `map_lesions.nii.gz`; and
    where they are known `territories.nii.gz`.

    The folder is whole or not there. Raises OutputError, as when it is not empty and overwrite is False.
    """
    result = result_of(reviewed)
    with OutputFolder(folder, overwrite).being_written() as files:
        images = {"lesions": report.site_labels(result), "territories": result.territories}
        if (in_map := result.methods.get("decomposition")) is not None:
            images["map_lesions"] = in_map.lesions.label_image(result.scan.image)
        for name, image in images.items():
            if image is not None:
                sitk.WriteImage(image, str(files / f"{name}.nii.gz"))
        (files / "lesions.csv").write_text(report.lesions_as_csv(result), encoding="utf-8")
        html = page.result_as_html(result, identify=_identifies(reviewed.record))
        (files / "report.html").write_text(html, encoding="utf-8")
        text = json.dumps(_document(reviewed, result), indent=1, ensure_ascii=False, allow_nan=False)
        (files / "scores.json").write_text(text + "\n", encoding="utf-8")


def result_of(reviewed: Reviewed) -> ScoreResult:
    """The result that a review comes to; it holds no calcium map, and no networks but what the run recorded of them."""
    record = reviewed.record
    measured, truth = record["measured"], record["truth"]
    masses = None if truth is None else {a: truth["mass_mg"][a.key] for a in Artery if a.key in truth["mass_mg"]}
    states = ", ".join(f"{name} {STATUSES[m.status]}" for name, m in reviewed.methods.items())
    message = f"These results were exported from {reviewed.place.name}, where readers edit lesions ({states})."
    in_browser = reviewed.place == IN_BROWSER
    note = ScanWarning("reviewed-in-browser", message) if in_browser else ScanWarning("reviewed-in-panel", message)
    calibration, normalisation = record.get("mass_calibration"), Normalisation.recorded(record)
    result = ScoreResult(
        scan=replace(reviewed.scan, source=Path(record["input"]["name"] or "CT")),
        heart=HeartRegion(reviewed.heart, None, record["heart"]["source"]),
        blood=None if measured is None else BloodPool(**measured),
        methods=reviewed.methods,
        categories=reviewed.categories,
        warnings=(note, *reviewed.warnings),
        territories=reviewed.territories,
        non_coronary=reviewed.non_coronary,
        recorded_models=tuple(record.get("models", ())),
        true_mass_mg=masses,
        estimates=reviewed.estimates,
        familiarity=Familiarity.recorded(record),
        normalisation=normalisation,
        scored=normalisation.of(reviewed.scan) if normalisation is not None and normalisation.changes else None,
        mass_calibration=None if calibration is None else MassCalibration(**calibration),
    )
    return with_masses(result)


def _document(reviewed: Reviewed, result: ScoreResult) -> dict:
    """The content of `scores.json`: what the review changed, and from the record what it did not."""
    record = reviewed.record
    document = report.result_as_json(result, {}, _identifies(record))
    document["input"] = record["input"]
    of_the_map = ("slice_probabilities", "slices_decomposed", "slices_by_reader", "decomposition_settings")
    kept = ("seconds", "territories", "candidate_evidence", "calibrated_on", *of_the_map)
    document |= {key: record[key] for key in kept if key in record}
    document["review"] = {
        "program": reviewed.place.program,
        "methods": {name: method.reviewed for name, method in reviewed.methods.items()},
        "slices_off": list(reviewed.slices_off),
        "slices_to_decompose": list(reviewed.slices_wished),
    }
    return document


def _identifies(record: dict) -> bool:
    return "patient_name" in record["acquisition"]
