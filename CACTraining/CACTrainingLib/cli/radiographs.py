"""`cac radiographs`: compute training radiographs of digital patients or of CTs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from CACScoringLib.cli.options import Command, from_file, settings_option
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress


@dataclass(frozen=True, kw_only=True)
class RadiographsOptions:
    """Compute radiographs. Rerun the command to resume.

    Source digital: of digital patients with known calcium (--patients N): four in ten have none, others little to much;
    scans: of your own CTs: those of a project, of a table (columns ct, patient; where known name, series, heart,
    calcium_map, age_years, sex, bmi_kg_m2 and scores), or those that cac cohort has scored into a folder.

    Attributes:
        input: Table or folder of scans.
        output: Folder of the radiographs.
        patients: Number of digital patients.
        workers: Number of processes (default: one per core).
    """

    source: str = argument(text="digital, scans", choices=("digital", "scans"), metavar="SOURCE")
    input: Path | None = argument(None, metavar="TABLE|DIR")
    output: Path = option(metavar="DIR")
    patients: int | None = option(None, metavar="N")
    settings: tuple[str, ...] = settings_option('{"first_number": 100, "super_resolution": "NAME"}')
    workers: int | None = option(None, metavar="N")


def _run(options: RadiographsOptions, progress: Progress) -> None:
    needed = {"digital": ("output", "patients"), "scans": ("input", "output")}
    missing = [name for name in needed[options.source] if getattr(options, name) is None]
    if missing or (options.source == "digital" and options.input is not None):
        takes = " and ".join(name.upper() if name == "input" else f"--{name}" for name in needed[options.source])
        raise OutputError(f"cac radiographs {options.source} takes {takes} (see cac radiographs --help).")
    if options.source == "scans" and options.settings:
        raise OutputError("cac radiographs scans has no --settings: super-resolution is of digital patients alone.")
    if options.workers is not None and options.workers < 1:
        raise OutputError(f"At least one worker is needed, not {options.workers}.")
    progress.begin(["radiographs"])
    with progress.step("radiographs"):
        text, failed = {"digital": _digital, "scans": _scans}[options.source](options, progress)
    for name, reason in failed.items():
        progress.warning(ScanWarning("radiograph-failed", f"{name}: {reason}"))
    progress.done(options.output)
    print(text)


def _digital(options: RadiographsOptions, progress: Progress) -> tuple[str, dict[str, str]]:
    from ..radiograph.cases import FAILURES
    from ..radiograph.cohort import RadiographCohortSettings, write_radiographs

    assert options.patients is not None
    settings = replace(from_file(options.settings, None, RadiographCohortSettings()), patients=options.patients)
    table, failed = write_radiographs(options.output, settings, options.workers, progress.counted)
    count = f", {len(failed)} failed, see {FAILURES}" if failed else ""
    return f"{table}: radiographs of {options.patients} digital patients{count}", failed


def _scans(options: RadiographsOptions, progress: Progress) -> tuple[str, dict[str, str]]:
    from ..radiograph.cases import FAILURES
    from ..radiograph.cohort import write_scan_radiographs

    assert options.input is not None
    table, failed = write_scan_radiographs(options.input, options.output, options.workers, progress)
    count = f", {len(failed)} failed, see {FAILURES}" if failed else ""
    return f"{table}: radiographs of CTs{count}", failed


add_arguments = Command(RadiographsOptions, _run, ("studies",)).declare
