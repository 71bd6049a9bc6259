"""Jobs of the panel that run in a background process and are no commands of `cac`.

Run as: python -m CACScoringLib.panel.background JOB ARGUMENTS. Reports progress as `cac score --progress json` does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.progress import JsonProgress


def open_ct(progress: JsonProgress, ct: str, target: str, series: str | None = None) -> None:
    """Read a CT and write it to a file that the panel loads fast. series: UID, where a folder holds several series."""
    import SimpleITK as sitk

    from ..io.reading import read_ct

    sitk.WriteImage(read_ct(Path(ct), series).image, target)
    progress.done(Path(target))


def export_dicom(progress: JsonProgress, folder: str) -> None:
    """Make the DICOM objects of a review. folder: the job's, see `review.dicom_job`."""
    from ..review.dicom_job import carry_out

    carry_out(Path(folder), progress)


def make_radiograph(progress: JsonProgress, folder: str) -> None:
    """Make a radiograph of a CT. folder: the job's, see `drr.job`."""
    from ..drr import job

    job.make_radiograph(Path(folder), progress)


def find_body(progress: JsonProgress, folder: str) -> None:
    """Remove the table from a CT. folder: the job's, see `drr.job`."""
    from ..drr import job

    job.find_body(Path(folder), progress)


JOBS = {job.__name__: job for job in (open_ct, export_dicom, make_radiograph, find_body)}


def main(arguments: list[str]) -> int:
    """Run a job and return the exit code. arguments: the job's name, then its own arguments."""
    from ..core.ct import CTError
    from ..core.files import OutputError
    from ..core.progress import JsonProgress

    progress = JsonProgress(sys.stderr)
    try:
        JOBS[arguments[0]](progress, *arguments[1:])
    except (CTError, OutputError) as error:
        progress.failed(str(error), 3)
    except OSError as error:
        progress.failed(f"The result cannot be written ({error.strerror}). Choose another folder.", 3)
    else:
        return 0
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
