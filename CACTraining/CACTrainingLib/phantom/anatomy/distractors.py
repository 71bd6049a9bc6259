"""Distractors that a calcium score must exclude: calcium outside the coronary arteries, and metal.

PREVALENCE states how often each occurs; sizes are illustrative. Metal is imaged as very dense points whose views
disagree (`view_gain`), which gives streaks; beam hardening is not modelled. Devices have common sizes; their weights
are mm³ of a material as dense as `tissues.METAL_HU`; less dense ones (titanium, nitinol, radiopaque polymer) weigh
less per mm³.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..shapes import place_points, read_shapes
from . import tissues
from .body import Body
from .canvas import smooth_path
from .coronaries import CoronaryTree, Vessel
from .heart import VESSELS, HeartFrame, aorta_paths, reference_frame, vessel_anchors
from .hearts.shape import HeartShape
from .hearts.valves import DEPOSITS, deposits, ring
from .points import PointCloud, along, arc_mm, frame_along, frames_along, join_clouds, tube


class Part(NamedTuple):
    """Piece of a device. Its anchor, group and cloud are as in `Distractor`; streaks is the strength of its streaks."""

    anchor: str
    group: str | None
    cloud: PointCloud
    streaks: float


def mesh(path_mm: np.ndarray, radii_mm: np.ndarray, volume_mm3: float, crowns: int = 6) -> PointCloud:
    """Return zigzag rings of struts on a tube's wall along a polyline [n, 3] with radii [n], about every 1.6 mm."""
    arc = arc_mm(path_mm)
    rings = max(2, round(arc[-1] / 1.6))
    height = arc[-1] / rings
    turn = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    zigzag = 2 * np.abs(np.mod(turn * crowns / (2 * math.pi), 1.0) - 0.5)
    at = np.clip((np.arange(rings)[:, None] + 0.05 + 0.9 * zigzag) * height, 0, arc[-1]).ravel()
    angle = np.tile(turn, rings)
    u, v = frames_along(along(np.gradient(path_mm, axis=0), at, arc))
    radius = np.interp(at, arc, radii_mm)[:, None]
    places = along(path_mm, at) + radius * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v)
    return PointCloud(places, np.full(len(places), volume_mm3 / len(places)))


STENT_STREAKS = 0.4
"""Strength of a stent's streaks."""


