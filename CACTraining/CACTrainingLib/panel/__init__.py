"""The panel of CAC Training in 3D Slicer."""
