"""What is wrong with a study that was asked for."""

from __future__ import annotations

from CACScoringLib.core.ct import CTError


class StudyError(CTError):
    """There is nothing to study, or not as asked. The message says what to do."""
