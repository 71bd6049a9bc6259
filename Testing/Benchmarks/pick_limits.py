"""How large and how long coronary lesions grow at 130 HU, for the limits of a pick (`picking.PickLimits`).

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/pick_limits.py --patients 60

Digital patients, each with the plaques of eight draws, so that calcium is as confluent as it ever gets; scanned by the
radiotherapy protocol with 3 mm slices. A lesion is what touches at or above 130 HU where coronary calcium adds 25 HU or
more. Length: between its two voxels that are furthest apart.
"""

import argparse
from dataclasses import replace

import numpy as np
from artery_suggestions import patient_with_many_plaques
from scipy.spatial.distance import pdist

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACTrainingLib.phantom.anatomy.patient import stream
from CACTrainingLib.phantom.cohort.export import as_ct_scan
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.response import add_stamps
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

Z_RANGE_MM = (-110.0, 140.0)
LEAST_HU = 25.0


def lesions_of(number: int) -> list[tuple[float, float]]:
    """Volume (mm³) and length (mm) of each coronary lesion of a patient."""
    patient = patient_with_many_plaques(number)
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(number, 20))[number % 2]
    scanner = replace(scanner, slice_thickness_mm=3.0, slice_spacing_mm=3.0)
    scan = scan_patient(patient, scanner, pose, 1, scan_grid(patient, scanner, pose, Z_RANGE_MM), threads=1)
    ct = as_ct_scan(scan, patient)
    added = np.zeros(scan.grid.shape, np.float32)
    for stamps in scan.arteries.values():
        add_stamps(added, stamps, 1000 * scan.scanner.calcium_hu_per_mg_cm3)
    coronary = (added >= LEAST_HU).astype(np.uint8) * np.uint8(Artery.UNASSIGNED)
    found = find_lesions(ct.image, coronary, ScoringRules())
    spacing = np.array(ct.image.GetSpacing()[::-1])
    sizes = []
    for lesion in found.lesions:
        places = np.argwhere(found.id_map == lesion.id) * spacing
        length = float(pdist(places).max()) if len(places) > 1 else 0.0
        sizes.append((lesion.voxels * float(spacing.prod()), length))
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=830000)
    parser.add_argument("--patients", type=int, default=60)
    options = parser.parse_args()
    sizes = np.array([size for n in range(options.first, options.first + options.patients) for size in lesions_of(n)])
    print(f"{options.patients} patients, {len(sizes)} lesions")
    for name, values in zip(("volume mm³", "length mm"), sizes.T, strict=True):
        median, most = np.percentile(values, [50, 99])
        print(f"{name:12s}median {median:.1f}, 99 % {most:.1f}, largest {values.max():.1f}")


if __name__ == "__main__":
    main()
