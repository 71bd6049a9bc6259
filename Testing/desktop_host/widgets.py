"""Imitations of the few widgets and of QProcess that the panels use: state and signals, nothing drawn."""

# Qt's and Slicer's names.
# ruff: noqa: N801, N802

from __future__ import annotations

import subprocess


class Signal:
    """A Qt signal: connect, disconnect, emit."""

    def __init__(self) -> None:
        self._slots = []

    def connect(self, slot) -> None:
        self._slots.append(slot)

    def disconnect(self, slot) -> None:
        self._slots.remove(slot)

    def emit(self, *values) -> None:
        for slot in list(self._slots):
            slot(*values)


class Widget:
    """What every widget here can do. An attribute outside `_settable` is a mistake of the panel."""

    _settable: frozenset[str] = frozenset()

    def __init__(self, *_) -> None:
        object.__setattr__(self, "enabled", True)

    def __setattr__(self, name: str, value) -> None:
        if name not in self._settable:
            raise AttributeError(f"{type(self).__name__} has no property {name}")
        object.__setattr__(self, name, value)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def setEnabled(self, enabled: bool) -> None:
        self._set("enabled", enabled)

    def setToolTip(self, text: str) -> None:
        pass

    def setMinimumHeight(self, pixels: int) -> None:
        pass


class Label(Widget):
    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._set("text", text)

    def setText(self, text: str) -> None:
        self._set("text", text)

    def setWordWrap(self, on: bool) -> None:
        pass

    def setTextFormat(self, kind: int) -> None:
        self._set("textFormat", kind)


class Button(Label):
    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self._set("clicked", Signal())

    def click(self) -> None:
        if self.enabled:
            self.clicked.emit(False)


class Layout:
    """Keeps what is put into it."""

    def __init__(self, *_) -> None:
        self.children = []

    def addWidget(self, widget: Widget) -> None:
        self.children.append(widget)

    def addRow(self, *widgets) -> None:
        self.children.extend(widgets)

    def addStretch(self, stretch: int) -> None:
        pass


class CollapsibleButton(Widget):
    _settable = frozenset({"text"})


class Panel:
    """The parent that Slicer gives a module's widget."""

    def __init__(self) -> None:
        self._layout = Layout()
        self.isEntered = True

    def layout(self) -> Layout:
        return self._layout


class qMRMLNodeComboBox(Widget):
    _settable = frozenset({"nodeTypes", "showChildNodeTypes", "addEnabled", "removeEnabled", "noneEnabled"})

    def __init__(self) -> None:
        super().__init__()
        self._set("currentNodeChanged", Signal())
        self._set("_node", None)

    def setMRMLScene(self, scene) -> None:
        self._set("scene", scene)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node) -> None:
        if node is not None:
            accepted = any(node.IsA(kind) for kind in self.nodeTypes)
            if not accepted or (not self.showChildNodeTypes and node.GetClassName() not in self.nodeTypes):
                raise ValueError(f"{node.GetName()} is a {node.GetClassName()}, which this selector does not offer")
        if node is not self._node:
            self._set("_node", node)
            self.currentNodeChanged.emit(node)


class qMRMLTableView(Widget):
    def __init__(self) -> None:
        super().__init__()
        self._set("tableNode", None)

    def setMRMLTableNode(self, node) -> None:
        self._set("tableNode", node)


class ByteArray:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def data(self) -> bytes:
        return self._data


class ProcessEnvironment:
    def __init__(self) -> None:
        self.variables = {}

    def insert(self, name: str, value: str) -> None:
        self.variables[name] = value


class QtProcess:
    """QProcess on subprocess. There is no event loop: a test calls `run_events` to be told what happened."""

    NotRunning, Running = 0, 2
    NormalExit, CrashExit = 0, 1
    FailedToStart = 0

    def __init__(self) -> None:
        self.readyReadStandardError, self.finished, self.errorOccurred = Signal(), Signal(), Signal()
        self._child, self._blocked, self._environment, self._output = None, False, None, None

    def setProcessEnvironment(self, environment: ProcessEnvironment) -> None:
        self._environment = environment.variables

    def setStandardOutputFile(self, path: str) -> None:
        self._output = path

    def start(self, program: str, arguments: list[str]) -> None:
        assert self._output is not None, "unread standard output would fill its pipe"
        try:
            self._child = subprocess.Popen(
                [program, *arguments], env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError:
            self.errorOccurred.emit(self.FailedToStart)

    def state(self) -> int:
        return self.NotRunning if self._child is None or self._child.poll() is not None else self.Running

    def processId(self) -> int:
        return self._child.pid

    def exitCode(self) -> int:
        return self._child.returncode

    def exitStatus(self) -> int:
        return self.CrashExit if self._child.returncode < 0 else self.NormalExit

    def blockSignals(self, blocked: bool) -> None:
        self._blocked = blocked

    def waitForFinished(self, milliseconds: int) -> bool:
        self._child.wait(milliseconds / 1000)
        return True

    def readAllStandardError(self) -> ByteArray:
        # In small pieces, so that lines and characters arrive torn apart, as they may from a pipe.
        return ByteArray(self._child.stderr.read1(7))

    def run_events(self) -> None:
        """Until the process has ended."""
        while not self._blocked and self._child.stderr.peek(1):
            self.readyReadStandardError.emit()
        self._child.wait()
        if not self._blocked:
            self.finished.emit(self._child.returncode, self.exitStatus())


class Qt:
    PlainText = 0


qt = {
    "QLabel": Label,
    "QPushButton": Button,
    "QFormLayout": Layout,
    "QProcess": QtProcess,
    "QProcessEnvironment": ProcessEnvironment,
    "Qt": Qt,
}
ctk = {"ctkCollapsibleButton": CollapsibleButton}
