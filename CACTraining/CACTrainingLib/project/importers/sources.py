"""What can be added to a project: scans below a folder, whatever they are, or those that a table lists.

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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.cohort.scans import WHOLE_FOLDER, CohortScan, scans_of_table
from CACScoringLib.cohort.search import SEGMENTATION_ENDING, Search, scans_of_folder, search
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.text import printable, some
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
class _Found:
    """A scan with its file or folder's plain name, by which its segmentations are found."""

    scan: NewScan
    name: str


def find_new_scans(
    source: Path, progress: Callable[[int, int], None] | None = None, labels: Path | None = None
) -> tuple[list[NewScan], list[str]]:
    """The scans of a file or table, or below a folder, ready to be added to a project; what was passed over, and why.

    labels: folder of segmentations. progress: is told how many DICOM folders are read of how many.
    Raises SourceError when nothing is there.
    """
    source = Path(source)
    if labels is not None and not Path(labels).is_dir():
        raise SourceError(f"The folder of labels {labels} does not exist.")
    if source.name.lower().endswith(TABLE_ENDINGS) and source.is_file():
        return _listed(source)
    if source.is_file():
        found, warnings = _one_file(source)
    elif source.is_dir():
        found, warnings = _below(source, labels, progress)
    else:
        raise SourceError(f"{source} does not exist. Give a CT, or a folder of scans.")
    scans, more = _with_segmentations(found, None if labels is None else Path(labels))
    warnings += more
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
    try:
        scans, warnings = scans_of_table(table)
    except CTError as error:
        raise SourceError(str(error)) from error
    found = []
    for scan in scans:
        new = NewScan(scan.name, scan.patient or scan.name, scan.ct, scan.series)
        if scan.lesions is not None or scan.heart is not None:
            read = partial(segmentation_annotations, scan.ct, scan.series, scan.lesions, scan.heart)
            new = replace(new, annotations=read)
        found.append(new)
    return found, [warning.message for warning in warnings]


def _one_file(path: Path) -> tuple[list[_Found], list[str]]:
    if not path.name.lower().endswith(IMAGE_ENDINGS):
        raise SourceError(
            f"{path.name} is not an image file. Give NIfTI, NRRD or MHA, or the folder of a DICOM series."
        )
    if fault := _fault_of_image(path):
        raise SourceError(fault)
    return _image_scan(path, printable(_plain_name(path)) or "scan")


def _below(
    root: Path, labels: Path | None, progress: Callable[[int, int], None] | None
) -> tuple[list[_Found], list[str]]:
    if is_project(root):
        raise SourceError(f"{root} is a project itself. Give the folder where scans lie.")
    everything = search(root, root / ".cac-no-output" if labels is None else labels)
    warnings = [warning.message for warning in everything.warnings]
    projects = {path.parent: _project_above(path, root) for path in everything.files}
    projects |= {folder: _project_above(folder / "file", root) for folder in everything.folders}
    for project in dict.fromkeys(project for project in projects.values() if project is not None):
        warnings.append(f"What lies in the project {project} was passed over.")
    # Folders of property lists hold no DICOM.
    folders = tuple(f for f in everything.folders if projects[f] is None and f.name != coca.REGIONS_FOLDER)
    read: list[tuple[list[Series], int] | None] = []
    for n, folder in enumerate(folders, 1):
        read.append(_series_in(folder))
        if progress:
            progress(n, len(folders))
    ours = [coca.gated_place(folder) is not None or coca.nongated_place(folder) is not None for folder in folders]
    found = _coca_scans([(f, r or ([], 1)) for f, r, own in zip(folders, read, ours, strict=True) if own], warnings)
    others = [(f, r) for f, r, own in zip(folders, read, ours, strict=True) if not own]
    rest = replace(everything, files=(), folders=tuple(f for f, _ in others))
    found += _dicom_scans(root, rest, [r for _, r in others], warnings)
    found += _image_scans(root, [path for path in everything.files if projects[path.parent] is None], warnings)
    return found, warnings


def _project_above(path: Path, root: Path) -> Path | None:
    return next((p for p in path.parents if p != root and p.is_relative_to(root) and is_project(p)), None)


def _series_in(folder: Path) -> tuple[list[Series], int] | None:
    try:
        return find_series(folder)
    except (OSError, CTError):
        return None


def _coca_scans(folders: Sequence[tuple[Path, tuple[list[Series], int]]], warnings: list[str]) -> list[_Found]:
    found = []
    for place_of, scans_of in ((coca.gated_place, coca.gated_scans), (coca.nongated_place, coca.nongated_scans)):
        roots: dict[Path, dict[str, list[coca.CocaSeries]]] = {}
        for folder, (series, broken) in folders:
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
            found += [_Found(scan, scan.name) for scan in scans]
            warnings += more
    return found


