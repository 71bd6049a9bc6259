"""The command `info`: contents of a folder or file, and which series would be scored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import NotVolumeError, OutputError
from ..core.options import argument, option
from ..core.progress import Progress
from ..core.text import printable
from .options import Command

if TYPE_CHECKING:
    from ..io.series_rule import SeriesFacts


@dataclass(frozen=True)
class InfoOptions:
    """List the CT series, cardiac phases and image files of a folder, and which of them cac score would score, and why.

    Only headers are read.

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA.
        json: Print JSON (schema cac-info/1) for programs.
        table: Also write a new table of all series and phases for cac cohort, which scores them beside each other.
    """

    ct: Path = argument(metavar="CT")
    json: bool = False
    table: Path | None = option(None, metavar="FILE.csv")


def run(options: InfoOptions, progress: Progress) -> None:
    """Print the contents. Raises CTError, OutputError."""
    from ..io.contents import contents_of

    contents = contents_of(options.ct)
    if options.table is not None:
        _write_table(options.table, options.ct, contents.series)
    if options.json:
        print(json.dumps(contents.as_dict(), indent=1, ensure_ascii=False))
        return
    for series in contents.series:
        mark = "*" if series.label == contents.scored else " "
        print(f"{mark} series {series}{f': {series.fault}' if series.fault else ''}")
    for image in contents.images:
        size, spacing = "×".join(map(str, image.size)), " × ".join(f"{step:g}" for step in image.spacing_mm)
        print(f"{'*' if image.name == contents.scored else ' '} file {image.name} ({size} voxels of {spacing} mm)")
    unconsidered = {"localizer": contents.localizers} | contents.other_images | {"unreadable": contents.unread_files}
    if listed := ", ".join(f"{count} {name}" for name, count in unconsidered.items() if count):
        print(f"  not considered: {listed}")
    scored = f"Scored (*): {contents.scored}." if contents.scored else "Nothing would be scored."
    print(printable(f"{scored} {contents.reason}", message=True))


def _write_table(path: Path, ct: Path, series: Iterable[SeriesFacts]) -> None:
    """Write the series that make a stack as scans of a cohort. Raises CTError, OutputError."""
    from ..scans.source import ScanSource
    from ..scans.table import write_scans

    if path.exists():
        raise OutputError(f"{path} exists. Give --table a new file.")
    scans = [ScanSource(facts.name, "", ct, facts.label) for facts in series if not facts.fault]
    if not scans:
        raise NotVolumeError(f"{ct} holds no DICOM series that can be scored, so there is no table to write.")
    write_scans(path, scans)


add_arguments = Command(InfoOptions, run, interrupted="Interrupted.").declare
