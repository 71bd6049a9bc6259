"""The finished studies of a project, shown inside Slicer: texts, tables and figures by section."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from CACScoringLib.core.tables import FORMULA, TableError, read_cells
from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.table_widgets import fillRow, fitHeight, prepareTable
from CACScoringLib.panel.widgets import dataOf, fillBox, say, showPicture

if TYPE_CHECKING:
    from ...project.project import Project

INDEX, PAGE, SCHEMA = "study.json", "study.html", "cac-study/1"
"""In a study's folder: see `report.page.write_study`."""

_MOST_ROWS = 14
_DIGITS = 4
_NO_NUMBER = {"", "nan"}


@dataclass(frozen=True)
class Study:
    """A finished study. sections: as in its `study.json`; captions: by file, relative to the folder."""

    folder: Path
    title: str
    sections: tuple[dict, ...]
    captions: dict[str, str] = field(default_factory=dict)


def studiesIn(folder: Path) -> list[Study]:
    """The finished studies in a project's folder of studies, the newest first; what is none is passed over."""
    found = []
    for file in sorted(folder.glob(f"*/{INDEX}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["schema"] == SCHEMA:
                sections = tuple(content["sections"])
                found.append(Study(file.parent, content["title"], sections, content["captions"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def tableOf(file: Path) -> list[list[str]]:
    """A table's titles and rows as they are read by people.

    The four columns of an estimate ("X", "X low", "X high", "X n") become one, as 0.91 [0.85, 0.95], or without an
    interval where none could be computed. Numbers are shortened, and the mark before a text that begins like a formula
    is taken off.
    """
    titles, *rows = (cells for _number, cells in read_cells(file))
    columns: list[tuple[str, list[str]]] = []
    n = 0
    while n < len(titles):
        title = titles[n]
        if titles[n + 1 : n + 4] == [f"{title} low", f"{title} high", f"{title} n"]:
            columns.append((title, [_estimate(*row[n : n + 4]) for row in rows]))
            n += 4
        else:
            columns.append((title, [_cell(row[n]) for row in rows]))
            n += 1
    lines = zip(*(cells for _title, cells in columns), strict=True)
    return [[title for title, _cells in columns], *map(list, lines)]


class StudyView(Section):
    """The widgets that show studies."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._project: Project | None = None
        self._studies: list[Study] = []
        self._shown: tuple | None = None
        prepareTable(ui.studyTable)
        ui.studyBox.currentIndexChanged.connect(self._studyChosen)
        ui.studySectionBox.currentIndexChanged.connect(self._sectionChosen)
        ui.studyItemBox.currentIndexChanged.connect(self._showItem)
        ui.studyPageButton.clicked.connect(self._openPage)

    def setProject(self, project: Project | None) -> None:
        """Show the studies of another project; None for none."""
        self._project = project
        self._shown = None

    def update(self) -> None:
        """Show the studies that are there, and the chosen one."""
        ui = self._ui
        self._studies = [] if self._project is None else studiesIn(self._project.studies_folder)
        names = [study.folder.name for study in self._studies]
        fillBox(ui.studyBox, [(name, name) for name in names], self._state.shownStudy)
        for n, study in enumerate(self._studies):
            ui.studyBox.setItemData(n, study.title, qt.Qt.ToolTipRole)
        ui.studyPageButton.setEnabled(bool(names))
        self._showStudy()

    def choose(self, name: str) -> None:
        """Show a study that was just made."""
        self._shown = None
        self._state.shownStudy = name

    @property
    def study(self) -> Study | None:
        """The study that is shown."""
        index = self._ui.studyBox.currentIndex
        return self._studies[index] if 0 <= index < len(self._studies) else None

    def _studyChosen(self, *_args: object) -> None:
        if self._state is not None:
            self._state.shownStudy = "" if self.study is None else self.study.folder.name
            self._showStudy()

    def _showStudy(self) -> None:
        study, box = self.study, self._ui.studySectionBox
        shown = None if study is None else (study.folder, (study.folder / INDEX).stat().st_mtime_ns)
        if shown == self._shown and shown is not None:
            return
        self._shown = shown
        sections = () if study is None else study.sections
        # What was found comes with figures; before it is told what was looked at.
        first = next((n for n, section in enumerate(sections) if section["figures"]), 0)
        fillBox(box, [(section["title"], n) for n, section in enumerate(sections)], first)
        self._sectionChosen()

    def _sectionChosen(self, *_args: object) -> None:
        ui, section = self._ui, self._section()
        files = [] if section is None else [*section["tables"], *section["figures"]]
        offered = [(_short(self.study.captions.get(file, file)), file) for file in files]
        fillBox(ui.studyItemBox, offered, files[0] if files else "")
        say(ui.studyText, "" if section is None else "\n\n".join(section["text"]))
        for widget in (ui.studyItemLabel, ui.studyItemBox):
            widget.setVisible(bool(files))
        for widget in (ui.studySectionLabel, ui.studySectionBox):
            widget.setVisible(section is not None)
        self._showItem()

    def _section(self) -> dict | None:
        index = self._ui.studySectionBox.currentIndex
        return None if self.study is None or index < 0 else self.study.sections[index]

    def _showItem(self, *_args: object) -> None:
        ui, study = self._ui, self.study
        file = dataOf(ui.studyItemBox) or None
        path = None if file is None else study.folder / file
        is_table = path is not None and path.suffix == ".csv"
        say(ui.studyCaption, "" if file is None else study.captions.get(file, ""))
        ui.studyTable.setVisible(is_table)
        ui.studyFigure.setVisible(path is not None and not is_table)
        try:
            if is_table:
                self._showTable(tableOf(path))
            elif path is not None and not showPicture(ui.studyFigure, path):
                raise ValueError(_("it is not a picture"))
        except (OSError, ValueError, TableError) as error:
            say(ui.studyCaption, _("{file} cannot be shown: {error}").format(file=file, error=error))

    def _showTable(self, lines: list[list[str]]) -> None:
        table = self._ui.studyTable
        titles, rows = lines[0], lines[1:]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            fillRow(table, number, row, [n for n, text in enumerate(row) if n and text[:1].isdigit()])
        table.resizeColumnsToContents()
        fitHeight(table, min(len(rows), _MOST_ROWS))

    def _openPage(self, *_args: object) -> None:
        if self.study is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.study.folder / PAGE)))


def _short(caption: str) -> str:
    """The number and the title of a table or figure: its first two sentences."""
    number, _dot, rest = caption.partition(". ")
    return f"{number}. {rest.partition('. ')[0]}".rstrip(". ")


def _estimate(value: str, low: str, high: str, _n: str) -> str:
    if {low, high} & _NO_NUMBER:
        return _cell(value)
    return f"{_cell(value)} [{_cell(low)}, {_cell(high)}]"


def _cell(text: str) -> str:
    if text in _NO_NUMBER:
        return "–" if text else ""
    if text[:1] == "'" and text[1:].startswith(FORMULA):
        return text[1:]
    try:
        number = float(text)
    except ValueError:
        return text
    return text if text.lstrip("-").isdigit() else f"{number:.{_DIGITS}g}"
