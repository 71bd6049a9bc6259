"""Reference score of a still, noise-free scan, and the clinical score of a lesion by its mass."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from CACScoringLib.scoring.scores import equivalent_agatston
from CACTrainingLib.phantom import scan_grid, scan_patient
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.anatomy.points import EMPTY
from CACTrainingLib.phantom.cohort import cohort
from CACTrainingLib.phantom.cohort.export import truth_of
from CACTrainingLib.phantom.scanner.response import add_stamps

NUMBER = 61008
"""Patient with an RCA plaque of 18.6 mg."""


@pytest.fixture(scope="module")
def patient():
    return draw_patient(NUMBER, prevalence=1.0)


@pytest.mark.long
def test_score_is_the_same_each_time_and_grows_with_density(patient):
    scores = cohort.reference_scores(patient)
    assert {artery for artery, score in scores.items() if score.agatston} == {"RCA"}
    assert cohort.reference_scores(patient) == scores
    # A threshold loses the plaque's faint rim.
    assert 0.3 * patient.mass_mg < scores["RCA"].mass_mg < 1.2 * patient.mass_mg
    denser = replace(patient, plaques=tuple(replace(p, density_mg_cm3=1.5 * p.density_mg_cm3) for p in patient.plaques))
    assert cohort.reference_scores(denser)["RCA"].agatston > 1.2 * scores["RCA"].agatston


@pytest.mark.long
@pytest.mark.parametrize(
    "drawn",
    [
        {"prevalence": 1.0},
        {"prevalence": 1.0, "diverse": True},
        {"everywhere": True, "protocol": "chest-varied"},
        {"everywhere": True, "difficulties": ("pieces",)},
    ],
)
def test_patient_follows_from_the_truth_of_a_scan(drawn):
    settings = cohort.CohortSettings(z_range_mm=(-20.0, 20.0), **drawn)
    patient, scan, labels = cohort.make_scan(NUMBER, 1, settings)
    truth = truth_of(patient, scan, labels, 1)
    again = cohort.patient_of(truth)
    assert again.plaques == patient.plaques
    assert np.array_equal(again.body.heart_centre_mm, patient.body.heart_centre_mm)
    assert again.body.heart_semi_axes_mm == patient.body.heart_semi_axes_mm
    changed = {**truth, "lesions": truth["lesions"] * 2}
    assert cohort.patient_of(changed) is None
    assert cohort.patient_of({name: value for name, value in truth.items() if name != "body"}) is None


FLOOR_HU = 20.0
"""Floor of the bundled map."""


def masses_in_perfect_map(patient):
    """Return the masses of the lesions of a calcium map without errors, mg [n]."""
    patient = replace(patient, vessels=EMPTY, grain=EMPTY, distractors=())
    grid = scan_grid(cohort.REFERENCE_SCANNER, cohort._heights_mm(patient))
    scan = scan_patient(patient, cohort.REFERENCE_SCANNER, cohort.STILL, 1, grid)
    mg_per_mm3 = np.zeros(grid.shape, np.float32)
    for stamps in scan.arteries.values():
        add_stamps(mg_per_mm3, stamps)
    hu = 1000 * cohort.REFERENCE_SCANNER.calcium_hu_per_mg_cm3 * mg_per_mm3
    labels, count = ndimage.label(hu >= FLOOR_HU, np.ones((3, 3, 3)))
    return ndimage.sum_labels(mg_per_mm3, labels, np.arange(count) + 1) * np.prod(grid.spacing_mm)


@pytest.mark.long
def test_sum_of_the_curve_is_that_of_the_scores():
    """20 patients that the curve was not fitted to."""
    scores = equivalents = 0.0
    for number in range(30_100, 30_120):
        patient = draw_patient(number, prevalence=1.0, diverse=True)
        scores += sum(score.agatston for score in cohort.reference_scores(patient).values())
        equivalents += float(np.sum(equivalent_agatston(masses_in_perfect_map(patient))))
    assert scores > 1000
    assert equivalents == pytest.approx(scores, rel=0.1)
