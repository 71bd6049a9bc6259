"""`cac phantom`: a cohort of digital patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.options import command, from_file, settings_option
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress

from ..phantom import PROTOCOLS

RequiredNumber = Annotated[int | None, option(exclusive="required", metavar="N")]
EXAMPLE = '{"first_number": 100, "prevalence": 0.5, "z_range_mm": [-84, 66]}'


def run(
    *,
    pairs: RequiredNumber = None,
    single: RequiredNumber = None,
    output: Annotated[Path, option(metavar="DIR")],
    protocol: Annotated[str | None, option(choices=PROTOCOLS)] = None,
    dicom: bool = False,
    settings: Annotated[tuple[str, ...], settings_option(EXAMPLE)] = (),
    workers: Annotated[int | None, option(metavar="N")] = None,
    progress: Progress,
) -> None:
    """Write a cohort of digital patients. Rerun the command to resume.

    Args:
        pairs: Number of patients, two scans each.
        single: Number of patients, one scan each.
        output: Folder of the cohort.
        protocol: Scanning protocol (default: radiotherapy).
        dicom: Write each CT as a DICOM series too.
        workers: Number of processes (default: one per core).

    Raises:
        CTError: Settings are wrong.
        OutputError: The cohort cannot be written.
    """
    from ..phantom import CohortSettings, write_cohort

    progress.begin(["cohort"])
    patients, scans = (single or 0, 1) if pairs is None else (pairs, 2)
    cohort = replace(from_file(settings, None, CohortSettings()), scans=scans)
    cohort = replace(cohort, dicom=dicom or cohort.dicom, protocol=protocol or cohort.protocol)
    with progress.step("cohort"):
        table = write_cohort(patients, output, cohort, workers, progress.counted)
    progress.done(output)
    print(f"{table}: {patients} patients, {'one scan' if scans == 1 else 'two scans'} each")


add_arguments = command(run, ("cohort", "phantom")).declare
