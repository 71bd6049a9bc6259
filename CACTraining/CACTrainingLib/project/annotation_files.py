"""Read and write the files of an annotator of a scan: labels of slices, and masks.

Every key press is a line that is on the disk before the next slice is shown; masks are written atomically.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.core.errors import ProjectError, ProjectWriteError
from CACScoringLib.core.files import atomic_write, read_file, sync_folder
from CACScoringLib.core.text import abbreviated_list
from CACScoringLib.core.voxels import voxels_of

from .files import remove_leftovers, time_with_zone, write_durably

SLICES_FILE = "slices.jsonl"
MASK_KINDS = ("regions", "heart")


class SliceLabel(Enum):
    """Visibility of coronary calcium in an axial slice."""

    VISIBLE = "visible"
    NOT_VISIBLE = "not visible"
    UNSURE = "unsure"


@dataclass(frozen=True)
class ImportedAnnotations:
    """Annotations that come with a scan, on the grid of its image from `read_ct`.

    Attributes:
        annotator: Name of the annotator.
        slices: Labels by the slice index k, counted from the feet.
        regions: Labels 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other.
        heart: Label 1.
    """

    annotator: str
    slices: Mapping[int, SliceLabel]
    regions: sitk.Image | None = None
    heart: sitk.Image | None = None


class SliceAnnotations:
    """Labels of a scan's slices by one annotator, in a file to which every key press adds a line.

    Reading changes nothing on the disk; the folder is made by the first key press.

    Attributes:
        labels: Labels by k.
        seconds: Time taken for each label by k, if it was measured.
        warnings: Damage found on reading.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read()

    @property
    def can_undo(self) -> bool:
        """True if there is a key press to undo, from this or an earlier session."""
        return bool(self._presses)

    def set(self, k: int, label: SliceLabel, seconds: float | None = None) -> None:
        """Label a slice; the label is on the disk when this returns.

        k: Slice index, from 0 at the feet. seconds: Time taken; an invalid time is ignored. Raises ProjectWriteError if
        the label cannot be saved, which changes nothing; ProjectError for a negative k.
        """
        if k < 0:
            raise ProjectError(f"There is no slice {k}. Slices are counted from 0, at the feet.")
        self._reload_if_changed(k)
        time = round(float(seconds), 2) if seconds is not None and _is_time(float(seconds)) else None
        self._append({"k": int(k), "label": label.value, "seconds": time, "time": time_with_zone()})

    def undo(self) -> int | None:
        """Undo the last key press that is not undone yet; return its k, or None if there is none.

        Raises ProjectWriteError, which changes nothing.
        """
        self._reload_if_changed(self._presses[-1][0] if self._presses else None)
        if not self._presses:
            return None
        k, label, seconds = self._presses[-1]
        previous = label.value if label else None
        self._append({"k": k, "label": previous, "seconds": seconds, "undo": True, "time": time_with_zone()})
        return k

    def _read(self) -> None:
        self.labels: dict[int, SliceLabel] = {}
        self.seconds: dict[int, float] = {}
        self.warnings: tuple[str, ...] = ()
        self._presses: list[tuple[int, SliceLabel | None, float | None]] = []
        """Slice, earlier label and earlier seconds of each key press that can be undone."""
        try:
            data = read_file(self.file)
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise ProjectError(f"{self.file} cannot be opened: {error.strerror}. Check its permissions.") from error
        complete_size = data.rfind(b"\n") + 1
        self._complete_size, self._size = complete_size, len(data)
        lines = enumerate(data[:complete_size].splitlines(), 1)
        broken = [str(n) for n, line in lines if line.strip() and not self._apply(line)]
        broken += ["the last"] if complete_size < len(data) else []
        if broken:
            self.warnings = (
                f"Damaged lines of {self.file} were left out: {abbreviated_list(broken)}. Check the slices' labels.",
            )

    def _apply(self, line: bytes) -> bool:
        """Apply a line of the file to the labels; return False if it is damaged."""
        try:
            entry = json.loads(line)
            k, is_undo = entry["k"], bool(entry.get("undo"))
            label = None if entry["label"] is None else SliceLabel(entry["label"])
            seconds = entry.get("seconds")
            if type(k) is not int or k < 0 or not (seconds is None or _is_time(seconds)):
                return False
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if is_undo:
            # The undone key press may have been in a damaged line.
            if self._presses and self._presses[-1][0] == k:
                self._presses.pop()
        elif not entry.get("imported"):
            self._presses.append((k, self.labels.get(k), self.seconds.get(k)))
        self.labels.pop(k, None)
        self.seconds.pop(k, None)
        if label is not None:
            self.labels[k] = label
        if seconds is not None:
            self.seconds[k] = seconds
        return True

    def _reload_if_changed(self, k: int | None) -> None:
        """Reload the file if another program has added to it."""
        try:
            size = self.file.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError as error:
            raise self._save_error(k, error) from error
        if size != self._size:
            self._read()

    def _append(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry) + "\n").encode()
        try:
            self._write(line)
        except OSError as error:
            raise self._save_error(entry["k"], error) from error
        self._complete_size = self._size = self._complete_size + len(line)
        self._apply(line)

    def _write(self, line: bytes) -> None:
        """Append a line durably, or leave the file unchanged."""
        is_new = self._size == 0
        if is_new:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if self._complete_size < self._size:
                os.ftruncate(descriptor, self._complete_size)
                self._size = self._complete_size
            try:
                while line:  # a nearly full disk takes a part first, and raises on the remainder
                    line = line[os.write(descriptor, line) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._complete_size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.file.parent)

    def _save_error(self, k: int | None, error: OSError) -> ProjectWriteError:
        subject = "The label" if k is None else f"The label of slice {k}"
        return ProjectWriteError(
            f"{subject} was not saved because {self.file} could not be written: {error.strerror or error}. All earlier "
            "labels are saved. Free some space or check the permissions of the folder, and press the key again."
        )


