"""Features of the lesions that count: where the calcium lies, how it is shared out, and how dense it is.

Densities are read from the CT, also of the calcium map's lesions. Places along the arteries come from the vessel
territories (`anatomy.courses`); without territories they are unknown. The spatially weighted score of Liang 2012
(doi:10.1186/1471-2342-12-14) is not among them: it takes a calcium phantom in the scan and traced arteries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..anatomy.courses import Course
from ..core.ct import CTScan
from ..core.labels import MAIN_ARTERIES, Artery, Site
from ..record.findings import ArteryFeatures, DensityFeatures, Features, LesionFeatures
from ..record.scores import Lesion, MethodScore
from .mass import MAX_MEASURED

DENSITY_BOUNDS_HU = (130, 200, 300, 400, 1000)
"""Lower bounds of the density classes; the first four are those of the Agatston weights."""
_CLASSES = tuple(name for name in DensityFeatures.__dataclass_fields__ if name.startswith("volume_"))

MIN_KNOWN = 0.9
"""Share of a mass whose places have to be known."""

_SURFACE_POWER = 1.6075
"""Exponent of Thomsen's formula of an ellipsoid's surface, whose error is at most 1.1 %."""


def features_of(method: MethodScore, scan: CTScan, courses: Mapping[Artery, Course]) -> Features | None:
    """Measure the features of the lesions of a method; None of more than MAX_MEASURED, which are mostly noise.

    Args:
        method: Scores by the method.
        scan: The scan as scored.
        courses: Courses of the arteries in it; empty if unknown.
    """
    if len(method.lesions) > MAX_MEASURED:
        return None
    return _features(method, scan.hu, np.array(scan.image.GetSpacing()[::-1]), courses)


@dataclass(frozen=True)
class _Voxels:
    """Voxels of lesions.

    Attributes:
        places_mm: Places (k, j, i), [n, 3].
        hu: HU in the CT, [n].
        mass: Integrated mass of the lesion, or pseudo-mass where one is not measured, shared out by the HU of the CT.
        ostium_mm: Distance from the ostium, NaN if unknown, [n].
        is_proximal: 1.0 in the proximal third of the artery, else 0.0; NaN if unknown, [n].
    """

    places_mm: np.ndarray
    hu: np.ndarray
    mass: np.ndarray
    ostium_mm: np.ndarray
    is_proximal: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[_Voxels]) -> _Voxels:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def proximal_share(self) -> float | None:
        """Return the share of the mass in proximal thirds; None if the places of less than MIN_KNOWN are known."""
        is_known = ~np.isnan(self.is_proximal)
        known_mass = self.mass[is_known].sum()
        if known_mass < MIN_KNOWN * self.mass.sum() or not known_mass:
            return None
        return float(self.is_proximal[is_known] @ self.mass[is_known] / known_mass)


def _features(
    method: MethodScore, hu: np.ndarray, spacing_mm: np.ndarray, courses: Mapping[Artery, Course]
) -> Features:
    lesions, voxel_mm3 = method.lesions, math.prod(spacing_mm.tolist())
    step_mm = voxel_mm3 ** (1 / 3)
    voxels = _lesion_voxels(method, hu, spacing_mm, courses)
    gaps = _nearest_lesions([voxels[lesion.id].places_mm for lesion in lesions])
    lesion_features = tuple(
        _lesion(lesion, voxels[lesion.id], gap, spacing_mm) for lesion, gap in zip(lesions, gaps, strict=True)
    )
    total_mass = sum(float(part.mass.sum()) for part in voxels.values())

    def group(part: Sequence[Lesion], course: Course | None = None) -> ArteryFeatures:
        of_lesions = [voxels[lesion.id] for lesion in part]
        joined = _Voxels.join(of_lesions)
        return ArteryFeatures(
            **_density(part, joined, voxel_mm3),
            mass_share=float(joined.mass.sum()) / total_mass if total_mass else 0.0,
            proximal_share=joined.proximal_share(),
            largest_lesion_mm3=max(lesion.voxels for lesion in part) * voxel_mm3,
            first_mm=None if course is None else course.first_mm,
            last_mm=None if course is None else course.last_mm,
            calcified_share=None if course is None else _calcified_share(of_lesions, course, step_mm),
        )

    by_artery: dict[Site, list[Lesion]] = {}
    for lesion in lesions:
        by_artery.setdefault(lesion.site, []).append(lesion)
    is_assigned = Artery.UNASSIGNED not in by_artery
    scores = {artery: method.arteries[artery].clinical_agatston for artery in MAIN_ARTERIES}
    total = method.total.clinical_agatston
    arteries = {site.key: group(part, courses.get(Artery(site))) for site, part in by_artery.items()}
    return Features(
        diseased_arteries=sum(artery in by_artery for artery in MAIN_ARTERIES) if is_assigned else None,
        diffusivity=1 - max(scores.values()) / total if is_assigned and total else None,
        left_main=Artery.LM in by_artery if is_assigned else None,
        extent_score=extent_score([arteries[a.key].calcified_share for a in MAIN_ARTERIES if a in by_artery])
        if is_assigned
        else None,
        total=group(lesions) if lesions else None,
        arteries=arteries,
        lesions=lesion_features,
    )


def extent_score(calcified_shares: Sequence[float | None]) -> int | None:
    """Return the ordinal score by extent (`Features`), 0 to 12; None if a share is unknown.

    calcified_shares: Share of the length of each artery with calcium.
    """
    grades = [1 + (share > 1 / 3) + (share > 2 / 3) for share in calcified_shares if share is not None]
    return sum(grades) if len(grades) == len(calcified_shares) else None


def covered_length(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length in mm that intervals cover, each part once. spans: Beginning and end of each, mm."""
    length, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        length += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return length


