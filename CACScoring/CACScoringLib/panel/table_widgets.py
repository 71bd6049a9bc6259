"""Tables of the panels: read by rows, and as high as what they hold where they do not scroll."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Collection, Sequence

import qt
from slicer.i18n import tr as _

ROWS_AROUND = 3
"""Rows shown above and below the row that `scrollToRow` brings into sight, as far as there is room."""

_LEAST_LETTERS = 5
_MOST_LETTERS = 28
"""Of a name; longer ones are elided."""


def prepareTable(table) -> None:
    """A table that is only read."""
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.setSelectionMode(qt.QAbstractItemView.NoSelection)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 4)


def prepareRows(table) -> None:
    """A table one of whose rows is chosen."""
    prepareTable(table)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setAlternatingRowColors(True)
    table.setTabKeyNavigation(False)
    table.setWordWrap(False)
    table.horizontalHeader().setHighlightSections(False)


def prepareColumns(table, titles: Sequence[str], letters: Sequence[int]) -> None:
    """The same, with columns of set widths. letters: widths of all but the last, which takes the rest."""
    prepareRows(table)
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels([_(title) for title in titles])
    # Names of scans differ at their ends.
    table.setTextElideMode(qt.Qt.ElideMiddle)
    table.horizontalHeader().setStretchLastSection(True)
    letter = table.fontMetrics().horizontalAdvance("n")
    # The last one is stretched, but never made narrower than it was.
    for column, count in enumerate([*letters, _LEAST_LETTERS]):
        table.setColumnWidth(column, count * letter)


def fillRow(table, row: int, texts: Sequence[str], numbers: Collection[int] = (), hint: str | None = None) -> None:
    """Write a row's cells; the first column grows with its text.

    numbers: columns that are aligned to the right. hint: of the row; None for each its text.
    """
    letter = table.fontMetrics().horizontalAdvance("n")
    width = min(table.fontMetrics().horizontalAdvance(texts[0]) + letter, _MOST_LETTERS * letter)
    table.setColumnWidth(0, max(width, table.columnWidth(0)))
    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(text if hint is None else hint)
        if column in numbers:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.setItem(row, column, item)


def hideEmptyColumns(table) -> None:
    """Leave the room of columns that are empty in all rows to the others."""
    rows = range(table.rowCount)
    for column in range(1, table.columnCount):
        table.setColumnHidden(column, bool(rows) and not any(table.item(row, column).text() for row in rows))


def fillTable(table, titles: Sequence[str], rows: Sequence[Sequence[str]], hints: Sequence[str] | None = None) -> None:
    """Write a whole table, numbers in all columns but the first, and show all of it. hints: of the rows."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        fillRow(table, row, texts, range(1, len(texts)), "" if hints is None else hints[row])
    table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    fitColumns(table)


def fitColumns(table, stretched: int | None = None) -> None:
    """Make columns as wide as what they hold, and the table as high as its rows.

    stretched: number of the column that takes the rest of the width, or gives way where there is not enough.
    """
    table.resizeColumnsToContents()
    if stretched is not None:
        table.horizontalHeader().setSectionResizeMode(stretched, qt.QHeaderView.Stretch)
    fitHeight(table)


def scrollToRow(table, row: int) -> None:
    """Bring a row of a table that shows all its rows into sight, in the scroll area around it."""
    area = table.parentWidget()
    while area is not None and not area.inherits("QScrollArea"):
        area = area.parentWidget()
    if area is None or not table.visible:
        return
    rect = table.visualItemRect(table.item(row, 0))
    place = table.viewport().mapTo(area.widget(), rect.center())
    around = min(ROWS_AROUND * rect.height(), area.viewport().height // 2 - rect.height())
    area.ensureVisible(0, place.y(), 0, around)


def fitHeight(table, rows: int | None = None) -> None:
    """Show so many rows, with the scroll bar below them where there is one. rows: None for all."""
    header = table.horizontalHeader()
    rows = table.rowCount if rows is None else rows
    height = header.sizeHint.height() + rows * table.verticalHeader().defaultSectionSize
    if header.length() > table.viewport().width:
        height += table.horizontalScrollBar().sizeHint.height()
    table.setFixedHeight(height + 2 * table.frameWidth)
