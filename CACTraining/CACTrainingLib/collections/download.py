"""Download of a collection from the Imaging Data Commons, series by series, so that it resumes.

A series is fetched into a hidden folder, which is renamed once all its files are there and can be read; CHECKSUMS then
holds the SHA-256 of each file. Rerun, series whose files are unchanged are kept, and damaged ones are fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length

from CACScoringLib.cohort.folder import safe_name
from CACScoringLib.core.acquisition import NO_AGENT
from CACScoringLib.core.files import (
    OutputError,
    atomic_folder,
    file_sha256,
    read_json,
    remove_partial,
    write_text_atomically,
)
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.series_rule import is_soft_kernel

from .collection import Collection
from .scans import CollectionError

CHECKSUMS = "sha256.json"

DOWNLOAD_HOST, CONNECT_SECONDS = "idc-open-data.s3.amazonaws.com", 5.0
"""Host of the images, and time in which it has to answer."""

MIN_IMAGES = 20
"""Smallest number of images of a series that may be a chest CT."""

MIN_RATIO = 1.5
"""Smallest ratio of the thick slices to the thin ones of a pair."""

MAX_FAILURES = 3
"""Failures in a row that end a download, as without a connection; fewer do not stop the other series."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)

MB = 10**6


@dataclass(frozen=True)
class RemoteSeries:
    """CT series of the Imaging Data Commons.

    Attributes:
        uid: Series instance UID.
        patient: Patient ID.
        study: Study instance UID.
        description: Series description.
        images: Number of images.
        size_mb: Size in MB.
        licence: Licence.
    """

    uid: str
    patient: str
    study: str
    description: str
    images: int
    size_mb: float
    licence: str

    def folder_in(self, folder: Path) -> Path:
        """Return the series' folder below that of the download."""
        return folder / safe_name(self.patient) / safe_name(self.uid)

    @property
    def reconstruction(self) -> tuple[str, float] | None:
        """Kernel and slice thickness in mm from a description of NLST; None for others.

        NLST: study year, orientation, manufacturer, model, kernel, field of view, thickness, kVp, mAs, …
        """
        parts = self.description.split(",")
        try:
            return parts[4].strip(), float(parts[6])
        except (IndexError, ValueError):
            return None


def by_hand(collection: Collection, folder: Path) -> str:
    """Return what to do without a connection or the package."""
    return (
        f"On a computer with a connection: {collection.source} Copy the DICOM files into {folder}, a folder per "
        f"series, and run: cac data import {collection.name} {folder} --output PROJECT"
    )


def fetch(collection: Collection, folder: Path, count: int, progress: Progress, client: Any = None) -> int:
    """Fetch scans of a collection; series that are there are kept.

    Args:
        collection: Collection of the Imaging Data Commons.
        folder: Folder for a folder per patient and series, made if needed.
        count: Number of acquisitions.
        progress: Progress.
        client: Client of idc-index; None for its own.

    Returns:
        The number of series in the folder.

    Raises:
        CollectionError: There is no connection, the index lacks the collection, or the count is below 1.
        OutputError: The disk has no room for the series.
    """
    check_count(count)
    client = client or connected_client(collection, folder)
    progress.begin(["index", "download"])
    with progress.step("index"):
        series = chosen_series(_without_agent(client, remote_series(client.index, collection), progress), count)
        if not series:
            raise CollectionError(
                f"The index of the Imaging Data Commons has no CT of {collection.title}. Update the package idc-index."
            )
        collection.write_terms(folder)
        waiting = waiting_series(series, folder, progress)
    with progress.step("download"):
        failed = fetch_series(client, collection, waiting, folder, progress)
    if failed:
        raise CollectionError(f"{next(iter(failed.values()))} {by_hand(collection, folder)}")
    return len(series)


def check_count(count: int | None) -> None:
    """Raise CollectionError for fewer than one scan."""
    if count is not None and count < 1:
        raise CollectionError(f"At least one scan is fetched, not {count}: give --scans 1 or more.")


