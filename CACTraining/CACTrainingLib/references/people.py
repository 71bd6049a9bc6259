"""People of public collections whose calcium an engineer has read: their scans, found in a folder, and their readings.

`Resources/People/people.csv` has a row for each scan, which names the collection, the series and the crop that was
read. `NAME.nrrd` beside it holds the labels of a scan with calcium, on the scan's grid and cropped to themselves: 1 LM,
2 LAD, 3 LCX, 4 RCA, DOUBTFUL where the reader did not decide, and higher numbers for calcium that must not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import BadReferenceError, CTError
from CACScoringLib.core.files import resource_rows
from CACScoringLib.core.grid import Grid, triple
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct
from CACScoringLib.scans.source import ScanSource

from .folder import find_new_scans
from .reference import ProgressCallback

DOUBTFUL = 14
"""Label of calcium of which the reader did not decide where it lies."""

FOLDER = "People"
"""Folder of the table and the labels in Resources, and its table."""

TOLERANCE_VOXELS = 0.1
"""Largest distance between a voxel of a crop and one of its series, in voxels of the series, and of their ends."""


@dataclass(frozen=True)
class Person:
    """A scan of a person with its reading.

    Attributes:
        name: Unique name.
        file: Name of the crop as a NIfTI file.
        collection: Collection that it comes from.
        doi: DOI of the collection; empty if unknown.
        patient: Text that the patient's ID holds.
        series: SeriesInstanceUID, or text that the series description holds; empty if both are unknown.
        kernel: Convolution kernel; empty if unknown.
        licence: Licence of the collection.
        made: How the crop was made.
        grid: Grid of the crop.
        reading: Agatston score that was read.
        separates_lm: True if the labels separate LM and LAD.
        true_alarms: Codes of severe warnings that are right.
        remarks: Remarks of the reader.
    """

    name: str
    file: str
    collection: str
    doi: str
    patient: str
    series: str
    kernel: str
    licence: str
    made: str
    grid: Grid
    reading: float
    separates_lm: bool
    true_alarms: tuple[str, ...]
    remarks: str

    def labels(self) -> np.ndarray:
        """Return the labels on the crop's grid, uint8 [k, j, i]; all 0 for a scan without calcium."""
        file = Path(__file__).parents[1] / "Resources" / FOLDER / f"{self.name}.nrrd"
        if not file.is_file():
            return np.zeros(self.grid.shape, np.uint8)
        return np.asarray(voxels_of(self.grid.paste(sitk.ReadImage(str(file)))))


def people() -> tuple[Person, ...]:
    """Read the table."""
    return tuple(_person(dict(row)) for row in resource_rows(f"{FOLDER}/people.csv", __name__))


def _person(row: dict[str, str]) -> Person:
    size = tuple(map(int, row.pop("size").split()))
    spacing_mm, origin_mm = (triple(map(float, row.pop(name).split())) for name in ("spacing_mm", "origin_mm"))
    return Person(
        grid=Grid(size, spacing_mm, origin_mm),
        reading=float(row.pop("reading")),
        separates_lm=row.pop("separates_lm") == "1",
        true_alarms=tuple(row.pop("true_alarms").split()),
        **row,
    )


def find_people(
    folder: Path, known: Sequence[Person], cropped: Path, progress: ProgressCallback | None = None
) -> tuple[list[tuple[Person, ScanSource]], list[tuple[Person, str]]]:
    """Find the scans of people below a folder: the crops as NIfTI files, or the DICOM series of the collections.

    Args:
        folder: Folder that is searched with its subfolders.
        known: The people to find.
        cropped: Folder for the crops that are made of DICOM series.
        progress: Callback for the number of items read.

    Returns:
        The scans, and those that cannot be used with the reason. People of whom nothing was found are in neither.

    Raises:
        DataError: The folder does not exist, or holds no scan.
    """
    scans, _ = find_new_scans(folder, progress)
    files = {scan.ct.name: scan for scan in scans if scan.ct.is_file()}
    series = [scan for scan in scans if scan.series is not None]
    found: list[tuple[Person, ScanSource]] = []
    refused: list[tuple[Person, str]] = []
    for person in known:
        try:
            ct = _checked(person, files[person.file].ct) if person.file in files else _cropped(person, series, cropped)
        except CTError as error:
            refused.append((person, str(error)))
            continue
        if ct is not None:
            found.append((person, ScanSource(person.name, person.name, ct, key=person.name)))
    return found, refused


