"""The lungs' vessels: two trees per lung grown towards points spread through it, calibres by Murray's law.

Growing each branch from the nearest place already reached gives the branching, the hila and the thinning towards the
pleura without further rules. Shape, not physiology.
"""

from __future__ import annotations

import math

import numpy as np

from ..scanner.motion import ScanPose
from .body import Body
from .heart import reference_frame
from .points import PointCloud, joined
from .thorax import cavity_radius_mm, cavity_scale

TERMINAL_RADIUS_MM = 0.42
LARGEST_RADIUS_MM = 5.5
ENDS_PER_TREE = 1300
_STEP_MM = 7.0


def lung_vessels(body: Body, generator: np.random.Generator) -> PointCloud:
    """Arteries and veins of both lungs in quiet breathing; weights are mm³ of blood."""
    clouds = []
    for side, gates in ((-1, ((-50, 8, 30), (-46, 6, 8))), (1, ((48, 18, 26), (48, 10, 6)))):
        for gate in gates:
            ends = _places_in_lung(body, side, generator, ENDS_PER_TREE)
            clouds.append(_tree(np.array(gate, float), ends, generator))
    return joined(clouds)


def lung_grain(body: Body, generator: np.random.Generator, count: int = 60000) -> PointCloud:
    """Septa, vessels and airways too small to draw: points of mean 0, more of them dense, through the lungs."""
    per_side = count // 2
    places = np.concatenate([_places_in_lung(body, side, generator, per_side) for side in (-1, 1)])
    return PointCloud(places, generator.gamma(0.5, 0.5, len(places)) - 0.25)


def breathed(positions_mm: np.ndarray, body: Body, pose: ScanPose, breath_mm: float = 0.0) -> np.ndarray:
    """Where lung tissue lies in a pose: stretched downwards with the diaphragm, more the lower it lies."""
    low, high = body.right_dome_mm - 30.0, 120.0
    share = np.clip((high - positions_mm[:, 2]) / (high - low), 0.0, 1.2)
    moved = positions_mm.copy()
    moved[:, 2] -= share * (pose.diaphragm_drop_mm * 0.8 - breath_mm)
    moved[:, :2] *= 1 + 0.02 * pose.inspiration
    return moved


def _places_in_lung(body: Body, side: int, generator: np.random.Generator, count: int) -> np.ndarray:
    frame = reference_frame(body)
    kept: list[np.ndarray] = []
    found = 0
    while found < count:
        p = generator.uniform((0, -120, -95), (140, 130, 180), (4 * count, 3))
        p[:, 0] *= side
        front = np.arctan2(np.abs(p[:, 0]), p[:, 1]) / math.pi
        scale = np.array([cavity_scale(z) for z in p[:, 2]])
        inside = np.hypot(p[:, 0], p[:, 1]) < cavity_radius_mm(body, ScanPose(), front) * scale - 2.5
        inside &= np.abs(p[:, 0] - 6) > 24
        inside &= (((frame.to_heart(p)) / (frame.semi_axes_mm + 3)) ** 2).sum(axis=1) > 1
        inside &= (p[:, 2] > body.right_dome_mm - 75) & (generator.random(len(p)) < 0.75)
        kept.append(p[inside])
        found += int(inside.sum())
    return np.concatenate(kept)[:count]


def _tree(gate: np.ndarray, ends: np.ndarray, generator: np.random.Generator) -> PointCloud:
    order = np.argsort(np.linalg.norm(ends - gate, axis=1) + generator.normal(0, 12, len(ends)))
    limit = 40 * len(ends)
    nodes = np.empty((limit, 3))
    reach = np.full(limit, np.inf)
    parent = np.zeros(limit, np.int64)
    nodes[0], reach[0], count = gate, 0.0, 1
    leaves = []
    for end in ends[order]:
        distance = np.linalg.norm(nodes[:count] - end, axis=1)
        # A detour through the trunk is cheaper than a new long vessel: 0.35 mm per mm already grown.
        start = int(np.argmin(distance + 0.35 * reach[:count]))
        steps = max(1, math.ceil(distance[start] / _STEP_MM))
        bend = generator.normal(0, 0.09 * distance[start], 3)
        for n in range(1, steps + 1):
            t = n / steps
            nodes[count] = nodes[start] * (1 - t) + end * t + bend * math.sin(math.pi * t)
            parent[count] = start if n == 1 else count - 1
            reach[count] = reach[parent[count]] + np.linalg.norm(nodes[count] - nodes[parent[count]])
            count += 1
        leaves.append(count - 1)
    flow = np.zeros(count)
    flow[leaves] = 1.0
    for n in range(count - 1, 0, -1):
        flow[parent[n]] += flow[n]
    radius = np.minimum(TERMINAL_RADIUS_MM * np.cbrt(flow), LARGEST_RADIUS_MM)
    return _filled(nodes[:count], parent[:count], radius, generator)


def _filled(nodes: np.ndarray, parent: np.ndarray, radius: np.ndarray, generator: np.random.Generator) -> PointCloud:
    """Points along every segment, spread over its section; more of them in thick vessels."""
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
