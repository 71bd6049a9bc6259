"""Identity of a scan, whatever its files are called and wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from CACScoringLib.core.ct import UnreadableError

_BLOCK = 2**20
_WITH_OTHER_FILES = (".mhd", ".nhdr")
"""Headers whose voxels are in another file, which they name."""


def content_hash(ct: Path, series: str | None = None) -> str:
    """SHA-256 of a scan's content: hexadecimal, 64 digits.

    Of an image file, of its bytes; of one whose voxels are in another file, of voxels and geometry; of a DICOM series,
    of its files' hashes in their order, so that names and folders of its files do not matter.
    Raises CTError when there is no such scan.
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
    """The files of a CT series below a folder, as `read_ct` takes them. Raises CTError when there is no one series."""
    from CACScoringLib.io.dicom import read_slices
    from CACScoringLib.io.series import choose_series

    return [slice_.path for slice_ in choose_series(read_slices(folder)[0], series)]


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    return digest.hexdigest()


def _voxel_hash(path: Path) -> str:
    import SimpleITK as sitk

    from CACScoringLib.io.reading import read_mask

    image = read_mask(path)
    geometry = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    digest = hashlib.sha256(repr((image.GetPixelIDTypeAsString(), geometry)).encode())
    digest.update(sitk.GetArrayFromImage(image).tobytes())
    return digest.hexdigest()
