"""Contents of a folder, archive or file: its CT series and image files, and which of them would be scored."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import CTError, UnreadableError
from ..core.text import printable
from .dicom import find_slices, is_dicom, read_multi_frame
from .files import is_archive, unpacked
from .image_files import quiet, read_header
from .reading import image_files
from .series import choose_candidates, series_facts
from .series_rule import SeriesFacts


@dataclass(frozen=True)
class ImageFacts:
    """Grid of an image file.

    Attributes:
        name: Path below the folder.
        size: Number of voxels (i, j, k).
        spacing_mm: Distance of the voxels (i, j, k).
    """

    name: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class Contents:
    """Contents of a path that may hold a CT.

    Attributes:
        series: CT series and cardiac phases.
        images: Image files that may be a CT.
        localizers: Number of localizer images.
        other_images: Number of DICOM objects by modality other than CT.
        unread_files: Number of files that cannot be read.
        scored: Label of the series, or name of the image file, that would be scored; None if the user has to choose.
        reason: Reason for the choice, or for its absence.
    """

    series: tuple[SeriesFacts, ...]
    images: tuple[ImageFacts, ...]
    localizers: int
    other_images: dict[str, int]
    unread_files: int
    scored: str | None
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return the contents as plain values for JSON."""
        return {"schema": "cac-info/1"} | asdict(self)


def contents_of(path: Path) -> Contents:
    """List what a DICOM folder, a ZIP archive of one, or an image file holds. Raises UnreadableError."""
    with quiet():
        if is_archive(path):
            with unpacked(path) as folder:
                return _contents(folder)
        return _contents(path)


def _contents(path: Path) -> Contents:
    if not path.exists():
        raise UnreadableError(f"{path} does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
    if path.is_dir():
        slices, broken = find_slices(path)
        files = image_files(path)
    else:
        slices, broken, files = ([read_multi_frame(path)], {}, []) if is_dicom(path) else ([], {}, [path])
    series = tuple(series_facts(slices))
    images: list[ImageFacts] = []
    for file in files:
        try:
            images.append(_image_facts(file, path))
        except UnreadableError as error:
            if file == path:
                raise
            broken[file] = error
    ct_slices = [slice_ for slice_ in slices if slice_.text("Modality") == "CT"]
    modalities = Counter(slice_.text("Modality") or "unknown" for slice_ in slices)
    del modalities["CT"]
    scored, reason = None, "There are image files and CT series, or several image files: give the path of one file."
    if images and not series and len(images) == 1:
        scored, reason = images[0].name, "It is the only image file."
    elif not images:
        try:
            (candidate,), warnings = choose_candidates(slices, None)
        except CTError as error:
            reason = str(error).splitlines()[0]
        else:
            scored, reason = candidate.label, warnings[0].message if warnings else "It is the only CT series."
    return Contents(
        series,
        tuple(images),
        sum(slice_.is_localizer for slice_ in ct_slices),
        dict(sorted(modalities.items())),
        len(broken),
        scored,
        reason,
    )


def _image_facts(file: Path, root: Path) -> ImageFacts:
    reader = read_header(file)
    name = file.name if file == root else file.relative_to(root).as_posix()
    return ImageFacts(printable(name), reader.GetSize(), reader.GetSpacing())
