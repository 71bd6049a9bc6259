"""Doubles of the slice widget, the 3-D widget and their parts; Slicer's own logic reslices volumes and draws overlays
(Slicer/Slicer Libs/MRML/Widgets/qMRML{SliceView,SliceWidget,SliceControllerWidget,ThreeDView,ThreeDWidget}.h, .cxx; a
slice's picture on the screen as in commontk/CTK Libs/Visualization/VTK/Core/vtkLightBoxRendererManager.cpp)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLSliderWidget, qMRMLWidget
from .qt_manner import double, gives, qt_module
from .render_view import RenderView

qt = qt_module()

_SLICE_MANAGERS = (
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
        super().__init__(parent, factory, _SLICE_MANAGERS, observer, style)
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


class _SceneWidget(qMRMLWidget):
    """View of the scene with its logic."""

    def __init__(self, parent, logic, view) -> None:
        super().__init__(parent)
        self._logic, self._view, self._watched = logic, view, []
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        logic.SetDisplayableManagerGroup(view._group)

    viewWidget = gives("_view")

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        self._watched.append(observe(scene, scene.EndBatchProcessEvent, lambda *_: self._on_batch_end(), -1.0))

    def _on_batch_end(self) -> None:
        # After loading, segments and surfaces are drawn only when the view is next modified; Slicer modifies it.
        if self.mrmlAbstractViewNode() is not None:
            self.mrmlAbstractViewNode().Modified()

    def _end(self) -> None:
        forget(self._watched)
        self._view._end()
        self._logic.SetMRMLScene(None)


@double
class qMRMLSliceWidget(_SceneWidget):
    """Slice view with its bar, for a slice node and its slice logic."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent, slicer.vtkMRMLSliceLogic(), qMRMLSliceView())
        self._controller = qMRMLSliceControllerWidget(self)
        self._controller._logic = self._logic
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._controller)
        column.addWidget(self._view, 1)
        self._view._observer.SetSliceLogic(self._logic)
        self._watched.append(observe(self._logic, "ModifiedEvent", lambda *_: self._update()))

    def setMRMLSliceNode(self, node) -> None:
        self._logic.SetSliceNode(node)
        self._view.setMRMLSliceNode(node)
        self._watched.append(observe(node, "ModifiedEvent", lambda *_: self._update()))

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._update()

    def _on_batch_end(self) -> None:
        # The node of a closed or loaded scene has another size than the view.
        self._view._resized()
        super()._on_batch_end()

    mrmlSliceNode = gives("_logic.GetSliceNode()")
    mrmlAbstractViewNode = gives("mrmlSliceNode()")
    mrmlSliceCompositeNode = gives("_logic.GetSliceCompositeNode()")
    sliceLogic = gives("_logic")
    sliceView = gives("_view")
    sliceController = gives("_controller")

    def fitSliceToBackground(self) -> None:
        self._controller.fitSliceToBackground()

    sliceViewName = property(gives("mrmlSliceNode().GetLayoutName()"))

    def _update(self) -> None:
        self._view._show(self._logic.GetImageDataConnection())
        self._controller._update()
        self._view.scheduleRender()


_THREE_D_MANAGERS = (
    *("CameraDisplayableManager", "ViewDisplayableManager", "ModelDisplayableManager"),
    *("CrosshairDisplayableManager3D", "OrientationMarkerDisplayableManager", "RulerDisplayableManager"),
    *("SegmentationsDisplayableManager3D", "MarkupsDisplayableManager"),
)


@double
class qMRMLThreeDView(RenderView):
    """Picture of surfaces from a camera node."""

    def __init__(self, parent=None) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        observer, style = slicer.vtkMRMLThreeDViewInteractorStyle(), vtk.vtkInteractorStyle3D()
        super().__init__(parent, factory, _THREE_D_MANAGERS, observer, style)
        self._renderer.GradientBackgroundOn()

    mrmlViewNode = gives("_node")
    setMRMLViewNode = RenderView._show_node

    def cameraNode(self):
        return self.displayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()

    def setFocalPoint(self, x: float, y: float, z: float) -> None:
        camera = self._renderer.GetActiveCamera()
        camera.SetFocalPoint(x, y, z)
        camera.ComputeViewPlaneNormal()
        camera.OrthogonalizeViewUp()
        self._renderer.ResetCameraClippingRange()
        self._renderer.UpdateLightsGeometryToFollowCamera()

    def resetFocalPoint(self) -> None:
        """Look at the centre of all visible props except the box, its labels and the crosshair."""
        visibility = self._node.GetBoxVisible(), self._node.GetAxisLabelsVisible()
        with slicer.util.NodeModify(self._node):
            self._node.SetBoxVisible(False)
            self._node.SetAxisLabelsVisible(False)
        crosshair = slicer.vtkMRMLCrosshairDisplayableManager.FindCrosshairNode(slicer.mrmlScene)
        mode = None if crosshair is None else crosshair.GetCrosshairMode()
        if crosshair is not None:
            crosshair.SetCrosshairMode(crosshair.NoCrosshair)
        bounds = self._renderer.ComputeVisiblePropBounds()
        self.setFocalPoint(*((bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)))
        with slicer.util.NodeModify(self._node):
            self._node.SetBoxVisible(visibility[0])
            self._node.SetAxisLabelsVisible(visibility[1])
        # The manager of box and labels makes them again.
        self._node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        if crosshair is not None:
            crosshair.SetCrosshairMode(mode)
        self._renderer.ResetCameraClippingRange()
        self.scheduleRender()

    def resetCamera(
        self, resetRotation: bool = True, resetTranslation: bool = True, resetDistance: bool = True
    ) -> None:
        """Fit all visible props, box included, to the view's height, ignoring its width."""
        self.cameraNode().Reset(resetRotation, resetTranslation, resetDistance, self._renderer)
        self.scheduleRender()


@double
class qMRMLThreeDWidget(_SceneWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent, slicer.vtkMRMLViewLogic(), qMRMLThreeDView())
        self._view.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Expanding)
        self._label, bar = qt.QLabel(), qt.QHBoxLayout()
        bar.setContentsMargins(4, 4, 0, 4)
        bar.addWidget(self._label)
        bar.addStretch(1)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(bar)
        column.addWidget(self._view)

    def setMRMLViewNode(self, node) -> None:
        # The logic finds the node of this name in the scene.
        self._logic.AddViewNode(node.GetLayoutName())
        self._label.setText(f" {node.GetLayoutLabel() or node.GetLayoutName()} ")
        self._view.setMRMLViewNode(node)

    mrmlViewNode = gives("_view.mrmlViewNode()")
    mrmlAbstractViewNode = gives("mrmlViewNode()")
    threeDView = gives("_view")
