"""What an experiment trains: configurations, each once for each fold, and how much of that (the training budget)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .errors import StudyError


@dataclass(frozen=True)
class ExperimentRun:
    """One training: a configuration, which is a frozen dataclass of the study's own, on one fold, counted from 0."""

    configuration: Any
    fold: int


@dataclass(frozen=True)
class TrainingBudget:
    """How much is trained. folds: of the cross-validation. only: by table, how many of the folds are trained, where
    that is less. steps: of a training; None: as the presets say. seed: of folds, trainings and bootstrap.

    Raises StudyError for an unknown table, and for folds that are too few or more than there are.
    """

    TABLES: ClassVar[Sequence[str]] = ()
    """Names of the study's tables, the most important first."""
    LEAST_FOLDS: ClassVar[int] = 2

    folds: int = 5
    only: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_known(self.only, self.TABLES, "table")
        if self.folds < self.LEAST_FOLDS or any(not 1 <= count <= self.folds for count in self.only.values()):
            raise StudyError(
                f"Cross-validation takes {self.LEAST_FOLDS} folds or more, and a table 1 to all of them; these are "
                f"{self.folds} folds and {dict(self.only)}."
            )

    @property
    def folds_text(self) -> str:
        """For the page."""
        fewer = ", ".join(f"{name} {count}" for name, count in self.only.items())
        return f"{self.folds} folds" + (f"; of these trained: {fewer}" if fewer else "")


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


def chosen_tables(names: Sequence[str], known: Iterable[str], always: Sequence[str] = ()) -> tuple[str, ...]:
    """The tables asked for, and those shown always, in the order of those known; all when none is named.

    Args:
        names: the tables asked for.
        known: all tables, in their order.
        always: tables that are always shown.

    Returns:
        Their names, in the order of `known`.

    Raises:
        StudyError: a table is unknown.
    """
    check_known(names, known, "table")
    return tuple(name for name in known if not names or name in (*names, *always))
