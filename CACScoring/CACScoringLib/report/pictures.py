"""Pictures of a report with their captions: slices with outlined lesions, maximum-intensity overviews, saliency."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ..core.ct import CTScan
from ..core.grid import Box, bounding_box, grown
from ..core.labels import HEART_COLOUR, SITE_COLOURS, SITE_OF, TERRITORIES, WINDOW_HU, NonCoronary, Site
from ..core.voxels import voxels_of
from ..record.scores import Lesion, LesionSet, MethodScore, SliceComponent
from ..scoring.doubt import at_most_99_percent, left_out_candidates, lesion_name, listed_lesions, number_of, place_of

if TYPE_CHECKING:
    from ..results import ScoreResult
    from ..whole_scan.estimates import WholeScanEstimate

TERRITORY_SITES = {n: SITE_OF[name] for n, name in enumerate(TERRITORIES) if SITE_OF[name] != NonCoronary.OTHER}
"""Site whose colour outlines a territory, by the territory's label."""
TERRITORY_OPACITY = 0.4
SALIENCY_COLOUR = (255, 145, 0)
SALIENCY_OPACITY = 0.75
"""Opacity of the saliency at its maximum."""
SALIENCY_SPOT_MM = 4.0
"""Smallest width of a drawn spot of saliency, because a single voxel would not be seen."""

_MARGIN_MM = 15.0
_PATCH_MM = 100.0
"""Width of the slice around one lesion."""
_ARROW_GAP = 6
_WIDTH_PIXELS = 440
_JPEG_QUALITY = 85


def slice_picture(
    scan: CTScan,
    heart: np.ndarray,
    lesions: LesionSet,
    slice_index: int,
    numbers: Mapping[int, str] | None = None,
    territories: np.ndarray | None = None,
    box: Box | None = None,
    arrow_id: int | None = None,
) -> bytes:
    """Draw one axial slice around the heart as JPEG: lesions outlined in their site's colour and numbered.

    Args:
        scan: The CT.
        heart: Mask on the scan's grid, bool [k, j, i].
        lesions: Lesions to outline.
        slice_index: Slice, from the feet.
        numbers: Text drawn beside lesions, by ID; None for the numbers of all.
        territories: Labels (`TERRITORIES`) on the scan's grid, uint8 [k, j, i], outlined faintly.
        box: Part of the scan to draw; None for `box_around` heart and lesions.
        arrow_id: ID of the lesion that an arrow points to; None for no arrow.
    """
    box = box or box_around(heart, scan, lesions)
    area: tuple[int | slice, ...] = (slice_index, *box[1:])
    picture, zoom = enlarged(scan.hu[area], scan.image.GetSpacing()[:2])
    draw_outline(picture, heart[area], HEART_COLOUR)
    if territories is not None:
        labels = territories[area]
        for label, site in TERRITORY_SITES.items():
            draw_outline(picture, labels == label, SITE_COLOURS[site], TERRITORY_OPACITY)
    ids = lesions.id_map[area]
    slice_lesions = [lesion for lesion in lesions.lesions if slice_index in lesion.slices]
    for site, colour in SITE_COLOURS.items():
        site_ids = [lesion.id for lesion in slice_lesions if lesion.site == site]
        if site_ids:
            draw_outline(picture, np.isin(ids, site_ids), colour)
    draw = ImageDraw.Draw(picture)
    for lesion in slice_lesions:
        number = str(lesion.id) if numbers is None else numbers.get(lesion.id)
        if number is None:
            continue
        rows, columns = np.nonzero(ids == lesion.id)
        x, y = (columns.max() + 1.5) * zoom[0] + 3, (rows.mean() + 0.5) * zoom[1] - 8
        draw.text((x, y), number, fill=SITE_COLOURS[lesion.site], font_size=15, stroke_width=1, stroke_fill=0)
    if arrow_id is not None:
        rows, columns = np.nonzero(ids == arrow_id)
        _arrow(draw, (columns.min() * zoom[0], (rows.mean() + 0.5) * zoom[1]))
    return as_jpeg(picture)


