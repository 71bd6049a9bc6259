"""COCA, Stanford AIMI's data set "Coronary Calcium and chest CTs", as scans with annotations.

Gated scans lie in `…/patient/N/SERIES/*.dcm`, their regions in `…/calcium_xml/N.xml`, property lists as OsiriX exports
regions. Scans that are not gated lie in `…/deidentified_nongated/N/…` and have Agatston scores in a table beside the
folders `N`, but no regions: scores.xlsx as published, or scores.csv in its place.

A region names its image twice: by points in mm, which say where it lies, and by ImageIndex, its place in the list that
was on the reader's screen, which says so only where the list's order is known. So the points decide. In a property list
without them ImageIndex 0 is the slice nearest to the feet: a published analysis of the gated release (449 scans, 6,232
regions) found the index to be the place by rising z of ImagePositionPatient in all but a few scans, those of two series
in one folder or of a series that was replaced, and the order of file names to be right in about half.

This is read with pydicom and plistlib and not with the library amid, which knows COCA too: amid gives arrays without
their place in the patient, and pip found no versions of its many requirements (scikit-image, pylidc, highdicom …)
beside ours in minutes of searching.
"""

from __future__ import annotations

import math
import plistlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.labels import Artery, site_called
from CACScoringLib.core.tables import TableError, read_cells
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.dicom import DicomSlice, read_slice
from CACScoringLib.io.reading import read_ct

from ..annotations import SliceLabel
from ..project import ImportedAnnotations, NewScan
from ..scan_identity import series_files

ANNOTATOR = "COCA"
REGIONS_FOLDER, PATIENTS_FOLDER, SCORES = "calcium_xml", "patient", "scores"

MAX_XML_BYTES = 64 * 2**20
"""A property list of one scan has less than a hundredth of this."""

SAME_PLACE_MM = 3.0
"""How far a point in pixels may lie from itself in mm: exporters differ by half a pixel."""

PIXEL_CENTRE = 0.5
"""OsiriX counts from the first pixel's corner, DICOM from its centre."""

