"""The heart's frame, and the great vessels, airways and oesophagus around the heart.

Heart frame: u from base to apex, v towards the right ventricle (right, anterior), w upwards; origin at the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from ..scanner.motion import HEART_SHARE_OF_BREATH, ScanPose
from ..shapes import place_points, read_shapes
from .body import Body
from .canvas import NOWHERE, Box, Canvas, coverage, smooth_path
from .hearts.shape import PARTS, STEP_MM, WALL_MM, HeartShape
from .hearts.valves import papillary_muscles

_BORDER_MM = 4.0
BIN_MM = 1.0
_MAX_RELIEF = 1.6
"""Largest paracardial fat relative to its usual thickness."""
AIRWAY_WALL_MM, AIRWAY_WALL_HU = 1.2, 30.0
ROOT_IN_FRAME = (-0.30, 0.06, 0.30)
"""Usual centre of the aortic root in the heart frame, in semi-axes."""


@dataclass(frozen=True)
class HeartFrame:
    """Axes and centre of a heart.

    Attributes:
        axes: Columns u, v, w in LPS.
        semi_axes_mm: Semi-axes along u, v, w.
        centre_mm: Centre in LPS.
    """

    axes: np.ndarray
    semi_axes_mm: np.ndarray
    centre_mm: np.ndarray

    def to_lps(self, heart_mm: np.ndarray) -> np.ndarray:
        """Map heart coordinates (u, v, w) [..., 3] to LPS."""
        return heart_mm @ self.axes.T + self.centre_mm

    def to_heart(self, lps_mm: np.ndarray) -> np.ndarray:
        return (lps_mm - self.centre_mm) @ self.axes


def reference_frame(body: Body) -> HeartFrame:
    """Return the heart's frame in quiet breathing."""
    u, v, w = upright_axes(np.asarray(body.heart_axis)).T
    roll = math.radians(body.heart_roll_degrees)
    v, w = math.cos(roll) * v + math.sin(roll) * w, math.cos(roll) * w - math.sin(roll) * v
    return HeartFrame(
        np.stack([u, v, w], axis=1), np.asarray(body.heart_semi_axes_mm), np.asarray(body.heart_centre_mm)
    )


def upright_axes(u: np.ndarray) -> np.ndarray:
    """Return columns u, v, w in LPS from the unit vector u [3], with w as near to upwards as possible."""
    w = np.array([0.0, 0.0, 1.0]) - u[2] * u
    w /= np.linalg.norm(w)
    return np.stack([u, np.cross(u, w), w], axis=1)


def posed_frame(body: Body, pose: ScanPose) -> HeartFrame:
    """Return the heart's frame in a scan, turned and lowered by a breath, without breathing during the scan."""
    frame = reference_frame(body)
    # A deep breath lowers the heart and makes it more upright.
    of_breath = (-5.0 * pose.inspiration, 7.0 * pose.inspiration, 0.0)
    tilt, lean = Rotation.from_euler("xyz", [pose.tilt_degrees, of_breath], degrees=True).as_matrix()
    drop = np.array([-2.0 * pose.inspiration, 0.0, -pose.heart_drop_mm])
    return HeartFrame(tilt @ lean @ frame.axes, frame.semi_axes_mm, frame.centre_mm + drop)


