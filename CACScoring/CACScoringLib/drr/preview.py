"""Radiographs small enough to follow a slider, and where source, detector and beam stand in space.

A CT is reduced once; each picture is then made of the reduced one, at a size that keeps up with whoever turns it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .geometry import Geometry, centre_mm, in_lps_order, pose_of
from .job import DrrSettings
from .projection import calcium_path, path_length_mm, radiograph

FINE_MM = 3.0
"""Voxels of the reduced CT, at least; a coarse one has twice this."""

MOVING, RESTING = (2, 112), (1, 192)
"""Pictures while a slider moves, and once it rests: by which the fine grid is reduced further; rows and columns."""

CALCIUM_FULL = 0.04
"""∫μ ds of calcium that is shown in full colour: 2 mm of water on top, or 5 mm of calcium of 400 HU."""

_YELLOW, _RED, _OUTLINE = (255.0, 230.0, 60.0), (220.0, 30.0, 0.0), (79, 195, 247)


@dataclass(frozen=True)
class ReducedScan:
    """A CT, its calcium map and its heart on a coarse grid (LPS order), and the isocentre of the whole CT, LPS mm."""

    image: sitk.Image
    isocentre_mm: tuple[float, float, float]
    calcium: sitk.Image | None = None
    heart: sitk.Image | None = None

    def coarser(self, factor: int) -> ReducedScan:
        """With voxels so many times as large."""
        if factor == 1:
            return self
        return replace(self, **{name: _shrunk(getattr(self, name), factor) for name in ("image", "calcium", "heart")})


def reduced(
    image: sitk.Image, calcium_map: sitk.Image | None = None, heart: sitk.Image | None = None, to_mm: float = FINE_MM
) -> ReducedScan:
    """A scan on a grid of voxels of about to_mm, each the mean of those it holds: sums along rays stay what they were.

    The images may have any axis order.

    Args:
        image: HU.
        calcium_map: HU of calcium.
        heart: Mask.
        to_mm: Size of the voxels to come, mm.
    """

    def small(each: sitk.Image | None, kind: int) -> sitk.Image | None:
        if each is None:
            return None
        factors = [max(1, min(round(to_mm / mm), n)) for mm, n in zip(each.GetSpacing(), each.GetSize(), strict=True)]
        return in_lps_order(sitk.BinShrink(sitk.Cast(each, kind) if each.GetPixelID() != kind else each, factors))

    return ReducedScan(
        small(image, image.GetPixelID()),
        centre_mm(image),
        _cut(small(calcium_map, sitk.sitkFloat32)),
        _cut(small(heart, sitk.sitkFloat32)),
    )


def preview(
    scan: ReducedScan,
    settings: DrrSettings,
    pixels: int,
    calcium_opacity: float = 0.0,
    heart: bool = False,
    backend: str | None = None,
) -> np.ndarray:
    """The radiograph of a reduced scan in colours, uint8 [row, column, RGB].

    Args:
        scan: The CT.
        settings: How it is done.
        pixels: Rows and columns of the picture.
        calcium_opacity: 0 leaves the calcium map out.
        heart: Outline it.
        backend: As of `projection`.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    geometry = settings.geometry(scan.isocentre_mm, pixels)
    made = radiograph(scan.image, geometry, settings.spectrum(), settings.film(pixels), backend=backend)
    shown = np.repeat(made.grey[..., None] * 255, 3, axis=2)
    if calcium_opacity > 0 and scan.calcium is not None:
        share = np.clip(calcium_path(scan.calcium, geometry, backend=backend) / CALCIUM_FULL, 0, 1)[..., None]
        colour = np.array(_YELLOW) * (1 - share) + np.array(_RED) * share
        cover = calcium_opacity * np.sqrt(share)
        shown = shown * (1 - cover) + colour * cover
    if heart and scan.heart is not None:
        inside = path_length_mm(scan.heart, geometry, backend=backend) > FINE_MM
        shown[inside & ~ndimage.binary_erosion(inside)] = _OUTLINE
    return np.rint(shown).astype(np.uint8)


def fast_backend() -> str:
    """The fastest way of projection for which nothing has to be compiled first, which takes seconds."""
    return "numba" if f"{__package__}.kernels" in sys.modules else "scipy"


@dataclass(frozen=True)
class Stand:
    """Where things stand, LPS, mm. corners: of the detector, [4, 3]: the picture's top left, top right, bottom right,
    bottom left."""

    source: np.ndarray
    isocentre: np.ndarray
    corners: np.ndarray

    def beams(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """From the source to the corners, and last to the detector's centre."""
        return [(self.source, end) for end in (*self.corners, self.corners.mean(0))]


def stand_of(geometry: Geometry) -> Stand:
    """geometry: with its isocentre."""
    pose = pose_of(geometry, sitk.Image([1, 1, 1], sitk.sitkUInt8))
    columns, rows = geometry.pixels
    ends = ((-0.5, -0.5), (columns - 0.5, -0.5), (columns - 0.5, rows - 0.5), (-0.5, rows - 0.5))
    corners = [pose.corner + across * pose.column_step + down * pose.row_step for across, down in ends]
    return Stand(pose.source, np.array(geometry.isocentre_mm), np.array(corners))


def _cut(image: sitk.Image | None) -> sitk.Image | None:
    """What is not 0 with a rim of one voxel; all of it where all is 0."""
    if image is None:
        return None
    boxes = ndimage.find_objects((sitk.GetArrayViewFromImage(image) != 0).astype(np.uint8))
    if not boxes:
        return image
    # Arrays are [k, j, i].
    return image[tuple(slice(max(0, part.start - 1), part.stop + 1) for part in boxes[0][::-1])]


def _shrunk(image: sitk.Image | None, factor: int) -> sitk.Image | None:
    return None if image is None else sitk.BinShrink(image, [min(factor, n) for n in image.GetSize()])
