"""Heart of a real scan for insertions: arteries in its grooves, valves and pericardium.

The measured hearts are fitted to the heart mask. Arteries drawn on the fitted heart lie some mm off the scan's grooves,
so each is moved into the fat beside it; stretches outside fat and surface are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import InsertionError
from CACScoringLib.core.grid import Grid

from ..anatomy.coronaries import CoronaryTree, Vessel, vessel_along_path
from ..anatomy.hearts.fit import HeartFit, fit_heart
from ..anatomy.hearts.shape import interpolate
from ..anatomy.hearts.territories import MARGIN_MM, TERRITORIES, add_tube, costs, labels_at
from ..anatomy.hearts.tree import draw_tree, usual_tree
from ..anatomy.hearts.valves import deposits
from ..anatomy.points import PointCloud
from .looks import Look

STEP_MM = 1.5
FAT_HU = (-160.0, -20.0)
LUNG_HU, BONE_HU = -300.0, 130.0
"""Limits of lung and bone in HU in the scan smoothed by SMOOTH_MM."""
SMOOTH_MM = 1.2
RIM_MM = 3.0
"""Distance from lung in mm below which the lung's blurred rim cannot be distinguished from fat."""
LUNG_MM, BONE_MM = 2.0, 2.0
"""Least distance of an artery from lung and from bone in mm."""
NEAR_FAT_MM, SURFACE_MM = 4.0, 7.0
"""Largest distance in mm of an artery's middle from fat, or from lung at a surface with little fat."""
OUTSIDE_MM = 4.0
"""Largest distance in mm of an artery outside heart mask and fitted pericardium."""
REACH_MM = 8.0
"""Largest movement of a path in mm, the error of the fitted hearts."""
MIN_MM = {"LM": 4.0}
MIN_PATH_MM = 10.0
"""Least length in mm of a stretch of an artery; MIN_MM has other lengths by artery."""
POOR_AGREEMENT, POOR_RESIDUAL_MM, POOR_SHARE = 0.88, 3.5, 0.6
"""Limits of a usable fit: least Dice with the mask, largest root mean square distance from its edge, least share of the
usual arteries at the surface. Six good fits have 0.93 to 0.96, 2.1 to 2.5 mm and 0.82 to 0.98; a bad one has 0.90,
2.9 mm and 0.56."""
_GAP_MM, _ROUNDS, _TRIES = 6.0, 40, 5
_PIXEL_MM = 1.5


@dataclass(frozen=True)
class Fields:
    """Fields around a scan's heart, float32 [k, j, i] every STEP_MM.

    Attributes:
        corner_mm: First point x, y, z.
        pull: Field that rises towards likely places of arteries.
        lung_mm: Distance from lung.
        bone_mm: Distance from bone.
        fat_mm: Distance from fat.
        heart_mm: Distance from the heart, negative inside the pericardium.
    """

    corner_mm: np.ndarray
    pull: np.ndarray
    lung_mm: np.ndarray
    bone_mm: np.ndarray
    fat_mm: np.ndarray
    heart_mm: np.ndarray

    def at(self, name: str, lps_mm: np.ndarray) -> np.ndarray:
        """Return a field's values at points [n, 3]; points outside the scan are far from the heart."""
        place = (lps_mm - self.corner_mm)[:, ::-1].T / STEP_MM
        mode = {"mode": "constant", "cval": 1e3} if name == "heart_mm" else {"mode": "nearest"}
        return ndimage.map_coordinates(getattr(self, name), place, order=1, **mode)

    def uphill(self, lps_mm: np.ndarray) -> np.ndarray:
        """Return the gradient [n, 3] of the pull."""
        steps = np.eye(3)
        sides = [self.at("pull", lps_mm + e) - self.at("pull", lps_mm - e) for e in steps]
        return 0.5 * np.stack(sides, axis=1)

    def can_hold_artery(self, lps_mm: np.ndarray) -> np.ndarray:
        """Return True at points where an artery can lie, bool [n]."""
        lung = self.at("lung_mm", lps_mm)
        at_surface = (self.at("fat_mm", lps_mm) < NEAR_FAT_MM) | (lung < SURFACE_MM)
        clear = (lung > LUNG_MM) & (self.at("bone_mm", lps_mm) > BONE_MM)
        return at_surface & clear & (self.at("heart_mm", lps_mm) < OUTSIDE_MM)


