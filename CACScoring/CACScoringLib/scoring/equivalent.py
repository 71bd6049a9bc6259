"""The Agatston score that calcium of a known mass would have in a still scan as the clinical rule was made for.

The calcium map has no threshold, so sums over it are no Agatston scores. But the clinical score of a plaque follows
from its mass, in a soft kernel, slices of 3 mm and 120 kVp: large ones score in proportion to it, small ones lose to
partial volume what stays below 130 HU. The curve is that of digital plaques, each imaged alone without noise or motion
in soft tissue (179 plaques of 0.2 to 45 mg and 170 to 950 mg/cm³). Of plaques
of one mass the dense ones score higher: from 4 to 16 mg, half or twice as much is common.
"""

from __future__ import annotations

import numpy as np

AGATSTON_PER_MG = 4.2
HALF_MG, STEEPNESS = 7.0, 2.4
"""A plaque of this mass loses half of its score to partial volume, and how fast that changes with mass."""

HU_PER_MG_CM3_AT_120_KVP = 1.385
"""1 / (1000 × 0.000722048 mg/(mm³·HU)), the published mass calibration of the Canon scan of the QRM insert."""

_KVP = (70.0, 80.0, 100.0, 120.0, 135.0)
_THRESHOLD_HU = (207.0, 177.0, 145.0, 130.0, 119.0)


def equivalent_agatston(mass_mg: float | np.ndarray) -> float | np.ndarray:
    """Agatston score of one plaque, by its mass in mg of hydroxyapatite."""
    mass = np.maximum(mass_mg, 0.0)
    powered = mass**STEEPNESS
    return AGATSTON_PER_MG * mass * powered / (powered + HALF_MG**STEEPNESS)


def calcium_hu_per_mg_cm3(kvp: float) -> float:
    """HU that 1 mg/cm³ of hydroxyapatite adds to water at a tube voltage; errors as of `relative_calcium_hu`."""
    return HU_PER_MG_CM3_AT_120_KVP * relative_calcium_hu(kvp)


def relative_calcium_hu(kvp: float) -> float:
    """HU of calcium at a tube voltage against 120 kVp.

    The ratio of the voltage's equivalent threshold to 130 HU (Gräni 2018, 10.1093/ehjci/jey019, as coded by peers:
    (2nd)), linear between the published voltages. Raises ValueError outside 70 to 140 kVp.
    """
    if not 70.0 <= kvp <= 140.0:
        raise ValueError(f"Tube voltage {kvp:g} kVp: the calcium's HU are known from 70 to 140 kVp only.")
    return float(np.interp(kvp, _KVP, _THRESHOLD_HU)) / 130.0


def usual_calibration(kvp: float | None) -> float:
    """Mass calibration in mg/(mm³·HU) of a scan without one of its own: by its tube voltage, 120 kVp where that is
    unknown or beyond what is known."""
    known = kvp is not None and 70.0 <= kvp <= 140.0
    return 1 / (1000 * calcium_hu_per_mg_cm3(kvp if known and kvp is not None else 120.0))
