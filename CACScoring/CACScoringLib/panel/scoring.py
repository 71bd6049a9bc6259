"""Scoring of a volume node in the background, and loading of earlier results into the scene."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from ..core.errors import CTError
from .job import BackgroundJob, JobError, Steps, inThread, temporaryFolder
from .lifecycle import Signal
from .scan_facts import acquisitionOf

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..core.ct import CTScan
    from ..mrml.scene import SceneNodes
    from ..review.scene import SceneReview
    from .readings_section import SceneReading

SPACING_DIGITS = 10
"""Significant digits of a volume's spacing; the rest is rounding error."""

_NO_SCENE = '{"results": {"scene": false}}'
"""Settings of the worker, which need not write a scene for Slicer."""


class Scorer:
    """Runs one scoring at a time, in the steps of `_scoring` or `_opening`, between which Slicer stays responsive.

    The scene changes only when a run succeeds.

    Attributes:
        job: Job that does the work; shows its progress.
        finished: Signal once a run, however it ends, with the review of the result in the scene, or None, and with
            a text for the user: without a result, the reason.
    """

    def __init__(self) -> None:
        self._isShowing = False
        self.finished = Signal()
        self.job = BackgroundJob()

    @property
    def isRunning(self) -> bool:
        return self.job.isRunning

    def close(self) -> None:
        """Cancel the current run, and stop the process that waits for the next."""
        self.cancel()
        self.job.close()

    def score(
        self,
        volume: vtkMRMLScalarVolumeNode,
        arguments: Sequence[str] = (),
        heart: tuple[vtkMRMLSegmentationNode, str] | None = None,
        prepare: Callable[[SceneNodes], object] | None = None,
    ) -> None:
        """Begin to score a CT in the scene.

        Args:
            volume: The CT.
            arguments: Further options of `cac score`.
            heart: Segmentation and segment ID of an existing heart mask.
            prepare: Function that changes the nodes of the result before they are shown.
        """
        self._begin(self._scoring(volume, arguments, heart, prepare))

    def openResult(self, folder: Path, name: str, ct: str, series: str | None) -> None:
        """Begin to load a CT and its result from `cac score` or `cac cohort`.

        Args:
            folder: Folder of the result.
            name: Name of the CT in the scene.
            ct: File or DICOM folder of the CT.
            series: Series UID, where the DICOM folder holds several; None for the one that was scored.
        """
        from ..readings.cases import ReviewCase

        case = ReviewCase(id="", name=name, patient="", folder=folder, ct=Path(ct), series=series)
        self._begin(self._opening(folder, name, case.scan))

    def openReading(self, reading: SceneReading) -> None:
        """Begin to load a CT and its result for a recorded reading."""
        case = reading.case
        self._begin(self._opening(case.folder, reading.name, case.scan, reading))

    def cancel(self) -> None:
        """Cancel the current run, unless its result is already being shown."""
        if self.isRunning and not self._isShowing:
            self.job.cancel()
            self._finish(None, _("Cancelled. The scene was not changed."))

    def _scoring(self, volume, arguments, heart, prepare) -> Steps[SceneReview]:
        import SimpleITK as sitk

        from ..mrml import scene as mrml

        with temporaryFolder() as temporary:
            folder = Path(temporary)
            ct = folder / "ct.nrrd"
            try:
                image = mrml.image_of_volume(volume)
                command = _command(ct, volume, image, heart)
                yield from inThread(lambda: sitk.WriteImage(image, str(ct)))
            except (OSError, RuntimeError) as error:
                raise JobError(_("Scoring could not be started: {error}").format(error=error)) from error
            yield from self.job.run([*command, *arguments, "--settings", _NO_SCENE])
            return (yield from self._load(folder / "result", lambda: image, volume.GetName(), volume, prepare))

    def _opening(
        self, folder: Path, name: str, read: Callable[[], CTScan], reading: SceneReading | None = None
    ) -> Steps[SceneReview]:
        """Read a CT in the background and load its result. read: function that reads the CT, for another process."""
        from ..io.image_files import read_image
        from .background import write_ct

        with temporaryFolder() as temporary:
            target = Path(temporary) / "ct.nrrd"
            yield from self.job.call(write_ct, read, target)
            return (yield from self._load(folder, lambda: read_image(target), name, reading=reading))

    def _load(
        self, result: Path, read: Callable[[], sitk.Image], name: str, volume=None, prepare=None, reading=None
    ) -> Steps[SceneReview]:
        """Read a result in a thread, add it to the scene, and return its review.

        Args:
            result: Folder of the result.
            read: Function that returns the CT.
            name: Name of the CT.
            volume: Node of the CT; None to make one.
            prepare: Function that changes the nodes of the result before they are shown.
            reading: Reading for which the result is loaded; None for a review in the scene alone.
        """
        from ..mrml import scene as mrml
        from ..mrml.scene_content import content_of_folder
        from ..review.scene import SceneReview

        self.job.show(_("Reading the result …"), 1.0)
        content = yield from inThread(lambda: content_of_folder(result, read(), name))
        if reading is not None:
            content = yield from inThread(lambda: reading.begin(content))
        self.job.show(_("Showing the result …"), 1.0)
        yield 0
        if volume is not None and not slicer.mrmlScene.IsNodePresent(volume):
            raise CTError(_("The CT was closed while it was being scored."))
        self._isShowing = True
        steps = mrml.scene_steps(slicer.mrmlScene, content, volume)
        while (nodes := next(steps)) is None:
            yield 0
        yield 0
        _checkPresent(nodes)
        if prepare is not None:
            prepare(nodes)
        review = SceneReview(slicer.mrmlScene, nodes, content) if reading is None else reading.open(nodes, content)
        yield 0
        review.results()  # computed in a separate step, cached for the panel
        yield 0
        _checkPresent(nodes)
        return review

    def _begin(self, steps: Steps[SceneReview]) -> None:
        if self.isRunning:
            raise RuntimeError("A scan is being scored already.")
        self._isShowing = False
        self.job.show(_("Preparing …"), 0.0)
        self.job.start(steps, self._finish)

    def _finish(self, review: SceneReview | None, reason: str) -> None:
        self.finished.emit(review, reason or _("Done."))


