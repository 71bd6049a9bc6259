"""Scan of a digital patient: anatomy, blurred by the scanner, with moving calcium and noise added."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy import fft

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES

from ..anatomy import tissues
from ..anatomy.canvas import NOWHERE, Box, Canvas
from ..anatomy.heart import Heart, HeartFrame
from ..anatomy.hearts.valves import cusps
from ..anatomy.patient import Patient
from ..anatomy.points import PointCloud
from ..anatomy.thorax import Thorax, apply_breath, body_box
from .motion import HEART_SHARE_OF_BREATH, ScanPose
from .response import (
    Displacement,
    Stamp,
    add_levels,
    add_stamp,
    add_stamps,
    image_of_points,
    levels_of_views,
    slice_times_s,
    view_times_s,
)
from .scanner import NoiseSource, Scanner, direction_gains

CHEST_MM = (-110.0, 190.0)
"""Default heights of a scan in mm, from the heart's middle in quiet breathing."""

HIGHEST_HU = 3071
LOWEST_HU = -1024
SMOOTHING_MM = 1.0
"""Gaussian σ in mm over which a reader's eye averages noise."""
ROUND_SHARE, PADDING_HU = 0.4, (-1024, -2000, -3024)
"""Share of round fields, and values outside them."""
MOVING_KINDS = ("lumen", "calcium", "deposit", "cusps", "metal")
GRAIN_HU = 900.0


@dataclass(frozen=True)
class ScanWithTruth:
    """Scan and its truth, all on `grid`, [k, j, i].

    Attributes:
        grid: Grid of the arrays.
        scanner: Scanner of the scan.
        hu: Scan, int16.
        heart: Mask of the pericardium's inside, bool.
        calcium_mg_cm3: Coronary calcium in this scan without noise, float32 (blurred and moving, with the
            reconstruction's undershoot).
        arteries: Coronary calcium by artery, as stamps in mg/mm³.
        noise_sd_hu: Standard deviation of the noise at the heart [k].
        smoothed_noise_share: Share of the noise left by a Gaussian of SMOOTHING_MM.
    """

    grid: Grid
    scanner: Scanner
    hu: np.ndarray
    heart: np.ndarray
    calcium_mg_cm3: np.ndarray
    arteries: dict[str, list[Stamp]]
    noise_sd_hu: np.ndarray
    smoothed_noise_share: float


@dataclass(frozen=True)
class DigitalScan(ScanWithTruth):
    """Simulated scan of a digital patient; its grid is in the scanner's frame.

    Attributes:
        pose: Position, breath and cardiac phase.
        distractors: Image of each kind of distractor in HU, as stamps.
    """

    pose: ScanPose
    distractors: dict[str, list[Stamp]] = field(default_factory=dict)


def scan_grid(scanner: Scanner, z_range_mm: tuple[float, float] = CHEST_MM) -> Grid:
    """Return the scan's grid in the scanner's frame, centred on the patient before the table shift."""
    count = max(2, round((z_range_mm[1] - z_range_mm[0]) / scanner.slice_spacing_mm))
    corner = (scanner.matrix - 1) / 2 * scanner.pixel_mm
    return Grid(
        (scanner.matrix, scanner.matrix, count),
        (scanner.pixel_mm, scanner.pixel_mm, scanner.slice_spacing_mm),
        (0.0 - corner, 6.0 - corner, z_range_mm[0] + scanner.slice_spacing_mm / 2),
    )


def scan_patient(patient: Patient, scanner: Scanner, pose: ScanPose, scan_number: int, grid: Grid) -> DigitalScan:
    """Scan a patient. scan_number: number of this patient's scan, for the noise."""
    # The grid is shifted against the table, so that the patient's frame stays fixed.
    shift = np.asarray(pose.table_shift_mm)
    patient_grid = replace(grid, origin_mm=tuple(np.asarray(grid.origin_mm) - shift))
    painter = _Painter(patient, scanner, pose, patient_grid, scan_number)
    calcium: dict[str, list[Stamp]] = {}
    distractors: dict[str, list[Stamp]] = {}
    for moving in moving_objects(patient, painter.heart.frame):
        motion = displacement(patient, pose, moving.group, moving.with_heart)
        images = image_of_points(moving.cloud, patient_grid, scanner, motion, moving.view_gain)
        for stamp in images:
            painter.stamps[moving.kind][stamp.k].append(stamp)
        if moving.artery is not None:
            calcium.setdefault(moving.artery, []).extend(images)
        elif moving.distractor is not None:
            factor = painter.factors[moving.kind]
            distractors.setdefault(moving.distractor, []).extend(
                replace(stamp, values=factor * stamp.values) for stamp in images
            )
    hu, heart = np.empty(grid.shape, np.int16), np.empty(grid.shape, bool)
    noise = np.empty(grid.shape[0])
    for k in range(grid.shape[0]):
        hu[k], heart[k], noise[k] = painter.slice(k)
    truth = np.zeros(grid.shape, np.float32)
    for images in calcium.values():
        add_stamps(truth, images, 1000.0)
    share = painter.noise.smoothed_share(SMOOTHING_MM)
    return DigitalScan(grid, scanner, hu, heart, truth, calcium, noise, share, pose, distractors)


