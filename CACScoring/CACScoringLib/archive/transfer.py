"""Connection to an archive, and transfer of series and DICOM files; requests are retried after growing waits."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import pydicom

from ..core.errors import (
    ArchiveError,
    ArchiveUnreachableError,
    CTError,
    NoSuchSeriesError,
    OutputError,
    UnreadableError,
)
from ..core.files import atomic_folder, remove_partial, sync_folder
from ..core.progress import Progress
from ..io.dicom import is_dicom, read_bounded, translate_dicom_errors
from ..io.image_files import quiet
from .address import Access, parse_address
from .series import Archive, DicomFile, SeriesFilter, SeriesSummary, digest, is_uid

BATCH_FILES = 100
"""Number of files sent between two reports of progress."""

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 300.0
ATTEMPTS, GIVE_UP_SECONDS = 5, 10.0
"""Number of attempts, and time after which no other begins: an archive that is down is reported within 20 seconds."""

_VERBOSE_LOGGERS = ("dicomweb_client", "pydicom", "pynetdicom", "retrying", "urllib3")

_UIDS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


Result = TypeVar("Result")


def connect(address: str, access: Access) -> Archive:
    """Return the archive at an address, without contacting it. Raises OutputError if access does not suit it."""
    target = parse_address(address)
    access.check(target)
    for name in _VERBOSE_LOGGERS:  # they would log URLs and values that name patients
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if target.protocol == "dicomweb":
        from .dicomweb import DicomWebArchive

        return DicomWebArchive(target, access)
    from .dimse import DimseArchive

    return DimseArchive(target, access)


def wait_seconds(failures: int) -> float:
    """Return the seconds to wait after a number of failures in a row: doubled each time, randomised per client."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


def retry(call: Callable[[], Result]) -> Result:
    """Call a function, again while the archive is unreachable. Raises the last ArchiveError, or a lasting one."""
    start, failures = monotonic(), 0
    while True:
        try:
            return call()
        except ArchiveError as error:
            failures += 1
            wait = wait_seconds(failures)
            if error.lasting or failures == ATTEMPTS or monotonic() - start + wait > GIVE_UP_SECONDS:
                raise
            if failures == 1:
                print(f"{error} Trying again.", file=sys.stderr)
        sleep(wait)


def matching_series(archive: Archive, series_filter: SeriesFilter) -> list[SeriesSummary]:
    """Return the series that match, including slice thickness. Raises ArchiveError, NoSuchSeriesError."""
    summaries = retry(lambda: archive.find_series(series_filter))
    if series_filter.thickness_mm is not None:
        facts = [retry(partial(archive.image_facts, series)) for series in summaries]
        if summaries and all(fact.slice_thickness_mm is None for fact in facts):
            raise ArchiveError("The archive does not state slice thicknesses. Leave thickness_mm out of the settings.")
        pairs = zip(summaries, facts, strict=True)
        summaries = [series for series, fact in pairs if series_filter.matches_image(fact)]
    if not summaries:
        raise NoSuchSeriesError("The archive has no series that matches. Check the filter, and who may see what.")
    return summaries


def pull_all(archive: Archive, summaries: Sequence[SeriesSummary], output: Path, progress: Progress) -> tuple[int, int]:
    """Fetch each series into a folder named by a digest of its UID.

    Returns:
        Number of series that were fetched, and number that were complete before.

    Raises:
        ArchiveError: The archive does not answer, or not correctly.
        OutputError: The folder cannot be written.
    """
    fetched_count = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
        remove_partial(output)
        progress.begin(["series"])
        with progress.step("series"):
            for number, series in enumerate(summaries, 1):
                folder = output / digest(series.series_uid)
                if not folder.is_dir():
                    retry(partial(pull, archive, series, folder))
                    fetched_count += 1
                progress.counted(number, len(summaries))
    except OSError as error:
        raise OutputError(f"Cannot write to {output}: {error.strerror}. Choose another --output.") from error
    return fetched_count, len(summaries) - fetched_count


def push_all(archive: Archive, files: Sequence[DicomFile], progress: Progress) -> int:
    """Store the files that an archive lacks, verify that it has them, and return the number that was sent.

    Raises ArchiveError if it refused some; the others are stored.
    """
    lacking = retry(lambda: missing_in(archive, files))
    refused: dict[str, str] = {}
    progress.begin(["files"])
    with progress.step("files"):
        for start in range(0, len(lacking), BATCH_FILES):
            batch = lacking[start : start + BATCH_FILES]
            refused |= retry(partial(archive.store, batch))
            progress.counted(start + len(batch), len(lacking))
    if refused:
        raise ArchiveError(
            f"The archive refused {len(refused)} of {len(lacking)} objects; the first: {next(iter(refused.values()))}."
        )

    def confirm() -> None:
        if lost := missing_in(archive, lacking):
            raise ArchiveUnreachableError(f"The archive took {len(lost)} objects that it does not list. Try again.")

    if lacking:
        retry(confirm)
    return len(lacking)


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
                    dicom_file = _dicom_file(file)
                    files[dicom_file.uid] = dicom_file
    if not files:
        raise UnreadableError("There is no DICOM file to send. Give DICOM files, or folders that hold them.")
    return list(files.values())


def _dicom_file(path: Path) -> DicomFile:
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