def scan_fields(scan: CTScan, heart: np.ndarray, fit: HeartFit) -> Fields:
    """Compute the fields of a scan. heart: mask [k, j, i]."""
    spacing = np.array(scan.image.GetSpacing())
    margin = np.ceil((REACH_MM + OUTSIDE_MM + 10.0) / spacing).astype(int)
    (heart_box,) = ndimage.find_objects(heart.astype(np.uint8))
    ends = zip(heart_box[::-1], margin, scan.image.GetSize(), strict=True)
    box = tuple(slice(max(0, int(s.start - a)), min(n, int(s.stop + a))) for s, a, n in ends)
    part = scan.image[box]
    size = [max(2, int(n * s / STEP_MM)) for n, s in zip(part.GetSize(), spacing, strict=True)]
    grid = Grid(tuple(size), (STEP_MM,) * 3, part.GetOrigin(), part.GetDirection())
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(part, sitk.sitkFloat32), SMOOTH_MM)
    hu = sitk.GetArrayFromImage(grid.resample(smooth))
    inside = grid.mask(heart[box[::-1]], Grid.of(part))
    corner = np.array(part.GetOrigin())
    pericardium = _pericardium(fit, corner, hu.shape)
    lung_mm = _distance_mm(hu < LUNG_HU)
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1]) & (lung_mm > RIM_MM)
    depth = np.minimum(_distance_mm(~fat), 3.0)
    pull = ndimage.gaussian_filter(depth, 2.0 / STEP_MM) - 0.5 * np.clip(RIM_MM + 1.0 - lung_mm, 0, None)
    # Fat outside the pericardium holds no coronary artery.
    pull -= 0.5 * np.clip(pericardium + 1.0, 0, None)
    # Opening removes single dense voxels of noise.
    bone = ndimage.binary_opening(hu > BONE_HU)
    distances = (lung_mm, _distance_mm(bone), _distance_mm(fat), np.maximum(_distance_mm(inside), pericardium))
    return Fields(corner, pull, *distances)


