"""Messages of the library for its Python interface: arguments replace command-line options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .ct import CTError
from .files import OutputError
from .text import without_options

_PYTHON_WORDS = {
    r"--heart MASK": "heart=MASK",
    r"--lesions": "lesions=LABELS",
    r"--reader(?: NAME)?": "reader=NAME",
    r"--kvp 120": "kvp=120",
    r"--allow-unusual": "allow_unusual=True",
    r"\(--series, or the column series of a table\)": "(cac.read_ct(path, series=UID))",
    r"(?:another|a folder with) --output": "another folder",
    r"--overwrite": "overwrite=True",
    r"--device cpu(?: or auto)?": 'device="cpu"',
}
"""Replacements in Python for patterns of command-line options."""


def in_python(message: str) -> str:
    """Return a message without options and commands; see `without_options`."""
    return without_options(message, _PYTHON_WORDS)


@contextmanager
def python_words() -> Iterator[None]:
    """Replace command-line options in error messages by Python arguments."""
    try:
        yield
    except (CTError, OutputError) as error:
        error.args = (in_python(str(error)),)
        raise
