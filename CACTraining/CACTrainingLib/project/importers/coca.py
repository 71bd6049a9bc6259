"""Import COCA, Stanford AIMI's data set "Coronary Calcium and chest CTs", as scans with annotations.

Gated scans lie in `…/patient/N/SERIES/*.dcm`, their regions in `…/calcium_xml/N.xml`, property lists exported by
OsiriX. Non-gated scans lie in `…/deidentified_nongated/N/…` and have no regions, but Agatston scores in a table beside
the folders `N`: scores.xlsx as published, or scores.csv in its place.

A region has its position twice: as points in mm, and as ImageIndex, its place in the list on the reader's screen, whose
order may be unknown. So the points decide. In a property list without points, ImageIndex 0 is the slice nearest to the
feet: a published analysis of the gated release (449 scans, 6,232 regions) found the index to follow rising z of
ImagePositionPatient in all but a few scans (two series in one folder, or a replaced series), and the order of file
names in about half.

The library amid, which knows COCA too, is not used: it returns arrays without their place in the patient, and pip found
no versions of its many requirements (scikit-image, pylidc, highdicom …) that go with ours.
"""

from __future__ import annotations

import math
import plistlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np
from PIL import Image, ImageDraw

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, site_called
from CACScoringLib.core.tables import TableError, read_cells
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.dicom import DicomSlice, read_slice
from CACScoringLib.io.reading import read_ct

from ..annotation_files import ImportedAnnotations, SliceLabel
from ..project import NewScan
from ..scan_identity import series_files
from .segmentation_labels import slice_labels

ANNOTATOR = "COCA"
REGIONS_FOLDER, PATIENTS_FOLDER, SCORES = "calcium_xml", "patient", "scores"

MAX_XML_BYTES = 64 * 2**20
"""Largest accepted property list, more than a hundred times the usual size."""

SAME_PLACE_MM = 3.0
"""Largest distance between a region's point in pixels and in mm; exporters differ by half a pixel."""

PIXEL_CENTRE = 0.5
"""Offset in pixels of OsiriX, which counts from the first pixel's corner, from DICOM, which counts from its centre."""

_DECIMAL_COMMA = re.compile(r"^\s*(\d+),(\d{1,2})\s*$")
"""Number with a decimal comma, as spreadsheets of some languages write it; three digits would be thousands."""

