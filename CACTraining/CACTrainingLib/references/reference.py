"""References of any format: scans with a reader's scores or labels, and the search of scans by an id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import BadReferenceError, CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES, MAIN_ARTERIES, Artery, site_called
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.dicom import read_slice
from CACScoringLib.io.reading import read_ct, stem
from CACScoringLib.scans.folder import listings_of, scans_of_folder, search
from CACScoringLib.scans.source import ScanSource

from ..project.annotation_files import ImportedAnnotations, SliceLabel
from .collection import OWN_TABLE, Layout

VESSELS = {"LM": ("LM",), "LAD": ("LAD",), "LCX": ("LCX",), "RCA": ("RCA",)}
"""Keys of arteries by the vessel that a reference distinguishes."""

NAMELESS = ("anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "0")
"""Patient IDs that stand for no patient."""


Outlines = Callable[[CTScan], sitk.Image]
"""Function that returns a reader's outlines on the grid of a scan, uint8 `Site` labels; raises CTError for a misfit."""


@dataclass(frozen=True)
class ReferenceScan(ScanSource):
    """A scan with its reference, in which its name is unique. Scoring does not use it.

    Attributes:
        total: Agatston score; None if it follows from the outlines, or is unknown.
        vessels: Agatston score of the vessels that the reference has.
        outlines: Outlines of calcium, if any; picklable. They may be generous: only voxels of 130 HU that form a lesion
            of the clinical rule count. Empty outlines mean that the reader saw no calcium.
        labels: Slice index, counted from the feet, and visibility of coronary calcium; None to use the outlines.
        number: 1 or 2 for the scans of a pair; more for further scans of a patient, which are in no pair.
        files: Files that the outlines are read from.
        comparator: Agatston score of another program, if the reference has it.
        missing: Reason why there is no reference of it; empty if there is one.
    """

    total: float | None = None
    vessels: Mapping[str, float] = field(default_factory=dict)
    outlines: Outlines | None = None
    labels: tuple[tuple[int, bool], ...] | None = None
    number: int = 1
    files: tuple[Path, ...] = ()
    comparator: float | None = None
    missing: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """Agatston scores that came with the scan: by artery, and the total as agatston."""
        none = dict.fromkeys(ARTERIES, 0.0) if self.total == 0 else {}
        return {**none, **self.vessels, **({} if self.total is None else {"agatston": self.total})}

    @property
    def has_positive_label(self) -> bool:
        """True if a slice is labelled as showing coronary calcium."""
        return any(shows for _, shows in self.labels or ())

    def truth_file(self, name: str = "truth.json") -> Path:
        """Return the path of a digital scan's file."""
        assert self.truth is not None
        return self.truth.with_name(name)

    def read_truth(self) -> dict[str, Any]:
        """Read a digital scan's `truth.json`. Raises OSError or ValueError if it cannot be read."""
        return read_json(self.truth_file())

    def hu_mm3_per_mass(self) -> float:
        """HU·mm³ for one unit of mass: for 1 mg in a digital scan, else 1.

        Raises OSError, ValueError or KeyError if the truth cannot be read.
        """
        return 1.0 if self.truth is None else 1000 * float(self.read_truth()["calcium_hu_per_mg_cm3"])

    def annotations(self, annotator: str) -> ImportedAnnotations:
        """Return the reference as annotations: regions of arteries, and the slices that show calcium.

        Raises CTError if the scan cannot be read, or the outlines do not fit it.
        """
        ct = read_ct(self.ct, self.series)
        if self.outlines is None:
            if self.total != 0:
                raise BadReferenceError(f"Which slices of {self.name} show calcium is unknown.")
            return ImportedAnnotations(annotator, dict.fromkeys(range(len(ct.hu)), SliceLabel.NOT_VISIBLE))
        labels = self.outlines(ct)
        arteries = np.array(voxels_of(labels))
        arteries[arteries > Artery.OTHER] = 0
        regions = Grid.of(labels).image(arteries)
        return ImportedAnnotations(annotator, slice_labels(regions), regions)


def slice_labels(regions: sitk.Image) -> dict[int, SliceLabel]:
    """Return the labels of all slices by regions in which a reader marked all coronary calcium."""
    planes = voxels_of(regions)
    return {k: SliceLabel.VISIBLE if plane.any() else SliceLabel.NOT_VISIBLE for k, plane in enumerate(planes)}


