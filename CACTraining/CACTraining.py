"""CAC Training: the panel that annotates scans, trains networks on them, and evaluates and installs the trained models.

All results lie in a project, a folder of plain files (see `CACTrainingLib/project/project.py`); the scene holds only
the open scan. The panel's sections are in `CACTrainingLib/panel`; long work runs in a background process of Slicer's
Python.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, PT009

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

from CACScoringLib.panel import lifecycle
from CACTrainingLib.panel.annotate_section import AnnotateSection
from CACTrainingLib.panel.labelling import Labelling
from CACTrainingLib.panel.parameters import LIBRARY, CACTrainingParameterNode
from CACTrainingLib.panel.project_section import ProjectSection

if TYPE_CHECKING:
    from CACTrainingLib.project.project import Project


class CACTraining(ScriptedLoadableModule):
    """Title, category and help of the module."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("CAC Training")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Cardiac")]
        parent.dependencies = ["CACScoring", "Segmentations", "Tables", "Plots", "Volumes"]
        parent.contributors = ["CAC developers"]
        parent.helpText = _(
            "This module annotates chest CTs, trains the networks of CAC Scoring on them, and evaluates and installs "
            "the trained models. Make a project, add scans, and label their slices with three keys. For research only; "
            "not a medical device."
        )
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")


class CACTrainingWidget(lifecycle.PanelWidget):
    """The panel: connects its sections with each other and with the scene."""

    library = LIBRARY
    pages: ClassVar = {"trainTab": "CACTrainingTrain", "evaluateTab": "CACTrainingEvaluate"}

    def makeSections(self) -> None:
        from CACTrainingLib.panel.evaluate_section import EvaluateSection
        from CACTrainingLib.panel.train_section import TrainSection

        self.logic = CACTrainingLogic()
        self.project = ProjectSection(self.ui, self._projectOpened)
        self.annotate, self.train, self.evaluate = (
            AnnotateSection(self.ui),
            TrainSection(self.ui),
            EvaluateSection(self.ui),
        )
        self.sections = (self.project, self.annotate, self.train, self.evaluate)
        self.ui.pages.currentChanged.connect(self._pageChosen)

    def nodeRemoved(self, node) -> None:
        self.annotate.nodeRemoved(node)

    def onParametersChanged(self, caller=None, event=None) -> None:
        self.project.updateParameters()
        self.annotate.updateParameters()
        self.train.update()
        self.evaluate.update()

    def _projectOpened(self, project: Project | None) -> None:
        for section in (self.annotate, self.train, self.evaluate):
            section.setProject(project)

    def _pageChosen(self, page: int) -> None:
        if self._parameterNode is None:
            return
        # Other pages may have changed the project.
        section = self.sections[page]
        if section is not self.annotate:
            section.update()


class CACTrainingLogic(ScriptedLoadableModuleLogic):
    """Projects and their annotations without the panel; usable from scripts."""

    def getParameterNode(self) -> CACTrainingParameterNode:
        return CACTrainingParameterNode(super().getParameterNode())

    def createProject(self, folder: Path, scans: Sequence[Path] = ()) -> Project:
        """Create a project with CTs (files, or folders of one scan), each of a different patient.

        Raises ProjectError, also if a CT cannot be added.
        """
        from CACScoringLib.core.errors import ProjectError
        from CACTrainingLib.project.project import NewScan, Project

        project = Project.create(Path(folder))
        added = project.add([NewScan(Path(scan).name, Path(scan).name, Path(scan)) for scan in scans])
        if added.failed:
            name, why = added.failed[0]
            raise ProjectError(f"{name} could not be added. {why}")
        return project

    def labelling(self, project: Project, scanId: str, annotator: str, slices: Sequence[int]) -> Labelling:
        """Label slices of a scan, given by index k from the feet; each label is saved at once."""
        from CACTrainingLib.project.annotations import slice_annotations

        return Labelling(slice_annotations(project, scanId, annotator), slices)


class CACTrainingTest(lifecycle.PanelTest):
    """Self test: every page of the panel; a project in a temporary folder, whose slices are labelled."""

    def test_labelsAreSavedAsTheyAreMade(self) -> None:
        """Labels and undone labels are restored when the project is opened again."""
        import tempfile

        import numpy as np
        import SimpleITK as sitk

        from CACTrainingLib.project.annotation_files import SliceLabel
        from CACTrainingLib.project.annotations import slice_annotations
        from CACTrainingLib.project.project import Project

        with tempfile.TemporaryDirectory() as folder:
            hu = np.random.default_rng(0).normal(0, 300, (6, 16, 16)).astype(np.int16)
            sitk.WriteImage(sitk.GetImageFromArray(hu), f"{folder}/chest.nrrd")
            logic = CACTrainingLogic()
            project = logic.createProject(Path(folder) / "project", [Path(folder) / "chest.nrrd"])
            scan = project.scans[0]
            labelling = logic.labelling(project, scan.id, "AB", range(1, 4))
            k = labelling.first()
            for label in (SliceLabel.VISIBLE, SliceLabel.UNSURE, SliceLabel.NOT_VISIBLE):
                k = labelling.label(k, label)
            self.assertIsNone(k)
            self.assertTrue(labelling.isComplete)
            self.assertEqual(labelling.undo(), 3)
            again = slice_annotations(Project.open(project.folder), scan.id, "AB")
            self.assertEqual(again.labels, {1: SliceLabel.VISIBLE, 2: SliceLabel.UNSURE})
