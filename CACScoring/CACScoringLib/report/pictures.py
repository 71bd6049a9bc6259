"""Pictures of a result: scored slices with outlined lesions, and maximum-intensity overviews."""

from __future__ import annotations

import io
from collections.abc import Container, Sequence

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw
from scipy import ndimage

from ..core.ct import CTScan
from ..core.labels import TERRITORIES, Artery, NonCoronary, Site
from ..scoring.lesions import LesionSet
from ..scoring.sites import SITE_OF

WINDOW_HU = (-150.0, 450.0)
"""Darkest and brightest HU of the pictures: fat, muscle and the four density weights can be told apart."""

SITE_COLOURS: dict[Site, tuple[int, int, int]] = {
    Artery.LM: (255, 214, 0),
    Artery.LAD: (255, 82, 82),
    Artery.LCX: (64, 196, 255),
    Artery.RCA: (105, 240, 174),
    Artery.OTHER: (234, 128, 252),
    Artery.UNASSIGNED: (255, 145, 0),
    NonCoronary.AORTIC_VALVE: (244, 143, 177),
    NonCoronary.MITRAL_ANNULUS: (149, 117, 205),
    NonCoronary.THORACIC_AORTA: (38, 166, 154),
    NonCoronary.OTHER: (161, 136, 127),
}
HEART_COLOUR = (120, 144, 156)
TERRITORY_SITES = {n: SITE_OF[name] for n, name in enumerate(TERRITORIES) if SITE_OF[name] != NonCoronary.OTHER}
"""The territories that are outlined, by label, and the sites whose colours they have."""
TERRITORY_OPACITY = 0.4
SALIENCY_COLOUR = (255, 145, 0)
SALIENCY_OPACITY = 0.75
"""Where the saliency is highest."""
SALIENCY_SPOT_MM = 4.0
"""What sways the answer is drawn so wide at least: a single voxel would not be seen."""

Box = tuple[slice, slice, slice]
"""Part of an array [k, j, i]."""

_MARGIN_MM = 15.0
_WIDTH_PIXELS = 440
_JPEG_QUALITY = 85


def slice_picture(
    scan: CTScan,
    heart: sitk.Image,
    lesions: LesionSet,
    slice_index: int,
    numbered: Container[int] | None = None,
    territories: sitk.Image | None = None,
    box: Box | None = None,
) -> bytes:
    """JPEG of one axial slice around the heart: lesions outlined in their site's colour and numbered.

    heart: mask on the scan's grid. numbered: ids of the lesions whose number is written; None for all. territories:
    labels (`TERRITORIES`) on the scan's grid, outlined faintly. box: `box_around` them, where it is known already.
    """
    box = box or box_around(heart, scan, lesions)
    area = (slice_index, *box[1:])
    picture, zoom = _enlarged(scan.hu[area], scan.image.GetSpacing()[:2])
    _outline(picture, sitk.GetArrayViewFromImage(heart)[area] != 0, HEART_COLOUR)
    if territories is not None:
        labels = sitk.GetArrayViewFromImage(territories)[area]
        for label, site in TERRITORY_SITES.items():
            _outline(picture, labels == label, SITE_COLOURS[site], TERRITORY_OPACITY)
    ids = lesions.id_map[area]
    here = [lesion for lesion in lesions.lesions if slice_index in lesion.slice_indices]
    for site, colour in SITE_COLOURS.items():
        own = [lesion.id for lesion in here if lesion.artery == site]
        if own:
            _outline(picture, np.isin(ids, own), colour)
    draw = ImageDraw.Draw(picture)
    for lesion in here:
        if numbered is not None and lesion.id not in numbered:
            continue
        rows, columns = np.nonzero(ids == lesion.id)
        x, y = (columns.max() + 1.5) * zoom[0] + 3, (rows.mean() + 0.5) * zoom[1] - 8
        draw.text((x, y), str(lesion.id), fill=SITE_COLOURS[lesion.artery], font_size=15, stroke_width=1, stroke_fill=0)
    return _jpeg(picture)


