"""The data dictionary of the tables, from their declared columns."""

from __future__ import annotations

from itertools import groupby

from command_tables import cell

from CACScoringLib.cohort.dictionary import HEAD, all_tables, dictionary


def dictionary_as_markdown() -> str:
    """Return a section with a table for each table."""
    lines = []
    for table, rows in groupby(dictionary(all_tables()), key=lambda row: row[0]):
        lines += ["", f"## `{table}`", "", f"| {' | '.join(HEAD[1:])} |", "|---" * len(HEAD[1:]) + "|"]
        lines += [f"| `{name}` | {' | '.join(map(cell, texts))} |" for _, name, *texts in rows]
    return "\n".join(lines)
