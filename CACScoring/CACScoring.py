"""CAC Scoring: the panel that scores coronary calcium on a CT open in 3D Slicer.

The panel writes the CT to a temporary folder, runs the command `score` in a background process of Slicer's own Python,
and reads the results back into the scene for review. Its sections are in `CACScoringLib/panel`; they show and change a
`SceneReview` of `CACScoringLib/review/scene.py`.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, N815, PT009

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTextNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel import lifecycle, packages, views, widgets
from CACScoringLib.panel.cohort_section import CohortSection
from CACScoringLib.panel.drr_section import DrrSection
from CACScoringLib.panel.input_section import InputSection, firstCT, loadedVolume, mayBeCT, scoringRequirements
from CACScoringLib.panel.job import LIBRARY, BackgroundJob, Steps
from CACScoringLib.panel.packages import ensurePackages
from CACScoringLib.panel.parameters import CACScoringParameterNode
from CACScoringLib.panel.process import MODULE_FOLDER
from CACScoringLib.panel.radiograph_section import RadiographSection
from CACScoringLib.panel.readings_section import ReadingsSection
from CACScoringLib.panel.result_section import DicomSection, ResultSection
from CACScoringLib.panel.review_section import ReviewSection, readerName
from CACScoringLib.panel.scoring import Scorer, markUnreviewed

if TYPE_CHECKING:
    from CACScoringLib.panel.readings_section import SceneReading
    from CACScoringLib.review.scene import SceneReview


KEPT_REVIEWS = 4
"""Number of reviews that are kept in memory while the user switches between results."""


class CACScoring(ScriptedLoadableModule):
    """Description of the module for Slicer."""

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
    """Register terminology, layouts and sample data, which are used before the panel is opened."""
    from CACScoringLib.mrml import sample_data

    file = MODULE_FOLDER / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
    slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(file))
    views.registerLayouts()
    sample_data.register()


class CACScoringWidget(lifecycle.PanelWidget):
    """The panel, which connects its sections with each other and with the scene."""

    library = LIBRARY
    pages: ClassVar = {"radiographContents": "Radiographs"}
    _review: SceneReview | None = None
    _newReview: SceneReview | None = None
    _record: vtkMRMLTextNode | None = None
    _reviews: tuple[tuple[tuple[str, int], SceneReview], ...] = ()
    """Latest reviews, with their undo steps, each with its `_sourceOf`."""
    _watched: vtkMRMLScalarVolumeNode | None = None
    _viewsArePending = False
    _loaded: vtkMRMLScalarVolumeNode | None = None
    """The volume that Slicer had loaded last when the panel looked."""

    def makeSections(self) -> None:
        self.logic = CACScoringLogic()
        self.scorer = self.logic.scorer
        self.input, self.review, self.result = InputSection(self.ui), ReviewSection(self.ui), ResultSection(self.ui)
        self.dicom = DicomSection(self.ui)
        self.cohort = CohortSection(self.ui)
        self.readings = ReadingsSection(self.ui)
        self.drr = DrrSection(self.ui)
        self.radiograph = RadiographSection(self.ui)
        self.sections = (self.input, self.review, self.result, self.dicom, self.cohort, self.readings)
        self.sections += (self.drr, self.radiograph)
        self.scorer.job.showIn(self.ui.statusLabel, self.ui.progressBar)
        self.scorer.finished.connect(self._onFinished)
        self.review.numbersChanged.connect(self.result.update)
        self.review.numbersChanged.connect(self.readings.numbersChanged)
        self.review.lesionViewed.connect(self.readings.noteActivity)
        self.readings.chosen.connect(self._openReading)
        self.readings.closing.connect(self._closeReading)
        self.review.rescoreRequested.connect(self._scoreAgain)
        self.result.decided.connect(self.review.decide)
        self.dicom.added.connect(self.input.listLesions)
        self.cohort.scanChosen.connect(self._openScan)
        self._showingViews = widgets.singleShot(0, self._showViews)
        # Slicer shows a volume after it has selected it.
        self._takingLoaded = widgets.singleShot(0, self._takeLoaded)
        self._loaded, selection = loadedVolume(), slicer.app.applicationLogic().GetSelectionNode()
        self.addObserver(selection, vtk.vtkCommand.ModifiedEvent, lambda *_args: self._takingLoaded.start())
        self.importing = BackgroundJob()
        # Added before the panel's own observer of this event, which would show all in one step.
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onImported)
        self.ui.pages.currentChanged.connect(lambda *_args: self._viewsArePending and self._showingViews.start())
        self.ui.scoreButton.clicked.connect(self.onScoreButton)
        self._showResult(None)

    def cleanup(self) -> None:
        if self.logic is not None:
            self.importing.cancel()
            self.scorer.close()
        super().cleanup()
        if self.sections:
            self._takingLoaded.stop()
            self._showResult(None)

    def enter(self) -> None:
        super().enter()
        if self._review is not None:
            self._showingViews.start()  # another module may have changed them
        if self.sections:
            self._takeLoaded()

    def onSceneStartClose(self, caller, event) -> None:
        self.scorer.cancel()
        self.importing.cancel()
        super().onSceneStartClose(caller, event)
        self._showResult(None)
        self._reviews = ()
        self.ui.statusLabel.setText("")

    def nodeRemoved(self, node) -> None:
        self._reviews = tuple(review for review in self._reviews if node not in vars(review[1].nodes).values())
        # End the review; closing the scene removes its nodes.
        if self._review is not None and node in vars(self._review.nodes).values():
            self._showResult(None)

    def initializeParameterNode(self) -> None:
        super().initializeParameterNode()
        if self._parameterNode is not None and self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = firstCT()

    def setParameterNode(self, parameterNode: CACScoringParameterNode | None) -> None:
        super().setParameterNode(parameterNode)
        if parameterNode is None:
            self._watch(None)

    def onParametersChanged(self, caller=None, event=None) -> None:
        if slicer.mrmlScene.IsImporting():
            return  # nodes arrive in steps; all are shown when the import has ended
        if self.importing.isRunning:
            return
        state = self._parameterNode
        changes = (self._watched, state.inputVolume), (self._record, state.result)
        is_other = any(None not in (before, now) and before is not now for before, now in changes)
        if is_other and self._newReview is None and not self.scorer.isRunning:
            self.ui.statusLabel.setText("")  # it is about the scan before
        if self._watched is not state.inputVolume:
            self.input.setNote("")
        self._matchInputAndResult()
        self._watch(state.inputVolume)
        self._updateInput()
        # A result that could not be read is tried again.
        if state.result is not self._record or (state.result is not None and self._review is None):
            self._showResult(state.result)
            self._showingViews.start()
        self.review.updateParameters()
        self.dicom.update()
        self.cohort.update()
        self.readings.updateParameters()

    def _onImported(self, caller, event) -> None:
        """Read an imported result and show it, in steps between which Slicer stays responsive."""
        if self.parent.isEntered:
            self.importing.start(self._readImported(), self._showImported)

    def _readImported(self) -> Steps[None]:
        yield 0
        state = self._parameterNode
        if state is not None and state.result is not None and state.result is not self._record:
            with suppress(CTError):  # shown in the next step
                self._newReview = self._reviewOf(state.result)
        yield 0

    def _showImported(self, _nothing: None, _reason: str) -> None:
        if self._parameterNode is not None:
            self.onParametersChanged()
        self._newReview = None
        self._loaded = loadedVolume()  # of the scene; its state names the input

    def _takeLoaded(self) -> None:
        """Make a CT that was loaded since the last look the input, except for that of a reading or of a run."""
        state, volume = self._parameterNode, loadedVolume()
        if state is None or volume is self._loaded or slicer.mrmlScene.IsImporting():
            return
        self._loaded = volume
        is_kept = self.scorer.isRunning or self.importing.isRunning or self.readings.current is not None
        if volume is None or volume is state.inputVolume or not mayBeCT(volume):
            return
        if is_kept:
            if self.scorer.isRunning and state.inputVolume is not None:
                text = _("{name} was loaded during the run, which scores {scored}. Choose it as CT to score it.")
                self.input.setNote(text.format(name=volume.GetName(), scored=state.inputVolume.GetName()))
            return
        review = self._review
        state.inputVolume = volume
        if review is not None:
            text = _("{name} was loaded and is the input now. Choose {other} above to return to its result.")
            names = {"name": volume.GetName(), "other": review.nodes.volume.GetName()}
            self.ui.statusLabel.setText(text.format(**names))

    def _matchInputAndResult(self) -> None:
        """Choose the CT of a newly chosen result, or the last result of a newly chosen CT."""
        from CACScoringLib.mrml.scene import records_in, volume_of_record

        state = self._parameterNode
        scored = None if state.result is None else volume_of_record(state.result)
        if state.result is not self._record:
            if scored is not None:
                state.inputVolume = scored
        elif state.inputVolume is not self._watched and state.inputVolume is not scored:
            records = [r for r in records_in(slicer.mrmlScene) if volume_of_record(r) is state.inputVolume]
            state.result = records[-1] if records and state.inputVolume is not None else None

    def _updateInput(self, caller=None, event=None) -> None:
        running = self.scorer.isRunning
        self.input.update(running)
        self.drr.update()
        self.radiograph.update()
        self.ui.scoreButton.setText(_("Cancel") if running else _("Score"))
        self.ui.scoreButton.setEnabled(running or self.input.canBeScored)

    def _watch(self, volume: vtkMRMLScalarVolumeNode | None) -> None:
        """Observe the volume's image and attributes, which may be set after it was chosen, and its transform."""
        previous, self._watched = self._watched, volume
        if volume is previous:
            return
        image, place = slicer.vtkMRMLVolumeNode, slicer.vtkMRMLTransformableNode
        # The DICOM module sets the attributes of a volume last.
        for event in (image.ImageDataModifiedEvent, place.TransformModifiedEvent, vtk.vtkCommand.ModifiedEvent):
            if previous is not None:
                self.removeObserver(previous, event, self._updateInput)
            if volume is not None:
                self.addObserver(volume, event, self._updateInput)
        reviewed = self._review if self._newReview is None else self._newReview
        if volume is not None and (reviewed is None or volume is not reviewed.nodes.volume):
            self.scorer.job.getReady()

    def onScoreButton(self, checked: bool = False) -> None:
        if self.scorer.isRunning:
            self.scorer.cancel()
            return
        review, volume = self._review, self._parameterNode.inputVolume
        question = _(
            "The score of {name} was confirmed. Scoring again makes a second result without the review; the confirmed "
            "one stays in the list Result."
        ).format(name=volume.GetName())
        is_confirmed = review is not None and review.nodes.volume is volume and any(review.reviewed.values())
        if not is_confirmed or self._mayGoOn(question):
            self._score(self.input.arguments, markUnreviewed if self.input.lesions.automatic else None)

    @staticmethod
    def _mayGoOn(question: str) -> bool:
        return bool(widgets.askBefore(_("Score again"), question, _("Score again")))

    def _score(self, arguments: tuple[str, ...], prepare: Callable | None) -> None:
        """Install missing packages and start a run. prepare: as in `Scorer.score`."""
        state, dicom = self._parameterNode, () if self.input.lesions.path is None else packages.DICOM_REQUIREMENTS
        if reason := ensurePackages((*scoringRequirements(state), *dicom)):
            self.ui.statusLabel.setText(reason)
            return
        self.ui.inputButton.collapsed = False  # where the progress is shown
        self.scorer.score(state.inputVolume, arguments, self.input.heart, prepare)
        self.onParametersChanged()

    def _scoreAgain(self) -> None:
        """Score the reviewed scan again with the reader's choice of slices."""
        from CACScoringLib.review.scene import take_over_review

        review = self._review
        question = _(
            "The score of the calcium map was confirmed. Its edits stay, but further slices may add lesions: confirm "
            "it once more afterwards."
        )
        if self.scorer.isRunning or (review.reviewed["decomposition"] and not self._mayGoOn(question)):
            return
        switched = dict.fromkeys(review.slices_off, False) | dict.fromkeys(review.slices_wished, True)
        self._parameterNode.inputVolume = review.nodes.volume
        settings = json.dumps({"scoring": {"slices": switched}})
        arguments = (*self.input.arguments, "--settings", settings)
        slices, grid = review.slices_wished, review.scan.image
        self._score(arguments, lambda nodes: take_over_review(review.nodes, nodes, slices, grid))

    def _openScan(self, scan: dict) -> None:
        """Load a scan of a cohort and its result for review."""
        if not self.scorer.isRunning:
            self.ui.pages.setCurrentIndex(0)
            self.scorer.openResult(Path(scan["folder"]), scan["name"], scan["ct"], scan["series"])
            self.onParametersChanged()

    def _openReading(self, reading: SceneReading) -> None:
        """Load a scan and its result for a reader's recorded reading, in place of the open one."""
        if self.scorer.isRunning:
            return
        self._closeReading()
        self.readings.current = reading
        self.ui.pages.setCurrentIndex(0)
        self.scorer.openReading(reading)
        self.onParametersChanged()

    def _closeReading(self) -> None:
        if self.readings.current is not None:
            if self._parameterNode is not None:
                self._parameterNode.result = None
            self._showResult(None)

    def _onFinished(self, review: SceneReview | None, message: str) -> None:
        reading = self.readings.current
        if reading is not None and reading.blind:
            from CACScoringLib.readings.recorded_review import hidden

            message = hidden(reading.case, reading.name, message)
        self.ui.statusLabel.setText(message)
        if reading is not None and not reading.isOpen:
            self.readings.end()
        if review is not None:
            # The panel may have been left meanwhile, but the scene still holds its state.
            state, self._newReview = self.logic.getParameterNode(), review
            state.inputVolume, state.result = review.nodes.volume, review.nodes.record
        if self._parameterNode is not None:
            self.onParametersChanged()
        self._newReview = None
        if reading is not None and review is reading.review is not None:
            self.readings.begin(reading)

    def _showViews(self) -> None:
        """Change the layout and show the views in separate steps, between which Slicer stays responsive.

        Without a result, show the CT alone.
        """
        if self._parameterNode is None:
            return
        # A run that ends leaves the views of another page alone.
        self._viewsArePending = self.ui.pages.currentWidget() is not self.ui.scanPage
        if self._viewsArePending:
            return
        if self._review is None:
            views.showVolume(self._parameterNode.inputVolume)
        elif self.review.showLayout():
            self._showingViews.start()  # in another step
        else:
            self.review.showSideBySide()

    def _showResult(self, record: vtkMRMLTextNode | None) -> None:
        """Review the result of a record; None for no result."""
        review = self._newReview
        self._record, self._review = record, review if review is not None and review.nodes.record is record else None
        if record is not None and self._review is None:
            try:
                self._review = self._reviewOf(record)
            except CTError as error:
                self.ui.statusLabel.setText(str(error))
        if self._review is not None:
            remaining = [review for review in self._reviews if review[1].nodes.record is not record]
            self._reviews = (*remaining[1 - KEPT_REVIEWS :], (_sourceOf(self._review), self._review))
        for section in (self.review, self.result, self.dicom, self.drr):
            section.setReview(self._review)
        reading = self.readings.current
        if reading is not None and reading.review is not None and reading.review is not self._review:
            self.readings.end()
        self.ui.inputButton.collapsed = self._review is not None

    def _reviewOf(self, record: vtkMRMLTextNode) -> SceneReview:
        """Return the earlier review of a record with its undo steps, or else a new one. Raises CTError."""
        from CACScoringLib.review.scene import SceneReview

        for source, review in self._reviews:
            if review.nodes.record is record and source == _sourceOf(review):
                review.reader = readerName(self._parameterNode)
                review.refresh()
                return review
        return SceneReview.of_record(slicer.mrmlScene, record)


