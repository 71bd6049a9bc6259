"""Valves, found where two rooms of the heart meet, papillary muscles, and calcium outside the coronary arteries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..coronaries import CoronaryTree
from ..points import PointCloud, along, arc_mm, join_clouds
from .shape import PARTS, STEP_MM, HeartShape, union

ROOMS = {
    "mitral": ("lv", "la"),
    "aortic": ("lv", "aorta"),
    "tricuspid": ("rv", "ra"),
    "pulmonary": ("rv", "pulmonary"),
}
ROOT_MM = (-7.0, 22.0)
"""The aortic root's lower and upper end from the ring, along its axis."""
CUSP_MM = 15.0
"""Height of the commissures over the ring."""
CUSP_THICKNESS_MM = 1.0
PAPILLARY = ("anterolateral", "posteromedial")
_ANGLES, _HARMONICS, _ABOVE_MM = 72, 4, 4.0
_LEAST_MM = {"mitral": 12.0, "aortic": 8.0, "tricuspid": 13.0, "pulmonary": 8.0}
_MOST_MM = {"mitral": 21.0, "aortic": 16.0, "tricuspid": 23.0, "pulmonary": 16.0}


@dataclass(frozen=True)
class Ring:
    """A valve's annulus: a closed curve [n, 3], its middle, and the direction of the blood that leaves the ventricle
    (mitral, tricuspid: into the atrium), in the heart's frame."""

    curve_mm: np.ndarray
    middle_mm: np.ndarray
    axis: np.ndarray


