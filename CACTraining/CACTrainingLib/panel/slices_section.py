"""Slice labels: calcium visible, not visible or unsure, with a key each; the next slice follows automatically."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from CACScoringLib.core.errors import CTError
from CACScoringLib.panel import views
from CACScoringLib.panel.lifecycle import PanelSection
from CACScoringLib.panel.slice_plot import SlicePlot
from CACScoringLib.panel.widgets import Keys, colourIcon, undoKeys, windowOf

from ..project.annotation_files import SliceLabel
from .labelling import Labelling
from .opening import OpenScan, showScan, showsNoOtherScan

COLOURS = {"VISIBLE": (239, 108, 0), "NOT_VISIBLE": (66, 133, 244), "UNSURE": (171, 71, 188)}
"""RGB colour of each label's mark, readable on light and dark backgrounds."""

_PLOT_PIXELS, _PLOT_WITH_SUGGESTION_PIXELS = 48, 96


class SlicesSection(PanelSection, VTKObservationMixin):
    """Widgets of slice labels.

    Args:
        ui: Widgets by name.
        onChanged: Function called after each label.
        onComplete: Function called when all slices are labelled.
    """

    def __init__(self, ui, onChanged: Callable[[], None], onComplete: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._ui = ui
        self._onChanged = onChanged
        self._onComplete = onComplete
        self._opened: OpenScan | None = None
        self._labelling: Labelling | None = None
        self._k: int | None = None
        self._undone: list[dict[int, SliceLabel]] = []
        self._active = False
        self.plot = SlicePlot()
        self.plot.chosen.connect(self._go)
        ui.slicesPlotFrame.layout().addWidget(self.plot)
        buttons = (ui.visibleButton, ui.notVisibleButton, ui.unsureButton)
        for name, button in zip(COLOURS, buttons, strict=True):
            button.clicked.connect(lambda *_args, name=name: self.label(SliceLabel[name]))
            button.setFocusPolicy(qt.Qt.NoFocus)  # Space would press it again
            button.setIcon(colourIcon(COLOURS[name]))
        ui.undoSliceButton.clicked.connect(lambda *_args: self.undo())
        font = ui.sliceLabel.font
        font.setPointSizeF(1.3 * font.pointSizeF())
        font.setBold(True)
        ui.sliceLabel.setFont(font)
        ui.slicesLegendLabel.setText(_legend())
        keys = {**undoKeys(self.undo, self.redo), "Backspace": self.undo}
        for letters, name in (("V1", "VISIBLE"), ("N2", "NOT_VISIBLE"), ("U3", "UNSURE")):
            keys |= dict.fromkeys(letters, partial(self.label, SliceLabel[name]))
        keys |= {"C": self.confirm, ",": lambda: self.move(-1), ".": lambda: self.move(1)}
        # Arrow keys are limited to this page and the views, because lists and boxes use them too.
        manager = slicer.app.layoutManager()
        within = [ui.slicesPage, *([] if manager is None else [manager.viewport()])]
        arrows = {"Down": lambda: self.move(-1), "Up": lambda: self.move(1)}
        self._keys = [Keys([windowOf(ui.slicesPage)], keys), Keys(within, arrows)]

    # Calls of the panel

    def setScan(self, opened: OpenScan | None) -> None:
        """Set the scan to label; None for none."""
        self.removeObservers()
        self._opened, self._k, self._undone = opened, None, []
        self._labelling = None if opened is None else Labelling(opened.annotations, opened.slices)
        self._say("" if opened is None else "\n".join(opened.annotations.warnings))
        if opened is not None:
            if (node := views.axialSliceNode()) is not None:
                self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._viewMoved)
            self._go(self._labelling.first())
            self._count()
        self.update()

    def setActive(self, on: bool) -> None:
        """Enable keys and viewing time while slices are the visible task."""
        self._active = on and self._opened is not None
        for keys in self._keys:
            keys.setEnabled(self._active)
        self._count()

    def cleanup(self) -> None:
        self.setScan(None)
        for keys in self._keys:
            keys.remove()

    @property
    def current(self) -> int | None:
        """Index k of the slice on screen."""
        return self._k

    @property
    def progress(self) -> tuple[int, int]:
        """Number of labelled slices, and of slices to label."""
        return (0, 0) if self._labelling is None else (self._labelling.done, len(self._labelling.slices))

    @property
    def unsure(self) -> int:
        """Number of slices labelled as unsure."""
        labels = {} if self._labelling is None else self._labelling.labels
        return sum(label.name == "UNSURE" and k in self._labelling.slices for k, label in labels.items())

    # Showing

    def update(self) -> None:
        """Show the labels."""
        ui, labelling = self._ui, self._labelling
        is_open = labelling is not None
        for widget in (ui.visibleButton, ui.notVisibleButton, ui.unsureButton, ui.suggestionBox):
            widget.setEnabled(is_open)
        ui.undoSliceButton.setEnabled(is_open and labelling.canUndo)
        done, count = self.progress
        # A progress bar repaints its whole window at once, so that the slice would be drawn twice.
        ui.slicesBar.setUpdatesEnabled(False)
        ui.slicesBar.setValue(int(1000 * done / count) if count else 0)
        ui.slicesBar.setUpdatesEnabled(True)
        ui.sliceCountLabel.setText(_("{done} of {count}").format(done=done, count=count) if is_open else "")
        self._showPlot()
        self._showSlice()

    def _showPlot(self) -> None:
        labelling, suggested = self._labelling, self._suggestions()
        self.plot.setFixedHeight(_PLOT_WITH_SUGGESTION_PIXELS if suggested else _PLOT_PIXELS)
        self.plot.setToolTip(
            _("The marks are your labels, the height is the predicted probability of calcium. Click to go to a slice.")
        )
        labels = {} if labelling is None else labelling.labels
        indices = (
            [] if labelling is None else [*labelling.slices, *(k for k in labels if k < len(self._opened.positions))]
        )
        marks = {k: (COLOURS[label.name],) for k, label in labels.items()}
        plotted = range(min(indices), max(indices) + 1) if indices else ()
        self.plot.setSlices({k: suggested.get(k) for k in plotted}, marks)

    def _showSlice(self) -> None:
        ui, labelling, k = self._ui, self._labelling, self._k
        self.plot.setCurrent(k)
        if labelling is None or k is None:
            nothing, outside = _("Open a scan from the work list."), _("Outside the scan")
            ui.sliceLabel.setText(nothing if labelling is None else outside)
            return
        label = labelling.labels.get(k)
        text = _("no label yet") if label is None else _labelNames()[label.name]
        if k not in labelling.slices:
            text += _(", outside the heart")
        text = _("Slice {k}: {said}").format(k=k, said=text)
        if (probability := self._suggestions().get(k)) is not None:
            text += _(" (suggestion: probability {probability:.0%})").format(probability=probability)
        ui.sliceLabel.setText(text)

    def _suggestions(self) -> dict[int, float]:
        """Predicted probability by slice index k, if suggestions are on."""
        asks = self._state is not None and self._state.showSuggestion and self._opened is not None
        return self._opened.proposal.probabilities if asks and self._opened.proposal is not None else {}

    def _viewMoved(self, caller=None, event=None) -> None:
        k = self._opened.sliceAt(views.positionOf(views.axialSliceNode()))
        if k != self._k:
            self._setCurrent(k)

    def _setCurrent(self, k: int | None) -> None:
        self._k = k
        self._labelling.show(k)
        self._showSlice()

    def _count(self) -> None:
        """Run the viewing time while the section is active."""
        if self._labelling is not None:
            (self._labelling.resume if self._active else self._labelling.pause)()

    # Actions of the annotator

    def label(self, label: SliceLabel) -> None:
        """Label the slice on screen, and go to the next unlabelled one."""
        if self._labelling is not None and self._k is not None:
            self._go_on(lambda: self._labelling.label(self._k, label))

    def confirm(self) -> None:
        """Label the slices of certain suggestions, if these are shown, and go to the next unlabelled one."""
        if suggested := self._suggestions():
            done = self._labelling.done
            self._go_on(lambda: self._labelling.confirm(suggested))
            count, label = self._labelling.done - done, self._ui.slicesStatusLabel
            text = _("{count} slices are labelled as suggested; one undo takes all of them back.").format(count=count)
            self._say(" ".join(filter(None, (text if count else "", label.text))))

    def _go_on(self, change: Callable[[], int | None]) -> bool:
        """Apply a change that returns the next slice, and show that slice; return False if it cannot be saved."""
        following = self._save(change)
        if following is _NOT_SAVED:
            return False
        self._undone = []
        self._ui.slicesStatusLabel.setText("")
        if following is not None:
            self._go(following)
        self.update()
        self._onChanged()
        if following is None:
            self._say(_("All slices of this heart are labelled. Page Down opens the next scan."))
            self._onComplete()
        return True

    def undo(self) -> None:
        """Undo the last label, or those of one confirmation, and show their first slice."""
        if self._labelling is None:
            return
        labels = dict(self._labelling.labels)
        k = self._save(self._labelling.undo)
        if k is None or k is _NOT_SAVED:
            return
        remaining = self._labelling.labels
        self._undone.append({n: label for n, label in labels.items() if remaining.get(n) != label})
        self._ui.slicesStatusLabel.setText("")
        self._go(k)
        self.update()
        self._onChanged()

    def redo(self) -> None:
        """Redo what was undone last."""
        if not self._undone:
            return
        *undone, labels = self._undone
        (k, label), *further = labels.items()
        change = partial(self._labelling.labelAll, labels) if further else partial(self._labelling.label, k, label)
        if self._go_on(change):
            self._undone = undone

    def move(self, step: int) -> None:
        """Go to a neighbouring slice without labelling: 1 towards the head, -1 towards the feet."""
        if self._k is not None and (k := self._labelling.neighbour(self._k, step)) is not None:
            self._go(k)

    def _save(self, change: Callable[[], int | None]) -> Any:
        """Apply a change and return its result; _NOT_SAVED, after showing the reason, if it cannot be saved.

        Nothing changes while the views showed another scan.
        """
        if not showsNoOtherScan(self._opened):
            k = self._k
            showScan(self._opened)
            if k is not None:
                self._go(k)
            text = _("The views showed another scan, so nothing was changed. They show {name} now: look, and repeat.")
            self._say(text.format(name=self._opened.name))
            return _NOT_SAVED
        try:
            return change()
        except (CTError, OSError) as error:
            self._say(_("Not saved, so this slice has no new label: {error}").format(error=error))
            return _NOT_SAVED

    def _say(self, text: str) -> None:
        self._ui.slicesStatusLabel.setText(text)

    def _go(self, k: int) -> None:
        if self._opened is None:
            return
        views.scrollTo(self._opened.positions[k])
        if self._k != k:  # without a view, no event reports the change
            self._setCurrent(k)


_NOT_SAVED = object()


def _labelNames() -> dict[str, str]:
    return {"VISIBLE": _("calcium visible"), "NOT_VISIBLE": _("not visible"), "UNSURE": _("unsure")}


def _legend() -> str:
    return "".join(
        f'<span style="color: rgb{COLOURS[name]}">■</span>&nbsp;{escape(text).replace(" ", "&nbsp;")} &nbsp; '
        for name, text in _labelNames().items()
    )
