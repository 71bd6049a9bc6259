"""Tables of the panel: read by rows, one of which is chosen."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import qt
from slicer.i18n import tr as _

_LEAST_LETTERS = 5


def prepareTable(table, titles, letters) -> None:
    """Set a table up for reading by rows. letters: widths of all columns but the last, which takes the rest."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels([_(title) for title in titles])
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.setAlternatingRowColors(True)
    table.setTabKeyNavigation(False)
    table.setWordWrap(False)
    # Names of scans differ at their ends.
    table.setTextElideMode(qt.Qt.ElideMiddle)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    table.horizontalHeader().setHighlightSections(False)
    table.horizontalHeader().setStretchLastSection(True)
    letter = table.fontMetrics().horizontalAdvance("n")
    # The last one is stretched, but never made narrower than it was.
    for column, count in enumerate([*letters, _LEAST_LETTERS]):
        table.setColumnWidth(column, count * letter)


def fillRow(table, row: int, texts, rightAligned=()) -> None:
    """Write a row's cells. rightAligned: columns of numbers."""
    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(text)
        if column in rightAligned:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.setItem(row, column, item)