_PARSE_ERRORS = (ExpatError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Errors raised by plistlib and by lookups in its result on other files."""


class CocaError(CTError):
    """Unusable file of COCA. The message names it and the reason."""


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


class CocaSeries(NamedTuple):
    """CT series of a COCA patient."""

    folder: Path
    uid: str | None


Reader = Callable[[], ImportedAnnotations]


def _scans(kind: str, number: str, series: Sequence[CocaSeries], readers: Sequence[Reader | None]) -> list[NewScan]:
    """Return the scans of a patient. readers: Functions that read the annotations of each series."""
    patient = f"coca-{kind}-{number}"
    names = [f"{patient}-{n}" for n in range(1, len(series) + 1)] if len(series) > 1 else [patient]
    return [
        NewScan(name, patient, folder, uid, source="coca", annotations=reader)
        for name, (folder, uid), reader in zip(names, series, readers, strict=True)
    ]


def gated_place(folder: Path) -> tuple[Path, str] | None:
    """Return the data set's folder and the patient's number for a DICOM folder of a gated scan, or None."""
    for place in (folder, *folder.parents):
        if place.parent.name == PATIENTS_FOLDER and (place.parent.parent / REGIONS_FOLDER).is_dir():
            return place.parent.parent, place.name
    return None


def nongated_place(folder: Path) -> tuple[Path, str] | None:
    """Return the folder of the scores and the patient's number for a DICOM folder of a non-gated scan, or None."""
    for place in (folder, *folder.parents):
        if place.name.isdecimal() and any(path.is_file() for path in _score_tables(place.parent)):
            return place.parent, place.name
    return None


def _score_tables(folder: Path) -> tuple[Path, ...]:
    """Return the possible tables of scores, by preference."""
    return folder / f"{SCORES}.csv", folder / f"{SCORES}.xlsx"


def gated_scans(root: Path, series: Mapping[str, Sequence[CocaSeries]]) -> tuple[list[NewScan], list[str]]:
    """Return the gated scans of a data set with their regions, and warnings.

    series: Series by the patient's number. Scans whose regions are missing or cannot be attributed to a series
    have no annotations.
    """
    scans, warnings = [], []
    region_files = {path.stem: path for path in sorted((root / REGIONS_FOLDER).glob("*.xml"))}
    for number, patient_series in series.items():
        match, regions = None, None
        if number in region_files:
            try:
                regions = read_regions(region_files[number])
                match = outlined_series(regions, patient_series, region_files[number])
            except CTError as error:
                warnings.append(f"Scan {number} of COCA comes without its regions: {error}")
        readers = [
            partial(gated_annotations, *ct, regions) if regions is not None and ct is match else None
            for ct in patient_series
        ]
        scans += _scans("gated", number, patient_series, readers)
    if without := [number for number in series if number not in region_files]:
        warnings.append(
            f"Gated scans of COCA without a file in {REGIONS_FOLDER} come without labels: {abbreviated_list(without)}."
        )
    if lone := [number for number in region_files if number not in series]:
        warnings.append(
            f"{len(lone)} files in {REGIONS_FOLDER} are of patients without a scan here: {abbreviated_list(lone)}."
        )
    return scans, warnings


def nongated_scans(root: Path, series: Mapping[str, Sequence[CocaSeries]]) -> tuple[list[NewScan], list[str]]:
    """Return the non-gated scans and warnings. A score of 0 labels all slices as not visible; others give no labels.

    series: Series by the patient's number.
    """
    warnings, scores = [], {}
    table = next(path for path in _score_tables(root) if path.is_file())
    try:
        scores = read_scores(table)
    except CocaError as error:
        warnings.append(str(error))
    scans = []
    for number, patient_series in series.items():
        is_clean = scores.get(number) == 0
        readers = [partial(clean_annotations, *ct) if is_clean else None for ct in patient_series]
        scans += _scans("nongated", number, patient_series, readers)
    if unlabelled := [number for number in series if scores.get(number) != 0]:
        warnings.append(
            f"{len(unlabelled)} scans of COCA that are not gated have a calcium score above 0 or none, so they come "
            f"without labels: {abbreviated_list(unlabelled)}. Label their slices."
        )
    return scans, warnings


def read_scores(path: Path) -> dict[str, float]:
    """Read the highest Agatston score of each scan, of an artery or in total, by the scan's number.

    path: CSV, or the first sheet of a workbook (.xlsx), with a header; the first column is the scan's number, with or
    without a letter after it. Raises CocaError.
    """
    scores = {}
    try:
        for _, (name, *cells) in score_rows(path)[1:]:
            values = [float(cell) for cell in cells if cell.strip()]
            if not all(0 <= value < math.inf for value in values):
                raise ValueError(f"the scores of {printable(name)} are {printable(', '.join(cells))}")
            if values:
                scores[re.sub(r"\D*$", "", name.strip())] = max(values)
    except (OSError, ValueError, TableError) as error:
        raise CocaError(f"{path} is not a table of scores ({error}). Download {SCORES}.xlsx again.") from error
    return scores


def score_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the rows, with their numbers, of a table of scores, header first, from CSV or the first sheet of a workbook.

    Raises OSError, ValueError, TableError, and CocaError if openpyxl is missing.
    """
    if path.suffix != ".xlsx":
        return [(line, [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for line, cells in read_cells(path)]
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
        except Exception as error:  # openpyxl raises all kinds of errors on other zip archives and XML
            raise ValueError(f"it cannot be read as a workbook: {type(error).__name__}: {error}") from error
    return [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]


def _as_text(value: object) -> str:
    """Return a cell's value as text; Excel may store whole numbers as floating point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def clean_annotations(ct: Path, series: str | None) -> ImportedAnnotations:
    """Label all slices of a scan as not visible. Raises CTError if the scan cannot be read."""
    count = read_ct(ct, series).image.GetSize()[2]
    return ImportedAnnotations(ANNOTATOR, dict.fromkeys(range(count), SliceLabel.NOT_VISIBLE))


def gated_annotations(ct: Path, series: str | None, regions: Sequence[Region]) -> ImportedAnnotations:
    """Draw regions on the grid of a scan; label its slices as visible or not visible by them.

    A pixel belongs to a region if its centre lies inside, or the outline runs through it. Raises CocaError if a region
    does not lie on the scan, and CTError if the scan cannot be read.
    """
    image = read_ct(ct, series).image
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    for region, points_mm in zip(regions, place_regions(regions, _slices(ct, series)), strict=True):
        outline = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points_mm])
        # 1e-6: a point on the border of two pixels belongs to the second one, despite rounding.
        pixels = np.floor(outline + PIXEL_CENTRE + 1e-6).astype(int)
        if (pixels < 0).any() or (pixels >= image.GetSize()).any():
            width, height, _ = image.GetSize()
            raise CocaError(
                f"A region in image {region.image_index} reaches out of the {width}×{height} pixels of the scan in "
                f"{ct}. The file of regions is of another scan."
            )
        k = int(np.bincount(pixels[:, 2]).argmax())
        labels[k][_fill_outline(pixels[:, :2], labels.shape[:0:-1])] = region.artery
    on_grid = Grid.of(image).image(labels)
    return ImportedAnnotations(ANNOTATOR, slice_labels(on_grid), on_grid)


