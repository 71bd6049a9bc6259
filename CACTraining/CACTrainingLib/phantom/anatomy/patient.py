"""Digital patient: everything that stays the same between two scans, drawn from one number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from CACScoringLib.core.grid import triple

from ..scanner.motion import HeartBeat, draw_heart_beat
from .body import Body, draw_body
from .coronaries import PREVALENCE, CoronaryTree, Plaque, draw_plaques
from .distractors import MIDDLE_AGE_YEARS, Distractor, draw_distractors
from .heart import reference_frame
from .hearts.shape import HeartShape, draw_heart_shape
from .hearts.tree import draw_tree
from .points import POINT_STEP_MM, PointCloud, join_clouds
from .surroundings import draw_surroundings, surrounding_distractors
from .thorax import lung_grain, lung_vessels, trunk_outline_mm

_SEED = 20210531
"""Seed of all patients; changing it changes every patient."""
STERNUM_GAP_MM = 8.0
"""Usual distance in mm of the pericardium from the chest wall; illustrative."""


OSTIUM = "RCA ostium"
"""Group of motion of plaque at the right coronary artery's ostium, which follows the root more than the artery."""


@dataclass(frozen=True)
class Patient:
    """Patient of a number. The same number and options give the same patient (with the same NumPy and SciPy).

    Attributes:
        number: Number of the patient.
        body: Size and shape of the trunk, and tissue values.
        tree: Coronary arteries.
        plaques: Coronary plaques.
        distractors: Other calcium, and devices.
        beat: Cardiac motion.
        vessels: Vessels of the lungs in quiet breathing; weights in mm³.
        grain: Texture of the lungs; weights in mm³.
        heart: Shape of the heart.
        ostial_plaques: IDs of plaques that move with OSTIUM, not with their artery.
        difficulty: Way in which the patient is difficult (`lesion_patients.Difficulty`); None for a usual one.
    """

    number: int
    body: Body
    tree: CoronaryTree
    plaques: tuple[Plaque, ...]
    distractors: tuple[Distractor, ...]
    beat: HeartBeat
    vessels: PointCloud
    grain: PointCloud
    heart: HeartShape
    ostial_plaques: frozenset[int] = frozenset()
    difficulty: str | None = None

    @property
    def mass_mg(self) -> float:
        """True coronary calcium, mg hydroxyapatite."""
        return sum(plaque.mass_mg for plaque in self.plaques)

    def calcium(self, artery: str, step_mm: float = POINT_STEP_MM) -> PointCloud:
        """Return an artery's plaques as points in heart coordinates, weights in mg."""
        return self._cloud([plaque for plaque in self.plaques if plaque.artery == artery], step_mm)

    def moving_calcium(self, artery: str) -> dict[str, PointCloud]:
        """Return an artery's plaques by the group that they move with, as `calcium` does."""
        groups: dict[str, list[Plaque]] = {artery: []}
        for plaque in self.plaques:
            if plaque.artery == artery:
                groups.setdefault(OSTIUM if plaque.id in self.ostial_plaques else artery, []).append(plaque)
        return {group: self._cloud(plaques, POINT_STEP_MM) for group, plaques in groups.items()}

    def _cloud(self, plaques: list[Plaque], step_mm: float) -> PointCloud:
        by_name = {vessel.name: vessel for vessel in self.tree.vessels}
        return join_clouds([plaque.cloud(by_name[plaque.vessel], step_mm) for plaque in plaques])


def stream(number: int, *purpose: int) -> np.random.Generator:
    """Return a patient's random stream for one purpose, independent of all others."""
    return np.random.default_rng([_SEED, number, *purpose])


def draw_anatomy(
    number: int, sex: str | None = None, diverse: bool = False, ramus: bool = False, heart_scale: float | None = None
) -> tuple[Body, HeartShape, CoronaryTree]:
    """Draw a patient's body, heart and the arteries on it.

    Args:
        number: As in `draw_patient`.
        sex: As in `draw_patient`.
        diverse: As in `draw_patient`.
        ramus: True for an intermediate artery in every diverse patient (`draw_tree`).
        heart_scale: Factor on the axes of a diverse patient's heart; None to draw it.
    """
    body = draw_body(stream(number, 1), sex)
    body = resize(body, stream(number, 52), heart_scale) if diverse else body
    heart = draw_heart_shape(body, stream(number, 50))
    tree = draw_tree(body.sex, heart, stream(number, 2), diverse, ramus)
    points, radii = (np.concatenate([getattr(v, f)[::4] for v in tree.vessels]) for f in ("path_mm", "radius_mm"))
    heart = heart.cover(points, radii)
    return move_to_sternum(body, heart), heart, tree


