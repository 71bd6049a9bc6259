"""One digital patient: everything that does not change between two scans, from one number."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..scanner.motion import HeartBeat, draw_heart_beat
from .body import Body, draw_body
from .coronaries import CoronaryTree, Plaque, draw_plaques
from .distractors import Distractor, draw_distractors
from .heart import reference_frame
from .hearts.shape import HeartShape, draw_heart_shape
from .hearts.tree import draw_tree
from .lungs import lung_grain, lung_vessels
from .points import POINT_STEP_MM, PointCloud, joined

_SEED = 20210531
"""Changing it changes every patient; a cohort's table records it."""
STERNUM_GAP_MM = 8.0
"""Usual distance of the pericardium from the wall of the chest; shape."""


@dataclass(frozen=True)
class Patient:
    """A patient by number. The same number and options give the same patient (with the same NumPy and SciPy)."""

    number: int
    body: Body
    tree: CoronaryTree
    plaques: tuple[Plaque, ...]
    distractors: tuple[Distractor, ...]
    beat: HeartBeat
    vessels: PointCloud
    grain: PointCloud
    heart: HeartShape

    @property
    def mass_mg(self) -> float:
        """True coronary calcium, mg hydroxyapatite."""
        return sum(plaque.mass_mg for plaque in self.plaques)

    def calcium(self, artery: str, step_mm: float = POINT_STEP_MM) -> PointCloud:
        """An artery's plaques as points that weigh mg, in heart coordinates."""
        by_name = {vessel.name: vessel for vessel in self.tree.vessels}
        return joined([p.cloud(by_name[p.vessel], step_mm) for p in self.plaques if p.artery == artery])


def stream(number: int, *purpose: int) -> np.random.Generator:
    """A patient's random stream for one purpose, independent of all others."""
    return np.random.default_rng([_SEED, number, *purpose])


def draw_heart(
    body: Body, shape: np.random.Generator, arteries: np.random.Generator
) -> tuple[HeartShape, CoronaryTree]:
    """A heart for a body, and the arteries on it, each from a random stream of its own."""
    heart = draw_heart_shape(body, shape)
    tree = draw_tree(body.sex, heart, arteries)
    points, radii = (np.concatenate([getattr(v, f)[::4] for v in tree.vessels]) for f in ("path_mm", "radius_mm"))
    return heart.holding(points, radii), tree


def patient_heart(number: int, body: Body) -> tuple[HeartShape, CoronaryTree]:
    """A patient's heart and the arteries on it."""
    return draw_heart(body, stream(number, 50), stream(number, 2))


def draw_patient(number: int, sex: str | None = None, prevalence: float | None = None) -> Patient:
    """Patient `number` (0 or more). sex: "F" or "M" to ask for one. prevalence: share of patients with calcium."""
    if number < 0:
        raise ValueError(f"Patient numbers start at 0; {number} was asked for.")
    body = draw_body(stream(number, 1), sex)
    heart, tree = patient_heart(number, body)
    body = moved_to_sternum(body, heart)
    plaques = draw_plaques(tree, body.sex, stream(number, 3), prevalence)
    return Patient(
        number=number,
        body=body,
        tree=tree,
        plaques=plaques,
        distractors=draw_distractors(body, tree, bool(plaques), stream(number, 4), heart),
        beat=draw_heart_beat(stream(number, 5)),
        vessels=lung_vessels(body, stream(number, 6)),
        grain=lung_grain(body, stream(number, 7)),
        heart=heart,
    )


def moved_to_sternum(body: Body, heart: HeartShape) -> Body:
    """The body with its heart half of the way to where it lies behind the sternum."""
    frame = reference_frame(body)
    front = float(frame.to_lps(heart.places_mm[heart.pericardium < 0])[:, 1].min())
    gap = front + body.cavity_half_depth_mm - STERNUM_GAP_MM
    x, y, z = body.heart_centre_mm
    return replace(body, heart_centre_mm=(x, y - 0.5 * max(gap, 0.0), z))


def with_contrast(patient: Patient) -> Patient:
    """The same patient with a contrast agent in the blood, as for CT angiography of the coronaries: bright blood in
    chambers and arteries, heart muscle and liver a little brighter (ranges (2nd): usual values, shape)."""
    g = stream(patient.number, 40)
    body = patient.body
    bright = replace(
        body,
        blood_hu=float(g.uniform(280, 450)),
        myocardium_hu=body.myocardium_hu + float(g.uniform(35, 75)),
        liver_hu=body.liver_hu + float(g.uniform(5, 30)),
    )
    return replace(patient, body=bright)
