"""HU of tissues and calcium.

Tissue values at 120 kVp: middles of the textbook ranges for unenhanced scans (Bushberg et al., The Essential Physics of
Medical Imaging, 3rd ed.; (2nd): not checked against the book), compared with real chests.
"""

from __future__ import annotations

GAS_HU = -1000.0
LUNG_HU = -860.0
FAT_HU = -100.0
CEREBROSPINAL_FLUID_HU = 15.0
BLOOD_HU = 42.0
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
"""Steel and cobalt alloys as clipped by the detector's range and the software; illustrative."""
