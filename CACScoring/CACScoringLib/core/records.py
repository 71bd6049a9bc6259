"""The content of a `scores.json`: checked before it is used, and its labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .ct import Acquisition, CTError, ScanWarning, UnreadableError
from .files import LAST_FILE, SCHEMA
from .labels import Artery, NonCoronary
from .warning_codes import ADVICE_AFTER_REVIEW, SEVERE

_NUMBER, _NUMBER_OR_NONE, _TEXT_OR_NONE, _DICT_OR_NONE = (float, int), (float, int, None), (str, None), (dict, None)
_EACH = "*"
_MISSING = object()
_LARGEST_INTEGER = 2**31
"""Whole numbers are below it: sizes, counts and numbers of lesions."""

_SCORE = {
    "agatston": _NUMBER,
    "volume_mm3?": _NUMBER,
    "mass_mg?": _NUMBER_OR_NONE,
    "pseudo_mass_hu_mm3": _NUMBER,
    "lesions": (int,),
    "peak_hu?": _NUMBER_OR_NONE,
    "clinical_agatston": _NUMBER,
    "interval_90?": ([_NUMBER] * 2, None),
}
_ACQUISITION: dict[str, tuple[Any, ...]] = {
    f"{name}?": _TEXT_OR_NONE if "str" in str(kind) else _NUMBER_OR_NONE
    for name, kind in Acquisition.__annotations__.items()
}
_CATEGORIES = {
    "method": (str,),
    "risk_class?": _TEXT_OR_NONE,
    "cac_drs?": _TEXT_OR_NONE,
    "probabilities?": ({_EACH: _NUMBER}, None),
}
_RECORD = {
    "input": {"name": _TEXT_OR_NONE, "size": [(int,)] * 3, "spacing_mm": [_NUMBER] * 3},
    "acquisition": _ACQUISITION,
    "measured": ({"noise_hu?": _NUMBER_OR_NONE}, None),
    "heart": {"source": (str,)},
    "warnings": [{"code": (str,), "message": (str,), "severe?": (bool,)}],
    "rules": {_EACH: {_EACH: (float, int, str, list, None)}},
    "models": [{"network": (str,), "name": (str,)}],
    "methods": {
        _EACH: {
            "status": (str,),
            "reviewed": (bool,),
            "agatston_scale": _NUMBER_OR_NONE,
            "scaled_agatston?": _NUMBER_OR_NONE,
            "total": _SCORE,
            "arteries": {_EACH: _SCORE},
            "lesions?": [{**_SCORE, "id?": (int,), "artery?": (str,)}],
            "left_out?": [{}],
        }
    },
    "non_coronary?": ({f"{site.key}?": {"agatston": _NUMBER} for site in NonCoronary}, None),
    "categories?": (_CATEGORIES, None),
    "second_opinions?": {_EACH: {}},
    "seconds?": {_EACH: _NUMBER},
    "decomposition_settings?": _DICT_OR_NONE,
    "calibrated_on?": _DICT_OR_NONE,
}
"""Of a `scores.json`, what readers rely on: of each key the types that it may have; ? marks one that may be missing. A
list of one shape has any length."""


def read_result(path: Path) -> dict[str, Any]:
    """The content of a result's `scores.json`.

    Args:
        path: The folder that `cac score` wrote, or the file.

    Raises:
        UnreadableError: It is missing or cannot be read.
        CTError: The input cannot be used.
    """
    file = path / LAST_FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} holds no readable result ({error}). Give a results folder of cac score."
        raise UnreadableError(message) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CTError(f"{file} is not of schema {SCHEMA}. Score the scan again with this version.")
    check_record(content, str(file))
    return content


def is_result(path: Path) -> bool:
    """True if a path is a result rather than a CT."""
    return path.name == LAST_FILE or (path / LAST_FILE).is_file()


def check_record(content: object, name: str) -> None:
    """Raises UnreadableError where a `scores.json` is damaged. name: for the message."""
    if wrong := _first_wrong(content, _RECORD, "") if isinstance(content, dict) else "content":
        raise UnreadableError(f"{name} is damaged: it has no valid {wrong}. Score the scan again.")


def _first_wrong(value: Any, shape: Any, at: str) -> str:
    """Where a value first differs from its shape; empty where it does not."""
    if isinstance(shape, tuple):
        nested = next((one for one in shape if isinstance(one, dict | list)), None)
        if nested is None or value is None:
            return "" if _is_one_of(value, shape) else at
        return _first_wrong(value, nested, at)
    if not isinstance(value, type(shape)) or (isinstance(shape, list) and 1 < len(shape) != len(value)):
        return at
    inner = [(f"{at}[{n}]", one, shape[0]) for n, one in enumerate(value)] if isinstance(shape, list) else []
    for key, own in shape.items() if isinstance(shape, dict) else ():
        names = list(value) if key == _EACH else [key.rstrip("?")] * (key.rstrip("?") in value or key[-1] != "?")
        inner += [(f"{at}.{name}".lstrip("."), value.get(name, _MISSING), own) for name in names]
    return next(filter(None, (_first_wrong(one, own, place) for place, one, own in inner)), "")


def _is_one_of(value: object, types: tuple[Any, ...]) -> bool:
    if value is None or isinstance(value, bool):
        return None in types if value is None else bool in types
    kinds = tuple(one for one in types if isinstance(one, type))
    fits = abs(value) < _LARGEST_INTEGER if isinstance(value, int) else True
    return isinstance(value, kinds) and fits and not (isinstance(value, float) and not math.isfinite(value))


def with_severity(warnings: Iterable[ScanWarning], reviewed: bool) -> list[ScanWarning]:
    """Return warnings as severe as they are for a score.

    reviewed: True if a reader confirmed the score, so that warnings of automatic scores are not severe.
    """
    milder = ADVICE_AFTER_REVIEW if reviewed else {}
    return [replace(warning, severe=False) if warning.code in milder else warning for warning in warnings]


def stored_warnings(record: Mapping[str, Any]) -> list[ScanWarning]:
    """Warnings of a `scores.json`; another version may have made them."""
    return [
        ScanWarning(code=entry["code"], message=entry["message"], severe=entry.get("severe", entry["code"] in SEVERE))
        for entry in record["warnings"]
    ]


def severe_warnings(record: Mapping[str, Any], name: str) -> list[ScanWarning]:
    """Severe warnings of a `scores.json`, which every command that uses the score repeats.

    name: What messages call the scan.
    """
    reviewed = record["methods"].get("threshold", {}).get("reviewed", False)
    warnings = with_severity(stored_warnings(record), reviewed)
    return [replace(warning, message=f"{name}: {warning.message}") for warning in warnings if warning.severe]


def counted_labels(labels: np.ndarray, recorded: Mapping[str, Any]) -> np.ndarray:
    """The `Artery` labels of what a method counts, 0 elsewhere.

    Args:
        labels: Of `lesions.nii.gz` or `map_lesions.nii.gz`, uint8; the first also holds calcium outside the coronary
            arteries, and as UNASSIGNED what an automatic score leaves out.
        recorded: The method, as it stands there.
    """
    last = Artery.OTHER if recorded.get("left_out") else max(Artery)
    return np.where(labels <= last, labels, np.uint8(0))
