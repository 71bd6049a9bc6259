"""Valves, where two rooms of the heart meet, papillary muscles, and calcium outside the coronary arteries."""

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
"""Lower and upper end of the aortic root from the ring in mm, along its axis."""
CUSP_MM = 15.0
"""Height of the commissures over the ring in mm."""
CUSP_THICKNESS_MM = 1.0
PAPILLARY = ("anterolateral", "posteromedial")
_ANGLES, _HARMONICS, _ABOVE_MM = 72, 4, 4.0
_MIN_MM = {"mitral": 12.0, "aortic": 8.0, "tricuspid": 13.0, "pulmonary": 8.0}
_MAX_MM = {"mitral": 21.0, "aortic": 16.0, "tricuspid": 23.0, "pulmonary": 16.0}


@dataclass(frozen=True)
class Ring:
    """Annulus of a valve in the heart's frame.

    Attributes:
        curve_mm: Closed curve [n, 3].
        middle_mm: Middle of the curve.
        axis: Unit vector out of the ventricle (for mitral and tricuspid into the atrium).
    """

    curve_mm: np.ndarray
    middle_mm: np.ndarray
    axis: np.ndarray


def ring(shape: HeartShape, valve: str) -> Ring:
    """Return the annulus of "mitral", "aortic", "tricuspid" or "pulmonary"."""
    first, second = (shape.part(room) for room in ROOMS[valve])
    distance_mm = np.linalg.norm(shape.places_mm - shape.landmarks_mm[valve], axis=-1)
    gap = np.where(distance_mm < 20.0, np.maximum(first, second), np.inf)
    in_ring = gap < gap.min() + 2.0
    middle = shape.places_mm[in_ring].mean(axis=0).astype(float)
    slopes = np.stack(np.gradient(first - second, STEP_MM), -1)[in_ring].mean(axis=0).astype(float)
    axis = slopes / np.linalg.norm(slopes)
    across = np.linalg.svd(axis[None])[2][1:]
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    out = np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
    steps = np.arange(3.0, _MAX_MM[valve] + 0.1, 0.5)
    places = middle + steps[:, None, None] * out
    columns = [1 + PARTS.index(room) for room in ROOMS[valve]]
    is_outside = np.full((len(steps), _ANGLES), False)
    if valve in ("aortic", "pulmonary"):
        # The vessel's outline, just above the ventricle.
        distance = shape.sample((places + _ABOVE_MM * axis).reshape(-1, 3))[:, columns[1]]
        is_outside = distance.reshape(len(steps), _ANGLES) > 0
    for _ in range(2 if valve in ("mitral", "tricuspid") else 0):
        # Move onto the surface between the rooms, which is not flat.
        distance = shape.sample(places.reshape(-1, 3))[:, columns].reshape(len(steps), _ANGLES, 2)
        places = places - 0.5 * np.clip(distance[..., 0] - distance[..., 1], -6, 6)[..., None] * axis
        is_outside = distance.max(axis=-1) > gap.min() + 2.5
    is_outside[steps < _MIN_MM[valve]] = False
    is_outside[-1] = True
    edge = is_outside.argmax(axis=0)
    radius = _smooth(steps[edge])
    height = _smooth((places[edge, np.arange(_ANGLES)] - middle) @ axis)
    return Ring(middle + radius[:, None] * out + height[:, None] * axis, middle, axis)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Keep the first harmonics of values around the ring."""
    spectrum = np.fft.rfft(ndimage.median_filter(values, 7, mode="wrap"))
    spectrum[_HARMONICS + 1 :] = 0
    return np.fft.irfft(spectrum, len(values))


@dataclass(frozen=True)
class AorticRoot:
    """Aortic root in the heart's frame.

    Attributes:
        annulus: Ring of the valve.
        axis: Unit vector from the ring's middle upwards.
        radius_mm: Radius of the ring.
        sinuses: Directions of the sinuses' middles [3, 3]: left coronary, right coronary, non-coronary.
    """

    annulus: Ring
    axis: np.ndarray
    radius_mm: float
    sinuses: np.ndarray

    def around(self, angle: np.ndarray, height_mm: np.ndarray, radius_mm: np.ndarray) -> np.ndarray:
        """Return points at angles (0 at the left coronary sinus, rising to the right one), heights and radii."""
        first = self.sinuses[0]
        second = np.cross(self.axis, first)
        second *= np.sign(second @ self.sinuses[1]) or 1.0
        out = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
        return self.annulus.middle_mm + height_mm[:, None] * self.axis + radius_mm[:, None] * out

    def cusp(self, number: int, across: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """Return points [n, 3] on a closed cusp.

        across: -1 to 1 from commissure to commissure. towards: 0 at the wall to 1 at the free edge.
        """
        angle = np.radians(120.0 * number + 60.0 * across)
        wall = self.around(angle, CUSP_MM * np.abs(across) ** 1.7, np.full(len(angle), self.radius_mm))
        free = self.around(angle, 0.75 * CUSP_MM + 0.25 * CUSP_MM * np.abs(across), self.radius_mm * np.abs(across))
        belly = -0.22 * CUSP_MM * np.sin(np.pi * towards) * (1 - np.abs(across))
        return (1 - towards[:, None]) * wall + towards[:, None] * free + belly[:, None] * self.axis


def aortic_root(shape: HeartShape, tree: CoronaryTree) -> AorticRoot:
    """Return the root, its sinuses turned to the ostia of the coronary arteries."""
    annulus = ring(shape, "aortic")
    path, _ = shape.stem("aorta")
    up = path[min(3, len(path) - 1)] - path[0]
    up /= np.linalg.norm(up)
    ostia = [next(v.path_mm[0] for v in tree.vessels if v.name == name) for name in ("LM", "RCA")]
    left_ostium, right_ostium = (_across(place - annulus.middle_mm, up) for place in ostia)
    # Sinuses are 120° apart, whatever the angle between the ostia.
    side = np.sign(np.cross(left_ostium, right_ostium) @ up) or 1.0
    shortfall = np.radians(120.0) - np.arccos(np.clip(left_ostium @ right_ostium, -1, 1))
    left_ostium = _turn(left_ostium, up, -side * shortfall / 2)
    sinuses = np.stack([_turn(left_ostium, up, side * np.radians(120.0) * n) for n in range(3)])
    radius = float(np.median(np.linalg.norm(annulus.curve_mm - annulus.middle_mm, axis=1)))
    return AorticRoot(annulus, up, radius, sinuses)


def cusps(shape: HeartShape, tree: CoronaryTree) -> PointCloud:
    """Return the part of the closed aortic valve in blood, CUSP_THICKNESS_MM thick; weights in mm³."""
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
    """Return tip and base [2, 3] and their radii [2] of each muscle of PAPILLARY, in the heart's frame.

    Tip and direction are blended from the hearts that have the muscle; the base is at the wall.
    """
    mitral, apex = shape.landmarks_mm["mitral"], shape.landmarks_mm["apex"]
    axis = (apex - mitral) / np.linalg.norm(apex - mitral)
    muscles = {}
    for side, radius in zip(PAPILLARY, shape.papillary_mm, strict=True):
        ends_by_heart = {key.split()[0]: ends for key, ends in shape.papillary.items() if key.endswith(side)}
        shares = [max(shape.weights[heart], 0.02) for heart in ends_by_heart]
        first, last = np.average(list(ends_by_heart.values()), axis=0, weights=shares)
        start = 0.35 * first + 0.65 * last
        out = _across(start - mitral, axis) + 0.5 * axis
        path = start + np.arange(0, 40, 0.5)[:, None] * out / np.linalg.norm(out)
        base = path[np.argmax(shape.sample(path)[:, 1 + PARTS.index("lv")] > -0.5)]
        # In the meshes the tips almost reach the leaflets.
        muscles[side] = np.stack([first + 0.2 * (last - first), base]), radius * np.array([0.5, 1.0])
    return muscles


def _across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    flat = vector - (vector @ axis) * axis
    return flat / np.linalg.norm(flat)


def _turn(vector: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    return np.cos(angle) * vector + np.sin(angle) * np.cross(axis, vector)


def posterior_arc(shape: HeartShape) -> np.ndarray:
    """Return the muscular part of the mitral annulus [n, 3], a C without the curtain to the aortic valve."""
    mitral = ring(shape, "mitral")
    distance = np.linalg.norm(mitral.curve_mm - shape.landmarks_mm["aortic"], axis=1)
    start = int(np.argmin(distance))
    curve = np.roll(mitral.curve_mm, -start, axis=0)
    gap = round(0.14 * len(curve))
    return curve[gap : len(curve) - gap + 1]


DENSEST_MG_CM3, CELL_MM = 1000.0, 1.5
"""Highest density of calcium, about 1500 HU at 120 kVp, and side in mm of the cells in which it is limited."""


def aortic_root_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Draw arcs on the annulus, and flecks in the wall of the sinuses up to the sinotubular junction."""
    root = aortic_root(shape, tree)
    clouds = []
    if g.random() < 0.55:
        curve = root.annulus.curve_mm
        out = curve - root.annulus.middle_mm
        curve = root.annulus.middle_mm + out * (1 + g.uniform(0.3, 1.5) / np.linalg.norm(out, axis=1, keepdims=True))
        stretch = stretch_of(curve, g.uniform(0.08, 0.9), g, closed=True)
        clouds.append(band(stretch, g.uniform(0.5, 1.6), drawn_mass(g, 30, 0.9), g))
    for _ in range(g.poisson(0.9) + (not clouds)):
        angle, height = g.uniform(0, 2 * np.pi), g.uniform(3, 22)
        count = 60
        spread = g.uniform(0.05, 0.22)
        angles, heights = g.normal(angle, spread, count), g.normal(height, 8 * spread, count)
        places = root.around(angles, heights, np.full(count, root.radius_mm))
        clouds.append(_deposit(move_to_wall(shape, "aorta", places), drawn_mass(g, 7, 0.8), g))
    return clouds


