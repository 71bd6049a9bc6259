"""Checks of the headers of one stack for content that casts doubt on its images.

Checks take the slices of the stack, none of them multi-frame. Some warn, the others raise a CTError.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from itertools import pairwise

import numpy as np

from ..core.acquisition import AS_120_KVP, Acquisition
from ..core.ct import ScanWarning
from ..core.errors import NotHounsfieldError, NotVolumeError, UnreadableError
from ..core.files import resource_rows
from ..core.header_ranges import RANGES
from ..core.text import abbreviated_list
from ..core.warning_codes import run_check
from .dicom import DicomSlice, check_numbers, first_value, translate_dicom_errors, value_of
from .pixels import pixel_bytes

MAX_PAUSE_S, MAX_PAUSE_INSIDE_S = 60.0, 3600.0
"""Longest pause between acquisitions of one scan, whose steps follow each other within seconds, and within one
acquisition, whose images some scanners number so although they were repeated."""

_DAY_S = 86_400.0

MIN_USUAL = 0.75
"""Least share of slices with one rescale from which others are named; some scanners scale each slice."""


def _terms(kind: str, end: str = "", flags: int = 0) -> re.Pattern[str]:
    """Return the terms of one kind in image_terms.csv as words. end: Pattern that does not follow them."""
    terms = "|".join(row["term"] for row in resource_rows("image_terms.csv") if row["kind"] == kind)
    return re.compile(rf"(?<![A-Z])({terms}){end}(?![A-Z])", flags)


# PS3.3 C.7.6.1.1.2 and C.8.15.2.1.6 (multi-energy), and what manufacturers write into Image Type and description.
_COMPUTED_TERMS = _terms("computed")

_COMPUTED_ALONE = _terms("ambiguous", "(?! DOSE| SCOR)")
"""Terms that also have other meanings, and name computed images beside words of usual reconstructions only."""

_REFORMATTED_TERMS = _terms("reformatted")
"""Names of slices cut from a volume, whose values are those of usual CT."""

_PLAIN_TERMS = _terms("plain")
"""Words of a description that says that the images are a usual reconstruction."""

_CONE_BEAM = _terms("cone-beam", flags=re.IGNORECASE)
"""Names of cone-beam CT at linear accelerators and C-arms, and of megavoltage CT."""

_COMMON = {
    "KVP": "tube voltages",
    "ConvolutionKernel": "kernels",
    "SliceThickness": "thicknesses",
    "BitsStored": "bits of a pixel",
    "StudyDate": "study dates",
    "PatientAge": "ages",
    "PatientSex": "sexes",
    "PixelRepresentation": "pixels with a sign (1) or without (0):",
}
"""Elements that are equal in all slices of a scan, with their names."""

_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81")
"""JPEG baseline and extended, and JPEG-LS near-lossless: transfer syntaxes that are made to lose detail."""

_JPEG_2000 = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
"""JPEG 2000 and its high-throughput kind: transfer syntaxes with and without loss."""

_J2K_START, _J2K_CODING, _J2K_WAVELET, _J2K_HEADER_BYTES = b"\xff\x4f\xff\x51", b"\xff\x52", 13, 1024
"""Start of a codestream, its marker of coding style, the place of the wavelet behind that, and where it is sought."""

_RESCALE = {"RescaleSlope": (1, "rescale slope"), "RescaleIntercept": (1, "rescale intercept")}


def check_headers(slices: list[DicomSlice]) -> tuple[ScanWarning, ...]:
    """Check the headers of one stack; none of its images is multi-frame.

    Returns:
        Warnings.

    Raises:
        NotVolumeError: The images are in colour.
        NotHounsfieldError: The values are not Hounsfield units.
        UnreadableError: The described pixels are impossible for a CT.
    """
    _check_pixel_descriptions(slices)
    _check_rescale(slices)
    _check_modality_table(slices)
    _check_kernel(slices)
    checks = (
        _unit_warning,
        _implausible_warning,
        _difference_warning,
        _phase_warning,
        _acquisition_warning,
        _missing_warning,
        _field_warning,
        _uid_warning,
        _cone_beam_warning,
        _position_warning,
        computed_warnings,
        pixel_warnings,
    )
    return tuple(warning for check in checks for warning in check(slices))


def _check_pixel_descriptions(slices: list[DicomSlice]) -> None:
    """Raise if pixels are not grey, or their bits (PS3.3 C.7.6.3.1.1) would be misread."""
    for slice_ in slices:
        name, samples = slice_.name, slice_.number("SamplesPerPixel")
        photometric = slice_.text("PhotometricInterpretation")
        if samples not in (None, 1) or photometric not in (None, "MONOCHROME1", "MONOCHROME2"):
            raise NotVolumeError(
                f"{name} is a colour image ({samples or 1:g} samples per pixel, {photometric}). Give the grey-level CT "
                "series."
            )
        keywords = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
        allocated, stored, high, sign = (slice_.number(keyword) for keyword in keywords)
        # Some writers state the word's highest bit for values in its lowest bits; `read_hu` looks at the pixels.
        is_valid = stored is None or (
            0 < stored <= (allocated or 0) and high in (None, stored - 1, (allocated or 0) - 1)
        )
        if allocated not in (8, 16, 32) or not is_valid or sign not in (0, 1):
            raise UnreadableError(
                f"{name} describes pixels that no CT has: {stored or 0:g} of {allocated or 0:g} bits are stored, up to "
                f"bit {high or 0:g}, with the sign {sign} (Pixel Representation, 0 or 1). Export the series again."
            )


def _check_rescale(slices: list[DicomSlice]) -> None:
    check_numbers(slices, _RESCALE, NotHounsfieldError)
    # PS3.3 C.8.2.1: the type may be absent if it is HU.
    types = sorted({(s.text("RescaleType") or "HU").upper() for s in slices})
    if len(types) > 1:
        raise NotHounsfieldError(f"The series mixes rescale types ({', '.join(types)}). Give a series that is all HU.")
    if types[0] not in ("HU", "US"):
        raise NotHounsfieldError(f"The rescaled values are of type {types[0]}, not HU. Give the HU series.")


def _check_modality_table(slices: list[DicomSlice]) -> None:
    """Raise if a Modality LUT (PS3.3 C.11.1) gives other values than the rescale."""
    for slice_ in slices:
        table = slice_.value("ModalityLUTSequence")
        if not table:
            continue
        with translate_dicom_errors(slice_.name):
            count, first, _ = (int(n) for n in table[0].LUTDescriptor)
            data = table[0].LUTData
            values = np.asarray(np.frombuffer(data, "<u2") if isinstance(data, bytes) else data, np.int64)
        values = values[: count or 2**16]
        rescaled = (slice_.number("RescaleSlope") or 1) * (first + np.arange(values.size)) + (
            slice_.number("RescaleIntercept") or 0
        )
        signed = np.where(values >= 2**15, values - 2**16, values)
        if min(np.abs(values - rescaled).max(), np.abs(signed - rescaled).max()) > 1:
            raise NotHounsfieldError(
                f"{slice_.name} states a Modality LUT and a rescale that give other values. Export the series again "
                "with a rescale alone."
            )


def _check_kernel(slices: list[DicomSlice]) -> None:
    """Raise if a kernel makes other values than HU, although the header states HU."""
    if values := density_of_kernel(slices):
        kernel = first_value(slices, DicomSlice.text, "ConvolutionKernel")
        raise NotHounsfieldError(
            f"The kernel {kernel} makes images of {values}, not HU: calcium in them is far less dense, or vanishes. "
            "Give a series with another kernel."
        )


def density_of_kernel(slices: list[DicomSlice]) -> str | None:
    """Return what a kernel's values are instead of HU; None if they are HU."""
    maker, kernel = (first_value(slices, DicomSlice.text, name) for name in ("Manufacturer", "ConvolutionKernel"))
    values = Acquisition("DICOM", manufacturer=maker, kernel=kernel).kernel_values
    return None if values == AS_120_KVP else values


