"""Territories of a patient's arteries, valves and vessels: one at every place in and around the heart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.labels import TERRITORIES as TERRITORY_NAMES

from ...scanner.motion import ScanPose
from ..coronaries import CoronaryTree
from ..heart import aorta_paths, posed_frame
from ..points import along
from .shape import STEP_MM, WALL_MM, HeartShape, interpolate
from .valves import ROOT_MM, aortic_root, posterior_arc

if TYPE_CHECKING:
    from ..patient import Patient

TERRITORIES = {name: label for label, name in enumerate(TERRITORY_NAMES) if label}
"""Labels; 0 is outside heart and vessels, "other" is heart away from arteries, valves and vessels."""
ARTERY_REACH_MM = 14.0
"""Distance in mm from every artery beyond which heart is "other"."""
ARTERY_DEPTH_MM = 5.0
"""Depth in mm under the outer surface to which calcium may be an artery's; each mm deeper counts threefold."""
VESSEL_MARGIN_MM = 1.5
"""Margin in mm around a lumen that always belongs to its artery: the wall and the blur of a voxel."""
LEFT_MAIN_REACH_MM = 2.5
"""Distance in mm from the left main's lumen beyond which calcium belongs to the arteries that it leads to."""
MARGIN_MM = 2.5
"""Margin in mm of territories beyond the pericardium and the walls of vessels, for the blur of calcium."""


def territories(patient: Patient, pose: ScanPose, grid: Grid) -> np.ndarray:
    """Return labels of TERRITORIES, uint8 [k, j, i], on a scan's grid, at mid-breath and mid-diastole."""
    heart = patient.heart
    frame = posed_frame(patient.body, pose)
    shift = np.asarray(pose.table_shift_mm)
    x, y, z = (places - s for places, s in zip(grid.axes_mm(), shift, strict=True))
    labels = np.zeros(grid.shape, np.uint8)
    arch, descending = aorta_paths(patient.body, frame, heart)
    for (path, radii), name in ((arch, "ascending aorta"), (descending, "descending aorta")):
        add_tube(labels, (x, y, z), path, radii + MARGIN_MM, TERRITORIES[name])
    # The arch behind its top belongs to the descending aorta.
    behind = y[None, :, None] > arch[0][int(np.argmax(arch[0][:, 2])), 1] + 12
    labels[(labels == TERRITORIES["ascending aorta"]) & behind] = TERRITORIES["descending aorta"]
    table = costs(heart, patient.tree)
    inside = frame.to_lps(heart.places_mm[heart.pericardium < STEP_MM + MARGIN_MM])
    inside = np.concatenate([inside, frame.to_lps(heart.places_mm[heart.part("pulmonary") < STEP_MM + MARGIN_MM])])
    box = [
        np.flatnonzero((p >= low - 1) & (p <= high + 1))
        for p, low, high in zip((x, y, z), inside.min(0), inside.max(0), strict=True)
    ]
    if not all(len(index) for index in box):
        return labels
    columns, rows = slice(box[0][0], box[0][-1] + 1), slice(box[1][0], box[1][-1] + 1)
    flat = np.stack(np.meshgrid(x[columns], y[rows], indexing="xy"), -1).reshape(-1, 2)
    for k in box[2]:
        places = frame.to_heart(np.column_stack([flat, np.full(len(flat), z[k])]))
        part = labels[k, rows, columns]
        slice_labels = labels_at(heart, table, places).reshape(part.shape)
        np.copyto(part, slice_labels, where=slice_labels > 0)
    return labels


def labels_at(heart: HeartShape, table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return labels of TERRITORIES, uint8 [n], at points [n, 3] in the heart's frame. table: from `costs`."""
    cost = interpolate(table, heart.distances_mm.shape[:3], heart.low_mm, places)
    return np.where(cost[:, -1] < MARGIN_MM, cost[:, :-1].argmin(axis=1) + 1, 0).astype(np.uint8)


def costs(heart: HeartShape, tree: CoronaryTree) -> np.ndarray:
    """Return [lattice points, labels + 1]: each point's cost of each territory, and its distance from them all."""
    places = heart.places_mm.reshape(-1, 3).astype(float)
    surface, pericardium = heart.surface.reshape(-1), heart.pericardium.reshape(-1)
    cost = np.full((len(places), len(TERRITORIES) + 1), 60.0, np.float32)
    depth_penalty = 3 * np.maximum(-surface - ARTERY_DEPTH_MM, 0)
    aorta, trunk = (heart.part(name).reshape(-1) for name in ("aorta", "pulmonary"))
    outside = np.minimum(aorta - WALL_MM["aorta"], trunk) > -VESSEL_MARGIN_MM
    for artery in ARTERIES:
        vessels = tree.of(artery)
        path, radius = (np.concatenate([getattr(v, field)[::2] for v in vessels]) for field in ("path_mm", "radius_mm"))
        gap, nearest = cKDTree(path).query(places)
        gap -= radius[nearest]
        is_vessel = (gap < VESSEL_MARGIN_MM) & outside
        penalty = 4 * np.maximum(gap - LEFT_MAIN_REACH_MM, 0) if artery == "LM" else 0.0
        cost[:, TERRITORIES[artery] - 1] = np.where(is_vessel, gap - 60.0, gap + depth_penalty + penalty)
    root = aortic_root(heart, tree)
    height = (places - root.annulus.middle_mm) @ root.axis
    ring_gap = cKDTree(root.annulus.curve_mm).query(places)[0]
    in_root = np.maximum(aorta - WALL_MM["aorta"], np.maximum(ROOT_MM[0] - height, height - ROOT_MM[1]))
    cost[:, TERRITORIES["aortic valve and root"] - 1] = np.minimum(in_root, ring_gap - 5.0)
    cost[:, TERRITORIES["mitral annulus"] - 1] = cKDTree(posterior_arc(heart)).query(places)[0] - 6.0
    above = np.maximum(aorta - WALL_MM["aorta"], ROOT_MM[1] - height)
    cost[:, TERRITORIES["ascending aorta"] - 1] = above
    cost[:, TERRITORIES["pulmonary artery"] - 1] = trunk - 0.5
    # Unlike an artery's, these territories hardly extend beyond their structures.
    for name in ("aortic valve and root", "mitral annulus", "ascending aorta", "pulmonary artery"):
        column = cost[:, TERRITORIES[name] - 1]
        column += 4 * np.maximum(column, 0)
    cost[:, TERRITORIES["other"] - 1] = ARTERY_REACH_MM
    cost[:, -1] = np.minimum(pericardium, np.minimum(above, trunk))
    return cost


def add_tube(labels: np.ndarray, axes: Sequence[np.ndarray], path: np.ndarray, radii: np.ndarray, label: int) -> None:
    """Label a tube along a polyline, in place. axes: places of the columns, rows and slices."""
    x, y, z = axes
    t = np.linspace(0, len(path) - 1, 4 * len(path))
    index = np.arange(len(path))
    fine = along(path, t, index)
    fine_radii = np.interp(t, index, radii)
    for k, height in enumerate(z):
        in_slice = np.abs(fine[:, 2] - height) < fine_radii
        for (a, b, c), r in zip(fine[in_slice], fine_radii[in_slice], strict=True):
            j = np.flatnonzero(np.abs(y - b) < r)
            i = np.flatnonzero(np.abs(x - a) < r)
            if len(i) and len(j):
                part = labels[k, j[0] : j[-1] + 1, i[0] : i[-1] + 1]
                part[(y[j, None] - b) ** 2 + (x[None, i] - a) ** 2 + (height - c) ** 2 < r * r] = label
