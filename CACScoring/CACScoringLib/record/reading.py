"""Reading of `scores.json`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..core.decoding import restore
from ..core.errors import CTError, UnreadableError, WrongValueError
from ..core.files import LAST_FILE, SCHEMA, parse_json, read_file
from .score_record import ScoreRecord


def read_result(folder: Path | str) -> ScoreRecord:
    """Read the `scores.json` of a result.

    Args:
        folder: Folder that `cac score` wrote, or the file.

    Raises:
        UnreadableError: It is missing, damaged, or of another schema.

    Examples:
        >>> cac.score("ct.nrrd", threshold_only=True).write("scored")
        >>> record = cac.read_result("scored")
        >>> record.methods["threshold"].status, record.input.size
        ('candidates', (240, 240, 54))
    """
    path = Path(folder)
    file = path / LAST_FILE if path.is_dir() else path
    try:
        text = read_file(file)
    except OSError as error:
        message = f"{path} holds no readable result ({error}). Give a results folder of cac score."
        raise UnreadableError(message) from error
    return record_from_text(text, str(file))


def is_result(path: Path) -> bool:
    """True if a path is a result rather than a CT."""
    return path.name == LAST_FILE or (path / LAST_FILE).is_file()


@lru_cache(maxsize=2)
def record_from_text(text: str | bytes, name: str) -> ScoreRecord:
    """Read the text of a `scores.json`. name: What messages call it. Raises as `read_result`."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UnreadableError(f"{name} holds no readable result ({error}). Score the scan again.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UnreadableError(f"{name} is of schema {schema!r}, not {SCHEMA}. Score the scan again with this version.")
    return record_from(content, name)


def record_from(content: object, name: str) -> ScoreRecord:
    """Read the content of a `scores.json`. name: What messages call it. Raises UnreadableError if it is damaged."""
    try:
        return restore(content, ScoreRecord)
    except WrongValueError as wrong:
        raise UnreadableError(f"{name} is damaged: it has no valid {wrong}. Score the scan again.") from None
    except CTError as error:  # of rules that contradict each other
        raise UnreadableError(f"{name} is damaged: {error} Score the scan again.") from None
