"""Python packages of training and studies that are not part of 3D Slicer."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.panel.packages import TORCH_REQUIREMENTS, requirementsIn

LIBRARY = "CACTrainingLib"
"""Package whose commands the panel runs."""

TRAINING_REQUIREMENTS = (
    *TORCH_REQUIREMENTS,
    *requirementsIn(Path(__file__).parents[1] / "Resources" / "requirements.txt"),
)
"""Requirements of training and studies, installed together."""
