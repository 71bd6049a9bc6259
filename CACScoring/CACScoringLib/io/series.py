"""The CT series of a folder that is read, or one cardiac phase of it, and what its headers state: one patient and
study, one cardiac phase, grey images as measured, in HU."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ..core.ct import (
    MixedSeriesError,
    NotCTError,
    NotHounsfieldError,
    NotVolumeError,
    ScanWarning,
    SeriesChoiceError,
    UnreadableError,
)
from ..core.text import abbreviated_list, printable
from .dicom import DicomSlice, check_numbers, clock, first_value

_PHASES = {"NominalPercentageOfCardiacPhase": "% of the cycle", "TriggerTime": "ms after the R wave"}

MOST_TRIGGER_SPREAD_MS = 150.0
"""Trigger times of one phase differ less: 70 % of the cycle at 60 to 75 beats per minute differs by 140 ms."""

_IDENTITY = {
    "PatientID": "patient ID",
    "PatientName": "patient name",
    "PatientBirthDate": "birth date",
    "StudyInstanceUID": "study instance UID",
}
# PS3.3 C.7.6.1.1.2 and C.8.15.2.1.6 (multi-energy), and what manufacturers write into Image Type and description.
_COMPUTED = re.compile(
    r"(?<![A-Z])(VNC|VUE|VIRTUAL|VMI|MONO(?!CHROME)[A-Z_]*|\d+ ?KEV|MAT_[A-Z_]+|IODINE|PURE_?(?:CALCIUM|LUMEN)|"
    r"EFF_ATOMIC_NUM|ELECTRON_DENSITY|Z_?EFF[A-Z]*|SUBTRACTION|MIN_?IP|MIP|MAXIMUM|MINIMUM)(?![A-Z])"
)

_RESCALE = {"RescaleSlope": (1, "rescale slope"), "RescaleIntercept": (1, "rescale intercept")}


@dataclass(frozen=True)
class _Candidate:
    """A CT series of a folder, or one cardiac phase of it.

    label: what chooses it beside its UID: its number, with its place among those of one number, by UIDs and phases.
    """

    uid: str
    slices: list[DicomSlice]
    number: str | None
    label: str

    def __str__(self) -> str:
        description = first_value(self.slices, DicomSlice.text, "SeriesDescription") or "no description"
        kernel = first_value(self.slices, DicomSlice.text, "ConvolutionKernel") or "unknown"
        thickness = first_value(self.slices, DicomSlice.number, "SliceThickness")
        thick = "unknown thickness" if thickness is None else f"{thickness:g} mm thick"
        count = sum(int(s.number("NumberOfFrames") or 1) for s in self.slices)
        return (
            f"  {self.label}: {description}, kernel {kernel}, {thick}, {_phase(self.slices)}{_time(self.slices)}, "
            f"{count} slices, UID {self.uid or 'missing'}"
        )


def is_ct_image(slice_: DicomSlice) -> bool:
    return slice_.text("Modality") == "CT" and not slice_.is_localizer


def has_position(slice_: DicomSlice) -> bool:
    return bool(slice_.is_multi_frame or slice_.value("ImagePositionPatient"))


def series_number(slices: list[DicomSlice]) -> str | None:
    number = first_value(slices, DicomSlice.number, "SeriesNumber")
    return None if number is None else f"{number:.0f}"


def series_images(slices: list[DicomSlice], wanted: str | None) -> list[DicomSlice]:
    """Return the images of the wanted CT series, or cardiac phase of one, and the series' localizers.

    Raises:
        CTError: As `choose_series` does.
        MixedSeriesError: The series holds images of different patients or studies.
    """
    images = choose_series(slices, wanted)
    uid = images[0].text("SeriesInstanceUID")
    series = [s for s in slices if s.text("SeriesInstanceUID") == uid and s.text("Modality") == "CT"]
    _check_one_study(series)
    return images + [s for s in series if s.is_localizer]


def choose_series(slices: list[DicomSlice], wanted: str | None) -> list[DicomSlice]:
    """Return the images of the wanted CT series, or cardiac phase of one. wanted: as in `read_ct`.

    Raises:
        NotCTError: There is no CT.
        NotVolumeError: There are only localizers.
        SeriesChoiceError: The series, or its cardiac phase, has to be chosen.
    """
    modalities = Counter(s.text("Modality") for s in slices)
    if "CT" not in modalities:
        others = ", ".join(f"{count} of modality {modality}" for modality, count in sorted(modalities.items()))
        raise NotCTError(f"The folder holds no CT, but {others}. Give the folder of a CT series.")
    candidates = _candidates(slices)
    if not candidates:
        raise NotVolumeError("The folder holds only localizer (scout) images. Give the folder of the axial slices.")
    if wanted is None:
        fitting = [c for c in candidates if any(map(has_position, c.slices))] or candidates
        what = "CT series or cardiac phases" if len(fitting) > len({c.uid for c in fitting}) else "CT series"
        reason = f"The folder holds {len(fitting)} {what}. Choose one by its number or UID (--series, or the column "
        reason += "series of a table)"
    else:
        wanted = wanted.strip()
        fitting = [c for c in candidates if wanted in (c.uid or None, c.label, c.number)]
        if not fitting:
            table = "\n".join(map(str, candidates))
            raise SeriesChoiceError(f"The folder holds no CT series {printable(wanted)!r}. Its CT series:\n{table}")
        one_series = len({c.uid for c in fitting}) == 1
        what = "cardiac phases are in the series" if one_series else f"CT series have the number {printable(wanted)}"
        reason = f"{len(fitting)} {what}. Choose one as listed, such as {fitting[0].label}"
        reason += "" if one_series else ", or by its UID"
    if len(fitting) > 1:
        raise SeriesChoiceError(f"{reason}:\n" + "\n".join(map(str, fitting)))
    return fitting[0].slices


def _candidates(slices: list[DicomSlice]) -> list[_Candidate]:
    """The CT series without localizers, those with several cardiac phases apart, by number."""
    series: dict[str, list[DicomSlice]] = {}
    for slice_ in filter(is_ct_image, slices):
        series.setdefault(slice_.text("SeriesInstanceUID") or "", []).append(slice_)
    stacks = [(uid, phase) for uid in sorted(series) for phase in _phases(series[uid])]
    numbers = [series_number(stack) for _, stack in stacks]
    candidates = []
    for n, ((uid, stack), number) in enumerate(zip(stacks, numbers, strict=True)):
        place = f".{numbers[:n].count(number) + 1}" if numbers.count(number) > 1 else ""
        candidates.append(_Candidate(uid, stack, number, f"{number or 'none'}{place}"))
    return sorted(candidates, key=lambda c: float(c.number or 0))


def _phases(group: list[DicomSlice]) -> list[list[DicomSlice]]:
    """The cardiac phases of a series that holds its positions several times; the series itself where it does not."""
    places = [slice_.numbers("ImagePositionPatient", 3) for slice_ in group]
    count = len(set(places))
    for keyword in _PHASES if count < len(group) else ():
        phases: dict[float, list[int]] = {}
        for n, slice_ in enumerate(group):
            if (phase := slice_.number(keyword)) is not None:
                phases.setdefault(phase, []).append(n)
        stacks = [phases[phase] for phase in sorted(phases)]
        # Trigger times that differ from beat to beat make no stacks.
        whole = all(count <= 2 * len(stack) == 2 * len({places[n] for n in stack}) for stack in stacks)
        if whole and len(stacks) > 1 and sum(map(len, stacks)) == len(group):
            return [[group[n] for n in stack] for stack in stacks]
    return [group]


def _time(group: list[DicomSlice]) -> str:
    """When a series was acquired, which distinguishes phases and repeated scans that are alike otherwise."""
    for keyword, verb in (("AcquisitionTime", "acquired"), ("SeriesTime", "begun")):
        times = sorted(t for t in (s.text(keyword) for s in group) if t and re.fullmatch(r"\d{4,6}(\.\d+)?", t))
        if times:
            return f"{verb} at {clock(times[0])}"
    return "unknown time"


def _phase(group: list[DicomSlice]) -> str:
    for keyword, unit in _PHASES.items():
        if len(phases := {slice_.number(keyword) for slice_ in group} - {None}) == 1:
            return f"{phases.pop():g} {unit}, "
    return ""


def _check_one_study(slices: list[DicomSlice]) -> None:
    """Raise MixedSeriesError where images of one series name different patients or studies. An empty value is none."""
    for keyword, name in _IDENTITY.items():
        files: dict[str, str] = {}
        for slice_ in slices:
            # PS3.5 6.2: delimiters at the end of a person's name, and spaces, mean nothing.
            value = " ".join(re.split(r"[\^=\s]+", slice_.text(keyword) or "")).strip().casefold()
            if value:
                files.setdefault(value, slice_.path.name)
        if len(files) > 1:
            raise MixedSeriesError(
                f"{' and '.join(list(files.values())[:2])} have one series UID and differ in {name}: the folder mixes "
                "patients or studies. Export each of them into a folder of its own."
            )


def check_headers(slices: list[DicomSlice]) -> tuple[ScanWarning, ...]:
    """Check what the headers of one stack say about its images; none of them is multi-frame.

    Returns:
        Doubts.

    Raises:
        NotVolumeError: The images are in colour.
        NotHounsfieldError: The values are not Hounsfield units.
        UnreadableError: The pixels are of a kind that no CT has.
    """
    _check_pixel_descriptions(slices)
    checks = (_check_rescale, _mixed_facts, _mixed_phases, _computed, _position, pixel_warnings)
    return tuple(warning for check in checks for warning in check(slices))


def _check_pixel_descriptions(slices: list[DicomSlice]) -> None:
    """Raise where pixels are not grey, or their bits (PS3.3 C.7.6.3.1.1) are wrong: they would be read as others."""
    for slice_ in slices:
        name, samples = slice_.path.name, slice_.number("SamplesPerPixel")
        photometric = slice_.text("PhotometricInterpretation")
        if samples not in (None, 1) or photometric not in (None, "MONOCHROME1", "MONOCHROME2"):
            raise NotVolumeError(
                f"{name} is a colour image ({samples or 1:g} samples per pixel, {photometric}). Give the grey-level CT "
                "series."
            )
        if photometric == "MONOCHROME1":  # ITK inverts these values on reading
            raise NotHounsfieldError(f"{name} is stored inverted (MONOCHROME1). Export it as MONOCHROME2.")
        allocated, stored, high = (slice_.number(key) for key in ("BitsAllocated", "BitsStored", "HighBit"))
        fits = stored is not None and allocated in (8, 16, 32) and 0 < stored <= allocated
        if allocated not in (8, 16, 32) or (stored is not None and (not fits or high not in (None, stored - 1))):
            raise UnreadableError(
                f"{name} describes pixels that no CT has: {stored or 0:g} of {allocated or 0:g} bits are stored, up to "
                f"bit {high or 0:g}. Export the series again."
            )
        if slice_.number("PixelRepresentation") not in (0, 1):
            raise UnreadableError(
                f"{name} does not say whether its pixels have a sign (Pixel Representation 0 or 1), so their values "
                "are unknown. Export the series again."
            )


def _check_rescale(slices: list[DicomSlice]) -> list[ScanWarning]:
    check_numbers(slices, _RESCALE, NotHounsfieldError)
    zero = [s.path.name for s in slices if s.number("RescaleSlope") == 0]
    if zero:
        raise NotHounsfieldError(f"The rescale slope is 0 in {abbreviated_list(zero)}. Export the series again.")
    # PS3.3 C.8.2.1: the type may be left out where it is HU.
    types = sorted({(s.text("RescaleType") or "HU").upper() for s in slices})
    if len(types) > 1:
        raise NotHounsfieldError(f"The series mixes rescale types ({', '.join(types)}). Give a series that is all HU.")
    if types == ["US"]:
        message = "The series states that its rescaled values have an unspecified unit (US); they are taken as HU."
        return [ScanWarning("unit-unspecified", message)]
    if types != ["HU"]:
        raise NotHounsfieldError(f"The rescaled values are of type {types[0]}, not HU. Give the HU series.")
    return []


def pixel_warnings(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of text in the pixels and of lossy compression, of a CT or a radiograph."""
    warnings = []
    if any((s.text("BurnedInAnnotation") or "").upper() == "YES" for s in slices):
        message = "Text is burned into the image and may be mistaken for a bright structure."
        warnings.append(ScanWarning("burned-in", message))
    if any(s.text("LossyImageCompression") == "01" for s in slices):
        message = "The image was compressed with losses; faint detail may be missing."
        warnings.append(ScanWarning("lossy-compression", message))
    return warnings


