"""Jobs of the panel that run in a background process and are no commands of `cac`.

Run as: python -m CACScoringLib.panel.background JOB ARGUMENTS. Reports progress as `cac score --progress json` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
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


def open_case(progress: JsonProgress, folder: str, ct: str, target: str) -> None:
    """Read the series of a CT that was scored, and write it as `open_ct` does. folder: Folder of its result."""
    import SimpleITK as sitk

    from ..readings.cases import ReviewCase

    case = ReviewCase(id="", name=Path(folder).name, patient="", folder=Path(folder), ct=Path(ct))
    sitk.WriteImage(case.scan().image, target)
    progress.done(Path(target))


MODULES = {"export_dicom": "review.dicom_job", "make_radiograph": "drr.job", "find_body": "drr.job"}
"""Modules of the jobs that take their folder alone, by job."""

OPENING: dict[str, Callable[..., None]] = {"open_ct": open_ct, "open_case": open_case}


def main(arguments: list[str]) -> int:
    """Run a job and return the exit code. arguments: the job's name, then its own arguments."""
    from ..core.ct import CTError
    from ..core.files import OutputError
    from ..core.progress import JsonProgress

    progress = JsonProgress(sys.stderr)
    job, *words = arguments
    try:
        if job in OPENING:
            OPENING[job](progress, *words)
        else:
            getattr(import_module(f"CACScoringLib.{MODULES[job]}"), job)(Path(words[0]), progress)
    except (CTError, OutputError) as error:
        progress.failed(str(error), 3)
    except OSError as error:
        progress.failed(f"The result cannot be written ({error.strerror}). Choose another folder.", 3)
    else:
        return 0
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
