"""The trunk around the heart: skin, fat, breasts, muscles, ribs, spine, sternum, lungs, diaphragm, liver, stomach.

Outlines are polar: a radius for every direction from the axis of the cavity, computed once per scan and scaled per
slice, so that any outline costs one subtraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import tissues
from .body import Body
from .canvas import Canvas, coverage
from .motion import ScanPose

RIB_SPACING_MM = 23.0
RIB_DROP_MM = 92.0
"""How much lower a rib's front end lies than its back end."""
_CARTILAGE_FROM = 0.74
"""Share of the way from spine to sternum where bone gives way to cartilage."""


@dataclass(frozen=True)
class Trunk:
    """A slice's [rows, columns]: inner, mm outside the cavity's wall; lung, share of each pixel; grain, texture."""

    inner: np.ndarray
    lung: np.ndarray
    grain: np.ndarray


class Thorax:
    """Paints the trunk of a body in a pose, slice by slice.

    x_mm, y_mm: pixel positions in the patient's frame. texture_seed: soft tissue texture, the patient's own.
    """

    def __init__(self, body: Body, pose: ScanPose, x_mm: np.ndarray, y_mm: np.ndarray, texture_seed: int) -> None:
        self.body = body
        self.pose = pose
        x, y = np.meshgrid(x_mm.astype(np.float32), y_mm.astype(np.float32))
        self._x, self._y = x, y
        self._radius = np.hypot(x, y)
        # 0 at the spine, 1 at the sternum, alike on both sides.
        self._front = np.arctan2(np.abs(x), y) / np.float32(math.pi)
        self._cavity = _polar(self._front, _cavity_radii(body, pose))
        self._cavity_back = float(_cavity_radii(body, pose)[0])
        self._muscle = _polar(self._front, _muscle_mm(body))
        self._fat = _polar(self._front, _fat_mm(body))
        self._lateral = np.square(np.sin(math.pi * self._front))
        self._grain = _texture(x_mm, y_mm, texture_seed)
        self._depth = np.clip((y + body.cavity_half_depth_mm) / (2 * body.cavity_half_depth_mm), 0, 1)

    def trunk(self, canvas: Canvas) -> Trunk:
        """Paint couch, chest wall and lungs: what changes little within a slice's thickness."""
        z = canvas.z_mm
        scale = cavity_scale(z)
        inner = self._radius - self._cavity * np.float32(scale)
        grain = self.grain(z)
        self._paint_couch(canvas)
        self._paint_wall(canvas, inner, scale, grain)
        lung = coverage(inner, 1.2)
        width, depth = float(self._cavity.max()) * scale + 3, self._cavity_back * scale + 35
        box = canvas.box(-width, width, -depth, depth)
        if box is not None:
            density = np.float32(self.body.lung_hu - 12 * self.pose.inspiration)
            slope = np.float32(55 - 15 * self.pose.inspiration)
            air = grain[box] * np.float32(9) + (slope * (self._depth[box] - np.float32(0.45)) + density)
            canvas.blend(box, lung[box], air)
        return Trunk(inner, lung, grain)

    def paint(self, canvas: Canvas, trunk: Trunk, breath_mm: float) -> np.ndarray:
        """Paint diaphragm, abdomen, ribs, scapulae, sternum, clavicles on the trunk; spine comes after the heart.

        breath_mm: the diaphragm's height above its middle. Returns the share of lung in each pixel [rows, columns].
        """
        lung = self._paint_diaphragm(canvas, trunk.lung.copy(), trunk.inner, trunk.grain, breath_mm)
        self._paint_ribs(canvas, trunk.inner, trunk.grain)
        self._paint_scapulae(canvas, trunk.inner)
        self._paint_sternum(canvas, cavity_scale(canvas.z_mm), trunk.grain)
        self._paint_clavicles(canvas)
        return lung

    def grain(self, z_mm: float) -> np.ndarray:
        """Soft tissue texture at a height, mean 0, standard deviation about 1, changing over some 10 mm."""
        a, b = z_mm / 11.0, z_mm / 17.0
        first, second, third = self._grain
        return first * np.float32(math.cos(a)) + second * np.float32(math.sin(a)) + third * np.float32(math.cos(b))

    def _paint_couch(self, canvas: Canvas) -> None:
        """A curved carbon shell with foam inside, below the patient."""
        box = canvas.box(-215, 215, 60, 400)
        if box is None:
            return
        back = self._cavity_back + 13 + self.body.fat_mm + 0.6 * self.body.muscle_mm + 16
        sag = back - np.square(canvas.x_mm[box[1]] / np.float32(215)) * np.float32(42)
        depth = canvas.y_mm[box[0]][:, None] - sag[None]
        inside = np.abs(canvas.x_mm[box[1]])[None] - np.float32(205)
        canvas.blend(box, coverage(np.maximum(np.abs(depth - 12) - 12, inside)), -930.0)
        canvas.blend(box, coverage(np.maximum(np.abs(depth) - 0.8, inside)), 60.0)

    def _paint_wall(self, canvas: Canvas, inner: np.ndarray, scale: float, grain: np.ndarray) -> None:
        body, z = self.body, canvas.z_mm
        shoulder = 1 / (1 + math.exp(-(z - 135) / 12))
        thin = 1 - 0.55 / (1 + math.exp((z + 20) / 25))
        belly = 1 + 0.25 / (1 + math.exp((z + 60) / 20))
        # Where the cavity narrows towards its apex, muscle fills the place: the trunk does not narrow with it.
        muscle = self._muscle * np.float32(thin) + self._lateral * np.float32(24 * shoulder)
        muscle += self._cavity * np.float32(0.8 * (1 - scale))
        outside_ribs = inner - np.float32(13)
        skin = outside_ribs - muscle - self._fat * np.float32(belly) - self._lateral * np.float32(12 * shoulder)
        if body.breast_mm:
            self._paint_breasts(canvas, skin)
        near = np.flatnonzero((inner.ravel() > -2) & (skin.ravel() < 2))
        edge, depth, flesh = skin.ravel()[near], outside_ribs.ravel()[near], muscle.ravel()[near]
        spots = grain.ravel()[near]
        hu = canvas.hu.ravel()[near]
        hu += coverage(edge) * (tissues.SKIN_HU - hu)
        hu += coverage(edge + 1.8) * (np.float32(body.fat_hu) + spots * np.float32(7) - hu)
        if body.breast_mm:
            self._paint_glands(canvas, hu, near)
        share = coverage(depth - flesh + spots * np.float32(0.8), 1.6)
        # Planes of fat between the muscles, and between them and the ribs.
        between = (depth - np.float32(0.55) * flesh + 2 * spots) / np.float32(1.3)
        over_ribs = (depth + np.float32(1.5) + spots) / np.float32(1.6)
        share *= 1 - np.float32(0.75) * np.exp(-np.square(between))
        share *= 1 - np.float32(0.7) * np.exp(-np.square(over_ribs))
        hu += share * (np.float32(body.muscle_hu) + spots * np.float32(5) - hu)
        canvas.hu.ravel()[near] = hu

    def _breast_centres(self) -> tuple[np.ndarray, tuple[float, float, float]]:
        body = self.body
        y = -(body.cavity_half_depth_mm + 13 + body.muscle_mm * 0.7 + body.fat_mm * 0.5)
        centres = np.array([[side * 0.66 * body.cavity_half_width_mm, y + 14, 18.0] for side in (-1, 1)])
        return centres, (body.breast_mm * 1.05, body.breast_mm * 0.62, body.breast_mm * 1.1)

    def _paint_breasts(self, canvas: Canvas, skin: np.ndarray) -> None:
        """Lower the skin distance by the breasts' bulge, in place (smooth union)."""
        centres, semi = self._breast_centres()
        for centre in centres:
            found = canvas.ellipsoid_distance(centre, semi, border_mm=25.0)
            if found is not None:
                box, distance = found
                part = skin[box]
                blend = np.clip(0.5 + (part - distance) / 40.0, 0, 1)
                part += blend * (distance - part) - 20.0 * blend * (1 - blend)

    def _paint_glands(self, canvas: Canvas, hu: np.ndarray, near: np.ndarray) -> None:
        """Gland in the fat of the breasts; hu: the wall's pixels, whose flat indices are `near`."""
        centres, semi = self._breast_centres()
        gland = np.zeros_like(canvas.hu)
        for centre in centres:
            inner = (semi[0] * 0.72, semi[1] * 0.72, semi[2] * 0.6)
            found = canvas.ellipsoid_distance(centre + np.array([0, -4.0, 0]), inner, border_mm=2.0)
            if found is not None:
                box, distance = found
                pattern = self._grain[0][box] * math.cos(canvas.z_mm / 6) + self._grain[2][box]
                share = np.clip(1.4 * pattern + 2.2 * self.body.glandular - 1.0, 0, 1)
                gland[box] = np.maximum(gland[box], share * np.clip(-distance / 8.0, 0, 1))
        hu += gland.ravel()[near] * (tissues.GLANDULAR_HU - hu)

    def _paint_ribs(self, canvas: Canvas, inner: np.ndarray, grain: np.ndarray) -> None:
        body = self.body
        near = np.flatnonzero((inner.ravel() > -0.5) & (inner.ravel() < 12))
        front = self._front.ravel()[near]
        # Ribs fall from spine to the costochondral junction, cartilage rises again to the sternum.
        fall = np.where(front < _CARTILAGE_FROM, front / _CARTILAGE_FROM, 1 - 0.45 * (front - _CARTILAGE_FROM) / 0.26)
        height = canvas.z_mm + RIB_DROP_MM * fall + 4 * self.pose.inspiration - body.rib_phase * RIB_SPACING_MM
        off = height - RIB_SPACING_MM * np.rint(height / RIB_SPACING_MM)
        depth = inner.ravel()[near] - 6.0
        cartilage = front > _CARTILAGE_FROM
        thickness = np.where(cartilage, 4.6, 4.0)
        tall = np.where(cartilage, 6.5, 5.6)
        distance = (np.sqrt((depth / thickness) ** 2 + (off / tall) ** 2) - 1) * 4.3
        keep = (height > -150 + RIB_DROP_MM * 0.4) & (front < 0.955)
        share = coverage(distance, 1.0) * keep
        marrow = np.float32(tissues.RIB_MARROW_HU) + 40 * grain.ravel()[near]
        core = coverage(distance + 1.5, 0.9)
        bone = tissues.CORTICAL_HU + core * (marrow - tissues.CORTICAL_HU)
        soft = tissues.CARTILAGE_HU + 15 * grain.ravel()[near]
        flat = canvas.hu.ravel()
        flat[near] += share * (np.where(cartilage, soft, bone) - flat[near])

    def _paint_scapulae(self, canvas: Canvas, inner: np.ndarray) -> None:
        z = canvas.z_mm
        if not 25 < z < 175:
            return
        grow = min(1.0, (z - 25) / 70)
        near = np.flatnonzero((inner.ravel() > 14) & (inner.ravel() < 40) & (self._front.ravel() < 0.55))
        front = self._front.ravel()[near]
        centre = 0.16 + 0.10 * grow
        reach = 0.04 + 0.13 * grow
        lift = 21 + 9 * np.square((front - centre) / 0.2) + 5 * grow
        distance = np.maximum(
            np.abs(inner.ravel()[near] - lift) - 2.6 - 3.0 * grow * np.clip((front - centre) / reach, 0, 1),
            (np.abs(front - centre) - reach) * 400,
        )
        flat = canvas.hu.ravel()
        flat[near] += coverage(distance, 1.0) * (tissues.CORTICAL_HU * 0.85 - flat[near])
        core = coverage(distance + 1.7, 1.0)
        flat[near] += core * (tissues.RIB_MARROW_HU - flat[near])

    def paint_spine(self, canvas: Canvas, lung: np.ndarray, grain: np.ndarray) -> None:
        """Vertebra or disc, arch and processes; takes their place from the lung in place."""
        body, z = self.body, canvas.z_mm
        y0, size = body.spine_y_mm, body.vertebra_mm / 24.5
        level = z / body.vertebra_mm + body.vertebra_phase
        off = (level - math.floor(level + 0.5)) * body.vertebra_mm
        half = body.vertebra_mm / 2
        canvas_box = canvas.box(-75, 75, y0 - 25 * size, y0 + 75 * size)
        if canvas_box is None:
            return
        # Paravertebral muscles behind the lamina, and soft tissue around the column.
        for side in (-1, 1):
            centre = np.array([side * 24 * size, y0 + 45 * size, z])
            canvas.ellipsoid(centre, (22 * size, 15 * size, 1e4), body.muscle_hu, edge_mm=2.5)
            # The rib's neck and head join the vertebra once per level.
            path = np.array([[side * 16, y0 + 8, z - off + 6], [side * 34, y0 + 18, z - off + 2], [side * 58, y0 + 24, z - off - 8]])
            self._bone_tube(canvas, path * [size, 1, 1], np.array([6.0, 4.8, 4.5]))
        found = canvas.ellipsoid_distance(np.array([0, y0 + 3, z]), (20 * size, 17.5 * size, 1e4), border_mm=3.0)
        if found is not None:
            box, distance = found
            share = coverage(distance, 3.0)
            canvas.blend(box, share, body.muscle_hu - 25)
            lung[box] *= 1 - share
        disc = abs(off) > half - 3.0
        waist = 1 - 0.07 * math.cos(math.pi * off / half)
        semi = (18.0 * size * waist, 14.5 * size * waist, 1e4)
        found = canvas.ellipsoid_distance(np.array([0.0, y0, z]), semi, border_mm=2.0)
        if found is not None:
            box, distance = found
            if disc:
                canvas.blend(box, coverage(distance), tissues.DISC_HU)
            else:
                plate = 1.0 if abs(off) > half - 5.0 else 0.0
                canvas.blend(box, coverage(distance), tissues.CORTICAL_HU * (0.62 + 0.1 * plate))
                spongy = body.spongiosa_hu * (1 + 1.1 * plate) + 28 * grain[box]
                canvas.blend(box, coverage(distance + 1.6), spongy)
        self._paint_arch(canvas, y0, size, off)

    def _paint_arch(self, canvas: Canvas, y0: float, size: float, off: float) -> None:
        z, body = canvas.z_mm, self.body
        canal = np.array([0.0, y0 + 19.5 * size, z])
        if -7 < off < 9:
            for side in (-1, 1):
                pedicle = np.array([[side * 11, y0 + 9, z], [side * 13, y0 + 21, z], [side * 8, y0 + 29, z], [0, y0 + 33, z]])
                self._bone_tube(canvas, pedicle * [size, 1, 1], np.array([5.0, 4.6, 4.0, 4.2]))
                process = np.array([[side * 13, y0 + 21, z - off + 2], [side * 34, y0 + 30, z - off + 4]])
                self._bone_tube(canvas, process * [size, 1, 1], np.array([5.0, 4.6]))
        else:
            for side in (-1, 1):
                facet = np.array([[side * 13, y0 + 22, z], [side * 12, y0 + 28, z]])
                self._bone_tube(canvas, facet * [size, 1, 1], np.array([4.2, 4.0]))
        spine_tip = y0 + 33 + 24 * size
        path = np.array([[0.0, y0 + 32, z - off + 2], [0.0, spine_tip, z - off - 18]])
        self._bone_tube(canvas, path, np.array([3.6, 4.2]))
        canvas.ellipsoid(canal, (8.5 * size, 7.5 * size, 1e4), body.fat_hu * 0.3)
        canvas.ellipsoid(canal, (7.0 * size, 6.2 * size, 1e4), tissues.CEREBROSPINAL_FLUID_HU)
        canvas.ellipsoid(canal, (4.6 * size, 3.6 * size, 1e4), 35.0)

    def _bone_tube(self, canvas: Canvas, path: np.ndarray, radii: np.ndarray) -> None:
        found = canvas.tube_distance(path, radii)
        if found is not None:
            box, distance = found
            canvas.blend(box, coverage(distance), tissues.CORTICAL_HU * 0.85)
            canvas.blend(box, coverage(distance + 1.9), self.body.spongiosa_hu * 1.3)

    def _paint_sternum(self, canvas: Canvas, scale: float, grain: np.ndarray) -> None:
        z = canvas.z_mm
        if not -45 < z < 135:
            return
        manubrium = 1 / (1 + math.exp(-(z - 92) / 5))
        half_width = (13 + 14 * manubrium) if z > -20 else max(3.0, 13 + (z + 20) * 0.4)
        half_depth = 5.5 + 1.5 * manubrium
        y0 = -self.body.cavity_half_depth_mm * scale * (1 + 0.02 * self.pose.inspiration) - half_depth - 1.0
        box = canvas.box(-half_width - 3, half_width + 3, y0 - half_depth - 3, y0 + half_depth + 3)
        if box is None:
            return
        dx = np.abs(canvas.x_mm[box[1]])[None, :] - np.float32(half_width - 4)
        dy = np.abs(canvas.y_mm[box[0]] - np.float32(y0))[:, None] - np.float32(half_depth - 4)
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - np.float32(4)
        canvas.blend(box, coverage(distance), tissues.CORTICAL_HU * 0.6)
        canvas.blend(box, coverage(distance + 1.4), self.body.spongiosa_hu * 0.75 + 22 * grain[box])

    def _paint_clavicles(self, canvas: Canvas) -> None:
        depth, width = self.body.cavity_half_depth_mm, self.body.cavity_half_width_mm
        for side in (-1, 1):
            path = np.array(
                [
                    [side * 16, -0.80 * depth, 124],
                    [side * 60, -0.88 * depth, 140],
                    [side * 105, -0.50 * depth, 158],
                    [side * width, -0.2 * depth, 170],
                ]
            )
            self._bone_tube(canvas, path, np.array([10.0, 6.5, 6.0, 7.0]))

    def _paint_diaphragm(
        self, canvas: Canvas, lung: np.ndarray, inner: np.ndarray, grain: np.ndarray, breath_mm: float
    ) -> np.ndarray:
        body = self.body
        drop = self.pose.diaphragm_drop_mm - breath_mm
        width, depth = body.cavity_half_width_mm, body.cavity_half_depth_mm
        liver_top, left_top = body.right_dome_mm - drop, body.left_dome_mm - drop
        domes = (
            (np.array([-0.42 * width, 6.0, liver_top - 85]), (0.86 * width, depth * 1.12, 85.0)),
            (np.array([0.50 * width, 14.0, left_top - 80]), (0.70 * width, depth * 1.05, 80.0)),
        )
        for number, (centre, semi) in enumerate(domes):
            found = canvas.ellipsoid_distance(centre, semi, border_mm=3.0)
            if found is None:
                continue
            box, distance = found
            share = coverage(distance, 2.0) * lung[box]
            canvas.blend(box, share, body.muscle_hu)
            inside = coverage(distance + 3.0, 1.5) * lung[box]
            if number == 0:
                canvas.blend(box, inside, body.liver_hu + 2.5 * grain[box])
            else:
                canvas.blend(box, inside, body.fat_hu)
                self._paint_left_organs(canvas, centre, left_top)
            lung[box] *= 1 - coverage(distance, 2.0)
        lobe = np.array([8.0, -0.42 * depth, min(liver_top, left_top) - 40])
        found = canvas.ellipsoid_distance(lobe, (0.62 * width, 0.5 * depth, 38.0), border_mm=3.0)
        if found is not None:
            box, distance = found
            share = coverage(distance, 2.0) * coverage(inner[box], 1.2)
            canvas.blend(box, share, body.liver_hu + 2.5 * grain[box])
            lung[box] *= 1 - share
        return lung

    def _paint_left_organs(self, canvas: Canvas, dome: np.ndarray, top: float) -> None:
        spleen = np.array([dome[0] + 34, dome[1] + 32, top - 50])
        canvas.ellipsoid(spleen, (28.0, 34.0, 42.0), 50.0, edge_mm=1.5)
        stomach = np.array([dome[0] - 4, dome[1] - 12, top - 52])
        canvas.ellipsoid(stomach, (44.0, 46.0, 48.0), 38.0, edge_mm=1.5)
        canvas.ellipsoid(stomach, (40.0, 42.0, 44.0), 20.0, edge_mm=2.5)
        gas = self.body.stomach_gas_mm
        canvas.ellipsoid(stomach + np.array([2.0, -34 + gas, 0]), (min(30.0, 14 + gas), gas, 30.0), tissues.AIR_HU)


