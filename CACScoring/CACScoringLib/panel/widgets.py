"""Helpers of the panels' sections for labels, boxes, buttons, keys, paths, timers, pictures and tables."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from ..core.labels import SITE_COLOURS, Site, site_called

SITE_KEYS = {
    **{"1": "LM", "2": "LAD", "3": "LCX", "4": "RCA", "5": "other"},
    **{"6": "aortic valve", "7": "mitral annulus", "8": "aorta", "9": "elsewhere"},
}
"""Short names of sites (`core.labels.Site`) by the keyboard's keys that choose them."""

_SITE_ROWS = ("123", "45", "67", "89")
"""Keys of the buttons in each row; rows are short so as not to widen the panel."""

MIN_LETTERS = 10
"""Minimum width of a combo box in letters."""

_FAINT_SHARE = 0.65
"""Fraction of the text's colour in `faintColour`."""

_GROWTH_MILLISECONDS = 500
"""Time within which a panel takes its new height after a section was opened."""

_PICTURE_WIDTH = 440
"""Width of a picture in pixels before the panel has one."""

MIN_STRETCHED = 64
"""Width in pixels from which a column shortens its texts rather than push the last column out of sight."""


def messageLabel():
    """Return a label for messages, whose text wraps and can be copied."""
    label = qt.QLabel()
    label.setWordWrap(True)
    label.setTextFormat(qt.Qt.PlainText)
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    return label


def say(label, text: str) -> None:
    """Show a text; hide the label for an empty text."""
    if label.text != text:
        label.setText(text)
    label.setVisible(bool(text))


@contextlib.contextmanager
def blocked_signals(widget) -> Iterator[None]:
    """Block a widget's signals."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)


def fillBox(box, choices: Sequence[tuple[str, object]], selected: object, absent: str = "") -> None:
    """Fill a combo box and select a choice, without a signal. Equal choices are kept.

    Args:
        box: The combo box.
        choices: Texts with their data.
        selected: Data of the choice to select.
        absent: Text for `selected` if it is not among the choices, as in a scene from another computer; if empty, the
            first choice is selected instead.
    """
    choices = list(choices)
    if absent and selected not in [data for _text, data in choices]:
        choices.append((absent, selected))
    with blocked_signals(box):
        if choices != [(box.itemText(n), box.itemData(n)) for n in range(box.count)]:
            box.clear()
            for text, data in choices:
                box.addItem(text, data)
        box.setCurrentIndex(max(0, box.findData(selected)) if choices else -1)


def dataOf(box):
    """Return the data of a combo box's current choice, or an empty text."""
    return (box.itemData(box.currentIndex) or "") if box.count else ""


class InSight:
    """Keeps a section in sight until the panel has its new height, or something else scrolls it: the end of a section,
    or its beginning if it is higher than the panel."""

    def __init__(self, section) -> None:
        self._section = section
        self._area: Any = None
        self._place = 0
        self._timer = singleShot(_GROWTH_MILLISECONDS, self.cancel)

    def start(self) -> None:
        """Begin to scroll, after the section was opened."""
        self.cancel()
        self._area = area = scrollAreaAround(self._section)
        if area is not None:
            area.verticalScrollBar().rangeChanged.connect(self._follow)
            self._timer.start()
            self._scroll()
            self._place = area.verticalScrollBar().value

    def cancel(self) -> None:
        self._timer.stop()
        if self._area is not None:
            self._area.verticalScrollBar().rangeChanged.disconnect(self._follow)
            self._area = None

    def _follow(self, *_args: object) -> None:
        """Scroll on as the panel grows. Qt bounds the bar's value only after this signal."""
        bar = self._area.verticalScrollBar()
        if bar.value not in (self._place, min(self._place, bar.maximum)):
            self.cancel()
            return
        self._scroll()
        self._place = bar.value

    def _scroll(self) -> None:
        first, end = (self._section.mapTo(self._area.widget(), qt.QPoint(0, y)).y() for y in (0, self._section.height))
        self._area.verticalScrollBar().setValue(min(end - self._area.viewport().height, first))


