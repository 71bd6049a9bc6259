"""Reading of chest radiographs: DICOM, pictures (PNG, JPEG, TIFF), and images of line integrals from `cac drr`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..core.acquisition import Acquisition
from ..core.errors import NotCTError, NotVolumeError, UnreadableError
from ..core.text import printable
from ..core.warning_codes import ScanWarning, run_check
from ..io.dicom import is_dicom
from ..io.files import check_is_file
from ..io.reading import IMAGE_ENDINGS, read_mask
from .dicom import check_pixel_size, read_dicom
from .view import LARGER_SIDE_MM, ChestRadiograph

if TYPE_CHECKING:
    from PIL import Image

PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

MAX_PIXELS = 2**28
"""Largest number of pixels; more means a broken header."""

MIN_PIXELS = 128
"""Least pixels of the smaller side; with fewer, plaques are smaller than a pixel."""

MIN_RADIOGRAPH_VALUE = -300.0
"""Values below this are from a CT."""


def read_radiograph(path: Path) -> ChestRadiograph:
    """Read one chest radiograph, with warnings about doubts.

    path: a DICOM file (CR, DX or digitised film), a grey PNG, JPEG, TIFF or BMP of 8 or 16 bit, or a NIfTI, NRRD or
    MetaImage file of one slice; bright for more attenuation. Raises CTError.
    """
    path = Path(path)
    if path.is_dir():
        raise UnreadableError(f"{path} is a folder. Give the file of one radiograph.")
    check_is_file(path)
    if not path.is_file():
        raise UnreadableError(f"{path} does not exist. Give a DICOM file, a PNG, JPEG or TIFF, or a NIfTI file.")
    try:
        if path.stat().st_size == 0:
            raise UnreadableError(f"{path.name} is empty. Export or copy the radiograph again.")
        with warnings.catch_warnings():  # warnings of pydicom and Pillow are checked here
            warnings.simplefilter("ignore")
            read = _read_image if path.name.lower().endswith(IMAGE_ENDINGS) else _read_picture
            radiograph = read_dicom(path) if is_dicom(path) else read(path)
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be opened ({error.strerror or error}).") from error
    return radiograph.with_warnings(*_warnings(radiograph, path.name))


def _read_picture(path: Path) -> ChestRadiograph:
    from PIL import Image, TiffImagePlugin, UnidentifiedImageError

    try:
        with Image.open(path, formats=PICTURE_FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise UnreadableError(f"{path.name} claims {file.width} × {file.height} pixels; its header is broken.")
            if (count := getattr(file, "n_frames", 1)) > 1:
                raise NotVolumeError(f"{path.name} holds {count} pictures. Give a file with one radiograph.")
            kind = file.format or "picture"
            is_inverted = False
            if isinstance(file, TiffImagePlugin.TiffImageFile):
                is_inverted = file.mode.startswith("I;16") and file.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
            picture = _grey(file, path)
    except UnidentifiedImageError as error:
        formats = "DICOM, PNG, JPEG, TIFF, BMP, NIfTI, NRRD or MHA"
        raise UnreadableError(f"{path.name} is in no known format. Give a radiograph as {formats}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = printable(str(error))
        raise UnreadableError(f"{path.name} cannot be read ({reason}). Copy or export it again.") from error
    findings = []
    if kind == "JPEG":
        message = "JPEG compression is lossy; faint detail may be missing. Export the radiograph as DICOM or PNG."
        findings = [ScanWarning("lossy-compression", message)]
    return ChestRadiograph(-picture if is_inverted else picture, None, None, Acquisition(kind), tuple(findings), path)


_TIFF_PHOTOMETRIC = 262
"""Tag that is 0 if low values are bright. Pillow inverts such pictures of 8 bit."""


def _grey(file: Image.Image, path: Path) -> np.ndarray:
    """Return grey values float32 [row, column]. Raises NotVolumeError for colour."""
    if file.mode in ("P", "PA"):
        file = file.convert("RGBA" if "transparency" in file.info else "RGB")
    elif file.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        file = file.convert("L" if file.mode == "1" else "RGB")
    values = np.asarray(file, np.float32)
    if values.ndim == 3:
        colours = values[..., :3] if file.mode in ("RGB", "RGBA", "RGBX") else values[..., :1]
        # Compression rounds each colour separately.
        if np.abs(colours - colours[..., :1]).max() > 2:
            raise NotVolumeError(f"{path.name} is in colour; a radiograph is greyscale. Export it without overlays.")
        values = colours.mean(-1)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UnreadableError(f"{path.name} does not hold a greyscale image. Export it again.")
    return values


def _read_image(path: Path) -> ChestRadiograph:
    image = read_mask(path)
    size = image.GetSize()
    long_axes = [axis for axis, count in enumerate(size) if count > 1]
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise NotVolumeError(f"{path.name} holds several values per pixel (colour or vectors). Give a grey radiograph.")
    if len(long_axes) != 2:
        kind = "a volume" if len(long_axes) > 2 else "not an image"
        raise NotVolumeError(f"{path.name} is {kind} of {image.GetSize()}. Make a radiograph of a CT with cac drr.")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise NotVolumeError(f"{path.name} holds complex numbers. Give a grey radiograph.")
    values = sitk.GetArrayFromImage(image).squeeze().astype(np.float32)
    if not np.isfinite(values).all():
        raise UnreadableError(f"{path.name} holds values that are not numbers (NaN or infinite). Export it again.")
    if values.min() < MIN_RADIOGRAPH_VALUE:
        raise NotCTError(f"{path.name} has values down to {values.min():g}, as a slice of a CT. Score the whole CT.")
    if any(key.startswith("Segment0_") for key in image.GetMetaDataKeys()):
        raise NotVolumeError(f"{path.name} is a segmentation (label map). Give the radiograph itself.")
    spacing = image.GetSpacing()
    pixel_mm, findings = check_pixel_size((spacing[long_axes[0]], spacing[long_axes[1]]), values.shape)
    return ChestRadiograph(values, pixel_mm, None, Acquisition("image"), findings, path)


def _warnings(radiograph: ChestRadiograph, name: str) -> list[ScanWarning]:
    """Return warnings about the picture. Raises CTError for an empty or tiny one."""
    picture = radiograph.picture
    low, high = float(picture.min()), float(picture.max())
    if low == high:
        raise UnreadableError(f"{name} is an empty image: all pixels are {low:g}. Export it again.")
    if min(picture.shape) < MIN_PIXELS:
        size = f"{picture.shape[1]} × {picture.shape[0]}"
        raise UnreadableError(f"{name} has {size} pixels, too few to show calcium. Export it in full size.")
    width_mm, height_mm = np.multiply(radiograph.pixel_mm or np.nan, picture.shape[::-1])
    warnings = run_check("small-field", min(width_mm, height_mm), width_mm=width_mm, height_mm=height_mm)
    if radiograph.pixel_mm is None:
        side_cm = LARGER_SIDE_MM / 10
        message = f"The pixel size is not known; the longer side is assumed to measure {side_cm:g} cm."
        warnings = [ScanWarning("pixel-size-unknown", message)]
    if radiograph.view is None:
        message = "The file does not state its view; the view given is assumed, and so is that bone is bright."
        warnings.append(ScanWarning("view-unknown", message))
    elif radiograph.view == "AP":
        message = "On this AP radiograph the heart is larger than on those that the models are trained on (PA)."
        warnings.append(ScanWarning("view-ap", message))
    return warnings + run_check("clipped-bright", float((picture == high).mean()))
