"""Other looks of a scan: field of view, pixels, slices, kernel, noise, air, a rolled patient.

Looks are limited to the scan's information: slices get thicker, never thinner, and a sharper kernel raises the noise
with the edges. Each change is passed to the `Scanner` too, so that inserted calcium is blurred like the scan around
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

from CACScoringLib.core.grid import Grid

from ..scanner.scanner import Kernel, Scanner

FIELD_OF_VIEW_MM = (160.0, 500.0)
PIXEL_MM = (0.3, 1.4)
MATRICES = (512, 512, 512, 400, 320, 256)
SLICE_MM = (0.6, 5.0)
OVERLAP = (0.5, 1.0)
"""Slice spacing as a share of the thickness."""
MIN_COARSER = 1.2
"""Least ratio of slice thicknesses at which slices are averaged; below it the scan's slices stay."""
NOISE_HU = (8.0, 70.0)
CLIPPED_AIR_HU = (-1000.0, -1024.0)
ROLL_DEGREES, SHIFT_MM = 6.0, 8.0
SOFTENED_MM = (0.3, 1.0)
BOOST, BOOST_FREQUENCY_PER_MM = (0.3, 1.2), (0.30, 0.45)
DEDICATED_MM = 260.0
"""Field of view in mm below which only the heart's slices are kept, with DEDICATED_MARGIN_MM, as in calcium scans."""
DEDICATED_MARGIN_MM = (5.0, 25.0)
DEDICATED_SHARE = 0.5


@dataclass(frozen=True)
class Look:
    """Changes of a scan, recorded in `truth.json`.

    Attributes:
        roll_degrees: Roll of the patient about the table's axis.
        pivot_mm: Point x, y on the axis of the roll.
        centre_mm: Centre x, y of the field of view.
        field_of_view_mm: Width of the field of view.
        matrix: Pixels along the field of view.
        first_slice_mm: z of the first slice.
        slices: Number of slices.
        slice_spacing_mm: Distance of slices.
        averaged_mm: Width over which slices are averaged; 0 for the scan's slices.
        softened_mm: σ of an additional blur in the slice.
        boost: Edge enhancement, as in `Kernel`.
        boost_frequency_per_mm: Frequency of the edge enhancement, as in `Kernel`.
        noise_hu: SD of the added noise.
        air_hu: Lowest HU.
    """

    roll_degrees: float
    pivot_mm: tuple[float, float]
    centre_mm: tuple[float, float]
    field_of_view_mm: float
    matrix: int
    first_slice_mm: float
    slices: int
    slice_spacing_mm: float
    averaged_mm: float
    softened_mm: float
    boost: float
    boost_frequency_per_mm: float
    noise_hu: float
    air_hu: float

    def to_look(self, lps_mm: np.ndarray) -> np.ndarray:
        """Map points [n, 3] of the scan to this look."""
        return np.column_stack([(lps_mm[:, :2] - self.pivot_mm) @ self._turn().T + self.pivot_mm, lps_mm[:, 2]])

    def to_scan(self, lps_mm: np.ndarray) -> np.ndarray:
        """Map points [n, 3] of this look to the scan."""
        return np.column_stack([(lps_mm[:, :2] - self.pivot_mm) @ self._turn() + self.pivot_mm, lps_mm[:, 2]])

    def _turn(self) -> np.ndarray:
        angle = math.radians(self.roll_degrees)
        return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def grid(self) -> Grid:
        pixel = self.field_of_view_mm / self.matrix
        corner = [c - (self.matrix - 1) / 2 * pixel for c in self.centre_mm]
        size = (self.matrix, self.matrix, self.slices)
        return Grid(size, (pixel, pixel, self.slice_spacing_mm), (*corner, self.first_slice_mm))

    def scanner(self, source: Scanner) -> Scanner:
        """Return the scanner that blurs calcium as this look does. source: the scan's scanner."""
        sigma = math.hypot(source.kernel.sigma_mm, self.softened_mm)
        kernel = Kernel(source.kernel.name, sigma, self.boost, self.boost_frequency_per_mm)
        thickness, profile = source.slice_thickness_mm, source.profile_sigma_mm
        if self.averaged_mm:
            # The convolution of two boxes is about the wider box with the narrower one's slopes.
            narrow, thickness = sorted((thickness, self.averaged_mm))
            profile = math.sqrt(profile**2 + narrow**2 / 12)
        return replace(
            source,
            kernel=kernel,
            slice_thickness_mm=thickness,
            profile_sigma_mm=profile,
            slice_spacing_mm=self.slice_spacing_mm,
            field_of_view_mm=self.field_of_view_mm,
            matrix=self.matrix,
        )

    def apply(self, volume: np.ndarray, grid: Grid, outside: float) -> np.ndarray:
        """Return a scan's HU [k, j, i] in this look without added noise, float32. outside: HU beyond the scan."""
        filtered = (self._filter(part, grid.spacing_mm[0]) for part in self._averaged_slices(volume, grid))
        return self._resample(filtered, grid, 3, outside)

    def apply_to_mask(self, mask: np.ndarray, grid: Grid) -> np.ndarray:
        return self._resample(self._averaged_slices(mask, grid), grid, 1, 0.0) >= 0.5

    def _averaged_slices(self, volume: np.ndarray, grid: Grid) -> Iterator[np.ndarray]:
        """Yield the scan's averaged slices [j, i]."""
        source_z, spacing = grid.axes_mm()[2], grid.spacing_mm[2]
        for z in self.grid().axes_mm()[2]:
            if not self.averaged_mm:
                yield volume[round((z - source_z[0]) / spacing)].astype(np.float32)
                continue
            reach = np.minimum(source_z + spacing / 2, z + self.averaged_mm / 2)
            share = np.maximum(0.0, reach - np.maximum(source_z - spacing / 2, z - self.averaged_mm / 2))
            within = np.flatnonzero(share)
            yield np.tensordot((share[within] / share.sum()).astype(np.float32), volume[within].astype(np.float32), 1)

    def _filter(self, part: np.ndarray, pixel_mm: float) -> np.ndarray:
        if not self.softened_mm and not self.boost:
            return part
        border = 16
        padded = np.pad(part, border, mode="edge")
        frequency = np.hypot(fft.fftfreq(padded.shape[0], pixel_mm)[:, None], fft.rfftfreq(padded.shape[1], pixel_mm))
        change = Kernel("change", self.softened_mm, self.boost, self.boost_frequency_per_mm).transfer(frequency)
        filtered = fft.irfft2(fft.rfft2(padded) * change.astype(np.float32), s=padded.shape)
        return filtered[border:-border, border:-border]

    def _resample(self, parts: Iterable[np.ndarray], grid: Grid, order: int, outside: float) -> np.ndarray:
        target = self.grid()
        resampled = np.empty(target.shape, np.float32)
        scale = target.spacing_mm[0] / grid.spacing_mm[0]
        turn = self._turn()
        matrix = scale * np.array([[turn[0, 0], -turn[1, 0]], [turn[1, 0], turn[0, 0]]])
        first = self.to_scan(np.array([target.origin_mm]))[0, 1::-1] - np.array(grid.origin_mm[1::-1])
        for k, part in enumerate(parts):
            ndimage.affine_transform(
                part, matrix, first / grid.spacing_mm[0], target.shape[1:], resampled[k], order, "constant", outside
            )
        return resampled