def waiting_series(series: Sequence[RemoteSeries], folder: Path, progress: Progress) -> list[RemoteSeries]:
    """Return the series that are not whole in the folder, and note their size. Raises OutputError without room."""
    waiting = [entry for entry in series if not _is_whole(entry.folder_in(folder))]
    needed, free = sum(entry.size_mb for entry in waiting), shutil.disk_usage(folder).free / MB
    patients = len({entry.patient for entry in series})
    progress.note(
        f"{len(series)} series of {patients} patients ({', '.join(sorted({entry.licence for entry in series}))}): "
        f"{needed:,.0f} MB to fetch, {free:,.0f} MB free, {len(series) - len(waiting)} series there before"
    )
    if needed > free:
        raise OutputError(f"{folder} needs {needed:,.0f} MB and has {free:,.0f}. Make room, or lower --scans.")
    return waiting


def fetch_series(
    client: Any, collection: Collection, waiting: Sequence[RemoteSeries], folder: Path, progress: Progress
) -> dict[str, str]:
    """Fetch series, each whole or not at all, and return the reason of each failure by UID.

    Raises:
        CollectionError: MAX_FAILURES series in a row failed.
        OSError: The disk is full.
    """
    failed: dict[str, str] = {}
    failures = 0
    for n, entry in enumerate(waiting, 1):
        try:
            _fetch_series(client, entry, folder)
            failures = 0
        except CollectionError as error:
            failed[entry.uid] = str(error)
            failures += 1
            if failures == MAX_FAILURES:
                raise CollectionError(f"{error} {by_hand(collection, folder)}") from error
        progress.counted(n, len(waiting))
    return failed


def connected_client(collection: Collection, folder: Path) -> Any:
    """Return the client of idc-index. Raises CollectionError if it cannot begin."""
    _check_connection(collection, folder)
    from idc_index.index import IDCClient

    try:
        return IDCClient.client()
    except Exception as error:  # it raises whatever its index and tools meet
        raise CollectionError(
            f"The index of the Imaging Data Commons cannot be opened ({type(error).__name__}: {error}). "
            f"{by_hand(collection, folder)}"
        ) from error


def _check_connection(collection: Collection, folder: Path) -> None:
    """Raise CollectionError without a connection, at which the client would try for minutes."""
    if getproxies():
        return
    try:
        socket.create_connection((DOWNLOAD_HOST, 443), CONNECT_SECONDS).close()
    except OSError as error:
        raise CollectionError(
            f"There is no connection to {DOWNLOAD_HOST} ({error.strerror or error}). {by_hand(collection, folder)}"
        ) from error


def chosen_series(series: Sequence[RemoteSeries], count: int) -> list[RemoteSeries]:
    """Choose the series of a number of acquisitions, one of a patient, in a random order that is always the same.

    Of an acquisition with a thin and a thick reconstruction of one soft kernel, as in NLST, the thinnest and the
    thickest are chosen, and acquisitions without such a pair are passed over; if no description states kernels, the
    largest series of a patient.
    """
    by_study: dict[tuple[str, str], list[RemoteSeries]] = {}
    for entry in series:
        if entry.images >= MIN_IMAGES:
            by_study.setdefault((entry.patient, entry.study), []).append(entry)
    has_pairs = any(entry.reconstruction for entry in series)
    by_patient: dict[str, list[RemoteSeries]] = {}
    for (patient, _), entries in sorted(by_study.items()):
        if patient not in by_patient and (reconstructions := _pair(entries) if has_pairs else [_largest(entries)]):
            by_patient[patient] = reconstructions
    order = sorted(by_patient, key=lambda patient: hashlib.sha256(patient.encode()).digest())
    return [entry for patient in order[:count] for entry in by_patient[patient]]


def _largest(entries: Sequence[RemoteSeries]) -> RemoteSeries:
    return max(entries, key=lambda entry: (entry.images, entry.uid))


