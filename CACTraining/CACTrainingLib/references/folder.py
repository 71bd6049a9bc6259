"""Find scans to add to a project, below a folder or in a table.

Only names and headers are read; voxels are read when a scan is added. DICOM series, image files, digital patients (a
`ct` with its `truth.json`) and COCA (`coca`) are recognised in all subfolders.

Segmentations are imported as annotations by "segmentation" (`segmentations`): for a scan NAME an image file
called `NAME-lesions` or `NAME.seg.nrrd`, and for its heart `NAME-heart`, beside the scan. In a folder of labels, which
then is the only place, plain `NAME` is accepted for lesions too. NAME is the name of the image file without its ending,
or of the folder of DICOM files or of a file called `ct`. A table has the form of `cac cohort`
(`scans.table.scans_of_table`) and can assign scans to one patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.image_files import read_header
from CACScoringLib.io.reading import IMAGE_ENDINGS, stem
from CACScoringLib.scans.folder import (
    SEGMENTATION_ENDING,
    WHOLE_FOLDER,
    Listing,
    Search,
    listings_of,
    scans_of_folder,
    search,
)
from CACScoringLib.scans.table import scans_of_table

from ..project.project import NewScan, is_project
from ..project.training_scan import read_truth
from . import coca
from .reference import ProgressCallback, Reference, ReferenceScan, patient_in
from .segmentations import HEART, LESIONS, segmentation_annotations

TRUTH = "truth.json"
TABLE_ENDINGS = (".csv", ".tsv")


_NamedScan = tuple[NewScan, str]
"""Scan with the plain name of its file or folder, by which its segmentations are found."""


def find_new_scans(
    source: Path, progress: ProgressCallback | None = None, labels: Path | None = None
) -> tuple[list[NewScan], list[str]]:
    """Find the scans of a file or table, or below a folder; return them with warnings about skipped files.

    labels: Folder of segmentations. progress: Function called with the numbers of read and of all DICOM folders.
    Raises DataError if there is no scan.
    """
    source, labels = Path(source), None if labels is None else Path(labels)
    if labels is not None and not labels.is_dir():
        raise DataError(f"The folder of labels {labels} does not exist.")
    if source.name.lower().endswith(TABLE_ENDINGS) and source.is_file():
        return _table_scans(source)
    warnings: list[str] = []
    if source.is_file():
        named_scans = _image_scans(source.parent, [source], warnings)
    elif source.is_dir():
        named_scans = _folder_scans(source, labels, warnings, progress)
    else:
        raise DataError(f"{source} does not exist. Give a CT, or a folder of scans.")
    scans = _with_segmentations(named_scans, labels, warnings)
    if not scans:
        reason = f" {warnings[0]}" if warnings else ""
        raise DataError(f"{source} holds no scan that can be added.{reason} Give DICOM folders, NIfTI, NRRD or MHA.")
    patients = Counter(scan.patient for scan in scans)
    if len(patients) == 1 and len(scans) > 2:
        warnings.append(
            f"All {len(scans)} scans are of one patient by their headers ({scans[0].patient}). If they are not, give "
            "each patient an ID of its own: scans of one patient are never split between training and test."
        )
    return scans, warnings


def _table_scans(table: Path) -> tuple[list[NewScan], list[str]]:
    scans, warnings = scans_of_table(table)
    new_scans = []
    for scan in scans:
        new_scan = NewScan(scan.name, scan.patient or scan.name, scan.ct, scan.series)
        new_scans.append(_segmented(new_scan, scan.lesions, scan.heart))
    return new_scans, [warning.message for warning in warnings]


def _segmented(scan: NewScan, lesions: Path | None, heart: Path | None) -> NewScan:
    """Return a scan with segmentations, if there are any, as its annotations."""
    if lesions is None and heart is None:
        return scan
    return replace(scan, annotations=partial(segmentation_annotations, scan.ct, scan.series, lesions, heart))


def _folder_scans(
    root: Path, labels: Path | None, warnings: list[str], progress: ProgressCallback | None
) -> list[_NamedScan]:
    if is_project(root):
        raise DataError(f"{root} is a project itself. Give the folder where scans lie.")
    contents = search(root, root / ".cac-no-output" if labels is None else labels)
    warnings += [warning.message for warning in contents.warnings]
    # Folders of property lists hold no DICOM.
    folders = [f for f in contents.folders if f.name != coca.REGIONS_FOLDER and not _in_project(f, root)]
    gated, nongated = (_by_release(folders, place) for place in (coca.gated_place, coca.nongated_place))
    releases = [("coca-gated", coca.gated_reference(*release, progress)) for release in gated.items()]
    releases += [("coca-nongated", coca.nongated_reference(*release, None, progress)) for release in nongated.items()]
    named_scans = []
    for prefix, reference in releases:
        scans, doubts = new_scans(reference, prefix, "COCA", "coca")
        named_scans += [(scan, scan.name) for scan in scans]
        warnings += doubts
    plain_folders = [f for f in folders if coca.gated_place(f) is None and coca.nongated_place(f) is None]
    named_scans += _dicom_scans(
        root, dict(zip(plain_folders, listings_of(plain_folders, progress), strict=True)), warnings
    )
    return named_scans + _image_scans(root, [f for f in contents.files if not _in_project(f.parent, root)], warnings)


def _in_project(folder: Path, root: Path) -> bool:
    return any(is_project(place) for place in (folder, *folder.parents) if root in place.parents)


def _by_release(folders: Sequence[Path], place_of: Callable[[Path], tuple[Path, str] | None]) -> dict[Path, list[str]]:
    """Return the numbers of COCA's patients with DICOM folders by the folder of their release."""
    places = sorted({place for folder in folders if (place := place_of(folder))})
    return {root: [number for _, number in group] for root, group in groupby(places, key=lambda place: place[0])}


