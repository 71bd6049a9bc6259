"""The JSON Schema of `scores.json`, from the dataclasses that read it."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from CACScoringLib.core.decoding import content_of
from CACScoringLib.core.files import SCHEMA
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import Lesion, MethodScore, NonCoronaryScore

FILE = "scores.schema.json"
"""Name of the schema's file, beside the page that names it."""

WRITTEN_OTHERWISE: dict[type, tuple[tuple[str, ...], dict[str, Any]]] = {
    ScoreRecord: (
        (),
        {"schema": str, "rules": dict[str, ScoringRules], "non_coronary": NonCoronaryScore | None},
    ),
    MethodScore: (
        ("rules", "non_coronary", "table"),
        {
            "lesions": tuple[Lesion, ...],
            "left_out": tuple[Lesion, ...],
            "reviewed": bool,
            "scaled_agatston": float | None,
            "agatston_scale": NoneType,
        },
    ),
    NonCoronaryScore: ((), {"lesion_list": tuple[Lesion, ...]}),
    Lesion: (
        ("site", "verdict"),
        {
            "artery": Artery,
            "site": NonCoronary,
            "suggested_artery": Artery,
            "confidence": float,
            "not_coronary_probability": float,
            "probability": float,
            "reason": str,
            "kinds": dict[str, float],
        },
    ),
}
"""Fields that are no keys, and keys that are no fields, of the dataclasses with a method `as_written`."""

_REQUIRED = {ScoreRecord: ["rules"]}

_TYPES = {str: "string", float: "number", int: "integer", bool: "boolean", NoneType: "null"}


def schema_as_json() -> str:
    """Return the schema; keys that it does not name are allowed."""
    kinds: dict[str, Any] = {}
    reference = _schema_of(ScoreRecord, kinds)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA}
    return json.dumps({**head, **reference, "$defs": kinds}, indent=1, ensure_ascii=False) + "\n"


def link_as_markdown() -> str:
    """Return the link to the schema's file."""
    return f"The [JSON Schema]({FILE}) of `scores.json` describes each value."


def _schema_of(kind: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type, as `core.decoding` reads it. kinds: Those of dataclasses, to which it adds."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [_schema_of(part, kinds) for part in parts]}
    if is_dataclass(kind):
        name = kind.__name__
        if name not in kinds:
            kinds[name] = {}
            kinds[name] |= _schema_of_dataclass(kind, kinds)
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(origin, type) and issubclass(origin, dict):
        return {"type": "object", "additionalProperties": _schema_of(parts[1], kinds)}
    if origin is list or (origin is tuple and parts[-1] is Ellipsis):
        return {"type": "array", "items": _schema_of(parts[0], kinds)}
    if origin is tuple:
        items = [_schema_of(part, kinds) for part in parts]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [content_of(label) for label in kind]}
    return {"type": _TYPES[kind]} if kind in _TYPES else {"description": "any value"}


def _schema_of_dataclass(kind: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    types, (unwritten, further) = get_type_hints(kind), WRITTEN_OTHERWISE.get(kind, ((), {}))
    keys = [f for f in fields(kind) if "in_memory" not in f.metadata and f.name not in unwritten]
    required = [f.name for f in keys if f.default is MISSING and f.default_factory is MISSING]
    properties = {f.name: _schema_of(types[f.name], kinds) for f in keys}
    properties |= {name: _schema_of(part, kinds) for name, part in further.items()}
    for field in keys:
        if field.default is not MISSING:
            properties[field.name] |= {"default": content_of(field.default)}
    about = {"title": kind.__name__, "description": inspect.getdoc(kind), "type": "object"}
    return {**about, "properties": properties, "required": required + _REQUIRED.get(kind, [])}