def letShrink(widget) -> None:
    """Let a panel, or a part of one, be as narrow as its rows allow, whatever its sections' titles and its boxes'
    choices."""
    for section in slicer.util.findChildren(widget, className="ctkCollapsibleButton"):
        section.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
    for box in slicer.util.findChildren(widget, className="QComboBox"):
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(MIN_LETTERS)


def fitPages(pages) -> None:
    """Make a tab widget as high as its current page needs, not as its highest one, and begin each page at its top."""

    def fit(current: int) -> None:
        if (area := scrollAreaAround(pages)) is not None:
            area.verticalScrollBar().setValue(0)
        for index in range(pages.count):
            height = qt.QSizePolicy.Preferred if index == current else qt.QSizePolicy.Ignored
            pages.widget(index).setSizePolicy(qt.QSizePolicy.Preferred, height)

    pages.currentChanged.connect(fit)
    fit(pages.currentIndex)


def siteButtons(
    tip: str, onSite: Callable[[Site], object], rows_of_keys: Sequence[str] = _SITE_ROWS
) -> tuple[Any, dict[str, Any]]:
    """Return a layout of buttons for sites, and the buttons by their keys.

    Args:
        tip: Tooltip of a button, with the placeholders `{site}` and `{key}`.
        onSite: Called with the site of the button that was clicked.
        rows_of_keys: Keys of the buttons in each row.
    """
    rows, buttons = qt.QVBoxLayout(), {}
    rows.setSpacing(2)
    for keys in rows_of_keys:
        row = qt.QHBoxLayout()
        row.setSpacing(2)
        rows.addLayout(row)
        for key in keys:
            site = site_called(SITE_KEYS[key])
            hint = tip.format(site=site.full_name, key=key)
            name = site.short_name if len(rows_of_keys) == 1 else f"{key} {site.short_name}"
            buttons[key] = wideButton(name, hint, partial(onSite, site))
            buttons[key].setIcon(colourIcon(SITE_COLOURS[site]))
            row.addWidget(buttons[key])
    return rows, buttons


def wideButton(text: str, tip: str, onClicked: Callable[[], object] = lambda: None):
    """Return a tool button that fills the remaining width of its row."""
    button = qt.QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setToolButtonStyle(qt.Qt.ToolButtonTextBesideIcon)
    button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
    button.setMinimumWidth(1)  # rather than widen the panel where fonts are wide
    button.clicked.connect(lambda *_args: onClicked())
    return button


def watchPath(edit, onChanged: Callable[..., None], filters=ctk.ctkPathLineEdit.Dirs) -> None:
    """Set up a path edit. onChanged: called after every change. filters: folders by default."""
    edit.filters = filters
    edit.currentPathChanged.connect(onChanged)
    # Emptying the field emits only this signal.
    edit.validInputChanged.connect(onChanged)


def showPath(edit, path: str) -> None:
    """Show a path without a signal."""
    if edit.currentPath != path:
        with blocked_signals(edit):
            edit.setCurrentPath(path)


def ask(dialog: Callable[..., str], title: str, setting: str) -> str:
    """Ask for a path by one of QFileDialog's functions, beginning with the last one; empty if the user cancels."""
    settings = qt.QSettings()
    path = dialog(None, title, settings.value(setting, ""))
    if path:
        settings.setValue(setting, path)
    return path


def askBefore(title: str, question: str, proceed: str, alternative: str = "") -> str:
    """Ask before an action, and return the text of the button that the user presses; empty for *Cancel*, the default.

    In testing mode nobody is asked, and the action goes on.
    """
    if slicer.app.testingEnabled():
        return proceed
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setWindowTitle(title)
    box.setText(question)
    buttons = {text: box.addButton(text, qt.QMessageBox.ActionRole) for text in filter(None, (alternative, proceed))}
    box.setDefaultButton(box.addButton(qt.QMessageBox.Cancel))
    box.exec_()
    return next((text for text, button in buttons.items() if button == box.clickedButton()), "")


