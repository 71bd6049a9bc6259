"""What the headers of a series say about its images: one patient and study, one cardiac phase, images as measured."""

from __future__ import annotations

import re

from ..core.ct import MixedSeriesError, ScanWarning
from .dicom import DicomSlice, some

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


def check_one_study(slices: list[DicomSlice]) -> None:
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


def header_warnings(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of what the headers of one stack say about its images."""
    checks = (_mixed_facts, _mixed_phases, _computed, _position, pixel_warnings)
    return [warning for check in checks for warning in check(slices)]


def pixel_warnings(slices: list[DicomSlice]) -> list[ScanWarning]:
    """Warn of text in the pixels and of lossy compression, of a CT or a radiograph."""
    found = []
    if any((s.text("BurnedInAnnotation") or "").upper() == "YES" for s in slices):
        message = "Text is burned into the image and may be mistaken for a bright structure."
        found.append(ScanWarning("burned-in", message))
    if any(s.text("LossyImageCompression") == "01" for s in slices):
        message = "The image was compressed with losses; faint detail may be missing."
        found.append(ScanWarning("lossy-compression", message))
    return found


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
            mixed.append(f"{name} {some(values)}")
    if not mixed:
        return []
    return [ScanWarning("mixed-acquisition", f"The slices of the series differ: {'; '.join(mixed)}.")]


def _mixed_phases(slices: list[DicomSlice]) -> list[ScanWarning]:
    phases = sorted({p for p in (s.number("NominalPercentageOfCardiacPhase") for s in slices) if p is not None})
    times = [t for t in (s.number("TriggerTime") for s in slices) if t is not None]
    if len(phases) > 1:
        stated = f"{some(f'{phase:g}' for phase in phases)} % of the cycle"
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
            f"The images were computed from others ({some(terms)} in image type or series description), such as "
            "virtual non-contrast, monoenergetic or projected ones. Their values differ from those of usual CT."
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
