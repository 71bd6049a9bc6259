"""Coronary arteries on a patient's heart: measured courses, brought into the grooves and onto the surface.

The meshes give where arteries run and branch. Their calibres are too small; these are from Dodge 1992
(10.1161/01.CIR.86.1.232, normal hearts; (2nd)): left main 4.5 mm, descending 3.7 to 1.9 mm, circumflex 3.4 mm (4.2 when
it is dominant), right 3.9 mm (2.8 when it is not). Where and how the left main forks is from Medrano-Gracia 2016
(10.4244/EIJV12I7A139, CT angiograms of 300 adults): length 10.5 ± 5.3 mm, angle 75 ± 23° between its branches, 89 ± 21°
where an intermediate artery lies between them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.stats import truncnorm

from ..coronaries import CoronaryTree, Vessel, vessel_along_path
from ..points import along, arc_mm
from .shape import PARTS, STEP_MM, HeartShape, interpolated, union

DEPTH_MM = 2.1
"""Height of a centre line over the surface: half of a calibre and the wall."""
RIGHT_DOMINANT_SHARE, LEFT_DOMINANT_SHARE, CODOMINANT_SHARE = 0.85, 0.08, 0.07
RADII_MM = {"LM": (2.25, 2.2), "LAD": (1.85, 0.95), "LCX": (1.7, 0.9), "RCA": (1.95, 1.2)}
LEFT_DOMINANT_RADII_MM = {**RADII_MM, "LCX": (2.1, 0.9), "RCA": (1.4, 0.8)}
"""Radii of the main arteries at their beginning and end."""
LEFT_MAIN_MM = (5.0, 15.0)
"""Length of the left main where forks are as in the measured hearts."""
FORK_MM, FORK_DEGREES = (10.5, 5.3, 3.0, 25.0), (80.0, 23.0, 35.0, 140.0)
"""Published: mean, standard deviation, least and most of the left main's length, and of the angle of its branches."""
OSTIUM_TO_TRUNK_MM = 2.5, (1.5, 5.0)
"""Least distance of the left main's ostium from the pulmonary trunk, as measured and where forks vary; shape."""
_FORK_MM = 24.0
"""The circumflex has found into its measured course so far from the fork."""
_POINT_MM, _ROUNDS = 1.5, 60


def draw_tree(sex: str, shape: HeartShape, generator: np.random.Generator, forks: bool = False) -> CoronaryTree:
    """The coronary tree of a heart.

    sex: "F" or "M", whose calibres differ. forks: of the left main as widely as published, not as measured.
    """
    return _Builder(sex, shape, generator, forks).build()


def usual_tree(shape: HeartShape) -> CoronaryTree:
    """The tree as it usually runs on a heart, the measured courses' mean in the grooves; the circumflex continues along
    the coronary sinus, since where it ends is not known."""
    return _Builder("M", shape, _Middle()).build()


class _Middle:
    """In place of a generator: the middle of every law, and the last choice."""

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


def _between(law: tuple[float, float, float, float], share: float) -> float:
    """The quantile of a normal law cut at its least and most."""
    mean, sd, least, most = law
    return float(truncnorm.ppf(share, (least - mean) / sd, (most - mean) / sd, mean, sd))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


