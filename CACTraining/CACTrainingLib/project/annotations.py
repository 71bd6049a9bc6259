"""Annotations of a project's scans: labels of slices, regions with calcium, the heart.

Every key press is a line that is on the disk before the next slice is shown; masks are written whole or not at all.
Each annotator has a folder of their own, so that the annotations of two stand side by side. A slice is named by k, its
index in the scan as `CACScoringLib.io.reading.read_ct` gives it: LPS, counted from 0 at the feet.
"""

from __future__ import annotations

import json
import math
import os
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import atomic_write, sync_folder
from CACScoringLib.core.text import abbreviated_list

from .files import ProjectError, ProjectWriteError, now, remove_leftovers, write_durably

if TYPE_CHECKING:
    from .project import ImportedAnnotations, Project, ProjectScan

SLICES_FILE = "slices.jsonl"
MASK_KINDS = ("regions", "heart")
TRUTH = "truth"
"""The name under which a digital patient's truth is compared with annotators; no annotator may have it."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


class AnnotationError(ProjectWriteError):
    """An annotation could not be saved. What was saved before is still there; the last one can be made again."""


class SliceLabel(Enum):
    """Label of an axial slice: is coronary calcium seen?"""

    VISIBLE = "visible"
    NOT_VISIBLE = "not visible"
    UNSURE = "unsure"


def check_annotator(name: str) -> str:
    """The name of an annotator, fit for a folder on every system. Raises ProjectError for one that is not."""
    name = str(name).strip()
    if not _is_name(name):
        raise ProjectError(
            f"{name[:60]!r} cannot be the name of an annotator. Use up to 40 letters (a–z), digits, spaces, dots, _ "
            f"and -, beginning with a letter or digit and not ending with a dot; {TRUTH!r} and names that Windows "
            "keeps for itself, such as con, are taken."
        )
    return name


def _is_name(name: str) -> bool:
    """True if an annotator can have a folder of this name on every system."""
    plain = re.fullmatch(_NAME, name) and name[-1] not in " ."
    return bool(plain) and name.split(".")[0].strip().lower() not in (*_RESERVED, TRUTH)


def annotators(project: Project, scan_id: str, only: str | None = None) -> list[str]:
    """Annotators of a scan, also those who have only begun, by name. only: this annotator, in whatever capitals; None
    for all."""
    names = sorted(_folders(project.scan_folder(scan_id)), key=str.lower)
    return names if only is None else [name for name in names if name.lower() == only.strip().lower()]


def slice_annotations(project: Project, scan_id: str, annotator: str) -> SliceAnnotations:
    """An annotator's labels of a scan's slices, to be read and added to. Raises ProjectError."""
    return SliceAnnotations(_annotator_folder(project.scan_folder(scan_id), annotator) / SLICES_FILE)


class SliceAnnotations:
    """Labels of a scan's slices by one annotator, in a file that every key press adds a line to.

    labels: by k. seconds: how long each took, by k, where it was measured. warnings: what was lost on reading.
    Reading changes nothing on the disk; the folder is made by the first key press.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read()

    @property
    def can_undo(self) -> bool:
        """True if there is a key press to take back, also one of an earlier day."""
        return bool(self._presses)

    def set(self, k: int, label: SliceLabel, seconds: float | None = None) -> None:
        """Label a slice; it is on the disk when this returns.

        k: from 0 at the feet. seconds: how long it took; what is no time is left out. Raises AnnotationError when it
        cannot be saved, and then nothing is changed; ProjectError for a k that no slice has.
        """
        if k < 0:
            raise ProjectError(f"There is no slice {k}. Slices are counted from 0, at the feet.")
        self._catch_up(k)
        time = round(float(seconds), 2) if seconds is not None and _is_time(float(seconds)) else None
        self._append({"k": int(k), "label": label.value, "seconds": time, "time": now()})

    def undo(self) -> int | None:
        """Take back the last key press that was not taken back yet. Returns its k; None when there is none.

        Raises AnnotationError, and then nothing is changed.
        """
        self._catch_up(self._presses[-1][0] if self._presses else None)
        if not self._presses:
            return None
        k, label, seconds = self._presses[-1]
        before = label.value if label else None
        self._append({"k": k, "label": before, "seconds": seconds, "undo": True, "time": now()})
        return k

    def _read(self) -> None:
        self.labels: dict[int, SliceLabel] = {}
        self.seconds: dict[int, float] = {}
        self.warnings: tuple[str, ...] = ()
        self._presses: list[tuple[int, SliceLabel | None, float | None]] = []
        """What each key press that can be taken back has replaced."""
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise ProjectError(f"{self.file} cannot be opened: {error.strerror}. Check its permissions.") from error
        whole = data.rfind(b"\n") + 1
        self._whole, self._size = whole, len(data)
        broken = [
            str(n) for n, line in enumerate(data[:whole].splitlines(), 1) if line.strip() and not self._take(line)
        ]
        broken += ["the last"] if whole < len(data) else []
        if broken:
            self.warnings = (
                f"Damaged lines of {self.file} were left out: {abbreviated_list(broken)}. Check the slices' labels.",
            )

    def _take(self, line: bytes) -> bool:
        """Change the labels as a line says; whether it says anything."""
        try:
            said = json.loads(line)
            k, undone = said["k"], bool(said.get("undo"))
            label = None if said["label"] is None else SliceLabel(said["label"])
            seconds = said.get("seconds")
            if type(k) is not int or k < 0 or not (seconds is None or _is_time(seconds)):
                return False
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if undone:
            # A press that was lost can have no place on the stack.
            if self._presses and self._presses[-1][0] == k:
                self._presses.pop()
        elif not said.get("imported"):
            self._presses.append((k, self.labels.get(k), self.seconds.get(k)))
        for values, value in ((self.labels, label), (self.seconds, seconds)):
            values.pop(k, None)
            if value is not None:
                values[k] = value
        return True

    def _catch_up(self, k: int | None) -> None:
        """Read the file anew when another program has added to it."""
        try:
            size = self.file.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError as error:
            raise self._not_saved(k, error) from error
        if size != self._size:
            self._read()

    def _append(self, said: dict) -> None:
        line = (json.dumps(said) + "\n").encode()
        try:
            self._write(line)
        except OSError as error:
            raise self._not_saved(said["k"], error) from error
        self._whole = self._size = self._whole + len(line)
        self._take(line)

    def _write(self, line: bytes) -> None:
        """Add a line and see it onto the disk, or leave the file as it was."""
        new = self._size == 0
        if new:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if self._whole < self._size:
                os.ftruncate(descriptor, self._whole)
                self._size = self._whole
            try:
                while line:  # a nearly full disk takes a part, and then says why it takes no more
                    line = line[os.write(descriptor, line) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._whole)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.file.parent)

    def _not_saved(self, k: int | None, error: OSError) -> AnnotationError:
        which = "The label" if k is None else f"The label of slice {k}"
        return AnnotationError(
            f"{which} was not saved because {self.file} could not be written: {error.strerror or error}. All earlier "
            "labels are saved. Free some space or check the permissions of the folder, and press the key again."
        )


