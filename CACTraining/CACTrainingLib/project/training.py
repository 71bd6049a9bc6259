"""The scans of a project as training takes them: what annotators said, made into the truth of each scan.

A digital patient is trained on as its truth says, with its true calcium map. Where an annotator is asked for who has
labelled slices of it, their word takes the place of the truth, and the map is left out: it would call calcium what they
did not see. Other scans have what their annotators say and no map.

A slice that an annotator painted a region in without labelling it shows calcium. Where several have looked at a slice,
it has the label that most of them gave; on a tie, or when most are unsure, it has none. What results is written as
`scans/ID/training/NAME/truth.json`, in the form of digital patients, and only anew when it has changed: scans are
prepared for training once.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.io.image_files import read_header

from .annotations import SliceLabel, annotators, check_annotator, read_mask, slice_annotations
from .files import not_written
from .project import Project, ProjectScan, ProjectWriteError
from .proposals import read_proposal
from .training_scan import DataError, TrainingScan, kind_of, scan_in

SCHEMA = "cac-annotated/1"
CONSENSUS = "_consensus"
"""Where what most annotators say is kept; no annotator can have this name."""


def training_scans(project: Project, annotator: str | None = None) -> list[TrainingScan]:
    """The scans of a project that can be trained on, in the project's order, with their stored uses.

    annotator: whose annotations count; None for everybody's. Left out are scans whose CT is not where it was, those
    without a heart or a proposal of it, and those of which neither the heart nor any slice is known.

    heart: the annotator's, or the first annotator's by name; of a digital patient without one the true heart; else the
    proposal's, which does not count as known. Raises DataError when nothing can be trained on, or a truth is damaged;
    ProjectError.
    """
    annotator = check_annotator(annotator) if annotator else None
    missing = {scan.id for scan in project.missing()}
    found = [training_scan(project, scan, annotator) for scan in project.scans if scan.id not in missing]
    usable = [scan for scan in found if scan is not None]
    if not usable:
        whose = f" by {annotator}" if annotator else ""
        raise DataError(
            f"None of the {len(project.scans)} scans of {project.name} can be trained on: {len(missing)} are not where "
            f"they were, and the others have no labels or heart{whose}. Check the project to see what is missing."
        )
    return usable


def training_scan(project: Project, scan: ProjectScan, annotator: str | None = None) -> TrainingScan | None:
    """One scan of a project as `training_scans` gives it; None when it is left out. Raises DataError, ProjectError."""
    own = annotators(project, scan.id, annotator)
    labels = consensus(slice_labels(project, scan, name) for name in own)
    heart = _annotated_heart(project, scan, own)
    if scan.truth is not None and (annotator is None or not labels):
        true = scan_in(scan.truth)
        return replace(true, ct=scan.ct, heart=heart or true.heart, patient=scan.patient, use=scan.use)
    known = heart is not None
    if heart is None and scan.truth is not None:
        heart, known = scan_in(scan.truth).heart, True
    if heart is None and (proposal := read_proposal(project, scan.id)) is not None:
        heart = proposal.heart_file
    if heart is None or not (labels or known):
        return None
    truth = {
        "schema": SCHEMA,
        "patient": scan.patient,
        "annotators": own,
        "slices": [{"k": k, "visible": labels.get(k)} for k in range(_slice_count(heart))],
    }
    return TrainingScan(
        ct=scan.ct,
        heart=heart,
        patient=scan.patient,
        kind=kind_of(truth),
        truth=_written(project.scan_folder(scan.id) / "training" / (own[0] if annotator else CONSENSUS), truth),
        heart_known=known,
        series=scan.series,
        use=scan.use,
    )


def slice_labels(project: Project, scan: ProjectScan, annotator: str) -> dict[int, SliceLabel]:
    """An annotator's labels of slices, by k, with regions that they painted in slices without a label."""
    labels = slice_annotations(project, scan.id, annotator).labels
    return {**dict.fromkeys(painted_slices(project, scan, annotator), SliceLabel.VISIBLE), **labels}


def painted_slices(project: Project, scan: ProjectScan, annotator: str) -> list[int]:
    """Slices in which an annotator painted a region. Read once and kept beside the mask's time and size."""
    folder = project.scan_folder(scan.id)
    try:
        stat = (folder / "annotators" / annotator / "regions.nii.gz").stat()
    except OSError:
        return []
    state = [stat.st_size, stat.st_mtime_ns]
    kept = folder / "training" / annotator / "painted.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["regions"] == state:
            return [int(k) for k in known["slices"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    regions = read_mask(project, scan.id, annotator, "regions")
    slices = [int(k) for k in sitk.GetArrayFromImage(regions).any((1, 2)).nonzero()[0]]
    with contextlib.suppress(ProjectWriteError):  # they are read anew the next time
        _write(kept, json.dumps({"regions": state, "slices": slices}))
    return slices


def consensus(said: Iterable[dict[int, SliceLabel]]) -> dict[int, bool]:
    """Visibility of calcium, by k, where more annotators agree on it than on anything else."""
    votes: dict[int, Counter[SliceLabel]] = {}
    for labels in said:
        for k, label in labels.items():
            votes.setdefault(k, Counter())[label] += 1
    agreed: dict[int, bool] = {}
    for k, own in votes.items():
        (label, most), *others = own.most_common(2)
        if label is not SliceLabel.UNSURE and (not others or most > others[0][1]):
            agreed[k] = label is SliceLabel.VISIBLE
    return agreed


def _annotated_heart(project: Project, scan: ProjectScan, own: Iterable[str]) -> Path | None:
    folders = (project.scan_folder(scan.id) / "annotators" / name for name in own)
    return next((path for path in (folder / "heart.nii.gz" for folder in folders) if path.is_file()), None)


def _slice_count(mask: Path) -> int:
    """Slices of a mask on a scan's grid, by its header. Raises DataError."""
    try:
        return read_header(mask).GetSize()[2]
    except CTError as error:
        raise DataError(f"{mask} cannot be read. Outline the heart again, or make its proposal anew.") from error


def _written(folder: Path, truth: dict) -> Path:
    path, text = folder / "truth.json", json.dumps(truth, indent=1, ensure_ascii=False)
    try:
        if path.read_text(encoding="utf-8") == text:
            return path
    except (OSError, ValueError):
        pass
    _write(path, text)
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, text)
    except OSError as error:
        raise not_written(path, error) from error
