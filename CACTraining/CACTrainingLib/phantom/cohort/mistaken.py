"""Patients with what networks mistook in people: calcium torn by motion, and what lies beside arteries or looks alike.

Each function changes a usual patient in one way. Sizes are illustrative, after pictures of chest scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit

from ..anatomy.body import Body
from ..anatomy.coronaries import Plaque, draw_plaque
from ..anatomy.distractors import MOVES_WITH, Distractor, device, view_gain
from ..anatomy.heart import reference_frame
from ..anatomy.hearts.shape import HeartShape
from ..anatomy.hearts.valves import deposits
from ..anatomy.hearts.wall_calcium import annulus_block, ostial_wall
from ..anatomy.patient import Patient, surround, whole_patient
from ..anatomy.points import EMPTY, POINT_STEP_MM, join_clouds
from ..anatomy.thorax import cavity_radius_mm, cavity_scale
from ..scanner.motion import HeartBeat, ScanPose
from ..scanner.response import image_of_points
from ..scanner.scanner import Scanner
from ..scanner.simulation import scan_grid
from .severe_plaque import more_severe, plaque_from_ostium

MOVING_PLACES = {"RCA": (0.2, 0.65), "LM": (0.2, 1.0), "LAD": (0.02, 0.35), "LCX": (0.05, 0.6)}
"""Places of plaques that motion doubles, as shares of their artery's length."""

MOVING_SHARES = {"RCA": 0.45, "LM": 0.2, "LAD": 0.25, "LCX": 0.1}
"""Shares of these plaques by artery."""

MOVING_MG, MOVING_MG_CM3, MOVING_MEAN = (12.0, 80.0), (550.0, 1200.0), 1.5
"""Ranges of the mass of such a plaque, 50 to 400 Agatston at rest, and of its density; mean number beyond the first."""

MOVING_MM, MOVING_HEIGHT = 6.0, (0.1, 0.7)
"""Least excursion of their arteries, and range of the factor on its part along the table, so that copies share slices.
"""

SYSTOLE, STEP = (0.17, 0.47), 0.02
"""Beginning and end of the systolic rest in shares of a beat, and width of the steps there."""

COURSE_MM, PIECES, GAP_MM = (9.0, 28.0), (2, 6), (1.0, 4.5)
"""Ranges of the length of a plaque in pieces, of their number (least, and most plus 1), and of the gaps."""

COURSES_MEAN = 0.8
"""Mean number of courses in pieces beyond the first."""

BESIDE_SHARE, STREAK_STRENGTH, RING_SHARE = 0.5, (0.2, 0.9), 0.6
"""Share of blocks of the annulus with plaque of the circumflex, range of their streaks' strength, and share of such
patients with calcium of the other annulus."""

SINUS_SHARES, SINUS_PLAQUE_SHARE = {"RCA": 0.65, "LM": 0.35}, 0.6
"""Shares of the ostia with a calcified sinus wall, and share of these with plaque that begins at the ostium."""

COMPACT_PEAK_HU, COMPACT_MEAN = (655.0, 855.0), 1.0
"""Range of the peak in HU that compact plaque adds to about 45 of blood in a still slice of 3 mm through its middle, at
120 kVp with a soft kernel; mean number beyond the first."""

COMPACT_DEVICES = {"bypass clips": 0.55, "sternal wires": 0.45, "pacemaker lead": 0.3}
"""Probability of each kind of device beside compact plaque."""

THIN_FAT_MM, THIN_MUSCLE_MM, THIN_MEDIASTINUM_MM = (3.0, 6.0), (5.0, 9.0), (0.5, 1.5)
"""Ranges of a very thin body's fat below the skin, muscles, and fat of the mediastinum and around the pericardium."""

FLAT, THIN_CARTILAGE, WALL_GAP_MM = (0.84, 0.95), (0.8, 1.0), (-1.0, 2.0)
"""Ranges of the factor on a thin chest's depth, of its cartilage's calcification, and of the heart's distance from the
chest wall."""

GAS_MM, GAS_OVERLAP_MM, GAS_BELOW_DOME_MM = (28.0, 42.0), (12.0, 35.0), 26.0
"""Ranges of the gas in the stomach and of its top's height over the heart's lowest point, and how far below the
diaphragm the gas begins."""

GAS_WALL_MM, GAS_RING_MM = (3.0, 6.0), (6.0, 12.0)
"""Ranges of the movement of the heart's walls and of its valves' plane beside gas, which draws streaks."""

