"""Calcium of heart and valves outside the coronary arteries, where and as it lies in people. All shape."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..coronaries import CoronaryTree
from ..points import PointCloud, joined
from .models import PARTS
from .shape import HeartShape, union
from .valves import PAPILLARY, aortic_root, papillary_muscles, posterior_arc

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
    """With less calcium where it would be denser than calcium gets."""
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
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))]
    at = np.sort(g.uniform(0, arc[-1], int(40 + 12 * arc[-1])))
    middle = np.stack([np.interp(at, arc, curve[:, n]) for n in range(3)], axis=1)
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
    return joined(DEPOSITS[kind](shape, tree, g))
