"""The reference of Python: in the repository a table of names with the first sentence of each, on the site all."""

from __future__ import annotations

import importlib
import inspect

from command_tables import cell


def names_as_markdown(names: str) -> str:
    """Return a table of functions and classes. names: Their full names, separated by spaces or lines."""
    rows = []
    for name in names.split():
        module, _, own = name.rpartition(".")
        told = inspect.getdoc(getattr(importlib.import_module(module), own)) or ""
        rows.append(f"| `{own}` | {cell(told.partition(chr(10) * 2)[0])} |")
    return "\n".join(["| name | what it is or does |", "|---|---|", *rows])


def names_for_site(names: str) -> str:
    """Return the same as directives of mkdocstrings."""
    return "\n".join(f"::: {name}" for name in names.split())