def _sourceOf(review: SceneReview) -> tuple[str, int]:
    """Return the record of a review and the time at which the voxels of its CT last changed."""
    data = review.nodes.volume.GetImageData()
    return review.nodes.record.GetText(), 0 if data is None else data.GetMTime()


class CACScoringLogic(ScriptedLoadableModuleLogic):
    """The panel's state and its `scorer` of volume nodes; usable from scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.scorer = Scorer()

    def getParameterNode(self) -> CACScoringParameterNode:
        return CACScoringParameterNode(super().getParameterNode())


class CACScoringTest(lifecycle.PanelTest):
    """Self test of every page, and of scoring the digital patient that comes with CAC by the real worker."""

    def test_scoreSample(self) -> None:
        """Find calcium, and show the same score in the review and in the table of the scene."""
        from CACScoringLib.mrml.sample_data import sample_file

        if missing := packages.missingPackages(packages.CLINICAL_REQUIREMENTS):
            self.skipTest(f"Scoring needs {packages.namesOf(missing)}, which this Slicer lacks.")
        outcomes, scorer = [], CACScoringLogic().scorer
        scorer.finished.connect(lambda *outcome: outcomes.append(outcome))
        # Without networks, because PyTorch may not be installed.
        scorer.score(slicer.util.loadVolume(str(sample_file())), ["--threshold-only"])
        while scorer.isRunning:
            slicer.app.processEvents()
        ((review, message),) = outcomes
        self.assertIsNotNone(review, message)
        self.assertGreater(review.result("threshold").total.agatston, 100)
        table = review.nodes.scores.GetTable()
        artery = [table.GetValueByName(row, "Artery").ToString() for row in range(table.GetNumberOfRows())]
        agatston = table.GetValueByName(artery.index("total"), "Agatston").ToDouble()
        self.assertAlmostEqual(agatston, review.result("threshold").total.agatston)
        self.assertIn("reviewed", " ".join(event["message"] for event in scorer.job.warnings))
        scorer.close()
