"""The command `watch`: new CT series of an archive scored, and the results sent back."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

from ..archive.journal import WatchSettings
from ..archive.series import SeriesFilter
from ..core.options import add_options, settings_from
from ..core.progress import Progress
from .archive_options import access, add_archive_arguments, series_filter
from .options import (
    add_estimate_argument,
    add_network_arguments,
    extras_of_networks,
    from_file,
    model_choice,
    scoring_settings,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Watch a DICOM archive: fetch and score every matching CT series once it is complete, and store its results in "
        "the archive. Rerun the command to resume."
    )
    add_archive_arguments(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the journal and a result per series")
    add_options(parser, WatchSettings, "once")
    add("--identify", action="store_true", help="include patient name, ID and study date in the results")
    add_options(parser, SeriesFilter, "patient_id", "days")
    add_estimate_argument(add_network_arguments(parser))
    parser.set_defaults(
        run=run,
        extras=lambda options: ("archive", "cohort", "dicom", *extras_of_networks(options)),
        interrupted="Interrupted. Rerun the command to resume.",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Watch the archive. Raises ArchiveError, CTError, OutputError."""
    from ..archive.connection import connect
    from ..archive.watch import Watch, open_watch, prepare_series
    from ..cohort.cohort import settings_record
    from ..models.choice import chosen_models
    from ..run import RunSettings

    settings = scoring_settings(options, RunSettings(saliency=False, dicom=True))
    watch_settings = settings_from(options, from_file(options.settings, "watch", WatchSettings()))
    criteria = series_filter(options)
    archive = connect(options.archive, access(options))
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
