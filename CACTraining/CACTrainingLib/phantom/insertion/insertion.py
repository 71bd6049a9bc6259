"""Insertion of lesions of known mass into a real scan: the plaque and scanner model on real texture.

The scan's in-plane blur is measured at the skin or given, its slice thickness read from the header or given. Plaques
follow the user's path, or an artery drawn on the heart. There the vessel is drawn too, because calcium without its
artery would lie bare in fat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import InsertionError
from CACScoringLib.core.files import read_file, read_json
from CACScoringLib.core.grid import Grid
from CACScoringLib.quality.mass_calibration import calcium_hu_per_mg_cm3

from ..anatomy import tissues
from ..anatomy.coronaries import Plaque, Vessel, vessel_along_path
from ..anatomy.distractors import Distractor
from ..anatomy.points import POINT_STEP_MM, join_clouds
from ..scanner.motion import ScanPose, draw_heart_beat
from ..scanner.response import Displacement, Stamp, add_stamps, image_of_points
from ..scanner.scanner import Kernel, Scanner
from ..scanner.simulation import HIGHEST_HU

USUAL_KVP = 120.0
"""Tube voltage of a scan without one in its header."""
_SKIN_LEVELS_HU = (-800.0, -400.0)


HeartMotion = Callable[[str | None], Displacement | None]
"""Function from a group of `motion.EXCURSION_MM` to its displacement, None at rest."""


def add_plaques(
    hu: np.ndarray,
    grid: Grid,
    scanner: Scanner,
    vessels: tuple[Vessel, ...],
    plaques: tuple[Plaque, ...],
    motion: HeartMotion,
    draw_vessels: bool,
    deposits: tuple[Distractor, ...] = (),
) -> tuple[np.ndarray, dict[str, list[Stamp]], dict[str, list[Stamp]]]:
    """Add plaques, each on the vessel of its name, and deposits to a scan as its scanner would show them.

    Args:
        hu: Scan [k, j, i] on the grid.
        vessels: Vessels in LPS.
        deposits: Calcium outside the coronary arteries, in LPS.
        draw_vessels: True to draw the vessels too, in fat.

    Returns:
        HU, float32, and by artery the plaques' image as stamps in mg/mm³; by kind that of deposits in HU.
    """
    hu = hu.astype(np.float32)
    per_mg = 1000.0 * scanner.calcium_hu_per_mg_cm3
    arteries: dict[str, list[Stamp]] = {}
    for vessel in vessels:
        move = motion(vessel.artery)
        clouds = [plaque.cloud(vessel, POINT_STEP_MM) for plaque in plaques if plaque.vessel == vessel.name]
        arteries.setdefault(vessel.artery, []).extend(image_of_points(join_clouds(clouds), grid, scanner, move))
        if draw_vessels:
            lumen = np.zeros(hu.shape, np.float32)
            add_stamps(lumen, image_of_points(vessel.lumen(), grid, scanner, move))
            # Blood replaces fat.
            contrast = tissues.BLOOD_HU - tissues.FAT_HU
            hu += np.minimum(lumen, 1) * np.clip((tissues.BLOOD_HU - hu) / contrast, 0, 1) * contrast
    elsewhere: dict[str, list[Stamp]] = {}
    for deposit in deposits:
        factor = np.float32(tissues.METAL_HU if deposit.metal else per_mg)
        stamps = image_of_points(deposit.cloud, grid, scanner, motion(deposit.group), deposit.view_gain)
        elsewhere.setdefault(deposit.kind, []).extend(replace(s, values=factor * s.values) for s in stamps)
    for stamps in arteries.values():
        add_stamps(hu, stamps, per_mg)
    for stamps in elsewhere.values():
        add_stamps(hu, stamps)
    return np.minimum(hu, HIGHEST_HU, out=hu), arteries, elsewhere


def grid_of(scan: CTScan) -> Grid:
    """Return the scan's grid. Raises InsertionError for oblique slices and oblong pixels, which the model lacks."""
    image = scan.image
    if not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-3):
        raise InsertionError("Lesions can be inserted into axial scans only; these slices are oblique.")
    width, height, _ = image.GetSpacing()
    if abs(width - height) > 1e-3 * width:
        raise InsertionError(f"Lesions can be inserted into square pixels only; these are {width:g} × {height:g} mm.")
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin())


def scanner_of(scan: CTScan, sigma_mm: float, slice_thickness_mm: float | None = None) -> Scanner:
    """Return a scanner with the blur, slices and tube voltage of a scan (USUAL_KVP if its header has none).

    Raises InsertionError for a tube voltage at which the calcium's HU are unknown.
    """
    spacing = scan.slice_spacing_mm
    thickness = slice_thickness_mm or scan.acquisition.slice_thickness_mm or spacing
    kvp = scan.acquisition.kvp or USUAL_KVP
    try:
        calcium_hu_per_mg_cm3(kvp)
    except ValueError as error:
        raise InsertionError(f"{error} Take a scan made at such a voltage.") from error
    return Scanner(
        kvp=kvp,
        kernel=Kernel("measured", sigma_mm),
        aperture_sigma_mm=0.0,
        slice_thickness_mm=thickness,
        slice_spacing_mm=spacing,
        field_of_view_mm=scan.image.GetSpacing()[0] * scan.image.GetSize()[0],
        matrix=scan.image.GetSize()[0],
    )


