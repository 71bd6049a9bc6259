"""A CT in Hounsfield units with its acquisition, the type that flows through the library.

Whatever its file format, a scan becomes one `CTScan`: axial slices in LPS order, HU, air where the scanner
padded. `scan_from_image` is the only way to make one, so that every later step may rely on it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from .acquisition import Acquisition
from .errors import MaskError, NotHounsfieldError, NotVolumeError, OrientationError
from .slice_checks import even_step
from .text import printable
from .voxels import (
    image_from_array,
    require_filled_slices,
    slice_warnings,
    spine_axis,
    value_warnings,
    voxels_of,
    whole_labels,
)
from .warning_codes import ScanWarning as ScanWarning
from .warning_codes import run_check

if TYPE_CHECKING:
    from .grid import Grid

AIR_HU = -1024
"""Padding and everything else below air becomes this value."""

HIGHEST_AIR_HU, MAX_CORNERS = -900, 0.4
"""Highest value in the corners of all slices that may be air, not padding; and largest share of padding in a slice,
which is 0.21 around a circle that touches its sides."""

WHOLE_TOLERANCE_HU = 0.02
"""Largest distance from whole numbers of values that were whole before they were converted."""

MAX_WHOLE_STEP_HU = 1.2
"""Largest step between values in a file of which whole HU are restored."""

DISPLAY_HU = 600.0
"""Highest value of pictures clipped to a display window; the Agatston score weighs all from 400 HU on alike."""

GRID_TOLERANCE_MM = 0.01
"""Largest distance between the corners of two grids that count as the same."""


@dataclass(frozen=True)
class CTScan:
    """CT in HU with axial slices.

    Attributes:
        image: int16 (float32 if the source holds fractions of HU), axes towards patient left, posterior and superior;
            array axes [k, j, i] therefore run superior, posterior, left.
        acquisition: How the scan was made.
        warnings: Doubts found while reading.
        source: File or folder; None for an image in memory.
        dicom_files: Files of the DICOM series, in any order; those of an archive lie below its path.
    """

    image: sitk.Image
    acquisition: Acquisition
    warnings: tuple[ScanWarning, ...] = ()
    source: Path | None = None
    dicom_files: tuple[Path, ...] = ()

    @classmethod
    def from_array(
        cls,
        array: np.ndarray,
        affine: np.ndarray | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        acquisition: Acquisition | None = None,
    ) -> CTScan:
        """Make a scan of an array of HU. Raises CTError.

        Args:
            array: Three-dimensional, HU, any axis order that `affine` describes.
            affine: 4 × 4 matrix from array indices to mm towards right, anterior and superior, as nibabel has it.
            spacing_mm: Distances along the array's axes, in place of an affine; the axes then run superior, posterior
                and left, as those of `hu`.
            acquisition: How the scan was made, such as `Acquisition("memory", kvp=120)`; None where unknown.
        """
        image = image_from_array(array, affine, spacing_mm)
        scan = scan_from_image(image, acquisition or Acquisition("memory"))
        if (axis := spine_axis(scan.hu, scan.image.GetSpacing()[::-1])) is not None:
            raise OrientationError(
                f"The spine runs from {('', 'front to back', 'left to right')[axis]} by the array's axes: they are in "
                "another order than the affine or spacing states. NiBabel's affine belongs to an array [i, j, k], "
                "spacing_mm to one [k, j, i]; transpose the array."
            )
        return scan

    def __repr__(self) -> str:
        size, spacing = (" × ".join(f"{n:.4g}" for n in v) for v in (self.image.GetSize(), self.image.GetSpacing()))
        return f"CTScan({self.name or 'in memory'}, {size} voxels of {spacing} mm)"

    @property
    def name(self) -> str | None:
        """Name of the file or folder, fit for pages and terminals; None for an image in memory."""
        return printable(self.source.name) if self.source else None

    @cached_property
    def hu(self) -> np.ndarray:
        """Read-only array of the voxels, [k, j, i], HU; it stays valid whatever happens to the scan and its image."""
        return voxels_of(self.image)

    @cached_property
    def voxels_sha256(self) -> str:
        """SHA-256 of the voxels in whole HU, int16 in C order of [k, j, i]."""
        whole_values = self.hu if self.hu.dtype.kind == "i" else np.rint(self.hu)
        return hashlib.sha256(np.ascontiguousarray(whole_values, np.dtype("<i2")).data).hexdigest()

    @cached_property
    def grid(self) -> Grid:
        """Grid of the voxels."""
        from .grid import Grid  # needs SciPy, which Slicer lacks while it starts

        return Grid.of(self.image)

    @cached_property
    def coarse(self) -> sitk.Image:
        """The scan on voxels of 3 mm (`grid.on_working_grid`), where anatomy is looked for."""
        from .scan_grid import on_working_grid

        return on_working_grid(self.image)

    @cached_property
    def coarse_hu(self) -> np.ndarray:
        """Read-only array of the coarse voxels, [k, j, i], HU."""
        return voxels_of(self.coarse)

    @cached_property
    def coarse_grid(self) -> Grid:
        """Grid of the coarse voxels."""
        from .grid import Grid

        return Grid.of(self.coarse)

    def stating(self, **facts: Any) -> CTScan:
        """Return the scan with other facts about its image, by the names of its fields. Arrays are shared."""
        scan = replace(self, **facts)
        names = {entry.name for entry in fields(self)}
        scan.__dict__.update({name: value for name, value in vars(self).items() if name not in names})
        return scan

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone, without what follows from them, for copies and other processes."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def slice_spacing_mm(self) -> float:
        """Distance between neighbouring slice centres, mm; not the slice thickness."""
        return self.image.GetSpacing()[2]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel, mm³."""
        return math.prod(self.image.GetSpacing())


