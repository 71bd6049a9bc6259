"""COCA, Stanford AIMI's data set "Coronary Calcium and chest CTs": gated scans with contours, others with scores.

Gated scans lie in `patient/N/SERIES/*.dcm`, their regions in `calcium_xml/N.xml`, property lists exported by OsiriX
with `Images`, each with `ImageIndex` and `ROIs`; each of these with `Name` (four arteries; "Left Coronary Artery" is
the left main), `Point_px`, `Point_mm`, `Area` … Every outlined image has placeholders without points for the other
arteries. A few lists have names that are no artery's, one is of a series that was replaced, some folders hold two
series of the same slices.

A region has its position twice: as points in mm, and as ImageIndex, its place in the list on the reader's screen, whose
order may be unknown. So the points decide. In a property list without points, ImageIndex 0 is the slice nearest to the
feet: a published analysis of the gated release (449 scans, 6,232 regions) found the index to follow rising z of
ImagePositionPatient in all but a few scans (two series in one folder, or a replaced series), and the order of file
names in about half.

Scans that are not gated lie in `deidentified_nongated/N/…` and have no regions, but Agatston scores in a table beside
the folders `N`: scores.xlsx as published, first sheet, whose first column is the scan ("1A" is scan 1), with the
columns LCA, LAD, LCX, RCA and total, or scores.csv in its place. LCA is taken for the left main.

The library amid, which knows COCA too, is not used: it returns arrays without their place in the patient, and pip found
no versions of its many requirements (scikit-image, pylidc, highdicom …) that go with ours.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import BadReferenceError, CTError, TableError
from CACScoringLib.core.files import open_file
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, site_called
from CACScoringLib.core.tables import DecimalMarks, Line, Table, read_cells
from CACScoringLib.core.text import printable
from CACScoringLib.io.dicom import DicomSlice, read_slice
from CACScoringLib.scans.folder import natural_key
from CACScoringLib.scans.source import ScanSource

from ..project.scan_identity import series_files
from .reference import (
    BY_RULE,
    VESSELS,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    artery_of_column,
    scan_of,
    scans_below,
    scans_in,
)

REGIONS_FOLDER, PATIENTS_FOLDER, SCORES = "calcium_xml", "patient", "scores"
GATED_RELEASE, NONGATED_RELEASE = "Gated_release_final", "deidentified_nongated"

ARTERIES = ("LCA", "LAD", "LCX", "RCA")
SCAN, TOTAL = "scan", "total"
"""Columns of the table of scores, of which the first is the scan whatever its title."""

MAX_XML_BYTES = 64 * 2**20
"""Largest accepted property list, more than a hundred times the usual size."""

SAME_PLACE_MM = 3.0
"""Largest distance between a region's point in pixels and in mm; exporters differ by half a pixel."""

PIXEL_CENTRE = 0.5
"""Offset in pixels of OsiriX, which counts from the first pixel's corner, from DICOM, which counts from its centre."""