def aortic_valve_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Draw nodules and plates of the cusps, mostly near their base, sometimes along the line of closure."""
    root = aortic_root(shape, tree)
    clouds = []
    for _ in range(1 + g.poisson(1.8)):
        number = int(g.integers(3))
        across, towards = g.uniform(-0.8, 0.8), g.beta(1.2, 2.0)
        count, spread = 80, g.uniform(0.06, 0.25)
        places = root.cusp(
            number, np.clip(g.normal(across, spread, count), -1, 1), np.clip(g.normal(towards, spread, count), 0, 1)
        )
        clouds.append(_deposit(places + g.normal(0, g.uniform(0.3, 1.0), (count, 3)), drawn_mass(g, 9, 0.9), g))
    return clouds


def mitral_annulus_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Draw a part of the posterior annulus, or all of it (some 9 cm), thick or thin, with gaps."""
    arc = posterior_arc(shape)
    length = float(np.linalg.norm(np.diff(arc, axis=0), axis=1).sum())
    reach = float(np.clip(g.lognormal(np.log(18.0), 0.7), 4.0, length))
    thickness = g.uniform(0.6, 2.6)
    return [band(stretch_of(arc, reach / length, g), thickness, drawn_mass(g, 2.4 * reach * thickness / 1.5, 0.6), g)]