def _calcified_share(lesions: Sequence[_Voxels], course: Course, step_mm: float) -> float | None:
    """Return the share of an artery's length beside its lesions; what lies off its course covers none of it.

    step_mm: Size of a voxel, which a lesion of one voxel covers.
    """
    length_mm = course.last_mm - course.first_mm
    if length_mm <= 0:
        return None
    places = [places for lesion in lesions if len(places := lesion.ostium_mm[~np.isnan(lesion.ostium_mm)])]
    ends = [(part.min() - step_mm / 2, part.max() + step_mm / 2) for part in places]
    within = np.clip(np.reshape(ends, (-1, 2)), course.first_mm, course.last_mm)
    return covered_length([(begin, end) for begin, end in within.tolist()]) / length_mm


def _lesion_voxels(
    method: MethodScore, hu: np.ndarray, spacing_mm: np.ndarray, courses: Mapping[Artery, Course]
) -> dict[int, _Voxels]:
    """Return the voxels of each lesion by its ID."""
    lesion_voxels = method.lesion_set.voxels
    flat, ids = lesion_voxels.flat, lesion_voxels.ids
    order = np.argsort(ids, kind="stable")
    flat, ids = flat[order], ids[order]
    places_mm = np.stack(np.unravel_index(flat, hu.shape), axis=1) * spacing_mm
    values = hu.reshape(-1)[flat].astype(float)
    masses = _masses(method)
    ends = np.searchsorted(ids, [[lesion.id, lesion.id + 1] for lesion in method.lesions])
    voxels = {}
    for lesion, (first, last) in zip(method.lesions, ends.reshape(-1, 2), strict=True):
        part, course = slice(first, last), courses.get(Artery(lesion.site))
        ostium_mm = np.full(last - first, np.nan) if course is None else course.at(places_mm[part])
        is_proximal = np.where(np.isnan(ostium_mm), np.nan, 1.0)
        if course is not None and lesion.site != Artery.LM:
            third_mm = course.first_mm + (course.last_mm - course.first_mm) / 3
            is_proximal = np.where(np.isnan(ostium_mm), np.nan, ostium_mm < third_mm)
        mass = np.maximum(values[part], 1e-3)
        mass *= masses[lesion.id] / mass.sum()
        voxels[lesion.id] = _Voxels(places_mm[part], values[part], mass, ostium_mm, is_proximal)
    return voxels


