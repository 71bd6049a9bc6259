"""The command `info`: contents of a folder or file, and which series would be scored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..core.progress import Progress
from ..core.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "List the CT series, cardiac phases and image files of a folder, and which of them cac score would score, and "
        "why. Only headers are read."
    )
    parser.add_argument("ct", type=Path, metavar="CT", help="DICOM folder or ZIP archive of one, NIfTI, NRRD or MHA")
    parser.add_argument("--json", action="store_true", help="print JSON (schema cac-info/1) for programs")
    parser.set_defaults(run=run, interrupted="Interrupted.")


def run(options: argparse.Namespace, progress: Progress) -> None:
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
