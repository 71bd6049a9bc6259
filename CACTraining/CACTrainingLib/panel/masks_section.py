"""Masks of lesion regions or the heart, painted in Slicer's segment editor and saved automatically."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.labels import ARTERIES, Artery, Labelled, label_called
from CACScoringLib.panel.editor import LesionEditor
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.widgets import Keys, singleShot, undoKeys, windowOf

from ..project import annotations as mask_files
from .opening import mark

if TYPE_CHECKING:
    import SimpleITK as sitk

    from .opening import OpenScan

SAVE_MILLISECONDS = 300
"""Delay in milliseconds between the last change of a mask and its saving."""

_SEGMENTS = (*ARTERIES, Artery.OTHER.key)


REGIONS, HEART = "regions", "heart"
"""Kinds of masks, of `annotation_files.MASK_KINDS`."""

_TITLES = {REGIONS: "Regions", HEART: "Heart"}
_DRAWING = ("Paint", "Draw", "Erase", "Level tracing", "Fill between slices")
_EFFECTS = {REGIONS: ("CAC Region", "Paint", "Erase"), HEART: (*_DRAWING, "Margin", "Smoothing", "Scissors", "Islands")}
"""Effects of Slicer's segment editor, by kind of mask."""


class MaskSection(PanelSection, VTKObservationMixin):
    """Widgets of one kind of mask; their names begin with the kind's. `onSaved` is called after each save."""

    def __init__(self, ui, kind: str, onSaved: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._kind = kind
        self._onSaved = onSaved
        self._label, self._status, self._accept, self._frame = (
            getattr(ui, f"{kind}{part}") for part in ("Label", "StatusLabel", "AcceptButton", "EditorFrame")
        )
        self._editor = LesionEditor(self._frame.layout(), _EFFECTS[kind], f"CACTraining.{kind}", undo=True)
        self._opened: OpenScan | None = None
        self._segmentation = None
        self._saved: Labelled | None = None
        self._timer = singleShot(SAVE_MILLISECONDS, self.save)
        self._accept.clicked.connect(lambda *_args: self.save(always=True))
        # The keys are enabled only while there is an editor.
        keys = undoKeys(lambda: self.editor.undo(), lambda: self.editor.redo())
        self._keys = Keys([windowOf(ui.taskTabs)], keys)
        self.update()

    @property
    def segmentation(self):
        """Segmentation node to paint on; None until the task is selected for the open scan."""
        return self._segmentation

    @property
    def editor(self):
        """Slicer's segment editor widget; None until the task is selected."""
        return self._editor.widget

    def setScan(self, opened: OpenScan | None) -> None:
        """Set another scan, None for none, after the mask was saved."""
        self._timer.stop()
        self.removeObservers()
        if self._segmentation is not None:
            from CACScoringLib.mrml.scene import remove_node

            self._editor.closeScene()
            remove_node(slicer.mrmlScene, self._segmentation)
        self._opened, self._segmentation, self._saved = opened, None, None
        self._say("")
        self.update()

    def setActive(self, on: bool) -> None:
        """Enable editing while this mask is the visible task."""
        on = on and self._opened is not None
        if on and self._segmentation is None:
            on = self._begin()
        self._keys.setEnabled(on)
        if self._segmentation is not None:
            if (display := self._segmentation.GetDisplayNode()) is not None:
                display.SetVisibility(on)
            if on:
                self._editor.enter()
                self._editor.edit(self._segmentation, self._opened.volume)
                if self._kind == REGIONS:  # an accidental stroke would spoil a proposed heart
                    self._editor.use(_EFFECTS[REGIONS][0])
            else:
                self._editor.exit()
        self.update()

    def closeScene(self) -> None:
        """Forget the nodes, which the closing scene removes."""
        self._timer.stop()
        self.removeObservers()
        self._editor.closeScene()
        self._opened = self._segmentation = self._saved = None
        self._keys.setEnabled(False)
        self.update()

    def cleanup(self) -> None:
        self.setScan(None)
        self._keys.remove()

    def update(self) -> None:
        """Show the state."""
        self._frame.setEnabled(self._segmentation is not None)
        self._accept.setEnabled(self._segmentation is not None)
        if self._opened is None:
            self._label.setText(_("Open a scan from the work list."))

    def save(self, always: bool = False) -> bool:
        """Save the mask if it has changed, or `always`. Return False, after showing the reason, if that fails."""
        self._timer.stop()
        if self._segmentation is None:
            return True
        opened = self._opened
        try:
            painted = self._painted()
            if not always and _areEqual(painted, self._saved):
                return True
            mask_files.write_mask(opened.project, opened.scan.id, opened.annotator, self._kind, self._image(painted))
        except (CTError, OSError) as error:
            self._say(_("Not saved: {error}").format(error=error))
            return False
        self._saved = painted
        self._say(_("Saved at {time}.").format(time=time.strftime("%H:%M:%S")))
        self._label.setText(self._source(isAnnotated=True))
        self._onSaved()
        return True

    def _begin(self) -> bool:
        """Show the annotator's mask, or the one to start from. Return False if there is none."""
        opened = self._opened
        try:
            mask = mask_files.read_annotated_mask(opened.project, opened.scan.id, opened.annotator, self._kind)
            segmentation = self._addSegmentation(mask if mask is not None else self._proposed())
        except (CTError, OSError, RuntimeError) as error:
            self._say(str(error))
            return False
        mark(segmentation, opened.project, opened.scan)
        self._segmentation = segmentation
        self._saved = self._painted()
        self._editor.make()
        events = slicer.vtkSegmentation
        # Painting invokes the first; undo the second alone.
        for event in (events.SourceRepresentationModified, events.SegmentModified):
            self.addObserver(segmentation.GetSegmentation(), event, lambda *_args: self._timer.start())
        self._label.setText(self._source(mask is not None))
        return True

    def _proposed(self) -> sitk.Image:
        """Mask to start from: the proposed heart, or an empty mask."""
        import SimpleITK as sitk

        from CACScoringLib.io.image_files import read_image

        proposal = self._opened.proposal
        if self._kind != HEART or proposal is None:
            return sitk.Image(self._opened.grid)
        return sitk.Cast(read_image(proposal.heart_file), sitk.sitkUInt8)

    def _addSegmentation(self, mask: sitk.Image):
        import SimpleITK as sitk

        from CACScoringLib.mrml.lesion_segments import add_lesions, add_outlines

        opened = self._opened
        if mask.GetSize() != opened.grid.GetSize():
            mask = sitk.Resample(mask, opened.grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        # Files may store rounded origins and spacings.
        mask.CopyInformation(opened.grid)
        title = _("{what} of {scan}").format(what=_(_TITLES[self._kind]), scan=opened.name)
        if self._kind == HEART:
            return add_outlines(slicer.mrmlScene, "heart", title, opened.volume, mask)
        node = add_lesions(slicer.mrmlScene, title, opened.volume, mask)
        for segment_id in set(node.GetSegmentation().GetSegmentIDs()) - set(_SEGMENTS):
            node.GetSegmentation().RemoveSegment(segment_id)
        return node

    def _painted(self) -> Labelled:
        from CACScoringLib.mrml.segments import voxels_of_segments

        def label(name: str) -> int:
            number = 1 if self._kind == HEART else label_called(name)
            if number > len(_SEGMENTS):
                names = ", ".join(_SEGMENTS)
                raise MaskError(f"The segment {name} is not an artery. Rename it ({names}) or remove it.")
            return number

        return voxels_of_segments(self._segmentation, self._opened.grid, label)

    def _image(self, painted: Labelled) -> sitk.Image:
        import numpy as np

        from CACScoringLib.core.grid import Grid

        values = np.zeros(self._opened.grid.GetSize()[::-1], np.uint8)
        values.reshape(-1)[painted.flat] = painted.values
        return Grid.of(self._opened.grid).image(values)

    def _source(self, isAnnotated: bool) -> str:
        if self._kind == REGIONS:
            return _("Paint generously around each lesion with its artery's colour (keys 1 to 5).")
        if isAnnotated:
            return _("This is your heart annotation of this scan.")
        proposal = self._opened.proposal
        if proposal is None:
            return _("There is no proposal for this heart: draw it.")
        text = _("Proposal ({source}). Correct it, or accept it as it is.").format(source=proposal.heart_source)
        return " ".join([text, *proposal.warnings])

    def _say(self, text: str) -> None:
        self._status.setText(text)


def _areEqual(first: Labelled, second: Labelled | None) -> bool:
    import numpy as np

    return (
        second is not None and np.array_equal(first.flat, second.flat) and np.array_equal(first.values, second.values)
    )
