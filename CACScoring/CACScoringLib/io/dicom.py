"""A DICOM series as one volume: headers, slices to a stack in HU, and the facts of the acquisition.

Headers come from pydicom and pixels from SimpleITK, slice by slice, so that each slice has its own rescale slope
and intercept (DICOM PS3.3 C.8.2.1). Slices are ordered by their position along the slice normal and by nothing
else. Whatever is not one evenly spaced stack of HU slices ends in a `CTError`; nothing is repaired silently.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.ct import (
    AIR_HU,
    Acquisition,
    NotHounsfieldError,
    NotVolumeError,
    ScanWarning,
    SliceGeometryError,
    UnreadableError,
)
from ..core.text import printable
from .bounded import read_bounded

if TYPE_CHECKING:
    import pydicom

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 10.0
"""Distance of neighbouring voxels on any axis; beyond these the header's geometry cannot be a chest CT's."""

POSITION_TOLERANCE_MM = 0.15
"""How far a slice may lie from its place in an even stack: positions rounded to 0.1 mm reach 0.1 mm."""

IN_PLANE_TOLERANCE_MM = 0.5
"""How far slices may be shifted against each other within their plane: rounded positions and direction cosines
reach 0.3 mm over a chest; a gantry tilt of 1° moves 5 mm over 300 mm."""

DUPLICATE_TOLERANCE_MM = 0.01
"""Slices closer than this have the same position."""

PIXEL_SPACING_TOLERANCE_MM = 0.001
"""Pixel spacings of one series differ less than this (0.5 mm over 512 pixels)."""

DIRECTION_TOLERANCE = 0.001
"""Direction cosines of one series differ less than this (0.06°)."""

ORTHONORMAL_TOLERANCE = 0.01
"""Row and column directions are unit vectors at right angles within this: cosines rounded to two decimals pass."""

LEAST_MASS_FACTOR, MOST_MASS_FACTOR = 0.3, 2.0
"""mg/cm³ of hydroxyapatite per HU that a scanner may state; 70 to 140 kVp give 0.4 to 1."""

MOST_STEP_HU = 30.0
"""Median difference of soft tissue between neighbouring slices. Chests of real patients reach 11 HU, with slices up to
5 mm apart; a wrong rescale slope or intercept makes hundreds."""

SOFT_TISSUE_HU = -300
"""What lies above, in one of two slices, is compared with the other."""

HIGHEST_TISSUE_HU = 3071
"""The top of the 12-bit CT scale; a padding value above it marks no tissue."""

_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # Enhanced, Legacy Converted Enhanced
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")  # JPEG and its relatives, RLE
END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
_DICOMDIR = "1.2.840.10008.1.3.10"
SHEARED = (
    "the gantry was tilted, or the volume deformed. Resample it to a straight volume (in 3D Slicer: DICOM settings, "
    "acquisition geometry regularization) and score that."
)
# fmt: off
TAGS = [
    "KVP", "ConvolutionKernel", "ContrastBolusAgent", "CardiacSynchronizationTechnique", "ScanOptions", "Manufacturer",
    "ManufacturerModelName", "SliceThickness", "Exposure", "ExposureInuAs", "SeriesNumber", "SeriesDescription",
    "SeriesInstanceUID", "AcquisitionNumber", "AcquisitionTime", "SeriesTime", "StudyDate", "PatientSex",
    "PatientAge", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "PatientPosition",
    "BurnedInAnnotation", "LossyImageCompression", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "Modality", "ImageType",
    "SOPClassUID", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "CalciumScoringMassFactorPatient", "CalciumScoringMassFactorDevice",
]
# fmt: on


def _value(elements: pydicom.Dataset, keyword: str):
    """An element's value; None when it is missing, empty or broken."""
    try:
        value = elements.get(keyword)
    except Exception:  # pydicom converts on access, and broken bytes raise whatever its converters meet
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


