"""One scan of a study, and what its truth tells of its scale."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudyScan:
    """One scan, as a rule of a patient's two.

    name: in tables. number: 1 or 2; more for further scans of a patient, which are in no pair. ct: image file or DICOM
    folder, with its series. truth: folder of a digital scan's files, None for others.

    Of others, what the study compares with, and does not score the scan by. heart: a reader's mask. lesions: a reader's
    label map of arteries (`labels.Artery`), painted as generously as one likes: a voxel counts from 130 HU on, within
    a lesion of at least the clinical rule's area; an empty map says that the reader saw nothing. labels: of slices,
    counted from the feet, whether coronary calcium is visible; where there are none, it is where lesions were painted.
    labelled_whole: whether they are of every slice with heart, so that a scan without a visible one has none.
    """

    name: str
    patient: str
    number: int
    ct: Path
    series: str | None = None
    truth: Path | None = None
    heart: Path | None = None
    lesions: Path | None = None
    labels: tuple[tuple[int, bool], ...] | None = None
    labelled_whole: bool = False


def hu_mm3_per_mass(scan: StudyScan) -> float:
    """HU·mm³ for one unit of mass: for 1 mg of a digital scan, as its truth says; else 1.

    Raises OSError, ValueError, KeyError for a truth that cannot be read.
    """
    if scan.truth is None:
        return 1.0
    truth = json.loads((scan.truth / "truth.json").read_text(encoding="utf-8"))
    return 1000 * float(truth["calcium_hu_per_mg_cm3"])
