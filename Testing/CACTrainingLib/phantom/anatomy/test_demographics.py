"""Age and body mass index of digital patients: published relations, and nothing else of the patient changes."""

import csv
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydicom import dcmread
from scipy.stats import spearmanr

from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.coronaries import draw_coronaries
from CACTrainingLib.phantom.anatomy.demographics import (
    AGATSTON_PER_MG,
    AGES_YEARS,
    BMI_LIMITS_KG_M2,
    BMI_OF_GIRTH,
    GIRTH_HEIGHT_MM,
    chest_girth_cm,
    demographics,
    demographics_of,
    demographics_of_truth,
    share_above,
    share_with_calcium,
)
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.anatomy.plaque import PREVALENCE, draw_plaques
from CACTrainingLib.phantom.anatomy.thorax import trunk_outline_mm
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan, write_cohort
from CACTrainingLib.phantom.cohort.dicom_series import write_dicom_series
from CACTrainingLib.phantom.cohort.export import acquisition_of, truth_of
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Grid
from CACTrainingLib.phantom.scanner.simulation import scan_patient

SMALL = CohortSettings(z_range_mm=(0.0, 36.0), prevalence=1.0, first_number=8)
NUMBERS = range(500)


@pytest.fixture(scope="module")
def drawn():
    """(body, mass in mg) of patients, without what a scan needs besides."""
    patients = []
    for number in NUMBERS:
        body = draw_body(stream(number, 1))
        plaques = draw_plaques(draw_coronaries(body, stream(number, 2)), body.sex, stream(number, 3))
        patients.append((body, sum(plaque.mass_mg for plaque in plaques)))
    return patients


@pytest.fixture(scope="module")
def known(drawn):
    return [demographics_of(number, *patient) for number, patient in zip(NUMBERS, drawn, strict=True)]


@pytest.fixture(scope="module")
def scanned():
    return make_scan(8, 1, SMALL)


def test_a_patient_is_always_as_old(scanned):
    patient = scanned[0]
    first = demographics(patient)
    np.random.seed(1)
    np.random.random(5)
    demographics(draw_patient(9))
    assert demographics(draw_patient(8, prevalence=1.0)) == first
    assert demographics_of(8, patient.body, patient.mass_mg) == first
    assert demographics(replace(patient, number=9)) != first


def test_values_are_an_adults_and_vary(known):
    ages, bmis = np.array([d.age_years for d in known]), np.array([d.bmi_kg_m2 for d in known])
    assert AGES_YEARS[0] <= ages.min() < 47
    assert 82 < ages.max() < AGES_YEARS[1]
    assert BMI_LIMITS_KG_M2[0] <= bmis.min() < 20
    assert 32 < bmis.max() <= BMI_LIMITS_KG_M2[1]
    assert 23 < bmis.mean() < 28
    assert 2.5 < bmis.std() < 5
    # Even, as the prior, because the cohort has the prevalence that the prior gives.
    assert np.histogram(ages, [45, 55, 65, 75, 85])[0] == pytest.approx(np.full(4, len(ages) / 4), rel=0.25)


def test_sex_is_the_bodys(drawn, known):
    assert [d.sex for d in known] == [body.sex for body, _ in drawn]


@pytest.mark.parametrize("sex", ["F", "M"])
def test_older_patients_have_more_calcium(drawn, known, sex):
    rows = [(d.age_years, mass) for d, (_, mass) in zip(known, drawn, strict=True) if d.sex == sex]
    ages, masses = np.array(rows).T
    assert 0.3 < spearmanr(ages, masses).statistic < 0.65
    calcified = masses > 0
    assert spearmanr(ages[calcified], masses[calcified]).statistic > 0.1


@pytest.mark.parametrize("sex", ["F", "M"])
def test_prevalence_by_decade_is_the_published(drawn, known, sex):
    rows = np.array([(d.age_years, mass > 0) for d, (_, mass) in zip(known, drawn, strict=True) if d.sex == sex])
    for decade in range(45, 85, 10):
        own = rows[(rows[:, 0] >= decade) & (rows[:, 0] < decade + 10)]
        expected = share_with_calcium(np.linspace(decade, decade + 10, 101), sex).mean()
        # Three standard errors.
        assert own[:, 1].mean() == pytest.approx(expected, abs=3 * math.sqrt(0.25 / len(own)))


@pytest.mark.parametrize("sex", ["F", "M"])
def test_the_prior_gives_the_cohorts_prevalence(sex):
    assert share_with_calcium(np.linspace(*AGES_YEARS, 401), sex).mean() == pytest.approx(PREVALENCE[sex], abs=0.02)


# McClelland 2006, table 2, as read in a public transcription: the races' 75th and 90th percentiles at an age.
@pytest.mark.parametrize(
    ("sex", "age", "races75", "races90"),
    [
        ("F", 60, (16, 18, 5, 2), (102, 105, 74, 50)),
        ("F", 70, (119, 70, 77, 51), (391, 246, 310, 203)),
        ("F", 80, (370, 146, 214, 205), (921, 398, 582, 557)),
        ("M", 50, (22, 14, 2, 9), (110, 89, 45, 88)),
        ("M", 60, (155, 67, 40, 75), (452, 242, 173, 291)),
        ("M", 70, (540, 174, 191, 247), (1345, 487, 575, 666)),
        ("M", 80, (1200, 305, 516, 494), (2933, 769, 1281, 1221)),
    ],
)
def test_the_laws_lie_among_mesas_percentiles(sex, age, races75, races90):
    for races, share in ((races75, 0.25), (races90, 0.10)):
        assert share_above(min(races), age, sex) > share > share_above(max(races), age, sex)


