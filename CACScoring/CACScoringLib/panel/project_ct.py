"""Makes a radiograph of a CT in the background, or frees it from its table.

Run as: python -m CACScoringLib.panel.project_ct body|radiograph FOLDER. Reports as `cac score --progress json` does.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """arguments: what to do, and the folder of the job, see `drr.job`. Returns the exit code."""
    from ..core.ct import CTError
    from ..core.progress import JsonProgress
    from ..drr.job import find_body, make_radiograph

    progress = JsonProgress(sys.stderr)
    task, folder = arguments
    try:
        {"body": find_body, "radiograph": make_radiograph}[task](Path(folder), progress)
    except CTError as error:
        progress.failed(str(error), 3)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
