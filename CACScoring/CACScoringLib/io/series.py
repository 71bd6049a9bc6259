"""Choice and reading of the CT series of a folder, or of one of its cardiac phases or acquisitions."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.ct import CTScan, ScanWarning, scan_from_image, with_warnings
from ..core.errors import CTError, NotCTError, NotVolumeError, SeriesChoiceError, SliceGeometryError, UnreadableError
from ..core.text import SERIES, abbreviated_list, printable
from .dicom import DicomSlice, first_value, is_dicom, name_pattern, read_slice
from .headers import check_headers
from .image_files import quiet_readers
from .series_acquisition import acquisition_of, clock, free_text
from .series_rule import (
    HEART_LENGTH_MM,
    SeriesFacts,
    best_series,
    choice_warning,
    patient_id_or_name,
    series_properties,
)
from .stack import read_stack, stack_of, without_strays

_PHASES = {"NominalPercentageOfCardiacPhase": "% of the cycle", "TriggerTime": "ms after the R wave"}

JOINED = "all"
"""Choice that joins series which make one stack."""

_COMMON_KEYWORDS = (
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
    "ImageType",
)
"""Elements that are equal in all series of one acquisition."""

_IDENTITY = {
    "PatientID": "patient ID",
    "PatientName": "patient name",
    "PatientBirthDate": "birth date",
    "StudyInstanceUID": "study instance UID",
}


@dataclass(frozen=True)
class SeriesCandidate:
    """CT series of a folder, or one of its stacks, cardiac phases or acquisitions.

    Attributes:
        uid: Series instance UID; empty if missing.
        slices: Images, without localizers; of a multi-frame CT its frames.
        number: Series number; None if missing.
        label: Alternative to the UID in a choice: the number and, among series of one number, a rank by UID and phase.
        acquisition: Acquisition number of all its images, where the series has others; else None.
    """

    uid: str
    slices: list[DicomSlice]
    number: str | None
    label: str
    acquisition: str | None = None

    @cached_property
    def facts(self) -> SeriesFacts:
        """Properties by which the rule chooses."""
        return replace(series_properties(self.label, self.uid, self.slices), acquisition=self.acquisition)

    def __str__(self) -> str:
        description = free_text(self.slices, "SeriesDescription") or "no description"
        kernel = first_value(self.slices, DicomSlice.text, "ConvolutionKernel") or "unknown"
        thickness = first_value(self.slices, DicomSlice.number, "SliceThickness")
        thick = "unknown thickness" if thickness is None else f"{thickness:g} mm thick"
        stacks = {s.text("StackID") for s in self.slices if s.frame is not None}
        files = {s.path.name for s in self.slices if s.frame is not None}
        stack = f"stack {stacks.pop()} of {files.pop()}, " if len(stacks) == len(files) == 1 else ""
        acquisition = f"acquisition {self.acquisition}, " if self.acquisition else ""
        return (
            f"  {self.label}: {description}, kernel {kernel}, {thick}, {stack}{_phase(self.slices)}{acquisition}"
            f"{_time(self.slices)}, {len(self.slices)} slices, UID {self.uid or 'missing'}"
        )


def is_ct_image(slice_: DicomSlice) -> bool:
    return slice_.text("Modality") == "CT" and not slice_.is_localizer


def has_position(slice_: DicomSlice) -> bool:
    return bool(slice_.is_multi_frame or slice_.value("ImagePositionPatient"))


def series_number(slices: list[DicomSlice]) -> str | None:
    number = first_value(slices, DicomSlice.number, "SeriesNumber")
    return None if number is None else f"{number:.0f}"


def series_images(slices: list[DicomSlice], choice: str | None) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Return the images of the chosen CT series or cardiac phase.

    Returns:
        The images, with the series' localizers, and warnings.

    Raises:
        CTError: As `choose_series` does, and if the series holds images of different patients or studies.
    """
    images, warnings = choose_series(slices, choice)
    uids = {s.text("SeriesInstanceUID") for s in images}
    series = [s for s in slices if s.text("SeriesInstanceUID") in uids and s.text("Modality") == "CT"]
    _check_one_study(series)
    return images + [s for s in series if s.is_localizer], warnings


def list_series(slices: list[DicomSlice]) -> str:
    """Return a line for each CT series or cardiac phase."""
    return "\n".join(map(str, _candidates(slices)))


def series_facts(slices: list[DicomSlice]) -> list[SeriesFacts]:
    """Return the properties of each CT series or cardiac phase of a folder."""
    return [candidate.facts for candidate in _candidates(slices)]


