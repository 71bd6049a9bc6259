"""Lesions of known mass in a real scan: the plaque and scanner model on real texture.

The scan's in-plane blur is measured at the skin, or given; the slice thickness comes from its header, or is given. The
path is the user's, or one found in the epicardial fat; there a vessel is drawn with the plaque, because calcium
without its artery would lie bare in fat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.ct import CTError, CTScan, mask_on_scan_grid

from . import tissues
from .coronaries import LUMEN_STEP_MM, WALL_MM, Vessel
from .motion import HeartBeat, ScanPose, draw_heart_beat
from .plaque import Plaque, draw_plaque
from .points import POINT_STEP_MM, joined, tube
from .response import Displacement, add_stamps, image_of_points
from .scanner import Grid, Kernel, Scanner

FAT_HU = (-150.0, -40.0)
HIGHEST_HU = 3071
_SKIN_LEVELS_HU = (-800.0, -400.0)


class InsertionError(CTError):
    """The lesion cannot be inserted. The message says why and what to do."""


@dataclass(frozen=True)
class InsertionSettings:
    """What is inserted and how the scanner blurs it.

    artery: which artery it counts to and moves as. plaques: how many on the path. length_mm: of a path found in fat.
    sigma_mm: in-plane blur of the scan, None to measure it. slice_thickness_mm: None for the header's, or else the
    spacing. motion_scale: 0 for a still heart, 1 for the artery's full motion. seed: of plaque, path and motion.
    """

    artery: str = "LAD"
    plaques: int = 1
    length_mm: float = 30.0
    sigma_mm: float | None = None
    slice_thickness_mm: float | None = None
    motion_scale: float = 1.0
    heart_rate_bpm: float = 68.0
    vessel_radius_mm: float = 1.7
    seed: int = 0


@dataclass(frozen=True)
class Insertion:
    """image: the scan with lesions, int16 HU. calcium_map: float32 mg/cm³ on its grid. path_mm: [n, 3] LPS."""

    image: sitk.Image
    calcium_map: sitk.Image
    plaques: tuple[Plaque, ...]
    path_mm: np.ndarray
    sigma_mm: float

    @property
    def mass_mg(self) -> float:
        """True mass, mg hydroxyapatite."""
        return sum(plaque.mass_mg for plaque in self.plaques)


def insert_plaques(
    scan: CTScan,
    path_mm: np.ndarray | None = None,
    heart: sitk.Image | None = None,
    settings: InsertionSettings | None = None,
) -> Insertion:
    """Add coronary plaque to a scan.

    path_mm: vessel centre line [n, 3], LPS mm, along a vessel of the scan. heart: mask in whose fat a path is found
    when none is given. Raises InsertionError when neither is given, the path leaves the scan, the heart holds no fat,
    or the slices are oblique.
    """
    settings = settings or InsertionSettings()
    grid = grid_of(scan)
    generator = np.random.default_rng([settings.seed, 31])
    given = path_mm is not None
    if not given:
        if heart is None:
            raise InsertionError("Give the vessel's path, or a heart mask in whose fat one can be found.")
        mask = sitk.GetArrayFromImage(mask_on_scan_grid(heart, scan, "heart mask")[0]) > 0
        path_mm = path_in_fat(scan.hu, mask, grid, settings.length_mm, generator)
    path_mm = _checked_path(np.asarray(path_mm, float), grid)
    sigma = settings.sigma_mm or measured_sigma_mm(scan)
    scanner = scanner_of(scan, sigma, settings.slice_thickness_mm)
    vessel = _vessel(path_mm, settings)
    tendency = float(generator.normal(0, 0.25))
    places = generator.uniform(0, vessel.length_mm, settings.plaques)
    plaques = tuple(draw_plaque(n + 1, vessel, float(p), tendency, generator) for n, p in enumerate(places))
    move = _motion(settings, generator)
    calcium = np.zeros(grid.shape, np.float32)
    cloud = joined([plaque.cloud(vessel, POINT_STEP_MM) for plaque in plaques])
    add_stamps(calcium, image_of_points(cloud, grid, scanner, move), 1000.0)
    hu = scan.hu.astype(np.float32)
    if not given:
        lumen = np.zeros(grid.shape, np.float32)
        points = tube(vessel.path_mm, vessel.radius_mm + WALL_MM, 1.0, LUMEN_STEP_MM)
        add_stamps(lumen, image_of_points(points, grid, scanner, move))
        room = np.clip((tissues.BLOOD_HU - hu) / (tissues.BLOOD_HU - tissues.FAT_HU), 0, 1)
        hu += np.minimum(lumen, 1) * room * (tissues.BLOOD_HU - tissues.FAT_HU)
    hu += calcium * np.float32(scanner.calcium_hu_per_mg_cm3)
    image = sitk.GetImageFromArray(np.rint(np.clip(hu, -1024, HIGHEST_HU)).astype(np.int16))
    truth = sitk.GetImageFromArray(calcium)
    image.CopyInformation(scan.image)
    truth.CopyInformation(scan.image)
    return Insertion(image, truth, plaques, path_mm, sigma)


def grid_of(scan: CTScan) -> Grid:
    """The scan's grid. Raises InsertionError for oblique slices, which the scanner model does not know."""
    image = scan.image
    if not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-3):
        raise InsertionError("Lesions can be inserted into axial scans only; these slices are oblique.")
    return Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin())


