"""Identify a scan by its content, independent of names and folders of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import file_sha256

_WITH_OTHER_FILES = (".mhd", ".nhdr")
"""Endings of headers that name another file with the voxels."""


def content_hash(ct: Path, series: str | None = None) -> str:
    """Return the SHA-256 of a scan's content, 64 hexadecimal digits.

    It is computed from an image file's bytes, or from voxels and geometry if its voxels are in another file; for a
    DICOM series from its files' sorted hashes, so that names and folders do not matter. Raises CTError if there is no
    scan.
    """
    ct = Path(ct)
    if ct.is_dir():
        hashes = sorted(_file_hash(path) for path in series_files(ct, series))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    if not ct.is_file():
        raise UnreadableError(f"{ct} does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
    if ct.suffix.lower() in _WITH_OTHER_FILES:
        return _voxel_hash(ct)
    return _file_hash(ct)


def series_files(folder: Path, series: str | None) -> list[Path]:
    """Return the files of a CT series below a folder, as `read_ct` selects them. Raises CTError."""
    from CACScoringLib.io.dicom import read_slices
    from CACScoringLib.io.series import choose_series

    return list(dict.fromkeys(slice_.path for slice_ in choose_series(read_slices(folder)[0], series)[0]))


def _file_hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error


def _voxel_hash(path: Path) -> str:
    import SimpleITK as sitk

    from CACScoringLib.io.reading import read_mask

    image = read_mask(path)
    geometry = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    digest = hashlib.sha256(repr((image.GetPixelIDTypeAsString(), geometry)).encode())
    digest.update(sitk.GetArrayFromImage(image).tobytes())
    return digest.hexdigest()