def _is_lossy(slices: list[DicomSlice]) -> bool:
    syntaxes = {str(value_of(s.header.file_meta, "TransferSyntaxUID")): s for s in slices}
    if any(s.text("LossyImageCompression") == "01" for s in slices) or not syntaxes.keys().isdisjoint(_LOSSY_SYNTAXES):
        return True
    return any(_is_irreversible(s) for syntax, s in syntaxes.items() if syntax in _JPEG_2000)


def _is_irreversible(slice_: DicomSlice) -> bool:
    """True for a JPEG 2000 image whose wavelets lose detail, by its codestream (ISO/IEC 15444-1, A.6.1)."""
    with suppress(UnreadableError):  # which reading reports
        pixels = pixel_bytes(slice_.path) if slice_.pixels is None else slice_.pixels
        start = pixels.find(_J2K_START)
        coding = pixels.find(_J2K_CODING, max(0, start), max(0, start) + _J2K_HEADER_BYTES)
        return start >= 0 and coding >= 0 and pixels[coding + _J2K_WAVELET :][:1] == b"\0"
    return False


def pixel_warnings(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Check the pixels of a CT or a radiograph."""
    warnings = []
    if any((s.text("BurnedInAnnotation") or "").upper() == "YES" for s in slices):
        message = "Text is burned into the image and may be mistaken for a bright structure."
        warnings.append(ScanWarning("burned-in", message))
    if _is_lossy(slices):
        message = "The image was compressed with losses; faint detail may be missing."
        warnings.append(ScanWarning("lossy-compression", message))
    return warnings


def _unit_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    if (slices[0].text("RescaleType") or "").upper() != "US":
        return []
    message = "The series states that its rescaled values have an unspecified unit (US); they are taken as HU."
    return [ScanWarning("unit-unspecified", message)]


def _difference_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    differences = []
    for keyword, name in _COMMON.items():
        values = sorted({text for text in (s.text(keyword) for s in slices) if text is not None})
        if len(values) > 1:
            differences.append(f"{name} {abbreviated_list(values)}")
    rescales = [(s.number("RescaleSlope"), s.number("RescaleIntercept")) for s in slices]
    usual, count = Counter(rescales).most_common(1)[0]
    if len(slices) > count >= MIN_USUAL * len(slices):
        odd = abbreviated_list(s.name for s, rescale in zip(slices, rescales, strict=True) if rescale != usual)
        differences.append(f"rescale to HU, unlike the other slices' in {odd}")
    message = f"The slices of the series differ: {'; '.join(differences)}."
    return [ScanWarning("mixed-acquisition", message)] if differences else []


def _implausible_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Name the tube voltages and slice thicknesses that no CT has; they count as unknown."""
    stated = {
        f"{RANGES[keyword].name} {text}"
        for keyword in ("KVP", "SliceThickness")
        for slice_ in slices
        if (text := slice_.text(keyword)) is not None and slice_.number(keyword) is None
    }
    message = f"The headers state what no CT has: {abbreviated_list(sorted(stated))}. It counts as unknown."
    return [ScanWarning("header-implausible", message)] if stated else []


def _phase_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Compare the cardiac phases of slices, by their trigger times if the phases are not stated."""
    shares = sorted({p for p in (s.number("NominalPercentageOfCardiacPhase") for s in slices) if p is not None})
    times_ms = [t for t in (s.number("TriggerTime") for s in slices) if t is not None]
    if times_ms and not shares:
        first_ms, last_ms = min(times_ms), max(times_ms)
        return run_check("cardiac-phases", last_ms - first_ms, first_ms=first_ms, last_ms=last_ms)
    phases = abbreviated_list(f"{share:g}" for share in shares)
    message = (
        f"The slices show different cardiac phases ({phases} % of the cycle), so lesions may be missing, doubled or "
        "cut."
    )
    return [ScanWarning("cardiac-phases", message)] if len(shares) > 1 else []


def _acquisition_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of a stack that may join acquisitions between which the patient may have moved."""
    causes = []
    if (frames := len({uid for uid in (s.text("FrameOfReferenceUID") for s in slices) if uid})) > 1:
        causes.append(f"positions in {frames} frames of reference, which have no common origin")
    times = [(slice_.text("AcquisitionNumber"), _acquisition_time(slice_)) for slice_ in slices]
    starts: dict[str, datetime] = {}
    for number, time in times:
        if number is not None and time is not None:
            starts[number] = min(starts.get(number, time), time)
    pauses_s = [_longest_pause_s(starts.values()), _longest_pause_s(time for _, time in times if time is not None)]
    if pauses_s[0] > MAX_PAUSE_S:
        causes.append(f"{len(starts)} acquisitions, begun up to {pauses_s[0] / 60:.0f} minutes after each other")
    elif pauses_s[1] > MAX_PAUSE_INSIDE_S:
        causes.append(f"images acquired up to {pauses_s[1] / 3600:.0f} hours after each other under one number")
    message = f"The series joins {' and '.join(causes)}: parts may be missing, doubled or displaced."
    return [ScanWarning("several-acquisitions", message)] if causes else []


def _longest_pause_s(times: Iterable[datetime]) -> float:
    """Return the longest pause; times of one date, which may be that of the start, may pass midnight."""
    ordered = sorted(times)
    pauses_s = [(after - before).total_seconds() for before, after in pairwise(ordered)]
    if ordered and ordered[0].date() == ordered[-1].date():
        pauses_s = sorted([*pauses_s, _DAY_S - sum(pauses_s)])[:-1]
    return max(pauses_s, default=0.0)


def _acquisition_time(slice_: DicomSlice) -> datetime | None:
    """Return date and time of acquisition; None if the time is unknown."""
    day = slice_.text("AcquisitionDate") or "19700101"
    text = slice_.text("AcquisitionDateTime") or f"{day}{slice_.text('AcquisitionTime') or ''}"
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _missing_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Compare the number of images that acquisitions state with the series."""
    totals: dict[str | None, float] = {}
    counts = Counter(slice_.text("AcquisitionNumber") for slice_ in slices)
    for slice_ in slices:
        number = slice_.text("AcquisitionNumber")
        totals[number] = max(totals.get(number, 0.0), slice_.number("ImagesInAcquisition") or 0.0)
    missing = sum(max(0.0, totals[number] - counts[number]) for number in counts)
    stated, count = sum(totals.values()), len(slices)
    message = (
        f"The headers state {stated:.0f} images in the acquisition, and the series holds {count}: {missing:.0f} may be "
        "missing at its ends."
    )
    return [ScanWarning("images-missing", message)] if missing else []


def _field_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Compare the width by pixel spacing and image size with the reconstruction diameter."""
    first = slices[0]
    diameter_mm, spacing = first.number("ReconstructionDiameter"), first.numbers("PixelSpacing", 2)
    rows, columns = first.number("Rows"), first.number("Columns")
    if not (diameter_mm and spacing and rows and columns):
        return []
    width_mm = max(rows * spacing[0], columns * spacing[1])
    return run_check("pixel-size-implausible", width_mm / diameter_mm, width_mm=width_mm, diameter_mm=diameter_mm)


def _cone_beam_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of cone-beam and megavoltage CT, by what manufacturers write."""
    keywords = ("ImageType", "SeriesDescription", "ProtocolName", "ScanOptions", "ManufacturerModelName")
    texts = " ".join(dict.fromkeys(s.text(keyword) or "" for s in slices for keyword in keywords))
    message = (
        "The images are cone-beam or megavoltage CT, whose values are no HU of diagnostic CT: scatter or spectrum "
        "shifts them by up to hundreds of HU."
    )
    return [ScanWarning("cone-beam", message)] if _CONE_BEAM.search(texts) else []


def _uid_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Count the files with the image UID of another one; the frames of a multi-frame file share theirs."""
    uids = [uid for uid in (s.text("SOPInstanceUID") for s in slices if s.frame is None) if uid]
    count = len(uids) - len(set(uids))
    message = f"{count} slices have the SOP Instance UID of another one, so DICOM results cannot refer to them."
    return [ScanWarning("uids-repeated", message)] if count else []


def _names_of_computed(slices: list[DicomSlice]) -> tuple[set[str], set[str], set[str], set[str]]:
    """Return names of computed images, those in descriptions of original ones, unknown types, names of reformatting.

    The image type decides: a description may hold such a word by chance. A derived image whose description does not say
    that it is a usual reconstruction counts as one with other values.
    """
    computed, described, unknown, reformatted = set[str](), set[str](), set[str](), set[str]()
    for kind, description in {
        ((s.text("ImageType") or "").upper(), (s.text("SeriesDescription") or "").upper()) for s in slices
    }:
        # Thick slices of a usual reconstruction are named so (GE).
        kind = kind.replace("REFORMATTED AVERAGE", "REFORMATTED")
        is_original = kind.split()[:3] == ["ORIGINAL", "PRIMARY", "AXIAL"]
        for text in (kind, description):
            names = described if text is description and is_original else computed
            names.update(_COMPUTED_TERMS.findall(text) + _COMPUTED_TERMS.findall(text.replace("_", " ")))
            if text is kind or _is_plain(_COMPUTED_ALONE.sub(" ", text)):
                names.update(_COMPUTED_ALONE.findall(text))
        cut = _REFORMATTED_TERMS.findall(f"{kind} {description}")
        is_derived = kind.startswith("DERIVED") and ("SECONDARY" in kind or "AXIAL" not in kind.split())
        if is_derived and not ((description or cut) and _is_plain(f"{kind} {description}")):
            unknown.add(kind)
        if not re.search(r"\b(AX|AXIAL|TRA)\b", description) or _REFORMATTED_TERMS.search(kind):
            reformatted.update(cut)
    return computed, described, unknown, reformatted


def _is_plain(text: str) -> bool:
    """True if a text holds words of usual reconstructions only."""
    return all(_PLAIN_TERMS.fullmatch(word) for word in re.findall(r"[A-Z]+[A-Z\d]*|\d+[A-Z]*", text))


def computed_warnings(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Check whether images were computed from others."""
    names_of_kinds = (abbreviated_list(sorted(terms)) for terms in _names_of_computed(slices))
    computed, described, unknown, reformatted = names_of_kinds
    if computed:
        message = (
            f"The images were computed from others ({computed} in image type or series description), such as virtual "
            "non-contrast, monoenergetic, averaged or projected ones. Their values may differ from those of usual CT."
        )
        return [ScanWarning("derived-image", message)]
    if described:
        message = (
            f"The series description ({described}) names images computed from others, but the image type says that "
            "these are original. Check which it is."
        )
        return [ScanWarning("derived-image", message, severe=False)]
    if unknown:
        message = (
            f"The images are derived ({unknown}), and no description names a usual reconstruction. Their values may "
            "differ from those of usual CT."
        )
        return [ScanWarning("derived-image", message, severe=False)]
    if reformatted:
        message = f"The slices were cut from a reconstructed volume ({reformatted})."
        return [ScanWarning("reformatted-image", message)]
    return []


def _position_warning(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of axial slices of a supine patient that are not stored with the front of the patient up.

    Patient Position describes the patient in the scanner (PS3.3 C.7.3.1.1.2), not the stored images, so it excludes no
    Image Orientation; but scanners store axial slices of supine patients in this way.
    """
    first = slices[0]
    position, directions = first.text("PatientPosition"), first.numbers("ImageOrientationPatient", 6)
    if position not in ("HFS", "FFS") or directions is None or "DERIVED" in (first.text("ImageType") or "").upper():
        return []
    is_axial = max(abs(directions[2]), abs(directions[5])) < 0.5
    front_is_up = directions[4] > 0.5 and (position == "FFS" or directions[0] > 0.5)
    listed = ", ".join(f"{d:g}" for d in directions)
    message = (
        f"The patient lay supine ({position}), for which the image orientation ({listed}) is unusual. Left and right, "
        "or front and back, may be exchanged."
    )
    return [ScanWarning("patient-position", message)] if is_axial and not front_is_up else []
