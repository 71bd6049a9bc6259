"""The QRM cardiac calcification insert: nine cylinders of hydroxyapatite whose mass is known.

Published geometry (McCollough 2007, 10.1148/radiol.2432050808): diameter and length 5, 3 and 1 mm; 800, 400 and
200 mg/cm³. Where they lie in a given scan is not published, so places are given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy.points import POINT_STEP_MM, PointCloud, cylinder
from .noise import NoiseSource
from .response import add_stamps, image_of_points
from .scanner import Grid, Scanner

DENSITIES_MG_CM3 = {"HD": 800.0, "MD": 400.0, "LD": 200.0}
SIZES_MM = {"large": 5.0, "medium": 3.0, "small": 1.0}


@dataclass(frozen=True)
class Insert:
    """One cylinder: size and density by name, centre in mm; its axis is the scanner's."""

    size: str
    density: str
    centre_mm: tuple[float, float, float]

    def cloud(self, step_mm: float = POINT_STEP_MM) -> PointCloud:
        """The cylinder as points that weigh mg."""
        size = SIZES_MM[self.size]
        return cylinder(
            self.centre_mm, (0, 0, 1), size, size, DENSITIES_MG_CM3[self.density] / 1000, min(step_mm, size / 6)
        )


def scan_of_inserts(
    inserts: list[Insert], grid: Grid, scanner: Scanner, background_hu: float, seed: int | None
) -> np.ndarray:
    """HU [k, j, i], float32, of the inserts in a uniform body; without noise when the seed is None."""
    hu = np.full(grid.shape, background_hu, np.float32)
    for insert in inserts:
        stamps = image_of_points(insert.cloud(), grid, scanner)
        add_stamps(hu, stamps, 1000.0 * scanner.calcium_hu_per_mg_cm3)
    if seed is not None:
        noise = NoiseSource((seed,), grid, scanner)
        for k in range(grid.shape[0]):
            hu[k] += scanner.noise_hu * noise.slice_field(k)
    return hu
