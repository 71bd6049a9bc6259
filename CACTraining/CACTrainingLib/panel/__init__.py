"""The sections of the training panel. Loaded inside Slicer only."""