def _checkPresent(nodes: SceneNodes) -> None:
    if not slicer.mrmlScene.IsNodePresent(nodes.record):
        raise CTError(_("The scene was closed before the result was shown. Score the scan again."))


def _command(ct: Path, volume: vtkMRMLScalarVolumeNode, image: sitk.Image, heart: tuple[Any, str] | None) -> list[str]:
    """Write the heart mask and the acquisition beside the CT's file, and return the command that scores it."""
    import SimpleITK as sitk

    from ..mrml import segments

    # Slicer computes spacings from directions: 1.2 mm becomes 1.1999999999999997, which would change last digits.
    image.SetSpacing([float(f"{mm:.{SPACING_DIGITS}g}") for mm in image.GetSpacing()])
    folder = ct.parent
    command = ["score", str(ct), "--output", str(folder / "result")]
    if heart is not None:
        sitk.WriteImage(segments.mask_image(*heart, image), str(folder / "heart.nii.gz"))
        command += ["--heart", str(folder / "heart.nii.gz")]
    acquisition = acquisitionOf(volume)
    if acquisition is not None:
        facts = {name: value for name, value in asdict(acquisition).items() if value is not None}
        file = folder / "acquisition.json"
        file.write_text(json.dumps(facts), encoding="utf-8")
        command += ["--settings", json.dumps({"scan": {"acquisition": str(file)}})]
    return command


def markUnreviewed(nodes: SceneNodes) -> None:
    """Mark the clinical lesions of a new result as not reviewed, because an algorithm alone made them."""
    from ..mrml.scene import REVIEWED_ATTRIBUTE

    nodes.calcium.SetAttribute(REVIEWED_ATTRIBUTE, "0")
