"""What an experiment trains: configurations, each once for each fold, and how much of that (the training budget)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from CACScoringLib.core.ct import CTError


class StudyError(CTError):
    """There is nothing to study, or not as asked. The message says what to do."""


@dataclass(frozen=True)
class ExperimentRun:
    """One training: a configuration, which is a frozen dataclass of the study's own, on one fold, counted from 0."""

    configuration: Any
    fold: int


@dataclass(frozen=True)
class TrainingBudget:
    """How much is trained. folds: of the cross-validation. steps: of a training; None: as the presets say. seed: of
    folds, trainings and bootstrap. Raises StudyError for too few folds.
    """

    folds: int = 5
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < LEAST_FOLDS:
            raise StudyError(f"Cross-validation takes {LEAST_FOLDS} folds or more, not {self.folds}.")


LEAST_FOLDS = 2


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Check that all names are known.

    Args:
        names: those asked for.
        known: those that there are.
        what: the kind of name, for the message.

    Raises:
        StudyError: a name is not among those known.
    """
    if unknown := sorted(set(names) - set(known)):
        raise StudyError(f"There is no {what} {unknown[0]!r}; choose one of {', '.join(known)}.")