HEART_SCALE, HEART_SPREAD, HEART_SCALES = {"F": 0.9, "M": 0.935}, 0.075, (0.76, 1.12)
"""Median by sex, logarithmic spread and range of the factor on the heart's axes where patients are diverse."""

CHEST_MEASURES = ("cavity_half_width_mm", "cavity_half_depth_mm", "spine_y_mm", "vertebra_mm", "aorta_radius_mm")
"""Measures of a body that change with its heart."""


def resize(body: Body, generator: np.random.Generator, scale: float | None = None) -> Body:
    """Return the body with a heart of another size; the chest changes by half as much from the sex's median.

    scale: Factor on the heart's axes; None to draw it.
    """
    usual = HEART_SCALE[body.sex]
    drawn = float(np.clip(usual * math.exp(generator.normal(0, HEART_SPREAD)), *HEART_SCALES))
    scale = drawn if scale is None else scale
    chest, (x, y, z) = math.sqrt(scale / usual), body.heart_centre_mm
    return replace(
        body,
        heart_semi_axes_mm=triple(scale * axis for axis in body.heart_semi_axes_mm),
        heart_centre_mm=(chest * x, chest * y, z),
        **{name: chest * getattr(body, name) for name in CHEST_MEASURES},
    )


def draw_patient(
    number: int,
    sex: str | None = None,
    prevalence: float | None = None,
    diverse: bool = False,
    surroundings: bool = False,
    ages: bool = False,
) -> Patient:
    """Draw patient `number` (0 or more).

    Args:
        sex: "F", "M", or None to draw it.
        prevalence: Share of patients with calcium.
        diverse: True for hearts of all sizes (HEART_SCALE) and left mains that fork as in people (`draw_tree`).
        surroundings: True for what real chests have around the heart (`surroundings`).
        ages: True for bones, cartilage, aorta and valves that show the patient's age (`age_body`).
    """
    if number < 0:
        raise ValueError(f"Patient numbers start at 0; {number} was asked for.")
    body, heart, tree = draw_anatomy(number, sex, diverse)
    plaques = draw_plaques(tree, body.sex, stream(number, 3), prevalence)
    mass_mg = sum(plaque.mass_mg for plaque in plaques)
    age_years = demographics_of(number, body, mass_mg).age_years if ages else None
    distractors = draw_distractors(body, tree, bool(plaques), stream(number, 4), heart, age_years)
    if surroundings:
        body, more = surround(number, body, heart)
        distractors += more
    if age_years is not None:
        body = age_body(body, age_years)
    return whole_patient(number, body, heart, tree, plaques, distractors)


def whole_patient(
    number: int,
    body: Body,
    heart: HeartShape,
    tree: CoronaryTree,
    plaques: tuple[Plaque, ...],
    distractors: tuple[Distractor, ...],
) -> Patient:
    """Return the patient with a heart beat and lungs of the number."""
    beat, vessels = draw_heart_beat(stream(number, 5)), lung_vessels(body, stream(number, 6))
    grain = lung_grain(body, stream(number, 7))
    return Patient(number, body, tree, plaques, distractors, beat, vessels, grain, heart)


def surround(number: int, body: Body, heart: HeartShape) -> tuple[Body, tuple[Distractor, ...]]:
    """Return a patient's body with surroundings of its heart, and the distractors in them."""
    body = replace(body, surroundings=draw_surroundings(body, stream(number, 60)))
    return body, surrounding_distractors(body, heart, stream(number, 61))


def age_body(body: Body, age_years: float) -> Body:
    """Return the body with the spongy bone and the calcified rib cartilage of an age.

    Spongy bone of the thoracic spine loses about 2 mg/cm³ a year; the cartilage's change is illustrative.
    """
    older, around = age_years - MIDDLE_AGE_YEARS, body.surroundings
    if around is not None:
        around = replace(around, cartilage=float(np.clip(around.cartilage + 0.012 * older, 0, 1)))
    return replace(body, spongiosa_hu=float(np.clip(body.spongiosa_hu - 2.0 * older, 60, 300)), surroundings=around)


