"""Calcium of the aortic root's wall, the valves' rings and the curtain between them, as severe as in people.

A shell lies on the wall of a sinus along its circumference: often at an ostium, where it is easily taken for the
artery's plaque, and apart from that plaque or touching it. Heavy rings reach into the groove, where arteries run.
Sizes are illustrative, after pictures of chest scans of old people.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..coronaries import CoronaryTree, Vessel
from ..points import PointCloud, along, arc_mm, join_clouds
from .shape import PARTS, HeartShape
from .valves import (
    AorticRoot,
    aortic_root,
    band,
    drawn_mass,
    limit_density,
    move_to_wall,
    outward_slope,
    posterior_arc,
    ring,
    stretch_of,
)

POINT_MM = 0.4
"""Distance of a shell's points in mm."""

TOUCHING_SHARE = 1 / 3
"""Share of shells at an ostium that touch its plaque."""

GAP_MM = (2.5, 8.0)
"""Range of the distance in mm of the other shells from the plaque."""

LUMEN_MM = 8.0
"""Length in mm of an artery's beginning whose lumen no shell crosses."""

RIGHT_SHARE = 0.65
"""Share of shells at an ostium that lie at that of the right coronary artery."""

OSTIAL_HALF_MM, OSTIAL_MG, TOUCH_MM, OSTIAL_TRIES = ((4.0, 12.0), (3.0, 7.0)), 18.0, 0.8, 30
"""Ranges of the half lengths in mm of a shell around an ostium, its least mass, the largest gap to what it touches, and
most tries."""

CURTAIN_SHARE = 0.28
"""Share of the mitral annulus that the curtain joins to the aortic annulus."""


def sinus_shells(shape: HeartShape, tree: CoronaryTree, plaques: PointCloud, g: np.random.Generator) -> PointCloud:
    """Draw shells in the walls of the sinuses: one or two at ostia, others anywhere, some around most of the root.

    Args:
        shape: The heart.
        tree: Its arteries.
        plaques: Plaque near the ostia, heart's frame.
        g: Random stream.

    Returns:
        Points in the heart's frame, weights in mg.
    """
    root = aortic_root(shape, tree)
    clouds = []
    for _ in range(1 + int(g.random() < 0.4)):
        name = "RCA" if g.random() < RIGHT_SHARE else "LM"
        vessel = next(vessel for vessel in tree.vessels if vessel.name == name)
        touches = bool(g.random() < TOUCHING_SHARE)
        cloud = _shell_at_ostium(shape, root, vessel, touches, g)
        gap = 0.0 if touches else float(g.uniform(*GAP_MM))
        clouds.append(_away_from(cloud, plaques, gap))
    for _ in range(int(g.poisson(0.8))):
        half = np.array([g.uniform(3, 14), g.uniform(1.5, 6)])
        clouds.append(_shell(shape, root, g.uniform(0, 2 * np.pi), g.uniform(2, 20), half, g))
    if g.random() < 0.15:
        half = np.array([g.uniform(1.2, 2.8) * root.radius_mm, g.uniform(1.5, 4)])
        clouds.append(_shell(shape, root, g.uniform(0, 2 * np.pi), g.uniform(0, 18), half, g))
    cloud = join_clouds(clouds)
    for name in ("LM", "RCA"):
        cloud = _outside_lumen(cloud, next(vessel for vessel in tree.vessels if vessel.name == name))
    return cloud


def _shell_at_ostium(
    shape: HeartShape, root: AorticRoot, vessel: Vessel, touches: bool, g: np.random.Generator
) -> PointCloud:
    """Draw a shell beside an artery's ostium, or below or above it."""
    angle, height = _place_on_root(root, vessel)
    half = np.array([g.uniform(3, 13), g.uniform(1.5, 5.5)])
    shift = half + (g.uniform(-2.5, 1.0) if touches else g.uniform(1.0, 4.0))
    direction = g.choice([-1, 1])
    if g.random() < 0.7:
        angle += direction * shift[0] / root.radius_mm
        height += g.uniform(-4, 4)
    else:
        angle += g.uniform(-5, 5) / root.radius_mm
        height += direction * shift[1]
    return _shell(shape, root, angle, height, half, g)


