"""Python packages of training and studies that 3D Slicer does not bring."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, requirementsIn

TRAINING_REQUIREMENTS = (
    *TORCH_REQUIREMENTS,
    *requirementsIn(Path(__file__).parents[1] / "Resources" / "requirements.txt"),
)
"""Packages of training and studies, asked for at once."""
