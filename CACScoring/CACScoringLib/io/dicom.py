"""DICOM files, whose headers cannot be trusted, and the facts of an acquisition that those of a series state.

No more memory is set aside for a file than it can hold.
"""

from __future__ import annotations

import io
import math
import os
import re
import statistics
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.ct import Acquisition, CTError, NotCTError, NotVolumeError, UnreadableError
from ..core.text import abbreviated_list, printable

if TYPE_CHECKING:
    import pydicom

LEAST_MASS_FACTOR, MOST_MASS_FACTOR = 0.3, 2.0
"""mg/cm³ of hydroxyapatite per HU that a scanner may state; 70 to 140 kVp give 0.4 to 1."""

_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # Enhanced, Legacy Converted Enhanced
_DICOMDIR = "1.2.840.10008.1.3.10"
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

MOST_INFLATED_BYTES, MOST_INFLATED_TIMES = 2**26, 50
"""A deflated file may hold this much, or so many times its size where that is more; a small file of air alone may hold
hundreds of times its size."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BEFORE_META = 144
"""Bytes before the first element that the length of the file meta information counts (PS3.10 7.1)."""

_BLOCK_BYTES = 2**20


def value_of(elements: pydicom.Dataset, keyword: str) -> Any:
    """An element's value; None when it is missing, empty or broken."""
    try:
        value = elements.get(keyword)
    except Exception:  # pydicom converts on access, and broken bytes raise whatever its converters meet
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


@dataclass(frozen=True)
class DicomSlice:
    """A DICOM file and those elements of its header that reading a CT needs.

    source: the multi-frame file that a frame comes from; None for a file of the series itself.
    """

    path: Path
    header: pydicom.Dataset
    source: Path | None = None

    def value(self, keyword: str) -> Any:
        return value_of(self.header, keyword)

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


def is_dicom(path: Path) -> bool:
    """True if the file starts as PS3.10 asks: 128 bytes, then DICM. Raises UnreadableError."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error


def read_slices(folder: Path) -> tuple[list[DicomSlice], dict[Path, UnreadableError]]:
    """Read the headers of all DICOM files below a folder.

    Returns:
        The files with a modality, by path, and what is wrong with those that are broken.

    Raises:
        UnreadableError: There is none that can be read.
    """
    slices, broken = [], {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        try:
            slice_ = read_slice(path)
        except UnreadableError as error:
            broken[path] = error
            continue
        if slice_ is not None:
            slices.append(slice_)
    if not slices:
        others = f"{len(broken)} DICOM files there are broken" if broken else f"{len(paths)} other files"
        raise UnreadableError(f"{folder} holds no readable DICOM file ({others}). Give the folder of a CT series.")
    return slices, broken


def read_multi_frame(path: Path) -> DicomSlice:
    """Read the header of a multi-frame CT.

    Raises:
        UnreadableError: The file is broken.
        NotCTError: The modality is not CT.
        NotVolumeError: It is one slice of a series.
    """
    image = read_slice(path)
    if image is not None and image.text("Modality") != "CT":
        raise NotCTError(f"{path.name} is of modality {image.text('Modality')}; a CT is needed.")
    if image is None or not image.is_multi_frame:
        raise NotVolumeError(f"{path.name} is one file of a DICOM series. Give the folder that holds all its slices.")
    return image


def read_slice(path: Path) -> DicomSlice | None:
    """The header of a DICOM file with a modality; None for a file that is no DICOM, or is a DICOMDIR."""
    if not is_dicom(path):
        return None
    header = read_bounded(path, stop_before_pixels=True, specific_tags=TAGS)
    if value_of(header.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR:
        return None
    slice_ = DicomSlice(path, header)
    if slice_.text("Modality") is None:
        raise UnreadableError(f"{path.name} is a DICOM file without a modality.")
    return slice_


def read_bounded(path: Path, **how: Any) -> pydicom.Dataset:
    """`pydicom.dcmread` of a file whose elements must lie within it. how: as `dcmread` takes it.

    Raises UnreadableError when an element claims to reach beyond the file's end, the file inflates to far more than
    images do, or is broken otherwise.
    """
    import pydicom  # takes 0.3 s, which images in other formats need not wait for

    with translate_dicom_errors(path.name):
        _check_inflated(path)
        with _BoundedFile(path) as file:
            data = pydicom.dcmread(file, **how)
        list(data.file_meta)  # raises for elements of unknown kinds, at which GDCM takes 700 MB of memory
        return data


@contextmanager
def translate_dicom_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with the elements of a DICOM file, converted on access, into an UnreadableError.

    name: of the file, for the message. Other CTErrors pass.
    """
    try:
        yield
    except CTError:
        raise
    except Exception as error:  # broken elements raise whatever pydicom's parser and converters meet
        reason = printable(str(error))
        raise UnreadableError(f"{name} is a broken DICOM file ({reason}). Copy or export it again.") from error


