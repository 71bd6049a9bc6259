"""Age and body mass index of digital patients by published relations, and patients stratified by calcium."""

import math

import pytest

from CACTrainingLib.phantom.anatomy import patient as module
from CACTrainingLib.phantom.anatomy.patient import (
    AGATSTON_PER_MG,
    AMOUNT,
    draw_patient,
    share_with_calcium,
    stratified_patients,
)


# McClelland 2006, table 2, as read in a public transcription: the races' 75th and 90th percentiles at an age.
@pytest.mark.parametrize(
    ("sex", "age", "races75", "races90"),
    [
        ("F", 60, (16, 18, 5, 2), (102, 105, 74, 50)),
        ("F", 80, (370, 146, 214, 205), (921, 398, 582, 557)),
        ("M", 60, (155, 67, 40, 75), (452, 242, 173, 291)),
        ("M", 80, (1200, 305, 516, 494), (2933, 769, 1281, 1221)),
    ],
)
def test_the_laws_lie_among_mesas_percentiles(sex, age, races75, races90):
    at_60, per_decade, spread = AMOUNT[sex]

    def share_above(score):
        z = (math.log(score) - at_60 - per_decade * (age - 60) / 10) / spread
        return share_with_calcium(age, sex) * 0.5 * math.erfc(z / math.sqrt(2))

    for races, share in ((races75, 0.25), (races90, 0.10)):
        assert share_above(min(races)) > share > share_above(max(races))


def test_every_stratum_has_its_share(monkeypatch):
    """Shares 0.4, 0.25, 0.2 and 0.15 of 20 patients: 8, 5, 4 and 3; each the first that fits."""
    masses = {patient: 0.17 * patient % 120 if patient % 2 else 0.0 for patient in range(5, 4000)}
    monkeypatch.setattr(module, "_mass_mg", masses.get)
    numbers = stratified_patients(5, 20)
    assert numbers == sorted(numbers)
    fits = [lambda s: s == 0, lambda s: 0 < s < 100, lambda s: 100 <= s < 400, lambda s: s >= 400]
    for fit, count in zip(fits, (8, 5, 4, 3), strict=True):
        fitting = [patient for patient, mass in masses.items() if fit(AGATSTON_PER_MG * mass)]
        assert [patient for patient in numbers if patient in fitting] == fitting[:count]


@pytest.mark.long
@pytest.mark.parametrize("number", [40, 41])
def test_masses_for_the_choice_are_the_patients_own(number):
    assert module._mass_mg(number) == draw_patient(number).mass_mg
