"""Page of radiographs, and the layout that shows their pictures.

The layout has a radiograph view beside a 3-D view. A chest radiograph is scored in the background and shown with the
located evidence.
"""

# Slicer's naming.
# ruff: noqa: N802, N806

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer import vtkMRMLTextNode
from slicer.i18n import tr as _

from ..core.errors import CTError
from . import views, widgets
from .command_section import CommandSection
from .forms import Form
from .input_section import ModelBoxes
from .job import Steps, temporaryFolder
from .packages import TORCH_REQUIREMENTS, ensurePackages
from .parameters import PATIENT, CACScoringParameterNode, RadiographSource, Sex

if TYPE_CHECKING:
    import numpy as np


_MARGIN = 1.02
_FROM_THE_SIDE_MM = (-1600.0, 1200.0, 700.0)
"""The patient's left, front and above, from where the beams of all standard views are visible."""


UNCHANGED = "Cancelled. The scene was not changed."
"""Message after work was cancelled, translated on display."""


class PictureSection(CommandSection):
    """Part of the page whose work makes a picture."""

    def __init__(self, ui, form: Form) -> None:
        super().__init__(ui, form)
        self._pending: tuple[object, float] | None = None
        """Picture and opacity to show once the page is in sight: a user may have gone on to a review."""
        ui.pages.currentChanged.connect(lambda *_args: self._pageChosen())

    def closeScene(self) -> None:
        self.cancel()
        self._pending = None

    @property
    def isInSight(self) -> bool:
        return self.ui.pages.currentWidget() is self.ui.radiographTab

    def showPicture(self, picture, opacity: float) -> None:
        """Show a picture in the layout, as soon as the page is in sight."""
        self._pending = picture, opacity
        self._pageChosen()

    def _pageChosen(self) -> None:
        if self._pending is not None and self.isInSight:
            (picture, opacity), self._pending = self._pending, None
            if slicer.mrmlScene.IsNodePresent(picture):
                showPicture(picture, opacity)


def showLayout(volume=None) -> None:
    """Change to the layout and fit the scene into its 3-D view.

    Does nothing without a main window, or if the layout already shows a picture, because a reader may have turned the
    view. volume: volume for the slice view while there is no radiograph.
    """
    manager, is_shown = slicer.app.layoutManager(), views.shownLayout() == views.RADIOGRAPH_LAYOUT_ID
    if manager is None or (
        is_shown and manager.sliceWidget(views.RADIOGRAPH).mrmlSliceCompositeNode().GetBackgroundVolumeID()
    ):
        return
    views.registerLayouts()
    views.changeLayout(views.RADIOGRAPH_LAYOUT_ID)
    if volume is not None:
        widget = manager.sliceWidget(views.RADIOGRAPH)
        widget.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        widget.sliceLogic().FitSliceToBackground()
    widget = views.shownThreeDWidget()
    if widget is not None:
        view = widget.threeDView()
        view.resetFocalPoint()
        views.lookFrom(view.cameraNode(), _FROM_THE_SIDE_MM)
        views.fitCamera(view)


def showPicture(picture, opacity: float = 0.0) -> None:
    """Show an entire radiograph, upright, in the layout's own view, with the pictures that it refers to over it.

    opacity: Opacity of the picture over it.
    """
    from ..mrml.radiograph_nodes import OUTLINE_ROLE, OVERLAY_ROLE, slice_axes

    manager = slicer.app.layoutManager()
    if manager is None:
        return
    showLayout()
    widget = manager.sliceWidget(views.RADIOGRAPH)
    composite = widget.mrmlSliceCompositeNode()
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(picture.GetID())
    composite.SetForegroundVolumeID(picture.GetNodeReferenceID(OVERLAY_ROLE))
    composite.SetForegroundOpacity(opacity)
    composite.SetLabelVolumeID(picture.GetNodeReferenceID(OUTLINE_ROLE))
    composite.SetLabelOpacity(1.0)
    node = widget.mrmlSliceNode()
    node.SetUseLabelOutline(True)
    normal, right, centre = slice_axes(picture)
    node.SetSliceToRASByNTP(*normal, *right, *centre, 0)
    (columns, rows, _slices), spacing = picture.GetImageData().GetDimensions(), picture.GetSpacing()
    views.setFieldOfView(node, columns * spacing[0] * _MARGIN, rows * spacing[1] * _MARGIN)


