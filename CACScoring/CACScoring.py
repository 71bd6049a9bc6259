"""CAC Scoring: the panel that scores coronary calcium on a CT open in 3D Slicer.

The panel writes the CT to a temporary folder, runs `score` of the command line in a background process of
Slicer's own Python, and reads the results back into the scene. Scoring uses NumPy, SciPy, SimpleITK, pydicom and
Pillow, which Slicer brings along: nothing is installed.
"""

# Slicer's own naming and unittest's assertions are its API's, so their rules do not apply here.
# ruff: noqa: N802, N803, N806, N815, PT009

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ctk
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    import SimpleITK as sitk

    from CACScoringLib.mrml import SceneNodes

_MODULE_FOLDER = Path(__file__).resolve().parent
_LIBRARY = "CACScoringLib"


class CACScoring(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("CAC Scoring")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Cardiac")]
        parent.dependencies = ["Segmentations", "Tables", "Terminologies", "Volumes"]
        parent.contributors = ["CAC developers"]
        parent.helpText = _(
            "Scores coronary artery calcium on non-contrast CT. Choose a CT and press Score: everything dense inside "
            "the heart region is listed as an unreviewed candidate. For research only; not a medical device."
        )
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(registerTerminology)


def registerTerminology() -> None:
    """Make the names of calcium segments known to Slicer's terminology selector."""
    file = _MODULE_FOLDER / "Resources" / "Terminology" / "CoronaryArteryCalcium.term.json"
    slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(file))


@parameterNodeWrapper
class CACScoringParameterNode:
    """The panel's state, saved with the scene: the chosen CT, and the nodes and warnings of its last result."""

    inputVolume: vtkMRMLScalarVolumeNode
    heart: vtkMRMLSegmentationNode
    calcium: vtkMRMLSegmentationNode
    scoreTable: vtkMRMLTableNode
    lesionTable: vtkMRMLTableNode
    warnings: str = ""


class CACScoringWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        super().setup()
        self.logic = CACScoringLogic()

        box = ctk.ctkCollapsibleButton()
        box.text = _("Score")
        self.layout.addWidget(box)
        form = qt.QFormLayout(box)

        self.inputSelector = slicer.qMRMLNodeComboBox()
        self.inputSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.inputSelector.showChildNodeTypes = False  # label maps are child types
        self.inputSelector.addEnabled = False
        self.inputSelector.removeEnabled = False
        self.inputSelector.noneEnabled = True
        self.inputSelector.setMRMLScene(slicer.mrmlScene)
        self.inputSelector.setToolTip(_("Non-contrast CT of the chest, in Hounsfield units"))
        form.addRow(_("CT:"), self.inputSelector)

        self.scoreButton = qt.QPushButton(_("Score"))
        form.addRow(self.scoreButton)
        self.statusLabel = self._textLabel()
        form.addRow(self.statusLabel)
        self.warningsLabel = self._textLabel()
        form.addRow(self.warningsLabel)
        self.resultsTable = slicer.qMRMLTableView()
        self.resultsTable.setMinimumHeight(240)
        form.addRow(self.resultsTable)
        self.layout.addStretch(1)

        self.scoreButton.clicked.connect(self.onScoreButton)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    @staticmethod
    def _textLabel():
        label = qt.QLabel()
        label.setWordWrap(True)
        # File names and messages are shown as they are, never as markup.
        label.setTextFormat(qt.Qt.PlainText)
        return label

    def cleanup(self) -> None:
        if self.logic is not None:
            self.logic.cancel()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.logic.cancel()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onReload(self) -> None:
        self.logic.cancel()
        # Slicer reloads this file only.
        for name in [n for n in sys.modules if n == _LIBRARY or n.startswith(f"{_LIBRARY}.")]:
            del sys.modules[name]
        super().onReload()

    def initializeParameterNode(self) -> None:
        self.setParameterNode(self.logic.getParameterNode())
        if self._parameterNode.inputVolume is None:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first is not None and not first.IsA("vtkMRMLLabelMapVolumeNode"):
                self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode: CACScoringParameterNode | None) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectParametersToGui({"inputVolume": self.inputSelector})
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, caller=None, event=None) -> None:
        state = self._parameterNode
        self.scoreButton.setText(_("Cancel") if self.logic.isRunning else _("Score"))
        self.scoreButton.setEnabled(self.logic.isRunning or state.inputVolume is not None)
        self.inputSelector.setEnabled(not self.logic.isRunning)
        self.warningsLabel.setText(state.warnings)
        self.resultsTable.setMRMLTableNode(state.scoreTable)

    def onScoreButton(self, checked: bool = False) -> None:
        if self.logic.isRunning:
            self.logic.cancel()
            return
        self.statusLabel.setText(_("Preparing …"))
        self.logic.score(self._parameterNode.inputVolume, self.statusLabel.setText, self.onFinished)
        self.onParametersChanged()

    def onFinished(self, outcome: ScoringOutcome) -> None:
        self.statusLabel.setText(outcome.message)
        if outcome.nodes is not None:
            # The panel may have been left meanwhile; the state belongs to the scene.
            state = self.logic.getParameterNode()
            state.heart, state.calcium = outcome.nodes.heart, outcome.nodes.calcium
            state.scoreTable, state.lesionTable = outcome.nodes.scores, outcome.nodes.lesions
            state.warnings = "\n".join(outcome.warnings)
        if self._parameterNode is not None:
            self.onParametersChanged()


