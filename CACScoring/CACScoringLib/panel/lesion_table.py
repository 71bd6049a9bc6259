"""Table of lesions."""

# Qt's names.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..core.labels import SITE_COLOURS, Artery
from . import table_widgets
from .lifecycle import Signal
from .widgets import InSight, colourIcon, faintColour

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..record.features import LesionFeatures
    from ..record.scores import Lesion
    from ..review.scene import SceneReview

CERTAIN = 0.9
"""Probability of being coronary calcium, or of not being it, at or above which a lesion is not doubtful."""

MIN_ROWS = 6
AROUND_PIXELS = 300
"""Rows in sight on the smallest screen, and height of the panel's scrolled part that a larger list leaves to the rest.
A longer list scrolls below its titles."""

TITLES = ("No", "Artery", "Prob. %", "Agatston", "mm³", "HU", "Slices")
_ARTERY_COLUMN, _PROBABILITY_COLUMN = 1, 2


@dataclass(frozen=True)
class FeatureColumn:
    """Column of a feature, hidden until the user shows it from the header's menu.

    Attributes:
        title: Title of two lines, the second for the unit.
        name: Name in the menu.
        factor: Factor from the feature to the column's unit.
        decimals: Number of decimals.
    """

    title: str
    name: str
    factor: int = 1
    decimals: int = 0


FEATURES = {
    "ostium_mm": FeatureColumn("Ostium\nmm", "Distance from the ostium"),
    "length_mm": FeatureColumn("Length\nmm", "Length along the artery"),
    "in_proximal_third": FeatureColumn("Proximal\n%", "Share of the mass in the artery's proximal third", 100),
    "nearest_lesion_mm": FeatureColumn("Nearest\nmm", "Distance from the nearest lesion", decimals=1),
    "median_hu": FeatureColumn("Median\nHU", "Median HU"),
    "sphericity": FeatureColumn("Sphericity", "Sphericity", decimals=2),
    "slices": FeatureColumn("Slice\ncount", "Number of slices"),
}
"""Columns that follow those of `TITLES`, by feature."""

_SHOWN_SETTING = "CACScoring/lesionFeatures"


@dataclass(frozen=True)
class LesionLine:
    """One row.

    Attributes:
        id: The lesion's ID.
        cells: Values of the columns of `TITLES` and `FEATURES`.
        colour: RGB of the site.
        hint: Tooltip of the row.
        probability: Probability of being coronary calcium; None if it was not evaluated.
        left_out: True if the lesion does not count.
        coronary: True if it is, or may be, a coronary lesion, which a reader has to look at.
        doubtful: True if no reader has decided about it and the networks are not certain either.
    """

    id: int
    cells: tuple[object, ...]
    colour: tuple[int, int, int]
    hint: str
    probability: float | None
    left_out: bool
    coronary: bool
    doubtful: bool


def lesionLines(review: SceneReview, method: str, features: bool = False) -> list[LesionLine]:
    """Return the rows of a method's lesions. features: False to leave the cells of features empty.

    Lesions that count come first, then those left out of the score, then those outside the coronary arteries, each
    sorted by probability. Rows without a probability come first within their group, those in the heart before others.
    """
    counted, left_out = review.lesions(method), review.left_out(method)
    groups = {lesion.id: 0 if isinstance(lesion.site, Artery) else 2 for lesion in counted}
    groups |= {lesion.id: 1 for lesion in left_out}
    lines = [_line(review, method, lesion) for lesion in (*counted, *left_out)]
    measured = review.features(method) if features else None
    by_id = {} if measured is None else {lesion.id: lesion for lesion in measured.lesions}
    lines = [replace(line, cells=(*line.cells, *_featureCells(by_id.get(line.id)))) for line in lines]
    heart = review.review(method).heart
    far = {lesion.id: not _isIn(heart, lesion.centroid_ras_mm) for lesion in (*counted, *left_out)}

    def place(line: LesionLine) -> tuple[float, ...]:
        unknown = line.probability is None
        return groups[line.id], -1 if unknown else -line.probability, unknown and far[line.id]

    return sorted(lines, key=place)


def _isIn(mask: sitk.Image, positionRAS: Sequence[float]) -> bool:
    """Return True if a position in mm lies within a mask."""
    right, anterior, superior = positionRAS
    index = mask.TransformPhysicalPointToIndex((-right, -anterior, superior))
    return all(0 <= n < size for n, size in zip(index, mask.GetSize(), strict=True)) and bool(mask[index])