def cavity_scale(z_mm: float) -> float:
    """Width of the cavity at a height relative to the heart's level: it narrows to the apex of the lung."""
    if z_mm <= 30:
        return 1.0 + 0.0006 * (30 - z_mm) * (z_mm > -200)
    return math.sqrt(max(0.02, 1 - ((z_mm - 30) / 165) ** 2.4))


def cavity_radius_mm(body: Body, pose: ScanPose, front: np.ndarray) -> np.ndarray:
    """Radius of the cavity at the heart's level in each direction (0 spine, 1 sternum)."""
    return _polar(np.asarray(front, np.float32), _cavity_radii(body, pose))


def _cavity_radii(body: Body, pose: ScanPose) -> np.ndarray:
    """Radii every 0.05 of the way from spine to sternum: an egg with gutters beside the spine."""
    front = np.linspace(0, 1, 21)
    angle = math.pi * front
    a = body.cavity_half_width_mm * (1 + 0.02 * pose.inspiration)
    b = body.cavity_half_depth_mm * (1 + 0.05 * pose.inspiration)
    n = 2.35
    radius = (np.abs(np.sin(angle) / a) ** n + np.abs(np.cos(angle) / b) ** n) ** (-1 / n)
    gutter = 22 * np.exp(-(((front - 0.2) / 0.12) ** 2)) + 12 * np.exp(-((front / 0.1) ** 2))
    return radius + gutter * body.cavity_half_depth_mm / 86


