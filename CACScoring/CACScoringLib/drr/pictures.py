"""Radiographs of a CT for panels: pictures at the detector's position, and previews that follow a slider."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.grid import Grid
from ..core.progress import Progress
from .geometry import Geometry, centre_mm, in_lps_order, pose_of
from .projection import body_only, calcium_path, cropped, path_length_mm, radiograph
from .settings import DrrSettings


@dataclass(frozen=True)
class PlacedRadiograph:
    """Radiograph as images of one slice on the detector (LPS, mm), columns to the picture's right, rows downwards.

    Attributes:
        picture: Negative logarithm of the signal, or absorbed part of it for a linear film, float32.
        window: Values of `picture` shown black and white, see `Film`.
        calcium: ∫μ ds of calcium alone, float32; None without a calcium map.
        heart: Shadow of the heart, uint8; None without a mask.
    """

    picture: sitk.Image
    window: tuple[float, float]
    calcium: sitk.Image | None = None
    heart: sitk.Image | None = None


def make_radiograph(
    settings: DrrSettings,
    image: sitk.Image,
    calcium_map: sitk.Image | None = None,
    heart: sitk.Image | None = None,
    progress: Progress | None = None,
) -> PlacedRadiograph:
    """Make a radiograph of a CT.

    Args:
        settings: Settings of the radiograph.
        image: The CT, HU.
        calcium_map: HU of calcium on any grid; None for no picture of it.
        heart: Mask on any grid; None for no picture of it.
        progress: Progress of the steps.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    progress = progress or Progress()
    progress.begin(["finding the body", "projecting", "projecting calcium and heart"])
    oriented = in_lps_order(image)
    geometry = settings.geometry(centre_mm(oriented))
    with progress.step("finding the body"):
        body = oriented if settings.table else body_only(oriented)
    with progress.step("projecting"):
        drr = radiograph(body, geometry, settings.spectrum(), settings.film())
    calcium_picture = heart_picture = None
    with progress.step("projecting calcium and heart"):
        if calcium_map is not None:
            calcium_picture = placed(calcium_path(in_lps_order(calcium_map), geometry), geometry)
        if heart is not None:
            shadow = path_length_mm(in_lps_order(heart), geometry) > 0
            heart_picture = placed(shadow.astype(np.uint8), geometry)
    return PlacedRadiograph(placed(drr.dark, geometry), drr.window, calcium_picture, heart_picture)


def placed(values: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Return a picture [row, column] as an image of one slice on the detector. geometry: with an isocentre."""
    pose = pose_of(geometry, sitk.Image([1, 1, 1], sitk.sitkUInt8))
    _, right, down = geometry.axes()
    origin, direction = pose.corner.tolist(), np.stack([right, down, np.cross(right, down)], 1).ravel().tolist()
    grid = Grid((*geometry.pixels, 1), (*geometry.pixel_mm, 1.0), tuple(origin), tuple(direction))
    return grid.image(values[None])


FINE_MM = 3.0
"""Least size in mm of the reduced CT's voxels."""

PREVIEW_PIXELS = 192
"""Rows and columns of the preview, which a processor draws several times a second."""

CALCIUM_FULL = 0.04
"""∫μ ds of calcium in full colour: that of 2 mm of water, or of 5 mm of calcium with 400 HU."""

_YELLOW, _RED, _OUTLINE = (255.0, 230.0, 60.0), (220.0, 30.0, 0.0), (79, 195, 247)


@dataclass(frozen=True)
class ReducedScan:
    """CT, calcium map and heart on a coarse grid (LPS order), and the isocentre of the original CT, LPS mm."""

    image: sitk.Image
    isocentre_mm: tuple[float, float, float]
    calcium: sitk.Image | None = None
    heart: sitk.Image | None = None


def reduced(
    image: sitk.Image, calcium_map: sitk.Image | None = None, heart: sitk.Image | None = None, to_mm: float = FINE_MM
) -> ReducedScan:
    """Reduce a scan by means to voxels of about to_mm, which preserves sums along rays.

    The images may have any axis order.

    Args:
        image: HU.
        calcium_map: HU of calcium.
        heart: Mask.
        to_mm: Size of the reduced voxels, mm.
    """

    def shrink(volume: sitk.Image, kind: int) -> sitk.Image:
        factors = [
            max(1, min(round(to_mm / mm), n)) for mm, n in zip(volume.GetSpacing(), volume.GetSize(), strict=True)
        ]
        return in_lps_order(sitk.BinShrink(sitk.Cast(volume, kind) if volume.GetPixelID() != kind else volume, factors))

    return ReducedScan(
        shrink(image, image.GetPixelID()),
        centre_mm(image),
        None if calcium_map is None else cropped(shrink(calcium_map, sitk.sitkFloat32)),
        None if heart is None else cropped(shrink(heart, sitk.sitkFloat32)),
    )


def preview(
    scan: ReducedScan, settings: DrrSettings, pixels: int, calcium_opacity: float = 0.0, heart: bool = False
) -> np.ndarray:
    """Make a colour radiograph of a reduced scan, uint8 [row, column, RGB].

    Args:
        scan: The CT.
        settings: Settings of the radiograph.
        pixels: Rows and columns of the picture.
        calcium_opacity: Opacity of the calcium map, 0 for none.
        heart: True to outline the heart.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    geometry = settings.geometry(scan.isocentre_mm, pixels)
    drr = radiograph(scan.image, geometry, settings.spectrum(), settings.film(pixels))
    colours = np.repeat(drr.grey[..., None] * 255, 3, axis=2)
    if calcium_opacity > 0 and scan.calcium is not None:
        share = np.clip(calcium_path(scan.calcium, geometry) / CALCIUM_FULL, 0, 1)[..., None]
        colour = np.array(_YELLOW) * (1 - share) + np.array(_RED) * share
        cover = calcium_opacity * np.sqrt(share)
        colours = colours * (1 - cover) + colour * cover
    if heart and scan.heart is not None:
        inside = path_length_mm(scan.heart, geometry) > FINE_MM
        colours[inside & ~ndimage.binary_erosion(inside)] = _OUTLINE
    return np.rint(colours).astype(np.uint8)


@dataclass(frozen=True)
class Stand:
    """Positions of the chest stand in LPS, mm. corners: detector's top left, top right, bottom right, bottom left
    [4, 3]."""

    source: np.ndarray
    isocentre: np.ndarray
    corners: np.ndarray

    def beams(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the lines from the source to the corners, and last to the detector's centre."""
        return [(self.source, end) for end in (*self.corners, self.corners.mean(0))]


def stand_of(geometry: Geometry) -> Stand:
    """Return the positions of a geometry with an isocentre."""
    pose = pose_of(geometry, sitk.Image([1, 1, 1], sitk.sitkUInt8))
    columns, rows = geometry.pixels
    ends = ((-0.5, -0.5), (columns - 0.5, -0.5), (columns - 0.5, rows - 0.5), (-0.5, rows - 0.5))
    corners = [pose.corner + across * pose.column_step + down * pose.row_step for across, down in ends]
    return Stand(pose.source, np.array(geometry.isocentre_mm), np.array(corners))
