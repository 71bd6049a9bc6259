"""Reads a CT in the background and writes it where the panel can load it fast.

Run as: python -m CACScoringLib.panel.open_ct CT TARGET.nrrd [SERIES]. Reports as `cac score --progress json` does.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """arguments: CT, target file, and the series where a folder holds several. Returns the exit code."""
    import SimpleITK as sitk

    from ..core.ct import CTError
    from ..core.progress import JsonProgress
    from ..io.reading import read_ct

    progress = JsonProgress(sys.stderr)
    ct, target, *series = arguments
    try:
        scan = read_ct(Path(ct), series[0] if series else None)
    except CTError as error:
        progress.failed(str(error), 3)
        return 3
    sitk.WriteImage(scan.image, target)
    progress.done(Path(target))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
