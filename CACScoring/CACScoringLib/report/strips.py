"""Strips of the arteries from their ostium, with the lesions drawn in place."""

from __future__ import annotations

from ..core.labels import MAIN_ARTERIES, SITE_COLOURS, Artery
from ..record.features import ArteryFeatures, LesionFeatures
from ..scoring.lesions import Lesion
from ..scoring.methods import MethodResult

WIDTH, ROW_HEIGHT = 460, 34
_X_MIN, _X_MAX = 34.0, 452.0
_MIDDLE, _VESSEL_HEIGHT = 20.0, 5.0
_MIN_WIDTH, _NUMBER_WIDTH = 3.0, 11.0
_TICK_MM = 20


def artery_strips(method: MethodResult) -> str:
    """Return an SVG of the arteries with calcium whose course is known, on one scale in mm; empty without any.

    The proximal third is dark. A lesion is as long as in the scan, and the taller the denser.
    """
    features = method.features
    if features is None:
        return ""
    arteries = {a: f for a in MAIN_ARTERIES if (f := features.arteries.get(a.key)) and f.last_mm is not None}
    by_id = {f.id: f for f in features.lesions if f.ostium_mm is not None}
    lesions = [(lesion, by_id[lesion.id]) for lesion in method.lesions.lesions if lesion.id in by_id]
    placed = {artery: [pair for pair in lesions if pair[0].artery == artery] for artery in arteries}
    ends_mm = [f.last_mm or 0 for f in arteries.values()]
    ends_mm += [_ends_mm(f)[1] for part in placed.values() for _, f in part]
    if not ends_mm:
        return ""
    scale = (_X_MAX - _X_MIN) / max(ends_mm)
    rows = [_strip(n, artery, arteries[artery], placed[artery], scale) for n, artery in enumerate(arteries)]
    height = ROW_HEIGHT * len(rows) + 16
    ticks = "".join(
        f'<text x="{_X_MIN + mm * scale:.1f}" y="{height - 3}" font-size="11" text-anchor="middle" '
        f'fill="currentColor">{mm}{" mm" if mm == 0 else ""}</text>'
        for mm in range(0, int(max(ends_mm)) + 1, _TICK_MM)
    )
    return (
        f'<svg role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}"><title>Lesions along their arteries, mm from the ostium</title>{"".join(rows)}{ticks}</svg>'
    )


def _strip(
    row: int, artery: Artery, features: ArteryFeatures, lesions: list[tuple[Lesion, LesionFeatures]], scale: float
) -> str:
    middle = row * ROW_HEIGHT + _MIDDLE
    first, last = (_X_MIN + scale * (mm or 0) for mm in (features.first_mm, features.last_mm))
    third = last if artery == Artery.LM else first + (last - first) / 3
    parts = [
        f'<text x="0" y="{middle + 4:.1f}" font-size="12" fill="currentColor">{artery.key}</text>',
        _box(first, last, middle, _VESSEL_HEIGHT, "#b9c4c9"),
        _box(first, third, middle, _VESSEL_HEIGHT, "#7d8d95"),
    ]
    colour, numbered_to = f"rgb{SITE_COLOURS[artery]}", 0.0
    for lesion, place in sorted(lesions, key=lambda pair: pair[1].ostium_mm or 0):
        start_mm, end_mm = _ends_mm(place)
        x, end = _X_MIN + scale * start_mm, _X_MIN + scale * end_mm
        title = f"Lesion {lesion.id}: {place.ostium_mm:.0f} mm from the ostium, {place.length_mm:.0f} mm long"
        box = _box(x, max(end, x + _MIN_WIDTH), middle, 5 + 3 * place.mean_weight, colour, ' stroke="#12283d"')
        parts.append(f"<g><title>{title}</title>{box}</g>")
        if (centre := (x + end) / 2) >= numbered_to:
            numbered_to = centre + _NUMBER_WIDTH
            parts.append(
                f'<text x="{centre:.1f}" y="{middle - 10:.1f}" font-size="10" text-anchor="middle" '
                f'fill="currentColor">{lesion.id}</text>'
            )
    return "".join(parts)


def _ends_mm(features: LesionFeatures) -> tuple[float, float]:
    middle_mm, length_mm = features.ostium_mm or 0.0, features.length_mm or 0.0
    return max(0.0, middle_mm - length_mm / 2), middle_mm + length_mm / 2


def _box(first: float, last: float, middle: float, height: float, fill: str, more: str = "") -> str:
    return (
        f'<rect x="{first:.1f}" y="{middle - height / 2:.1f}" width="{last - first:.1f}" height="{height:.1f}" '
        f'rx="2" fill="{fill}"{more}/>'
    )
