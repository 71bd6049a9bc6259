"""The command `cac validate`: automatic scores against a user's own reference scans."""

from __future__ import annotations

from CACScoringLib.cli.options import Command
from CACScoringLib.core.progress import Progress

from ..truth.settings import ValidationSettings


def run(settings: ValidationSettings, progress: Progress) -> None:
    """Validate. Raises CTError if the reference or a model cannot be used, OutputError."""
    from ..truth.validation import validate

    done = validate(settings, progress)
    print(f"{settings.output}: {len(done.scans)} scans compared, {len(done.refused)} left out")
    if done.calibrated is not None:
        name = done.calibrated.card.name
        print(f"Stored {name}. Use it with: cac score CT --model {name}")
        print(f"Take it away with: cac models install {name} --previous")
    for sentence in done.verdicts:
        print(sentence)
    progress.done(settings.output)
    print(f"{done.page}: the validation")


def _extras(settings: ValidationSettings) -> tuple[str, ...]:
    """Return the extras of a validation. Raises CTError of a table that cannot be used, before they are installed."""
    from ..references.score_table import is_table, open_table

    if is_table(settings.reference):
        open_table(settings.reference, settings.scans, settings.columns)
    return ("statistics", "cohort", *(("torch",) if settings.device == "cuda" else ()))


add_arguments = Command(ValidationSettings, run, _extras).declare