@dataclass(frozen=True)
class ScoringOutcome:
    """How a run ended. nodes: the result in the scene; None when there is none, and message says why."""

    message: str
    nodes: SceneNodes | None = None
    warnings: tuple[str, ...] = ()


class Process(Protocol):
    """Runs Python with arguments in the background."""

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        """onLine: called with each line on standard error. onEnd: called once, with the exit code, unless killed."""

    def kill(self) -> None:
        """End the process and its children at once."""


@dataclass
class _Run:
    volume: vtkMRMLScalarVolumeNode
    image: sitk.Image
    folder: Path
    onStatus: Callable[[str], None]
    onFinished: Callable[[ScoringOutcome], None]
    warnings: list[str] = field(default_factory=list)
    reason: str = ""
    otherLines: list[str] = field(default_factory=list)


class CACScoringLogic(ScriptedLoadableModuleLogic):
    """Scores a volume node in the background. One run at a time.

    process: what runs the worker; None for a background process of Slicer's own Python.
    """

    def __init__(self, process: Process | None = None) -> None:
        super().__init__()
        self._process = process
        self._run = None

    def getParameterNode(self) -> CACScoringParameterNode:
        return CACScoringParameterNode(super().getParameterNode())

    @property
    def isRunning(self) -> bool:
        return self._run is not None

    def score(
        self,
        volume: vtkMRMLScalarVolumeNode,
        onStatus: Callable[[str], None],
        onFinished: Callable[[ScoringOutcome], None],
    ) -> None:
        """Begin to score. onStatus: called with what is being done. onFinished: called once, however the run ends.

        The scene changes only when the run ends well.
        """
        if self.isRunning:
            raise RuntimeError("A scan is being scored already.")
        import SimpleITK as sitk

        from CACScoringLib import mrml
        from CACScoringLib.ct import CTError

        try:
            image = mrml.image_of_volume(volume)
        except CTError as error:
            onFinished(ScoringOutcome(str(error)))
            return
        folder = Path(tempfile.mkdtemp(prefix="cac-"))
        self._run = _Run(volume, image, folder, onStatus, onFinished)
        try:
            ct = folder / "ct.nrrd"
            sitk.WriteImage(image, str(ct))
            command = ["-m", f"{_LIBRARY}.cli", "score", str(ct), "--output", str(folder / "result")]
            if self._process is None:
                self._process = BackgroundProcess()
            self._process.start([*command, "--no-scene", "--progress", "json"], self._onLine, self._onEnd)
        except (OSError, RuntimeError) as error:
            self._finish(ScoringOutcome(_("Scoring could not be started: {error}").format(error=error)))

    def cancel(self) -> None:
        """End the run that is going on, if any."""
        if self.isRunning:
            self._process.kill()
            self._finish(ScoringOutcome(_("Cancelled. The scene was not changed.")))

    def _onLine(self, line: str) -> None:
        run = self._run
        if run is None:
            return
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            run.otherLines.append(line)
            return
        if kind == "step" and event["index"] is not None:
            step = _("Step {number} of {count}: {step} …")
            run.onStatus(step.format(number=event["index"] + 1, count=event["count"], step=event["step"]))
        elif kind == "warning":
            run.warnings.append(event["message"])
        elif kind == "failed":
            run.reason = event["message"]

    def _onEnd(self, exitCode: int) -> None:
        run = self._run
        if run is None:
            return
        if exitCode != 0:
            lastWords = "\n".join(run.otherLines[-3:])
            reason = run.reason or _("The worker ended with code {code}. {words}").format(
                code=exitCode, words=lastWords
            )
            self._finish(ScoringOutcome(reason.strip()))
            return
        self._finish(self._resultInScene(run))

    def _resultInScene(self, run: _Run) -> ScoringOutcome:
        from CACScoringLib import mrml
        from CACScoringLib.ct import CTError
        from CACScoringLib.scene_content import content_of_folder

        if not slicer.mrmlScene.IsNodePresent(run.volume):
            return ScoringOutcome(_("The CT was closed while it was being scored."))
        try:
            content = content_of_folder(run.folder / "result", run.image, run.volume.GetName())
            nodes = mrml.add_to_scene(slicer.mrmlScene, content, run.volume)
        except CTError as error:
            return ScoringOutcome(str(error))
        return ScoringOutcome(_("Done."), nodes, tuple(run.warnings))

    def _finish(self, outcome: ScoringOutcome) -> None:
        run, self._run = self._run, None
        shutil.rmtree(run.folder, ignore_errors=True)
        run.onFinished(outcome)