def _pair(entries: Sequence[RemoteSeries]) -> list[RemoteSeries]:
    """Return the thinnest and thickest series of one soft kernel; empty if there are none."""
    by_kernel: dict[str, list[tuple[float, str, RemoteSeries]]] = {}
    for entry in entries:
        if entry.reconstruction and is_soft_kernel(entry.reconstruction[0]):
            kernel, thickness_mm = entry.reconstruction
            by_kernel.setdefault(kernel, []).append((thickness_mm, entry.uid, entry))
    for _, ranked in sorted(by_kernel.items()):
        (thin_mm, _, thin), (thick_mm, _, thick) = min(ranked), max(ranked)
        if thick_mm >= MIN_RATIO * thin_mm:
            return [thin, thick]
    return []


def remote_series(index: Any, collection: Collection) -> list[RemoteSeries]:
    """Return the CT series of a collection. index: Table of idc-index, a row per series (pandas)."""
    rows: list[Mapping[str, Any]] = index[(index.collection_id == collection.idc) & (index.Modality == "CT")].to_dict(
        "records"
    )
    return [
        RemoteSeries(
            uid=str(row["SeriesInstanceUID"]),
            patient=str(row["PatientID"]),
            study=str(row["StudyInstanceUID"]),
            description=str(row["SeriesDescription"] or ""),
            images=int(row["instanceCount"]),
            size_mb=float(row["series_size_MB"]),
            licence=str(row["license_short_name"]),
        )
        for row in rows
    ]


def _without_agent(client: Any, series: Sequence[RemoteSeries], progress: Progress) -> list[RemoteSeries]:
    """Return the series whose header names no contrast agent; all, with a note, if the index of agents is missing."""
    try:
        client.fetch_index("contrast_index")
        table = (
            client.contrast_index[["SeriesInstanceUID", "ContrastBolusAgent"]].explode("ContrastBolusAgent").dropna()
        )
    except Exception:  # older packages have no such index, and it is fetched on demand
        progress.note("Contrast agents are not in the index; cac data import checks for them.")
        return list(series)
    with_agent = {uid for uid, agent in table.itertuples(index=False) if agent.strip().lower() not in NO_AGENT}
    return [entry for entry in series if entry.uid not in with_agent]


def _fetch_series(client: Any, series: RemoteSeries, folder: Path) -> None:
    """Fetch a series, whole or not at all. Raises CollectionError and OSError."""
    target = series.folder_in(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent, name=target.name)
    if target.exists():
        shutil.rmtree(target)
    with atomic_folder(target) as place:
        reason = ""
        try:
            client.download_from_selection(
                downloadDir=str(place),
                seriesInstanceUID=[series.uid],
                dirTemplate=None,
                quiet=True,
                show_progress_bar=False,
            )
        except Exception as error:  # the client raises whatever its tools meet without a connection
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            reason = f" ({type(error).__name__}: {error})"
        files = sorted(path for path in place.rglob("*") if path.is_file())
        if len(files) < series.images:
            raise CollectionError(
                f"{len(files)} of {series.images} images of a series of {series.patient} arrived{reason}. Check the "
                "connection and the room on the disk, and rerun the command to resume."
            )
        if damaged := [path.name for path in files if not _is_image_of(path, series.uid)]:
            raise CollectionError(
                f"{len(damaged)} of {len(files)} images of a series of {series.patient} are damaged ({damaged[0]}). "
                "Rerun the command to fetch the series again."
            )
        checksums = {path.relative_to(place).as_posix(): file_sha256(path) for path in files}
        write_text_atomically(place / CHECKSUMS, json.dumps(checksums, indent=1))


def _is_image_of(path: Path, uid: str) -> bool:
    """True if a file is a complete image of a series."""
    try:
        image = pydicom.dcmread(path)
        compressed = image.file_meta.TransferSyntaxUID.is_compressed
        least = 1 if compressed else get_expected_length(image)
        return str(image.SeriesInstanceUID) == uid and len(image.PixelData) >= least
    except (InvalidDicomError, AttributeError, EOFError, ValueError):
        return False


def _is_whole(folder: Path) -> bool:
    """True if a series' folder holds the files of its checksums, unchanged."""
    try:
        checksums = read_json(folder / CHECKSUMS)
        return all(file_sha256(folder / name) == checksum for name, checksum in checksums.items())
    except (OSError, ValueError, AttributeError):
        return False
