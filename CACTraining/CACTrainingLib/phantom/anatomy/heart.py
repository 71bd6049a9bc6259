"""The heart's frame, and the great vessels, airways and oesophagus around the heart.

Heart frame: u from base to apex, v towards the right ventricle (right, anterior), w upwards; origin at the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..scanner.motion import HEART_SHARE_OF_BREATH, ScanPose, rotation_xyz
from ..shapes import place_points, read_shapes
from .body import Body
from .canvas import Box, Canvas, coverage, smooth_path
from .hearts.shape import PARTS, WALL_MM, HeartShape
from .hearts.valves import papillary_muscles

_BORDER_MM = 4.0
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

    @property
    def root_mm(self) -> np.ndarray:
        """Usual centre of the aortic root in heart coordinates."""
        return np.array(ROOT_IN_FRAME) * self.semi_axes_mm


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
    turn = rotation_xyz(pose.tilt_degrees) @ rotation_xyz((-5.0 * pose.inspiration, 7.0 * pose.inspiration, 0.0))
    drop = np.array([-2.0 * pose.inspiration, 0.0, -pose.heart_drop_mm])
    return HeartFrame(turn @ frame.axes, frame.semi_axes_mm, frame.centre_mm + drop)


class Heart:
    """Painter of a body's heart, great vessels, airways and oesophagus in a pose."""

    def __init__(self, body: Body, pose: ScanPose, shape: HeartShape) -> None:
        self.body = body
        self.frame = posed_frame(body, pose)
        self._shape = shape
        self._softness = 1.2 + 1.3 * pose.motion_scale  # width of the edges between muscle and fat, mm
        self._vessels = great_vessels(body, self.frame, shape)
        reaches = [radii.max() + edge for _, radii, _, edge in self._vessels]
        self._heights = [
            (path[:, 2].min() - reach, path[:, 2].max() + reach)
            for (path, *_), reach in zip(self._vessels, reaches, strict=True)
        ]
        walls = np.minimum.reduce([shape.part(name) - WALL_MM.get(name, 0.0) for name in PARTS])
        in_border = np.minimum(shape.pericardium, walls) < _BORDER_MM
        self._border_mm = self.frame.to_lps(shape.places_mm[in_border]).astype(np.float32)
        self._papillary = [(self.frame.to_lps(ends), radii) for ends, radii in papillary_muscles(shape).values()]
        # Aorta and pulmonary trunk leave the heart in a sleeve of fat; their first part lies in muscle.
        stems = ((2, aorta_paths(body, self.frame, shape)[0]), (4, pulmonary_trunk(self.frame, shape)))
        self._sleeves = [(path[n:], radii[n:] + 2.5) for n, (path, radii) in stems]

    def paint(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray, breath_mm: float) -> np.ndarray:
        """Paint a slice over the trunk and update the share of lung in place.

        breath_mm: the diaphragm's height above its middle; the heart follows in part. Returns the share of each pixel
        [rows, columns] inside the pericardium; above one half it belongs to the heart mask.
        """
        lift = np.array([0.0, 0.0, HEART_SHARE_OF_BREATH * breath_mm])
        self._paint_mediastinum(canvas, lung, grain)
        self._paint_sleeves(canvas, lung, lift)
        heart = self._paint_chambers(canvas, lung, grain, lift)
        self._paint_vessels(canvas, lung, lift)
        return heart

    def _paint_mediastinum(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray) -> None:
        """Paint the fat between the lungs: a band from sternum to spine, as wide as the organs in it."""
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
            canvas.blend(box, 0.85 * (coverage(distance, 3.0) * (1 - lung[box])), self.body.fat_hu)

    def _paint_chambers(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray, lift: np.ndarray) -> np.ndarray:
        """Paint fat, muscle and blood, update the share of lung in place, and return the pericardium's share."""
        heart = np.zeros_like(canvas.hu)
        places = self._border_mm
        places = places[np.abs(places[:, 2] + np.float32(lift[2]) - np.float32(canvas.z_mm)) < _BORDER_MM]
        if not len(places):
            return heart
        (x0, y0, _), (x1, y1, _) = places.min(axis=0), places.max(axis=0)
        box = canvas.box(float(x0), float(x1), float(y0), float(y1))
        body, spots = self.body, grain[box]
        distances = self._distances(canvas, box, lift)
        pericardium = distances["pericardium"]
        walls = distances["lv_epi"]
        for name, wall in WALL_MM.items():
            walls = np.minimum(walls, distances[name] - np.float32(wall))
        rooms = [distances[name] for name in PARTS if name not in ("lv_epi", "rv")]
        blood = np.minimum.reduce([*rooms, np.maximum(distances["rv"], -distances["lv_epi"])])
        share = coverage(pericardium + np.float32(0.5) * spots, self._softness)
        heart[box] = coverage(pericardium)
        canvas.blend(box, share, body.fat_hu + 6 * spots)
        wall_share = coverage(walls + np.float32(0.4) * spots, self._softness)
        canvas.blend(box, wall_share, body.myocardium_hu + 3 * spots)
        # The pericardium shows as a line between fat and fat.
        line = np.clip(1.0 - np.abs(pericardium) / 1.3, 0, 1) * np.clip(1.3 - lung[box], 0, 1) * (1 - wall_share)
        canvas.blend(box, 0.55 * line, 40.0)
        canvas.blend(box, coverage(blood, self._softness + 0.3), body.blood_hu)
        for ends, radii in self._papillary:
            part, distance = canvas.tube_distance(ends + lift, radii, _BORDER_MM)
            canvas.blend(part, coverage(distance, self._softness), body.myocardium_hu + 3 * grain[part])
        lung[box] *= 1 - np.maximum(share, wall_share)
        return heart

    def _distances(self, canvas: Canvas, box: Box, lift: np.ndarray) -> dict[str, np.ndarray]:
        axes, centre = self.frame.axes.astype(np.float32), self.frame.centre_mm + lift
        dx, dy = canvas.x_mm[box[1]] - np.float32(centre[0]), canvas.y_mm[box[0]] - np.float32(centre[1])
        depth = np.float32(canvas.z_mm - centre[2]) * axes[2]
        places = dy[:, None, None] * axes[1] + dx[None, :, None] * axes[0] + depth
        distances = self._shape.sample(places.reshape(-1, 3)).T.reshape(-1, len(dy), len(dx))
        return dict(zip(("pericardium", *PARTS), distances, strict=True))

    def _paint_vessels(self, canvas: Canvas, lung: np.ndarray, lift: np.ndarray) -> None:
        for (path, radii, hu, edge), (low, high) in zip(self._vessels, self._heights, strict=True):
            if not low < canvas.z_mm - 0.6 * lift[2] < high:
                continue
            box, distance = canvas.tube_distance(path + 0.6 * lift, radii, edge)
            share = coverage(distance, edge)
            canvas.blend(box, share, hu)
            lung[box] *= 1 - share


