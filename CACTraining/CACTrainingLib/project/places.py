"""Convert paths of a project's scans between systems, and find scans that were moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

from CACScoringLib.core.errors import CTError, ProjectError
from CACScoringLib.core.text import abbreviated_list

from .files import ProjectScan
from .scan_identity import content_hash


def absolute(path: Path) -> Path:
    """Return an absolute path without "..", keeping the user's links and drives, which resolving would replace."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def exists(path: Path) -> bool:
    """True if a file or folder exists and can be accessed."""
    try:
        return path.exists()
    except OSError:
        return False


def path_below(path: Path, old: Path, new: Path) -> Path | None:
    """Move a path from below one folder to below another; return None if it is not below the first."""
    return new / path.relative_to(old) if path.is_relative_to(old) else None


def old_place(path: Path) -> Path:
    """Return a former folder of scans, maybe on another operating system, in the form of their stored paths."""
    text = str(path)
    if PureWindowsPath(text).is_absolute() and os.name != "nt":
        return Path(text.replace("\\", "/"))
    return absolute(path)


def find_moved(
    scans: Sequence[ProjectScan], old: Path, new: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """Find scans that were moved from one folder to another; return their new CTs by id.

    progress: Function called with the numbers of checked and of all scans. Raises ProjectError if no scan was in the
    old folder, none is in the new one, or the content of one has changed.
    """
    candidates = {scan.id: ct for scan in scans if (ct := path_below(scan.ct, old, new))}
    if not candidates:
        places = sorted({str(scan.ct.parent) for scan in scans})
        raise ProjectError(f"No scan of the project lies below {old}. They lie in: {abbreviated_list(places)}.")
    new_paths = {scan: candidates[scan.id] for scan in scans if scan.id in candidates and exists(candidates[scan.id])}
    if not new_paths:
        first = next(iter(candidates.values()))
        raise ProjectError(
            f"None of the {len(candidates)} scans below {old} is below {new}; the first was looked for at {first}. "
            "Give the two folders that correspond to each other."
        )
    mismatches = []
    for n, (scan, ct) in enumerate(new_paths.items(), 1):
        try:
            if content_hash(ct, scan.series) != scan.sha256:
                mismatches.append(f"{scan.name} at {ct} (another content)")
        except CTError as error:
            mismatches.append(f"{scan.name} at {ct} ({error})")
        if progress:
            progress(n, len(new_paths))
    if mismatches:
        raise ProjectError(
            f"{len(mismatches)} of {len(new_paths)} scans below {new} are not those of the project, so nothing was "
            f"changed: {abbreviated_list(mismatches)}. Give the folder that holds the same files, or add the others as "
            "new scans."
        )
    return {scan.id: ct for scan, ct in new_paths.items()}
