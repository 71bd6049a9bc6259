"""Scores, lesions and slices as table nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import slicer
from vtkmodules.vtkCommonCore import vtkAbstractArray, vtkDoubleArray, vtkIntArray, vtkStringArray

from ..scoring.scores import Score
from .scene_content import LesionRow, ScoreRow, SliceRow


@dataclass(frozen=True)
class Column:
    """A table's column. values: None for a number that is not known. unit: UCUM. title: shown instead of the name."""

    name: str
    array: vtkAbstractArray
    values: Sequence
    unit: str = ""
    title: str = ""


def score_columns(rows: Sequence[ScoreRow]) -> list[Column]:
    return [
        Column("Method", vtkStringArray(), [row.method for row in rows]),
        Column("Artery", vtkStringArray(), [row.artery for row in rows]),
        *_number_columns([row.score for row in rows]),
        Column("Lesions", vtkIntArray(), [row.score.lesions for row in rows]),
    ]


def lesion_columns(rows: Sequence[LesionRow]) -> list[Column]:
    return [
        Column("Method", vtkStringArray(), [row.method for row in rows]),
        Column("Lesion", vtkIntArray(), [row.id for row in rows]),
        Column("Artery", vtkStringArray(), [row.artery for row in rows]),
        Column("Slices", vtkStringArray(), [", ".join(map(str, row.slices)) for row in rows]),
        Column("Area × weight", vtkDoubleArray(), [row.weighted_area_mm2 for row in rows], "mm2"),
        *_number_columns([row.score for row in rows]),
        Column("Suggested", vtkStringArray(), [row.suggested or "" for row in rows]),
        Column("Confidence", vtkDoubleArray(), [row.confidence for row in rows]),
        Column("Not coronary", vtkDoubleArray(), [row.not_coronary_probability for row in rows]),
        Column("Left out", vtkStringArray(), [row.reason for row in rows]),
    ]


def slice_columns(rows: Sequence[SliceRow]) -> list[Column]:
    return [
        Column("Slice", vtkIntArray(), [row.k for row in rows]),
        Column("Position", vtkDoubleArray(), [row.position_ras[2] for row in rows], "mm"),
        Column("Probability", vtkDoubleArray(), [row.probability for row in rows]),
        Column("Used", vtkIntArray(), [int(row.used) for row in rows]),
        Column("Decomposed", vtkIntArray(), [int(row.decomposed) for row in rows]),
    ]


def _number_columns(scores: Sequence[Score]) -> list[Column]:
    columns = [
        ("Agatston", [s.agatston for s in scores], "1"),
        ("Volume", [s.volume_mm3 for s in scores], "mm3"),
        ("Pseudo-mass", [s.pseudo_mass_hu_mm3 for s in scores], "[hnsf'U].mm3"),
        ("Peak", [s.peak_hu for s in scores], "[hnsf'U]"),
    ]
    # Without a calibration there is no mass, and an empty column would look like a failure.
    if any(s.mass_mg is not None for s in scores):
        columns.insert(2, ("Mass", [s.mass_mg for s in scores], "mg"))
    titles = {"Agatston": "Agatston (of the map: adjusted)"}
    return [Column(name, vtkDoubleArray(), values, unit, titles.get(name, "")) for name, values, unit in columns]


def add_table(scene: slicer.vtkMRMLScene, name: str, columns: Iterable[Column]) -> slicer.vtkMRMLTableNode:
    """Make a table node that a user cannot edit by hand."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    fill_table(node, columns)
    node.SetLocked(True)
    return node


def fill_table(node: slicer.vtkMRMLTableNode, columns: Iterable[Column]) -> None:
    """Replace all columns of a table."""
    node.SetLocked(False)
    modifying = node.StartModify()
    node.RemoveAllColumns()
    for column in columns:
        column.array.SetName(column.name)
        for value in column.values:
            column.array.InsertNextValue(float("nan") if value is None else value)
        node.AddColumn(column.array)
        title = column.title or column.name
        unit = f" ({_READABLE_UNITS[column.unit]})" if column.unit in _READABLE_UNITS else ""
        node.SetColumnTitle(column.name, title + unit)
        if column.unit:
            node.SetColumnUnitLabel(column.name, column.unit)
    node.EndModify(modifying)
    node.SetLocked(True)


_READABLE_UNITS = {"mm2": "mm²", "mm3": "mm³", "mm": "mm", "mg": "mg", "[hnsf'U]": "HU", "[hnsf'U].mm3": "HU·mm³"}
