"""Doubles of CTK's widgets (commontk/CTK Libs/Widgets/ctk<Name>.h, .cpp), as far as panels use them.

Properties of the header are attributes, and slots and invokables are methods: PythonQt exposes no other functions of
CTK's classes, and constructs them with or without a parent (CMake/ctkWrapPythonQt.py). No double overrides sizeHint()
for Qt, because it would be a method for panels, too.
"""

from __future__ import annotations

from .qt_manner import converted, double, gives, qt_module, stored

qt = qt_module()


def in_row(owner, *widgets) -> None:
    row = qt.QHBoxLayout(owner)
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)


class _Collapsible:
    """Base class of checkable widgets that hide their contents, below a title, while they are unchecked."""

    collapsedHeight = stored(14)
    collapsed = property(lambda self: not self.checked, lambda self, on: setattr(self, "checked", not on))

    def _begin(self) -> None:
        self._hidden_here = []
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._toggle)

    def _toggle(self, checked: bool) -> None:
        if not checked:
            self._hide_contents()
            self._maximum_height = self.maximumHeight
            self.setMaximumHeight(self._title_height() + self.collapsedHeight)
            return
        self.setMaximumHeight(self._maximum_height)
        hidden, self._hidden_here = self._hidden_here, []
        for child in hidden:
            if not child.testAttribute(qt.Qt.WA_WState_ExplicitShowHide):
                child.setVisible(True)

    def _hide_contents(self) -> None:
        for child in self.children():
            if child.isWidgetType() and not child.isHidden():
                self._hidden_here.append(child)
                child.setVisible(False)
                # Anyone who hides the child meanwhile sets this again.
                child.setAttribute(qt.Qt.WA_WState_ExplicitShowHide, False)

    def _title_height(self) -> int:
        return self.fontMetrics().height()

    def event(self, event) -> bool:
        handled = super().event(event)
        # New children came.
        kinds = (qt.QEvent.ChildPolished, qt.QEvent.Show, qt.QEvent.LayoutRequest)
        if event.type() in kinds and self.collapsed:
            self._hide_contents()
        return handled


@double
class ctkCollapsibleButton(_Collapsible, qt.QAbstractButton):
    """Button that hides the contents below it; checked and collapsed are opposites."""

    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent=None) -> None:
        qt.QAbstractButton.__init__(self, parent)
        self._begin()
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        # A minimum size set here would replace that of the contents, so the button takes up a margin.
        self.setContentsMargins(0, self._title_height(), 0, 0)

    sizeHint = property(lambda self: self._at_least(qt.QAbstractButton.sizeHint.fget(self), self.collapsedHeight))
    minimumSizeHint = property(lambda self: self._at_least(qt.QAbstractButton.minimumSizeHint.fget(self), 0))

    def _at_least(self, size, further: int):
        # The title has an arrow and the margins of a button.
        width = self.fontMetrics().horizontalAdvance(self.text) + 40
        return size.expandedTo(qt.QSize(width, self._title_height() + further))

    def _title_height(self) -> int:
        return super()._title_height() + 10

    def _toggle(self, checked: bool) -> None:
        super()._toggle(checked)
        self.contentsCollapsed.emit(not checked)

    def hitButton(self, position) -> bool:
        return position.y() < self._title_height()

    def paintEvent(self, event) -> None:
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._title_height())
        painter = qt.QPainter(self)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = "\u25b6" if self.collapsed else "\u25bc"
        bounds = option.rect.adjusted(8, 0, 0, 0)
        painter.drawText(bounds, int(qt.Qt.AlignLeft | qt.Qt.AlignVCenter), f"{arrow}  {self.text}")
        painter.end()


@double
class ctkCollapsibleGroupBox(_Collapsible, qt.QGroupBox):
    """Checkable group box that hides its contents when it is unchecked."""

    def __init__(self, parent=None) -> None:
        qt.QGroupBox.__init__(self, parent)
        self._begin()


