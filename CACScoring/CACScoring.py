"""CAC Scoring: the panel that scores coronary calcium on a CT open in 3D Slicer.

The panel writes the CT to a temporary folder, runs `score` of the command line in a background process of Slicer's own
Python, and reads the results back into the scene, where a reader reviews them. Its sections are in
`CACScoringLib/panel`; what they show and change is in `CACScoringLib/review/scene.py`.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, PT009

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTextNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

from CACScoringLib.panel import lifecycle, views
from CACScoringLib.panel.cohort_section import CohortSection
from CACScoringLib.panel.dicom_section import DicomSection
from CACScoringLib.panel.input_section import InputSection, ensureEstimatorPackages
from CACScoringLib.panel.lesions_choice import askForLesions
from CACScoringLib.panel.packages import DICOM_REQUIREMENTS, ensurePackages
from CACScoringLib.panel.parameters import CACScoringParameterNode
from CACScoringLib.panel.process import MODULE_FOLDER, Process
from CACScoringLib.panel.radiograph import radiograph_views
from CACScoringLib.panel.radiograph.drr_section import DrrSection
from CACScoringLib.panel.radiograph.radiograph_section import RadiographSection
from CACScoringLib.panel.result_section import ResultSection, askForFolder
from CACScoringLib.panel.review_section import ReviewSection
from CACScoringLib.panel.scoring import Scorer, ScoringOutcome, markUnseen, takeOverCandidates
from CACScoringLib.panel.self_test import ForegroundProcess, madeOf, syntheticChest
from CACScoringLib.panel.widgets import singleShot
from CACScoringLib.panel.worker import LIBRARY, Worker, showIn

if TYPE_CHECKING:
    from CACScoringLib.review.scene import SceneReview


class CACScoring(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("CAC Scoring")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Cardiac")]
        parent.dependencies = ["Segmentations", "Tables", "Terminologies", "Volumes"]
        parent.contributors = ["CAC developers"]
        parent.helpText = _(
            "This module scores coronary artery calcium on non-contrast CT, by the clinical rule and by a calcium map "
            "without threshold. Choose a CT and press Score; review the lesions, then export. For research only; not a "
            "medical device."
        )
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(onStartupCompleted)


def onStartupCompleted() -> None:
    """Make known what scenes and other modules refer to before the panel is opened."""
    from CACScoringLib.mrml import sample_data

    registerTerminology()
    for each in (views, radiograph_views):
        each.registerLayout()
    sample_data.register()


def registerTerminology() -> None:
    """Make the names of calcium segments known to Slicer's terminology selector."""
    file = MODULE_FOLDER / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
    slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(file))


