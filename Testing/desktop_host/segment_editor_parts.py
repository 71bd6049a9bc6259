"""Widgets of the segment editor's double and their layout, without the masking section
(Slicer/Slicer Modules/Loadable/Segmentations/Widgets/Resources/UI/qMRMLSegmentEditorWidget.ui)."""

from __future__ import annotations

from .qmrml_doubles import qMRMLNodeComboBox, qMRMLWidget
from .qt_manner import qt_module
from .segment_widgets import qMRMLSegmentsTableView

qt = qt_module()


class SegmentEditorParts(qMRMLWidget):
    """Base class with the widget's parts and their layout."""

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
        self._effect_box, self._options, self._help = qt.QFrame(), qt.QGroupBox(), qt.QTextBrowser()
        self._effect_grid = qt.QGridLayout(self._effect_box)
        self._effect_group, self._effect_buttons = qt.QButtonGroup(self), {}
        self._undo, self._redo = qt.QToolButton(), qt.QToolButton()
        self._undo.setText("Undo")
        self._redo.setText("Redo")
        self._undo_box, self._options_frame = qt.QGroupBox(), qt.QFrame()
        self._help.setFixedHeight(48)  # as high as its text in Slicer
        inside = qt.QVBoxLayout(self._options)
        inside.addWidget(self._help)
        inside.addWidget(self._options_frame)
        options = qt.QVBoxLayout(self._options_frame)
        options.setContentsMargins(0, 0, 0, 0)
        options.setSpacing(0)
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
        left_column = qt.QVBoxLayout()
        left_column.addWidget(self._effect_box)
        left_column.addWidget(self._undo_box)
        left_column.addStretch(1)
        middle = qt.QHBoxLayout()
        middle.addLayout(left_column)
        middle.addWidget(self._segments, 1)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for layout in (form, buttons, middle):
            column.addLayout(layout)
        column.addWidget(self._options)
        self._options.hide()