class Heart:
    """Painter of a body's heart, great vessels, airways and oesophagus in a pose."""

    def __init__(self, body: Body, pose: ScanPose, shape: HeartShape) -> None:
        self.body = body
        self.frame = posed_frame(body, pose)
        self._shape = shape
        # Width in mm of the edges between muscle and fat: wider where the walls' movement is not simulated.
        self._softness = 1.2 + (1.3 if body.surroundings is None else 0.5) * pose.motion_scale
        self._vessels = great_vessels(body, self.frame, shape)
        reaches = [radii.max() + edge for _, radii, _, edge in self._vessels]
        self._heights = [
            (path[:, 2].min() - reach, path[:, 2].max() + reach)
            for (path, *_), reach in zip(self._vessels, reaches, strict=True)
        ]
        ends = [
            (path[:, :2].min(axis=0) - reach, path[:, :2].max(axis=0) + reach)
            for (path, *_), reach in zip(self._vessels, reaches, strict=True)
        ]
        (x0, y0), (x1, y1) = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
        self._vessels_mm = float(x0), float(x1), float(y0), float(y1)
        walls = np.minimum.reduce([shape.part(name) - WALL_MM.get(name, 0.0) for name in PARTS])
        around = body.surroundings
        self._border = _BORDER_MM + (0.0 if around is None else _MAX_RELIEF * around.paracardial_fat_mm)
        in_border = np.minimum(shape.pericardium, walls) < self._border
        places = self.frame.to_lps(shape.places_mm[in_border])
        # Least x and y, and least -x and -y, of the places in each bin of height.
        self._lowest_mm = float(places[:, 2].min())
        bins = ((places[:, 2] - self._lowest_mm) / BIN_MM).astype(int)
        self._reach_mm = np.full((bins.max() + 1, 4), math.inf)
        np.minimum.at(self._reach_mm, bins, np.concatenate([places[:, :2], -places[:, :2]], axis=1))
        # All that the loop over pixels reads: `compiled_heart.paint_chambers`.
        wall_mm = np.array([0.0, *(WALL_MM.get(name, 0.0) for name in PARTS)], np.float32)
        low = shape.low_mm.astype(np.float32)
        self._lattice = shape.table.ravel(), shape.distances_mm.shape[:3], low, np.float32(1 / STEP_MM), wall_mm
        waves = [] if around is None else around.waves_per_mm, [] if around is None else around.phases
        self._relief = np.array(waves[0], np.float32).reshape(-1, 3), np.array(waves[1], np.float32)
        self._papillary = [(self.frame.to_lps(ends), radii) for ends, radii in papillary_muscles(shape).values()]
        # Aorta and pulmonary trunk leave the heart in a sleeve of fat; their first part lies in muscle.
        stems = ((2, aorta_paths(body, self.frame, shape)[0]), (4, pulmonary_trunk(self.frame, shape)))
        self._sleeves = [(path[n:], radii[n:] + 2.5) for n, (path, radii) in stems]

    def paint(
        self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray, breath_mm: float, contraction: float = 0.0
    ) -> np.ndarray:
        """Paint the heart and its vessels over trunk and mediastinum, and update the share of lung in place.

        breath_mm: the diaphragm's height above its middle; the heart follows in part. contraction: 0 in mid-diastole,
        1 in systole. Returns the share of each pixel [rows, columns] inside the pericardium; above one half it belongs
        to the heart mask.
        """
        lift = _lift(breath_mm)
        self._paint_sleeves(canvas, lung, lift)
        heart = self._paint_chambers(canvas, lung, grain, lift, contraction)
        self._paint_vessels(canvas, lung, lift)
        return heart

    def moving_box(self, canvas: Canvas, heights_mm: Sequence[float], breaths_mm: Sequence[float]) -> Box:
        """Return the part of a slice that the heart's movement changes, at some heights and breaths."""
        areas = [self._chambers_mm(z, _lift(breath)) for breath in sorted(set(breaths_mm)) for z in heights_mm]
        areas = [area for area in areas if area is not None]
        if len(set(breaths_mm)) > 1:
            areas.append(self._vessels_mm)
        if not areas:
            return NOWHERE
        x0, x1, y0, y1 = zip(*areas, strict=True)
        return canvas.box(min(x0), max(x1), min(y0), max(y1))

    def paint_mediastinum(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray) -> None:
        """Paint the fat between the lungs, which does not move: a band from sternum to spine, as wide as its organs."""
        body, z = self.body, canvas.z_mm
        front, back = -body.cavity_half_depth_mm - 5, body.spine_y_mm + 4
        t = np.clip((canvas.y_mm - front) / (back - front), 0, 1)
        upper = 1 / (1 + math.exp(-(z - 45) / 12))
        fat_mm = body.mediastinal_fat_mm
        middle = 14 + 14 * upper + 0.4 * fat_mm
        width = (3 + 0.7 * fat_mm) * (1 - t) + 19 * t**2 + middle * np.exp(-(((t - 0.5) / 0.22) ** 2))
        width *= 1 - 0.35 / (1 + math.exp(-(z - 125) / 10))
        lean = 9 * (1 - upper) * np.exp(-(((t - 0.3) / 0.35) ** 2)) + 6 * t**2
        rows, columns = box = canvas.box(-90, 90, front, back)
        distance = np.abs(canvas.x_mm[None, columns] - lean[rows, None]) - width[rows, None]
        # The mediastinum replaces lung only, not bones and wall.
        share = np.minimum(coverage(distance.astype(np.float32) + np.float32(1.4) * grain[box], 2.0), lung[box])
        canvas.blend(box, share, np.float32(body.fat_hu) + np.float32(9) * grain[box])
        lung[box] -= share
        # Fat pads in the cardiophrenic angles.
        for side in (-1, 1):
            pad = np.array([body.heart_centre_mm[0] + side * 26, -body.cavity_half_depth_mm * 0.8, -46.0])
            box, distance = canvas.ellipsoid_distance(pad, (26.0 + fat_mm, 17.0 + 0.5 * fat_mm, 24.0), border_mm=5.0)
            share = coverage(distance + 4 * grain[box], 2.0) * lung[box]
            canvas.blend(box, share, body.fat_hu + 9 * grain[box])
            lung[box] -= share

    def _paint_sleeves(self, canvas: Canvas, lung: np.ndarray, lift: np.ndarray) -> None:
        for path, radii in self._sleeves:
            box, distance = canvas.tube_distance(path + 0.6 * lift, radii, 4.0)
            if distance.size:
                canvas.blend(box, 0.85 * (coverage(distance, 3.0) * (1 - lung[box])), self.body.fat_hu)

    def _paint_chambers(
        self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray, lift: np.ndarray, contraction: float
    ) -> np.ndarray:
        """Paint fat, muscle and blood, update the share of lung in place, and return the pericardium's share."""
        from .compiled_heart import paint_chambers

        heart = np.zeros_like(canvas.hu)
        area = self._chambers_mm(canvas.z_mm, lift)
        box = NOWHERE if area is None else canvas.box(*area)
        if box == NOWHERE:
            return heart
        rows, columns = box
        body, centre, around = self.body, self.frame.centre_mm + lift, self.body.surroundings
        movement = [0.0, 0.0] if around is None else [contraction * around.ring_mm, contraction * around.wall_mm]
        outside = [0.0, 0.0] if around is None else [around.pericardium_mm, around.paracardial_fat_mm]
        tissue = body.fat_hu, body.myocardium_hu, body.blood_hu, self._softness
        paint_chambers(
            canvas.hu[box],
            lung[box],
            grain[box],
            heart[box],
            canvas.x_mm[columns] - np.float32(centre[0]),
            canvas.y_mm[rows] - np.float32(centre[1]),
            np.float32(canvas.z_mm - centre[2]),
            self.frame.axes.astype(np.float32),
            self._lattice,
            tuple(map(np.float32, (*movement, self.frame.semi_axes_mm[0]))),
            tuple(map(np.float32, tissue)),
            tuple(map(np.float32, (*outside, _MAX_RELIEF, self._border))),
            *self._relief,
        )
        for ends, radii in self._papillary:
            part, distance = canvas.tube_distance(ends + lift, radii, _BORDER_MM)
            canvas.cover(part, distance, body.myocardium_hu, self._softness, grain, 3.0)
        return heart

    def _chambers_mm(self, z_mm: float, lift: np.ndarray) -> tuple[float, float, float, float] | None:
        """Return the range of x and of y in which a slice can show pericardium and chambers; None if it cannot."""
        low = z_mm - float(lift[2]) - self._border - self._lowest_mm
        first, last = max(0, math.floor(low / BIN_MM)), max(0, math.floor((low + 2 * self._border) / BIN_MM) + 1)
        if first >= len(self._reach_mm):
            return None
        x0, y0, x1, y1 = self._reach_mm[first:last].min(axis=0, initial=math.inf).tolist()
        return (x0, -x1, y0, -y1) if x0 < math.inf else None

    def _paint_vessels(self, canvas: Canvas, lung: np.ndarray, lift: np.ndarray) -> None:
        for (path, radii, hu, edge), (low, high) in zip(self._vessels, self._heights, strict=True):
            if not low < canvas.z_mm - 0.6 * lift[2] < high:
                continue
            box, distance = canvas.tube_distance(path + 0.6 * lift, radii, edge)
            if distance.size:
                share = coverage(distance, edge)
                canvas.blend(box, share, hu)
                lung[box] *= 1 - share


