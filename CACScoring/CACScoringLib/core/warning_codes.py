"""Warnings: their codes, each with what its reader should do, and the checks that make them.

A warning's message stands where the warning is made. `docs/reference/warnings.md` is built from both.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

Subject = TypeVar("Subject")

SEVERE = frozenset(
    {
        "air-off",
        "beyond-calibration",
        "calcium-suppressed",
        "comparison-order",
        "comparison-patients",
        "cone-beam",
        "contrast-enhanced",
        "derived-image",
        "geometry-implausible",
        "heart-cut",
        "heart-from-lungs",
        "interpolated",
        "kernel-sharp",
        "labels-empty",
        "labels-off-calcium",
        "mask-doubtful",
        "noise-candidates",
        "possible-metal",
        "reversed",
        "several-acquisitions",
        "slices-foreign",
        "slices-repeated",
        "slices-unread",
        "tissue-off",
    }
)
"""Codes of severe warnings: the scores may be meaningless, so the warning is shown above them."""


@dataclass(frozen=True)
class ScanWarning:
    """A doubt about a result, which every export repeats.

    Attributes:
        code: Stable name for programs, such as "not-120-kvp"; the reference of warnings lists all.
        message: One sentence for a reader.
        severe: True if the scores may be meaningless; severe warnings are shown above the scores.
    """

    code: str
    message: str
    severe: bool | None = None

    def __post_init__(self) -> None:
        if self.severe is None:
            object.__setattr__(self, "severe", self.code in SEVERE)


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """Check of one quantity of a scan: a row of checks.csv.

    Attributes:
        code: Code of its warning.
        measure: Quantity of the scan, or a mapping of it, as `value`, and of what the message needs; None if unknown.
        low: Least quantity without a warning.
        high: Largest quantity without a warning.
        after: Codes of earlier checks that explain this one's finding, so that it is left out after them.
        message: Message of the warning, with names of values in braces.
    """

    code: str
    measure: Callable[[Subject], Any]
    low: float
    high: float
    after: tuple[str, ...]
    message: str


def checks(table: str, **measures: Callable[[Subject], Any]) -> tuple[Check[Subject], ...]:
    """Return the checks of one table of checks.csv. measures: Functions by the name of their quantity."""
    rows = [row for row in check_rows() if row["table"] == table]
    return tuple(
        Check(
            row["code"],
            measures[row["quantity"]],
            float(row["low"] or "-inf"),
            float(row["high"] or "inf"),
            tuple(row["after"].split()),
            row["message"],
        )
        for row in rows
    )


@cache
def check_rows() -> list[dict[str, str]]:
    """Return the rows of checks.csv; `sound` holds the range in sound scans and variants of them."""
    with (Path(__file__).parents[1] / "Resources" / "checks.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def warnings_of(checks: Iterable[Check[Subject]], subject: Subject) -> list[ScanWarning]:
    """Return the warnings of checks in their order."""
    warnings: list[ScanWarning] = []
    for check in checks:
        if any(warning.code in check.after for warning in warnings):
            continue
        result = check.measure(subject)
        values: Mapping[str, Any] = result if isinstance(result, Mapping) else {"value": result}
        if values["value"] is not None and not check.low <= values["value"] <= check.high:
            message = check.message.format(low=check.low, high=check.high, **values)
            warnings.append(ScanWarning(check.code, message, values.get("severe")))
    return warnings


ADVICE = {
    # Reading a CT
    "air-off": "Do not use the score. Give the CT in HU, as the scanner made it.",
    "below-air": "Check that the rescale slope and intercept, or the conversion to HU, are right.",
    "burned-in": "Export the image without text in it.",
    "cardiac-phases": "Export and score one cardiac phase.",
    "coarse-values": "Give the CT as the scanner made it, with whole HU.",
    "cone-beam": "Do not use the score. Score a CT of a diagnostic scanner.",
    "columns-unused": "Rename the column if it was meant to be used.",
    "derived-image": "Score the unenhanced images as the scanner reconstructed them.",
    "folders-unread": "Obtain read permission for these folders, and rerun the command.",
    "geometry-implausible": "Do not use the score. Check the spacings, and convert the DICOM series again.",
    "geometry-unknown": "Convert the DICOM series again with a tool that keeps the geometry, and score that.",
    "images-missing": "Copy the series again if slices are missing, and check that the whole heart is covered.",
    "images-left-out": "Check that none of these images is a slice of the scan.",
    "interpolated": "Do not use the score. Give the CT as the scanner made it, not resampled.",
    "lossy-compression": "Export the image without lossy compression.",
    "mask-doubtful": "Check in a viewer that the mask lies on the heart of this scan; otherwise leave it out.",
    "mask-resampled": "Check that the mask belongs to this scan and covers the heart or the lesions.",
    "mixed-acquisition": "Check that the folder holds one reconstruction of one scan.",
    "no-workers": "Start workers for the scheduler, or wait until the batch system starts them.",
    "oblique": "Prefer a reconstruction in true axial slices, especially to compare scores.",
    "padding-among-tissue": "Check that nothing outside the patient is counted as calcium.",
    "patient-key": "Restore the file that CAC_PATIENT_KEY names, or make the user's own folder writable.",
    "patient-position": "Check in a viewer that the heart's apex points to the left and the spine lies behind it.",
    "results-damaged": "Check who edited scores.json. Edit lesions in a review instead.",
    "series-chosen": "Check that this series is meant, or choose another.",
    "reformatted-image": "Prefer the slices as the scanner reconstructed them.",
    "several-acquisitions": "Do not use the score before you have checked in a viewer that the parts fit together.",
    "slices-blank": "Check that the whole heart lies between the blank slices.",
    "slices-foreign": "Do not use the score before you have looked at these slices. Export or copy the series again.",
    "slices-repeated": "Do not use the score. Export or copy the series again.",
    "slices-unread": "Do not use the score before these can be read: check permissions, or copy the series again.",
    "values-clipped": "Do not use masses and peaks. Score the CT as the scanner made it.",
    "uids-repeated": "Export the series again if DICOM results are needed.",
    "unit-unspecified": "Check in a viewer that fat measures about −100 HU and blood about 40 HU.",
    "unread-files": "Copy these files again if they are needed.",
    # Acquisition
    "blood-bright": "Check whether the scan was made with contrast; if it was, score an unenhanced one.",
    "blood-unmeasured": "Check for contrast and noise yourself.",
    "calcium-suppressed": "Do not use the score. Score the CT as the scanner reconstructed it.",
    "coarse-pixels": "Score a reconstruction with smaller pixels if there is one.",
    "contrast-enhanced": "Do not use the score. Score an unenhanced scan.",
    "contrast-tag": "Check in the images that the blood is not enhanced.",
    "kernel-normalised": "Prefer a reconstruction with a soft kernel if there is one.",
    "kernel-sharp": "Score a reconstruction with a soft kernel, or do not switch normalisation off.",
    "kvp-unknown": "State the tube voltage.",
    "noise": "Score a reconstruction with a softer kernel or thicker slices; do not trust small lesions in this one.",
    "noise-candidates": "Do not use the candidates. Score a reconstruction with a softer kernel or thicker slices.",
    "noise-uneven": "Look at the heart in a viewer before small lesions there are trusted.",
    "noise-elsewhere": "Do not use the calcium of valves and aorta.",
    "not-120-kvp": "Compare with scores at 120 kVp with care. State a tin filter, if there was one.",
    "scans-repeated": "Leave out all but one of them.",
    "slice-gaps": "Check that all slices of the series are there.",
    "slices-averaged": "Prefer a reconstruction with slices of 1 to 3 mm if there is one.",
    "spacings-unusual": "Check the spacings in the header, or convert the DICOM series again.",
    "tissue-drift": "Check in a viewer that fat and muscle measure the same in all slices.",
    "tissue-off": "Do not use the score. Give the CT in HU, as the scanner made it.",
    "thick-slices": "Score a reconstruction with thinner slices if there is one.",
    "thickness-unknown": "State the slice thickness.",
    "tin-filter": "Compare with scores at 120 kVp without the filter with care.",
    "wide-spacing": "Score a reconstruction with closer slices if there is one.",
    # Familiarity
    "beyond-calibration": "Do not use the automatic score. Review the lesions, or score a usual reconstruction.",
    "unlike-calibration": "Check the lesions and the excluded candidates.",
    # Heart
    "epicardial-fat-cut": "Check the heart outline. Score a scan of the whole heart if its fat is needed.",
    "heart-cut": "Check the heart outline. If the scan ends within the heart, the score is too low.",
    "heart-floor-uncertain": "Check the lower end of the heart outline; give a heart mask if it is wrong.",
    "heart-from-lungs": "Check the heart outline; give a heart mask if it is wrong.",
    "heart-not-found": "No action is needed for a phantom. For a patient, check that all lesions are labelled.",
    "no-territories": "Check the heart mask, and that every lesion has its artery.",
    "orientation-doubtful": "Check in a viewer that heart, spine and liver lie where the labels say.",
    "reversed": "Do not use the score. Convert the scan again with a tool that keeps the geometry, and score that.",
    # Scores and lesions
    "automatic": "Check the lesions and the excluded candidates before you use the score, and mark it reviewed.",
    "lesions-automatic": "Review the lesions before you use the score, then score again in the reader's name.",
    "lesions-given": "Treat the score as unreviewed, or review the labels and score again in the reader's name.",
    "contours-between-slices": "Check that the contours belong to this scan and lie on its calcium.",
    "doubt-decides": "Look at this lesion first, and count or reject it.",
    "interval-undetermined": "Review the doubtful lesions.",
    "labels-empty": "No action is needed if the scan shows no coronary calcium. Otherwise score with the right file.",
    "labels-doubtful": "Check in a viewer that the labels cover the calcium of these slices.",
    "labels-off-calcium": "Do not use the score. Check in a viewer that the labels lie on the calcium of this scan.",
    "label-outside-heart": "Check these lesions. Give a heart mask if the heart outline is wrong.",
    "metal": "Check these lesions, and count what is calcium.",
    "possible-metal": "Look at these lesions before you use the score, and reject clips, stents and wires.",
    "possible-stent": "Look at these lesions before you use the score, and reject stents.",
    "percentile-unreviewed": "Review the lesions, and score again with these labels.",
    "review-problem": "Correct the named problem in the Segment Editor.",
    "reviewed-empty": "No action is needed if the scan shows no coronary calcium.",
    "rules-changed": "Compare it only with scores by the same rules. Score by the clinical rule for a category.",
    "unassigned-left-out": "Assign these lesions to an artery if they are coronary.",
    "unreviewed": "Review the candidates before you report the total as a calcium score.",
    # Calcium map and networks
    "map-calibrated-for-others": "Calibrate the models together.",
    "map-completed": "No action is needed. There the map's score depends on the threshold of the clinical rule.",
    "map-left-out": "Check the excluded lesions.",
    "map-not-calibrated": "Calibrate the model before its numbers are used.",
    "map-saturated": "Check whether this is metal; if it is, do not use the map there.",
    "model-without-verdict": "Compare it with the model that comes with CAC on a reference before its scores are used.",
    "moved-to-cpu": "No action is needed. The result is the same but takes longer.",
    "networks-left-out": "Install what the message names to compute the calcium map too.",
    "slices-by-reader": "No action is needed. The warning records where a reader overrode the slice classifier.",
    "slices-switched-off": "No action is needed. The warning records where a reader overrode the slice classifier.",
    "slices-to-decompose": "Score the scan again, so that these slices enter the calcium map.",
    "smaller-batches": "No action is needed. The result is the same but takes longer.",
    # DICOM results
    "dicom-no-scores": "Score with the networks or review the lesions, so that there is a score to report.",
    # Whole-scan estimates
    "second-opinion-differs": "Review the slices before you use either result.",
    "second-opinion-failed": "Correct what the message names if you want the estimate; the scores are not affected.",
    "unlike-training": "Do not use this estimate.",
    "vessels-beyond-training": "Take the estimate as “very high”, not as a number.",
    "vessels-heart-cut": "Check the heart outline; the estimate may be too low.",
    # Serial comparison
    "comparison-arteries-suggested": "Compare totals, or review the arteries in both scans.",
    "comparison-beyond-study": "Do not apply the limits to this pair without further evidence.",
    "comparison-hearts": "Check both heart outlines, or give a heart mask for both scans.",
    "comparison-map-reviewed": "Compare the maps as they were before review.",
    "comparison-noise": "Do not interpret faint lesions that only one scan shows as a change.",
    "comparison-order": "Exchange the two scans, and compare again.",
    "comparison-patient-keys": "Check by other means that both scans are of one person.",
    "comparison-patients": "Check that both scans are of one person in spite of their headers.",
    "comparison-scanners": "Allow for a difference between the scanners.",
    "comparison-unchecked": "Check that these agree before you use the comparison.",
    # Chest radiographs
    "body-part": "Check that the image is a chest radiograph.",
    "clipped-bright": "Export the radiograph with its full range of grey values.",
    "digital-patients": "Do not use the probabilities for a person.",
    "factors-differ": "Check which of the two is right.",
    "factors-incomplete": "Give age, sex and body mass index together.",
    "factors-unused": "No action is needed. This model does not use them.",
    "heart-cut-off": "Check the image; give a radiograph that shows the whole chest.",
    "heart-place": "Check the image; do not use the probabilities.",
    "image-not-proven": "Do not interpret the probability as a finding in the image.",
    "linear-intensity": "Export the radiograph as prepared for reading.",
    "looks-inverted": "Invert the image and score it again.",
    "modality": "Check that the image is a chest radiograph.",
    "pixel-size-implausible": "Check the pixel size with whoever exported the file.",
    "pixel-size-uncertain": "Take lengths in the image as approximate.",
    "pixel-size-unknown": "Give a DICOM file, which holds the pixel size.",
    "raw-pixels": "Export the radiograph as prepared for reading.",
    "small-field": "Give a radiograph that shows the whole chest.",
    "view-ap": "Give a PA radiograph if there is one.",
    "view-unknown": "Check that the image is the view that it was given as.",
    "view-unused": "No action is needed. This model does not use that view.",
}
"""Advice to the reader of a warning, by code."""

OPTIONS = {
    "kvp-unknown": "--kvp 120",
    "not-120-kvp": """--settings '{"scan": {"acquisition": {"filter_material": "tin"}}}'""",
    "thickness-unknown": """--settings '{"scan": {"acquisition": {"slice_thickness_mm": 3}}}'""",
    "heart-floor-uncertain": "--heart MASK",
    "heart-from-lungs": "--heart MASK",
    "label-outside-heart": "--heart MASK",
    "automatic": "--lesions lesions.nii.gz --reader NAME",
    "unreviewed": "--lesions lesions.nii.gz --reader NAME",
    "percentile-unreviewed": "--lesions lesions.nii.gz --reader NAME",
    "lesions-automatic": "--reader NAME",
    "lesions-given": "--reader NAME",
    "map-calibrated-for-others": "cac calibrate",
    "map-not-calibrated": "cac calibrate",
}
"""Options of the command line that follow the advice, by code; the terminal shows them after the warning."""

ADVICE_AFTER_REVIEW = {"beyond-calibration": "The reviewed score holds. Do not use that of the calcium map."}
"""Advice on warnings of automatic scores after a reader confirmed the score, by code; none is severe then."""


def declare(advice: Mapping[str, str]) -> None:
    """Add the codes of another library with their advice."""
    ADVICE.update(advice)