def move_to_sternum(body: Body, heart: HeartShape) -> Body:
    """Return the body with its heart moved half of the way to its usual distance from the sternum."""
    frame = reference_frame(body)
    front = float(frame.to_lps(heart.places_mm[heart.pericardium < 0])[:, 1].min())
    gap = front + body.cavity_half_depth_mm - STERNUM_GAP_MM
    x, y, z = body.heart_centre_mm
    return replace(body, heart_centre_mm=(x, y - 0.5 * max(gap, 0.0), z))


def add_contrast(patient: Patient) -> Patient:
    """Return the patient with a contrast agent, as for coronary CT angiography: bright blood in chambers and
    arteries, heart muscle and liver a little brighter (usual ranges; illustrative)."""
    g = stream(patient.number, 40)
    body = patient.body
    bright = replace(
        body,
        blood_hu=float(g.uniform(280, 450)),
        myocardium_hu=body.myocardium_hu + float(g.uniform(35, 75)),
        liver_hu=body.liver_hu + float(g.uniform(5, 30)),
    )
    return replace(patient, body=bright)


AGES_YEARS = (45.0, 85.0)
"""Limits of the uniform prior of age; MESA's range."""
PRESENCE = {"F": (-0.93, 1.045), "M": (0.11, 0.90)}
"""Log odds of a score above 0 at 60 years, and increase per 10 years."""
AMOUNT = {"F": (3.86, 0.47, 1.585), "M": (4.37, 0.62, 1.62)}
"""ln(score) above 0: mean at 60 years, increase per 10 years, standard deviation."""
AGATSTON_PER_MG = 5.0
"""Agatston score per mg of true mass. The QRM phantom, scanned at rest, gives 5.1 for its large dense insert (402.9 for
78.5 mg), 5.8 over all inserts.

In gated scans of digital patients with calcium an ideal reader gets 2.3, and often 0 below 10 mg, since their plaque is
thin and moves. With 2.3 they would be younger for their calcium, and age would predict it less (AUC 0.01 to 0.03).
"""
BMI_OF_GIRTH = {"F": (-14.47, 0.4270, 1.85), "M": (-5.89, 0.3030, 1.83)}
"""kg/m²: intercept, slope per cm of the chest's girth, standard deviation of the residual."""
BMI_LIMITS_KG_M2 = (16.0, 45.0)
GIRTH_HEIGHT_MM = 18.0
"""Height in mm above the heart's middle at which the girth is measured: that of the breasts."""

STRATA = ((0.0, 0.40), (1.0, 0.25), (100.0, 0.20), (400.0, 0.15))
"""Lowest Agatston score of a stratum and its share of the patients: 0, 1 to 99, 100 to 399, from 400. At natural
prevalence a small study has too few severe cases."""

_STREAM = 30
_AGE_STEP_YEARS = 0.1


@dataclass(frozen=True)
class Demographics:
    """Clinical facts of a patient, drawn to fit the sex, body and calcium.

    They are drawn last and from their own random stream, so they do not change the patient. Each follows from published
    relations only, so that clinical factors predict calcium as well as in people, and no better.

    Age. MESA (McClelland 2006, 10.1161/CIRCULATIONAHA.105.580696, table 2; (2nd): read in a public transcription)
    gives the 25th, 50th, 75th and 90th percentile of the Agatston score by sex, race and decade of age, 45 to 84.
    Two laws were fitted to each race's percentiles and pooled by the races' shares of the study (White 38.5, Black
    27.8, Hispanic 22.0, Chinese 11.8 %; mesa-nhlbi.org), with d = (age - 60) / 10:

        P(score > 0) = 1 / (1 + exp(-(a + b d)))            women a -0.93, b 1.045; men a 0.11, b 0.90
        ln(score), where above 0: normal, mean m + c d, sd  women m 3.86, c 0.47, sd 1.585; men m 4.37, c 0.62, sd 1.62

    For comparison: c 0.68 and sd 1.68 for both sexes in 9,341 people scanned without symptoms (Pletcher 2004,
    10.1186/1741-7015-2-31, table 3). The prior is uniform from 45 to 85 years (MESA: 29, 28, 30 and 14 % by decade),
    with which the laws give 42 % of women and 61 % of men calcium: `coronaries.PREVALENCE` has 42 and 62 %, and MESA
    had 50 % of all (Budoff 2009, 10.1016/j.ahj.2009.08.007). Age is drawn from P(age | sex, score) by Bayes. The
    score for this is AGATSTON_PER_MG times the patient's true mass. A cohort of another prevalence is older or
    younger accordingly.

    Body mass index. Regression on the girth of the chest in 260 women and 247 men (Heinz 2003, Exploring
    Relationships in Body Dimensions, Journal of Statistics Education 11(2); coefficients found by least squares
    from its published data; girth at the nipples in men, above the breasts in women), with the residual's scatter:

        women -14.47 + 0.4270 girth (cm), sd 1.85, r 0.82; men -5.89 + 0.3030 girth (cm), sd 1.83, r 0.77

    The girth is that of the digital body as scanned, without the breasts. The people measured were active and mostly
    young, so digital patients are leaner than those of MESA.

    Not modelled: BMI predicts calcium only as far as the body's size does, which in digital patients is almost nothing
    (in MESA prevalence × 1.04 per 5.5 kg/m², 10.1016/j.atherosclerosis.2008.09.041). Age shows in a digital image by
    coronary calcium only, not by bone, aorta or valves as in people. Age and BMI are independent, given sex.
    """

    age_years: float
    sex: str
    bmi_kg_m2: float


