"""Rings, cusps and the root of a patient's valves, found where two rooms of the heart meet, and papillary muscles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..points import PointCloud, joined
from .models import PARTS
from .shape import STEP_MM, HeartShape

if TYPE_CHECKING:
    from ..coronaries import CoronaryTree

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
    """Around the ring, only the first harmonics."""
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
    left = _turned(left, up, -side * between / 2)
    sinuses = np.stack([_turned(left, up, side * np.radians(120.0) * n) for n in range(3)])
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
    cloud = joined(clouds)
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


def _turned(vector: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    return np.cos(angle) * vector + np.sin(angle) * np.cross(axis, vector)


def posterior_arc(shape: HeartShape) -> np.ndarray:
    """The muscular part of the mitral annulus, a C [n, 3] that leaves out the curtain to the aortic valve."""
    mitral = ring(shape, "mitral")
    away = np.linalg.norm(mitral.curve_mm - shape.landmarks_mm["aortic"], axis=1)
    start = int(np.argmin(away))
    turned = np.roll(mitral.curve_mm, -start, axis=0)
    left_out = round(0.14 * len(turned))
    return turned[left_out : len(turned) - left_out + 1]