def choose_series(slices: list[DicomSlice], choice: str | None) -> tuple[list[DicomSlice], tuple[ScanWarning, ...]]:
    """Return the images of the CT series or cardiac phase of a choice, as `series` of `read_ct`.

    Raises CTError as `choose_candidates` does.

    Returns:
        The images, and a warning if the rule of `series_rule` chose them.
    """
    candidates, warnings = choose_candidates(slices, choice)
    return [slice_ for candidate in candidates for slice_ in candidate.slices], warnings


def choose_candidates(
    slices: list[DicomSlice], choice: str | None
) -> tuple[list[SeriesCandidate], tuple[ScanWarning, ...]]:
    """Return the CT series or cardiac phases of a choice, as `series` of `read_ct`.

    Of several series of one study, or several cardiac phases of one series, that which the rule of `series_rule`
    prefers is chosen.

    Returns:
        The series or phases that are scored as one scan, and a warning if the rule chose.

    Raises:
        NotCTError: There is no CT.
        NotVolumeError: There are only localizers.
        SeriesChoiceError: The series, or its cardiac phase, has to be chosen.
    """
    modalities = Counter(s.text("Modality") for s in slices)
    if "CT" not in modalities:
        counts = ", ".join(f"{count} of modality {modality}" for modality, count in sorted(modalities.items()))
        raise NotCTError(f"The folder holds no CT, but {counts}. Give the folder of a CT series.")
    candidates = _candidates(slices)
    if not candidates:
        raise NotVolumeError("The folder holds only localizer (scout) images. Give the folder of the axial slices.")
    if choice is None:
        matches = [c for c in candidates if any(map(has_position, c.slices))] or candidates
        is_split = len(matches) > len({c.uid for c in matches})
        noun = "CT series, stacks, cardiac phases or acquisitions" if is_split else "CT series"
        studies = len({c.slices[0].text("StudyInstanceUID") for c in matches})
        noun += f" of {studies} studies" if studies > 1 else ""
        _require_one_patient(matches, noun)
        reason = f"The folder holds {len(matches)} {noun}. Choose one by its number or UID ({SERIES})"
        if len(matches) > 1 and _is_one_stack(matches):
            reason += f"; their slices make one stack, which {JOINED!r} in place of a number joins"
    elif choice.strip().lower() == JOINED:
        if not _is_one_stack(candidates):
            table = list_series(slices)
            raise SeriesChoiceError(f"The CT series of the folder do not make one stack. Choose one:\n{table}")
        return candidates, ()
    else:
        choice = choice.strip()
        matches = [c for c in candidates if choice in (c.uid or None, c.label, c.number)]
        if not matches:
            table = list_series(slices)
            raise SeriesChoiceError(f"The folder holds no CT series {printable(choice)!r}. Its CT series:\n{table}")
        is_one_series = len({c.uid for c in matches}) == 1
        noun = (
            "stacks, cardiac phases or acquisitions are in the series"
            if is_one_series
            else f"CT series have the number {printable(choice)}"
        )
        reason = f"{len(matches)} {noun}. Choose one as listed, such as {matches[0].label}"
        reason += "" if is_one_series else ", or by its UID"
    if len(matches) == 1:
        return matches, ()
    if (choice is None or len({c.uid for c in matches}) == 1) and (best := _best(matches)):
        return [best], (choice_warning(best.facts, [candidate.facts for candidate in matches]),)
    raise SeriesChoiceError(f"{reason}:\n" + "\n".join(map(str, matches)))


def _require_one_patient(candidates: list[SeriesCandidate], noun: str) -> None:
    """Raise SeriesChoiceError for series of several patients, which names each. noun: What the candidates are."""
    count = len({patient_id_or_name(candidate.slices[0]) for candidate in candidates})
    if count > 1:
        lines = "\n".join(f"{candidate}, {candidate.facts.origin}" for candidate in candidates)
        raise SeriesChoiceError(
            f"The folder holds {len(candidates)} {noun} of {count} patients. Score them all with cac cohort FOLDER "
            f"--output DIR, or give the folder of one:\n{lines}"
        )


def _best(candidates: list[SeriesCandidate]) -> SeriesCandidate | None:
    """Return the candidate that the rule prefers; None for parts of one stack, several studies, or equal candidates."""
    studies = {c.slices[0].text("StudyInstanceUID") for c in candidates}
    best = best_series([candidate.facts for candidate in candidates]) if len(studies) == 1 else None
    if best is None:
        return None
    preferred = next(candidate for candidate in candidates if candidate.facts is best)
    is_part = any(_is_one_stack([preferred, candidate]) for candidate in candidates if candidate is not preferred)
    return None if is_part else preferred