def _dicom_scans(
    root: Path, folders: Search, series: Sequence[tuple[list[Series], int] | None], warnings: list[str]
) -> list[_Found]:
    found = []
    for folder, read in zip(folders.folders, series, strict=True):
        if read and read[0] and read[1]:
            warnings.append(f"{read[1]} DICOM files in {folder} are broken; its scans may have gaps.")
    for scan in scans_of_folder(root, folders, series):
        if scan.fault:
            warnings.append(f"{scan.name} was passed over. {scan.fault}")
        else:
            new = NewScan(scan.name, patient_in(scan) or scan.name, scan.ct, scan.series)
            found.append(_Found(new, scan.ct.name))
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


def _image_scans(root: Path, files: Sequence[Path], warnings: list[str]) -> list[_Found]:
    found, segmentations, faults = [], [], []
    beside = {(path.parent, stem(path)) for path in files}
    for path in files:
        name = stem(path)
        if any(name.endswith(end) and (path.parent, name[: -len(end)]) in beside for end in (LESIONS, HEART)):
            segmentations.append(path)
            continue
        if any(name.endswith(end) and (path.parent / name[: -len(end)]).is_dir() for end in (LESIONS, HEART)):
            segmentations.append(path)
            continue
        if fault := _fault_of_image(path):
            faults.append(fault)
            continue
        named = scans_of_folder(root, Search((path,), (), ()), [])[0].name
        own, more = _image_scan(path, named)
        found += own
        warnings += more
    if faults:
        warnings.append(f"{len(faults)} image files were passed over. {some(faults)}")
    return found


def _image_scan(path: Path, name: str) -> tuple[list[_Found], list[str]]:
    truth = path.parent / TRUTH
    if stem(path).lower() != WHOLE_FOLDER or not truth.is_file():
        return [_Found(NewScan(name, name, path), _plain_name(path))], []
    try:
        patient = printable(str(read_truth(truth)["patient"]))
    except DataError as error:
        return [], [f"{name} was passed over. {error}"]
    new = NewScan(name, patient, path, source="digital", truth=truth)
    return [_Found(new, _plain_name(path))], []


def _plain_name(path: Path) -> str:
    return path.parent.name if stem(path).lower() == WHOLE_FOLDER else stem(path)


def _fault_of_image(path: Path) -> str | None:
    """Why an image file can be no CT, by its header; None where it can."""
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


def _with_segmentations(found: Sequence[_Found], labels: Path | None) -> tuple[list[NewScan], list[str]]:
    warnings: list[str] = []
    shared = {name for name, count in Counter(one.name for one in found).items() if count > 1}
    given = _by_name(labels.iterdir()) if labels is not None else {}
    beside: dict[Path, dict[str, Path]] = {}
    used: set[Path] = set()
    scans = []
    for one in found:
        place = one.scan.ct.parent
        if labels is None and place not in beside:
            beside[place] = _by_name(place.iterdir())
        files = given if labels is not None else beside[place]
        lesions = files.get(one.name + LESIONS) or files.get(f"{one.name}{SEGMENTATION_ENDING}")
        lesions = lesions or (files.get(one.name) if labels is not None else None)
        heart = files.get(one.name + HEART)
        own = [path for path in (lesions, heart) if path is not None]
        used.update(own)
        if not own:
            scans.append(one.scan)
        elif (labels is not None and one.name in shared) or _several_series(one, found):
            warnings.append(f"{one.scan.name} comes without {own[0].name}: several scans are called {one.name}.")
            scans.append(one.scan)
        elif one.scan.annotations is not None:
            warnings.append(f"{one.scan.name} comes with labels of its own; {own[0].name} was passed over.")
            scans.append(one.scan)
        else:
            read = partial(segmentation_annotations, one.scan.ct, one.scan.series, lesions, heart)
            scans.append(replace(one.scan, annotations=read))
    if unused := sorted(path.name for path in given.values() if path not in used):
        warnings.append(f"{len(unused)} files of {labels} fit no scan by their name: {some(unused)}.")
    return scans, warnings


def _several_series(one: _Found, found: Sequence[_Found]) -> bool:
    return sum(other.scan.ct == one.scan.ct for other in found) > 1


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Image files by their name without its ending; of .seg.nrrd with it, so that these are told from scans."""
    named = {}
    for path in sorted(paths):
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(IMAGE_ENDINGS):
            segmentation = path.name.lower().endswith(SEGMENTATION_ENDING)
            named[stem(path) + (SEGMENTATION_ENDING if segmentation else "")] = path
    return named


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)
