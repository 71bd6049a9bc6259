"""Measures real hearts on their meshes: surfaces as low-order coefficients, arteries as centre lines, landmarks.

All hearts come into one common frame: a similarity brings nine landmarks that every heart has onto their mean
(generalised Procrustes). The frame's axes are those of `heart.HeartFrame`: u from the mitral valve to the apex of the
mean heart, w upwards, v = u × w towards the right ventricle; its origin is the middle of the mean heart.

A surface is the zero of its signed distance, which is a cosine series in a box: it holds crescents, appendages and
tubes, which no radius function about a centre does, and hearts average by their coefficients. Walls are offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import fft, ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import Delaunay, cKDTree

from .meshes import Mesh, MeshError, hearts_in, read_toronto, read_visible_human
from .models import PARTS, HeartModels, cosine_index, soft
from .shape import WALL_MM, shipped_models
from .voxels import Cubes, cavities, cubes_around, enclosed, surface

STEP_MM = 1.25
LEFT_WALL_MM = (10.0, 6.0)
"""Left ventricular wall of hearts of which only the blood is known: at the base, at the apex."""
VESSEL_MM = 48.0
"""Length of aorta and pulmonary trunk from their valves that belongs to a heart."""
FULL_ORDER = 36
"""Of hearts measured for a user: resolves what the lattice of `shape.STEP_MM` holds."""
FARTHEST_MM = 15.0
"""Landmarks of a heart are at most so far off the frame's (root mean square). The shipped hearts are within 11 mm;
mirrored, or with atria or ventricles exchanged, they are 19 mm off or more."""
_SOLIDS = {
    "lv": ("left_ventricle", "interventricular_septum"),
    "rv": ("right_ventricle",),
    "la": ("left_cardiac_atrium",),
    "ra": ("right_cardiac_atrium",),
}
_TUBES = ("ascending_aorta", "aortic_arch", "pulmonary_trunk", "pulmonary_artery_L", "pulmonary_artery_R")
_TUBES += ("coronary_sinus", "superior_vena_cava", "inferior_vena_cava_a")
_LINES = {
    # In the male the circumflex bears the name of a diagonal.
    "VH_M": {
        "LM": "left_coronary_artery",
        "LAD": "left_anterior_descending_artery",
        "D1": "diagonal_branch_of_anterior_descending_branch_of_left_coronary_artery",
        "LCX": "diagonal_branch_of_left_anterior_descending_artery",
        "OM1": "left_marginal_branch",
        "RCA": "right_coronary_artery",
        "RV": "right_marginal_artery",
        "PDA": "right_posterior_descending_artery",
        "CS": "coronary_sinus",
    },
    "VH_F": {
        "LM": "left_coronary_artery",
        "LAD": "left_anterior_descending_artery",
        "D1": "diagonal_branch_of_left_anterior_descending_artery",
        "LCX": "left_circumflex_artery",
        "OM1": "left_marginal_branch",
        "PL": "posterior_left_ventricular_branch",
        "RCA": "right_coronary_artery",
        "RV": "right_marginal_artery",
        "PDA": "left_posterior_descending_branch_of_circumflex_branch_of_left_coronary_artery",
        "CS": "coronary_sinus",
    },
}
_PAPILLARY = {"VH_M": ("anterolateral", "posteromedial"), "VH_F": ("antlat", "posmed")}
LINE_POINTS = 24


@dataclass(frozen=True)
class VoxelHeart:
    """One heart as voxels. masks: of PARTS, bool; lines: centre lines [n, 3]; papillary: tip and base; in LPS."""

    name: str
    cubes: Cubes
    masks: dict[str, np.ndarray]
    lines: dict[str, np.ndarray]
    papillary: dict[str, np.ndarray]


def measured_folder(folder: Path) -> HeartModels:
    """The hearts in a folder of meshes, in the frame of those that are shipped; takes minutes. Raises MeshError."""
    return measured(voxel_hearts(folder), FULL_ORDER, shipped_models().landmarks_mm)


def voxel_hearts(folder: Path) -> list[VoxelHeart]:
    """The hearts in a folder of meshes, in minutes. Raises MeshError."""
    humans, files = hearts_in(folder)
    hearts = [_visible_human(Path(folder), name) for name in humans]
    return hearts + [_toronto(path, name) for name, path in files.items()]


def measured(hearts: list[VoxelHeart], order: int, frame_mm: np.ndarray | None = None) -> HeartModels:
    """Hearts in their common frame, or in that of other hearts, whose landmarks [hearts, 9, 3] are given.

    order: cosines along the longest side of the box, some 230 mm. Raises MeshError for one that the frame does not fit.
    """
    landmarks = np.stack([_landmarks(heart) for heart in hearts])
    if frame_mm is None:
        maps = _common_frame(landmarks)
    else:
        maps = [_into(frame_mm, heart.name, own) for heart, own in zip(hearts, landmarks, strict=True)]
    low, size = _box(hearts, maps)
    index = cosine_index(order, size)
    series = [_coefficients(heart, to, low, size, index) for heart, to in zip(hearts, maps, strict=True)]
    lines, papillary = {}, {}
    for heart, to in zip(hearts, maps, strict=True):
        lines |= {f"{heart.name} {key}": to.points(line) for key, line in heart.lines.items()}
        papillary |= {f"{heart.name} {key}": to.points(place) for key, place in heart.papillary.items()}
    return HeartModels(
        names=tuple(heart.name for heart in hearts),
        low_mm=low,
        size_mm=size,
        index=index,
        coefficients=np.stack(series),
        landmarks_mm=np.stack([to.points(marks) for to, marks in zip(maps, landmarks, strict=True)]),
        lines=lines,
        papillary=papillary,
    )


def agreement(hearts: list[VoxelHeart], models: HeartModels) -> np.ndarray:
    """[hearts, PARTS, 2]: Dice, and mean distance in mm of the models' surfaces from the meshes'."""
    maps = _common_frame(np.stack([_landmarks(heart) for heart in hearts]))
    axes = [np.arange(low, low + size, 2.0) for low, size in zip(models.low_mm, models.size_mm, strict=True)]
    result = np.zeros((len(hearts), len(PARTS), 2))
    for n, (heart, to) in enumerate(zip(hearts, maps, strict=True)):
        where = np.moveaxis(heart.cubes.index(to.back(np.stack(np.meshgrid(*axes, indexing="ij"), -1))), -1, 0)
        own = models.distances(np.eye(len(hearts))[n], axes)
        for m, part in enumerate(PARTS):
            true = _signed_distance(heart.masks[part]) * heart.cubes.step_mm * to.scale
            true = ndimage.map_coordinates(true, where, order=1, mode="nearest")
            both = ((own[m] < 0) & (true < 0)).sum()
            near = np.abs(own[m]) < 1.5
            result[n, m] = 2 * both / ((own[m] < 0).sum() + (true < 0).sum()), np.abs(true - own[m])[near].mean()
    return result


def _visible_human(folder: Path, name: str) -> VoxelHeart:
    parts = read_visible_human(folder, name)
    tubes = [key for key in parts if key in _TUBES or key.startswith("pulmonary_vein") or key.endswith("valve")]
    bodies = [mesh for group in _SOLIDS.values() for mesh in group]
    if missing := {*bodies, *_LINES[name].values()} - set(parts):
        raise MeshError(f"The heart {name} lacks {', '.join(sorted(missing))}. Give version v1.2 of its meshes.")
    cubes = cubes_around([parts[key] for key in bodies], 30.0, STEP_MM)
    walls = ndimage.binary_closing(np.any([surface(parts[key], cubes) for key in bodies + tubes], axis=0))
    solid = {key: np.any([enclosed(parts[m], cubes) for m in group], axis=0) for key, group in _SOLIDS.items()}
    hull = {key: _hull(parts[group[0]], cubes) for key, group in _SOLIDS.items()}
    aorta, trunk = _hull(parts["ascending_aorta"], cubes), _hull(parts["pulmonary_trunk"], cubes)
    seeds = {
        "lv": hull["lv"],
        "rv": hull["rv"] & ~hull["lv"],
        "la": hull["la"] & ~hull["lv"],
        "ra": hull["ra"] & ~hull["rv"] & ~aorta,
        "aorta": aorta,
        "pulmonary": trunk & ~aorta & ~hull["la"],
    }
    rooms = cavities(walls, np.any(list(solid.values()), axis=0), seeds)
    # A wide orifice has no neck: what lies nearer to the atrium's wall is atrium.
    for ventricle, atrium in (("lv", "la"), ("rv", "ra")):
        both = rooms[ventricle] | rooms[atrium]
        wall = {key: ndimage.distance_transform_edt(~solid[key]) for key in (ventricle, atrium)}
        rooms[ventricle] = both & (wall[ventricle] <= wall[atrium])
        rooms[atrium] = both & ~rooms[ventricle] & hull[atrium]
    epi = ndimage.binary_fill_holes(ndimage.binary_closing(solid["lv"] | rooms["lv"], iterations=3))
    masks = {"lv_epi": _smooth(epi), "lv": _smooth(rooms["lv"])}
    for key in ("rv", "la", "ra"):
        outside = ~ndimage.binary_closing(solid[key] | rooms[key], iterations=2)
        inside = ndimage.distance_transform_edt(~outside, sampling=STEP_MM) > WALL_MM[key]
        masks[key] = _smooth(inside & ~epi)
    masks["aorta"] = _stem(_smooth(rooms["aorta"]), masks["lv"])
    masks["pulmonary"] = _stem(_smooth(rooms["pulmonary"]), masks["rv"])
    root = cubes.origin_mm + STEP_MM * np.array(_orifice(masks["lv"], masks["aorta"]))
    lines = {key: _centre_line(parts[mesh], root) for key, mesh in _LINES[name].items()}
    tips = {}
    for side, part in zip(("anterolateral", "posteromedial"), _PAPILLARY[name], strict=True):
        tips[side] = _papillary(parts[f"papillary_muscle_of_heart_{part}"], root)
    return VoxelHeart(name, cubes, masks, lines, tips)


def _toronto(path: Path, name: str) -> VoxelHeart:
    parts = read_toronto(path)
    cubes = cubes_around([parts[key] for key in ("lv", "rv", "la", "ra")], 30.0, STEP_MM)
    masks = {key: _smooth(enclosed(mesh, cubes)) for key, mesh in parts.items()}
    masks["aorta"] = _stem(masks["aorta"], masks["lv"])
    masks["pulmonary"] = _stem(masks["pulmonary"], masks["rv"])
    # The wall grows outwards from the blood, thinning to the apex and ending at the valves' plane.
    mitral, apex = (cubes.index(place) for place in _landmarks(VoxelHeart(name, cubes, masks, {}, {}))[[4, 8]])
    axis = (apex - mitral) / np.dot(apex - mitral, apex - mitral)
    along = (np.stack(np.indices(cubes.shape), -1) - mitral) @ axis
    thick = np.interp(along, (-0.06, 0.10, 0.6, 1.0), (0.0, LEFT_WALL_MM[0], *LEFT_WALL_MM))
    others = np.any([masks[key] for key in ("rv", "la", "ra", "aorta", "pulmonary")], axis=0)
    epi = masks["lv"] | ((ndimage.distance_transform_edt(~masks["lv"], sampling=STEP_MM) < thick) & ~others)
    masks["lv_epi"] = _smooth(epi)
    return VoxelHeart(name, cubes, masks, {}, {})


def _hull(mesh: Mesh, cubes: Cubes) -> np.ndarray:
    inside = Delaunay(mesh.vertices_mm[::3]).find_simplex(cubes.points_mm().reshape(-1, 3)) >= 0
    return inside.reshape(cubes.shape)


def _smooth(mask: np.ndarray) -> np.ndarray:
    """The largest piece, without what is thinner than some 3 mm."""
    soft_mask = ndimage.gaussian_filter(mask.astype(np.float32), 1.0) > 0.5
    labels, count = ndimage.label(soft_mask)
    if count == 0:
        raise MeshError("A chamber is empty: its wall is not closed.")
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _stem(vessel: np.ndarray, ventricle: np.ndarray) -> np.ndarray:
    """The first VESSEL_MM of a vessel's blood, measured through it from the valve."""
    gap = ndimage.distance_transform_edt(~ventricle)
    front = vessel & (gap <= max(2.5, gap[vessel].min() + 1.5))
    reached = front
    for n in range(int(VESSEL_MM / STEP_MM)):
        # Alternating neighbourhoods make steps of nearly one voxel in all directions.
        reached = ndimage.binary_dilation(reached, ndimage.generate_binary_structure(3, 1 + n % 2)) & vessel
    return reached


