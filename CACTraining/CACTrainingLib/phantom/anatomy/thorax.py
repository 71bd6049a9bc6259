"""Trunk around the heart: skin, fat, breasts, muscles, lungs, diaphragm, liver, stomach (bones in `bones.py`).

The lungs' vessels are two trees per lung that grow towards points spread through it, with calibres by Murray's law.
Growing each branch from the nearest existing vessel gives the branching, the hila and the thinning towards the pleura
without further rules. Illustrative, not physiology.

Outlines are polar: a radius for every direction from the axis of the cavity, computed once per scan and scaled per
slice, so that any outline costs one subtraction.
"""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from scipy import ndimage

from ..scanner.motion import ScanPose
from ..shapes import read_shapes
from . import tissues
from .body import Body
from .bones import Skeleton, Trunk
from .canvas import Box, Canvas, coverage
from .heart import reference_frame
from .points import PointCloud, join_clouds

TRUNK = read_shapes("trunk")
"""Profiles of the chest wall, and the lungs' vessels."""
LUNG_VESSELS = TRUNK["lung vessels"]


class Thorax:
    """Painter of a body's trunk in a pose, slice by slice.

    Args:
        x_mm: Pixel positions [columns] in the patient's frame.
        y_mm: Pixel positions [rows] in the patient's frame.
        texture_seed: Seed of the patient's soft tissue texture.
        couch: False for a patient who stands.
    """

    def __init__(
        self,
        body: Body,
        pose: ScanPose,
        x_mm: np.ndarray,
        y_mm: np.ndarray,
        texture_seed: int,
        couch: bool = True,
    ) -> None:
        self._number = texture_seed
        self.body = body
        self.pose = pose
        x, y = np.meshgrid(x_mm.astype(np.float32), y_mm.astype(np.float32))
        self._radius = np.hypot(x, y)
        # 0 at the spine, 1 at the sternum, on both sides.
        self._front = np.arctan2(np.abs(x), y) / np.float32(math.pi)
        self.skeleton = Skeleton(body, pose, self._front)
        self._cavity = _polar(self._front, _cavity_radii(body, pose))
        self._cavity_back = float(_cavity_radii(body, pose)[0])
        self._muscle = _polar(self._front, body.muscle_mm * _profile("muscle"))
        self._fat = _polar(self._front, _fat_mm(body))
        self._lateral = np.square(np.sin(math.pi * self._front))
        canvas = Canvas(x_mm, y_mm, 0.0, tissues.GAS_HU)
        self._couch = self._couch_layers(canvas) if couch else []
        self._grain = np.stack(_texture(x_mm, y_mm, texture_seed))
        self._depth = np.clip((y + body.cavity_half_depth_mm) / (2 * body.cavity_half_depth_mm), 0, 1)

    def trunk(self, canvas: Canvas) -> Trunk:
        """Paint couch, chest wall and lungs, which change little within a slice's thickness."""
        from . import compiled

        z = canvas.z_mm
        scale = cavity_scale(z)
        grain = self.grain(z)
        for layer in self._couch:
            canvas.blend(*layer)
        inner = self._paint_wall(canvas, scale, grain)
        body, breath = self.body, self.pose.inspiration
        density, slope, holes = body.lung_hu - 12 * breath, 55 - 15 * breath, 70 * body.emphysema
        lung = compiled.paint_lungs(canvas.hu, inner, grain, self._depth, *map(np.float32, (density, slope, holes)))
        scapulae = self.skeleton.scapulae_pixels(inner) if 15 < z < 185 else np.zeros(0, np.intp)
        return Trunk(inner, lung, grain, scapulae)

    def paint(self, canvas: Canvas, trunk: Trunk, breath_mm: float) -> np.ndarray:
        """Paint diaphragm, abdomen and the bones except the spine, which follows the heart.

        breath_mm: the diaphragm's height above its middle. Returns the share of lung in each pixel [rows, columns].
        """
        lung = self._paint_diaphragm(canvas, trunk.lung.copy(), trunk.inner, trunk.grain, breath_mm)
        self.skeleton.paint_cage(canvas, trunk, cavity_scale(canvas.z_mm))
        return lung

    def grain(self, z_mm: float) -> np.ndarray:
        """Return soft tissue texture at a height: mean 0, standard deviation about 1, changing over some 10 mm."""
        from .compiled import mix

        a, b = z_mm / 11.0, z_mm / 17.0
        return mix(self._grain, np.array([math.cos(a), math.sin(a), math.cos(b)], np.float32))

    def paint_couch(self, canvas: Canvas) -> None:
        """Paint the couch below the patient: a carbon shell with foam inside, of many makes with surroundings."""
        for layer in self._couch_layers(canvas):
            canvas.blend(*layer)

    def _couch_layers(self, canvas: Canvas) -> list[tuple[Box, np.ndarray, float]]:
        """Return box, coverage and HU of the couch's foam and shell."""
        sag_mm, half_mm, hu = 42.0, 0.8, 60.0
        if self.body.surroundings is not None:
            sag_mm, half_mm, hu = np.random.default_rng([self._number, 62]).uniform((0, 0.6, -100), (60, 2.5, 400))
        box = canvas.box(-215, 215, 60, 400)
        back = self._cavity_back + 13 + self.body.fat_mm + 0.6 * self.body.muscle_mm + 16
        sag = back - np.square(canvas.x_mm[box[1]] / np.float32(215)) * np.float32(sag_mm)
        depth = canvas.y_mm[box[0]][:, None] - sag[None]
        inside = np.abs(canvas.x_mm[box[1]])[None] - np.float32(205)
        foam = coverage(np.maximum(np.abs(depth - 12) - 12, inside))
        shell = coverage(np.maximum(np.abs(depth) - np.float32(half_mm), inside))
        return [(box, foam, -930.0), (box, shell, hu)]

    def _paint_wall(self, canvas: Canvas, scale: float, grain: np.ndarray) -> np.ndarray:
        """Paint the chest wall; returns the distance in mm outside the cavity's wall."""
        from . import compiled

        body = self.body
        shoulder, muscle_scale, fat_scale = _wall_scales(canvas.z_mm)
        # Muscle fills the gap above, where the cavity narrows to its apex but the trunk does not.
        scales = tuple(map(np.float32, (scale, shoulder, muscle_scale, fat_scale)))
        inner, skin, flesh = compiled.outline(
            self._radius, self._cavity, self._muscle, self._fat, self._lateral, scales
        )
        gland = np.zeros_like(canvas.hu)
        if body.breast_mm:
            self._paint_breasts(canvas, skin)
            self._draw_glands(canvas, gland)
        values = tissues.SKIN_HU, body.fat_hu, tissues.GLANDULAR_HU, body.muscle_hu
        compiled.paint_wall(canvas.hu, inner, skin, flesh, grain, gland, tuple(map(np.float32, values)))
        return inner

    def _paint_breasts(self, canvas: Canvas, skin: np.ndarray) -> None:
        """Lower the skin distance by the breasts' bulge, in place (smooth union)."""
        centres, semi = _breast_centres(self.body)
        for centre in centres:
            box, distance = canvas.ellipsoid_distance(centre, semi, border_mm=25.0)
            part = skin[box]
            blend = np.clip(0.5 + (part - distance) / 40.0, 0, 1)
            part += blend * (distance - part) - 20.0 * blend * (1 - blend)

    def _draw_glands(self, canvas: Canvas, gland: np.ndarray) -> None:
        """Draw the share of gland in the fat of the breasts, in place."""
        centres, semi = _breast_centres(self.body)
        for centre in centres:
            inner = (semi[0] * 0.72, semi[1] * 0.72, semi[2] * 0.6)
            box, distance = canvas.ellipsoid_distance(centre + np.array([0, -4.0, 0]), inner, border_mm=2.0)
            pattern = self._grain[0][box] * math.cos(canvas.z_mm / 6) + self._grain[2][box]
            share = np.clip(1.4 * pattern + 2.2 * self.body.glandular - 1.0, 0, 1)
            gland[box] = np.maximum(gland[box], share * np.clip(-distance / 8.0, 0, 1))

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
            box, distance = canvas.ellipsoid_distance(centre, semi, border_mm=3.0)
            if not distance.size:
                continue
            share = coverage(distance, 2.0) * lung[box]
            canvas.blend(box, share, body.muscle_hu)
            inside = coverage(distance + 3.0, 1.5) * lung[box]
            if number == 0:
                canvas.blend(box, inside, body.liver_hu + 2.5 * grain[box])
            else:
                canvas.blend(box, inside, 44 + 3 * grain[box])
                self._paint_left_organs(canvas, centre, left_top)
            lung[box] *= 1 - coverage(distance, 2.0)
        lobe = np.array([8.0, -0.42 * depth, min(liver_top, left_top) - 40])
        box, distance = canvas.ellipsoid_distance(lobe, (0.62 * width, 0.5 * depth, 38.0), border_mm=3.0)
        share = coverage(distance, 2.0) * coverage(inner[box], 1.2)
        canvas.blend(box, share, body.liver_hu + 2.5 * grain[box])
        lung[box] *= 1 - share
        return lung

    def _paint_left_organs(self, canvas: Canvas, dome: np.ndarray, top: float) -> None:
        # Stomach and spleen fill the dome up to the diaphragm; fat lies in the cleft between them.
        cleft = np.array([dome[0] + 20, dome[1] + 12, top - 52])
        canvas.ellipsoid(cleft, (13.0, 30.0, 30.0), self.body.fat_hu, edge_mm=6.0)
        stomach = np.array([dome[0] - 8, dome[1] - 12, top - 56])
        canvas.ellipsoid(stomach, (36.0, 38.0, 44.0), 22.0, edge_mm=4.0)
        gas = self.body.stomach_gas_mm
        canvas.ellipsoid(stomach + np.array([2.0, -34 + gas, 0]), (min(30.0, 14 + gas), gas, 30.0), tissues.GAS_HU)


