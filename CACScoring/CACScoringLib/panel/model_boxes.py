"""Combo boxes that choose the models of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..core.errors import CTError
from ..networks.configs import ESTIMATORS, ROLES
from .parameters import MODELS
from .widgets import fillBox

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
            default = _default(stored, network in ESTIMATORS)
            choices = [(_label(model), model.card.name) for model in stored if model is not default]
            label = _("none, unless you choose one") if default is None else _label(default, is_default=True)
            self._choices[MODELS[network]] = [(label, ""), *choices]
            self._defaults[MODELS[network]] = None if default is None else default.card.name
            self.counts[network] = len(stored)
        return problem

    def show(self, state) -> None:
        """Show the models that the state names."""
        for parameter, box in self.boxes.items():
            name = getattr(state, parameter)
            name = "" if name == self._defaults[parameter] else name
            fillBox(box, self._choices[parameter], name, _("{name} (not installed)").format(name=name))


def _default(stored: list[StoredModel], for_estimates: bool) -> StoredModel | None:
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
