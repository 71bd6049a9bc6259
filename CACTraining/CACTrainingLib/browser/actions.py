"""Check and carry out the actions of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from CACScoringLib.core.decoding import decoded
from CACScoringLib.core.errors import MaskError, RefusedError, WrongValueError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, NonCoronary
from CACScoringLib.review.scan_review import ScanReview

MAX_LESIONS, MAX_POINTS = 5000, 500
MAX_RADIUS_MM = 50.0
MAX_SECONDS = 24 * 3600.0

ASSIGNABLE_SITES = (*(a for a in Artery if a != Artery.UNASSIGNED), *NonCoronary)
"""Sites to which a reader may assign calcium."""


@dataclass(frozen=True)
class Request:
    """Checked request.

    Attributes:
        action: Name of the action.
        method: Scoring method that it changes.
        version: Version of the review that the reader saw.
        seconds: Time spent by the reader since the last request.
        parts: Values of the action, by name.
        looked_at: IDs of lesions shown to the reader since the last request, by method.
    """

    action: str
    method: str
    version: int
    seconds: float
    parts: dict[str, Any]
    looked_at: dict[str, list[int]] = field(default_factory=dict)

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
    looked_at = checked("looked_at", content.get("looked_at", {}))
    if content.keys() - {"looked_at"} != {"action", "method", "version", "seconds", *names}:
        raise RefusedError(f"The request {action} has other parts than method, version, seconds and its own.")
    method = content["method"]
    if not isinstance(method, str) or method not in methods:
        raise RefusedError(f"method is none of {', '.join(methods)}.")
    version, seconds, *parts = (checked(name, content[name], shape) for name in ("version", "seconds", *names))
    return Request(action, method, version, seconds, dict(zip(names, parts, strict=True)), looked_at)


def carry_out(review: ScanReview, request: Request) -> None:
    """Carry out a request. Raises MaskError if it cannot be done."""
    _ACTIONS[request.action][0](review, request.method, *request.parts.values())


def checked(name: str, value: object, shape: tuple[int, ...] = ()) -> Any:
    """Check a part of a request, one of _PARTS. shape: Shape of the scan, [k, j, i]. Raises RefusedError."""
    kind, is_allowed = _PARTS[name]
    try:
        part = decoded(value, kind, name)
    except WrongValueError as wrong:
        raise RefusedError(f"The request has no valid {wrong}.") from None
    if not is_allowed(part, shape):
        raise RefusedError(f"{name} of the request is out of range.")
    return part


def _is_lesion(number: int, _shape: tuple[int, ...]) -> bool:
    return 1 <= number < 2**16


def _is_within(point: tuple[float, ...], shape: tuple[int, ...]) -> bool:
    return all(-0.5 <= n <= size - 0.5 for n, size in zip(point, shape, strict=True))


Point = tuple[float, float, float]

_PARTS: dict[str, tuple[Any, Callable[[Any, tuple[int, ...]], bool]]] = {
    "version": (int, lambda version, shape: 0 <= version <= 2**31),
    "seconds": (float, lambda seconds, shape: 0 <= seconds <= MAX_SECONDS),
    "lesions": (list[int], lambda ids, shape: 0 < len(ids) <= MAX_LESIONS and all(_is_lesion(n, shape) for n in ids)),
    "lesion": (int, _is_lesion),
    "looked_at": (
        dict[str, list[int]],
        lambda ids, shape: all(
            len(part) <= MAX_LESIONS and all(_is_lesion(n, shape) for n in part) for part in ids.values()
        ),
    ),
    "site": (int, lambda label, shape: label in ASSIGNABLE_SITES),
    "label": (int, lambda label, shape: label in (0, NOT_CORONARY, *ASSIGNABLE_SITES)),
    "points": (
        list[Point],
        lambda points, shape: 0 < len(points) <= MAX_POINTS and all(_is_within(p, shape) for p in points),
    ),
    "point": (Point, _is_within),
    "normal": (Point, lambda normal, shape: any(normal) and all(abs(n) <= 1e4 for n in normal)),
    "voxel": (tuple[int, int, int], _is_within),
    "radius_mm": (float, lambda radius_mm, shape: 0.1 <= radius_mm <= MAX_RADIUS_MM),
    "flat": (bool, lambda on, shape: True),
    "on": (bool, lambda on, shape: True),
}
"""Type of each part of a request, and its range within a scan of this shape."""


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
    "no-calcium": (ScanReview.set_no_calcium, ()),
    "reviewed": (ScanReview.set_reviewed, ("on",)),
    "undo": (_undo, ()),
    "redo": (_redo, ()),
    "paint": (ScanReview.paint, ("points", "radius_mm", "flat", "label")),
    "pick": (ScanReview.pick, ("voxel", "site")),
    "cut": (ScanReview.cut, ("lesion", "point", "normal", "label")),
}
"""Method of the review for each action, and the parts of its requests in the order of the method's arguments."""