def patch_picture(
    scan: CTScan,
    middle: tuple[float, float, float],
    outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    width_mm: float,
) -> bytes:
    """Draw a square part of one axial slice as JPEG, with shapes outlined.

    Args:
        scan: The CT.
        middle: Centre of the square, index k, j, i.
        outlines: Masks [k, j, i] on the scan's grid with their colours; later ones are drawn above earlier ones.
        width_mm: Width of the square, which is cropped to the scan.
    """
    k, *place = (round(at) for at in middle)
    spacing = scan.image.GetSpacing()[:2]
    halves = [max(1, round(width_mm / 2 / mm)) for mm in spacing[::-1]]
    ends = zip(place, halves, scan.hu.shape[1:], strict=True)
    area: tuple[int | slice, ...] = (
        k,
        *(slice(max(0, at - half), min(size, at + half + 1)) for at, half, size in ends),
    )
    picture, _ = enlarged(scan.hu[area], spacing)
    for mask, colour in outlines:
        draw_outline(picture, mask[area], colour)
    return as_jpeg(picture)


def box_around(heart: np.ndarray, scan: CTScan, lesions: LesionSet) -> Box:
    """Return the box of heart and lesions, with a margin to the sides."""
    places = np.unravel_index(lesions.voxels.flat, lesions.voxels.shape)
    box = []
    for axis, (inside, at) in enumerate(zip(bounding_box(heart), places, strict=True)):
        pad = int(np.ceil(_MARGIN_MM / scan.image.GetSpacing()[2 - axis])) if axis else 0
        first, last = at.min(initial=inside.start), at.max(initial=inside.stop - 1)
        box.append(slice(max(0, int(first) - pad), int(last) + 1 + pad))
    return tuple(box)