def askForFolder(title: str = "", setting: str = "CACScoring/exportFolder") -> str:
    """Ask for a folder; empty if the user chooses none. title: empty for a folder of results."""
    return ask(qt.QFileDialog.getExistingDirectory, title or _("Folder for report, scores and lesions"), setting)


def askForNewFolder(name: str, title: str = "") -> Path | None:
    """Ask for a folder, and return the path of a new one in it; None if the user chooses none.

    The new folder has this name, numbered if it exists, so that nothing is overwritten.
    """
    if not (parent := askForFolder(title)):
        return None
    safe = re.sub(r"[^\w .-]", "_", name).strip(" .-") or "CT"
    candidates = (Path(parent, safe if n == 1 else f"{safe}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())


def askForFile(title: str, setting: str) -> str:
    """Ask for a file; empty if the user chooses none."""
    return ask(qt.QFileDialog.getOpenFileName, title, setting)


def singleShot(milliseconds: int, call: Callable[[], object]):
    """Return a timer that calls a function once after it was last started."""
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def showPicture(label, path: Path) -> bool:
    """Show a picture as wide as a label, but never enlarged. Returns False if the file is no picture."""
    picture = qt.QPixmap(str(path))
    if picture.isNull():
        return False
    picture = picture.scaledToWidth(min(widthOf(label), picture.width()), qt.Qt.SmoothTransformation)
    label.setPixmap(picture)
    label.setFixedHeight(picture.height())
    return True


def widthOf(label) -> int:
    """Return the maximum width of a picture in a label, in pixels."""
    return label.width if label.width > 100 else _PICTURE_WIDTH


def colourIcon(rgb: tuple[int, int, int]):
    """Return an icon that is a square of one colour."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*rgb))
    return qt.QIcon(pixmap)


def faintColour(widget):
    """Return a colour between a widget's text and its background, legible in light and dark styles."""
    text, base = (widget.palette.color(role) for role in (qt.QPalette.Text, qt.QPalette.Base))
    parts = ((getattr(text, part)(), getattr(base, part)()) for part in ("red", "green", "blue"))
    return qt.QColor(*(round(_FAINT_SHARE * a + (1 - _FAINT_SHARE) * b) for a, b in parts))


def severeColour(widget) -> str:
    """Return the HTML colour of severe warnings on a widget's background."""
    return "#ff8a80" if widget.palette.color(qt.QPalette.Window).lightness() < 128 else "#b3261e"


def windowOf(widget):
    """Return the window in which a panel's keys work: Slicer's main window, or else the widget's own window."""
    window = slicer.util.mainWindow()
    return widget.window() if window is None else window


def undoKeys(undo: Callable[[], object], redo: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Return the usual keys of undo and redo with these actions."""
    return {"Ctrl+Z": undo, "Ctrl+Y": redo, "Ctrl+Shift+Z": redo}


class Keys:
    """Shortcuts that are switched on and off together.

    A line edit keeps its letters, digits and Backspace, because Qt asks it before the shortcuts of its window.
    """

    def __init__(self, owners: Sequence[Any], actions: Mapping[str, Callable[[], object]]) -> None:
        """Make the shortcuts, switched off.

        Args:
            owners: Widgets within which the keys work, children included; a window stands for all it contains.
            actions: Function to call, by the key's name in QKeySequence.
        """
        self._shortcuts = []
        for owner in owners:
            for key, action in actions.items():
                shortcut = qt.QShortcut(owner)
                shortcut.setKey(qt.QKeySequence(key))
                window = owner.isWindow()
                shortcut.setContext(qt.Qt.WindowShortcut if window else qt.Qt.WidgetWithChildrenShortcut)
                shortcut.activated.connect(lambda action=action: action())
                shortcut.setEnabled(False)
                self._shortcuts.append(shortcut)

    def setEnabled(self, on: bool) -> None:
        """Switch all shortcuts on or off."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(on)

    def remove(self) -> None:
        """Remove the shortcuts from their owners, which outlive the panel."""
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []


# Tables, which show all rows or scroll


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