def _place_on_root(root: AorticRoot, vessel: Vessel) -> tuple[float, float]:
    """Return angle and height in mm over the annulus of a vessel's ostium, as `AorticRoot.around` takes them."""
    place = vessel.path_mm[0] - root.annulus.middle_mm
    first, second = root.around(np.array([0, np.pi / 2]), np.zeros(2), np.ones(2)) - root.annulus.middle_mm
    return float(np.arctan2(place @ second, place @ first)), float(place @ root.axis)


def ostial_wall(
    shape: HeartShape, tree: CoronaryTree, name: str, plaques: PointCloud, g: np.random.Generator
) -> PointCloud:
    """Draw a shell in the wall of a sinus around an ostium, in touch with its plaque.

    Args:
        shape: The heart.
        tree: Its arteries.
        name: "LM" or "RCA".
        plaques: Plaque at this ostium, heart's frame; if empty, the shell touches the ostium's rim.
        g: Random stream.

    Returns:
        Points in the heart's frame, weights in mg: the first of OSTIAL_TRIES shells that touches and weighs enough, or
        the last.
    """
    root, vessel = aortic_root(shape, tree), tree.vessel(name)
    angle, height = _place_on_root(root, vessel)
    rim = plaques.positions_mm if len(plaques.weights) else vessel.path_mm[:4]
    reach = TOUCH_MM + (0.0 if len(plaques.weights) else float(vessel.radius_mm[0]))
    cloud = PointCloud(np.zeros((0, 3)), np.zeros(0))
    for _ in range(OSTIAL_TRIES):
        half = np.array([g.uniform(*OSTIAL_HALF_MM[0]), g.uniform(*OSTIAL_HALF_MM[1])])
        across, up = g.uniform(-0.7, 0.7, 2) * half
        cloud = _outside_lumen(_shell(shape, root, angle + across / root.radius_mm, height + up, half, g), vessel)
        if cloud.total >= OSTIAL_MG and cKDTree(cloud.positions_mm).query(rim)[0].min() < reach:
            break
    return cloud


def _shell(
    shape: HeartShape, root: AorticRoot, angle: float, height_mm: float, half_mm: np.ndarray, g: np.random.Generator
) -> PointCloud:
    """Draw a shell on the root's wall.

    Args:
        shape: The heart.
        root: Its aortic root.
        angle: Of the shell's middle.
        height_mm: Of its middle over the annulus.
        half_mm: Half lengths [2] along the circumference and the height.
        g: Random stream.
    """
    steps = [np.arange(-1.3 * half, 1.3 * half + POINT_MM, POINT_MM) for half in half_mm]
    across, up = np.meshgrid(*steps, indexing="ij")
    relief, border, density = (_relief(across.shape, g) for _ in range(3))
    tilt = g.uniform(-0.35, 0.35)
    radius = np.hypot(across / half_mm[0], (up - tilt * across) / half_mm[1]) - 0.25 * border
    thickness = g.uniform(0.6, 2.2) * np.clip(1 + 0.4 * relief, 0.3, 2) * np.sqrt(np.clip(1.3 - radius, 0, 1))
    is_inside = (radius < 1) & (relief > g.uniform(-2.2, -0.8))
    if not is_inside.any():
        return PointCloud(np.zeros((0, 3)), np.zeros(0))
    across, up, thickness, density = (values[is_inside] for values in (across, up, thickness, density))
    places = root.around(angle + across / root.radius_mm, height_mm + up, np.full(len(across), root.radius_mm))
    wall = move_to_wall(shape, "aorta", places)
    outwards = outward_slope(shape, wall, 1 + PARTS.index("aorta"))
    layers = int(np.ceil(thickness.max() / POINT_MM))
    depth = (np.arange(layers) + 0.5) / layers
    mg_mm3 = g.uniform(0.25, 0.95) * np.exp(0.3 * density)
    weights = np.repeat(mg_mm3 * thickness * POINT_MM**2 / layers, layers)
    positions = wall[:, None] + (depth * thickness[:, None])[..., None] * outwards[:, None]
    return limit_density(PointCloud(positions.reshape(-1, 3), weights))


