"""130 HU scoring of digital scan pairs beside published scan-rescan differences, and beside the true mass.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_literature.py --pairs 200 [--protocol cardiac]

The reader is ideal: candidates are the voxels at or above 130 HU where coronary calcium truly adds 10 HU.
Published, non-gated: mean absolute relative difference 71 % (Jacobs, as cited by van Velzen) to 89 % (van Velzen,
manual, pairs positive in both; 58 % automatic in the larger set); 24 % change category (Jacobs), 32 % of pairs positive
in both (van Velzen, automatic). Gated: 15 to 41 %.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.phantom.anatomy.coronaries import ARTERIES, LABELS
from CACTrainingLib.phantom.anatomy.patient import Patient, draw_patient
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.response import slice_times_s
from CACTrainingLib.phantom.scanner.simulation import DigitalScan, displacement

HEART_MM = (-75.0, 75.0)


def pair(number: int, settings: CohortSettings) -> dict:
    """Scores and truth of both scans of a patient."""
    row: dict = {"number": number, "scans": [], "mass": 0.0, "plaques": []}
    if not draw_patient(number, settings.sex, settings.prevalence).plaques:
        # The ideal reader scores nothing where there is nothing: no need to scan.
        return row
    for scan_number in (1, 2):
        start = time.perf_counter()
        patient, scan, labels = make_scan(number, scan_number, settings)
        seconds = time.perf_counter() - start
        voxel = float(np.prod(scan.grid.spacing_mm))
        calibration = 1 / (1000 * scan.scanner.calcium_hu_per_mg_cm3)
        rules = ScoringRules(calibration_mg_per_mm3_hu=calibration)
        found = find_lesions(image_on(scan.grid, scan.hu), labels.arteries, rules)
        score = score_lesions(found.lesions, scan.grid.spacing_mm, rules)
        by_artery = {a: sum(s.values.sum(dtype=float) for s in scan.arteries.get(a, [])) * voxel for a in ARTERIES}
        mass130 = {
            a: score_lesions([x for x in found.lesions if x.artery == LABELS[a]], scan.grid.spacing_mm, rules).mass_mg
            for a in ARTERIES
        }
        row["scans"].append(
            {
                "agatston": score.agatston,
                "mass130": score.mass_mg,
                "map": scan.calcium_mg_cm3.sum(dtype=float) * voxel / 1000,
                "clipped": np.maximum(scan.calcium_mg_cm3, 0).sum(dtype=float) * voxel / 1000,
                "map_by_artery": by_artery,
                "mass130_by_artery": mass130,
                "moved_mm": {a: moved_mm(patient, scan, a) for a in ARTERIES},
                "visible": any(s.visible for s in labels.slices),
                "share": float(np.mean([s.visible for s in labels.slices])),
                "seconds": seconds,
            }
        )
    row["mass"] = patient.mass_mg
    row["plaques"] = [(p.artery, p.density_mg_cm3, p.mass_mg) for p in patient.plaques]
    return row


def moved_mm(patient: Patient, scan: DigitalScan, artery: str) -> float:
    """How far the artery's calcium moves during a rotation, mean over the slices that show it."""
    shown = sorted({stamp.k for stamp in scan.arteries.get(artery, [])})
    if not shown:
        return 0.0
    move = displacement(patient, scan.pose, artery, with_heart=True)
    times = slice_times_s(scan.grid, scan.scanner)[shown]
    places = move(times[:, None] + np.linspace(-0.5, 0.5, 24) * scan.scanner.rotation_s)
    return float(np.mean(np.linalg.norm(places.max(axis=1) - places.min(axis=1), axis=1)))


def relative(a: float, b: float) -> float:
    return abs(a - b) / (0.5 * (a + b)) if a + b else 0.0


