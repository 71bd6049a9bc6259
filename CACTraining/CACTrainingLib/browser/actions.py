"""Check and carry out the actions of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from CACScoringLib.core.ct import CTError, MaskError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, NonCoronary
from CACScoringLib.review.scan_review import ScanReview

MAX_LESIONS, MAX_POINTS = 5000, 500
MAX_RADIUS_MM = 50.0
MAX_SECONDS = 24 * 3600.0

ASSIGNABLE_SITES = (*(a for a in Artery if a != Artery.UNASSIGNED), *NonCoronary)
"""Sites to which a reader may assign calcium."""


class RefusedError(CTError):
    """Unknown or unsuitable content of a request."""


@dataclass(frozen=True)
class Request:
    """Checked request.

    Attributes:
        action: Name of the action.
        method: Scoring method that it changes.
        version: Version of the review that the reader saw.
        seconds: Time spent by the reader since the last request.
        parts: Values of the action, by name.
    """

    action: str
    method: str
    version: int
    seconds: float
    parts: dict[str, Any]

    @property
    def words(self) -> str:
        """Description for the journal."""
        parts = " ".join(f"{name}={value}" for name, value in self.parts.items() if name not in ("points", "voxel"))
        return f"{self.action} {self.method} {parts}".strip()


def request_of(content: object, shape: tuple[int, ...], methods: tuple[str, ...]) -> Request:
    """Check a request. content: Decoded JSON. shape: Shape of the scan, [k, j, i]. Raises RefusedError."""
    if not isinstance(content, dict) or not isinstance(action := content.get("action"), str) or action not in _ACTIONS:
        raise RefusedError(f"The request is none of {', '.join(_ACTIONS)}.")
    names = _ACTIONS[action][1]
    if content.keys() != {"action", "method", "version", "seconds", *names}:
        raise RefusedError(f"The request {action} has other parts than method, version, seconds and its own.")
    method = content["method"]
    if not isinstance(method, str) or method not in methods:
        raise RefusedError(f"method is none of {', '.join(methods)}.")
    version, seconds = integer(content["version"], 0, 2**31), number(content["seconds"], 0, MAX_SECONDS)
    return Request(action, method, version, seconds, {name: _CHECKS[name](content[name], shape) for name in names})


def carry_out(review: ScanReview, request: Request) -> None:
    """Carry out a request. Raises MaskError if it cannot be done."""
    _ACTIONS[request.action][0](review, request.method, *request.parts.values())


def number(value: object, low: float, high: float) -> float:
    """Check that a value of JSON is a number within limits. Raises RefusedError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError("A part of the request is no number.")
    if not low <= value <= high:
        raise RefusedError(f"A number of the request is not between {low:g} and {high:g}.")
    return float(value)


def integer(value: object, low: int, high: int) -> int:
    """Check that a value of JSON is a whole number within limits. Raises RefusedError."""
    if not isinstance(value, int):
        raise RefusedError("A part of the request is no whole number.")
    return int(number(value, low, high))


def _boolean(value: object, _shape: tuple[int, ...]) -> bool:
    if not isinstance(value, bool):
        raise RefusedError("A part of the request is neither true nor false.")
    return value


def _list(value: object, min_count: int, max_count: int) -> list[Any]:
    if not isinstance(value, list) or not min_count <= len(value) <= max_count:
        raise RefusedError(f"A part of the request is no list of {min_count} to {max_count} entries.")
    return value


def _point(value: object, shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(number(n, -0.5, size - 0.5) for n, size in zip(_list(value, 3, 3), shape, strict=True))


def _direction(value: object, _shape: tuple[int, ...]) -> tuple[float, ...]:
    direction = tuple(number(n, -1e4, 1e4) for n in _list(value, 3, 3))
    if not any(direction):
        raise RefusedError("normal has no length.")
    return direction


def _one_of(labels: tuple[int, ...]) -> Callable[[object, tuple[int, ...]], int]:
    def check(value: object, _shape: tuple[int, ...]) -> int:
        label = integer(value, 0, 255)
        if label not in labels:
            raise RefusedError("A label of the request is that of no site.")
        return label

    return check


_CHECKS: dict[str, Callable[[object, tuple[int, ...]], Any]] = {
    "lesions": lambda value, shape: [integer(n, 1, 2**16 - 1) for n in _list(value, 1, MAX_LESIONS)],
    "lesion": lambda value, shape: integer(value, 1, 2**16 - 1),
    "site": _one_of(ASSIGNABLE_SITES),
    "label": _one_of((0, NOT_CORONARY, *ASSIGNABLE_SITES)),
    "points": lambda value, shape: [_point(point, shape) for point in _list(value, 1, MAX_POINTS)],
    "point": _point,
    "normal": _direction,
    "voxel": lambda value, shape: tuple(
        integer(n, 0, size - 1) for n, size in zip(_list(value, 3, 3), shape, strict=True)
    ),
    "radius_mm": lambda value, shape: number(value, 0.1, MAX_RADIUS_MM),
    "flat": _boolean,
    "on": _boolean,
}
"""Checks of the parts of requests, by name: each takes the value and the scan's shape, and returns the value."""


def _undo(review: ScanReview, _method: str) -> None:
    if not review.undo():
        raise MaskError("There is nothing to undo.")


def _redo(review: ScanReview, _method: str) -> None:
    if not review.redo():
        raise MaskError("There is nothing to redo.")


_ACTIONS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "assign": (ScanReview.assign, ("lesions", "site")),
    "reject": (ScanReview.reject, ("lesions",)),
    "accept": (ScanReview.accept, ()),
    "reject-rest": (ScanReview.reject_unassigned, ()),
    "no-calcium": (lambda review, _method: review.set_no_calcium(), ()),
    "reviewed": (ScanReview.set_reviewed, ("on",)),
    "undo": (_undo, ()),
    "redo": (_redo, ()),
    "paint": (ScanReview.paint, ("points", "radius_mm", "flat", "label")),
    "pick": (ScanReview.pick, ("voxel", "site")),
    "cut": (ScanReview.cut, ("lesion", "point", "normal", "label")),
}
"""Method of the review for each action, and the parts of its requests in the order of the method's arguments."""
