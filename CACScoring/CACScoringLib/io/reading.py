"""Reading of a CT from DICOM slices or an image file, of masks, and of segments saved by 3D Slicer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..core.acquisition import Acquisition
from ..core.ct import CTScan, ScanWarning, scan_from_image, with_warnings
from ..core.errors import CTError, MaskError, SeriesChoiceError, UnreadableError
from ..core.files import LAST_FILE, read_json
from ..core.grid import Grid
from ..core.labels import NOT_CORONARY, label_called
from ..core.options import changed_settings
from ..core.text import SERIES, printable
from ..core.voxels import voxels_of, whole_labels
from .dicom import find_slices, is_dicom, read_multi_frame, read_slices
from .files import SPLIT, files_below, incompleteness, is_archive, is_split, unpacked
from .image_files import quiet_readers, read_ct_image, read_header, read_image

IMAGE_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")

MAX_LISTED = 20
"""Largest number of image files that an error lists."""


def read_ct(path: Path | str, series: str | int | None = None) -> CTScan:
    """Read a CT from a DICOM folder or an image file.

    Localizers are no candidates, nor are images without a position (dose reports) beside series that have one. Images
    of the series itself that are not of its stack are left out with a warning where that is clear (`without_strays`).

    Args:
        path: A folder (searched with its subfolders for DICOM files, or one image file), a ZIP or TAR archive of one,
            an Enhanced (multi-frame) CT, or a NIfTI-1, NRRD or MetaImage file.
        series: Number or UID of the DICOM series; of several series with one number, or cardiac phases or acquisitions
            of one series, "3.1", "3.2", … in the order in which the error lists them; "all" joins series that make one
            stack. None chooses by the rule of `series_rule`, with a warning that names the choice.

    Raises:
        UnreadableError: It is missing or cannot be read.
        NotCTError: The modality is not CT.
        SeriesChoiceError: The series, its cardiac phase, or one of several image files has to be chosen, because the
            rule prefers none.
        CTError: The series holds images of different patients or studies.
        NotVolumeError: It is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.

    Examples:
        >>> ct = cac.read_ct("ct.nrrd")
        >>> ct.hu.shape  # slices from the feet, rows to posterior, columns to the left
        (54, 240, 240)
        >>> ct.slice_spacing_mm
        3.0
    """
    path, choice = Path(path), None if series is None else str(series)
    with quiet_readers():
        if not is_archive(path):
            return _read(path, choice)
        with unpacked(path) as folder:
            scan = _read(folder, choice)
            files = tuple(path / file.relative_to(folder) for file in scan.dicom_files)
            if is_split(path):
                message = f"{path.name} is one part of a download, and may not hold all slices. {SPLIT}"
                scan = with_warnings(scan, ScanWarning("images-missing", message))
            return replace(scan, source=path, dicom_files=files)


def _read(path: Path, series: str | None) -> CTScan:
    """Read a CT from a folder or an image file; see `read_ct`."""
    if path.is_dir():
        return _read_folder(path, series)
    _check_file(path)
    if is_dicom(path):
        from .series import read_series  # loads what DICOM needs

        return read_series(path, [read_multi_frame(path)], series)
    if series is not None:
        raise SeriesChoiceError(f"{path.name} is one file and has no series to choose from. Leave out the series.")
    if reason := incompleteness(path):
        raise UnreadableError(reason)
    image, acquisition, warnings = read_ct_image(path)
    return with_warnings(scan_from_image(image, acquisition, path), *warnings)


def _read_folder(folder: Path, series: str | None) -> CTScan:
    from .series import list_series, read_series, unread_warnings  # loads what DICOM needs

    images = image_files(folder) if series is None else []
    slices, broken = find_slices(folder) if images else read_slices(folder)
    table = list_series(slices) if images else ""
    if images and (table or len(images) > 1):
        lines = (f"  {printable(image.relative_to(folder).as_posix())}" for image in images[:MAX_LISTED])
        choice = f", or choose a series by its number or UID ({SERIES})" if table else ""
        listed = "\n".join((*filter(None, [table]), *lines))
        raise SeriesChoiceError(
            f"The folder holds {'CT series and ' if table else ''}{len(images)} image files. Score all with cac cohort "
            f"FOLDER --output DIR, or give the path of one file{choice}:\n{listed}"
        )
    if images:
        return replace(with_warnings(_read(images[0], None), *unread_warnings([], broken)), source=folder)
    return read_series(folder, slices, series, broken)


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder that may be a CT: no segmentations, 8-bit masks or results."""
    files = files_below(folder)[0]
    results = {file.parent for file in files if file.name == LAST_FILE}
    candidates = (file for file in files if file.name.lower().endswith(IMAGE_ENDINGS) and file.parent not in results)
    candidates = (file for file in candidates if not file.name.lower().endswith(".seg.nrrd") and not is_dicom(file))
    return [file for file in candidates if not _is_mask(file)]


def _is_mask(file: Path) -> bool:
    with suppress(CTError):
        return read_header(file).GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8)
    return False


def stem(path: Path) -> str:
    """Return the name of a file or folder without the ending of an image format."""
    name = path.name
    return next((name[: -len(ending)] for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), name)