_PARSE_ERRORS = (ExpatError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Errors raised by plistlib and by lookups in its result on other files."""


@dataclass(frozen=True)
class Region:
    """Region outlined by a reader in one image.

    Its Area is not read, because in the published files it is .55 to .93 of the polygon's.

    Attributes:
        artery: Artery of the region.
        image_index: Index of the image in the file.
        pixels: Outline [n, 2], (column, row) from the first pixel's corner.
        points_mm: Outline [n, 3] in mm, LPS, or None if the file has none.
    """

    artery: Artery
    image_index: int
    pixels: np.ndarray
    points_mm: np.ndarray | None


def gated_place(folder: Path) -> tuple[Path, str] | None:
    """Return the data set's folder and the patient's number for a DICOM folder of a gated scan, or None."""
    for place in (folder, *folder.parents):
        if place.parent.name == PATIENTS_FOLDER and (place.parent.parent / REGIONS_FOLDER).is_dir():
            return place.parent.parent, place.name
    return None


def nongated_place(folder: Path) -> tuple[Path, str] | None:
    """Return the folder of the scores and the patient's number for a DICOM folder of a non-gated scan, or None."""
    for place in (folder, *folder.parents):
        if place.name.isdecimal() and _table(place.parent):
            return place.parent, place.name
    return None


def gated_reference(root: Path, numbers: Iterable[str], progress: ProgressCallback | None = None) -> Reference:
    """Read the gated scans of patients. Scans without regions are among them, with the reason.

    Args:
        root: Folder of the release.
        numbers: Numbers of the patients.
        progress: Callback for the number of patients read.
    """
    numbers, files = sorted(numbers, key=natural_key), {p.stem: p for p in (root / REGIONS_FOLDER).glob("*.xml")}
    scans: list[ReferenceScan] = []
    refused = []
    for count, number in enumerate(numbers, 1):
        series = [scan for scan in scans_in(root / PATIENTS_FOLDER / number) if scan.fault is None]
        if not series:
            refused.append((number, f"{PATIENTS_FOLDER}/{number} holds no CT series. Download it again."))
        scans += _gated_patient(number, series, files.get(number))
        if progress:
            progress(count, len(numbers))
    alone = sorted(files.keys() - {*numbers}, key=natural_key)
    refused += [(number, f"There is no folder {PATIENTS_FOLDER}/{number} with its scan.") for number in alone]
    about = f"Readers outlined calcium in each image and named its artery. {BY_RULE}"
    return Reference(GATED.title, about, VESSELS, tuple(scans), tuple(refused), gated=True)


def _gated_patient(number: str, series: Sequence[ScanSource], file: Path | None) -> list[ReferenceScan]:
    """Return a patient's scans; the one that was outlined has the regions of the file."""
    outlined, regions = None, tuple[Region, ...]()
    reason = f"There is no {REGIONS_FOLDER}/{number}.xml: whether it has calcium is unknown."
    if file is not None and series:
        try:
            regions = tuple(read_regions(file))
            outlined, reason = outlined_series(regions, series, file), f"{file.name} outlines another of its series."
        except CTError as error:
            reason = str(error)
    scans = []
    for n, source in enumerate(series, 1):
        name = number if len(series) == 1 else f"{number}-{n}"
        scan = ReferenceScan(name, number, source.ct, source.series, missing=reason)
        if file is not None and source is outlined:
            outlines = partial(draw_regions, source.ct, source.series, regions)
            scan = replace(scan, outlines=outlines, files=(file,), missing="")
        scans.append(scan)
    return scans


def _gated_root(source: Path) -> Path | None:
    places = (source, source / GATED_RELEASE)
    return next((p for p in places if (p / REGIONS_FOLDER).is_dir() and (p / PATIENTS_FOLDER).is_dir()), None)


def _read_gated(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
    root = _gated_root(source)
    assert root is not None
    return gated_reference(root, (p.name for p in (root / PATIENTS_FOLDER).iterdir() if p.is_dir()), progress)


def nongated_reference(
    source: Path, numbers: Iterable[str] = (), scans: Path | None = None, progress: ProgressCallback | None = None
) -> Reference:
    """Read the scans that are not gated. A scan that the table lacks is among them, with the reason.

    Args:
        source: Table of scores, or its folder.
        numbers: Numbers of scans to return even if the table lacks them.
        scans: Folder of the scans; None for that of the table.
        progress: Callback for the number of DICOM folders read.

    Raises:
        TableError: The table cannot be read, and no numbers are given.
        BadReferenceError: There are no scans.
    """
    table = _table(source)
    assert table is not None
    numbers, lines, reason = set(numbers), dict[str, Line](), "The table of scores lacks it."
    try:
        lines = {re.sub(r"\D+$", "", line.text(SCAN)): line for line in _lines(table)}
    except TableError as error:
        if not numbers:
            raise
        reason = str(error)
    by_id = scans_below(scans or table.parent, progress)
    result: list[ReferenceScan] = []
    refused = []
    for number in sorted(numbers | lines.keys(), key=natural_key):
        line = lines.get(number)
        name = number if line is None else line.text(SCAN)
        try:
            ct = scan_of(number, by_id)
        except BadReferenceError as error:
            series = [scan for scan in by_id.get(number, ()) if scan.fault is None]
            result += [
                ReferenceScan(f"{name}-{n}", number, scan.ct, scan.series, missing=str(error))
                for n, scan in enumerate(series, 1)
            ]
            refused += [] if series else [(name, str(error))]
        else:
            scan = ReferenceScan(name, number, ct.ct, ct.series)
            result.append(replace(scan, missing=reason) if line is None else _scored(scan, line))
    about = "Agatston scores in total and by artery that came with the scans; where calcium lies is not known."
    return Reference(NONGATED.title, about, VESSELS, tuple(result), tuple(refused), gated=False)


def _scored(scan: ReferenceScan, line: Line) -> ReferenceScan:
    """Return a scan with the scores of its line, or the reason why it has none."""
    try:
        line.need(TOTAL)
        scores = {str(artery_of_column(column)): line.number_in(column, 0) for column in ARTERIES}
        vessels = {artery: score for artery, score in scores.items() if score is not None}
        return replace(scan, total=line.number_in(TOTAL, 0), vessels=vessels)
    except TableError as error:
        return replace(scan, missing=str(error))


def _table(source: Path) -> Path | None:
    """Return the table of scores: the file itself, or the one in a folder."""
    if source.is_file():
        return source if source.suffix.lower() == ".xlsx" else None
    places = (source / folder / f"{SCORES}.{ending}" for folder in ("", NONGATED_RELEASE) for ending in ("csv", "xlsx"))
    return next((place for place in places if place.is_file()), None)


def _lines(path: Path) -> tuple[Line, ...]:
    """Read the table of scores. Raises TableError."""
    ((_, head), *rows) = (read_cells(path) if path.suffix != ".xlsx" else _sheet(path)) or [(1, [""])]
    columns = (SCAN, *(cell.strip() for cell in head[1:]))
    names = [column.lower() for column in columns]
    cells = [dict(zip(names, map(str.strip, row), strict=False)) for _, row in rows]
    marks = DecimalMarks({name: [row.get(name, "") for row in cells] for name in names}, ",")
    lines = [Line(path, number, row, marks) for (number, _), row in zip(rows, cells, strict=True)]
    table = Table(path, columns, tuple(line for line in lines if line.text(SCAN)))
    table.need(TOTAL)
    table.need_distinct([line.text(SCAN) for line in table.lines], SCAN)
    return table.lines


def _sheet(path: Path) -> list[tuple[int, list[str]]]:
    """Read the rows, with their numbers, of a workbook's first sheet. Raises TableError."""
    try:
        import pandas as pd

        rows = pd.read_excel(path, header=None, dtype=str, keep_default_na=False).to_numpy().tolist()
    except Exception as error:  # pandas and openpyxl raise all kinds of errors on other zip archives and XML
        raise TableError(
            f"{path} cannot be read as a workbook ({type(error).__name__}: {error}). Download it again, or save it as "
            f"{SCORES}.csv beside it."
        ) from error
    return [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]


def draw_regions(folder: Path, series: str | None, regions: Sequence[Region], scan: CTScan) -> sitk.Image:
    """Draw regions on the grid of a scan.

    A pixel belongs to a region if its centre lies inside, or the outline runs through it. Raises BadReferenceError if a
    region does not lie on the scan, and CTError if the scan cannot be read.
    """
    image = scan.image
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    for region, points_mm in zip(regions, place_regions(regions, _slices(folder, series)), strict=True):
        outline = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points_mm])
        # 1e-6: a point on the border of two pixels belongs to the second one, despite rounding.
        pixels = np.floor(outline + PIXEL_CENTRE + 1e-6).astype(int)
        if (pixels < 0).any() or (pixels >= image.GetSize()).any():
            width, height, _ = image.GetSize()
            raise BadReferenceError(
                f"A region in image {region.image_index} reaches out of the {width}×{height} pixels of the scan in "
                f"{folder}. The file of regions is of another scan."
            )
        k = int(np.bincount(pixels[:, 2]).argmax())
        labels[k][_fill_outline(pixels[:, :2], labels.shape[:0:-1])] = region.artery
    return Grid.of(image).image(labels)


