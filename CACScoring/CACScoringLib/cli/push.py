"""The command `push`: DICOM files into a DICOM archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.options import argument
from ..core.progress import Progress
from .options import ArchiveOptions, Command


@dataclass(frozen=True, kw_only=True)
class PushOptions(ArchiveOptions):
    """Store DICOM files in an archive: a result of cac score, or a study.

    Objects that the archive has are not sent again; afterwards their arrival is verified.

    Attributes:
        files: DICOM files or folders.
    """

    files: tuple[Path, ...] = argument(metavar="FILE|FOLDER")


def run(options: PushOptions, progress: Progress) -> None:
    """Send what the archive lacks. Raises ArchiveError, CTError, OutputError."""
    from ..archive.transfer import connect, dicom_files, push_all

    archive = connect(options.archive, options.access())
    files = dicom_files(options.files)
    sent = push_all(archive, files, progress)
    print(f"{sent} objects sent, {len(files) - sent} in the archive before")


add_arguments = Command(PushOptions, run, ("archive",), "Interrupted. Rerun the command to send the rest.").declare
