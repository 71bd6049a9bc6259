"""One patient's heart: a blend of measured hearts, bent and scaled, as signed distances on a lattice in its frame.

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
"""Distances are softened to within this, so that a series spends itself near the surface."""


def soft(distance_mm: np.ndarray) -> np.ndarray:
    """Distances as shares of REACH_MM, -1 to 1, linear near 0."""
    return np.tanh(distance_mm / REACH_MM)


def hard(softened: np.ndarray) -> np.ndarray:
    """The distance in mm that `soft` softened."""
    return REACH_MM * np.arctanh(np.clip(softened, -0.97, 0.97))


def cosine_index(order: int, size_mm: np.ndarray) -> np.ndarray:
    """Wave numbers [n, 3] of a series that resolves the same everywhere; `order` along the longest side."""
    counts = np.ceil(order * size_mm / size_mm.max()).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    return index[((index / size_mm * size_mm.max() / order) ** 2).sum(axis=1) < 1]


@dataclass(frozen=True)
class HeartModels:
    """Several hearts. low_mm, size_mm: the box of the series. index: wave numbers [n, 3]. coefficients: [hearts,
    PARTS, n]. landmarks_mm: [hearts, LANDMARKS, 3]. lines: centre lines [m, 3] of arteries by "heart artery" and
    papillary: [2, 3] tip and base by "heart muscle", of those hearts that have them. All in the common frame."""

    names: tuple[str, ...]
    low_mm: np.ndarray
    size_mm: np.ndarray
    index: np.ndarray
    coefficients: np.ndarray
    landmarks_mm: np.ndarray
    lines: dict[str, np.ndarray]
    papillary: dict[str, np.ndarray]

    def distances(self, weights: np.ndarray, axes_mm: list[np.ndarray]) -> np.ndarray:
        """Signed distances in mm [PARTS, i, j, k] of a blend of the hearts, on a lattice in the common frame.

        weights: [hearts], of sum 1. axes_mm: the lattice's places along u, v, w.
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
        return hard(series)


SHIPPED = Path(__file__).resolve().parents[3] / "Resources" / "Hearts" / "hearts.npz"
STEP_MM = 3.0
WALL_MM = {"rv": 3.0, "la": 1.8, "ra": 1.8, "aorta": 1.5, "pulmonary": 1.3}
"""Walls around blood; the left ventricle's outside is measured."""
REFLECTION_MM = 22.0
"""Distance from their valves to which aorta and pulmonary trunk lie within the pericardium."""
BODY_SEMI_AXES_MM = (72.0, 57.0, 53.0)
"""A body whose heart has these has one of the measured hearts' mean size."""
LOW_MM, HIGH_MM = np.array([-96.0, -78.0, -81.0]), np.array([108.0, 84.0, 99.0])
"""Box of the common frame that a heart with its great vessels' stems fills."""
PAPILLARY_MM = (5.5, 5.5)
"""Usual radius of the papillary muscles at their base; shape."""
_BEND_MM, _BEND_REACH_MM = 2.5, 26.0
_CHAMBER_SD, _CHAMBER_REACH_MM = 0.07, 26.0
_VELOCITY_STEP_MM, _FLOW_STEPS = 9.0, 6