class _Grooves:
    """Heights over the surface and sides of the grooves with their slopes, looked up at points."""

    def __init__(self, shape: HeartShape) -> None:
        o = shape.outsides
        ventricles, atria = union([o["lv_epi"], o["rv"]], 1.5), union([o["la"], o["ra"]], 1.5)
        fields = (shape.surface, ventricles - atria, o["lv_epi"] - o["rv"])
        columns = [f for field in fields for f in (field, *np.gradient(field, STEP_MM))]
        self._shape, self._low = fields[0].shape, shape.low_mm
        self._table = np.ascontiguousarray(np.stack(columns, -1).reshape(-1, 12), np.float32)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values [3, n] and slopes [3, n, 3] of height, atrioventricular and interventricular side."""
        found = interpolated(self._table, self._shape, self._low, points).astype(float).reshape(-1, 3, 4)
        return found[..., 0].T, np.moveaxis(found[..., 1:], 1, 0)

    def settle(
        self, path: np.ndarray, groove: int | None, pull: np.ndarray, held: int, depth_mm: np.ndarray
    ) -> np.ndarray:
        """A course on the surface, in a groove (1 atrioventricular, 2 interventricular).

        pull: [n] how much each point is drawn; held: so many first points stay.
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
            # The way to the groove is smooth, so that courses keep their length and their own bends.
            if n < _ROUNDS - 8:
                step = ndimage.gaussian_filter1d(step, 2.0, axis=0, mode="nearest")
            step[:held] = 0
            points += step
        points[held:] = ndimage.gaussian_filter1d(points, 0.8, axis=0, mode="nearest")[held:]
        return points


