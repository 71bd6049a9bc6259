"""The clinical score of a lesion by its mass, against the scores of digital patients in still scans without noise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from CACScoringLib.scoring.scores import equivalent_agatston
from CACTrainingLib.phantom import draw_patient, reference_scores, scan_grid, scan_patient
from CACTrainingLib.phantom.anatomy.points import EMPTY
from CACTrainingLib.phantom.cohort.cohort import REFERENCE_SCANNER, STILL, _heights_mm
from CACTrainingLib.phantom.scanner.response import add_stamps

FLOOR_HU = 20.0
"""Floor of the bundled map."""


def masses_in_perfect_map(patient):
    """Return the masses of the lesions of a calcium map without errors, mg [n]."""
    patient = replace(patient, vessels=EMPTY, grain=EMPTY, distractors=())
    grid = scan_grid(REFERENCE_SCANNER, _heights_mm(patient))
    scan = scan_patient(patient, REFERENCE_SCANNER, STILL, 1, grid, threads=1)
    mg_per_mm3 = np.zeros(grid.shape, np.float32)
    for stamps in scan.arteries.values():
        add_stamps(mg_per_mm3, stamps)
    hu = 1000 * REFERENCE_SCANNER.calcium_hu_per_mg_cm3 * mg_per_mm3
    labels, count = ndimage.label(hu >= FLOOR_HU, np.ones((3, 3, 3)))
    return ndimage.sum_labels(mg_per_mm3, labels, np.arange(count) + 1) * np.prod(grid.spacing_mm)


@pytest.mark.long
def test_sum_of_the_curve_is_that_of_the_scores():
    """20 patients that the curve was not fitted to."""
    scores = equivalents = 0.0
    for number in range(30_100, 30_120):
        patient = draw_patient(number, prevalence=1.0, any_size=True)
        scores += sum(score.agatston for score in reference_scores(patient).values())
        equivalents += float(np.sum(equivalent_agatston(masses_in_perfect_map(patient))))
    assert scores > 1000
    assert equivalents == pytest.approx(scores, rel=0.1)