def ring(shape: HeartShape, valve: str) -> Ring:
    """The annulus of "mitral", "aortic", "tricuspid" or "pulmonary"."""
    first, second = (shape.part(room) for room in ROOMS[valve])
    far = np.linalg.norm(shape.places_mm - shape.landmarks_mm[valve], axis=-1)
    gap = np.where(far < 20.0, np.maximum(first, second), np.inf)
    near = gap < gap.min() + 2.0
    middle = shape.places_mm[near].mean(axis=0).astype(float)
    slopes = np.stack(np.gradient(first - second, STEP_MM), -1)[near].mean(axis=0).astype(float)
    axis = slopes / np.linalg.norm(slopes)
    across = np.linalg.svd(axis[None])[2][1:]
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    out = np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
    steps = np.arange(3.0, _MOST_MM[valve] + 0.1, 0.5)
    places = middle + steps[:, None, None] * out
    columns = [1 + PARTS.index(room) for room in ROOMS[valve]]
    found = np.full((len(steps), _ANGLES), False)
    if valve in ("aortic", "pulmonary"):
        # The vessel's own outline, just above where the ventricle narrows into it.
        distance = shape.sample((places + _ABOVE_MM * axis).reshape(-1, 3))[:, columns[1]]
        found = distance.reshape(len(steps), _ANGLES) > 0
    for _ in range(2 if valve in ("mitral", "tricuspid") else 0):
        # Onto the surface between the rooms, which is not flat.
        distance = shape.sample(places.reshape(-1, 3))[:, columns].reshape(len(steps), _ANGLES, 2)
        places = places - 0.5 * np.clip(distance[..., 0] - distance[..., 1], -6, 6)[..., None] * axis
        found = distance.max(axis=-1) > gap.min() + 2.5
    found[steps < _LEAST_MM[valve]] = False
    found[-1] = True
    edge = found.argmax(axis=0)
    radius = _smooth(steps[edge])
    height = _smooth((places[edge, np.arange(_ANGLES)] - middle) @ axis)
    return Ring(middle + radius[:, None] * out + height[:, None] * axis, middle, axis)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The first harmonics of values around the ring."""
    spectrum = np.fft.rfft(ndimage.median_filter(values, 7, mode="wrap"))
    spectrum[_HARMONICS + 1 :] = 0
    return np.fft.irfft(spectrum, len(values))


@dataclass(frozen=True)
class AorticRoot:
    """The root's axis from the ring's middle upwards, its radius, and the directions [3, 3] of the sinuses' middles:
    left and right coronary, non-coronary."""

    annulus: Ring
    axis: np.ndarray
    radius_mm: float
    sinuses: np.ndarray

    def around(self, angle: np.ndarray, height_mm: np.ndarray, radius_mm: np.ndarray) -> np.ndarray:
        """Points from angles (0 towards the left coronary sinus, growing to the right one), heights and radii."""
        first = self.sinuses[0]
        second = np.cross(self.axis, first)
        second *= np.sign(second @ self.sinuses[1]) or 1.0
        out = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
        return self.annulus.middle_mm + height_mm[:, None] * self.axis + radius_mm[:, None] * out

    def cusp(self, number: int, across: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """Points [n, 3] on a closed cusp. across: -1 to 1 from commissure to commissure; towards: 0 at the wall to 1
        at the free edge."""
        angle = np.radians(120.0 * number + 60.0 * across)
        wall = self.around(angle, CUSP_MM * np.abs(across) ** 1.7, np.full(len(angle), self.radius_mm))
        free = self.around(angle, 0.75 * CUSP_MM + 0.25 * CUSP_MM * np.abs(across), self.radius_mm * np.abs(across))
        belly = -0.22 * CUSP_MM * np.sin(np.pi * towards) * (1 - np.abs(across))
        return (1 - towards[:, None]) * wall + towards[:, None] * free + belly[:, None] * self.axis


def aortic_root(shape: HeartShape, tree: CoronaryTree) -> AorticRoot:
    """The root, its sinuses turned as the coronary arteries leave it."""
    annulus = ring(shape, "aortic")
    path, _ = shape.stem("aorta")
    up = path[min(3, len(path) - 1)] - path[0]
    up /= np.linalg.norm(up)
    ostia = [next(v.path_mm[0] for v in tree.vessels if v.name == name) for name in ("LM", "RCA")]
    left, right = (_across(place - annulus.middle_mm, up) for place in ostia)
    # Sinuses are 120° apart, whatever the ostia's own angle.
    side = np.sign(np.cross(left, right) @ up) or 1.0
    between = np.radians(120.0) - np.arccos(np.clip(left @ right, -1, 1))
    left = _turn(left, up, -side * between / 2)
    sinuses = np.stack([_turn(left, up, side * np.radians(120.0) * n) for n in range(3)])
    radius = float(np.median(np.linalg.norm(annulus.curve_mm - annulus.middle_mm, axis=1)))
    return AorticRoot(annulus, up, radius, sinuses)


def cusps(shape: HeartShape, tree: CoronaryTree) -> PointCloud:
    """The closed aortic valve, CUSP_THICKNESS_MM thick, as far as it lies in blood; weights in mm³."""
    root, steps = aortic_root(shape, tree), 30
    across, towards = np.meshgrid(np.linspace(-1, 1, 2 * steps + 1), np.linspace(0, 1, steps + 1), indexing="ij")
    clouds = []
    for number in range(3):
        corners = root.cusp(number, across.ravel(), towards.ravel()).reshape(*across.shape, 3)
        sides = np.diff(corners, axis=0)[:, :-1], np.diff(corners, axis=1)[:-1]
        area = np.linalg.norm(np.cross(*sides), axis=-1)
        middles = 0.25 * (corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:])
        clouds.append(PointCloud(middles.reshape(-1, 3), CUSP_THICKNESS_MM * area.ravel()))
    cloud = join_clouds(clouds)
    blood = shape.sample(cloud.positions_mm)[:, [1 + PARTS.index(room) for room in ROOMS["aortic"]]].min(axis=1)
    return PointCloud(cloud.positions_mm[blood < -0.5], cloud.weights[blood < -0.5])


def papillary_muscles(shape: HeartShape) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tip and base [2, 3] with their radii [2] of each muscle of PAPILLARY, in the heart's frame.

    Tip and direction are blended from the hearts that have them; the base is where that side's wall is.
    """
    mitral, apex = shape.landmarks_mm["mitral"], shape.landmarks_mm["apex"]
    axis = (apex - mitral) / np.linalg.norm(apex - mitral)
    found = {}
    for side, radius in zip(PAPILLARY, shape.papillary_mm, strict=True):
        own = {key.split()[0]: ends for key, ends in shape.papillary.items() if key.endswith(side)}
        shares = [max(shape.weights[heart], 0.02) for heart in own]
        first, last = np.average(list(own.values()), axis=0, weights=shares)
        start = 0.35 * first + 0.65 * last
        out = _across(start - mitral, axis) + 0.5 * axis
        way = start + np.arange(0, 40, 0.5)[:, None] * out / np.linalg.norm(out)
        base = way[np.argmax(shape.sample(way)[:, 1 + PARTS.index("lv")] > -0.5)]
        # The meshes' tips reach almost to the leaflets.
        found[side] = np.stack([first + 0.2 * (last - first), base]), radius * np.array([0.5, 1.0])
    return found