def draw_field(scan: DigitalScan, generator: np.random.Generator) -> DigitalScan:
    """Return a scan whose field is round, with padding in the corners, in ROUND_SHARE of gated scans."""
    if scan.scanner.gate_phase is None or generator.random() >= ROUND_SHARE:
        return scan
    x, y, _ = scan.grid.axes_mm()
    corners = np.hypot(x - x.mean(), (y - y.mean())[:, None]) > 0.5 * scan.scanner.field_of_view_mm
    padding = generator.choice(PADDING_HU)
    return replace(scan, hu=np.where(corners, np.int16(padding), scan.hu), heart=scan.heart & ~corners)


@dataclass(frozen=True)
class _Moving:
    """Object imaged as points.

    Attributes:
        kind: Kind of MOVING_KINDS.
        group: Group of `motion.EXCURSION_MM` that it moves with; None for one at rest.
        cloud: Points in LPS.
        view_gain: Relative weight of each view direction, for streaks.
        with_heart: True if it follows the heart's share of the breath.
        distractor: Kind of distractor; None for an artery or valve.
        artery: Artery whose calcium it is; None for all else.
    """

    kind: str
    group: str | None
    cloud: PointCloud
    view_gain: np.ndarray | None = None
    with_heart: bool = True
    distractor: str | None = None
    artery: str | None = None


def moving_objects(patient: Patient, frame: HeartFrame) -> list[_Moving]:
    objects = []
    for artery in ARTERIES:
        objects.append(_Moving("lumen", artery, patient.tree.lumen(artery).map(frame.to_lps)))
        for group, calcium in patient.moving_calcium(artery).items():
            if len(calcium.weights):
                objects.append(_Moving("calcium", group, calcium.map(frame.to_lps), artery=artery))
    objects.append(_Moving("cusps", "valve", cusps(patient.heart, patient.tree).map(frame.to_lps)))
    for d in patient.distractors:
        cloud = d.place(patient.body, frame, patient.heart)
        material = "metal" if d.metal else "deposit"
        objects.append(_Moving(material, d.group, cloud, d.view_gain, d.anchor == "heart", d.kind))
    return objects


def displacement(patient: Patient, pose: ScanPose, group: str | None, with_heart: bool) -> Displacement | None:
    """Return the displacement in mm by time of a group and, if `with_heart`, of half the breath; None at rest."""
    breathing = pose.breathing_mm > 0 and with_heart
    if group is None and not breathing:
        return None

    def displacement_mm(time_s: np.ndarray) -> np.ndarray:
        shift = np.zeros((*np.shape(time_s), 3))
        if group is not None:
            shift += pose.motion_scale * patient.beat.displacement_mm(group, pose.cardiac_phase(time_s))
        if breathing:
            shift[..., 2] += HEART_SHARE_OF_BREATH * pose.breath_mm(time_s)
        return shift

    return displacement_mm


