"""Table of lesions."""

# Qt's names.
# ruff: noqa: N802, N803

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..core.labels import SITE_COLOURS, Artery
from ..record.columns import COLUMNS, MENU, PANEL, Column, lesion_cells
from .lifecycle import Signal
from .widgets import InSight, colourIcon, faintColour, fitColumns, fitHeight, prepareRows, scrollAreaAround

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

    from ..record.findings import LesionFeatures
    from ..record.scores import Lesion
    from ..review.review import Review
    from ..review.scene import SceneReview

MIN_ROWS = 6
AROUND_PIXELS = 300
"""Rows in sight on the smallest screen, and height of the panel's scrolled part that a larger list leaves to the rest.
A longer list scrolls below its titles."""

_ALWAYS_COLUMNS = [COLUMNS[name] for name in PANEL]
_FEATURES = {name: COLUMNS[name] for name in MENU}
_COLUMNS = [*_ALWAYS_COLUMNS, *_FEATURES.values()]
_ARTERY_COLUMN, _PROBABILITY_COLUMN = PANEL.index("artery"), PANEL.index("probability")

_SHOWN_SETTING = "CACScoring/lesionFeatures"


@dataclass(frozen=True)
class LesionLine:
    """One row.

    Attributes:
        id: The lesion's ID.
        cells: Values of the columns of `PANEL` and those chosen from the menu, in the order of the table.
        colour: RGB of the site.
        hint: Tooltip of the row.
        probability: Probability of being coronary calcium; None if it was not evaluated.
        left_out: True if the lesion does not count.
        doubtful: True if no reader has decided about it and the networks are not certain either.
    """

    id: int
    cells: tuple[object, ...]
    colour: tuple[int, int, int]
    hint: str
    probability: float | None
    left_out: bool
    doubtful: bool


def lesionLines(review: SceneReview, method: str, features: bool = False) -> list[LesionLine]:
    """Return the rows of a method's lesions. features: False to leave the cells of features empty.

    The lesion that decides the score comes first; then those that count, those left out of the score, and those outside
    the coronary arteries, each sorted by what a decision about them changes (`doubt.impact`). Rows without a
    probability come first within their group, those in the heart before others.
    """
    from ..report.explanation import explanation, gaps_mm  # needs packages that the panel loads without
    from ..scoring.doubt import impact

    result, counted, left_out = review.result(method), review.lesions(method), review.left_out(method)
    lesions = (*counted, *left_out)
    groups = {lesion.id: 0 if isinstance(lesion.site, Artery) else 2 for lesion in counted}
    groups |= {lesion.id: 1 for lesion in left_out}
    measured = review.features(method) if features else None
    by_id = {} if measured is None else {lesion.id: lesion for lesion in measured.lesions}
    gaps = gaps_mm(result.lesion_set.every, review.scan.image.GetSpacing())
    lines = [
        _line(
            review.review(method),
            lesion,
            by_id.get(lesion.id),
            " ".join(explanation(lesion, result, review.record, lesions, gaps)),
        )
        for lesion in lesions
    ]
    changes = {lesion.id: impact(result, lesion) for lesion in lesions}
    heart, image = review.review(method).facts.region.mask, review.scan.image
    is_outside = {lesion.id: not _isIn(heart, image, lesion.centroid_ras_mm) for lesion in lesions}

    def place(line: LesionLine) -> tuple[float, ...]:
        unknown, decides = line.probability is None, math.isinf(changes[line.id])
        place_in_group = is_outside[line.id] if unknown else -changes[line.id]
        return not decides, groups[line.id], not unknown, place_in_group

    return sorted(lines, key=place)


def _isIn(mask: np.ndarray, image: sitk.Image, positionRAS: Sequence[float]) -> bool:
    """Return True if a position in mm lies within a mask, [k, j, i], on an image's grid."""
    right, anterior, superior = positionRAS
    index = image.TransformPhysicalPointToIndex((-right, -anterior, superior))[::-1]
    return all(0 <= n < size for n, size in zip(index, mask.shape, strict=True)) and bool(mask[index])


