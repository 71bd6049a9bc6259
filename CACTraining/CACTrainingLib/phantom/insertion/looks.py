"""Other looks of a scan: field of view, pixels, slices, kernel, noise, air, a rolled patient.

Only what the scan still holds can be made of it. Slices get thicker, never thinner, and a sharper kernel raises the
noise with the edges. Each change of the scan is passed to the `Scanner` too, so that inserted calcium is blurred as the
scan around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

from ..scanner.scanner import Grid, Kernel, Scanner

FIELD_OF_VIEW_MM = (160.0, 500.0)
PIXEL_MM = (0.3, 1.4)
MATRICES = (512, 512, 512, 400, 320, 256)
SLICE_MM = (0.6, 5.0)
OVERLAP = (0.5, 1.0)
"""Slice spacing as a share of the thickness."""
LEAST_COARSER = 1.2
"""Slices at least so much thicker than the scan's are averaged; else the scan's own are kept."""
NOISE_HU = (8.0, 70.0)
AIR_HU = (-1000.0, -1024.0)
ROLL_DEGREES, SHIFT_MM = 6.0, 8.0
SOFTENED_MM = (0.3, 1.0)
BOOST, BOOST_FREQUENCY_PER_MM = (0.3, 1.2), (0.30, 0.45)
DEDICATED_MM = 260.0
"""Smaller fields of view hold the heart's slices only, with a margin of DEDICATED_MARGIN_MM, as in calcium scans."""
DEDICATED_MARGIN_MM = (5.0, 25.0)
DEDICATED_SHARE = 0.5


@dataclass(frozen=True)
class Look:
    """Changes of a scan, recorded in `truth.json`.

    roll_degrees: of the patient about the table's axis through pivot_mm (x, y). centre_mm: of the field of view, x and
    y. first_slice_mm, slices: z and number. averaged_mm: width over which slices are averaged, 0 for the scan's own.
    softened_mm: σ of a further blur in the slice; boost, boost_frequency_per_mm: as in `Kernel`. noise_hu: SD that is
    added.
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

    def moved(self, lps_mm: np.ndarray) -> np.ndarray:
        """Points [n, 3] of the scan where this look shows them."""
        return np.column_stack([(lps_mm[:, :2] - self.pivot_mm) @ self._turn().T + self.pivot_mm, lps_mm[:, 2]])

    def unmoved(self, lps_mm: np.ndarray) -> np.ndarray:
        """Points of the scan that this look shows at points [n, 3]."""
        return np.column_stack([(lps_mm[:, :2] - self.pivot_mm) @ self._turn() + self.pivot_mm, lps_mm[:, 2]])

    def _turn(self) -> np.ndarray:
        angle = math.radians(self.roll_degrees)
        return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def grid(self) -> Grid:
        pixel = self.field_of_view_mm / self.matrix
        corner = [c - (self.matrix - 1) / 2 * pixel for c in self.centre_mm]
        shape = (self.slices, self.matrix, self.matrix)
        return Grid(shape, (pixel, pixel, self.slice_spacing_mm), (*corner, self.first_slice_mm))

    def scanner(self, own: Scanner) -> Scanner:
        """The scanner that shows calcium like this, from that of the scan."""
        sigma = math.hypot(own.kernel.sigma_mm, self.softened_mm)
        kernel = Kernel(own.kernel.name, sigma, self.boost, self.boost_frequency_per_mm)
        thickness, profile = own.slice_thickness_mm, own.profile_sigma_mm
        if self.averaged_mm:
            # A box on a box is the wider one with the other one's slopes.
            narrow, thickness = sorted((thickness, self.averaged_mm))
            profile = math.sqrt(profile**2 + narrow**2 / 12)
        return replace(
            own,
            kernel=kernel,
            slice_thickness_mm=thickness,
            profile_sigma_mm=profile,
            slice_spacing_mm=self.slice_spacing_mm,
            field_of_view_mm=self.field_of_view_mm,
            matrix=self.matrix,
        )

    def of(self, volume: np.ndarray, grid: Grid, outside: float) -> np.ndarray:
        """A scan's HU [k, j, i] as this look shows them but for noise, float32. outside: HU beyond the scan."""
        filtered = (self._filtered(part, grid.spacing_mm[0]) for part in self._slices(volume, grid))
        return self._resampled(filtered, grid, 3, outside)

    def of_mask(self, mask: np.ndarray, grid: Grid) -> np.ndarray:
        return self._resampled(self._slices(mask, grid), grid, 1, 0.0) >= 0.5

    def _slices(self, volume: np.ndarray, grid: Grid):
        """The scan's slices [j, i], averaged."""
        own, spacing = grid.z_mm(), grid.spacing_mm[2]
        for z in self.grid().z_mm():
            if not self.averaged_mm:
                yield volume[round((z - own[0]) / spacing)].astype(np.float32)
                continue
            reach = np.minimum(own + spacing / 2, z + self.averaged_mm / 2)
            share = np.maximum(0.0, reach - np.maximum(own - spacing / 2, z - self.averaged_mm / 2))
            used = np.flatnonzero(share)
            yield np.tensordot((share[used] / share.sum()).astype(np.float32), volume[used].astype(np.float32), 1)

    def _filtered(self, part: np.ndarray, pixel_mm: float) -> np.ndarray:
        if not self.softened_mm and not self.boost:
            return part
        border = 16
        padded = np.pad(part, border, mode="edge")
        frequency = np.hypot(fft.fftfreq(padded.shape[0], pixel_mm)[:, None], fft.rfftfreq(padded.shape[1], pixel_mm))
        change = Kernel("change", self.softened_mm, self.boost, self.boost_frequency_per_mm).transfer(frequency)
        whole = fft.irfft2(fft.rfft2(padded) * change.astype(np.float32), s=padded.shape)
        return whole[border:-border, border:-border]

    def _resampled(self, parts, grid: Grid, order: int, outside: float) -> np.ndarray:
        mine = self.grid()
        found = np.empty(mine.shape, np.float32)
        scale = mine.spacing_mm[0] / grid.spacing_mm[0]
        turn = self._turn()
        matrix = scale * np.array([[turn[0, 0], -turn[1, 0]], [turn[1, 0], turn[0, 0]]])
        first = self.unmoved(np.array([mine.origin_mm]))[0, 1::-1] - np.array(grid.origin_mm[1::-1])
        for k, part in enumerate(parts):
            ndimage.affine_transform(
                part, matrix, first / grid.spacing_mm[0], mine.shape[1:], found[k], order, "constant", outside
            )
        return found


