"""Scoring a volume node in the background, and bringing results of earlier runs into the scene."""

# Slicer's naming.
# ruff: noqa: N802, N803, N815

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from .process import Process
from .scan_facts import acquisitionOf
from .widgets import singleShot
from .worker import Worker

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..mrml.scene import SceneNodes
    from ..mrml.scene_content import SceneContent


SPACING_DIGITS = 10
"""Of a volume's spacing that are meant; what follows is rounding."""

WAITING_SECONDS = 0.03
"""At once, for what a thread reads: Slicer answers its user in between."""


@dataclass(frozen=True)
class ScoringOutcome:
    """How a run ended. nodes: the result in the scene; None when there is none, and message says why."""

    message: str
    nodes: SceneNodes | None = None
    warnings: tuple[str, ...] = ()


@dataclass
class _Run:
    """temporary: folder that is removed at the end. result: folder that `cac score` writes or has written.
    volume, image: None until the CT is loaded. isShown: whether the result is in the scene."""

    temporary: Path
    result: Path
    onProgress: Callable[[str, float], None]
    onFinished: Callable[[ScoringOutcome], None]
    volume: vtkMRMLScalarVolumeNode | None = None
    image: sitk.Image | None = None
    isShown: bool = False


class Scorer:
    """One run at a time. process: what runs the worker; None for a background process of Slicer's own Python."""

    def __init__(self, process: Process | None = None) -> None:
        self._worker = Worker(process)
        self._run: _Run | None = None
        self._next: Callable[[], None] | None = None
        self._timer = singleShot(0, self._doNext)

    @property
    def isRunning(self) -> bool:
        return self._run is not None

    def score(
        self,
        volume: vtkMRMLScalarVolumeNode,
        onProgress: Callable[[str, float], None],
        onFinished: Callable[[ScoringOutcome], None],
        arguments: Sequence[str] = (),
        heart: tuple[vtkMRMLSegmentationNode, str] | None = None,
    ) -> None:
        """Begin to score a CT in the scene. The scene changes only when the run ends well.

        onProgress: called with what is being done and which part of all is behind, 0 to 1. onFinished: called once,
        however the run ends. arguments: further options of `cac score`. heart: segmentation and id of the segment to
        use as the heart.
        """
        from ..core.ct import CTError

        run = self._begin(onProgress, onFinished)
        run.result = run.temporary / "result"
        run.volume = volume
        try:
            command = [*self._writeInput(run, heart), *arguments, "--settings", '{"results": {"scene": false}}']
        except CTError as error:
            self._finish(ScoringOutcome(str(error)))
        except (OSError, RuntimeError) as error:
            self._finish(ScoringOutcome(_("Scoring could not be started: {error}").format(error=error)))
        else:
            self._worker.start(command, self._scored, onProgress)

    def openResult(
        self,
        folder: Path,
        name: str,
        ct: str,
        series: str | None,
        onProgress: Callable[[str, float], None],
        onFinished: Callable[[ScoringOutcome], None],
    ) -> None:
        """Load a CT and the result that `cac score` or `cac cohort` has written of it.

        folder: of the result. name: what to call it. ct: file or DICOM folder; series: of the latter, where it holds
        several. onProgress, onFinished: as in `score`.
        """
        run = self._begin(onProgress, onFinished)
        run.result = folder
        target = run.temporary / "ct.nrrd"
        arguments = [ct, str(target), *filter(None, [series])]
        self._worker.start(
            arguments, lambda reason: self._read(reason, target, name), onProgress, module="panel.open_ct"
        )

    def cancel(self) -> None:
        """End the run that is going on, if any; one whose result is in the scene already ends by itself."""
        if self.isRunning and not self._run.isShown:
            self._worker.cancel()
            self._next = None
            self._finish(ScoringOutcome(_("Cancelled. The scene was not changed.")))

    def _begin(self, onProgress: Callable[[str, float], None], onFinished: Callable[[ScoringOutcome], None]) -> _Run:
        if self.isRunning:
            raise RuntimeError("A scan is being scored already.")
        folder = Path(tempfile.mkdtemp(prefix="cac-scoring-"))
        self._run = _Run(folder, folder, onProgress, onFinished)
        return self._run

    def _writeInput(self, run: _Run, heart: tuple[vtkMRMLSegmentationNode, str] | None) -> list[str]:
        import SimpleITK as sitk

        from ..mrml import scene as mrml
        from ..mrml import segments

        run.image = mrml.image_of_volume(run.volume)
        # Slicer computes spacings from directions, and 1.2 mm becomes 1.1999999999999997: a score's last digits.
        run.image.SetSpacing([float(f"{mm:.{SPACING_DIGITS}g}") for mm in run.image.GetSpacing()])
        ct = run.temporary / "ct.nrrd"
        sitk.WriteImage(run.image, str(ct))
        command = ["score", str(ct), "--output", str(run.result)]
        if heart is not None:
            mask = sitk.GetImageFromArray(segments.segment_mask(*heart, run.image).astype("uint8"))
            mask.CopyInformation(run.image)
            sitk.WriteImage(mask, str(run.temporary / "heart.nii.gz"))
            command += ["--heart", str(run.temporary / "heart.nii.gz")]
        acquisition = acquisitionOf(run.volume)
        if acquisition is not None:
            facts = {name: value for name, value in asdict(acquisition).items() if value is not None}
            file = run.temporary / "acquisition.json"
            file.write_text(json.dumps(facts), encoding="utf-8")
            command += ["--settings", json.dumps({"scan": {"acquisition": str(file)}})]
        return command

    def _scored(self, reason: str) -> None:
        run = self._run
        if reason:
            self._finish(ScoringOutcome(reason))
        else:
            self._load(run, run.volume.GetName())

    def _read(self, reason: str, ct: Path, name: str) -> None:
        run = self._run
        if reason:
            self._finish(ScoringOutcome(reason))
        else:
            self._load(run, name, ct)

    def _load(self, run: _Run, name: str, ct: Path | None = None) -> None:
        """Read the result in a thread, then bring it into the scene. ct: file of the CT where it is not loaded yet."""
        from ..io.image_files import read_image
        from ..mrml.scene_content import content_of_folder

        def read() -> SceneContent:
            return content_of_folder(run.result, run.image if ct is None else read_image(ct), name)

        run.onProgress(_("Reading the result …"), 1.0)
        thread = ThreadPoolExecutor(1)
        reading = thread.submit(read)
        thread.shutdown(wait=False)
        self._later(lambda: self._awaitContent(run, reading))

    def _awaitContent(self, run: _Run, reading: Future[SceneContent]) -> None:
        """Threads of Python run only while Slicer is in Python: so it waits a little, answers its user, waits again."""
        if not wait([reading], WAITING_SECONDS).done:
            self._later(lambda: self._awaitContent(run, reading))
            return
        content = reading.result()
        run.onProgress(_("Showing the result …"), 1.0)
        self._later(lambda: self._add(run, content))

    def _add(self, run: _Run, content: SceneContent) -> None:
        from ..mrml import scene as mrml

        if run.volume is not None and not slicer.mrmlScene.IsNodePresent(run.volume):
            self._finish(ScoringOutcome(_("The CT was closed while it was being scored.")))
            return
        nodes = mrml.add_to_scene(slicer.mrmlScene, content, run.volume)
        run.isShown = True
        outcome = ScoringOutcome(_("Done."), nodes, tuple(event["message"] for event in self._worker.warnings))
        self._later(lambda: self._show(outcome))

    def _show(self, outcome: ScoringOutcome) -> None:
        if slicer.mrmlScene.IsNodePresent(outcome.nodes.record):
            self._finish(outcome)
        else:
            self._finish(ScoringOutcome(_("The scene was closed before the result was shown.")))

    def _later(self, step: Callable[[], None]) -> None:
        self._next = step
        self._timer.start()

    def _doNext(self) -> None:
        from ..core.ct import CTError

        step, self._next = self._next, None
        if step is None:
            return  # cancelled meanwhile
        try:
            step()
        except CTError as error:
            self._finish(ScoringOutcome(str(error)))

    def _finish(self, outcome: ScoringOutcome) -> None:
        run, self._run = self._run, None
        shutil.rmtree(run.temporary, ignore_errors=True)
        run.onFinished(outcome)


def takeOverCandidates(before: SceneNodes, after: SceneNodes) -> None:
    """Give a new result of a scan the clinical candidates of an earlier one, as a reader left them."""
    from ..mrml.scene import REVIEWED_ATTRIBUTE

    after.calcium.GetSegmentation().DeepCopy(before.calcium.GetSegmentation())
    after.calcium.SetAttribute(REVIEWED_ATTRIBUTE, before.calcium.GetAttribute(REVIEWED_ATTRIBUTE))


def markUnseen(nodes: SceneNodes) -> None:
    """Say that no reader has seen the clinical lesions of a new result: an algorithm alone made them."""
    from ..mrml.scene import REVIEWED_ATTRIBUTE

    nodes.calcium.SetAttribute(REVIEWED_ATTRIBUTE, "0")