def _line(review: Review, lesion: Lesion, features: LesionFeatures | None, hint: str) -> LesionLine:
    """Return a lesion's row. review: of the lesion's method. features: None if they are unknown."""
    from ..scoring.doubt import MAX_ERROR

    verdict, coronary = lesion.verdict, isinstance(lesion.site, Artery)
    probability, site = review.probability_of(lesion), review.suggested_site(lesion)
    # A site elsewhere that a reader has confirmed is no longer left out.
    out = verdict is not None and not verdict.counts and (coronary or site is not None)
    if verdict is not None and out:
        site = None if verdict.artery == Artery.UNASSIGNED else verdict.artery
    # A question mark follows a site that no reader has confirmed.
    artery = lesion.site.short_name if site is None else f"{site.short_name}?"
    if out:
        artery = _("{artery} out").format(artery=artery)
    cells = lesion_cells(lesion, features=features) | {"artery": artery, "probability": probability}
    values = tuple(column.rounded(cells.get(column.name)) for column in _COLUMNS)
    certain = probability is not None and (probability if out else 1 - probability) <= MAX_ERROR
    doubtful = (
        (coronary or out)
        and not review.reviewed
        and not certain
        and (out or site is not None or lesion.site == Artery.UNASSIGNED)
    )
    return LesionLine(lesion.id, values, SITE_COLOURS[lesion.site], hint, probability, out, doubtful)


