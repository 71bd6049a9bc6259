"""Agatston score, volume and mass of the lesions in a mask of one's own: own_mask.py CT MASK"""

import sys

import CACScoringLib as cac

scored = cac.agatston(*sys.argv[1:])

print(f"Agatston {scored.total.agatston:.1f}, volume {scored.total.volume_mm3:.1f} mm³")
for lesion in scored.lesions:
    print(f"{lesion.site.key}: {lesion.voxels} voxels, peak {lesion.peak_hu:.0f} HU")