def measure_sigma_mm(scan: CTScan) -> float:
    """Measure the in-plane blur (Gaussian σ) at the step between air and skin on the front of the body.

    The slanted edge method: pixels of a slice are sorted by their distance to the smoothed outline, so that the step
    is sampled finer than the pixels. From 20 % to 60 % of the step, 1000 HU high, it is 1.095 σ; curved skin within a
    thick slice and clothes only widen it, so the lower quartile over slices is used.
    Raises InsertionError when too few slices show a clean step (crop the scan less, or give the blur).
    """
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    count = scan.hu.shape[0]
    samples = [_step_samples(scan.hu[k], spacing_i, spacing_j) for k in range(0, count, max(1, count // 40))]
    groups = [samples[n : n + 4] for n in range(0, len(samples), 4)]
    group_widths = [_step_width_mm(*(np.concatenate(parts) for parts in zip(*group, strict=True))) for group in groups]
    widths = [width for width in group_widths if width is not None]
    if len(widths) < 2:
        raise InsertionError("Too few slices show the skin to measure the sharpness; set sigma_mm (0.5 to 0.7).")
    return float(np.percentile(widths, 25)) / 1.095


def _step_samples(hu: np.ndarray, spacing_i: float, spacing_j: float) -> tuple[np.ndarray, np.ndarray]:
    """Return distance behind the skin in mm and HU of pixels near the flat parts of the front of one slice."""
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
    """Return the distance from -800 to -400 HU in samples of a step; None for too few samples."""
    width = 0.2
    bins = np.arange(-3.0, 2.0, width)
    count, _ = np.histogram(distance_mm, bins)
    if count.min() < 5:
        return None
    step = np.histogram(distance_mm, bins, weights=hu)[0] / count
    low, high = (_crossing(step, level) for level in _SKIN_LEVELS_HU)
    return None if low is None or high is None else (high - low) * width


def _crossing(profile: np.ndarray, level: float) -> float | None:
    above = np.flatnonzero(profile > level)
    if not len(above) or above[0] == 0:
        return None
    n = above[0]
    return float(n - (profile[n] - level) / (profile[n] - profile[n - 1]))


def vessel_along(path_mm: np.ndarray, name: str, artery: str, radius_mm: float, grid: Grid) -> Vessel:
    """Return a vessel along points [n, 3] in LPS mm. Raises InsertionError if they leave the grid or are too few."""
    path_mm = np.asarray(path_mm, float)
    if path_mm.ndim != 2 or path_mm.shape[1] != 3 or len(path_mm) < 2:
        raise InsertionError(f"A path is a list of at least 2 points of 3 coordinates; its shape is {path_mm.shape}.")
    low = np.array(grid.origin_mm)
    high = low + np.array(grid.spacing_mm) * (np.array(grid.shape[::-1]) - 1)
    outside = ((path_mm < low) | (path_mm > high)).any(axis=1)
    if outside.any():
        point = ", ".join(f"{c:.0f}" for c in path_mm[outside][0])
        raise InsertionError(f"The path leaves the scan at ({point}) mm LPS; check that it is in LPS, not RAS.")
    vessel = vessel_along_path(name, artery, path_mm, radius_mm, radius_mm)
    if vessel.length_mm < 1:
        raise InsertionError(f"The path is {vessel.length_mm:.1f} mm long; give points in mm, at least 1 mm in all.")
    return vessel


def draw_motion(scale: float, heart_rate_bpm: float, generator: np.random.Generator) -> HeartMotion:
    """Draw a heart's motion with a random phase at the scan's start. scale: 0 for a still heart, 1 for full motion.

    A path shows the vessel where it was for most of a slice's rotation, so each slice's median displacement is
    subtracted. Beats between two slices therefore hide or double fewer lesions than in a digital patient, whose whole
    heart moves.
    """
    beat = draw_heart_beat(generator)
    pose = ScanPose(heart_rate_bpm=heart_rate_bpm, start_phase=float(generator.random()))

    def displacement_of(group: str | None) -> Displacement | None:
        if scale == 0 or group is None:
            return None

        def displacement(time_s: np.ndarray) -> np.ndarray:
            path = scale * beat.displacement_mm(group, pose.cardiac_phase(time_s))
            return path - np.median(path, axis=0)

        return displacement

    return displacement_of


def read_path(path: Path) -> np.ndarray:
    """Read a path [n, 3] in LPS mm from a CSV or a Slicer markups file.

    A `.csv` holds x,y,z in LPS mm per line, with or without a heading. A `.mrk.json` holds a curve or line, whose
    control points are converted to LPS if its coordinateSystem is RAS. Raises InsertionError.
    """
    try:
        points = _markup_points(path) if path.suffix.lower() == ".json" else _csv_points(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InsertionError(f"{path} is no path ({error}). Give a CSV of x,y,z in LPS mm, or a .mrk.json.") from error
    if len(points) < 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InsertionError(f"{path} has the shape {points.shape}; a path has at least 2 points of 3 finite numbers.")
    return points


def _csv_points(path: Path) -> np.ndarray:
    heading, *rows = read_file(path).decode("utf-8-sig").splitlines()
    named = [cell.strip().lower() for cell in heading.split(",")] == ["x", "y", "z"]
    return np.loadtxt(rows if named else [heading, *rows], float, delimiter=",", ndmin=2)


def _markup_points(path: Path) -> np.ndarray:
    markup = read_json(path)["markups"][0]
    # Files before Slicer 4.11 held numbers: 0 RAS, 1 LPS.
    system = {"0": "RAS", "1": "LPS"}.get(str(markup["coordinateSystem"]), markup["coordinateSystem"])
    if system not in ("LPS", "RAS"):
        raise ValueError(f"its coordinateSystem is {system!r}, not LPS or RAS")
    if (unit := markup.get("coordinateUnits", "mm")) != "mm":
        raise ValueError(f"its coordinateUnits are {unit!r}, not mm")
    points = markup["controlPoints"]
    placed = [point["position"] for point in points if point.get("positionStatus", "defined") == "defined"]
    return np.array(placed, float).reshape(-1, 3) * ([-1.0, -1.0, 1.0] if system == "RAS" else 1.0)
