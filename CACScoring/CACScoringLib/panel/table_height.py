"""Tables that are as high as what they hold."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations


def fitHeight(table, rows: int | None = None) -> None:
    """Show so many rows, with the scroll bar below them where there is one. rows: None for all."""
    header = table.horizontalHeader()
    rows = table.rowCount if rows is None else rows
    height = header.sizeHint.height() + rows * table.verticalHeader().defaultSectionSize
    if header.length() > table.viewport().width:
        height += table.horizontalScrollBar().sizeHint.height()
    table.setFixedHeight(height + 2 * table.frameWidth)
