"""COCA, gated scans: contours of calcium as property lists, one for each patient, beside the DICOM folders.

Stanford AIMI, "COCA – Coronary Calcium and chest CTs". As the published loaders have it (neuro-ml/amid, `StanfordCoCa`;
`process_xml` of several course projects) and a published analysis of 449 of its scans: `patient/N/SERIES/*.dcm` and
`calcium_xml/N.xml` with `Images`, each with `ImageIndex` (from 0, from the feet), `NumberOfROIs` and `ROIs`; each of
these with `Name` (four arteries; "Left Coronary Artery" is the left main), `Point_px`, `Point_mm`, `Area`, `Max`,
`Mean` … Every outlined image has placeholders without points for the other arteries. A few lists have names that
are no artery's, one is of a series that was replaced, some folders hold two series of the same slices.

`project.importers.coca` reads the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.io.reading import find_series

from ..project.importers.coca import (
    PATIENTS_FOLDER,
    REGIONS_FOLDER,
    CocaSeries,
    Region,
    gated_annotations,
    outlined_series,
    read_regions,
)
from .reference import BY_RULE, VESSELS, BadReferenceError, Counted, Reference, ReferenceScan, read_each

TITLE = "COCA, gated scans with contours"
RELEASE = "Gated_release_final"


def fits(source: Path) -> bool:
    return _root(source) is not None


def _root(source: Path) -> Path | None:
    places = (source, source / RELEASE)
    return next((p for p in places if (p / REGIONS_FOLDER).is_dir() and (p / PATIENTS_FOLDER).is_dir()), None)


def read(source: Path, progress: Counted | None = None) -> Reference:
    """The reference of a folder that `fits`, which holds its scans."""
    root = _root(source)
    outlined = {path.stem: path for path in (root / REGIONS_FOLDER).glob("*.xml")}
    patients = {path.name: path for path in (root / PATIENTS_FOLDER).iterdir() if path.is_dir()}
    numbers = sorted({*outlined, *patients}, key=lambda n: (not n.isdecimal(), int(n) if n.isdecimal() else 0, n))

    def scan(number: str, _: None) -> ReferenceScan:
        if number not in patients:
            raise BadReferenceError(f"There is no folder {PATIENTS_FOLDER}/{number} with its scan.")
        if number not in outlined:
            raise BadReferenceError(f"There is no {REGIONS_FOLDER}/{number}.xml: whether it has calcium is unknown.")
        regions = read_regions(outlined[number])
        own = outlined_series(regions, _series(patients[number]), outlined[number])
        outlines = partial(_outlines, tuple(regions), own.folder, own.uid)
        return ReferenceScan(number, number, own.folder, own.uid, outlines=outlines, files=(outlined[number],))

    about = f"Readers outlined calcium in each image and named its artery. {BY_RULE}"
    return Reference(TITLE, about, VESSELS, *read_each([(number, None) for number in numbers], scan, progress))


def _series(folder: Path) -> list[CocaSeries]:
    """Raises BadReferenceError where there is none."""
    places = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    found = [CocaSeries(place, series.uid) for place in places for series in find_series(place)[0]]
    if not found:
        raise BadReferenceError(f"{folder} holds no CT series. Download it again.")
    return found


def _outlines(regions: Sequence[Region], folder: Path, series: str | None, scan: CTScan) -> sitk.Image:
    return gated_annotations(folder, series, regions).regions
