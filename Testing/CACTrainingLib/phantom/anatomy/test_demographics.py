"""Age and body mass index of digital patients by published relations, and patients chosen by their calcium."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from CACTrainingLib.phantom.anatomy import demographics as module
from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.demographics import (
    AGATSTON_PER_MG,
    AGES_YEARS,
    AMOUNT,
    BMI_LIMITS_KG_M2,
    BMI_OF_GIRTH,
    GIRTH_HEIGHT_MM,
    chest_girth_cm,
    chosen_patients,
    demographics,
    demographics_of,
    share_with_calcium,
)
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.anatomy.plaque import PREVALENCE, draw_plaques
from CACTrainingLib.phantom.anatomy.thorax import trunk_outline_mm
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_patient

NUMBERS = range(500)


@pytest.fixture(scope="module")
def patient():
    return draw_patient(3, sex="M", prevalence=1.0)


@pytest.fixture(scope="module")
def people(patient):
    """(body, mass in mg, demographics) of many numbers, all with the arteries of one patient."""
    people = []
    for number in NUMBERS:
        body = draw_body(stream(number, 1))
        mass = sum(plaque.mass_mg for plaque in draw_plaques(patient.tree, body.sex, stream(number, 3)))
        people.append((body, mass, demographics_of(number, body, mass)))
    return people


def test_a_patient_is_always_as_old(patient):
    first = demographics(patient)
    assert first == demographics_of(3, patient.body, patient.mass_mg)
    assert first != demographics_of(9, patient.body, patient.mass_mg)
    assert first.sex == "M"


def test_values_are_an_adults_and_vary(people):
    ages, bmis = np.array([(d.age_years, d.bmi_kg_m2) for _, _, d in people]).T
    assert AGES_YEARS[0] <= ages.min() < 47
    assert 82 < ages.max() < AGES_YEARS[1]
    assert BMI_LIMITS_KG_M2[0] <= bmis.min() < 20
    assert 32 < bmis.max() <= BMI_LIMITS_KG_M2[1]
    # Even, as the prior, because the cohort has the prevalence that the prior gives.
    assert np.histogram(ages, [45, 55, 65, 75, 85])[0] == pytest.approx(np.full(4, len(ages) / 4), rel=0.25)


@pytest.mark.parametrize("sex", ["F", "M"])
def test_older_people_have_calcium_more_often_and_more_of_it(people, sex):
    ages, masses = np.array([(d.age_years, mass) for _, mass, d in people if d.sex == sex]).T
    assert 0.3 < spearmanr(ages, masses).statistic < 0.65
    for decade in range(45, 85, 10):
        calcified = masses[(ages >= decade) & (ages < decade + 10)] > 0
        expected = share_with_calcium(np.linspace(decade, decade + 10, 101), sex).mean()
        # Three standard errors.
        assert calcified.mean() == pytest.approx(expected, abs=3 * math.sqrt(0.25 / len(calcified)))
    assert share_with_calcium(np.linspace(*AGES_YEARS, 401), sex).mean() == pytest.approx(PREVALENCE[sex], abs=0.02)


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


def test_age_follows_the_laws_by_bayes():
    """Given a score, ages of many numbers have the posterior's mean, found here by sums."""
    body, mass = draw_body(stream(0, 1), "M"), 20.0
    ages = np.linspace(45, 85, 4001)[:-1]
    at_60, per_decade, spread = AMOUNT["M"]
    z = (math.log(AGATSTON_PER_MG * mass) - at_60 - per_decade * (ages - 60) / 10) / spread
    density = share_with_calcium(ages, "M") * np.exp(-(z**2) / 2)
    expected = (ages * density).sum() / density.sum()
    drawn = np.array([demographics_of(number, body, mass).age_years for number in range(600)])
    assert drawn.mean() == pytest.approx(expected, abs=3 * drawn.std() / math.sqrt(600) + 0.05)


def test_bmi_follows_the_bodys_girth_and_not_its_calcium(people):
    for sex, (intercept, slope, spread) in BMI_OF_GIRTH.items():
        girth, bmi = np.array([(chest_girth_cm(b), d.bmi_kg_m2) for b, _, d in people if d.sex == sex]).T
        residual = bmi - intercept - slope * girth
        assert abs(residual.mean()) < 0.3
        assert residual.std() == pytest.approx(spread, rel=0.15)
    body = people[0][0]
    assert len({demographics_of(3, body, mass).bmi_kg_m2 for mass in (0.0, 1.0, 300.0)}) == 1


def test_the_girth_is_of_the_body_in_the_image(patient):
    grid = Grid((1, 250, 250), (2.0, 2.0, 3.0), (-249.0, -249.0, GIRTH_HEIGHT_MM))
    scan = scan_patient(patient, Scanner(), ScanPose(), 1, grid, threads=1)
    # A row through the middle of the chest, above the couch.
    row = np.flatnonzero(scan.hu[0, 125] > -500)
    outline = trunk_outline_mm(patient.body, GIRTH_HEIGHT_MM)
    assert (row[-1] - row[0] + 1) * 2.0 == pytest.approx(np.ptp(outline[np.abs(outline[:, 1]) < 3][:, 0]), abs=6)


def test_every_stratum_has_its_share(monkeypatch):
    """Shares 0.4, 0.25, 0.2 and 0.15 of 20 patients: 8, 5, 4 and 3; each the first that fits."""
    masses = {number: 0.17 * number % 120 if number % 2 else 0.0 for number in range(5, 4000)}
    monkeypatch.setattr(module, "_mass_mg", masses.get)
    chosen = chosen_patients(5, 20)
    assert chosen == sorted(chosen)
    fits = [lambda s: s == 0, lambda s: 0 < s < 100, lambda s: 100 <= s < 400, lambda s: s >= 400]
    for fit, count in zip(fits, (8, 5, 4, 3), strict=True):
        fitting = [number for number, mass in masses.items() if fit(AGATSTON_PER_MG * mass)]
        assert [number for number in chosen if number in fitting] == fitting[:count]


@pytest.mark.parametrize("number", [40, 41])
def test_masses_for_the_choice_are_the_patients_own(number):
    assert module._mass_mg(number) == draw_patient(number).mass_mg
