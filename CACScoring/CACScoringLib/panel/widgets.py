"""What the sections of the panels do with labels, boxes, buttons, paths, timers and pictures."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from ..core.options import Row, rows_of
from .wording import inPanel

if TYPE_CHECKING:
    from ..core.labels import Site

SITE_KEYS = {
    **{"1": "LM", "2": "LAD", "3": "LCX", "4": "RCA", "5": "other"},
    **{"6": "aortic valve", "7": "mitral annulus", "8": "aorta", "9": "elsewhere"},
}
"""Short names of sites (`core.labels.Site`) by the keys of the keyboard that choose them."""

_SITE_ROWS = ("123", "45", "67", "89")
"""Keys of the buttons that stand beside each other, so that no row widens the panel."""

_LEAST_LETTERS = 10
"""That a box has room for."""

_FAINT_SHARE = 0.65
"""Share of the text's colour in `faintColour`."""

_GROWTH_MILLISECONDS = 500
"""In which a panel gets its height after a section was opened."""

_PICTURE_WIDTH = 440
"""Of a picture before the panel has a width, pixels."""


def say(label, text: str) -> None:
    """Show a text, in the panels' words; without one the label takes no room."""
    text = inPanel(text)
    if label.text != text:
        label.setText(text)
    label.setVisible(bool(text))


