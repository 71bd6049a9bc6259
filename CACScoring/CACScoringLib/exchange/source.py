"""DICOM series of a scan: patient, study and geometry for the DICOM objects of a result."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from ..core.ct import CTScan, same_grid
from ..core.errors import CTError
from ..core.files import resource_rows
from ..core.grid import Grid
from ..core.version import VERSION, commit
from ..core.voxels import voxels_of
from ..io.dicom import read_bounded
from ..io.files import real_files

AnyDataset = TypeVar("AnyDataset", bound=Dataset)

MANUFACTURER, MODEL_NAME, SERIAL_NUMBER = "CAC developers", "CAC", "none"
"""Equipment stated in the objects."""

_LAST_DIGITS = {"segmentation": 1, "measurements": 2}
"""Last digit of the series number by kind of object."""

_NAMESPACE = uuid.UUID("6d0c2f5a-94f1-5a0c-8b1e-2f6a7c3d9e10")
_ELEMENTS = resource_rows("dicom_elements.csv")
_NEEDED = {row["keyword"]: row["needed"] for row in _ELEMENTS if row["needed"]}
"""Names of the elements without which nothing can refer to an image, by keyword."""

_PATIENT_AND_STUDY, _IMAGE = (
    [row["keyword"] for row in _ELEMENTS if row["part"] == part] for part in ("patient and study", "image")
)
"""Elements of patient and study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.1.3 and C.7.2.3), and those that references to an
image and to places in it need."""

_TYPE_2 = (  # mandatory, but may be empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)


_LONG_STRING = 64
"""Characters of a long string (PS3.5 6.2, VR LO)."""

LONGEST_NAME = 64
"""Characters of a person's name (PS3.5 6.2, VR PN)."""


@dataclass(frozen=True)
class SourceSeries:
    """Series as a source of DICOM objects.

    Attributes:
        headers: Headers of the images in the order of the slices of `grid`, without pixels.
        images: Elements of the headers that the objects need, with empty patient and study.
        grid: Geometry of the stored images: rows, columns, and slices along their normal. Its voxels are 0.
        orientation: ITK's code of the grid's axes.
        digest: Hash of the content of a result's objects.
    """

    headers: tuple[Dataset, ...]
    images: tuple[Dataset, ...]
    grid: sitk.Image
    orientation: str
    digest: str

    def stored(self, image: sitk.Image) -> np.ndarray:
        """Return the voxels of an image on the scan's grid in the order of the source, [slice, row, column]."""
        turned = sitk.DICOMOrient(image, self.orientation)
        if not same_grid(turned, self.grid):
            raise CTError("The result does not lie on the grid of its DICOM series. Score the series again.")
        return sitk.GetArrayFromImage(turned)

    def uid(self, *parts: object) -> str:
        """Return a UID under 2.25 (PS3.5 B.2) that follows from the result and the parts."""
        texts = (self.digest, *map(str, parts))
        return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(texts)).int}"

    def series_number(self, last_digit: int) -> int:
        """Return a series number distinct from those of the study, 1000 times the source's plus `last_digit`."""
        try:
            number = int(self.headers[0].get("SeriesNumber") or 0)
        except (TypeError, ValueError):
            number = 0
        return 1000 * min(max(number, 0), 1_000_000) + last_digit

    def identity(self, kind: str) -> dict[str, Any]:
        """Return series, instance and equipment of a DICOM object. kind: Key of `_LAST_DIGITS`."""
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": self.series_number(_LAST_DIGITS[kind]),
            "sop_instance_uid": self.uid(kind),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MODEL_NAME,
            "software_versions": [VERSION, f"commit {commit()}"[:_LONG_STRING]],
            "device_serial_number": SERIAL_NUMBER,
        }

    def complete(self, dataset: AnyDataset) -> AnyDataset:
        """Set an object's patient and study to the source's, and remove private elements."""
        header = self.headers[0]
        for keyword in _PATIENT_AND_STUDY:
            if keyword in header:
                dataset[keyword] = header[keyword]
            elif keyword in dataset and keyword not in _TYPE_2:
                del dataset[keyword]
        dataset.remove_private_tags()
        return dataset