def read_regions(path: Path) -> list[Region]:
    """Read the regions of a property list, without placeholders for arteries free of calcium (no points, or no area).

    Raises CocaError if it is not a list of regions, or an artery's name is unknown.
    """
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise CocaError(f"{path.name} has {path.stat().st_size / 2**20:.0f} MB, too much for one scan.")
        with path.open("rb") as file:
            content = plistlib.load(file, fmt=plistlib.FMT_XML)
        regions = []
        for image in content["Images"]:
            outlines = [roi for roi in image["ROIs"] if roi["Point_px"] and roi.get("Area") != 0]
            regions += [_region(roi, int(image["ImageIndex"])) for roi in outlines]
    except OSError as error:
        raise CocaError(f"{path.name} cannot be opened ({error.strerror}).") from error
    except _PARSE_ERRORS as error:
        raise CocaError(
            f"{path.name} is not a list of regions ({type(error).__name__}: {printable(str(error))}). Download it "
            "again."
        ) from error
    return regions


def place_regions(regions: Sequence[Region], slices: Sequence[DicomSlice]) -> list[np.ndarray]:
    """Return the regions' outlines in mm, LPS, [n, 3] each, in the plane of a slice.

    slices: Slices of one series, in any order. Raises CocaError if a region is not on this series.
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
            raise CocaError(f"{place} is beyond the {len(planes)} slices of the series: it is of another scan.")
        return planes[region.image_index].points(region.pixels)
    heights = region.points_mm @ planes[0].normal
    nearest = int(np.abs(positions - heights.mean()).argmin())
    if np.abs(positions[nearest] - heights).max() > half_gap:
        raise CocaError(
            f"{place} lies at {heights.mean():.1f} mm, where the series has no slice (it has {len(planes)} from "
            f"{positions.min():.1f} to {positions.max():.1f} mm). The file of regions is of another series."
        )
    points = planes[nearest].points(region.pixels)
    error_mm = np.linalg.norm(points - region.points_mm, axis=1).max()
    if error_mm > SAME_PLACE_MM + half_gap:
        raise CocaError(
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
            raise CocaError(f"{slice_.path.name} does not say where it lies. Download the scan again.")
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        return cls(np.array(origin), row * spacing[1], column * spacing[0], np.cross(row, column))

    def points(self, pixels: np.ndarray) -> np.ndarray:
        columns, rows = (pixels - PIXEL_CENTRE).T[..., None]
        return self.origin + columns * self.along_row + rows * self.along_column


def outlined_series(regions: Sequence[Region], series: Sequence[CocaSeries], xml: Path) -> CocaSeries:
    """Return the series on which the regions were outlined. Raises CocaError if it is not unique."""
    if len(series) == 1:
        return series[0]
    fitting = []
    for candidate in series:
        try:
            place_regions(regions, _slices(candidate.folder, candidate.uid))
            fitting.append(candidate)
        except CTError:
            continue
    if len(fitting) != 1:
        raise CocaError(f"{xml.name} fits {len(fitting)} of the {len(series)} series of its patient.")
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