def _is_one_stack(candidates: list[SeriesCandidate]) -> bool:
    """True if series of one acquisition, which an archive may have split, make one even stack together."""
    slices = [slice_ for candidate in candidates for slice_ in candidate.slices]
    if len({tuple(slice_.text(keyword) for keyword in _COMMON_KEYWORDS) for slice_ in slices}) > 1:
        return False
    with suppress(CTError):
        stack_of(slices)
        return True
    return False


def _candidates(slices: list[DicomSlice]) -> list[SeriesCandidate]:
    """List the CT series by number, without localizers and split by stack and cardiac phase."""
    series: dict[str, list[DicomSlice]] = {}
    for slice_ in filter(is_ct_image, slices):
        series.setdefault(slice_.text("SeriesInstanceUID") or "", []).append(slice_)
    stacks = [(uid, stack) for uid in sorted(series) for stack in _stacks(_with_frames(series[uid]))]
    numbers = [series_number(stack) for _, stack in stacks]
    acquired = Counter((uid, number) for uid, stack in stacks if (number := _acquisition(stack)))
    parts = Counter(uid for uid, _ in acquired)
    candidates = []
    for n, ((uid, stack), number) in enumerate(zip(stacks, numbers, strict=True)):
        place = f".{numbers[:n].count(number) + 1}" if numbers.count(number) > 1 else ""
        acquisition = _acquisition(stack) if parts[uid] > 1 else None
        candidates.append(SeriesCandidate(uid, stack, number, f"{number or 'none'}{place}", acquisition))
    return sorted(candidates, key=lambda c: float(c.number or 0))


def _with_frames(group: list[DicomSlice]) -> list[DicomSlice]:
    """Replace multi-frame CTs by their frames; those that cannot be read stay, and raise when they are scored."""
    if not any(slice_.is_multi_frame for slice_ in group):
        return group
    from .multi_frame import single_frames  # loads pydicom

    with suppress(CTError):
        return single_frames(group)
    return group


def _acquisition(slices: list[DicomSlice]) -> str | None:
    """Return the acquisition number that all slices share; None if there is none."""
    numbers = {slice_.text("AcquisitionNumber") for slice_ in slices}
    return numbers.pop() if len(numbers) == 1 else None


def _stacks(group: list[DicomSlice]) -> list[list[DicomSlice]]:
    """Split a series by stacks of multi-frame CTs; if it repeats positions, by cardiac phases or their files; and if it
    makes no stack but its acquisitions do, by these."""
    positions = [slice_.numbers("ImagePositionPatient", 3) for slice_ in group]
    count = len(set(positions))
    keys: dict[str, list[Any]] = {
        "stack": [slice_.text("StackID") for slice_ in group],
        **{keyword: [slice_.number(keyword) for slice_ in group] for keyword in _PHASES},
        "file": [None if slice_.frame is None else str(slice_.path) for slice_ in group],
    }
    for name, values in keys.items():
        if None in values or len(set(values)) < 2 or (count == len(group) and name != "stack"):
            continue
        stacks = [[n for n, value in enumerate(values) if value == part] for part in sorted(set(values))]
        # Trigger times that vary from beat to beat do not define phases.
        are_complete = all(count <= 2 * len(stack) == 2 * len({positions[n] for n in stack}) for stack in stacks)
        if are_complete or name == "stack":
            return [part for stack in stacks for part in _stacks([group[n] for n in stack])]
    return _acquisitions(group) or [group]


def _acquisitions(group: list[DicomSlice]) -> list[list[DicomSlice]]:
    """Split a series by its acquisitions, such as a repeated or overlapping pass.

    Returns:
        The acquisitions; empty unless each makes a stack, one as long as a heart, and the series does not.
    """
    numbers = [slice_.number("AcquisitionNumber") for slice_ in group]
    in_order = sorted({number for number in numbers if number is not None})
    if None in numbers or len(in_order) < 2:
        return []
    acquisitions = [[s for s, n in zip(group, numbers, strict=True) if n == number] for number in in_order]
    with suppress(CTError):
        stack_of(without_strays(group)[0])
        return []
    with suppress(CTError):
        lengths_mm = [stack_of(without_strays(slices)[0])[2][2] * len(slices) for slices in acquisitions]
        return acquisitions if max(lengths_mm) >= HEART_LENGTH_MM else []
    return []


