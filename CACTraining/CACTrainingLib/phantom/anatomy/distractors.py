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
from .heart import ROOT_IN_FRAME, VESSEL_SHAPES, HeartFrame, aorta_paths, reference_frame, vessel_anchors
from .hearts.shape import HeartShape
from .hearts.valves import DEPOSITS, deposits, ring
from .points import PointCloud, arc_mm, around, frame_along, join_clouds, tube

KINDS = read_shapes("distractors")["kinds"]
"""Prevalence, traits and sizes by kind."""
PREVALENCE = {kind: facts["prevalence"] for kind, facts in KINDS.items()}
"""Share of patients with each kind."""
AGEING, ADDED = (tuple(kind for kind, facts in KINDS.items() if facts.get(fact)) for fact in ("ages", "added"))
"""Kinds that are more common beside coronary calcium, and kinds drawn from a generator of their own."""
MOVES_WITH = {kind: facts["moves_with"] for kind, facts in KINDS.items() if "moves_with" in facts}
"""Group of `motion.EXCURSION_MM` of the kinds that do not move with the valves."""


class Part(NamedTuple):
    """Piece of a device. Its anchor, group and cloud are as in `Distractor`; streaks is the strength of its streaks."""

    anchor: str
    group: str | None
    cloud: PointCloud
    streaks: float


def mesh(path_mm: np.ndarray, radius_mm: float, volume_mm3: float, crowns: int = 6) -> PointCloud:
    """Return zigzag rings of struts on a tube's wall along a polyline [n, 3], about every 1.6 mm."""
    arc = arc_mm(path_mm)
    rings = max(2, round(arc[-1] / 1.6))
    height = arc[-1] / rings
    turn = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    zigzag = 2 * np.abs(np.mod(turn * crowns / (2 * math.pi), 1.0) - 0.5)
    at = np.clip((np.arange(rings)[:, None] + 0.05 + 0.9 * zigzag) * height, 0, arc[-1]).ravel()
    places = around(path_mm, at, np.tile(turn, rings), radius_mm, arc)
    return PointCloud(places, np.full(len(places), volume_mm3 / len(places)))


