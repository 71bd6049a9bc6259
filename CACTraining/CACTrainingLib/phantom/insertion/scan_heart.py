"""The heart of a real scan, so far as insertions need it: arteries in its grooves, valves and pericardium.

The measured hearts are fitted to the heart mask. Arteries drawn on the fitted heart lie some mm off the scan's own
grooves, so each is drawn into the fat beside it; what then lies in neither fat nor surface is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.grid import Grid as ImageGrid

from ..anatomy.coronaries import CoronaryTree, Vessel, vessel_along_path
from ..anatomy.hearts.fit import HeartFit, fit_heart
from ..anatomy.hearts.shape import interpolated
from ..anatomy.hearts.territories import BEYOND_MM, TERRITORIES, add_tube, costs, labels_at
from ..anatomy.hearts.tree import draw_tree, usual_tree
from ..anatomy.hearts.valves import deposits
from ..anatomy.points import PointCloud
from ..scanner.scanner import Grid
from .insertion import InsertionError
from .looks import Look

STEP_MM = 1.5
FAT_HU = (-160.0, -20.0)
LUNG_HU, BONE_HU = -300.0, 130.0
"""Limits in the scan smoothed by SMOOTH_MM."""
SMOOTH_MM = 1.2
RIM_MM = 3.0
"""The rim of lung passes through the HU of fat; nearer to lung, fat is not distinct from it."""
LUNG_MM, BONE_MM = 2.0, 2.0
"""An artery keeps so far away from lung and bone."""
NEAR_FAT_MM, SURFACE_MM = 4.0, 7.0
"""Its middle is so near to fat, or to the lung over a thin heart's surface."""
OUTSIDE_MM = 4.0
"""So far beyond heart mask and fitted pericardium it may lie."""
REACH_MM = 8.0
"""So far the fitted hearts err at most; paths move no farther."""
LEAST_MM = {"LM": 4.0}
LEAST_PATH_MM = 10.0
"""Shorter stretches are left out."""
POOR_AGREEMENT, POOR_RESIDUAL_MM, POOR_SHARE = 0.88, 3.5, 0.6
"""Limits of a fit that insertions may use: least Dice with the mask, largest root mean square distance from its edge,
least share of the usual arteries that is kept. Six fits that look right have 0.93 to 0.96, 2.1 to 2.5 mm and 0.82 to
0.98; one that does not has 0.90, 2.9 mm and 0.56."""
_GAP_MM, _ROUNDS, _TRIES = 6.0, 40, 5
_PIXEL_MM = 1.5


@dataclass(frozen=True)
class Fields:
    """Fields around a scan's heart, float32 [k, j, i] every STEP_MM from `corner_mm` (x, y, z).

    pull: higher where an artery rather lies. lung_mm, bone_mm, fat_mm, heart_mm: distance from these.
    """

    corner_mm: np.ndarray
    pull: np.ndarray
    lung_mm: np.ndarray
    bone_mm: np.ndarray
    fat_mm: np.ndarray
    heart_mm: np.ndarray

    def at(self, name: str, lps_mm: np.ndarray) -> np.ndarray:
        """A field's values at points [n, 3]; what the scan does not show lies far from the heart."""
        place = (lps_mm - self.corner_mm)[:, ::-1].T / STEP_MM
        mode = {"mode": "constant", "cval": 1e3} if name == "heart_mm" else {"mode": "nearest"}
        return ndimage.map_coordinates(getattr(self, name), place, order=1, **mode)

    def uphill(self, lps_mm: np.ndarray) -> np.ndarray:
        """Direction [n, 3] in which the pull grows."""
        steps = np.eye(3)
        sides = [self.at("pull", lps_mm + e) - self.at("pull", lps_mm - e) for e in steps]
        return 0.5 * np.stack(sides, axis=1)

    def holds(self, lps_mm: np.ndarray) -> np.ndarray:
        """True at points where an artery can lie, bool [n]."""
        lung = self.at("lung_mm", lps_mm)
        at_surface = (self.at("fat_mm", lps_mm) < NEAR_FAT_MM) | (lung < SURFACE_MM)
        clear = (lung > LUNG_MM) & (self.at("bone_mm", lps_mm) > BONE_MM)
        return at_surface & clear & (self.at("heart_mm", lps_mm) < OUTSIDE_MM)