def _lift(breath_mm: float) -> np.ndarray:
    """Return the heart's shift [3] at a height of the diaphragm."""
    return np.array([0.0, 0.0, HEART_SHARE_OF_BREATH * breath_mm])


Tube = tuple[np.ndarray, np.ndarray, float, float]
"""Path [n, 3] in LPS, radii [n], HU, width of the edge in mm."""


VESSEL_SHAPES = read_shapes("vessels")
"""Groups of vessels and airways by name, and the points of courses that are not painted by themselves."""


def great_vessels(body: Body, frame: HeartFrame, shape: HeartShape) -> list[Tube]:
    """Return oesophagus, veins, arteries and airways in painting order."""
    blood = body.blood_hu
    trunk, *aorta = ((*path, blood, 1.4) for path in (pulmonary_trunk(frame, shape), *aorta_paths(body, frame, shape)))
    left_atrium, right_atrium = (frame.to_lps(shape.landmarks_mm[name]) for name in ("la", "ra"))
    anchors = vessel_anchors(body, right_atrium) | {
        "in front": np.array([0, -0.42 * body.spine_y_mm, 0]),
        "fork": trunk[0][-1],
        "height of the fork": np.array([0, 0, trunk[0][-1, 2]]),
    }

    def group(name: str) -> list[Tube]:
        return [
            _tube(
                place_points(vessel["points"], anchors),
                vessel["radii_mm"],
                vessel.get("hu", 0.0) + blood * vessel.get("blood", False),
                vessel.get("edge_mm", 1.4),
                vessel.get("count", 14),
            )
            for vessel in VESSEL_SHAPES[name]
        ]

    veins, air = group("systemic veins"), group("airways")
    for side, dz in ((-1, 14), (-1, -14), (1, 12), (1, -14)):
        gate = left_atrium + np.array([side * 24, 6, dz * 0.6])
        hilum = (side * 52 + 4, left_atrium[1] + 10, left_atrium[2] + dz * 1.6)
        veins.append(_tube([left_atrium, gate, hilum], [12, 7.5, 5.5], blood))
    walls = [(path, radii + AIRWAY_WALL_MM, AIRWAY_WALL_HU, edge) for path, radii, _, edge in air]
    arteries = [trunk, *group("pulmonary arteries"), *aorta, *group("branches of the arch")]
    return [*group("oesophagus"), *veins, *arteries, *walls, *air]