@cache
def shipped_models() -> HeartModels:
    """The hearts measured on the Human Reference Atlas and the Toronto Heart Atlas that come with the software."""
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
    """A smooth invertible bend: a still velocity field [i, j, k, 3] followed for one unit of time, and a scaling."""

    velocity_mm: np.ndarray
    scale: np.ndarray

    def forward(self, common_mm: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the common frame in the patient's heart frame."""
        return self._follow(np.asarray(common_mm, float), 1.0) * self.scale

    def backward(self, heart_mm: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the patient's heart frame in the common frame."""
        return self._follow(np.asarray(heart_mm, float) / self.scale, -1.0)

    def _follow(self, points: np.ndarray, sign: float) -> np.ndarray:
        # The midpoint rule in equal steps, so that forward and backward undo each other to some 0.01 mm.
        for _ in range(_FLOW_STEPS):
            half = points + sign * 0.5 / _FLOW_STEPS * self._at(points)
            points = points + sign / _FLOW_STEPS * self._at(half)
        return points

    def _at(self, points: np.ndarray) -> np.ndarray:
        where = np.moveaxis((points - LOW_MM) / _VELOCITY_STEP_MM, -1, 0)
        parts = [ndimage.map_coordinates(v, where, order=1, mode="nearest") for v in self.velocity_mm]
        return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class HeartShape:
    """distances_mm: float32 [i, j, k, PARTS] along u, v, w from `low_mm`, every STEP_MM, in the heart's frame.

    weights: share of each measured heart. lines, papillary: as in HeartModels, in the heart's frame, of the hearts
    that have them. fat_mm, groove_mm: epicardial fat on the walls, and how softly the pericardium bridges grooves.
    papillary_mm: radius of the anterolateral and the posteromedial papillary muscle at their base.
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
        """Distance to each part's outer wall, on the lattice."""
        return {name: self.part(name) - np.float32(WALL_MM.get(name, 0.0)) for name in PARTS if name != "lv"}

    @cached_property
    def pericardium(self) -> np.ndarray:
        """Signed distance to the pericardium on the lattice."""
        walls = dict(self.outsides)
        for name, valve in (("aorta", "aortic"), ("pulmonary", "pulmonary")):
            beyond = np.linalg.norm(self.places_mm - self.landmarks_mm[valve], axis=-1) - REFLECTION_MM
            walls[name] = np.maximum(walls[name], beyond)
        return union(list(walls.values()), self.groove_mm) - self.fat_mm

    @cached_property
    def places_mm(self) -> np.ndarray:
        """The lattice's points [i, j, k, 3]."""
        return _lattice_mm(self.low_mm, self.distances_mm.shape[:3])

    @cached_property
    def surface(self) -> np.ndarray:
        """Signed distance to the chambers' and vessels' outer surface, on which arteries run, on the lattice."""
        return union(list(self.outsides.values()), 1.5)

    @cached_property
    def table(self) -> np.ndarray:
        """[points, 1 + PARTS]: the pericardium and all parts, in rows for `sample`."""
        stacked = np.concatenate([self.pericardium[..., None], self.distances_mm], axis=-1)
        return np.ascontiguousarray(stacked.reshape(-1, stacked.shape[-1]), np.float32)

    def sample(self, heart_mm: np.ndarray) -> np.ndarray:
        """Distances [n, 1 + PARTS], pericardium first, at points [n, 3] in the heart's frame."""
        return interpolated(self.table, self.distances_mm.shape[:3], self.low_mm, heart_mm)

    def holding(self, points_mm: np.ndarray, radii_mm: np.ndarray) -> HeartShape:
        """The same heart with so much more fat that the pericardium covers arteries [n, 3] with radii [n]."""
        lack = self.sample(points_mm)[:, 0] + radii_mm + 0.8
        points, lack = points_mm[lack > 0], lack[lack > 0]
        if not len(points):
            return self
        fat = self.fat_mm.copy()
        near = np.argwhere(np.abs(self.pericardium) < 12)
        gap, which = cKDTree(points).query(self.places_mm[tuple(near.T)], distance_upper_bound=15)
        found = np.isfinite(gap)
        more = lack[which[found]] * np.exp(-0.5 * (gap[found] / 6.0) ** 2)
        fat[tuple(near[found].T)] += more.astype(np.float32)
        return replace(self, fat_mm=fat)

    def stem(self, vessel: str) -> tuple[np.ndarray, np.ndarray]:
        """Centre line [n, 3] and radii [n] of the first part of "aorta" or "pulmonary", from its valve on."""
        return self._stems[vessel]

    @cached_property
    def _stems(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        valves = {"aorta": "aortic", "pulmonary": "pulmonary"}
        return {v: _stem(self.part(v), self.places_mm, self.landmarks_mm[valve]) for v, valve in valves.items()}


def _lattice_mm(low_mm: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """The points float32 [i, j, k, 3] of a lattice of this many steps of STEP_MM."""
    axes = [low + STEP_MM * np.arange(n) for low, n in zip(low_mm, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)


def _read_along(values: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    """Values interpolated linearly along one axis. at: [n], in steps of the values, below the last."""
    first = at.astype(int)
    rest = (at - first).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.take(values, first, axis) * (1 - rest) + np.take(values, first + 1, axis) * rest


def _stem(field: np.ndarray, places_mm: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    far = np.linalg.norm(places_mm - start, axis=-1)
    path, radii = [start], []
    for r in np.arange(6.0, 40.1, 5.0):
        ring = (np.abs(far - r) < 3.5) & (field < 0)
        if ring.sum() < 6:
            break
        weight = -field[ring]
        path.append((places_mm[ring] * weight[:, None]).sum(axis=0) / weight.sum())
        # The greatest ball that fits is a little less than the section.
        radii.append(1.04 * float(weight.max()) + 0.3)
    return np.array(path, float), np.array([radii[0], *radii])


def union(distances: list[np.ndarray], softness_mm: float) -> np.ndarray:
    """Smooth union of shapes: where several surfaces meet, the corner between them is filled."""
    least = np.minimum.reduce(distances)
    total = np.zeros_like(least)
    for distance in distances:
        total += np.exp((least - distance) * np.float32(1 / softness_mm))
    return least - np.float32(softness_mm) * np.log(total)


def interpolated(table: np.ndarray, shape: tuple[int, ...], low_mm: np.ndarray, heart_mm: np.ndarray) -> np.ndarray:
    """Trilinear values [n, columns] of a table [lattice points, columns] at points [n, 3], at its border beyond it."""
    place = (np.asarray(heart_mm, np.float32) - low_mm.astype(np.float32)) * np.float32(1 / STEP_MM)
    np.clip(place, 0, np.array(shape, np.float32) - np.float32(1.001), out=place)
    corner = place.astype(np.intp)
    x, y, z = (place - corner.astype(np.float32)).T
    flat = (corner[:, 0] * shape[1] + corner[:, 1]) * shape[2] + corner[:, 2]
    result = np.zeros((len(place), table.shape[1]), np.float32)
    part = np.zeros_like(result)  # what is left in memory may be no number, and `take` may cast it
    for di, a in enumerate((1 - x, x)):
        for dj, b in enumerate((a * (1 - y), a * y)):
            for dk, c in enumerate((b * (1 - z), b * z)):
                table.take(flat + ((di * shape[1] + dj) * shape[2] + dk), axis=0, out=part, mode="clip")
                part *= c[:, None]
                result += part
    return result


def draw_heart_shape(body: Body, generator: np.random.Generator) -> HeartShape:
    """A heart for a body, blended from the measured hearts."""
    g, models = generator, shipped_models()
    # A normal heart or two dominate; those of patients with wide roots vary them.
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
    placed = dict(zip(LANDMARKS, flow.forward(landmarks), strict=True))
    _widen(distances, low, placed, body)
    return HeartShape(
        low_mm=low,
        distances_mm=distances,
        weights={name: round(float(x), 3) for name, x in zip(models.names, weights, strict=True)},
        landmarks_mm=placed,
        lines={key: flow.forward(line) for key, line in models.lines.items()},
        papillary={key: flow.forward(place) for key, place in models.papillary.items()},
        fat_mm=_fat(body, low, counts, g),
        groove_mm=0.8 * body.groove_fat_mm,
        # Drawn apart, so that all else stays as it was before there were such muscles.
        papillary_mm=tuple(np.clip(g.spawn(1)[0].normal(PAPILLARY_MM, 0.9), 3.8, 7.5).tolist()),
    )


def _velocity(landmarks: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """A random smooth field [3, i, j, k], with chambers that widen or narrow about their middles."""
    shape = np.ceil((HIGH_MM - LOW_MM) / _VELOCITY_STEP_MM).astype(int) + 1
    sigma = _BEND_REACH_MM / _VELOCITY_STEP_MM
    field = np.stack([ndimage.gaussian_filter(g.standard_normal(shape), sigma, mode="wrap") for _ in range(3)])
    field *= _BEND_MM / field.std()
    axes = [lo + _VELOCITY_STEP_MM * np.arange(n) for lo, n in zip(LOW_MM, shape, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for chamber in range(4):
        away = places - landmarks[chamber]
        near = np.exp(-0.5 * (away**2).sum(axis=-1) / _CHAMBER_REACH_MM**2)
        field += g.normal(0, _CHAMBER_SD) * np.moveaxis(away * near[..., None], -1, 0)
    return field


def _bend(models: HeartModels, weights: np.ndarray, flow: Flow, low: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The blend's distances on the patient's lattice [i, j, k, PARTS], unit slope at the surfaces."""
    axes = [np.arange(lo - 24, hi + 24, STEP_MM) for lo, hi in zip(LOW_MM, HIGH_MM, strict=True)]
    straight = np.moveaxis(models.distances(weights, axes), 0, -1)
    shape = straight.shape[:3]
    straight = np.ascontiguousarray(straight.reshape(-1, len(PARTS)), np.float32)
    # The bend is smooth: it is followed on every third point and interpolated.
    coarse = [lo + 3 * STEP_MM * np.arange(math.ceil(n / 3) + 1) for lo, n in zip(low, counts, strict=True)]
    bend = flow.backward(np.stack(np.meshgrid(*coarse, indexing="ij"), -1))
    for axis, n in enumerate(counts):
        bend = _read_along(bend, axis, np.arange(n) / 3)
    corner = np.array([a[0] for a in axes])
    result = interpolated(straight, shape, corner, bend.reshape(-1, 3)).reshape(*counts, len(PARTS))
    result *= np.float32(np.prod(flow.scale) ** (1 / 3))
    slopes = [np.diff(result, axis=a, append=np.take(result, [-1], axis=a)) for a in range(3)]
    slope = np.sqrt(sum(np.square(s) for s in slopes)) / np.float32(STEP_MM)
    result /= np.clip(slope, 0.75, 1.35)
    return result


def _thicken(distances: np.ndarray, low: np.ndarray, g: np.random.Generator) -> None:
    """The left ventricle's wall, thicker or thinner, but never too thin, in place."""
    blood, outside = distances[..., PARTS.index("lv")], distances[..., PARTS.index("lv_epi")]
    blood += np.float32(g.normal(-1.5, 1.0))
    u = (low[0] + STEP_MM * np.arange(distances.shape[0])).astype(np.float32)[:, None, None]
    least = np.clip((u - 2) / 12, 0, 1) * np.float32(7.0) - 25 * (u < 2)
    np.maximum(blood, outside + least, out=blood)


def _widen(distances: np.ndarray, low: np.ndarray, landmarks: dict[str, np.ndarray], body: Body) -> None:
    """Great vessels of the body's calibre, which a blend makes too narrow, and chambers beside them, in place."""
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
    """Thickness of the epicardial fat on the lattice: more on the right ventricle, little on the left one's side."""
    coarse = ndimage.gaussian_filter(g.standard_normal((9, 8, 8)), 1.2, mode="wrap")
    coarse *= 0.3 / coarse.std()
    wave = coarse
    for axis, n in enumerate(counts):
        wave = _read_along(wave, axis, np.linspace(0, wave.shape[axis] - 1.001, n))
    v = low[1] + STEP_MM * np.arange(counts[1])
    side = 1 + 0.5 * np.tanh(v / 25)[None, :, None]
    return (body.epicardial_fat_mm * np.clip(side + wave, 0.2, 2.2)).astype(np.float32)
