"""Doubles of the slice widget and its parts; Slicer's own logic reslices volumes and draws overlays
(Slicer/Slicer Libs/MRML/Widgets/qMRML{SliceView,SliceWidget,SliceControllerWidget}.h, .cxx; the picture on the screen
as in commontk/CTK Libs/Visualization/VTK/Core/vtkLightBoxRendererManager.cpp)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLSliderWidget, qMRMLWidget
from .qt_manner import double, gives, qt_module
from .render_view import RenderView

qt = qt_module()

_MANAGERS = (
    *("VolumeGlyphSliceDisplayableManager", "ModelSliceDisplayableManager", "CrosshairDisplayableManager"),
    *("OrientationMarkerDisplayableManager", "RulerDisplayableManager", "ScalarBarDisplayableManager"),
    *("SegmentationsDisplayableManager2D", "MarkupsDisplayableManager"),
)


@double
class qMRMLSliceView(RenderView):
    """Picture of a slice with its overlays."""

    def __init__(self, parent=None) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        observer, style = slicer.vtkMRMLSliceViewInteractorStyle(), vtk.vtkInteractorStyleUser()
        super().__init__(parent, factory, _MANAGERS, observer, style)
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        mapper = vtk.vtkImageMapper()
        # The slice logic provides 8-bit colours.
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._picture = vtk.vtkActor2D()
        self._picture.SetMapper(mapper)
        self._picture.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(self._picture)

    mrmlSliceNode = gives("_node")
    setMRMLSliceNode = RenderView._show_node

    def _show(self, connection) -> None:
        mapper = self._picture.GetMapper()
        if connection is None:
            mapper.RemoveAllInputs()
        elif mapper.GetNumberOfInputConnections(0) == 0 or mapper.GetInputConnection(0, 0) is not connection:
            mapper.SetInputConnection(connection)
        self._picture.SetVisibility(connection is not None)

    def _resized(self) -> None:
        if self._observer.GetSliceLogic() is not None:
            self._observer.GetSliceLogic().ResizeSliceNode(self.width, self.height)


@double
class qMRMLSliceControllerWidget(qMRMLWidget):
    """Bar above a slice with its name and the slider of its position."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._label, self._slider, self._logic = qt.QLabel(), qMRMLSliderWidget(), None
        self._foreground = 0.0  # value of the opacity slider
        # Width of Slicer's tool buttons and label, measured in Slicer.
        self.setMinimumWidth(343)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.addWidget(self._label)
        row.addWidget(self._slider, 1)
        self._slider.valueChanged.connect(self.setSliceOffsetValue)

    sliceLogic = gives("_logic")
    mrmlSliceNode = gives("_logic.GetSliceNode()")
    mrmlSliceCompositeNode = gives("_logic.GetSliceCompositeNode()")

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.StartSliceOffsetInteraction()
        self._logic.SetSliceOffset(offset)
        self._logic.EndSliceOffsetInteraction()

    def setForegroundOpacity(self, opacity: float) -> None:
        self._logic.StartSliceCompositeNodeInteraction(slicer.vtkMRMLSliceCompositeNode.ForegroundOpacityFlag)
        self._logic.GetSliceCompositeNode().SetForegroundOpacity(opacity)
        self._logic.EndSliceCompositeNodeInteraction()

    def fitSliceToBackground(self) -> None:
        self._logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.ResetFieldOfViewFlag)
        self._logic.FitSliceToBackground()
        self._logic.GetSliceNode().UpdateMatrices()
        self._logic.EndSliceNodeInteraction()

    def _update(self) -> None:
        # The slider's signal is not blocked, so linked views get a node's opacity.
        composite = self._logic.GetSliceCompositeNode()
        if composite is not None and composite.GetForegroundOpacity() != self._foreground:
            self._foreground = composite.GetForegroundOpacity()
            self.setForegroundOpacity(self._foreground)
        node = self._logic.GetSliceNode()
        red, green, blue = (round(255 * part) for part in node.GetLayoutColor())
        self._label.setText(f" {node.GetLayoutLabel() or node.GetLayoutName()} ")
        self._label.setStyleSheet(f"background: rgb({red}, {green}, {blue})")
        limits, resolution = [-1.0, -1.0], vtk.reference(1.0)
        if not self._logic.GetSliceOffsetRangeResolution(limits, resolution):
            return
        with qt.QSignalBlocker(self._slider):
            self._slider.singleStep = max(resolution.get(), 0.01)
            self._slider._set_range(*limits)
            self._slider.setValue(self._logic.GetSliceOffset())


@double
class qMRMLSliceWidget(qMRMLWidget):
    """Slice view with its bar, for a slice node and its slice logic."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._controller, self._view = qMRMLSliceControllerWidget(self), qMRMLSliceView(self)
        self._controller._logic = self._logic
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._controller)
        column.addWidget(self._view, 1)
        self._logic.SetDisplayableManagerGroup(self._view._group)
        self._view._observer.SetSliceLogic(self._logic)
        self._watched = [observe(self._logic, "ModifiedEvent", lambda *_: self._update())]

    def setMRMLSliceNode(self, node) -> None:
        self._logic.SetSliceNode(node)
        self._view.setMRMLSliceNode(node)
        self._watched.append(observe(node, "ModifiedEvent", lambda *_: self._update()))

    def _end(self) -> None:
        forget(self._watched)
        self._view._end()
        self._logic.SetMRMLScene(None)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        self._watched.append(observe(scene, scene.EndBatchProcessEvent, lambda *_: self._on_batch_end(), -1.0))
        self._update()

    def _on_batch_end(self) -> None:
        # The node of a closed or loaded scene has another size than the view.
        self._view._resized()
        # After loading, segments are drawn only when the slice is next modified; Slicer modifies it.
        self.mrmlSliceNode().Modified()

    mrmlSliceNode = gives("_logic.GetSliceNode()")
    mrmlAbstractViewNode = gives("mrmlSliceNode()")
    mrmlSliceCompositeNode = gives("_logic.GetSliceCompositeNode()")
    sliceLogic = gives("_logic")
    sliceView = gives("_view")
    viewWidget = gives("_view")
    sliceController = gives("_controller")

    def fitSliceToBackground(self) -> None:
        self._controller.fitSliceToBackground()

    sliceViewName = property(gives("mrmlSliceNode().GetLayoutName()"))

    def _update(self) -> None:
        self._view._show(self._logic.GetImageDataConnection())
        self._controller._update()
        self._view.scheduleRender()
