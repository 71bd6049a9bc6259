"""Calcium mass without a threshold against the truth: a real and a simulated QRM insert, and digital pairs.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/calcium_mass.py real [--figure PICTURE]
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/calcium_mass.py simulated [--realisations 100]
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/calcium_mass.py pairs COHORT RESULTS [--figure PICTURE]

real: nine inserts, 72 empty places. An insert is its voxels of 130 HU and more; where it has none, the voxels of its
cylinder. It is found when its mass is 2.33 standard errors (of empty places one in a hundred is). The calibration is
that of the rod of 200 mg/cm³ in the scan, against the rod of water.
simulated: at four tube voltages, three body sizes (which the simulator knows by their noise alone), still and moving
along a line at constant speed, in a gated half scan; inserts of 200 to 800 and of 25 to 100 mg/cm³.
pairs: a folder of `cac phantom` and one of `cac evaluate` or `cac cohort`, with lesions.nii.gz, map_lesions.nii.gz and
calcium_map.nii.gz of each scan, calibrated by the scanner's true response; nothing is found anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from phantom_qrm import INSERTS, SCAN, SLICE_MM, height_mm
from scipy.stats import spearmanr

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.calcium_mass import CalciumMass, lesion_masses, summed
from CACScoringLib.scoring.lesions import LesionSet, ScoringRules, find_lesions
from CACScoringLib.scoring.mass_calibration import MassCalibration, insert_calibration
from CACScoringLib.scoring.scores import calibration_from_insert, score_lesions
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.noise import NoiseSource
from CACTrainingLib.phantom.scanner.qrm import SIZES_MM, Insert
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner

METHODS = ("integrated", "volume fraction", "130 HU rule")
FOUND = 2.33
"""Standard errors."""

ROD, WATER = ((257, 217), 17), ((224, 173), 12)
ROD_SLICES = slice(14, 17)
"""Places (column, row) and radii in pixels of the calibration rods, well inside them, by eye."""

PUBLISHED = (
    "published: integrated 0.495 mg (1.00), volume fraction 0.585 (1.02), Agatston mass 3.51 (0.81), low density"
)
PUBLISHED_MOVING = "published: integrated 0.51 mg, volume fraction 0.585, Agatston mass 3.94, moving"
PUBLISHED_REAL = (
    "published, physical QRM: integrated 8.81 mg (.962), volume fraction 8.56 (.966), Agatston mass 22.49 (.662)"
)


def seeds(
    image: sitk.Image, places: list[tuple], calibration: MassCalibration
) -> tuple[LesionSet, list[float], list[bool]]:
    """A lesion for each cylinder: centre (i, j, k), radius and height in mm, search radius in pixels. Its voxels of
    130 HU and more, else all of the cylinder. Also its mass by the rule, and whether the rule finds it."""
    hu = sitk.GetArrayViewFromImage(image)
    spacing = image.GetSpacing()
    j, i = np.mgrid[: hu.shape[1], : hu.shape[2]]
    rules = ScoringRules(calibration_mg_per_mm3_hu=calibration.mg_per_cm3_per_hu / 1000)
    id_map, masses, found = np.zeros(hu.shape, np.uint16), [], []
    for number, ((x, y, z), radius, height, search) in enumerate(places, 1):
        distance = np.hypot(i - x, j - y)
        low, high = max(0, math.floor(z) - 1), math.ceil(z) + 2
        region = np.zeros(hu.shape, np.uint8)
        region[low:high, distance <= search] = Artery.OTHER
        own = find_lesions(image, region, rules)
        masses.append(score_lesions(own.lesions, spacing, rules).mass_mg)
        found.append(bool(own.lesions))
        if own.lesions:
            id_map[own.id_map > 0] = number
            continue
        k = np.abs(np.arange(hu.shape[0]) - z) * spacing[2] <= max(height / 2, spacing[2] / 2)
        id_map[np.ix_(k, *map(np.arange, hu.shape[1:]))] = np.where(
            (distance * spacing[0] <= max(radius, 0.75 * spacing[0])) & (id_map[k] == 0), number, id_map[k]
        )
    return LesionSet((), id_map), masses, found


def errors(true: np.ndarray, measured: np.ndarray) -> str:
    return f"RMSE {np.sqrt(np.mean((measured - true) ** 2)):.3f} mg, slope {np.polyfit(true, measured, 1)[0]:.3f}"


def real(figure: Path | None) -> None:
    """The scanned insert."""
    scan = scan_from_image(sitk.ReadImage(SCAN), Acquisition("NIfTI", kvp=120.0, manufacturer="Canon"))
    image, hu = scan.image, scan.hu.astype(np.float32)
    j, i = np.mgrid[: hu.shape[1], : hu.shape[2]]
    rods = []
    for (x, y), radius in (ROD, WATER):
        mask = np.zeros(hu.shape, np.uint8)
        mask[ROD_SLICES, np.hypot(i - x, j - y) <= radius] = 1
        rods.append(sitk.GetImageFromArray(mask))
    water = float(hu[sitk.GetArrayViewFromImage(rods[1]) > 0].mean())
    calibration = insert_calibration(calibration_from_insert(image, rods[0], 200.0, water), 200.0)
    print(f"calibration {calibration.mg_per_cm3_per_hu:.4f} mg/cm³ per HU (published .7220), water {water:.0f} HU")
    large = [insert for insert in INSERTS if insert[0] == "large"]
    plane = np.linalg.solve([[1.0, *insert[2]] for insert in large], [height_mm(hu, insert[2]) for insert in large])
    places = [
        ((x, y, 5 + float(plane @ (1.0, x, y)) / SLICE_MM), SIZES_MM[size] / 2, SIZES_MM[size], radius)
        for size, _, (x, y), radius, _ in INSERTS
    ]
    found, rule, above = seeds(image, places, calibration)
    noise = float(hu[[1, 2, 8, 9, 10], 190:254, 200:264].std())
    masses = lesion_masses(hu, image.GetSpacing(), found, calibration, noise)
    true = np.array([insert[4] for insert in INSERTS])
    measured = np.array(
        [(masses[n].integrated_mass_mg, masses[n].volume_fraction_mass_mg, rule[n - 1]) for n in masses]
    )
    print("insert | true mg | integrated ± error | volume fraction | 130 HU rule | SWCS mm³ | found, by the rule")
    for n, insert in enumerate(INSERTS, 1):
        mass = masses[n]
        error = mass.mass_standard_error_mg
        print(
            f"{insert[0]} {insert[1]} | {insert[4]} | {mass.integrated_mass_mg:.2f} ± {error:.2f} | "
            f"{mass.volume_fraction_mass_mg:.2f} | {rule[n - 1]:.2f} | {mass.swcs:.2f} | "
            f"{mass.integrated_mass_mg >= FOUND * error}, {above[n - 1]}"
        )
    dense = np.array([insert[0] != "small" for insert in INSERTS])
    for name, column in zip(METHODS, measured.T, strict=True):
        print(f"{name}: large and medium {errors(true[dense], column[dense])}; all nine {errors(true, column)}")
    by_published = measured[:, 0] * 0.722048 / calibration.mg_per_cm3_per_hu
    print(f"integrated, by the published calibration: large and medium {errors(true[dense], by_published[dense])}")
    print(PUBLISHED_REAL)
    _empty_places(image, hu, calibration, noise)
    if figure is not None:
        draw(figure, METHODS, true, measured, [mass.mass_standard_error_mg for mass in masses.values()])


def _empty_places(image: sitk.Image, hu: np.ndarray, calibration: MassCalibration, noise: float) -> None:
    """72 cylinders of 1 mm in slices without inserts."""
    angles, radii = np.arange(6) * math.pi / 3, (24, 36, 48, 60, 72, 84)
    centres = [
        (252 + r * math.cos(a + r / 40), 215 + r * math.sin(a + r / 40), k)
        for k in (1, 10)
        for r in radii
        for a in angles
    ]
    found, _, above = seeds(image, [(centre, 0.5, 1.0, 6) for centre in centres], calibration)
    masses = list(lesion_masses(hu, image.GetSpacing(), found, calibration, noise).values())
    values = np.array([mass.integrated_mass_mg for mass in masses])
    error = np.array([mass.mass_standard_error_mg for mass in masses], float)
    print(
        f"{len(masses)} empty places: integrated {values.mean():.3f} mg, SD {values.std():.3f}, standard errors "
        f"{np.nanmean(error):.3f}; called calcium {(values >= FOUND * error).sum()}, by the rule {sum(above)}"
    )
    print(f"limit of detection (found 19 times of 20): {(FOUND + 1.64) * values.std():.2f} mg")


def draw(path: Path, names: tuple, true: np.ndarray, measured: np.ndarray, error: list[float] | None) -> None:
    """True against measured by three methods. error: of the first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    chart, axes = plt.subplots(figsize=(5.5, 5))
    low, high = 0.1, 1.5 * true.max()
    axes.plot([low, high], [low, high], color="0.7", lw=1)
    for name, column, marker in zip(names, measured.T, "os^", strict=True):
        bars = error if name == names[0] else None
        axes.errorbar(true, np.maximum(column, low), bars, fmt=marker, label=name, ms=5, mfc="none", alpha=0.8)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(0.9 * low, high))
    axes.set(xlabel="true mass, mg", ylabel="measured mass, mg (at the lower edge: that or less)")
    axes.legend(frameon=False)
    chart.tight_layout()
    chart.savefig(path, dpi=130)


