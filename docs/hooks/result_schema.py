"""The JSON Schema of `scores.json`, from the dataclasses that read it."""

from __future__ import annotations

import json

from CACScoringLib.core.files import SCHEMA
from CACScoringLib.record.score_record import ScoreRecord

FILE = "scores.schema.json"
"""Name of the schema's file, beside the page that names it."""


def schema_as_json() -> str:
    """Return the schema; keys that it does not name are allowed."""
    import msgspec

    # Values of any type, such as settings.
    schema = msgspec.json.schema(ScoreRecord, schema_hook=lambda kind: {"description": "any value"})
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema}, indent=1)


def link_as_markdown() -> str:
    """Return the link to the schema's file."""
    return f"The [JSON Schema]({FILE}) of `scores.json` describes each value."
