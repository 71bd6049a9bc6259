"""Messages of the library in the words of its Python interface: arguments in place of options of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .ct import CTError
from .files import OutputError
from .text import without_options

_PYTHON_WORDS = {
    r"--heart MASK": "heart=MASK",
    r"--lesions": "lesions=LABELS",
    r"--allow-unusual": "allow_unusual=True",
    r"\(--series, or the column series of a table\)": "(cac.read_ct(path, series=UID))",
    r"(?:another|a folder with) --output": "another folder",
    r"--overwrite": "overwrite=True",
    r"--device cpu(?: or auto)?": 'device="cpu"',
}
"""Patterns of the command line's words, and what stands in Python for them."""


def in_python(message: str) -> str:
    """Return a message without options and commands; see `without_options`."""
    return without_options(message, _PYTHON_WORDS)


@contextmanager
def python_words() -> Iterator[None]:
    """Advise arguments of Python in errors, in place of options of the command line."""
    try:
        yield
    except (CTError, OutputError) as error:
        error.args = (in_python(str(error)),)
        raise