def _orifice(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Middle of where two rooms are nearest, as a (fractional) index."""
    gap = np.maximum(ndimage.distance_transform_edt(~first), ndimage.distance_transform_edt(~second))
    return np.argwhere(gap <= gap.min() + 1.0).mean(axis=0)


def _landmarks(heart: VoxelHeart) -> np.ndarray:
    """[9, 3] in LPS: middles of lv, rv, la, ra; mitral, aortic, tricuspid and pulmonary orifice; apex of the lv."""
    m = heart.masks
    places = [np.argwhere(m[key]).mean(axis=0) for key in ("lv", "rv", "la", "ra")]
    pairs = (("lv", "la"), ("lv", "aorta"), ("rv", "ra"), ("rv", "pulmonary"))
    places += [_orifice(m[a], m[b]) for a, b in pairs]
    inside = np.argwhere(m["lv"])
    far = np.linalg.norm(inside - places[4], axis=1)
    places.append(inside[far >= far.max() - 2].mean(axis=0))
    return heart.cubes.origin_mm + heart.cubes.step_mm * np.array(places)


@dataclass(frozen=True)
class _Map:
    """Similarity from LPS to the common frame: scale · (p - centre) @ axes."""

    scale: float
    axes: np.ndarray
    centre_mm: np.ndarray

    def points(self, lps_mm: np.ndarray) -> np.ndarray:
        return self.scale * (lps_mm - self.centre_mm) @ self.axes

    def back(self, common_mm: np.ndarray) -> np.ndarray:
        return common_mm @ self.axes.T / self.scale + self.centre_mm


def _into(frame_mm: np.ndarray, name: str, landmarks: np.ndarray) -> _Map:
    """A heart's map to the frame that hearts with landmarks [hearts, 9, 3] have. Raises MeshError for one that does
    not lie like them."""
    form, mean = landmarks - landmarks.mean(axis=0), frame_mm.mean(axis=0)
    scale = float(np.sqrt((frame_mm**2).sum() / len(frame_mm) / (form**2).sum()))
    # The frame is left-handed, for v = u × w, and LPS right-handed.
    handed = np.array([1.0, -1.0, 1.0])
    to = _Map(scale, _turn(form, mean * handed) * handed, landmarks.mean(axis=0))
    away = float(np.sqrt(((to.points(landmarks) - mean) ** 2).sum(axis=1).mean()))
    if away > FARTHEST_MM:
        raise MeshError(
            f"The chambers of the heart {name} lie {away:.0f} mm off those of other hearts, however it is turned. See "
            "whether its parts bear the right names, and whether it is mirrored: X is to the patient's right, Y up, Z "
            "backward."
        )
    return to


def _turn(form: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of points [n, 3] that brings them nearest to others."""
    u, _, vt = np.linalg.svd(form.T @ like)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def _common_frame(landmarks: np.ndarray) -> list[_Map]:
    """Generalised Procrustes over landmarks [hearts, 9, 3]."""
    centres = landmarks.mean(axis=1)
    sizes = np.sqrt(((landmarks - centres[:, None]) ** 2).sum(axis=(1, 2)))
    usual = np.exp(np.log(sizes).mean())
    forms = (landmarks - centres[:, None]) * (usual / sizes)[:, None, None]
    turns = np.broadcast_to(np.eye(3), (len(forms), 3, 3)).copy()
    for _ in range(20):
        mean = np.einsum("hni,hij->hnj", forms, turns).mean(axis=0)
        for n, form in enumerate(forms):
            turns[n] = _turn(form, mean)
    mean = np.einsum("hni,hij->hnj", forms, turns).mean(axis=0)
    u = (mean[8] - mean[4]) / np.linalg.norm(mean[8] - mean[4])
    # Upwards as the hearts lie in their bodies.
    up = turns[:, 2].mean(axis=0)
    w = up - (up @ u) * u
    w /= np.linalg.norm(w)
    axes = np.stack([u, np.cross(u, w), w], axis=1)
    return [_Map(float(usual / s), t @ axes, c) for s, t, c in zip(sizes, turns, centres, strict=True)]


def _box(hearts: list[VoxelHeart], maps: list[_Map]) -> tuple[np.ndarray, np.ndarray]:
    """Lower corner and size in mm of a box in the common frame that holds all hearts."""
    ends = []
    for heart, to in zip(hearts, maps, strict=True):
        whole = np.any([heart.masks[key] for key in PARTS], axis=0)
        places = to.points(heart.cubes.origin_mm + heart.cubes.step_mm * np.argwhere(whole))
        ends += [places.min(axis=0), places.max(axis=0)]
    low, high = np.min(ends, axis=0) - 14, np.max(ends, axis=0) + 14
    return np.floor(low), np.ceil(high - np.floor(low))


def _coefficients(heart: VoxelHeart, to: _Map, low: np.ndarray, size: np.ndarray, index: np.ndarray) -> np.ndarray:
    """[parts, coefficients] of the cosine series of each part's softened signed distance."""
    shape = np.ceil(size / 2.0).astype(int)
    axes = [lo + (np.arange(n) + 0.5) * s / n for lo, s, n in zip(low, size, shape, strict=True)]
    places = to.back(np.stack(np.meshgrid(*axes, indexing="ij"), -1))
    where = np.moveaxis(heart.cubes.index(places), -1, 0)
    result = []
    for key in PARTS:
        distance = _signed_distance(heart.masks[key])
        sampled = ndimage.map_coordinates(distance * heart.cubes.step_mm * to.scale, where, order=1, mode="nearest")
        series = fft.dctn(soft(sampled), norm="forward")
        factor = np.prod(np.where(index == 0, 1.0, 2.0), axis=1)
        result.append(series[tuple(index.T)] * factor)
    return np.array(result)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """In voxels, negative inside."""
    inside, outside = (
        ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1],
        ndimage.distance_transform_edt(~mask),
    )
    return np.where(mask, 0.5 - inside, outside - 0.5)


