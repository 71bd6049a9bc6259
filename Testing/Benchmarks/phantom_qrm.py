"""The simulated QRM insert against the real scan of it, insert by insert.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_qrm.py [--realisations 20]

Taken from the real scan, and nothing else: the inserts' places in the slice (centroids of the large and medium ones;
the small ones lie on the line of their group), the phantom's height and tilt against the slices (from the share of
each large insert's signal in slices 4, 5 and 6), the background, the noise, and the width of the kernel and of the
focal spot (soft kernel: the scan's noise spectrum and the edge of the large dense insert). The calcium's HU come
from the scan's published mass calibration, not from its voxels. Geometry and densities are the published ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.phantom.scanner.qrm import Insert, scan_of_inserts
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner

DATA = Path(os.environ.get("CAC_REAL_CT_DIR", Path(__file__).parents[3] / "shared" / "data"))
SCAN = DATA / "qrm_phantom" / "canon_large_rep1_120kVp_3mm.nii.gz"
CALIBRATION = 0.000722048
PIXEL_MM, SLICE_MM = 0.488, 3.0
# size, density, centre (column, row) in the scan, search radius in pixels, true mass in mg
INSERTS = (
    ("large", "HD", (180.33, 220.13), 14, 78.5),
    ("medium", "HD", (205.66, 220.88), 9, 17.0),
    ("small", "HD", (230.9, 220.7), 6, 0.6),
    ("large", "MD", (291.26, 150.75), 14, 39.3),
    ("medium", "MD", (279.82, 173.5), 9, 8.5),
    ("small", "MD", (267.5, 194.5), 6, 0.3),
    ("large", "LD", (299.07, 281.67), 14, 19.6),
    ("medium", "LD", (285.5, 260.0), 9, 4.2),
    ("small", "LD", (271.5, 239.0), 6, 0.2),
)


def height_mm(volume: np.ndarray, centre: tuple[float, float]) -> float:
    """Height of a large insert's middle above slice 5's, from its signal in slices 4 to 6."""
    rows, columns = np.mgrid[: volume.shape[1], : volume.shape[2]]
    distance = np.hypot(columns - centre[0], rows - centre[1])
    signal = [
        (volume[k][distance < 12] - np.median(volume[k][(distance > 16) & (distance < 24)])).sum() for k in (4, 5, 6)
    ]
    return SLICE_MM * (signal[2] - signal[0]) / sum(signal)


def ring_background_hu(volume: np.ndarray) -> float:
    """Median HU in rings around the large and medium inserts, slices 2 to 9."""
    rows, columns = np.mgrid[: volume.shape[1], : volume.shape[2]]
    rings = np.zeros(volume.shape[1:], bool)
    for size, _, (x, y), radius, _ in INSERTS:
        distance = np.hypot(columns - x, rows - y)
        rings |= (size != "small") & (distance > radius) & (distance < radius + 5)
    for _, _, (x, y), _, _ in INSERTS:
        rings &= np.hypot(columns - x, rows - y) > 9
    return float(np.median(volume[2:9, rings]))


def scores(volume: np.ndarray, centre: tuple[float, float], radius: int) -> tuple[float, float, float, float]:
    """Agatston, volume mm³, mass mg by the 130 HU rule, and peak HU, around one insert in slices 3 to 7."""
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((PIXEL_MM, PIXEL_MM, SLICE_MM))
    rows, columns = np.mgrid[: volume.shape[1], : volume.shape[2]]
    region = np.zeros(volume.shape, np.uint8)
    region[3:8, np.hypot(columns - round(centre[0]), rows - round(centre[1])) <= radius] = 1
    rules = ScoringRules(calibration_mg_per_mm3_hu=CALIBRATION)
    found = find_lesions(image, region, rules)
    score = score_lesions(found.lesions, image.GetSpacing(), rules)
    return score.agatston, score.volume_mm3, score.mass_mg or 0.0, float(volume[region == 1].max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--realisations", type=int, default=20)
    parser.add_argument("--sigma", type=float, help="another kernel width, mm (sensitivity)")
    arguments = parser.parse_args()
    real = sitk.GetArrayFromImage(sitk.ReadImage(SCAN)).astype(np.float32)
    large = [insert for insert in INSERTS if insert[0] == "large"]
    heights = [height_mm(real, insert[2]) for insert in large]
    design = np.array([[1.0, *insert[2]] for insert in large])
    plane = np.linalg.solve(design, heights)
    background = ring_background_hu(real)
    noise = float(real[[1, 2, 3, 8, 9], 190:254, 200:264].std())
    print("height of the large inserts above slice 5, mm:", np.round(heights, 2))
    print(f"background {background:.1f} HU, noise {noise:.1f} HU")
    scanner = Scanner(field_of_view_mm=512 * PIXEL_MM, noise_hu=noise, hu_per_mg_cm3=1 / (1000 * CALIBRATION))
    grid = Grid((9, 192, 192), (PIXEL_MM, PIXEL_MM, SLICE_MM), (140 * PIXEL_MM, 120 * PIXEL_MM, 0.0))
    inserts = []
    for size, density, (x, y), _, _ in INSERTS:
        z = 5 * SLICE_MM + float(plane @ (1.0, x, y))
        inserts.append(Insert(size, density, (x * PIXEL_MM, y * PIXEL_MM, z)))
    volumes = [scan_of_inserts(inserts, grid, scanner, background, seed) for seed in range(arguments.realisations)]
    ideal = scan_of_inserts(inserts, grid, scanner, background, None)
    head = (
        "insert",
        "true mg",
        "Agatston real",
        "sim (sd)",
        "volume real",
        "sim",
        "mass real",
        "sim",
        "A %",
        "V %",
        "M %",
    )
    print(" | ".join(head) + " | peak real, sim | found in share of simulations")
    for size, density, centre, radius, true in INSERTS:
        a = scores(real, centre, radius)
        local = (centre[0] - 140, centre[1] - 120)
        each = np.array([scores(np.rint(v), local, radius) for v in volumes])
        b, sd = each.mean(axis=0), each.std(axis=0)
        error = [f"{100 * (s / r - 1):+.0f}" if r else "-" for r, s in zip(a[:3], b[:3], strict=True)]
        print(
            f"{size} {density} | {true} | {a[0]:.1f} | {b[0]:.1f} ({sd[0]:.1f}) | {a[1]:.1f} | {b[1]:.1f} | {a[2]:.2f} "
            f"| {b[2]:.2f} | {' | '.join(error)} | {a[3]:.0f}, {b[3]:.0f} | {np.mean(each[:, 0] > 0):.2f} "
            f"| noise-free A {scores(ideal, local, radius)[0]:.1f}"
        )


if __name__ == "__main__":
    main()
