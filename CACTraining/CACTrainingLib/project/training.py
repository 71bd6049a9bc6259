"""Turn a project's annotations into the truth of each scan for training.

Digital patients have their own truth, with a true calcium map. If a single annotator is requested who has labelled
their slices, these labels replace the truth and its map, which holds calcium that the annotator did not see. Other
scans have their annotators' labels and no map.

A slice with a painted region but without a label shows calcium. A slice labelled by several annotators gets the label
of the majority; on a tie, or if the majority is unsure, it has none. The truth is written as
`scans/ID/training/NAME/truth.json`, in the format of digital patients, and rewritten only if it has changed, because
scans are prepared for training once.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.cohort import folder as cohort
from CACScoringLib.core.errors import CTError, DataError, ProjectWriteError
from CACScoringLib.core.files import LAST_FILE, read_json, write_text_atomically
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io import reading
from CACScoringLib.io.image_files import read_header
from CACScoringLib.scans.table import scans_of_table

from .annotation_files import SLICES_FILE, SliceAnnotations, SliceLabel, as_labels, mask_file
from .annotations import annotators, check_annotator, read_annotated_mask, slice_annotations
from .files import SCANS_FILE, ProjectScan, disk_error
from .project import Project
from .proposals import read_proposal
from .training_scan import TrainingScan, kind_of, scan_in

RESULTS = "results"
"""Subfolder of a project with the results of a cohort of its scans."""


def automatic_results(project: Path) -> dict[tuple[Path, str | None], Path]:
    """Return the folder of each scored scan's results by CT and series; empty without results.

    Raises UnreadableError if the record of the results is damaged.
    """
    record = project / RESULTS / cohort.RECORD
    if not record.is_file():
        return {}
    folders = {digest: record.parent / name for name, digest in cohort.scan_digests(record).items()}
    results = {}
    for scan in scans_of_table(project / SCANS_FILE)[0]:
        folder = folders.get(scan.label)
        if folder is not None and (folder / LAST_FILE).is_file():
            results[scan.ct.resolve(), scan.series] = folder
    return results


SCHEMA = "cac-annotated/1"
CONSENSUS = "_consensus"
"""Folder of the majority's labels; no annotator can have this name."""


def training_scans(project: Project, annotator: str | None = None) -> list[TrainingScan]:
    """Return the scans of a project that can be trained on, in the project's order, with their stored uses.

    Scans are left out if their CT is missing, if they have no heart, not even a proposed one, or if neither their heart
    was outlined nor a slice labelled. The heart is the first annotator's by name, else a digital patient's true one,
    else the proposed one.

    Args:
        project: The project.
        annotator: Annotator whose annotations count; None for all.

    Raises:
        DataError: No scan can be trained on, the annotator has annotated none, or a truth is damaged.
        ProjectError: Annotations cannot be read.
    """
    annotator = check_annotator(annotator) if annotator else None
    if annotator and (reason := annotated_nothing(project, annotator)):
        raise DataError(reason)
    missing = {scan.id for scan in project.missing()}
    scans = [training_scan(project, scan, annotator) for scan in project.scans if scan.id not in missing]
    results = automatic_results(project.folder)
    usable = [
        replace(scan, automatic=results.get((scan.ct.resolve(), scan.series))) if scan.calcium_map is None else scan
        for scan in scans
        if scan is not None
    ]
    if not usable:
        whose = f" by {annotator}" if annotator else ""
        raise DataError(
            f"None of the {len(project.scans)} scans of {project.name} can be trained on: {len(missing)} are not where "
            f"they were, and the others have no labels or heart{whose}. Check the project to see what is missing."
        )
    return usable


def annotated_nothing(project: Project, annotator: str) -> str | None:
    """Return a message if an annotator has annotated no scan of a project, such as for a name with a typing error."""
    names = {name for scan in project.scans for name in annotators(project, scan.id)}
    if annotator.strip().lower() in {name.lower() for name in names}:
        return None
    return f"{annotator} has annotated no scan. Annotators are {', '.join(sorted(names)) or 'none'}."