FORK_PLAQUES = {"LAD": 0.6, "LCX": 0.5, "RI": 0.5}
"""Probability of plaque at the beginning of each branch of a left main of three branches."""

_STILL = Scanner(noise_hu=0.0, field_of_view_mm=160.0, matrix=256)


class TwoRests(HeartBeat):
    """Motion with a rest in systole and one in diastole, and quick steps between them, which double what moves."""

    def displacement_mm(self, group: str, phase: np.ndarray) -> np.ndarray:
        """Return displacement [..., 3] at phases of the cardiac cycle, as `HeartBeat.displacement_mm`."""
        phase = np.mod(phase, 1.0)
        contraction, relaxation = (expit((phase - place) / STEP) for place in SYSTOLE)
        return self.excursion_mm[group] * (contraction - relaxation)[..., None] * self.directions[group][0]


def with_moving_plaque(patient: Patient, g: np.random.Generator) -> Patient:
    """Let plaques move far in a heart whose walls stand still, and take all devices away."""
    names, shares = zip(*MOVING_SHARES.items(), strict=True)
    plaques = []
    for number in range(1, 2 + int(g.poisson(MOVING_MEAN))):
        name = names[g.choice(len(names), p=shares)]
        vessel = patient.tree.vessel(name)
        plaque = draw_plaque(number, vessel, float(g.uniform(*MOVING_PLACES[name])) * vessel.length_mm, 0.0, g)
        plaques.append(_of_mass(plaque, float(np.exp(g.uniform(*np.log(MOVING_MG))))))
    around = patient.body.surroundings
    if around is not None:
        around = replace(around, wall_mm=0.0, ring_mm=0.0)
    body = replace(patient.body, surroundings=around)
    excursions = {group: max(mm, MOVING_MM) for group, mm in patient.beat.excursion_mm.items()}
    flat = {group: axes * [1, 1, g.uniform(*MOVING_HEIGHT)] for group, axes in patient.beat.directions.items()}
    directions = {group: axes / np.linalg.norm(axes, axis=1, keepdims=True) for group, axes in flat.items()}
    beat = TwoRests(excursions, directions)
    return replace(patient, body=body, plaques=tuple(plaques), distractors=_without_metal(patient), beat=beat)


def _of_mass(plaque: Plaque, mass_mg: float) -> Plaque:
    """Return the plaque with a mass, by a thickness up to 3 mm and a density within MOVING_MG_CM3."""
    least, most = MOVING_MG_CM3
    plaque = replace(plaque, density_mg_cm3=max(plaque.density_mg_cm3, least), length_mm=max(plaque.length_mm, 3.0))
    thicknesses = np.linspace(0.5, 3.0, 26).tolist()
    plaque = min((replace(plaque, thickness_mm=t) for t in thicknesses), key=lambda p: abs(p.mass_mg - mass_mg))
    return replace(plaque, density_mg_cm3=min(plaque.density_mg_cm3 * mass_mg / plaque.mass_mg, most))


def with_pieces(patient: Patient, g: np.random.Generator) -> Patient:
    """Add plaques that are cut into pieces along one course, with gaps of few millimetres."""
    tree, plaques = patient.tree, list(patient.plaques)
    mains = [tree.vessel(name) for name in ("LAD", "LCX", "RCA")]
    for _ in range(1 + int(g.poisson(COURSES_MEAN))):
        vessel = mains[g.choice(3, p=(0.4, 0.2, 0.4))]
        length = min(float(g.uniform(*COURSE_MM)), 0.8 * vessel.length_mm)
        at = float(g.uniform(0, 0.6)) * (vessel.length_mm - length)
        course = draw_plaque(1, vessel, at + length / 2, 0.2, g)
        course = replace(course, thickness_mm=max(course.thickness_mm, 0.9), arc_degrees=float(g.uniform(90, 300)))
        gaps = g.uniform(*GAP_MM, int(g.integers(*PIECES)) - 1)
        lengths = g.dirichlet(np.full(len(gaps) + 1, 3.0)) * max(length - gaps.sum(), 1.5 * (len(gaps) + 1))
        for size, gap in zip(lengths.tolist(), [*gaps.tolist(), 0.0], strict=True):
            plaques.append(
                replace(
                    course,
                    id=_next_id(plaques),
                    middle_mm=at + size / 2,
                    length_mm=size,
                    towards_degrees=course.towards_degrees + float(g.normal(0, 25)),
                    thickness_mm=course.thickness_mm * float(np.exp(g.normal(0, 0.2))),
                    density_mg_cm3=float(np.clip(course.density_mg_cm3 * np.exp(g.normal(0, 0.3)), 200, 1200)),
                )
            )
            at += size + gap
    return replace(patient, plaques=tuple(plaques))


