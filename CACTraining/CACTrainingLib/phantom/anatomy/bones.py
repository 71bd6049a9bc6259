"""Ribs with their cartilage, scapulae, sternum, clavicles and spine: a cortical shell around cancellous bone. Shape."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ..scanner.motion import ScanPose
from ..shapes import place_points, read_shapes
from . import tissues
from .body import Body
from .canvas import Canvas, coverage

BONES = read_shapes("bones")
"""Measures of ribs, and tubes of vertebrae and clavicles by group."""


@dataclass(frozen=True)
class Trunk:
    """Arrays [rows, columns] of one slice of the trunk.

    Attributes:
        inner: Distance in mm outside the cavity's wall.
        lung: Share of lung in each pixel.
        grain: Soft tissue texture.
        scapulae: Flat indices of the pixels that may show scapulae.
    """

    inner: np.ndarray
    lung: np.ndarray
    grain: np.ndarray
    scapulae: np.ndarray


class Skeleton:
    """Painter of a body's bones in a pose. front: direction of each pixel [rows, columns], 0 spine to 1 sternum."""

    def __init__(self, body: Body, pose: ScanPose, front: np.ndarray) -> None:
        self.body = body
        self.pose = pose
        self._front = front

    def scapulae_pixels(self, inner: np.ndarray) -> np.ndarray:
        """Return flat indices of the pixels that may show scapulae. inner: mm outside the cavity's wall."""
        return np.flatnonzero((inner > 14) & (inner < 40) & (self._front < 0.55))

    def paint_cage(self, canvas: Canvas, trunk: Trunk, scale: float) -> None:
        """Paint ribs, scapulae, sternum and clavicles. scale: width of the cavity at this height, 1 at the heart."""
        self._paint_ribs(canvas, trunk)
        self._paint_scapulae(canvas, trunk)
        self._paint_sternum(canvas, scale, trunk.grain)
        self._paint_clavicles(canvas)

    def _paint_ribs(self, canvas: Canvas, trunk: Trunk) -> None:
        from .compiled import paint_ribs

        body, ribs = self.body, BONES["ribs"]
        height = canvas.z_mm + 4 * self.pose.inspiration - body.rib_phase * ribs["spacing_mm"]
        calcified = 0.0 if body.surroundings is None else 350 * body.surroundings.cartilage
        measures = ribs["spacing_mm"], ribs["drop_mm"], ribs["cartilage_from"]
        half_depth, half_height = tuple(map(float, ribs["half_depth_mm"])), tuple(map(float, ribs["half_height_mm"]))
        values = tissues.CORTICAL_HU, tissues.RIB_MARROW_HU, tissues.CARTILAGE_HU
        paint_ribs(
            canvas.hu,
            trunk.inner,
            self._front,
            trunk.grain,
            height,
            tuple(map(float, measures)),
            half_depth,
            half_height,
            tuple(map(float, values)),
            calcified,
        )

    def _paint_scapulae(self, canvas: Canvas, trunk: Trunk) -> None:
        z = canvas.z_mm
        if not 25 < z < 175:
            return
        grow = min(1.0, (z - 25) / 70)
        pixels = trunk.scapulae
        front = self._front.ravel()[pixels]
        centre = 0.16 + 0.10 * grow
        reach = 0.04 + 0.13 * grow
        lift = 21 + 9 * np.square((front - centre) / 0.2) + 5 * grow
        distance = np.maximum(
            np.abs(trunk.inner.ravel()[pixels] - lift) - 2.6 - 3.0 * grow * np.clip((front - centre) / reach, 0, 1),
            (np.abs(front - centre) - reach) * 400,
        )
        flat = canvas.hu.ravel()
        flat[pixels] += coverage(distance, 1.0) * (tissues.CORTICAL_HU * 0.85 - flat[pixels])
        core = coverage(distance + 1.7, 1.0)
        flat[pixels] += core * (tissues.RIB_MARROW_HU - flat[pixels])

    def paint_spine(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray) -> None:
        """Paint vertebra or disc, arch and processes, and remove them from the share of lung in place."""
        body, z = self.body, canvas.z_mm
        y0, size = body.spine_y_mm, body.vertebra_mm / 24.5
        level = z / body.vertebra_mm + body.vertebra_phase
        offset = (level - math.floor(level + 0.5)) * body.vertebra_mm
        half = body.vertebra_mm / 2
        anchors = {
            "slice": np.array([0, y0, z]),
            "level": np.array([0, y0, z - offset]),
            "tip": np.array([0, y0 + 33 + 24 * size, z - offset]),
        }
        # Paravertebral muscles behind the lamina, and soft tissue around the column.
        for side in (-1, 1):
            centre = np.array([side * 23 * size, y0 + 51 * size, z])
            canvas.ellipsoid(centre, (22 * size, 14 * size, 1e4), body.muscle_hu, edge_mm=2.5)
        # The rib's neck and head join the vertebra once per level.
        self._paint_tubes(canvas, "rib necks", anchors, (size, 1, 1))
        box, distance = canvas.ellipsoid_distance(
            np.array([0, y0 + 3, z]), (20 * size, 17.5 * size, 1e4), border_mm=3.0
        )
        canvas.cover(box, distance, body.muscle_hu - 25, 3.0)
        lung[box] *= 1 - coverage(distance, 3.0)
        disc = abs(offset) > half - 3.0
        waist = 1 - 0.07 * math.cos(math.pi * offset / half)
        semi = (18.0 * size * waist, 14.5 * size * waist, 1e4)
        box, distance = canvas.ellipsoid_distance(np.array([0.0, y0, z]), semi, border_mm=2.0)
        if disc:
            canvas.cover(box, distance, tissues.DISC_HU)
        else:
            plate = 1.0 if abs(offset) > half - 5.0 else 0.0
            canvas.cover(box, distance, tissues.CORTICAL_HU * (0.5 + 0.1 * plate))
            canvas.cover(box, distance + 1.6, body.spongiosa_hu * (1 + 0.8 * plate), grain=grain, grain_hu=28)
        # Arch and processes around the canal.
        self._paint_tubes(canvas, "pedicles" if -7 < offset < 9 else "facets", anchors, (size, 1, 1))
        self._paint_tubes(canvas, "spinous process", anchors, (1, 1, 1), sides=(1,))
        canal = np.array([0.0, y0 + 19.5 * size, z])
        canvas.ellipsoid(canal, (8.5 * size, 7.5 * size, 1e4), body.fat_hu * 0.3)
        canvas.ellipsoid(canal, (7.0 * size, 6.2 * size, 1e4), tissues.CEREBROSPINAL_FLUID_HU)
        canvas.ellipsoid(canal, (4.6 * size, 3.6 * size, 1e4), 35.0)

    def _paint_tubes(
        self,
        canvas: Canvas,
        group: str,
        anchors: dict[str, np.ndarray],
        scale: tuple[float, float, float],
        sides: tuple[int, ...] = (-1, 1),
    ) -> None:
        for side, tube in itertools.product(sides, BONES[group]):
            path = place_points(tube["points"], anchors) * scale * [side, 1, 1]
            box, distance = canvas.tube_distance(path, np.array(tube["radii_mm"]))
            if distance.size:
                canvas.cover(box, distance, tissues.CORTICAL_HU * 0.75)
                canvas.cover(box, distance + 1.7, self.body.spongiosa_hu * 1.2)

    def _paint_sternum(self, canvas: Canvas, scale: float, grain: np.ndarray) -> None:
        z = canvas.z_mm
        if not -45 < z < 135:
            return
        manubrium = 1 / (1 + math.exp(-(z - 92) / 5))
        half_width = (13 + 14 * manubrium) if z > -20 else max(3.0, 13 + (z + 20) * 0.4)
        half_depth = 5.5 + 1.5 * manubrium
        y0 = -self.body.cavity_half_depth_mm * scale * (1 + 0.02 * self.pose.inspiration) - half_depth - 1.0
        box = canvas.box(-half_width - 3, half_width + 3, y0 - half_depth - 3, y0 + half_depth + 3)
        dx = np.abs(canvas.x_mm[box[1]])[None, :] - np.float32(half_width - 4)
        dy = np.abs(canvas.y_mm[box[0]] - np.float32(y0))[:, None] - np.float32(half_depth - 4)
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - np.float32(4)
        canvas.cover(box, distance, tissues.CORTICAL_HU * 0.6)
        canvas.cover(box, distance + 1.4, self.body.spongiosa_hu * 0.75, grain=grain, grain_hu=22)

    def _paint_clavicles(self, canvas: Canvas) -> None:
        anchors = {"body": np.zeros(3), "side": np.array([self.body.cavity_half_width_mm, 0, 0])}
        self._paint_tubes(canvas, "clavicles", anchors, (1, self.body.cavity_half_depth_mm, 1))