def setOpacity(picture, opacity: float) -> None:
    """Set the opacity of the volume over a picture, if the radiograph view shows that picture."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == views.RADIOGRAPH and composite.GetBackgroundVolumeID() == picture.GetID():
            composite.SetForegroundOpacity(opacity)


def pixmapOf(picture: np.ndarray, height: int):
    """Return a picture, uint8 [row, column, RGB], as a pixmap of a given height."""
    rows, columns, _colours = picture.shape
    pixmap = qt.QPixmap()
    # In the PPM format, raw pixels follow a line of text.
    pixmap.loadFromData(qt.QByteArray(b"P6 %d %d 255\n" % (columns, rows) + picture.tobytes()))
    return pixmap.scaledToHeight(height, qt.Qt.SmoothTransformation)


NETWORK = "radiograph"


class RadiographSection(PictureSection):
    """Widgets that score a radiograph."""

    def __init__(self, ui) -> None:
        from ..mrml.scene import RADIOGRAPH_ATTRIBUTE

        super().__init__(ui, PATIENT)
        tip = _("Score the radiograph in the background; Slicer stays usable.")
        section = ui.radiographButton.layout()
        self.addCommand(section, 1, _("Score radiograph"), tip, self._score, _(UNCHANGED))
        self._inSight = widgets.InSight(ui.radiographButton)
        self._record: vtkMRMLTextNode | None = None
        self._output: tempfile.TemporaryDirectory[str] | None = None
        self._filledFrom = ""
        PATIENT.addRows(ui, ui.radiographForm.layout(), 1, "pa", "lateral")
        PATIENT.addRows(ui, ui.radiographForm.layout(), 4, "age_years", "sex", "bmi_kg_m2")
        self._models = ModelBoxes(self, ui, ui.radiographForm.layout(), 7, [NETWORK])
        for edit in (ui.radiographPaBox, ui.radiographLateralBox):
            widgets.watchPath(edit, self._pathsChanged, edit.filters)
        ui.radiographSelector.addAttribute("vtkMRMLScalarVolumeNode", RADIOGRAPH_ATTRIBUTE)
        ui.radiographSelector.setMRMLScene(slicer.mrmlScene)
        ui.radiographPictureBox.currentIndexChanged.connect(lambda *_args: self._showPicture())
        ui.radiographReportButton.clicked.connect(self._openReport)
        widgets.prepareTable(ui.radiographTable)
        self._showRecord()

    # Calls from the panel

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is not None:
            self._filledFrom = state.radiographPa  # the patient's data are in the state already
            reason = self._models.list()
            if not self._models.counts[NETWORK]:
                text = _("No network for radiographs is installed. Install one in CAC Training, page Evaluate.")
                self.job.say(reason or text)

    def closeScene(self) -> None:
        super().closeScene()
        self._record = None
        self._showRecord()

    def cancel(self) -> None:
        super().cancel()
        self._removeOutput()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self.ui
        if state is None:
            return
        fromFile = state.radiographSource == RadiographSource.FILE
        widgets.showPath(ui.radiographPaBox, state.radiographPa)
        widgets.showPath(ui.radiographLateralBox, state.radiographLateral)
        self._models.show(state)
        for part, isVisible in (("PaBox", fromFile), ("LateralBox", fromFile), ("Selector", not fromFile)):
            for kind in ("", "Label"):
                getattr(ui, f"radiograph{part}{kind}").setVisible(isVisible)
        hasInput = state.radiographPa or state.radiographLateral if fromFile else state.radiographVolume is not None
        self.job.update(bool(hasInput and self._models.counts[NETWORK]))
        if state.radiographResult is not self._record:
            self._record = state.radiographResult
            self._showRecord()

    # The input

    def _pathsChanged(self, *_args: object) -> None:
        if self._state is None:
            return
        state = self._state
        state.radiographLateral = self.ui.radiographLateralBox.currentPath
        state.radiographPa = self.ui.radiographPaBox.currentPath
        if state.radiographPa != self._filledFrom:
            self._filledFrom = state.radiographPa
            self._fillInPatient(Path(state.radiographPa))

    def _fillInPatient(self, path: Path) -> None:
        """Fill in age and sex from a DICOM file, or set them to unknown."""
        from ..io.dicom import is_dicom, read_slice
        from ..io.series_acquisition import acquisition_of

        age, sex = None, None
        try:
            if path.is_file() and is_dicom(path) and (image := read_slice(path)) is not None:
                facts = acquisition_of([image])
                age, sex = facts.patient_age_years, facts.patient_sex
        except (CTError, OSError):
            pass  # scoring reports the error
        state = self._state
        state.radiographAgeYears = int(age or 0)
        state.radiographSex = Sex(sex) if sex in ("F", "M") else Sex.UNKNOWN
        state.radiographBmiKgM2 = 0.0

    # The run

    def _score(self) -> Steps[str]:
        """Run `cac score` on the radiograph. Its output folder, with the report, stays until the next run."""
        from ..mrml.radiograph_nodes import add_scored

        if reason := ensurePackages(TORCH_REQUIREMENTS, purpose=_("Scoring a radiograph")):
            return reason
        self._removeOutput()
        self._output = tempfile.TemporaryDirectory(prefix="cac-radiograph-", ignore_cleanup_errors=True)
        self.job.show(_("Preparing …"), 0.0)
        state, output = self._state, self._report.parent
        is_file = state.radiographSource == RadiographSource.FILE
        source = None if is_file else state.radiographVolume
        name = Path(state.radiographPa or state.radiographLateral).stem if is_file else source.GetName()
        with temporaryFolder() as folder:
            inputs = self._inputs(source, Path(folder) / "radiograph.nrrd")
            model = ["--model", state.radiographModel] if state.radiographModel else []
            command = ["score", "--settings", json.dumps({"radiograph": inputs}), *model]
            command += ["--device", state.device.value, "--output", str(output)]
            yield from self.job.run(command)
        if source is not None and not slicer.mrmlScene.IsNodePresent(source):
            source = None
        record = add_scored(slicer.mrmlScene, output, name, source)
        if self._state is not None:
            self._state.radiographResult = record
        self._inSight.start()
        return _("Done.")

    def _inputs(self, source, file: Path) -> dict[str, object]:
        """Return the settings of the radiographs and their patient. source: volume to write to a file, or None."""
        import SimpleITK as sitk

        from ..mrml.radiograph_nodes import picture_image
        from ..mrml.scene import RADIOGRAPH_ATTRIBUTE

        inputs = PATIENT.deviations(self._state)
        if source is not None:
            sitk.WriteImage(picture_image(source), str(file))
            view = "lateral" if source.GetAttribute(RADIOGRAPH_ATTRIBUTE) == "lateral" else "pa"
            inputs = {name: value for name, value in inputs.items() if name not in ("pa", "lateral")}
            inputs[view] = str(file)
        return inputs

    @property
    def _report(self) -> Path | None:
        """Report of the last run; None before the first."""
        return None if self._output is None else Path(self._output.name) / "result" / "report.html"

    # The result

    def _showRecord(self) -> None:
        """Show the numbers, warnings and pictures of the record, or none."""
        ui, document = self.ui, self._document()
        self._showNumbers(document)
        notes = [] if document is None else [warning["message"] for warning in document["warnings"]]
        if document is not None:
            notes.insert(0, _("Probabilities, not scores. For research only."))
        widgets.say(ui.radiographWarningsLabel, "\n".join(f"⚠ {note}" for note in notes))
        titles, self._pictures = [], []
        for view in document["views"] if document is not None else ():
            titles.append(_("{view}: radiograph alone").format(view=view))
            titles.append(_("{view}: with located calcium").format(view=view))
            self._pictures += [(view, False), (view, True)]
        box = ui.radiographPictureBox
        widgets.fillBox(box, [(title, n) for n, title in enumerate(titles)], min(1, len(titles) - 1))
        for widget in (box, ui.radiographPictureLabel):
            widget.setVisible(document is not None)
        ui.radiographReportButton.setVisible(document is not None)
        ui.radiographReportButton.setEnabled(self._report is not None and self._report.is_file())
        if document is not None:
            self._showPicture()

    def _document(self) -> dict[str, Any] | None:
        """Return the content of the record; None without a readable one."""
        if self._record is None:
            return None
        from ..mrml.radiograph_nodes import document_of

        try:
            return document_of(self._record)
        except CTError as error:
            self.job.say(str(error))
            return None

    def _showNumbers(self, document: dict[str, Any] | None) -> None:
        table = self.ui.radiographTable
        table.setVisible(document is not None)
        if document is None:
            return
        rows = document["thresholds"]
        withFactors = any(row.get("probability_with_factors") is not None for row in rows)
        columns = {
            _("Agatston score"): lambda row: _scoreRange(row["agatston"]),
            _("From the image"): lambda row: (
                _("cannot be told") if row["probability_image"] is None else f"{row['probability_image']:.0%}"
            ),
        }
        if withFactors:
            columns[_("With age, sex, BMI")] = lambda row: f"{row['probability_with_factors']:.0%}"
        if any(row.get("auc") is not None for row in rows):
            columns[_("AUC in tests")] = lambda row: f"{row['auc']:.2f}" if row.get("auc") is not None else ""
        widgets.fillTable(table, list(columns), [[text(row) for text in columns.values()] for row in rows])

    def _showPicture(self) -> None:
        from ..mrml.radiograph_nodes import EVIDENCE_OPACITY, picture_of

        index = self.ui.radiographPictureBox.currentIndex
        if self._record is not None and index >= 0:
            view, located = self._pictures[index]
            if (picture := picture_of(self._record, view)) is not None:
                self.showPicture(picture, EVIDENCE_OPACITY if located else 0.0)

    def _openReport(self, *_args: object) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report)))

    def _removeOutput(self) -> None:
        if self._output is not None:
            self._output.cleanup()
            self._output = None


def _scoreRange(agatston: float) -> str:
    return _("above 0") if agatston == 0 else _("{score:g} or more").format(score=agatston)
