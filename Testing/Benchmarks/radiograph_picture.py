"""Draws docs/pictures/radiograph.jpg: a digital patient's radiographs, its calcium laid over them.

Run from the repository's root:

    ./cac sample vessels FOLDER
    PYTHONPATH=CACScoring .venv/bin/python Testing/Benchmarks/radiograph_picture.py FOLDER PICTURE.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.drr.projection import body_only, calcium_path, radiograph, view_named

PIXELS = 480
CALCIUM = np.array([255.0, 90.0, 0.0])
"""Red, green, blue."""


def main(folder: Path, picture: Path) -> None:
    ct, calcium = (sitk.ReadImage(folder / f"{name}.nii.gz") for name in ("ct", "calcium_map"))
    body, panels = body_only(ct), []
    for view in ("PA", "lateral"):
        geometry = view_named(view, pixels=(PIXELS, PIXELS))
        grey = radiograph(body, geometry).grey
        path = calcium_path(calcium, geometry)
        # The faint streaks that motion makes of calcium are left out.
        panels.append(coloured(grey, np.clip(path / np.percentile(path[path > 1e-3], 90) - 0.2, 0, 1)))
    Image.fromarray(np.concatenate(panels, 1)).save(picture, quality=85)


def coloured(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Grey 0 to 1 with calcium laid over it by its share, bytes [row, column, 3]."""
    plain = np.repeat(255 * grey[..., None], 3, -1)
    return (plain + 0.9 * share[..., None] * (CALCIUM - plain)).astype(np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
