"""Input of a run: the CT and facts about it, an existing heart mask, models and rules."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from ..core.errors import CTError
from ..networks.configs import ESTIMATORS, ROLES, SCORING
from . import scan_facts
from .lifecycle import PanelSection
from .packages import CLINICAL_REQUIREMENTS, EXTRAS, REQUIREMENTS, TORCH_REQUIREMENTS, hasGraphicsCard
from .parameters import MODELS, RULES, SWITCHES, CACScoringParameterNode, Device, Method
from .widgets import askForFile, blocked_signals, dataOf, fillBox, say

if TYPE_CHECKING:
    from ..models.cards import StoredModel
    from .lifecycle import PanelSection


class ModelBoxes:
    """A row with a combo box for each of some networks, named `<parameter>Box`, whose first choice is the default.

    Attributes:
        boxes: The boxes by parameter.
        counts: Numbers of models by network.
    """

    def __init__(self, section: PanelSection, ui, layout, first: int, networks: Sequence[str]) -> None:
        """Add the rows to a QFormLayout. first: number of the first new row."""
        self._networks = networks
        self.boxes = {MODELS[network]: qt.QComboBox() for network in networks}
        self.counts = dict.fromkeys(networks, 0)
        self._choices: dict[str, list[tuple[str, str]]] = {}
        self._defaults: dict[str, str | None] = {}
        for number, (network, (parameter, box)) in enumerate(zip(networks, self.boxes.items(), strict=True), first):
            box.setToolTip(_(ROLES[network].task))
            box.setObjectName(f"{parameter}Box")
            box.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            setattr(ui, box.objectName, box)
            layout.insertRow(number, qt.QLabel(f"{_(ROLES[network].title)}:"), box)
            section.bind(box, parameter)

    def list(self) -> str:
        """List the models that are installed now. Returns the reason if they cannot be read."""
        from ..models.cards import list_models

        models, problem = [], ""
        try:
            models = list_models()
        except CTError as error:
            problem = str(error)
        for network in self._networks:
            stored = [model for model in models if model.card.network == network]
            default = defaultOf(stored, network in ESTIMATORS)
            self._choices[MODELS[network]] = modelChoices(stored, default)
            self._defaults[MODELS[network]] = None if default is None else default.card.name
            self.counts[network] = len(stored)
        return problem

    def show(self, state) -> None:
        """Show the models that the state names."""
        for parameter, box in self.boxes.items():
            name = getattr(state, parameter)
            name = "" if name == self._defaults[parameter] else name
            fillBox(box, self._choices[parameter], name, _("{name} (not installed)").format(name=name))


def modelChoices(stored: list[StoredModel], default: StoredModel | None) -> list[tuple[str, str]]:
    """Return the choices of a network's models, with their names; that of the default has none."""
    label = _("none, unless you choose one") if default is None else _label(default, is_default=True)
    return [(label, ""), *((_label(model), model.card.name) for model in stored if model is not default)]


def defaultOf(stored: list[StoredModel], for_estimates: bool = False) -> StoredModel | None:
    """Return the model that is used where none is named: the bundled one, or the user's only one for estimates."""
    for origin in ("bundled", *(("user",) if for_estimates else ())):
        models = [model for model in stored if model.origin == origin]
        if models:
            return models[0] if len(models) == 1 else None
    return None


def _label(model: StoredModel, is_default: bool = False) -> str:
    texts = {"bundled": _("{name} (comes with CAC)"), "alternative": _("{name} (comes with CAC, for comparison)")}
    text = texts.get(model.origin, _("{name} (the only one)") if is_default else "{name}")
    return text.format(name=model.card.name)


def argumentsOf(state: CACScoringParameterNode) -> tuple[str, ...]:
    """Return the options of `cac score` and `cac cohort` for the panel's networks and rules."""
    arguments: list[str] = []
    if state.method == Method.CLINICAL_RULE:
        arguments.append("--threshold-only")
    else:
        if state.secondOpinions:
            arguments += ["--whole-scan", "all"]
        for network in (*SCORING, *(ESTIMATORS if state.secondOpinions else ())):
            if name := getattr(state, MODELS.get(network, ""), ""):
                arguments += ["--model", name]
        arguments += ["--device", state.device.value]
    settings = {"scoring": {"rules": RULES.deviations(state), **SWITCHES.deviations(state)}}
    return (*arguments, "--settings", json.dumps(settings))


def scoringRequirements(state: CACScoringParameterNode) -> tuple[str, ...]:
    """Return the packages that scoring needs in this state, including result files and whole-scan estimates."""
    from ..models.cards import list_models
    from ..models.choice import ALL, estimator_models

    if state.method != Method.BOTH:
        return CLINICAL_REQUIREMENTS
    if not state.secondOpinions:
        return TORCH_REQUIREMENTS if state.device == Device.CUDA and hasGraphicsCard() else REQUIREMENTS
    names = [getattr(state, MODELS[network]) for network in ESTIMATORS]
    try:
        estimators = estimator_models((ALL,), [model for model in list_models() if model.card.name in names])
    except CTError:  # the run reports it
        estimators = {}
    extras = dict.fromkeys(("torch", *(extra for network in estimators for extra in ESTIMATORS[network].extras)))
    return (*REQUIREMENTS, *(package for extra in extras for package in EXTRAS[extra]))