def _checked(person: Person, file: Path) -> Path:
    """Return the file of a crop. Raises CTError if it is not what was read."""
    if _box(person.grid, read_ct(file)) != tuple(slice(0, n) for n in person.grid.size):
        raise BadReferenceError(
            f"{file} is another crop than that which was read. Give that crop, or the DICOM series in its place."
        )
    return file


def _cropped(person: Person, series: Sequence[ScanSource], folder: Path) -> Path | None:
    """Crop the one DICOM series of a person and return the file, None if there is no scan of the person.

    Raises CTError if no series or several fit.
    """
    is_uid = person.series.replace(".", "").isdigit()
    if is_uid:
        candidates = [scan for scan in series if scan.series == person.series]
    else:
        candidates = [scan for scan in series if person.patient in scan.patient]
    crops = []
    for scan in candidates:
        ct = read_ct(scan.ct, scan.series)
        is_named = is_uid or _plain(person.series) in _plain(ct.acquisition.series_description or "")
        is_kernel = not person.kernel or ct.acquisition.kernel in (None, person.kernel)
        if is_named and is_kernel and (crop := crop_of(person.grid, ct)) is not None:
            crops.append(crop)
    if not candidates:
        return None
    if len(crops) != 1:
        raise BadReferenceError(
            f"{len(crops)} of {len(candidates)} series of {person.patient} hold what was read. Leave only that one in "
            "the folder, whole and as the collection has it."
        )
    file = folder / f"{person.name}.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(crops[0], str(file))
    return file


def _plain(text: str) -> str:
    """Text without what some copies of a collection leave out of its descriptions."""
    return "".join(filter(str.isalnum, text))


def crop_of(grid: Grid, ct: CTScan) -> sitk.Image | None:
    """Crop a scan to a grid, with means of the voxels that make one of the grid's; None if the grid is no part of it.

    Returns:
        int16 HU on the grid, clipped to its range.
    """
    if (box := _box(grid, ct)) is None:
        return None
    counts = [(part.stop - part.start) // n for part, n in zip(box, grid.size, strict=True)]
    part = ct.image[box[0], box[1], box[2]]
    means = part if counts == [1, 1, 1] else sitk.BinShrink(sitk.Cast(part, sitk.sitkFloat32), counts)
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    return grid.image(np.clip(np.rint(voxels_of(means)), low, high).astype(np.int16))


def _box(grid: Grid, ct: CTScan) -> tuple[slice, ...] | None:
    """Return the voxels of a scan that make a grid, along i, j, k; None if the grid is no part of it."""
    scan, box = Grid.of(ct.image), []
    if not np.allclose(scan.direction, grid.direction, atol=1e-3):
        return None
    for axis in range(3):
        step = scan.spacing_mm[axis]
        count = round(grid.spacing_mm[axis] / step)
        first = (grid.origin_mm[axis] - scan.origin_mm[axis]) / step - (count - 1) / 2
        size = count * grid.size[axis]
        error = abs(size * step - grid.size[axis] * grid.spacing_mm[axis]) / step
        if count < 1 or max(abs(first - round(first)), error) > TOLERANCE_VOXELS:
            return None
        if not 0 <= round(first) <= scan.size[axis] - size:
            return None
        box.append(slice(round(first), round(first) + size))
    return tuple(box)
