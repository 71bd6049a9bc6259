"""Train a network with every combination of values of its settings, and list the validation of each (`--grid`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table, write_table
from CACScoringLib.core.text import OUTPUT, REPLACE, RESUME
from CACScoringLib.models.cards import read_card

from .settings import RunOptions


def combinations(grid: object) -> list[dict[str, Any]]:
    """Return every combination of the values in a grid: an object as of --settings, with a list for each value.

    Returns:
        Value by the dotted name of its setting, the last setting varying fastest.

    Raises:
        OutputError: A value is no list, or there is none.
    """
    choices = dict(_choices(grid, ""))
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _choices(grid: object, place: str) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(grid, Mapping) and grid:
        for name, value in grid.items():
            yield from _choices(value, f"{place}.{name}".lstrip("."))
    elif isinstance(grid, list) and grid and place:
        yield place, grid
    else:
        message = f"{place or 'The content'} of --grid needs a list of values, such as "
        raise OutputError(message + '{"identity_weight": [1, 10, 100]}. Correct it.')


def as_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted name as nested objects, as --settings has them."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        *places, last = name.split(".")
        reduce(lambda inner, place: inner.setdefault(place, {}), places, settings)[last] = value
    return settings


def train_grid(
    train: Callable[[RunOptions, Any, Progress], Path],
    options: RunOptions,
    trials: Sequence[tuple[Mapping[str, Any], Any]],
    progress: Progress,
) -> Path:
    """Train MODEL-1, MODEL-2 …, each with other settings, and list them in `MODEL.grid.csv`.

    The table has a row per model, with the values that were varied and the numbers of its validation; it grows with
    each training. Resumed, models that it has are kept, and the next goes on from its checkpoint.

    Args:
        train: Training of the network.
        options: Options of all trainings.
        trials: Varied values and whole settings of each.
        progress: Shows the trainings.

    Returns:
        Path of the table.

    Raises:
        CTError: A training failed.
        OutputError: There is an earlier grid that is not resumed, or one of its models has other values.
    """
    table = options.output.with_name(f"{options.name}.grid.csv")
    if table.exists() and not (options.resume or options.overwrite):
        raise OutputError(f"{table} exists already. Go on with {RESUME}, or choose {OUTPUT}{REPLACE}.")
    columns = ("model", *trials[0][0])
    lines = read_table(table).lines if options.resume and table.exists() else ()
    finished = {tuple(map(line.text, columns)) for line in lines}
    rows: list[dict[str, Any]] = []
    for number, (values, settings) in enumerate(trials, 1):
        row = {"model": f"{options.name}-{number}", **values}
        card = options.output.with_name(f"{row['model']}.json")
        if tuple("" if value is None else str(value) for value in row.values()) not in finished or not card.exists():
            card = train(replace(options, output=card.with_suffix("")), settings, progress)
        rows.append({**row, **dict(_numbers(read_card(card).validation, ""))})
        write_table(table, tuple(dict.fromkeys(column for row in rows for column in row)), rows)
    return table


def _numbers(content: Mapping[str, Any], place: str) -> Iterator[tuple[str, float]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{place}{name}.")
        elif isinstance(value, int | float):
            yield place + name, value