class _Painter:
    """Painter of a scan's slices, each independently. stamps: images of moving objects, by kind and slice."""

    def __init__(self, patient: Patient, scanner: Scanner, pose: ScanPose, grid: Grid, scan_number: int) -> None:
        self.patient, self.scanner, self.pose, self.grid = patient, scanner, pose, grid
        self.stamps: dict[str, list[list[Stamp]]] = {kind: [[] for _ in range(grid.shape[0])] for kind in MOVING_KINDS}
        self.x, self.y, self._z = grid.axes_mm()
        # Only the body's box is painted slice by slice; the couch is the same in all slices.
        background = Canvas(self.x, self.y, 0.0, tissues.GAS_HU)
        self._box = rows, columns = body_box(patient.body, background, (self._z[0] - 8, self._z[-1] + 8))
        self.thorax = Thorax(patient.body, pose, self.x[columns], self.y[rows], patient.number)
        self.thorax.paint_couch(background)
        self._background = background.hu
        self._part = replace(
            grid,
            size=(len(self.x[columns]), len(self.y[rows]), grid.size[2]),
            origin_mm=(float(self.x[columns.start]), float(self.y[rows.start]), grid.origin_mm[2]),
        )
        self.heart = Heart(patient.body, pose, patient.heart)
        self.noise = NoiseSource((patient.number, scan_number, 9), grid, scanner)
        self._times = slice_times_s(grid, scanner)
        # Heights within a slice at which the anatomy is evaluated.
        count = max(1, round(scanner.slice_thickness_mm / 1.6))
        half = scanner.slice_thickness_mm / 2
        self._offsets = (np.arange(count) + 0.5) / count * scanner.slice_thickness_mm - half
        self._weight = np.float32(1 / count)
        pixel = grid.spacing_mm[0]
        fy, fx = np.fft.fftfreq(grid.shape[1], pixel)[:, None], np.fft.rfftfreq(grid.shape[2], pixel)[None]
        self._transfer = scanner.transfer(np.hypot(fy, fx)).astype(np.float32)
        breathe = partial(apply_breath, body=patient.body, pose=pose)
        self._vessels, self._grain = (_SortedCloud(cloud.map(breathe)) for cloud in (patient.vessels, patient.grain))
        # Noise falls towards the skin, where rays cross less of the body; illustrative.
        r2 = (self.x[None] / 150) ** 2 + ((self.y[:, None] - 10) / 110) ** 2
        self._noise_share = (0.62 + 0.42 * np.exp(-0.7 * r2)).astype(np.float32)
        # HU of each material by its weight per mm³.
        per_mg = np.float32(1000.0 * scanner.calcium_hu_per_mg_cm3)
        cusp_hu = np.float32(patient.body.myocardium_hu - patient.body.blood_hu)
        self.factors = {"calcium": per_mg, "deposit": per_mg, "cusps": cusp_hu, "metal": np.float32(tissues.METAL_HU)}

    def slice(self, k: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return HU, whole numbers in float32, heart mask and noise at the heart of slice k."""
        from .compiled import finish

        body = self.patient.body
        tree = self._vessels.image(self._part, k, self.scanner)
        grain = self._grain.image(self._part, k, self.scanner)
        np.clip(tree, 0, 1, out=tree)
        tissue = tree * (body.blood_hu - body.lung_hu) + grain * GRAIN_HU
        movements, share = self._movements(k)
        (part, lung, inside), area, moved = self._anatomy(k, movements)
        part += lung * tissue
        hu, heart = self._background.copy(), np.zeros(self._background.shape, bool)
        hu[self._box] = part
        spectrum = fft.rfft2(hu)
        spectrum *= self._transfer
        if moved:
            rows = slice(self._box[0].start + area[0].start, self._box[0].start + area[0].stop)
            columns = slice(self._box[1].start + area[1].start, self._box[1].start + area[1].stop)
            changes, first_inside = [], inside[area].copy()
            for moved_part, moved_lung, _ in moved:
                moved_part += moved_lung * tissue[area]
                changes.append(np.zeros((len(moved_part), hu.shape[1]), np.float32))
                changes[-1][:, columns] = moved_part - part[area]
            pixel_mm, time_s = self.grid.spacing_mm[0], self._times[k]
            weights = add_levels(spectrum, changes, rows, pixel_mm, self.scanner, time_s, share, self._transfer)
            for (_, _, moved_inside), weight in zip(moved, weights[1:], strict=True):
                inside[area] += weight * (moved_inside - first_inside)
            hu[rows, columns] = moved[-1][0]
        heart[self._box] = inside > 0.5
        clean = fft.irfft2(spectrum, s=hu.shape, overwrite_x=True)
        gain_x, gain_y = direction_gains(hu, self.grid.spacing_mm[0])
        self._add_lumen(clean, k)
        for kind, factor in self.factors.items():
            for stamp in self.stamps[kind][k]:
                add_stamp(clean, stamp, factor)
        at_heart = self.scanner.noise_hu * math.sqrt(0.5 * (gain_x**2 + gain_y**2)) * self._heart_noise_share()
        noise = self.noise.slice_field(k, gain_x, gain_y) if self.scanner.noise_hu else np.zeros_like(clean)
        finish(clean, noise, self._noise_share, self.scanner.noise_hu, LOWEST_HU, HIGHEST_HU)
        return clean, heart, at_heart

    def _heart_noise_share(self) -> float:
        x, y, _ = self.heart.frame.centre_mm
        j, i = np.searchsorted(self.y, y), np.searchsorted(self.x, x)
        return float(self._noise_share[min(j, len(self.y) - 1), min(i, len(self.x) - 1)])

    def _movements(self, k: int) -> tuple[list[tuple[float, float]], np.ndarray]:
        """Return the heart's contractions and breaths in a slice, and each view's share in them [movements, views]."""
        around = self.patient.body.surroundings
        if around is None:
            return [(0.0, float(self.pose.breath_mm(self._times[k])))], np.ones((1, 1))
        times = view_times_s(self.scanner, self._times[k])
        contraction = self.pose.motion_scale * self.patient.beat.contraction(self.pose.cardiac_phase(times))
        values = np.stack([contraction, np.broadcast_to(self.pose.breath_mm(times), times.shape)])
        paths_mm = np.ptp(values, axis=1) * (max(around.ring_mm, around.wall_mm), HEART_SHARE_OF_BREATH)
        main, path_mm = int(paths_mm.argmax()), float(paths_mm.max())
        levels, share = levels_of_views(values[main], 1 if path_mm < 0.5 else min(4, 2 + int(path_mm / 3)))
        # The lesser movement takes its mean over the views of each level.
        movements = values @ share.T / np.maximum(share.sum(axis=1), 1e-6)
        movements[main] = levels
        return list(zip(*movements.tolist(), strict=True)), share

    def _anatomy(self, k: int, movements: list[tuple[float, float]]) -> tuple[_Anatomy, Box, list[_Anatomy]]:
        """Paint a slice at each contraction and breath of the heart.

        Returns the anatomy in the body's box at the first movement, and in a part of it, which holds all that moves,
        at the others.
        """
        still = float(self.pose.breath_mm(self._times[k]))
        x, y, _ = self._part.axes_mm()
        base = Canvas(x, y, float(self._z[k]), tissues.GAS_HU)
        trunk = self.thorax.trunk(base)
        heights = (base.z_mm + self._offsets).tolist()
        area = self.heart.moving_box(base, heights, [breath for _, breath in movements])
        later_movements = movements[1:] if area != NOWHERE else []
        grain = np.ascontiguousarray(trunk.grain[area])
        means = [_no_anatomy(base.hu.shape)] + [_no_anatomy(grain.shape) for _ in later_movements]
        for height in heights:
            canvas = base.copy(height)
            lung = self.thorax.paint(canvas, trunk, still)
            self.heart.paint_mediastinum(canvas, lung, trunk.grain)
            parts = [(canvas.crop(area), lung[area].copy(), grain, movement) for movement in later_movements]
            parts.insert(0, (canvas, lung, trunk.grain, movements[0]))
            for (picture, air, texture, (contraction, breath)), mean in zip(parts, means, strict=True):
                inside = self.heart.paint(picture, air, texture, breath, contraction)
                self.thorax.skeleton.paint_spine(picture, air, texture)
                for total, painted in zip(mean, (picture.hu, air, inside), strict=True):
                    painted *= self._weight
                    total += painted
        return means[0], area, means[1:]

    def _add_lumen(self, hu: np.ndarray, k: int) -> None:
        """Add vessels as blood in fat; in muscle they do not show."""
        body = self.patient.body
        stamps = self.stamps["lumen"][k]
        if not stamps:
            return
        lumen = np.zeros(hu.shape, np.float32)
        for stamp in stamps:
            add_stamp(lumen, stamp)
        j, i = np.nonzero(np.abs(lumen) > 1e-3)
        fat_share = np.clip((body.blood_hu - hu[j, i]) / (body.blood_hu - body.fat_hu), 0, 1)
        most = 1.0 if body.surroundings is None else body.surroundings.most_lumen
        hu[j, i] += np.minimum(lumen[j, i], most) * fat_share * (body.blood_hu - body.fat_hu)


_Anatomy = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU, share of lung and share of heart in each pixel of a part of a slice, float32 [rows, columns]."""


def _no_anatomy(shape: tuple[int, ...]) -> _Anatomy:
    return np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)


class _SortedCloud:
    """Still cloud, sorted by height, drawn into slices without in-plane blur."""

    def __init__(self, cloud: PointCloud) -> None:
        order = np.argsort(cloud.positions_mm[:, 2], kind="stable")
        self._positions, self._weights = cloud.positions_mm[order], cloud.weights[order]

    def image(self, grid: Grid, k: int, scanner: Scanner) -> np.ndarray:
        """Return the share of each pixel of slice k filled by the cloud (weights in mm³), float32 [rows, columns]."""
        from .compiled import scatter

        z = grid.axes_mm()[2][k]
        reach = scanner.profile_reach_mm
        first, last = np.searchsorted(self._positions[:, 2], (z - reach, z + reach))
        p = self._positions[first:last]
        (width, height, _), (x, y, _) = grid.spacing_mm, grid.origin_mm
        weights = self._weights[first:last] * scanner.profile(p[:, 2] - z) / (width * height)
        image = np.zeros(grid.shape[1:])
        scatter(p, weights, (x, y), (width, height), image)
        return image.astype(np.float32)