def _mixed_facts(slices: list[DicomSlice]) -> list[ScanWarning]:
    mixed = []
    for keyword, name in (
        ("KVP", "tube voltages"),
        ("ConvolutionKernel", "kernels"),
        ("SliceThickness", "thicknesses"),
        ("BitsStored", "bits of a pixel"),
        ("PixelRepresentation", "pixels with a sign (1) or without (0):"),
    ):
        values = sorted({text for text in (s.text(keyword) for s in slices) if text is not None})
        if len(values) > 1:
            mixed.append(f"{name} {abbreviated_list(values)}")
    if not mixed:
        return []
    return [ScanWarning("mixed-acquisition", f"The slices of the series differ: {'; '.join(mixed)}.")]


def _mixed_phases(slices: list[DicomSlice]) -> list[ScanWarning]:
    phases = sorted({p for p in (s.number("NominalPercentageOfCardiacPhase") for s in slices) if p is not None})
    times = [t for t in (s.number("TriggerTime") for s in slices) if t is not None]
    if len(phases) > 1:
        stated = f"{abbreviated_list(f'{phase:g}' for phase in phases)} % of the cycle"
    elif not phases and times and max(times) - min(times) > MOST_TRIGGER_SPREAD_MS:
        stated = f"{min(times):g} to {max(times):g} ms after the R wave"
    else:
        return []
    message = f"The slices show different cardiac phases ({stated}), so lesions may be missing, doubled or cut."
    return [ScanWarning("cardiac-phases", message)]