def read_regions(path: Path) -> list[Region]:
    """Read the regions of a property list, without placeholders for arteries free of calcium (no points, or no area).

    Raises BadReferenceError if it is not a list of regions, or an artery's name is unknown.
    """
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise BadReferenceError(f"{path.name} has {path.stat().st_size / 2**20:.0f} MB, too much for one scan.")
        with open_file(path) as file:
            content = plistlib.load(file, fmt=plistlib.FMT_XML)
        regions = []
        for image in content["Images"]:
            outlines = [roi for roi in image["ROIs"] if roi["Point_px"] and roi.get("Area") != 0]
            regions += [_region(roi, int(image["ImageIndex"])) for roi in outlines]
    except OSError as error:
        raise BadReferenceError(f"{path.name} cannot be opened ({error.strerror}).") from error
    except _PARSE_ERRORS as error:
        raise BadReferenceError(
            f"{path.name} is not a list of regions ({type(error).__name__}: {printable(str(error))}). Download it "
            "again."
        ) from error
    return regions


def place_regions(regions: Sequence[Region], slices: Sequence[DicomSlice]) -> list[np.ndarray]:
    """Return the regions' outlines in mm, LPS, [n, 3] each, in the plane of a slice.

    slices: Slices of one series, in any order. Raises BadReferenceError if a region is not on this series.
    """
    planes = sorted(map(_Plane.of, slices), key=lambda plane: plane.origin[2])
    positions = np.array([plane.origin @ planes[0].normal for plane in planes])
    gaps = np.diff(np.sort(positions))
    half_gap = float(np.median(gaps)) / 2 if len(gaps) else 0.0
    return [_place_region(region, planes, positions, half_gap) for region in regions]


