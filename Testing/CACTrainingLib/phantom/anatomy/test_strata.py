"""Patients chosen by their true calcium."""

import pytest

from CACTrainingLib.phantom.anatomy import strata
from CACTrainingLib.phantom.anatomy.demographics import AGATSTON_PER_MG
from CACTrainingLib.phantom.anatomy.patient import HEART_SHAPES, draw_patient
from CACTrainingLib.phantom.anatomy.strata import chosen_patients


def test_every_stratum_has_its_share(monkeypatch):
    """Shares 0.4, 0.25, 0.2 and 0.15 of 20 patients: 8, 5, 4 and 3; each the first that fits."""
    masses = {number: 0.17 * number % 120 if number % 2 else 0.0 for number in range(5, 4000)}
    monkeypatch.setattr(strata, "_mass_mg", lambda number, *_: masses[number])
    chosen = chosen_patients(5, 20)
    scores = [AGATSTON_PER_MG * masses[number] for number in chosen]
    fits = [lambda s: s == 0, lambda s: 0 < s < 100, lambda s: 100 <= s < 400, lambda s: s >= 400]
    groups = [[n for n, s in zip(chosen, scores, strict=True) if fit(s)] for fit in fits]
    assert [len(stratum) for stratum in groups] == [8, 5, 4, 3]
    assert chosen == sorted(chosen)
    for stratum, fit in zip(groups, fits, strict=True):
        fitting = (number for number, mass in masses.items() if fit(AGATSTON_PER_MG * mass))
        assert stratum == [next(fitting) for _ in stratum]


@pytest.mark.parametrize("shape", HEART_SHAPES)
@pytest.mark.parametrize("number", [40, 41])
def test_masses_for_the_choice_are_the_patients_own(number, shape):
    assert strata._mass_mg(number, shape) == draw_patient(number, heart_shape=shape).mass_mg
