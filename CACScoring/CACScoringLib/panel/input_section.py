"""Input of a run: the CT and facts about it, an existing heart mask, models and rules."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from ..core.errors import CTError
from ..networks.roles import ESTIMATORS, SCORING
from .lesions_choice import LesionsChoice
from .lifecycle import Section
from .packages import (
    CLINICAL_REQUIREMENTS,
    RADIOMICS_REQUIREMENTS,
    REQUIREMENTS,
    TORCH_REQUIREMENTS,
    hasGraphicsCard,
)
from .parameters import RULES, SWITCHES, CACScoringParameterNode, Device, Method
from .scan_facts import problemOf, scanFacts
from .widgets import addRows, fillBox, quiet, say, settingsOf

if TYPE_CHECKING:
    from ..models.cards import StoredModel

MODEL_PARAMETERS = {name: role.parameter for name, role in SCORING.items() if role.parameter}
"""Parameters that name a model, by network."""

ESTIMATOR_PARAMETERS = {name: role.parameter for name, role in ESTIMATORS.items()}
"""Parameters that name a model for whole-scan estimates, by network."""

_PARAMETERS = {**MODEL_PARAMETERS, **ESTIMATOR_PARAMETERS}


def argumentsOf(state: CACScoringParameterNode) -> tuple[str, ...]:
    """Return the options of `cac score` and `cac cohort` for the panel's networks and rules."""
    from ..record.rules import ScoringRules, ScoringSwitches

    arguments: list[str] = []
    if state.method == Method.CLINICAL_RULE:
        arguments.append("--threshold-only")
    else:
        parameters = [*MODEL_PARAMETERS.values()]
        if state.secondOpinions:
            arguments += ["--whole-scan", "all"]
            parameters += ESTIMATOR_PARAMETERS.values()
        for parameter in parameters:
            if name := getattr(state, parameter):
                arguments += ["--model", name]
        arguments += ["--device", state.device.value]
    rules, switches = _deviations(state, ScoringRules(), RULES), _deviations(state, ScoringSwitches(), SWITCHES)
    return (*arguments, "--settings", json.dumps({"scoring": {"rules": rules, **switches}}))


def _deviations(state: CACScoringParameterNode, published: Any, parameters: Mapping[str, str]) -> dict[str, float]:
    """Return settings that differ from the published ones, by field. parameters: fields by panel parameter."""
    values = settingsOf(state, type(published), parameters)
    return {field: value for field, value in values.items() if value != getattr(published, field)}


def scoringRequirements(state: CACScoringParameterNode) -> tuple[str, ...]:
    """Return the packages that scoring needs in this state, including result files and whole-scan estimates."""
    from ..models.cards import list_models
    from ..models.choice import ALL, estimator_models

    if state.method != Method.BOTH:
        return CLINICAL_REQUIREMENTS
    if not state.secondOpinions:
        return TORCH_REQUIREMENTS if state.device == Device.CUDA and hasGraphicsCard() else REQUIREMENTS
    names = [getattr(state, parameter) for parameter in ESTIMATOR_PARAMETERS.values()]
    try:
        estimators = estimator_models((ALL,), [model for model in list_models() if model.card.name in names])
    except CTError:  # the run reports it
        estimators = {}
    return RADIOMICS_REQUIREMENTS if "radiomics" in estimators else TORCH_REQUIREMENTS