def vessel_anchors(body: Body, right_atrium: np.ndarray) -> dict[str, np.ndarray]:
    """Return the anchors of VESSEL_SHAPES in LPS: the body's origin, the depth of its spine, and the right atrium."""
    return {"body": np.zeros(3), "spine": np.array([0, body.spine_y_mm, 0]), "right atrium": right_atrium}


def _tube(
    points: Sequence[ArrayLike] | np.ndarray, radii: list[float], hu: float, edge_mm: float = 1.4, count: int = 14
) -> Tube:
    """Return a smooth tube of `count` points through `points`, its radius interpolated between `radii`."""
    places = np.linspace(0, 1, count), np.linspace(0, 1, len(radii))
    return smooth_path(points, count), np.interp(*places, radii), hu, edge_mm


def aorta_paths(body: Body, frame: HeartFrame, shape: HeartShape) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return centre lines [n, 3] in LPS with radii [n]: root to arch, and descending aorta."""
    anchors = vessel_anchors(body, np.zeros(3))
    stem, stem_radii = shape.stem("aorta")
    radii = np.array([*stem_radii[::3], *(stem_radii[-1] * np.array([0.97, 0.9, 0.86, 0.82]))])
    arch = smooth_path([*frame.to_lps(stem[::3]), *place_points(VESSEL_SHAPES["aortic arch"], anchors)], 26)
    arch_radii = np.interp(np.linspace(0, 1, 26), np.linspace(0, 1, len(radii)), radii)
    descending = smooth_path(place_points(VESSEL_SHAPES["descending aorta"], anchors), 14)
    return [(arch, arch_radii), (descending, np.linspace(0.82, 0.72, 14) / 0.82 * arch_radii[-1])]


def pulmonary_trunk(frame: HeartFrame, shape: HeartShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre line [n, 3] in LPS with radii [n], from the right ventricle's outflow to the fork."""
    stem, radii = shape.stem("pulmonary")
    count = len(stem)
    return smooth_path(frame.to_lps(stem), 14), np.interp(np.linspace(0, count - 1, 14), np.arange(count), radii)
