"""Table nodes of scores, lesions and slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkIntArray, vtkStringArray

from ..record.score_record import ScoreRecord
from ..record.scores import Lesion, Score
from .scene_content import SliceRow


@dataclass(frozen=True)
class Column:
    """A table's column.

    Attributes:
        name: Name of the column.
        array: Empty array of the column's type.
        values: Values; None for an unknown number.
        unit: UCUM unit.
        title: Title shown instead of the name.
    """

    name: str
    array: Any
    values: Sequence[Any]
    unit: str = ""
    title: str = ""


def score_columns(record: ScoreRecord) -> list[Column]:
    """Return scores by method and artery from a record, non-coronary scores last."""
    rows: list[tuple[str, str, Score]] = []
    for method, result in record.methods.items():
        rows += [(method, artery.key, score) for artery, score in result.arteries.items()]
        rows.append((method, "total", result.total))
    if elsewhere := record.non_coronary:
        rows += [("non_coronary", site.key, score) for site, score in elsewhere.scores.items()]
    methods, arteries, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return [
        Column("Method", vtkStringArray(), methods),
        Column("Artery", vtkStringArray(), arteries),
        *_number_columns(scores),
        Column("Lesions", vtkIntArray(), [score.lesions for score in scores]),
    ]


def lesion_columns(record: ScoreRecord) -> list[Column]:
    """Return lesions from a record, including left-out and non-coronary lesions."""
    rows: list[tuple[str, Lesion]] = []
    for method, result in record.methods.items():
        rows += [(method, lesion) for lesion in result.lesions]
        rows += [(f"{method}_left_out", lesion) for lesion in result.left_out]
    if elsewhere := record.non_coronary:
        rows += [("non_coronary", lesion) for lesion in elsewhere.lesion_list]
    methods, lesions = zip(*rows, strict=True) if rows else ((), ())
    verdicts = [lesion.verdict for lesion in lesions]
    areas = [sum(part.area_mm2 * part.weight for part in lesion.components) for lesion in lesions]
    return [
        Column("Method", vtkStringArray(), methods),
        Column("Lesion", vtkIntArray(), [lesion.id for lesion in lesions]),
        Column("Artery", vtkStringArray(), [lesion.site.key for lesion in lesions]),
        Column("Slices", vtkStringArray(), [", ".join(map(str, lesion.slices)) for lesion in lesions]),
        Column("Area × weight", vtkDoubleArray(), areas, "mm2"),
        *_number_columns(lesions),
        Column("Suggested", vtkStringArray(), [verdict.artery.key if verdict else "" for verdict in verdicts]),
        Column("Confidence", vtkDoubleArray(), [verdict and verdict.confidence for verdict in verdicts]),
        Column(
            "Not coronary", vtkDoubleArray(), [verdict and verdict.not_coronary_probability for verdict in verdicts]
        ),
        Column("Left out", vtkStringArray(), [verdict.reason if verdict else "" for verdict in verdicts]),
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
        Column("Agatston", vtkDoubleArray(), _numbers(scores, "agatston"), "1", "Agatston (of the map: adjusted)"),
        Column("Volume", vtkDoubleArray(), _numbers(scores, "volume_mm3"), "mm3"),
        Column("Pseudo-mass", vtkDoubleArray(), _numbers(scores, "pseudo_mass_hu_mm3"), "[hnsf'U].mm3"),
        Column("Peak", vtkDoubleArray(), _numbers(scores, "peak_hu"), "[hnsf'U]"),
    ]
    # Without a calibration there is no mass, and an empty column could be mistaken for an error.
    if any(mass is not None for mass in _numbers(scores, "mass_mg")):
        columns.insert(2, Column("Mass", vtkDoubleArray(), _numbers(scores, "mass_mg"), "mg"))
    return columns


def _numbers(scores: Sequence[Score], key: str) -> list[float | None]:
    return [getattr(score, key) for score in scores]


def add_table(scene: slicer.vtkMRMLScene, name: str, columns: Iterable[Column]) -> slicer.vtkMRMLTableNode:
    """Make a table node that users cannot edit."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    fill_table(node, columns)
    node.SetLocked(True)
    return node


def fill_table(node: slicer.vtkMRMLTableNode, columns: Iterable[Column]) -> None:
    """Replace all columns of a table."""
    modifying = node.StartModify()  # one event alone, which every node selector follows
    node.SetLocked(False)
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
    node.SetLocked(True)
    node.EndModify(modifying)


_READABLE_UNITS = {"mm2": "mm²", "mm3": "mm³", "mm": "mm", "mg": "mg", "[hnsf'U]": "HU", "[hnsf'U].mm3": "HU·mm³"}