@contextlib.contextmanager
def quiet(widget) -> Iterator[None]:
    """Change a widget without a signal."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)


def fillBox(box, choices: Sequence[tuple[str, object]], chosen: object, absent: str = "") -> None:
    """Offer choices, texts with their data, and choose one by its data, without a signal.

    absent: text of one that is not offered, as of a scene from elsewhere; without it, the first is chosen instead. A
    box that offers these already keeps them.
    """
    choices = list(choices)
    if absent and chosen not in [data for _text, data in choices]:
        choices.append((absent, chosen))
    with quiet(box):
        if choices != [(box.itemText(n), box.itemData(n)) for n in range(box.count)]:
            box.clear()
            for text, data in choices:
                box.addItem(text, data)
        box.setCurrentIndex(max(0, box.findData(chosen)) if choices else -1)


def addRows(ui, form, first: int, kind: type, parameters: Mapping[str, str]) -> None:
    """Make the rows of a form that ask for settings, as their dataclass declares them.

    ui: gets each widget under the name `<parameter>Box`. form: a QFormLayout. first: number of the first new row. kind:
    the dataclass. parameters: its fields by the parameters of the panel's state that hold them, in the order of rows.
    """
    rows, defaults = rows_of(kind), {each.name: each.default for each in dataclasses.fields(kind)}
    for number, (parameter, field) in enumerate(parameters.items(), first):
        row, default = rows[field], defaults[field]
        if isinstance(default, bool):
            box = qt.QCheckBox(_(row.label))
            form.insertRow(number, box)
        else:
            box = qt.QComboBox() if row.is_choice else _numberBox(row, default)
            form.insertRow(number, qt.QLabel(_(row.label)), box)
        box.setToolTip(_(row.tip))
        box.setProperty("SlicerParameterName", parameter)
        box.setObjectName(f"{parameter}Box")
        setattr(ui, f"{parameter}Box", box)


def _numberBox(row: Row, default: object):
    """A spin box, whose limits the connector of its parameter sets."""
    fractional = bool(row.decimals) or isinstance(default, float)
    box = qt.QDoubleSpinBox() if fractional else qt.QSpinBox()
    if fractional:
        box.setDecimals(row.decimals)
        box.setSingleStep(row.step)
    box.setSuffix(_(row.unit))
    box.setSpecialValueText(_(row.unset))
    return box


def dataOf(box):
    """The data of what is chosen in a box; an empty text without any."""
    return (box.itemData(box.currentIndex) or "") if box.count else ""


class InSight:
    """Scrolls a panel to the end of one of its sections that was opened, until the panel has its new height."""

    def __init__(self, section) -> None:
        self._section, self._area = section, None
        self._timer = singleShot(_GROWTH_MILLISECONDS, self.stop)

    def start(self) -> None:
        """Begin, when the section was opened."""
        self.stop()
        area = self._section.parentWidget() if self._section.visible else None
        while area is not None and not area.inherits("QScrollArea"):
            area = area.parentWidget()
        self._area = area
        if area is not None:
            area.verticalScrollBar().rangeChanged.connect(self._scroll)
            self._timer.start()
            self._scroll()

    def stop(self) -> None:
        self._timer.stop()
        if self._area is not None:
            self._area.verticalScrollBar().rangeChanged.disconnect(self._scroll)
            self._area = None

    def _scroll(self, *_args: object) -> None:
        end = self._section.mapTo(self._area.widget(), qt.QPoint(0, self._section.height)).y()
        self._area.verticalScrollBar().setValue(end - self._area.viewport().height)


def letShrink(widget) -> None:
    """Let a panel, or a part of one, be as narrow as its rows allow: with sections that need no more than their least
    width, and boxes of choices of any length."""
    for section in slicer.util.findChildren(widget, className="ctkCollapsibleButton"):
        section.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
    for box in slicer.util.findChildren(widget, className="QComboBox"):
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(_LEAST_LETTERS)


def fitPages(pages) -> None:
    """Let tabs be as high as the page that is shown needs, not as the highest of all."""

    def fit(shown: int) -> None:
        for index in range(pages.count):
            height = qt.QSizePolicy.Preferred if index == shown else qt.QSizePolicy.Ignored
            pages.widget(index).setSizePolicy(qt.QSizePolicy.Preferred, height)

    pages.currentChanged.connect(fit)
    fit(pages.currentIndex)


def siteButtons(
    tip: str, onSite: Callable[[Site], object], rows_of_keys: Sequence[str] = _SITE_ROWS
) -> tuple[object, dict[str, object]]:
    """Buttons of sites by their keys, and the layout that they stand in, a layout for each row.

    tip: of a button, with the places `{site}` and `{key}`. onSite: called with the site of a button.
    """
    from ..core.labels import site_called
    from ..report.pictures import SITE_COLOURS

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
            buttons[key] = wideButton(name, hint, lambda site=site: onSite(site))
            buttons[key].setIcon(colourIcon(SITE_COLOURS[site]))
            row.addWidget(buttons[key])
    return rows, buttons


def wideButton(text: str, tip: str, onClicked: Callable[[], object] = lambda: None):
    """A tool button that takes the room that its row leaves."""
    button = qt.QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setToolButtonStyle(qt.Qt.ToolButtonTextBesideIcon)
    button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
    button.clicked.connect(lambda *_args: onClicked())
    return button


def watchPath(edit, onChanged: Callable[..., None], filters=ctk.ctkPathLineEdit.Dirs) -> None:
    """Let a path be chosen, of a folder unless `filters` says otherwise. onChanged: called with every change of it."""
    edit.filters = filters
    edit.currentPathChanged.connect(onChanged)
    # An emptied field tells this alone.
    edit.validInputChanged.connect(onChanged)


def showPath(edit, path: str) -> None:
    """Show a path without a signal."""
    if edit.currentPath != path:
        with quiet(edit):
            edit.setCurrentPath(path)


def newFolder(parent: Path, name: str) -> Path:
    """A folder of this name, or the next number, that is not there yet, so that nothing is overwritten."""
    safe = re.sub(r"[^\w .-]", "_", name).strip(" .-") or "CT"
    candidates = (parent / (safe if n == 1 else f"{safe}-{n}") for n in itertools.count(1))
    return next(path for path in candidates if not path.exists())


def askForFolder() -> str:
    """Ask where to write, beginning where it was written last; empty when the user thinks better of it."""
    settings = qt.QSettings()
    last = settings.value("CACScoring/exportFolder", "")
    folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for report, scores and lesions"), last)
    if folder:
        settings.setValue("CACScoring/exportFolder", folder)
    return folder


def singleShot(milliseconds: int, call: Callable[[], object]):
    """A timer that calls once, so long after it was started last."""
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def showPicture(label, path: Path) -> bool:
    """Show a picture as wide as a label, but never larger than it is. False where the file is none."""
    picture = qt.QPixmap(str(path))
    if picture.isNull():
        return False
    picture = picture.scaledToWidth(min(widthOf(label), picture.width()), qt.Qt.SmoothTransformation)
    label.setPixmap(picture)
    label.setFixedHeight(picture.height())
    return True


def widthOf(label) -> int:
    """How wide a picture in a label may be, pixels."""
    return label.width if label.width > 100 else _PICTURE_WIDTH


def colourIcon(rgb: tuple[int, int, int]):
    """A small square of one colour."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*rgb))
    return qt.QIcon(pixmap)


def faintColour(widget):
    """Return a colour between a widget's text and its background, legible in light and dark styles."""
    text, base = (widget.palette.color(role) for role in (qt.QPalette.Text, qt.QPalette.Base))
    parts = ((getattr(text, part)(), getattr(base, part)()) for part in ("red", "green", "blue"))
    return qt.QColor(*(round(_FAINT_SHARE * a + (1 - _FAINT_SHARE) * b) for a, b in parts))


def severeColour(widget) -> str:
    """Return the colour of severe warnings on a widget's background, as HTML has it."""
    return "#ff8a80" if widget.palette.color(qt.QPalette.Window).lightness() < 128 else "#b3261e"