def papillary_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Draw flecks in the tips of the papillary muscles."""
    muscles = papillary_muscles(shape)
    # Four draws, as when measured muscles were used, so that masses stay the same.
    sides = [side for side in 2 * PAPILLARY if g.random() < 0.5 or side == "posteromedial"]
    (tip, base), _ = muscles[sides[int(g.integers(len(sides)))]]
    middle = tip + g.uniform(0.05, 0.3) * (base - tip)
    return [_deposit(g.normal(middle, g.uniform(0.5, 1.6), (60, 3)), drawn_mass(g, 6, 0.8), g)]


def pericardial_deposits(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> list[PointCloud]:
    """Draw plates of the pericardium, mostly in the grooves and over the right ventricle."""
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
        patch = places[stretch < reach]
        points = np.repeat(patch, 12, axis=0) + g.uniform(-1.8, 1.8, (12 * len(patch), 3))
        for _ in range(2):
            points -= shape.sample(points)[:, :1] * outward_slope(shape, points)
        shift = g.normal(0, g.uniform(0.3, 0.9), (len(points), 1)) * outward_slope(shape, points)
        clouds.append(_deposit(points + shift, drawn_mass(g, 0.5 * reach**1.6, 0.7), g))
    return clouds


def drawn_mass(g: np.random.Generator, median_mg: float, spread: float) -> float:
    return float(median_mg * np.exp(g.normal(0, spread)))


def _deposit(places: np.ndarray, mass_mg: float, g: np.random.Generator) -> PointCloud:
    weights = g.lognormal(0, 0.6, len(places))
    return limit_density(PointCloud(places, weights / weights.sum() * mass_mg))


def limit_density(cloud: PointCloud) -> PointCloud:
    """Reduce weights where calcium would be denser than DENSEST_MG_CM3."""
    cells = np.unique(np.floor(cloud.positions_mm / CELL_MM), axis=0, return_inverse=True)[1].reshape(-1)
    most_mg = DENSEST_MG_CM3 * CELL_MM**3 / 1000
    share = np.minimum(1, most_mg / np.maximum(np.bincount(cells, cloud.weights), 1e-9))
    return PointCloud(cloud.positions_mm, cloud.weights * share[cells])


def stretch_of(curve: np.ndarray, share: float, g: np.random.Generator, closed: bool = False) -> np.ndarray:
    """Draw a stretch of a curve."""
    count = max(3, round(share * len(curve)))
    if closed:
        return np.roll(curve, -int(g.integers(len(curve))), axis=0)[:count]
    first = int(g.integers(len(curve) - count + 1)) if count < len(curve) else 0
    return curve[first : first + count]


def band(curve: np.ndarray, thick_mm: float, mass_mg: float, g: np.random.Generator) -> PointCloud:
    """Draw a band along a curve, of varying thickness, with gaps."""
    length = arc_mm(curve)[-1]
    at = np.sort(g.uniform(0, length, int(40 + 12 * length)))
    middle = along(curve, at)
    lumps = ndimage.gaussian_filter1d(g.standard_normal(len(at)), 12.0, mode="reflect")
    lumps = np.clip(1 + 0.8 * lumps / max(lumps.std(), 1e-6), 0.05, 3)
    places = middle + g.normal(0, 0.5 * thick_mm, (len(at), 3)) * np.minimum(lumps, 1.5)[:, None]
    return limit_density(PointCloud(places, lumps / lumps.sum() * mass_mg))


def move_to_wall(shape: HeartShape, part: str, places: np.ndarray) -> np.ndarray:
    """Move points onto a part's wall, just outside its blood."""
    column = 1 + PARTS.index(part)
    for _ in range(3):
        places = places - (shape.sample(places)[:, [column]] - 0.5) * outward_slope(shape, places, column)
    return places


def outward_slope(shape: HeartShape, places: np.ndarray, column: int = 0) -> np.ndarray:
    """Return the unit direction [n, 3] in which a distance grows."""
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
"""Functions that draw the kinds of `distractors.PREVALENCE` in the heart or its valves."""


def deposits(kind: str, shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw all calcium of a kind of DEPOSITS in a heart, in its frame; weights in mg."""
    return join_clouds(DEPOSITS[kind](shape, tree, g))