@overload
def cavity_scale(z_mm: float) -> float: ...
@overload
def cavity_scale(z_mm: np.ndarray) -> np.ndarray: ...
def cavity_scale(z_mm: float | np.ndarray) -> float | np.ndarray:
    """Return the cavity's width at heights, relative to that at the heart; it narrows to the apex of the lung."""
    below = 1.0 + 0.0006 * (30 - z_mm) * (z_mm > -200)
    above = np.sqrt(np.maximum(0.02, 1 - np.maximum((z_mm - 30) / 165, 0.0) ** 2.4))
    return np.where(z_mm <= 30, below, above)[()]


def _wall_scales(z_mm: float) -> tuple[float, float, float]:
    """Return the share of shoulder at a height, and the wall's muscle and fat relative to the heart's level."""
    shoulder = 1 / (1 + math.exp(-(z_mm - 135) / 12))
    muscle_scale = 1 - 0.55 / (1 + math.exp((z_mm + 20) / 25))
    fat_scale = 1 + 0.25 / (1 + math.exp((z_mm + 60) / 20))
    return shoulder, muscle_scale, fat_scale


def trunk_outline_mm(body: Body, z_mm: float) -> np.ndarray:
    """Return the skin at a height in quiet breathing, without the breasts: closed polygon [721, 2] of x, y (LPS)."""
    angle = np.linspace(-math.pi, math.pi, 721)
    front = np.abs(angle) / math.pi
    lateral = np.square(np.sin(math.pi * front))
    shoulder, muscle_scale, fat_scale = _wall_scales(z_mm)
    scale = cavity_scale(z_mm)
    cavity = cavity_radius_mm(body, ScanPose(), front)
    muscle = _polar(front, body.muscle_mm * _profile("muscle")) * muscle_scale
    muscle = muscle + lateral * 24 * shoulder + cavity * 0.8 * (1 - scale)
    fat = _polar(front, _fat_mm(body)) * fat_scale + lateral * 12 * shoulder
    radius = cavity * scale + 13 + muscle + fat
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def body_box(body: Body, canvas: Canvas, heights_mm: tuple[float, float]) -> Box:
    """Return the rows and columns that hold the body between two heights at any depth of breath."""
    heights = np.linspace(*heights_mm, 30)
    edges = [1.06 * np.concatenate([trunk_outline_mm(body, float(z)) for z in heights])]
    if body.breast_mm:
        centres, semi = _breast_centres(body)
        edges += [centres[:, :2] + side * np.array(semi[:2]) for side in (-1, 1)]
    (x0, y0), (x1, y1) = (reduce(np.concatenate(edges), axis=0) for reduce in (np.min, np.max))
    return canvas.box(x0 - 12, x1 + 12, y0 - 12, y1 + 12)