def _across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    flat = vector - (vector @ axis) * axis
    return flat / np.linalg.norm(flat)


def _turn(vector: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    return np.cos(angle) * vector + np.sin(angle) * np.cross(axis, vector)


def posterior_arc(shape: HeartShape) -> np.ndarray:
    """The muscular part of the mitral annulus, a C [n, 3] that leaves out the curtain to the aortic valve."""
    mitral = ring(shape, "mitral")
    away = np.linalg.norm(mitral.curve_mm - shape.landmarks_mm["aortic"], axis=1)
    start = int(np.argmin(away))
    turned = np.roll(mitral.curve_mm, -start, axis=0)
    left_out = round(0.14 * len(turned))
    return turned[left_out : len(turned) - left_out + 1]


DENSEST_MG_CM3, CELL_MM = 1000.0, 1.5
"""Calcium in a CT reaches about 1500 HU at 120 kVp; density is looked at in cells of this side."""


def aortic_root_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Arcs on the annulus, and flecks in the wall of the sinuses up to the sinotubular junction."""
    root = aortic_root(shape, tree)
    clouds = []
    if g.random() < 0.55:
        curve = root.annulus.curve_mm
        out = curve - root.annulus.middle_mm
        curve = root.annulus.middle_mm + out * (1 + g.uniform(0.3, 1.5) / np.linalg.norm(out, axis=1, keepdims=True))
        clouds.append(
            _along(_part(curve, g.uniform(0.08, 0.9), g, closed=True), g.uniform(0.5, 1.6), _mass(g, 30, 0.9), g)
        )
    for _ in range(g.poisson(0.9) + (not clouds)):
        angle, height = g.uniform(0, 2 * np.pi), g.uniform(3, 22)
        count = 60
        spread = g.uniform(0.05, 0.22)
        angles, heights = g.normal(angle, spread, count), g.normal(height, 8 * spread, count)
        places = root.around(angles, heights, np.full(count, root.radius_mm))
        clouds.append(_weighted(_on_wall(shape, "aorta", places), _mass(g, 7, 0.8), g))
    return clouds


def aortic_valve_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Nodules and plates of the cusps, mostly near their base, sometimes along the line of closure."""
    root = aortic_root(shape, tree)
    clouds = []
    for _ in range(1 + g.poisson(1.8)):
        number = int(g.integers(3))
        across, towards = g.uniform(-0.8, 0.8), g.beta(1.2, 2.0)
        count, spread = 80, g.uniform(0.06, 0.25)
        places = root.cusp(
            number, np.clip(g.normal(across, spread, count), -1, 1), np.clip(g.normal(towards, spread, count), 0, 1)
        )
        clouds.append(_weighted(places + g.normal(0, g.uniform(0.3, 1.0), (count, 3)), _mass(g, 9, 0.9), g))
    return clouds


def mitral_annulus_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """A part or all of the C of the posterior annulus, up to some 9 cm along it, thick or thin, with gaps."""
    whole = posterior_arc(shape)
    length = float(np.linalg.norm(np.diff(whole, axis=0), axis=1).sum())
    reach = float(np.clip(g.lognormal(np.log(18.0), 0.7), 4.0, length))
    thick = g.uniform(0.6, 2.6)
    return [_along(_part(whole, reach / length, g), thick, _mass(g, 2.4 * reach * thick / 1.5, 0.6), g)]


def papillary_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Flecks in the tips of the papillary muscles."""
    muscles = papillary_muscles(shape)
    # As many draws as when a muscle of one of the measured hearts was taken, so that masses stay as they were.
    sides = [side for side in 2 * PAPILLARY if g.random() < 0.5 or side == "posteromedial"]
    (tip, base), _ = muscles[sides[int(g.integers(len(sides)))]]
    middle = tip + g.uniform(0.05, 0.3) * (base - tip)
    return [_weighted(g.normal(middle, g.uniform(0.5, 1.6), (60, 3)), _mass(g, 6, 0.8), g)]


def pericardial_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Plates of the pericardium: patches that follow it, most in the grooves and over the right ventricle."""
    o = shape.outsides
    groove = np.abs(union([o["lv_epi"], o["rv"]], 1.5) - union([o["la"], o["ra"]], 1.5)) < 10
    wall = np.abs(shape.pericardium) < 1.5
    likely = wall * (1.0 + 3.0 * groove + 1.0 * (o["rv"] < o["lv_epi"])) * (shape.places_mm[..., 2] < 40)
    places, chance = shape.places_mm[likely > 0].astype(float), likely[likely > 0]
    clouds = []
    for _ in range(1 + g.poisson(0.8)):
        seed = places[g.choice(len(places), p=chance / chance.sum())]
        reach = g.uniform(4, 22)
        stretch = np.linalg.norm((places - seed) * g.uniform(0.7, 1.6, 3), axis=1)
        near = places[stretch < reach]
        many = np.repeat(near, 12, axis=0) + g.uniform(-1.8, 1.8, (12 * len(near), 3))
        for _ in range(2):
            many -= shape.sample(many)[:, :1] * _slope(shape, many)
        thin = g.normal(0, g.uniform(0.3, 0.9), (len(many), 1)) * _slope(shape, many)
        clouds.append(_weighted(many + thin, _mass(g, 0.5 * reach**1.6, 0.7), g))
    return clouds


def _mass(g: np.random.Generator, median_mg: float, spread: float) -> float:
    return float(median_mg * np.exp(g.normal(0, spread)))


def _weighted(places: np.ndarray, mass_mg: float, g: np.random.Generator) -> PointCloud:
    weights = g.lognormal(0, 0.6, len(places))
    return _possible(PointCloud(places, weights / weights.sum() * mass_mg))


def _possible(cloud: PointCloud) -> PointCloud:
    """The cloud with less calcium where it would be denser than calcium gets."""
    cells = np.unique(np.floor(cloud.positions_mm / CELL_MM), axis=0, return_inverse=True)[1].reshape(-1)
    most_mg = DENSEST_MG_CM3 * CELL_MM**3 / 1000
    share = np.minimum(1, most_mg / np.maximum(np.bincount(cells, cloud.weights), 1e-9))
    return PointCloud(cloud.positions_mm, cloud.weights * share[cells])


def _part(curve: np.ndarray, share: float, g: np.random.Generator, closed: bool = False) -> np.ndarray:
    """A run of a curve, from anywhere on it."""
    count = max(3, round(share * len(curve)))
    if closed:
        return np.roll(curve, -int(g.integers(len(curve))), axis=0)[:count]
    first = int(g.integers(len(curve) - count + 1)) if count < len(curve) else 0
    return curve[first : first + count]


def _along(curve: np.ndarray, thick_mm: float, mass_mg: float, g: np.random.Generator) -> PointCloud:
    """A band along a curve, thicker and thinner, with gaps."""
    length = arc_mm(curve)[-1]
    at = np.sort(g.uniform(0, length, int(40 + 12 * length)))
    middle = along(curve, at)
    lumps = ndimage.gaussian_filter1d(g.standard_normal(len(at)), 12.0, mode="reflect")
    lumps = np.clip(1 + 0.8 * lumps / max(lumps.std(), 1e-6), 0.05, 3)
    places = middle + g.normal(0, 0.5 * thick_mm, (len(at), 3)) * np.minimum(lumps, 1.5)[:, None]
    return _possible(PointCloud(places, lumps / lumps.sum() * mass_mg))


def _on_wall(shape: HeartShape, part: str, places: np.ndarray) -> np.ndarray:
    """Points moved onto a part's wall, just outside its blood."""
    column = 1 + PARTS.index(part)
    for _ in range(3):
        places = places - (shape.sample(places)[:, [column]] - 0.5) * _slope(shape, places, column)
    return places


def _slope(shape: HeartShape, places: np.ndarray, column: int = 0) -> np.ndarray:
    """Direction [n, 3] in which a distance grows."""
    ahead = [shape.sample(places + 1.5 * e)[:, column] - shape.sample(places - 1.5 * e)[:, column] for e in np.eye(3)]
    slope = np.stack(ahead, axis=1)
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-3)


DEPOSITS = {
    "aortic root": aortic_root_deposits,
    "aortic valve": aortic_valve_deposits,
    "mitral annulus": mitral_annulus_deposits,
    "papillary muscle": papillary_deposits,
    "pericardium": pericardial_deposits,
}
"""Kinds of `distractors.PREVALENCE` that lie in the heart or its valves."""


def deposits(kind: str, shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """All calcium of a kind of DEPOSITS in a heart, in its frame; weights in mg."""
    return join_clouds(DEPOSITS[kind](shape, tree, g))