def stent(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    main = [v for v in tree.vessels if v.name == v.artery and v.name != "LM"]
    vessel = main[g.integers(len(main))]
    return [Part("heart", vessel.artery, stent_struts(vessel, g), STENT_STREAKS)]


def stent_struts(vessel: Vessel, g: np.random.Generator) -> PointCloud:
    """The struts of a stent in a vessel, in its frame; weights in mm³ of metal."""
    first = int(g.uniform(0.05, 0.35) * len(vessel.path_mm))
    path = vessel.path_mm[first : first + int(g.uniform(12, 28) / 0.5)]
    # An expanded stent is as wide as the artery; struts cover 15 to 20 % of the wall. They are too thin to harden the
    # beam, so steel and cobalt weigh more than in a thick wire.
    radius = float(vessel.radius_mm[first])
    length = 0.5 * (len(path) - 1)
    volume = 2 * math.pi * radius * length * g.uniform(0.07, 0.14) * g.uniform(0.15, 0.2) * 1.6
    return mesh(path, np.full(len(path), radius), volume)


def lead(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a lead from the left arm's vein to the right ventricle's apex, sometimes with a second in the atrium."""
    frame = reference_frame(body)
    a, b, c = frame.semi_axes_mm
    atrium, bend = heart.landmarks_mm["ra"], heart.landmarks_mm["tricuspid"]
    blood = heart.places_mm[heart.part("rv") < -3.5].astype(float)
    blood = blood[np.argsort(blood[:, 0])]
    tip = blood[int(g.uniform(0.93, 0.995) * len(blood))]
    middle = 0.5 * (bend + tip) + 0.2 * (heart.landmarks_mm["rv"] - bend)
    inside = smooth_path(np.stack([atrium, bend, middle, tip]), 90)
    radius, fill = g.uniform(0.35, 0.55), g.uniform(0.5, 1.0)
    clouds = [tube(inside, np.full(90, radius), fill, 0.4)]
    if g.random() < 0.4:
        # A defibrillator's coil.
        clouds.append(tube(inside[45:82], np.full(37, 1.2), 0.3, 0.5))
    if g.random() < 0.5:
        # A second lead, into the atrial appendage.
        appendage = atrium + np.array([0.12 * a, 0.2 * b, 0.25 * c])
        hook = smooth_path(np.stack([atrium, atrium + np.array([0, 0.15 * b, -0.1 * c]), appendage]), 40)
        clouds.append(tube(hook, np.full(40, radius), fill, 0.4))
    vein = tube(_cava(body, atrium), np.full(120, radius), fill, 0.4)
    return [Part("heart", "RCA", join_clouds(clouds), 1.0), Part("body", None, vein, 1.0)]


def catheter(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a central venous catheter or port of radiopaque polymer, its tip near the right atrium."""
    path = _cava(body, heart.landmarks_mm["ra"])
    end = int(g.uniform(0.82, 1.0) * len(path))
    density = g.uniform(700, 2200) / tissues.METAL_HU
    return [Part("body", None, tube(path[:end], np.full(end, g.uniform(0.8, 1.2)), density, 0.4), 0.1)]


def bypass_clips(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw clips along a graft to the left anterior descending, from the aorta or from behind the sternum's edge."""
    frame = reference_frame(body)
    target = next(v for v in tree.vessels if v.name == "LAD").path_mm
    target = target[int(g.uniform(0.35, 0.7) * len(target))]
    if g.random() < 0.6:
        knots = [(26, 8 - body.cavity_half_depth_mm, 105), (24, 8 - body.cavity_half_depth_mm, 50)]
        graft = smooth_path(np.stack([*frame.to_heart(np.array(knots, float)), 1.1 * target, target]), 100)
    else:
        start = frame.root_mm + 42 * np.array([-0.75, 0.2, 0.65])
        graft = smooth_path(np.stack([start, 0.58 * (start + target), target]), 100)
    clouds = []
    for place in graft[g.choice(100, int(g.integers(4, 15)), replace=False)]:
        u, _, w = frame_along(g.normal(size=3))
        half = g.uniform(1.6, 3.0)
        legs = place + np.array([[half, 0.7], [-half, 0.4], [-half, -0.4], [half, -0.7]]) @ np.stack([w, u])
        clouds.append(tube(legs, np.full(4, g.uniform(0.3, 0.45)), g.uniform(0.4, 0.9), 0.3))
    return [Part("heart", "LM", join_clouds(clouds), 0.6)]


def sternal_wires(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    clouds = []
    angle = np.linspace(0, 2 * math.pi, 40)
    y0 = -body.cavity_half_depth_mm - 6.5
    for z in np.arange(-15, 110, g.uniform(18, 24)):
        loop = np.stack([15 * np.cos(angle), y0 + 8.5 * np.sin(angle), z + g.normal(0, 2) + 3 * np.cos(angle)], axis=1)
        clouds.append(tube(loop, np.full(40, 0.4), 1.0, 0.5))
    return [Part("body", None, join_clouds(clouds), 0.8)]


def prosthetic_valve(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a surgical valve's ring or a transcatheter valve's mesh in the aortic or mitral annulus."""
    valve = "aortic" if g.random() < 0.65 else "mitral"
    annulus = ring(heart, valve)
    middle = annulus.middle_mm
    radius = 0.9 * float(np.median(np.linalg.norm(annulus.curve_mm - middle, axis=1)))
    u, v, w = frame_along(annulus.axis)
    if valve == "aortic" and g.random() < 0.5:
        path = middle + np.linspace(-6, g.uniform(12, 36), 60)[:, None] * w
        length = float(np.linalg.norm(path[-1] - path[0]))
        volume = 2 * math.pi * radius * length * 0.35 * 0.15 * g.uniform(0.5, 0.9)
        return [Part("heart", "valve", mesh(path, np.full(60, radius), volume, crowns=12), 0.6)]
    angle = np.linspace(0, 2 * math.pi, 80)[:, None]
    posts = 1.5 * np.maximum(np.cos(3 * angle), 0) * g.uniform(0, 3)
    loop = middle + radius * (np.cos(angle) * u + np.sin(angle) * v) + posts * w
    return [Part("heart", "valve", tube(loop, np.full(80, g.uniform(0.3, 0.9)), g.uniform(0.4, 0.9), 0.4), 0.8)]


DEVICES: dict[str, Callable[[Body, CoronaryTree, HeartShape, np.random.Generator], list[Part]]] = {
    "stent": stent,
    "pacemaker lead": lead,
    "sternal wires": sternal_wires,
    "venous catheter": catheter,
    "bypass clips": bypass_clips,
    "prosthetic valve": prosthetic_valve,
}
"""Functions that draw the parts of each kind."""


def _cava(body: Body, atrium: np.ndarray) -> np.ndarray:
    """Return the path [120, 3] in LPS from the left arm through the superior vena cava to the atrium."""
    anchors = vessel_anchors(body, reference_frame(body).to_lps(atrium))
    return smooth_path(place_points(VESSELS["left subclavian vein to right atrium"], anchors), 120)


_KINDS = read_shapes("distractors")["kinds"]
PREVALENCE = {kind: facts["prevalence"] for kind, facts in _KINDS.items()}
"""Share of patients with each kind."""
AGEING, ADDED = (tuple(kind for kind, facts in _KINDS.items() if facts.get(fact)) for fact in ("ages", "added"))
"""Kinds that are more common beside coronary calcium, and kinds drawn from a generator of their own."""
MOVES_WITH = {kind: facts["moves_with"] for kind, facts in _KINDS.items() if "moves_with" in facts}
"""Group of `motion.EXCURSION_MM` of the kinds that do not move with the valves."""
WITH_PLAQUE, WITHOUT_PLAQUE = 1.5, 0.7
"""Factors on the prevalence of AGEING kinds in patients with and without coronary calcium."""

STREAK_SPREAD = 0.35
"""Standard deviation of the gain on metal between view directions."""


@dataclass(frozen=True)
class Distractor:
    """Dense object other than coronary calcium.

    Attributes:
        kind: Kind of PREVALENCE.
        anchor: Coordinates of the cloud: "heart" (heart's frame), "body" (LPS in quiet breathing), or "arch" or
            "descending" (share of that part of the aorta's length, mm beyond its wall, angle in radians).
        group: Group of `motion.EXCURSION_MM` that it moves with; None for one at rest.
        cloud: Points with weights in mg of calcium, or in mm³ of metal if `metal`.
        metal: True for metal.
        view_gain: Relative weight of each view direction [n], see `response.image_of_points`.
    """

    kind: str
    anchor: str
    group: str | None
    cloud: PointCloud
    metal: bool = False
    view_gain: np.ndarray | None = None

    @property
    def mass_mg(self) -> float:
        return 0.0 if self.metal else self.cloud.total

    def place(self, body: Body, frame: HeartFrame, heart: HeartShape) -> PointCloud:
        """Return the cloud in LPS for a heart in this pose."""
        if self.anchor == "heart":
            return self.cloud.map(frame.to_lps)
        if self.anchor == "body":
            return self.cloud
        path, radii = aorta_paths(body, frame, heart)[0 if self.anchor == "arch" else 1]
        share, wall_distance, angle = self.cloud.positions_mm.T
        at = share * (len(path) - 1)
        index = np.arange(len(path))
        u, v = frames_along(along(np.gradient(path, axis=0), at, index))
        outwards = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
        radius = np.interp(at, index, radii) + wall_distance
        return PointCloud(along(path, at, index) + radius[:, None] * outwards, self.cloud.weights)


def draw_distractors(
    body: Body,
    tree: CoronaryTree,
    calcified: bool,
    generator: np.random.Generator,
    heart: HeartShape,
) -> tuple[Distractor, ...]:
    """Draw a patient's distractors. calcified: True if the coronary arteries hold calcium."""
    distractors: list[Distractor] = []
    (added_generator,) = generator.spawn(1)
    for kind, share in PREVALENCE.items():
        share *= (WITH_PLAQUE if calcified else WITHOUT_PLAQUE) if kind in AGEING else 1.0
        if kind in ("stent", "bypass clips") and not calcified:
            share = 0.0
        # One draw per kind whatever the outcome, so that one kind's settings do not change the others.
        kind_generator = np.random.default_rng((added_generator if kind in ADDED else generator).integers(2**63))
        if kind_generator.random() >= share:
            continue
        if kind in DEPOSITS:
            group = MOVES_WITH.get(kind, "valve")
            distractors.append(Distractor(kind, "heart", group, deposits(kind, heart, tree, kind_generator)))
        elif kind in DEVICES:
            distractors.extend(device(kind, body, tree, kind_generator, heart))
        else:
            distractors.extend(_aortic_wall(kind_generator) if kind == "aortic wall" else _hilar_nodes(kind_generator))
    # Bypass surgery leaves wires in the sternum.
    kinds = {distractor.kind for distractor in distractors}
    if "bypass clips" in kinds and "sternal wires" not in kinds:
        distractors.extend(device("sternal wires", body, tree, added_generator, heart))
    return tuple(distractors)


def device(
    kind: str, body: Body, tree: CoronaryTree, generator: np.random.Generator, heart: HeartShape
) -> list[Distractor]:
    """Draw the pieces of a device of DEVICES."""
    parts = DEVICES[kind](body, tree, heart, generator)
    gain = view_gain(generator, max(part.streaks for part in parts))
    return [Distractor(kind, part.anchor, part.group, part.cloud, metal=True, view_gain=gain) for part in parts]


def _mass(g: np.random.Generator, median_mg: float, spread: float) -> float:
    return float(median_mg * math.exp(g.normal(0, spread)))


def _blob(g: np.random.Generator, centre: np.ndarray, spread_mm: np.ndarray | float, mass_mg: float) -> PointCloud:
    count = int(np.clip(mass_mg * 12, 40, 900))
    weights = g.lognormal(0, 0.5, count)
    return PointCloud(centre + g.normal(0, 1, (count, 3)) * spread_mm, weights / weights.sum() * mass_mg)


def _aortic_wall(g: np.random.Generator) -> list[Distractor]:
    walls = []
    for _ in range(1 + g.poisson(2.5)):
        arch = g.random() < 0.55
        at = g.uniform(0.25, 1.0) if arch else g.uniform(0.0, 0.75)
        mass = _mass(g, 9, 0.9)
        centre, spread = np.array([at, 0.3, g.uniform(0, 2 * math.pi)]), np.array([0.015, 0.35, 0.09]) * mass**0.25
        walls.append(Distractor("aortic wall", "arch" if arch else "descending", None, _blob(g, centre, spread, mass)))
    return walls


def _hilar_nodes(g: np.random.Generator) -> list[Distractor]:
    nodes = []
    for _ in range(1 + g.poisson(1.0)):
        place = ((-48, 6, 32), (50, 14, 28), (-18, 2, 66), (4, 14, 60), (18, -4, 74))[g.integers(5)]
        centre = np.array(place, float) + g.normal(0, 4, 3)
        nodes.append(
            Distractor("hilar node", "body", None, _blob(g, centre, g.uniform(1.0, 2.6, 3), _mass(g, 18, 0.9)))
        )
    return nodes


def view_gain(g: np.random.Generator, strength: float) -> np.ndarray:
    """Draw the relative weight of each view direction on metal of a strength of streaks."""
    gain = g.normal(0, STREAK_SPREAD * strength, 40)
    return 1 + gain - gain.mean()