def _line(review: SceneReview, method: str, lesion: Lesion) -> LesionLine:
    """Return a lesion's row.

    Args:
        review: The review.
        method: Key of the scoring method.
        lesion: The lesion, with the verdict by which it counts or is left out.
    """
    method_review, verdict = review.review(method), lesion.verdict
    suggested = None if verdict is None or verdict.artery == Artery.UNASSIGNED else verdict
    out = verdict is not None and not verdict.counts
    probability, site = method_review.probability_of(lesion), method_review.suggested_site(lesion)
    hints = []
    if verdict is not None and out:
        site = None if suggested is None else suggested.artery
        hints.append(_("Left out of the score: {reason}.").format(reason=verdict.reason))
    if probability is not None:
        hints.append(_("Coronary calcium with {sure:.0%} by the networks' evidence.").format(sure=probability))
    if suggested is not None:
        hint = _("Its location suggests {artery} ({sure:.0%} if it is coronary).")
        hints.append(hint.format(artery=suggested.arteries, sure=suggested.confidence))
        if probability is None:
            hint = _("{elsewhere:.0%} of the calcium there is not coronary.")
            hints.append(hint.format(elsewhere=suggested.not_coronary_probability))
    elif site is not None:
        hints.append(_("Its location suggests {site}.").format(site=site.full_name))
    # A question mark follows a site that no reader has confirmed.
    artery = lesion.site.short_name if site is None else f"{site.short_name}?"
    if out:
        artery = _("out: {artery}").format(artery=artery)
    slices = f"{lesion.slices[0]}–{lesion.slices[-1]}" if len(lesion.slices) > 1 else f"{lesion.slices[0]}"
    sizes = (round(n, 1) if n < 1000 else round(n) for n in (lesion.clinical_agatston, lesion.volume_mm3))
    percent = "" if probability is None else round(100 * probability)
    cells = (lesion.id, artery, percent, *sizes, round(lesion.peak_hu), slices)
    certain = probability is not None and max(probability, 1 - probability) >= CERTAIN
    coronary = isinstance(lesion.site, Artery)
    doubtful = (
        coronary
        and not method_review.reviewed
        and not certain
        and (out or site is not None or lesion.site == Artery.UNASSIGNED)
    )
    hint = " ".join(hints)
    return LesionLine(lesion.id, cells, SITE_COLOURS[lesion.site], hint, probability, out, coronary, doubtful)


def _featureCells(features: LesionFeatures | None) -> list[object]:
    """Return the cells of FEATURES, empty where unknown."""
    values = [(getattr(features, name, None), column) for name, column in FEATURES.items()]
    return ["" if value is None else round(value * c.factor, c.decimals) for value, c in values]


class LesionTable:
    """Table widget with one lesion in a row.

    Attributes:
        chosen: Signal with the ID of the lesion whose row the user makes current or clicks.
        featuresChosen: Signal after the user showed or hid a column of features.
    """

    def __init__(self, table) -> None:
        self._table = table
        self.chosen, self.featuresChosen = Signal(), Signal()
        self._filling = False
        self._lines: list[LesionLine] = []
        """Lines as they are listed while no column sorts them."""
        self._inSight = InSight(table)
        table_widgets.prepareRows(table)
        table.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        # Unsorted until the user sorts by a column.
        table.horizontalHeader().setSortIndicator(-1, qt.Qt.AscendingOrder)
        self._actions = {name: self._addAction(name, column) for name, column in FEATURES.items()}
        table.currentCellChanged.connect(self._currentChanged)
        table.cellClicked.connect(self._clicked)

    def _addAction(self, feature: str, column: FeatureColumn):
        """Add a feature to the menu of the header, checked if its column was shown last."""
        header = self._table.horizontalHeader()
        header.setContextMenuPolicy(qt.Qt.ActionsContextMenu)
        action = qt.QAction(_(column.name), header)
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
        """List lesions. The current lesion stays current; if it is gone, the lesion in its row becomes current."""
        table, current, row = self._table, self.current, self._table.currentRow()
        self._filling = True
        try:
            table.setSortingEnabled(False)
            titles = [_(title) for title in (*TITLES, *(column.title for column in FEATURES.values()))]
            table.setColumnCount(len(titles))
            table.setHorizontalHeaderLabels(titles)
            hints = [_("Right-click for further columns.")] * len(TITLES)
            hints[_PROBABILITY_COLUMN] = _("Probability that it is coronary calcium, by the networks' evidence, %.")
            for number, hint in enumerate((*hints, *(_(column.name) for column in FEATURES.values()))):
                table.horizontalHeaderItem(number).setToolTip(hint)
            table.setRowCount(len(lines))
            faint = qt.QBrush(faintColour(table))
            listed = self._lines if table.horizontalHeader().sortIndicatorSection() < 0 else []
            for number, line in enumerate(lines):
                if listed[number : number + 1] != [line]:
                    self._fill(number, line, faint)
            self._lines = list(lines)
            table.setColumnHidden(_PROBABILITY_COLUMN, all(line.probability is None for line in lines))
            for number, action in enumerate(self._actions.values(), len(TITLES)):
                table.setColumnHidden(number, not action.checked)
            # Columns that resize to their contents by themselves would be measured again with every cell.
            table_widgets.fitColumns(table, stretched=_ARTERY_COLUMN)
            self._fitHeight()
            table.setSortingEnabled(True)
            if lines and row >= 0:
                current_row = self._rowOf(current)
                self._choose(min(row, len(lines) - 1) if current_row is None else current_row)
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
        table, area = self._table, table_widgets.scrollAreaAround(self._table)
        room = 0 if area is None else area.viewport().height - AROUND_PIXELS
        rows = max(MIN_ROWS, room // table.verticalHeader().defaultSectionSize)
        table_widgets.fitHeight(table, min(rows, table.rowCount))

    def cleanup(self) -> None:
        """Release the panel's scroll bar."""
        self._inSight.stop()

    def _choose(self, row: int) -> None:
        """Select this row alone, even while modifier keys are held, with which Qt would extend the selection."""
        selection = qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows
        self._table.setCurrentCell(row, 0, selection)

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
