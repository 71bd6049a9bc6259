"""Doubles of the 3-D widget and its view
(Slicer/Slicer Libs/MRML/Widgets/qMRML{ThreeDView,ThreeDWidget}.h, .cxx)."""

from __future__ import annotations

import slicer

from .observers import observe
from .qmrml_doubles import qMRMLWidget
from .qt_manner import double, qt_module
from .render_view import RenderView

qt = qt_module()

_MANAGERS = (
    *("CameraDisplayableManager", "ViewDisplayableManager", "ModelDisplayableManager"),
    *("CrosshairDisplayableManager3D", "OrientationMarkerDisplayableManager", "RulerDisplayableManager"),
    *("SegmentationsDisplayableManager3D", "MarkupsDisplayableManager"),
)


@double
class qMRMLThreeDView(RenderView):
    """Surfaces in space, through a camera node."""

    def __init__(self, parent=None) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(parent, factory, _MANAGERS, slicer.vtkMRMLThreeDViewInteractorStyle())
        self._renderer.GradientBackgroundOn()

    def mrmlViewNode(self):
        return self._node

    def setMRMLViewNode(self, node) -> None:
        self._node = node
        self._group.SetMRMLDisplayableNode(node)

    def cameraNode(self):
        cameras = slicer.util.getNodesByClass("vtkMRMLCameraNode")
        return next((node for node in cameras if node.GetLayoutName() == self._node.GetLayoutName()), None)

    def resetFocalPoint(self) -> None:
        """Look at the middle of what is visible, without the box and its labels."""
        was = self._node.GetBoxVisible(), self._node.GetAxisLabelsVisible()
        self._node.SetBoxVisible(False)
        self._node.SetAxisLabelsVisible(False)
        bounds = self._renderer.ComputeVisiblePropBounds()
        if bounds[0] <= bounds[1]:
            middle = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
            self._renderer.GetActiveCamera().SetFocalPoint(middle)
        self._node.SetBoxVisible(was[0])
        self._node.SetAxisLabelsVisible(was[1])
        self.scheduleRender()

    def resetCamera(self, *_) -> None:
        self._renderer.ResetCamera()
        self.scheduleRender()

    def rotateToViewAxis(self, axis: int) -> None:
        """axis: 0 right, 1 left, 2 posterior, 3 anterior, 4 inferior, 5 superior (vtkMRMLCameraNode::Direction)."""
        camera = self.cameraNode()
        if camera is not None:
            camera.RotateTo(axis)
        self.scheduleRender()


@double
class qMRMLThreeDWidget(qMRMLWidget):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._view = qMRMLThreeDView(self)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._view)

    def end(self) -> None:
        self._view.end()
        self._logic.SetMRMLScene(None)

    def setMRMLScene(self, scene) -> None:
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        # As in slice views: surfaces that were loaded are drawn when the view next changes.
        observe(scene, scene.EndBatchProcessEvent, self._changed, -1.0)

    def _changed(self, *_) -> None:
        if self.mrmlViewNode() is not None:
            self.mrmlViewNode().Modified()

    def setMRMLViewNode(self, node) -> None:
        # It finds the node of this name in the scene.
        self._logic.AddViewNode(node.GetLayoutName())
        self._view.setMRMLViewNode(node)

    def mrmlViewNode(self):
        return self._view.mrmlViewNode()

    def mrmlAbstractViewNode(self):
        return self.mrmlViewNode()

    def viewLogic(self):
        return self._logic

    def threeDView(self):
        return self._view

    def viewWidget(self):
        return self._view