_NO_LIST = (ExpatError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What plistlib and looking into its result raise on files that are something else."""


class CocaError(CTError):
    """A file of COCA cannot be used. The message says which and why."""


@dataclass(frozen=True)
class Region:
    """A region that a reader outlined in one image.

    image_index: as in the file. pixels: [n, 2], (column, row) from the first pixel's corner. points_mm: [n, 3], LPS;
    None where the file has none. Its Area is not read: in the published files it is .55 to .93 of the polygon's.
    """

    artery: Artery
    image_index: int
    pixels: np.ndarray
    points_mm: np.ndarray | None


class CocaSeries(NamedTuple):
    """A CT series of a COCA patient: its folder and its UID."""

    folder: Path
    uid: str | None


def _named(kind: str, number: str, own: Sequence[CocaSeries], reads: Sequence[Callable | None]) -> list[NewScan]:
    """The scans of a patient. reads: what reads the annotations of each."""
    patient = f"coca-{kind}-{number}"
    names = [f"{patient}-{n}" for n in range(1, len(own) + 1)] if len(own) > 1 else [patient]
    return [
        NewScan(name, patient, one.folder, one.uid, "coca", annotations=read)
        for name, one, read in zip(names, own, reads, strict=True)
    ]


def gated_place(folder: Path) -> tuple[Path, str] | None:
    """The data set's folder and the patient's number, for a DICOM folder of a gated scan; None for others."""
    for place in (folder, *folder.parents):
        if place.parent.name == PATIENTS_FOLDER and (place.parent.parent / REGIONS_FOLDER).is_dir():
            return place.parent.parent, place.name
    return None


def nongated_place(folder: Path) -> tuple[Path, str] | None:
    """The folder with the scores and the patient's number, for a DICOM folder of a scan that is not gated; or None."""
    for place in (folder, *folder.parents):
        if place.name.isdecimal() and any(path.is_file() for path in _score_tables(place.parent)):
            return place.parent, place.name
    return None


def _score_tables(folder: Path) -> tuple[Path, ...]:
    """Possible tables of scores; the first that is there counts."""
    return folder / f"{SCORES}.csv", folder / f"{SCORES}.xlsx"


def gated_scans(root: Path, series: Mapping[str, Sequence[CocaSeries]]) -> tuple[list[NewScan], list[str]]:
    """The gated scans below a data set's folder, with what their readers outlined; and doubts.

    series: by the patient's number. A scan whose regions are missing or cannot be attributed to it comes without.
    """
    scans, warnings = [], []
    outlined = {path.stem: path for path in sorted((root / REGIONS_FOLDER).glob("*.xml"))}
    for number, own in series.items():
        chosen, regions = None, None
        if number in outlined:
            try:
                regions = read_regions(outlined[number])
                chosen = outlined_series(regions, own, outlined[number])
            except CTError as error:
                warnings.append(f"Scan {number} of COCA comes without its regions: {error}")
        reads = [partial(gated_annotations, one.folder, one.uid, regions) if one is chosen else None for one in own]
        scans += _named("gated", number, own, reads)
    if without := [number for number in series if number not in outlined]:
        warnings.append(
            f"Gated scans of COCA without a file in {REGIONS_FOLDER} come without labels: {abbreviated_list(without)}."
        )
    if lost := [number for number in outlined if number not in series]:
        warnings.append(
            f"{len(lost)} files in {REGIONS_FOLDER} are of patients without a scan here: {abbreviated_list(lost)}."
        )
    return scans, warnings


def nongated_scans(root: Path, series: Mapping[str, Sequence[CocaSeries]]) -> tuple[list[NewScan], list[str]]:
    """The scans that are not gated, and doubts. Where all scores are 0 no slice shows calcium; else nothing is known.

    series: by the patient's number.
    """
    warnings, scores = [], {}
    table = next(path for path in _score_tables(root) if path.is_file())
    try:
        scores = read_scores(table)
    except CocaError as error:
        warnings.append(str(error))
    scans = []
    for number, own in series.items():
        clean = scores.get(number) == 0
        reads = [partial(clean_annotations, one.folder, one.uid) if clean else None for one in own]
        scans += _named("nongated", number, own, reads)
    if unlabelled := [number for number in series if scores.get(number) != 0]:
        warnings.append(
            f"{len(unlabelled)} scans of COCA that are not gated have a calcium score above 0 or none, so they come "
            f"without labels: {abbreviated_list(unlabelled)}. Label their slices."
        )
    return scans, warnings


def read_scores(path: Path) -> dict[str, float]:
    """The highest of a scan's Agatston scores, by its number: of an artery or in total.

    path: CSV, or the first sheet of a workbook (.xlsx), with a header; the first column is the scan's number, with or
    without a letter after it. Raises CocaError.
    """
    found = {}
    try:
        for name, *cells in score_rows(path)[1:]:
            values = [float(cell) for cell in cells if cell.strip()]
            if not all(0 <= value < math.inf for value in values):
                raise ValueError(f"the scores of {printable(name)} are {printable(', '.join(cells))}")
            if values:
                found[re.sub(r"\D*$", "", name.strip())] = max(values)
    except (OSError, ValueError, TableError) as error:
        raise CocaError(f"{path} is not a table of scores ({error}). Download {SCORES}.xlsx again.") from error
    return found


def score_rows(path: Path) -> list[list[str]]:
    """The table of scores line by line, heading first: CSV, or the first sheet of a workbook.

    Raises OSError, ValueError, TableError, and CocaError where openpyxl is missing.
    """
    if path.suffix != ".xlsx":
        return [cells for _, cells in read_cells(path)]
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise CocaError(
            f"{path} needs the Python package openpyxl. Install it, or save the table as {SCORES}.csv beside it."
        ) from error
    with path.open("rb") as file:
        try:
            sheet = load_workbook(file, read_only=True, data_only=True).worksheets[0]
            rows = [[_as_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
        except Exception as error:  # zip archives and XML of something else raise whatever openpyxl meets
            raise ValueError(f"it cannot be read as a workbook: {type(error).__name__}: {error}") from error
    return [row for row in rows if any(cell.strip() for cell in row)]


def _as_text(value: object) -> str:
    """A cell's value; Excel stores whole numbers as floating point now and then."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def clean_annotations(ct: Path, series: str | None) -> ImportedAnnotations:
    """No slice of a scan shows calcium. Raises CTError when the scan cannot be read."""
    count = read_ct(ct, series).image.GetSize()[2]
    return ImportedAnnotations(ANNOTATOR, dict.fromkeys(range(count), SliceLabel.NOT_VISIBLE))


def gated_annotations(ct: Path, series: str | None, regions: Sequence[Region]) -> ImportedAnnotations:
    """Regions on the grid of a scan; its slices with one show calcium, all others do not.

    A pixel belongs to a region when its centre lies inside, or the outline runs through it. Raises CocaError when a
    region does not lie on the scan, and CTError when that cannot be read.
    """
    image = read_ct(ct, series).image
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    for region, points_mm in zip(regions, place_regions(regions, _slices(ct, series)), strict=True):
        outline = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points_mm])
        # A point on the border of two pixels belongs to the one after it, whatever rounding has made of the border.
        pixels = np.floor(outline + PIXEL_CENTRE + 1e-6).astype(int)
        if (pixels < 0).any() or (pixels >= image.GetSize()).any():
            width, height, _ = image.GetSize()
            raise CocaError(
                f"A region in image {region.image_index} reaches out of the {width}×{height} pixels of the scan in "
                f"{ct}. The file of regions is of another scan."
            )
        k = int(np.bincount(pixels[:, 2]).argmax())
        labels[k][_filled(pixels[:, :2], labels.shape[:0:-1])] = region.artery
    on_grid = sitk.GetImageFromArray(labels)
    on_grid.CopyInformation(image)
    shown = labels.any((1, 2))
    slices = {k: SliceLabel.VISIBLE if shows else SliceLabel.NOT_VISIBLE for k, shows in enumerate(shown.tolist())}
    return ImportedAnnotations(ANNOTATOR, slices, on_grid)


def read_regions(path: Path) -> list[Region]:
    """The regions of a property list, without its placeholders for arteries free of calcium (no points, or no area).

    Raises CocaError when it is none, or an artery's name is unknown.
    """
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise CocaError(f"{path.name} has {path.stat().st_size / 2**20:.0f} MB, too much for one scan.")
        with path.open("rb") as file:
            content = plistlib.load(file, fmt=plistlib.FMT_XML)
        regions = []
        for image in content["Images"]:
            outlined = [roi for roi in image["ROIs"] if roi["Point_px"] and roi.get("Area") != 0]
            regions += [_region(roi, int(image["ImageIndex"])) for roi in outlined]
    except OSError as error:
        raise CocaError(f"{path.name} cannot be opened ({error.strerror}).") from error
    except _NO_LIST as error:
        raise CocaError(
            f"{path.name} is not a list of regions ({type(error).__name__}: {printable(str(error))}). Download it "
            "again."
        ) from error
    return regions


def place_regions(regions: Sequence[Region], slices: Sequence[DicomSlice]) -> list[np.ndarray]:
    """The regions' points: mm, LPS, [n, 3] each, within one of the slices.

    slices: of one series, in any order. Raises CocaError when a region is not on this series.
    """
    planes = sorted(map(_Plane.of, slices), key=lambda plane: plane.origin[2])
    positions = np.array([plane.origin @ planes[0].normal for plane in planes])
    gaps = np.diff(np.sort(positions))
    half_gap = float(np.median(gaps)) / 2 if len(gaps) else 0.0
    return [_place_region(region, planes, positions, half_gap) for region in regions]


def _place_region(region: Region, planes: Sequence[_Plane], positions: np.ndarray, half_gap: float) -> np.ndarray:
    where = f"The region in image {region.image_index}"
    if region.points_mm is None:
        if region.image_index >= len(planes):
            raise CocaError(f"{where} is beyond the {len(planes)} slices of the series: it is of another scan.")
        return planes[region.image_index].points(region.pixels)
    heights = region.points_mm @ planes[0].normal
    nearest = int(np.abs(positions - heights.mean()).argmin())
    if np.abs(positions[nearest] - heights).max() > half_gap:
        raise CocaError(
            f"{where} lies at {heights.mean():.1f} mm, where the series has no slice (it has {len(planes)} from "
            f"{positions.min():.1f} to {positions.max():.1f} mm). The file of regions is of another series."
        )
    points = planes[nearest].points(region.pixels)
    off = np.linalg.norm(points - region.points_mm, axis=1).max()
    if off > SAME_PLACE_MM + half_gap:
        raise CocaError(
            f"{where} lies {off:.0f} mm from where its pixels are in the series. The file of regions is of another "
            "series."
        )
    return points


class _Plane(NamedTuple):
    origin: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    normal: np.ndarray

    @classmethod
    def of(cls, slice_: DicomSlice) -> _Plane:
        origin, cosines = slice_.numbers("ImagePositionPatient", 3), slice_.numbers("ImageOrientationPatient", 6)
        spacing = slice_.numbers("PixelSpacing", 2)
        if origin is None or cosines is None or spacing is None:
            raise CocaError(f"{slice_.path.name} does not say where it lies. Download the scan again.")
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        return cls(np.array(origin), row * spacing[1], column * spacing[0], np.cross(row, column))

    def points(self, pixels: np.ndarray) -> np.ndarray:
        columns, rows = (pixels - PIXEL_CENTRE).T[..., None]
        return self.origin + columns * self.along_row + rows * self.along_column


def outlined_series(regions: Sequence[Region], series: Sequence[CocaSeries], xml: Path) -> CocaSeries:
    """The series that the regions were outlined on. Raises CocaError if that is unknown."""
    if len(series) == 1:
        return series[0]
    fitting = []
    for one in series:
        try:
            place_regions(regions, _slices(one.folder, one.uid))
            fitting.append(one)
        except CTError:
            continue
    if len(fitting) != 1:
        raise CocaError(f"{xml.name} fits {len(fitting)} of the {len(series)} series of its patient.")
    return fitting[0]


def _slices(folder: Path, series: str | None) -> list[DicomSlice]:
    found = (read_slice(path) for path in series_files(folder, series))
    return [slice_ for slice_ in found if slice_ is not None]


def _region(roi: dict, image_index: int) -> Region:
    name = str(roi["Name"])
    artery = Artery.LM if name.strip().lower() == "left coronary artery" else site_called(name)
    if artery is None or artery > Artery.OTHER:
        raise ValueError(f"the artery {name!r} is unknown")
    if image_index < 0:
        raise ValueError(f"the image index is {image_index}")
    pixels = _points(roi["Point_px"], 2)
    points_mm = _points(roi["Point_mm"], 3) if roi.get("Point_mm") else None
    if points_mm is not None and len(points_mm) != len(pixels):
        raise ValueError(f"a region has {len(pixels)} points in pixels and {len(points_mm)} in mm")
    return Region(artery, image_index, pixels, points_mm)


def _points(texts: Sequence[str], count: int) -> np.ndarray:
    try:
        points = np.array([[float(number) for number in text.strip().strip("()").split(",")] for text in texts])
    except ValueError as error:
        raise ValueError(f"not all points are {count} numbers") from error
    if points.shape != (len(texts), count) or not (np.abs(points) < 1e6).all():
        raise ValueError(f"not all points are {count} numbers below 1 km")
    return points


def _filled(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels inside an outline or on it: bool [rows, columns]. outline: int [n, 2], (column, row)."""
    picture = Image.new("1", size)
    points = [tuple(point) for point in outline.tolist()]
    if len(points) < 3:
        ImageDraw.Draw(picture).line([*points, points[0]], fill=1)
    else:
        ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
    return np.array(picture)