@dataclass(frozen=True)
class DicomSlice:
    """A DICOM file and those elements of its header that reading a CT needs."""

    path: Path
    header: pydicom.Dataset

    @property
    def file(self) -> Path:
        """The file of the series that it comes from."""
        return self.path

    def value(self, keyword: str):
        return _value(self.header, keyword)

    def text(self, keyword: str) -> str | None:
        import pydicom

        value = self.value(keyword)
        parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        return printable(" ".join(str(part) for part in parts if part is not None)) or None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        value = self.value(keyword)
        try:
            numbers = tuple(float(part) for part in (value if count > 1 else [value]))
        except (TypeError, ValueError, OverflowError):
            return None
        return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None

    def number(self, keyword: str) -> float | None:
        numbers = self.numbers(keyword, 1)
        return numbers[0] if numbers else None

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in (self.text("ImageType") or "").upper().split()

    @property
    def is_multi_frame(self) -> bool:
        return self.text("SOPClassUID") in _ENHANCED_CT or (self.number("NumberOfFrames") or 1) > 1


def clock(time: str) -> str:
    """A DICOM time (PS3.5 6.2, VR TM) as HH:MM:SS, or HH:MM where it has no seconds; empty where it is none."""
    digits = time.partition(".")[0]
    return ":".join(digits[n : n + 2] for n in range(0, len(digits), 2)) if digits.isdecimal() else ""


def is_dicom(path: Path) -> bool:
    """Whether the file starts as PS3.10 asks: 128 bytes, then DICM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_slice(path: Path) -> DicomSlice | None:
    """The header of a DICOM file with a modality; None for a file that is no DICOM, or is a DICOMDIR."""
    try:
        if not is_dicom(path):
            return None
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error
    header = read_bounded(path, stop_before_pixels=True, specific_tags=TAGS)
    if _value(header.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR:
        return None
    slice_ = DicomSlice(path, header)
    if slice_.text("Modality") is None:
        raise UnreadableError(f"{path.name} is a DICOM file without a modality.")
    return slice_


def some(items: Iterable[str]) -> str:
    """The first five items, and how many more there are."""
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def first_value(slices: list[DicomSlice], get: Callable, keyword: str):
    """The first value in the order of the slices, None when no slice has one."""
    return next((value for value in (get(s, keyword) for s in slices) if value is not None), None)


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Raises SliceGeometryError when a spacing (i, j, k) is none that a chest CT has."""
    for axis, spacing in zip("ijk", spacing_mm, strict=True):
        if not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:
            raise SliceGeometryError(
                f"The voxel spacing along axis {axis} is {spacing:g} mm; a chest CT has {MIN_SPACING_MM:g} to "
                f"{MAX_SPACING_MM:g} mm. The geometry was lost or changed: export the CT again."
            )


def image_from_series(slices: list[DicomSlice]) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """Read the slices of one series, in any order, as a volume. None of them is multi-frame.

    Returns:
        The volume in HU (int16, or float32 where a rescale is fractional), and warnings.

    Raises:
        UnreadableError: It is missing or cannot be read.
        NotVolumeError: It is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.
    """
    if len(slices) < 2:
        raise NotVolumeError("The CT series has 1 slice; at least 2 are needed. Give the folder that holds them all.")
    _check_grey(slices)
    _check_bits(slices)
    warnings = _check_rescale(slices)
    order, origin, spacing_mm, direction = stack_of(slices)
    volume, padding = _read_pixels([slices[n] for n in order])
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image, warnings + padding