def scan_fields(scan: CTScan, heart: np.ndarray, fit: HeartFit) -> Fields:
    """heart: mask [k, j, i]."""
    spacing = np.array(scan.image.GetSpacing())
    around = np.ceil((REACH_MM + OUTSIDE_MM + 10.0) / spacing).astype(int)
    (found,) = ndimage.find_objects(heart.astype(np.uint8))
    ends = zip(found[::-1], around, scan.image.GetSize(), strict=True)
    box = tuple(slice(max(0, int(s.start - a)), min(n, int(s.stop + a))) for s, a, n in ends)
    part = scan.image[box]
    size = [max(2, int(n * s / STEP_MM)) for n, s in zip(part.GetSize(), spacing, strict=True)]
    grid = ImageGrid(tuple(size), (STEP_MM,) * 3, part.GetOrigin(), part.GetDirection())
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(part, sitk.sitkFloat32), SMOOTH_MM)
    hu = sitk.GetArrayFromImage(grid.resample(smooth))
    inside = grid.mask(ImageGrid.of(part).image(heart[box[::-1]]))
    corner = np.array(part.GetOrigin())
    pericardium = _pericardium(fit, corner, hu.shape)
    lung_mm = _away_from(hu < LUNG_HU)
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1]) & (lung_mm > RIM_MM)
    depth = np.minimum(_away_from(~fat), 3.0)
    pull = ndimage.gaussian_filter(depth, 2.0 / STEP_MM) - 0.5 * np.clip(RIM_MM + 1.0 - lung_mm, 0, None)
    # Fat beyond the pericardium holds no coronary artery.
    pull -= 0.5 * np.clip(pericardium + 1.0, 0, None)
    # Noise makes single dense voxels.
    bone = ndimage.binary_opening(hu > BONE_HU)
    distances = (lung_mm, _away_from(bone), _away_from(fat), np.maximum(_away_from(inside), pericardium))
    return Fields(corner, pull, *distances)