class LesionTableView:
    """Table widget with one lesion in a row.

    Attributes:
        lines: Lines as they are listed while no column sorts them.
        chosen: Signal with the ID of the lesion whose row the user makes current or clicks.
        featuresChosen: Signal after the user showed or hid a column of features.
    """

    def __init__(self, table) -> None:
        self._table = table
        self.chosen, self.featuresChosen = Signal(), Signal()
        self._filling = False
        self.lines: list[LesionLine] = []
        self._inSight = InSight(table)
        prepareRows(table)
        table.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        # Unsorted until the user sorts by a column.
        table.horizontalHeader().setSortIndicator(-1, qt.Qt.AscendingOrder)
        self._actions = {name: self._addAction(name, column) for name, column in _FEATURES.items()}
        table.currentCellChanged.connect(self._currentChanged)
        table.cellClicked.connect(self._clicked)

    def _addAction(self, feature: str, column: Column):
        """Add a feature to the menu of the header, checked if its column was shown last."""
        header = self._table.horizontalHeader()
        header.setContextMenuPolicy(qt.Qt.ActionsContextMenu)
        action = qt.QAction(_(column.menu), header)
        action.setCheckable(True)
        action.setChecked(feature in qt.QSettings().value(_SHOWN_SETTING, "").split(","))
        action.toggled.connect(lambda checked: self._chooseFeatures())
        header.addAction(action)
        return action

    def _chooseFeatures(self) -> None:
        qt.QSettings().setValue(_SHOWN_SETTING, ",".join(self.features))
        self.featuresChosen.emit()

    @property
    def features(self) -> list[str]:
        """Features whose columns are shown."""
        return [name for name, action in self._actions.items() if action.checked]

    def show(self, lines: Sequence[LesionLine]) -> None:
        """List lesions. Selected ones stay so; if the current lesion is gone, the one in its row becomes current."""
        table, current, row, selected = self._table, self.current, self._table.currentRow(), self.selected
        self._filling = True
        try:
            table.setSortingEnabled(False)
            table.setColumnCount(len(_COLUMNS))
            table.setHorizontalHeaderLabels([_(column.narrow_title) for column in _COLUMNS])
            hints = [_(column.menu or "Right-click for further columns.") for column in _COLUMNS]
            hints[_PROBABILITY_COLUMN] = _("Probability that it is coronary calcium, by the lesion network, %.")
            for number, hint in enumerate(hints):
                table.horizontalHeaderItem(number).setToolTip(hint)
            table.setRowCount(len(lines))
            faint = qt.QBrush(faintColour(table))
            listed = self.lines if table.horizontalHeader().sortIndicatorSection() < 0 else []
            for number, line in enumerate(lines):
                if listed[number : number + 1] != [line]:
                    self._fill(number, line, faint)
            self.lines = list(lines)
            table.setColumnHidden(_PROBABILITY_COLUMN, all(line.probability is None for line in lines))
            for number, action in enumerate(self._actions.values(), len(_ALWAYS_COLUMNS)):
                table.setColumnHidden(number, not action.checked)
            # Columns that resize to their contents by themselves would be measured again with every cell.
            fitColumns(table, stretched=_ARTERY_COLUMN)
            self._fitHeight()
            table.setSortingEnabled(True)
            if lines and row >= 0:
                current_row = self._rowOf(current)
                self._choose(min(row, len(lines) - 1) if current_row is None else current_row)
                self._extend(selected if current_row is not None else [])
        finally:
            self._filling = False

    def showLesion(self, lesionId: int | None) -> int | None:
        """Make a lesion's row current, or the first row if the lesion is not listed, in sight. Return its ID."""
        self._fitHeight()
        self._inSight.start()
        if not self._table.rowCount:
            return None
        self._filling = True
        try:
            self._choose(self._rowOf(lesionId) or 0)
        finally:
            self._filling = False
        return self.current

    def _fitHeight(self) -> None:
        table, area = self._table, scrollAreaAround(self._table)
        room = 0 if area is None else area.viewport().height - AROUND_PIXELS
        rows = max(MIN_ROWS, room // table.verticalHeader().defaultSectionSize)
        fitHeight(table, min(rows, table.rowCount))

    def cleanup(self) -> None:
        """Release the panel's scroll bar."""
        self._inSight.cancel()

    def _choose(self, row: int) -> None:
        """Select this row alone, even while modifier keys are held, with which Qt would extend the selection."""
        selection = qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows
        self._table.setCurrentCell(row, 0, selection)

    def _extend(self, lesionIds: Sequence[int]) -> None:
        """Select the rows of further lesions, as far as they are listed."""
        model, selection = self._table.model(), qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
        for row in [self._rowOf(lesionId) for lesionId in lesionIds]:
            if row is not None:
                self._table.selectionModel().select(model.index(row, 0), selection)

    @property
    def following(self) -> int | None:
        """ID of the lesion in the row below those selected; None below the last."""
        row = max((index.row() for index in self._table.selectionModel().selectedRows()), default=-1) + 1
        return self._idOf(row) if 0 < row < self._table.rowCount else None

    @property
    def selected(self) -> list[int]:
        """IDs of the lesions whose rows are selected, from the top down."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        return [self._idOf(row) for row in rows]

    @property
    def listed(self) -> list[int]:
        """IDs of all lesions, from the top down."""
        return [self._idOf(row) for row in range(self._table.rowCount)]

    @property
    def current(self) -> int | None:
        row = self._table.currentRow()
        return self._idOf(row) if row >= 0 else None

    def _fill(self, row: int, line: LesionLine, faint) -> None:
        for column, value in enumerate(line.cells):
            item = qt.QTableWidgetItem()
            # Numbers are set as data rather than text, so that the table sorts by value.
            item.setData(qt.Qt.DisplayRole, value)
            item.setToolTip(line.hint)
            if line.left_out:
                item.setForeground(faint)
            if column == _ARTERY_COLUMN:
                item.setIcon(colourIcon(line.colour))
            elif not isinstance(value, str):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._table.setItem(row, column, item)

    def _rowOf(self, lesionId: int | None) -> int | None:
        return next((row for row in range(self._table.rowCount) if self._idOf(row) == lesionId), None)

    def _idOf(self, row: int) -> int:
        return int(self._table.item(row, 0).data(qt.Qt.DisplayRole))

    def _currentChanged(self, row: int, column: int, oldRow: int, oldColumn: int) -> None:
        if not self._filling and row >= 0 and row != oldRow:
            self.chosen.emit(self._idOf(row))

    def _clicked(self, row: int, column: int) -> None:
        # A click on the current row jumps to its lesion again.
        if not self._filling:
            self.chosen.emit(self._idOf(row))