def _time(group: list[DicomSlice]) -> str:
    """Return the acquisition time in words, which distinguishes phases and repeated scans."""
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
    """Raise CTError if images of one series name different patients or studies; empty values are ignored."""
    for keyword, name in _IDENTITY.items():
        files: dict[str, str] = {}
        for slice_ in slices:
            # PS3.5 6.2: delimiters at the end of a person's name, and spaces, mean nothing.
            value = " ".join(re.split(r"[\^=\s]+", slice_.text(keyword) or "")).strip().casefold()
            if value:
                files.setdefault(value, slice_.name)
        if len(files) > 1:
            raise CTError(
                f"{' and '.join(list(files.values())[:2])} have one series UID and differ in {name}: the folder mixes "
                "patients or studies. Export each of them into a folder of its own."
            )


def read_series(
    path: Path, slices: list[DicomSlice], series: str | None, broken: Mapping[Path, UnreadableError] = {}
) -> CTScan:
    """Read the chosen series, or cardiac phase of it, of DICOM files. broken: Other files with their errors."""
    slices, choices = series_images(slices, series)
    return with_warnings(_read_dicom(path, slices, unread_warnings(slices, broken)), *choices)


def _read_dicom(path: Path, slices: list[DicomSlice], doubts: tuple[ScanWarning, ...]) -> CTScan:
    """Read the images of a series as a scan. path: Its source. doubts: Warnings about other files."""
    from .multi_frame import single_frames, with_pixels  # loads pydicom

    try:
        stack, strays = without_strays(with_pixels(single_frames(slices)))
        acquisition, warnings = acquisition_of(stack), check_headers(stack)
        image, padding = read_stack(stack)
    except SliceGeometryError as error:
        if not doubts:
            raise
        raise SliceGeometryError(f"{error} {doubts[0].message}") from error
    scan = scan_from_image(image, acquisition, path)
    if np.argmax(np.abs(image.GetDirection()[2::3])) != 2:
        # The slices that are scored lie across those of the series.
        scan = replace(scan, acquisition=replace(acquisition, slice_thickness_mm=None))
    if any(warning.code == "lossy-compression" for warning in warnings):  # its blocks change the noise periodically too
        known = (replace(w, severe=False) if w.code == "interpolated" else w for w in scan.warnings)
        scan = scan.stating(warnings=tuple(known))
    scan = with_warnings(scan, *warnings, *padding, *strays, *doubts)
    return replace(scan, dicom_files=tuple(dict.fromkeys(slice_.path for slice_ in stack)))


def unread_warnings(slices: list[DicomSlice], broken: Mapping[Path, UnreadableError]) -> tuple[ScanWarning, ...]:
    """Warn of unreadable files in a folder, severely if slices of the scan may be among them."""
    if not broken:
        return ()
    message = (
        f"{len(broken)} files or folders could not be read: {abbreviated_list(path.name for path in broken)}. "
        f"{next(iter(broken.values()))}"
    )
    folders = {slice_.path.parent for slice_ in slices}
    size = min((slice_.path.stat().st_size for slice_ in slices), default=0)
    names = {name_pattern(slice_.path) for slice_ in slices}
    if all(
        path.is_file()
        and (path.parent not in folders or (_is_no_slice(path, size) and name_pattern(path) not in names))
        for path in broken
    ):
        return (ScanWarning("unread-files", message),)
    return (ScanWarning("slices-unread", f"{message} Slices of the scan may be missing."),)


def _is_no_slice(path: Path, slice_bytes: int) -> bool:
    """True for a DICOMDIR, and for a small file of another format."""
    is_index = path.name.upper() == "DICOMDIR"
    return is_index or (0 < path.stat().st_size < slice_bytes / 2 and not is_dicom(path))


def find_series(folder: Path) -> tuple[dict[str | None, str | None], int]:
    """Find the CT series whose files lie directly in a folder.

    Localizers, other modalities, and images without a position beside series that have one are skipped.

    Returns:
        The number of each series by its UID, None where the header lacks one; and the number of broken DICOM files.
    """
    numbers: dict[str | None, str | None] = {}
    placed: set[str | None] = set()
    broken = 0
    with quiet_readers():
        for name in sorted(entry.name for entry in os.scandir(folder)):  # a folder may hold a million files
            path = folder / name
            try:
                slice_ = read_slice(path) if path.is_file() or not path.exists() else None
            except (UnreadableError, OSError):
                broken += 1
                continue
            if slice_ is not None and is_ct_image(slice_):
                uid = slice_.text("SeriesInstanceUID")
                numbers[uid] = numbers.get(uid) or series_number([slice_])
                if has_position(slice_):
                    placed.add(uid)
    return {uid: number for uid, number in numbers.items() if uid in placed or not placed}, broken
