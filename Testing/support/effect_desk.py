"""Segment Editor in the desktop host on a small scan, driven with mouse and keys, for the tests of its effects."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import images
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from vtk.util.numpy_support import vtk_to_numpy

import desktop_host
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import NOT_CORONARY, SITES
from CACScoringLib.mrml import lesion_segments, segments
from CACScoringLib.mrml import scene as mrml

ROOT = Path(__file__).parents[2]
EFFECTS = {"CAC Lesion": "SegmentEditorCACLesion", "CAC Region": "SegmentEditorCACRegion"}
EFFECTS["CAC Decompose"] = "SegmentEditorCACDecompose"
SPACING_MM = (1.0, 1.0, 2.0)
SHAPE = (16, 40, 40)
LESION = (slice(7, 9), slice(20, 23), slice(14, 18))  # 24 voxels
SECOND_LESION = (slice(7, 8), slice(20, 22), slice(28, 30))  # 4 voxels
BONE = (slice(None), slice(30, 40), slice(0, 40))
HEART = (slice(3, 13), slice(8, 34), slice(8, 34))


def load_effects(monkeypatch, folders: Iterable[Path]) -> None:
    """Load the effects' modules from their folders, as Slicer does at startup."""
    for folder in folders:
        monkeypatch.syspath_prepend(str(folder))
    for module in EFFECTS.values():
        # Loaded classes belong to an earlier stand-in.
        for name in [name for name in sys.modules if name.split(".")[0] == f"{module}Lib"]:
            monkeypatch.delitem(sys.modules, name)
        desktop_host.load(monkeypatch, module)
    slicer.app.startupCompleted.emit()


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make HU, heart and calcium map, [k, j, i]."""
    hu = np.full(SHAPE, 40, np.int16)
    hu[LESION], hu[SECOND_LESION], hu[BONE] = 300, 200, 600
    heart = np.zeros(SHAPE, np.uint8)
    heart[HEART] = 1
    calcium = np.zeros(SHAPE, np.float32)
    calcium[7:9, 19:24, 13:19] = 60
    calcium[SECOND_LESION] = 20
    return hu, heart, calcium


def rotation(axis: str, degrees: float) -> tuple[float, ...]:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*(np.deg2rad(degrees) if axis == name else 0.0 for name in "xyz"))
    return turn.GetMatrix()


def image_of(values: np.ndarray, direction=None) -> sitk.Image:
    return images.image_of(values, SPACING_MM, (-20.0, -21.0, -15.0), direction)


class Desk:
    """Segment Editor on the small scan. Positions are voxels (k, j, i) of `arrays`.

    Args:
        order: Axes of the volume node's voxels, such as "SAR"; the scan's are "LPS".
        direction: Direction of the scan.
    """

    def __init__(self, order: str = "LPS", direction=None) -> None:
        hu, heart, calcium = (image_of(values, direction) for values in arrays())
        self.grid, self.order = hu, order
        self.volume = mrml.add_volume(slicer.mrmlScene, sitk.DICOMOrient(hu, order), "CT")
        self.segmentation = self._segmentation("Lesions")
        for label in (*SITES, NOT_CORONARY):
            lesion_segments.add_lesion_segment(self.segmentation, label)
        heart_node = self._segmentation("Heart")
        heart_node.GetSegmentation().AddEmptySegment(lesion_segments.HEART_ID, "Heart")
        # The heart's random colour could equal an overlay's.
        heart_node.GetDisplayNode().SetVisibility(False)
        mask = sitk.GetArrayFromImage(sitk.DICOMOrient(heart, order))
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, heart_node, lesion_segments.HEART_ID, self.volume)
        map_node = mrml.add_volume(slicer.mrmlScene, calcium, "Calcium map")
        self.segmentation.SetNodeReferenceID(mrml.HEART_ROLE, heart_node.GetID())
        self.segmentation.SetNodeReferenceID(mrml.CALCIUM_MAP_ROLE, map_node.GetID())
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor.setMRMLSegmentEditorNode(self.node)
        self.editor.setSegmentationNode(self.segmentation)
        self.editor.setSourceVolumeNode(self.volume)
        self.editor.setCurrentSegmentID("LAD")
        self.editor.setupViewObservations()
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.view = slicer.app.layoutManager().sliceWidget("Red")
        self.show_slice(7)

    def close(self) -> None:
        """Delete the editor, if not done: Slicer cannot hold two outside a panel."""
        if self.editor is not None:
            self.editor.setActiveEffect(None)
            self.editor.removeViewObservations()
            self.editor.delete()
            self.editor = None

    def _segmentation(self, name: str):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        return node

    def use(self, name: str):
        """Activate an effect and return its Python object."""
        self.editor.setActiveEffectByName(name)
        return self.editor.activeEffect().self()

    def ras(self, kji) -> np.ndarray:
        x, y, z = self.grid.TransformContinuousIndexToPhysicalPoint([float(n) for n in kji[::-1]])
        return np.array([-x, -y, z])

    def show_slice(self, k: float) -> None:
        """Show a slice of the scan in the view, in its plane."""
        node = self.view.mrmlSliceNode()
        axes = np.reshape(self.grid.GetDirection(), (3, 3)) * [[-1], [-1], [1]]
        middle = self.ras((k, 20, 20))
        node.SetSliceToRASByNTP(*axes[:, 2], *axes[:, 0], *middle, 0)
        node.UpdateMatrices()

    def at(self, kji) -> None:
        """Put the mouse on a voxel of the visible slice."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.view.mrmlSliceNode().GetXYToRAS(), matrix)
        x, y, _z, _w = matrix.MultiplyPoint((*self.ras(kji), 1.0))
        self.interactor.SetEventInformation(round(x), round(y), 0, 0)

    @property
    def interactor(self):
        return self.view.sliceView().interactor()

    def move(self, kji) -> None:
        self.at(kji)
        self.interactor.InvokeEvent("MouseMoveEvent")

    def press(self, kji) -> None:
        self.at(kji)
        self.interactor.InvokeEvent("LeftButtonPressEvent")

    def release(self, kji) -> None:
        self.at(kji)
        self.interactor.InvokeEvent("LeftButtonReleaseEvent")

    def click(self, kji) -> None:
        self.move(kji)
        self.press(kji)
        self.release(kji)

    def key(self, key: str) -> None:
        """Press a key after a click in the view: Qt's shortcuts come first, then the view."""
        self.view.sliceView().layout().itemAt(0).widget().setFocus()
        self.key_where_the_focus_is(key)

    def key_where_the_focus_is(self, key: str) -> None:
        slicer.util.mainWindow().activateWindow()
        slicer.app.processEvents()
        QTest.keyClick(QApplication.focusWidget(), key)

    def voxels(self, segment_id: str) -> np.ndarray:
        """Voxels of a segment on the scan's grid, bool [k, j, i]."""
        return segments.segment_mask(self.segmentation, segment_id, self.grid)

    def counts(self) -> dict[str, int]:
        """Number of voxels of each segment that is not empty."""
        ids = self.segmentation.GetSegmentation().GetSegmentIDs()
        counts = {segment_id: int(self.voxels(segment_id).sum()) for segment_id in ids}
        return {segment_id: count for segment_id, count in counts.items() if count}

    def give(self, segment_id: str, part) -> None:
        """Set voxels of a segment without an effect."""
        mask = np.zeros(SHAPE, np.uint8)
        mask[part] = 1
        values = sitk.GetArrayFromImage(sitk.DICOMOrient(Grid.of(self.grid).image(mask), self.order))
        slicer.util.updateSegmentBinaryLabelmapFromArray(values, self.segmentation, segment_id, self.volume)

    def overlays(self) -> int:
        """Number of items drawn over the view's image."""
        return self.view.sliceView().renderWindow().GetRenderers().GetFirstRenderer().GetViewProps().GetNumberOfItems()

    def lit(self, colour: tuple[float, float, float]) -> int:
        """Number of pixels of the view that are tinted like an overlay of a colour."""
        self.view.sliceView().forceRender()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.view.sliceView().renderWindow())
        grabber.ReadFrontBufferOff()
        grabber.Update()
        values = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars()).astype(float)
        pure = np.array(colour) - np.mean(colour)
        tint = values - values.mean(1, keepdims=True)
        strength = tint @ pure / np.linalg.norm(pure)
        return int(((strength > 40) & (strength > 0.9 * np.linalg.norm(tint, axis=1))).sum())
