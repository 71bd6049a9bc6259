"""Paths of a project's scans on this and other systems, and scans that were moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.text import abbreviated_list

from .files import ProjectError
from .scan_identity import content_hash

if TYPE_CHECKING:
    from .project import ProjectScan


def absolute(path: Path) -> Path:
    """An absolute path without "..", with the links and drives that the user knows, which resolving would replace."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def stored_path(path: Path, folder: Path) -> str:
    """A path as scans.csv has it: relative to the project when inside it, with forward slashes."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def path_from(text: str, folder: Path) -> Path:
    """A path from scans.csv. One from another operating system stays as it is: it can only be missing here."""
    if text.startswith("/") or PureWindowsPath(text).is_absolute():
        return Path(text)
    return folder / text


def exists(path: Path) -> bool:
    """True if a file or folder is there; False where it cannot be looked for."""
    try:
        return path.exists()
    except OSError:
        return False


def path_below(path: Path, old: Path, new: Path) -> Path | None:
    """The path below another folder that corresponds to one below the first; None when it does not lie there."""
    return new / path.relative_to(old) if path.is_relative_to(old) else None


def old_place(path: Path) -> Path:
    """A folder that scans lay in, maybe on another operating system, as their paths have it."""
    text = str(path)
    if PureWindowsPath(text).is_absolute() and os.name != "nt":
        return Path(text.replace("\\", "/"))
    return absolute(path)


def find_moved(
    scans: Sequence[ProjectScan], old: Path, new: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """The new CTs of scans that lay below one folder and lie below another, by id.

    progress: called with how many are checked of how many. Raises ProjectError when no scan lay there, none is found,
    or one that is found has another content than it had.
    """
    below = {scan.id: ct for scan in scans if (ct := path_below(scan.ct, old, new))}
    if not below:
        places = sorted({str(scan.ct.parent) for scan in scans})
        raise ProjectError(f"No scan of the project lies below {old}. They lie in: {abbreviated_list(places)}.")
    found = {scan: below[scan.id] for scan in scans if scan.id in below and exists(below[scan.id])}
    if not found:
        first = next(iter(below.values()))
        raise ProjectError(
            f"None of the {len(below)} scans below {old} is below {new}; the first was looked for at {first}. Give the "
            "two folders that correspond to each other."
        )
    others = []
    for n, (scan, ct) in enumerate(found.items(), 1):
        try:
            if content_hash(ct, scan.series) != scan.sha256:
                others.append(f"{scan.name} at {ct} (another content)")
        except CTError as error:
            others.append(f"{scan.name} at {ct} ({error})")
        if progress:
            progress(n, len(found))
    if others:
        raise ProjectError(
            f"{len(others)} of {len(found)} scans below {new} are not those of the project, so nothing was changed: "
            f"{abbreviated_list(others)}. Give the folder that holds the same files, or add the others as new scans."
        )
    return {scan.id: ct for scan, ct in found.items()}