def with_facts(acquisition: Acquisition, facts: Path | dict[str, Any]) -> Acquisition:
    """Return the acquisition of a scan changed by facts, a JSON file or its content: fields of `Acquisition`.

    Raises:
        UnreadableError: The file is not JSON.
        OutputError: There is a field that is unknown or of another type.
    """
    if isinstance(facts, dict):
        return changed_settings(acquisition, facts, "scan.acquisition")
    try:
        content = read_json(facts)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{facts} cannot be read as JSON ({error}). Give a JSON file.") from error
    return changed_settings(replace(acquisition, file_format="DICOM"), content, str(facts))


def read_mask(path: Path | str) -> sitk.Image:
    """Read a mask or label map from a NIfTI, NRRD or MetaImage file. Raises CTError as `read_ct` does.

    Examples:
        >>> cac.read_mask("labels.nrrd").GetPixelIDTypeAsString()
        '8-bit unsigned integer'
    """
    return whole_labels(read_image(Path(path)))


def read_lesion_labels(path: Path | str) -> sitk.Image:
    """Read a reader's lesions as a map of `Site` labels.

    Args:
        path: A label map whose values are `Site` labels, or a segmentation saved by 3D Slicer (.seg.nrrd), whose
            values mean nothing: its segments are identified by their names (`core.labels.site_called`: LM, LAD or left
            anterior descending, LCX, RCA, aortic valve …; not-coronary is left out). Either may be empty: there is no
            coronary calcium.

    Raises:
        MaskError: If a segment is no such site or segments of two sites share voxels.
        CTError: As `read_ct` does.

    Examples:
        >>> ct, labels = cac.read_ct("ct.nrrd"), cac.read_lesion_labels("labels.nrrd")
        >>> reviewed = cac.score(ct, lesions=labels, reader="A. Reader", threshold_only=True)
        >>> reviewed.methods["threshold"].status
        'reviewed'
    """
    path = Path(path)
    image = read_mask(path)
    if not segment_names(image):
        return image
    return sitk.ChangeLabel(label_map(image, label_called, path.name), {NOT_CORONARY: 0})


def _check_file(path: Path) -> None:
    """Raise UnreadableError if a path cannot be read."""
    if not path.exists():
        placeholder = path.with_name(f".{path.name}.icloud")
        advice = incompleteness(placeholder) if placeholder.exists() else ""
        raise UnreadableError(f"{path} does not exist. {advice or 'Give a DICOM folder or a NIfTI, NRRD or MHA file.'}")
    if path.stat().st_size == 0:
        raise UnreadableError(f"{path.name} is empty. Export or copy the CT again.")


def segment_names(image: sitk.Image) -> list[str]:
    """Return the names of the segments in the file's order; empty for other images."""
    return [image.GetMetaData(f"{key[:-3]}_Name") for key in image.GetMetaDataKeys() if _SEGMENT.fullmatch(key)]


def label_map(image: sitk.Image, label_of: Callable[[str], int], file_name: str) -> sitk.Image:
    """Combine the segments of all layers in one label map on the segmentation's grid.

    A file keeps its layers after an overlap was undone, so several layers are no error.

    Args:
        image: A segmentation of 3D Slicer.
        label_of: Function that returns the uint8 label of a segment's name, 0 to leave it out.
        file_name: Name for messages.

    Raises:
        MaskError: A voxel belongs to segments of two labels.
    """
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    segments: list[tuple[str, int, sitk.Image, float]] = []
    overlaps: dict[tuple[str, str], int] = {}
    for name, layer, value in _segments(image):
        if not (label := label_of(name)):
            continue
        mask = voxels_of(layer) == value
        if (is_doubled := mask & (labels != 0) & (labels != label)).any():
            for earlier, earlier_label, earlier_layer, earlier_value in segments:
                shared = is_doubled & (voxels_of(earlier_layer) == earlier_value)
                if earlier_label != label and shared.any():
                    overlaps[earlier, name] = int(shared.sum())
        labels[mask] = label
        segments.append((name, label, layer, value))
    if overlaps:
        raise MaskError(overlap_message(file_name, overlaps))
    return Grid.of(image).image(labels)


def overlap_message(file_name: str, overlaps: dict[tuple[str, str], int]) -> str:
    """Return the message about voxels of two segments. overlaps: Number of voxels by the segments' names."""
    pairs = "; ".join(
        f"{printable(first)} and {printable(second)} share {count} voxel{'s' if count > 1 else ''}"
        for (first, second), count in overlaps.items()
    )
    return f"Segments of {file_name} overlap: {pairs}. Remove the overlap, so that no voxel counts twice."


def _segments(image: sitk.Image) -> Iterator[tuple[str, sitk.Image, float]]:
    """Yield the name, the layer and the value in that layer of each segment."""
    has_layers = image.GetNumberOfComponentsPerPixel() > 1
    layers: dict[int, sitk.Image] = {}
    for key in image.GetMetaDataKeys():
        if not (match := _SEGMENT.fullmatch(key)):
            continue
        name, value = (image.GetMetaData(f"{match[1]}_{part}") for part in ("Name", "LabelValue"))
        number = int(image.GetMetaData(f"{match[1]}_Layer")) if has_layers else 0
        if number not in layers:
            layers[number] = sitk.VectorIndexSelectionCast(image, number) if has_layers else image
        yield name, layers[number], float(value)


_SEGMENT = re.compile(r"(Segment\d+)_ID")