def demographics(patient: Patient) -> Demographics:
    """Return a patient's age, sex and body mass index, always the same for the same patient."""
    return demographics_of(patient.number, patient.body, patient.mass_mg)


def demographics_of(number: int, body: Body, mass_mg: float) -> Demographics:
    """Return `demographics` from number, body and true coronary calcium (mg)."""
    generator = stream(number, _STREAM)
    at, scatter = generator.random(), generator.normal()
    ages = np.arange(AGES_YEARS[0], AGES_YEARS[1], _AGE_STEP_YEARS)
    below = np.cumsum(_likelihood(AGATSTON_PER_MG * mass_mg, ages, body.sex))
    age = ages[np.searchsorted(below, at * below[-1])]
    intercept, slope, spread = BMI_OF_GIRTH[body.sex]
    bmi = np.clip(intercept + slope * chest_girth_cm(body) + spread * scatter, *BMI_LIMITS_KG_M2)
    return Demographics(round(float(age), 1), body.sex, round(float(bmi), 1))


def chest_girth_cm(body: Body) -> float:
    """Return the girth along the skin at GIRTH_HEIGHT_MM in quiet breathing, without the breasts."""
    outline = trunk_outline_mm(body, GIRTH_HEIGHT_MM)
    return float(np.linalg.norm(np.diff(outline, axis=0), axis=1).sum()) / 10


def share_with_calcium(age_years: float | np.ndarray, sex: str) -> np.ndarray:
    """Return the proportion of people of an age and sex with an Agatston score above 0."""
    at_60, per_decade = PRESENCE[sex]
    return 1 / (1 + np.exp(-(at_60 + per_decade * (np.asarray(age_years, float) - 60) / 10)))


def _likelihood(agatston: float, ages: np.ndarray, sex: str) -> np.ndarray:
    """Return the likelihood of a score at each age, up to a factor."""
    present = share_with_calcium(ages, sex)
    if agatston == 0:
        return 1 - present
    at_60, per_decade, spread = AMOUNT[sex]
    return present * np.exp(-0.5 * np.square((math.log(agatston) - at_60 - per_decade * (ages - 60) / 10) / spread))


def stratified_patients(first_number: int, patients: int, diverse: bool = False) -> list[int]:
    """Return patient numbers, rising, with each stratum's share of STRATA (the first takes the rounding remainder).

    diverse: As in `draw_patient`.
    """
    missing = [round(share * patients) for _, share in STRATA]
    missing[0] += patients - sum(missing)
    numbers, number = [], first_number
    while any(missing):
        stratum = stratum_of(AGATSTON_PER_MG * _mass_mg(number, diverse))
        if missing[stratum]:
            missing[stratum] -= 1
            numbers.append(number)
        number += 1
    return numbers


def stratum_of(agatston: float) -> int:
    """Return the score's index in STRATA."""
    return 0 if agatston <= 0 else max(1, sum(agatston >= least for least, _ in STRATA[1:]))


def _mass_mg(number: int, diverse: bool) -> float:
    """Return a patient's true calcium without drawing the rest of the patient."""
    body = draw_body(stream(number, 1), None)
    # `draw_plaques` draws the presence of calcium first, so most patients without calcium need no arteries.
    if stream(number, 3).random() >= PREVALENCE[body.sex]:
        return 0.0
    _, _, tree = draw_anatomy(number, diverse=diverse)
    return sum(plaque.mass_mg for plaque in draw_plaques(tree, body.sex, stream(number, 3)))