def unreadable_pixels(path: Path) -> UnreadableError:
    """The error of a file whose pixels cannot be read."""
    return UnreadableError(
        f"The pixels of {path.name} cannot be read: the file is truncated, broken or compressed in an unknown way. "
        "Copy or export the series again."
    )


class _BoundedFile(io.FileIO):
    """A file to read that raises UnreadableError when it is asked for what lies far behind its end.

    Parsers of DICOM ask for as much as an element claims to have, and some of them set all of it aside first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE and self.tell() + size > self._bytes:
            raise self._claimed(self.tell() + size)
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = super().seek(offset, whence)
        if place > self._bytes:
            raise self._claimed(place)
        return place

    def _claimed(self, end: int) -> UnreadableError:
        return UnreadableError(
            f"{Path(self.name).name} is truncated, or other bytes were written into it: an element claims to reach to "
            f"byte {end:,}, and the file ends at {self._bytes:,}. Copy or export the series again."
        )


def _check_inflated(path: Path) -> None:
    """Raise UnreadableError where a deflated file would fill the memory."""
    with path.open("rb") as file:
        start = file.read(1024)
        if _DEFLATED not in start:
            return
        file.seek(_BEFORE_META + int.from_bytes(start[_BEFORE_META - 4 : _BEFORE_META], "little"))
        own = os.fstat(file.fileno()).st_size
        most = max(MOST_INFLATED_BYTES, MOST_INFLATED_TIMES * own)
        stream, length = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while length <= most and not stream.eof and (block := stream.unconsumed_tail or file.read(_BLOCK_BYTES)):
            length += len(stream.decompress(block, _BLOCK_BYTES))
    if length > most:
        raise UnreadableError(
            f"{path.name} has {own:,} bytes and inflates to more than {most:,}, as no image does. Export the series "
            "again, uncompressed."
        )


def check_numbers(slices: list[DicomSlice], needed: dict[str, tuple[int, str]], error: type[CTError]) -> None:
    """Raise the error where slices lack numbers. needed: how many, and their name, by keyword."""
    for keyword, (count, name) in needed.items():
        without = [s.path.name for s in slices if s.numbers(keyword, count) is None]
        if without:
            raise error(
                f"{len(without)} of {len(slices)} slices have no {name}: {abbreviated_list(without)}. Export the "
                "series again from the scanner or archive."
            )


def first_value(slices: list[DicomSlice], get: Callable[..., Any], keyword: str) -> Any:
    """The first value in the order of the slices, None when no slice has one."""
    return next((value for value in (get(s, keyword) for s in slices) if value is not None), None)


def clock(time: str) -> str:
    """A DICOM time (PS3.5 6.2, VR TM) as HH:MM:SS, or HH:MM where it has no seconds; empty where it is none."""
    digits = time.partition(".")[0]
    return ":".join(digits[n : n + 2] for n in range(0, len(digits), 2)) if digits.isdecimal() else ""


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