def with_creator(dataset: AnyDataset) -> AnyDataset:
    """Add the Content Creator's Name required by PS3.3 table 10-12, which may be empty."""
    dataset.setdefault("ContentCreatorName", "")
    return dataset


def check_reader(name: str | None) -> None:
    """Raise CTError for a reader's name that DICOM cannot hold."""
    if name is None:
        return
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable() or set("\\=") & set(name):
        raise CTError(
            f"{name!r} is no DICOM person name. Write Family^Given, with at most {LONGEST_NAME} characters and "
            "without \\ and =."
        )


def check_series(scan: CTScan) -> None:
    """Raise CTError for a scan from no DICOM series, or from one to which objects cannot refer."""
    _headers(scan)


def source_series(scan: CTScan, content: dict[str, object], *voxels: sitk.Image) -> SourceSeries:
    """Return the series of a scan.

    Args:
        scan: The scan.
        content: Statements of the objects, as JSON; UIDs follow from it.
        voxels: Voxels of the objects; UIDs follow from them too.

    Raises:
        CTError: The scan was read from no DICOM series, or from one that lacks elements that references need or can no
            longer be read.
    """
    headers = _headers(scan)
    row, column = np.reshape(np.asarray(headers[0].ImageOrientationPatient, float), (2, 3))
    normal = np.cross(row, column)
    headers.sort(key=lambda header: float(np.asarray(header.ImagePositionPatient, float) @ normal))
    grid = _grid(headers, scan.image, (row, column, normal))
    digest = hashlib.sha256(json.dumps([VERSION, content], sort_keys=True, default=str).encode())
    for header in headers:
        digest.update(str(header.SOPInstanceUID).encode())
    for image in voxels:
        digest.update(voxels_of(image).tobytes())
    orientation = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.GetDirection())
    images = tuple(_image(header) for header in headers)
    return SourceSeries(tuple(headers), images, grid, orientation, digest.hexdigest())


def _headers(scan: CTScan) -> list[Dataset]:
    if not scan.dicom_files:
        raise CTError(
            f"{scan.name or 'The scan'} was not read from a DICOM series, and DICOM results have to refer to one. Give "
            "the folder of the DICOM series."
        )
    with real_files(scan.dicom_files) as files:
        return [_header(path) for path in files]


def _header(path: Path) -> Dataset:
    header = read_bounded(path, stop_before_pixels=True)
    if "PerFrameFunctionalGroupsSequence" in header:
        raise CTError(
            f"{path.name} is a multi-frame CT, to which DICOM results cannot refer. Export it as single-frame CT."
        )
    for keyword, name in _NEEDED.items():
        if not header.get(keyword):
            raise CTError(f"{path.name} has no {name}, and DICOM results have to refer to it. Export the series again.")
    return header


def _grid(headers: list[Dataset], image: sitk.Image, axes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> sitk.Image:
    """Return the source's geometry: that of the scan's image in the source's orientation, with voxels of 0."""
    direction = np.column_stack([axis / np.linalg.norm(axis) for axis in axes]).ravel().tolist()
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
    turned = sitk.DICOMOrient(Grid.of(image).image(np.zeros(image.GetSize()[::-1], np.uint8)), code)
    first = np.asarray(headers[0].ImagePositionPatient, float)
    expected = (int(headers[0].Columns), int(headers[0].Rows), len(headers))
    if turned.GetSize() != expected or np.linalg.norm(np.subtract(turned.GetOrigin(), first)) > max(image.GetSpacing()):
        raise CTError("The DICOM series changed after it was read. Score it again.")
    return turned


def _image(header: Dataset) -> Dataset:
    """Return the elements needed for references and places; `SourceSeries.complete` adds patient and study."""
    image = Dataset()
    for keyword in _IMAGE:
        if keyword in header:
            image[keyword] = header[keyword]
    for keyword in _TYPE_2:
        setattr(image, keyword, "")
    return image
