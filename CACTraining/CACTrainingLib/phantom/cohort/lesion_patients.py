"""Digital patients with calcium in every segment and much of all else that is dense, for training.

Plaques lie anywhere along every vessel and branch, as often distal as proximal, and often at the ostia, where they are
easily taken for the root's calcium; beside patients whose plaques lie as in people and patients without any. Deposits
and devices are far more common than in people. On request, a patient is difficult in one way (Difficulty): calcium
of the root's wall beside the ostia, heavy plaque beside heavy annuli, motion that doubles arteries, several devices, a
heavy mitral annulus with or without plaque of the circumflex beside it, thin and noisy slices, thick slices, a small
field that cuts ribs, or in one of the ways that `mistaken` draws: plaque doubled by motion or in pieces, a block of the
annulus, a sinus wall joined to an ostium, compact plaque beside metal, cartilage of thin people, gas below the heart, a
left main of three branches, or a large heart that the field cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from ..anatomy.coronaries import CoronaryTree, Plaque, draw_plaque, draw_plaques, plaques_everywhere
from ..anatomy.distractors import MOVES_WITH, Distractor, device, draw_distractors, view_gain
from ..anatomy.hearts.shape import HeartShape
from ..anatomy.hearts.valves import DEPOSITS, deposits
from ..anatomy.hearts.wall_calcium import aortic_ring, curtain_calcium, heavy_mitral_annulus, right_ring, sinus_shells
from ..anatomy.patient import OSTIUM, Patient, draw_anatomy, stream, surround, whole_patient
from ..anatomy.points import POINT_STEP_MM, PointCloud, join_clouds
from .mistaken import (
    with_annulus_block,
    with_calcified_cartilage,
    with_compact_plaque,
    with_gas_below,
    with_moving_plaque,
    with_ostial_wall,
    with_pieces,
    with_plaque_at_fork,
)
from .severe_plaque import heavy_plaque, more_severe, plaque_from_ostium

WITHOUT_PLAQUE, AS_IN_PEOPLE = 0.15, 0.25
"""Share of patients without plaque, and of those with plaque where it lies in people."""

MEAN_PLAQUES = 16.0
"""Plaques of the other patients; each adds to the mean of a Poisson law."""

SEVERE_SHARE = 0.4
"""Share of the latter whose plaques are as in heavily calcified arteries."""

OSTIAL_PLAQUE_SHARE, OSTIUM_MM = 0.4, 12.0
"""Probability of a further plaque near each ostium, and how far from it at most."""

DEPOSIT_SHARE = 0.4
"""Probability of each kind of deposit."""

DEVICE_SHARE = 0.4
"""Share of patients with devices."""

DEVICE_WEIGHTS = {
    "stent": 5.0, "pacemaker lead": 1.5, "sternal wires": 1.0, "venous catheter": 1.0, "bypass clips": 1.5,
    "prosthetic valve": 1.5,
}  # fmt: skip
"""Relative chances of each kind of device to be drawn."""

SURROUNDED_SHARE = 0.5
"""Share of patients whose heart has the surroundings of real chests; a network taught by these alone loses what it
knew of the plain ones."""

Difficulty = Literal[
    "ostium", "heavy", "motion", "device", "annulus", "noise", "thick", "field",
    "doubled", "pieces", "block", "sinus", "compact", "cartilage", "gas", "trifurcation", "large",
]  # fmt: skip
"""Way in which a patient is difficult. New ones are added at the end, because training numbers its patients by them."""

DIFFICULTIES: tuple[Difficulty | None, ...] = (None, *get_args(Difficulty))
"""Kinds of patients that trainings draw by turns: usual ones, then each difficulty."""

_CHANGES: dict[str, tuple[int, Callable[[Patient, np.random.Generator], Patient]]] = {
    "doubled": (83, with_moving_plaque),
    "pieces": (84, with_pieces),
    "block": (85, with_annulus_block),
    "sinus": (86, with_ostial_wall),
    "compact": (87, with_compact_plaque),
    "cartilage": (88, with_calcified_cartilage),
    "gas": (89, with_gas_below),
    "trifurcation": (90, with_plaque_at_fork),
}
"""Purpose of the random stream of what `mistaken` adds to a usual patient, and its function."""

OSTIAL_SHARE = {"RCA": 0.8, "LM": 0.5}
"""Share of difficult ostia with plaque, by artery."""

WITH_ROOT_SHARE = 0.6
"""Share of ostial plaques of the right coronary artery that move as the root rather."""

OSTIUM_BLEND = {"LM": 0.65, "RCA": 0.35}
"""Weights of the root's and the artery's motion in that of the right ostium; illustrative."""

RIGHT_RING_SHARE, CURTAIN_SHARE, AORTIC_RING_SHARE = 0.3, 0.5, 0.5
"""Share of difficult patients with calcium on the pulmonary or tricuspid annulus, the curtain, and the aortic one."""

HEAVY_ANNULUS_SHARE, STREAK_STRENGTH = 0.85, (0.0, 0.45)
"""Share of heavily calcified hearts with a heavy mitral annulus, and range of the strength of its streaks."""

HEAVY_ARTERIES = {"LAD": 0.5, "LCX": 0.2, "RCA": 0.3}
"""Shares of heavy plaque by artery."""

MOVING_LUMEN, MOVING_CLEAN_SHARE = 1.8, 0.5
"""`Surroundings.most_lumen` of patients with much motion, and share of them without plaque."""

DEVICE_SHARES = {
    "prosthetic valve": 0.65, "bypass clips": 0.45, "pacemaker lead": 0.2, "sternal wires": 0.3, "venous catheter": 0.2,
}  # fmt: skip
"""Probability of each kind of device where devices are the difficulty."""


BESIDE_SHARE, BESIDE_MEAN = 0.5, 2.0
"""Share of heavy mitral annuli with plaque of the circumflex beside them, and mean number of further such plaques."""

LARGE_SCALES = (1.08, 1.32)
"""Range of the factor on the axes of large hearts, of 800 to 1,800 mL."""


def draw_lesion_patient(number: int, difficulty: Difficulty | None = None) -> Patient:
    """Draw the patient of a number; the same number and difficulty give the same patient."""
    return replace(_draw_difficult_patient(number, difficulty), difficulty=difficulty)


def _draw_difficult_patient(number: int, difficulty: Difficulty | None) -> Patient:
    if difficulty == "large":
        return _draw_usual_patient(number, heart_scale=float(stream(number, 91).uniform(*LARGE_SCALES)))
    patient = _draw_usual_patient(number, ramus=True) if difficulty == "trifurcation" else _draw_usual_patient(number)
    if difficulty in _CHANGES:
        purpose, change = _CHANGES[difficulty]
        return change(patient, stream(number, purpose))
    if difficulty == "ostium":
        return _with_ostial_calcium(patient, stream(number, 75))
    if difficulty == "heavy":
        return _with_heavy_calcium(patient, stream(number, 76))
    if difficulty == "device":
        return _with_devices(patient, stream(number, 79))
    if difficulty == "annulus":
        return _with_heavy_annulus(patient, stream(number, 81))
    return _with_much_motion(patient, stream(number, 77)) if difficulty == "motion" else patient


def _with_ostial_calcium(patient: Patient, g: np.random.Generator) -> Patient:
    """Add plaque that begins at the ostia, and calcium of the walls and rings beside them."""
    tree, heart = patient.tree, patient.heart
    plaques, with_root = list(patient.plaques), set(patient.ostial_plaques)
    first = max((plaque.id for plaque in plaques), default=0)
    for name, share in OSTIAL_SHARE.items():
        if g.random() < share:
            plaque = plaque_from_ostium(max(first, len(plaques)) + 1, tree, name, g)
            plaques.append(plaque)
            if name == "RCA" and g.random() < WITH_ROOT_SHARE:
                with_root.add(plaque.id)
    patient = replace(
        patient,
        plaques=tuple(plaques),
        ostial_plaques=frozenset(with_root),
        beat=patient.beat.with_blend(OSTIUM, OSTIUM_BLEND),
    )
    vessels = {vessel.name: vessel for vessel in tree.vessels}
    ostial = [p.cloud(vessels[p.vessel], 2 * POINT_STEP_MM) for p in plaques if p.vessel in OSTIAL_SHARE]
    wall = [sinus_shells(heart, tree, join_clouds(ostial), g)]
    if g.random() < AORTIC_RING_SHARE:
        wall.append(aortic_ring(heart, tree, g))
    if g.random() < CURTAIN_SHARE:
        wall.append(curtain_calcium(heart, tree, g))
    more = [Distractor("aortic root", "heart", MOVES_WITH["aortic root"], join_clouds(wall))]
    if g.random() < RIGHT_RING_SHARE:
        more.append(Distractor("right ring", "heart", "valve", right_ring(heart, tree, g)))
    return replace(patient, distractors=(*patient.distractors, *more))


def _with_heavy_calcium(patient: Patient, g: np.random.Generator) -> Patient:
    """Add heavy plaque and heavy annuli, and take all devices away."""
    tree, heart = patient.tree, patient.heart
    plaques = list(patient.plaques)
    first = max((plaque.id for plaque in plaques), default=0)
    names, shares = zip(*HEAVY_ARTERIES.items(), strict=True)
    for number in range(1 + int(g.poisson(0.8))):
        plaques.append(heavy_plaque(first + number + 1, tree, names[g.choice(len(names), p=shares)], g))
    more = [Distractor("aortic root", "heart", MOVES_WITH["aortic root"], _heavy_root(heart, tree, g))]
    if g.random() < HEAVY_ANNULUS_SHARE:
        gain = view_gain(g, float(g.uniform(*STREAK_STRENGTH)))
        cloud = heavy_mitral_annulus(heart, tree, g)
        more.append(Distractor("mitral annulus", "heart", "valve", cloud, view_gain=gain))
    if g.random() < RIGHT_RING_SHARE:
        more.append(Distractor("right ring", "heart", "valve", right_ring(heart, tree, g)))
    calcium = [distractor for distractor in patient.distractors if not distractor.metal]
    return replace(patient, plaques=tuple(plaques), distractors=(*calcium, *more))


def _heavy_root(heart: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw some of the calcium of wall, annulus and curtain that old roots have."""
    clouds = [aortic_ring(heart, tree, g)] if g.random() < AORTIC_RING_SHARE else []
    if g.random() < CURTAIN_SHARE or not clouds:
        clouds.append(curtain_calcium(heart, tree, g))
    return join_clouds(clouds)