def _breast_centres(body: Body) -> tuple[np.ndarray, tuple[float, float, float]]:
    y = -(body.cavity_half_depth_mm + 13 + body.muscle_mm * 0.7 + body.fat_mm * 0.5)
    centres = np.array([[side * 0.66 * body.cavity_half_width_mm, y + 14, 18.0] for side in (-1, 1)])
    return centres, (body.breast_mm * 1.05, body.breast_mm * 0.62, body.breast_mm * 1.1)


def cavity_radius_mm(body: Body, pose: ScanPose, front: np.ndarray) -> np.ndarray:
    """Return the cavity's radius at the heart's level in each direction (0 spine, 1 sternum)."""
    return _polar(np.asarray(front, np.float32), _cavity_radii(body, pose))


def _cavity_radii(body: Body, pose: ScanPose) -> np.ndarray:
    """Return radii at 21 directions from spine to sternum: an egg with gutters beside the spine."""
    front = np.linspace(0, 1, 21)
    angle = math.pi * front
    a = body.cavity_half_width_mm * (1 + 0.02 * pose.inspiration)
    b = body.cavity_half_depth_mm * (1 + 0.05 * pose.inspiration)
    n = 2.35
    radius = (np.abs(np.sin(angle) / a) ** n + np.abs(np.cos(angle) / b) ** n) ** (-1 / n)
    return radius + _profile("gutter") * body.cavity_half_depth_mm / 86