class CACScoringWidget(lifecycle.PanelWidget):
    """The panel: connects its sections with each other and with the scene."""

    library = LIBRARY
    pages: ClassVar = {"radiographTab": "Radiographs"}
    _review: SceneReview | None = None
    _record: vtkMRMLTextNode | None = None
    _watched: vtkMRMLScalarVolumeNode | None = None

    def makeSections(self) -> None:
        self.logic = CACScoringLogic()
        self.input = InputSection(self.ui, askForLesions)
        self.result = ResultSection(self.ui, askForFolder)
        self.dicom = DicomSection(self.ui, Worker(), askForFolder, self.input.listLesions)
        self.review = ReviewSection(self.ui, self.result.update, self._scoreAgain)
        self.cohort = CohortSection(self.ui, Worker(), self._openScan)
        self.drr = DrrSection(self.ui, Worker(), Worker())
        self.radiograph = RadiographSection(self.ui, Worker())
        self.sections = (self.input, self.review, self.dicom, self.cohort, self.drr, self.radiograph)
        self._onProgress = showIn(self.ui.statusLabel, self.ui.progressBar)
        self._showingViews = singleShot(0, self._showViews)
        self.ui.progressBar.setVisible(False)
        self.ui.scoreButton.clicked.connect(self.onScoreButton)
        self._showResult(None)

    def cleanup(self) -> None:
        if self.logic is not None:
            self.logic.cancel()
        super().cleanup()
        if self.sections:
            self._showResult(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.logic.cancel()
        super().onSceneStartClose(caller, event)
        self._showResult(None)

    def nodeRemoved(self, node) -> None:
        # What is reviewed is gone; while a scene is being closed all goes anyway.
        if self._review is not None and node in vars(self._review.nodes).values():
            self._showResult(None)

    def initializeParameterNode(self) -> None:
        super().initializeParameterNode()
        if self._parameterNode.inputVolume is None:
            from CACScoringLib.panel.scan_facts import problemOf

            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            offered = [v for v in volumes if not v.IsA("vtkMRMLLabelMapVolumeNode") and not problemOf(v)]
            if offered:
                self._parameterNode.inputVolume = offered[0]

    def setParameterNode(self, parameterNode: CACScoringParameterNode | None) -> None:
        super().setParameterNode(parameterNode)
        if parameterNode is None:
            self._watch(None)

    def onParametersChanged(self, caller=None, event=None) -> None:
        state = self._parameterNode
        self._watch(state.inputVolume)
        self._updateInput()
        if state.result is not self._record:
            self._showResult(state.result)
        self.review.updateParameters()
        self.dicom.update()
        self.cohort.update()

    def _updateInput(self, caller=None, event=None) -> None:
        running = self.logic.isRunning
        self.input.update(running)
        self.drr.update()
        self.radiograph.update()
        self.ui.scoreButton.setText(_("Cancel") if running else _("Score"))
        self.ui.scoreButton.setEnabled(running or self.input.canBeScored)
        self.ui.progressBar.setVisible(running)

    def _watch(self, volume: vtkMRMLScalarVolumeNode | None) -> None:
        """Hear of the volume's image, which a node may get after it was chosen, and of its place."""
        before, self._watched = self._watched, volume
        if volume is before:
            return
        image, place = slicer.vtkMRMLVolumeNode, slicer.vtkMRMLTransformableNode
        for event in (image.ImageDataModifiedEvent, place.TransformModifiedEvent):
            if before is not None:
                self.removeObserver(before, event, self._updateInput)
            if volume is not None:
                self.addObserver(volume, event, self._updateInput)

    def onScoreButton(self, checked: bool = False) -> None:
        if self.logic.isRunning:
            self.logic.cancel()
        else:
            self._score()

    def _score(self, further: tuple[str, ...] = (), before: SceneReview | None = None) -> None:
        """further: arguments beside those of the input. before: review whose candidates the new result takes over."""
        wanted = self.input.read()
        if wanted.networks and (reason := ensurePackages()):
            self.ui.statusLabel.setText(reason)
            return
        if wanted.lesions is not None and (reason := ensurePackages(DICOM_REQUIREMENTS, purpose=_("A DICOM review"))):
            self.ui.statusLabel.setText(reason)
            return
        ensureEstimatorPackages(self._parameterNode)
        self._onProgress(_("Preparing …"), 0.0)

        def finished(outcome: ScoringOutcome) -> None:
            if before is not None and outcome.nodes is not None:
                takeOverCandidates(before.nodes, outcome.nodes)
            elif wanted.unseen and outcome.nodes is not None:
                markUnseen(outcome.nodes)
            self._onFinished(outcome)

        lesions = () if wanted.lesions is None else ("--lesions", str(wanted.lesions))
        arguments = (*wanted.arguments, *lesions, *further)
        self.logic.score(wanted.volume, self._onProgress, finished, arguments, wanted.heart)
        self.onParametersChanged()

    def _scoreAgain(self) -> None:
        """Score the reviewed scan once more, with the slices that the reader switched on and off."""
        if self.logic.isRunning:
            return
        review = self._review
        switched = dict.fromkeys(review.slices_off, False) | dict.fromkeys(review.slices_wished, True)
        self._parameterNode.inputVolume = review.nodes.volume
        self._score(("--settings", json.dumps({"scoring": {"slices": switched}})), review)

    def _openScan(self, scan: dict) -> None:
        """Load a scan of a cohort, and its result, for review."""
        if not self.logic.isRunning:
            self.ui.pages.setCurrentIndex(0)
            self._onProgress(_("Opening {name} …").format(name=scan["name"]), 0.0)
            place = Path(scan["folder"]), scan["name"], scan["ct"], scan["series"]
            self.logic.openResult(*place, self._onProgress, self._onFinished)
            self.onParametersChanged()

    def _onFinished(self, outcome: ScoringOutcome) -> None:
        self.ui.statusLabel.setText(outcome.message)
        if outcome.nodes is not None:
            # The panel may have been left meanwhile; the state belongs to the scene.
            state = self.logic.getParameterNode()
            state.inputVolume, state.result = outcome.nodes.volume, outcome.nodes.record
        if self._parameterNode is not None:
            self.onParametersChanged()
            if outcome.nodes is not None:
                self._showingViews.start()

    def _showViews(self) -> None:
        """In a step of its own, so that Slicer answers its user after the lesions were listed."""
        if self._parameterNode is not None and self._review is not None:
            self.review.showSideBySide()

    def _showResult(self, record: vtkMRMLTextNode | None) -> None:
        """Review another result, or none."""
        self._record, self._review = record, None
        if record is not None:
            from CACScoringLib.core.ct import CTError
            from CACScoringLib.review.scene import SceneReview

            try:
                self._review = SceneReview.of_record(slicer.mrmlScene, record)
            except CTError as error:
                self.ui.statusLabel.setText(str(error))
        self.review.setReview(self._review)
        self.result.setReview(self._review)
        self.dicom.setReview(self._review)
        self.drr.setReview(self._review)
        for section in (self.ui.reviewButton, self.ui.resultButton):
            section.collapsed = self._review is None


class CACScoringLogic(ScriptedLoadableModuleLogic, Scorer):
    """Scores volume nodes; usable from scripts. process: as in `Scorer`."""

    def __init__(self, process: Process | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        Scorer.__init__(self, process)

    def getParameterNode(self) -> CACScoringParameterNode:
        return CACScoringParameterNode(super().getParameterNode())


class CACScoringTest(lifecycle.PanelTest):
    """Self test: every page of the panel; a small synthetic chest with one calcification, scored by the real worker."""

    def test_scoreSyntheticChest(self) -> None:
        """The calcification is found once, with the Agatston score that follows from its size."""
        import numpy as np

        from CACScoringLib.mrml import scene as mrml
        from CACScoringLib.mrml.segments import segment_mask

        image, calcium = syntheticChest()
        volume = mrml.add_volume(slicer.mrmlScene, image, "synthetic chest")
        outcome = self._score(volume)
        self.assertIsNotNone(outcome.nodes, outcome.message)
        mask = segment_mask(outcome.nodes.calcium, "unassigned", image)
        np.testing.assert_array_equal(mask, calcium)
        table = outcome.nodes.scores.GetTable()
        artery = [table.GetValueByName(row, "Artery").ToString() for row in range(table.GetNumberOfRows())]
        agatston = table.GetValueByName(artery.index("total"), "Agatston").ToDouble()
        # Two slices of 4 × 4 pixels of 2 × 2 mm at 350 HU (weight 3), 3 mm apart.
        self.assertAlmostEqual(agatston, 2 * 16 * 4 * 3)
        self.assertIn("reviewed", " ".join(outcome.warnings))

    def test_refusalLeavesTheSceneAsItWas(self) -> None:
        """A volume that is no CT is refused with a reason, and no node is added."""
        import SimpleITK as sitk

        from CACScoringLib.mrml import scene as mrml

        picture = sitk.Cast(sitk.GaussianSource(sitk.sitkFloat32, [32, 32, 16], [9] * 3, [16, 16, 8]), sitk.sitkInt16)
        volume = mrml.add_volume(slicer.mrmlScene, picture, "no CT")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        outcome = self._score(volume)
        self.assertIsNone(outcome.nodes)
        self.assertIn("HU", outcome.message)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_radiographOfSyntheticChest(self) -> None:
        """A PA radiograph lies on the detector, and shows the spine brighter than the lungs beside it."""
        from CACScoringLib.mrml import drr_nodes
        from CACScoringLib.mrml import scene as mrml

        volume = mrml.add_volume(slicer.mrmlScene, syntheticChest()[0], "synthetic chest")
        node = drr_nodes.add_radiograph(slicer.mrmlScene, madeOf(volume), volume, "PA radiograph", "PA")
        picture = slicer.util.arrayFromVolume(node)[0]
        rows, columns = picture.shape
        self.assertGreater(picture[rows // 2, columns // 2], 1.2 * picture[rows // 2, columns // 4])
        # 200 mm before the patient's middle, which lies 1 mm before the origin.
        self.assertAlmostEqual(node.GetOrigin()[1], 201.0)

    def _score(self, volume: vtkMRMLScalarVolumeNode) -> ScoringOutcome:
        outcomes = []
        logic = CACScoringLogic(ForegroundProcess())
        # Without networks, because PyTorch may not be installed.
        logic.score(volume, lambda text, done: None, outcomes.append, ["--threshold-only"])
        while logic.isRunning:
            slicer.app.processEvents()
        self.assertEqual(len(outcomes), 1)
        return outcomes[0]
