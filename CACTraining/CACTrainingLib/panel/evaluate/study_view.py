"""View of the tables and figures of a project's finished studies in Slicer."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import qt
from slicer.i18n import tr as _

from CACScoringLib.core.files import read_json
from CACScoringLib.core.tables import FORMULA, TableError, read_cells
from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.table_widgets import fillRow, fitHeight, prepareTable
from CACScoringLib.panel.widgets import dataOf, fillBox, say, showPicture

from ...project.project import Project

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard

INDEX, SCHEMA = "study.json", "cac-study/1"
"""Index of a study's folder and its format (`evaluation.page.write_study`)."""

COMPARISON, VALIDATION = "comparison", "validation"
"""Names of `cac validate` with and without an earlier validation."""

COMPARED = "tables/before_after.csv"
"""Table of a comparison that is shown first."""

STUDY_TITLES = {
    "detection": "Detection: which scans, arteries and lesions are found",
    "reproducibility": "Reproducibility: two scans of each patient",
    "heart": "Heart: agreement of its outline with the true one",
    "ablation": "Ablation: contribution of each part of the method",
    COMPARISON: "Comparison: scores of two models on the same scans",
}
"""Titles of the studies, translated on display."""

_MAX_ROWS = 14
_DIGITS = 4
_NO_NUMBER = {"", "nan"}


class Study(NamedTuple):
    """A finished study; its captions are by file of a table or figure, relative to the folder."""

    folder: Path
    page: str
    title: str
    captions: dict[str, str]


def studiesIn(folder: Path) -> list[Study]:
    """Find the finished studies in a project's folder of studies, newest first."""
    studies = []
    for file in sorted(folder.glob(f"*/{INDEX}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = read_json(file)
            if content["schema"] == SCHEMA:
                studies.append(Study(file.parent, content["page"], content["title"], dict(content["captions"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return studies


def tableOf(file: Path) -> list[list[str]]:
    """Read a table's titles and rows for display.

    The four columns of an estimate ("X", "X low", "X high", "X n") become one, such as 0.91 [0.85, 0.95], or 0.91
    without an interval. Numbers are shortened, and the quote before a text that begins like a formula is removed.
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


def studyFolder(study: str, use: str, models: Sequence[ModelCard]) -> str:
    """Return the name of a study's folder, which is the same for the same study of the same models."""
    return "-".join([study, use, *(f"{card.name}-{card.sha256[:4]}" for card in models)])


def studyName(folder: str) -> str:
    """Return the title of a study with a folder named by `studyFolder`; the name itself for other folders."""
    study, _dash, remainder = folder.partition("-")
    use, _dash, models = remainder.partition("-")
    title = "Validation" if study == VALIDATION else STUDY_TITLES.get(study)
    if title is None or not use:
        return folder
    names = re.findall(r"(.+?)-[0-9a-f]{4}(?:-|$)", models)
    name = _("{study}, {use} scans").format(study=_(title).partition(":")[0], use=use)
    return f"{name}: {', '.join(names)}" if names else name


class StudyView(Section):
    """The widgets that show studies."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._project: Project | None = None
        self._studies: dict[str, Study] = {}
        prepareTable(ui.studyTable)
        self.bind(ui.studyBox, "shownStudy")
        ui.studyItemBox.currentIndexChanged.connect(self._showItem)
        ui.studyPageButton.clicked.connect(self._openPage)

    def setProject(self, project: Project | None) -> None:
        """Show the studies of another project; None for none."""
        self._project = project

    def update(self) -> None:
        """Show the list of studies and the selected one."""
        ui, studies = self._ui, [] if self._project is None else studiesIn(self._project.studies_folder)
        self._studies = {study.folder.name: study for study in studies}
        fillBox(ui.studyBox, [(studyName(name), name) for name in self._studies], self._state.shownStudy)
        for n, study in enumerate(studies):
            ui.studyBox.setItemData(n, study.title, qt.Qt.ToolTipRole)
        ui.studyPageButton.setEnabled(bool(studies))
        captions = {} if self.study is None else self.study.captions
        shown = dataOf(ui.studyItemBox)
        item = shown if shown in captions else COMPARED
        fillBox(ui.studyItemBox, [(_short(caption), file) for file, caption in captions.items()], item)
        for widget in (ui.studyItemLabel, ui.studyItemBox):
            widget.setVisible(bool(captions))
        self._showItem()

    @property
    def study(self) -> Study | None:
        """The selected study."""
        return self._studies.get(dataOf(self._ui.studyBox))

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
        fitHeight(table, min(len(rows), _MAX_ROWS))

    def _openPage(self, *_args: object) -> None:
        if self.study is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.study.folder / self.study.page)))


def _short(caption: str) -> str:
    """Number and title of a table or figure, which are the first two sentences of its caption."""
    number, _dot, text = caption.partition(". ")
    return f"{number}. {text.partition('. ')[0]}".rstrip(". ")


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