class InputSection(Section):
    """Widgets of the input, and the parameters that `connectGui` cannot connect.

    Attributes:
        lesions: Choice of the lesions that the run starts from.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self.lesions = LesionsChoice(ui)
        self._problem = ""
        self._factsKey: tuple[Any, ...] | None = ()
        self._models: dict[str, list[tuple[str, str]]] = {}
        self._defaults: dict[str, str | None] = {}
        self._estimatorModels = 0
        self._modelBoxes = {parameter: getattr(ui, f"{parameter}Box") for parameter in _PARAMETERS.values()}
        for selector in (ui.inputSelector, ui.heartSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        for parameter, box in self._modelBoxes.items():
            self.bind(box, parameter)
        for box in slicer.util.findChildren(ui.heartSelector, className="qMRMLNodeComboBox"):
            box.noneDisplay = _("found in the CT")
        ui.heartSelector.currentNodeChanged.connect(self._heartChosen)
        ui.heartSelector.currentSegmentChanged.connect(self._heartChosen)
        ui.defaultsButton.clicked.connect(self._setPublishedRules)
        self._addRows()

    def _addRows(self) -> None:
        """Make the rows of rules and switches, above the last button of the form."""
        from ..record.rules import ScoringRules, ScoringSwitches

        form = self._ui.advancedBox.layout()
        for kind, parameters in ((ScoringRules, RULES), (ScoringSwitches, SWITCHES)):
            addRows(self._ui, form, form.rowCount() - 1, kind, parameters)

    def setState(self, state: CACScoringParameterNode | None) -> None:
        super().setState(state)
        if state is not None:
            self._listModels()
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
        with quiet(ui.heartSelector):
            ui.heartSelector.setCurrentNode(state.inputHeart)
            ui.heartSelector.setCurrentSegmentID(state.inputHeartSegment)
        for parameter, box in self._modelBoxes.items():
            name = getattr(state, parameter)
            name = "" if name == self._defaults[parameter] else name
            fillBox(box, self._models[parameter], name, _("{name} (not installed)").format(name=name))
        networks = state.method == Method.BOTH
        for widget in (*self._modelBoxes.values(), ui.deviceBox):
            widget.setEnabled(networks and not running)
        for widget in (ui.vesselsModelBox, ui.radiomicsModelBox):
            widget.setEnabled(networks and not running and state.secondOpinions)
        # A scene from another computer may have this on without an installed model; it can be switched off.
        possible = bool(self._estimatorModels) or state.secondOpinions
        ui.wholeScanBox.setEnabled(networks and not running and possible)
        for widget in (ui.inputSelector, ui.heartSelector, ui.methodBox, ui.lesionsBox):
            widget.setEnabled(not running)

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
        self._problem = "" if volume is None else problemOf(volume)
        facts, warnings = ([], []) if volume is None else scanFacts(volume)
        warnings = [self._problem] if self._problem else warnings
        say(self._ui.factsLabel, "\n".join(facts))
        say(self._ui.scanWarningsLabel, "\n".join(f"⚠ {warning}" for warning in warnings))

    def _listModels(self) -> None:
        from ..models.cards import list_models

        try:
            models = list_models()
        except CTError as error:
            self._ui.statusLabel.setText(str(error))
            models = []
        self._estimatorModels = sum(model.card.network in ESTIMATOR_PARAMETERS for model in models)
        for parameter in self._modelBoxes:
            stored = [model for model in models if _PARAMETERS.get(model.card.network) == parameter]
            default = _default(stored, parameter in ESTIMATOR_PARAMETERS.values())
            choices = [(_modelLabel(model), model.card.name) for model in stored if model is not default]
            label = _("none, unless you choose one") if default is None else _modelLabel(default, is_default=True)
            self._models[parameter] = [(label, ""), *choices]
            self._defaults[parameter] = None if default is None else default.card.name

    def _heartChosen(self, *_args: object) -> None:
        if self._state is not None:
            selector = self._ui.heartSelector
            self._state.inputHeart = selector.currentNode()
            self._state.inputHeartSegment = selector.currentSegmentID() or ""

    def _setPublishedRules(self, *_args: object) -> None:
        state = self._state
        for parameter in (*RULES, *SWITCHES):
            setattr(state, parameter, state.default(parameter).value)


def firstCT() -> vtkMRMLScalarVolumeNode | None:
    """Return the first volume of the scene that may be a CT."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((v for v in volumes if not v.IsA("vtkMRMLLabelMapVolumeNode") and not problemOf(v)), None)


def _default(stored: list[StoredModel], for_estimates: bool) -> StoredModel | None:
    """Return the model that is used where none is named: the bundled one, or the user's only one for estimates."""
    for origin in ("bundled", *(("user",) if for_estimates else ())):
        models = [model for model in stored if model.origin == origin]
        if models:
            return models[0] if len(models) == 1 else None
    return None


def _modelLabel(model: StoredModel, is_default: bool = False) -> str:
    texts = {"bundled": _("{name} (comes with CAC)"), "alternative": _("{name} (comes with CAC, for comparison)")}
    text = texts.get(model.origin, _("{name} (the only one)") if is_default else "{name}")
    return text.format(name=model.card.name)