def with_annulus_block(patient: Patient, g: np.random.Generator) -> Patient:
    """Add a block of mitral annulus with streaks beside the circumflex, which has plaque or none."""
    tree, heart = patient.tree, patient.heart
    plaques = [plaque for plaque in patient.plaques if plaque.vessel != "LCX"]
    if g.random() < BESIDE_SHARE:
        vessel = tree.vessel("LCX")
        for _ in range(1 + int(g.poisson(1.0))):
            plaque = draw_plaque(_next_id(plaques), vessel, float(g.uniform(0, vessel.length_mm)), 0.0, g)
            plaques.append(more_severe(plaque, tree, g))
    clouds = [annulus_block(heart, tree, g)]
    if g.random() < RING_SHARE:
        clouds.append(deposits("mitral annulus", heart, tree, g))
    gain = view_gain(g, float(g.uniform(*STREAK_STRENGTH)))
    block = Distractor("mitral annulus", "heart", "valve", join_clouds(clouds), view_gain=gain)
    distractors = tuple(d for d in patient.distractors if d.kind != "mitral annulus")
    return replace(patient, plaques=tuple(plaques), distractors=(*distractors, block))


def with_ostial_wall(patient: Patient, g: np.random.Generator) -> Patient:
    """Add a calcified sinus wall in touch with an ostium, and plaque that begins there or none."""
    names, shares = zip(*SINUS_SHARES.items(), strict=True)
    name = names[g.choice(len(names), p=shares)]
    vessel = patient.tree.vessel(name)
    plaques = [p for p in patient.plaques if p.vessel != name or p.middle_mm - p.length_mm / 2 > 10]
    plaque_points = EMPTY
    if g.random() < SINUS_PLAQUE_SHARE:
        plaque = plaque_from_ostium(_next_id(plaques), patient.tree, name, g)
        plaque = replace(plaque, middle_mm=plaque.length_mm / 2)
        plaques.append(plaque)
        plaque_points = plaque.cloud(vessel, 2 * POINT_STEP_MM)
    wall = ostial_wall(patient.heart, patient.tree, name, plaque_points, g)
    more = Distractor("aortic root", "heart", MOVES_WITH["aortic root"], wall)
    return replace(patient, plaques=tuple(plaques), distractors=(*patient.distractors, more))


def with_compact_plaque(patient: Patient, g: np.random.Generator) -> Patient:
    """Add compact, very dense plaques of the descending artery, and clips, wires and leads or none."""
    vessel, plaques = patient.tree.vessel("LAD"), list(patient.plaques)
    for _ in range(1 + int(g.poisson(COMPACT_MEAN))):
        plaque = draw_plaque(_next_id(plaques), vessel, float(g.uniform(0.05, 0.7)) * vessel.length_mm, 0.0, g)
        plaque = replace(
            plaque,
            length_mm=float(g.uniform(3.5, 7.0)),
            arc_degrees=float(g.uniform(240, 360)),
            thickness_mm=float(g.uniform(1.5, 2.5)),
            radius_mm=float(g.uniform(0.2, 0.8)),  # the nodule fills much of the lumen
        )
        plaques.append(_of_peak(plaque, patient, float(g.uniform(*COMPACT_PEAK_HU))))
    kinds = [kind for kind, share in COMPACT_DEVICES.items() if g.random() < share]
    more = [piece for kind in kinds for piece in device(kind, patient.body, patient.tree, g, patient.heart)]
    return replace(patient, plaques=tuple(plaques), distractors=(*_without_metal(patient), *more))


def _of_peak(plaque: Plaque, patient: Patient, peak_hu: float) -> Plaque:
    """Return the plaque with the density that gives a peak over blood in a still slice through its middle."""
    vessel, frame = patient.tree.vessel(plaque.vessel), reference_frame(patient.body)
    cloud = plaque.cloud(vessel, POINT_STEP_MM).map(frame.to_lps)
    middle = cloud.positions_mm.mean(axis=0)
    centred = cloud.map(lambda places: places - middle)
    stamps = image_of_points(centred, scan_grid(_STILL, (-16.5, 16.5)), _STILL)
    peak = 1000 * _STILL.calcium_hu_per_mg_cm3 * max(float(stamp.values.max()) for stamp in stamps)
    return replace(plaque, density_mg_cm3=plaque.density_mg_cm3 * peak_hu / peak)


