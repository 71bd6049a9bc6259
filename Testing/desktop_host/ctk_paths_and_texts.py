"""Doubles of CTK's widgets for files, folders, colours and texts (commontk/CTK Libs/Widgets/ctk<Name>.h, .cpp)."""

from __future__ import annotations

from pathlib import Path

from .ctk_doubles import in_row
from .qt_manner import double, qt_module, stored

qt = qt_module()


@double
class ctkDirectoryButton(qt.QWidget):
    """A button that shows and chooses a folder."""

    directoryChanged = qt.Signal(str)
    directorySelected = qt.Signal(str)
    caption = stored("")

    def __init__(self, *arguments) -> None:
        directory = [each for each in arguments if isinstance(each, str)]
        super().__init__(*[each for each in arguments if not isinstance(each, str)])
        self._button, self._directory = qt.QPushButton(), str(Path.cwd())
        self._button.clicked.connect(self.browse)
        in_row(self, self._button)
        self.directory = directory[0] if directory else "."

    @property
    def directory(self) -> str:
        return self._directory

    @directory.setter
    def directory(self, path: str) -> None:
        path = str(Path(path).resolve())
        changed = path != self._directory
        self._directory = path
        self._button.setText(path)
        if changed:
            self.directoryChanged.emit(path)

    def browse(self) -> None:
        chosen = qt.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if chosen:
            self.directory = chosen
            self.directorySelected.emit(chosen)


@double
class ctkPathLineEdit(qt.QWidget):
    """A line edit for a path, with a button that browses. With `Files` in filters a file is chosen, else a folder."""

    Dirs, Files, Readable, Writable, Executable = 0x001, 0x002, 0x010, 0x020, 0x040  # QDir::Filter
    currentPathChanged = qt.Signal(str)
    validInputChanged = qt.Signal(bool)
    label = stored("")
    filters = stored(Dirs | Files | Readable | Executable)
    nameFilters = stored(())
    settingKey = stored("")
    showHistoryButton = stored(True)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._line, self._button = qt.QLineEdit(), qt.QToolButton()
        self._button.setText("...")
        in_row(self, self._line, self._button)
        self._line.textChanged.connect(self.currentPathChanged.emit)
        self._button.clicked.connect(self.browse)

    @property
    def currentPath(self) -> str:
        return self._line.text

    @currentPath.setter
    def currentPath(self, path: str) -> None:
        self._line.setText(path)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    @property
    def showBrowseButton(self) -> bool:
        return not self._button.isHidden()

    @showBrowseButton.setter
    def showBrowseButton(self, on: bool) -> None:
        self._button.setVisible(on)

    def browse(self) -> None:
        if self.filters & self.Files:
            pattern = ";;".join(self.nameFilters)
            ask = qt.QFileDialog.getSaveFileName if self.filters & self.Writable else qt.QFileDialog.getOpenFileName
            chosen = ask(self, self.label, self.currentPath, pattern)
            chosen = chosen[0] if isinstance(chosen, tuple) else chosen
        else:
            chosen = qt.QFileDialog.getExistingDirectory(self, self.label, self.currentPath)
        if chosen:
            self.currentPath = chosen

    def addCurrentPathToHistory(self) -> None:
        """Nothing remembers paths here."""


@double
class ctkColorPickerButton(qt.QPushButton):
    """A button that shows a colour; the dialog is not opened here."""

    colorChanged = qt.Signal(object)
    displayColorName = stored(True)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._color = qt.QColor(0, 0, 0)

    @property
    def color(self):
        return self._color

    @color.setter
    def color(self, color) -> None:
        if color != self._color:
            self._color = color
            self.colorChanged.emit(color)

    def setColor(self, color) -> None:
        self.color = color


@double
class ctkFittedTextBrowser(qt.QTextBrowser):
    """A text browser as high as its text."""

    disableMouseScroll = stored(False)
    showDetailsText = stored("Show details.")
    hideDetailsText = stored("Hide details.")

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

    def collapsibleText(self) -> str:
        return self._collapsible

    def setCollapsibleText(self, text: str) -> None:
        """Up to the first line break, and a link to the rest; HTML when it holds <html>."""
        self._collapsible = text
        teaser, found, rest = text.partition("<br>" if "<html>" in text else "\n")
        if found:
            link = f' <a href="#">{self.showDetailsText if self._collapsed else self.hideDetailsText}</a>'
            text = teaser + ("" if self._collapsed else rest if "<html>" in text else rest.replace("\n", "<br>")) + link
        self.setHtml(text)
        self.updateGeometry()

    def sizeHint(self):
        # A copy: a width set on the document itself would lay the browser out anew, and again.
        document = self.document.clone()
        document.setTextWidth(max(self.width - 8, 100))
        return qt.QSize(200, min(int(document.size.height()) + 4, 200))

    def minimumSizeHint(self):
        return qt.QSize(100, self.sizeHint().height())

    def resizeEvent(self, event) -> None:
        super().resizeEvent(event)
        self.updateGeometry()
