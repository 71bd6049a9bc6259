"""`cac phantom`: a cohort of digital patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from CACScoringLib.cli.options import Command, from_file, settings_option
from CACScoringLib.core.options import option, settings_from
from CACScoringLib.core.progress import Progress

from ..phantom import PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class PhantomOptions:
    """Write a cohort of digital patients. Rerun the command to resume.

    Attributes:
        pairs: Number of patients, two scans each.
        single: Number of patients, one scan each.
        output: Folder of the cohort.
        protocol: Scanning protocol (default: radiotherapy).
        dicom: Write each CT as a DICOM series too.
        workers: Number of processes (default: one per core).
    """

    pairs: int | None = option(None, exclusive="required", metavar="N")
    single: int | None = option(None, exclusive="required", metavar="N")
    output: Path = option(metavar="DIR")
    protocol: str | None = option(None, choices=PROTOCOLS)
    dicom: bool | None = None
    settings: tuple[str, ...] = settings_option('{"first_number": 100, "prevalence": 0.5, "z_range_mm": [-84, 66]}')
    workers: int | None = option(None, metavar="N")


def run(options: PhantomOptions, progress: Progress) -> None:
    """Write the cohort. Raises CTError, OutputError."""
    from ..phantom import CohortSettings, write_cohort

    progress.begin(["cohort"])
    patients, scans = (options.single or 0, 1) if options.pairs is None else (options.pairs, 2)
    settings = settings_from(options, from_file(options.settings, None, CohortSettings()), ("dicom", "protocol"))
    settings = replace(settings, scans=scans)
    with progress.step("cohort"):
        table = write_cohort(patients, options.output, settings, options.workers, progress.counted)
    progress.done(options.output)
    print(f"{table}: {patients} patients, {'one scan' if scans == 1 else 'two scans'} each")


add_arguments = Command(PhantomOptions, run, ("cohort",)).declare
