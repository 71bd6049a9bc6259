"""Scans to add to a project: those below a folder, whatever they are, or those that a table lists.

Only names and headers are read; voxels are when a scan is added. Recognised are, wherever below the folder they lie:
DICOM series, image files, digital patients (a `ct` with its `truth.json`) and COCA (`coca`).

Segmentations come along as annotations by "segmentation" (`segmentation_labels`): for a scan NAME, a file called
`NAME-lesions`, with the ending of an image, or `NAME.seg.nrrd`, and for its heart `NAME-heart`. They are looked for
beside the scan; where a folder of labels is given, only there, and there plain `NAME` will do for lesions. NAME is the
name of the image file without its ending, or of the folder of DICOM files or of a file called `ct`. A table is one as
`cac cohort` takes it (`cohort.scans.scans_of_table`); it can say which scans are of one patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.cohort.scans import WHOLE_FOLDER, CohortScan, scans_of_table
from CACScoringLib.cohort.search import SEGMENTATION_ENDING, Search, scans_of_folder, search
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.dicom import read_slice
from CACScoringLib.io.image_files import read_header
from CACScoringLib.io.reading import IMAGE_ENDINGS, Series, find_series, stem

from ..project import NewScan, is_project
from ..training_scan import DataError, read_truth
from . import coca
from .segmentation_labels import segmentation_annotations

TRUTH = "truth.json"
TABLE_ENDINGS = (".csv", ".tsv")
LESIONS, HEART = "-lesions", "-heart"
"""What a segmentation's name has after the scan's."""

NAMELESS = ("anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "0")
"""Patient IDs that stand for no patient."""


class SourceError(CTError):
    """Nothing can be added from where the user said. The message says what to do."""


@dataclass(frozen=True)
class _NamedScan:
    """A scan with its file or folder's plain name, by which its segmentations are found."""

    scan: NewScan
    name: str


def find_new_scans(
    source: Path, progress: Callable[[int, int], None] | None = None, labels: Path | None = None
) -> tuple[list[NewScan], list[str]]:
    """The scans of a file or table, or below a folder, ready to be added to a project; what was passed over, and why.

    labels: folder of segmentations. progress: called with how many DICOM folders are read of how many.
    Raises SourceError when nothing is there.
    """
    source, labels = Path(source), None if labels is None else Path(labels)
    if labels is not None and not labels.is_dir():
        raise SourceError(f"The folder of labels {labels} does not exist.")
    if source.name.lower().endswith(TABLE_ENDINGS) and source.is_file():
        return _listed(source)
    warnings: list[str] = []
    if source.is_file():
        found = _image_scans(source.parent, [source], warnings)
    elif source.is_dir():
        found = _below(source, labels, warnings, progress)
    else:
        raise SourceError(f"{source} does not exist. Give a CT, or a folder of scans.")
    scans = _with_segmentations(found, labels, warnings)
    if not scans:
        why = f" {warnings[0]}" if warnings else ""
        raise SourceError(f"{source} holds no scan that can be added.{why} Give DICOM folders, NIfTI, NRRD or MHA.")
    patients = Counter(scan.patient for scan in scans)
    if len(patients) == 1 and len(scans) > 2:
        warnings.append(
            f"All {len(scans)} scans are of one patient by their headers ({scans[0].patient}). If they are not, give "
            "each patient an ID of its own: scans of one patient are never split between training and test."
        )
    return scans, warnings


def _listed(table: Path) -> tuple[list[NewScan], list[str]]:
    scans, warnings = scans_of_table(table)
    found = []
    for scan in scans:
        read = None
        if scan.lesions is not None or scan.heart is not None:
            read = partial(segmentation_annotations, scan.ct, scan.series, scan.lesions, scan.heart)
        found.append(NewScan(scan.name, scan.patient or scan.name, scan.ct, scan.series, annotations=read))
    return found, [warning.message for warning in warnings]


def _below(
    root: Path, labels: Path | None, warnings: list[str], progress: Callable[[int, int], None] | None
) -> list[_NamedScan]:
    if is_project(root):
        raise SourceError(f"{root} is a project itself. Give the folder where scans lie.")
    everything = search(root, root / ".cac-no-output" if labels is None else labels)
    warnings += [warning.message for warning in everything.warnings]
    # Folders of property lists hold no DICOM.
    folders = [f for f in everything.folders if f.name != coca.REGIONS_FOLDER and not _in_project(f, root)]
    series: dict[Path, tuple[list[Series], int] | None] = {}
    for n, folder in enumerate(folders, 1):
        series[folder] = _series_in(folder)
        if progress:
            progress(n, len(folders))
    ours = {f: series.pop(f) or ([], 1) for f in folders if coca.gated_place(f) or coca.nongated_place(f)}
    found = _coca_scans(ours, warnings)
    found += _dicom_scans(root, series, warnings)
    return found + _image_scans(root, [f for f in everything.files if not _in_project(f.parent, root)], warnings)


def _in_project(folder: Path, root: Path) -> bool:
    return any(is_project(place) for place in (folder, *folder.parents) if root in place.parents)


def _series_in(folder: Path) -> tuple[list[Series], int] | None:
    try:
        return find_series(folder)
    except (OSError, CTError):
        return None


