"""The parts of the segment editor's double, their arrangement, and its masking section
(Slicer/Slicer Modules/Loadable/Segmentations/Widgets/Resources/UI/qMRMLSegmentEditorWidget.ui,
qMRMLSegmentEditorWidget.cxx: updateMaskingSection, onMaskModeChanged ...)."""

from __future__ import annotations

import slicer

from .ctk_doubles import ctkRangeWidget
from .ctk_paths_and_texts import ctkFittedTextBrowser
from .qmrml_doubles import qMRMLNodeComboBox, qMRMLWidget
from .qt_manner import qt_module
from .segment_widgets import qMRMLSegmentsTableView

qt = qt_module()

_AREAS = {
    "Everywhere": slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere,
    "Inside all segments": slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments,
    "Inside all visible segments": slicer.vtkMRMLSegmentationNode.EditAllowedInsideVisibleSegments,
    "Outside all segments": slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments,
    "Outside all visible segments": slicer.vtkMRMLSegmentationNode.EditAllowedOutsideVisibleSegments,
}
_OVERWRITE = {
    "Overwrite all": slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments,
    "Overwrite visible": slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments,
    "Allow overlap": slicer.vtkMRMLSegmentEditorNode.OverwriteNone,
}


class SegmentEditorParts(qMRMLWidget):
    """The widget's parts and their arrangement."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._segmentations, self._volumes = qMRMLNodeComboBox(), qMRMLNodeComboBox()
        self._segmentations.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._segmentations.noneEnabled = True
        self._volumes.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self._volumes.noneEnabled = True
        self._add, self._remove = qt.QPushButton("Add"), qt.QPushButton("Remove")
        self._show_3d, self._switch = qt.QPushButton("Show 3D"), qt.QToolButton()
        self._geometry, self._segments = qt.QToolButton(), qMRMLSegmentsTableView()
        self._effect_box, self._options, self._help = qt.QFrame(), qt.QGroupBox(), ctkFittedTextBrowser()
        self._effect_grid = qt.QGridLayout(self._effect_box)
        self._effect_group, self._effect_buttons = qt.QButtonGroup(self), {}
        self._undo, self._redo = qt.QToolButton(), qt.QToolButton()
        self._undo.setText("Undo")
        self._redo.setText("Redo")
        inside = qt.QVBoxLayout(self._options)
        inside.addWidget(self._help)
        self._masking, self._area = qt.QGroupBox("Masking"), qt.QComboBox()
        self._overwrite, self._intensity, self._range = qt.QComboBox(), qt.QCheckBox(), ctkRangeWidget()
        self._arrange()

    def _arrange(self) -> None:
        form = qt.QFormLayout()
        self._labels = qt.QLabel("Segmentation:"), qt.QLabel("Source volume:")
        form.addRow(self._labels[0], self._segmentations)
        volume = qt.QHBoxLayout()
        volume.addWidget(self._volumes)
        volume.addWidget(self._geometry)
        form.addRow(self._labels[1], volume)
        buttons = qt.QHBoxLayout()
        for button in (self._add, self._remove, self._show_3d, self._switch):
            buttons.addWidget(button)
        undo = qt.QHBoxLayout()
        undo.addWidget(self._undo)
        undo.addWidget(self._redo)
        left = qt.QVBoxLayout()
        left.addWidget(self._effect_box)
        left.addLayout(undo)
        left.addStretch(1)
        middle = qt.QHBoxLayout()
        middle.addLayout(left)
        middle.addWidget(self._segments, 1)
        masking = qt.QFormLayout(self._masking)
        masking.addRow("Editable area:", self._area)
        intensity = qt.QHBoxLayout()
        intensity.addWidget(self._intensity)
        intensity.addWidget(self._range, 1)
        masking.addRow("Editable intensity range:", intensity)
        masking.addRow("Modify other segments:", self._overwrite)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for layout in (form, buttons, middle):
            column.addLayout(layout)
        column.addWidget(self._options)
        column.addWidget(self._masking)
        self._options.hide()
        self._masking.hide()

    def _fill_masking(self) -> None:
        for text, mode in _AREAS.items():
            self._area.addItem(text, mode)
        for text, mode in _OVERWRITE.items():
            self._overwrite.addItem(text, mode)
        self._area.currentIndexChanged.connect(lambda index: self._set_area(self._area.itemData(index)))
        self._overwrite.currentIndexChanged.connect(
            lambda index: self._node is not None and self._node.SetOverwriteMode(self._overwrite.itemData(index))
        )
        self._intensity.toggled.connect(
            lambda on: self._node is not None and self._node.SetSourceVolumeIntensityMask(on)
        )
        self._range.valuesChanged.connect(
            lambda low, high: self._node is not None and self._node.SetSourceVolumeIntensityMaskRange(low, high)
        )

    def _set_area(self, area) -> None:
        if self._node is None or area is None:
            return
        if isinstance(area, str):
            self._node.SetMaskSegmentID(area)
            self._node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        else:
            self._node.SetMaskMode(area)

    def _update_masking(self) -> None:
        parts = (self._area, self._overwrite, self._intensity, self._range)
        blocked = [part.blockSignals(True) for part in parts]
        while self._area.count > len(_AREAS):
            self._area.removeItem(len(_AREAS))
        segmentation = None if self._node.GetSegmentationNode() is None else self._node.GetSegmentationNode()
        for segment in () if segmentation is None else segmentation.GetSegmentation().GetSegmentIDs():
            self._area.addItem(f"Inside {segmentation.GetSegmentation().GetSegment(segment).GetName()}", segment)
        single = self._node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        self._area.setCurrentIndex(
            self._area.findData(self._node.GetMaskSegmentID() if single else self._node.GetMaskMode())
        )
        self._overwrite.setCurrentIndex(self._overwrite.findData(self._node.GetOverwriteMode()))
        self._intensity.setChecked(bool(self._node.GetSourceVolumeIntensityMask()))
        self._range.setVisible(bool(self._node.GetSourceVolumeIntensityMask()))
        self._range.setValues(*self._node.GetSourceVolumeIntensityMaskRange())
        for part, was in zip(parts, blocked, strict=True):
            part.blockSignals(was)