def _pericardium(fit: HeartFit, corner_mm: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Signed distance in mm to the fitted pericardium on the fields' voxels, float32 [k, j, i]."""
    coarse = [np.arange(0, n + 2, 3) for n in shape]
    index = np.stack(np.meshgrid(*coarse, indexing="ij"), -1)[..., ::-1]
    common = fit.placement.to_common(corner_mm + STEP_MM * index.reshape(-1, 3))
    field = fit.shape.pericardium
    found = interpolated(field.reshape(-1, 1), field.shape, fit.shape.low_mm, common)[:, 0] * fit.placement.size
    fine = np.meshgrid(*(np.arange(n) / 3 for n in shape), indexing="ij", sparse=True)
    return ndimage.map_coordinates(
        found.reshape(index.shape[:3]), np.broadcast_arrays(*fine), order=1, output=np.float32
    )


def _away_from(mask: np.ndarray) -> np.ndarray:
    """Distance from a mask in mm, float32; far where it is empty."""
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    return ndimage.distance_transform_edt(~mask, sampling=STEP_MM).astype(np.float32)


@dataclass(frozen=True)
class ScanTree:
    """Arteries in a scan. vessels: in LPS, those stretches that lie where an artery can. in_heart: the whole tree in
    the fitted heart's frame."""

    vessels: CoronaryTree
    in_heart: CoronaryTree


@dataclass(frozen=True)
class ScanHeart:
    """A heart fitted to a scan, and what the scan shows around it.

    usual: arteries as they usually run. kept: share of the length of the main ones that lies in fat or at the surface.
    """

    fit: HeartFit
    fields: Fields
    usual: ScanTree
    kept: float

    def tree(self, sex: str, generator: np.random.Generator) -> ScanTree:
        """Arteries for this heart, drawn with their dominance, branches and calibres."""
        return _in_scan(draw_tree(sex, self.fit.shape, generator), self.fit, self.fields)

    def deposit(self, kind: str, tree: ScanTree, generator: np.random.Generator) -> PointCloud | None:
        """Calcium of a kind of `hearts.valves.DEPOSITS` in LPS, None where it would lie in lung or bone."""
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
        """Labels of TERRITORIES, uint8 [k, j, i], as `hearts.territories` gives them to digital patients.

        aortas: as the look shows them.
        """
        labels = np.zeros(grid.shape, np.uint8)
        x, y, z = grid.x_mm(), grid.y_mm(), grid.z_mm()
        shape, place = self.fit.shape, self.fit.placement
        table = costs(shape, tree.in_heart)
        near = place.to_lps(shape.places_mm.reshape(-1, 3)[table[:, -1] < BEYOND_MM][::7])
        if look is not None:
            near = look.moved(near)
        # Labels need not be finer than _PIXEL_MM: one place stands for its neighbours.
        step = max(1, round(_PIXEL_MM / grid.spacing_mm[0]))
        columns, rows = (_within(p, near[:, n], step) for n, p in enumerate((x, y)))
        middle = (step - 1) / 2 * grid.spacing_mm[0]
        flat = np.stack(np.meshgrid(x[columns][::step] + middle, y[rows][::step] + middle), -1)
        for k in np.flatnonzero((z > near[:, 2].min() - 3) & (z < near[:, 2].max() + 3)):
            places = np.concatenate([flat.reshape(-1, 2), np.full((flat[..., 0].size, 1), z[k])], axis=1)
            places = places if look is None else look.unmoved(places)
            found = labels_at(shape, table, place.to_common(places)).reshape(flat.shape[:2])
            part = labels[k, rows, columns]
            found = found.repeat(step, 0).repeat(step, 1)[: part.shape[0], : part.shape[1]]
            np.copyto(part, found, where=found > 0)
        # Where the scan shows the aorta, that is better than the fitted hearts', which end with its first part.
        above = np.isin(labels, [0, *(TERRITORIES[name] for name in ("ascending aorta", "pulmonary artery", "other"))])
        if any(aorta.name == "ascending aorta" for aorta in aortas):
            labels[labels == TERRITORIES["ascending aorta"]] = 0
        for aorta in aortas:
            own = np.zeros_like(labels)
            add_tube(own, (x, y, z), aorta.path_mm, aorta.radius_mm + BEYOND_MM, TERRITORIES[aorta.name])
            np.copyto(labels, own, where=above & (own > 0))
        return labels


def fit_scan_heart(scan: CTScan, heart: sitk.Image, labels: sitk.Image | None = None) -> ScanHeart:
    """Fit the measured hearts to a scan.

    heart: mask, uint8 0/1. labels: territories that a network found, both on the scan's grid. Raises NoHeartError,
    and InsertionError when the hearts fit so poorly that arteries would lie beside the grooves.
    """
    fit = fit_heart(scan.image, heart, labels=labels)
    fields = scan_fields(scan, sitk.GetArrayFromImage(heart) > 0, fit)
    usual = _in_scan(usual_tree(fit.shape), fit, fields)
    main = [vessel.path_mm for vessel in usual.in_heart.vessels if vessel.name in ("LAD", "LCX", "RCA")]
    kept = float(fields.holds(fit.placement.to_lps(np.concatenate(main))).mean())
    found = ScanHeart(fit, fields, usual, kept)
    if fit.agreement < POOR_AGREEMENT or fit.residual_mm > POOR_RESIDUAL_MM or found.kept < POOR_SHARE:
        raise InsertionError(
            f"The measured hearts fit this scan poorly (Dice {fit.agreement:.2f}, {fit.residual_mm:.1f} mm off, "
            f"{found.kept:.0%} of the arteries at the surface). Give a better heart mask, a path or another scan."
        )
    return found


def _in_scan(drawn: CoronaryTree, fit: HeartFit, fields: Fields) -> ScanTree:
    """A tree of the fitted heart in the fat beside it, as far as arteries can lie there."""
    kept, whole = [], []
    for vessel in drawn.vessels:
        path = _settle(fit.placement.to_lps(vessel.path_mm[::3]), fields)
        radii = vessel.radius_mm[::3]
        whole.append(_vessel(vessel, fit.placement.to_common(path), radii))
        run = _longest_run(fields.holds(path), round(_GAP_MM / STEP_MM))
        one = _vessel(vessel, path[run], fit.placement.size * radii[run])
        if one.length_mm >= LEAST_MM.get(vessel.artery, LEAST_PATH_MM):
            kept.append(one)
    return ScanTree(CoronaryTree(tuple(kept), drawn.dominance), CoronaryTree(tuple(whole), drawn.dominance))


def _settle(path_mm: np.ndarray, fields: Fields) -> np.ndarray:
    """A path [n, 3] drawn into the fat beside it, which keeps its length and bends."""
    away = np.zeros_like(path_mm)
    along = np.gradient(path_mm, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    for _ in range(_ROUNDS):
        step = fields.uphill(path_mm + away)
        step -= (step * along).sum(axis=1, keepdims=True) * along
        step *= np.minimum(1.0, 0.5 / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6))
        away = ndimage.gaussian_filter1d(away + step, 2.0, axis=0, mode="nearest")
        away *= np.minimum(1.0, REACH_MM / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
    return path_mm + away


def _vessel(like: Vessel, path_mm: np.ndarray, radii_mm: np.ndarray) -> Vessel:
    """A stretch of a vessel, which tapers as it does."""
    if len(path_mm) < 2:
        return replace(like, path_mm=path_mm, radius_mm=radii_mm)
    return vessel_along_path(like.name, like.artery, path_mm, radii_mm[0], radii_mm[-1])


def _longest_run(good: np.ndarray, gap: int) -> slice:
    """The longest stretch of a path that is good, but for gaps of so many points."""
    closed = ndimage.binary_closing(np.pad(good, gap), np.ones(gap + 1))[gap:-gap] | good
    numbers, count = ndimage.label(closed)
    if not count:
        return slice(0, 0)
    longest = np.flatnonzero(numbers == 1 + np.bincount(numbers)[1:].argmax())
    return slice(int(longest[0]), int(longest[-1]) + 1)


def _within(places: np.ndarray, wanted: np.ndarray, step: int) -> slice:
    """The part of evenly spaced places that holds what is wanted, in whole steps where it can."""
    found = np.flatnonzero((places > wanted.min() - 3) & (places < wanted.max() + 3))
    return slice(int(found[0]) // step * step, int(found[-1]) + 1) if len(found) else slice(0, 0)