_ASK = "?"
"""Data of the choice that asks for a file."""

_VOLUME = "vtkMRMLScalarVolumeNode"


class LesionsChoice:
    """Combo box of lesions: found by the run, segmentations and structure sets of the CT's study in Slicer's DICOM
    database, or a file.

    Attributes:
        problem: Reason why the chosen file cannot be used, or empty.
        automatic: True if the file's lesions were made by an algorithm alone.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._state: Any = None
        self._listedStudy: list[str] | None = None
        self._reviews: list[tuple[str, str]] = []
        self._readKey: tuple[Any, ...] | None = None
        self.problem, self._facts, self.automatic = "", "", False
        ui.lesionsBox.currentIndexChanged.connect(self._onChoice)

    @property
    def path(self) -> Path | None:
        """The chosen file; None if the run finds the lesions."""
        return Path(self._state.inputLesions) if self._state is not None and self._state.inputLesions else None

    def list(self, state) -> None:
        """Query the database again. state: the parameter node; None while the panel is closed."""
        self._listedStudy = None
        if state is not None:
            self.show(state)

    def show(self, state) -> None:
        """Show the state."""
        self._state = state
        study = scan_facts.instanceUIDs(state.inputVolume)[:1]
        if study != self._listedStudy:
            self._listedStudy = study
            self._reviews = scan_facts.reviewsOf(state.inputVolume)
        choices = [(_("found in the CT"), ""), *self._reviews]
        path = state.inputLesions
        if path and path not in [data for _text, data in choices]:
            choices.append((Path(path).name, path))
        fillBox(self._ui.lesionsBox, [*choices, (_("Open a DICOM file …"), _ASK)], path)
        self._read()
        say(self._ui.lesionsLabel, f"⚠ {self.problem}" if self.problem else self._facts)

    def _onChoice(self, _index: int) -> None:
        if self._state is None:
            return
        path = dataOf(self._ui.lesionsBox)
        if path == _ASK:
            title = _("DICOM segmentation or structure set")
            path = askForFile(title, "CACScoring/lesionsFolder") or self._state.inputLesions
        if path == self._state.inputLesions:
            self.show(self._state)  # cancelled the dialog
        else:
            self._state.inputLesions = path

    def _read(self) -> None:
        """Read the chosen file, unless it was read already, and check that it belongs to the CT."""
        volume = self._state.inputVolume
        key = self._state.inputLesions, scan_facts.instanceUIDs(volume)[:1]
        if key == self._readKey:
            return
        self._readKey = key
        self.problem, self._facts, self.automatic = "", "", False
        if self.path is None:
            return
        try:
            self._readFile(self.path, scan_facts.frameOfReference(volume))
        except (CTError, OSError) as error:
            self.problem = str(error)

    def _readFile(self, path: Path, frameOfReference: str) -> None:
        from ..exchange.reviewed import read_review_file

        if not path.is_file():
            self.problem = _("{path} is not there any more. Choose other lesions.").format(path=path)
            return
        file = read_review_file(path)
        if frameOfReference and file.frames_of_reference and frameOfReference not in file.frames_of_reference:
            self.problem = _("{name} was drawn on another scan: its frame of reference is not that of the CT.").format(
                name=path.name
            )
            return
        self.automatic = file.automatic
        state = _("made by an algorithm alone, to be reviewed") if file.automatic else _("a review")
        self._facts = _("{state}: {segments}. Press Score to open it.").format(
            state=state.capitalize(), segments=", ".join(file.segments)
        )


class InputSection(PanelSection):
    """Widgets of the input, and the parameters that `connectGui` cannot connect.

    Attributes:
        lesions: Choice of the lesions that the run starts from.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self.lesions = LesionsChoice(ui)
        self._problem = self._note = ""
        self._factsKey: tuple[Any, ...] | None = ()
        form, networks = ui.advancedBox.layout(), [name for name in (*SCORING, *ESTIMATORS) if name in MODELS]
        self._models = ModelBoxes(self, ui, form, 0, networks)
        for selector in (ui.inputSelector, ui.heartSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        for box in slicer.util.findChildren(ui.heartSelector, className="qMRMLNodeComboBox"):
            box.noneDisplay = _("found in the CT")
        ui.heartSelector.currentNodeChanged.connect(self._heartChosen)
        ui.heartSelector.currentSegmentChanged.connect(self._heartChosen)
        ui.defaultsButton.clicked.connect(self._setPublishedRules)
        for declared in (RULES, SWITCHES):  # above the last button
            declared.addRows(ui, form, form.rowCount() - 1)

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is not None:
            if reason := self._models.list():
                self._ui.statusLabel.setText(reason)
            self.lesions.list(state)

    def enter(self) -> None:
        self.listLesions()

    def listLesions(self) -> None:
        """List the reviews that Slicer's DICOM database holds now."""
        self.lesions.list(self._state)

    def update(self, running: bool) -> None:
        """Show the state. running: True locks the input."""
        state, ui = self._state, self._ui
        self._hideDerivedVolumes()
        self._showFacts(state.inputVolume)
        self.lesions.show(state)
        for label in slicer.util.findChildren(ui.heartSelector, name="label_Message"):
            label.setVisible(state.inputHeart is not None and bool(label.text))  # a heart is optional
        with blocked_signals(ui.heartSelector):
            ui.heartSelector.setCurrentNode(state.inputHeart)
            ui.heartSelector.setCurrentSegmentID(state.inputHeartSegment)
        self._models.show(state)
        networks = state.method == Method.BOTH
        for widget in (*self._models.boxes.values(), ui.deviceBox):
            widget.setEnabled(networks and not running)
        for network in ESTIMATORS:
            self._models.boxes[MODELS[network]].setEnabled(networks and not running and state.secondOpinions)
        # A scene from another computer may have this on without an installed model; it can be switched off.
        possible = any(self._models.counts[network] for network in ESTIMATORS) or state.secondOpinions
        ui.wholeScanBox.setEnabled(networks and not running and possible)
        for widget in (ui.inputSelector, ui.heartSelector, ui.methodBox, ui.lesionsBox):
            widget.setEnabled(not running)

    def setNote(self, text: str) -> None:
        """Show a note below the facts of the CT; none for an empty text."""
        if text != self._note:
            self._note, self._factsKey = text, ()
            if self._state is not None:
                self._showFacts(self._state.inputVolume)

    @property
    def canBeScored(self) -> bool:
        problem = self._problem or self.lesions.problem
        return self._state is not None and self._state.inputVolume is not None and not problem

    @property
    def arguments(self) -> tuple[str, ...]:
        """Options of `cac score` for the next run."""
        path = self.lesions.path
        return (*argumentsOf(self._state), *(() if path is None else ("--lesions", str(path))))

    @property
    def heart(self) -> tuple[vtkMRMLSegmentationNode, str] | None:
        """Segmentation and segment ID of an existing heart mask, or None."""
        state = self._state
        return (state.inputHeart, state.inputHeartSegment) if state.inputHeart and state.inputHeartSegment else None

    def _hideDerivedVolumes(self) -> None:
        """Hide healthy images and calcium maps in the list of CTs."""
        from ..mrml.scene import DERIVED_ATTRIBUTE

        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        derived_ids = [volume.GetID() for volume in volumes if volume.GetAttribute(DERIVED_ATTRIBUTE)]
        proxy = self._ui.inputSelector.sortFilterProxyModel()
        if list(proxy.hiddenNodeIDs) != derived_ids:
            proxy.hiddenNodeIDs = derived_ids

    def _showFacts(self, volume: vtkMRMLScalarVolumeNode | None) -> None:
        key = None if volume is None else (volume.GetID(), volume.GetMTime(), volume.GetParentTransformNode())
        if key == self._factsKey:
            return
        self._factsKey = key
        self._problem = "" if volume is None else scan_facts.problemOf(volume)
        facts, warnings = ([], []) if volume is None else scan_facts.scanFacts(volume)
        warnings = [*([self._problem] if self._problem else warnings), *filter(None, [self._note])]
        say(self._ui.factsLabel, "\n".join(facts))
        say(self._ui.scanWarningsLabel, "\n".join(f"⚠ {warning}" for warning in warnings))

    def _heartChosen(self, *_args: object) -> None:
        if self._state is not None:
            selector = self._ui.heartSelector
            self._state.inputHeart = selector.currentNode()
            self._state.inputHeartSegment = selector.currentSegmentID() or ""

    def _setPublishedRules(self, *_args: object) -> None:
        for form in (RULES, SWITCHES):
            form.reset(self._state)


def firstCT() -> vtkMRMLScalarVolumeNode | None:
    """Return the CT that Slicer loaded last, or else the first volume of the scene that may be a CT."""
    volumes = [volume for volume in (loadedVolume(), *slicer.util.getNodesByClass(_VOLUME)) if volume is not None]
    return next((volume for volume in volumes if mayBeCT(volume)), None)


def loadedVolume() -> vtkMRMLScalarVolumeNode | None:
    """Return the volume that Slicer has shown after reading it; None without one, or if a module has computed it."""
    selection = slicer.app.applicationLogic().GetSelectionNode()
    volume = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "")
    if volume is None or not volume.IsA(_VOLUME):
        return None
    is_read = volume.GetStorageNode() is not None or scan_facts.instanceUIDs(volume)
    return volume if is_read else None


def mayBeCT(volume: vtkMRMLScalarVolumeNode) -> bool:
    """Return True unless a volume is certainly no CT that can be scored, such as a result's map."""
    from ..mrml.scene import DERIVED_ATTRIBUTE

    is_other = volume.IsA("vtkMRMLLabelMapVolumeNode") or volume.GetAttribute(DERIVED_ATTRIBUTE)
    return not is_other and not scan_facts.problemOf(volume)