Tube = tuple[np.ndarray, np.ndarray, float, float]
"""Path [n, 3] in LPS, radii [n], HU, width of the edge in mm."""


VESSELS = read_shapes("vessels")
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
            for vessel in VESSELS[name]
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
    """Return the anchors of VESSELS in LPS: the body's origin, the depth of its spine, and the right atrium."""
    return {"body": np.zeros(3), "spine": np.array([0, body.spine_y_mm, 0]), "right atrium": right_atrium}


def _tube(points: list | np.ndarray, radii: list[float], hu: float, edge_mm: float = 1.4, count: int = 14) -> Tube:
    """Return a smooth tube of `count` points through `points`, its radius interpolated between `radii`."""
    places = np.linspace(0, 1, count), np.linspace(0, 1, len(radii))
    return smooth_path(points, count), np.interp(*places, radii), hu, edge_mm


def aorta_paths(body: Body, frame: HeartFrame, shape: HeartShape) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return centre lines [n, 3] in LPS with radii [n]: root to arch, and descending aorta."""
    anchors = vessel_anchors(body, np.zeros(3))
    stem, stem_radii = shape.stem("aorta")
    radii = np.array([*stem_radii[::3], *(stem_radii[-1] * np.array([0.97, 0.9, 0.86, 0.82]))])
    arch = smooth_path([*frame.to_lps(stem[::3]), *place_points(VESSELS["aortic arch"], anchors)], 26)
    arch_radii = np.interp(np.linspace(0, 1, 26), np.linspace(0, 1, len(radii)), radii)
    descending = smooth_path(place_points(VESSELS["descending aorta"], anchors), 14)
    return [(arch, arch_radii), (descending, np.linspace(0.82, 0.72, 14) / 0.82 * arch_radii[-1])]


def pulmonary_trunk(frame: HeartFrame, shape: HeartShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre line [n, 3] in LPS with radii [n], from the right ventricle's outflow to the fork."""
    stem, radii = shape.stem("pulmonary")
    count = len(stem)
    return smooth_path(frame.to_lps(stem), 14), np.interp(np.linspace(0, count - 1, 14), np.arange(count), radii)