def truth_labels(scan: ProjectScan) -> dict[int, SliceLabel]:
    """Labels of a digital patient's slices by k, without those where it is not known; none without a truth.

    Raises ProjectError when the truth cannot be read.
    """
    if scan.truth is None:
        return {}
    labels = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
    try:
        slices = json.loads(scan.truth.read_text(encoding="utf-8"))["slices"]
        return {int(own["k"]): labels[own["visible"]] for own in slices if own["visible"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{scan.truth}, the truth of {scan.name}, cannot be read ({type(error).__name__}: {error}). Copy it "
            "again, or write the digital patient again."
        ) from error


def read_mask(project: Project, scan_id: str, annotator: str, kind: str) -> sitk.Image | None:
    """An annotator's regions or heart: uint8 labels on the scan's grid; None when there is none.

    kind: one of MASK_KINDS. Raises ProjectError when the file cannot be read.
    """
    file = _mask_file(_annotator_folder(project.scan_folder(scan_id), annotator), kind)
    if not file.is_file():
        return None
    from CACScoringLib.io import reading

    try:
        image = reading.read_mask(file)
    except CTError as error:
        name = project.scan(scan_id).name
        raise ProjectError(f"The {kind} of {name} by {annotator} cannot be read. {error} ({file})") from error
    return _as_labels(image, f"{file}")


def write_mask(project: Project, scan_id: str, annotator: str, kind: str, image: sitk.Image) -> None:
    """Save an annotator's regions or heart in place of earlier ones; an empty mask is allowed.

    kind: one of MASK_KINDS. image: 3-D whole numbers from 0 to 255, on the scan's grid. Raises ProjectError for another
    image, and AnnotationError when it cannot be saved; then the earlier one is still there.
    """
    _save_mask(_annotator_folder(project.scan_folder(scan_id), annotator), kind, image)


def write_imported(folder: Path, annotations: ImportedAnnotations) -> None:
    """Write annotations that come with a scan into the scan's folder. They cannot be taken back by undo.

    Raises ProjectError and OSError.
    """
    own, shared = folder / "annotators" / annotations.annotator, {"seconds": None, "imported": True, "time": now()}
    labels = sorted(annotations.slices.items())
    lines = [json.dumps({"k": k, "label": label.value, **shared}) + "\n" for k, label in labels]
    own.mkdir(parents=True)
    write_durably(own / SLICES_FILE, "".join(lines).encode())
    for kind in MASK_KINDS:
        if (image := getattr(annotations, kind)) is not None:
            _save_mask(own, kind, image)


def _save_mask(folder: Path, kind: str, image: sitk.Image) -> None:
    file = _mask_file(folder, kind)
    image = _as_labels(image, f"The {kind}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with atomic_write(file, durable=True) as half:
            sitk.WriteImage(image, str(half), useCompression=True)
            check_written(half, image)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "the disk may be full"
        raise AnnotationError(
            f"{file} was not saved ({why}). What was saved earlier is still there. Free some space or check the "
            "permissions of the folder, and save again."
        ) from error


def check_written(file: Path, image: sitk.Image) -> None:
    """Raises RuntimeError when a file is not whole: ITK says nothing when the disk is full."""
    with file.open("rb") as written:
        written.seek(-4, os.SEEK_END)
        held = int.from_bytes(written.read(), "little")  # RFC 1952: the size that was packed comes last
    if not 0 < held - image.GetNumberOfPixels() < 2**16:
        raise RuntimeError(f"{file} is not whole")


def _as_labels(image: sitk.Image, name: str) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    whole_numbers = values.dtype.kind in "iub" or bool((values == values.round()).all())
    if values.ndim != 3 or image.GetDimension() != 3 or not whole_numbers or values.min() < 0 or values.max() > 255:
        raise ProjectError(f"{name} is not a 3-D label map with whole numbers from 0 to 255.")
    return sitk.Cast(image, sitk.sitkUInt8)


def _mask_file(folder: Path, kind: str) -> Path:
    if kind not in MASK_KINDS:
        raise ProjectError(f"{kind!r} is not a kind of mask. Kinds are {', '.join(MASK_KINDS)}.")
    return folder / f"{kind}.nii.gz"


def _folders(scan_folder: Path) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(scan_folder / "annotators") if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProjectError(f"{scan_folder} cannot be opened: {error.strerror}. Check its permissions.") from error
    return [name for name in names if _is_name(name)]


def _annotator_folder(scan_folder: Path, annotator: str) -> Path:
    """Folder of an annotator, whose name may be written there with other capitals."""
    name = check_annotator(annotator)
    there = [own for own in _folders(scan_folder) if own.lower() == name.lower()]
    return scan_folder / "annotators" / (name if name in there or not there else sorted(there)[0])


def _is_time(seconds: object) -> bool:
    return type(seconds) in (int, float) and 0 <= seconds < math.inf