@dataclass(frozen=True)
class Reference:
    """All scans of a reference.

    Attributes:
        title: Title of its format.
        about: Paragraph for the page about the meaning of its scores.
        vessels: Vessels that it distinguishes, with the arteries of each.
        scans: Its scans, also those without a reference.
        refused: Labels or lines of a table without a usable scan, each with the reason.
        layout: Layout of a table.
        gated: True if all scans are gated, False if none is, None if unknown.
    """

    title: str
    about: str
    vessels: Mapping[str, tuple[str, ...]]
    scans: tuple[ReferenceScan, ...]
    refused: tuple[tuple[str, str], ...] = ()
    layout: Layout = OWN_TABLE
    gated: bool | None = None


ProgressCallback = Callable[[int, int], None]
"""Function of the number of items done and their total."""


@dataclass(frozen=True)
class Format:
    """A format of references.

    Attributes:
        title: Title on pages.
        fits: Function that returns True for a file or folder of this format.
        read: Function of the file or folder, the folder of the scans (or None) and the progress; returns the reference.
        holds_scans: True if the scans lie in the reference, so that no folder of scans may be given.
    """

    title: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path | None, ProgressCallback | None], Reference]
    holds_scans: bool = False


def read_each(
    items: Sequence[tuple[str, Any]], read: Callable[[str, Any], ReferenceScan], count: ProgressCallback | None = None
) -> tuple[tuple[ReferenceScan, ...], tuple[tuple[str, str], ...]]:
    """Read the scans of a reference.

    Args:
        items: Name of each scan, and the item that `read` takes.
        read: Function of name and item that returns the scan or raises CTError.
        count: Callback for the number of items read.

    Returns:
        The scans, and the names of unusable ones with the reason.
    """
    scans, refused = [], []
    for number, (name, item) in enumerate(items, 1):
        try:
            scans.append(read(name, item))
        except CTError as error:
            refused.append((name, str(error)))
        if count:
            count(number, len(items))
    return tuple(scans), tuple(refused)


BY_RULE = (
    "The reference score is that of the clinical rule (130 HU at 120 kVp, lesions of at least 1 mm², Agatston 1990) "
    "within what was outlined."
)


def artery_of_column(column: str) -> str | None:
    """Return the key of a column's main artery, None for another column. COCA's LCA is the left main."""
    artery = Artery.LM if column.lower() == "lca" else site_called(column)
    return artery.key if artery in MAIN_ARTERIES else None


ScansById = dict[str, list[ScanSource]]


def scan_of(id_: str, scans: ScansById) -> ScanSource:
    """Find a scan by its id. Raises BadReferenceError if there is none, are several, or it cannot be read."""
    matches = scans.get(id_.strip().lower(), [])
    if len(matches) != 1:
        names = ", ".join(sorted(scan.name for scan in matches)[:3])
        raise BadReferenceError(
            f"{len(matches)} scans match this id{names and f' ({names})'} by folder, file or patient ID. Give a "
            "table (CSV) whose column ct names the scan that was scored."
        )
    if matches[0].fault:
        raise BadReferenceError(matches[0].fault)
    return matches[0]


def scans_below(folder: Path, progress: ProgressCallback | None = None) -> ScansById:
    """Index the scans below a folder by patient ID and by each part of their path, in lower case.

    Args:
        folder: Folder of DICOM series or image files.
        progress: Callback for the number of DICOM folders read.

    Raises:
        BadReferenceError: There is no such folder, or no scan in it.
    """
    if not folder.is_dir():
        raise BadReferenceError(f"There is no folder of scans {folder}. Name it with --scans.")
    scans: ScansById = {}
    for scan in scans_in(folder, progress):
        patient = patient_in(scan) if scan.series is not None else None
        named = replace(scan, patient=patient or "")
        below = scan.ct.relative_to(folder)
        for name in {part.lower() for part in (*below.parts[:-1], stem(below), patient) if part}:
            scans.setdefault(name, []).append(named)
    if not scans:
        raise BadReferenceError(f"{folder} holds no CT: no DICOM series and no NIfTI, NRRD or MHA file.")
    return scans


def scans_in(folder: Path, progress: ProgressCallback | None = None) -> list[ScanSource]:
    """Return the scans below a folder. progress: Callback for the number of DICOM folders read."""
    places = search(folder, folder / ".cac-no-output")
    return scans_of_folder(folder, places, listings_of(places.folders, progress))


def patient_in(scan: ScanSource) -> str | None:
    """Read the patient's ID from the header of one of a series' files; return None if it names no patient."""
    for path in sorted(scan.ct.iterdir()):
        try:
            slice_ = read_slice(path) if path.is_file() else None
        except (CTError, OSError):
            continue
        if slice_ is not None and slice_.text("SeriesInstanceUID") == scan.series:
            patient = slice_.text("PatientID")
            return None if patient is None or patient.lower() in NAMELESS else patient
    return None