def write_imported(folder: Path, annotations: ImportedAnnotations) -> None:
    """Write imported annotations into a scan's folder. They cannot be undone.

    Raises ProjectError and OSError.
    """
    annotator_folder = folder / "annotators" / annotations.annotator
    common_fields = {"seconds": None, "imported": True, "time": time_with_zone()}
    labels = sorted(annotations.slices.items())
    lines = [json.dumps({"k": k, "label": label.value, **common_fields}) + "\n" for k, label in labels]
    annotator_folder.mkdir(parents=True)
    write_durably(annotator_folder / SLICES_FILE, "".join(lines).encode())
    for kind in MASK_KINDS:
        if (image := getattr(annotations, kind)) is not None:
            save_mask(annotator_folder, kind, image)


def save_mask(folder: Path, kind: str, image: sitk.Image) -> None:
    file = mask_file(folder, kind)
    image = as_labels(image, f"The {kind}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with atomic_write(file, durable=True) as half:
            sitk.WriteImage(image, str(half), useCompression=True)
            check_written(half, image)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the disk may be full"
        raise ProjectWriteError(
            f"{file} was not saved ({reason}). What was saved earlier is still there. Free some space or check the "
            "permissions of the folder, and save again."
        ) from error


def check_written(file: Path, image: sitk.Image) -> None:
    """Raise RuntimeError if a compressed image is incomplete, because ITK does not report a full disk."""
    with file.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        unpacked_size = int.from_bytes(stream.read(), "little")  # RFC 1952: ends with the uncompressed size
    if not 0 < unpacked_size - image.GetNumberOfPixels() < 2**16:
        raise RuntimeError(f"{file} is not whole")


def as_labels(image: sitk.Image, name: str) -> sitk.Image:
    values = voxels_of(image)
    is_integral = values.dtype.kind in "iub" or bool((values == values.round()).all())
    if values.ndim != 3 or image.GetDimension() != 3 or not is_integral or values.min() < 0 or values.max() > 255:
        raise ProjectError(f"{name} is not a 3-D label map with whole numbers from 0 to 255.")
    return sitk.Cast(image, sitk.sitkUInt8)


def mask_file(folder: Path, kind: str) -> Path:
    if kind not in MASK_KINDS:
        raise ProjectError(f"{kind!r} is not a kind of mask. Kinds are {', '.join(MASK_KINDS)}.")
    return folder / f"{kind}.nii.gz"


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf
