"""Heart of one patient: a blend of measured hearts, bent and scaled, as signed distances on a lattice in its frame.

Everything that lies in or on the heart follows from these distances: walls are offsets of the blood, the pericardium
is a smooth hull over the chambers plus fat, a valve's ring is where two rooms meet, a groove where two walls do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..body import Body

PARTS = ("lv_epi", "lv", "rv", "la", "ra", "aorta", "pulmonary")
"""Closed surfaces: the left ventricle's outside, and the blood in chambers and great vessels."""
LANDMARKS = ("lv", "rv", "la", "ra", "mitral", "aortic", "tricuspid", "pulmonary", "apex")
REACH_MM = 25.0
"""Limit in mm of softened distances, which concentrates the cosine series' accuracy near the surface."""


def soften(distance_mm: np.ndarray) -> np.ndarray:
    """Compress distances to shares of REACH_MM, -1 to 1, linear near 0."""
    return np.tanh(distance_mm / REACH_MM)


def unsoften(softened: np.ndarray) -> np.ndarray:
    """Invert `soften`: return distances in mm."""
    return REACH_MM * np.arctanh(np.clip(softened, -0.97, 0.97))


def cosine_index(order: int, size_mm: np.ndarray) -> np.ndarray:
    """Return wave numbers [n, 3] of a series of equal resolution in all directions; `order` along the longest side."""
    counts = np.ceil(order * size_mm / size_mm.max()).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    return index[((index / size_mm * size_mm.max() / order) ** 2).sum(axis=1) < 1]


@dataclass(frozen=True)
class HeartModels:
    """Measured hearts as cosine series of distances, in the common frame.

    Attributes:
        names: Names of the hearts.
        low_mm: Lower corner of the series' box.
        size_mm: Size of the series' box.
        index: Wave numbers [n, 3].
        coefficients: Series [hearts, PARTS, n].
        landmarks_mm: Places [hearts, LANDMARKS, 3].
        lines: Measured centre lines of arteries [m, 3], by "heart artery".
        papillary: Measured tip and base of papillary muscles [2, 3], by "heart muscle".
    """

    names: tuple[str, ...]
    low_mm: np.ndarray
    size_mm: np.ndarray
    index: np.ndarray
    coefficients: np.ndarray
    landmarks_mm: np.ndarray
    lines: dict[str, np.ndarray]
    papillary: dict[str, np.ndarray]

    def distances(self, weights: np.ndarray, axes_mm: list[np.ndarray]) -> np.ndarray:
        """Return signed distances in mm [PARTS, i, j, k] of a blend of the hearts, on a lattice in the common frame.

        weights: [hearts], of sum 1. axes_mm: places of the lattice along u, v, w.
        """
        counts = self.index.max(axis=0) + 1
        series = np.zeros((len(PARTS), *counts), np.float32)
        series[(slice(None), *self.index.T)] = np.tensordot(weights, self.coefficients, 1)
        for axis, (places, low, size, count) in enumerate(
            zip(axes_mm, self.low_mm, self.size_mm, counts, strict=True), 1
        ):
            inside = np.clip((np.asarray(places) - low) / size, 0, 1)
            waves = np.cos(np.pi * np.outer(inside, np.arange(count))).astype(np.float32)
            series = np.moveaxis(np.tensordot(series, waves, axes=(axis, 1)), -1, axis)
        return unsoften(series)


