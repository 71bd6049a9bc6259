"""A heart's shape painted into slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..body import Body
from ..canvas import Canvas, coverage
from .models import PARTS
from .shape import WALL_MM, HeartShape
from .valves import papillary_muscles

if TYPE_CHECKING:
    from ..heart import HeartFrame

_BORDER_MM = 4.0


class ShapePainter:
    """Paints a shape placed by a frame. softness_mm: width of the edges between muscle and fat."""

    def __init__(self, body: Body, frame: HeartFrame, shape: HeartShape, softness_mm: float) -> None:
        self._body, self._frame, self._shape, self._softness = body, frame, shape, softness_mm
        walls = np.minimum.reduce([shape.part(name) - WALL_MM.get(name, 0.0) for name in PARTS])
        near = np.minimum(shape.pericardium, walls) < _BORDER_MM
        self._papillary = [(frame.to_lps(ends), radii) for ends, radii in papillary_muscles(shape).values()]
        self._near = frame.to_lps(shape.places_mm[near]).astype(np.float32)

    def paint(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray, lift: np.ndarray) -> np.ndarray:
        """Paint fat, muscle and blood, and update the share of lung in place; the pericardium's share of each pixel."""
        heart = np.zeros_like(canvas.hu)
        here = self._near[np.abs(self._near[:, 2] + np.float32(lift[2]) - np.float32(canvas.z_mm)) < _BORDER_MM]
        if not len(here):
            return heart
        (x0, y0, _), (x1, y1, _) = here.min(axis=0), here.max(axis=0)
        box = canvas.box(float(x0), float(x1), float(y0), float(y1))
        if box is None:
            return heart
        body, spots = self._body, grain[box]
        distance = self._distances(canvas, box, lift)
        pericardium = distance["pericardium"]
        walls = distance["lv_epi"]
        for name, wall in WALL_MM.items():
            walls = np.minimum(walls, distance[name] - np.float32(wall))
        rooms = [distance[name] for name in PARTS if name not in ("lv_epi", "rv")]
        blood = np.minimum.reduce([*rooms, np.maximum(distance["rv"], -distance["lv_epi"])])
        share = coverage(pericardium + np.float32(0.5) * spots, self._softness)
        heart[box] = coverage(pericardium)
        canvas.blend(box, share, body.fat_hu + 6 * spots)
        wall_share = coverage(walls + np.float32(0.4) * spots, self._softness)
        canvas.blend(box, wall_share, body.myocardium_hu + 3 * spots)
        # The pericardium itself, seen between fat and fat.
        line = np.clip(1.0 - np.abs(pericardium) / 1.3, 0, 1) * np.clip(1.3 - lung[box], 0, 1) * (1 - wall_share)
        canvas.blend(box, 0.55 * line, 40.0)
        canvas.blend(box, coverage(blood, self._softness + 0.3), body.blood_hu)
        for ends, radii in self._papillary:
            muscle = canvas.tube_distance(ends + lift, radii, _BORDER_MM)
            if muscle is not None:
                canvas.blend(muscle[0], coverage(muscle[1], self._softness), body.myocardium_hu + 3 * grain[muscle[0]])
        lung[box] *= 1 - np.maximum(share, wall_share)
        return heart

    def _distances(self, canvas: Canvas, box: tuple[slice, slice], lift: np.ndarray) -> dict[str, np.ndarray]:
        axes, centre = self._frame.axes.astype(np.float32), self._frame.centre_mm + lift
        dx, dy = canvas.x_mm[box[1]] - np.float32(centre[0]), canvas.y_mm[box[0]] - np.float32(centre[1])
        places = (
            dy[:, None, None] * axes[1] + dx[None, :, None] * axes[0] + np.float32(canvas.z_mm - centre[2]) * axes[2]
        )
        found = self._shape.sample(places.reshape(-1, 3)).T.reshape(-1, len(dy), len(dx))
        return dict(zip(("pericardium", *PARTS), found, strict=True))
