"""Review of a result: its slices and lesions, and every change that a reader makes to them."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..core.errors import CTError
from ..core.labels import SITE_COLOURS, Artery, Site, site_called
from . import views, widgets
from .editor import EditorBox
from .lesion_table import LesionLine, LesionTableView, lesionLines
from .lifecycle import PanelSection, Signal
from .outlines import Outlines
from .slice_plot import SlicePlot

if TYPE_CHECKING:
    from ..mrml.scene_content import SliceRow
    from ..record.scores import Lesion
    from ..review.scene import SceneReview

REFRESH_MILLISECONDS = 20
"""Time within which changes, such as those of one brush stroke, lead to one update."""


def readerName(state) -> str:
    """Return the name under which a reader confirms: the one that the panel's field holds, else the computer's user."""
    name = "" if state is None else state.exportReader.strip()
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "reader"


class ReviewSection(PanelSection):
    """Widgets of a review.

    Attributes:
        numbersChanged: Signal after scores have changed.
        lesionViewed: Signal after the reader has gone to a lesion or slice.
        rescoreRequested: Signal when the reader requests a run that decomposes further slices.
        plot: Plot of the slices.
        table: Table of the lesions.
    """

    def __init__(self, ui) -> None:
        from ..mrml.scene import RECORD_ATTRIBUTE

        self._ui = ui
        self._observed = VTKObservationMixin()
        self._outlines = Outlines()
        self.numbersChanged, self.lesionViewed, self.rescoreRequested = Signal(), Signal(), Signal()
        self._review: SceneReview | None = None
        self._editor = EditorBox(ui.editorBox, ui.editorFrame.layout())
        self._appliedState: dict[str, object] = {}
        self._slices: dict[int, SliceRow] = {}
        self._passed: list[int] = []
        """Lesion to which an assignment has led, which counts as looked at once the reader goes on from it."""
        self._surfaces: list[tuple[object, float]] = []

        ui.resultSelector.addAttribute("vtkMRMLTextNode", RECORD_ATTRIBUTE, "1")
        ui.resultSelector.setMRMLScene(slicer.mrmlScene)
        self.plot = SlicePlot()
        self.plot.chosen.connect(self._sliceChosen)
        ui.plotFrame.layout().addWidget(self.plot)
        self.table = LesionTableView(ui.lesionTable)
        self.table.chosen.connect(self._lesionChosen)
        self.table.featuresChosen.connect(self.update)
        self._addSites()
        sites = {key: site_called(name) for key, name in widgets.SITE_KEYS.items()}
        keys: dict[str, Callable[[], object]] = {key: partial(self._assign, site) for key, site in sites.items()}
        keys |= {"X": lambda: self._assign(None), "A": ui.acceptButton.click, "N": self._nextDoubtful}
        # Qt's own would move along the row, and the next key would edit a lesion out of sight.
        keys |= {"Home": lambda: self._goTo(0), "End": lambda: self._goTo(-1)}
        self._listKeys = widgets.Keys([ui.lesionTable], keys)
        self._listKeys.setEnabled(True)
        # The keys work only while the buttons are in sight, so that no change goes unnoticed.
        undoing = ui.undoButton, ui.redoButton
        undo, redo = (lambda button=button: button.visible and button.click() for button in undoing)
        self._undoKeys = widgets.Keys([widgets.windowOf(ui.pages)], widgets.undoKeys(undo, redo))
        self._timer = widgets.singleShot(REFRESH_MILLISECONDS, self._refresh)
        self._surfacesTimer = widgets.singleShot(0, self._showSurfaces)
        self._tablesTimer = widgets.singleShot(0, self._updateTables)

        self.bind(ui.reviewMethodBox, "reviewMethod")
        ui.sliceBox.clicked.connect(self._sliceSwitched)
        ui.undoButton.clicked.connect(lambda *_args: self._move(lambda: self._review.undo()))
        ui.redoButton.clicked.connect(lambda *_args: self._move(lambda: self._review.redo()))
        ui.acceptButton.clicked.connect(lambda *_args: self._confirm(lambda: self._review.accept(self._method), False))
        ui.rejectRestButton.clicked.connect(lambda *_args: self._rejectRest())
        ui.noCalciumButton.clicked.connect(lambda *_args: self._confirmZero())
        ui.reviewedBox.clicked.connect(self._reviewedClicked)
        ui.rescoreButton.clicked.connect(lambda *_args: self.rescoreRequested.emit())
        ui.doubtfulButton.clicked.connect(lambda *_args: self._nextDoubtful())
        ui.layoutButton.clicked.connect(lambda *_args: self.showSideBySide())

    def _addSites(self) -> None:
        """Add a row of buttons: the four main arteries, a menu of other sites, and rejection."""
        tip = _("Assign the selected lesions to {site} (key {key} in the list).")
        row, buttons = widgets.siteButtons(tip, self._assign, ["1234"])
        self._menu = qt.QMenu()
        for key in "56789":
            site = site_called(widgets.SITE_KEYS[key])
            action = self._menu.addAction(widgets.colourIcon(SITE_COLOURS[site]), f"{site.full_name} ({key})")
            action.triggered.connect(lambda *_args, site=site: self._assign(site))
        more_button = widgets.wideButton("…", _("Assign the selected lesions to another artery or site (keys 5 to 9)."))
        more_button.setMenu(self._menu)
        more_button.setPopupMode(qt.QToolButton.InstantPopup)
        tip = _("Reject the selected lesions: they count nowhere (key X in the list).")
        reject = widgets.wideButton("✕", tip, lambda: self._assign(None))
        layout = self._ui.siteFrame.layout()
        layout.addLayout(row)
        for button in (more_button, reject):
            layout.addWidget(button)
        self._buttons = (*buttons.values(), more_button, reject)

    # Calls from the panel

    def setState(self, state) -> None:
        # Edits made after the panel was left are still scored with the last state.
        if state is not None:
            super().setState(state)

    def setReview(self, review: SceneReview | None) -> None:
        """Review a result; None for no result."""
        self._observed.removeObservers()
        self._outlines.stop()
        if self._review is not None:
            self._hideResult()
            self._list([])  # IDs of another scan's lesions
        self._review = review
        self._passed = []
        self._fillMethods()
        if review is not None:
            events = slicer.vtkSegmentation
            outlines = filter(None, [review.nodes.pericardium])
            for segmentation in (*self._segmentations().values(), *outlines):
                # Painting invokes the first event; undo in Slicer's own segment editor only the second.
                for event in (events.SourceRepresentationModified, events.SegmentModified):
                    self._observed.addObserver(
                        segmentation.GetSegmentation(), event, lambda *_args: self._timer.start()
                    )
            self._followAxialView()
            self._outlines.follow(list(vars(review.nodes).values()))
        self._appliedState = {} if review is None else {"method": self._method}
        self.update()

    def updateParameters(self) -> None:
        """Apply changes of the state."""
        if self._review is None:
            return
        state, previous = self._state, self._appliedState
        self._appliedState = {"method": self._method, "fade": state.fade, "3-D": state.show3D}
        changed = {name for name, value in self._appliedState.items() if previous.get(name) != value}
        if "method" in changed:
            self._list([])  # IDs of the other method's lesions
            self._passed = []
            self.update()
        if "fade" in changed:
            views.setFade(state.fade)
        if "3-D" in changed:
            lesions = [(segmentation, 1.0) for segmentation in self._segmentations().values()]
            self._surfaces = [*lesions, (self._review.nodes.heart, views.HEART_OPACITY_3D)]
            self._surfacesTimer.start()

    def _showSurfaces(self) -> None:
        """Show one surface per step, the heart first, because each takes time; then point the camera at them."""
        if self._review is None or self._state is None or slicer.app.layoutManager() is None:
            return
        if self._surfaces:
            views.showSurface(*self._surfaces.pop(), self._state.show3D)
            self._surfacesTimer.start()
        elif self._state.show3D:
            views.lookAtSurfaces()

    def update(self) -> None:
        """Show the current state of the review."""
        review, ui = self._review, self._ui
        has_review = review is not None
        ui.reviewFrame.setVisible(has_review)
        other_controls = (ui.reviewMethodBox, ui.rejectRestButton, ui.reviewedBox, ui.noCalciumButton, ui.layoutButton)
        for widget in (*other_controls, ui.show3DBox):
            widget.setEnabled(has_review)
        ui.fadeSlider.setEnabled(has_review and review.nodes.healthy is not None)
        is_reviewed = has_review and review.reviewed[self._method]
        ui.acceptButton.setEnabled(has_review)
        texts = {(False, False): _("Confirm"), (False, True): _("Confirm again")}
        texts |= {(True, False): _("Confirm map"), (True, True): _("Confirm map again")}
        ui.acceptButton.setText(texts[has_review and self._isMap, is_reviewed])
        ui.doubtfulButton.setVisible(not is_reviewed)  # of a confirmed score none are, and the row is narrow
        ui.undoButton.setEnabled(has_review and review.can_undo)
        ui.redoButton.setEnabled(has_review and review.can_redo)
        if not has_review:
            self._list([])
            self._slices = {}
            self.plot.setSlices({}, {})
            ui.rescoreButton.setVisible(False)
            self._showSlice()
            return
        self._fillMethods()
        ui.reviewedBox.setChecked(review.reviewed[self._method])
        self._showSegmentation()
        if self._method in review.problems:
            self._list([])
            widgets.say(ui.totalLabel, review.problems[self._method])
            return
        self._list(lesionLines(review, self._method, bool(self.table.features)))
        self._showSlices([*review.lesions(self._method), *review.left_out(self._method)])

    def _list(self, lines: list[LesionLine]) -> None:
        self.table.show(lines)
        self._showViewedCount()

    def _showViewedCount(self) -> None:
        """Show how many candidates have been viewed, and after the last one ask the reader to confirm."""
        ui, unseen, count = self._ui, self._unseen(), self._candidateCount()
        doubtful_count = sum(line.doubtful for line in self.table.lines)
        text = _("{looked} of {count} looked at").format(looked=count - len(unseen), count=count)
        if self._review is not None and self._sinceConfirmed():
            text = _("{text} by now").format(text=text)
        if self._review is not None and self._isMap:
            text = _("Map: {text}").format(text=text)
        ui.lookedLabel.setText(text if count else "")
        ui.doubtfulButton.setText(_("Doubtful ({count})").format(count=doubtful_count))
        ui.doubtfulButton.setEnabled(bool(doubtful_count))
        if self._review is not None and self._review.reviewed[self._method]:
            text = self._sinceConfirmed()
        elif self._review is None or unseen:
            text = ""
        elif count:
            text = _("All candidates looked at: confirm the score (key A).")
        else:
            text = _("There are no candidates. Look through the heart before you confirm the score (key A).")
        widgets.say(ui.totalLabel, text)

    def _unseen(self) -> set[int]:
        """Return the candidates at the start that were never shown to the reader."""
        review = self._review
        return set() if review is None or self._method in review.problems else review.unseen_candidates(self._method)

    def _candidateCount(self) -> int:
        review = self._review
        return 0 if review is None else len(set(review.candidates(self._method).ids.tolist()))

    def _sinceConfirmed(self) -> str:
        """Return an offer to confirm a score again if lesions were looked at since; else an empty text."""
        confirmation = self._review.confirmations.get(self._method)
        before = set() if confirmation is None else set(confirmation.not_looked_at or ())
        if not before & self._review.looked_at(self._method):
            return ""
        return _("You have looked at more lesions since the score was confirmed. Confirm it again (key A).")

    def _nextDoubtful(self) -> None:
        """Go to the next doubtful lesion below the current one; start again at the top after the last one."""
        current, lines = self.table.current, self.table.lines
        ids = [line.id for line in lines]
        first = ids.index(current) + 1 if current in ids else 0
        following = [line.id for line in (*lines[first:], *lines[:first]) if line.doubtful]
        if following:
            self._lesionChosen(self.table.showLesion(following[0]))

    def _goTo(self, row: int) -> None:
        """Go to the lesion in a row of the list; -1 for the last."""
        if ids := self.table.listed:
            self._lesionChosen(self.table.showLesion(ids[row]))

    def showLayout(self) -> bool:
        """Change to the layout of the result; return False if it is shown already."""
        if views.shownLayout() == views.RADIOGRAPH_LAYOUT_ID:
            self._surfacesTimer.start()  # radiographs turn the same 3-D view
        return views.showLayout(self._review.nodes.calcium_map is not None)

    def showSideBySide(self) -> None:
        """Show the result in its layout, changing to that first if needed."""
        self.showLayout()
        nodes = self._review.nodes
        views.showSideBySide(nodes.volume, nodes.heart, nodes.healthy, nodes.calcium_map)
        self._outlines.update()
        views.showHeart(nodes.heart)
        self._showSegmentation()
        views.setFade(self._state.fade)
        self._followAxialView()
        self._showLesion(self.table.current)
        focus = qt.QApplication.focusWidget()
        if focus is None or self._ui.pages.isAncestorOf(focus):  # never take the focus from another part of Slicer
            self._ui.lesionTable.setFocus()

    def _isScanShown(self) -> bool:
        nodes = self._review.nodes
        return views.showNoneBut((nodes.volume, nodes.healthy, nodes.calcium_map))

    def _ensureScanShown(self) -> bool:
        """Show the scan of the result if another one had taken its place; return True if none had."""
        nodes = self._review.nodes
        if self._isScanShown():
            return True
        if views.shownLayout() in (views.LAYOUT_ID, views.PLAIN_LAYOUT_ID):
            views.showSideBySide(nodes.volume, nodes.heart, nodes.healthy, nodes.calcium_map)
            views.setFade(self._state.fade)
        else:
            slicer.util.setSliceViewerLayers(background=nodes.volume, foreground=None, fit=True)
        return False

    def enter(self) -> None:
        self._undoKeys.setEnabled(True)
        self._refresh()
        self._editor.enter()

    def exit(self) -> None:
        views.restoreLayout()
        self._outlines.update()
        self._undoKeys.setEnabled(False)
        self._editor.exit()

    def cleanup(self) -> None:
        super().cleanup()
        self._surfacesTimer.stop()
        self._tablesTimer.stop()
        self._outlines.stop()
        self.table.cleanup()
        self._editor.cleanup()
        self._undoKeys.remove()

    def closeScene(self) -> None:
        self._timer.stop()
        views.restoreLayout()
        self._editor.closeScene()

    # Showing

    @property
    def _method(self) -> str:
        methods = self._review.methods
        return self._state.reviewMethod if self._state.reviewMethod in methods else methods[0]

    @property
    def _isMap(self) -> bool:
        return self._method == "decomposition"

    def _fillMethods(self) -> None:
        if self._review is None:
            widgets.fillBox(self._ui.reviewMethodBox, [], "")
            return
        from ..results import METHOD_TITLES

        choices = [(METHOD_TITLES[method], method) for method in self._review.methods]
        widgets.fillBox(self._ui.reviewMethodBox, choices, self._method)

    def _segmentations(self) -> dict[str, Any]:
        """Return the segmentations of lesions by method."""
        nodes = self._review.nodes
        segmentations = {"threshold": nodes.calcium, "decomposition": nodes.map_lesions}
        return {method: segmentations[method] for method in self._review.methods}

    def _showSlices(self, lesions: Sequence[Lesion]) -> None:
        colours: dict[int, list[Any]] = {}
        for lesion in lesions:
            for k in lesion.slices:
                marks = colours.setdefault(k, [])
                if (colour := SITE_COLOURS[lesion.site]) not in marks:
                    marks.append(colour)
        self._slices = {row.k: row for row in self._review.slices() or self._slicesWithoutMap()}
        self._ui.rescoreButton.setVisible(bool(self._review.slices_wished))
        # Leading and trailing slices without heart or lesion are omitted to leave room for the others.
        contents = [k for k, row in self._slices.items() if row.probability is not None or k in colours]
        rows = [self._slices[k] for k in range(min(contents), max(contents) + 1)] if contents else []
        unused = [row.k for row in rows if not row.used]
        self._showLimits({row.k: row.probability for row in rows}, colours, unused)
        self._showSlice()

    def _showLimits(
        self, probabilities: dict[int, float | None], colours: dict[int, list[Any]], unused: list[int]
    ) -> None:
        """Show slices in the plot, with the limits of their probabilities."""
        limits = self._review.record.slice_limits if any(p is not None for p in probabilities.values()) else ()
        self.plot.setSlices(probabilities, colours, unused, [limit for limit in limits if limit is not None])
        text = _("Slices from feet to head. Height: probability of calcium; marks: lesions. Click to go to a slice.")
        whats = _("the map is computed"), _("a classifier that decides alone, as published, calls it calcium")
        for limit, words in zip(limits or (None, None), whats, strict=True):
            if limit is not None:
                text += "\n" + _("Line at {limit:.0%}: from there on {words}.").format(limit=limit, words=words)
        self.plot.setToolTip(text)

    def _slicesWithoutMap(self) -> list[SliceRow]:
        """Return the scan's slices without probabilities, so that the plot can mark lesions."""
        from ..mrml.scene_content import SliceRow, slice_position_ras

        image = self._review.scan.image
        return [SliceRow(k, slice_position_ras(image, k), None, False, False) for k in range(image.GetSize()[2])]

    def _showSlice(self) -> None:
        """Mark the axial view's slice in the plot and update the slice's switch."""
        ui = self._ui
        k = self._currentSlice()
        row = None if k is None else self._slices[k]
        self.plot.setCurrent(k)
        switchable = row is not None and row.probability is not None
        ui.sliceBox.setEnabled(switchable)
        ui.sliceBox.setChecked(switchable and row.used)
        text = "" if row is None else _("Slice {k}").format(k=k)
        if switchable:
            text = _("Slice {k}: probability of calcium {sure:.0%}").format(k=k, sure=row.probability)
        ui.sliceLabel.setText(text)

    def _showSegmentation(self) -> None:
        """Show only the lesions of the method under review in the views and the editor."""
        segmentations = self._segmentations()
        for method, segmentation in segmentations.items():
            self._outlines.setVisible(segmentation, method == self._method)
        self._editor.edit(segmentations[self._method], self._review.nodes.volume)

    def _hideResult(self) -> None:
        """Hide all segmentations of the result, which would be drawn over another scan."""
        for node in vars(self._review.nodes).values():
            if isinstance(node, slicer.vtkMRMLSegmentationNode) and node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(False)

    def _currentSlice(self) -> int | None:
        node = views.axialSliceNode()
        if node is None or not self._slices or not self._isScanShown():
            return None
        r, a, s = views.positionOf(node)
        k = round(self._review.scan.image.TransformPhysicalPointToContinuousIndex((-r, -a, s))[2])
        return k if k in self._slices else None

    def _followAxialView(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if not self._observed.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._viewMoved):
                self._observed.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._viewMoved)

    def _viewMoved(self, caller=None, event=None) -> None:
        if self._review is not None:
            self._showSlice()
            self.lesionViewed.emit()

    # Actions of the reader

    def _showLesion(self, lesionId: int | None) -> None:
        """Show a lesion, or the first one. It does not count as looked at, because the reader has not chosen it."""
        self._passed = []
        if (lesion := self.table.showLesion(lesionId)) is not None:
            self._jumpTo(lesion)

    def _lesionChosen(self, lesionId: int) -> None:
        self._review.look_at(self._method, [lesionId, *self._passed])
        self._showViewedCount()
        self._jumpTo(lesionId)

    def _jumpTo(self, lesionId: int) -> None:
        self._ensureScanShown()
        views.jumpTo(self._review.position_of(self._method, lesionId))

    def _sliceChosen(self, k: int) -> None:
        row = self._slices.get(k)
        if row is not None:
            self._ensureScanShown()
            views.scrollTo(row.position_ras)
            self.plot.setCurrent(k)

    def _assign(self, site: Site | None) -> None:
        """Assign the selected lesions to a site; None rejects them."""
        lesions = self.table.selected if self._review is not None else []
        if not lesions:
            return
        following = self.table.following
        has_changed = self._change(partial(self._give, lesions, site, self._method))
        if has_changed and following is not None:
            self._showLesion(following)
            self._passed = [following]

    def _give(self, lesions: list[int], site: Site | None, method: str) -> None:
        if site is None:
            self._review.reject(method, lesions)
        else:
            self._review.assign(method, lesions, site)

    def decide(self, lesion: int, artery: Artery | None) -> None:
        """Count a lesion for an artery, or reject it (None), and go to the one that decides the score then."""
        review, method = self._review, "threshold"
        if self._change(partial(self._give, [lesion], artery, method)):
            self.set("reviewMethod", method)  # the edit is seen in the list
            self._showLesion(review.result(method).alternative_lesion or lesion)

    def _sliceSwitched(self, on: bool) -> None:
        k = self._currentSlice()
        if k is not None:
            self._change(lambda: self._review.switch_slice(k, on))

    def _confirm(self, change: Callable[[], object], unassigned_may_stay: bool) -> None:
        """Make a change that confirms a score, after a question if the reader has not looked at every lesion.

        What cannot be confirmed is refused first. unassigned_may_stay: As in `ScanReview.refusal`.
        """
        if self._method not in self._review.problems and self._review.refusal(self._method, unassigned_may_stay):
            self._change(change)  # shows the reason
            self._ui.reviewedBox.setChecked(False)
            self._ui.moreButton.collapsed = False  # where the rest is rejected
            return
        decisive = None if self._method in self._review.problems else self._review.unseen_decisive(self._method)
        texts = [_("Lesion {lesion} decides the score.").format(lesion=decisive)] if decisive is not None else []
        texts += self._unseenText()
        self._changeIfCertain(change, " ".join(texts), _("Confirm the score"), _("Confirm"), decisive)

    def _unseenText(self) -> list[str]:
        """Return how many candidates were looked at and never shown; nothing if all were."""
        unseen, count = len(self._unseen()), self._candidateCount()
        text = _("Candidates looked at: {looked} of {count}. Never shown: {unseen}. The record will say so.")
        return [text.format(looked=count - unseen, count=count, unseen=unseen)] if unseen else []

    def _rejectRest(self) -> None:
        """Reject all unassigned lesions, after a question where some were never shown."""
        unassigned = {lesion.id for lesion in self._listed() if lesion.site == Artery.UNASSIGNED}
        unseen, title = len(self._unseen() & unassigned), _("Reject the rest")
        text = _("Candidates that this rejects: {count}. Never shown: {unseen}. The record will say so.")
        text = text.format(count=len(unassigned), unseen=unseen) if unseen else ""
        self._changeIfCertain(partial(self._review.reject_unassigned, self._method), text, title, _("Reject"))

    def _listed(self) -> tuple[Lesion, ...]:
        review, method = self._review, self._method
        return () if method in review.problems else (*review.lesions(method), *review.left_out(method))

    def _confirmZero(self) -> None:
        """Reject all lesions of the shown method, after a question that states what goes and what was never shown."""
        review, method = self._review, self._method
        results, count = review.results(), sum(isinstance(lesion.site, Artery) for lesion in self._listed())
        result, of_map = results.get(method), results.get("decomposition")
        text = _("This discards the score of {score}, rejects its candidates ({count}) and confirms 0.")
        score = "" if result is None else f"{result.total.clinical_agatston:,.0f}"
        texts = [text.format(score=score, count=count)] if count else []
        texts += self._unseenText()
        if method == "threshold" and of_map is not None and of_map.total.lesions and not of_map.reviewed:
            text = _("The calcium map's score of {score} goes, too.")
            texts.append(text.format(score=f"{of_map.total.clinical_agatston:,.0f}"))
        question = " ".join(texts)
        change = partial(review.set_no_calcium, method)
        self._changeIfCertain(change, question, _("No coronary calcium"), _("Confirm 0"))

    def _changeIfCertain(
        self, change: Callable[[], object], question: str, title: str, proceed: str, decisive: int | None = None
    ) -> None:
        """Make a change that confirms a score, after a question, if any, and show its consequences.

        title, proceed: title of the question and text of the button that goes on. decisive: lesion on offer to be seen.
        """
        show = "" if decisive is None else _("Show it")
        answer = widgets.askBefore(title, question, proceed, show) if question else proceed
        if answer == proceed:
            self._change(change)
            return
        self.update()  # sets the box back
        if answer:
            self._lesionChosen(self.table.showLesion(decisive))

    def _reviewedClicked(self, on: bool) -> None:
        change = partial(self._review.set_reviewed, self._method, on)
        if on:
            self._confirm(change, True)
        else:
            self._change(change)

    def _change(self, change: Callable[[], object]) -> bool:
        """Make a change and show its consequences; return False if it was refused.

        Nothing changes while the views showed another scan, and the selection stays where it was.
        """
        if not self._ensureScanShown():
            self.update()  # sets a box back
            name = self._review.nodes.volume.GetName()
            text = _("The views showed another scan, so nothing was changed. They show {name} now: look, and repeat.")
            widgets.say(self._ui.totalLabel, text.format(name=name))
            return False
        self._review.reader = readerName(self._state)
        try:
            change()
        except CTError as error:
            widgets.say(self._ui.totalLabel, str(error))
            return False
        self._timer.stop()
        self._review.refresh()
        self._showNumbers()
        return True

    def _move(self, change: Callable[[], object]) -> None:
        """Undo or redo a change, and show the method and the lesion that it was about."""
        from ..review.review import Difference  # loads SciPy

        review = self._review
        before = {method: (review.review(method).labelled, review.reviewed[method]) for method in review.methods}
        self._change(change)
        moved = {}
        for method, (labels, mark) in before.items():
            voxels = Difference.of(labels, review.review(method).labelled).flat
            if voxels.size or review.reviewed[method] != mark:
                moved[method] = voxels
        if not moved:
            return
        if self._method not in moved:
            self.set("reviewMethod", next(iter(moved)))
        if lesions := review.review(self._method).lesions_at(moved[self._method]):
            self._showLesion(lesions[0])

    def _refresh(self) -> None:
        if self._review is None:
            return
        self._review.reader = readerName(self._state)  # an edit of a confirmed score confirms it anew
        try:
            changed = self._review.refresh()
        except CTError as error:
            widgets.say(self._ui.totalLabel, str(error))
            return
        if changed:
            self._showNumbers()

    def _showNumbers(self) -> None:
        self.update()
        self.numbersChanged.emit()
        self._tablesTimer.start()  # in a step of their own, because they take as long as all else

    def _updateTables(self) -> None:
        if self._review is not None:
            self._review.update_tables()