def _coca_scans(folders: Mapping[Path, tuple[list[Series], int]], warnings: list[str]) -> list[_NamedScan]:
    found = []
    for place_of, scans_of in ((coca.gated_place, coca.gated_scans), (coca.nongated_place, coca.nongated_scans)):
        roots: dict[Path, dict[str, list[coca.CocaSeries]]] = {}
        for folder, (series, broken) in folders.items():
            place = place_of(folder)
            if place is None:
                continue
            if broken:
                warnings.append(f"{broken} files in {folder} are broken or cannot be opened.")
            for one in series:
                own = roots.setdefault(place[0], {}).setdefault(place[1], [])
                own.append(coca.CocaSeries(folder, one.uid))
        for root, series in sorted(roots.items()):
            scans, more = scans_of(root, dict(sorted(series.items(), key=lambda item: _natural(item[0]))))
            found += [_NamedScan(scan, scan.name) for scan in scans]
            warnings += more
    return found


def _dicom_scans(
    root: Path, series: Mapping[Path, tuple[list[Series], int] | None], warnings: list[str]
) -> list[_NamedScan]:
    found = []
    for folder, read in series.items():
        if read and read[0] and read[1]:
            warnings.append(f"{read[1]} DICOM files in {folder} are broken; its scans may have gaps.")
    for scan in scans_of_folder(root, Search((), tuple(series), ()), list(series.values())):
        if scan.fault:
            warnings.append(f"{scan.name} was passed over. {scan.fault}")
        else:
            new = NewScan(scan.name, patient_in(scan) or scan.name, scan.ct, scan.series)
            found.append(_NamedScan(new, scan.ct.name))
    return found


def patient_in(scan: CohortScan) -> str | None:
    """The patient's ID in the header of one of a series' files."""
    for path in sorted(scan.ct.iterdir()):
        try:
            slice_ = read_slice(path) if path.is_file() else None
        except (CTError, OSError):
            continue
        if slice_ is not None and slice_.text("SeriesInstanceUID") == scan.series:
            patient = slice_.text("PatientID")
            return None if patient is None or patient.lower() in NAMELESS else patient
    return None


def _image_scans(root: Path, files: Sequence[Path], warnings: list[str]) -> list[_NamedScan]:
    found, faults = [], []
    names = {(path.parent, stem(path)) for path in files}
    for path in files:
        scan = next((stem(path)[: -len(end)] for end in (LESIONS, HEART) if stem(path).endswith(end)), None)
        if scan and ((path.parent, scan) in names or (path.parent / scan).is_dir()):
            continue  # a segmentation beside its scan
        if fault := _fault_of_image(path):
            faults.append(fault)
            continue
        name = scans_of_folder(root, Search((path,), (), ()), [])[0].name
        new, truth = NewScan(name, name, path), path.parent / TRUTH
        if stem(path).lower() == WHOLE_FOLDER and truth.is_file():
            try:
                patient = printable(str(read_truth(truth)["patient"]))
            except DataError as error:
                faults.append(str(error))
                continue
            new = NewScan(name, patient, path, source="digital", truth=truth)
        found.append(_NamedScan(new, _plain_name(path)))
    if faults:
        warnings.append(f"{len(faults)} image files were passed over. {abbreviated_list(faults)}")
    return found


def _plain_name(path: Path) -> str:
    return path.parent.name if stem(path).lower() == WHOLE_FOLDER else stem(path)


def _fault_of_image(path: Path) -> str | None:
    """Reason why an image file can be no CT, by its header; None where it can."""
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


def _with_segmentations(found: Sequence[_NamedScan], labels: Path | None, warnings: list[str]) -> list[NewScan]:
    names = Counter(one.name for one in found)
    places = Counter(one.scan.ct for one in found)
    files_in: dict[Path, dict[str, Path]] = {}
    used: set[Path] = set()
    scans = []
    for one in found:
        place = labels or one.scan.ct.parent
        if place not in files_in:
            files_in[place] = _by_name(place.iterdir())
        files, shared = files_in[place], places[one.scan.ct] > 1 or (labels is not None and names[one.name] > 1)
        lesions = files.get(one.name + LESIONS) or files.get(f"{one.name}{SEGMENTATION_ENDING}")
        lesions = lesions or (files.get(one.name) if labels is not None else None)
        heart = files.get(one.name + HEART)
        own = {path for path in (lesions, heart) if path is not None}
        used |= own
        if own and (shared or one.scan.annotations is not None):
            why = f"several scans are called {one.name}" if shared else "it has labels of its own"
            warnings.append(
                f"{one.scan.name} comes without {abbreviated_list(sorted(path.name for path in own))}: {why}."
            )
        elif own:
            read = partial(segmentation_annotations, one.scan.ct, one.scan.series, lesions, heart)
            one = replace(one, scan=replace(one.scan, annotations=read))
        scans.append(one.scan)
    given = files_in.get(labels, {}).values() if labels is not None else ()
    if unused := sorted(path.name for path in given if path not in used):
        warnings.append(f"{len(unused)} files of {labels} fit no scan by their name: {abbreviated_list(unused)}.")
    return scans


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Image files by their name without its ending; of .seg.nrrd with it, so that these are distinct from scans."""
    named = {}
    for path in sorted(paths):
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(IMAGE_ENDINGS):
            segmentation = path.name.lower().endswith(SEGMENTATION_ENDING)
            named[stem(path) + (SEGMENTATION_ENDING if segmentation else "")] = path
    return named


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)
