"""Geometry of a radiograph: views of a chest stand, and the rays in a CT's voxels.

World positions are LPS, mm. A radiograph is an array [row, column], row 0 at the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..core.errors import ProjectionError

VIEWS = {"PA": (0.0, False), "lateral": (90.0, False), "AP": (180.0, True)}
"""Angle of the detector, and True for a mirrored picture, by view; "lateral" is left lateral, with the patient's left
at the detector."""

SIDEWAYS_TOLERANCE = 1e-6
"""Steps of a ray across planes, in voxels, below which it runs along them."""

RAYS_AT_ONCE = 65536
"""Rays processed together, whose data fit the processor's cache."""


@dataclass(frozen=True)
class Geometry:
    """Chest stand: X-ray source, patient and flat detector.

    Attributes:
        angle_degrees: Angle of the detector about the patient's head–foot axis: 0 at the chest (PA), 45 left anterior
            oblique, 90 left lateral, 180 at the back. DICOM's Positioner Primary Angle (PS3.3 C.8.7.5).
        tilt_degrees: Tilt of the detector towards the head. DICOM's Positioner Secondary Angle.
        mirrored: False for a view from the detector to the source, which puts the patient's right on a PA film's left;
            True for a view from the source, which does so on an AP film.
        parallel: True for rays at right angles to the detector, without magnification; the distances do not matter.
        source_detector_mm: Distance from source to detector.
        source_isocentre_mm: Distance from source to isocentre.
        detector_mm: Width and height of the detector.
        pixels: Columns and rows of the detector.
        isocentre_mm: Isocentre in LPS; None for the CT's centre.
    """

    angle_degrees: float = 0.0
    tilt_degrees: float = 0.0
    mirrored: bool = False
    parallel: bool = False
    source_detector_mm: float = 1800.0
    source_isocentre_mm: float = 1600.0
    detector_mm: tuple[float, float] = (430.0, 430.0)
    pixels: tuple[int, int] = (1024, 1024)
    isocentre_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        numbers = (self.angle_degrees, self.tilt_degrees, self.source_detector_mm, self.source_isocentre_mm)
        if not all(map(math.isfinite, (*numbers, *self.detector_mm, *(self.isocentre_mm or ())))):
            raise ProjectionError(f"The geometry holds a value that is no finite number: {self}.")
        if not 0 < self.source_isocentre_mm <= self.source_detector_mm:
            isocentre_mm, detector_mm = self.source_isocentre_mm, self.source_detector_mm
            raise ProjectionError(
                f"From the source to isocentre and detector: {isocentre_mm:g} and {detector_mm:g} mm. Give them rising."
            )
        if min(self.detector_mm) <= 0 or min(self.pixels) < 1 or max(self.pixels) > 8192:
            raise ProjectionError(
                f"{self.pixels} pixels on {self.detector_mm} mm: give 1 to 8192 pixels, and a size above 0 mm."
            )

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance of neighbouring pixels on the detector.

        Returns:
            That of columns and that of rows, mm.
        """
        return self.detector_mm[0] / self.pixels[0], self.detector_mm[1] / self.pixels[1]

    @property
    def magnification(self) -> float:
        """Magnification at the isocentre."""
        return 1.0 if self.parallel else self.source_detector_mm / self.source_isocentre_mm

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors (LPS) of the view.

        Returns:
            From the source to the detector, towards the picture's right, and towards its bottom.
        """
        angle, tilt = math.radians(self.angle_degrees), math.radians(self.tilt_degrees)
        (sin_a, cos_a), (sin_b, cos_b) = ((math.sin(turn), math.cos(turn)) for turn in (angle, tilt))
        forwards = np.array([sin_a * cos_b, -cos_a * cos_b, sin_b])
        right = np.array([cos_a, sin_a, 0.0])
        down = np.cross(right, forwards)
        return forwards, -right if self.mirrored else right, down


@dataclass(frozen=True)
class Pose:
    """View in world coordinates (LPS, mm).

    Attributes:
        source: Source; for parallel rays their direction.
        corner: Centre of pixel [0, 0].
        column_step: Step from column to column.
        row_step: Step from row to row.
        parallel: True for parallel rays.
    """

    source: np.ndarray
    corner: np.ndarray
    column_step: np.ndarray
    row_step: np.ndarray
    parallel: bool


@dataclass(frozen=True)
class Rays:
    """Rays of a view through a CT's voxels, plane by plane across the CT's axis `main` (0 i, 1 j, 2 k).

    Ray [row, column] meets plane n at first + n · first_slope and second + n · second_slope, in voxels along the two
    other axes, the lower one first. Arrays are float32 [row, column].

    Attributes:
        main: Axis across which the planes lie.
        first: Place on plane 0 along the first other axis.
        first_slope: Change of `first` from plane to plane.
        second: Place on plane 0 along the second other axis.
        second_slope: Change of `second` from plane to plane.
        step_mm: Path from plane to plane.
    """

    main: int
    first: np.ndarray
    first_slope: np.ndarray
    second: np.ndarray
    second_slope: np.ndarray
    step_mm: np.ndarray


