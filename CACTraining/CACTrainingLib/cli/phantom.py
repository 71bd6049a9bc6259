"""`cac phantom`: a cohort of digital patients."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument, add_settings_argument, from_file
from CACScoringLib.core.progress import Progress

from ..phantom.scanner.motion import PROTOCOLS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Write a cohort of digital patients. Rerun the command to resume."
    count = parser.add_mutually_exclusive_group(required=True)
    count.add_argument("--pairs", type=int, metavar="N", help="number of patients, two scans each")
    count.add_argument("--single", type=int, metavar="N", help="number of patients, one scan each")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the cohort")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="scanning protocol (default: radiotherapy)")
    parser.add_argument("--dicom", action="store_true", help="write each CT as a DICOM series too")
    add_settings_argument(parser, '{"first_number": 100, "prevalence": 0.5, "z_range_mm": [-84, 66]}')
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    add_progress_argument(parser)
    parser.set_defaults(
        run=run,
        extras=lambda options: ("cohort",),
        interrupted="Interrupted. Rerun the command to resume.",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Write the cohort. Raises CTError, OutputError."""
    from ..phantom.cohort.cohort import CohortSettings, write_cohort

    progress.begin(["cohort"])
    patients, scans = (options.single, 1) if options.pairs is None else (options.pairs, 2)
    settings = from_file(options.settings, None, CohortSettings())
    protocol = options.protocol or settings.protocol
    settings = replace(settings, scans=scans, dicom=settings.dicom or options.dicom, protocol=protocol)
    with progress.step("cohort"):
        table = write_cohort(patients, options.output, settings, options.workers, progress.counted)
    progress.done(options.output)
    print(f"{table}: {patients} patients, {'one scan' if scans == 1 else 'two scans'} each")