def simulated(realisations: int, moving: int) -> None:
    """The simulated insert."""
    sizes = {"small": 15.0, "medium": 20.0, "large": 27.0}
    sets = {"200 to 800 mg/cm³": (800, 400, 200), "25 to 100 mg/cm³": (100, 50, 25)}
    speeds = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
    for (label, densities), still in itertools.product(sets.items(), (True, False)):
        rows = []
        for kvp, speed in itertools.product((80.0, 100.0, 120.0, 135.0), speeds[:1] if still else speeds[1:]):
            # Where the gantry stands when the scan begins decides what motion does.
            phase = (kvp / 20 + speed / 10 * 0.17) % 1
            scanner = Scanner(
                kvp, field_of_view_mm=250.0, half_scan=True, gate_phase=0.75, rotation_s=0.35, start_phase=phase
            )
            rows += _simulated(densities, scanner, speed, sizes, realisations if still else moving)
        print(f"\n{label}, {'still' if still else 'moving at 10 to 60 mm/s'}: {len(rows)} inserts")
        _print(rows)
        print(PUBLISHED if still else PUBLISHED_MOVING)
        for key, values in (("kVp", (80, 100, 120, 135)), ("size", sizes), ("speed", speeds if not still else ())):
            for value in values:
                own = [row for row in rows if row[key] == value]
                if own:
                    print(f"{key} {value}: integrated {errors(*_columns(own, 0))}; rule {errors(*_columns(own, 2))}")


