"""A chest radiograph, and how probably there is coronary calcium: scored in the background, shown with the saliency."""

# Slicer's naming.
# ruff: noqa: N802, N806

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from slicer import vtkMRMLTextNode
from slicer.i18n import tr as _

from .. import table_widgets, widgets
from ..lifecycle import Section
from ..parameters import CACScoringParameterNode, RadiographSource, Sex
from ..worker import Worker, showIn
from . import radiograph_views

NETWORK = "radiograph"


class RadiographSection(Section):
    """The widgets of scoring a radiograph. worker: runs the command."""

    def __init__(self, ui, worker: Worker) -> None:
        from ...mrml.drr_nodes import RADIOGRAPH_ATTRIBUTE

        self._ui = ui
        self._worker = worker
        self._record: vtkMRMLTextNode | None = None
        self._folder: Path | None = None
        self._report: Path | None = None
        self._scored: tuple | None = None
        self._read = ""
        self._models: list[tuple[str, str]] = []
        self._installed = False
        for edit in (ui.radiographFileEdit, ui.radiographLateralEdit):
            widgets.watchPath(edit, self._pathsChanged, ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Readable)
        ui.radiographSelector.addAttribute("vtkMRMLScalarVolumeNode", RADIOGRAPH_ATTRIBUTE)
        ui.radiographSelector.setMRMLScene(slicer.mrmlScene)
        ui.radiographModelBox.currentIndexChanged.connect(self._modelChosen)
        ui.radiographSaliencyBox.currentIndexChanged.connect(lambda *_args: self._showSaliency())
        ui.radiographScoreButton.clicked.connect(self._scoreOrCancel)
        ui.radiographReportButton.clicked.connect(self._openReport)
        ui.radiographBar.setVisible(False)
        self._showProgress = showIn(ui.radiographStatusLabel, ui.radiographBar)
        table_widgets.prepareTable(ui.radiographTable)
        self._showRecord()

    # What the panel tells

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is not None:
            self._read = state.radiographFile  # what was read or chosen of it is kept
            self._listModels()

    def closeScene(self) -> None:
        self.cancel()
        self._record = None
        self._showRecord()

    def cancel(self) -> None:
        self._worker.cancel()
        self._removeFolder()

    def update(self) -> None:
        """Show the state."""
        state, ui = self._state, self._ui
        if state is None:
            return
        running, fromFile = self._worker.isRunning, state.radiographSource == RadiographSource.FILE
        widgets.showPath(ui.radiographFileEdit, state.radiographFile)
        widgets.showPath(ui.radiographLateralEdit, state.radiographLateral)
        absent = _("{name} (not installed)").format(name=state.radiographModel)
        widgets.fillBox(ui.radiographModelBox, self._models, state.radiographModel, absent)
        for edit in ("radiographFileEdit", "radiographLateralEdit"):
            for widget in (getattr(ui, edit), getattr(ui, f"{edit}Label")):
                widget.setVisible(fromFile)
        for widget in (ui.radiographSelector, ui.radiographSelectorLabel):
            widget.setVisible(not fromFile)
        chosen = state.radiographFile or state.radiographLateral if fromFile else state.radiographVolume is not None
        ui.radiographScoreButton.setText(_("Cancel") if running else _("Score radiograph"))
        ui.radiographScoreButton.setEnabled(running or bool(chosen and self._installed))
        ui.radiographBar.setVisible(running)
        if state.radiographResult is not self._record:
            self._record = state.radiographResult
            self._showRecord()

    # The input

    def _pathsChanged(self, *_args: object) -> None:
        if self._state is None:
            return
        state = self._state
        state.radiographLateral = self._ui.radiographLateralEdit.currentPath
        state.radiographFile = self._ui.radiographFileEdit.currentPath
        if state.radiographFile != self._read:
            self._read = state.radiographFile
            self._fillInPatient(Path(state.radiographFile))

    def _fillInPatient(self, path: Path) -> None:
        """Age and sex as a DICOM file tells them; unknown, where it does not."""
        from ...core.ct import CTError
        from ...io.dicom import acquisition_of, is_dicom, read_slice

        age, sex = None, None
        try:
            if path.is_file() and is_dicom(path) and (found := read_slice(path)) is not None:
                facts = acquisition_of([found])
                age, sex = facts.patient_age_years, facts.patient_sex
        except (CTError, OSError):
            pass  # said when it is scored
        state = self._state
        state.radiographAge = float(age or 0)
        state.radiographSex = Sex(sex) if sex in ("F", "M") else Sex.UNKNOWN
        state.radiographBmi = 0.0

    def _listModels(self) -> None:
        from ...core.ct import CTError
        from ...models.cards import list_models

        try:
            models = list_models(NETWORK)
            problem = "" if models else _("No network for radiographs is installed. Add one: cac models install FILE.")
        except CTError as error:
            models, problem = [], str(error)
        self._installed = bool(models)
        bundled = next((model.card.name for model in models if model.origin == "bundled"), "")
        usual = _("{name} (comes with CAC)").format(name=bundled) if bundled else _("none")
        own = [model.card.name for model in models if model.origin != "bundled"]
        self._models = [(usual, ""), *zip(own, own, strict=True)]
        if problem:
            self._say(problem)

    def _modelChosen(self, *_args: object) -> None:
        if self._state is not None:
            self._state.radiographModel = widgets.dataOf(self._ui.radiographModelBox)

    # The run

    def _scoreOrCancel(self, *_args: object) -> None:
        if self._worker.isRunning:
            self.cancel()
            self._say(_("Cancelled. The scene was not changed."))
        else:
            self._score()
        self.update()

    def _score(self) -> None:
        from ..packages import ensurePackages

        if reason := ensurePackages():
            self._say(reason)
            return
        self._removeFolder()
        self._folder = Path(tempfile.mkdtemp(prefix="cac-radiograph-"))
        self._showProgress(_("Preparing …"), 0.0)
        self._worker.start(self._command(), self._ended, self._showProgress)

    def _command(self) -> list[str]:
        """The arguments of `cac score`; a volume is written for it."""
        import SimpleITK as sitk

        from ...mrml.radiograph_nodes import picture_image

        state = self._state
        if state.radiographSource == RadiographSource.FILE:
            self._scored = Path(state.radiographFile or state.radiographLateral).stem, None
            given = {"pa": state.radiographFile, "lateral": state.radiographLateral}
        else:
            volume = state.radiographVolume
            self._scored = volume.GetName(), volume
            file = self._folder / "radiograph.nrrd"
            sitk.WriteImage(picture_image(volume), str(file))
            given = {"lateral" if _isLateral(volume) else "pa": str(file)}
        given |= {"age_years": state.radiographAge, "sex": state.radiographSex.value, "bmi_kg_m2": state.radiographBmi}
        given = {name: value for name, value in given.items() if value}
        model = ["--model", state.radiographModel] if state.radiographModel else []
        command = ["score", "--settings", json.dumps({"radiograph": given}), *model]
        return [*command, "--device", state.device.value, "--output", str(self._folder / "result")]

    def _ended(self, reason: str) -> None:
        from ...core.ct import CTError
        from ...mrml.radiograph_nodes import add_scored

        (name, source), self._scored = self._scored, None
        if source is not None and not slicer.mrmlScene.IsNodePresent(source):
            source = None
        try:
            if reason:
                self._say(reason)
            else:
                record = add_scored(slicer.mrmlScene, self._folder / "result", name, source)
                self._report = self._folder / "result" / "report.html"
                self._say(_("Done."))
                if self._state is not None:
                    self._state.radiographResult = record
        except CTError as error:
            self._say(str(error))
        self.update()

    # The result

    def _showRecord(self) -> None:
        """The numbers, warnings and pictures of the record, or none."""
        from ...core.ct import CTError
        from ...mrml.radiograph_nodes import document_of

        ui, document = self._ui, None
        if self._record is not None:
            try:
                document = document_of(self._record)
            except CTError as error:
                self._say(str(error))
        self._showNumbers(document)
        notes = [] if document is None else [warning["message"] for warning in document["warnings"]]
        if document is not None:
            notes.insert(0, _("Probabilities, not scores. For research only."))
        widgets.say(ui.radiographWarningsLabel, "\n".join(f"⚠ {note}" for note in notes))
        titles, self._pictures = [], []
        for view in document["views"] if document is not None else ():
            titles.append(_("{view}: radiograph alone").format(view=view))
            self._pictures.append((view, None))
            for threshold in document["thresholds"]:
                titles.append(_("{view}: for {answer}").format(view=view, answer=_answer(threshold["agatston"])))
                self._pictures.append((view, threshold["agatston"]))
        box = ui.radiographSaliencyBox
        widgets.fillBox(box, [(title, n) for n, title in enumerate(titles)], min(1, len(titles) - 1))
        for widget in (box, ui.radiographSaliencyLabel):
            widget.setVisible(document is not None)
        ui.radiographReportButton.setVisible(document is not None)
        ui.radiographReportButton.setEnabled(self._report is not None and self._report.is_file())
        if document is not None:
            self._showSaliency()

    def _showNumbers(self, document: dict | None) -> None:
        table = self._ui.radiographTable
        table.setVisible(document is not None)
        if document is None:
            return
        rows = document["thresholds"]
        withFactors = any(row.get("probability_with_factors") is not None for row in rows)
        columns = {
            _("Agatston score"): lambda row: _answer(row["agatston"]),
            _("From the image"): lambda row: f"{row['probability_image']:.0%}",
        }
        if withFactors:
            columns[_("With age, sex, BMI")] = lambda row: f"{row['probability_with_factors']:.0%}"
        if any(row.get("auc") is not None for row in rows):
            columns[_("AUC in tests")] = lambda row: f"{row['auc']:.2f}" if row.get("auc") is not None else ""
        table_widgets.fillTable(table, list(columns), [[text(row) for text in columns.values()] for row in rows])

    def _showSaliency(self) -> None:
        from ...mrml.radiograph_nodes import SALIENCY_OPACITY, pictures_of

        box = self._ui.radiographSaliencyBox
        if self._record is None or box.currentIndex < 0:
            return
        picture, saliency = pictures_of(self._record, *self._pictures[box.currentIndex])
        if picture is not None:
            radiograph_views.showPicture(picture, saliency, opacity=SALIENCY_OPACITY)

    def _openReport(self, *_args: object) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report)))

    def _removeFolder(self) -> None:
        folder, self._folder, self._report = self._folder, None, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _say(self, text: str) -> None:
        self._ui.radiographStatusLabel.setText(text)


def _answer(agatston: float) -> str:
    return _("above 0") if agatston == 0 else _("{score:g} or more").format(score=agatston)


def _isLateral(volume) -> bool:
    from ...mrml.drr_nodes import RADIOGRAPH_ATTRIBUTE

    return volume.GetAttribute(RADIOGRAPH_ATTRIBUTE) == "lateral"