def new_scans(
    reference: Reference, prefix: str, annotator: str, source: str = "scan"
) -> tuple[list[NewScan], list[str]]:
    """Return the scans of a reference with its labels as annotations, and sentences about what is missing.

    Args:
        reference: The reference.
        prefix: Beginning of the names of scans and patients.
        annotator: Name of the annotator.
        source: One of `project.SOURCES`.
    """
    scans, reasons = [], dict[str, list[str]]()
    for scan in reference.scans:
        if reason := scan.missing or _unlabelled(scan):
            reasons.setdefault(f"Without labels in {reference.title}: {{}}. {reason}", []).append(scan.name)
        annotations = None if reason else partial(scan.annotations, annotator)
        name, patient = f"{prefix}-{scan.name}", f"{prefix}-{scan.patient}"
        new_scan = NewScan(name, patient, scan.ct, scan.series, source=source, annotations=annotations)
        scans.append(replace(new_scan, scores=scan.scores, gated=reference.gated))
    for name, reason in reference.refused:
        reasons.setdefault(f"Left out of {reference.title}: {{}}. {reason}", []).append(name)
    return scans, [sentence.format(abbreviated_list(names)) for sentence, names in reasons.items()]


def _unlabelled(scan: ReferenceScan) -> str:
    """Return why the scores of a scan label none of its slices; empty if they, or its outlines, do."""
    is_clean = scan.total == 0 and not any(scan.vessels.values())
    return "" if scan.outlines or is_clean else "Its score is above 0: label its slices."


def _dicom_scans(root: Path, series: Mapping[Path, Listing], warnings: list[str]) -> list[_NamedScan]:
    named_scans = []
    for folder, read in series.items():
        if read and read[0] and read[1]:
            warnings.append(f"{read[1]} DICOM files in {folder} are broken; its scans may have gaps.")
    for scan in scans_of_folder(root, Search((), tuple(series), ()), list(series.values())):
        if scan.fault:
            warnings.append(f"{scan.name} was passed over. {scan.fault}")
        else:
            new_scan = NewScan(scan.name, patient_in(scan) or scan.name, scan.ct, scan.series)
            named_scans.append((new_scan, scan.ct.name))
    return named_scans