def _place_region(region: Region, planes: Sequence[_Plane], positions: np.ndarray, half_gap: float) -> np.ndarray:
    place = f"The region in image {region.image_index}"
    if region.points_mm is None:
        if region.image_index >= len(planes):
            raise BadReferenceError(f"{place} is beyond the {len(planes)} slices of the series: it is of another scan.")
        return planes[region.image_index].points(region.pixels)
    heights = region.points_mm @ planes[0].normal
    nearest = int(np.abs(positions - heights.mean()).argmin())
    if np.abs(positions[nearest] - heights).max() > half_gap:
        raise BadReferenceError(
            f"{place} lies at {heights.mean():.1f} mm, where the series has no slice (it has {len(planes)} from "
            f"{positions.min():.1f} to {positions.max():.1f} mm). The file of regions is of another series."
        )
    points = planes[nearest].points(region.pixels)
    error_mm = np.linalg.norm(points - region.points_mm, axis=1).max()
    if error_mm > SAME_PLACE_MM + half_gap:
        raise BadReferenceError(
            f"{place} lies {error_mm:.0f} mm from where its pixels are in the series. The file of regions is of "
            "another series."
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
            raise BadReferenceError(f"{slice_.path.name} does not say where it lies. Download the scan again.")
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        return cls(np.array(origin), row * spacing[1], column * spacing[0], np.cross(row, column))

    def points(self, pixels: np.ndarray) -> np.ndarray:
        columns, rows = (pixels - PIXEL_CENTRE).T[..., None]
        return self.origin + columns * self.along_row + rows * self.along_column


def outlined_series(regions: Sequence[Region], series: Sequence[ScanSource], xml: Path) -> ScanSource:
    """Return the series on which the regions were outlined. Raises BadReferenceError if it is not unique."""
    if len(series) == 1:
        return series[0]
    fitting = []
    for candidate in series:
        try:
            place_regions(regions, _slices(candidate.ct, candidate.series))
            fitting.append(candidate)
        except CTError:
            continue
    if len(fitting) != 1:
        raise BadReferenceError(f"{xml.name} fits {len(fitting)} of the {len(series)} series of its patient.")
    return fitting[0]


def _slices(folder: Path, series: str | None) -> list[DicomSlice]:
    return [slice_ for path in series_files(folder, series) if (slice_ := read_slice(path)) is not None]


def _region(roi: dict[str, Any], image_index: int) -> Region:
    name = str(roi["Name"])
    artery = Artery.LM if name.strip().lower() == "left coronary artery" else site_called(name)
    if not isinstance(artery, Artery) or artery > Artery.OTHER:
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


def _fill_outline(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fill an outline, bool [rows, columns], including its border. outline: int [n, 2], (column, row)."""
    picture = Image.new("1", size)
    points = [tuple(point) for point in outline.tolist()]
    if len(points) < 3:
        ImageDraw.Draw(picture).line([*points, points[0]], fill=1)
    else:
        ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
    return np.array(picture)


GATED = Format("COCA, gated scans with contours", lambda source: _gated_root(source) is not None, _read_gated, True)
NONGATED = Format(
    "COCA, scans that are not gated",
    lambda source: _table(source) is not None,
    lambda source, scans, progress: nongated_reference(source, (), scans, progress),
)