def _profile(name: str) -> np.ndarray:
    """Return a profile of TRUNK at 21 directions from spine to sternum."""
    front, profile = np.linspace(0, 1, 21), TRUNK[name]
    values = np.full(21, profile["base"])
    for height, centre, width in profile["bumps"]:
        values += height * np.exp(-(((front - centre) / width) ** 2))
    return values


def _fat_mm(body: Body) -> np.ndarray:
    front = np.linspace(0, 1, 21)
    return body.fat_mm * (0.75 + 0.45 * np.sin(math.pi * front) ** 2 - 0.15 * front)


def _polar(front: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Interpolate values at 21 directions from spine to sternum smoothly and periodically."""
    place = front * np.float32(len(radii) - 1)
    padded = np.concatenate([radii[1:2], radii, radii[-2:-1]])
    return ndimage.map_coordinates(padded.astype(np.float32), [place + 1], order=2, mode="nearest", prefilter=True)


def _texture(x_mm: np.ndarray, y_mm: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return three fields of irregular grain fixed in the patient's frame, standard deviation about 0.6 each."""
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


def lung_vessels(body: Body, generator: np.random.Generator) -> PointCloud:
    """Draw arteries and veins of both lungs in quiet breathing; weights in mm³ of blood."""
    clouds = []
    for side, gates in LUNG_VESSELS["gates_mm"]:
        for gate in gates:
            ends = _places_in_lung(body, side, generator, LUNG_VESSELS["ends_per_tree"])
            clouds.append(_tree(np.array(gate, float), ends, generator))
    return join_clouds(clouds)


GRAIN_POINTS = 30_000
"""Points of grain in each lung."""


def lung_grain(body: Body, generator: np.random.Generator) -> PointCloud:
    """Draw septa, vessels and airways too small for a tree: points through the lungs with skewed weights of mean 0."""
    places = np.concatenate([_places_in_lung(body, side, generator, GRAIN_POINTS) for side in (-1, 1)])
    return PointCloud(places, generator.gamma(0.5, 0.5, len(places)) - 0.25)


def apply_breath(positions_mm: np.ndarray, body: Body, pose: ScanPose, breath_mm: float = 0.0) -> np.ndarray:
    """Return places of lung tissue in a pose, stretched downwards with the diaphragm, most at the bottom."""
    low, high = body.right_dome_mm - 30.0, 120.0
    share = np.clip((high - positions_mm[:, 2]) / (high - low), 0.0, 1.2)
    positions = positions_mm.copy()
    positions[:, 2] -= share * (pose.diaphragm_drop_mm * 0.8 - breath_mm)
    positions[:, :2] *= 1 + 0.02 * pose.inspiration
    return positions


def _places_in_lung(body: Body, side: int, generator: np.random.Generator, count: int) -> np.ndarray:
    frame = reference_frame(body)
    batches: list[np.ndarray] = []
    n_places = 0
    while n_places < count:
        p = generator.uniform((0, -120, -95), (140, 130, 180), (4 * count, 3))
        p[:, 0] *= side
        p = p[(np.abs(p[:, 0] - 6) > 24) & (p[:, 2] > body.right_dome_mm - 75) & (generator.random(len(p)) < 0.75)]
        front = np.arctan2(np.abs(p[:, 0]), p[:, 1]) / math.pi
        widest = cavity_radius_mm(body, ScanPose(), front) * cavity_scale(p[:, 2])
        p = p[np.hypot(p[:, 0], p[:, 1]) < widest - 2.5]
        p = p[((frame.to_heart(p) / (frame.semi_axes_mm + 3)) ** 2).sum(axis=1) > 1]
        batches.append(p)
        n_places += len(p)
    return np.concatenate(batches)[:count]


def _tree(gate: np.ndarray, ends: np.ndarray, generator: np.random.Generator) -> PointCloud:
    from .compiled import grow_tree

    order = np.argsort(np.linalg.norm(ends - gate, axis=1) + generator.normal(0, 12, len(ends)))
    bends = generator.standard_normal(ends.shape)
    nodes, parent, leaves = grow_tree(gate, ends[order], bends, float(LUNG_VESSELS["step_mm"]))
    count = len(parent)
    flow = np.zeros(count)
    flow[leaves] = 1.0
    for n in range(count - 1, 0, -1):
        flow[parent[n]] += flow[n]
    radius = np.minimum(LUNG_VESSELS["terminal_radius_mm"] * np.cbrt(flow), LUNG_VESSELS["largest_radius_mm"])
    return _fill(nodes, parent, radius, generator)


def _fill(nodes: np.ndarray, parent: np.ndarray, radius: np.ndarray, generator: np.random.Generator) -> PointCloud:
    """Return points along every segment, spread over its section, more in thick vessels."""
    a, b = nodes[parent[1:]], nodes[1:]
    r = radius[1:]
    length = np.linalg.norm(b - a, axis=1)
    count = np.maximum(1, np.ceil(length / 0.7 * np.maximum(1.0, math.pi * r**2 / 0.6))).astype(int)
    index = np.repeat(np.arange(len(a)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    along = (np.arange(len(index)) - first + generator.random(len(index))) / count[index]
    places = a[index] + along[:, None] * (b - a)[index]
    direction = (b - a)[index] / np.maximum(length[index], 1e-9)[:, None]
    offset = generator.standard_normal((len(index), 3))
    offset -= (offset * direction).sum(axis=1, keepdims=True) * direction
    offset /= np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-9)
    offset *= (r[index] * np.sqrt(generator.random(len(index))))[:, None]
    return PointCloud(places + offset, (math.pi * r**2 * length / count)[index])
