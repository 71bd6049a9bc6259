"""The panel of CAC Scoring in 3D Slicer."""