def _masses(method: MethodScore) -> dict[int, float]:
    """Return the integrated masses of lesions by ID, at least 0; pseudo-masses of all if one of them is unmeasured."""
    masses = {lesion.id: lesion.integrated_mass_mg for lesion in method.lesions}
    if None in masses.values():
        return {lesion.id: lesion.pseudo_mass_hu_mm3 for lesion in method.lesions}
    return {n: max(mass, 0.0) for n, mass in masses.items() if mass is not None}


def _lesion(lesion: Lesion, voxels: _Voxels, nearest_mm: float | None, spacing_mm: np.ndarray) -> LesionFeatures:
    ostium_mm = voxels.ostium_mm[~np.isnan(voxels.ostium_mm)]
    is_known = len(ostium_mm) >= MIN_KNOWN * len(voxels.hu)
    voxel_mm3 = math.prod(spacing_mm.tolist())
    return LesionFeatures(
        **_density([lesion], voxels, voxel_mm3),
        id=lesion.id,
        slices=len(lesion.slices),
        sphericity=_sphericity(voxels.places_mm, spacing_mm),
        nearest_lesion_mm=nearest_mm,
        ostium_mm=float(ostium_mm.mean()) if is_known else None,
        length_mm=float(np.ptp(ostium_mm)) + voxel_mm3 ** (1 / 3) if is_known else None,
        in_proximal_third=voxels.proximal_share(),
    )


def _density(lesions: Sequence[Lesion], voxels: _Voxels, voxel_mm3: float) -> dict[str, float]:
    """Return the fields of DensityFeatures."""
    p10, median, p90 = np.percentile(voxels.hu, (10, 50, 90)).tolist()
    bounds = (*DENSITY_BOUNDS_HU, math.inf)
    counts = np.histogram(voxels.hu, bounds)[0]
    components = [component for lesion in lesions for component in lesion.components]
    area_mm2 = sum(component.area_mm2 for component in components)
    weighted_mm2 = sum(component.area_mm2 * component.weight for component in components)
    volumes = dict(zip(_CLASSES, (counts * voxel_mm3).tolist(), strict=True))
    spread = {"sd_hu": float(voxels.hu.std()), "p10_hu": p10, "median_hu": median, "p90_hu": p90}
    return {**spread, **volumes, "mean_weight": weighted_mm2 / area_mm2}


def _nearest_lesions(places_mm: Sequence[np.ndarray]) -> list[float | None]:
    """Return the distance of each lesion from the nearest other one."""
    if len(places_mm) < 2:
        return [None] * len(places_mm)
    nearest = np.full(len(places_mm), np.inf)
    trees = [cKDTree(places) for places in places_mm]
    for n, tree in enumerate(trees):
        for m in range(n):
            gap = float(tree.query(places_mm[m], distance_upper_bound=max(nearest[n], nearest[m]))[0].min())
            nearest[[n, m]] = np.minimum(nearest[[n, m]], gap)
    return nearest.tolist()


def _sphericity(places_mm: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Return the sphericity of the ellipsoid with the second moments of voxels, their own extent included."""
    offsets = places_mm - places_mm.mean(axis=0)
    moments = offsets.T @ offsets / len(offsets) + np.diag(spacing_mm**2 / 12)
    a, b, c = np.sqrt(np.linalg.eigvalsh(moments)).tolist()
    powers = [(x * y) ** _SURFACE_POWER for x, y in ((a, b), (a, c), (b, c))]
    return (a * b * c) ** (2 / 3) / (sum(powers) / 3) ** (1 / _SURFACE_POWER)
