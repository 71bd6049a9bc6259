"""Scans of a study, scored as `cac cohort` scores them."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.cohort.cohort import score_cohort
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.run import RunSettings

SCANS = "scans"
"""In the output folder, what scoring wrote."""


def make_folder(path: Path) -> None:
    """Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {path}: {error.strerror}. Choose another --output.") from error


def scored_folders(
    table: Path, output: Path, models: ModelChoice, workers: int | None, overwrite: bool, progress: Progress
) -> list[Path | str]:
    """Score the scans of a table, into SCANS of the output folder; those that are there are kept.

    Args:
        table: As `cac cohort` takes it.
        output: The study's folder.
        models: Those asked for.
        workers: Processes at work, None for as many as fit.
        overwrite: Score anew, whatever is there.
        progress: Is told within its present step.

    Returns:
        Of each scan the folder of its results, or why it has none.

    Raises:
        CTError: The table cannot be read.
        OutputError: The results cannot be written, or were made with other settings.
    """
    settings = RunSettings(healthy=False)
    states = score_cohort(table, output / SCANS, settings, models, workers, overwrite, _WithinStep(progress))
    return [state.folder if state.state in ("done", "skipped") else str(state.reason) for state in states]


class _WithinStep(Progress):
    """Progress of a part, told within the step that it is."""

    def __init__(self, whole: Progress) -> None:
        super().__init__()
        self.counted, self.scan, self.warning = whole.counted, whole.scan, whole.warning
