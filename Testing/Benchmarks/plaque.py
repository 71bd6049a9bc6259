"""Compare the coronary calcium of digital patients with that which experts outlined in real people.

    python Testing/Benchmarks/plaque.py MASKS CSV [--patients N]

MASKS is the folder of the masks of DeepCAC (1 heart, 3 coronary calcium; Zeleznik 2021). Digital patients are drawn as
those of training, with numbers that no training or study has, and scanned on the same voxels in a breath-hold without
gating. Their calcium is what reaches 130 HU where an artery's adds 10 HU. Those with TRUE_MG are scanned, those with
SIMILAR_MM3 in the image are compared. Components share faces of voxels; single voxels are left out. Length, width and
thickness are the extents along the principal axes, voxels included, largest first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, product
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from by_scanner import origin, write_rows
from scipy import ndimage

from CACTrainingLib.phantom import (
    PROTOCOLS,
    annotate,
    draw_pair,
    draw_patient,
    posed_frame,
    scan_grid,
    scan_patient,
    stream,
)

FIRST_NUMBER, PROTOCOL, SEED = 9_950_000, "chest-varied", 0
VOXEL_MM = (2.5, 0.68, 0.68)
"""Voxels of the masks, (k, j, i)."""
HALF_MM = 90.0
"""Half of the height that is scanned about the heart's centre."""
TRUE_MG, SIMILAR_MM3 = (10, 200), (100, 1200)
OF_HEARTS = ("volume of calcium per heart, mm³", "volume of the heart, ml", "components per heart")
LONGEST = "longest component of a heart, mm"
OF_COMPONENTS = ("volume, mm³", "length, mm", "width, mm", "thickness, mm", "depth below the heart's surface, mm")
DECIMALS = dict.fromkeys((LONGEST, "length, mm", "width, mm", "thickness, mm"), 1)

Heart = tuple[tuple[float, ...], np.ndarray]
"""Values of OF_HEARTS; values of OF_COMPONENTS [components, 5]."""


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--patients", type=int, default=16)
    arguments = parser.parse_args()
    real = {}
    for file in sorted(arguments.masks.glob("*.nrrd")):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        heart = measured((labels == 1) | (labels == 3), labels == 3)
        if len(heart[1]):
            real[file.name.split("_")[0][-4:]] = heart
    digital: list[Heart] = []
    for number in count(FIRST_NUMBER):
        heart = _digital_heart(number)
        if heart is not None and SIMILAR_MM3[0] <= heart[0][0] <= SIMILAR_MM3[1]:
            digital.append(heart)
            print(f"{number} done", flush=True)
        if len(digital) == arguments.patients:
            break
    settings = f"{len(digital)} patients of similar volume of {FIRST_NUMBER} to {number}, {PROTOCOL}, surroundings"
    about = origin("Testing/Benchmarks/plaque.py MASKS CSV", settings, SEED)
    columns = {"real": list(real.values()), "digital": digital}
    rows = []
    for name in (*OF_HEARTS, LONGEST, *OF_COMPONENTS):
        row: dict[str, object] = {"median (quartiles)": name}
        row |= {column: _stated(_values(hearts, name), name) for column, hearts in columns.items()}
        row[f"by heart ({', '.join(real)})"] = ", ".join(
            f"{np.median(_values([heart], name)):.{DECIMALS.get(name, 0)}f}" for heart in real.values()
        )
        rows.append({**row, **about})
    numbers = {"median (quartiles)": "hearts; components", f"by heart ({', '.join(real)})": ""}
    for column, hearts in columns.items():
        numbers[column] = f"{len(hearts)}; {sum(len(parts) for _, parts in hearts)}"
    write_rows(arguments.csv, [*rows, {**numbers, **about}])


def measured(heart: np.ndarray, calcium: np.ndarray) -> Heart:
    """Measure masks [k, j, i] of a heart and its calcium."""
    labels, number_of_parts = ndimage.label(calcium)
    box = ndimage.find_objects(heart.astype(np.uint8))[0]
    depth = np.zeros(heart.shape, np.float32)
    depth[box] = ndimage.distance_transform_edt(np.pad(heart[box], 1), VOXEL_MM)[1:-1, 1:-1, 1:-1]
    voxel_mm3 = float(np.prod(VOXEL_MM))
    parts = []
    for number in range(1, number_of_parts + 1):
        places = np.argwhere(labels == number)
        if len(places) > 1:
            sides = _extents(places * np.array(VOXEL_MM))
            parts.append((len(places) * voxel_mm3, *sides, float(depth[tuple(places.T)].mean())))
    components = np.array(parts).reshape(-1, len(OF_COMPONENTS))
    return (components[:, 0].sum(), heart.sum() * voxel_mm3 / 1000, len(parts)), components


def _extents(places_mm: np.ndarray) -> Sequence[float]:
    """Return the extents of voxels along their principal axes, largest first. places_mm: Centres [n, 3]."""
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * VOXEL_MM
    points = (places_mm[:, None] + corners).reshape(-1, 3)
    axes = np.linalg.eigh(np.cov(points.T))[1]
    return sorted(np.ptp(points @ axes, axis=0), reverse=True)


def _digital_heart(number: int) -> Heart | None:
    """Scan a digital patient and measure its calcium; None if its true calcium is not of TRUE_MG."""
    patient = draw_patient(number, diverse=True, surroundings=True)
    if not TRUE_MG[0] <= sum(plaque.mass_mg for plaque in patient.plaques) <= TRUE_MG[1]:
        return None
    scanner, pose = draw_pair(PROTOCOLS[PROTOCOL], stream(number, 80))[0]
    scanner = replace(
        scanner, slice_thickness_mm=VOXEL_MM[0], slice_spacing_mm=VOXEL_MM[0], field_of_view_mm=VOXEL_MM[1] * 512
    )
    height = posed_frame(patient.body, pose).centre_mm[2] + pose.table_shift_mm[2]
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(scanner, (height - HALF_MM, height + HALF_MM)))
    arteries = annotate(scan, np.random.default_rng(SEED)).arteries
    return measured(scan.heart, (arteries > 0) & (scan.hu >= 130))


def _values(hearts: Sequence[Heart], name: str) -> np.ndarray:
    """Return a measure of each heart or of each component."""
    if name in OF_HEARTS:
        return np.array([values[OF_HEARTS.index(name)] for values, _ in hearts])
    if name == LONGEST:
        return np.array([parts[:, OF_COMPONENTS.index("length, mm")].max() for _, parts in hearts])
    return np.concatenate([parts[:, OF_COMPONENTS.index(name)] for _, parts in hearts])


def _stated(values: np.ndarray, name: str) -> str:
    middle, low, high = (f"{value:.{DECIMALS.get(name, 0)}f}" for value in np.percentile(values, (50, 25, 75)))
    return f"{middle} ({low}–{high})"


if __name__ == "__main__":
    main()
