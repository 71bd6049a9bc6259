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
    if options.workers is not None and options.workers < 1:
        raise OutputError(f"At least one worker is needed, not {options.workers}.")
    from ..radiograph.cases import FAILURES

    progress.begin(["radiographs"])
    with progress.step("radiographs"):
        table, failed = _make(options, progress)
    for name, reason in failed.items():
        progress.warning(ScanWarning("radiograph-failed", f"{name}: {reason}"))
    progress.done(options.output)
    source = "CTs" if options.source == "scans" else f"{options.patients} digital patients"
    print(f"{table}: radiographs of {source}" + (f", {len(failed)} failed, see {FAILURES}" if failed else ""))


def _make(options: RadiographsOptions, progress: Progress) -> tuple[Path, dict[str, str]]:
    """Make the radiographs; return their table, and failures with reasons by name."""
    from ..radiograph.cases import ScanRadiographSettings
    from ..radiograph.cohort import RadiographCohortSettings, write_radiographs, write_scan_radiographs

    if options.source == "scans":
        assert options.input is not None
        projection = from_file(options.settings, None, ScanRadiographSettings())
        return write_scan_radiographs(options.input, options.output, options.workers, progress, settings=projection)
    assert options.patients is not None
    settings = replace(from_file(options.settings, None, RadiographCohortSettings()), patients=options.patients)
    return write_radiographs(options.output, settings, options.workers, progress.counted)


add_arguments = Command(RadiographsOptions, _run, ("studies",)).declare