def scanner_of(scan: CTScan, sigma_mm: float, slice_thickness_mm: float | None = None) -> Scanner:
    """A scanner with the blur, slices and tube voltage of a scan (120 kVp where its header does not tell)."""
    spacing = scan.slice_spacing_mm
    thickness = slice_thickness_mm or scan.acquisition.slice_thickness_mm or spacing
    return Scanner(
        kvp=scan.acquisition.kvp or 120.0,
        kernel=Kernel("measured", sigma_mm),
        aperture_sigma_mm=0.0,
        slice_thickness_mm=thickness,
        slice_spacing_mm=spacing,
        field_of_view_mm=scan.image.GetSpacing()[0] * scan.image.GetSize()[0],
        matrix=scan.image.GetSize()[0],
    )


def measured_sigma_mm(scan: CTScan) -> float:
    """In-plane blur (Gaussian σ) from the step between air and skin on the front of the body.

    The slanted edge method: pixels of a slice are sorted by their distance to the smoothed outline, so that the step
    is sampled finer than the pixels. The way from 20 % to 60 % of the step, 1000 HU high, is 1.095 σ; skin curving
    within a thick slice and clothes only widen it, so the lower quartile over slices is taken.
    Raises InsertionError when too few slices show a clean step (crop the scan less, or give the blur).
    """
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    count = scan.hu.shape[0]
    samples = [_step_samples(scan.hu[k], spacing_i, spacing_j) for k in range(0, count, max(1, count // 40))]
    groups = [samples[n : n + 4] for n in range(0, len(samples), 4)]
    widths = [_step_width_mm(*(np.concatenate(parts) for parts in zip(*group, strict=True))) for group in groups]
    found = [width for width in widths if width is not None]
    if len(found) < 2:
        raise InsertionError(
            "Too few slices show a clean step from air to skin to measure the scan's sharpness; give it as sigma_mm "
            "(about 0.7 mm for a soft, 0.5 mm for a sharper kernel)."
        )
    return float(np.percentile(found, 25)) / 1.095


def _step_samples(hu: np.ndarray, spacing_i: float, spacing_j: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance behind the skin in mm, and HU there, of pixels near the flat parts of the front of one slice."""
    deep = max(3, round(12 / spacing_j))
    body = ndimage.minimum_filter1d((hu > -500).astype(np.uint8), deep, axis=0, origin=-((deep - 1) // 2))
    first = np.where(body.any(axis=0), body.argmax(axis=0), 0)
    columns = np.flatnonzero(first > 9 / spacing_j)
    if len(columns) < 20:
        return np.zeros(0), np.zeros(0)
    rows = first[columns]
    above, below = hu[rows - 1, columns].astype(float), hu[rows, columns].astype(float)
    outline = (rows - (below + 500) / np.maximum(below - above, 1.0)) * spacing_j
    smooth = ndimage.gaussian_filter1d(ndimage.median_filter(outline, 5), 2.5 / spacing_i)
    slope = np.gradient(smooth, columns * spacing_i)
    flat = (np.abs(slope) < 0.6) & (np.abs(outline - smooth) < 0.3) & (above < below)
    j = rows[flat, None] + np.arange(-round(6 / spacing_j), round(4 / spacing_j))[None]
    values = hu[np.clip(j, 0, hu.shape[0] - 1), columns[flat, None]].astype(float)
    clean = values[:, : round(2 / spacing_j)].max(axis=1, initial=-2000) < -900
    distance = (j * spacing_j - smooth[flat, None]) * np.cos(np.arctan(slope[flat, None]))
    return distance[clean].ravel(), values[clean].ravel()


def _step_width_mm(distance_mm: np.ndarray, hu: np.ndarray) -> float | None:
    """Way from -800 to -400 HU in samples of a step, None where there are too few."""
    width = 0.2
    bins = np.arange(-3.0, 2.0, width)
    count, _ = np.histogram(distance_mm, bins)
    if count.min() < 5:
        return None
    step = np.histogram(distance_mm, bins, weights=hu)[0] / count
    crossings = [_crossing(step, level) for level in _SKIN_LEVELS_HU]
    return None if None in crossings else (crossings[1] - crossings[0]) * width


def _crossing(profile: np.ndarray, level: float) -> float | None:
    above = np.flatnonzero(profile > level)
    if not len(above) or above[0] == 0:
        return None
    n = above[0]
    return float(n - (profile[n] - level) / (profile[n] - profile[n - 1]))


def path_in_fat(
    hu: np.ndarray, heart: np.ndarray, grid: Grid, length_mm: float, generator: np.random.Generator
) -> np.ndarray:
    """A path [n, 3] in LPS mm through the deepest of the epicardial fat, 1 mm steps.

    hu and heart: [k, j, i]. Raises InsertionError when the heart mask holds no fat deep enough for a vessel.
    """
    k, j, i = (slice(n.min(), n.max() + 1) for n in np.nonzero(heart))
    spacing = np.array(grid.spacing_mm[::-1])
    part = hu[k, j, i].astype(np.float32)
    smooth = ndimage.gaussian_filter(part, np.minimum(1.2 / spacing, 2.0))
    fat = (smooth > FAT_HU[0]) & (smooth < FAT_HU[1]) & heart[k, j, i]
    # Fat deeper than a groove's is a pad outside the pericardium: it attracts no more than a groove does.
    depth = np.minimum(ndimage.distance_transform_edt(fat, sampling=spacing), 3.0)
    inside = ndimage.distance_transform_edt(np.pad(heart[k, j, i], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    deep = np.argwhere((depth >= 1.5) & (inside > 4.0))
    if not len(deep):
        raise InsertionError("The heart mask holds no fat wide enough for a vessel; give the path.")
    start = deep[generator.integers(len(deep))] * spacing
    direction = generator.normal(0, 1, 3)
    halves = []
    for sign in (1.0, -1.0):
        halves.append(_tracked(depth, spacing, start, sign * direction / np.linalg.norm(direction), length_mm / 2))
    path = np.concatenate([halves[1][::-1], halves[0][1:]])
    if len(path) < 4:
        raise InsertionError("No path of 4 mm could be followed in the fat; give the path.")
    corner = np.array([i.start, j.start, k.start]) * np.array(grid.spacing_mm) + np.array(grid.origin_mm)
    smoothed = ndimage.gaussian_filter1d(path, 2.0, axis=0, mode="nearest")
    return smoothed[:, ::-1] + corner


def _tracked(
    depth: np.ndarray, spacing: np.ndarray, start: np.ndarray, direction: np.ndarray, length_mm: float
) -> np.ndarray:
    """Follow the deepest fat ahead, in 1 mm steps, from a point in mm [k, j, i]."""
    rays = np.random.default_rng(5).normal(0, 1, (300, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    path = [start]
    for _ in range(int(length_mm)):
        ahead = rays[rays @ direction > 0.75]
        places = np.concatenate([(path[-1] + step * ahead) / spacing for step in (1.0, 2.5)])
        values = ndimage.map_coordinates(depth, places.T, order=1, mode="constant").reshape(2, -1).mean(axis=0)
        best = values + 0.3 * (ahead @ direction)
        if values.max() < 0.5:
            break
        direction = ahead[int(np.argmax(best))]
        path.append(path[-1] + direction)
    return np.array(path)


def _checked_path(path_mm: np.ndarray, grid: Grid) -> np.ndarray:
    if path_mm.ndim != 2 or path_mm.shape[1] != 3 or len(path_mm) < 2:
        raise InsertionError(f"A path is a list of at least 2 points of 3 coordinates; its shape is {path_mm.shape}.")
    low = np.array(grid.origin_mm)
    high = low + np.array(grid.spacing_mm) * (np.array(grid.shape[::-1]) - 1)
    outside = ((path_mm < low) | (path_mm > high)).any(axis=1)
    if outside.any():
        point = ", ".join(f"{c:.0f}" for c in path_mm[outside][0])
        raise InsertionError(f"The path leaves the scan at ({point}) mm LPS; check that it is in LPS, not RAS.")
    return path_mm


def _vessel(path_mm: np.ndarray, settings: InsertionSettings) -> Vessel:
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path_mm, axis=0), axis=1))]
    s = np.arange(0, arc[-1], 0.5)
    even = np.stack([np.interp(s, arc, path_mm[:, n]) for n in range(3)], axis=1)
    return Vessel("path", settings.artery, even, np.full(len(s), settings.vessel_radius_mm))


def _motion(settings: InsertionSettings, generator: np.random.Generator) -> Displacement | None:
    beat: HeartBeat = draw_heart_beat(generator)
    pose = replace(ScanPose(), heart_rate_bpm=settings.heart_rate_bpm, start_phase=float(generator.random()))
    if settings.motion_scale == 0:
        return None
    return lambda t: settings.motion_scale * beat.displacement_mm(settings.artery, pose.cardiac_phase(t))
