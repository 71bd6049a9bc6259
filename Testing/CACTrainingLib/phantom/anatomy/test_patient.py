"""Plaques of a patient, and age and body mass index: exact masses, and published shares and relations."""

import math

import numpy as np
import pytest

from CACScoringLib.core.labels import ARTERIES
from CACTrainingLib.phantom.anatomy import patient as module
from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.coronaries import ARTERY_SHARE, PREVALENCE, Plaque, draw_plaques
from CACTrainingLib.phantom.anatomy.distractors import MIDDLE_AGE_YEARS, draw_distractors


def test_a_plaques_mass_is_the_integral_of_its_shape():
    plaque = Plaque(1, "LAD", "LAD", 10.0, 6.0, 90.0, 0.0, 1.2, 400.0, 1.8)
    g = np.random.default_rng(0)
    s, r = g.uniform(-3, 3, 400000), g.uniform(1.8, 3.0, 400000)
    inside = r < 1.8 + 1.2 * np.sqrt(1 - (s / 3) ** 2)
    volume = (inside * r).mean() * 1.2 * 6.0 * math.radians(90)
    assert plaque.volume_mm3 == pytest.approx(volume, rel=0.01)
    assert plaque.mass_mg == pytest.approx(0.4 * volume, rel=0.01)


@pytest.mark.parametrize("sex", ["F", "M"])
def test_hearts_and_chests_of_diverse_bodies_grow_together(sex):
    """Hearts by the same factor along all axes, chests by half of the heart's logarithm."""
    usual = [draw_body(module.stream(n, 1), sex) for n in range(60)]
    scaled = [module.resize(body, module.stream(n, 52)) for n, body in enumerate(usual)]
    factors = np.array([b.heart_semi_axes_mm for b in scaled]) / [b.heart_semi_axes_mm for b in usual]
    assert np.ptp(factors, axis=1) == pytest.approx(0, abs=1e-12)
    assert module.HEART_SCALES[0] <= factors.min()
    assert factors.max() <= module.HEART_SCALES[1]
    assert np.median(factors) == pytest.approx(module.HEART_SCALE[sex], abs=0.03)
    for name in module.CHEST_MEASURES:
        chest = np.array([getattr(b, name) for b in scaled]) / [getattr(b, name) for b in usual]
        assert chest == pytest.approx(np.sqrt(factors[:, 0] / module.HEART_SCALE[sex]))


@pytest.mark.long
def test_hearts_of_diverse_women_are_those_of_real_women():
    """Five women of LIDC: hearts of 559 to 796 mL with a margin of 15 %, thus pericardia of 486 to 692 mL."""
    volumes = [(module.draw_anatomy(n, "F", diverse=True)[1].pericardium < 0).sum() * 0.027 for n in range(10)]
    assert 480 < np.median(volumes) < 690


def test_points_weigh_the_same_as_the_plaques_and_lie_on_the_wall(patient):
    assert patient.plaques
    for step in (0.35, 0.175):
        total = sum(patient.calcium(artery, step).total for artery in ARTERIES)
        assert total == pytest.approx(patient.mass_mg, rel=1e-9)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    for plaque in patient.plaques:
        vessel = vessels[plaque.vessel]
        cloud = plaque.cloud(vessel, 0.35)
        gap = np.linalg.norm(cloud.positions_mm[:, None] - vessel.path_mm[None], axis=2).min(axis=1)
        assert gap.max() < plaque.radius_mm + plaque.thickness_mm + 0.4
        assert gap.mean() > 0.6 * plaque.radius_mm


def test_prevalence_and_arteries_follow_the_stated_shares(patient):
    drawn = [draw_plaques(patient.tree, "F", np.random.default_rng(n)) for n in range(1500)]
    assert np.mean([bool(p) for p in drawn]) == pytest.approx(PREVALENCE["F"], abs=0.04)
    arteries = [plaque.artery for plaques in drawn for plaque in plaques]
    for artery, share in ARTERY_SHARE.items():
        assert arteries.count(artery) / len(arteries) == pytest.approx(share, abs=0.04)
    assert not draw_plaques(patient.tree, "F", np.random.default_rng(0), prevalence=0.0)


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
    at_60, per_decade, spread = module.AMOUNT[sex]

    def share_above(score):
        z = (math.log(score) - at_60 - per_decade * (age - 60) / 10) / spread
        return module.share_with_calcium(age, sex) * 0.5 * math.erfc(z / math.sqrt(2))

    for races, share in ((races75, 0.25), (races90, 0.10)):
        assert share_above(min(races)) > share > share_above(max(races))


def test_every_stratum_has_its_share(monkeypatch):
    """Shares 0.4, 0.25, 0.2 and 0.15 of 20 patients: 8, 5, 4 and 3; each the first that fits."""
    masses = {patient: 0.17 * patient % 120 if patient % 2 else 0.0 for patient in range(5, 4000)}
    monkeypatch.setattr(module, "_mass_mg", masses.get)
    numbers = module.stratified_patients(5, 20)
    assert numbers == sorted(numbers)
    fits = [lambda s: s == 0, lambda s: 0 < s < 100, lambda s: 100 <= s < 400, lambda s: s >= 400]
    for fit, count in zip(fits, (8, 5, 4, 3), strict=True):
        fitting = [patient for patient, mass in masses.items() if fit(module.AGATSTON_PER_MG * mass)]
        assert [patient for patient in numbers if patient in fitting] == fitting[:count]


@pytest.mark.long
@pytest.mark.parametrize("diverse", [False, True])
@pytest.mark.parametrize("number", [40, 41])
def test_masses_for_the_choice_are_the_patients_own(number, diverse):
    assert module._mass_mg(number, diverse) == module.draw_patient(number, diverse=diverse).mass_mg


def test_age_shows_in_bones_aorta_and_valves_and_changes_no_coronary_calcium():
    plain, aged = (module.draw_patient(7, surroundings=True, ages=ages) for ages in (False, True))
    older = module.demographics(plain).age_years - MIDDLE_AGE_YEARS
    assert aged.plaques == plain.plaques
    assert module.demographics(aged) == module.demographics(plain)
    assert aged.body.spongiosa_hu == pytest.approx(np.clip(plain.body.spongiosa_hu - 2 * older, 60, 300))
    walls = {}
    for age in (45, 85):
        drawn = [
            draw_distractors(plain.body, plain.tree, True, module.stream(number, 4), plain.heart, age)
            for number in range(60)
        ]
        walls[age] = np.mean([any(d.kind == "aortic wall" for d in distractors) for distractors in drawn])
    assert walls[45] < 0.3
    assert walls[85] > 0.65
