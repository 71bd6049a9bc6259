"""The list of lesions, and the buttons and keys that change whose they are."""

# Qt's names.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from . import table_widgets
from .widgets import SITE_KEYS, colourIcon

if TYPE_CHECKING:
    from ..core.labels import Site

TITLES = ("No", "Artery", "Slices", "Peak\nHU", "Area ×\nweight mm²", "Volume\nmm³")
_ARTERY_COLUMN = TITLES.index("Artery")


@dataclass(frozen=True)
class LesionLine:
    """One row.

    artery: short name of its site. colour: RGB. suggestion: short name of the site that is shown, with a question mark,
    as long as no reader has given the lesion one; or empty. hint: shown when the pointer rests on the row.
    """

    id: int
    artery: str
    colour: tuple[int, int, int]
    slices: tuple[int, ...]
    peak_hu: float
    weighted_area_mm2: float
    volume_mm3: float
    mass: float
    hint: str = ""
    suggestion: str = ""


class LesionTable:
    """Fills a table widget with lesions.

    onSelected: called with a lesion's id when its row becomes current.
    """

    def __init__(self, table, onSelected: Callable[[int], None]) -> None:
        self._table = table
        self._onSelected = onSelected
        self._filling = False
        table_widgets.prepareRows(table)
        table.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        table.currentCellChanged.connect(self._currentChanged)
        table.cellClicked.connect(self._clicked)

    def show(self, lines: Sequence[LesionLine], massTitle: str) -> None:
        """List these lesions. The selection stays at the place where it was, so that a reader can go on downwards."""
        table = self._table
        row = table.currentRow()
        self._filling = True
        try:
            table.setSortingEnabled(False)
            titles = [_(title) for title in TITLES] + [massTitle]
            table.setColumnCount(len(titles))
            table.setHorizontalHeaderLabels(titles)
            table.setRowCount(len(lines))
            for number, line in enumerate(lines):
                self._fill(number, line)
            # Once, here: columns that fit themselves would be measured again with every cell.
            table.resizeColumnsToContents()
            table.setSortingEnabled(True)
            if lines and row >= 0:
                table.setCurrentCell(min(row, len(lines) - 1), 0)
        finally:
            self._filling = False

    def select(self, lesionId: int) -> None:
        """Make a lesion's row the current one without a jump."""
        self._filling = True
        try:
            for row in range(self._table.rowCount):
                if self._idOf(row) == lesionId:
                    self._table.setCurrentCell(row, 0)
        finally:
            self._filling = False

    @property
    def selected(self) -> list[int]:
        """Ids of the lesions whose rows are selected, from the top down."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        return [self._idOf(row) for row in rows]

    @property
    def current(self) -> int | None:
        row = self._table.currentRow()
        return self._idOf(row) if row >= 0 else None

    def _fill(self, row: int, line: LesionLine) -> None:
        first, last = line.slices[0], line.slices[-1]
        artery = f"{line.suggestion}?" if line.suggestion else line.artery
        values = (line.id, artery, f"{first}" if first == last else f"{first}–{last}", round(line.peak_hu))
        numbers = (line.weighted_area_mm2, line.volume_mm3, line.mass)
        values += tuple(round(n, 1) if n < 1000 else round(n) for n in numbers)
        for column, value in enumerate(values):
            item = qt.QTableWidgetItem()
            # A number as data, not as text, so that the table sorts by it.
            item.setData(qt.Qt.DisplayRole, value)
            item.setToolTip(line.hint)
            if column == _ARTERY_COLUMN:
                item.setIcon(colourIcon(line.colour))
            elif not isinstance(value, str):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._table.setItem(row, column, item)

    def _idOf(self, row: int) -> int:
        return int(self._table.item(row, 0).data(qt.Qt.DisplayRole))

    def _currentChanged(self, row: int, column: int, oldRow: int, oldColumn: int) -> None:
        if not self._filling and row >= 0 and row != oldRow:
            self._onSelected(self._idOf(row))

    def _clicked(self, row: int, column: int) -> None:
        # A click on the row that is current already jumps once more.
        if not self._filling:
            self._onSelected(self._idOf(row))


def siteButtons(arteries, elsewhere, table, onSite: Callable[[Site | None], None]) -> list:
    """A button for each artery and one to reject, and one for each site outside the arteries, with their keys: 1 to 5
    and X, and 6 to 9. After each button its shortcut.

    The keys work while the table has the keyboard, so that they mean nothing else elsewhere.
    arteries, elsewhere: layouts of the buttons. onSite: called with the site, or None to reject.
    """
    from ..core.labels import Artery, site_called
    from ..report.pictures import SITE_COLOURS

    sites = {key: site_called(name) for key, name in SITE_KEYS.items()}
    buttons = []
    for shortcutKey, site in (sites | {"X": None}).items():
        button = qt.QToolButton()
        button.setToolButtonStyle(qt.Qt.ToolButtonTextBesideIcon)
        button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        if site is None:
            button.setText(f"{shortcutKey} {_('reject')}")
            button.setObjectName("arteryRejectedButton")
            tip = _("Reject the selected lesions: they count nowhere (key {key} in the list).").format(key=shortcutKey)
        else:
            button.setText(f"{shortcutKey} {site.short_name}")
            button.setObjectName(f"artery{site.short_name}Button")
            button.setIcon(colourIcon(SITE_COLOURS[site]))
            tip = _("Assign the selected lesions to {site} (key {key} in the list).")
            tip = tip.format(site=site.full_name, key=shortcutKey)
        button.setToolTip(tip)
        button.clicked.connect(lambda *_args, site=site: onSite(site))
        (arteries if site is None or isinstance(site, Artery) else elsewhere).addWidget(button)
        shortcut = qt.QShortcut(table)
        shortcut.setKey(qt.QKeySequence(shortcutKey))
        shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        shortcut.activated.connect(lambda site=site: onSite(site))
        buttons += [button, shortcut]
    return buttons