def draw_look(grid: Grid, heart: np.ndarray, scanner: Scanner, noise_hu: float, g: np.random.Generator) -> Look:
    """Draw a look for a scan. heart: mask [k, j, i]. scanner, noise_hu: scanner and noise of the scan."""
    extent = grid.spacing_mm[0] * np.array(grid.shape[:0:-1])
    middle = np.array(grid.origin_mm[:2]) + extent / 2
    heart_voxels = np.argwhere(heart)
    heart_middle = np.array(grid.origin_mm[:2]) + grid.spacing_mm[0] * heart_voxels.mean(axis=0)[:0:-1]
    widest = max(FIELD_OF_VIEW_MM[0], min(FIELD_OF_VIEW_MM[1], float(extent.max())))
    least = min(DEDICATED_MM, widest)
    width = float(g.uniform(FIELD_OF_VIEW_MM[0], least) if g.random() < DEDICATED_SHARE else g.uniform(least, widest))
    # Small fields of view are centred on the heart, large ones on the chest.
    share = (width - FIELD_OF_VIEW_MM[0]) / max(widest - FIELD_OF_VIEW_MM[0], 1.0)
    centre = heart_middle + share * (middle - heart_middle) + np.clip(g.normal(0, SHIFT_MM, 2), -12, 12)
    pixels = [n for n in MATRICES if PIXEL_MM[0] <= width / n <= PIXEL_MM[1]]
    scan_z, spacing = grid.axes_mm()[2], grid.spacing_mm[2]
    low, high = float(scan_z[0]), float(scan_z[-1])
    if width < DEDICATED_MM:
        heart_z = scan_z[[heart_voxels[:, 0].min(), heart_voxels[:, 0].max()]]
        margin = g.uniform(*DEDICATED_MARGIN_MM, 2)
        low, high = max(low, float(heart_z[0] - margin[0])), min(high, float(heart_z[1] + margin[1]))
    slice_mm = float(np.exp(g.uniform(*np.log(SLICE_MM))))
    first, step, averaged = low, spacing, 0.0
    if slice_mm >= MIN_COARSER * max(scanner.slice_thickness_mm, spacing):
        averaged, step = slice_mm, max(spacing, slice_mm * float(g.uniform(*OVERLAP)))
        first = low + 0.5 * step * float(g.random())
    else:
        first = scan_z[math.ceil((low - scan_z[0]) / spacing - 1e-6)]
    kind = g.choice(["own", "softer", "sharper"])
    soft, boost, frequency = (float(g.uniform(*law)) for law in (SOFTENED_MM, BOOST, BOOST_FREQUENCY_PER_MM))
    target = float(np.exp(g.uniform(*np.log(NOISE_HU))))
    return Look(
        roll_degrees=float(np.clip(g.normal(0, 0.5 * ROLL_DEGREES), -ROLL_DEGREES, ROLL_DEGREES)),
        pivot_mm=tuple(middle.tolist()),
        centre_mm=tuple(centre.tolist()),
        field_of_view_mm=width,
        matrix=int(g.choice(pixels)),
        first_slice_mm=float(first),
        slices=int((high - first) / step + 1e-6) + 1,
        slice_spacing_mm=step,
        averaged_mm=averaged,
        softened_mm=soft if kind == "softer" else 0.0,
        boost=boost if kind == "sharper" else 0.0,
        boost_frequency_per_mm=frequency,
        noise_hu=math.sqrt(max(target**2 - noise_hu**2, 0.0)),
        air_hu=float(g.choice(CLIPPED_AIR_HU)),
    )