def saliency_picture(
    scan: CTScan, heart: sitk.Image, lesions: LesionSet, saliency: sitk.Image
) -> tuple[bytes, int] | None:
    """JPEG of the axial slice through the highest saliency, laid over in orange, and that slice's index.

    heart, saliency (0 or more): on the scan's grid. None where the saliency is 0 everywhere.
    """
    values = sitk.GetArrayViewFromImage(saliency)
    highest = float(values.max())
    if not highest > 0:
        return None
    k, j, i = (int(n) for n in np.unravel_index(int(values.argmax()), values.shape))
    rows, columns = box_around(heart, scan, lesions)[1:]
    # What sways the answer most is to be seen wherever it lies.
    box = (slice(min(rows.start, j), max(rows.stop, j + 1)), slice(min(columns.start, i), max(columns.stop, i + 1)))
    area = (k, *box)
    spacing = scan.image.GetSpacing()[:2]
    picture, _ = _enlarged(scan.hu[area], spacing)
    spread = [max(1, round(SALIENCY_SPOT_MM / mm)) for mm in spacing[::-1]]
    shown = ndimage.maximum_filter(values[area], spread) * (SALIENCY_OPACITY * 255 / highest)
    opacity = Image.fromarray(np.rint(shown).astype(np.uint8))
    picture.paste(SALIENCY_COLOUR, mask=opacity.resize(picture.size, Image.Resampling.BICUBIC))
    _outline(picture, sitk.GetArrayViewFromImage(heart)[area] != 0, HEART_COLOUR)
    return _jpeg(picture), k


def patch_picture(
    scan: CTScan,
    middle: tuple[float, float, float],
    outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    width_mm: float,
) -> bytes:
    """JPEG of a square part of one axial slice, with shapes outlined.

    middle: index k, j, i of what the square is around. outlines: masks [k, j, i] on the scan's grid with their colours;
    later ones lie above earlier ones. width_mm: of the square, which ends where the scan does.
    """
    k, *place = (round(at) for at in middle)
    spacing = scan.image.GetSpacing()[:2]
    halves = [max(1, round(width_mm / 2 / mm)) for mm in spacing[::-1]]
    ends = zip(place, halves, scan.hu.shape[1:], strict=True)
    area = (k, *(slice(max(0, at - half), min(size, at + half + 1)) for at, half, size in ends))
    picture, _ = _enlarged(scan.hu[area], spacing)
    for mask, colour in outlines:
        _outline(picture, mask[area], colour)
    return _jpeg(picture)


def overview_picture(scan: CTScan, heart: sitk.Image, lesions: LesionSet, axis: int, box: Box | None = None) -> bytes:
    """JPEG of the highest HU inside the heart region along an array axis: 0 from the feet, 1 from the front.

    Only voxels of the heart mask and the lesions enter, so that sternum and spine do not hide the heart. box: as in
    `slice_picture`.
    """
    box = box or box_around(heart, scan, lesions)
    ids = lesions.id_map[box]
    inside = (sitk.GetArrayViewFromImage(heart)[box] != 0) | (ids != 0)
    highest = np.where(inside, scan.hu[box], WINDOW_HU[0]).max(axis=axis)
    arteries = LesionSet(lesions.lesions, ids).artery_map()
    spacing = scan.image.GetSpacing()
    spacing = (spacing[0], spacing[1] if axis == 0 else spacing[2])
    flip = axis == 1  # slices are stored from the feet up, pictures are drawn from the top down
    picture, _ = _enlarged(highest[::-1] if flip else highest, spacing)
    for artery, colour in SITE_COLOURS.items():
        shape = (arteries == artery).any(axis=axis)
        if shape.any():
            _outline(picture, shape[::-1] if flip else shape, colour)
    return _jpeg(picture)


def box_around(heart: sitk.Image, scan: CTScan, lesions: LesionSet) -> Box:
    """What pictures show: the heart and the lesions, with a margin to the sides."""
    shape = (sitk.GetArrayViewFromImage(heart) != 0) | (lesions.id_map != 0)
    margin = [int(np.ceil(_MARGIN_MM / s)) for s in scan.image.GetSpacing()[::-1]]
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(shape.any(axis=others))
        pad = margin[axis] if axis else 0
        box.append(slice(max(0, filled[0] - pad), filled[-1] + 1 + pad))
    return tuple(box)


def _enlarged(hu: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[Image.Image, tuple[float, float]]:
    """A grey slice as an RGB picture of fixed width with square pixels, and the zoom per column and row."""
    low, high = WINDOW_HU
    grey = np.clip((hu - low) / (high - low), 0, 1) * 255
    rows, columns = hu.shape
    height = max(1, round(_WIDTH_PIXELS * rows * spacing_mm[1] / (columns * spacing_mm[0])))
    picture = Image.fromarray(grey.astype(np.uint8)).resize((_WIDTH_PIXELS, height), Image.Resampling.BICUBIC)
    return picture.convert("RGB"), (_WIDTH_PIXELS / columns, height / rows)


def _outline(picture: Image.Image, shape: np.ndarray, colour: tuple[int, int, int], opacity: float = 1.0) -> None:
    """Draw a line just outside a shape, so that what it encloses stays visible; a faint one is thinner."""
    large = Image.fromarray(shape.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.NEAREST)
    inside = np.asarray(large) > 0
    ring = ndimage.binary_dilation(inside, iterations=2 if opacity == 1 else 1) & ~inside
    picture.paste(colour, mask=Image.fromarray(ring.astype(np.uint8) * round(255 * opacity)))


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
