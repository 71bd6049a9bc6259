"""Fits the measured hearts to a scan: pose, size, shape and fat of the heart within a mask that may be wrong.

A heart is a blend of the measured ones, placed by a similarity with a scale for each axis and bent by a low-order
displacement. Gauss-Newton makes its pericardium meet the mask's edge, which counts less where no lung shows that it is
one and less the farther it is off (a mask may spill into arch and liver, or be cut by the field of view), and its
muscle and blood meet what is denser than fat within, which puts the grooves where the scan shows them. Where labels
of territories are known, their middles draw the root and the valves. Priors hold what none shows.
All terms are weighted as if points `correlated_mm` apart were independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from CACScoringLib.anatomy.chest import GRID_MM

from .fit_points import BAND_MM, FitPoints, fit_points
from .placement import Placement, usual_axes, waves
from .shape import (
    HIGH_MM,
    LANDMARKS,
    LOW_MM,
    PARTS,
    REACH_MM,
    REFLECTION_MM,
    STEP_MM,
    WALL_MM,
    HeartShape,
    cosine_index,
    hard,
    interpolated,
    shipped_models,
    soft,
)
from .territories import BEYOND_MM, TERRITORIES, costs
from .tree import usual_tree

MARKS = {
    "aortic valve and root": "aortic",
    "mitral annulus": "mitral",
    "pulmonary artery": "pulmonary",
}
"""Territories whose middles are found again in a scan's labels, and the landmark that each goes with."""
LEAST_MARK_ML = 1.0
_OUTSIDES = tuple(name for name in PARTS if name != "lv")
_LATTICE_MM = 5.0
_FINER = STEP_MM / _LATTICE_MM


@dataclass(frozen=True)
class FitSettings:
    """Standard deviations of the priors and of the terms."""

    turn_radians: float = 0.12
    log_scale: float = 0.08
    blend: float = 0.25
    fat_mm: tuple[float, float] = (2.5, 1.5)
    fat_slope: tuple[float, float] = (0.5, 0.25)
    aorta_mm: tuple[float, float] = (1.5, 0.8)
    groove_mm: float = 8.0
    bend_mm: float = 5.0
    bend_order: int = 4
    edge_mm: float = 3.0
    tissue: float = 0.35
    tissue_edge_mm: float = 2.0
    mark_mm: float = 2.5
    correlated_mm: float = 16.0
    rounds: tuple[tuple[str, int, float, int], ...] = (
        ("pose", 8, 14.0, 8),
        ("shape", 4, 9.0, 5),
        ("bend", 5, 6.0, 4),
    )
    """Stage, Gauss-Newton steps, distance in mm at which an edge counts a quarter, every how many points are used."""


@dataclass(frozen=True)
class HeartFit:
    """A heart fitted to a scan.

    shape: the heart in the common frame. residual_mm: root mean square distance
    of its pericardium from the mask's edge where lung shows it. agreement: Dice of heart and mask.
    """

    placement: Placement
    shape: HeartShape
    residual_mm: float
    agreement: float


def fit_heart(image: sitk.Image, mask: sitk.Image, labels: sitk.Image | None = None) -> HeartFit:
    """Fit the measured hearts to a scan.

    image: HU. mask: heart, uint8 0/1 on its grid. labels: of TERRITORIES on its grid, where a network found them.
    Raises NoHeartError when the mask holds too little of a heart.
    """
    points, mask_centre = fit_points(image, mask)
    marks = {} if labels is None else _label_middles(labels)
    return _Fitter(points, mask_centre, marks).fit()


def _label_middles(labels: sitk.Image) -> dict[str, np.ndarray]:
    """LPS of the middles of the territories of MARKS that lie in the field of view."""
    array, found = sitk.GetArrayViewFromImage(labels), {}
    voxel_ml = float(np.prod(labels.GetSpacing())) / 1000
    for name in MARKS:
        places = np.argwhere(array == TERRITORIES[name])[:, ::-1]
        # A territory that the field of view cuts has its middle elsewhere.
        whole = (
            len(places) * voxel_ml > LEAST_MARK_ML
            and (places > 0).all()
            and (places < np.array(labels.GetSize()) - 1).all()
        )
        if whole:
            found[name] = np.array(labels.TransformContinuousIndexToPhysicalPoint(places.mean(axis=0).tolist()))
    return found