def _simulated(
    densities: tuple, scanner: Scanner, speed: float, sizes: dict[str, float], realisations: int
) -> list[dict]:
    grid = Grid((9, 192, 192), (scanner.pixel_mm, scanner.pixel_mm, 3.0), (0.0, 0.0, 0.0))
    calibration = MassCalibration("given", 1 / scanner.calcium_hu_per_mg_cm3)
    at = scanner.gate_phase * scanner.beat_s
    move = (lambda t: np.stack([speed * (t - at), 0 * t, 0 * t], -1)) if speed else None
    clean = np.full(grid.shape, 40.0, np.float32)
    places, true = [], []
    for n, (density, (size, mm)) in enumerate(itertools.product(densities, SIZES_MM.items())):
        centre = (18.0 + 28.0 * (n % 3), 18.0 + 28.0 * (n // 3), 12.0 + 0.4 * n)
        cloud = Insert(size, "HD", centre).cloud()
        cloud = replace(cloud, weights=cloud.weights * density / 800)
        add_stamps(clean, image_of_points(cloud, grid, scanner, move), 1000.0 * scanner.calcium_hu_per_mg_cm3)
        x, y, z = (c / s for c, s in zip(centre, grid.spacing_mm, strict=True))
        places.append(((x, y, z), mm / 2, mm, 16))
        true.append(math.pi * mm**3 / 4 * density / 1000)
    rows = []
    for number, (size, noise_hu) in itertools.product(range(realisations), sizes.items()):
        source = NoiseSource((number, round(scanner.kvp), round(speed), round(noise_hu)), grid, scanner)
        hu = np.rint(clean + noise_hu * np.stack([source.slice_field(k) for k in range(grid.shape[0])]))
        found, rule, above = seeds(image_on(grid, hu), places, calibration)
        masses = lesion_masses(hu, grid.spacing_mm, found, calibration, noise_hu)
        for n, mass in masses.items():
            values = (mass.integrated_mass_mg, mass.volume_fraction_mass_mg, rule[n - 1])
            error = mass.mass_standard_error_mg
            known = error is not None and values[0] >= FOUND * error
            facts = {"kVp": scanner.kvp, "size": size, "speed": speed, "found": (known, known, above[n - 1])}
            rows.append({"true": true[n - 1], "values": values, "error": error, **facts})
    return rows


def _columns(rows: list[dict], method: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["true"] for row in rows]), np.array([row["values"][method] for row in rows])


def _print(rows: list[dict]) -> None:
    for m, name in enumerate(METHODS):
        missed = np.mean([not row["found"][m] for row in rows])
        print(f"{name}: {errors(*_columns(rows, m))}; missed {missed:.2f}")
    off = np.array([(r["values"][0] - r["true"]) / r["error"] for r in rows if r["error"]])
    print(f"true mass within 1 standard error {np.mean(np.abs(off) < 1):.2f}, 1.64 {np.mean(np.abs(off) < 1.64):.2f}")


def pairs(cohort: Path, results: Path, figure: Path | None) -> None:
    """Digital pairs that were scored."""
    rows = [row for path in sorted(cohort.glob("patient_*/scan_*/truth.json")) if (row := _scored(path, results))]
    by_patient: dict[int, list[dict]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], []).append(row)
    print(f"{len(rows)} scans of {len(by_patient)} patients, {sum(r['true'] > 0 for r in rows)} with calcium")
    true = np.array([row["true"] for row in rows])
    both = [pair for pair in by_patient.values() if len(pair) == 2]
    print("mass | rank correlation with the truth: all, with calcium | RMSE, slope | relative difference (pairs)")
    for name in next(row["masses"] for row in rows if row["masses"]):
        values = np.array([row["masses"].get(name, 0.0) for row in rows])
        a, b = np.array([[scan["masses"].get(name, 0.0) for scan in pair] for pair in both]).T
        positive = (a > 0) & (b > 0)
        relative = (np.abs(a - b) / ((a + b) / 2))[positive]
        has = true > 0
        print(
            f"{name} | {spearmanr(true, values)[0]:.3f}, {spearmanr(true[has], values[has])[0]:.3f} | "
            f"{errors(true, values)} | {relative.mean():.3f}, median {np.median(relative):.3f} ({positive.sum()})"
        )
    if figure is not None:
        names = ("map: integrated", "rule: integrated", "rule: 130 HU")
        kept = true > 0
        measured = np.array([[row["masses"].get(name, 0.0) for name in names] for row in rows])[kept]
        draw(figure, names, true[kept], measured, None)


