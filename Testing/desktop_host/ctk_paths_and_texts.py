"""Doubles of CTK's widgets for paths and texts (commontk/CTK Libs/Widgets/ctk<Name>.h, .cpp)."""

from __future__ import annotations

from .ctk_doubles import in_row
from .qt_manner import double, qt_module, stored

qt = qt_module()


@double
class ctkPathLineEdit(qt.QWidget):
    """A line edit for a path, with a button that browses. With `Files` in filters a file is chosen, else a folder.

    An input is acceptable when it is not empty; whether there is such a file does not matter.
    Only an acceptable input is told by currentPathChanged.
    """

    Dirs, Files, Drives, NoSymLinks, AllEntries = 0x001, 0x002, 0x004, 0x008, 0x007
    Readable, Writable, Executable, NoDot, NoDotDot = 0x010, 0x020, 0x040, 0x2000, 0x4000
    currentPathChanged = qt.Signal(str)
    validInputChanged = qt.Signal(bool)
    label = stored("")
    filters = stored(AllEntries | NoDot | NoDotDot | Readable | Executable)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._combo, self._button = qt.QComboBox(), qt.QToolButton()
        self._valid = False
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(qt.QComboBox.NoInsert)
        self._button.setText("...")
        self._button.setSizePolicy(qt.QSizePolicy.Fixed, qt.QSizePolicy.Ignored)
        in_row(self, self._combo, self._button)
        self.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self._combo.editTextChanged.connect(self._text_changed)

    @property
    def currentPath(self) -> str:
        return self._combo.currentText

    @currentPath.setter
    def currentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def _text_changed(self, text: str) -> None:
        before, self._valid = self._valid, bool(text)
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)


@double
class ctkFittedTextBrowser(qt.QTextBrowser):
    """A text browser as high as its text."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._collapsed, self._collapsible = True, ""
        self.setOpenLinks(False)
        self.anchorClicked.connect(lambda _: setattr(self, "collapsed", not self._collapsed))

    @property
    def collapsed(self) -> bool:
        return self._collapsed

    @collapsed.setter
    def collapsed(self, on: bool) -> None:
        self._collapsed = bool(on)
        self.setCollapsibleText(self._collapsible)

    def setCollapsibleText(self, text: str) -> None:
        """Up to the first line break, and a link to the rest; HTML when it holds <html>."""
        self._collapsible = text
        teaser, found, rest = text.partition("<br>" if "<html>" in text else "\n")
        if found:
            link = f' <a href="#">{"Show" if self._collapsed else "Hide"} details.</a>'
            text = teaser + ("" if self._collapsed else rest if "<html>" in text else rest.replace("\n", "<br>")) + link
        self.setHtml(text)
        self._fit()

    def _fit(self) -> None:
        # A copy: a width set on the document itself would lay the browser out anew, and again.
        document = self.document.clone()
        document.setTextWidth(max(self.width - 8, 100))
        self.setFixedHeight(min(int(document.size.height()) + 4, 200))

    def resizeEvent(self, event) -> None:
        super().resizeEvent(event)
        self._fit()
