"""Makes the DICOM objects of a review in the background.

Run as: python -m CACScoringLib.panel.export_dicom FOLDER, that of the job. Reports as `cac score --progress json` does.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """arguments: the folder of the job, see `review.dicom_job`. Returns the exit code."""
    from ..core.ct import CTError
    from ..core.output import OutputError
    from ..core.progress import JsonProgress
    from ..review.dicom_job import carry_out

    progress = JsonProgress(sys.stderr)
    try:
        carry_out(Path(arguments[0]), progress)
    except (CTError, OutputError) as error:
        progress.failed(str(error), 3)
        return 3
    except OSError as error:
        progress.failed(f"The DICOM objects cannot be written ({error.strerror}). Choose another folder.", 3)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