def stent(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    main = [v for v in tree.vessels if v.name == v.artery and v.name != "LM"]
    vessel = main[g.integers(len(main))]
    return [Part("heart", vessel.artery, stent_struts(vessel, g), KINDS["stent"]["streaks"])]


def stent_struts(vessel: Vessel, g: np.random.Generator) -> PointCloud:
    """The struts of a stent in a vessel, in its frame; weights in mm³ of metal."""
    size = KINDS["stent"]
    first = int(g.uniform(*size["start"]) * len(vessel.path_mm))
    path = vessel.path_mm[first : first + int(g.uniform(*size["length_mm"]) / 0.5)]
    radius = float(vessel.radius_mm[first])
    length = 0.5 * (len(path) - 1)
    volume = 2 * math.pi * radius * length * g.uniform(*size["strut_mm"]) * g.uniform(*size["cover"]) * size["density"]
    return mesh(path, radius, volume)


def lead(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a lead from the left arm's vein to the right ventricle's apex, sometimes with a second in the atrium."""
    size = KINDS["pacemaker lead"]
    a, b, c = body.heart_semi_axes_mm
    atrium, bend = heart.landmarks_mm["ra"], heart.landmarks_mm["tricuspid"]
    blood = heart.places_mm[heart.part("rv") < -3.5].astype(float)
    blood = blood[np.argsort(blood[:, 0])]
    tip = blood[int(g.uniform(*size["tip"]) * len(blood))]
    middle = 0.5 * (bend + tip) + 0.2 * (heart.landmarks_mm["rv"] - bend)
    inside = smooth_path(np.stack([atrium, bend, middle, tip]), 90)
    radius, density, coil = g.uniform(*size["radius_mm"]), g.uniform(*size["density"]), size["coil"]
    clouds = [tube(inside, radius, density, 0.4)]
    if g.random() < coil["share"]:
        clouds.append(tube(inside[45:82], coil["radius_mm"], coil["density"], 0.5))
    if g.random() < size["atrial_share"]:
        appendage = atrium + np.array([0.12 * a, 0.2 * b, 0.25 * c])
        hook = smooth_path(np.stack([atrium, atrium + np.array([0, 0.15 * b, -0.1 * c]), appendage]), 40)
        clouds.append(tube(hook, radius, density, 0.4))
    vein = tube(_cava(body, atrium), radius, density, 0.4)
    return [Part("heart", "RCA", join_clouds(clouds), size["streaks"]), Part("body", None, vein, size["streaks"])]


def catheter(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a central venous catheter or port of radiopaque polymer, its tip near the right atrium."""
    path = _cava(body, heart.landmarks_mm["ra"])
    size = KINDS["venous catheter"]
    end = int(g.uniform(*size["end"]) * len(path))
    density = g.uniform(*size["hu"]) / tissues.METAL_HU
    return [Part("body", None, tube(path[:end], g.uniform(*size["radius_mm"]), density, 0.4), size["streaks"])]


def bypass_clips(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw clips along a graft to the left anterior descending, from the aorta or from behind the sternum's edge."""
    frame = reference_frame(body)
    target = next(v for v in tree.vessels if v.name == "LAD").path_mm
    size = KINDS["bypass clips"]
    target = target[int(g.uniform(*size["target"]) * len(target))]
    if g.random() < size["thoracic_share"]:
        knots = [(26, 8 - body.cavity_half_depth_mm, 105), (24, 8 - body.cavity_half_depth_mm, 50)]
        graft = smooth_path(np.stack([*frame.to_heart(np.array(knots, float)), 1.1 * target, target]), 100)
    else:
        start = np.array(ROOT_IN_FRAME) * frame.semi_axes_mm + 42 * np.array([-0.75, 0.2, 0.65])
        graft = smooth_path(np.stack([start, 0.58 * (start + target), target]), 100)
    clouds = []
    for place in graft[g.choice(100, int(g.integers(*size["count"])), replace=False)]:
        u, _, w = frame_along(g.normal(size=3))
        half = g.uniform(*size["half_length_mm"])
        legs = place + np.array([[half, 0.7], [-half, 0.4], [-half, -0.4], [half, -0.7]]) @ np.stack([w, u])
        clouds.append(tube(legs, g.uniform(*size["radius_mm"]), g.uniform(*size["density"]), 0.3))
    return [Part("heart", "LM", join_clouds(clouds), size["streaks"])]


def sternal_wires(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    clouds, size = [], KINDS["sternal wires"]
    angle = np.linspace(0, 2 * math.pi, 40)
    x, y = size["half_width_mm"] * np.cos(angle), size["half_depth_mm"] * np.sin(angle)
    y += -body.cavity_half_depth_mm - size["behind_skin_mm"]
    low, high = size["heights_mm"]
    for z in np.arange(low, high, g.uniform(*size["spacing_mm"])):
        loop = np.stack([x, y, z + g.normal(0, 2) + 3 * np.cos(angle)], axis=1)
        clouds.append(tube(loop, size["radius_mm"], size["density"], 0.5))
    return [Part("body", None, join_clouds(clouds), size["streaks"])]


def prosthetic_valve(body: Body, tree: CoronaryTree, heart: HeartShape, g: np.random.Generator) -> list[Part]:
    """Draw a surgical valve's ring or a transcatheter valve's mesh in the aortic or mitral annulus."""
    size = KINDS["prosthetic valve"]
    valve = "aortic" if g.random() < size["aortic_share"] else "mitral"
    annulus = ring(heart, valve)
    middle = annulus.middle_mm
    radius = 0.9 * float(np.median(np.linalg.norm(annulus.curve_mm - middle, axis=1)))
    u, v, w = frame_along(annulus.axis)
    if valve == "aortic" and g.random() < size["transcatheter_share"]:
        struts = size["mesh"]
        path = middle + np.linspace(-6, g.uniform(*struts["top_mm"]), 60)[:, None] * w
        length = float(np.linalg.norm(path[-1] - path[0]))
        volume = 2 * math.pi * radius * length * struts["strut_mm"] * struts["cover"] * g.uniform(*struts["density"])
        return [Part("heart", "valve", mesh(path, radius, volume, crowns=12), size["streaks"][0])]
    angle, wire = np.linspace(0, 2 * math.pi, 80)[:, None], size["ring"]
    posts = 1.5 * np.maximum(np.cos(3 * angle), 0) * g.uniform(*wire["posts_mm"])
    loop = middle + radius * (np.cos(angle) * u + np.sin(angle) * v) + posts * w
    cloud = tube(loop, g.uniform(*wire["radius_mm"]), g.uniform(*wire["density"]), 0.4)
    return [Part("heart", "valve", cloud, size["streaks"][1])]


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
    return smooth_path(place_points(VESSEL_SHAPES["left subclavian vein to right atrium"], anchors), 120)


WITH_PLAQUE, WITHOUT_PLAQUE = 1.5, 0.7
"""Factors on the prevalence of AGEING kinds in patients with and without coronary calcium."""

MIDDLE_AGE_YEARS, ODDS_PER_YEAR = 65.0, 1.08
"""Age at which AGEING kinds have their prevalence, and factor on its odds a year: a doubling in nine years, near
that of aorta and valves in MESA (from under 55 to over 75 years 7 to 70 and 2 to 40 %; (2nd))."""

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
        radius = np.interp(at, index, radii) + wall_distance
        return PointCloud(around(path, at, angle, radius, index), self.cloud.weights)


def draw_distractors(
    body: Body,
    tree: CoronaryTree,
    calcified: bool,
    generator: np.random.Generator,
    heart: HeartShape,
    age_years: float | None = None,
) -> tuple[Distractor, ...]:
    """Draw a patient's distractors.

    calcified: True if the coronary arteries hold calcium. age_years: age on which AGEING kinds depend; None if they
    depend on coronary calcium instead.
    """
    distractors: list[Distractor] = []
    (added_generator,) = generator.spawn(1)
    for kind, share in PREVALENCE.items():
        if kind in AGEING and age_years is not None:
            share = 1 / (1 + (1 / share - 1) * ODDS_PER_YEAR ** (MIDDLE_AGE_YEARS - age_years))
        elif kind in AGEING:
            share *= WITH_PLAQUE if calcified else WITHOUT_PLAQUE
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
        places = KINDS["hilar node"]["places_mm"]
        centre = np.array(places[g.integers(len(places))], float) + g.normal(0, 4, 3)
        nodes.append(
            Distractor("hilar node", "body", None, _blob(g, centre, g.uniform(1.0, 2.6, 3), _mass(g, 18, 0.9)))
        )
    return nodes


def view_gain(g: np.random.Generator, strength: float) -> np.ndarray:
    """Draw the relative weight of each view direction on metal of a strength of streaks."""
    gain = g.normal(0, STREAK_SPREAD * strength, 40)
    return 1 + gain - gain.mean()