def stack_of(
    slices: list[DicomSlice],
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], np.ndarray]:
    """The stack that slices of one series make.

    Returns:
        The order of the slices along their normal, the centre of the first voxel (LPS, mm), spacing (i, j, k) in mm,
        and the directions of the axes as columns.

    Raises:
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.
    """
    row, column, (spacing_j, spacing_i) = _plane(slices)
    normal = np.cross(row, column)
    positions = np.array([s.numbers("ImagePositionPatient", 3) for s in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    # Named along the axis that the normal is closest to, so that axial slices are named by their z.
    sign = math.copysign(1.0, normal[np.argmax(np.abs(normal))])
    spacing_mm = (spacing_i, spacing_j, _even_spacing(positions @ normal, sign))
    _check_no_shear(positions, normal)
    check_spacing(spacing_mm)
    return order, positions[0], spacing_mm, np.column_stack([row, column, normal])


def _check_grey(slices: list[DicomSlice]) -> None:
    for slice_ in slices:
        samples = slice_.number("SamplesPerPixel")
        photometric = slice_.text("PhotometricInterpretation")
        if samples not in (None, 1) or photometric not in (None, "MONOCHROME1", "MONOCHROME2"):
            raise NotVolumeError(
                f"{slice_.path.name} is a colour image ({samples or 1:g} samples per pixel, {photometric}). Give the "
                "grey-level CT series."
            )
        if photometric == "MONOCHROME1":
            # ITK inverts these values on reading.
            raise NotHounsfieldError(f"{slice_.path.name} is stored inverted (MONOCHROME1). Export it as MONOCHROME2.")


def _check_bits(slices: list[DicomSlice]) -> None:
    """Of a pixel (PS3.3 C.7.6.3.1.1); where they are wrong, values are read as others without a word."""
    for slice_ in slices:
        allocated, stored, high = (slice_.number(name) for name in ("BitsAllocated", "BitsStored", "HighBit"))
        known = stored is None or (allocated is not None and 0 < stored <= allocated)
        beside = stored is not None and high is not None and high != stored - 1
        if allocated not in (8, 16, 32) or not known or beside:
            raise UnreadableError(
                f"{slice_.path.name} describes pixels that no CT has: {stored or 0:g} of {allocated or 0:g} bits are "
                f"stored, up to bit {high or 0:g}. Export the series again."
            )
        if slice_.number("PixelRepresentation") not in (0, 1):
            raise UnreadableError(
                f"{slice_.path.name} does not say whether its pixels have a sign (Pixel Representation 0 or 1), so "
                "their values are unknown. Export the series again."
            )


def _check_rescale(slices: list[DicomSlice]) -> tuple[ScanWarning, ...]:
    for keyword, name in (("RescaleSlope", "slope"), ("RescaleIntercept", "intercept")):
        without = [s.path.name for s in slices if s.number(keyword) is None]
        if without:
            raise NotHounsfieldError(
                f"{len(without)} of {len(slices)} slices have no rescale {name}, so their values are not HU: "
                f"{some(without)}. Export the series again from the scanner or archive."
            )
    zero = [s.path.name for s in slices if s.number("RescaleSlope") == 0]
    if zero:
        raise NotHounsfieldError(f"The rescale slope is 0 in {some(zero)}. Export the series again.")
    # PS3.3 C.8.2.1: the type may be left out where it is HU.
    types = sorted({(s.text("RescaleType") or "HU").upper() for s in slices})
    if len(types) > 1:
        raise NotHounsfieldError(f"The series mixes rescale types ({', '.join(types)}). Give a series that is all HU.")
    if types == ["US"]:
        message = "The series states that its rescaled values have an unspecified unit (US); they are taken as HU."
        return (ScanWarning("unit-unspecified", message),)
    if types != ["HU"]:
        raise NotHounsfieldError(f"The rescaled values are of type {types[0]}, not HU. Give the HU series.")
    return ()


def _plane(slices: list[DicomSlice]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Unit directions of rows and columns, and pixel spacing (down, across), which all slices have to share."""
    names = {
        "ImagePositionPatient": (3, "image position"),
        "ImageOrientationPatient": (6, "image orientation"),
        "PixelSpacing": (2, "pixel spacing"),
    }
    for keyword, (count, name) in names.items():
        without = [s.path.name for s in slices if s.numbers(keyword, count) is None]
        if without:
            raise SliceGeometryError(
                f"{len(without)} of {len(slices)} slices have no valid {name}: {some(without)}. Without it the volume "
                "is unknown. Export the series again."
            )
    sizes = Counter(f"{s.number('Columns') or 0:g}×{s.number('Rows') or 0:g}" for s in slices)
    if len(sizes) > 1:
        found = ", ".join(f"{count} of {size}" for size, count in sizes.items())
        raise SliceGeometryError(f"The slices differ in size: {found} pixels. Export one reconstruction only.")
    spacings = np.array([s.numbers("PixelSpacing", 2) for s in slices])
    if np.ptp(spacings, axis=0).max() > PIXEL_SPACING_TOLERANCE_MM:
        low, high = spacings.min(), spacings.max()
        raise SliceGeometryError(
            f"The slices differ in pixel spacing ({low:g} to {high:g} mm). Export one reconstruction only."
        )
    directions = np.array([s.numbers("ImageOrientationPatient", 6) for s in slices])
    if np.abs(directions - directions[0]).max() > DIRECTION_TOLERANCE:
        count = int((np.abs(directions - directions[0]).max(axis=1) > DIRECTION_TOLERANCE).sum())
        raise SliceGeometryError(
            f"{count} of {len(slices)} slices have a different orientation from {slices[0].path.name}. Export the "
            "axial slices as a series of their own."
        )
    row, column = directions[0, :3], directions[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > ORTHONORMAL_TOLERANCE:
        values = ", ".join(f"{value:g}" for value in directions[0])
        raise SliceGeometryError(
            f"The image orientation ({values}) is not a pair of perpendicular directions. Export the series again."
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column), (float(spacings[0, 0]), float(spacings[0, 1]))


def _even_spacing(distances: np.ndarray, sign: float) -> float:
    """Spacing of slices at sorted distances along the normal, mm; sign turns a distance into the named position."""
    gaps = np.diff(distances)
    same = np.flatnonzero(gaps <= DUPLICATE_TOLERANCE_MM)
    if same.size:
        where = some(f"{sign * distances[n]:.1f}" for n in same)
        raise SliceGeometryError(
            f"{same.size} slices have the same position as another one, at {where} mm: the series holds several "
            "reconstructions, phases or copies. Export one of them."
        )
    # Most gaps are whole ones; averaging over those undoes positions that were rounded.
    usual = float(np.sort(gaps)[(gaps.size - 1) // 2])
    spacing = float(gaps[gaps < 1.5 * usual].mean())
    steps = np.rint(gaps / spacing).astype(int)
    if (steps >= 2).any() and np.abs(gaps - steps * spacing).max() <= POSITION_TOLERANCE_MM:
        holes = some(
            f"{steps[n] - 1} between {sign * distances[n]:.1f} and {sign * distances[n + 1]:.1f} mm"
            for n in np.flatnonzero(steps >= 2)
        )
        raise SliceGeometryError(
            f"{int((steps - 1).sum())} slices are missing (slice spacing {spacing:g} mm): {holes}. Export or copy the "
            "series again."
        )
    off = np.abs(distances - np.linspace(distances[0], distances[-1], distances.size))
    if off.max() > POSITION_TOLERANCE_MM:
        raise SliceGeometryError(
            f"The slices are unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart, the one at "
            f"{sign * distances[off.argmax()]:.1f} mm lies {off.max():.2f} mm off an even stack. Export an evenly "
            "spaced reconstruction."
        )
    return float((distances[-1] - distances[0]) / gaps.size)


def _check_no_shear(positions: np.ndarray, normal: np.ndarray) -> None:
    offsets = positions - positions[0]
    along = offsets @ normal
    shift = offsets - along[:, None] * normal
    if np.linalg.norm(shift, axis=1).max() <= IN_PLANE_TOLERANCE_MM:
        return
    slope = shift[-1] / along[-1]
    if np.linalg.norm(shift - along[:, None] * slope, axis=1).max() <= IN_PLANE_TOLERANCE_MM:
        tilt = math.degrees(math.atan(float(np.linalg.norm(slope))))
        raise SliceGeometryError(f"The slices are sheared by {tilt:.1f}° against their normal: {SHEARED}")
    raise SliceGeometryError(
        f"The slices are shifted against each other by up to {np.linalg.norm(shift, axis=1).max():.1f} mm within "
        "their plane: the series mixes reconstructions. Export one of them."
    )


def _read_pixels(slices: list[DicomSlice]) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """HU [k, j, i] as int16, or float32 where a rescale is fractional; padding above all tissue becomes air."""
    rescales = [tuple(float(s.value(f"Rescale{name}")) for name in ("Slope", "Intercept")) for s in slices]
    whole = all(value.is_integer() for rescale in rescales for value in rescale)
    shape = (int(slices[0].number("Rows") or 0), int(slices[0].number("Columns") or 0))
    volume = np.empty((len(slices), *shape), np.int16 if whole else np.float32)
    limits = np.iinfo(np.int16)
    tissue_padding = set()
    for k, (slice_, (slope, intercept)) in enumerate(zip(slices, rescales, strict=True)):
        image = read_slice_image(slice_)
        values = sitk.GetArrayViewFromImage(image)
        if values.shape != (1, *shape):
            raise UnreadableError(f"{slice_.path.name} holds pixels that do not match its header. Copy it again.")
        padding = _stored_padding(slice_)
        padding_hu = None if padding is None else slope * padding + intercept
        # Clipping to int16 changes no score: below lies only padding, and scores saturate far below its upper end.
        np.clip(values[0], limits.min, limits.max, out=volume[k], casting="unsafe")
        if padding_hu is not None and padding_hu > HIGHEST_TISSUE_HU:
            volume[k][np.isclose(values[0], padding_hu)] = AIR_HU
        elif padding_hu is not None and padding_hu > -900:
            tissue_padding.add(f"{padding_hu:g}")
    _check_continuous(volume, slices, rescales)
    if not tissue_padding:
        return volume, ()
    message = (
        f"The header's padding value ({some(sorted(tissue_padding))} HU) is a tissue value, so padding cannot be "
        "distinguished from tissue and was left as it is."
    )
    return volume, (ScanWarning("padding-among-tissue", message),)


def _check_continuous(volume: np.ndarray, slices: list[DicomSlice], rescales: list[tuple[float, ...]]) -> None:
    """Raise NotHounsfieldError where soft tissue changes together with the rescale. volume: HU, [k, j, i]."""
    for k in range(1, len(slices)):
        if rescales[k - 1] == rescales[k]:
            continue
        below, above = volume[k - 1 : k + 1].astype(np.float32)
        tissue = np.maximum(below, above) > SOFT_TISSUE_HU
        step_hu = float(np.median((above - below)[tissue])) if tissue.any() else 0.0
        if abs(step_hu) > MOST_STEP_HU:
            stated = (
                f"{slices[n].path.name} (slope {rescales[n][0]:g}, intercept {rescales[n][1]:g})" for n in (k - 1, k)
            )
            raise NotHounsfieldError(
                f"The rescale of neighbouring slices differs, and with it soft tissue by {step_hu:+.0f} HU: "
                f"{' and '.join(stated)}. Export the series again from the scanner or archive."
            )


def read_slice_image(slice_: DicomSlice) -> sitk.Image:
    """The pixels of a single-frame slice in HU. Raises UnreadableError when they cannot be read."""
    # GDCM takes gigabytes of memory, and up to minutes, to find out that bytes behind the pixels are no elements.
    pixels = read_bounded(slice_.path, specific_tags=["PixelData"]).get("PixelData", b"")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(slice_.path))
    encapsulated = str(_value(slice_.header.file_meta, "TransferSyntaxUID")).startswith(_ENCAPSULATED)
    size = math.prod(int(slice_.number(name) or 0) for name in ("Rows", "Columns", "BitsAllocated")) // 8
    if not encapsulated and len(pixels) not in (size, size + size % 2):
        raise UnreadableError(
            f"{slice_.path.name} holds {len(pixels):,} bytes of pixels, and {size:,} by its header. Export the series "
            "again."
        )
    try:
        # As much to find out that compressed pixels are truncated (PS3.5 A.4).
        if encapsulated and END_OF_SEQUENCE not in slice_.path.read_bytes():
            raise EOFError("no sequence delimitation item after the pixels")
        return reader.Execute()
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        raise UnreadableError(
            f"The pixels of {slice_.path.name} cannot be read: the file is truncated, broken or compressed in an "
            "unknown way. Copy or export the series again."
        ) from error


def _stored_padding(slice_: DicomSlice) -> int | None:
    """Pixel Padding Value as stored; some writers give a signed 16-bit value as its unsigned bit pattern."""
    value = slice_.number("PixelPaddingValue")
    if value is None:
        return None
    if slice_.number("BitsAllocated") == 16:
        value = int(value) & 0xFFFF
        if slice_.number("PixelRepresentation") == 1 and value >= 0x8000:
            value -= 0x10000
    return int(value)


def acquisition_of(slices: list[DicomSlice]) -> Acquisition:
    """The facts of a series: the first value that a slice has, the median exposure."""

    def text(keyword: str) -> str | None:
        return first_value(slices, DicomSlice.text, keyword)

    def number(keyword: str) -> float | None:
        return first_value(slices, DicomSlice.number, keyword)

    def factors(keyword: str, count: int) -> tuple[float | None, ...]:
        values = first_value(slices, lambda slice_, name: slice_.numbers(name, count), keyword)
        return values if values and all(LEAST_MASS_FACTOR <= v <= MOST_MASS_FACTOR for v in values) else (None,) * count

    small, medium, large = factors("CalciumScoringMassFactorDevice", 3)
    series_number = number("SeriesNumber")
    sex = (text("PatientSex") or "").upper()
    return Acquisition(
        file_format="DICOM",
        kvp=number("KVP"),
        kernel=text("ConvolutionKernel"),
        contrast_agent=text("ContrastBolusAgent"),
        gating=_gating(text("CardiacSynchronizationTechnique"), text("ScanOptions")),
        manufacturer=text("Manufacturer"),
        scanner_model=text("ManufacturerModelName"),
        slice_thickness_mm=number("SliceThickness"),
        exposure_mas=_exposure_mas(slices),
        series_number=None if series_number is None else int(series_number),
        series_description=text("SeriesDescription"),
        series_uid=text("SeriesInstanceUID"),
        study_date=_date(text("StudyDate")),
        patient_sex=sex if sex in ("F", "M", "O") else None,
        patient_age_years=_age_years(text("PatientAge")),
        patient_id=text("PatientID"),
        patient_name=text("PatientName"),
        mass_factor_patient=factors("CalciumScoringMassFactorPatient", 1)[0],
        mass_factor_small=small,
        mass_factor_medium=medium,
        mass_factor_large=large,
    )


def _gating(technique: str | None, scan_options: str | None) -> str | None:
    """PS3.3 C.7.6.18.1 as it stands (but NONE); else "ECG" where Scan Options can mean nothing else.

    Scan Options has no defined terms for CT: CG is the one MR has for cardiac gating. Acquisition Type (0018,9302)
    says how the table moves, never whether the heart was followed.
    """
    if technique is not None and technique.upper() != "NONE":
        return technique.upper()
    pattern = r"(^| )(CG|(ECG|EKG|CARDIAC)[-_ ]?(GATED|GATING|TRIGGERED|TRIGGERING))( |$)"
    if scan_options and re.search(pattern, scan_options.upper()) and not re.search(r"\bNON?\b", scan_options.upper()):
        return "ECG"
    return None


def _exposure_mas(slices: list[DicomSlice]) -> float | None:
    """Median over the slices, because tube current modulation changes it from slice to slice."""
    for keyword, per_mas in (("Exposure", 1), ("ExposureInuAs", 1000)):
        values = [value for value in (s.number(keyword) for s in slices) if value is not None]
        if values:
            return statistics.median(values) / per_mas
    return None


def _date(text: str | None) -> str | None:
    """A DICOM date as YYYY-MM-DD."""
    try:
        return datetime.strptime(text or "", "%Y%m%d").date().isoformat()
    except ValueError:
        return None


def _age_years(text: str | None) -> int | None:
    """Completed years from a DICOM age string (PS3.5: three digits and D, W, M or Y)."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", (text or "").upper())
    per_year = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
    return int(int(match[1]) / per_year[match[2]]) if match else None