def test_shares_fall_with_the_score_and_rise_with_age():
    ages = np.linspace(45, 85, 41)
    for sex in "FM":
        shares = np.array([share_above(score, ages, sex) for score in (0, 1, 10, 100, 400, 1000)])
        assert (np.diff(shares, axis=0) < 0).all()
        assert (np.diff(shares, axis=1) > 0).all()
    assert (share_above(100, ages, "M") > share_above(100, ages, "F")).all()


def test_age_follows_the_laws_by_bayes():
    """Given a score, ages of many numbers have the posterior's mean, found here by sums."""
    body, mass = draw_body(stream(0, 1), "M"), 20.0
    ages = np.linspace(45, 85, 4001)[:-1]
    score = AGATSTON_PER_MG * mass
    density = (share_above(score * 0.999, ages, "M") - share_above(score * 1.001, ages, "M")) / 0.002
    expected = (ages * density).sum() / density.sum()
    found = np.array([demographics_of(number, body, mass).age_years for number in range(600)])
    assert found.mean() == pytest.approx(expected, abs=3 * found.std() / math.sqrt(600) + 0.05)


def test_bmi_follows_the_bodys_girth(drawn, known):
    for sex, (intercept, slope, spread) in BMI_OF_GIRTH.items():
        rows = [(chest_girth_cm(b), d.bmi_kg_m2) for (b, _), d in zip(drawn, known, strict=True) if d.sex == sex]
        girth, bmi = np.array(rows).T
        assert np.corrcoef(girth, bmi)[0, 1] > 0.6
        residual = bmi - intercept - slope * girth
        assert abs(residual.mean()) < 0.3
        assert residual.std() == pytest.approx(spread, rel=0.15)


def test_bmi_tells_nothing_of_calcium_beyond_the_body(drawn):
    body = drawn[0][0]
    assert len({demographics_of(3, body, mass).bmi_kg_m2 for mass in (0.0, 1.0, 30.0, 300.0)}) == 1


def test_the_girth_is_of_the_body_in_the_image():
    patient = draw_patient(3, sex="M")
    scanner = make_scan(8, 1, SMALL)[1].scanner
    grid = Grid((1, 250, 250), (2.0, 2.0, scanner.slice_spacing_mm), (-249.0, -249.0, GIRTH_HEIGHT_MM))
    scan = scan_patient(patient, scanner, ScanPose(), 1, grid, threads=1)
    # A row through the middle of the chest, above the couch.
    row = np.flatnonzero(scan.hu[0, 125] > -500)
    seen = (row[-1] - row[0] + 1) * 2.0
    outline = trunk_outline_mm(patient.body, GIRTH_HEIGHT_MM)
    right = outline[(np.abs(outline[:, 1]) < 3)]
    assert seen == pytest.approx(np.ptp(right[:, 0]), abs=6)
    assert chest_girth_cm(patient.body) * 10 > 2 * seen


def test_scan_and_truth_of_a_drawn_heart_are_what_they_were():
    """Age and BMI are added; everything that fixes a patient and a scan is left."""
    patient, scan, labels = make_scan(8, 1, replace(SMALL, heart_shape="drawn"))
    truth = truth_of(patient, scan, labels, 1)
    assert (truth["age_years"], truth["bmi_kg_m2"]) == (
        demographics(patient).age_years,
        demographics(patient).bmi_kg_m2,
    )
    assert list(truth)[:6] == ["schema", "patient", "scan", "sex", "age_years", "bmi_kg_m2"]
    assert truth["body"] == asdict(patient.body)
    # As made before patients had an age; another NumPy or SciPy may round otherwise.
    assert (patient.body.sex, len(patient.plaques)) == ("F", 5)
    assert patient.mass_mg == pytest.approx(64.19327337176348, rel=1e-6)
    assert scan.hu.sum(dtype=np.int64) == pytest.approx(-3639632621, rel=1e-6)


@pytest.mark.long
def test_a_cohort_has_them_and_one_of_an_earlier_version_gets_them_on_the_next_run(tmp_path):
    write_cohort(1, tmp_path, SMALL, workers=1)
    files = [*sorted(tmp_path.rglob("truth.json")), tmp_path / "cohort.csv"]
    before = {path: path.read_bytes() for path in files}
    expected = demographics(draw_patient(8, prevalence=1.0))
    with files[-1].open(newline="", encoding="utf-8") as file:
        rows = [(float(row["age_years"]), float(row["bmi_kg_m2"])) for row in csv.DictReader(file)]
    assert rows == [(expected.age_years, expected.bmi_kg_m2)] * 2
    image = tmp_path / "patient_00008" / "scan_1" / "ct.nii.gz"
    made = image.stat().st_mtime_ns
    for path in files[:-1]:
        truth = json.loads(path.read_text(encoding="utf-8"))
        assert demographics_of_truth(truth) == expected
        del truth["age_years"], truth["bmi_kg_m2"]
        assert demographics_of_truth(truth) == expected
        path.write_text(json.dumps(truth, indent=1), encoding="utf-8")
    write_cohort(1, tmp_path, SMALL, workers=1)
    assert {path: path.read_bytes() for path in files} == before
    assert image.stat().st_mtime_ns == made


def test_a_real_background_has_none():
    assert demographics_of_truth({"patient": "someone", "sex": "F", "mass_mg": 3.0}) is None


def test_dicom_and_acquisition_tell_the_age(tmp_path, scanned):
    patient, scan, _ = scanned
    years = int(demographics(patient).age_years)
    assert acquisition_of(scan.scanner, patient).patient_age_years == years
    assert acquisition_of(scan.scanner).patient_age_years is None
    file = write_dicom_series(patient, scan, 1, tmp_path / "dicom")[0]
    assert dcmread(file, stop_before_pixels=True).PatientAge == f"{years:03d}Y"
