"""The command `push`: DICOM files into a DICOM archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.progress import Progress
from .archive_options import access, add_archive_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Store DICOM files in an archive: a result of cac score, or a study. Objects that the archive has are not sent "
        "again; afterwards their arrival is verified."
    )
    add_archive_arguments(parser)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE|FOLDER", help="DICOM files or folders")
    parser.set_defaults(
        run=run,
        extras=lambda options: ("archive",),
        interrupted="Interrupted. Rerun the command to send the rest.",
    )


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Send what the archive lacks. Raises ArchiveError, CTError, OutputError."""
    from ..archive.connection import connect
    from ..archive.files import dicom_files
    from ..archive.transfer import push_all

    archive = connect(options.archive, access(options))
    files = dicom_files(options.files)
    sent = push_all(archive, files, progress)
    print(f"{sent} objects sent, {len(files) - sent} in the archive before")
