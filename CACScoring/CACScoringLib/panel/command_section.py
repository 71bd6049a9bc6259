"""Part of a page with rows made from the options of a command, which runs in the background."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from .forms import Form
from .job import LIBRARY, BackgroundJob, Steps
from .lifecycle import PanelSection
from .widgets import fillBox, messageLabel, showPath


class CommandSection(PanelSection):
    """Rows of forms, and a button that starts and cancels work, with its progress and messages.

    The widgets are attributes of `ui` whose names begin with the prefix, such as `cohortSourceBox` and
    `cohortRunButton`.

    Args:
        ui: Widgets by name.
        forms: Forms with this prefix, without a field in common.
    """

    def __init__(self, ui, *forms: Form) -> None:
        self.ui, self._prefix = ui, forms[0].prefix
        self._forms = {field: form for form in forms for field in form.allFields}
        self._rows: list[str] = []

    def addRows(self, layout, first: int, *fields: str) -> None:
        """Add rows to a QFormLayout, and connect them with the state.

        Args:
            layout: The layout.
            first: Number of the first new row.
            fields: Fields of the rows.
        """
        for number, field in enumerate(fields, first):
            form, parameter = self._forms[field], self._forms[field].parameterOf(field)
            form.addRows(self.ui, layout, number, field)
            if form.isPath(field):
                self.bindPath(self.boxOf(field), parameter)
            elif form.isList(field):
                self.bind(self.boxOf(field), parameter)
        self._rows += fields

    def addAdvanced(self, layout, index: int):
        """Add a collapsed group to a QVBoxLayout, and return its QFormLayout. index: place in the layout."""
        box = ctk.ctkCollapsibleGroupBox()
        box.title, form = _("Advanced"), qt.QFormLayout(box)
        box.collapsed = True
        layout.insertWidget(index, box)
        setattr(self.ui, f"{self._prefix}AdvancedBox", box)
        return form

    def addCommand(
        self,
        layout,
        index: int,
        text: str,
        tip: str,
        work: Callable[[], Steps[str]],
        cancelled: str,
        library: str = LIBRARY,
        extra_widgets: Sequence[Any] = (),
    ) -> None:
        """Add a row with the button and the bar, and the label of messages below, and make the job.

        Args:
            layout: A QVBoxLayout.
            index: Place of the row in it.
            text: The button's text while nothing runs.
            tip: The button's tooltip.
            work: As in `BackgroundJob`.
            cancelled: As in `BackgroundJob`.
            library: Package whose commands are run.
            extra_widgets: Further widgets of the row.
        """
        button, bar, label, row = qt.QPushButton(text), qt.QProgressBar(), messageLabel(), qt.QHBoxLayout()
        button.setToolTip(tip)
        bar.setMaximum(1000)
        bar.setTextVisible(False)
        for widget in (button, *extra_widgets, bar):
            widget.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            row.addWidget(widget, 1)
        layout.insertLayout(index, row)
        layout.insertWidget(index + 1, label)
        for name, widget in (("RunButton", button), ("Bar", bar), ("StatusLabel", label)):
            widget.setObjectName(f"{self._prefix}{name}")
            setattr(self.ui, f"{self._prefix}{name}", widget)
        label.setVisible(False)
        self.job = BackgroundJob(label, bar, button, work, cancelled, self.update, library)

    def update(self) -> None:
        """Show the state."""
        raise NotImplementedError

    def boxOf(self, field: str):
        """Return the widget of a field."""
        return getattr(self.ui, f"{self._forms[field].parameterOf(field)}Box")

    def showPaths(self) -> None:
        """Show the paths of the state."""
        for field in self._rows:
            if self._forms[field].isPath(field):
                showPath(self.boxOf(field), getattr(self._state, self._forms[field].parameterOf(field)))

    def showList(self, field: str, choices: Sequence[tuple[str, object]], absent: str = "") -> None:
        """Fill the box of a field, and select the state's choice. absent: as in `widgets.fillBox`."""
        fillBox(self.boxOf(field), choices, getattr(self._state, self._forms[field].parameterOf(field)), absent)

    def setRowVisible(self, visible: bool, *fields: str) -> None:
        """Show or hide rows with their labels."""
        for field in fields:
            box = self.boxOf(field)
            box.setVisible(visible)
            getattr(self.ui, f"{box.objectName}Label").setVisible(visible)

    def setRowsEnabled(self, enabled: bool) -> None:
        """Lock the rows while work runs."""
        for field in self._rows:
            self.boxOf(field).setEnabled(enabled)
