"""Double of CTK's view of a VTK render window (commontk/CTK
Libs/Visualization/VTK/Widgets/ctkVTKAbstractView.h, .cpp), with Slicer's displayable managers in it.

A view draws into a window that is never shown: when its widget is painted, or when it is forced to while visible.
"""

from __future__ import annotations

import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .observers import forget, observe
from .qt_manner import gives, qt_module

qt = qt_module()


_RENDER_WINDOW = type(vtk.vtkRenderWindow())
"""This system's class of render windows. VTK would search for it again for every window."""

_UNUSED_WINDOWS: list[vtk.vtkRenderWindow] = []
"""Windows of ended views with their graphics contexts, which the next views take."""

_SIZE_HINT, _MINIMUM_SIZE = 300, 50


class PaintedView(qt.QWidget):
    """Widget that shows its picture `_image`, which `forceRender` draws when it is missing or `_stale`."""

    def scheduleRender(self) -> None:
        self._stale = True
        self.update()

    def paintEvent(self, event) -> None:
        if self._stale or self._image is None:
            self.forceRender()
        if self._image is not None:
            painter = qt.QPainter(self)
            painter.drawImage(0, 0, self._image)
            painter.end()


class _Canvas(qt.QWidget):
    """VTK's widget within a view, which alone takes the focus and with it the keys."""

    def __init__(self, interactor) -> None:
        super().__init__()
        self._interactor = interactor
        self.setFocusPolicy(qt.Qt.StrongFocus)

    def sizeHint(self):
        return qt.QSize(_SIZE_HINT, _SIZE_HINT)

    def keyPressEvent(self, event) -> None:
        symbol = _KEYS.get(event.key()) or event.text()
        modifiers = event.modifiers()
        self._interactor.SetKeyEventInformation(
            int(bool(modifiers & qt.Qt.ControlModifier)),
            int(bool(modifiers & qt.Qt.ShiftModifier)),
            (event.text() or "\0")[0],
            0,
            symbol,
        )
        self._interactor.InvokeEvent("KeyPressEvent")


class RenderView(PaintedView):
    """ctkVTKAbstractView: a VTK render window in a widget, its layout's only one. Keys go to the interactor.

    As in Slicer, its renderers are accessible only through the render window.
    """

    def __init__(self, parent, factory, managers: tuple[str, ...], observer, style) -> None:
        """Make the view.

        Args:
            parent: Parent widget.
            factory: Factory of displayable managers.
            managers: Class names of displayable managers, without "vtkMRML".
            observer: Slicer's interactor style, which passes events on to the managers.
            style: VTK's interactor style.
        """
        super().__init__(parent)
        self._renderer = vtk.vtkRenderer()
        self._window = _UNUSED_WINDOWS.pop() if _UNUSED_WINDOWS else _RENDER_WINDOW()
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._interactor.SetRenderWindow(self._window)
        self._image, self._node, self._stale = None, None, True
        self._factory = factory
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(f"vtkMRML{name}"):
                factory.RegisterDisplayableManager(f"vtkMRML{name}")
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self._renderer)
        self._updates = [observe(self._group, "UpdateEvent", lambda *_: self.scheduleRender())]
        self._interactor.SetInteractorStyle(style)
        self._observer = observer
        self._observer.SetDisplayableManagers(self._group)
        self._observer.SetInteractor(self._interactor)
        self.setMinimumSize(_MINIMUM_SIZE, _MINIMUM_SIZE)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(_Canvas(self._interactor))

    def _end(self) -> None:
        """Release the scene and the window while both exist."""
        forget(self._updates)
        self._observer.SetInteractor(None)
        self._group.SetMRMLDisplayableNode(None)
        self._interactor.SetRenderWindow(None)
        for renderer in list(self._window.GetRenderers()):  # some are the managers'
            self._window.RemoveRenderer(renderer)
        self._window.SetNumberOfLayers(1)
        _UNUSED_WINDOWS.append(self._window)
        # The process's factory would keep the application's logic and its scene alive.
        self._factory.SetMRMLApplicationLogic(None)

    renderWindow = gives("_window")
    interactor = gives("_interactor")

    def displayableManagerByClassName(self, name: str):
        return self._group.GetDisplayableManagerByClassName(name)

    def _show_node(self, node) -> None:
        self._node = node
        self._group.SetMRMLDisplayableNode(node)
        self.setEnabled(node is not None)

    def forceRender(self) -> None:
        if not self.visible or slicer.mrmlScene.IsBatchProcessing():
            return
        self._window.SetSize(max(self.width, 2), max(self.height, 2))
        self._window.Render()
        self._stale = False
        self._image = picture_of(self._window)

    def resizeEvent(self, event) -> None:
        self._window.SetSize(max(self.width, 2), max(self.height, 2))
        self._interactor.SetSize(max(self.width, 2), max(self.height, 2))
        self._resized()
        self.scheduleRender()

    def _resized(self) -> None:
        pass


_KEYS = {
    qt.Qt.Key_Escape: "Escape",
    qt.Qt.Key_Return: "Return",
    qt.Qt.Key_Delete: "Delete",
    qt.Qt.Key_Left: "Left",
    qt.Qt.Key_Right: "Right",
    qt.Qt.Key_Up: "Up",
    qt.Qt.Key_Down: "Down",
    qt.Qt.Key_Space: "space",
}


def picture_of(window):
    """Return a render window's picture as a QImage with its own memory."""
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.ShouldRerenderOff()
    grabber.Update()
    width, height, _ = grabber.GetOutput().GetDimensions()
    pixels = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
    return qt.QImage(pixels.data, width, height, 3 * width, qt.QImage.Format_RGB888).copy()