def view_named(name: str) -> Geometry:
    """Return the geometry of a view: "PA", "AP", "lateral" (left), or an angle in degrees as in `Geometry`.

    Raises ProjectionError.
    """
    views = {view.lower(): setting for view, setting in VIEWS.items()}
    try:
        angle, mirrored = views.get(name.lower()) or (float(name), False)
    except ValueError:
        raise ProjectionError(f"There is no view {name!r}. Give {', '.join(VIEWS)} or an angle in degrees.") from None
    return Geometry(angle_degrees=angle, mirrored=mirrored)


def centre_mm(image: sitk.Image) -> tuple[float, float, float]:
    """Find the centre of an image.

    Returns:
        Its position, LPS, mm.
    """
    return image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])


def in_lps_order(image: sitk.Image) -> sitk.Image:
    """Reorder the axes to LPS, which projection reads without a copy; an image in LPS order is returned itself."""
    order = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return image if order == "LPS" else sitk.DICOMOrient(image, "LPS")


def pose_of(geometry: Geometry, image: sitk.Image | None) -> Pose:
    """Return the pose of source and detector. image: CT around whose centre they are; None with an isocentre."""
    forwards, right, down = geometry.axes()
    centre = geometry.isocentre_mm
    if centre is None:
        assert image is not None
        centre = centre_mm(image)
    to_detector = 0.0 if geometry.parallel else geometry.source_detector_mm - geometry.source_isocentre_mm
    columns, rows = geometry.pixels
    column_step, row_step = right * geometry.pixel_mm[0], down * geometry.pixel_mm[1]
    corner = np.asarray(centre) + to_detector * forwards - (columns - 1) / 2 * column_step - (rows - 1) / 2 * row_step
    source = forwards if geometry.parallel else np.asarray(centre) - geometry.source_isocentre_mm * forwards
    return Pose(source, corner, column_step, row_step, geometry.parallel)


def index_from_world(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Transform from positions (LPS, mm) to continuous indices (i, j, k).

    Returns:
        (A, b) such that A @ position + b is the index.
    """
    matrix = np.linalg.inv(np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    return matrix, -matrix @ np.asarray(image.GetOrigin())


def rays_through(image: sitk.Image, geometry: Geometry) -> Rays:
    """Return the rays of a view through the complete CT, including parts beside the detector.

    Raises ProjectionError if the source lies inside the CT, or rays pass it sideways.
    """
    pose = pose_of(geometry, image)
    matrix, offset = index_from_world(image)
    columns, rows = geometry.pixels
    # Across this axis the central ray meets most planes.
    main = int(np.abs(matrix @ geometry.axes()[0]).argmax())
    first, second = (axis for axis in range(3) if axis != main)
    start = matrix @ pose.source + (0 if pose.parallel else offset)
    corner = matrix @ pose.corner + offset
    column_step, row_step = matrix @ pose.column_step, matrix @ pose.row_step

    def pixel(axis: int, down: np.ndarray, across: np.ndarray) -> np.ndarray:
        return corner[axis] + across * column_step[axis] + down * row_step[axis]

    def direction(axis: int, down: np.ndarray, across: np.ndarray) -> np.ndarray:
        return np.full((1, 1), start[axis]) if pose.parallel else pixel(axis, down, across) - start[axis]

    # Positions are linear in row and column, so extremes are in the corners.
    corners = direction(main, np.array([[0], [rows - 1]]), np.array([[0, columns - 1]]))
    _check(corners, start[main], image.GetSize()[main], pose.parallel)
    places, slopes = np.empty((2, rows, columns), np.float32), np.empty((2, rows, columns), np.float32)
    step = np.empty((rows, columns), np.float32)
    # Bands of rows limit the memory of double precision.
    band = max(1, RAYS_AT_ONCE // columns)
    for begin in range(0, rows, band):
        part = slice(begin, begin + band)
        pixels = np.arange(rows)[part, None], np.arange(columns)[None]
        along = direction(main, *pixels)
        squared = image.GetSpacing()[main] ** 2
        for n, axis in enumerate((first, second)):
            slope = direction(axis, *pixels) / along
            origin, plane = (pixel(a, *pixels) if pose.parallel else start[a] for a in (axis, main))
            places[n, part], slopes[n, part] = origin - plane * slope, slope
            squared = squared + (image.GetSpacing()[axis] * slope) ** 2
        step[part] = np.sqrt(squared)
    return Rays(main, places[0], slopes[0], places[1], slopes[1], step)


def _check(along: np.ndarray, start: float, planes: int, parallel: bool) -> None:
    """Raise ProjectionError for a source inside the CT or rays past it. along, start: rays and source across planes."""
    if np.sign(along.min()) != np.sign(along.max()) or np.abs(along).min() < SIDEWAYS_TOLERANCE:
        raise ProjectionError("Rays pass the CT sideways. Give a smaller detector or a longer source distance.")
    if not parallel and (start > -0.5 if along.min() > 0 else start < planes - 0.5):
        raise ProjectionError("The X-ray source lies inside the CT. Give a longer distance from it to the isocentre.")
