"""Coronary arteries on a patient's heart: measured courses, moved into the grooves and onto the surface.

The meshes give courses and branches. Their calibres are too small, so calibres are from Dodge 1992
(10.1161/01.CIR.86.1.232, normal hearts; (2nd)): left main 4.5 mm, descending 3.7 to 1.9 mm, circumflex 3.4 mm (4.2 if
dominant), right 3.9 mm (2.8 if not dominant). The left main's length and fork are from Medrano-Gracia 2016
(10.4244/EIJV12I7A139, CT angiograms of 300 adults): length 10.5 ± 5.3 mm, angle 75 ± 23° between its branches, 89 ± 21°
with an intermediate artery between them, whose calcium is counted with the circumflex.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..coronaries import CoronaryTree, Vessel, vessel_along_path
from ..points import along, arc_mm
from .shape import PARTS, STEP_MM, HeartShape, interpolate, union

DEPTH_MM = 2.1
"""Height in mm of a centre line over the surface: half of a calibre and the wall."""
RIGHT_DOMINANT_SHARE, LEFT_DOMINANT_SHARE, CODOMINANT_SHARE = 0.85, 0.08, 0.07
RADII_MM = {"LM": (2.25, 2.2), "LAD": (1.85, 0.95), "LCX": (1.7, 0.9), "RCA": (1.95, 1.2)}
LEFT_DOMINANT_RADII_MM = {**RADII_MM, "LCX": (2.1, 0.9), "RCA": (1.4, 0.8)}
"""Radii in mm of the main arteries at their beginning and end."""
LEFT_MAIN_MM = (5.0, 15.0)
"""Length in mm of the left main with forks as in the measured hearts."""
FORK_MM = (10.4, 5.6, 2.0, 23.0)
"""Normal law of the left main's length, truncated to the range in people: mean 11 mm, standard deviation 4.8."""
FORK_DEGREES = {False: (75.0, 23.0, 35.0, 140.0), True: (89.0, 21.0, 35.0, 140.0)}
"""Mean, standard deviation, minimum and maximum of its branches' angle, without and with an intermediate artery."""
RAMUS_SHARE = 0.2
"""Share of trees with an intermediate artery (15 to 30 % in people)."""
OSTIUM_TO_TRUNK_MM = 2.5, (1.5, 5.0)
"""Distance in mm of the left main's ostium from the pulmonary trunk: as measured, and range if forks vary."""
_FORK_MM = 24.0
"""Distance in mm from the fork at which the circumflex joins its measured course."""
_POINT_MM, _ROUNDS = 1.5, 60


def draw_tree(
    sex: str, shape: HeartShape, generator: np.random.Generator, forks: bool = False, ramus: bool = False
) -> CoronaryTree:
    """Draw the coronary tree of a heart.

    Args:
        sex: "F" or "M", whose calibres differ.
        shape: The heart.
        generator: Random stream.
        forks: True to vary the left main's fork as widely as published.
        ramus: True for an intermediate artery in every such tree, instead of RAMUS_SHARE.
    """
    return _Builder(sex, shape, generator, forks, ramus).build()


def usual_tree(shape: HeartShape) -> CoronaryTree:
    """Return the mean of the measured courses in a heart's grooves; the circumflex continues along the coronary sinus,
    since its end is unknown."""
    return _Builder("M", shape, _MedianDraws()).build()


class _MedianDraws:
    """Substitute for a generator that draws the middle of every law, and the last choice."""

    def uniform(self, low: float, high: float) -> float:
        return 0.5 * (low + high)

    def normal(self, mean: float, sd: float, size: int = 1) -> float | np.ndarray:
        return mean if size == 1 else np.full(size, float(mean))

    def integers(self, low: int, high: int) -> int:
        return (low + high) // 2

    def choice(self, options: list[str], p: list[float]) -> str:
        return options[-1]

    def dirichlet(self, shares: np.ndarray) -> np.ndarray:
        return shares / shares.sum()

    def random(self) -> float:
        return 0.5


def _quantile(law: tuple[float, float, float, float], share: float) -> float:
    """Return the quantile of a truncated normal law (mean, standard deviation, minimum, maximum)."""
    from scipy.stats import truncnorm  # loads slowly

    mean, sd, least, most = law
    return float(truncnorm.ppf(share, (least - mean) / sd, (most - mean) / sd, mean, sd))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