def scan_from_image(
    image: sitk.Image, acquisition: Acquisition, source: Path | None = None, is_known: bool = False
) -> CTScan:
    """Check an image and turn it into a `CTScan`.

    Args:
        image: Three-dimensional, scalar, HU, any axis order and direction. Axes are permuted and flipped to the nearest
            axial order, never resampled.
        acquisition: How the scan was made.
        source: The file or folder it came from; None when made in memory.
        is_known: True for a scan whose slices were checked when it was scored.

    Raises:
        NotVolumeError: It is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.

    Examples:
        >>> image = cac.read_ct("ct.nrrd").image  # or any SimpleITK image in HU
        >>> cac.scan_from_image(image, cac.Acquisition("memory", kvp=120)).acquisition.kvp
        120
    """
    image = _without_single_axes(image)
    _check_volume(image)
    _check_hounsfield(image)
    warnings = value_warnings(image)
    image = _with_air_in_corners(_clamp_to_hu(oriented(whole_hu(image))))
    if not is_known:
        require_filled_slices(image)
        warnings += slice_warnings(image)
    warnings += run_check("oblique", obliquity_degrees(image))
    return CTScan(image, acquisition, tuple(warnings), source)


def with_warnings(scan: CTScan, *warnings: ScanWarning) -> CTScan:
    """Return the scan with further warnings."""
    return scan.stating(warnings=scan.warnings + warnings)


