"""The images of a folder that are read: a CT series, or one cardiac phase of it, without images that do not belong to
its stack (localizers, dose sheets, one slice too many); and what their headers state: one patient and study, one
cardiac phase, images as measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..core.ct import CTError, MixedSeriesError, NotCTError, NotVolumeError, ScanWarning, SeriesChoiceError
from ..core.text import abbreviated_list, printable
from .dicom import DicomSlice, clock, first_value
from .stack import DIRECTION_TOLERANCE, DUPLICATE_TOLERANCE_MM, PIXEL_SPACING_TOLERANCE_MM, read_slice_image, stack_of

_PHASES = {"NominalPercentageOfCardiacPhase": "% of the cycle", "TriggerTime": "ms after the R wave"}

MOST_LEFT_OUT = 3
"""How many images beside localizers a whole series may hold too many; of more, nobody can say which are right."""

LEAST_REST = 3
"""How many times as many slices have to remain as are left out."""

_KIND = ("SOPClassUID", "Columns", "Rows", "SamplesPerPixel", "ImageType")
_MADE = ("ImageType", "KVP", "ConvolutionKernel", "SliceThickness", "SOPClassUID", "AcquisitionNumber")


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


def without_strays(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Leave out of a series what does not belong to its stack, where there is no doubt about it.

    Localizers are left out always. At most `MOST_LEFT_OUT` other images are, and only where what remains is one evenly
    spaced stack without a gap: those of another size, pixel spacing or orientation than most, those without a place
    that are of another kind too (dose sheets), and of slices with the same position those that were made in another
    way than the rest of the series, or that are copies.

    Returns:
        The slices that remain, and a warning that names those left out. All slices, without a warning, where the
        series is whole, or where it cannot be told what is right: reading it says what is wrong.

    Raises NotVolumeError when there are only localizers.
    """
    stack = [s for s in slices if not s.is_localizer]
    if not stack:
        raise NotVolumeError("The series holds only localizer (scout) images. Give the axial slices.")
    localizers = [s for s in slices if s.is_localizer]
    kept = _whole(stack)
    kept_ids = set(map(id, kept))
    others = [s for s in stack if id(s) not in kept_ids]
    found = []
    if localizers:
        found.append(f"{len(localizers)} localizers ({abbreviated_list(s.path.name for s in localizers)})")
    if others:
        found.append(
            f"{len(others)} images that do not belong to its stack ({abbreviated_list(s.path.name for s in others)})"
        )
    if not found:
        return kept, ()
    return kept, (ScanWarning("images-left-out", f"Of the series were left out: {'; '.join(found)}."),)


def _whole(slices: list[DicomSlice]) -> list[DicomSlice]:
    """The slices that make a whole stack, or all of them where that is not clear."""
    if len(slices) < 2 or _is_stack(slices):
        return slices
    try:
        kept = _without_copies(_of_one_plane(slices))
        left = len(slices) - len(kept)
        if left == 0 or left > MOST_LEFT_OUT or len(kept) < LEAST_REST * left:
            return slices
    except CTError:
        return slices
    return kept if _is_stack(kept) else slices


def _is_stack(slices: list[DicomSlice]) -> bool:
    try:
        stack_of(slices)
    except CTError:
        return False
    return True


def _of_one_plane(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Slices of the size, pixel spacing and orientation that most have, without images that have no place."""
    kept = _usual([s for s in slices if _is_placed(s)], lambda s: _facts(s, ("Rows", "Columns", "SamplesPerPixel")))
    for keyword, count, tolerance in (
        ("ImageOrientationPatient", 6, DIRECTION_TOLERANCE),
        ("PixelSpacing", 2, PIXEL_SPACING_TOLERANCE_MM),
    ):
        if kept:
            values = np.array([s.numbers(keyword, count) for s in kept])
            near = np.abs(values - np.median(values, axis=0)).max(axis=1) <= tolerance
            kept = [s for s, is_near in zip(kept, near, strict=True) if is_near]
    kinds = {_facts(s, _KIND) for s in kept}
    # A slice that lost its position, but is a slice otherwise, may be one of the stack: it stays, and is an error.
    return kept + [s for s in slices if not _is_placed(s) and _facts(s, _KIND) in kinds]


def _is_placed(slice_: DicomSlice) -> bool:
    places = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    return all(slice_.numbers(keyword, count) is not None for keyword, count in places)


def _facts(slice_: DicomSlice, keywords: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(slice_.text(keyword) for keyword in keywords)


def _usual(slices: list[DicomSlice], kind: Callable[[DicomSlice], Hashable]) -> list[DicomSlice]:
    """The slices of the most frequent kind."""
    most = Counter(map(kind, slices)).most_common(1)
    return [s for s in slices if kind(s) == most[0][0]]


def _without_copies(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Slices with one of each position; all of a position where none of them is the right one for sure."""
    if not slices or not all(map(_is_placed, slices)):
        return slices
    directions = np.array(slices[0].numbers("ImageOrientationPatient", 6))
    normal = np.cross(directions[:3], directions[3:])
    distances = np.array([s.numbers("ImagePositionPatient", 3) for s in slices]) @ normal
    order = np.argsort(distances, kind="stable")
    starts = np.flatnonzero(np.diff(distances[order]) > DUPLICATE_TOLERANCE_MM) + 1
    places = [[slices[n] for n in place] for place in np.split(order, starts)]
    if len(slices) - len(places) > MOST_LEFT_OUT:
        return slices
    made = {_facts(place[0], _MADE) for place in places if len(place) == 1}
    return [s for place in places for s in _right_ones(place, made)]


def _right_ones(place: list[DicomSlice], made: set[tuple[str | None, ...]]) -> list[DicomSlice]:
    if len(place) == 1:
        return place
    like_the_rest = [s for s in place if _facts(s, _MADE) in made] or place
    first, *more = like_the_rest
    return [first] if all(_same_image(first, other) for other in more) else place


def _same_image(one: DicomSlice, other: DicomSlice) -> bool:
    if one.numbers("ImagePositionPatient", 3) != other.numbers("ImagePositionPatient", 3):
        return False
    pixels, others = (sitk.GetArrayFromImage(read_slice_image(s)) for s in (one, other))
    return np.array_equal(pixels, others)


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
