"""Doubles of the 3-D widget and its view
(Slicer/Slicer Libs/MRML/Widgets/qMRML{ThreeDView,ThreeDWidget}.h, .cxx)."""

from __future__ import annotations

import slicer
import vtk

from .observers import forget, observe
from .qmrml_doubles import qMRMLWidget
from .qt_manner import double, gives, qt_module
from .render_view import RenderView

qt = qt_module()

_MANAGERS = (
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
        super().__init__(parent, factory, _MANAGERS, observer, style)
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
class qMRMLThreeDWidget(qMRMLWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._view, self._watched = qMRMLThreeDView(self), []
        self._logic.SetDisplayableManagerGroup(self._view._group)
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

    def _end(self) -> None:
        forget(self._watched)
        self._view._end()
        self._logic.SetMRMLScene(None)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        # As in slice views, loaded surfaces are drawn only when the view is next modified.
        self._watched.append(observe(scene, scene.EndBatchProcessEvent, self._changed, -1.0))

    def _changed(self, *_) -> None:
        if self.mrmlViewNode() is not None:
            self.mrmlViewNode().Modified()

    def setMRMLViewNode(self, node) -> None:
        # The logic finds the node of this name in the scene.
        self._logic.AddViewNode(node.GetLayoutName())
        self._label.setText(f" {node.GetLayoutLabel() or node.GetLayoutName()} ")
        self._view.setMRMLViewNode(node)

    mrmlViewNode = gives("_view.mrmlViewNode()")
    mrmlAbstractViewNode = gives("mrmlViewNode()")
    threeDView = gives("_view")
    viewWidget = gives("_view")