SHIPPED = Path(__file__).resolve().parents[3] / "Resources" / "Hearts" / "hearts.npz"
STEP_MM = 3.0
WALL_MM = {"rv": 3.0, "la": 1.8, "ra": 1.8, "aorta": 1.5, "pulmonary": 1.3}
"""Thickness of walls around blood in mm; the left ventricle's outside is measured."""
REFLECTION_MM = 22.0
"""Distance in mm from their valves to which aorta and pulmonary trunk lie within the pericardium."""
BODY_SEMI_AXES_MM = (72.0, 57.0, 53.0)
"""Semi-axes in mm of a heart of the measured hearts' mean size."""
LOW_MM, HIGH_MM = np.array([-96.0, -78.0, -81.0]), np.array([108.0, 84.0, 99.0])
"""Box of the common frame in mm around a heart with its great vessels' stems."""
PAPILLARY_MM = (5.5, 5.5)
"""Usual radius in mm of the papillary muscles at their base; illustrative."""
_BEND_MM, _BEND_REACH_MM = 2.5, 26.0
_CHAMBER_SD, _CHAMBER_REACH_MM = 0.07, 26.0
_VELOCITY_STEP_MM, _FLOW_STEPS = 9.0, 6


@cache
def shipped_models() -> HeartModels:
    """Load the hearts measured on the Human Reference Atlas and the Toronto Heart Atlas."""
    with np.load(SHIPPED) as data:
        return HeartModels(
            names=tuple(str(name) for name in data["names"]),
            low_mm=data["low_mm"],
            size_mm=data["size_mm"],
            index=data["index"].astype(int),
            coefficients=(data["coefficients"] * data["scale"]).astype(np.float32),
            landmarks_mm=data["landmarks_mm"].astype(float),
            lines={key[5:]: data[key].astype(float) for key in data.files if key.startswith("line ")},
            papillary={key[10:]: data[key].astype(float) for key in data.files if key.startswith("papillary ")},
        )


