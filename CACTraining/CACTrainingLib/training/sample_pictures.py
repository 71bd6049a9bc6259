"""Draw a few fixed slices with their calcium map and healthy image, after every validation of a training."""

from __future__ import annotations

import numpy as np
from torch import nn

from CACScoringLib.core.labels import WINDOW_HU
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import LOW_HU, MAP_HU, SLICE_SIZE
from CACScoringLib.networks.configs import GeneratorConfig

from ..data.datasets import SliceDataset
from .decomposition_metrics import SliceSample

WITH_CALCIUM = 4
SHOWN_HU = 400.0
"""HU of the map's brightest colour."""

_SIDE = 160
_LEFT_MARGIN, _TOP_MARGIN, _GAP = 92, 24, 4
_COLOURS = np.array([(0, 0, 0), (120, 0, 80), (235, 60, 20), (255, 200, 40), (255, 255, 255)], np.float32)


def slices_to_picture(data: SliceDataset, sample: SliceSample) -> np.ndarray:
    """Return the slices to draw, int [n]: up to WITH_CALCIUM evenly spaced visible ones, and one without calcium."""
    positions = np.linspace(0, len(sample.visible) - 1, min(WITH_CALCIUM, len(sample.visible)))
    clean = np.concatenate([sample.distractor, sample.clean, np.nonzero(~data.visible)[0]])[:1]
    return np.concatenate([sample.visible[positions.round().astype(int)], clean])


def decomposition_picture(
    network: nn.Module, config: GeneratorConfig, data: SliceDataset, slices: np.ndarray
) -> np.ndarray:
    """Draw a column for each slice, with CT, calcium map and healthy image: uint8 [row, column, 3].

    The map is not limited to the heart.
    """
    from PIL import Image, ImageDraw

    x = data.network_input(slices, config.neighbours, config.position)
    maps = predict(network, x, 8)[0][:, 0] * np.float32(MAP_HU)
    ct = x[:, 0] * np.float32(MAP_HU) + np.float32(LOW_HU)
    size = (_LEFT_MARGIN + len(slices) * (_SIDE + _GAP), _TOP_MARGIN + 3 * (_SIDE + _GAP))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    rows = (("CT", _grey(ct)), ("Calcium map", _coloured(maps)), ("Healthy", _grey(ct - maps)))
    cut = slice((SLICE_SIZE - _SIDE) // 2, (SLICE_SIZE + _SIDE) // 2)
    for row, (title, images) in enumerate(rows):
        top = _TOP_MARGIN + row * (_SIDE + _GAP)
        draw.text((6, top + _SIDE // 2 - 8), title, fill="black", font_size=14)
        if row == 1:
            draw.text((6, top + _SIDE // 2 + 10), f"0 to {SHOWN_HU:.0f} HU", fill="black", font_size=12)
        for column, image in enumerate(images):
            picture.paste(Image.fromarray(image[cut, cut]), (_LEFT_MARGIN + column * (_SIDE + _GAP), top))
    for column, number in enumerate(slices):
        title = "coronary calcium" if data.visible[number] else "no coronary calcium"
        draw.text((_LEFT_MARGIN + column * (_SIDE + _GAP) + 4, 4), title, fill="black", font_size=14)
    return np.asarray(picture)


def _grey(hu: np.ndarray) -> np.ndarray:
    """Window HU to grey, uint8 [n, j, i, 3]."""
    low, high = WINDOW_HU
    # 64 shades only, because noise in more shades makes large files.
    grey = (np.clip((hu - low) / (high - low), 0, 1) * 63).round().astype(np.uint8) * 4
    return np.repeat(grey[..., None], 3, axis=-1)


def _coloured(maps: np.ndarray) -> np.ndarray:
    """Colour maps from black over red and yellow to white, uint8 [n, j, i, 3]."""
    positions = np.clip(maps / SHOWN_HU, 0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(positions, stops, _COLOURS[:, c]) for c in range(3)], -1).astype(np.uint8)