def training_scan(project: Project, scan: ProjectScan, annotator: str | None = None) -> TrainingScan | None:
    """Return a scan as in `training_scans`, or None if it is left out. Raises DataError, ProjectError."""
    names = annotators(project, scan.id, annotator)
    labels = consensus(slice_labels(project, scan, name) for name in names)
    heart = _annotated_heart(project, scan, names)
    if scan.truth is not None and (annotator is None or not labels):
        true = scan_in(scan.truth)
        return replace(true, name=scan.name, ct=scan.ct, heart=heart or true.heart, patient=scan.patient, use=scan.use)
    is_outlined = heart is not None
    if heart is None and scan.truth is not None:
        heart, is_outlined = scan_in(scan.truth).heart, True
    if heart is None and (proposal := read_proposal(project, scan.id)) is not None:
        heart = proposal.heart_file
    if heart is None or not (labels or is_outlined):
        return None
    truth = {
        "schema": SCHEMA,
        "patient": scan.patient,
        "annotators": names,
        "slices": [{"k": k, "visible": labels.get(k)} for k in range(_slice_count(heart))],
    }
    return TrainingScan(
        name=scan.name,
        ct=scan.ct,
        heart=heart,
        patient=scan.patient,
        kind=kind_of(truth),
        truth=_write_truth(project.scan_folder(scan.id) / "training" / (names[0] if annotator else CONSENSUS), truth),
        heart_known=is_outlined,
        series=scan.series,
        use=scan.use,
        annotators=tuple(names) if scan.truth is None else (),
    )


def painted_regions(scan: TrainingScan) -> list[tuple[sitk.Image | None, dict[int, SliceLabel]]]:
    """Read each annotator's regions in a real scan, None without any, and labels of slices.

    scan: From `training_scan`. Raises ProjectError or CTError if a file cannot be read.
    """
    assert scan.truth is not None
    annotations = []
    for folder in (scan.truth.parents[2] / "annotators" / name for name in scan.annotators):
        file = mask_file(folder, "regions")
        image = as_labels(reading.read_mask(file), f"{file}") if file.is_file() else None
        annotations.append((image, dict(SliceAnnotations(folder / SLICES_FILE).labels)))
    return annotations


def slice_labels(project: Project, scan: ProjectScan, annotator: str) -> dict[int, SliceLabel]:
    """Return an annotator's labels of slices by k; unlabelled slices with a painted region are visible."""
    labels = slice_annotations(project, scan.id, annotator).labels
    return {**dict.fromkeys(painted_slices(project, scan, annotator), SliceLabel.VISIBLE), **labels}


def painted_slices(project: Project, scan: ProjectScan, annotator: str) -> list[int]:
    """Return the slices in which an annotator painted a region, cached by the mask's size and time."""
    folder = project.scan_folder(scan.id)
    try:
        stat = (folder / "annotators" / annotator / "regions.nii.gz").stat()
    except OSError:
        return []
    state = [stat.st_size, stat.st_mtime_ns]
    cache_file = folder / "training" / annotator / "painted.json"
    try:
        cached = read_json(cache_file)
        if cached["regions"] == state:
            return [int(k) for k in cached["slices"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    regions = read_annotated_mask(project, scan.id, annotator, "regions")
    slices: list[int] = []
    if regions is not None:
        slices = np.flatnonzero(voxels_of(regions).any((1, 2))).tolist()
    with contextlib.suppress(ProjectWriteError):  # without a cache, the mask is read again
        _write(cache_file, json.dumps({"regions": state, "slices": slices}))
    return slices


def consensus(readings: Iterable[dict[int, SliceLabel]]) -> dict[int, bool]:
    """Return the visibility of calcium by k, for slices in which visible or not visible has the most votes."""
    votes: dict[int, Counter[SliceLabel]] = {}
    for labels in readings:
        for k, label in labels.items():
            votes.setdefault(k, Counter())[label] += 1
    visibility: dict[int, bool] = {}
    for k, counts in votes.items():
        (label, count), *runners_up = counts.most_common(2)
        if label is not SliceLabel.UNSURE and (not runners_up or count > runners_up[0][1]):
            visibility[k] = label is SliceLabel.VISIBLE
    return visibility


def _annotated_heart(project: Project, scan: ProjectScan, names: Iterable[str]) -> Path | None:
    folders = (project.scan_folder(scan.id) / "annotators" / name for name in names)
    return next((path for path in (folder / "heart.nii.gz" for folder in folders) if path.is_file()), None)


def _slice_count(mask: Path) -> int:
    """Read the number of slices of a mask from its header. Raises DataError."""
    try:
        return read_header(mask).GetSize()[2]
    except CTError as error:
        raise DataError(f"{mask} cannot be read. Outline the heart again, or make its proposal anew.") from error


def _write_truth(folder: Path, truth: dict[str, Any]) -> Path:
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
        raise disk_error(path, error) from error
