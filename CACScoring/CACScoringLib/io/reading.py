"""Reading a CT: a folder of DICOM slices, or one NIfTI, NRRD or MetaImage file, as a `CTScan`."""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from ..core.ct import (
    Acquisition,
    CTScan,
    MaskError,
    NotCTError,
    NotHounsfieldError,
    NotVolumeError,
    ScanWarning,
    SeriesChoiceError,
    SliceGeometryError,
    UnreadableError,
    scan_from_image,
    with_warnings,
)
from ..core.labels import NOT_CORONARY, label_called
from ..core.options import changed_settings
from ..core.text import abbreviated_list
from .dicom import DicomSlice, acquisition_of, is_dicom, read_slice
from .image_files import FORMATS, ORTHONORMAL_TOLERANCE, SHEARED, check_spacing, quiet, read_header, read_image
from .series import (
    check_one_study,
    choose_series,
    has_position,
    header_warnings,
    is_ct_image,
    series_number,
    without_strays,
)
from .stack import image_from_series

IMAGE_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


def read_ct(path: Path, series: str | None = None) -> CTScan:
    """Read a CT from a DICOM folder or an image file.

    Localizers are no candidates, nor are images without a position (dose reports) beside series that have one. Images
    of the series itself that are not of its stack are left out with a warning where that is clear (`without_strays`).

    Args:
        path: A folder (searched with its subfolders for DICOM files), an Enhanced (multi-frame) CT, or a NIfTI, NRRD
            or MetaImage file.
        series: Number or UID of the DICOM series, needed where the folder holds several CT series; of several series
            with one number, or cardiac phases of one series, "3.1", "3.2", … in the order in which the error lists
            them, that of UIDs and phases.

    Raises:
        UnreadableError: It is missing or cannot be read.
        NotCTError: The modality is not CT.
        SeriesChoiceError: The series, or its cardiac phase, has to be chosen.
        MixedSeriesError: The series holds images of different patients or studies.
        NotVolumeError: It is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.
        SliceGeometryError: Slices are missing, repeated, uneven or sheared.
    """
    path = Path(path)
    with quiet():
        if path.is_dir():
            return _read_folder(path, series)
        if not path.is_file():
            raise UnreadableError(f"{path} does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
        if series is not None:
            raise SeriesChoiceError(f"{path.name} is one file and has no series to choose from. Leave out the series.")
        return _read_file(path)


def stem(path: Path) -> str:
    """The name of a file or folder without the ending of an image format."""
    name = path.name
    return next((name[: -len(ending)] for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), name)


def read_acquisition(path: Path) -> Acquisition:
    """Read how a scan was made from a JSON file with fields of `Acquisition`, for scans whose own file lost it.

    Raises:
        UnreadableError: It is no JSON file.
        OutputError: It holds a field that is unknown or of another type.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be read as JSON ({error}). Give a JSON file.") from error
    return changed_settings(Acquisition("DICOM"), facts, str(path))


def read_mask(path: Path) -> sitk.Image:
    """Read a mask or label map from a NIfTI, NRRD or MetaImage file. Raises CTError as `read_ct` does."""
    return read_image(path)


def read_lesion_labels(path: Path) -> sitk.Image:
    """Read a reader's lesions as a map of `Site` labels.

    Args:
        path: A label map whose values are `Site` labels, or a segmentation saved by 3D Slicer (.seg.nrrd), whose
            values mean nothing: its segments are told by their names (LM, LAD, LCX, RCA, other, unassigned, aortic
            valve and root, mitral annulus, thoracic aorta, other non-coronary; not-coronary is left out). Either may be
            empty: there is no coronary calcium.

    Raises:
        MaskError: If a segment is no such site or segments overlap.
        CTError: As `read_ct` does.
    """
    image = read_mask(path)
    if "Segment0_ID" not in image.GetMetaDataKeys():
        return image
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise MaskError(f"Segments of {path.name} overlap. Remove the overlap, so that no voxel counts twice.")
    labels = {}
    for key in image.GetMetaDataKeys():
        if match := re.fullmatch(r"(Segment\d+)_ID", key):
            name = image.GetMetaData(f"{match[1]}_Name")
            value = float(image.GetMetaData(f"{match[1]}_LabelValue"))
            label = label_called(name)
            labels[value] = 0.0 if label == NOT_CORONARY else float(label)
    return sitk.ChangeLabel(sitk.Cast(image, sitk.sitkUInt8), labels)


def _read_file(path: Path) -> CTScan:
    try:
        if path.stat().st_size == 0:
            raise UnreadableError(f"{path.name} is empty. Export or copy the CT again.")
        if is_dicom(path):
            return _read_dicom_file(path)
        file_format, image = FORMATS[read_header(path).GetImageIO()], read_image(path)
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error
    if any(key.startswith(("Segment0_", "Segmentation_")) for key in image.GetMetaDataKeys()):
        raise NotHounsfieldError(f"{path.name} is a segmentation (label map), not a CT. Give the CT itself.")
    axes = np.reshape(image.GetDirection(), (image.GetDimension(), -1))
    if np.abs(axes.T @ axes - np.eye(len(axes))).max() > ORTHONORMAL_TOLERANCE:
        raise SliceGeometryError(f"The axes of {path.name} are not at right angles: {SHEARED}")
    scan = scan_from_image(image, Acquisition(file_format), path)
    check_spacing(scan.image.GetSpacing())
    return with_warnings(scan, *_lost_geometry(image, file_format))


def _lost_geometry(image: sitk.Image, file_format: str) -> tuple[ScanWarning, ...]:
    # A file without geometry reads as voxels of 1 mm at the origin along the axes, which no scanner produces.
    default_direction = np.allclose(np.abs(image.GetDirection()), np.eye(image.GetDimension()).ravel())
    if np.allclose(image.GetSpacing(), 1, atol=1e-4) and not any(image.GetOrigin()) and default_direction:
        message = (
            "The file gives voxels of exactly 1×1×1 mm at the origin: its geometry was probably lost, in which case "
            "areas, volumes and scores are wrong. Compare it with the DICOM series."
        )
        return (ScanWarning("geometry-unknown", message),)
    codes = [image.GetMetaData(key) for key in ("qform_code", "sform_code") if image.HasMetaDataKey(key)]
    if file_format == "NIfTI" and codes == ["0", "0"]:
        message = (
            "The NIfTI file does not state its orientation (qform and sform are 0); the third axis is taken to run "
            "from feet to head. Check the images."
        )
        return (ScanWarning("geometry-unknown", message),)
    return ()


def _read_dicom_file(path: Path) -> CTScan:
    slice_ = read_slice(path)
    if slice_ is not None and slice_.text("Modality") != "CT":
        raise NotCTError(f"{path.name} is of modality {slice_.text('Modality')}; a CT is needed.")
    if slice_ is None or not slice_.is_multi_frame:
        raise NotVolumeError(f"{path.name} is one file of a DICOM series. Give the folder that holds all its slices.")
    return _read_series([slice_], path)


def _read_folder(folder: Path, series: str | None) -> CTScan:
    slices, broken = _all_slices(folder)
    chosen = choose_series(slices, series)
    uid = chosen[0].text("SeriesInstanceUID")
    of_series = [s for s in slices if s.text("SeriesInstanceUID") == uid and s.text("Modality") == "CT"]
    check_one_study(of_series)
    own = chosen + [s for s in of_series if s.is_localizer]
    if not broken:
        return _read_series(own, folder)
    message = (
        f"{len(broken)} broken DICOM files in the folder were not read: {abbreviated_list(p.name for p in broken)}."
    )
    try:
        return with_warnings(_read_series(own, folder), ScanWarning("unread-files", message))
    except SliceGeometryError as error:
        raise SliceGeometryError(f"{error} {message} {next(iter(broken.values()))}") from error


def _read_series(slices: list[DicomSlice], source: Path) -> CTScan:
    from .multi_frame import single_frames  # loads pydicom

    multi_frame = any(slice_.is_multi_frame for slice_ in slices)
    with TemporaryDirectory(prefix="cac-frames-") if multi_frame else nullcontext("") as frames:
        chosen, left_out = without_strays(single_frames(slices, Path(frames)))
        image, warnings = image_from_series(chosen)
    scan = scan_from_image(image, acquisition_of(chosen), source)
    files = tuple(dict.fromkeys(slice_.file for slice_ in chosen))
    return with_warnings(replace(scan, dicom_files=files), *warnings, *header_warnings(chosen), *left_out)


def series_slices(folder: Path, series: str | None) -> tuple[list[DicomSlice], list[Path]]:
    """Find the slices of a CT series below a folder.

    Args:
        folder: The folder.
        series: As in `read_ct`.

    Returns:
        The slices, in any order, and the broken DICOM files there.

    Raises:
        UnreadableError: It is missing or cannot be read.
        NotCTError: The modality is not CT.
        NotVolumeError: It is not one three-dimensional grey-level volume.
        SeriesChoiceError: The series has to be chosen.
    """
    slices, broken = _all_slices(folder)
    return choose_series(slices, series), list(broken)


def _all_slices(folder: Path) -> tuple[list[DicomSlice], dict[Path, UnreadableError]]:
    """Every slice below a folder, and what is wrong with the files that are broken."""
    slices, broken = [], {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        try:
            slice_ = read_slice(path)
        except UnreadableError as error:
            broken[path] = error
            continue
        if slice_ is not None:
            slices.append(slice_)
    if not slices:
        found = f"{len(broken)} DICOM files there are broken" if broken else f"{len(paths)} other files"
        raise UnreadableError(f"{folder} holds no readable DICOM file ({found}). Give the folder of a CT series.")
    return slices, broken


@dataclass(frozen=True)
class Series:
    """A CT series of a folder. uid, number: None where the header lacks it."""

    uid: str | None
    number: str | None


def find_series(folder: Path) -> tuple[list[Series], int]:
    """Find the CT series whose files lie in this very folder.

    Localizers, other modalities, and images without a position beside series that have one are passed over.

    Returns:
        The series, and how many of the DICOM files in the folder are broken.
    """
    numbers: dict[str | None, str | None] = {}
    placed: set[str | None] = set()
    broken = 0
    with quiet():
        for name in sorted(entry.name for entry in os.scandir(folder)):  # a folder may hold a million files
            path = folder / name
            try:
                slice_ = read_slice(path) if path.is_file() else None
            except (UnreadableError, OSError):
                broken += 1
                continue
            if slice_ is not None and is_ct_image(slice_):
                uid = slice_.text("SeriesInstanceUID")
                numbers[uid] = numbers.get(uid) or series_number([slice_])
                if has_position(slice_):
                    placed.add(uid)
    return [Series(uid, number) for uid, number in numbers.items() if uid in placed or not placed], broken
