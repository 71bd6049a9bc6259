"""The command `info`: contents of a folder or file, and which series would be scored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..core.options import argument
from ..core.progress import Progress
from ..core.text import printable
from .options import Command


@dataclass(frozen=True)
class InfoOptions:
    """List the CT series, cardiac phases and image files of a folder, and which of them cac score would score, and why.

    Only headers are read.

    Attributes:
        ct: DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA.
        json: Print JSON (schema cac-info/1) for programs.
    """

    ct: Path = argument(metavar="CT")
    json: bool = False


def run(options: InfoOptions, progress: Progress) -> None:
    """Print the contents. Raises CTError."""
    from ..io.contents import contents_of

    contents = contents_of(options.ct)
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


add_arguments = Command(InfoOptions, run, interrupted="Interrupted.").declare
