"""Read and write annotations of a project's scans: labels of slices, regions with calcium, the heart.

Every key press is a line that is on the disk before the next slice is shown; masks are written atomically. Each
annotator has a folder. A slice is named by k, its index in the image of `CACScoringLib.io.reading.read_ct`: LPS,
counted from 0 at the feet.
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
"""Name of a digital patient's truth in comparisons with annotators; no annotator may have it."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


class AnnotationError(ProjectWriteError):
    """Failure to save an annotation. Earlier ones are intact; the last one has to be repeated."""


class SliceLabel(Enum):
    """Visibility of coronary calcium in an axial slice."""

    VISIBLE = "visible"
    NOT_VISIBLE = "not visible"
    UNSURE = "unsure"


def check_annotator(name: str) -> str:
    """Return an annotator's name if it can name a folder on every system. Raises ProjectError otherwise."""
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


def annotators(project: Project, scan_id: str, annotator: str | None = None) -> list[str]:
    """Return the annotators of a scan by name, also those without labels.

    annotator: Return this annotator alone, in any capitals; None for all.
    """
    names = sorted(_folders(project.scan_folder(scan_id)), key=str.lower)
    return names if annotator is None else [name for name in names if name.lower() == annotator.strip().lower()]


def slice_annotations(project: Project, scan_id: str, annotator: str) -> SliceAnnotations:
    """Open an annotator's labels of a scan's slices. Raises ProjectError."""
    return SliceAnnotations(_annotator_folder(project.scan_folder(scan_id), annotator) / SLICES_FILE)


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

        k: Slice index, from 0 at the feet. seconds: Time taken; an invalid time is ignored. Raises AnnotationError if
        the label cannot be saved, which changes nothing; ProjectError for a negative k.
        """
        if k < 0:
            raise ProjectError(f"There is no slice {k}. Slices are counted from 0, at the feet.")
        self._reload_if_changed(k)
        time = round(float(seconds), 2) if seconds is not None and _is_time(float(seconds)) else None
        self._append({"k": int(k), "label": label.value, "seconds": time, "time": now()})

    def undo(self) -> int | None:
        """Undo the last key press that is not undone yet; return its k, or None if there is none.

        Raises AnnotationError, which changes nothing.
        """
        self._reload_if_changed(self._presses[-1][0] if self._presses else None)
        if not self._presses:
            return None
        k, label, seconds = self._presses[-1]
        previous = label.value if label else None
        self._append({"k": k, "label": previous, "seconds": seconds, "undo": True, "time": now()})
        return k

    def _read(self) -> None:
        self.labels: dict[int, SliceLabel] = {}
        self.seconds: dict[int, float] = {}
        self.warnings: tuple[str, ...] = ()
        self._presses: list[tuple[int, SliceLabel | None, float | None]] = []
        """Slice, earlier label and earlier seconds of each key press that can be undone."""
        try:
            data = self.file.read_bytes()
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
        for values, value in ((self.labels, label), (self.seconds, seconds)):
            values.pop(k, None)
            if value is not None:
                values[k] = value
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

    def _append(self, entry: dict) -> None:
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

    def _save_error(self, k: int | None, error: OSError) -> AnnotationError:
        subject = "The label" if k is None else f"The label of slice {k}"
        return AnnotationError(
            f"{subject} was not saved because {self.file} could not be written: {error.strerror or error}. All earlier "
            "labels are saved. Free some space or check the permissions of the folder, and press the key again."
        )


def truth_labels(scan: ProjectScan) -> dict[int, SliceLabel]:
    """Return a digital patient's known labels of slices by k; {} for a scan without a truth.

    Raises ProjectError if the truth cannot be read.
    """
    if scan.truth is None:
        return {}
    labels = {True: SliceLabel.VISIBLE, False: SliceLabel.NOT_VISIBLE}
    try:
        slices = json.loads(scan.truth.read_text(encoding="utf-8"))["slices"]
        return {int(entry["k"]): labels[entry["visible"]] for entry in slices if entry["visible"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{scan.truth}, the truth of {scan.name}, cannot be read ({type(error).__name__}: {error}). Copy it "
            "again, or write the digital patient again."
        ) from error


def read_mask(project: Project, scan_id: str, annotator: str, kind: str) -> sitk.Image | None:
    """Read an annotator's regions or heart as uint8 labels on the scan's grid, or return None if there are none.

    kind: One of MASK_KINDS. Raises ProjectError if the file cannot be read.
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
    """Replace an annotator's regions or heart; an empty mask is allowed.

    kind: One of MASK_KINDS. image: 3-D integers from 0 to 255, on the scan's grid. Raises ProjectError for another
    image, and AnnotationError if it cannot be saved; the earlier mask then stays.
    """
    _save_mask(_annotator_folder(project.scan_folder(scan_id), annotator), kind, image)


def write_imported(folder: Path, annotations: ImportedAnnotations) -> None:
    """Write imported annotations into a scan's folder. They cannot be undone.

    Raises ProjectError and OSError.
    """
    annotator_folder = folder / "annotators" / annotations.annotator
    common_fields = {"seconds": None, "imported": True, "time": now()}
    labels = sorted(annotations.slices.items())
    lines = [json.dumps({"k": k, "label": label.value, **common_fields}) + "\n" for k, label in labels]
    annotator_folder.mkdir(parents=True)
    write_durably(annotator_folder / SLICES_FILE, "".join(lines).encode())
    for kind in MASK_KINDS:
        if (image := getattr(annotations, kind)) is not None:
            _save_mask(annotator_folder, kind, image)


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
        reason = error.strerror if isinstance(error, OSError) else "the disk may be full"
        raise AnnotationError(
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


def _as_labels(image: sitk.Image, name: str) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    is_integral = values.dtype.kind in "iub" or bool((values == values.round()).all())
    if values.ndim != 3 or image.GetDimension() != 3 or not is_integral or values.min() < 0 or values.max() > 255:
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
    """Return an annotator's folder, whose name may have other capitals."""
    name = check_annotator(annotator)
    folders = [folder for folder in _folders(scan_folder) if folder.lower() == name.lower()]
    return scan_folder / "annotators" / (name if name in folders or not folders else sorted(folders)[0])


def _is_time(seconds: object) -> bool:
    return type(seconds) in (int, float) and 0 <= seconds < math.inf