def _finite(value: float) -> float:
    """Clip a value to the range of PySide6's QDoubleSpinBox, which has no infinite limits."""
    return max(min(float(value), 1e300), -1e300)


def _pass_on(inner: str, name: str, like, write=None):
    """Return a property that forwards to an inner widget. like: a value of its type."""

    def set_inner(self, value) -> None:
        value = converted(value, like)
        setattr(getattr(self, inner), name, _finite(value) if isinstance(value, float) else value)
        if write is not None:
            write(self)

    return property(lambda self: getattr(getattr(self, inner), name), set_inner)


@double
class ctkSliderWidget(qt.QWidget):
    """A slider and a spin box of one value."""

    valueChanged = qt.Signal(float)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._slider, self._spin_box = qt.QSlider(qt.Qt.Horizontal), qt.QDoubleSpinBox()
        in_row(self, self._slider, self._spin_box)
        self._spin_box.setRange(0, 99)
        self._fit_slider()
        self._slider.valueChanged.connect(self._slid)
        self._spin_box.valueChanged.connect(self._changed)

    value = property(gives("_spin_box.value"))

    @value.setter
    def value(self, value: float) -> None:
        self.setValue(converted(value, 0.0))

    def setValue(self, value: float) -> None:
        self._spin_box.setValue(value)

    def _set_range(self, minimum: float, maximum: float) -> None:
        """Set the limits, for the host's own widgets, which use setRange() in C++."""
        self._spin_box.setRange(minimum, maximum)
        self._fit_slider()

    def _fit_slider(self) -> None:
        step = self._spin_box.singleStep
        with qt.QSignalBlocker(self._slider):
            self._slider.setRange(round(self._spin_box.minimum / step), round(self._spin_box.maximum / step))
            self._slider.setValue(round(self._spin_box.value / step))

    def _slid(self, position: int) -> None:
        self._spin_box.setValue(position * self._spin_box.singleStep)

    def _changed(self, value: float) -> None:
        self._fit_slider()
        self.valueChanged.emit(value)


for _name, _like in {"minimum": 0.0, "maximum": 0.0, "singleStep": 0.0}.items():
    setattr(ctkSliderWidget, _name, _pass_on("_spin_box", _name, _like, ctkSliderWidget._fit_slider))
ctkSliderWidget.decimals = _pass_on("_spin_box", "decimals", 0, ctkSliderWidget._fit_slider)
for _name in ("prefix", "suffix"):
    setattr(ctkSliderWidget, _name, _pass_on("_spin_box", _name, ""))


@double
class ctkPathLineEdit(qt.QWidget):
    """Line edit for a path, with a button that browses: for a file if filters contain `Files`, else for a folder.

    An input is acceptable if it is not empty, even if there is no such file. Only an acceptable input emits
    currentPathChanged.
    """

    Dirs, Files, Drives, NoSymLinks, AllEntries = 0x001, 0x002, 0x004, 0x008, 0x007
    Readable, Writable, Executable, NoDot, NoDotDot = 0x010, 0x020, 0x040, 0x2000, 0x4000
    currentPathChanged = qt.Signal(str)
    validInputChanged = qt.Signal(bool)
    label = stored("")
    filters = stored(AllEntries | NoDot | NoDotDot | Readable | Executable)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._combo, self._button = qt.QComboBox(), qt.QToolButton()
        self._valid = False
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(qt.QComboBox.NoInsert)
        self._button.setText("...")
        self._button.setSizePolicy(qt.QSizePolicy.Fixed, qt.QSizePolicy.Ignored)
        in_row(self, self._combo, self._button)
        self.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self._combo.editTextChanged.connect(self._text_changed)

    currentPath = property(gives("_combo.currentText"))

    @currentPath.setter
    def currentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def _text_changed(self, text: str) -> None:
        before, self._valid = self._valid, bool(text)
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)
