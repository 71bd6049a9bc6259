"""What tissues and calcium measure in HU.

Tissue values at 120 kVp. They are the middle of the ranges that textbooks of CT give for unenhanced scans (the HU
ranges of Bushberg et al., The Essential Physics of Medical Imaging, 3rd ed.; (2nd): not checked against the book)
and were compared with what the real chests show (`Testing/Benchmarks/phantom_texture.py`).
"""

from __future__ import annotations

import numpy as np

AIR_HU = -1000.0
LUNG_HU = -860.0
FAT_HU = -100.0
WATER_HU = 0.0
CEREBROSPINAL_FLUID_HU = 15.0
OESOPHAGUS_HU = 35.0
BLOOD_HU = 42.0
MYOCARDIUM_HU = 46.0
MUSCLE_HU = 55.0
LIVER_HU = 58.0
GLANDULAR_HU = 35.0
SKIN_HU = 20.0
DISC_HU = 75.0
CARTILAGE_HU = 100.0
SPONGIOSA_HU = 170.0
RIB_MARROW_HU = 190.0
CORTICAL_HU = 800.0
METAL_HU = 20000.0
"""Steel and cobalt alloys, less what the detector's range and the software cut off; shape."""

CALCIUM_HU_PER_MG_CM3_AT_120_KVP = 1.385
"""1 / (1000 × 0.000722048 mg/(mm³·HU)), the published mass calibration of the Canon scan of the QRM insert."""

_KVP = (70.0, 80.0, 100.0, 120.0, 135.0)
_THRESHOLD_HU = (207.0, 177.0, 145.0, 130.0, 119.0)


def calcium_hu_per_mg_cm3(kvp: float) -> float:
    """HU that 1 mg/cm³ of hydroxyapatite adds to water at a tube voltage.

    The 120 kVp value times the ratio of the voltage's equivalent threshold to 130 HU (Gräni 2018,
    10.1093/ehjci/jey019, as coded by peers: (2nd)), linear between the published voltages. Raises ValueError
    outside 70 to 140 kVp.
    """
    if not 70.0 <= kvp <= 140.0:
        raise ValueError(f"Tube voltage {kvp:g} kVp: the calcium's HU are known from 70 to 140 kVp only.")
    ratio = np.interp(kvp, _KVP, _THRESHOLD_HU) / 130.0
    return CALCIUM_HU_PER_MG_CM3_AT_120_KVP * float(ratio)
