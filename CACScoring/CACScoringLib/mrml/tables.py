"""Table nodes of scores, lesions and slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkIntArray, vtkStringArray

from ..record.columns import COLUMNS, SCENE, Column, Row, lesion_rows, score_rows
from ..record.score_record import ScoreRecord
from .scene_content import SliceRow

Table = tuple[Sequence[Column], list[Row]]
"""Columns and rows."""

_ARRAYS: dict[str, Any] = {"double": vtkDoubleArray, "int32": vtkIntArray, "string": vtkStringArray}
_MISSING = {"double": float("nan"), "string": ""}

_SLICES = (
    Column("k", "Slice", kind="int32"),
    Column("position_mm", "Position", "mm"),
    Column("probability", "Probability"),
    Column("used", "Used", kind="int32"),
    Column("decomposed", "Decomposed", kind="int32"),
)


def score_table(record: ScoreRecord) -> Table:
    """Return scores by method and artery from a record, non-coronary scores last."""
    return _table("scores", list(score_rows(record.methods, record.non_coronary)))


def lesion_table(record: ScoreRecord) -> Table:
    """Return lesions from a record, including left-out and non-coronary lesions."""
    return _table("lesions", list(lesion_rows(record.methods, record.outside)))


def _table(name: str, rows: list[Row]) -> Table:
    # Without a calibration there is no mass, and an empty column could be mistaken for an error.
    has_mass = any(row["mass_mg"] is not None for row in rows)
    return [COLUMNS[column] for column in SCENE[name] if column != "mass_mg" or has_mass], rows


def slice_table(rows: Sequence[SliceRow]) -> Table:
    """Return the slices of a calcium map."""
    marks = ("used", "decomposed")
    return _SLICES, [
        {**vars(row), "position_mm": row.position_ras[2], **{mark: int(getattr(row, mark)) for mark in marks}}
        for row in rows
    ]


def add_table(scene: slicer.vtkMRMLScene, name: str, table: Table) -> slicer.vtkMRMLTableNode:
    """Make a table node that users cannot edit."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    fill_table(node, table)
    return node


def fill_table(node: slicer.vtkMRMLTableNode, table: Table) -> None:
    """Replace all columns of a table."""
    columns, rows = table
    modifying = node.StartModify()  # one event alone, which every node selector follows
    node.SetLocked(False)
    node.RemoveAllColumns()
    for column in columns:
        array = _ARRAYS[column.kind]()
        array.SetName(column.title)
        for row in rows:
            value = row.get(column.name)
            array.InsertNextValue(_MISSING[column.kind] if value is None else value)
        node.AddColumn(array)
        unit = f" ({column.readable_unit})" if column.readable_unit else ""
        node.SetColumnTitle(column.title, column.title + unit)
        if column.unit:
            node.SetColumnUnitLabel(column.title, column.unit)
    node.SetLocked(True)
    node.EndModify(modifying)
