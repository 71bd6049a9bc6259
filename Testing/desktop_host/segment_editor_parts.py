"""The parts of the segment editor's double, their arrangement, and its masking section
(Slicer/Slicer Modules/Loadable/Segmentations/Widgets/Resources/UI/qMRMLSegmentEditorWidget.ui,
qMRMLSegmentEditorWidget.cxx: updateMaskingSection, onMaskModeChanged, onSegmentAddedRemoved ...)."""

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
_FIXED_AREAS = len(_AREAS) + 1
"""With the separator below them."""

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
        self._undo_box, self._options_frame = qt.QGroupBox(), qt.QFrame()
        inside = qt.QVBoxLayout(self._options)
        inside.addWidget(self._help)
        inside.addWidget(self._options_frame)
        options = qt.QVBoxLayout(self._options_frame)
        options.setContentsMargins(0, 0, 0, 0)
        options.setSpacing(0)
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
        undo = qt.QHBoxLayout(self._undo_box)
        undo.addWidget(self._undo)
        undo.addWidget(self._redo)
        left = qt.QVBoxLayout()
        left.addWidget(self._effect_box)
        left.addWidget(self._undo_box)
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
        self._area.insertSeparator(self._area.count)
        for text, mode in _OVERWRITE.items():
            self._overwrite.addItem(text, mode)
        self._area.currentIndexChanged.connect(self._set_area)
        self._overwrite.currentIndexChanged.connect(
            lambda index: self._node is not None and self._node.SetOverwriteMode(self._overwrite.itemData(index))
        )
        self._intensity.toggled.connect(
            lambda on: self._node is not None and self._node.SetSourceVolumeIntensityMask(on)
        )
        self._range.valuesChanged.connect(
            lambda low, high: self._node is not None and self._node.SetSourceVolumeIntensityMaskRange(low, high)
        )

    def _set_area(self, index: int) -> None:
        if self._node is None:
            return
        if index >= _FIXED_AREAS:
            self._node.SetMaskSegmentID(self._area.itemData(index))
            self._node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        else:
            self._node.SetMaskMode(self._area.itemData(index) or 0)

    def _segments_changed(self) -> None:
        """The areas inside single segments, anew. When none is chosen after that, editing is allowed everywhere: also
        where the node says "inside a single segment" without saying which."""
        segmentation = None if self._node is None else self._node.GetSegmentationNode()
        blocked = self._area.blockSignals(True)
        chosen = self._area.itemData(self._area.currentIndex) if self._area.currentIndex >= _FIXED_AREAS else None
        while self._area.count > _FIXED_AREAS:
            self._area.removeItem(self._area.count - 1)
        if segmentation is not None:
            contents = segmentation.GetSegmentation()
            for segment in contents.GetSegmentIDs():
                self._area.addItem(f"Inside {contents.GetSegment(segment).GetName()}", segment)
            if chosen:
                self._area.setCurrentIndex(self._area.findData(chosen))
        self._area.blockSignals(blocked)
        if segmentation is not None and self._area.currentIndex < 0:
            self._area.setCurrentIndex(0)

    def _update_range(self) -> None:
        image = None if self._volume is None else self._volume.GetImageData()
        if image is not None:
            self._range.setRange(*image.GetScalarRange())
        self._range.setEnabled(image is not None)

    def _update_masking(self) -> None:
        if self._node is None or self.mrmlScene() is None or self.mrmlScene().IsClosing():
            return
        node, parts = self._node, (self._area, self._overwrite, self._intensity, self._range)
        blocked = [part.blockSignals(True) for part in parts]
        single = node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        area = (node.GetMaskSegmentID() or "") if single else node.GetMaskMode()
        self._area.setCurrentIndex(self._area.findData(area))
        self._intensity.setChecked(bool(node.GetSourceVolumeIntensityMask()))
        low, high = node.GetSourceVolumeIntensityMaskRange()
        if node.GetSourceVolumeIntensityMask() and low == high and self._volume is not None:
            # It was never set.
            least, most = self._volume.GetImageData().GetScalarRange()
            low, high = (least + part * (most - least) for part in (0.25, 0.75))
            node.SetSourceVolumeIntensityMaskRange(low, high)
        self._range.setVisible(bool(node.GetSourceVolumeIntensityMask()))
        self._range.setValues(low, high)
        self._overwrite.setCurrentIndex(self._overwrite.findData(node.GetOverwriteMode()))
        for part, was in zip(parts, blocked, strict=True):
            part.blockSignals(was)