@dataclass(frozen=True)
class Flow:
    """Smooth invertible bend: a stationary velocity field [3, i, j, k] followed for unit time, then a scaling."""

    velocity_mm: np.ndarray
    scale: np.ndarray

    def forward(self, common_mm: np.ndarray) -> np.ndarray:
        """Map points [..., 3] of the common frame to the patient's heart frame."""
        return self._follow(np.asarray(common_mm, float), 1.0) * self.scale

    def backward(self, heart_mm: np.ndarray) -> np.ndarray:
        """Map points [..., 3] of the patient's heart frame to the common frame."""
        return self._follow(np.asarray(heart_mm, float) / self.scale, -1.0)

    def _follow(self, points: np.ndarray, sign: float) -> np.ndarray:
        # The midpoint rule in equal steps, so that forward and backward cancel to about 0.01 mm.
        for _ in range(_FLOW_STEPS):
            half = points + sign * 0.5 / _FLOW_STEPS * self._at(points)
            points = points + sign / _FLOW_STEPS * self._at(half)
        return points

    def _at(self, points: np.ndarray) -> np.ndarray:
        index = np.moveaxis((points - LOW_MM) / _VELOCITY_STEP_MM, -1, 0)
        parts = [ndimage.map_coordinates(v, index, order=1, mode="nearest") for v in self.velocity_mm]
        return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class HeartShape:
    """Heart as signed distances on a lattice along u, v, w, in the heart's frame.

    Attributes:
        low_mm: First point of the lattice.
        distances_mm: Distances, float32 [i, j, k, PARTS], every STEP_MM.
        weights: Share of each measured heart.
        landmarks_mm: Places of LANDMARKS.
        lines: Centre lines of the measured arteries, as in HeartModels.
        papillary: Measured papillary muscles, as in HeartModels.
        fat_mm: Thickness of the epicardial fat on the walls [i, j, k].
        groove_mm: Softness with which the pericardium bridges grooves.
        papillary_mm: Radius of the anterolateral and the posteromedial papillary muscle at their base.
    """

    low_mm: np.ndarray
    distances_mm: np.ndarray
    weights: dict[str, float]
    landmarks_mm: dict[str, np.ndarray]
    lines: dict[str, np.ndarray]
    papillary: dict[str, np.ndarray]
    fat_mm: np.ndarray
    groove_mm: float
    papillary_mm: tuple[float, float] = PAPILLARY_MM

    def part(self, name: str) -> np.ndarray:
        return self.distances_mm[..., PARTS.index(name)]

    @cached_property
    def outsides(self) -> dict[str, np.ndarray]:
        """Signed distance to each part's outer wall, on the lattice."""
        return {name: self.part(name) - np.float32(WALL_MM.get(name, 0.0)) for name in PARTS if name != "lv"}

    @cached_property
    def pericardium(self) -> np.ndarray:
        """Signed distance to the pericardium on the lattice."""
        walls = dict(self.outsides)
        for name, valve in (("aorta", "aortic"), ("pulmonary", "pulmonary")):
            past_reflection = np.linalg.norm(self.places_mm - self.landmarks_mm[valve], axis=-1) - REFLECTION_MM
            walls[name] = np.maximum(walls[name], past_reflection)
        return union(list(walls.values()), self.groove_mm) - self.fat_mm

    @cached_property
    def places_mm(self) -> np.ndarray:
        """Points of the lattice [i, j, k, 3]."""
        return _lattice_mm(self.low_mm, self.distances_mm.shape[:3])

    @cached_property
    def surface(self) -> np.ndarray:
        """Signed distance to the chambers' and vessels' outer surface, on which arteries run, on the lattice."""
        return union(list(self.outsides.values()), 1.5)

    @cached_property
    def table(self) -> np.ndarray:
        """Distances to the pericardium and all parts [points, 1 + PARTS], for `sample`."""
        stacked = np.concatenate([self.pericardium[..., None], self.distances_mm], axis=-1)
        return np.ascontiguousarray(stacked.reshape(-1, stacked.shape[-1]), np.float32)

    def sample(self, heart_mm: np.ndarray) -> np.ndarray:
        """Return distances [n, 1 + PARTS], pericardium first, at points [n, 3] in the heart's frame."""
        return interpolate(self.table, self.distances_mm.shape[:3], self.low_mm, heart_mm)

    def cover(self, points_mm: np.ndarray, radii_mm: np.ndarray) -> HeartShape:
        """Return the heart with enough fat for the pericardium to cover arteries [n, 3] with radii [n]."""
        shortfall = self.sample(points_mm)[:, 0] + radii_mm + 0.8
        points, shortfall = points_mm[shortfall > 0], shortfall[shortfall > 0]
        if not len(points):
            return self
        fat = self.fat_mm.copy()
        voxels = np.argwhere(np.abs(self.pericardium) < 12)
        gap, nearest = cKDTree(points).query(self.places_mm[tuple(voxels.T)], distance_upper_bound=15)
        in_reach = np.isfinite(gap)
        extra = shortfall[nearest[in_reach]] * np.exp(-0.5 * (gap[in_reach] / 6.0) ** 2)
        fat[tuple(voxels[in_reach].T)] += extra.astype(np.float32)
        return replace(self, fat_mm=fat)

    def stem(self, vessel: str) -> tuple[np.ndarray, np.ndarray]:
        """Return centre line [n, 3] and radii [n] of the first part of "aorta" or "pulmonary" from its valve."""
        return self._stems[vessel]

    @cached_property
    def _stems(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        valves = {"aorta": "aortic", "pulmonary": "pulmonary"}
        return {v: _stem(self.part(v), self.places_mm, self.landmarks_mm[valve]) for v, valve in valves.items()}


def _lattice_mm(low_mm: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Return the points float32 [i, j, k, 3] of a lattice with `counts` steps of STEP_MM."""
    axes = [low + STEP_MM * np.arange(n) for low, n in zip(low_mm, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)


def _read_along(values: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    """Interpolate values linearly along one axis. at: indices [n], below the last."""
    first = at.astype(int)
    fraction = (at - first).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.take(values, first, axis) * (1 - fraction) + np.take(values, first + 1, axis) * fraction


def _stem(field: np.ndarray, places_mm: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.linalg.norm(places_mm - start, axis=-1)
    path, radii = [start], []
    for r in np.arange(6.0, 40.1, 5.0):
        ring = (np.abs(distance - r) < 3.5) & (field < 0)
        if ring.sum() < 6:
            break
        weight = -field[ring]
        path.append((places_mm[ring] * weight[:, None]).sum(axis=0) / weight.sum())
        # The largest inscribed ball is a little smaller than the section.
        radii.append(1.04 * float(weight.max()) + 0.3)
    return np.array(path, float), np.array([radii[0], *radii])


def union(distances: list[np.ndarray], softness_mm: float) -> np.ndarray:
    """Return the smooth union of shapes, which fills the corners between surfaces."""
    least = np.minimum.reduce(distances)
    total = np.zeros_like(least)
    for distance in distances:
        total += np.exp((least - distance) * np.float32(1 / softness_mm))
    return least - np.float32(softness_mm) * np.log(total)


def interpolate(table: np.ndarray, shape: tuple[int, ...], low_mm: np.ndarray, heart_mm: np.ndarray) -> np.ndarray:
    """Interpolate a table [lattice points, columns] at points [n, 3], clipped to its border; returns [n, columns]."""
    from ..compiled_heart import interpolate as compiled

    return compiled(table, shape, low_mm.astype(np.float32), STEP_MM, np.asarray(heart_mm, np.float32))


def draw_heart_shape(body: Body, generator: np.random.Generator) -> HeartShape:
    """Draw a heart for a body, blended from the measured hearts."""
    g, models = generator, shipped_models()
    # One or two normal hearts dominate; hearts with wide roots add variation.
    normal = np.array([1.0 if f"{name} LAD" in models.lines else 0.45 for name in models.names])
    weights = g.dirichlet(0.9 * normal)
    weights = 1.15 * weights - 0.15 * normal / normal.sum()
    landmarks = np.tensordot(weights, models.landmarks_mm, 1)
    scale = np.array(body.heart_semi_axes_mm) / np.array(BODY_SEMI_AXES_MM)
    flow = Flow(_velocity(landmarks, g), scale * (1 + g.normal(0, 0.02, 3)))
    low, high = LOW_MM * flow.scale, HIGH_MM * flow.scale
    counts = np.ceil((high - low) / STEP_MM).astype(int)
    distances = _bend(models, weights, flow, low, counts)
    _thicken(distances, low, g)
    placed_landmarks = dict(zip(LANDMARKS, flow.forward(landmarks), strict=True))
    _widen(distances, low, placed_landmarks, body)
    return HeartShape(
        low_mm=low,
        distances_mm=distances,
        weights={name: round(float(x), 3) for name, x in zip(models.names, weights, strict=True)},
        landmarks_mm=placed_landmarks,
        lines={key: flow.forward(line) for key, line in models.lines.items()},
        papillary={key: flow.forward(place) for key, place in models.papillary.items()},
        fat_mm=_fat(body, low, counts, g),
        groove_mm=0.8 * body.groove_fat_mm,
        # A separate generator, so that adding these muscles left all other draws unchanged.
        papillary_mm=tuple(np.clip(g.spawn(1)[0].normal(PAPILLARY_MM, 0.9), 3.8, 7.5).tolist()),
    )


def _velocity(landmarks: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Draw a smooth velocity field [3, i, j, k] that also widens or narrows the chambers about their middles."""
    shape = np.ceil((HIGH_MM - LOW_MM) / _VELOCITY_STEP_MM).astype(int) + 1
    sigma = _BEND_REACH_MM / _VELOCITY_STEP_MM
    field = np.stack([ndimage.gaussian_filter(g.standard_normal(shape), sigma, mode="wrap") for _ in range(3)])
    field *= _BEND_MM / field.std()
    axes = [lo + _VELOCITY_STEP_MM * np.arange(n) for lo, n in zip(LOW_MM, shape, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for chamber in range(4):
        offset = places - landmarks[chamber]
        weight = np.exp(-0.5 * (offset**2).sum(axis=-1) / _CHAMBER_REACH_MM**2)
        field += g.normal(0, _CHAMBER_SD) * np.moveaxis(offset * weight[..., None], -1, 0)
    return field


def _bend(models: HeartModels, weights: np.ndarray, flow: Flow, low: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the blend's distances on the patient's lattice [i, j, k, PARTS], with unit slope at the surfaces."""
    axes = [np.arange(lo - 24, hi + 24, STEP_MM) for lo, hi in zip(LOW_MM, HIGH_MM, strict=True)]
    straight = np.moveaxis(models.distances(weights, axes), 0, -1)
    shape = straight.shape[:3]
    straight = np.ascontiguousarray(straight.reshape(-1, len(PARTS)), np.float32)
    # The bend is smooth enough to follow every third point and interpolate.
    coarse = [lo + 3 * STEP_MM * np.arange(math.ceil(n / 3) + 1) for lo, n in zip(low, counts, strict=True)]
    bend = flow.backward(np.stack(np.meshgrid(*coarse, indexing="ij"), -1))
    for axis, n in enumerate(counts):
        bend = _read_along(bend, axis, np.arange(n) / 3)
    corner = np.array([a[0] for a in axes])
    distances = interpolate(straight, shape, corner, bend.reshape(-1, 3)).reshape(*counts, len(PARTS))
    distances *= np.float32(np.prod(flow.scale) ** (1 / 3))
    slopes = [np.diff(distances, axis=a, append=np.take(distances, [-1], axis=a)) for a in range(3)]
    slope = np.sqrt(sum(np.square(s) for s in slopes)) / np.float32(STEP_MM)
    distances /= np.clip(slope, 0.75, 1.35)
    return distances


def _thicken(distances: np.ndarray, low: np.ndarray, g: np.random.Generator) -> None:
    """Vary the left ventricle's wall in place, never below a least thickness."""
    blood, outside = distances[..., PARTS.index("lv")], distances[..., PARTS.index("lv_epi")]
    blood += np.float32(g.normal(-1.5, 1.0))
    u = (low[0] + STEP_MM * np.arange(distances.shape[0])).astype(np.float32)[:, None, None]
    least = np.clip((u - 2) / 12, 0, 1) * np.float32(7.0) - 25 * (u < 2)
    np.maximum(blood, outside + least, out=blood)


def _widen(distances: np.ndarray, low: np.ndarray, landmarks: dict[str, np.ndarray], body: Body) -> None:
    """Widen great vessels, which a blend narrows, to the body's calibre in place; keep chambers outside the aorta."""
    places = _lattice_mm(low, distances.shape[:3])
    for name, valve, radius in (("aorta", "aortic", 1.0), ("pulmonary", "pulmonary", 0.9)):
        field = distances[..., PARTS.index(name)]
        _, radii = _stem(field, places, landmarks[valve])
        field -= np.float32(np.clip(radius * body.aorta_radius_mm - np.median(radii[2:]), -4, 7))
    aorta = distances[..., PARTS.index("aorta")]
    for name in ("rv", "la", "ra", "pulmonary"):
        field = distances[..., PARTS.index(name)]
        np.maximum(field, np.float32(WALL_MM["aorta"]) - aorta, out=field)


def _fat(body: Body, low: np.ndarray, counts: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Return the thickness of epicardial fat on the lattice: more on the right ventricle than on the left."""
    coarse = ndimage.gaussian_filter(g.standard_normal((9, 8, 8)), 1.2, mode="wrap")
    coarse *= 0.3 / coarse.std()
    wave = coarse
    for axis, n in enumerate(counts):
        wave = _read_along(wave, axis, np.linspace(0, wave.shape[axis] - 1.001, n))
    v = low[1] + STEP_MM * np.arange(counts[1])
    side = 1 + 0.5 * np.tanh(v / 25)[None, :, None]
    return (body.epicardial_fat_mm * np.clip(side + wave, 0.2, 2.2)).astype(np.float32)