def _image_scans(root: Path, files: Sequence[Path], warnings: list[str]) -> list[_NamedScan]:
    named_scans, faults = [], []
    names = {(path.parent, stem(path)) for path in files}
    for path in files:
        scan_name = next((stem(path)[: -len(end)] for end in (LESIONS, HEART) if stem(path).endswith(end)), None)
        if scan_name and ((path.parent, scan_name) in names or (path.parent / scan_name).is_dir()):
            continue  # a segmentation beside its scan
        if fault := _fault_of_image(path):
            faults.append(fault)
            continue
        name = scans_of_folder(root, Search((path,), (), ()), [])[0].name
        new_scan, truth = NewScan(name, name, path), path.parent / TRUTH
        is_ct = stem(path).lower() == WHOLE_FOLDER
        if is_ct and truth.is_file():
            try:
                patient = printable(str(read_truth(truth)["patient"]))
            except DataError as error:
                faults.append(str(error))
                continue
            new_scan = NewScan(name, patient, path, source="digital", truth=truth)
        named_scans.append((new_scan, path.parent.name if is_ct else stem(path)))
    if faults:
        warnings.append(f"{len(faults)} image files were passed over. {abbreviated_list(faults)}")
    return named_scans


def _fault_of_image(path: Path) -> str | None:
    """Return the reason why an image file cannot be a CT, by its header, or None."""
    try:
        reader = read_header(path)
    except CTError as error:
        return str(error)
    size = reader.GetSize()
    if len([n for n in size if n > 1]) < 3:
        return f"{path.name} is not a volume (size {'×'.join(map(str, size))})."
    if reader.GetNumberOfComponents() > 1 or reader.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8):
        return f"{path.name} is a label map or a picture, not HU."
    return None


def _with_segmentations(named_scans: Sequence[_NamedScan], labels: Path | None, warnings: list[str]) -> list[NewScan]:
    names = Counter(name for _, name in named_scans)
    places = Counter(scan.ct for scan, _ in named_scans)
    files_in: dict[Path, dict[str, Path]] = {}
    matched_files: set[Path] = set()
    scans = []
    for scan, name in named_scans:
        place = labels or scan.ct.parent
        if place not in files_in:
            files_in[place] = _by_name(place, labels is not None, warnings)
        files = files_in[place]
        lesions = files.get(name + LESIONS) or files.get(f"{name}{SEGMENTATION_ENDING}")
        lesions = lesions or (files.get(name) if labels is not None else None)
        heart = files.get(name + HEART)
        segmentations = {path for path in (lesions, heart) if path is not None}
        matched_files |= segmentations
        is_ambiguous = places[scan.ct] > 1 or (labels is not None and names[name] > 1)
        if segmentations and (is_ambiguous or scan.annotations is not None):
            reason = f"several scans are called {name}" if is_ambiguous else "it has labels of its own"
            file_names = abbreviated_list(sorted(path.name for path in segmentations))
            warnings.append(f"{scan.name} comes without {file_names}: {reason}.")
            scans.append(scan)
        else:
            scans.append(_segmented(scan, lesions, heart))
    label_files = files_in.get(labels, {}).values() if labels is not None else ()
    if unused := sorted(path.name for path in label_files if path not in matched_files):
        warnings.append(f"{len(unused)} files of {labels} fit no scan by their name: {abbreviated_list(unused)}.")
    return scans


def _by_name(folder: Path, of_labels: bool, warnings: list[str]) -> dict[str, Path]:
    """Return image files by their name without its ending; names of .seg.nrrd keep it, to differ from scans.

    Segmentations that only the ending distinguishes are left out with a warning.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(IMAGE_ENDINGS):
            is_segmentation = path.name.lower().endswith(SEGMENTATION_ENDING)
            files.setdefault(stem(path) + (SEGMENTATION_ENDING if is_segmentation else ""), []).append(path)
    for name, versions in files.items():
        if len(versions) > 1 and (of_labels or name.endswith((LESIONS, HEART, SEGMENTATION_ENDING))):
            listed = abbreviated_list(path.name for path in versions)
            warnings.append(f"{listed} have one name, so none of them is used. Keep one of them.")
    return {name: versions[0] for name, versions in files.items() if len(versions) == 1}