def report(rows: list[dict]) -> None:
    """Print the comparison."""
    everyone = len(rows)
    rows = [row for row in rows if row["plaques"]]
    first, second = (np.array([row["scans"][n]["agatston"] for row in rows]) for n in (0, 1))
    mass = np.array([row["mass"] for row in rows])
    scans = [scan for row in rows for scan in row["scans"]]
    quartiles = np.percentile(mass, [25, 50, 75, 95]).round(1)
    print(f"pairs {everyone}; calcium in {len(rows) / everyone:.2f}; their mass at 25, 50, 75, 95 %, mg: {quartiles}")
    seen, share = np.mean([s["visible"] for s in scans]), np.mean([s["share"] for s in scans])
    print(f"with calcium: visible in {seen:.2f} of scans and {share:.3f} of heart slices")
    both, any_ = (first > 0) & (second > 0), (first > 0) | (second > 0)
    scores = np.r_[first, second]
    quartiles = np.percentile(scores[scores > 0], [25, 50, 75]).round(0)
    print(f"Agatston above 0 in both scans {both.sum()}, in one {(any_ & ~both).sum()}; quartiles {quartiles}")
    for name in ("agatston", "mass130", "map", "clipped"):
        differences = np.array([relative(*(s[name] for s in row["scans"])) for row in rows])
        d = differences[both]
        print(
            f"  {name}: relative difference, positive in both, mean {d.mean():.2f} median {np.median(d):.2f}; "
            f"positive in any, mean {differences[any_].mean():.2f}"
        )
    change = np.array([category(x) != category(y) for x, y in zip(first, second, strict=True)])
    print(
        f"another category (0-10, 11-100, 101-400, > 400) in {change.sum() / everyone:.2f} of all, {change.mean():.2f} "
        f"of those with calcium, {change[any_].mean():.2f} of those scoring, {change[both].mean():.2f} scoring in both"
    )
    report_masses(rows)
    seconds = np.median([s["seconds"] for s in scans])
    print(f"seconds per scan of {HEART_MM[1] - HEART_MM[0]:.0f} mm in one process: median {seconds:.2f}")


def report_masses(rows: list[dict]) -> None:
    """Mass by 130 HU and by the map's integral over the true mass, per artery, density, size and motion."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for scan in row["scans"]:
            for artery in ARTERIES:
                own = [p for p in row["plaques"] if p[0] == artery]
                true = sum(p[2] for p in own)
                if not own:
                    continue
                density = sum(p[1] * p[2] for p in own) / true
                pair_ = (scan["mass130_by_artery"][artery] / true, scan["map_by_artery"][artery] / true)
                size = np.searchsorted((1, 5, 20), true)
                level = np.searchsorted((250, 450), density)
                moved = np.searchsorted((4, 9), scan["moved_mm"][artery])
                for key in (
                    f"artery {artery}",
                    ("mass below 1 mg", "mass 1 to 5 mg", "mass 5 to 20 mg", "mass above 20 mg")[size],
                    ("density below 250", "density 250 to 450", "density above 450 mg/cm³")[level],
                    ("motion below 4 mm", "motion 4 to 9 mm", "motion above 9 mm in a rotation")[moved],
                ):
                    groups.setdefault(key, []).append(pair_)
    print("over the true mass: by 130 HU (median, mean), by the map (median, mean, sd)")
    for key in sorted(groups):
        v = np.array(groups[key])
        print(
            f"  {key} ({len(v)}): {np.median(v[:, 0]):.2f}, {v[:, 0].mean():.2f} | "
            f"{np.median(v[:, 1]):.2f}, {v[:, 1].mean():.2f}, {v[:, 1].std():.2f}"
        )


def category(agatston: float) -> int:
    """The four risk categories of van Velzen."""
    return int(np.searchsorted((10.5, 100.5, 400.5), agatston))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--protocol", default="radiotherapy")
    parser.add_argument("--prevalence", type=float, default=None)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    settings = CohortSettings(arguments.protocol, prevalence=arguments.prevalence, z_range_mm=HEART_MM)
    rows = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for row in pool.map(partial(pair, settings=settings), range(arguments.pairs)):
            rows.append(row)
            if len(rows) % 50 == 0 or len(rows) == arguments.pairs:
                report(rows)


if __name__ == "__main__":
    main()
