"""DICOM files that are sent to an archive or fetched from one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pydicom

from ..core.errors import ArchiveUnreachableError, CTError, UnreadableError
from ..core.files import atomic_folder, sync_folder
from ..core.uids import is_uid
from ..io.dicom import is_dicom, read_bounded, translate_dicom_errors
from ..io.image_files import quiet
from .series import Archive, DicomFile, SeriesSummary

_UIDS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


def dicom_files(paths: Iterable[Path]) -> list[DicomFile]:
    """Return the DICOM files among files and below folders, sorted by name, without hidden and other files.

    Raises UnreadableError if a path does not exist, a DICOM file lacks a UID, or there is no DICOM file.
    """
    files = {}
    with quiet():
        for path in paths:
            if not path.exists():
                raise UnreadableError(f"{path} does not exist.")
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if file.is_file() and not is_hidden and is_dicom(file):
                    dicom_file = _read(file)
                    files[dicom_file.uid] = dicom_file
    if not files:
        raise UnreadableError("There is no DICOM file to send. Give DICOM files, or folders that hold them.")
    return list(files.values())


def _read(path: Path) -> DicomFile:
    header = read_bounded(path, stop_before_pixels=True, specific_tags=_UIDS)
    with translate_dicom_errors(str(path)):
        uids = [str(header.get(keyword, "")) for keyword in _UIDS]
        syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    if not all(map(is_uid, (*uids, syntax))):
        raise UnreadableError(f"{path} lacks a UID that is needed to send it. Export it again.")
    sop_class, uid, study, series = uids
    return DicomFile(path, sop_class, uid, study, series, syntax)


def pull(archive: Archive, series: SeriesSummary, folder: Path) -> int:
    """Fetch a series into a folder, atomically, and return the number of images. Files are numbered on arrival.

    Raises:
        NoSuchSeriesError: The archive has no such series.
        ArchiveUnreachableError: The transfer was interrupted, or fewer images arrived than the archive has.
        CTError: The archive sent something else than the series.
    """
    uids: set[str] = set()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), atomic_folder(folder) as partial:

        def receive(content: bytes) -> None:
            uid = _uid_in(content, series)
            if uid not in uids:
                uids.add(uid)
                with (partial / f"{len(uids):06d}.dcm").open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())

        archive.retrieve(series, receive)
        if len(uids) < series.images:
            raise ArchiveUnreachableError(f"{len(uids)} of {series.images} images came from the archive; try again.")
        sync_folder(partial)
    sync_folder(folder.parent)
    return len(uids)


def _uid_in(content: bytes, series: SeriesSummary) -> str:
    """Return the UID of an instance of a series. Raises CTError if the content is something else."""
    try:
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_UIDS)
        uid, series_uid = str(header["SOPInstanceUID"].value), str(header["SeriesInstanceUID"].value)
    except Exception as error:  # pydicom's parser raises any exception for broken bytes
        raise CTError("The archive sent an incomplete DICOM file.") from error
    if series_uid != series.series_uid:
        raise CTError("The archive sent an object of another series than the one it was asked for.")
    return uid


def missing_in(archive: Archive, files: Iterable[DicomFile]) -> list[DicomFile]:
    """Return the files whose instances an archive lacks. Raises ArchiveError."""
    files = list(files)
    stored_uids: set[str] = set()
    for study_uid, series_uid in dict.fromkeys((file.study_uid, file.series_uid) for file in files):
        stored_uids |= archive.instance_uids(study_uid, series_uid)
    return [file for file in files if file.uid not in stored_uids]
