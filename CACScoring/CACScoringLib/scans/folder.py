"""Search of a folder for scans: image files and DICOM series."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.ct import ScanWarning
from ..core.errors import CTError
from ..core.files import LAST_FILE
from ..core.text import abbreviated_list, printable
from ..io.reading import IMAGE_ENDINGS, stem
from ..io.series import find_series
from .source import ScanSource

WHOLE_FOLDER = "ct"
"""Name of an image whose folder is one scan, as in cohorts of digital patients: other files and subfolders (masks,
maps, a DICOM copy) belong to the same scan."""

SEGMENTATION_ENDING = ".seg.nrrd"

Listing = tuple[dict[str | None, str | None], int] | None
"""A folder's series and number of broken files, from `series.find_series`; None if the folder cannot be read."""

_NO_DICOM = (*IMAGE_ENDINGS, ".json", ".tsv")


@dataclass(frozen=True)
class Search:
    """Result of searching a folder.

    Attributes:
        files: Image files.
        folders: Folders that may contain DICOM files.
        warnings: Warnings.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    warnings: tuple[ScanWarning, ...]


def search(root: Path, output: Path) -> Search:
    """Search a folder and its subfolders for image files and DICOM folders.

    Hidden files and folders, segmentations (.seg.nrrd), results (folders with a scores.json) and `output` are skipped.
    Links to folders are followed once.
    """
    files: list[Path] = []
    folders: list[Path] = []
    unread: list[str] = []
    visited = {_identity(output)} if output.exists() else set()
    for parent, inner, names in os.walk(
        root, followlinks=True, onerror=lambda error: unread.append(str(error.filename))
    ):
        folder = Path(parent)
        identity = _identity(folder)
        if identity in visited or LAST_FILE in names:
            inner.clear()
            continue
        visited.add(identity)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        visible = sorted(name for name in names if not name.startswith("."))
        images = [folder / name for name in visible if name.lower().endswith(IMAGE_ENDINGS)]
        images = [path for path in images if not path.name.lower().endswith(SEGMENTATION_ENDING)]
        ct_images = [path for path in images if stem(path).lower() == WHOLE_FOLDER]
        if ct_images:
            inner.clear()
        elif any(not name.lower().endswith(_NO_DICOM) for name in visible):
            folders.append(folder)
        files += ct_images or images
    return Search(tuple(files), tuple(folders), _unread_warning(unread))


def _unread_warning(folders: list[str]) -> tuple[ScanWarning, ...]:
    if not folders:
        return ()
    count, names = len(folders), abbreviated_list(folders)
    message = f"{count} folders could not be opened, so nothing in them is scored: {names}."
    return (ScanWarning("folders-unread", message),)


def listing_of(folder: Path) -> Listing:
    """Return the listing of a folder."""
    with suppress(OSError, CTError):
        return find_series(folder)
    return None


def listings_of(folders: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[Listing]:
    """Return the listings of folders. progress: function called with the numbers of read and of all folders."""
    listings = []
    for n, folder in enumerate(folders, 1):
        listings.append(listing_of(folder))
        if progress:
            progress(n, len(folders))
    return listings


def scans_of_folder(root: Path, places: Search, listings: Sequence[Listing]) -> list[ScanSource]:
    """Return the scans below a folder, sorted by name.

    Each series of a folder is a scan, because no user can choose; the facts in the cohort's table distinguish them. A
    series whose files lie in several folders may be one scan or several, so it is listed with a fault.

    Args:
        root: The folder.
        places: Result of `search`.
        listings: Listing of each of its folders.
    """
    scans = [ScanSource(name_below(root, path), "", path, key=_below(root, path)) for path in places.files]
    folders_of_uid: dict[str, list[Path]] = {}
    for folder, listing in zip(places.folders, listings, strict=True):
        for uid in listing[0] if listing else ():
            if uid is not None:
                folders_of_uid.setdefault(uid, []).append(folder)
    for folder, listing in zip(places.folders, listings, strict=True):
        name, key = name_below(root, folder), _below(root, folder)
        if listing is None:
            scans.append(ScanSource(name, "", folder, key=key, fault="Its files could not be read."))
            continue
        in_folder, broken = listing
        if broken and not in_folder:
            message = f"{broken} DICOM files in the folder are broken, and no CT series can be read. Export it again."
            scans.append(ScanSource(name, "", folder, key=key, fault=message))
        for uid, number in in_folder.items():
            fault = None
            if uid is None and len(in_folder) > 1:
                fault = (
                    "The folder holds several CT series, one without a UID. List the series in a table by its number."
                )
            elif uid is not None and len(folders_of_uid[uid]) > 1:
                where = abbreviated_list(_below(root, place) for place in folders_of_uid[uid])
                fault = (
                    f"Files of this series lie in {len(folders_of_uid[uid])} folders ({where}); they may be "
                    "parts of one scan, or several scans with one UID. List it in a table, with the folder of each "
                    "scan or the one that holds all parts."
                )
            full_name = name if len(in_folder) == 1 else f"{name}-{number or 'no-number'}"
            scans.append(ScanSource(full_name, "", folder, uid, key=f"{key}#{uid}", fault=fault))
    return sorted(scans, key=lambda scan: (natural_key(scan.name), scan.key))


def name_below(root: Path, path: Path) -> str:
    """Return the path below the root without the image's ending; a file named WHOLE_FOLDER takes its folder's name."""
    inside = path.is_relative_to(root) and path != root
    parts = list(path.relative_to(root).parts) if inside else [path.name]
    parts[-1] = stem(path)
    if parts[-1].lower() == WHOLE_FOLDER:
        parts = parts[:-1] or [path.parent.name]
    return printable("/".join(parts)) or "scan"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts scan 2 before scan 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]