def draw_look(grid: Grid, heart: np.ndarray, scanner: Scanner, noise_hu: float, g: np.random.Generator) -> Look:
    """A look for a scan. heart: mask [k, j, i]. scanner: the scan's own; noise_hu: its noise."""
    extent = grid.spacing_mm[0] * np.array(grid.shape[:0:-1])
    middle = np.array(grid.origin_mm[:2]) + extent / 2
    used = np.argwhere(heart)
    heart_middle = np.array(grid.origin_mm[:2]) + grid.spacing_mm[0] * used.mean(axis=0)[:0:-1]
    widest = max(FIELD_OF_VIEW_MM[0], min(FIELD_OF_VIEW_MM[1], float(extent.max())))
    least = min(DEDICATED_MM, widest)
    width = float(g.uniform(FIELD_OF_VIEW_MM[0], least) if g.random() < DEDICATED_SHARE else g.uniform(least, widest))
    # Small fields of view are centred on the heart, large ones on the chest.
    share = (width - FIELD_OF_VIEW_MM[0]) / max(widest - FIELD_OF_VIEW_MM[0], 1.0)
    centre = heart_middle + share * (middle - heart_middle) + np.clip(g.normal(0, SHIFT_MM, 2), -12, 12)
    pixels = [n for n in MATRICES if PIXEL_MM[0] <= width / n <= PIXEL_MM[1]]
    own_z, spacing = grid.z_mm(), grid.spacing_mm[2]
    low, high = float(own_z[0]), float(own_z[-1])
    if width < DEDICATED_MM:
        heart_z = own_z[[used[:, 0].min(), used[:, 0].max()]]
        margin = g.uniform(*DEDICATED_MARGIN_MM, 2)
        low, high = max(low, float(heart_z[0] - margin[0])), min(high, float(heart_z[1] + margin[1]))
    wanted = float(np.exp(g.uniform(*np.log(SLICE_MM))))
    first, step, averaged = low, spacing, 0.0
    if wanted >= LEAST_COARSER * max(scanner.slice_thickness_mm, spacing):
        averaged, step = wanted, max(spacing, wanted * float(g.uniform(*OVERLAP)))
        first = low + 0.5 * step * float(g.random())
    else:
        first = own_z[math.ceil((low - own_z[0]) / spacing - 1e-6)]
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
        air_hu=float(g.choice(AIR_HU)),
    )
