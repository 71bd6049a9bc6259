"""Reading and writing of NIfTI, NRRD and MetaImage files; damaged voxels are refused."""

from __future__ import annotations

import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.acquisition import Acquisition
from ..core.ct import ScanWarning, whole_hu
from ..core.errors import NotHounsfieldError, SliceGeometryError, UnreadableError
from ..core.text import printable
from .files import check_is_file, incompleteness, path_for_itk
from .voxel_checks import (
    MAX_VOXELS,
    NIFTI_HEADER_BYTES,
    check_header,
    check_lengths,
    check_nifti_geometry,
    checked_image,
    is_gzip,
    nifti_bytes,
    nifti_content,
)

# Others that ITK reads (VTK, TIFF, pictures) lose HU or geometry, or hide that a file is truncated.
FORMATS = {"NiftiImageIO": "NIfTI", "NrrdImageIO": "NRRD", "MetaImageIO": "MetaImage"}
"""Name of a format by ITK's reader (`ImageFileReader.GetImageIO`)."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 10.0
"""Range of the voxel spacing of a chest CT on any axis, mm."""

ORTHONORMAL_TOLERANCE = 0.01
"""Largest deviation of the axes from perpendicular unit vectors; cosines rounded to two decimals pass."""

_PAIR = re.compile(r"\.(hdr|img)(\.gz)?$", re.IGNORECASE)
"""Names of the two files of an Analyze or NIfTI pair."""

_NIFTI_2 = tuple((540).to_bytes(4, order) for order in ("little", "big"))
"""First bytes of a NIfTI-2 file: the size of its header (nifti2.h)."""

SHEARED = (
    "the gantry was tilted, or the volume deformed. Resample it to a straight volume (in 3D Slicer: DICOM settings, "
    "acquisition geometry regularization) and score that."
)


def read_image(path: Path) -> sitk.Image:
    """Read an image file and check its voxels.

    Raises:
        UnreadableError: If it is missing, in another format, truncated or damaged.
        NotHounsfieldError: If a NIfTI file holds NaN or infinity.
        SliceGeometryError: If its axes are not at right angles, or the geometry of a NIfTI file contradicts itself.
    """
    path = Path(path)
    reader = read_header(path)
    _check_geometry(path, reader)
    return _read_voxels(path, reader)


def read_ct_image(path: Path) -> tuple[sitk.Image, Acquisition, tuple[ScanWarning, ...]]:
    """Read a CT from an image file.

    Returns:
        The image as stored, its acquisition (only the file's format), and warnings.

    Raises:
        UnreadableError: As `read_image` does.
        NotHounsfieldError: It is a segmentation, or holds NaN or infinity.
        SliceGeometryError: As `read_image` does, or a spacing is outside a chest CT's range.
    """
    reader = read_ct_header(path)
    image = _read_voxels(path, reader)
    acquisition = Acquisition(FORMATS[reader.GetImageIO()])
    return whole_hu(image, abs(_number(image, "scl_slope"))), acquisition, _geometry_warnings(image)


def _geometry_warnings(image: sitk.Image) -> tuple[ScanWarning, ...]:
    if _has_no_geometry(image):
        message = (
            "The file gives voxels of exactly 1×1×1 mm at the origin: its geometry was probably lost, in which case "
            "areas, volumes and scores are wrong. Compare it with the DICOM series."
        )
        return (ScanWarning("geometry-unknown", message),)
    if _has_no_orientation(image):
        message = (
            "The NIfTI file does not state its orientation (qform and sform are 0); the third axis is taken to run "
            "from feet to head. Check the images."
        )
        return (ScanWarning("geometry-unknown", message),)
    return ()


def read_ct_header(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header of a CT. Raises CTError as `read_ct_image` does, before any voxel."""
    reader = read_header(path)
    if any(key.startswith(("Segment0_", "Segmentation_")) for key in reader.GetMetaDataKeys()):
        raise NotHounsfieldError(f"{path.name} is a segmentation (label map), not a CT. Give the CT itself.")
    axes = np.reshape(reader.GetDirection(), (reader.GetDimension(), -1))
    if np.abs(axes.T @ axes - np.eye(len(axes))).max() > ORTHONORMAL_TOLERANCE:
        raise SliceGeometryError(f"The axes of {path.name} are not at right angles: {SHEARED}")
    check_spacing(reader.GetSpacing()[:3])
    _check_geometry(path, reader)
    return reader


def _check_geometry(path: Path, reader: sitk.ImageFileReader) -> None:
    if reader.GetImageIO() == "NiftiImageIO":
        with _translate_itk_errors(path):
            check_nifti_geometry(path, reader)


def check_ct_file(path: Path) -> None:
    """Check the header of a CT, and that the file holds the voxels that it states. Raises CTError as `read_ct_image`.

    It takes far less time than reading the voxels.
    """
    reader = read_ct_header(path)
    with _translate_itk_errors(path):
        check_lengths(path, reader)


def _has_no_geometry(image: sitk.Image) -> bool:
    """True for voxels of 1 mm at the origin along the axes, which no scanner produces: a file without geometry."""
    has_default_direction = np.allclose(np.abs(image.GetDirection()), np.eye(image.GetDimension()).ravel())
    return np.allclose(image.GetSpacing(), 1, atol=1e-4) and not any(image.GetOrigin()) and has_default_direction


def _has_no_orientation(image: sitk.Image) -> bool:
    codes = ("qform_code", "sform_code")  # of NIfTI alone
    return all(image.HasMetaDataKey(key) and image.GetMetaData(key) == "0" for key in codes)


def read_header(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read a file's header: size, spacing, metadata. Raises CTError as `read_image` does."""
    reader = sitk.ImageFileReader()
    with _translate_itk_errors(path):
        check_is_file(path)
        if not path.is_file():
            raise UnreadableError(f"{path} does not exist. Check its name.")
        if reason := incompleteness(path):
            raise UnreadableError(reason)
        if _PAIR.search(path.name):
            raise UnreadableError(
                f"{path.name} is one file of a pair (.hdr and .img). {_conversion(path)} A pair in Analyze format does "
                "not state left and right reliably: convert its DICOM series instead."
            )
        check_header(path)
        with path_for_itk(path) as place:
            image_io = reader.GetImageIOFromFileName(str(place))
            if image_io in FORMATS:
                reader.SetImageIO(image_io)
                reader.SetFileName(str(place))
                reader.ReadImageInformation()
        if image_io not in FORMATS:
            if path.suffix.lower() != ".gz" or is_gzip(path):
                nifti_bytes(path, MAX_VOXELS)  # raises if damage hides the format from ITK
                with nifti_content(path) as content:
                    if content.read(len(_NIFTI_2[0])) in _NIFTI_2:
                        raise UnreadableError(f"{path.name} is a NIfTI-2 file. {_conversion(path)}")
            kind = f"is a {image_io.removesuffix('ImageIO')} file" if image_io else "is in no known image format"
            raise UnreadableError(f"{path.name} {kind}. Give a DICOM folder or a NIfTI, NRRD or MHA file.")
        if math.prod(reader.GetSize()) > MAX_VOXELS:
            size = "×".join(map(str, reader.GetSize()))
            raise UnreadableError(f"{path.name} claims {size} voxels; its header is broken. Export the CT again.")
    return reader


def _conversion(path: Path) -> str:
    """Return the sentence that names the command which converts a file to NIfTI-1."""
    command = f"nib-convert --image-type Nifti1Image {path.name} {path.name.split('.')[0]}-1.nii.gz"
    return f"Convert it with nibabel: pip install nibabel, then {command}."


def write_image(image: sitk.Image, path: Path) -> None:
    """Write an image as .nii.gz.

    Raises OSError, also after a partial write, as on a full disk, which ITK does not report.
    """
    try:
        with path_for_itk(path) as place:
            sitk.WriteImage(image, str(place), True)
    except RuntimeError as error:
        raise OSError(errno.EIO, _itk_reason(error), str(path)) from error
    voxels = math.prod(image.GetSize()) * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4))
        length = file.read()  # low bytes of the content's length, at the end of a gzip file (RFC 1952)
    if length != (NIFTI_HEADER_BYTES + voxels).to_bytes(8, "little")[:4]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Raise SliceGeometryError if a spacing along i, j or k is outside a chest CT's range."""
    for axis, spacing in zip("ijk", spacing_mm, strict=False):
        if not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:
            raise SliceGeometryError(
                f"The voxel spacing along axis {axis} is {spacing:g} mm; a chest CT has {MIN_SPACING_MM:g} to "
                f"{MAX_SPACING_MM:g} mm. The geometry was lost or changed: export the CT again."
            )


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Suppress console warnings of ITK and pydicom about faults that are reported as CTError or ScanWarning."""
    has_display = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(has_display)


@contextmanager
def _translate_itk_errors(path: Path) -> Iterator[None]:
    """Turn errors of ITK and the system into a CTError."""
    try:
        with quiet_readers():
            yield
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror}). Check its permissions.") from error
    except (RuntimeError, MemoryError, ValueError) as error:
        if "orthonormal" in str(error):
            raise SliceGeometryError(f"The axes of {path.name} are not at right angles: {SHEARED}") from error
        raise UnreadableError(
            f"{path.name} cannot be read. Check that it is complete, or export it again. ({_itk_reason(error)})"
        ) from error


def _itk_reason(error: BaseException) -> str:
    reason = re.split(r"ITK ERROR: |itk::ERROR: ", str(error))[-1] or "out of memory"
    return printable(re.sub(r"^\w+\(0x\w+\): ", "", reason))


def _read_voxels(path: Path, reader: sitk.ImageFileReader) -> sitk.Image:
    """Read the image of a `read_header` reader. Raises CTError if voxels are damaged or missing."""
    with _translate_itk_errors(path), path_for_itk(path) as place:
        reader.SetFileName(str(place))
        image = checked_image(path, reader) or reader.Execute()
        slope, intercept = (_number(image, f"scl_{name}") for name in ("slope", "inter"))
        # A slope of 0 means that neither is applied (nifti1.h); ITK adds the intercept.
        return image - intercept if slope == 0 and intercept else image


def _number(image: sitk.Image, key: str) -> float:
    """Return a number of an image's metadata; 0 if it is missing or not finite."""
    value = float(image.GetMetaData(key)) if image.HasMetaDataKey(key) else 0.0
    return value if math.isfinite(value) else 0.0