class _Builder:
    def __init__(
        self, sex: str, shape: HeartShape, generator: np.random.Generator | _Middle, forks: bool = False
    ) -> None:
        self.shape, self.g, self.forks = shape, generator, generator.spawn(1)[0] if forks else None
        self.grooves = _Grooves(shape)
        self.hearts = sorted({key.split()[0] for key in shape.lines})
        self.vessels: list[Vessel] = []
        self.size = 0.94 if sex == "F" else 1.03

    def build(self) -> CoronaryTree:
        g = self.g
        dominance = str(
            g.choice(["right", "left", "co"], p=[RIGHT_DOMINANT_SHARE, LEFT_DOMINANT_SHARE, CODOMINANT_SHARE])
        )
        self.shares = g.dirichlet(np.ones(len(self.hearts)) * 1.5)
        lad = self._course("LAD")
        stem = self._course("LM")
        clear, varied = OSTIUM_TO_TRUNK_MM
        ostium = self._ostium(stem[self._leaves_aorta(stem)], self.forks.uniform(*varied) if self.forks else clear)
        lad = self._settle(lad, 2, held=0, ramp=6)
        stem = self._settle(self._even(np.stack([ostium, 0.5 * (ostium + lad[0]), lad[0]])), None, held=1, ramp=4)
        if self.forks is None:
            fork = min(len(stem) - 1, round(g.uniform(*LEFT_MAIN_MM) / _POINT_MM))
            lad, stem = self._even(np.concatenate([stem[fork:-1], lad])), stem[: fork + 1]
            left = np.concatenate([lad[:1], self._course("LCX")[2:], self._course("CS")[2:]])
            left = self._settle(self._even(left), 1, held=1, ramp=6)
        else:
            stem, lad, left = self._forked(stem, lad, self.forks)
        # The circumflex ends after the obtuse margin, or runs on along the coronary sinus to the crux.
        own = self._length(self._course("LCX")) / max(self._length(left), 1.0)
        reach = {"right": g.uniform(0.85, 1.5) * own, "co": g.uniform(0.75, 0.9), "left": 1.0}[dominance]
        lcx = self._first(left, min(reach, 0.97 if dominance == "right" else 1.0))
        right = self._right(dominance, reach)
        radii = LEFT_DOMINANT_RADII_MM if dominance == "left" else RADII_MM
        self._add("LM", "LM", stem, *radii["LM"])
        self._add("LAD", "LAD", self._first(lad, g.uniform(0.85, 1.0)), *radii["LAD"])
        self._add("LCX", "LCX", lcx, *radii["LCX"])
        self._add("RCA", "RCA", right, *radii["RCA"])
        self._branches(lad, lcx, left, right, dominance)
        return CoronaryTree(tuple(self.vessels), dominance)

    def _forked(
        self, stem: np.ndarray, lad: np.ndarray, forks: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Left main, descending artery and circumflex that fork as widely as published."""
        whole = self._even(np.concatenate([stem[:-1], lad]))
        fork = round(_between(FORK_MM, self.g.random()) / _POINT_MM)
        stem, lad = whole[: fork + 1], whole[fork:]
        left = self._even(np.concatenate([self._course("LCX"), self._course("CS")[2:]]))
        left += np.exp(-np.arange(len(left)) / 12)[:, None] * (lad[0] - left[0])
        left = self._settle(left, 1, held=1, ramp=9)
        # The circumflex begins anew on the surface, aside from the descending artery's way.
        angle = np.radians(_between(FORK_DEGREES, forks.random()))
        joined = round(_FORK_MM / _POINT_MM)
        start, end = lad[0], left[joined]
        ahead, up = lad[round(8 / _POINT_MM)] - start, self.grooves.at(start[None])[1][0, 0]
        aside = np.cross(up, ahead)
        aside *= np.sign(aside @ (end - start)) or 1.0
        first, last = _unit(ahead) * np.cos(angle) + _unit(aside) * np.sin(angle), left[joined + 1] - end
        gap = float(np.linalg.norm(end - start))
        t = np.linspace(0, 1, joined, endpoint=False)[:, None]
        # A cubic Hermite curve.
        way = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * 1.5 * gap * first
        way += (3 * t**2 - 2 * t**3) * end + (t**3 - t**2) * gap * _unit(last)
        pull = np.clip(np.arange(joined) / 4, 0, 1)
        way = self.grooves.settle(way, None, pull, 1, np.full(joined, DEPTH_MM))
        return stem, lad, self._even(np.concatenate([way, left[joined:]]))

    def _right(self, dominance: str, left_reach: float) -> np.ndarray:
        g = self.g
        whole = self._course("RCA")
        # In a wide aorta the measured course begins within it.
        first = self._leaves_aorta(whole)
        ostium = self._ostium(whole[first], 6.0)
        whole = self._settle(self._even(np.concatenate([ostium[None], whole[first + 3 :]])), 1, held=1, ramp=9)
        crux = int(np.argmin(np.linalg.norm(whole - self._course("PDA")[0], axis=1))) / len(whole)
        if dominance == "left":
            return self._first(whole, crux * g.uniform(0.55, 0.75))
        beyond = g.uniform(0.1, 0.8) if dominance == "right" and left_reach < 0.65 else 0.0
        return self._first(whole, min(1.0, crux + beyond * (1 - crux)))

    def _branches(self, lad: np.ndarray, lcx: np.ndarray, left: np.ndarray, right: np.ndarray, dominance: str) -> None:
        g = self.g
        for n in range(int(g.integers(1, 4))):
            self._branch(f"D{n + 1}", "LAD", "D1", lad, 0.12 + 0.16 * n + g.uniform(-0.04, 0.06), 1.05, turn=12)
        for n in range(int(g.integers(1, 4))):
            self._branch(f"OM{n + 1}", "LCX", "OM1", lcx, 0.4 + 0.22 * n + g.uniform(-0.06, 0.08), 1.05, turn=12)
        margin = np.argmin(np.linalg.norm(right - self._course("RV")[0], axis=1)) / len(right)
        self._branch("RV", "RCA", "RV", right, float(margin) + g.uniform(-0.05, 0.05), 0.85, turn=15)
        owner, source = ("LCX", left) if dominance == "left" else ("RCA", right)
        pda = self._course("PDA")
        start = int(np.argmin(np.linalg.norm(source - pda[0], axis=1)))
        fade = np.exp(-np.arange(len(pda)) / 8.0)[:, None]
        path = self._settle(pda + fade * (source[start] - pda[0]), 2, held=1, ramp=5)
        self._add("PDA", owner, self._first(path, g.uniform(0.65, 1.0)), 1.1, 0.6)
        if any(key.endswith(" PL") for key in self.shape.lines) and g.random() < 0.6:
            owner, source = ("RCA", right) if dominance == "right" else ("LCX", lcx)
            self._branch("PL", owner, "PL", source, 0.97, 0.95, turn=8)

    def _branch(
        self, name: str, artery: str, like: str, source: np.ndarray, at: float, radius: float, turn: float
    ) -> None:
        """A branch with a measured one's course, from another place and a little turned, on the surface."""
        start = source[int(np.clip(at, 0.05, 0.98) * (len(source) - 1))]
        course = self._course(like)
        offset = course - course[0]
        for _ in range(5):
            axis = self.g.normal(0, np.radians(turn), 3)
            path = start + (offset + np.cross(axis, offset)) * self.g.uniform(0.75, 1.3)
            path = self._settle(self._even(path), None, held=1, ramp=3)
            # One that begins too deep in the muscle finds no way out.
            if self.grooves.at(path)[0][0][3:].min() > 0.2:
                self._add(name, artery, path, radius, 0.55)
                return

    def _course(self, name: str) -> np.ndarray:
        """The measured course, blended between the hearts that have it, evenly spaced."""
        have = [n for n, heart in enumerate(self.hearts) if f"{heart} {name}" in self.shape.lines]
        shares = self.shares[have] / self.shares[have].sum()
        lines = [self._even(self.shape.lines[f"{self.hearts[n]} {name}"], 60) for n in have]
        return self._even(np.tensordot(shares, np.stack(lines), 1))

    def _settle(self, path: np.ndarray, groove: int | None, held: int, ramp: int) -> np.ndarray:
        count = len(path)
        t = np.linspace(0, 1, count)
        wave = sum(self.g.normal(0, 0.3) * np.sin(np.pi * (n + 1) * t + self.g.uniform(0, 6.28)) for n in range(4))
        pull = np.clip(np.arange(count) / ramp, 0.0 if held else 1.0, 1)
        path = self.grooves.settle(path, groove, pull, held, np.clip(DEPTH_MM + wave, 1.3, 3.2))
        return self._even(path)

    def _leaves_aorta(self, course: np.ndarray) -> int:
        """Index of the first point of a course, within 30 mm, from which on it is outside the aorta's blood."""
        inside = self.shape.sample(course[: round(30 / _POINT_MM)])[:, 1 + PARTS.index("aorta")] < 0
        return min(int(np.flatnonzero(inside)[-1]) + 1, len(course) - 4) if inside.any() else 0

    def _ostium(self, near: np.ndarray, clear_mm: float) -> np.ndarray:
        """Point where an artery that begins near another leaves the aorta, so far from the pulmonary trunk."""
        fields = [self.shape.part("aorta"), self.shape.part("pulmonary")]
        columns = [f for field in fields for f in (field, *np.gradient(field, STEP_MM))]
        table, place = np.stack(columns, -1).reshape(-1, 8), near[None]
        for _ in range(25):
            (found,) = interpolated(table, fields[0].shape, self.shape.low_mm, place).astype(float)
            out, away = found[1:4], found[5:]
            out = out / max(float(np.linalg.norm(out)), 0.5)
            away = away - (away @ out) * out
            place = place - np.clip(found[0], -4, 4) * out + 0.4 * np.clip(clear_mm - found[4], 0, 4) * away
        return place[0]

    @staticmethod
    def _length(path: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())

    @staticmethod
    def _first(path: np.ndarray, share: float) -> np.ndarray:
        return path[: max(4, round(share * len(path)))]

    @staticmethod
    def _even(path: np.ndarray, count: int | None = None) -> np.ndarray:
        length = arc_mm(path)[-1]
        return along(path, np.linspace(0, length, count or max(4, int(length / _POINT_MM) + 1)))

    def _add(self, name: str, artery: str, path: np.ndarray, first_mm: float, last_mm: float) -> None:
        spread = self.size * float(np.clip(self.g.normal(1, 0.09), 0.75, 1.3))
        self.vessels.append(vessel_along_path(name, artery, path, spread * first_mm, spread * last_mm))
