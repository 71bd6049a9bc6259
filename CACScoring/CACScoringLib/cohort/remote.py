"""Scans behind an address (s3://, gs://, https://): the worker that scores one fetches it, and removes it afterwards.

A series of a DICOM archive has an address too; `archive.scans` fetches it.
Files get names of our own: nothing that a server or a table names becomes a path.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..core.ct import CTError
from ..core.uids import digest, is_uid
from ..io.reading import IMAGE_ENDINGS

SCHEMES = ("s3", "gs", "https", "http", "dimse", "dimses")
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}
"""What fsspec needs for each."""

ATTEMPTS, PAUSE_SECONDS = 3, 2.0
"""A fetch that fails is tried again, each time after a longer pause."""

LARGEST_FILES = 20_000
"""Of a series; a folder with more is none."""

_SERIES = re.compile(r"((?:https?|dimses?)://[^?#]+?)/studies/([\d.]+)/series/([\d.]+)/?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FINAL = (CTError, ImportError, FileNotFoundError, PermissionError)
"""Errors with which it is of no use to try again."""

_PUBLIC = re.compile(r"idc-open-(data|idc1|cr)[\w-]*|public-datasets-idc")
"""Buckets of the NCI Imaging Data Commons, which are read without an account."""


class RemoteError(CTError):
    """A scan cannot be fetched. The message says what to do."""


@dataclass(frozen=True)
class SeriesAddress:
    """Of a series in a DICOM archive, as DICOMweb writes it (PS3.18, 10.4.1.1.2)."""

    archive: str
    study_uid: str
    series_uid: str


def series_of(address: str) -> SeriesAddress | None:
    """The series that an address names, ARCHIVE/studies/UID/series/UID; None where it is none of an archive."""
    match = _SERIES.fullmatch(address)
    return SeriesAddress(*match.groups()) if match and all(map(is_uid, match.groups()[1:])) else None


def is_address(text: str) -> bool:
    """Whether a table's cell is an address, not a path."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def checked(address: str) -> str:
    """The address, if it may be fetched from. Raises RemoteError."""
    parts = _split(address)
    of_archive = parts.scheme.startswith("dimse")
    if parts.password or (parts.username and not of_archive):  # of DIMSE it is the archive's title
        raise RemoteError(f"{shown(address)} is given with a password. Give it to the workers by their environment.")
    if series_of(address):
        return address
    if of_archive:
        raise RemoteError(f"{shown(address)} names no series. Write dimse://TITLE@HOST:PORT/studies/UID/series/UID.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise RemoteError(f"{shown(address)} is not encrypted. Use https.")
    if not parts.netloc or not parts.path.strip("/"):
        raise RemoteError(f"{shown(address)} names no file or folder. Correct the address.")
    if parts.scheme.startswith("http") and not _ending(address):
        known = ", ".join(IMAGE_ENDINGS)
        raise RemoteError(
            f"{shown(address)} is neither one file with an ending of {known}, nor a series of an archive "
            "(ARCHIVE/studies/UID/series/UID), as a scan by https has to be."
        )
    return address


def shown(address: str) -> str:
    """The address without a password, without what follows "?", where signatures stand, and without UIDs."""
    if series := series_of(address):
        return f"{shown(series.archive)} series {digest(series.series_uid)}"
    parts = _split(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def last_part(address: str) -> str:
    """The name of the file or folder, for people; of a series the digest of its UID."""
    if series := series_of(address):
        return digest(series.series_uid)
    return _split(address).path.rstrip("/*").rpartition("/")[2] or "scan"


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """Give an image file or a folder of DICOM files with what lies at the address, and remove it at the end.

    Raises RemoteError.
    """
    checked(address)
    if series_of(address):
        raise RemoteError(f"{shown(address)} is in an archive, which cac cohort alone can ask.")
    with tempfile.TemporaryDirectory(prefix="cac-fetched-", dir=own_folder()) as place:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                scan = _fetch(address, Path(place))
                break
            except Exception as error:  # each service has its own
                if attempt == ATTEMPTS or isinstance(_known(error), _FINAL):
                    raise _failed(address, _known(error)) from error
                time.sleep(PAUSE_SECONDS * attempt)
        yield scan


def _fetch(address: str, place: Path) -> Path:
    import fsspec

    scheme, bucket = _split(address).scheme, _split(address).netloc
    public = {"s3": {"anon": True}, "gs": {"token": "anon"}}.get(scheme, {}) if _PUBLIC.fullmatch(bucket) else {}
    files, root = fsspec.core.url_to_fs(address.rstrip("*") if scheme in ("s3", "gs") else address, **public)
    files.invalidate_cache()
    if ending := _ending(address):
        target = place / f"scan{ending}"
        _get(files, {root: files.info(root).get("size")}, [target], address)
        return target
    found: dict[str, Any] = files.find(root.rstrip("/"), detail=True)
    if not found:
        raise FileNotFoundError
    if len(found) > LARGEST_FILES:
        raise RemoteError(f"{shown(address)} has {len(found)} files. Give the address of one series.")
    folder = place / "series"
    folder.mkdir(exist_ok=True)
    sizes = {name: info.get("size") for name, info in sorted(found.items())}
    _get(files, sizes, [folder / f"{number:06d}.dcm" for number in range(len(found))], address)
    return folder


def _get(files: Any, sizes: dict[str, int | None], targets: list[Path], address: str) -> None:
    wanted, free = sum(size or 0 for size in sizes.values()), shutil.disk_usage(targets[0].parent).free
    if wanted > free:
        raise RemoteError(
            f"{shown(address)} has {wanted / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free in the worker's temporary "
            "folder. Make room, or set TMPDIR for the workers."
        )
    files.get(list(sizes), [str(target) for target in targets])
    for size, target in zip(sizes.values(), targets, strict=True):
        if size is not None and target.stat().st_size != size:
            raise OSError("a file was fetched in part")


def _ending(address: str) -> str | None:
    name = _split(address).path.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), None)


def _known(error: Exception) -> Exception:
    """What an error means: fsspec calls whatever befalls a request by https a file that is not there."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(error, "status", None)
    return {401: PermissionError(), 403: PermissionError(), 404: FileNotFoundError()}.get(status, error)


def _failed(address: str, error: Exception) -> CTError:
    """Without the words of the error, which may hold a signature."""
    if isinstance(error, RemoteError):
        return error
    if isinstance(error, ImportError):
        package = PACKAGES[_split(address).scheme]
        text = f'needs {package}. Install it for the workers with: pip install "slicer-cac[remote]"'
        return RemoteError(f"Fetching {shown(address)} {text}")
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"There is nothing at {shown(address)}. Correct the address.")
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return RemoteError(f"{shown(address)} may not be read. Give the workers an account by their environment.")
    status = getattr(error, "status", None)
    kind = type(error).__name__ + (f" {status}" if status else "")
    return RemoteError(f"{shown(address)} could not be fetched ({kind}). Run the command again to try once more.")


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult(address.partition(":")[0], "", "", "", "")


def own_folder() -> str | None:
    """Where the worker has its files, which are removed also after it was killed; None outside of a worker."""
    with suppress(ImportError, ValueError):
        from distributed import get_worker

        return get_worker().local_directory
    return None
