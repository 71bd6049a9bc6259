"""Digital patients with calcium in every segment and much of all else that is dense, for training.

Plaques lie anywhere along every vessel and branch, as often distal as proximal, and often at the ostia, where they are
easily taken for the root's calcium; beside patients whose plaques lie as in people and patients without any. Deposits
and devices are far more common than in people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..anatomy.body import draw_body
from ..anatomy.coronaries import CoronaryTree, Plaque, draw_plaque, draw_plaques, plaques_everywhere
from ..anatomy.distractors import DEVICES, MOVES_WITH, Distractor, device, draw_distractors
from ..anatomy.hearts.valves import DEPOSITS, deposits
from ..anatomy.patient import Patient, draw_heart, move_to_sternum, stream, surround
from ..anatomy.points import PointCloud
from ..anatomy.thorax import lung_grain, lung_vessels
from ..scanner.motion import PROTOCOLS, ScanPose, draw_heart_beat, draw_pair
from ..scanner.scanner import Scanner

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

GATED, UNGATED = "cardiac-varied", "chest-varied"
"""Protocols of their scans."""

GATED_SHARE = 0.4
"""Share of gated scans."""


def draw_lesion_patient(number: int) -> Patient:
    """Draw the patient of a number; the same number gives the same patient."""
    g = stream(number, 70)
    body = draw_body(stream(number, 1), None)
    heart, tree = draw_heart(body, stream(number, 50), stream(number, 2), True)
    body = move_to_sternum(body, heart)
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
    assert set(DEVICE_WEIGHTS) == set(DEVICES)
    if stream(number, 74).random() < SURROUNDED_SHARE:
        body, more = surround(number, body, heart)
        distractors += more
    return Patient(
        number=number,
        body=body,
        tree=tree,
        plaques=plaques,
        distractors=tuple(distractors),
        beat=draw_heart_beat(stream(number, 5)),
        vessels=lung_vessels(body, stream(number, 6)),
        grain=lung_grain(body, stream(number, 7)),
        heart=heart,
    )


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
        plaques = tuple(_more_severe(plaque, tree, g) for plaque in plaques)
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


def _more_severe(plaque: Plaque, tree: CoronaryTree, generator: np.random.Generator) -> Plaque:
    """A plaque as in heavily calcified arteries: several centimetres long, thick, around most of the wall."""
    g = generator
    vessel = next(vessel for vessel in tree.vessels if vessel.name == plaque.vessel)
    length = min(plaque.length_mm * float(g.uniform(1.0, 5.0)), max(1.0, 0.8 * vessel.length_mm))
    middle = float(np.clip(plaque.middle_mm, length / 2, max(length / 2, vessel.length_mm - length / 2)))
    return replace(
        plaque,
        length_mm=length,
        middle_mm=middle,
        thickness_mm=min(plaque.thickness_mm * float(g.uniform(1.0, 2.2)), 3.5),
        arc_degrees=float(g.uniform(60.0, 350.0)),
        density_mg_cm3=min(plaque.density_mg_cm3 * float(g.uniform(0.9, 1.5)), 1200.0),
    )


def draw_lesion_scan(number: int) -> tuple[Scanner, ScanPose, tuple[float, float]]:
    """Draw scanner, pose and range of heights (mm from the heart's middle) of a patient's scan."""
    g = stream(number, 71)
    gated = bool(g.random() < GATED_SHARE)
    scanner, pose = draw_pair(PROTOCOLS[GATED if gated else UNGATED], stream(number, 72))[int(g.integers(2))]
    narrow = gated or scanner.slice_spacing_mm < 2.5 or g.random() < 0.4
    low, high = (-72.0, 76.0) if narrow else (-105.0, 165.0)
    return scanner, pose, (low - float(g.uniform(0, 14)), high + float(g.uniform(0, 14)))