def _computed(slices: list[DicomSlice]) -> list[ScanWarning]:
    texts = (f"{s.text('ImageType') or ''} {s.text('SeriesDescription') or ''}".upper() for s in slices)
    if terms := sorted({match for text in texts for match in _COMPUTED.findall(text)}):
        message = (
            f"The images were computed from others ({abbreviated_list(terms)} in image type or series "
            "description), such as virtual non-contrast, monoenergetic or projected ones. Their values differ from "
            "those of usual CT."
        )
        return [ScanWarning("derived-image", message)]
    return []


def _position(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn where slices of a supine patient are not stored with the front of the patient up.

    No Image Orientation is impossible for a Patient Position, which states how the patient lay in the scanner (PS3.3
    C.7.3.1.1.2) and not how images are stored; but scanners store axial slices of supine patients in this way.
    """
    first = slices[0]
    position, directions = first.text("PatientPosition"), first.numbers("ImageOrientationPatient", 6)
    if position not in ("HFS", "FFS") or directions is None or "DERIVED" in (first.text("ImageType") or "").upper():
        return []
    axial = max(abs(directions[2]), abs(directions[5])) < 0.5
    front_is_up = directions[4] > 0.5 and (position == "FFS" or directions[0] > 0.5)
    if front_is_up or not axial:
        return []
    message = (
        f"The patient lay supine ({position}), for which the image orientation "
        f"({', '.join(f'{d:g}' for d in directions)}) is unusual. Left and right, or front and back, may be exchanged."
    )
    return [ScanWarning("patient-position", message)]
