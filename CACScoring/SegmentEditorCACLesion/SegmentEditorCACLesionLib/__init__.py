"""The effect CAC Lesion of Segment Editor."""

# Slicer looks the effect's class up in the package that is named as this folder; without it, it would run the file as
# a module of that name, which hides the package.
from .SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