def _muscle_mm(body: Body) -> np.ndarray:
    front = np.linspace(0, 1, 21)
    back = 1.5 * np.exp(-(((front - 0.12) / 0.12) ** 2))
    side = 1.0 * np.exp(-(((front - 0.42) / 0.13) ** 2))
    chest = 1.15 * np.exp(-(((front - 0.76) / 0.13) ** 2))
    return body.muscle_mm * (0.25 + back + side + chest)


def _fat_mm(body: Body) -> np.ndarray:
    front = np.linspace(0, 1, 21)
    return body.fat_mm * (0.75 + 0.45 * np.sin(math.pi * front) ** 2 - 0.15 * front)


def _polar(front: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Smooth periodic interpolation of values given every 1/20 of the way from spine to sternum."""
    place = front * np.float32(len(radii) - 1)
    padded = np.concatenate([radii[1:2], radii, radii[-2:-1]])
    return ndimage.map_coordinates(padded.astype(np.float32), [place + 1], order=2, mode="nearest", prefilter=True)


def _texture(x_mm: np.ndarray, y_mm: np.ndarray, seed: int) -> list[np.ndarray]:
    """Three fields of irregular grain, fixed in the patient's frame, standard deviation about 0.6 each."""
    generator = np.random.default_rng([seed, 77])
    step = 1.5
    fields = []
    rows = (y_mm + 260.0) / step
    columns = (x_mm + 260.0) / step
    for sigma in (1.2, 1.2, 2.5):
        field = ndimage.gaussian_filter(generator.standard_normal((348, 348), dtype=np.float32), sigma, mode="wrap")
        field *= 0.6 / field.std()
        grid = np.meshgrid(np.mod(rows, 347), np.mod(columns, 347), indexing="ij")
        fields.append(ndimage.map_coordinates(field, grid, order=1).astype(np.float32))
    return fields
