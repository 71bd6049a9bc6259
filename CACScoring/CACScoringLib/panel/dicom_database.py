"""Slicer's DICOM database: finds the files of a volume and reviews of its study, and takes results."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..core.errors import CTError

_MODALITY, _DATE, _TIME = "0008,0060", "0008,0023", "0008,0033"
_FRAME_OF_REFERENCE = "0020,0052"
_REVIEWS = ("SEG", "RTSTRUCT")


def openDatabase():
    """Return Slicer's DICOM database; None if the DICOM module is missing or no database is open."""
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None


def instanceUIDs(volume: vtkMRMLScalarVolumeNode | None) -> list[str]:
    """Return the UIDs of the images that a volume was loaded from; none if it did not come from DICOM."""
    return [] if volume is None else (volume.GetAttribute("DICOM.instanceUIDs") or "").split()


def filesOf(volume: vtkMRMLScalarVolumeNode) -> tuple[Path, ...]:
    """Return the files that a volume was loaded from. Raises CTError if they are unknown or no longer exist."""
    uids, database, name = instanceUIDs(volume), openDatabase(), volume.GetName()
    if not uids:
        raise CTError(
            _(
                "{name} was not loaded through the DICOM module, and DICOM objects have to refer to its images. Load "
                "the CT with this module."
            ).format(name=name)
        )
    if database is None:
        raise CTError(_("Slicer's DICOM database is not open. Open it in the DICOM module."))
    paths = [database.fileForInstance(uid) for uid in uids]
    files = tuple(dict.fromkeys(Path(path) for path in paths if path and Path(path).is_file()))
    missing = sum(not (path and Path(path).is_file()) for path in paths)
    if missing:
        text = _("{missing} of {count} images of {name} are no longer in Slicer's DICOM database. Import the CT again.")
        raise CTError(text.format(missing=missing, count=len(uids), name=name))
    return files


def frameOfReference(volume: vtkMRMLScalarVolumeNode | None) -> str:
    """Return the UID of a volume's frame of reference; empty if unknown."""
    uids, database = instanceUIDs(volume), openDatabase()
    return "" if not uids or database is None else database.instanceValue(uids[0], _FRAME_OF_REFERENCE)


def reviewsOf(volume: vtkMRMLScalarVolumeNode | None) -> list[tuple[str, str]]:
    """Return the segmentations and structure sets of a volume's study as (label, file), newest first."""
    uids, database = instanceUIDs(volume), openDatabase()
    if not uids or database is None:
        return []
    study = database.studyForSeries(database.seriesForFile(database.fileForInstance(uids[0])))
    reviews = []
    for series in database.seriesForStudy(study):
        first = next(iter(database.filesForSeries(series, 1)), "")
        if not first or database.fileValue(first, _MODALITY) not in _REVIEWS:
            continue
        for path in database.filesForSeries(series):
            timestamp = database.fileValue(path, _DATE), database.fileValue(path, _TIME)
            reviews.append((timestamp, _reviewLabel(database, series, path, timestamp), path))
    return [(text, path) for _timestamp, text, path in sorted(reviews, reverse=True)]


def addFolder(folder: Path) -> str:
    """Copy the DICOM files of a folder into the database. Returns a message for the user."""
    database = openDatabase()
    if database is None:
        return _("Slicer's DICOM database is not open, so they were not added to it.")
    from DICOMLib import DICOMUtils

    # Copied, so that the folder may be moved or deleted afterwards.
    if not DICOMUtils.importDicom(str(folder), database, True):
        return _("They could not be added to Slicer's DICOM database; import the folder there.")
    return _("They were added to Slicer's DICOM database.")


def _reviewLabel(database, series: str, path: str, timestamp: tuple[str, str]) -> str:
    from ..core.text import printable

    description = printable(database.descriptionForSeries(series)) or _("no description")
    date, time = timestamp
    written = f"{date[:4]}-{date[4:6]}-{date[6:8]} {time[:2]}:{time[2:4]}" if len(date) == 8 else _("no date")
    modality = database.fileValue(path, _MODALITY)
    return _("{description} ({modality}, {written})").format(
        description=description, modality=modality, written=written
    )