def workerCommand() -> tuple[str, dict[str, str]]:
    """The Python to run the worker with, and its environment with the module's folder on the path.

    Raises RuntimeError when Slicer's Python is not found.
    """
    python = shutil.which("PythonSlicer")
    if python is None:
        raise RuntimeError(_("Slicer's Python (PythonSlicer) was not found."))
    paths = [str(_MODULE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return python, {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}


def killTree(processId: int) -> None:
    """End a process and its descendants: Slicer's Python is a launcher, and the worker runs as its child."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(processId)], capture_output=True, check=False)
        return
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    doomed = [processId]
    for parent in doomed:
        doomed += [child for child, itsParent in pairs if itsParent == parent]
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


class BackgroundProcess:
    """The `Process` of the desktop: a QProcess that runs Slicer's own Python."""

    def __init__(self) -> None:
        self._process = None

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        python, variables = workerCommand()
        environment = qt.QProcessEnvironment()
        for name, value in variables.items():
            environment.insert(name, value)
        process = qt.QProcess()
        process.setProcessEnvironment(environment)
        # Nobody reads it, and a full pipe would stop the worker.
        process.setStandardOutputFile(os.devnull)
        unfinished = bytearray()

        def read() -> None:
            unfinished.extend(bytes(process.readAllStandardError().data()))
            *lines, rest = bytes(unfinished).split(b"\n")
            unfinished[:] = rest
            for line in lines:
                onLine(line.decode(errors="replace").rstrip())

        def finished(*_: object) -> None:
            read()
            crashed = process.exitStatus() != qt.QProcess.NormalExit
            onEnd(-1 if crashed else process.exitCode())

        def failed(error: object) -> None:
            # Other errors are followed by finished().
            if error == qt.QProcess.FailedToStart:
                onLine(_("{python} could not be started.").format(python=python))
                onEnd(-1)

        process.readyReadStandardError.connect(read)
        process.finished.connect(finished)
        process.errorOccurred.connect(failed)
        self._process = process
        process.start(python, arguments)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None or process.state() == qt.QProcess.NotRunning:
            return
        # A kill is no ending that anybody waits for.
        process.blockSignals(True)
        killTree(process.processId())
        process.waitForFinished(2000)


class CACScoringTest(ScriptedLoadableModuleTest):
    """Self test: a small synthetic chest with one calcification, scored by the real worker."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()

    def test_scoreSyntheticChest(self) -> None:
        """The calcification is found once, with the Agatston score that follows from its size."""
        import numpy as np

        from CACScoringLib import mrml

        image, calcium = _syntheticChest()
        volume = mrml.add_volume(slicer.mrmlScene, image, "synthetic chest")
        outcome = self._score(volume)
        self.assertIsNotNone(outcome.nodes, outcome.message)
        mask = mrml.segment_mask(outcome.nodes.calcium, "unassigned", image)
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

        from CACScoringLib import mrml

        picture = sitk.Cast(sitk.GaussianSource(sitk.sitkFloat32, [32, 32, 16], [9] * 3, [16, 16, 8]), sitk.sitkInt16)
        volume = mrml.add_volume(slicer.mrmlScene, picture, "no CT")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        outcome = self._score(volume)
        self.assertIsNone(outcome.nodes)
        self.assertIn("HU", outcome.message)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def _score(self, volume: vtkMRMLScalarVolumeNode) -> ScoringOutcome:
        outcomes = []
        CACScoringLogic(_ForegroundProcess()).score(volume, lambda status: None, outcomes.append)
        self.assertEqual(len(outcomes), 1)
        return outcomes[0]


class _ForegroundProcess:
    """A `Process` that is waited for, so that a test needs no event loop."""

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        python, environment = workerCommand()
        done = subprocess.run(
            [python, *arguments], env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False
        )
        for line in done.stderr.splitlines():
            onLine(line)
        onEnd(done.returncode)

    def kill(self) -> None:
        raise AssertionError("it has ended when start() returns")


def _syntheticChest() -> tuple[sitk.Image, object]:
    """A body with lungs, spine, sternum and a heart that holds one calcification, and the calcification's mask."""
    import numpy as np
    import SimpleITK as sitk

    k, j, i = np.ogrid[0:80, 0:150, 0:190]
    x, y, z = (i - 95) * 2.0, (j - 75) * 2.0, (k - 40) * 3.0  # mm towards left, posterior, superior

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True)) <= 1

    hu = np.full((80, 150, 190), -1000.0)
    hu[np.broadcast_to((x / 180) ** 2 + (y / 120) ** 2 <= 1, hu.shape)] = 30
    for side in (-1, 1):
        hu[ellipsoid((side * 90, 5, 10), (62, 92, 125))] = -850
    hu[ellipsoid((20, -20, -25), (62, 55, 58))] = 40
    hu[np.broadcast_to((x / 18) ** 2 + ((y - 88) / 18) ** 2 <= 1, hu.shape)] = 500
    hu[np.broadcast_to((abs(x) <= 16) & (abs(y + 105) <= 5) & (z > -60), hu.shape)] = 400
    hu += np.random.default_rng(0).normal(0, 8, hu.shape)
    calcium = np.zeros(hu.shape, bool)
    calcium[36:38, 58:62, 108:112] = True
    hu[calcium] = 350
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-190.0, -150.0, -120.0))
    return image, calcium
