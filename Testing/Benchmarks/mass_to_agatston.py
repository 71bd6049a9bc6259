"""The Agatston score of digital plaques by their mass, each imaged alone without noise or motion.

Run from the repository's root, about 3 minutes:

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/mass_to_agatston.py [PATIENTS]

The curve of `scoring/equivalent.py` is that of these plaques: by the reference protocol (soft kernel, 120 kVp, slices
of 3 mm at two places), in surroundings of -40, 0 and 30 HU, as fat, wall and blood make them. Patients 96000 on, whose
hearts are drawn, for a plaque alone knows nothing of the heart.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
from scipy.optimize import minimize

from CACScoringLib.scoring.equivalent import AGATSTON_PER_MG, HALF_MG, STEEPNESS, equivalent_agatston
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.phantom.anatomy.heart import Heart
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.anatomy.points import POINT_STEP_MM, PointCloud
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.cohort.reference import REFERENCE_SCANNER, STILL
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import Grid

SURROUNDINGS_HU = (-40.0, 0.0, 30.0)
MARGIN_MM = 8.0
EDGES_MG = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 1e9)


def plaques_of(number: int) -> list[tuple[float, float, float]]:
    """Mass in mg, density in mg/cm³, and mean Agatston score of each plaque of a patient."""
    patient = draw_patient(number, None, 1.0, "drawn")
    frame = Heart(patient.body, STILL).frame
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    return [
        (p.mass_mg, p.density_mg_cm3, _agatston(p.cloud(vessels[p.vessel], POINT_STEP_MM), frame.to_lps))
        for p in patient.plaques
    ]


def _agatston(cloud: PointCloud, to_lps) -> float:
    placed = PointCloud(to_lps(cloud.positions_mm), cloud.weights)
    low, high = placed.positions_mm.min(0) - MARGIN_MM, placed.positions_mm.max(0) + MARGIN_MM
    spacing = (REFERENCE_SCANNER.pixel_mm, REFERENCE_SCANNER.pixel_mm, REFERENCE_SCANNER.slice_spacing_mm)
    shape = tuple(int(n) + 1 for n in ((high - low) / spacing)[::-1])
    grid = Grid(shape, spacing, tuple(low))
    added = np.zeros(shape, np.float32)
    stamps = image_of_points(placed, grid, REFERENCE_SCANNER, None)
    add_stamps(added, stamps, 1000.0 * REFERENCE_SCANNER.calcium_hu_per_mg_cm3)
    everywhere, rules = np.ones(shape, np.uint8), ScoringRules()
    found = [find_lesions(image_on(grid, added + np.float32(hu)), everywhere, rules) for hu in SURROUNDINGS_HU]
    return float(np.mean([score_lesions(own.lesions, spacing, rules).agatston for own in found]))


def main() -> None:
    """Measure, fit and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    mass, density, agatston = np.array([row for n in range(96000, 96000 + count) for row in plaques_of(n)]).T
    print(f"{len(mass)} plaques of {count} patients, {density.min():.0f} to {density.max():.0f} mg/cm³")
    for low, high in itertools.pairwise(EDGES_MG):
        own = (mass >= low) & (mass < high)
        if own.any():
            middle, curve = agatston[own].mean(), np.mean(equivalent_agatston(mass[own]))
            spread = np.percentile(agatston[own], (10, 90))
            shown = f"mean {middle:.1f} ({spread[0]:.1f} to {spread[1]:.1f}), curve {curve:.1f}"
            print(f"{low:g} to {high:g} mg: {own.sum()} plaques, {shown}")

    def loss(values: np.ndarray) -> float:
        slope, half, steepness = np.abs(values)
        curve = slope * mass * mass**steepness / (mass**steepness + half**steepness)
        off = (agatston.sum() - curve.sum()) / agatston.sum()
        return float(np.mean((np.log1p(agatston) - np.log1p(curve)) ** 2) + 0.2 * off**2)

    fitted = np.abs(minimize(loss, [AGATSTON_PER_MG, HALF_MG, STEEPNESS], method="Nelder-Mead").x)
    print(f"fitted now: {fitted.round(2)}; in use: {AGATSTON_PER_MG}, {HALF_MG}, {STEEPNESS}")


if __name__ == "__main__":
    main()
