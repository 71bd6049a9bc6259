"""The command `watch`: new CT series of an archive scored, and the results sent back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..core.options import option, settings_from
from ..core.progress import Progress
from .options import (
    ArchiveOptions,
    Command,
    EstimateOptions,
    extras_of_networks,
    from_file,
    model_choice,
    scoring_settings,
)


@dataclass(frozen=True, kw_only=True)
class WatchOptions(ArchiveOptions, EstimateOptions):
    """Watch a DICOM archive: fetch and score every matching CT series once it is complete, and store its results in the
    archive.

    Rerun the command to resume.

    Attributes:
        output: Folder for the journal and a result per series.
        once: End when nothing is left to do.
        identify: Include patient name, ID and study date in the results.
        patient_id: Patient ID.
        days: Studies of the last N days only, today included.
    """

    output: Path = option(metavar="DIR")
    once: bool | None = None
    identify: bool = False
    patient_id: str | None = option(None, metavar="ID")
    days: int | None = option(None, metavar="N")


def run(options: WatchOptions, progress: Progress) -> None:
    """Watch the archive. Raises ArchiveError, CTError, OutputError."""
    from ..archive.journal import WatchSettings
    from ..archive.transfer import connect
    from ..archive.watch import Watch, open_watch, prepare_series
    from ..cohort.cohort import settings_record
    from ..models.choice import chosen_models
    from ..run import RunSettings

    settings = scoring_settings(options, RunSettings(saliency=False, dicom=True))
    watch_settings = settings_from(options, from_file(options.settings, "watch", WatchSettings()), ("once",))
    criteria = options.criteria("patient_id", "days")
    archive = connect(options.archive, options.access())
    models = chosen_models(model_choice(options))
    for warning in models.warnings:
        progress.warning(warning)
    with open_watch(options.output, {**settings_record(settings, models), "archive": options.archive}) as journal:
        watch = Watch(archive, options.output, criteria, watch_settings, journal, partial(print, flush=True))
        count = Counter(entry.state for entry in watch.run(partial(prepare_series, settings, models)))
    print(
        f"{options.output}: {', '.join(f'{number} {state}' for state, number in sorted(count.items())) or 'no series'}"
    )
    progress.done(options.output)


def _extras(options: WatchOptions) -> tuple[str, ...]:
    return ("archive", "cohort", "dicom", *extras_of_networks(options))


add_arguments = Command(WatchOptions, run, _extras).declare