def _with_much_motion(patient: Patient, g: np.random.Generator) -> Patient:
    """Let walls and arteries move far, with plaque or without any."""
    number, body = patient.number, patient.body
    distractors = patient.distractors
    if body.surroundings is None:
        body, more = surround(number, body, patient.heart)
        distractors += more
    assert body.surroundings is not None
    around = replace(
        body.surroundings,
        wall_mm=float(g.uniform(2.5, 5)),
        ring_mm=float(g.uniform(5, 11)),
        most_lumen=MOVING_LUMEN,
    )
    plaques = () if g.random() < MOVING_CLEAN_SHARE else patient.plaques
    return replace(patient, body=replace(body, surroundings=around), plaques=plaques, distractors=distractors)


def _with_heavy_annulus(patient: Patient, g: np.random.Generator) -> Patient:
    """Add a heavy mitral annulus, and plaque of the circumflex beside it or none."""
    tree = patient.tree
    circumflex = next(vessel for vessel in tree.vessels if vessel.name == "LCX")
    plaques = [plaque for plaque in patient.plaques if plaque.vessel != "LCX"]
    first = max((plaque.id for plaque in patient.plaques), default=0)
    if g.random() < BESIDE_SHARE:
        for number in range(first + 1, first + 2 + int(g.poisson(BESIDE_MEAN))):
            place_mm = float(g.uniform(0, circumflex.length_mm))
            plaque = draw_plaque(number, circumflex, place_mm, float(g.normal(0, 0.25)), g)
            plaques.append(more_severe(plaque, tree, g))
    gain = view_gain(g, float(g.uniform(*STREAK_STRENGTH)))
    cloud = heavy_mitral_annulus(patient.heart, tree, g)
    annulus = Distractor("mitral annulus", "heart", "valve", cloud, view_gain=gain)
    return replace(patient, plaques=tuple(plaques), distractors=(*patient.distractors, annulus))


