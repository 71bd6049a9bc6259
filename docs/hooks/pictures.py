"""Puts pictures that the walks through the panels took (CAC_SCREENSHOTS) into the documentation: pictures.py FOLDER."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
MAX_BYTES = 300_000
MAX_WIDTH = 1500
MIN_EMPTY = 8
PICTURES = {  # what stands side by side
    "Resources/Screenshots/panel.png": ["panel-07-reviewing"],
    "docs/pictures/panel.png": ["panel-07-reviewing"],
    "docs/pictures/views.jpg": ["views-08-faded-3d"],
    "docs/pictures/annotate.jpg": ["panel-32-slices", "views-32-slices"],
    "docs/pictures/training.jpg": ["panel-38-trained", "views-38-trained"],
}


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures beside each other, as high as the first."""
    height = pictures[0].height
    pictures = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    joined = Image.new("RGB", (sum(picture.width for picture in pictures), height))
    left = 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width
    joined.thumbnail((MAX_WIDTH, height))
    return joined


def without_empty_rows(picture: Image.Image) -> Image.Image:
    """A picture without the rows, all but MIN_EMPTY, that a panel leaves empty below what it holds."""
    pixels = np.asarray(picture)
    equal = np.append(False, (pixels[1:] == pixels[:-1]).all((1, 2)))
    ends = np.flatnonzero(np.diff(np.append(equal, False)))  # of runs of equal rows and of others, in turn
    start, stop = max(zip(ends[::2] + 1, ends[1::2] + 1, strict=True), key=lambda run: run[1] - run[0])
    return Image.fromarray(np.delete(pixels, slice(start, max(start, stop - MIN_EMPTY)), axis=0))


def main(folder: Path) -> None:
    for name, parts in PICTURES.items():
        joined = side_by_side([Image.open(folder / f"{part}.png").convert("RGB") for part in parts])
        if name.endswith(".png"):
            joined = without_empty_rows(joined)
            joined.quantize(256).save(ROOT / name, optimize=True)
        else:
            joined.save(ROOT / name, quality=85, optimize=True)
        size = (ROOT / name).stat().st_size
        if size > MAX_BYTES:
            sys.exit(f"{name} has {size} bytes, more than {MAX_BYTES}.")
        print(f"{name}: {joined.width} × {joined.height}, {size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