def _scored(truth_file: Path, results: Path) -> dict | None:
    truth = json.loads(truth_file.read_text(encoding="utf-8"))
    scan, name = truth_file.parent, f"{truth_file.parent.parent.name}/{truth_file.parent.name}"
    folders = [results / n for n in (name, name.replace("/", "_"), name.replace("/", "-"))]
    folder = next((f for f in folders if (f / "calcium_map.nii.gz").exists()), None)
    if folder is None:
        return None
    calibration = MassCalibration("given", 1 / truth["calcium_hu_per_mg_cm3"])
    measured = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["measured"]
    noise = None if measured is None else measured["noise_hu"]
    lesions, map_lesions = (sitk.ReadImage(folder / f"{file}.nii.gz") for file in ("lesions", "map_lesions"))
    labels = sitk.GetArrayViewFromImage(lesions)
    found_at = ((labels > 0) & (labels < Artery.UNASSIGNED)) | (sitk.GetArrayViewFromImage(map_lesions) > 0)
    if not found_at.any():
        return {"patient": truth["patient"], "true": truth["mass_mg"], "masses": {}}
    box = _about(found_at, lesions.GetSpacing())
    ct, calcium = (sitk.ReadImage(file)[box] for file in (scan / "ct.nii.gz", folder / "calcium_map.nii.gz"))
    hu, spacing = sitk.GetArrayViewFromImage(ct), ct.GetSpacing()
    labels, in_map = (sitk.GetArrayFromImage(image[box]) for image in (lesions, map_lesions))
    coronary = np.where(labels < Artery.UNASSIGNED, labels, 0).astype(np.uint8)
    others = labels > max(Artery)
    rules = ScoringRules(calibration_mg_per_mm3_hu=calibration.mg_per_cm3_per_hu / 1000)
    dense = find_lesions(ct, coronary, rules)
    # Whatever the map's lesions hold counts.
    faint = find_lesions(calcium, in_map.astype(np.uint8), replace(rules, threshold_hu=1.0, minimum_area_mm2=0.0))
    masses: dict[str, float] = {"rule: 130 HU": score_lesions(dense.lesions, spacing, rules).mass_mg}
    for kind, found, of_map in (("rule", dense, False), ("map", faint, True), ("map with rings", faint, False)):
        total = _known(lesion_masses(hu, spacing, found, calibration, noise, others, of_map).values())
        masses[f"{kind}: integrated"] = total.integrated_mass_mg
        masses[f"{kind}: volume fraction"] = total.volume_fraction_mass_mg
        masses[f"{kind}: SWCS"] = total.swcs
    return {"patient": truth["patient"], "true": truth["mass_mg"], "masses": masses}


def _about(found: np.ndarray, spacing_mm: tuple) -> tuple[slice, slice, slice]:
    """The box (i, j, k) that holds what was found, and 4 cm about it."""
    margins = (40 / mm for mm in spacing_mm)
    places = (np.flatnonzero(found.any(axes)) for axes in ((0, 1), (0, 2), (1, 2)))
    ends = [(int(p[0]), int(p[-1])) for p in places]
    return tuple(
        slice(max(0, int(a - m)), min(n, int(b + m) + 1))
        for (a, b), m, n in zip(ends, margins, found.shape[::-1], strict=True)
    )


def _known(masses: Iterable[CalciumMass]) -> CalciumMass:
    """The sum of those lesions that could be measured."""
    return summed(CalciumMass(*(0.0 if value is None else value for value in vars(mass).values())) for mass in masses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("real", "simulated", "pairs"))
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--realisations", type=int, default=100, help="of the still insert")
    parser.add_argument("--moving", type=int, default=10, help="realisations of the moving one")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.what == "real":
        real(options.figure)
    elif options.what == "simulated":
        simulated(options.realisations, options.moving)
    else:
        pairs(*options.folders, options.figure)


if __name__ == "__main__":
    main()
