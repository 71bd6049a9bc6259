"""Read and write annotations of a project's scans: labels of slices, regions with calcium, the heart.

Each annotator has a folder (see `project.annotation_files`). A slice is named by k, its index in the image of
`CACScoringLib.io.reading.read_ct`: LPS, counted from 0 at the feet.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from CACScoringLib.core.errors import CTError, ProjectError
from CACScoringLib.core.files import read_json

from .annotation_files import SLICES_FILE, SliceAnnotations, SliceLabel, as_labels, mask_file, save_mask
from .files import ProjectScan

if TYPE_CHECKING:
    from .project import Project

TRUTH = "truth"
"""Name of a digital patient's truth in comparisons with annotators; no annotator may have it."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def check_annotator(name: str) -> str:
    """Return an annotator's name if it can name a folder on every system. Raises ProjectError otherwise."""
    name = str(name).strip()
    if not _is_name(name):
        raise ProjectError(
            f"{name[:60]!r} cannot be the name of an annotator. Use up to 40 letters (a–z), digits, spaces, dots, _ "
            f"and -, beginning with a letter or digit and not ending with a dot; {TRUTH!r} and names that Windows "
            "keeps for itself, such as con, are taken."
        )
    return name


def _is_name(name: str) -> bool:
    """True if an annotator can have a folder of this name on every system."""
    plain = re.fullmatch(_NAME, name) and name[-1] not in " ."
    return bool(plain) and name.split(".")[0].strip().lower() not in (*_RESERVED, TRUTH)


def annotators(project: Project, scan_id: str, annotator: str | None = None) -> list[str]:
    """Return the annotators of a scan by name, also those without labels.

    annotator: Return this annotator alone, in any capitals; None for all.
    """
    names = sorted(_folders(project.scan_folder(scan_id)), key=str.lower)
    return names if annotator is None else [name for name in names if name.lower() == annotator.strip().lower()]


def slice_annotations(project: Project, scan_id: str, annotator: str) -> SliceAnnotations:
    """Open an annotator's labels of a scan's slices. Raises ProjectError."""
    return SliceAnnotations(_annotator_folder(project.scan_folder(scan_id), annotator) / SLICES_FILE)


def truth_labels(scan: ProjectScan) -> dict[int, SliceLabel]:
    """Return a digital patient's known labels of slices by k; {} for a scan without a truth.

    Raises ProjectError if the truth cannot be read.
    """
    if scan.truth is None:
        return {}
    labels = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
    try:
        slices = read_json(scan.truth)["slices"]
        return {int(entry["k"]): labels[entry["visible"]] for entry in slices if entry["visible"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{scan.truth}, the truth of {scan.name}, cannot be read ({type(error).__name__}: {error}). Copy it "
            "again, or write the digital patient again."
        ) from error


def patient_kinds(project: Project) -> dict[str, int]:
    """Classify patients by their calcium: 2 visible in a slice, 1 not visible in any labelled slice, 0 unknown.

    Labels of all annotators and a digital patient's truth count. Raises ProjectError if annotations cannot be opened.
    """
    kinds: dict[str, int] = {}
    for scan in project.scans:
        labels = set(truth_labels(scan).values())
        for name in annotators(project, scan.id):
            labels |= set(slice_annotations(project, scan.id, name).labels.values())
        kind = 2 if SliceLabel.VISIBLE in labels else int(SliceLabel.NOT_VISIBLE in labels)
        kinds[scan.patient] = max(kinds.get(scan.patient, 0), kind)
    return kinds


def read_annotated_mask(project: Project, scan_id: str, annotator: str, kind: str) -> sitk.Image | None:
    """Read an annotator's regions or heart as uint8 labels on the scan's grid, or return None if there are none.

    kind: One of MASK_KINDS. Raises ProjectError if the file cannot be read.
    """
    file = mask_file(_annotator_folder(project.scan_folder(scan_id), annotator), kind)
    if not file.is_file():
        return None
    from CACScoringLib.io import reading

    try:
        image = reading.read_mask(file)
    except CTError as error:
        name = project.scan(scan_id).name
        raise ProjectError(f"The {kind} of {name} by {annotator} cannot be read. {error} ({file})") from error
    return as_labels(image, f"{file}")


def write_mask(project: Project, scan_id: str, annotator: str, kind: str, image: sitk.Image) -> None:
    """Replace an annotator's regions or heart; an empty mask is allowed.

    kind: One of MASK_KINDS. image: 3-D integers from 0 to 255, on the scan's grid. Raises ProjectError for another
    image, and ProjectWriteError if it cannot be saved; the earlier mask then stays.
    """
    save_mask(_annotator_folder(project.scan_folder(scan_id), annotator), kind, image)


def _folders(scan_folder: Path) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(scan_folder / "annotators") if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProjectError(f"{scan_folder} cannot be opened: {error.strerror}. Check its permissions.") from error
    return [name for name in names if _is_name(name)]


def _annotator_folder(scan_folder: Path, annotator: str) -> Path:
    """Return an annotator's folder, whose name may have other capitals."""
    name = check_annotator(annotator)
    folders = [folder for folder in _folders(scan_folder) if folder.lower() == name.lower()]
    return scan_folder / "annotators" / (name if name in folders or not folders else sorted(folders)[0])