class _Fitter:
    """Parameters: turn 3, shift 3, log scales 3, blend (hearts - 1), fat, fat's slope, aorta's and pulmonary trunk's
    widening, waves 3 x n."""

    def __init__(self, points: FitPoints, mask_centre: np.ndarray, marks: dict[str, np.ndarray]) -> None:
        models, settings = shipped_models(), FitSettings()
        self.models, self.settings, self.points, self.marks = models, settings, points, marks
        hearts = len(models.names)
        self.axes_mm = [np.arange(lo - 8, hi + 9, _LATTICE_MM) for lo, hi in zip(LOW_MM, HIGH_MM, strict=True)]
        self.low = np.array([a[0] for a in self.axes_mm])
        self.grid = tuple(len(a) for a in self.axes_mm)
        alone = (models.distances(one, self.axes_mm) for one in np.eye(hearts))
        self.soft = soft(np.stack(list(alone))).astype(np.float32)
        u, v, w = np.meshgrid(*self.axes_mm, indexing="ij")
        self.places = np.stack([u, v, w], -1).astype(np.float32)
        self.side = np.tanh(v / 25).astype(np.float32)
        self.mean = np.full(hearts, 1 / hearts)
        self.blend = np.linalg.svd(np.ones((1, hearts)))[2][1:].T
        index = cosine_index(settings.bend_order, HIGH_MM - LOW_MM)
        self.index = index
        self.shape_at = 9 + hearts - 1
        self.waves_at = self.shape_at + 4
        count = self.waves_at + 3 * len(index)
        s = settings
        self.usual, self.sd = np.zeros(count), np.ones(count)
        self.sd[:3] = s.turn_radians
        self.sd[3:6] = 40.0
        self.sd[6:9] = s.log_scale
        self.sd[9 : self.shape_at] = s.blend
        shape = (s.fat_mm, s.fat_slope, s.aorta_mm, s.aorta_mm)
        self.usual[self.shape_at : self.waves_at] = [mean for mean, _ in shape]
        self.sd[self.shape_at : self.waves_at] = [sd for _, sd in shape]
        order = np.sqrt((index**2).sum(axis=1))
        self.sd[self.waves_at :] = np.repeat(s.bend_mm / (1 + order**2), 3)
        self.sd[self.waves_at : self.waves_at + 3] = 0.5  # a shift is the pose's
        self.axes = usual_axes()
        self.theta = self.usual.copy()
        self.table = self._table(self.theta)
        pericardium = self.table[:, 0].reshape(self.grid)
        middle = self.places[pericardium < 0].mean(axis=0)
        self.centre = mask_centre - self.axes @ middle
        full_ml = (pericardium < 0).sum() * _LATTICE_MM**3 / 1000
        mask_ml = (points.distance_mm < 0).sum() * GRID_MM**3 / 1000
        self.theta[6:9] = np.clip(np.log(mask_ml / full_ml) / 3, -0.12, 0.15)
        self.beside = {}
        if marks:
            usual = self._shape(self.usual)
            self.beside = {n: m - usual.landmarks_mm[MARKS[n]] for n, m in _shape_middles(usual).items() if n in marks}

    def weights(self, theta: np.ndarray) -> np.ndarray:
        return self.mean + self.blend @ theta[9 : self.shape_at]

    def _table(self, theta: np.ndarray) -> np.ndarray:
        """[lattice, 8 + 2 x shape parameters]: pericardium and walls, their slopes, and how they change."""
        weights = self.weights(theta).astype(np.float32)
        fat, slope, aorta, trunk = theta[self.shape_at : self.waves_at].astype(np.float32)
        blended = np.tensordot(weights, self.soft, 1)
        distance = hard(blended)
        growth = REACH_MM / (1 - np.clip(blended, -0.97, 0.97) ** 2)
        landmarks = np.tensordot(weights, self.models.landmarks_mm, 1)
        keep = [PARTS.index(name) for name in _OUTSIDES]
        outside = distance[keep] - np.array([WALL_MM.get(n, 0.0) for n in _OUTSIDES], np.float32)[:, None, None, None]
        outside[_OUTSIDES.index("aorta")] -= aorta
        outside[_OUTSIDES.index("pulmonary")] -= trunk
        within = outside.copy()
        free = {}
        for name, valve in (("aorta", "aortic"), ("pulmonary", "pulmonary")):
            beyond = np.linalg.norm(self.places - landmarks[LANDMARKS.index(valve)], axis=-1) - REFLECTION_MM
            n = _OUTSIDES.index(name)
            free[n] = outside[n] >= beyond
            within[n] = np.maximum(outside[n], beyond)
        columns = []
        for fields, softness in ((within, self.settings.groove_mm), (outside, 1.5)):
            least = fields.min(axis=0)
            share = np.exp((least - fields) / np.float32(softness))
            total = share.sum(axis=0)
            share /= total
            value = least - np.float32(softness) * np.log(total)
            if fields is within:
                value -= fat * (1 + slope * self.side)
                for n, f in free.items():
                    share[n] = share[n] * f
            moved = np.einsum("pijk,hpijk->hijk", share * growth[keep], self.soft[:, keep], optimize=True)
            shape = np.zeros((4, *self.grid), np.float32)
            if fields is within:
                shape[0], shape[1] = -(1 + slope * self.side), -fat * self.side
            shape[2], shape[3] = (-share[_OUTSIDES.index(name)] for name in ("aorta", "pulmonary"))
            moved = np.concatenate([np.tensordot(self.blend.T.astype(np.float32), moved, 1), shape])
            columns += [value[None], np.stack(np.gradient(value, _LATTICE_MM)), moved]
        table = np.concatenate(columns).reshape(sum(len(c) for c in columns), -1)
        return np.ascontiguousarray(table.T)

    def _place(self, theta: np.ndarray) -> Placement:
        turn = Rotation.from_rotvec(theta[:3]).as_matrix()
        bend = theta[self.waves_at :].reshape(-1, 3)
        return Placement(self.axes @ turn, self.centre + theta[3:6], np.exp(theta[6:9]), self.index, bend)

    def _step(self, points: FitPoints, stage: str, doubt_mm: float) -> None:
        s, theta = self.settings, self.theta
        active = np.ones(len(theta), bool)
        if stage != "bend":
            active[self.waves_at :] = False
        if stage == "pose":
            active[9 : self.waves_at] = False
        place = self._place(theta)
        if stage != "pose":
            self.table = self._table(theta)
        bent = stage == "bend"
        common, moved = self._moved(points.lps_mm, place, bent)
        found = interpolated(self.table, self.grid, self.low * _FINER, common * _FINER)
        half = found.shape[1] // 2
        size = np.float32(np.exp(theta[6:9].mean()))
        result = []
        for columns in (found[:, :half], found[:, half:]):
            jac = moved(columns[:, 1:4] * size)
            jac[:, 9 : self.waves_at] = columns[:, 4:] * size
            result.append((columns[:, 0] * size, jac))
        (pericardium, edge_jac), (wall, wall_jac) = result
        share = len(self.points.lps_mm) * GRID_MM**3 / s.correlated_mm**3 / len(points.lps_mm)  # weight of a point
        model, seen = np.clip(pericardium, -BAND_MM, BAND_MM), np.clip(points.distance_mm, -BAND_MM, BAND_MM)
        residual = (model - seen) / s.edge_mm
        # A mask spills more often than it leaves heart out.
        beyond = model < seen
        doubt = 1 / (1 + ((model - seen) / np.where(beyond, 3 * doubt_mm, doubt_mm)) ** 2) ** 2
        weight = np.where(beyond, np.maximum(points.trust, 0.4), points.trust) * doubt * share
        active_edge = np.abs(pericardium) < BAND_MM
        rows = [(residual, edge_jac / s.edge_mm, weight * active_edge)]
        if stage != "pose":
            muscle = 1 / (1 + np.exp(np.clip(wall / s.tissue_edge_mm, -30, 30)))
            # Beyond the pericardium other organs are as dense, but the vessels' stems are not in fat or lung.
            inside = np.maximum(1 / (1 + np.exp(np.clip((pericardium + 2.0) / 1.5, -30, 30))), muscle)
            rate = -muscle * (1 - muscle) / s.tissue_edge_mm
            error = muscle - points.muscle
            tissue_weight = share * inside * points.is_tissue
            rows.append((error / s.tissue, wall_jac * (rate / s.tissue)[:, None], tissue_weight))
        if self.marks:
            rows.append(self._mark_rows(place, bent))
        normal = np.diag(1 / self.sd[active] ** 2)
        right = (self.usual[active] - theta[active]) / self.sd[active] ** 2
        # Turns are about the frame as it is, so their prior is kept by small steps from the usual one.
        for residual, jac, weight in rows:
            use = weight > 1e-4 * weight.max()
            jac = jac[np.ix_(use, active)] if not active.all() else jac[use]
            weighted = jac * weight[use, None].astype(np.float32)
            normal += weighted.T @ jac
            right -= weighted.T @ residual[use].astype(np.float32)
        step = np.linalg.solve(normal, right)
        limit = np.ones(len(theta))
        limit[:3], limit[3:6], limit[6:9] = 0.15, 12.0, 0.08
        limit[9 : self.shape_at], limit[self.shape_at : self.waves_at], limit[self.waves_at :] = 0.3, 2.0, 3.0
        step *= min(1.0, float(np.min(limit[active] / np.maximum(np.abs(step), 1e-9))))
        theta[active] += step

    def _moved(
        self, lps_mm: np.ndarray, place: Placement, bent: bool
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Points [n, 3] in the common frame, and from slopes [n, 3] of values there how turn, shift, scales and waves
        change the values, [n, parameters]."""
        offset = (lps_mm - place.centre_mm) @ place.axes
        straight = offset / place.scale
        bend = waves(straight, self.index) if bent else None

        def jacobian(slope: np.ndarray) -> np.ndarray:
            pull = slope / place.scale.astype(np.float32)
            # The frame is turned on its own side: axes @ exp(turn).
            jac = np.zeros((len(slope), len(self.theta)), np.float32)
            jac[:, :3] = np.cross(pull, offset)
            jac[:, 3:6] = -pull @ place.axes.T
            jac[:, 6:9] = -slope * straight
            if bent:
                jac[:, self.waves_at :] = (bend[:, :, None] * slope[:, None, :]).reshape(len(slope), -1)
            return jac

        return straight + (bend @ place.waves_mm if bent else 0), jacobian

    def _mark_rows(self, place: Placement, bent: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distances from the marks along u, v and w, how they change, and their weights."""
        names = list(self.marks)
        where = [LANDMARKS.index(MARKS[name]) for name in names]
        common, moved = self._moved(np.stack([self.marks[name] for name in names]), place, bent)
        each = self.models.landmarks_mm[:, where]
        gap = common - np.tensordot(self.weights(self.theta), each, 1) - np.stack([self.beside[n] for n in names])
        size, sd = np.exp(self.theta[6:9].mean()), self.settings.mark_mm
        rows = []
        for axis in range(3):
            jac = moved(np.tile(np.eye(3)[axis], (len(names), 1)))
            jac[:, 9 : self.shape_at] = -(self.blend.T @ each[:, :, axis]).T
            rows.append(jac * size / sd)
        weight = 1 / (1 + (size * np.linalg.norm(gap, axis=1) / (6 * sd)) ** 2)
        return size / sd * gap.T.ravel(), np.concatenate(rows), np.tile(weight, 3)

    def fit(self) -> HeartFit:
        for stage, steps, doubt_mm, every in self.settings.rounds:
            points = self.points.every(every)
            for _ in range(steps):
                self._step(points, stage, doubt_mm)
        theta, place = self.theta, self._place(self.theta)
        shape = self._shape(theta)
        common = place.to_common(self.points.lps_mm)
        size = float(np.exp(theta[6:9].mean()))
        distance = interpolated(shape.pericardium.reshape(-1, 1), shape.pericardium.shape, shape.low_mm, common)[:, 0]
        distance = distance * size
        sure = (np.abs(distance) < 2) & (self.points.trust > 0.7)
        gap = np.clip(self.points.distance_mm[sure] - distance[sure], -BAND_MM, BAND_MM)
        heart = distance < 0
        both = (heart & (self.points.distance_mm < 0)).sum()
        return HeartFit(
            placement=place,
            shape=shape,
            residual_mm=float(np.sqrt((gap**2).mean())) if sure.any() else float("nan"),
            agreement=2 * both / (heart.sum() + (self.points.distance_mm < 0).sum()),
        )

    def _shape(self, theta: np.ndarray) -> HeartShape:
        """The heart of these parameters on the usual lattice, in the common frame."""
        counts = np.ceil((HIGH_MM - LOW_MM) / STEP_MM).astype(int)
        axes = [lo + STEP_MM * np.arange(n) for lo, n in zip(LOW_MM, counts, strict=True)]
        weights = self.weights(theta)
        fat, slope, aorta, trunk = theta[self.shape_at : self.waves_at]
        distances = np.moveaxis(self.models.distances(weights, axes), 0, -1).astype(np.float32)
        distances[..., PARTS.index("aorta")] -= np.float32(aorta)
        distances[..., PARTS.index("pulmonary")] -= np.float32(trunk)
        side = np.tanh(axes[1] / 25)[None, :, None]
        thick = np.broadcast_to(fat * (1 + slope * side), distances.shape[:3]).astype(np.float32)
        landmarks = np.tensordot(weights, self.models.landmarks_mm, 1)
        return HeartShape(
            low_mm=LOW_MM,
            distances_mm=distances,
            weights=dict(zip(self.models.names, weights.round(3).tolist(), strict=True)),
            landmarks_mm=dict(zip(LANDMARKS, landmarks, strict=True)),
            lines=self.models.lines,
            papillary=self.models.papillary,
            fat_mm=thick,
            groove_mm=self.settings.groove_mm,
        )


def _shape_middles(shape: HeartShape) -> dict[str, np.ndarray]:
    """The middles of the territories of MARKS in a heart's frame."""
    cost = costs(shape, usual_tree(shape))
    nearest = cost[:, :-1].argmin(axis=1) + 1
    nearest[cost[:, -1] > BEYOND_MM] = 0
    places = shape.places_mm.reshape(-1, 3)
    return {name: places[nearest == TERRITORIES[name]].mean(axis=0) for name in MARKS}
