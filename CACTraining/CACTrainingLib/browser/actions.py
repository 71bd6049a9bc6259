"""What the page may ask for: each action checked in every part before anything is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError, MaskError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, NonCoronary, Site, site_of
from CACScoringLib.review.picking import brush_stroke, pick_lesion
from CACScoringLib.review.scan_review import ScanReview

MOST_LESIONS, MOST_POINTS = 5000, 500
MOST_RADIUS_MM = 50.0
MOST_SECONDS = 24 * 3600.0

GIVEN_SITES = (*(a for a in Artery if a != Artery.UNASSIGNED), *NonCoronary)
"""What a reader may give calcium to."""


class RefusedError(CTError):
    """A request that asks for what there is not."""


@dataclass(frozen=True)
class Request:
    """A checked request. version: of the review that the reader saw. seconds: that the reader spent since the last."""

    action: str
    method: str
    version: int
    seconds: float
    parts: dict

    @property
    def words(self) -> str:
        """For the journal."""
        told = " ".join(f"{name}={value}" for name, value in self.parts.items() if name not in ("points", "voxel"))
        return f"{self.action} {self.method} {told}".strip()


class _Parts:
    """The parts of a request, taken one by one; raises RefusedError where one is missing, wrong or unknown."""

    def __init__(self, content: object) -> None:
        if not isinstance(content, dict):
            raise RefusedError("The request is no JSON object.")
        self._left = dict(content)

    def take(self, name: str) -> object:
        if name not in self._left:
            raise RefusedError(f"The request has no {name}.")
        return self._left.pop(name)

    def number(self, name: str, low: float, high: float) -> float:
        return _number(self.take(name), name, low, high)

    def whole(self, name: str, low: int, high: int) -> int:
        return _whole(self.take(name), name, low, high)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.take(name)
        if not isinstance(value, str) or value not in choices:
            raise RefusedError(f"{name} is none of {', '.join(choices)}.")
        return value

    def truth(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool):
            raise RefusedError(f"{name} is neither true nor false.")
        return value

    def rows(self, name: str, most: int) -> list:
        value = self.take(name)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise RefusedError(f"{name} is no list of 1 to {most} entries.")
        return value

    def finish(self) -> None:
        if self._left:
            raise RefusedError(f"The request has unknown parts ({len(self._left)}).")


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RefusedError(f"{name} is no number.")
    if not low <= value <= high:
        raise RefusedError(f"{name} is not between {low:g} and {high:g}.")
    return float(value)


def _whole(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(f"{name} is no whole number.")
    return int(_number(value, name, low, high))


def _place(value: object, name: str, shape: tuple[int, ...], whole: bool = False) -> tuple:
    if not isinstance(value, list) or len(value) != 3:
        raise RefusedError(f"{name} is no place [k, j, i].")
    if whole:
        return tuple(_whole(n, name, 0, size - 1) for n, size in zip(value, shape, strict=True))
    return tuple(_number(n, name, -0.5, size - 0.5) for n, size in zip(value, shape, strict=True))


def _site(parts: _Parts) -> Site:
    label = parts.whole("site", 0, 255)
    if label not in GIVEN_SITES:
        raise RefusedError("site is the label of no artery and of no site outside them.")
    return site_of(label)


def _label(parts: _Parts) -> int:
    label = parts.whole("label", 0, 255)
    if label not in (0, NOT_CORONARY, *GIVEN_SITES):
        raise RefusedError("label is that of no site.")
    return label


def _lesions(parts: _Parts) -> list[int]:
    return [_whole(n, "a lesion", 1, 2**16 - 1) for n in parts.rows("lesions", MOST_LESIONS)]


def _stroke(parts: _Parts, shape: tuple[int, ...]) -> dict:
    return {
        "points": [_place(point, "a point", shape) for point in parts.rows("points", MOST_POINTS)],
        "radius_mm": parts.number("radius_mm", 0.1, MOST_RADIUS_MM),
        "flat": parts.truth("flat"),
        "label": _label(parts),
    }


def _cut(parts: _Parts, shape: tuple[int, ...]) -> dict:
    normal = parts.take("normal")
    if not isinstance(normal, list) or len(normal) != 3:
        raise RefusedError("normal is no direction [k, j, i].")
    direction = tuple(_number(n, "normal", -1e4, 1e4) for n in normal)
    if not any(direction):
        raise RefusedError("normal has no length.")
    label = _label(parts)
    if not label:
        raise RefusedError("label is that of no site.")
    lesion = parts.whole("lesion", 1, 2**16 - 1)
    point = _place(parts.take("point"), "point", shape)
    return {"lesion_id": lesion, "point_kji": point, "normal_kji": direction, "label": label}


_PARTS: dict[str, Callable[[_Parts, tuple[int, ...]], dict]] = {
    "assign": lambda parts, shape: {"lesions": _lesions(parts), "site": _site(parts)},
    "reject": lambda parts, shape: {"lesions": _lesions(parts)},
    "reject-unassigned": lambda parts, shape: {},
    "accept": lambda parts, shape: {},
    "no-calcium": lambda parts, shape: {},
    "reviewed": lambda parts, shape: {"on": parts.truth("on")},
    "undo": lambda parts, shape: {},
    "redo": lambda parts, shape: {},
    "paint": _stroke,
    "pick": lambda parts, shape: {"voxel": _place(parts.take("voxel"), "voxel", shape, True), "site": _site(parts)},
    "cut": _cut,
    "slice": lambda parts, shape: {"k": parts.whole("k", 0, shape[0] - 1), "on": parts.truth("on")},
}
"""What each action is asked for with."""


def request_of(content: object, shape: tuple[int, ...], methods: tuple[str, ...]) -> Request:
    """Check a request. content: as it came, from JSON. shape: of the scan, [k, j, i]. Raises RefusedError."""
    parts = _Parts(content)
    action = parts.choice("action", tuple(_PARTS))
    method = parts.choice("method", methods)
    version = parts.whole("version", 0, 2**31)
    seconds = parts.number("seconds", 0, MOST_SECONDS)
    own = _PARTS[action](parts, shape)
    parts.finish()
    return Request(action, method, version, seconds, own)


def carry_out(review: ScanReview, request: Request) -> None:
    """Do what was asked for. Raises MaskError, which says why it cannot be done."""
    _DONE[request.action](review, request.method, request.parts)


def _undo(review: ScanReview) -> None:
    if not review.undo():
        raise MaskError("There is nothing to undo.")


def _redo(review: ScanReview) -> None:
    if not review.redo():
        raise MaskError("There is nothing to redo.")


def _picked(review: ScanReview, method: str, voxel: tuple[int, int, int]) -> np.ndarray:
    own = review.review(method)
    values = sitk.GetArrayViewFromImage(own.image)
    found = pick_lesion(values, voxel, own.image.GetSpacing()[::-1], own.rules.threshold_hu)
    if found is None:
        raise MaskError(f"Nothing there reaches {own.rules.threshold_hu:g} HU, so that it counts for no score.")
    if found.leaked:
        raise MaskError(f"{found.reason} Paint it with the brush if it is coronary calcium.")
    return np.sort(np.ravel_multi_index(tuple(found.kji.T), values.shape))


def _painted(review: ScanReview, method: str, parts: dict) -> np.ndarray:
    """Voxels under the brush: those that count by the rule, or those with a label for the eraser. Raises MaskError when
    there are none."""
    own = review.review(method)
    values = sitk.GetArrayViewFromImage(own.image)
    spacing = np.array(own.image.GetSpacing())
    points = [np.array(point[::-1]) * spacing for point in parts["points"]]
    to_mm, normal = np.diag([*spacing, 1.0]), (0, 0, 1) if parts["flat"] else None
    flat = [np.zeros(0, np.int64)]
    for start, end in zip(points, points[1:] or points, strict=False):
        covered = brush_stroke(values.shape, to_mm, start, end, parts["radius_mm"], normal)
        if covered is not None:
            flat.append(np.ravel_multi_index(tuple(covered.kji.T), values.shape))
    under = np.unique(np.concatenate(flat))
    if parts["label"]:
        found = under[values.reshape(-1)[under] >= own.rules.threshold_hu]
        nothing = f"Nothing under the brush reaches {own.rules.threshold_hu:g} HU, so that it counts for no score."
    else:
        found = under[np.isin(under, own.labelled.flat)]
        nothing = "Nothing under the eraser belongs to a lesion."
    if not found.size:
        raise MaskError(nothing)
    return found


_DONE: dict[str, Callable[[ScanReview, str, dict], None]] = {
    "assign": lambda review, method, parts: review.assign(method, parts["lesions"], parts["site"]),
    "reject": lambda review, method, parts: review.reject(method, parts["lesions"]),
    "reject-unassigned": lambda review, method, parts: review.reject_unassigned(method),
    "accept": lambda review, method, parts: review.accept(method),
    "no-calcium": lambda review, method, parts: review.set_no_calcium(),
    "reviewed": lambda review, method, parts: review.set_reviewed(method, parts["on"]),
    "undo": lambda review, method, parts: _undo(review),
    "redo": lambda review, method, parts: _redo(review),
    "paint": lambda review, method, parts: review.give(method, _painted(review, method, parts), parts["label"]),
    "pick": lambda review, method, parts: review.give(method, _picked(review, method, parts["voxel"]), parts["site"]),
    "cut": lambda review, method, parts: review.cut(method, **parts),
    "slice": lambda review, method, parts: review.switch_slice(parts["k"], parts["on"]),
}
"""What each action does."""
