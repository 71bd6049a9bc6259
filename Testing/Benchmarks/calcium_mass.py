"""Write how near the integrated mass of calcium is to the true mass, beside that of the 130 HU rule.

    python Testing/Benchmarks/calcium_mass.py SCANS CSV

SCANS is a folder with `qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz`, a scan of the QRM cardiac insert
(github.com/MolloiLab/CAC-stanford-data, data/canon/Large_rep1, slices 17 to 37). It is calibrated by its own rod of
200 mg/cm³ against that of water. Its three small inserts are left out: they weigh less than the limit of detection, the
mass that is 2.33 standard deviations of empty places above zero 19 times of 20.

Simulated inserts are nine cylinders, 5, 3 and 1 mm wide and high, of three densities, at 80, 100, 120 and 135 kVp and
15, 20 and 27 HU of noise, at rest or on a straight line at 10 to 60 mm/s in a gated half scan; their calibration is the
scanner's true one. An insert is what has 130 HU and more about its place, which is given; where nothing has, its
cylinder. Inserts whose standard error could not be measured count for the masses alone. Intervals are by the bootstrap
over inserts: of one insert at one tube voltage and speed all noise is drawn together.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from by_scanner import origin, stated, write_rows

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.quality.mass_calibration import insert_calibration
from CACScoringLib.record.findings import MassCalibration
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LesionSet, LesionVoxels
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.mass import lesion_masses
from CACScoringLib.statistics.bootstrap import mean, patient_estimate
from CACTrainingLib.phantom.anatomy.points import tube
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import NoiseSource, Scanner

SEED = 0
QRM = "qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz"
INSERTS = (
    ((180.33, 220.13), 14, 5.0, 78.5),
    ((205.66, 220.88), 9, 3.0, 17.0),
    ((291.26, 150.75), 14, 5.0, 39.3),
    ((279.82, 173.5), 9, 3.0, 8.5),
    ((299.07, 281.67), 14, 5.0, 19.6),
    ((285.5, 260.0), 9, 3.0, 4.2),
)
"""Column and row of large and medium inserts in the scan, radius in pixels about them, size in mm, true mass in mg."""

INSERT_SLICE = 5
ROD, WATER, ROD_SLICES = ((257, 217), 17), ((224, 173), 12), slice(14, 17)
"""Column and row and radius in pixels, well inside the rods, by eye."""

DETECTED, MISSED_ONCE_IN_20 = 2.33, 1.64
"""Standard deviations: of empty places one in a hundred lies above; of inserts one in twenty lies below."""

PUBLISHED = "doi:10.1002/mp.16326"
DENSITIES = {"200 to 800 mg/cm³": (800, 400, 200), "25 to 100 mg/cm³": (100, 50, 25)}
SIZES_MM = (5.0, 3.0, 1.0)
KVP, NOISE_HU = (80.0, 100.0, 120.0, 135.0), (15.0, 20.0, 27.0)
MOTION = {
    "still": ((0.0,), 12),
    "moving 10 and 20 mm/s": ((10.0, 20.0), 6),
    "moving 30 to 60 mm/s": ((30.0, 40.0, 50.0, 60.0), 3),
}
"""Speeds in mm/s, and draws of each level of noise."""


@dataclass(frozen=True)
class Place:
    """Place of an insert: centre i, j, k in voxels, radius searched in voxels, width and height in mm."""

    centre: tuple[float, float, float]
    search: float
    size_mm: float


@dataclass(frozen=True)
class Measured:
    """Masses of an insert in mg, with the standard error of the integrated one, NaN if it has none.

    name: Insert, tube voltage and speed, which are drawn together.
    """

    name: str
    true: float
    integrated: float
    error: float
    rule: float


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("csv", type=Path)
    arguments = parser.parse_args()
    phantom, limit_mg = phantom_masses(arguments.scans / QRM)
    about = partial(origin, "Testing/Benchmarks/calcium_mass.py SCANS CSV", seed=SEED)
    rows = [
        row("QRM phantom, Canon, 120 kVp, 3 mm; calibrated by its rods", phantom, f"{limit_mg:.1f} mg")
        | {"published": f"8.81 mg, .962; rule 22.49 mg, .662 ({PUBLISHED}, other scans)"}
        | about("6 large and medium inserts; limit from 72 empty places")
    ]
    published = {
        "25 to 100 mg/cm³, still": f"0.495 mg, 1.00; rule 3.51 mg, .81 ({PUBLISHED})",
        "200 to 800 mg/cm³, moving 10 and 20 mm/s": f"0.51 mg; rule 3.94 mg ({PUBLISHED}, other densities and speeds)",
    }
    for (density, densities), (motion, (speeds, draws)) in itertools.product(DENSITIES.items(), MOTION.items()):
        title = f"{density}, {motion}"
        of_title = row(f"simulated inserts, {title}", list(simulated_masses(densities, speeds, draws)))
        settings = f"9 inserts, 4 kVp, 3 noise levels with {draws} draws at each speed"
        rows.append(of_title | {"published": published.get(title, "")} | about(settings))
    write_rows(arguments.csv, rows)


def row(title: str, masses: Sequence[Measured], limit: str = "") -> dict[str, object]:
    """Return a row of the table without its origin."""
    names, true, integrated, error, rule = (
        [getattr(m, field) for m in masses] for field in ("name", "true", "integrated", "error", "rule")
    )
    inserts = len(set(names))
    scans = len(masses) // inserts
    has_error = np.isfinite(error)
    is_within = (np.abs(np.subtract(integrated, true)) <= error)[has_error]
    within = patient_estimate(partial(mean, values=is_within), np.array(names)[has_error], SEED)
    return {
        "on": title,
        "n": f"{inserts} inserts" + (f", {scans} scans of each" if scans > 1 else ""),
        "integrated: RMSE, slope": accuracy(names, true, integrated),
        "130 HU rule: RMSE, slope": accuracy(names, true, rule),
        "within one standard error (nominal .68)": stated(within),
        "limit of detection": limit,
    }


def accuracy(names: Sequence[str], true: Sequence[float], measured: Sequence[float]) -> str:
    """Return the root mean square error and the slope of measured against true masses, with their intervals."""
    x, y = np.array(true), np.array(measured)

    def rmse(weights: np.ndarray) -> np.ndarray:
        return np.sqrt(mean(weights, values=(y - x) ** 2))

    def slope(weights: np.ndarray) -> np.ndarray:
        of_x, of_y, of_xy, of_xx = (mean(weights, values=v) for v in (x, y, x * y, x * x))
        return (of_xy - of_x * of_y) / (of_xx - of_x**2)

    return f"{stated(patient_estimate(rmse, names, SEED))} mg, {stated(patient_estimate(slope, names, SEED))}"


def phantom_masses(file: Path) -> tuple[list[Measured], float]:
    """Return the masses of the scanned inserts and the limit of detection in mg."""
    image = sitk.ReadImage(file)
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    rod, water = (np.zeros(hu.shape, bool) for _ in range(2))
    for mask, (centre, radius) in ((rod, ROD), (water, WATER)):
        mask[ROD_SLICES] = distances(hu.shape, centre) <= radius
    calibration = insert_calibration(hu, rod, 200.0, float(hu[water].mean()))
    places = [Place((*centre, INSERT_SLICE), search, size_mm) for centre, search, size_mm, _ in INSERTS]
    masses = list(measured(image, places, calibration))
    inserts = [Measured(str(n), true, *m) for n, ((*_, true), m) in enumerate(zip(INSERTS, masses, strict=True))]
    empty = [
        Place((252 + r * math.cos(turn + r / 40), 215 + r * math.sin(turn + r / 40), k), 6, 1.0)
        for k, r, turn in itertools.product((1, 10), (24, 36, 48, 60, 72, 84), np.arange(6) * math.pi / 3)
    ]
    spread = np.std([integrated for integrated, *_ in measured(image, empty, calibration)])
    return inserts, float((DETECTED + MISSED_ONCE_IN_20) * spread)


def simulated_masses(densities: tuple[int, ...], speeds_mm_s: tuple[float, ...], draws: int) -> Iterator[Measured]:
    """Return the masses of simulated inserts in all scans."""
    for kvp, speed in itertools.product(KVP, speeds_mm_s):
        # Where the gantry stands when the scan begins decides what motion does.
        phase = (kvp / 20 + speed / 10 * 0.17) % 1
        scanner = Scanner(
            kvp, field_of_view_mm=250.0, half_scan=True, gate_phase=0.75, rotation_s=0.35, start_phase=phase
        )
        grid = Grid((192, 192, 9), (scanner.pixel_mm, scanner.pixel_mm, 3.0), (0.0, 0.0, 0.0))
        at_s = scanner.gate_phase * scanner.beat_s
        move = (lambda t, v=speed, at=at_s: np.stack([v * (t - at), 0 * t, 0 * t], -1)) if speed else None
        clean, places, true = np.full(grid.shape, 40.0, np.float32), [], []
        for n, (density, mm) in enumerate(itertools.product(densities, SIZES_MM)):
            centre = np.array([18.0 + 28.0 * (n % 3), 18.0 + 28.0 * (n // 3), 12.0 + 0.4 * n])
            axis = np.array([[0, 0, -mm / 2], [0, 0, mm / 2]])
            cylinder = tube(centre + axis, mm / 2, density / 1000, min(0.35, mm / 6))
            add_stamps(clean, image_of_points(cylinder, grid, scanner, move), 1000 * scanner.calcium_hu_per_mg_cm3)
            places.append(Place(tuple(centre / grid.spacing_mm), 16, mm))
            true.append(cylinder.total)
        calibration = MassCalibration("given", 1 / scanner.calcium_hu_per_mg_cm3)
        for draw, noise_hu in itertools.product(range(draws), NOISE_HU):
            source = NoiseSource((SEED, draw, round(kvp), round(speed), round(noise_hu)), grid, scanner)
            hu = np.rint(clean + noise_hu * np.stack([source.slice_field(k) for k in range(grid.shape[0])]))
            masses = measured(grid.image(hu.astype(np.int16)), places, calibration)
            for n, mass in enumerate(masses):
                yield Measured(f"{n} {kvp:.0f} {speed:.0f}", true[n], *mass)


def measured(
    image: sitk.Image, places: Sequence[Place], calibration: MassCalibration
) -> Iterator[tuple[float, float, float]]:
    """Return the integrated mass, its standard error and the mass by the 130 HU rule of each insert, mg."""
    hu, spacing_mm = sitk.GetArrayFromImage(image), image.GetSpacing()
    ids, pseudo_masses = np.zeros(hu.shape, np.uint16), []
    for number, place in enumerate(places, 1):
        i, j, k = place.centre
        distance = distances(hu.shape, (i, j))
        region = np.zeros(hu.shape, np.uint8)
        region[max(0, math.floor(k) - 2) : math.ceil(k) + 3, distance <= place.search] = Artery.OTHER
        dense = find_lesions(image, region, ScoringRules())
        pseudo_masses.append(sum(dense.columns["pseudo_mass_hu_mm3"]))
        if dense.ids:
            ids.reshape(-1)[dense.voxels.flat] = number
            continue
        slices = np.abs(np.arange(hu.shape[0]) - k) * spacing_mm[2] <= max(place.size_mm, spacing_mm[2]) / 2
        ids[slices[:, None, None] & (distance * spacing_mm[0] <= max(place.size_mm / 2, 0.75 * spacing_mm[0]))] = number
    flat = np.flatnonzero(ids)
    lesions = LesionSet(
        {"id": range(1, len(places) + 1), "pseudo_mass_hu_mm3": pseudo_masses},
        LesionVoxels(hu.shape, flat, ids.reshape(-1)[flat]),
    )
    masses = lesion_masses(hu.astype(np.float32), spacing_mm, lesions, calibration)
    for (integrated, error), pseudo_mass in zip(masses.values(), pseudo_masses, strict=True):
        assert integrated is not None
        error = math.nan if error is None else error
        yield integrated, error, calibration.mg_per_cm3_per_hu / 1000 * pseudo_mass


def distances(shape: tuple[int, ...], centre: tuple[float, float]) -> np.ndarray:
    """Return distances in a slice [j, i] from column and row of a centre, in pixels."""
    j, i = np.ogrid[: shape[1], : shape[2]]
    return np.hypot(i - centre[0], j - centre[1])


if __name__ == "__main__":
    main()