def _pericardium(fit: HeartFit, corner_mm: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the signed distance in mm to the fitted pericardium on the fields' voxels, float32 [k, j, i]."""
    coarse = [np.arange(0, n + 2, 3) for n in shape]
    index = np.stack(np.meshgrid(*coarse, indexing="ij"), -1)[..., ::-1]
    common = fit.placement.to_common(corner_mm + STEP_MM * index.reshape(-1, 3))
    field = fit.shape.pericardium
    distance = interpolate(field.reshape(-1, 1), field.shape, fit.shape.low_mm, common)[:, 0] * fit.placement.size
    fine = np.meshgrid(*(np.arange(n) / 3 for n in shape), indexing="ij", sparse=True)
    return ndimage.map_coordinates(
        distance.reshape(index.shape[:3]), np.broadcast_arrays(*fine), order=1, output=np.float32
    )


def _distance_mm(mask: np.ndarray) -> np.ndarray:
    """Return the distance from a mask in mm, float32; 1000 for an empty one."""
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    return ndimage.distance_transform_edt(~mask, sampling=STEP_MM).astype(np.float32)


@dataclass(frozen=True)
class ScanTree:
    """Arteries in a scan.

    Attributes:
        vessels: Stretches in LPS at places where an artery can lie.
        in_heart: Complete tree in the fitted heart's frame.
    """

    vessels: CoronaryTree
    in_heart: CoronaryTree


@dataclass(frozen=True)
class ScanHeart:
    """Heart fitted to a scan, with fields of the scan around it.

    Attributes:
        fit: Fitted heart.
        fields: Fields of the scan.
        usual: Arteries in their usual courses.
        surface_share: Share of the main arteries' length in fat or at the surface.
    """

    fit: HeartFit
    fields: Fields
    usual: ScanTree
    surface_share: float

    def tree(self, sex: str, generator: np.random.Generator) -> ScanTree:
        """Draw arteries for this heart with dominance, branches and calibres."""
        return _in_scan(draw_tree(sex, self.fit.shape, generator), self.fit, self.fields)

    def deposit(self, kind: str, tree: ScanTree, generator: np.random.Generator) -> PointCloud | None:
        """Draw calcium of a kind of `hearts.valves.DEPOSITS` in LPS; None if it falls into lung or bone."""
        for _ in range(_TRIES):
            cloud = deposits(kind, self.fit.shape, tree.in_heart, generator)
            places = self.fit.placement.to_lps(cloud.positions_mm)
            clear = (self.fields.at("lung_mm", places) > 0) & (self.fields.at("bone_mm", places) > 0)
            if np.average(clear & (self.fields.at("heart_mm", places) < OUTSIDE_MM), weights=cloud.weights) > 0.9:
                return PointCloud(places, cloud.weights)
        return None

    def territories(
        self, tree: ScanTree, aortas: tuple[Vessel, ...], grid: Grid, look: Look | None = None
    ) -> np.ndarray:
        """Return labels of TERRITORIES, uint8 [k, j, i], as `hearts.territories` does for digital patients.

        aortas: in the coordinates of the look.
        """
        labels = np.zeros(grid.shape, np.uint8)
        x, y, z = grid.axes_mm()
        shape, place = self.fit.shape, self.fit.placement
        table = costs(shape, tree.in_heart)
        heart_places = place.to_lps(shape.places_mm.reshape(-1, 3)[table[:, -1] < MARGIN_MM][::7])
        if look is not None:
            heart_places = look.to_look(heart_places)
        # Labels are computed at about _PIXEL_MM and repeated to finer pixels.
        step = max(1, round(_PIXEL_MM / grid.spacing_mm[0]))
        columns, rows = (_span_of(p, heart_places[:, n], step) for n, p in enumerate((x, y)))
        middle = (step - 1) / 2 * grid.spacing_mm[0]
        flat = np.stack(np.meshgrid(x[columns][::step] + middle, y[rows][::step] + middle), -1)
        for k in np.flatnonzero((z > heart_places[:, 2].min() - 3) & (z < heart_places[:, 2].max() + 3)):
            places = np.concatenate([flat.reshape(-1, 2), np.full((flat[..., 0].size, 1), z[k])], axis=1)
            places = places if look is None else look.to_scan(places)
            slice_labels = labels_at(shape, table, place.to_common(places)).reshape(flat.shape[:2])
            part = labels[k, rows, columns]
            slice_labels = slice_labels.repeat(step, 0).repeat(step, 1)[: part.shape[0], : part.shape[1]]
            np.copyto(part, slice_labels, where=slice_labels > 0)
        # An aorta measured in the scan replaces the fitted hearts', which hold its first part only.
        above = np.isin(labels, [0, *(TERRITORIES[name] for name in ("ascending aorta", "pulmonary artery", "other"))])
        if any(aorta.name == "ascending aorta" for aorta in aortas):
            labels[labels == TERRITORIES["ascending aorta"]] = 0
        for aorta in aortas:
            aorta_labels = np.zeros_like(labels)
            add_tube(aorta_labels, (x, y, z), aorta.path_mm, aorta.radius_mm + MARGIN_MM, TERRITORIES[aorta.name])
            np.copyto(labels, aorta_labels, where=above & (aorta_labels > 0))
        return labels


def fit_scan_heart(scan: CTScan, heart: np.ndarray, labels: sitk.Image | None = None) -> ScanHeart:
    """Fit the measured hearts to a scan.

    Args:
        heart: Mask on the scan's grid, bool [k, j, i].
        labels: A network's territories on the scan's grid, or None.

    Raises:
        NoHeartError: The mask holds too little of a heart.
        InsertionError: The fit is so poor that arteries would lie beside the grooves.
    """
    fit = fit_heart(scan.image, scan.grid.image(heart), labels=labels)
    fields = scan_fields(scan, heart, fit)
    usual = _in_scan(usual_tree(fit.shape), fit, fields)
    main = [vessel.path_mm for vessel in usual.in_heart.vessels if vessel.name in ("LAD", "LCX", "RCA")]
    surface_share = float(fields.can_hold_artery(fit.placement.to_lps(np.concatenate(main))).mean())
    if fit.agreement < POOR_AGREEMENT or fit.residual_mm > POOR_RESIDUAL_MM or surface_share < POOR_SHARE:
        raise InsertionError(
            f"The measured hearts fit this scan poorly (Dice {fit.agreement:.2f}, {fit.residual_mm:.1f} mm off, "
            f"{surface_share:.0%} of the arteries at the surface). Give a better heart mask, a path or another scan."
        )
    return ScanHeart(fit, fields, usual, surface_share)


def _in_scan(tree: CoronaryTree, fit: HeartFit, fields: Fields) -> ScanTree:
    """Move a tree of the fitted heart into the fat beside it, and cut it to places where arteries can lie."""
    stretches, vessels = [], []
    for vessel in tree.vessels:
        path = _settle(fit.placement.to_lps(vessel.path_mm[::3]), fields)
        radii = vessel.radius_mm[::3]
        vessels.append(_vessel(vessel, fit.placement.to_common(path), radii))
        run = _longest_run(fields.can_hold_artery(path), round(_GAP_MM / STEP_MM))
        stretch = _vessel(vessel, path[run], fit.placement.size * radii[run])
        if stretch.length_mm >= MIN_MM.get(vessel.artery, MIN_PATH_MM):
            stretches.append(stretch)
    return ScanTree(CoronaryTree(tuple(stretches), tree.dominance), CoronaryTree(tuple(vessels), tree.dominance))


def _settle(path_mm: np.ndarray, fields: Fields) -> np.ndarray:
    """Move a path [n, 3] into the fat beside it, keeping its length and bends."""
    shift = np.zeros_like(path_mm)
    along = np.gradient(path_mm, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    for _ in range(_ROUNDS):
        step = fields.uphill(path_mm + shift)
        step -= (step * along).sum(axis=1, keepdims=True) * along
        step *= np.minimum(1.0, 0.5 / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6))
        shift = ndimage.gaussian_filter1d(shift + step, 2.0, axis=0, mode="nearest")
        shift *= np.minimum(1.0, REACH_MM / np.maximum(np.linalg.norm(shift, axis=1, keepdims=True), 1e-6))
    return path_mm + shift


def _vessel(vessel: Vessel, path_mm: np.ndarray, radii_mm: np.ndarray) -> Vessel:
    """Return a stretch of a vessel along a path, tapered as the vessel."""
    if len(path_mm) < 2:
        return replace(vessel, path_mm=path_mm, radius_mm=radii_mm)
    return vessel_along_path(vessel.name, vessel.artery, path_mm, radii_mm[0], radii_mm[-1])


def _longest_run(good: np.ndarray, gap: int) -> slice:
    """Return the longest stretch of good points, ignoring gaps of up to `gap` points."""
    closed = ndimage.binary_closing(np.pad(good, gap), np.ones(gap + 1))[gap:-gap] | good
    numbers, count = ndimage.label(closed)
    if not count:
        return slice(0, 0)
    longest = np.flatnonzero(numbers == 1 + np.bincount(numbers)[1:].argmax())
    return slice(int(longest[0]), int(longest[-1]) + 1)


def _span_of(places: np.ndarray, targets: np.ndarray, step: int) -> slice:
    """Return the slice of evenly spaced places that holds the targets, from a multiple of `step`."""
    indices = np.flatnonzero((places > targets.min() - 3) & (places < targets.max() + 3))
    return slice(int(indices[0]) // step * step, int(indices[-1]) + 1) if len(indices) else slice(0, 0)