class _Grooves:
    """Height over the surface, signed distances to the grooves, and their slopes, at points."""

    def __init__(self, shape: HeartShape) -> None:
        o = shape.outsides
        ventricles, atria = union([o["lv_epi"], o["rv"]], 1.5), union([o["la"], o["ra"]], 1.5)
        fields = (shape.surface, ventricles - atria, o["lv_epi"] - o["rv"])
        columns = [f for field in fields for f in (field, *np.gradient(field, STEP_MM))]
        self._shape, self._low = fields[0].shape, shape.low_mm
        self._table = np.ascontiguousarray(np.stack(columns, -1).reshape(-1, 12), np.float32)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values [3, n] and slopes [3, n, 3] of height, atrioventricular and interventricular side."""
        fields = interpolate(self._table, self._shape, self._low, points).astype(float).reshape(-1, 3, 4)
        return fields[..., 0].T, np.moveaxis(fields[..., 1:], 1, 0)

    def settle(
        self, path: np.ndarray, groove: int | None, pull: np.ndarray, fixed: int, depth_mm: np.ndarray
    ) -> np.ndarray:
        """Move a course onto the surface and into a groove (1 atrioventricular, 2 interventricular).

        pull: strength of each point's movement [n]. fixed: number of first points that stay.
        """
        points = path.copy()
        for n in range(_ROUNDS):
            value, slope = self.at(points)
            up = slope[0] / np.maximum((slope[0] ** 2).sum(axis=1, keepdims=True), 0.25)
            step = np.clip(depth_mm - value[0], -1.5, 1.5)[:, None] * up
            if groove is not None:
                normal = up / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)
                along = slope[groove] - (slope[groove] * normal).sum(axis=1, keepdims=True) * normal
                size = np.maximum((along**2).sum(axis=1, keepdims=True), 0.25)
                step -= 0.5 * np.clip(value[groove], -2.5, 2.5)[:, None] * along / size
            step *= 0.7 * pull[:, None]
            # Smooth steps keep a course's length and bends.
            if n < _ROUNDS - 8:
                step = ndimage.gaussian_filter1d(step, 2.0, axis=0, mode="nearest")
            step[:fixed] = 0
            points += step
        points[fixed:] = ndimage.gaussian_filter1d(points, 0.8, axis=0, mode="nearest")[fixed:]
        return points


class _Builder:
    def __init__(
        self,
        sex: str,
        shape: HeartShape,
        generator: np.random.Generator | _MedianDraws,
        forks: bool = False,
        ramus: bool = False,
    ) -> None:
        self.shape, self.g = shape, generator
        self.forks = generator.spawn(1)[0] if forks and isinstance(generator, np.random.Generator) else None
        self.grooves = _Grooves(shape)
        self.hearts = sorted({key.split()[0] for key in shape.lines})
        self.vessels: list[Vessel] = []
        self.size = 0.94 if sex == "F" else 1.03
        self.has_ramus = self.forks is not None and (self.forks.random() < RAMUS_SHARE or ramus)

    def build(self) -> CoronaryTree:
        g = self.g
        dominance = str(
            g.choice(["right", "left", "co"], p=[RIGHT_DOMINANT_SHARE, LEFT_DOMINANT_SHARE, CODOMINANT_SHARE])
        )
        self.shares = g.dirichlet(np.ones(len(self.hearts)) * 1.5)
        lad = self._course("LAD")
        stem = self._course("LM")
        clearance, clearance_range = OSTIUM_TO_TRUNK_MM
        clearance = self.forks.uniform(*clearance_range) if self.forks else clearance
        ostium = self._ostium(stem[self._aorta_exit(stem)], clearance)
        lad = self._settle(lad, 2, fixed=0, ramp=6)
        stem = self._settle(self._resample(np.stack([ostium, 0.5 * (ostium + lad[0]), lad[0]])), None, fixed=1, ramp=4)
        if self.forks is None:
            fork = min(len(stem) - 1, round(g.uniform(*LEFT_MAIN_MM) / _POINT_MM))
            lad, stem = self._resample(np.concatenate([stem[fork:-1], lad])), stem[: fork + 1]
            circumflex = np.concatenate([lad[:1], self._course("LCX")[2:], self._course("CS")[2:]])
            circumflex = self._settle(self._resample(circumflex), 1, fixed=1, ramp=6)
        else:
            stem, lad, circumflex = self._draw_fork(stem, lad, self.forks)
        # The circumflex ends after the obtuse margin, or runs on along the coronary sinus to the crux.
        measured_share = self._length(self._course("LCX")) / max(self._length(circumflex), 1.0)
        reach = {"right": g.uniform(0.85, 1.5) * measured_share, "co": g.uniform(0.75, 0.9), "left": 1.0}[dominance]
        lcx = self._proximal(circumflex, min(reach, 0.97 if dominance == "right" else 1.0))
        right = self._right_coronary(dominance, reach)
        radii = LEFT_DOMINANT_RADII_MM if dominance == "left" else RADII_MM
        self._add("LM", "LM", stem, *radii["LM"])
        self._add("LAD", "LAD", self._proximal(lad, g.uniform(0.85, 1.0)), *radii["LAD"])
        self._add("LCX", "LCX", lcx, *radii["LCX"])
        self._add("RCA", "RCA", right, *radii["RCA"])
        self._branches(lad, lcx, circumflex, right, dominance)
        if self.has_ramus:
            offsets = [self._resample(course - course[0], 60) for course in map(self._course, ("D1", "OM1"))]
            self._branch("RI", "LCX", 0.5 * (offsets[0] + offsets[1]), lad, 0.0, 1.1, turn=8)
        return CoronaryTree(tuple(self.vessels), dominance)

    def _draw_fork(
        self, stem: np.ndarray, lad: np.ndarray, forks: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return left main, descending artery and circumflex with a fork that varies as published."""
        course = self._resample(np.concatenate([stem[:-1], lad]))
        arc, length = arc_mm(course), _quantile(FORK_MM, self.g.random())
        stem = along(course, np.linspace(0, length, 4 + int(length / _POINT_MM)), arc)
        lad = self._resample(np.concatenate([stem[-1:], course[arc > length + 0.5]]))
        circumflex = self._resample(np.concatenate([self._course("LCX"), self._course("CS")[2:]]))
        circumflex += np.exp(-np.arange(len(circumflex)) / 12)[:, None] * (lad[0] - circumflex[0])
        circumflex = self._settle(circumflex, 1, fixed=1, ramp=9)
        # A new beginning of the circumflex on the surface, at an angle from the descending artery.
        angle = np.radians(_quantile(FORK_DEGREES[self.has_ramus], forks.random()))
        junction = round(_FORK_MM / _POINT_MM)
        start, end = lad[0], circumflex[junction]
        ahead, up = lad[round(8 / _POINT_MM)] - start, self.grooves.at(start[None])[1][0, 0]
        aside = np.cross(up, ahead)
        aside *= np.sign(aside @ (end - start)) or 1.0
        first, last = _unit(ahead) * np.cos(angle) + _unit(aside) * np.sin(angle), circumflex[junction + 1] - end
        gap = float(np.linalg.norm(end - start))
        t = np.linspace(0, 1, junction, endpoint=False)[:, None]
        # A cubic Hermite curve.
        path = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * 1.5 * gap * first
        path += (3 * t**2 - 2 * t**3) * end + (t**3 - t**2) * gap * _unit(last)
        pull = np.clip(np.arange(junction) / 4, 0, 1)
        path = self.grooves.settle(path, None, pull, 1, np.full(junction, DEPTH_MM))
        return stem, lad, self._resample(np.concatenate([path, circumflex[junction:]]))

    def _right_coronary(self, dominance: str, circumflex_reach: float) -> np.ndarray:
        g = self.g
        course = self._course("RCA")
        # The measured course begins inside a wide aorta.
        first = self._aorta_exit(course)
        ostium = self._ostium(course[first], 6.0)
        course = self._settle(self._resample(np.concatenate([ostium[None], course[first + 3 :]])), 1, fixed=1, ramp=9)
        crux = int(np.argmin(np.linalg.norm(course - self._course("PDA")[0], axis=1))) / len(course)
        if dominance == "left":
            return self._proximal(course, crux * g.uniform(0.55, 0.75))
        past_crux = g.uniform(0.1, 0.8) if dominance == "right" and circumflex_reach < 0.65 else 0.0
        return self._proximal(course, min(1.0, crux + past_crux * (1 - crux)))

    def _branches(self, lad: np.ndarray, lcx: np.ndarray, sinus: np.ndarray, right: np.ndarray, dominance: str) -> None:
        g = self.g
        for n in range(int(g.integers(1, 4))):
            at = 0.12 + 0.16 * n + g.uniform(-0.04, 0.06)
            self._branch(f"D{n + 1}", "LAD", self._course("D1"), lad, at, 1.05, turn=12)
        for n in range(int(g.integers(1, 4))):
            at = 0.4 + 0.22 * n + g.uniform(-0.06, 0.08)
            self._branch(f"OM{n + 1}", "LCX", self._course("OM1"), lcx, at, 1.05, turn=12)
        margin = np.argmin(np.linalg.norm(right - self._course("RV")[0], axis=1)) / len(right)
        at = max(0.05, float(margin) + g.uniform(-0.05, 0.05))
        self._branch("RV", "RCA", self._course("RV"), right, at, 0.85, turn=15)
        owner, source = ("LCX", sinus) if dominance == "left" else ("RCA", right)
        pda = self._course("PDA")
        start = int(np.argmin(np.linalg.norm(source - pda[0], axis=1)))
        fade = np.exp(-np.arange(len(pda)) / 8.0)[:, None]
        path = self._settle(pda + fade * (source[start] - pda[0]), 2, fixed=1, ramp=5)
        self._add("PDA", owner, self._proximal(path, g.uniform(0.65, 1.0)), 1.1, 0.6)
        if any(key.endswith(" PL") for key in self.shape.lines) and g.random() < 0.6:
            owner, source = ("RCA", right) if dominance == "right" else ("LCX", lcx)
            self._branch("PL", owner, self._course("PL"), source, 0.97, 0.95, turn=8)

    def _branch(
        self, name: str, artery: str, course: np.ndarray, source: np.ndarray, at: float, radius: float, turn: float
    ) -> None:
        """Add a branch with a measured course, moved to another origin, turned a little and laid on the surface."""
        start, offset = source[int(min(at, 0.98) * (len(source) - 1))], course - course[0]
        for _ in range(5):
            axis = self.g.normal(0, np.radians(turn), 3)
            path = start + (offset + np.cross(axis, offset)) * self.g.uniform(0.75, 1.3)
            path = self._settle(self._resample(path), None, fixed=1, ramp=3)
            # Reject a branch that stays in the muscle.
            if self.grooves.at(path)[0][0][3:].min() > 0.2:
                self._add(name, artery, path, radius, 0.55)
                return

    def _course(self, name: str) -> np.ndarray:
        """Return a course blended from the hearts that have it, evenly spaced."""
        indices = [n for n, heart in enumerate(self.hearts) if f"{heart} {name}" in self.shape.lines]
        shares = self.shares[indices] / self.shares[indices].sum()
        lines = [self._resample(self.shape.lines[f"{self.hearts[n]} {name}"], 60) for n in indices]
        return self._resample(np.tensordot(shares, np.stack(lines), 1))

    def _settle(self, path: np.ndarray, groove: int | None, fixed: int, ramp: int) -> np.ndarray:
        count = len(path)
        t = np.linspace(0, 1, count)
        wave = sum(self.g.normal(0, 0.3) * np.sin(np.pi * (n + 1) * t + self.g.uniform(0, 6.28)) for n in range(4))
        pull = np.clip(np.arange(count) / ramp, 0.0 if fixed else 1.0, 1)
        path = self.grooves.settle(path, groove, pull, fixed, np.clip(DEPTH_MM + wave, 1.3, 3.2))
        return self._resample(path)

    def _aorta_exit(self, course: np.ndarray) -> int:
        """Return the index of the point after which the first 30 mm of a course stay outside the aorta's blood."""
        inside = self.shape.sample(course[: round(30 / _POINT_MM)])[:, 1 + PARTS.index("aorta")] < 0
        return min(int(np.flatnonzero(inside)[-1]) + 1, len(course) - 4) if inside.any() else 0

    def _ostium(self, start: np.ndarray, clearance_mm: float) -> np.ndarray:
        """Return the point near `start` on the aorta's surface, at a distance from the pulmonary trunk."""
        fields = [self.shape.part("aorta"), self.shape.part("pulmonary")]
        columns = [f for field in fields for f in (field, *np.gradient(field, STEP_MM))]
        table, place = np.stack(columns, -1).reshape(-1, 8), start[None]
        for _ in range(25):
            (values,) = interpolate(table, fields[0].shape, self.shape.low_mm, place).astype(float)
            out, away = values[1:4], values[5:]
            out = out / max(float(np.linalg.norm(out)), 0.5)
            away = away - (away @ out) * out
            place = place - np.clip(values[0], -4, 4) * out + 0.4 * np.clip(clearance_mm - values[4], 0, 4) * away
        return place[0]

    @staticmethod
    def _length(path: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())

    @staticmethod
    def _proximal(path: np.ndarray, share: float) -> np.ndarray:
        return path[: max(4, round(share * len(path)))]

    @staticmethod
    def _resample(path: np.ndarray, count: int | None = None) -> np.ndarray:
        length = arc_mm(path)[-1]
        return along(path, np.linspace(0, length, count or max(4, int(length / _POINT_MM) + 1)))

    def _add(self, name: str, artery: str, path: np.ndarray, first_mm: float, last_mm: float) -> None:
        spread = self.size * float(np.clip(self.g.normal(1, 0.09), 0.75, 1.3))
        self.vessels.append(vessel_along_path(name, artery, path, spread * first_mm, spread * last_mm))
