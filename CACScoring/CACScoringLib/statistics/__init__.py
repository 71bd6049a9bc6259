"""Intervals, agreement, areas under curves, survival, overlap of masks."""