def _relief(shape: tuple[int, ...], g: np.random.Generator) -> np.ndarray:
    """Draw a smooth field of mean 0 and SD 1, with hills of about 3 mm."""
    field = ndimage.gaussian_filter(g.standard_normal(shape), 1.3 / POINT_MM, mode="reflect")
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def _away_from(cloud: PointCloud, plaques: PointCloud, gap_mm: float) -> PointCloud:
    """Leave out the points nearer to plaques than a gap."""
    if not gap_mm or not len(plaques.weights) or not len(cloud.weights):
        return cloud
    is_away = cKDTree(plaques.positions_mm).query(cloud.positions_mm)[0] > gap_mm
    return PointCloud(cloud.positions_mm[is_away], cloud.weights[is_away])


def _outside_lumen(cloud: PointCloud, vessel: Vessel) -> PointCloud:
    """Leave out the points in the lumen of a vessel's beginning."""
    if not len(cloud.weights):
        return cloud
    lumen = vessel.path_mm[: int(LUMEN_MM / 0.5)]
    is_outside = cKDTree(lumen).query(cloud.positions_mm)[0] > vessel.radius_mm[0]
    return PointCloud(cloud.positions_mm[is_outside], cloud.weights[is_outside])


def aortic_ring(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw a calcified aortic annulus of some hundred Agatston, up to 2,000; weights in mg."""
    root = aortic_root(shape, tree)
    out = root.annulus.curve_mm - root.annulus.middle_mm
    curve = root.annulus.middle_mm + out * (1 + g.uniform(0.3, 2.0) / np.linalg.norm(out, axis=1, keepdims=True))
    stretch = stretch_of(curve, g.uniform(0.15, 0.9), g, closed=True)
    return _thick_band(stretch, g.uniform(1, 4), drawn_mass(g, 90, 0.8), g)


def curtain_calcium(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw plates in the curtain between the mitral and the aortic annulus; weights in mg."""
    aortic, mitral = aortic_root(shape, tree).annulus.curve_mm, ring(shape, "mitral").curve_mm
    to_aorta, nearest = cKDTree(aortic).query(mitral)
    first = int(np.argmin(to_aorta))
    count = round(CURTAIN_SHARE * len(mitral))
    part = (first + np.arange(count) - count // 2) % len(mitral)
    clouds = []
    for _ in range(1 + int(g.poisson(0.7))):
        points = 300
        at = np.clip(g.normal(g.uniform(0.1, 0.9), g.uniform(0.05, 0.25), points), 0, 1) * (count - 1)
        share = np.clip(g.normal(g.uniform(0, 1), g.uniform(0.1, 0.4), points), -0.1, 1.1)[:, None]
        index = np.arange(count)
        low = along(mitral[part], at, index)
        high = along(aortic[nearest[part]], at, index)
        places = low + share * (high - low) + g.normal(0, g.uniform(0.4, 1.2), (points, 3))
        weights = g.lognormal(0, 0.5, points)
        clouds.append(limit_density(PointCloud(places, weights / weights.sum() * drawn_mass(g, 25, 0.9))))
    return join_clouds(clouds)


HEAVY_MG = (350.0, 1000.0)
"""Range of the mass of a heavy mitral annulus, about 2,000 to 5,000 Agatston."""


def heavy_mitral_annulus(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw a bulky mitral annulus, parts of which reach outwards into the groove; weights in mg."""
    arc = posterior_arc(shape)
    annulus = ring(shape, "mitral")
    mass = float(np.exp(g.uniform(*np.log(HEAVY_MG))))
    part = stretch_of(arc, g.uniform(0.45, 1.0), g)
    body = _thick_band(part, g.uniform(3.0, 6.5), mass * g.uniform(0.65, 0.95), g)
    out = part - annulus.middle_mm
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    clouds = [body]
    for _ in range(1 + int(g.integers(4))):
        length = max(4, round(g.uniform(0.08, 0.35) * len(part)))
        first = int(g.integers(max(len(part) - length, 1)))
        stretch = slice(first, first + length)
        reach = g.uniform(2, 8) * out[stretch] + g.uniform(-4, 4) * annulus.axis
        clouds.append(_thick_band(part[stretch] + reach, g.uniform(1.5, 4), mass * g.uniform(0.04, 0.12), g))
    return join_clouds(clouds)


BLOCK_MG, BLOCK_MG_MM3 = (330.0, 1150.0), (0.35, 0.9)
"""Ranges of the mass and the density of a block of the annulus, of 1,000 to 3,500 Agatston."""

BLOCK_ASPECT = (1.0, 2.2), (0.7, 1.1), (0.6, 1.0)
"""Ranges of its relative half lengths along the annulus, outwards and upwards."""

NEAR_MM, CLEARANCE_MM = 6.0, 0.3
"""Largest distance of a block from the circumflex, beyond that of the annulus's nearest point, and its least distance
from the lumen."""


def annulus_block(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw a compact block in the posterior groove between mitral annulus and circumflex; weights in mg."""
    arc, axis, vessel = posterior_arc(shape), ring(shape, "mitral").axis, tree.vessel("LCX")
    gap, nearest = cKDTree(vessel.path_mm).query(arc)
    number = int(g.choice(np.flatnonzero(gap < gap.min() + NEAR_MM)))
    to_artery = vessel.path_mm[nearest[number]] - arc[number]
    aside = to_artery / np.linalg.norm(to_artery)
    mass = float(np.exp(g.uniform(*np.log(BLOCK_MG))))
    aspect = np.array([g.uniform(*limits) for limits in BLOCK_ASPECT])
    half = aspect * np.cbrt(mass / g.uniform(*BLOCK_MG_MM3) / (4 / 3 * np.pi * aspect.prod()))
    # Evenly filled, with a bumpy surface.
    direction = g.normal(size=(round(12 * mass), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    bumps = np.sin(direction @ g.normal(0, 2.5, (3, 5)) + g.uniform(0, 2 * np.pi, 5)).mean(axis=1)
    inside = half * direction * (np.cbrt(g.random(len(direction))) * (1 + 0.5 * bumps))[:, None]
    middle = arc_mm(arc)[number] + inside[:, 0]
    outwards = g.uniform(0.1, 0.7) * np.linalg.norm(to_artery) + inside[:, 1]
    places = along(arc, middle) + outwards[:, None] * aside + inside[:, 2:] * axis
    is_outside = cKDTree(vessel.path_mm).query(places)[0] > vessel.radius_mm.max() + CLEARANCE_MM
    return limit_density(PointCloud(places[is_outside], np.full(is_outside.sum(), mass / is_outside.sum())))


def right_ring(shape: HeartShape, tree: CoronaryTree, g: np.random.Generator) -> PointCloud:
    """Draw calcium on the annulus of the pulmonary or the tricuspid valve; weights in mg."""
    curve = ring(shape, "pulmonary" if g.random() < 0.5 else "tricuspid").curve_mm
    stretch = stretch_of(curve, g.uniform(0.06, 0.5), g, closed=True)
    return _thick_band(stretch, g.uniform(0.6, 2.2), drawn_mass(g, 15, 0.8), g)


def _thick_band(curve: np.ndarray, thick_mm: float, mass_mg: float, g: np.random.Generator) -> PointCloud:
    """Draw a band along a curve as `valves.band` does, of as many strands as its thickness needs."""
    if arc_mm(curve)[-1] < 0.5:
        return limit_density(PointCloud(curve, np.full(len(curve), mass_mg / len(curve))))
    strands = max(1, round(thick_mm**2))
    return join_clouds([band(curve, thick_mm, mass_mg / strands, g) for _ in range(strands)])