def mask_on_scan_grid(
    mask: sitk.Image, scan: CTScan, name: str, may_be_empty: bool = False
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Bring a mask or label map onto the scan's own grid.

    Args:
        mask: Integer labels, any axis order, any grid that overlaps the scan.
        scan: The CT.
        name: What to call it in messages.
        may_be_empty: Accept a mask without labelled voxels, also the single voxel that 3D Slicer saves for an empty
            segmentation; a mask whose labels all lie outside the scan is still refused.

    Returns:
        uint8 labels [k, j, i] on the scan's grid, and a warning when labels had to be resampled (nearest neighbour).

    Raises:
        MaskError: If it is no label map, or nothing of it lies inside the scan.
    """
    empty = may_be_empty and not voxels_of(mask).any()
    if empty and max(mask.GetSize()) == 1:
        return np.zeros(scan.hu.shape, np.uint8), ()
    try:
        mask = _without_single_axes(mask)
        _check_volume(mask)
    except NotVolumeError as error:
        raise MaskError(f"The {name} cannot be used. {error} Export it as one 3-D label map.") from error
    mask = whole_labels(mask)
    values = voxels_of(mask)
    if not _is_integral(values) or values.min() < 0 or values.max() > 255:
        message = (
            f"The {name} holds values from {values.min():g} to {values.max():g}; a label map holds whole numbers "
            "from 0 to 255. Was the CT given in its place?"
        )
        raise MaskError(message)
    mask = sitk.DICOMOrient(sitk.Cast(mask, sitk.sitkUInt8), "LPS")
    warnings: tuple[ScanWarning, ...] = ()
    if not same_grid(mask, scan.image):
        labels = np.unique(voxels_of(mask))
        if empty:
            # Only the grid of a mask without labels shows that it belongs to this scan.
            inside = sitk.Resample(mask + 1, scan.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            empty = bool(voxels_of(inside).any())
        mask = sitk.Resample(mask, scan.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        lost = np.setdiff1d(labels, np.unique(voxels_of(mask)))
        message = f"The {name} is on a different grid from the scan and was resampled to it (nearest neighbour)."
        if lost.any():
            message += f" Labels {', '.join(map(str, lost[lost > 0]))} were lost: too small, or outside the scan."
        warnings = (ScanWarning("mask-resampled", message),)
    on_scan = sitk.GetArrayFromImage(mask)
    if not empty and not on_scan.any():
        message = (
            f"The {name} has no labelled voxel inside the scan. Check that both come from the same patient "
            "and that the mask was saved with its geometry."
        )
        raise MaskError(message)
    return on_scan, warnings


def same_grid(first: sitk.Image, second: sitk.Image) -> bool:
    """True if two images have voxels at the same places (within GRID_TOLERANCE_MM at the corners)."""
    if first.GetSize() != second.GetSize():
        return False
    i, j, k = (n - 1 for n in first.GetSize())
    corners = [(0, 0, 0), (i, 0, 0), (0, j, 0), (0, 0, k)]
    return all(
        math.dist(first.TransformIndexToPhysicalPoint(c), second.TransformIndexToPhysicalPoint(c)) <= GRID_TOLERANCE_MM
        for c in corners
    )


def obliquity_degrees(image: sitk.Image) -> float:
    """Return the angle between the image's third axis and the body's head–foot axis, degrees."""
    return math.degrees(math.acos(min(1.0, abs(image.GetDirection()[8]))))


def _without_single_axes(image: sitk.Image) -> sitk.Image:
    """Return an image without a fourth axis of one time step, and with numbers for vectors of one component."""
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    is_vector = "vector" in image.GetPixelIDTypeAsString()
    if is_vector and image.GetNumberOfComponentsPerPixel() == 1:
        return sitk.VectorIndexSelectionCast(image, 0)
    return image


def _check_volume(image: sitk.Image) -> None:
    if (count := image.GetNumberOfComponentsPerPixel()) != 1:
        raise NotVolumeError(f"The image has {count} values per voxel (colour or vector); one grey value is needed.")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise NotVolumeError("The image holds complex numbers; one grey value per voxel is needed.")
    size = image.GetSize()
    if image.GetDimension() == 4:
        raise NotVolumeError(f"The image is 4-D with {size[3]} time steps. Split it and score one time step.")
    if image.GetDimension() != 3 or min(size) < 2:
        raise NotVolumeError(f"The image is 2-D (size {'×'.join(map(str, size))}); a volume of slices is needed.")


def _check_hounsfield(image: sitk.Image) -> None:
    values = voxels_of(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise NotHounsfieldError(f"{count} voxels are not numbers (NaN or infinite). Export the CT again.")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise NotHounsfieldError(f"All voxels have the same value ({low:g}); this is an empty image.")
    if low >= 0:
        # Air and fat are below 0 HU in every chest, so an image without negative values is not in HU.
        if high <= 255 and _is_integral(values):
            is_label_map = np.unique(values).size <= 128
            kind = "a label map" if is_label_map else "an 8-bit picture made from a CT"
            raise NotHounsfieldError(
                f"The values run from {low:g} to {high:g}: this looks like {kind}, not like HU. Give the CT itself."
            )
        raise NotHounsfieldError(
            f"The values run from {low:g} to {high:g}, none below 0: these are stored or rescaled values, not HU "
            "(air is -1000 HU). Convert from DICOM again with its rescale slope and intercept applied."
        )
    if low > -200 and high < 200 and high - low <= 255:
        raise NotHounsfieldError(
            f"The values run from {low:g} to {high:g}: this looks like a rescaled picture, not HU. Give the CT itself."
        )
    if high < DISPLAY_HU and (at_maximum := float((values == high).mean())) > 1e-3:
        raise NotHounsfieldError(
            f"{at_maximum:.1%} of the voxels have the highest value, {high:g}: the image was clipped to a display "
            "window, so denser calcium is lost. Give the CT as the scanner made it."
        )


def oriented(image: sitk.Image) -> sitk.Image:
    """Return the image with axes to the left, posterior and superior; not copied if it has them already."""
    if sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()) == "LPS":
        return image
    return sitk.DICOMOrient(image, "LPS")


def whole_hu(image: sitk.Image, step_hu: float = 0.0) -> sitk.Image:
    """Return an image with whole numbers if its values were whole before they were converted.

    They are whole within half a step of their file then, or all shifted alike, which alone shows in steps of 1 HU.

    Args:
        image: The image, HU.
        step_hu: Step of the values in the file; 0 where unknown, so that it is measured.
    """
    values = voxels_of(image)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        return image
    step_hu = step_hu or even_step(values)
    if step_hu > MAX_WHOLE_STEP_HU:
        return image
    rounded_values = np.rint(values)
    errors = values - rounded_values
    is_shifted = np.ptp(errors) <= 2 * WHOLE_TOLERANCE_HU
    if not is_shifted and (step_hu == 1 or np.abs(errors).max() > 0.501 * step_hu):
        return image
    rounded = sitk.GetImageFromArray(rounded_values)
    rounded.CopyInformation(image)
    return rounded


def padded_corners(hu: np.ndarray) -> np.ndarray:
    """Find the padding around a round field of view: one value in the corners of all slices; bool [j, i]."""
    value = hu[0, 0, 0]
    if not (hu[:, :: hu.shape[1] - 1, :: hu.shape[2] - 1] == value).all():
        return np.zeros(hu.shape[1:], bool)
    is_value = sitk.GetImageFromArray(reduce(np.logical_and, (plane == value for plane in hu)).astype(np.uint8))
    columns, rows = is_value.GetSize()
    corners = [(i, j) for i in (0, columns - 1) for j in (0, rows - 1)]
    padded = sitk.GetArrayFromImage(sitk.ConnectedThreshold(is_value, corners, 1, 1)).astype(bool)
    return padded & (padded.mean() < MAX_CORNERS)


def _with_air_in_corners(image: sitk.Image) -> sitk.Image:
    corners = padded_corners(voxels_of(image))
    if not corners.any() or voxels_of(image)[0, 0, 0] <= HIGHEST_AIR_HU:
        return image
    hu = sitk.GetArrayFromImage(image)
    hu[:, corners] = AIR_HU
    filled = sitk.GetImageFromArray(hu)
    filled.CopyInformation(image)
    return filled


def _clamp_to_hu(image: sitk.Image) -> sitk.Image:
    if image.GetPixelID() == sitk.sitkInt16 and voxels_of(image).min() >= AIR_HU:
        return image
    # The upper bound is int16's: reconstructions overshoot next to metal, and scores saturate far below it.
    image = sitk.Clamp(image, image.GetPixelID(), AIR_HU, 32767)
    is_integral = _is_integral(voxels_of(image))
    return sitk.Cast(image, sitk.sitkInt16 if is_integral else sitk.sitkFloat32)


def _is_integral(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
