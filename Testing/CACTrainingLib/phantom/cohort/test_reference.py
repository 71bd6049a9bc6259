"""Reference score of a still, noise-free scan."""

from dataclasses import replace

import numpy as np
import pytest

from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan, patient_of, reference_scores
from CACTrainingLib.phantom.cohort.export import truth_of

NUMBER = 61008
"""Patient with an RCA plaque of 18.6 mg."""


@pytest.fixture(scope="module")
def patient():
    return draw_patient(NUMBER, prevalence=1.0)


@pytest.mark.long
def test_score_is_the_same_each_time_and_grows_with_density(patient):
    scores = reference_scores(patient)
    assert {artery for artery, score in scores.items() if score.agatston} == {"RCA"}
    assert reference_scores(patient) == scores
    # A threshold loses the plaque's faint rim.
    assert 0.3 * patient.mass_mg < scores["RCA"].mass_mg < 1.2 * patient.mass_mg
    denser = replace(patient, plaques=tuple(replace(p, density_mg_cm3=1.5 * p.density_mg_cm3) for p in patient.plaques))
    assert reference_scores(denser)["RCA"].agatston > 1.2 * scores["RCA"].agatston


@pytest.mark.long
@pytest.mark.parametrize(
    "drawn",
    [
        {"prevalence": 1.0},
        {"prevalence": 1.0, "any_size": True},
        {"everywhere": True, "protocol": "chest-varied"},
    ],
)
def test_patient_follows_from_the_truth_of_a_scan(drawn):
    settings = CohortSettings(z_range_mm=(-20.0, 20.0), **drawn)
    patient, scan, labels = make_scan(NUMBER, 1, settings)
    truth = truth_of(patient, scan, labels, 1)
    again = patient_of(truth)
    assert again.plaques == patient.plaques
    assert np.array_equal(again.body.heart_centre_mm, patient.body.heart_centre_mm)
    assert again.body.heart_semi_axes_mm == patient.body.heart_semi_axes_mm
    changed = {**truth, "lesions": truth["lesions"] * 2}
    assert patient_of(changed) is None
    assert patient_of({name: value for name, value in truth.items() if name != "body"}) is None