def enlarged(hu: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[Image.Image, tuple[float, float]]:
    """Return a grey slice as an RGB picture of fixed width with square pixels, and the zoom per column and row."""
    low, high = WINDOW_HU
    grey = np.clip((hu - low) / (high - low), 0, 1) * 255
    rows, columns = hu.shape
    height = max(1, round(_WIDTH_PIXELS * rows * spacing_mm[1] / (columns * spacing_mm[0])))
    picture = Image.fromarray(grey.astype(np.uint8)).resize((_WIDTH_PIXELS, height), Image.Resampling.BICUBIC)
    return picture.convert("RGB"), (_WIDTH_PIXELS / columns, height / rows)


def draw_outline(picture: Image.Image, shape: np.ndarray, colour: tuple[int, int, int], opacity: float = 1.0) -> None:
    """Draw a line just outside a shape, so that its inside stays visible; a faint line is thinner."""
    width = 2 if opacity == 1 else 1
    if not shape.any():
        return
    large = Image.fromarray(shape.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.NEAREST)
    if (extent := large.getbbox()) is None:
        return
    x_min, y_min, x_max, y_max = extent
    x_min, y_min = max(0, x_min - width), max(0, y_min - width)
    box = x_min, y_min, min(picture.width, x_max + width), min(picture.height, y_max + width)
    inside = np.asarray(large.crop(box)) > 0
    ring = grown(inside, width, (0, 1)) & ~inside
    picture.paste(colour, box, Image.fromarray(ring.astype(np.uint8) * round(255 * opacity)))


def _arrow(draw: ImageDraw.ImageDraw, tip: tuple[float, float]) -> None:
    """Draw an arrow from the left whose tip is beside a point."""
    x, y = tip[0] - _ARROW_GAP, tip[1]
    shaft, head = [(x - 40, y), (x - 8, y)], [(x, y), (x - 14, y - 8), (x - 14, y + 8)]
    for colour, width in (("black", 7), ("white", 3)):
        draw.line(shaft, colour, width)
        draw.polygon(head, "white", "black")


def as_jpeg(picture: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


MAX_DRAWN = 10
"""Slices drawn, those with the highest sums first; a picture of a noisy slice takes 0.1 MB."""

MAX_NAMED = 6
"""Lesions of a slice that its caption names."""


@dataclass(frozen=True)
class Picture:
    """A JPEG file and its caption. wide: True to show it in twice the width."""

    jpeg: bytes
    caption: str
    wide: bool = False


def plane_pictures(result: ScoreResult) -> list[Picture]:
    """Draw axial, coronal and sagittal slices through the middle of the heart, with its outline and surroundings."""
    scan, heart = result.scan, result.region.mask
    spacing = scan.image.GetSpacing()[::-1]
    sides = bounding_box(heart)
    pads = [int(np.ceil(_MARGIN_MM / mm)) for mm in spacing]
    box = [slice(max(0, side.start - pad), side.stop + pad) for side, pad in zip(sides, pads, strict=True)]
    planes = ("Axial, slice {}", "Coronal, seen from the front", "Sagittal, the front on the left")
    drawn = []
    for axis, caption in enumerate(planes):
        middle = (sides[axis].start + sides[axis].stop) // 2
        area = (*box[:axis], middle, *box[axis + 1 :])
        rows = slice(None, None, -1 if axis else 1)  # slices are stored from the feet up
        row_mm, column_mm = (mm for n, mm in enumerate(spacing) if n != axis)
        picture, _ = enlarged(scan.hu[area][rows], (column_mm, row_mm))
        draw_outline(picture, heart[area][rows], HEART_COLOUR)
        drawn.append(Picture(as_jpeg(picture), f"Middle of the heart. {caption.format(middle)}"))
    return drawn


def overview_pictures(result: ScoreResult, method: MethodScore) -> list[Picture]:
    """Draw maximum projections of the heart region from the front and the feet, with a method's lesions outlined.

    Only voxels of the heart and the lesions enter, so that sternum and spine do not hide the heart.
    """
    scan, heart, lesions = result.scan, result.region.mask, method.lesion_set
    box = box_around(heart, scan, lesions)
    ids = lesions.id_map[box]
    hu = np.where(heart[box] | (ids != 0), scan.hu[box], WINDOW_HU[0])
    sites = lesions.site_of_ids[ids]
    column_mm, row_mm, slice_mm = scan.image.GetSpacing()
    drawn = []
    for axis, side, spacing_mm in ((1, "front", (column_mm, slice_mm)), (0, "feet", (column_mm, row_mm))):
        rows = slice(None, None, -1 if axis else 1)  # slices are stored from the feet up
        picture, _ = enlarged(hu.max(axis=axis)[rows], spacing_mm)
        for site in (site for site in SITE_COLOURS if site in lesions.columns["site"]):
            draw_outline(picture, (sites == site).any(axis)[rows], SITE_COLOURS[site])
        caption = f"Maximum intensity projection of the heart region, seen from the {side}"
        drawn.append(Picture(as_jpeg(picture), caption))
    return drawn


def method_pictures(result: ScoreResult, method: MethodScore) -> list[Picture]:
    """Draw the slices with a method's lesions from head to feet; if too many, those in which most listed lesions are
    largest."""
    scan, heart, lesions = result.scan, result.region.mask, method.lesion_set
    box = box_around(heart, scan, lesions)
    listed = listed_lesions(method)
    numbers = {lesion.id: number_of(method, lesion) for lesion in listed}
    if len(listed) < len(lesions.lesions):
        largest = Counter(max(x.components, key=lambda c: c.agatston).slice for x in listed)
        slices = {k for k, _ in largest.most_common(MAX_DRAWN)}
    else:
        slices = {k for lesion in listed for k in lesion.slices}
    drawn = []
    for k in sorted(slices, reverse=True):
        count = sum(c.slice == k for lesion in lesions.lesions for c in lesion.components)
        entries = [(x, c) for x in listed for c in x.components if c.slice == k][:MAX_NAMED]
        names = ", ".join(f"{numbers[x.id]} {lesion_name(method, x)} {c.peak_hu:.0f} HU" for x, c in entries)
        more = f" and {count - len(entries)} more" if count > len(entries) else ""
        jpeg = slice_picture(scan, heart, lesions, k, numbers, result.territory_labels, box)
        drawn.append(Picture(jpeg, f"{place_of(result.scan, k)}: {names}{more}"))
    return drawn


def left_out_pictures(result: ScoreResult, count: int = MAX_DRAWN) -> list[Picture]:
    """The first candidates left out, each with an arrow in the slice with most of it, and the reason.

    count: Number of pictures.
    """
    left_out = result.methods["threshold"].left_out_set
    drawn = []
    for lesion, verdict in left_out_candidates(result.methods["threshold"])[:count]:
        k, jpeg = pointed_at(result, left_out, lesion)
        caption = (
            f"Left out: {lesion.id}, near {verdict.artery.key} · Agatston {lesion.agatston:,.0f} · "
            f"{lesion.peak_hu:,.0f} HU · slice {k} · probability {at_most_99_percent(verdict.probability)}"
        )
        drawn.append(Picture(jpeg, f"{caption}: {verdict.reason}" if verdict.reason else caption))
    return drawn


def pointed_at(result: ScoreResult, lesions: LesionSet, lesion: Lesion) -> tuple[int, bytes]:
    """Return the slice with most of a lesion, and a JPEG of its surroundings there with an arrow to it."""
    scan = result.scan
    size, spacing = scan.hu.shape, scan.image.GetSpacing()
    k = max(lesion.components, key=lambda c: c.agatston).slice
    box = [slice(k, k + 1)]
    places = np.nonzero(lesions.id_map[k] == lesion.id)
    for at, length, mm in zip(places, size[1:], (spacing[1], spacing[0]), strict=True):
        width = min(length, round(_PATCH_MM / mm))
        first = min(max(0, round(float(at.mean()) - width / 2)), length - width)
        box.append(slice(first, first + width))
    return k, slice_picture(scan, result.region.mask, lesions, k, {}, None, tuple(box), lesion.id)


def site_pictures(result: ScoreResult) -> list[Picture]:
    """Draw, for each non-coronary site, the slice with most of its calcium, and all lesions there."""
    if result.record.non_coronary is None:
        return []
    lesions = result.methods["threshold"].outside_set
    components: dict[Site, list[SliceComponent]] = defaultdict(list)
    for lesion in lesions.lesions:
        components[lesion.site] += lesion.components
    slices = set()
    for parts in components.values():
        sums: dict[int, float] = defaultdict(float)
        for c in parts:
            sums[c.slice] += c.area_mm2 * c.weight
        slices.add(max(sums, key=sums.__getitem__))
    drawn = []
    for k in sorted(slices, reverse=True):
        peaks = {site: [c.peak_hu for c in parts if c.slice == k] for site, parts in components.items()}
        names = ", ".join(f"{site.full_name} {max(values):.0f} HU" for site, values in peaks.items() if values)
        jpeg = slice_picture(result.scan, result.region.mask, lesions, k, {}, result.territory_labels)
        drawn.append(Picture(jpeg, f"{place_of(result.scan, k)}: {names}"))
    return drawn


def saliency_picture(result: ScoreResult, estimate: WholeScanEstimate) -> Picture | None:
    """Draw the axial slice with the highest saliency of a whole-scan estimate, as an orange overlay; None if it is 0
    everywhere."""
    if estimate.saliency is None:
        return None
    scan, heart = result.scan, result.region.mask
    values = voxels_of(estimate.saliency)
    highest = float(values.max())
    if not highest > 0:
        return None
    k, j, i = (int(n) for n in np.unravel_index(int(values.argmax()), values.shape))
    rows, columns = box_around(heart, scan, result.methods["threshold"].lesion_set)[1:]
    # The maximum may lie outside the heart.
    box = (slice(min(rows.start, j), max(rows.stop, j + 1)), slice(min(columns.start, i), max(columns.stop, i + 1)))
    area = (k, *box)
    spacing = scan.image.GetSpacing()[:2]
    picture, _ = enlarged(scan.hu[area], spacing)
    spot = [max(1, round(SALIENCY_SPOT_MM / mm)) for mm in spacing[::-1]]
    overlay = ndimage.maximum_filter(values[area], spot) * (SALIENCY_OPACITY * 255 / highest)
    opacity = Image.fromarray(np.rint(overlay).astype(np.uint8))
    picture.paste(SALIENCY_COLOUR, mask=opacity.resize(picture.size, Image.Resampling.BICUBIC))
    draw_outline(picture, heart[area], HEART_COLOUR)
    return Picture(
        as_jpeg(picture),
        f"Slice {k} has the highest saliency. Orange marks where a change would affect the total most. It does not "
        "outline calcium; where it lies on bone or lung, do not rely on the estimate.",
    )