def _with_devices(patient: Patient, g: np.random.Generator) -> Patient:
    """Add devices of each kind but stents."""
    kinds = [kind for kind, share in DEVICE_SHARES.items() if g.random() < share]
    more = [piece for kind in kinds for piece in device(kind, patient.body, patient.tree, g, patient.heart)]
    return replace(patient, distractors=(*patient.distractors, *more))


def _draw_usual_patient(number: int, ramus: bool = False, heart_scale: float | None = None) -> Patient:
    """Draw a patient without difficulty. Arguments as in `draw_anatomy`."""
    g = stream(number, 70)
    body, heart, tree = draw_anatomy(number, diverse=True, ramus=ramus, heart_scale=heart_scale)
    plaques = _draw_plaques(tree, body.sex, g)
    distractors = list(draw_distractors(body, tree, bool(plaques), stream(number, 4), heart))
    kinds = {distractor.kind for distractor in distractors}
    for kind in DEPOSITS:
        if kind not in kinds and g.random() < DEPOSIT_SHARE:
            cloud = deposits(kind, heart, tree, g)
            if len(cloud.weights):
                cloud = PointCloud(cloud.positions_mm, cloud.weights * float(np.exp(g.normal(0, 0.5))))
                distractors.append(Distractor(kind, "heart", MOVES_WITH.get(kind, "valve"), cloud))
    if g.random() < DEVICE_SHARE:
        names, weights = zip(*DEVICE_WEIGHTS.items(), strict=True)
        for _ in range(1 + int(g.random() < 0.5)):
            kind = names[g.choice(len(names), p=np.array(weights) / sum(weights))]
            for _ in range(1 + (kind == "stent" and int(g.integers(3)))):
                distractors += device(kind, body, tree, g, heart)
    if stream(number, 74).random() < SURROUNDED_SHARE:
        body, more = surround(number, body, heart)
        distractors += more
    return whole_patient(number, body, heart, tree, plaques, tuple(distractors))


