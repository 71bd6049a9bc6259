"""List of a project's finished studies, whose pages open in the browser."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from CACScoringLib.core.files import read_json
from CACScoringLib.panel.lifecycle import Section
from CACScoringLib.panel.widgets import dataOf, fillBox

from ..project.project import Project

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard

INDEX, SCHEMA = "study.json", "cac-study/1"
"""Index of a study's folder and its format (`evaluation.page.write_study`)."""

COMPARISON, VALIDATION = "comparison", "validation"
"""Names of `cac validate` with and without an earlier validation."""

STUDY_TITLES = {
    "detection": "Detection: which scans, arteries and lesions are found",
    "reproducibility": "Reproducibility: two scans of each patient",
    "heart": "Heart: agreement of its outline with the true one",
    "ablation": "Ablation: contribution of each part of the method",
    COMPARISON: "Comparison: scores of two models on the same scans",
}
"""Titles of the studies, translated on display."""


def studiesIn(folder: Path) -> dict[str, str]:
    """Find the finished studies in a project's folder of studies: titles by name of the folder, newest first."""
    studies = {}
    for file in sorted(folder.glob(f"*/{INDEX}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = read_json(file)
            if content["schema"] == SCHEMA:
                studies[file.parent.name] = content["title"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return studies


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


def verdictOf(folder: Path) -> list[str]:
    """Read the sentences of a comparison on which models score better; empty for another study."""
    from CACScoringLib.models.cards import VERDICT

    sections = read_json(folder / INDEX)["sections"] if (folder / INDEX).is_file() else []
    return [text for section in sections if section["name"] == VERDICT for text in section["text"]]


class StudyView(Section):
    """The list of studies, and the button that opens the page of one."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._project: Project | None = None
        self.bind(ui.studyBox, "shownStudy")
        ui.studyPageButton.clicked.connect(self._openPage)

    def setProject(self, project: Project | None) -> None:
        """List the studies of another project; None for none."""
        self._project = project

    def update(self) -> None:
        """List the studies and select the shown one."""
        ui, studies = self._ui, {} if self._project is None else studiesIn(self._project.studies_folder)
        fillBox(ui.studyBox, [(studyName(name), name) for name in studies], self._state.shownStudy)
        for n, title in enumerate(studies.values()):
            ui.studyBox.setItemData(n, title, qt.Qt.ToolTipRole)
        ui.studyPageButton.setEnabled(bool(studies))

    def _openPage(self, *_args: object) -> None:
        folder = self._project.studies_folder / dataOf(self._ui.studyBox)
        page = folder / read_json(folder / INDEX)["page"]
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page)))
