"""Write how well the bundled network's outline of the heart agrees with outlines drawn by hand.

    python Testing/Benchmarks/heart_outlines.py SCANS CSV

SCANS is a folder with the scans that heart_outlines.json names. An engineer outlined the pericardium there in every
third to fourth slice: polygons of (column, row), and how many pixels smaller it is in the first and last slice. Between
these slices the shape is interpolated, and lung is taken out. No network has learned from the outlines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from by_scanner import origin, write_rows
from PIL import Image, ImageDraw
from scipy import ndimage

from CACScoringLib.anatomy.territories import find_territories
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.models.choice import ModelChoice, chosen_models, load_models
from CACScoringLib.statistics.masks import dice

OUTLINES = Path(__file__).with_suffix(".json")
LUNG_HU, LUNG_SIGMA = -300, 0.7
"""Value below which a voxel is lung, after smoothing by LUNG_SIGMA pixels."""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    networks = load_models(chosen_models(ModelChoice())).networks
    settings = f"{networks.territories.card.name} {networks.territories.card.sha256[:8]}; pericardium outlined by an "
    settings += "engineer in every third to fourth slice"
    about = origin("Testing/Benchmarks/heart_outlines.py SCANS CSV", settings, "none")
    rows = []
    for name, outline in json.loads(OUTLINES.read_text(encoding="utf-8")).items():
        scan = scan_from_image(sitk.ReadImage(str(arguments.scans / name)), Acquisition("NIfTI"))
        heart = find_territories(scan, networks.territories).heart_mask(scan.hu.shape)
        agreement = f"{dice(heart, outlined(scan.hu, outline)):.3f}".removeprefix("0")
        rows.append({"scan": outline["title"], "Dice": agreement, **about})
    write_rows(arguments.output, rows)


def outlined(hu: np.ndarray, outline: dict[str, Any]) -> np.ndarray:
    """Return the heart in a scan [k, j, i] from its outline in some slices, bool."""
    depths = {int(k): _depth(polygon, hu.shape[1:]) for k, polygon in outline["slices"].items()}
    first, last = min(depths), max(depths)
    for nearest, (end, smaller) in zip((first, last), outline["ends"], strict=True):
        depths[end] = depths[nearest] - smaller
    drawn = np.array(sorted(depths))
    heart = np.zeros(hu.shape, bool)
    for k in range(drawn[0], drawn[-1] + 1):
        below, above = drawn[drawn <= k][-1], drawn[drawn >= k][0]
        share = (k - below) / max(1, above - below)
        heart[k] = (1 - share) * depths[below] + share * depths[above] > 0
    return heart & (ndimage.gaussian_filter(hu.astype(np.float32), LUNG_SIGMA) > LUNG_HU)


def _depth(polygon: list[list[int]], shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance to a polygon's border in pixels, positive inside."""
    canvas = Image.new("1", shape[::-1])
    ImageDraw.Draw(canvas).polygon([(column, row) for column, row in polygon], fill=1, outline=1)
    inside = np.asarray(canvas)
    return ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)


if __name__ == "__main__":
    main()
