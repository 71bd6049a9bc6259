"""What annotators would mark in a scan whose calcium is known: visible slices, arteries, and regions of a
1 cm brush.

Visible is a matter of contrast against noise, not of 130 HU: faint calcium in a quiet scan shows, dense calcium in
a loud one may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..anatomy.coronaries import LABELS
from ..scanner.response import add_stamp
from ..scanner.simulation import SMOOTHING_MM, KnownScan

VISIBLE_CONTRAST_TO_NOISE = 4.0
"""A detail is seen reliably when its contrast is several times the noise (Rose criterion, 3 to 5)."""
VISIBLE_HU = 12.0
ANATOMY_HU = 3.0
"""Spread of healthy tissue that hides calcium even without noise."""
LABEL_HU = 10.0
"""An artery's label covers voxels where it adds at least this."""
BRUSH_MM = 10.0
_STROKE_MM = 3.0


@dataclass(frozen=True)
class SliceLabel:
    """One slice: its index k, whether calcium is visible in it, contrast-to-noise ratio, highest calcium HU."""

    k: int
    visible: bool
    contrast_to_noise: float
    calcium_hu: float


@dataclass(frozen=True)
class Labels:
    """arteries: uint8 [k, j, i], 1 LM, 2 LAD, 3 LCX, 4 RCA where calcium adds LABEL_HU. regions: uint8, the same labels
    in rough regions around visible calcium. slices: one label per slice that holds heart."""

    arteries: np.ndarray
    regions: np.ndarray
    slices: tuple[SliceLabel, ...]


def annotate(scan: KnownScan, generator: np.random.Generator) -> Labels:
    """Labels of a scan. generator: the unsteadiness of the annotator's hand."""
    shape = scan.grid.shape
    per_mg = np.float32(1000.0 * scan.scanner.calcium_hu_per_mg_cm3)
    arteries, regions = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    slices = []
    for k in range(shape[0]):
        strongest = np.zeros(shape[1:], np.float32)
        total = np.zeros(shape[1:], np.float32)
        for artery, stamps in scan.arteries.items():
            own = np.zeros(shape[1:], np.float32)
            for stamp in stamps:
                if stamp.k == k:
                    add_stamp(own, stamp, float(per_mg))
            arteries[k][(own >= LABEL_HU) & (own > strongest)] = LABELS[artery]
            np.maximum(strongest, own, out=strongest)
            total += own
            if _visibility(own, scan, k).visible:
                _paint_regions(regions[k], own, LABELS[artery], scan.grid.spacing_mm[0], generator)
        if scan.heart[k].any():
            slices.append(_visibility(total, scan, k))
    return Labels(arteries, regions, tuple(slices))


def _visibility(calcium_hu: np.ndarray, scan: KnownScan, k: int) -> SliceLabel:
    peak = float(calcium_hu.max())
    if peak < VISIBLE_HU:
        return SliceLabel(k, False, 0.0, peak)
    j, i = np.nonzero(calcium_hu > 1.0)
    part = calcium_hu[max(0, j.min() - 5) : j.max() + 6, max(0, i.min() - 5) : i.max() + 6]
    smooth = float(ndimage.gaussian_filter(part, SMOOTHING_MM / scan.grid.spacing_mm[0]).max())
    noise = math.hypot(scan.noise_sd_hu[k] * scan.smoothed_noise_share, ANATOMY_HU)
    return SliceLabel(k, smooth / noise > VISIBLE_CONTRAST_TO_NOISE and smooth > VISIBLE_HU, smooth / noise, peak)


def _paint_regions(
    region: np.ndarray, calcium_hu: np.ndarray, label: int, pixel_mm: float, generator: np.random.Generator
) -> None:
    """Brush strokes over the visible calcium of one slice, in place."""
    j, i = np.nonzero(calcium_hu >= max(VISIBLE_HU, 0.25 * float(calcium_hu.max())))
    order = np.argsort(-calcium_hu[j, i], kind="stable")
    places = np.stack([j, i], axis=1)[order].astype(float)
    reach = math.ceil((BRUSH_MM / 2 + 2) / pixel_mm)
    while len(places):
        first = places[0]
        places = places[np.hypot(*(places - first).T) * pixel_mm > _STROKE_MM]
        centre = first + generator.normal(0, 0.6 / pixel_mm, 2)
        j0, i0 = max(0, int(first[0]) - reach), max(0, int(first[1]) - reach)
        part = region[j0 : int(first[0]) + reach + 1, i0 : int(first[1]) + reach + 1]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        near = np.hypot(rows + j0 - centre[0], columns + i0 - centre[1]) * pixel_mm <= BRUSH_MM / 2
        part[near] = label
