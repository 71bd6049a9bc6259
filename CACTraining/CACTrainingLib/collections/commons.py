"""Scans of the Imaging Data Commons: choice of series from its index, and their download by idc-index's own client.

The client fetches what a manifest of its form lists and the folder lacks, so that a rerun resumes.
"""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from CACScoringLib.core.acquisition import agent_named
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.series_rule import is_soft_kernel

from ..references.collection import Collection

CLIENT_MANIFEST = "series.s5cmd"
"""File in the folder of the scans with the series to fetch, in the form of the client's manifests."""

SERIES_FOLDER = "%PatientID/%SeriesInstanceUID"
"""Folder of a series, in the client's words."""

INDEX_COLUMNS = {
    "SeriesInstanceUID": "uid",
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "SeriesDescription": "description",
    "instanceCount": "images",
    "series_size_MB": "size_mb",
    "license_short_name": "licence",
    "series_aws_url": "url",
}
"""Field of `RemoteSeries` by column of the index."""

DOWNLOAD_HOST, CONNECT_SECONDS = "idc-open-data.s3.amazonaws.com", 5.0
"""Host of the images, and time in which it has to answer."""

MIN_IMAGES = 20
"""Smallest number of images of a series that may be a chest CT."""

MIN_RATIO = 1.5
"""Smallest ratio of the thick slices to the thin ones of a pair."""

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
        url: Place of its images in the Commons.
    """

    uid: str
    patient: str
    study: str
    description: str
    images: int
    size_mb: float
    licence: str
    url: str

    @property
    def folder(self) -> Path:
        """Folder of the series below that of the download."""
        return Path(self.patient, self.uid)

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

    def images_in(self, folder: Path) -> int:
        """Return the number of its images in the folder of a download."""
        return len(list((folder / self.folder).glob("*.dcm")))


def by_hand(collection: Collection, folder: Path) -> str:
    """Return what to do without a connection or the package."""
    return (
        f"On another computer: {collection.source} Copy the DICOM files into {folder}, a folder per "
        f"series, and run: cac data import {collection.name} {folder} --output PROJECT"
    )


def series_of(collection: Collection) -> list[RemoteSeries]:
    """Return the CT series of a collection from the index that comes with idc-index, without a connection."""
    import idc_index_data
    import pandas as pd

    filters = [("collection_id", "==", collection.idc), ("Modality", "==", "CT")]
    index = pd.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH, columns=[*INDEX_COLUMNS], filters=filters)
    return [RemoteSeries(**row) for row in index.rename(columns=INDEX_COLUMNS).fillna("").to_dict("records")]


def fetch_sample(collection: Collection, folder: Path, count: int, progress: Progress) -> int:
    """Fetch scans of a collection, chosen at random; series that are there are kept.

    Args:
        collection: Collection of the Imaging Data Commons.
        folder: Folder for a folder per patient and series, made if needed.
        count: Number of acquisitions.
        progress: Progress.

    Returns:
        The number of series in the folder.

    Raises:
        CTError: There is no connection, a series is incomplete, or the index lacks the collection.
    """
    progress.begin(["index", "download"])
    with progress.step("index"):
        client = connected_client(collection, folder)
        series = chosen_series(_without_agent(client, series_of(collection), progress), count)
        if not series:
            raise CTError(
                f"The index of the Imaging Data Commons has no CT of {collection.title}. Update the package idc-index."
            )
        collection.write_terms(folder)
    with progress.step("download"):
        failed = download(client, waiting_series(series, folder, progress), folder, progress)
    if failed:
        raise CTError(f"{next(iter(failed.values()))} {by_hand(collection, folder)}")
    return len(series)


def waiting_series(series: Sequence[RemoteSeries], folder: Path, progress: Progress) -> list[RemoteSeries]:
    """Return the series of which the folder lacks images, and note their size."""
    waiting = [entry for entry in series if entry.images_in(folder) < entry.images]
    licences = ", ".join(sorted({entry.licence for entry in series}))
    progress.note(
        f"{len(series)} series of {len({entry.patient for entry in series})} patients ({licences}): "
        f"{sum(entry.size_mb for entry in waiting):,.0f} MB to fetch, {len(series) - len(waiting)} series there before"
    )
    return waiting


def connected_client(collection: Collection, folder: Path) -> Any:
    """Return the client of idc-index. Raises CTError if it cannot begin, or without a connection."""
    try:
        if not getproxies():  # the client itself would try for minutes
            socket.create_connection((DOWNLOAD_HOST, 443), CONNECT_SECONDS).close()
    except OSError as error:
        raise CTError(
            f"There is no connection to {DOWNLOAD_HOST} ({error.strerror or error}). {by_hand(collection, folder)}"
        ) from error
    from idc_index.index import IDCClient

    logging.getLogger("idc_index").setLevel(logging.ERROR)
    try:
        return IDCClient.client()
    except Exception as error:  # it raises whatever its index and tools meet
        raise CTError(
            f"The index of the Imaging Data Commons cannot be opened ({type(error).__name__}: {error}). "
            f"{by_hand(collection, folder)}"
        ) from error


def download(client: Any, series: Sequence[RemoteSeries], folder: Path, progress: Progress) -> dict[str, str]:
    """Fetch the images of series that a folder lacks, and return the reason of each incomplete series by UID.

    The client itself checks that the disk has room for them.
    """
    if not series:
        return {}
    manifest, problem = folder / CLIENT_MANIFEST, ""
    write_text_atomically(manifest, "".join(f"cp {entry.url} .\n" for entry in series))
    try:
        client.download_from_manifest(
            str(manifest),
            str(folder),
            use_s5cmd_sync=True,
            dirTemplate=SERIES_FOLDER,
            progress_callback=lambda done, size, *_: progress.counted(int(done / MB), int(size / MB)),
        )
    except Exception as error:  # it raises whatever its tools meet
        problem = f" ({type(error).__name__}: {error})"
    # The client reports no failure of its downloads.
    return {
        entry.uid: f"{count} of {entry.images} images of a series of {entry.patient} arrived{problem}. Check the "
        "connection and the room on the disk, and rerun the command to resume."
        for entry in series
        if (count := entry.images_in(folder)) < entry.images
    }


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
    with_agent = {uid for uid, agent in table.itertuples(index=False) if agent_named(agent)}
    return [entry for entry in series if entry.uid not in with_agent]