def _draw_plaques(tree: CoronaryTree, sex: str, generator: np.random.Generator) -> tuple[Plaque, ...]:
    """Draw no plaques, those of people, or many anywhere."""
    g = generator
    choice = g.random()
    if choice < WITHOUT_PLAQUE:
        return ()
    if choice < WITHOUT_PLAQUE + AS_IN_PEOPLE:
        return draw_plaques(tree, sex, g, 1.0)
    plaques = plaques_everywhere(tree, 1 + int(g.poisson(MEAN_PLAQUES)), g)
    plaques += _ostial_plaques(tree, len(plaques), g)
    if g.random() < SEVERE_SHARE:
        plaques = tuple(more_severe(plaque, tree, g) for plaque in plaques)
    return plaques


def _ostial_plaques(tree: CoronaryTree, count: int, generator: np.random.Generator) -> tuple[Plaque, ...]:
    """Draw plaques near the ostia of LM and RCA, at random. count: Number of the patient's other plaques."""
    g = generator
    plaques: list[Plaque] = []
    for name in ("LM", "RCA"):
        vessel = next(vessel for vessel in tree.vessels if vessel.name == name)
        if g.random() < OSTIAL_PLAQUE_SHARE:
            place_mm = float(g.uniform(0, min(OSTIUM_MM, vessel.length_mm)))
            plaques.append(draw_plaque(count + len(plaques) + 1, vessel, place_mm, float(g.normal(0, 0.25)), g))
    return tuple(plaques)