def with_calcified_cartilage(patient: Patient, g: np.random.Generator) -> Patient:
    """Make the body very thin, with calcified rib cartilage next to the heart, and take all devices away."""
    body, distractors = patient.body, _without_metal(patient)
    if body.surroundings is None:
        body, more = surround(patient.number, body, patient.heart)
        distractors += more
    assert body.surroundings is not None
    fat_mm, muscle_mm = float(g.uniform(*THIN_FAT_MM)), float(g.uniform(*THIN_MUSCLE_MM))
    mediastinal_fat_mm = float(g.uniform(*THIN_MEDIASTINUM_MM))
    gap_mm = float(g.uniform(*WALL_GAP_MM))
    body = replace(
        body,
        fat_mm=fat_mm,
        muscle_mm=muscle_mm,
        mediastinal_fat_mm=mediastinal_fat_mm,
        cavity_half_depth_mm=body.cavity_half_depth_mm * float(g.uniform(*FLAT)),
        breast_mm=0.6 * body.breast_mm,
        surroundings=replace(
            body.surroundings,
            cartilage=float(g.uniform(*THIN_CARTILAGE)),
            paracardial_fat_mm=float(g.uniform(*THIN_MEDIASTINUM_MM)),
        ),
    )
    x, y, z = body.heart_centre_mm
    for _ in range(3):
        y -= _gap_to_wall_mm(body, patient.heart) - gap_mm
        body = replace(body, heart_centre_mm=(x, y, z))
    return whole_patient(patient.number, body, patient.heart, patient.tree, patient.plaques, distractors)


def _gap_to_wall_mm(body: Body, heart: HeartShape) -> float:
    """Return the least distance of the heart's front from the chest's inner wall in quiet breathing."""
    x, y, z = reference_frame(body).to_lps(heart.places_mm[heart.pericardium < 0]).T.astype(float)
    is_front = y < body.heart_centre_mm[1]
    x, y, z = x[is_front], y[is_front], z[is_front]
    wall_mm = cavity_radius_mm(body, ScanPose(), np.arctan2(np.abs(x), y) / np.pi) * cavity_scale(z)
    return float((wall_mm - np.hypot(x, y)).min())


def with_gas_below(patient: Patient, g: np.random.Generator) -> Patient:
    """Let gas of a stomach that lies high touch the lower edge of a heart whose walls move."""
    body, heart, distractors = patient.body, patient.heart, patient.distractors
    if body.surroundings is None:
        body, more = surround(patient.number, body, heart)
        distractors += more
    assert body.surroundings is not None
    around = replace(body.surroundings, wall_mm=float(g.uniform(*GAS_WALL_MM)), ring_mm=float(g.uniform(*GAS_RING_MM)))
    lowest_mm = float(reference_frame(body).to_lps(heart.places_mm[heart.pericardium < 0])[:, 2].min())
    left_dome_mm = lowest_mm + float(g.uniform(*GAS_OVERLAP_MM)) + GAS_BELOW_DOME_MM
    gas_mm = float(g.uniform(*GAS_MM))
    body = replace(body, stomach_gas_mm=gas_mm, left_dome_mm=left_dome_mm, surroundings=around)
    return replace(patient, body=body, distractors=distractors)


def with_plaque_at_fork(patient: Patient, g: np.random.Generator) -> Patient:
    """Add plaque at the end of a left main of three branches, and at the beginning of its branches or not."""
    tree, plaques = patient.tree, list(patient.plaques)
    stem = tree.vessel("LM")
    length = float(g.uniform(0.3, 0.95)) * stem.length_mm
    plaque = more_severe(draw_plaque(_next_id(plaques), stem, stem.length_mm, 0.2, g), tree, g)
    plaques.append(replace(plaque, length_mm=length, middle_mm=stem.length_mm - length / 2))
    for name, share in FORK_PLAQUES.items():
        if g.random() < share:
            plaque = more_severe(draw_plaque(_next_id(plaques), tree.vessel(name), 0.0, 0.2, g), tree, g)
            plaques.append(replace(plaque, middle_mm=plaque.length_mm / 2))
    return replace(patient, plaques=tuple(plaques))


def _without_metal(patient: Patient) -> tuple[Distractor, ...]:
    return tuple(distractor for distractor in patient.distractors if not distractor.metal)


def _next_id(plaques: Sequence[Plaque]) -> int:
    return 1 + max((plaque.id for plaque in plaques), default=0)