def _centre_line(mesh: Mesh, root_mm: np.ndarray) -> np.ndarray:
    """[LINE_POINTS, 3] along a tube, from the end next to the aortic root; means of what is equally far through it."""
    points = np.unique(mesh.vertices_mm.round(2), axis=0)
    tree = cKDTree(points)
    near = tree.sparse_distance_matrix(tree, 3.0, output_type="coo_matrix")
    count, group = sparse.csgraph.connected_components(near)
    points = points[group == np.bincount(group).argmax()] if count > 1 else points
    tree = cKDTree(points)
    near = tree.sparse_distance_matrix(tree, 3.0, output_type="coo_matrix").tocsr()
    middle = int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    one = int(np.argmax(dijkstra(near, indices=middle)))
    far = dijkstra(near, indices=one)
    line = np.array([points[np.abs(far - s) < 2.0].mean(axis=0) for s in np.arange(1.0, far.max() - 0.5, 1.5)])
    if np.linalg.norm(line[-1] - root_mm) < np.linalg.norm(line[0] - root_mm):
        line = line[::-1]
    arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))]
    at = np.linspace(0, arc[-1], LINE_POINTS)
    return np.stack([np.interp(at, arc, line[:, n]) for n in range(3)], axis=1)


def _papillary(mesh: Mesh, root_mm: np.ndarray) -> np.ndarray:
    """[2, 3]: tip, the end towards the valves, and base of a papillary muscle."""
    points = mesh.vertices_mm
    middle = points.mean(axis=0)
    axis = np.linalg.svd(points - middle, full_matrices=False)[2][0]
    if axis @ (root_mm - middle) < 0:
        axis = -axis
    along = (points - middle) @ axis
    return middle + np.outer([along.max() * 0.9, along.min() * 0.9], axis)
