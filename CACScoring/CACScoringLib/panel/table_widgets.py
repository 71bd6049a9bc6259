"""Helpers for the panels' tables, which show all rows or scroll."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Collection, Sequence

import qt
from slicer.i18n import tr as _

MIN_STRETCHED = 64
"""Width in pixels from which a column shortens its texts rather than push the last column out of sight."""


def prepareTable(table) -> None:
    """Prepare a table that can only be read."""
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.setSelectionMode(qt.QAbstractItemView.NoSelection)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 4)


def prepareRows(table) -> None:
    """Prepare a table in which the user selects a row."""
    prepareTable(table)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setAlternatingRowColors(True)
    table.setTabKeyNavigation(False)
    table.setWordWrap(False)
    table.horizontalHeader().setHighlightSections(False)


def prepareColumns(table, titles: Sequence[str], letters: Sequence[int]) -> None:
    """Prepare a table with columns of fixed widths.

    Args:
        table: The table.
        titles: Titles of the columns.
        letters: Widths in letters of all columns but the first, which is stretched, so that none is out of sight.
    """
    prepareRows(table)
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels([_(title) for title in titles])
    # Names of scans often differ only at their ends.
    table.setTextElideMode(qt.Qt.ElideMiddle)
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    letter = table.fontMetrics().horizontalAdvance("n")
    for column, count in enumerate(letters, 1):
        table.setColumnWidth(column, count * letter)


def fillRow(table, row: int, texts: Sequence[str], numbers: Collection[int] = (), hint: str | None = None) -> None:
    """Write a row's cells.

    Args:
        table: The table.
        row: Number of the row.
        texts: Texts of the cells.
        numbers: Columns that are aligned to the right.
        hint: Tooltip of the row; None to repeat each cell's text.
    """
    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(text if hint is None else hint)
        if column in numbers:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.setItem(row, column, item)


def hideEmptyColumns(table) -> None:
    """Hide columns that are empty in all rows."""
    rows = range(table.rowCount)
    for column in range(1, table.columnCount):
        table.setColumnHidden(column, bool(rows) and not any(table.item(row, column).text() for row in rows))


def fillTable(table, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table, with numbers in all columns but the first, and show all of it."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        fillRow(table, row, texts, range(1, len(texts)), "")
    table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    fitColumns(table)


def fitColumns(table, stretched: int | None = None) -> None:
    """Make columns as wide as their contents, and the table as high as its rows.

    stretched: number of the column that takes up the remaining width, as long as that is MIN_STRETCHED.
    """
    header = table.horizontalHeader()
    if stretched is not None:
        header.setSectionResizeMode(stretched, qt.QHeaderView.Interactive)
    table.resizeColumnsToContents()
    other_columns = header.length() - (0 if stretched is None else header.sectionSize(stretched))
    if stretched is not None and other_columns + MIN_STRETCHED <= table.viewport().width:
        header.setSectionResizeMode(stretched, qt.QHeaderView.Stretch)
    fitHeight(table)


def scrollAreaAround(widget):
    """Return the scroll area that a widget lies in; None if there is none or the widget is hidden."""
    area = widget.parentWidget() if widget.visible else None
    while area is not None and not area.inherits("QScrollArea"):
        area = area.parentWidget()
    return area


def fitHeight(table, rows: int | None = None) -> None:
    """Fix a table's height to a number of rows, plus the horizontal scroll bar if needed. rows: None for all."""
    header = table.horizontalHeader()
    rows = table.rowCount if rows is None else rows
    height = header.sizeHint.height() + rows * table.verticalHeader().defaultSectionSize
    if header.length() > table.viewport().width:
        height += table.horizontalScrollBar().sizeHint.height()
    table.setFixedHeight(height + 2 * table.frameWidth)
